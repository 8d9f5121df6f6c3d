"""Whatever stands in the state of a training, it is taken over whole or refused before an update."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq.logging import metrics
from fairseq.optim.adafactor import Adafactor
from fairseq.optim.adam import Adam
from fairseq.optim.nag import NAG

from dual_fairseq.compat.training_state import UnfitState, check_like, check_optimizer_state, load_metrics

VALUES = [None, True, 0, -7, 1.5, 10**400, float("nan"), float("inf"), "text", [], ["x", 1], {}, {"x": 1},
          torch.zeros(3), torch.tensor(float("nan"))]  # fmt: skip
OPTIMIZERS = {
    "adam": lambda parameters: Adam(parameters, lr=0.1, amsgrad=True),
    "nag": lambda parameters: NAG(parameters, lr=0.1, momentum=0.9),
    "adafactor": lambda parameters: Adafactor(parameters, lr=0.1, relative_step=False, beta1=0.9),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
}


def trained(build):
    """An optimizer after one update of four parameters."""
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.nn.Parameter(torch.rand(shape, generator=generator)) for shape in ((2, 3), (4, 3), (5,), (6,))]
    optimizer = build(parameters)
    update(optimizer)
    return optimizer


def update(optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def places(state, path=()):
    yield path
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for name, value in items:
        yield from places(value, (*path, name))


def replaced(state, path, value):
    if not path:
        return value
    again = copy.deepcopy(state)
    place = again
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return again


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_goes_on_or_refuses(build):
    state = trained(build).state_dict()
    refused = 0
    check_optimizer_state(copy.deepcopy(state), trained(build))
    for path in places(state):
        if path[-2:-1] == ("params",) or path[-1:] in NOT_USED:
            continue
        for value in VALUES:
            optimizer, damaged = trained(build), replaced(state, path, value)
            try:
                check_optimizer_state(damaged, optimizer)
            except UnfitState as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 200
            else:
                optimizer.load_state_dict(damaged)
                update(optimizer)
    assert refused > 100


# PyTorch's own switches of speed
NOT_USED = {(name,) for name in ("foreach", "fused", "differentiable", "maximize", "capturable")}


def test_another_optimizers_state_is_refused():
    for own, build in OPTIMIZERS.items():
        for other, build_other in OPTIMIZERS.items():
            if own != other and own != "sgd":
                with pytest.raises(UnfitState):
                    check_optimizer_state(trained(build_other).state_dict(), trained(build))
    more = Adam([torch.nn.Parameter(torch.zeros(2, 3))], lr=0.1)
    with pytest.raises(UnfitState, match="params is not like this run's"):
        check_optimizer_state(trained(OPTIMIZERS["adam"]).state_dict(), more)


def test_a_schedulers_state():
    check_like({"best": None}, {"best": None}, "s")
    check_like({"best": 1.5, "more": "x"}, {"best": None}, "s")
    check_like({"lr": torch.tensor(0.1)}, {"lr": 0.5}, "s")
    for found in ({}, {"best": "x"}, {"best": float("nan")}, [], None):
        with pytest.raises(UnfitState, match=r"^s"):
            check_like(found, {"best": None}, "s")


def test_meters():
    metrics.reset()
    try:
        metrics.log_scalar("loss", 2.0, 3)
        metrics.log_start_time("wall")
        good = metrics.state_dict()
        load_metrics(copy.deepcopy(good))
        (number, name, kind, state), *others = good["default"]
        for entry in (
            None, "x", (), (number, name, kind), (number, name, "OrderedDict", state), (number, name, "bisect", {}),
            (number, name, "Meter", state), (number, name, ["x"], state), (number, 7, kind, state),
            (number, name, kind, {}), (number, name, kind, {**state, "sum": "x"}), (number, others[0][1], kind, state),
        ):  # fmt: skip
            with pytest.raises(UnfitState, match=r"metrics\.default"):
                load_metrics({**good, "default": [entry, *others]})
        for damaged in (None, [], "x", {"default": "x"}, {"default": []}):
            with pytest.raises(UnfitState, match="metrics"):
                load_metrics(damaged)
        load_metrics(good)
    finally:
        metrics.reset()
