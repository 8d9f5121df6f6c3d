"""A recurrent decoder, with or without attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from ..plugin.output_layer import ProjectionDecoder
from .attention import Attention, Memory
from .cells import State, StepCells, reorder_state, run_stack
from .encoder import EncoderOut, top_state

BRIDGES = ("copy", "tanh")
READOUTS = ("linear", "tanh", "maxout")


class Bridge(nn.Module):
    """The decoder's first state, from the encoder's last state.

    - ``copy``: layer by layer, unchanged; the two directions of a bidirectional encoder are side by side;
    - ``tanh``: tanh(W h) for each layer; h is the top layer's last state, or ←h₁ of a bidirectional encoder (Bahdanau
      et al. 2015, appendix A.2.2). An LSTM's c has its own weights and no tanh, because cells have no bound.

    Args:
        kind: one of :data:`BRIDGES`; ``copy`` needs equal layers and sizes.
        encoder, decoder: the two stacks.
    """

    def __init__(self, kind: str, encoder: nn.RNNBase, decoder: nn.RNNBase) -> None:
        super().__init__()
        self.directions = 2 if encoder.bidirectional else 1
        self.layers = decoder.num_layers
        self.projections: nn.ModuleList | None = None
        if kind == "tanh":
            parts = 2 if isinstance(decoder, nn.LSTM) else 1
            self.projections = nn.ModuleList(
                nn.Linear(encoder.hidden_size, self.layers * decoder.hidden_size) for _ in range(parts)
            )

    def forward(self, last: State) -> State:
        """(encoder's layers · directions, B, H) → (layers, B, H'), each part."""
        if self.projections is not None:
            h, *c = (
                torch.stack(project(part[-1]).chunk(self.layers, dim=-1))
                for project, part in zip(self.projections, last, strict=True)
            )
            return (torch.tanh(h), *c)
        if self.directions == 1:
            return last
        return tuple(torch.cat((part[0::2], part[1::2]), dim=-1) for part in last)


class Readout(nn.Module):
    """The input of the output layer at a step, from state h, context c and, with maxout, the previous word y.

    - ``linear``: W[h; c];
    - ``tanh``: tanh(W[h; c]) (Luong et al. 2015, eq. 5);
    - ``maxout``: the larger unit of each pair in W[h; c; y] (Bahdanau et al. 2015, appendix A.2.2, with the step's own
      state, as in their eq. 4; Cho et al. 2014, appendix A.1.2).

    Args:
        kind: one of :data:`READOUTS`.
        state_size, context_size, embed_size: the sizes of h, c and y.
        size: R, the result's size.
    """

    def __init__(self, kind: str, state_size: int, context_size: int, embed_size: int, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = size
        maxout = kind == "maxout"
        self.projection = nn.Linear(state_size + context_size + embed_size * maxout, size * (2 if maxout else 1))

    def forward(self, state: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        """(..., H), (..., O), (..., E) → (..., R)."""
        if self.kind == "maxout":
            x = self.projection(torch.cat((state, context, embedded), dim=-1))
            return x.unflatten(-1, (-1, 2)).amax(-1)
        x = self.projection(torch.cat((state, context), dim=-1))
        return torch.tanh(x) if self.kind == "tanh" else x


class Cached(NamedTuple):
    """The state of incremental decoding between two steps.

    Args:
        state: the stack's state.
        fed: (B, R) the last readout, with input feeding.
        summary: (B, H) without attention.
        keys: (B, S, K) the keys of attention.
        sentences: (B,) the sentences of the keys. Beams of one sentence share its keys, in any order.
    """

    state: State
    fed: Tensor | None
    summary: Tensor | None
    keys: Tensor | None = None
    sentences: Tensor | None = None

    def reorder(self, order: Tensor) -> Cached:
        """The states of the rows ``order``."""
        return self._replace(
            state=reorder_state(self.state, order),
            fed=None if self.fed is None else self.fed.index_select(0, order),
            summary=None if self.summary is None else self.summary.index_select(0, order),
        )


class StackDecoder(ProjectionDecoder):
    """Base class of a decoder with one stack of recurrent layers.

    A subclass adds its other modules in the order in which a token passes through them: optimizers number the weights
    in this order.

    Args:
        dictionary: the language's dictionary.
        embed_tokens: its embeddings (V, E).
        stack: the layers.
        dropout_in: on embeddings.
        dropout_out: before the output layer (between its layers, the stack has its own).
        max_positions: the longest sentence.
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
        self.embed_tokens = embed_tokens
        self.stack = stack
        self.dropout_in = FairseqDropout(dropout_in, module_name=type(self).__name__)
        self.dropout_out = FairseqDropout(dropout_out, module_name=type(self).__name__)
        self.max_target_positions = max_positions

    def max_positions(self) -> float:
        return self.max_target_positions


class RecurrentDecoder(StackDecoder):
    """Write a target sentence with a stack of recurrent layers.

    If the state does not depend on attention (no attention, dot or general, without input feeding), the stack and
    attention run over the whole target in one call each. Otherwise there is one step per token.

    - no attention: a summary of the source, tanh(W h) of the encoder's last states, is part of every input and readout
      (Cho et al. 2014, §2.2);
    - dot, general: attention uses the state after each step (Luong et al. 2015);
    - additive: attention uses the state before a step; its context is part of the step's input (Bahdanau et al. 2015).

    Args:
        dictionary: the target dictionary.
        embed_tokens: its embeddings (V, E).
        stack: E, plus context or summary and fed readout if they are used, → H.
        bridge: the first state.
        attention: None is no attention.
        summary: the encoder's last states (O) → H; only without attention.
        readout: → R.
        output_projection: R → V; None uses the embeddings.
        input_feeding: whether the last readout is part of a step's input (Luong et al. 2015, §3.3).
        shared: ``dropout_in``, ``dropout_out`` (on readouts) and ``max_positions`` of :class:`StackDecoder`.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        embed_tokens: nn.Embedding,
        stack: nn.RNNBase,
        bridge: Bridge,
        attention: Attention | None,
        summary: nn.Linear | None,
        readout: Readout,
        output_projection: nn.Linear | None,
        input_feeding: bool,
        **shared: float,
    ) -> None:
        super().__init__(dictionary, embed_tokens, stack, **shared)
        self.bridge = bridge
        self.attention = attention
        self.summary = summary
        self.readout = readout
        self.output_projection = output_projection
        self.input_feeding = input_feeding

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: dict[str, Any] | None = None,
    ) -> tuple[Tensor, dict[str, list[Tensor] | None]]:
        """The readouts for every target token.

        Args:
            prev_output_tokens: (B, T) the previous tokens; only the last token counts if there is a state.
            encoder_out: the encoder's output.
            incremental_state: the states of fairseq's generator.

        Returns:
            (B, T, R) and {"attn": [weights (B, T, S)]}, or {"attn": None} without attention.
        """
        cached: Cached | None = self.get_incremental_state(incremental_state, "cached")
        if cached is None:
            cached = self._begin(encoder_out)
        else:
            prev_output_tokens = prev_output_tokens[:, -1:]
        cached, memory = self._remember(encoder_out, cached)
        embedded = self.dropout_in(self.embed_tokens(prev_output_tokens))
        if self.input_feeding or (self.attention is not None and self.attention.before_step):
            features, weights, cached = self._step_by_step(embedded, cached, memory)
        else:
            features, weights, cached = self._at_once(embedded, cached, memory)
        if incremental_state is not None:
            self.set_incremental_state(incremental_state, "cached", cached)
        return features, {"attn": None if weights is None else [weights]}

    def _begin(self, encoder_out: EncoderOut) -> Cached:
        state = self.bridge(encoder_out.last)
        fed = encoder_out.outputs.new_zeros(state[0].size(1), self.readout.size) if self.input_feeding else None
        summary = None
        if self.summary is not None:
            summary = torch.tanh(self.summary(top_state(encoder_out.last, self.bridge.directions)))
        return Cached(state, fed, summary)

    def _remember(self, encoder_out: EncoderOut, cached: Cached) -> tuple[Cached, Memory | None]:
        """The memory of attention; keys are computed again only if a sentence has left the batch."""
        if self.attention is None:
            return cached, None
        keys = cached.keys
        same = cached.sentences is encoder_out.sentences  # comparing values makes a GPU wait
        if not same and (cached.sentences is None or not torch.equal(cached.sentences, encoder_out.sentences)):
            keys = self.attention.keys(encoder_out.outputs)
        memory = self.attention.memory(encoder_out.outputs, encoder_out.padding_mask, keys)
        return cached._replace(keys=memory.keys, sentences=encoder_out.sentences), memory

    def _at_once(self, embedded: Tensor, cached: Cached, memory: Memory | None) -> tuple[Tensor, Tensor | None, Cached]:
        weights: Tensor | None = None
        if self.attention is None or memory is None:
            assert cached.summary is not None
            context = cached.summary.unsqueeze(1).expand(-1, embedded.size(1), -1)
            outputs, state = run_stack(self.stack, torch.cat((embedded, context), dim=-1), cached.state)
        else:
            outputs, state = run_stack(self.stack, embedded, cached.state)
            context, weights = self.attention(outputs, memory)
        features = self.dropout_out(self.readout(outputs, context, embedded))
        return features, weights, cached._replace(state=state)

    def _step_by_step(
        self, embedded: Tensor, cached: Cached, memory: Memory | None
    ) -> tuple[Tensor, Tensor | None, Cached]:
        step, top, fed = StepCells(self.stack, cached.state), cached.state[0][-1], cached.fed
        looks_before = self.attention is None or self.attention.before_step
        tops, contexts, weights, features = [], [], [], []
        for word in embedded.unbind(1):  # with slices, each step's backward pass would fill a tensor of the full size
            inputs = [word]
            if looks_before:
                context, weight = self._look(top, cached.summary, memory)
                inputs.append(context)
            if fed is not None:
                inputs.append(fed)
            top = step(torch.cat(inputs, dim=-1))
            if not looks_before:
                context, weight = self._look(top, cached.summary, memory)
            if weight is not None:
                weights.append(weight)
            if fed is None:
                tops.append(top)
                contexts.append(context)
            else:
                fed = self.dropout_out(self.readout(top, context, word))
                features.append(fed)
        if fed is None:
            x = self.dropout_out(self.readout(torch.stack(tops, 1), torch.stack(contexts, 1), embedded))
        else:
            x = torch.stack(features, 1)
        return x, torch.stack(weights, 1) if weights else None, cached._replace(state=step.state(), fed=fed)

    def _look(self, state: Tensor, summary: Tensor | None, memory: Memory | None) -> tuple[Tensor, Tensor | None]:
        """Attend from one state (B, H): context (B, O) and, if there is attention, weights (B, S)."""
        if self.attention is None or memory is None:
            assert summary is not None
            return summary, None
        context, weights = self.attention(state.unsqueeze(1), memory)
        return context.squeeze(1), weights.squeeze(1)

    def reorder_incremental_state(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """fairseq's generator calls this when beams change their places."""
        cached: Cached | None = self.get_incremental_state(incremental_state, "cached")
        if cached is not None:
            self.set_incremental_state(incremental_state, "cached", cached.reorder(new_order))
