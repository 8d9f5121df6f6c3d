"""A run continues from a saved state of optimizer, scheduler or meters only if it is like the run's own."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from fairseq import trainer as fairseq_trainer
from fairseq.logging import meters, metrics
from fairseq.optim.fairseq_optimizer import FairseqOptimizer

from ..common.errors import UserError, first_line

# PyTorch checks only the number of parameters. It accepts everything else in a damaged state, and fails in the middle
# of the first update. fairseq makes a meter of any name in a checkpoint.
_load_state_dict = FairseqOptimizer.load_state_dict
_build_optimizer = fairseq_trainer.Trainer._build_optimizer
_load_metrics = metrics.load_state_dict
_METERS = {kind.__name__: kind for kind in meters.Meter.__subclasses__() if hasattr(meters, kind.__name__)}


class UnfitState(ValueError):
    """A state does not fit this run's optimizer, scheduler or meters; the message says where."""


def check_like(found: Any, own: Any, where: str) -> None:
    """Check that a value of a state can replace this run's own: a number for a number, and so on.

    Args:
        found, own: the two values. A record in ``found`` may have extra names; a switch may be missing.
        where: the value's place, for the message.

    Raises:
        UnfitState: the value does not fit.
    """
    if isinstance(own, dict):
        fits = isinstance(found, dict)
        for name, value in own.items() if fits else ():
            if name in found:
                check_like(found[name], value, f"{where}.{name}")
            elif not isinstance(value, bool):
                raise UnfitState(f"{where} has no {name}")
    elif isinstance(own, list | tuple):
        fits = isinstance(found, list | tuple) and len(found) == len(own)
        for number, values in enumerate(zip(found, own, strict=True) if fits else ()):
            check_like(*values, f"{where}[{number}]")
    elif own is None or _is_number(own):
        fits = (own is None and found is None) or (
            _is_number(found) and isinstance(found, bool) <= isinstance(own, bool)
        )
    else:
        fits = isinstance(found, type(own))
    if not fits:
        raise UnfitState(f"{where} is not like this run's")


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else None
    return isinstance(value, Real) and value == value and (isinstance(value, float) or abs(value) < 2**63)  # type: ignore[operator]


def check_optimizer_state(found: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimizer can continue from a state.

    Args:
        found: the state, in PyTorch's form.
        optimizer: the optimizer of this run's parameters.

    Raises:
        UnfitState: the state does not fit.
    """
    groups = optimizer.state_dict()["param_groups"]
    own = [{name: value for name, value in group.items() if value is not None} for group in groups]
    check_like(found, {"state": {}, "param_groups": own}, "last_optimizer_state")
    numbers = [number for group in found["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = dict(zip(numbers, (tuple(parameter.shape) for parameter in parameters), strict=True))
    kinds_of: dict[int, dict[str, set[str]]] = {}  # by the number of a parameter's dimensions
    for number, record in found["state"].items():
        where = f"last_optimizer_state.state[{number}]"
        if number not in shapes or not isinstance(record, dict):
            raise UnfitState(f"{where} belongs to no parameter")
        kinds = {name: _kinds(value, shapes[number]) for name, value in record.items()}
        others = kinds_of.setdefault(len(shapes[number]), kinds)
        if kinds.keys() != others.keys() or not all(kinds[name] & others[name] for name in kinds):
            raise UnfitState(f"{where} is not like its parameter, or not like the others")
        others |= {name: kinds[name] & others[name] for name in kinds}


def _kinds(value: Any, shape: tuple[int, ...]) -> set[str]:
    """The possible kinds of a value that an optimizer keeps for a parameter of this shape; empty if there are none."""
    if value is None:
        return {"none"}
    if not isinstance(value, torch.Tensor):
        return {"number"} if _is_number(value) and value >= 0 else set()
    # Adafactor keeps values for rows and for columns
    known = {"each": shape, "rows": shape[:-1], "columns": shape[:-2] + shape[-1:], "scalar": ()}
    return {name for name, known_shape in known.items() if tuple(value.shape) == known_shape and value.isfinite().all()}


def load_state_dict(self, state_dict: Any, optimizer_overrides: Any = None) -> None:
    """Like fairseq's method, with a check for every optimizer that PyTorch's own function loads.

    Raises:
        UnfitState: the state is of another optimizer or damaged.
    """
    if type(self.optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict:
        check_optimizer_state(state_dict, self.optimizer)
    _load_state_dict(self, state_dict, optimizer_overrides)


def build_optimizer(self) -> None:
    """Like fairseq's method, which also builds the scheduler; a new scheduler starts at the number of updates.

    Raises:
        UserError: the optimizer is missing, or the optimizer or scheduler cannot be built.
    """
    if self.cfg.optimizer is None:
        raise UserError("--optimizer: is missing; name one, for example --optimizer adam")
    try:
        _build_optimizer(self)
    except (OSError, RuntimeError):
        raise
    except Exception as error:
        names = f"--optimizer {self.cfg.optimizer._name}, --lr-scheduler {self.cfg.lr_scheduler._name}"
        raise UserError(f"{names}: do not work with these options: {first_line(error)}") from error
    load, own = self._lr_scheduler.load_state_dict, self._lr_scheduler.state_dict()

    def load_checked(state: Any) -> None:
        if not isinstance(state, dict):
            raise UnfitState("lr_scheduler_state is not a record")
        if state.keys() >= own.keys():  # fairseq also hands over the state of another scheduler
            check_like(state, own, "lr_scheduler_state")
            load(state)

    self._lr_scheduler.load_state_dict = load_checked


def load_metrics(state_dict: Any) -> None:
    """Like fairseq's function, but only for fairseq's own meters.

    Raises:
        UnfitState: the state is damaged.
    """
    if not isinstance(state_dict, dict):
        raise UnfitState("metrics is not a record")
    for name, entries in state_dict.items():
        loaded = [_meter(entry) for entry in entries] if isinstance(entries, list) else [None]
        names = {meter[0] for meter in loaded if meter is not None}
        own = {(key, type(meter).__name__) for key, meter in metrics._aggregators.get(name, {}).items()}
        if len(names) < len(loaded) or not own <= set(loaded):
            raise UnfitState(f"metrics.{name} is not a list of this run's meters")
    _load_metrics(state_dict)


def _meter(entry: Any) -> tuple[str, str] | None:
    """Name and class of a meter in a checkpoint; None if the entry is no meter."""
    if not (isinstance(entry, tuple) and list(map(type, entry)) == [int, str, str, dict] and entry[2] in _METERS):
        return None
    _, key, kind, state = entry
    numbers = all(value is None or isinstance(value, Real | torch.Tensor | np.ndarray) for value in state.values())
    return (key, kind) if numbers and state.keys() == _METERS[kind]().state_dict().keys() else None


metrics.load_state_dict = load_metrics
FairseqOptimizer.load_state_dict = load_state_dict
fairseq_trainer.Trainer._build_optimizer = build_optimizer
