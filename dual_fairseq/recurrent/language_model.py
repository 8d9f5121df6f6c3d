"""The arch ``rnn_lm``: a recurrent language model.

fairseq-train DATA --user-dir dual_fairseq --task language_modeling --sample-break-mode eos --arch rnn_lm --cell gru ...
"""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqLanguageModel, register_model
from omegaconf import II
from torch import Tensor, nn

from ..common.errors import UserError
from .cells import (
    CELLS,
    SCHEMES,
    State,
    check_options,
    detach_state,
    initialise,
    recurrent_stack,
    register_presets,
    reorder_state,
    run_stack,
)
from .decoder import StackDecoder

LONGEST = 100_000  # tokens; a recurrent model has no limit, but fairseq needs one
_CHOICES = {"cell": CELLS, "init_scheme": SCHEMES}


class Carried:
    """The state of B rows of text that are read block by block; each block continues the block before it.

    This is no container: DistributedDataParallel copies containers, and the model's new state would be lost.

    Args:
        state: the first state; None is zeros. The model replaces it with its last state, without its history.
    """

    def __init__(self, state: State | None = None) -> None:
        self.state = state


class RecurrentLanguageModelDecoder(StackDecoder):
    """Predict each token of a text from the tokens before it; torch's own kernel runs the whole text in one call.

    Args:
        dictionary: the language's dictionary.
        embed_tokens: embeddings (V, E).
        stack: E → H.
        projection: H → E, before the output layer; None if H is E.
        output_projection: E → V; None uses the embeddings.
        shared: ``dropout_in``, ``dropout_out`` and ``max_positions`` of :class:`StackDecoder`.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        embed_tokens: nn.Embedding,
        stack: nn.RNNBase,
        projection: nn.Linear | None,
        output_projection: nn.Linear | None,
        **shared: float,
    ) -> None:
        super().__init__(dictionary, embed_tokens, stack, **shared)
        self.projection = projection
        self.output_projection = output_projection

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: None = None,
        incremental_state: dict[str, Any] | None = None,
        src_lengths: Tensor | None = None,
        carried: Carried | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Features for predicting every next token.

        Args:
            prev_output_tokens: (B, T) the previous tokens; only the last token counts if ``incremental_state`` holds a
                state.
            encoder_out: None; fairseq's generator passes it to a language model.
            incremental_state: the states of fairseq's generator.
            src_lengths: part of fairseq's batches; unused, because later tokens cannot change a sentence's scores.
            carried: the first state, which is replaced with the last state.

        Returns:
            (B, T, E) and {"attn": None}; fairseq's generator looks for attention there.
        """
        state: State | None = None if carried is None else carried.state
        if incremental_state is not None:
            state = self.get_incremental_state(incremental_state, "state")
            if state is not None:
                prev_output_tokens = prev_output_tokens[:, -1:]
        x = self.dropout_in(self.embed_tokens(prev_output_tokens))
        x, state = run_stack(self.stack, x, state)
        if carried is not None:
            carried.state = detach_state(state)
        if incremental_state is not None:
            self.set_incremental_state(incremental_state, "state", state)
        x = self.dropout_out(x)
        return (x if self.projection is None else self.projection(x)), {"attn": None}

    def reorder_incremental_state(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """fairseq's generator calls this when beams change their places."""
        state: State | None = self.get_incremental_state(incremental_state, "state")
        if state is not None:
            self.set_incremental_state(incremental_state, "state", reorder_state(state, new_order))


@dataclass
class RecurrentLanguageModelConfig(FairseqDataclass):
    cell: str = field(default="lstm", metadata={"help": f"recurrent cell: {', '.join(CELLS)} (rnn: tanh)"})
    decoder_layers: int = field(default=2, metadata={"help": "number of layers"})
    decoder_embed_dim: int = field(default=512, metadata={"help": "size of embeddings and of the output layer's input"})
    decoder_hidden_size: int = field(default=1024, metadata={"help": "size of states"})
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "the output layer uses the embeddings as its weights"}
    )
    dropout: float = field(default=0.3, metadata={"help": "dropout probability, between layers"})
    decoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout on embeddings (default: --dropout)"}
    )
    decoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout before the output layer (default: --dropout)"}
    )
    init_scheme: str = field(default="default", metadata={"help": f"initial weights: {', '.join(SCHEMES)}"})
    init_bound: float = field(default=0.1, metadata={"help": "--init-scheme uniform: within ± this"})
    max_target_positions: Optional[int] = II("task.max_target_positions")


@register_model("rnn_lm", dataclass=RecurrentLanguageModelConfig)
class RecurrentLanguageModel(FairseqLanguageModel):
    """A recurrent language model."""

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "RecurrentLanguageModel":
        """Build a model for a language modeling task.

        Raises:
            UserError: an option's value is invalid.
        """
        _check(cfg, task)
        dictionary: Dictionary = task.source_dictionary
        size, hidden = cfg.decoder_embed_dim, cfg.decoder_hidden_size
        tied = cfg.share_decoder_input_output_embed
        decoder = RecurrentLanguageModelDecoder(
            dictionary,
            nn.Embedding(len(dictionary), size, padding_idx=dictionary.pad()),
            recurrent_stack(cfg.cell, size, hidden, cfg.decoder_layers, cfg.dropout),
            None if hidden == size else nn.Linear(hidden, size),
            None if tied else nn.Linear(size, len(task.target_dictionary)),
            dropout_in=cfg.dropout if cfg.decoder_dropout_in is None else cfg.decoder_dropout_in,
            dropout_out=cfg.dropout if cfg.decoder_dropout_out is None else cfg.decoder_dropout_out,
            max_positions=cfg.max_target_positions or LONGEST,
        )
        initialise(decoder, cfg.init_scheme, cfg.init_bound)
        return cls(decoder)


def _check(cfg: Any, task: Any) -> None:
    """Raises UserError if an option's value is invalid."""
    sizes = ("decoder_layers", "decoder_embed_dim", "decoder_hidden_size")
    check_options(cfg, _CHOICES, sizes, ("dropout", "decoder_dropout_in", "decoder_dropout_out"))
    if cfg.share_decoder_input_output_embed and len(task.source_dictionary) != len(task.target_dictionary):
        raise UserError("--share-decoder-input-output-embed: not with --output-dictionary-size; leave one of them out")


# --- named forms

PRESETS: dict[str, dict[str, Any]] = {
    "rnn_lm_small": {"decoder_embed_dim": 256, "decoder_hidden_size": 512},
    "rnn_lm_large": {"decoder_embed_dim": 1024, "decoder_hidden_size": 2048, "dropout": 0.5},
}


register_presets("rnn_lm", PRESETS)
