"""Dropout on the CPU: shares, scale, gradient and seed."""

from __future__ import annotations

import math

import pytest
import torch
from fairseq.modules import FairseqDropout

import dual_fairseq
from dual_fairseq.compat.dropout import fairseq_forward

dual_fairseq.register()


def dropout(p: float) -> FairseqDropout:
    return FairseqDropout(p).train()


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 1e-3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_elements_as_asked_are_dropped_and_the_rest_is_scaled(p, dtype):
    x = torch.full((1001, 401), 3.0, dtype=dtype)
    y = dropout(p)(x)
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / x.numel()) + 2**-17
    assert torch.allclose(y[y != 0].float(), torch.tensor(3 / (1 - p)), rtol=1e-3 if dtype == torch.float32 else 1e-2)
    assert x.eq(3).all()


def test_elements_and_calls_are_independent():
    masks = torch.stack([dropout(0.5)(torch.ones(4096)) / 2 for _ in range(64)]).double()
    bound = 5 * 0.5 / math.sqrt(64)
    assert (masks.mean(0) - 0.5).abs().max() < bound  # no element is always dropped, whatever its place in a word
    for shift in range(1, 9):  # neighbours, four of which come from one random word
        both = (masks[:, :-shift] * masks[:, shift:]).mean()
        assert abs(both - 0.25) < 5 * 0.25 / math.sqrt(64 * 4096 / 4)


def test_the_gradient_has_the_mask_of_the_output():
    x = torch.ones(33, 7, dtype=torch.float64, requires_grad=True)
    y = dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y) and 0 < (y == 0).sum() < y.numel()


def test_a_seed_gives_the_same_masks_again():
    x, module = torch.ones(10, 13), dropout(0.4)
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(torch.stack([module(x), module(x)]))
    assert torch.equal(*drawn) and not torch.equal(*drawn[0])


def test_no_dropout_where_fairseq_has_none_and_nothing_left_where_it_drops_everything():
    x = torch.ones(5, 0, 3), torch.ones(5)
    assert FairseqDropout(0.5).eval()(x[1]) is x[1] and dropout(0)(x[1]) is x[1]
    assert dropout(0.5)(x[0]).shape == (5, 0, 3)
    assert torch.equal(dropout(1)(x[1]), torch.zeros(5))
    kept = FairseqDropout(0.5, module_name="any").eval()
    kept.make_generation_fast_("any", retain_dropout=True)
    torch.manual_seed(1)
    assert (kept(torch.ones(1000)) == 0).any()


def test_another_device_has_pytorch_s_own():
    x = torch.ones(3, device="meta")
    assert dropout(0.5)(x).device == fairseq_forward(dropout(0.5), x).device == x.device
