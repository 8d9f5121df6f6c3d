"""The mathematics against float64 closed forms written out here, apart from the code under test."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_fairseq.plugin import duality, softmax

BATCH, LENGTH, VOCAB = 4, 6, 11


def random_batch(seed: int = 0, batch: int = BATCH, length: int = LENGTH, vocab: int = VOCAB):
    """Logits (B, T, V) in float64, targets (B, T), and a mask of the first 1..T tokens of each sentence."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, length, vocab, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(vocab, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    return logits, target, torch.arange(length) < lengths[:, None]


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    exps = [math.exp(v - top) for v in row]
    return [e / sum(exps) for e in exps]


def closed_form_sentence_log_prob(logits, target, mask) -> list[float]:
    return [
        sum(
            math.log(probabilities(logits[i, t].tolist())[target[i, t]]) for t in range(target.size(1)) if mask[i, t]
        )
        for i in range(target.size(0))
    ]  # fmt: skip


def test_sentence_log_prob_is_the_sum_of_log_softmax_at_the_target():
    logits, target, mask = random_batch()
    log_prob, _ = softmax.token_log_probs(logits, target)
    expected = closed_form_sentence_log_prob(logits, target, mask)
    torch.testing.assert_close(
        duality.sentence_log_prob(log_prob, mask), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_log_probabilities_may_be_given_in_place_of_logits():
    logits, target, _ = random_batch(1)
    for from_logits, from_log_probs in zip(
        softmax.token_log_probs(logits, target),
        softmax.token_log_probs(logits.log_softmax(-1), target),
        strict=True,
    ):
        torch.testing.assert_close(from_logits, from_log_probs, rtol=1e-12, atol=1e-12)


def test_token_log_probs_has_the_gradient_of_finite_differences():
    logits, target, _ = random_batch(2)
    assert torch.autograd.gradcheck(lambda s: softmax.token_log_probs(s, target), (logits.requires_grad_(),))


@pytest.mark.parametrize("block", [1, VOCAB, 3 * VOCAB + 1])
def test_block_size_changes_nothing(monkeypatch, block):
    logits, target, mask = random_batch(3)
    reference = logits.clone().requires_grad_()
    log_prob = reference.log_softmax(-1)
    expected = (log_prob.gather(-1, target[..., None]).squeeze(-1), log_prob.sum(-1))
    (expected[0] * mask + 0.1 * expected[1]).sum().backward()

    monkeypatch.setattr(softmax, "_BLOCK_ELEMENTS", {"cpu": block})
    scores = logits.clone().requires_grad_()
    got = softmax.token_log_probs(scores, target)
    (got[0] * mask + 0.1 * got[1]).sum().backward()
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(scores.grad, reference.grad)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_label_smoothed_nll_is_cross_entropy_against_the_smoothed_distribution(epsilon):
    logits, target, mask = random_batch(4)
    log_prob, total = softmax.token_log_probs(logits, target)
    got = duality.label_smoothed_nll(log_prob, total, mask, epsilon, VOCAB)
    for i in range(BATCH):
        expected = 0.0
        for t in range(LENGTH):
            if mask[i, t]:
                probs = probabilities(logits[i, t].tolist())
                for v, p in enumerate(probs):
                    q = 1 - epsilon if v == target[i, t] else epsilon / (VOCAB - 1)
                    expected -= q * math.log(p)
        assert got[i].item() == pytest.approx(expected, rel=1e-12)


def test_an_impossible_symbol_costs_nothing_without_label_smoothing():
    log_prob, mask = torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool)
    total = torch.full((1, 2), -math.inf)
    assert duality.label_smoothed_nll(log_prob, total, mask, 0.0, VOCAB).item() == 3.0


def test_label_smoothing_is_that_of_fairseq():
    from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

    logits, target, mask = random_batch(5)
    pad = 1
    target = target.masked_fill(~mask, pad)
    mask = target.ne(pad)
    theirs, _ = label_smoothed_nll_loss(logits.log_softmax(-1), target, 0.1, ignore_index=pad)
    log_prob, total = softmax.token_log_probs(logits, target)
    torch.testing.assert_close(duality.label_smoothed_nll(log_prob, total, mask, 0.1, VOCAB).sum(), theirs)


def test_bounded_square_is_huber():
    gap = torch.tensor([-7.0, -2.0, 0.0, 1.5, 3.0, 50.0], dtype=torch.float64, requires_grad=True)
    clip = 3.0
    value = duality.bounded_square(gap, clip)
    expected = [2 * 3 * 7 - 9, 4.0, 0.0, 2.25, 9.0, 2 * 3 * 50 - 9]
    assert value.tolist() == pytest.approx(expected)
    value.sum().backward()
    assert gap.grad.tolist() == pytest.approx([-6.0, -4.0, 0.0, 3.0, 6.0, 6.0])
    assert duality.bounded_square(gap).tolist() == pytest.approx([g * g for g in gap.tolist()])


@pytest.mark.parametrize("clip", [0.0, 2.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_gradient_of_the_whole_loss_is_the_formula(epsilon, clip):
    """dL/d logits = Σ of what reaches each log-probability times its own gradient, in both directions."""
    lambda_xy, lambda_yx = 0.05, 0.2
    xy, y, y_mask = random_batch(6)
    yx, x, x_mask = random_batch(7, length=LENGTH + 1)
    log_px = torch.tensor([-9.0, -4.0, -30.0, -1.0], dtype=torch.float64)
    log_py = torch.tensor([-8.0, -9.0, -2.0, -3.0], dtype=torch.float64)

    leaf_xy, leaf_yx = xy.clone().requires_grad_(), yx.clone().requires_grad_()
    lp_xy, sum_xy = softmax.token_log_probs(leaf_xy, y)
    lp_yx, sum_yx = softmax.token_log_probs(leaf_yx, x)
    penalty_xy, penalty_yx, gap = duality.dual_penalties(
        log_px,
        duality.sentence_log_prob(lp_xy, y_mask),
        log_py,
        duality.sentence_log_prob(lp_yx, x_mask),
        lambda_xy,
        lambda_yx,
        clip,
    )
    nll_xy = duality.label_smoothed_nll(lp_xy, sum_xy, y_mask, epsilon, VOCAB)
    nll_yx = duality.label_smoothed_nll(lp_yx, sum_yx, x_mask, epsilon, VOCAB)
    (nll_xy + nll_yx + penalty_xy + penalty_yx).sum().backward()

    expected_gap = [
        px + pyx - py - pxy
        for px, pyx, py, pxy in zip(
            log_px.tolist(),
            closed_form_sentence_log_prob(xy, y, y_mask),
            log_py.tolist(),
            closed_form_sentence_log_prob(yx, x, x_mask),
            strict=True,
        )
    ]
    assert gap.tolist() == pytest.approx(expected_gap, rel=1e-12)
    for sign, lam, logits, target, mask, leaf in (
        (1, lambda_xy, xy, y, y_mask, leaf_xy),
        (-1, lambda_yx, yx, x, x_mask, leaf_yx),
    ):
        for i in range(BATCH):
            bounded = expected_gap[i] if clip == 0 else max(-clip, min(clip, expected_gap[i]))
            duality_weight = sign * 2 * lam * bounded
            for t in range(target.size(1)):
                probs = probabilities(logits[i, t].tolist())
                for v, p in enumerate(probs):
                    is_target = v == target[i, t]
                    q = 1 - epsilon if is_target else epsilon / (VOCAB - 1)
                    # d(−Σ q log p)/ds = p − q  and  d log p_target/ds = 1[target] − p
                    expected = (p - q) + duality_weight * (float(is_target) - p) if mask[i, t] else 0.0
                    assert leaf.grad[i, t, v].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_each_penalty_trains_its_own_direction_only():
    log_px, log_py = torch.tensor([-3.0]), torch.tensor([-5.0])
    xy = torch.tensor([-2.0], requires_grad=True)
    yx = torch.tensor([-1.0], requires_grad=True)
    penalty_xy, penalty_yx, _ = duality.dual_penalties(log_px, xy, log_py, yx, 0.5, 0.25)
    gap = -3.0 - 2.0 + 5.0 + 1.0
    assert penalty_xy.item() == pytest.approx(0.5 * gap**2)
    assert penalty_yx.item() == pytest.approx(0.25 * gap**2)
    assert torch.autograd.grad(penalty_xy.sum(), [xy, yx], allow_unused=True)[1] is None
    (grad_yx,) = torch.autograd.grad(penalty_yx.sum(), [yx])
    assert grad_yx.item() == pytest.approx(-2 * 0.25 * gap)


def test_negative_weights_are_where_the_gradient_turns_its_sign():
    gap = torch.tensor([-30.0, -6.0, -4.0, 4.0, 6.0, 30.0])
    lambda_xy, lambda_yx = 0.1, 0.01
    # x→y is weighted by −1 + 2·0.1·gap, y→x by −1 − 2·0.01·gap
    turned = [(-1 + 0.2 * g > 0) or (-1 - 0.02 * g > 0) for g in gap.tolist()]
    assert duality.negative_weights(gap, lambda_xy, lambda_yx).tolist() == turned
    assert turned == [False, False, False, False, True, True]
    assert duality.negative_weights(gap, 0.1, 0.1).tolist() == [True, True, False, False, True, True]
    edge = torch.tensor([-2.0, -0.5, 0.5, 2.0])  # 2·0.25·2 = 1 weights by 0, which is not negative
    assert duality.negative_weights(edge, 0.25, 1.5).tolist() == [True, True, False, False]
    assert duality.negative_weights(edge, 1.5, 0.25).tolist() == [False, False, True, True]


def test_ramp():
    value = lambda n, start, ramp: duality.ramped_lambda(0.4, n, start, ramp)  # noqa: E731
    assert [value(n, 0, 0) for n in (0, 1, 100)] == [0.4, 0.4, 0.4]
    assert [value(n, 3, 0) for n in range(5)] == [0, 0, 0, 0.4, 0.4]
    assert duality.ramped_lambda(0.4, 0) == 0.4
    assert [value(n, 2, 4) for n in range(8)] == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(1, 5),
    length=st.integers(1, 8),
    padding=st.integers(0, 5),
    left=st.booleans(),
    order=st.randoms(use_true_random=False),
    lam=st.floats(0, 1),
    clip=st.one_of(st.just(0.0), st.floats(0.1, 100)),
)
def test_padding_and_order_change_nothing(seed, batch, length, padding, left, order, lam, clip):
    """Neither the amount nor the side of padding, nor the order of the sentences, shows in any sentence's terms."""
    xy, y, y_mask = random_batch(seed, batch, length)
    yx, x, x_mask = random_batch(seed + 1, batch, length)
    priors = torch.randn(2, batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20

    def terms(xy, y, y_mask, yx, x, x_mask, priors):
        lp_xy, sum_xy = softmax.token_log_probs(xy, y)
        lp_yx, _ = softmax.token_log_probs(yx, x)
        penalties = duality.dual_penalties(
            priors[0],
            duality.sentence_log_prob(lp_xy, y_mask),
            priors[1],
            duality.sentence_log_prob(lp_yx, x_mask),
            lam,
            lam,
            clip,
        )
        return torch.stack([duality.label_smoothed_nll(lp_xy, sum_xy, y_mask, 0.1, VOCAB), *penalties])

    def pad(scores, tokens, mask):
        side = (padding, 0) if left else (0, padding)
        return (
            torch.nn.functional.pad(scores, (0, 0, *side), value=float(seed % 7)),
            torch.nn.functional.pad(tokens, side, value=1),
            torch.nn.functional.pad(mask, side, value=False),
        )

    expected = terms(xy, y, y_mask, yx, x, x_mask, priors)
    padded = terms(*pad(xy, y, y_mask), *pad(yx, x, x_mask), priors)
    torch.testing.assert_close(padded, expected, rtol=1e-12, atol=1e-12)

    rows = list(range(batch))
    order.shuffle(rows)
    shuffled = terms(*(part[rows] for part in (xy, y, y_mask, yx, x, x_mask)), priors[:, rows])
    torch.testing.assert_close(shuffled, expected[:, rows], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_give_float32_terms_even_for_huge_gaps(dtype):
    logits, target, mask = random_batch(8)
    scores = logits.to(dtype).requires_grad_()
    log_prob, _ = softmax.token_log_probs(scores, target)
    assert log_prob.dtype == torch.float32
    expected, _ = softmax.token_log_probs(scores.detach().double(), target)
    torch.testing.assert_close(log_prob, expected.float())

    sentences = duality.sentence_log_prob(log_prob, mask)
    far = torch.full_like(sentences, -1e4)
    penalty, _, gap = duality.dual_penalties(torch.zeros_like(far), sentences, far, far, 0.01, 0.01, 100.0)
    assert gap.abs().max() > 1e4 and torch.isfinite(penalty).all()
    penalty.sum().backward()
    assert scores.grad.dtype == dtype and torch.isfinite(scores.grad).all()


# --- output layer and loss in one


ROWS, FEATURES = 7, 5


def output_layer(bias: bool = True, dtype=torch.float64, seed: int = 9):
    """Features (N, D), weight (V, D), bias (V,) or None, targets (N,)."""
    generator = torch.Generator().manual_seed(seed)
    features, weight, offset = (
        (torch.randn(*shape, generator=generator, dtype=torch.float64) * 2).to(dtype).requires_grad_()
        for shape in ((ROWS, FEATURES), (VOCAB, FEATURES), (VOCAB,))
    )
    return features, weight, offset if bias else None, torch.randint(VOCAB, (ROWS,), generator=generator)


def gradients_of_a_loss(log_prob, log_prob_sum, leaves):
    """Of a loss in which every token weighs something else, as the gap makes it."""
    weights = torch.linspace(-1, 1.5, ROWS, dtype=log_prob.dtype)
    loss = (weights * log_prob - 0.01 * log_prob_sum * weights.flip(0)).sum()
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("kept", [0, 10**9], ids=["computed again", "kept"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("block", [1, 3 * VOCAB + 1, 10**6])
def test_output_layer_and_loss_in_one_are_the_two_apart(monkeypatch, block, bias, kept):
    monkeypatch.setattr(softmax, "_BLOCK_ELEMENTS", {"cpu": block})
    monkeypatch.setattr(softmax, "_KEPT_ELEMENTS", kept)
    features, weight, offset, target = output_layer(bias)
    leaves = [leaf for leaf in (features, weight, offset) if leaf is not None]
    table = torch.nn.functional.linear(features, weight, offset).log_softmax(-1)
    expected = table.gather(-1, target[:, None]).squeeze(-1), table.sum(-1)
    got = softmax.projected_token_log_probs(features, weight, offset, target)
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(
        gradients_of_a_loss(*got, leaves), gradients_of_a_loss(*expected, leaves), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(mine, other)
    assert torch.autograd.gradcheck(
        lambda *leaves: softmax.projected_token_log_probs(*leaves[:2], leaves[2] if bias else None, target), leaves
    )


@pytest.mark.parametrize("trained", [(True, False, False), (False, True, False), (False, False, True)])
def test_frozen_parts_of_an_output_layer_get_no_gradient_and_change_no_other(trained):
    features, weight, offset, target = output_layer()
    leaves = (features, weight, offset)
    expected = gradients_of_a_loss(*softmax.projected_token_log_probs(*leaves, target), leaves)
    for leaf, wanted in zip(leaves, trained, strict=True):
        leaf.requires_grad_(wanted)
    log_prob, _ = softmax.projected_token_log_probs(*leaves, target)
    _, log_prob_sum = softmax.projected_token_log_probs(*leaves, target)  # each used without the other
    (got,) = gradients_of_a_loss(log_prob, log_prob_sum, [leaf for leaf in leaves if leaf.requires_grad])
    torch.testing.assert_close(got, expected[trained.index(True)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_output_layer_and_loss_in_one_are_as_exact_as_apart_in_every_precision(dtype):
    """Errors against float64, of one and of the other: 1.5 is slack for roundings that fall otherwise."""
    *rounded, target = output_layer(dtype=dtype)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in rounded]
    exact = softmax.projected_token_log_probs(*exact_leaves, target)
    exact_gradients = gradients_of_a_loss(*exact, exact_leaves)
    errors = []
    for fused in (True, False):
        leaves = output_layer(dtype=dtype)[:3]
        if fused:
            got = softmax.projected_token_log_probs(*leaves, target)
        else:
            got = softmax.token_log_probs(torch.nn.functional.linear(*leaves), target)
        assert got[0].dtype == got[1].dtype == torch.float32
        gradients = gradients_of_a_loss(*got, leaves)
        assert all(g.dtype == dtype for g in gradients)
        errors.append([
            (mine.double() - other).norm() / other.norm()
            for mine, other in zip((*got, *gradients), (*exact, *exact_gradients), strict=True)
        ])  # fmt: skip
    rounding = torch.finfo(dtype).eps
    for mine, apart in zip(*errors, strict=True):
        assert mine <= 1.5 * apart + rounding


def test_under_autocast_the_output_layer_runs_in_its_precision():
    features, weight, offset, target = output_layer(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = softmax.token_log_probs(torch.nn.functional.linear(features, weight, offset), target)
        got = softmax.projected_token_log_probs(features, weight, offset, target)
    torch.testing.assert_close(got[0], expected[0])
    full = softmax.projected_token_log_probs(features, weight, offset, target)
    assert (got[0] - full[0]).abs().max() > 1e-4, "nothing was rounded: autocast was not felt"
    leaves = (features, weight, offset)
    for mine, other in zip(gradients_of_a_loss(*got, leaves), gradients_of_a_loss(*full, leaves), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.05)
