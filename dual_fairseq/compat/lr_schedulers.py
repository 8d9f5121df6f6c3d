"""A run that goes on may have another ``--lr-scheduler``, which then begins anew at the run's number of updates."""

from __future__ import annotations

from typing import Any

from fairseq.optim.lr_scheduler import FairseqLRScheduler
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule

# fairseq gives a scheduler whatever state the last one has left: some have no "best", or one that is no number.
_load_plateau = ReduceLROnPlateauLRSchedule.load_state_dict


def load_state_dict(self, state_dict: dict[str, Any]) -> None:
    """As fairseq's, where there is something to load."""
    self.best = state_dict.get("best", self.best)


def load_plateau(self, state_dict: dict[str, Any]) -> None:
    """As fairseq's, of a state that is its own."""
    if "last_epoch" in state_dict:
        _load_plateau(self, state_dict)


FairseqLRScheduler.load_state_dict = load_state_dict
ReduceLROnPlateauLRSchedule.load_state_dict = load_plateau
