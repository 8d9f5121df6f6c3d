"""The mathematics of dual supervised learning (Xia et al., ICML 2017). PyTorch only, no fairseq.

Notation: x is a source and y a target sentence; ``xy`` is the direction x→y with parameters θ_xy, ``yx`` the reverse.
All log-probabilities are natural (nats), of whole sentences, accumulated in float32 (float64 stays float64).

    gap  = [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)]
    L_xy = NLL_xy + λ_xy · gap²    with log P(x|y) held constant
    L_yx = NLL_yx + λ_yx · gap²    with log P(y|x) held constant

The gradient that reaches log P(y|x) is therefore −1 + 2·λ_xy·gap, the one that reaches log P(x|y) −1 − 2·λ_yx·gap.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

# Elements of one float32 working block, which bounds the extra memory whatever the batch and the vocabulary: 2²²
# (16 MB) on the CPU, near its caches; 2²⁴ on a GPU, so that a block is still a matrix product worth starting.
_BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 24}
# Up to this many float32 scores (2²⁵: 128 MB) are kept from the forward to the backward pass, above they are computed
# again: that costs one more matrix product, a fifth of the time that the output layer and the loss take together.
_KEPT_ELEMENTS = 1 << 25


class _TokenLogProbs(torch.autograd.Function):
    """log-softmax at the target and its sum over the vocabulary, without ever storing the log-softmax.

    The scores are walked through in blocks of rows, so that no (rows × vocabulary) float32 tensor exists beside the
    scores themselves; the backward pass allocates the gradient of the scores and nothing else of that size.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        rows, vocab = scores.shape
        dtype = accumulation_dtype(scores)
        log_z = torch.empty(rows, dtype=dtype, device=scores.device)
        total = torch.empty_like(log_z)
        for block in _blocks(scores):
            s = scores[block].to(dtype)
            log_z[block] = torch.logsumexp(s, dim=-1)
            total[block] = s.sum(dim=-1)
        log_prob = scores.gather(-1, target.unsqueeze(-1)).squeeze(-1).to(dtype) - log_z
        ctx.save_for_backward(scores, target, log_z)
        return log_prob, total - vocab * log_z

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_log_prob: Tensor, grad_total: Tensor) -> tuple[Tensor, None]:
        # d log p_t / d s = 1[t] − p     and     d Σ_v log p_v / d s = 1 − V·p
        scores, target, log_z = ctx.saved_tensors
        vocab = scores.size(1)
        grad_scores = torch.empty_like(scores)
        weight = grad_log_prob + vocab * grad_total
        for block in _blocks(scores):
            grad = scores[block].to(log_z.dtype, copy=True)
            grad.sub_(log_z[block, None]).exp_().mul_(-weight[block, None]).add_(grad_total[block, None])
            grad.scatter_add_(-1, target[block, None], grad_log_prob[block, None])
            grad_scores[block] = grad
        return grad_scores, None


def token_log_probs(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log P of every target token, and the sum of log P over the vocabulary at its position (for label smoothing).

    Args:
        scores: (..., V) logits, or log-probabilities (for which this changes nothing); any floating type.
        target: (...) token indices in [0, V).

    Returns:
        (log_prob, log_prob_sum), both (...), nats, float32 (float64 for float64 scores).
    """
    log_prob, log_prob_sum = _TokenLogProbs.apply(scores.reshape(-1, scores.size(-1)), target.reshape(-1))
    return log_prob.view(target.shape), log_prob_sum.view(target.shape)


class _ProjectedTokenLogProbs(torch.autograd.Function):
    """Output layer and log-softmax in one: the scores of one block of rows exist at a time.

    With scores s = W·h + b, p = softmax(s), and a, c the gradients of log p_t and of Σ_v log p_v, the gradient of s is
    a·1[t] − (a + V·c)·p + c. Its last term has rank one and needs no tensor of vocabulary size a row.
    """

    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor]:
        dtype, vocab = accumulation_dtype(features), weight.size(0)
        log_z = torch.empty(len(features), dtype=dtype, device=features.device)
        at_target, exp_sum = torch.empty_like(log_z), torch.empty_like(log_z)
        exps: list[Tensor] = []
        for block in _blocks(features, vocab):
            s = linear(features[block], weight, bias).to(dtype)
            at_target[block] = s.gather(-1, target[block, None]).squeeze(-1)
            top = s.amax(dim=-1, keepdim=True)
            s.sub_(top).exp_()
            exp_sum[block] = s.sum(dim=-1)
            log_z[block] = exp_sum[block].log() + top.squeeze(-1)
            if keep:
                exps.append(s)
        total = features.to(dtype) @ weight.sum(dim=0, dtype=dtype)
        if bias is not None:
            total += bias.sum(dtype=dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(features, weight, bias, target, log_z, exp_sum, *exps)
        return at_target - log_z, total - vocab * log_z

    @staticmethod
    @once_differentiable
    def backward(
        ctx, grad_log_prob: Tensor | None, grad_total: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        features, weight, bias, target, log_z, exp_sum, *exps = ctx.saved_tensors
        to_features, to_weight, to_bias = ctx.needs_input_grad[:3]
        vocab = weight.size(0)
        a = torch.zeros_like(log_z) if grad_log_prob is None else grad_log_prob
        p_weight = -a if grad_total is None else -(a + vocab * grad_total)
        grad_features = torch.empty_like(features, memory_format=torch.contiguous_format) if to_features else None
        # added up over the blocks in float32, as one matrix product would do it
        grad_weight = torch.zeros_like(weight, dtype=log_z.dtype) if to_weight else None
        grad_bias = log_z.new_zeros(vocab) if to_bias else None
        for i, block in enumerate(_blocks(features, vocab)):
            if exps:
                grad = exps[i] * (p_weight[block] / exp_sum[block])[:, None]
            else:
                grad = linear(features[block], weight, bias).to(log_z.dtype)
                grad.sub_(log_z[block, None]).exp_().mul_(p_weight[block, None])
            grad.scatter_add_(-1, target[block, None], a[block, None])
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
            grad = grad.to(features.dtype)
            if grad_features is not None:
                torch.mm(grad, weight, out=grad_features[block])
            if grad_weight is not None and grad.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad.t(), features[block])
            elif grad_weight is not None:
                grad_weight += grad.t() @ features[block]
        if grad_total is not None:
            if grad_features is not None:
                grad_features += torch.outer(grad_total, weight.sum(dim=0, dtype=log_z.dtype))
            if grad_weight is not None:
                grad_weight += grad_total @ features.to(log_z.dtype)
            if grad_bias is not None:
                grad_bias += grad_total.sum()
        return (
            grad_features,
            grad_weight.to(weight.dtype) if grad_weight is not None else None,
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None,
            None,
        )


def projected_token_log_probs(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`token_log_probs` of the scores ``features @ weight.T + bias``, which as a whole never exist.

    Same values and gradients within rounding. In float32, scores that take no more than 128 MB are kept for the
    backward pass; otherwise it computes them again, block by block.

    Args:
        features: (N, D) what the output layer is given; any floating type, under autocast its own.
        weight: (V, D) of the output layer.
        bias: (V,) of the output layer, or None.
        target: (N,) token indices in [0, V).

    Returns:
        (log_prob, log_prob_sum), both (N,), nats, float32 (float64 for float64 features).
    """
    device = features.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
        bias = bias.to(dtype) if bias is not None else None
    keep = (
        torch.is_grad_enabled()
        and features.dtype == accumulation_dtype(features)
        and len(features) * len(weight) <= _KEPT_ELEMENTS
    )
    with torch.autocast(device, enabled=False):
        return _ProjectedTokenLogProbs.apply(features, weight, bias, target, keep)


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
        log_p_x, log_p_y_given_x, log_p_y, log_p_x_given_y: (B,) nats, row i of all four the same sentence pair.
        lambda_xy, lambda_yx: λ of x→y and of y→x, ≥ 0.
        clip: bound of |gap| in the gradient, nats; 0 means none.

    Returns:
        (λ_xy·gap², λ_yx·gap², gap), each (B,); the gap is detached.
    """
    gap_xy = duality_gap(log_p_x, log_p_y_given_x, log_p_y, log_p_x_given_y.detach())
    gap_yx = duality_gap(log_p_x, log_p_y_given_x.detach(), log_p_y, log_p_x_given_y)
    return lambda_xy * bounded_square(gap_xy, clip), lambda_yx * bounded_square(gap_yx, clip), gap_xy.detach()


def negative_weights(gap: Tensor, lambda_xy: float, lambda_yx: float) -> Tensor:
    """Where 2·λ·|gap| > 1: without a clip, the pair trains one direction to make its reference *less* likely.

    A positive gap weights x→y by −1 + 2·λ_xy·gap, a negative one y→x by −1 − 2·λ_yx·gap, so the λ of that direction
    counts. A clip does not enter here: the share shows what it is there to prevent.

    Args:
        gap: (B,) nats.
        lambda_xy, lambda_yx: λ of x→y and of y→x.

    Returns:
        (B,) bool.
    """
    return torch.where(gap > 0, 2 * lambda_xy * gap, -2 * lambda_yx * gap) > 1


def ramped_lambda(value: float, num_updates: int, start: int = 0, ramp: int = 0) -> float:
    """λ at the update that follows ``num_updates`` finished ones.

    0 for the first ``start`` updates, then growing linearly: λ/ramp at the next one, λ after ``ramp`` more.

    Args:
        value: the final λ.
        num_updates: updates made so far, as fairseq counts them (0 at the first).
        start: updates without the duality term.
        ramp: updates over which λ grows; 0 for at once.
    """
    if num_updates < start:
        return 0.0
    return value * min(1.0, (num_updates + 1 - start) / max(ramp, 1))


def accumulation_dtype(scores: Tensor) -> torch.dtype:
    """The type in which log-probabilities of these scores are computed and added up."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def _blocks(rows: Tensor, width: int | None = None) -> list[slice]:
    """Cut the rows of a matrix so that ``width`` (default: its own) elements a row make blocks of the working size."""
    elements = _BLOCK_ELEMENTS["cpu" if rows.device.type == "cpu" else "cuda"]
    step = max(1, elements // (width or rows.size(1)))
    return [slice(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
