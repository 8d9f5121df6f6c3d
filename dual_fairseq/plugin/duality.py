"""The mathematics of dual supervised learning (Xia et al., ICML 2017). PyTorch only, no fairseq.

Notation: x is a source and y a target sentence; ``xy`` is the direction x→y with parameters θ_xy, ``yx`` the reverse.
All log-probabilities are natural (nats), of whole sentences, accumulated in float32 (float64 stays float64).

    gap  = [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]
    L_xy = NLL_xy + λ_xy · gap²    with log P(x|y) held constant
    L_yx = NLL_yx + λ_yx · gap²    with log P(y|x) held constant

Therefore log P(y|x) gets the gradient −1 + 2·λ_xy·gap, and log P(x|y) gets −1 − 2·λ_yx·gap.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sentence_log_prob(token_log_prob: Tensor, mask: Tensor) -> Tensor:
    """log P(sentence) = Σ_t log P(token_t | tokens before it).

    Args:
        token_log_prob: (B, T) nats.
        mask: (B, T) bool, True at every token that counts (``</s>`` included, padding excluded).

    Returns:
        (B,) nats.
    """
    return token_log_prob.masked_fill(~mask, 0.0).sum(dim=-1)


def label_smoothed_nll(
    token_log_prob: Tensor, log_prob_sum: Tensor, mask: Tensor, epsilon: float, vocab: int
) -> Tensor:
    """NLL against a target distribution with 1 − ε on the reference and ε spread over the other V − 1 symbols.

    The same convention as fairseq's ``label_smoothed_cross_entropy``; ε = 0 gives the plain NLL.

    Args:
        token_log_prob: (B, T) log P of the reference tokens, nats.
        log_prob_sum: (B, T) Σ_v log P(v) at the same positions, nats.
        mask: (B, T) bool, True at every token that counts.
        epsilon: ε in [0, 1).
        vocab: V, number of symbols.

    Returns:
        (B,) nats, summed over each sentence.
    """
    if epsilon == 0:
        return -sentence_log_prob(token_log_prob, mask)
    epsilon_other = epsilon / (vocab - 1)
    loss = -(1.0 - epsilon - epsilon_other) * token_log_prob - epsilon_other * log_prob_sum
    return loss.masked_fill(~mask, 0.0).sum(dim=-1)


def duality_gap(log_p_x: Tensor, log_p_y_given_x: Tensor, log_p_y: Tensor, log_p_x_given_y: Tensor) -> Tensor:
    """gap = [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]: 0 for a pair of models that agree on P(x, y).

    Args:
        log_p_x, log_p_y: (B,) from the language models, nats.
        log_p_y_given_x, log_p_x_given_y: (B,) from the translation models, nats.

    Returns:
        (B,) nats.
    """
    return (log_p_x + log_p_y_given_x) - (log_p_y + log_p_x_given_y)


def bounded_square(gap: Tensor, clip: float = 0.0) -> Tensor:
    """gap², continued linearly where |gap| > clip, so that its derivative is 2·gap with |gap| bounded by clip.

    (Huber's function.) With clip = 0 it is gap² everywhere.

    Args:
        gap: (B,) nats.
        clip: bound in nats, ≥ 0; 0 means none.

    Returns:
        (B,) nats².
    """
    if clip <= 0:
        return gap.square()
    return torch.where(gap.abs() <= clip, gap.square(), 2 * clip * gap.abs() - clip * clip)


def dual_penalties(
    log_p_x: Tensor,
    log_p_y_given_x: Tensor,
    log_p_y: Tensor,
    log_p_x_given_y: Tensor,
    lambda_xy: float,
    lambda_yx: float,
    clip: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The duality terms of both directions, each with the other direction's log-probability held constant.

    Args:
        log_p_x, log_p_y_given_x, log_p_y, log_p_x_given_y: (B,) nats, with the same sentence pair in row i.
        lambda_xy, lambda_yx: λ of x→y and of y→x, ≥ 0.
        clip: bound of |gap| in the gradient, nats; 0 means none.

    Returns:
        (λ_xy·gap², λ_yx·gap², gap), each (B,); the gap is detached.
    """
    gap_xy = duality_gap(log_p_x, log_p_y_given_x, log_p_y, log_p_x_given_y.detach())
    gap_yx = duality_gap(log_p_x, log_p_y_given_x.detach(), log_p_y, log_p_x_given_y)
    return lambda_xy * bounded_square(gap_xy, clip), lambda_yx * bounded_square(gap_yx, clip), gap_xy.detach()


def negative_weights(gap: Tensor, lambda_xy: float, lambda_yx: float) -> Tensor:
    """Whether 2·λ·|gap| > 1: without a clip, training makes the reference of one direction *less* likely.

    A positive gap weights x→y by −1 + 2·λ_xy·gap, a negative one y→x by −1 − 2·λ_yx·gap, so the λ of that direction
    counts. A clip is ignored here: the share shows what it prevents.

    Args:
        gap: (B,) nats.
        lambda_xy, lambda_yx: λ of x→y and of y→x.

    Returns:
        (B,) bool.
    """
    return torch.where(gap > 0, 2 * lambda_xy * gap, -2 * lambda_yx * gap) > 1


def ramped_lambda(value: float, num_updates: int, start: int = 0, ramp: int = 0) -> float:
    """λ at the update that follows ``num_updates`` finished ones.

    0 for the first ``start`` updates. Then it grows linearly: λ/ramp at the next update, λ at the ``ramp``-th.

    Args:
        value: the final λ.
        num_updates: updates made so far, as fairseq counts them (0 at the first).
        start: updates without the duality term.
        ramp: updates over which λ grows; 0 for at once.
    """
    if num_updates < start:
        return 0.0
    return value * min(1.0, (num_updates + 1 - start) / max(ramp, 1))
