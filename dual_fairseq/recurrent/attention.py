"""Attention of a recurrent decoder over the encoder's outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ATTENTIONS = ("none", "dot", "general", "additive")


class Memory(NamedTuple):
    """The source, prepared for attention.

    Args:
        values: (B, S, O) the encoder's outputs.
        keys: (B, S, K) vectors to compare with queries.
        bias: (B, 1, S) 0 at tokens, −∞ at padding: added to scores.
    """

    values: Tensor
    keys: Tensor
    bias: Tensor


class Attention(nn.Module):
    """Weights over source positions (softmax of scores of query and key), and the weighted mean of the values.

    The softmax is accumulated at least in float32 for any scores.

    Attributes:
        before_step: whether the query is the state before a decoder's step, not after it.
    """

    before_step = False

    def memory(self, values: Tensor, padding_mask: Tensor, keys: Tensor | None = None) -> Memory:
        """Prepare a batch.

        Args:
            values: (B, S, O).
            padding_mask: (B, S), true at padding.
            keys: :meth:`keys` of the values, if already known.
        """
        bias = torch.zeros_like(padding_mask, dtype=values.dtype).masked_fill_(padding_mask, -torch.inf)
        return Memory(values, self.keys(values) if keys is None else keys, bias.unsqueeze(1))

    def keys(self, values: Tensor) -> Tensor:
        """(B, S, O) → (B, S, K)."""
        return values

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        """(B, T, H) → (B, T, S), −∞ at padding."""
        return torch.baddbmm(memory.bias, query, memory.keys.transpose(1, 2))

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend from every state.

        Args:
            query: (B, T, H).
            memory: from :meth:`memory`.

        Returns:
            contexts (B, T, O) and weights (B, T, S), which are 0 at padding and sum to 1 over S.
        """
        scores = self.scores(query, memory)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(memory.values.dtype)
        return torch.bmm(weights, memory.values), weights


class DotAttention(Attention):
    """score = hᵀ h̄ (Luong et al. 2015, eq. 8); H = O."""


class GeneralAttention(Attention):
    """score = hᵀ W h̄ (Luong et al. 2015, eq. 8).

    Args:
        query_size: H.
        value_size: O, the size of the encoder's outputs.
    """

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.query_projection = nn.Linear(query_size, value_size, bias=False)

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        return super().scores(self.query_projection(query), memory)


class AdditiveAttention(Attention):
    """score = vᵀ tanh(W h + U h̄) (Bahdanau et al. 2015, appendix A.1.2); U h̄ is computed once per sentence.

    Args:
        query_size: H.
        value_size: O, the size of the encoder's outputs.
        size: the hidden layer's size.
    """

    before_step = True

    def __init__(self, query_size: int, value_size: int, size: int) -> None:
        super().__init__()
        self.query_projection = nn.Linear(query_size, size)
        self.key_projection = nn.Linear(value_size, size, bias=False)
        self.score_projection = nn.Linear(size, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        return self.key_projection(values)

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        hidden = torch.tanh(self.query_projection(query).unsqueeze(2) + memory.keys.unsqueeze(1))  # (B, T, S, K)
        return self.score_projection(hidden).squeeze(-1) + memory.bias


def build_attention(kind: str, query_size: int, value_size: int, size: int) -> Attention | None:
    """One of :data:`ATTENTIONS`; ``size`` is the hidden layer of additive attention."""
    if kind == "additive":
        return AdditiveAttention(query_size, value_size, size)
    if kind == "general":
        return GeneralAttention(query_size, value_size)
    return DotAttention() if kind == "dot" else None
