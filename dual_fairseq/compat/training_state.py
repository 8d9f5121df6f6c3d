"""A run goes on from the state of another optimizer, scheduler or meters only if it is like this run's own."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from fairseq import trainer as fairseq_trainer
from fairseq.logging import meters, metrics
from fairseq.optim.fairseq_optimizer import FairseqOptimizer

from ..common.errors import UserError, first_line

# PyTorch looks at the number of parameters alone. It takes over all else of a damaged state, and stumbles over it in
# the middle of the first update. fairseq makes a meter of whatever name stands in a checkpoint.
_load_state_dict = FairseqOptimizer.load_state_dict
_build_optimizer = fairseq_trainer.Trainer._build_optimizer
_load_metrics = metrics.load_state_dict
_METERS = {kind.__name__: kind for kind in meters.Meter.__subclasses__() if hasattr(meters, kind.__name__)}


class UnfitState(ValueError):
    """A state is not one of this run's optimizer, scheduler or meters; the message says where."""


def check_like(found: Any, own: Any, where: str) -> None:
    """See that a value of a state can stand in place of this run's own: a number for a number, and so on.

    Args:
        found, own: the two values. The names of a record may be more than ours; a switch may be missing.
        where: its place, for the message.

    Raises:
        UnfitState: it cannot.
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
    """See that an optimizer can go on from a state.

    Args:
        found: the state, in PyTorch's form.
        optimizer: over this run's parameters.

    Raises:
        UnfitState: it cannot.
    """
    groups = optimizer.state_dict()["param_groups"]
    own = [{name: value for name, value in group.items() if value is not None} for group in groups]
    check_like(found, {"state": {}, "param_groups": own}, "last_optimizer_state")
    numbers = [number for group in found["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = dict(zip(numbers, (tuple(parameter.shape) for parameter in parameters), strict=True))
    kinds_of: dict[int, dict[str, set[str]]] = {}  # by the number of a parameter's dimensions
    for number, kept in found["state"].items():
        where = f"last_optimizer_state.state[{number}]"
        if number not in shapes or not isinstance(kept, dict):
            raise UnfitState(f"{where} belongs to no parameter")
        kinds = {name: _kinds(value, shapes[number]) for name, value in kept.items()}
        others = kinds_of.setdefault(len(shapes[number]), kinds)
        if kinds.keys() != others.keys() or not all(kinds[name] & others[name] for name in kinds):
            raise UnfitState(f"{where} is not like its parameter, or not like the others")
        others |= {name: kinds[name] & others[name] for name in kinds}


def _kinds(value: Any, shape: tuple[int, ...]) -> set[str]:
    """What a value may be that an optimizer keeps of a parameter of this shape; empty where that is nothing."""
    if value is None:
        return {"none"}
    if not isinstance(value, torch.Tensor):
        return {"number"} if _is_number(value) and value >= 0 else set()
    # Adafactor keeps what belongs to rows and to columns
    known = {"each": shape, "rows": shape[:-1], "columns": shape[:-2] + shape[-1:], "scalar": ()}
    return {name for name, known_shape in known.items() if tuple(value.shape) == known_shape and value.isfinite().all()}


def load_state_dict(self, state_dict: Any, optimizer_overrides: Any = None) -> None:
    """As fairseq's, for every optimizer that PyTorch's own function loads.

    Raises:
        UnfitState: the state is of another optimizer or damaged.
    """
    if type(self.optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict:
        check_optimizer_state(state_dict, self.optimizer)
    _load_state_dict(self, state_dict, optimizer_overrides)


def build_optimizer(self) -> None:
    """As fairseq's, which builds the scheduler, too: after another one it begins anew at the number of updates.

    Raises:
        UserError: one of them is missing or cannot be built.
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
        if state.keys() >= own.keys():  # fairseq hands over whatever state another scheduler has left
            check_like(state, own, "lr_scheduler_state")
            load(state)

    self._lr_scheduler.load_state_dict = load_checked


def load_metrics(state_dict: Any) -> None:
    """As fairseq's, for its own meters.

    Raises:
        UnfitState: the state is damaged.
    """
    if not isinstance(state_dict, dict):
        raise UnfitState("metrics is not a record")
    for name, entries in state_dict.items():
        found = [_meter(entry) for entry in entries] if isinstance(entries, list) else [None]
        names = {meter[0] for meter in found if meter is not None}
        own = {(key, type(meter).__name__) for key, meter in metrics._aggregators.get(name, {}).items()}
        if len(names) < len(found) or not own <= set(found):
            raise UnfitState(f"metrics.{name} is not a list of this run's meters")
    _load_metrics(state_dict)


def _meter(entry: Any) -> tuple[str, str] | None:
    """Name and class of a meter in a checkpoint; None where it is no meter."""
    if not (isinstance(entry, tuple) and list(map(type, entry)) == [int, str, str, dict] and entry[2] in _METERS):
        return None
    _, key, kind, state = entry
    numbers = all(value is None or isinstance(value, Real | torch.Tensor | np.ndarray) for value in state.values())
    return (key, kind) if numbers and state.keys() == _METERS[kind]().state_dict().keys() else None


metrics.load_state_dict = load_metrics
FairseqOptimizer.load_state_dict = load_state_dict
fairseq_trainer.Trainer._build_optimizer = build_optimizer
