"""Matrix products on AMD CPUs: when they are used, that nothing is lost, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from fairseq.tasks.fairseq_task import FairseqTask
from torch.nn import functional as F

import dual_fairseq
from dual_fairseq.compat import matmul
from dual_fairseq.plugin import output_layer

dual_fairseq.register()


@pytest.fixture
def gaining(monkeypatch) -> None:
    """As if this machine had such a CPU."""
    if not hasattr(matmul._setting(), "fp32_precision"):
        pytest.skip("torch < 2.9")
    monkeypatch.setattr(matmul, "gains", lambda: True)


def precision() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def batch(source: int, target: int = 1, device: str = "cpu") -> dict[str, dict[str, torch.Tensor]]:
    ones = torch.ones(2, device=device)
    return {"net_input": {"src_tokens": ones.expand(source, 2).t(), "src_lengths": ones,
                          "prev_output_tokens": ones.expand(target, 2).t()}}  # fmt: skip


def step() -> list[torch.Tensor]:
    """A loss and its gradients: products of two and three dimensions, and attention."""
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(*shape, generator=generator).div(6).requires_grad_() for shape in ((4, 24, 32), (32, 32)))
    y = F.scaled_dot_product_attention(*(F.linear(x, w).view(4, 1, 24, 32) for _ in range(3)))
    loss = (y.view(-1, 32) @ w).square().mean()
    loss.backward()
    return [loss.detach(), x.grad, w.grad]


def test_a_step_is_the_same_within_rounding(gaining):
    with matmul.products(batch(24)):
        thirds = torch.ones(64, 64) / 3
        if not matmul.is_exact(thirds @ thirds, thirds, thirds):
            pytest.skip("this CPU multiplies in bfloat16 here")
        ours = step()
    for mine, usual in zip(ours, step(), strict=True):
        assert torch.allclose(mine, usual, rtol=1e-5, atol=1e-8)


LONG = matmul.LONGEST + 1


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (batch(matmul.LONGEST, 3), "bf16"), (batch(3, matmul.LONGEST), "bf16"), (batch(3, LONG), "none"),
        (batch(LONG, 3), "none"), (batch(3, 3, "meta"), "none"), ({}, "none"), (None, "none"),
    ],
    ids=["short", "short-target", "long-target", "long-source", "another-device", "another-task", "no-dictionary"],
)  # fmt: skip
def test_training_on_the_cpu_uses_them_for_short_sentences(sample, expected, gaining, monkeypatch):
    seen = []
    monkeypatch.setattr(matmul, "fairseq_train_step", lambda self, sample, *rest: seen.append((precision(), *rest)))
    FairseqTask.train_step(None, sample, "model", "criterion")
    assert seen == [(expected, "model", "criterion")] and precision() == "none"


def test_scoring_uses_them_too(gaining, monkeypatch):
    seen = []
    monkeypatch.setattr(output_layer, "_batch_log_probs", lambda *_: seen.append(precision()))
    for sample in (batch(3, 4), batch(3, LONG)):
        with torch.no_grad():
            output_layer.batch_log_probs(None, sample, 1)
        output_layer.batch_log_probs(None, sample, 1)  # with gradients, train_step decides
    assert seen == ["bf16", "none", "none", "none"]


def test_what_was_set_before_is_set_after_an_error(gaining):
    with pytest.raises(ZeroDivisionError), matmul.products(batch(1)):
        raise ZeroDivisionError
    assert precision() == "none" and torch.backends.cuda.flash_sdp_enabled()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("value", ["ieee", "tf32"])
@pytest.mark.parametrize("place", [torch.backends, matmul._setting()], ids=["all", "onednn"])
def test_a_precision_that_the_user_has_set_is_kept(place, value, gaining, monkeypatch):
    monkeypatch.setattr(matmul, "gains", lambda: 1 / 0)
    place.fp32_precision = value
    try:
        with matmul.products(batch(1)):
            assert precision() == value and torch.backends.cuda.flash_sdp_enabled()
    finally:
        place.fp32_precision = "none"


def test_products_in_bfloat16_are_not_exact():
    a = torch.linspace(1, 2, 64 * 64).view(64, 64)
    assert matmul.is_exact(a @ a, a, a)
    assert not matmul.is_exact((a.bfloat16() @ a.bfloat16()).float(), a, a)
    assert not matmul.is_exact(a.bfloat16().float() @ a, a, a)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX2"),
        (matmul.Path, "read_text", lambda *_, **__: "vendor_id : GenuineIntel"),
        (matmul, "is_exact", lambda *_: False),
        (matmul, "_setting", lambda: None),
    ],
    ids=["without-avx512", "intel", "not-exact", "old-torch"],
)
def test_elsewhere_nothing_changes(place, name, value, monkeypatch):
    """On a machine without such a CPU, the test shows only that nothing fails."""
    setting = matmul._setting()
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    monkeypatch.setattr(place, name, value)
    assert not matmul.gains.__wrapped__()
    assert getattr(setting, "fp32_precision", "none") == "none"
