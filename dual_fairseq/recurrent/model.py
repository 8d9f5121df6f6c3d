"""The arch ``rnn`` and its named forms: recurrent encoder–decoders from the literature.

fairseq-train DATA --user-dir dual_fairseq --task translation --arch rnnsearch ...         one direction
fairseq-train DATA --user-dir dual_fairseq --task dual_translation --arch rnnsearch ...    a pair
"""

from argparse import ArgumentParser
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqEncoderDecoderModel, register_model
from omegaconf import II
from torch import nn

from ..common.errors import UserError
from ..plugin.word_vectors import VectorFile, start_tables
from .attention import ATTENTIONS, build_attention
from .cells import CELLS, SCHEMES, check_options, initialise, recurrent_stack, register_presets
from .decoder import BRIDGES, READOUTS, Bridge, Readout, RecurrentDecoder
from .encoder import RecurrentEncoder

_CHOICES = {"cell": CELLS, "attention": ATTENTIONS, "bridge": BRIDGES, "readout": READOUTS, "init_scheme": SCHEMES}
_ROLES = ("encoder", "decoder")
_SIZES = [*(f"{role}_{of}" for role in _ROLES for of in ("embed_dim", "hidden_size", "layers")),
          "attention_size", "readout_size"]  # fmt: skip
_DROPOUTS = ["dropout", *(f"{role}_dropout_{end}" for role in _ROLES for end in ("in", "out"))]


@dataclass
class RecurrentConfig(FairseqDataclass):
    cell: str = field(default="gru", metadata={"help": f"recurrent cell: {', '.join(CELLS)} (rnn: tanh)"})
    dropout: float = field(default=0.1, metadata={"help": "dropout probability"})
    encoder_embed_dim: int = field(default=512, metadata={"help": "size of source embeddings"})
    encoder_embed_path: Optional[str] = field(default=None, metadata={"help": "pretrained source embeddings"})
    encoder_freeze_embed: bool = field(default=False, metadata={"help": "do not train source embeddings"})
    encoder_hidden_size: int = field(default=512, metadata={"help": "size of the encoder's states, of each direction"})
    encoder_layers: int = field(default=1, metadata={"help": "number of encoder layers"})
    encoder_bidirectional: bool = field(default=False, metadata={"help": "read the source in both directions"})
    decoder_embed_dim: int = field(default=512, metadata={"help": "size of target embeddings"})
    decoder_embed_path: Optional[str] = field(default=None, metadata={"help": "pretrained target embeddings"})
    decoder_freeze_embed: bool = field(default=False, metadata={"help": "do not train target embeddings"})
    decoder_hidden_size: int = field(default=512, metadata={"help": "size of the decoder's states"})
    decoder_layers: int = field(default=1, metadata={"help": "number of decoder layers"})
    attention: str = field(
        default="general", metadata={"help": f"how the decoder looks at the source: {', '.join(ATTENTIONS)}"}
    )
    attention_size: Optional[int] = field(
        default=None, metadata={"help": "hidden layer of additive attention (default: --decoder-hidden-size)"}
    )
    bridge: str = field(
        default="tanh",
        metadata={"help": f"how the encoder's last state becomes the decoder's first state: {', '.join(BRIDGES)}"},
    )
    input_feeding: bool = field(default=False, metadata={"help": "make the last readout part of the next input"})
    readout: str = field(default="tanh", metadata={"help": f"the layer before the output layer: {', '.join(READOUTS)}"})
    readout_size: Optional[int] = field(
        default=None, metadata={"help": "size of the readout (default: --decoder-embed-dim)"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "the output layer uses the target embeddings as its weights"}
    )
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one table for source, target and output (needs a joint dictionary)"}
    )
    encoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout on source embeddings (default: --dropout)"}
    )
    encoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout between encoder layers and on its output (default: --dropout)"}
    )
    decoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout on target embeddings (default: --dropout)"}
    )
    decoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout between decoder layers and on readouts (default: --dropout)"}
    )
    init_scheme: str = field(default="default", metadata={"help": f"initial weights: {', '.join(SCHEMES)}"})
    init_bound: float = field(default=0.1, metadata={"help": "--init-scheme uniform: within ± this"})
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@register_model("rnn", dataclass=RecurrentConfig)
class RecurrentModel(FairseqEncoderDecoderModel):
    """A recurrent encoder and a recurrent decoder."""

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """The options of :class:`RecurrentConfig`, and one that turns off what named archs turn on."""
        super().add_args(parser)
        parser.add_argument(
            "--no-encoder-bidirectional", dest="encoder_bidirectional", action="store_false",
            help="read the source from left to right",
        )  # fmt: skip

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "RecurrentModel":
        """Build a model for a translation task.

        Raises:
            UserError: options contradict each other, or word vectors cannot be used.
        """
        source, target = task.source_dictionary, task.target_dictionary
        _check(cfg, source, target)
        if getattr(task.cfg, "left_pad_target", False):
            raise UserError("--left-pad-target: padding would enter the decoder's states; leave it out")
        encoder_table = _embedding(source, cfg.encoder_embed_dim)
        decoder_table = encoder_table if cfg.share_all_embeddings else _embedding(target, cfg.decoder_embed_dim)
        model = cls(
            encoder := _encoder(cfg, source, encoder_table),
            _decoder(cfg, target, decoder_table, encoder),
        )
        initialise(model, cfg.init_scheme, cfg.init_bound)
        for role, side, dictionary, table in (
            ("encoder", "source_lang", source, encoder_table),
            ("decoder", "target_lang", target, decoder_table),
        ):
            path = getattr(cfg, f"{role}_embed_path")
            if path:
                language = getattr(task.cfg, side)
                file = VectorFile(f"--{role}-embed-path", path, language, dictionary, joint=source == target)
                start_tables([table], file)
            if getattr(cfg, f"{role}_freeze_embed"):
                table.weight.requires_grad = False
        return model

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq calls this before it translates.

        Raises:
            UserError: an alignment is requested from a model without attention (fairseq's generator would fail).
        """
        if self.decoder.attention is None and cfg.generation.print_alignment:
            raise UserError("--print-alignment: a model without attention aligns nothing; leave it out")
        super().prepare_for_inference_(cfg)


def _embedding(dictionary: Dictionary, size: int) -> nn.Embedding:
    return nn.Embedding(len(dictionary), size, padding_idx=dictionary.pad())


def _encoder(cfg: Any, dictionary: Dictionary, table: nn.Embedding) -> RecurrentEncoder:
    dropout_out = _dropout(cfg, "encoder_dropout_out")
    stack = recurrent_stack(
        cfg.cell, table.embedding_dim, cfg.encoder_hidden_size, cfg.encoder_layers, dropout_out,
        cfg.encoder_bidirectional,
    )  # fmt: skip
    return RecurrentEncoder(
        dictionary, table, stack, _dropout(cfg, "encoder_dropout_in"), dropout_out, cfg.max_source_positions
    )


def _decoder(cfg: Any, dictionary: Dictionary, table: nn.Embedding, encoder: RecurrentEncoder) -> RecurrentDecoder:
    hidden, size = cfg.decoder_hidden_size, _readout_size(cfg)
    attention = build_attention(cfg.attention, hidden, encoder.output_size, cfg.attention_size or hidden)
    context = hidden if attention is None else encoder.output_size
    fed = size if cfg.input_feeding else 0
    seen = context if attention is None or attention.before_step else 0
    dropout_out = _dropout(cfg, "decoder_dropout_out")
    stack = recurrent_stack(cfg.cell, table.embedding_dim + seen + fed, hidden, cfg.decoder_layers, dropout_out)
    tied = cfg.share_decoder_input_output_embed or cfg.share_all_embeddings
    return RecurrentDecoder(
        dictionary,
        table,
        stack,
        Bridge(cfg.bridge, encoder.stack, stack),
        attention,
        nn.Linear(encoder.output_size, hidden) if attention is None else None,
        Readout(cfg.readout, hidden, context, table.embedding_dim, size),
        None if tied else nn.Linear(size, len(dictionary)),
        cfg.input_feeding,
        dropout_in=_dropout(cfg, "decoder_dropout_in"),
        dropout_out=dropout_out,
        max_positions=cfg.max_target_positions,
    )


def _readout_size(cfg: Any) -> int:
    return cfg.readout_size or cfg.decoder_embed_dim


def _dropout(cfg: Any, name: str) -> float:
    value = getattr(cfg, name)
    return cfg.dropout if value is None else value


def _check(cfg: Any, source: Dictionary, target: Dictionary) -> None:
    """Refuse options that contradict each other, each with one line.

    Raises:
        UserError: there are such options.
    """
    check_options(cfg, _CHOICES, _SIZES, _DROPOUTS)
    directions = 2 if cfg.encoder_bidirectional else 1
    output = cfg.encoder_hidden_size * directions
    encoder = f"--encoder-hidden-size {cfg.encoder_hidden_size}" + (" of each direction" if directions == 2 else "")
    if cfg.attention == "dot" and output != cfg.decoder_hidden_size:
        raise UserError(
            f"--attention dot: needs states of one size, not --decoder-hidden-size {cfg.decoder_hidden_size} and "
            f"{encoder}; make them equal or take --attention general"
        )
    if cfg.bridge == "copy" and (output, cfg.encoder_layers) != (cfg.decoder_hidden_size, cfg.decoder_layers):
        raise UserError(
            f"--bridge copy: needs a decoder like the encoder, not {cfg.decoder_layers} layers of "
            f"--decoder-hidden-size {cfg.decoder_hidden_size} beside {cfg.encoder_layers} of {encoder}; make them "
            "equal or take --bridge tanh"
        )
    if cfg.share_all_embeddings:
        if source != target:
            raise UserError(
                "--share-all-embeddings: needs a joint dictionary (fairseq-preprocess --joined-dictionary); leave it "
                "out, or take --share-decoder-input-output-embed"
            )
        if cfg.encoder_embed_dim != cfg.decoder_embed_dim:
            raise UserError(
                f"--share-all-embeddings: one table has one size, not --encoder-embed-dim {cfg.encoder_embed_dim} and "
                f"--decoder-embed-dim {cfg.decoder_embed_dim}"
            )
        if cfg.decoder_embed_path and cfg.decoder_embed_path != cfg.encoder_embed_path:
            raise UserError("--share-all-embeddings: one table takes one file; give it only with --encoder-embed-path")
    if (cfg.share_decoder_input_output_embed or cfg.share_all_embeddings) and (
        _readout_size(cfg) != cfg.decoder_embed_dim
    ):
        option = "--share-all-embeddings" if cfg.share_all_embeddings else "--share-decoder-input-output-embed"
        raise UserError(
            f"{option}: the output layer is the embeddings, so --readout-size {_readout_size(cfg)} must be "
            f"--decoder-embed-dim {cfg.decoder_embed_dim}"
        )


# --- named forms

_GRU = {"cell": "gru", "bridge": "tanh", "readout": "maxout", "init_scheme": "orthogonal"}
_SEARCH = {**_GRU, "encoder_bidirectional": True, "attention": "additive"}
_LUONG = {
    "cell": "lstm", "attention": "general", "bridge": "copy", "readout": "tanh", "init_scheme": "uniform",
    "dropout": 0.2,
}  # fmt: skip


def _sizes(embedding: int, encoder: int, decoder: int, readout: int) -> dict[str, int]:
    return {
        "encoder_embed_dim": embedding, "decoder_embed_dim": embedding, "encoder_hidden_size": encoder,
        "decoder_hidden_size": decoder, "readout_size": readout,
    }  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    # Cho et al. 2014, arXiv:1406.1078
    "rnn_encoder_decoder": {**_GRU, "attention": "none", **_sizes(512, 512, 512, 512)},
    "rnn_encoder_decoder_small": {**_GRU, "attention": "none", **_sizes(128, 256, 256, 128)},
    # Bahdanau et al. 2015, arXiv:1409.0473; rnnsearch_50 with the paper's sizes
    "rnnsearch": {**_SEARCH, **_sizes(512, 512, 512, 512)},
    "rnnsearch_small": {**_SEARCH, **_sizes(128, 128, 256, 128), "attention_size": 128},
    "rnnsearch_50": {**_SEARCH, **_sizes(620, 1000, 1000, 500)},
    # Luong et al. 2015, arXiv:1508.04025
    "rnn_luong": {**_LUONG, **_sizes(512, 512, 512, 512), "encoder_layers": 2, "decoder_layers": 2},
    "rnn_luong_small": {**_LUONG, **_sizes(256, 256, 256, 256)},
}


register_presets("rnn", PRESETS)
