"""log P of target tokens from scores, without a float32 tensor of (tokens × vocabulary).

The forward and the backward pass process the scores in blocks of rows. All log-probabilities are natural (nats) and in
float32 (float64 stays float64), for any precision of the scores.
"""

from __future__ import annotations

import torch
from fairseq.modules import AdaptiveSoftmax
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

# Elements of one float32 working block. They limit the extra memory for any batch and vocabulary: 2²² (16 MB) on the
# CPU, near the size of its caches; 2²⁴ on a GPU, so that each matrix product is large enough.
_BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 24}
# Up to this many float32 scores (2²⁵: 128 MB) are kept from the forward to the backward pass; more are computed again.
# That costs one more matrix product, a fifth of the time of the output layer and the loss together.
_KEPT_ELEMENTS = 1 << 25


class _TokenLogProbs(torch.autograd.Function):
    """log-softmax at the target and its sum over the vocabulary, without ever storing the log-softmax.

    The scores are processed in blocks of rows, so that no (rows × vocabulary) float32 tensor exists beside the scores
    themselves; the backward pass allocates the gradient of the scores and nothing else of that size.
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
        scores: (..., V) logits, or log-probabilities (which stay the same); any floating type.
        target: (...) token indices in [0, V).

    Returns:
        (log_prob, log_prob_sum), both (...), nats, float32 (float64 for float64 scores).
    """
    log_prob, log_prob_sum = _TokenLogProbs.apply(scores.reshape(-1, scores.size(-1)), target.reshape(-1))
    return log_prob.view(target.shape), log_prob_sum.view(target.shape)


class _ProjectedTokenLogProbs(torch.autograd.Function):
    """Output layer and log-softmax in one, for one block of rows at a time.

    With scores s = W·h + b, p = softmax(s), and a, c the gradients of log p_t and of Σ_v log p_v, the gradient of s is
    a·1[t] − (a + V·c)·p + c. Its last term has rank one and needs no (rows × V) tensor.
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
        # added up over the blocks in float32, as in one matrix product
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
    """:func:`token_log_probs` of the scores ``features @ weight.T + bias``, which never exist as a whole.

    Same values and gradients within rounding. In float32, scores that take no more than 128 MB are kept for the
    backward pass; otherwise it computes them again, block by block.

    Args:
        features: (N, D) input of the output layer; any floating type, autocast's under autocast.
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


def adaptive_token_log_probs(
    adaptive: AdaptiveSoftmax, features: Tensor, target: Tensor, smoothing: bool
) -> tuple[Tensor, Tensor]:
    """log P under an adaptive softmax: the head's for frequent words, else log P(cluster) + log P(word | cluster).

    fairseq's own ``get_log_prob`` overwrites values that autograd still needs, and with a target it leaves all other
    clusters at 0; so the parts are put together here.

    Args:
        features: (B, T, D) the decoder's result instead of logits.
        target: (B, T).

    Returns:
        See :func:`token_log_probs`.
    """
    x = adaptive.dropout_module(features.reshape(-1, features.size(-1)))
    flat = target.reshape(-1)
    head_target, cluster_rows = adaptive.adapt_target(flat)
    head = torch.log_softmax(adaptive.head(x), dim=-1, dtype=accumulation_dtype(x))
    words = adaptive.cutoff[0]
    log_prob = head.gather(-1, head_target[0].unsqueeze(-1)).squeeze(-1)
    total = head[:, :words].sum(dim=-1)
    for i, tail in enumerate(adaptive.tail):
        start, end = adaptive.cutoff[i], adaptive.cutoff[i + 1]
        if smoothing:  # every word of every cluster counts
            in_tail, tail_total = token_log_probs(tail(x), flat.sub(start).clamp(0, end - start - 1))
            log_prob = log_prob + in_tail.where((flat >= start) & (flat < end), torch.zeros_like(in_tail))
            total = total + (end - start) * head[:, words + i] + tail_total
        elif cluster_rows[i] is not None:
            rows = cluster_rows[i]
            in_tail, _ = token_log_probs(tail(x[rows]), head_target[i + 1])
            log_prob = log_prob.index_add(0, rows, in_tail)
    return log_prob.view(target.shape), total.view(target.shape)


def accumulation_dtype(scores: Tensor) -> torch.dtype:
    """The type in which log-probabilities of these scores are computed and added up."""
    return torch.float64 if scores.dtype == torch.float64 else torch.float32


def _blocks(rows: Tensor, width: int | None = None) -> list[slice]:
    """Blocks of a matrix's rows of the working size, for rows of ``width`` elements (default: its own)."""
    elements = _BLOCK_ELEMENTS["cpu" if rows.device.type == "cpu" else "cuda"]
    step = max(1, elements // (width or rows.size(1)))
    return [slice(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
