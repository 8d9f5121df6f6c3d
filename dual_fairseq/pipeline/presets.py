"""The sizes of models, and the options of training that go with each."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = ("tiny", "small", "base")


@dataclass(frozen=True)
class Pair:
    """A Transformer of each direction; learning rates are for Adam with an inverse square root schedule."""

    layers: str
    dimension: str
    heads: str
    feed_forward: str
    dropout: str
    lr: str  # peak, of the warm start
    dual_lr: str  # peak, of dual training
    lr_warmup: str  # updates until the peak

    def shape(self) -> dict[str, str]:
        """Its dimensions as options of fairseq-train, without dashes."""
        return {
            f"{side}-{name}": value
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", self.layers), ("embed-dim", self.dimension), ("attention-heads", self.heads),
                ("ffn-embed-dim", self.feed_forward),
            )
        }  # fmt: skip


PAIRS = {
    "tiny": Pair("2", "128", "4", "512", "0.2", "0.001", "0.0005", "200"),
    "small": Pair("4", "256", "4", "1024", "0.3", "0.0007", "0.0003", "1000"),
    "base": Pair("6", "512", "8", "2048", "0.3", "0.0007", "0.0003", "4000"),
}


@dataclass(frozen=True)
class LanguageModel:
    """A language model; a recurrent one has no heads and no feed-forward layers, but has a hidden state."""

    layers: str
    dimension: str
    dropout: str
    lr: str
    hidden: str = ""
    heads: str = ""
    feed_forward: str = ""


_RECURRENT = {
    "tiny": LanguageModel("1", "128", "0.3", "0.001", hidden="256"),
    "small": LanguageModel("2", "256", "0.3", "0.001", hidden="512"),
    "base": LanguageModel("2", "512", "0.3", "0.001", hidden="1024"),
}
LANGUAGE_MODELS = {
    "lstm": _RECURRENT,
    "rnn": _RECURRENT,
    "transformer": {
        "tiny": LanguageModel("2", "128", "0.1", "0.0005", heads="4", feed_forward="512"),
        "small": LanguageModel("4", "256", "0.2", "0.0005", heads="4", feed_forward="1024"),
        "base": LanguageModel("6", "512", "0.3", "0.0005", heads="8", feed_forward="2048"),
    },
}
