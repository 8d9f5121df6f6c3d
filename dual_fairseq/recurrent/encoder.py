"""A recurrent encoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from .cells import State, reorder_state, run_padded


class EncoderOut(NamedTuple):
    """The encoder's output for a batch.

    Args:
        outputs: (B, S, O) of the top layer, at the tokens' positions in the batch; 0 at padding.
        padding_mask: (B, S), true at padding.
        last: the stack's last state, each (layers · directions, B, H); in the backward direction, the state
            after the first token.
        sentences: (B,) each row's sentence number: the beams of a sentence share all of this.
    """

    outputs: Tensor
    padding_mask: Tensor
    last: State
    sentences: Tensor


class RecurrentEncoder(FairseqEncoder):
    """Read a source sentence with a stack of recurrent layers, in one direction or in both.

    Padding on either side enters no state, so a sentence gives the same outputs in any batch. Batches need not
    be sorted.

    Args:
        dictionary: the source dictionary.
        embed_tokens: its embeddings (V, E).
        stack: E → H per direction, from :func:`~dual_fairseq.recurrent.cells.recurrent_stack`.
        dropout_in: on embeddings.
        dropout_out: on outputs.
        max_positions: the longest source.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        embed_tokens: nn.Embedding,
        stack: nn.RNNBase,
        dropout_in: float,
        dropout_out: float,
        max_positions: float,
    ) -> None:
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.stack = stack
        self.dropout_in = FairseqDropout(dropout_in, module_name=type(self).__name__)
        self.dropout_out = FairseqDropout(dropout_out, module_name=type(self).__name__)
        self.max_source_positions = max_positions

    @property
    def output_size(self) -> int:
        """O."""
        return self.stack.hidden_size * (2 if self.stack.bidirectional else 1)

    def forward(self, src_tokens: Tensor, src_lengths: Tensor | None = None) -> EncoderOut:
        """Read a batch.

        Args:
            src_tokens: (B, S) padded on either side.
            src_lengths: unused; padding shows the lengths.
        """
        padding_mask = src_tokens.eq(self.padding_idx)
        sentences = torch.arange(src_tokens.size(0), device=src_tokens.device)
        embedded = self.dropout_in(self.embed_tokens(src_tokens))
        outputs, last = run_padded(self.stack, embedded, padding_mask)
        return EncoderOut(self.dropout_out(outputs), padding_mask, last, sentences)

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """The rows ``new_order`` of a batch (beam search); nothing is copied if beams only change places."""
        sentences = encoder_out.sentences.index_select(0, new_order)
        if torch.equal(sentences, encoder_out.sentences):
            return encoder_out
        return EncoderOut(
            encoder_out.outputs.index_select(0, new_order),
            encoder_out.padding_mask.index_select(0, new_order),
            reorder_state(encoder_out.last, new_order),
            sentences,
        )

    def max_positions(self) -> float:
        return self.max_source_positions


def top_state(last: State, directions: int) -> Tensor:
    """The last h of the top layer, directions side by side: (B, H · directions)."""
    return torch.cat(last[0][-directions:].unbind(0), dim=-1)
