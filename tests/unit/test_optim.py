"""``torch_adam`` makes the updates of fairseq's ``adam``, and a run goes on from its state exactly."""

from __future__ import annotations

import copy
from argparse import Namespace

import pytest
import torch
from fairseq.optim import build_optimizer
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer
from helpers import configuration

from dual_fairseq.plugin.optim import TorchAdamConfig

EPS = 1e-3  # large, so that its place in the formula is felt
UPDATES = 20
ROUNDING = 1e-6  # of float32 numbers up to 2, after so many updates


def of_optimizer(name: str, *arguments: object):
    adam = ("--optimizer", name, "--adam-betas", "(0.9, 0.98)", "--adam-eps", EPS, "--weight-decay", 0.05, "--lr", 0.01)
    return configuration("data", "--arch", "transformer", *adam, *arguments)


def parameters(dtype=torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator).to(dtype)) for shape in ((4, 5), (3,), (1, 2))]


def updates(optimizer, rows: list[torch.nn.Parameter], numbers) -> None:
    """Updates whose gradients depend on their number only; the learning rate changes, as schedules make it."""
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        for p in rows:
            p.grad = (torch.randn(p.shape, generator=generator) * 0.01).to(p.dtype)
        if isinstance(optimizer, FP16Optimizer):
            optimizer._needs_sync = True
        optimizer.set_lr(0.01 / (number + 1))
        optimizer.step()


def largest_difference(rows, others) -> float:
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(rows, others, strict=True))


@pytest.mark.parametrize("decay", [0, 0.05])
def test_updates_are_those_of_fairseqs_adam(decay):
    results = {}
    for name in ("adam", "torch_adam"):
        rows = parameters()
        updates(build_optimizer(of_optimizer(name, "--weight-decay", decay).optimizer, rows), rows, range(UPDATES))
        results[name] = rows
    assert largest_difference(results["adam"], parameters()) > 1e-3, "nothing was learnt"
    assert largest_difference(results["torch_adam"], results["adam"]) < ROUNDING

    plain = parameters()
    without = torch.optim.AdamW(plain, lr=0.01, betas=(0.9, 0.98), eps=EPS, weight_decay=decay)
    without.zero_grad()
    without.set_lr = lambda lr: [group.update(lr=lr) for group in without.param_groups]
    updates(without, plain, range(UPDATES))
    assert largest_difference(plain, results["adam"]) > 1e-5, "the place of epsilon is not felt"


def test_a_run_goes_on_from_its_state_exactly_and_with_the_options_given_now():
    cfg = of_optimizer("torch_adam").optimizer
    unbroken, broken = parameters(), parameters()
    updates(build_optimizer(cfg, unbroken), unbroken, range(UPDATES))
    first = build_optimizer(cfg, broken)
    updates(first, broken, range(7))
    state = copy.deepcopy(first.state_dict())
    second = build_optimizer(cfg, broken)
    second.load_state_dict(state, {"lr": 0.5, "eps": EPS})
    assert second.get_lr() == 0.5 and second.param_groups[0]["eps"] == EPS
    updates(second, broken, range(7, UPDATES))
    assert largest_difference(unbroken, broken) == 0


@pytest.mark.parametrize("flag", ["--fp16", "--bf16"])
def test_half_precision_runs_make_the_updates_of_fairseqs_adam(flag):
    dtype = torch.float16 if flag == "--fp16" else torch.bfloat16
    results = {}
    for name in ("adam", "torch_adam"):
        rows = parameters(dtype)
        cfg = of_optimizer(name, flag, "--fp16-no-flatten-grads")
        optimizer = FP16Optimizer.build_optimizer(cfg, rows)
        updates(optimizer, rows, range(UPDATES))
        results[name] = [p.detach() for p in optimizer.fp32_params]
        assert largest_difference(rows, [p.to(dtype) for p in optimizer.fp32_params]) == 0
    assert largest_difference(results["torch_adam"], results["adam"]) < ROUNDING


def test_flat_parameters_are_supported_and_half_precision_states_refused():
    rows = parameters()
    optimizer = build_optimizer(of_optimizer("torch_adam").optimizer, rows)
    assert optimizer.supports_flat_params and not optimizer.supports_memory_efficient_fp16
    with pytest.raises(ValueError, match="Unsupported optimizer: TorchAdam"):
        MemoryEfficientFP16Optimizer(of_optimizer("torch_adam", "--fp16"), rows, optimizer)


def test_its_options_are_those_of_adam():
    kept = {k: v for k, v in vars(Namespace(**of_optimizer("torch_adam").optimizer)).items() if k != "_name"}
    theirs = of_optimizer("adam").optimizer
    assert kept == {name: theirs[name] for name in kept} and {"adam_betas", "adam_eps", "weight_decay"} <= kept.keys()
    defaults, fairseqs = vars(TorchAdamConfig()), vars(FairseqAdamConfig())
    assert defaults == {name: fairseqs[name] for name in defaults}


def test_the_update_is_one_fused_kernel():
    optimizer = build_optimizer(of_optimizer("torch_adam").optimizer, parameters())
    assert all(group["fused"] for group in optimizer.optimizer.param_groups)
