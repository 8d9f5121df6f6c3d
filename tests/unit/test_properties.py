"""The mathematics for any lengths, padding, order, λ and clip, against closed forms written out here in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dual_fairseq.plugin import duality, softmax
from dual_fairseq.plugin.dataset import align_rows

SETTINGS = settings(deadline=None, max_examples=60)
nats = st.floats(-10_000, 10_000)
lambdas = st.floats(0, 10)
clips = st.one_of(st.just(0.0), st.floats(1e-3, 20_000))
four = st.tuples(nats, nats, nats, nats)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(2, 9), st.integers(0, 2**31))


def tensors(*columns, grad: tuple[int, ...] = ()):
    """Columns of numbers as float64 tensors, those at ``grad`` with gradients."""
    return [torch.tensor(c, dtype=torch.float64, requires_grad=i in grad) for i, c in enumerate(columns)]


def batch_of(shape, scale: float = 4.0):
    """Scores (B, T, V), targets (B, T) and which tokens count."""
    rows, length, vocab, seed = shape
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, length, vocab, generator=generator, dtype=torch.float64) * scale
    target = torch.randint(vocab, (rows, length), generator=generator)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    return scores, target, mask


# --- the gap and its penalties


@SETTINGS
@given(st.lists(four, min_size=1, max_size=6), lambdas, lambdas, clips)
def test_penalties_are_the_closed_form_and_so_are_their_gradients(rows, lambda_xy, lambda_yx, clip):
    columns = tensors(*zip(*rows, strict=True), grad=(1, 3))
    penalty_xy, penalty_yx, gap = duality.dual_penalties(*columns, lambda_xy, lambda_yx, clip)
    (penalty_xy.sum() + penalty_yx.sum()).backward()
    assert not gap.requires_grad
    for i, (log_p_x, log_p_y_given_x, log_p_y, log_p_x_given_y) in enumerate(rows):
        expected = math.fsum((log_p_x, log_p_y_given_x, -log_p_y, -log_p_x_given_y))
        assert gap[i].item() == pytest.approx(expected, abs=1e-10)
        if clip and abs(expected) > clip:
            square, slope = 2 * clip * abs(expected) - clip**2, math.copysign(2 * clip, expected)
        else:
            square, slope = expected**2, 2 * expected
        assert penalty_xy[i].item() == pytest.approx(lambda_xy * square, rel=1e-9, abs=1e-6)
        assert penalty_yx[i].item() == pytest.approx(lambda_yx * square, rel=1e-9, abs=1e-6)
        assert columns[1].grad[i].item() == pytest.approx(lambda_xy * slope, rel=1e-9, abs=1e-8)
        assert columns[3].grad[i].item() == pytest.approx(-lambda_yx * slope, rel=1e-9, abs=1e-8)


@SETTINGS
@given(st.lists(four, min_size=1, max_size=6), lambdas, lambdas, clips)
def test_the_other_way_round_everything_changes_places(rows, lambda_xy, lambda_yx, clip):
    x, yx, y, xy = tensors(*zip(*rows, strict=True))
    one = duality.dual_penalties(x, yx, y, xy, lambda_xy, lambda_yx, clip)
    other = duality.dual_penalties(y, xy, x, yx, lambda_yx, lambda_xy, clip)
    torch.testing.assert_close(one[2], -other[2], rtol=0, atol=1e-10)
    for a, b in ((one[0], other[1]), (one[1], other[0])):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-6)


@SETTINGS
@given(nats, clips)
def test_the_bounded_square_is_continuous_even_convex_and_never_above_the_square(gap, clip):
    value, opposite = duality.bounded_square(torch.tensor([gap, -gap], dtype=torch.float64), clip).tolist()
    assert value == opposite and 0 <= value <= gap * gap * (1 + 1e-12)
    if clip:
        at = torch.tensor([clip * (1 - 1e-9), clip, clip * (1 + 1e-9)], dtype=torch.float64)
        assert duality.bounded_square(at, clip).tolist() == pytest.approx([clip**2] * 3, rel=1e-8)
        line = torch.linspace(-3 * clip, 3 * clip, 31, dtype=torch.float64)
        slopes = duality.bounded_square(line, clip).diff()
        assert (slopes.diff() >= -1e-9 * clip**2).all()


@SETTINGS
@given(st.lists(nats, min_size=1, max_size=8), lambdas, lambdas)
def test_a_weight_is_negative_where_the_gradient_of_the_loss_turns(gaps, lambda_xy, lambda_yx):
    """d/d log P(y|x) of −log P(y|x) + λ gap² is −1 + 2 λ gap: above 0 the reference is trained to be less likely."""
    zero = [0.0] * len(gaps)
    columns = tensors(gaps, zero, zero, zero, grad=(1, 3))
    penalties = duality.dual_penalties(*columns, lambda_xy, lambda_yx)
    (penalties[0] + penalties[1] - columns[1] - columns[3]).sum().backward()
    turned = torch.maximum(columns[1].grad, columns[3].grad)
    assume(turned.abs().min() > 1e-6)
    assert duality.negative_weights(columns[0].detach(), lambda_xy, lambda_yx).tolist() == (turned > 0).tolist()


@SETTINGS
@given(st.floats(0, 10), st.integers(0, 50), st.integers(0, 50))
def test_lambda_waits_then_grows_evenly_and_stays(value, start, ramp):
    course = [duality.ramped_lambda(value, update, start, ramp) for update in range(start + ramp + 5)]
    assert course[:start] == [0.0] * start
    assert course[start + max(ramp, 1) - 1 :] == [value] * len(course[start + max(ramp, 1) - 1 :])
    steps = [b - a for a, b in pairwise([0.0, *course[start : start + max(ramp, 1)]])]
    assert steps == pytest.approx([value / max(ramp, 1)] * len(steps))


# --- log-probabilities


@SETTINGS
@given(shapes)
def test_log_probabilities_are_log_softmax_whatever_is_added_to_all_scores(shape):
    scores, target, mask = batch_of(shape)
    rows, length, vocab, _ = shape
    log_prob, total = softmax.token_log_probs(scores, target)
    sentences = duality.sentence_log_prob(log_prob, mask)
    for b in range(rows):
        expected = 0.0
        for t in range(length):
            row = scores[b, t].tolist()
            log_z = max(row) + math.log(math.fsum(math.exp(s - max(row)) for s in row))
            assert total[b, t].item() == pytest.approx(math.fsum(s - log_z for s in row), abs=1e-9)
            expected += (row[target[b, t]] - log_z) if mask[b, t] else 0.0
        assert sentences[b].item() == pytest.approx(expected, abs=1e-9)
    shifted, _ = softmax.token_log_probs(scores + 700.0, target)
    torch.testing.assert_close(shifted, log_prob, rtol=0, atol=1e-9)
    assert vocab > 0 and (log_prob <= 1e-12).all()


@SETTINGS
@given(shapes, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_sums_are_float32_and_finite_whatever_the_scores_precision(shape, dtype):
    scores, target, mask = batch_of(shape, scale=30.0)
    scores = scores.to(dtype).requires_grad_()
    log_prob, total = softmax.token_log_probs(scores, target)
    nll = duality.label_smoothed_nll(log_prob, total, mask, 0.1, shape[2])
    assert log_prob.dtype == nll.dtype == torch.float32
    nll.sum().backward()
    assert torch.isfinite(nll).all() and torch.isfinite(scores.grad).all() and scores.grad.dtype == dtype
    exact, _ = softmax.token_log_probs(scores.detach().double(), target)
    torch.testing.assert_close(log_prob.double(), exact, rtol=1e-5, atol=1e-4)


@SETTINGS
@given(shapes, st.floats(0, 0.9))
def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_reference(shape, epsilon):
    scores, target, mask = batch_of(shape)
    vocab = shape[2]
    got = duality.label_smoothed_nll(*softmax.token_log_probs(scores, target), mask, epsilon, vocab)
    reference = torch.full_like(scores, epsilon / (vocab - 1))
    reference.scatter_(-1, target[..., None], 1 - epsilon)
    expected = -(reference * scores.log_softmax(-1)).sum(-1).masked_fill(~mask, 0).sum(-1)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@SETTINGS
@given(shapes, st.integers(0, 5), st.booleans(), st.integers(0, 2**31), st.floats(0, 0.9))
def test_padding_and_order_change_no_sentence(shape, padding, left, order_seed, epsilon):
    scores, target, mask = batch_of(shape)
    plain = duality.label_smoothed_nll(*softmax.token_log_probs(scores, target), mask, epsilon, shape[2])

    sides = (padding, 0) if left else (0, padding)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(order_seed))
    scores = torch.nn.functional.pad(scores, (0, 0, *sides), value=3.0)[order]
    target = torch.nn.functional.pad(target, sides, value=1)[order]
    mask = torch.nn.functional.pad(mask, sides, value=False)[order]
    padded = duality.label_smoothed_nll(*softmax.token_log_probs(scores, target), mask, epsilon, shape[2])
    torch.testing.assert_close(padded, plain[order], rtol=1e-12, atol=1e-12)


@SETTINGS
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 2**31))
def test_rows_are_found_again_in_any_order(ids, seed):
    one = torch.tensor(ids)
    other = one[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))]
    align = align_rows(one, other)
    assert other[align].tolist() == ids and sorted(align.tolist()) == list(range(len(ids)))
