"""``--patience`` survives a stop."""

from __future__ import annotations

import os
import sys
from typing import Any

from fairseq import checkpoint_utils
from fairseq import trainer as fairseq_trainer
from fairseq.file_io import PathManager

# When a run stops, fairseq forgets for how long it has not improved. With --patience, a resumed run would train longer
# than an unbroken run.
_PATIENCE = "dual_fairseq_patience"
_load_checkpoint = checkpoint_utils.load_checkpoint
_trainer_save_checkpoint = fairseq_trainer.Trainer.save_checkpoint


def _early_stopping() -> Any:
    """fairseq-train's function, which keeps its count in its own attributes, for every way to start the command."""
    stops = (getattr(sys.modules.get(name), "should_stop_early", None) for name in ("__main__", "fairseq_cli.train"))
    return next((function for function in stops if function is not None), None)


def trainer_save_checkpoint(self, filename: str, extra_state: dict[str, Any]):
    """Like fairseq's method, and saves the count of validations without improvement."""
    counter = _early_stopping()
    if hasattr(counter, "num_runs"):
        extra_state = {**extra_state, _PATIENCE: {"best": counter.best, "num_runs": counter.num_runs}}
    return _trainer_save_checkpoint(self, filename, extra_state)


def load_checkpoint(cfg, trainer, **passthrough_args):
    """Like fairseq's function, and restores this count."""
    last = os.path.join(cfg.save_dir, f"checkpoint_last{trainer.checkpoint_suffix}.pt")
    from_another = cfg.finetune_from_model is not None and not PathManager.exists(last)
    extra_state, epoch_itr = _load_checkpoint(cfg, trainer, **passthrough_args)
    counter = _early_stopping()
    # fairseq does not take the best score of the model that a run starts from, so its count is not taken either
    if counter is not None and not (from_another or cfg.reset_meters or cfg.reset_optimizer):
        vars(counter).update((extra_state or {}).get(_PATIENCE, {}))
    return extra_state, epoch_itr


fairseq_trainer.Trainer.save_checkpoint = trainer_save_checkpoint
checkpoint_utils.load_checkpoint = load_checkpoint
