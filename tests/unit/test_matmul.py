"""Matrix products on AMD CPUs: when they are used, that nothing is lost, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from fairseq.tasks.fairseq_task import FairseqTask
from torch.nn import functional as F

import dual_fairseq
from dual_fairseq.compat import matmul

dual_fairseq.register()


@pytest.fixture
def gaining(monkeypatch) -> None:
    """As if this machine had such a CPU."""
    monkeypatch.setattr(matmul, "gains", lambda: True)


def precision() -> str:
    return torch.get_float32_matmul_precision()


def step() -> list[torch.Tensor]:
    """A loss and its gradients: products of two and three dimensions, and attention."""
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(*shape, generator=generator).div(6).requires_grad_() for shape in ((4, 24, 32), (32, 32)))
    y = F.scaled_dot_product_attention(*(F.linear(x, w).view(4, 1, 24, 32) for _ in range(3)))
    loss = (y.view(-1, 32) @ w).square().mean()
    loss.backward()
    return [loss.detach(), x.grad, w.grad]


def test_a_step_is_the_same_within_rounding(gaining):
    with matmul.products(24):
        thirds = torch.ones(64, 64) / 3
        if not matmul.is_exact(thirds @ thirds, thirds):
            pytest.skip("this CPU multiplies in bfloat16 here")
        ours = step()
    for mine, usual in zip(ours, step(), strict=True):
        assert torch.allclose(mine, usual, rtol=1e-5, atol=1e-8)


def test_training_and_only_training_of_short_sentences_uses_them(gaining, monkeypatch):
    seen = []
    monkeypatch.setattr(matmul, "fairseq_train_step", lambda self, sample, *rest: seen.append((precision(), *rest)))
    for length in (matmul.LONGEST, matmul.LONGEST + 1):
        tokens = {
            "src_tokens": torch.ones(2, 3),
            "src_lengths": torch.ones(2),
            "prev_output_tokens": torch.ones(2, length),
        }
        FairseqTask.train_step(None, {"net_input": tokens}, "model", "criterion")
    FairseqTask.train_step(None, {}, "model")  # a batch of another task
    assert seen == [("medium", "model", "criterion"), ("highest", "model", "criterion"), ("highest", "model")]
    assert precision() == "highest"


def test_what_was_set_before_is_set_after_an_error(gaining):
    with pytest.raises(ZeroDivisionError), matmul.products(1):
        raise ZeroDivisionError
    assert precision() == "highest" and torch.backends.cuda.flash_sdp_enabled()


def test_a_precision_that_the_user_has_set_is_kept(gaining):
    torch.set_float32_matmul_precision("high")
    try:
        with matmul.products(1):
            assert precision() == "high" and torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_products_in_bfloat16_are_not_exact():
    a = torch.linspace(1, 2, 64 * 64).view(64, 64)
    assert matmul.is_exact(a @ a, a)
    assert not matmul.is_exact((a.bfloat16() @ a.bfloat16()).float(), a)
    assert not matmul.is_exact(a.bfloat16().float() @ a, a)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (torch.cuda, "is_available", lambda: True),
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX2"),
        (matmul.Path, "read_text", lambda *_, **__: "vendor_id : GenuineIntel"),
        (matmul, "is_exact", lambda *_: False),
    ],
    ids=["gpu", "without-avx512", "intel", "not-exact"],
)
def test_elsewhere_nothing_changes(place, name, value, monkeypatch):
    """On a machine without such a CPU, the test shows only that nothing fails."""
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    monkeypatch.setattr(place, name, value)
    assert not matmul.gains.__wrapped__()
