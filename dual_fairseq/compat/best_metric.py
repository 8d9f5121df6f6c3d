"""A ``--best-checkpoint-metric`` that is never logged gives a one-line error before training, not after an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairseq import checkpoint_utils
from fairseq.logging import metrics

from ..common.errors import UserError
from .batches import check_batches

_SIZES = ("bsz", "wpb", "wps", "ups")  # batch sizes, and speed
_load_checkpoint = checkpoint_utils.load_checkpoint


def load_checkpoint(cfg, trainer, **passthrough_args):
    """Like fairseq's function, the last step before training; one validation batch shows which metrics are logged.

    Raises:
        UserError: the metric is not logged.
    """
    loaded = _load_checkpoint(cfg, trainer, **passthrough_args)
    data = trainer.cfg.dataset
    if cfg.best_checkpoint_metric != "loss" and not data.disable_validation:  # every criterion logs its loss
        subset = "valid" if data.combine_valid_subsets else data.valid_subset.split(",")[0]
        batch = small_batch(trainer.get_valid_iterator(subset))
        with metrics.aggregate(new_root=True) as logged:
            trainer.valid_step(batch)
        check_metric(cfg.best_checkpoint_metric, logged.get_smoothed_values())
    return loaded


def small_batch(batches: Any) -> Any:
    """The first two sentences of fairseq's first batch, as a batch.

    Raises:
        UserError: there is no batch.
    """
    check_batches(batches)
    return batch_of(batches, batches.frozen_batches[0][:2])


def batch_of(batches: Any, indices: Iterable[int]) -> Any:
    """Sentences of the data that fairseq's batches are made of, as a batch."""
    return batches.collate_fn([batches.dataset[i] for i in indices])


def check_metric(metric: str, logged: Iterable[str]) -> None:
    """Raises UserError if the metric is not logged."""
    names = sorted(name for name in logged if not name.startswith("_") and name not in _SIZES)
    if metric not in names:
        hint = "--eval-bleu, or " if metric.startswith(("bleu", "accuracy")) else ""
        raise UserError(f"--best-checkpoint-metric {metric}: is not logged; give {hint}one of {', '.join(names)}")


checkpoint_utils.load_checkpoint = load_checkpoint
