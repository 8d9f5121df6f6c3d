"""P(label) from the counts of the training text: ``--arch label_lm``, a language model that needs no training.

python -m dual_fairseq plugin.label_model DATA CHECKPOINT    counts the labels in DATA, for dual-fairseq train-lm
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqDecoder, FairseqLanguageModel, register_model
from torch import Tensor

from ..common.errors import UserError
from .finished import finished_state, write_checkpoint

LONGEST = 100_000  # tokens; the other side of a pair may be as long as its own models allow


@dataclass
class LabelLanguageModelConfig(FairseqDataclass):
    """It has no options."""


class LabelDecoder(FairseqDecoder):
    """Predicts a label by its share of the training text, then ``</s>`` with probability 1.

    Args:
        dictionary: of the labels.
    """

    counts: Tensor  # (V,)

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__(dictionary)
        self.register_buffer("counts", torch.zeros(len(dictionary), dtype=torch.long))

    def forward(self, prev_output_tokens: Tensor, encoder_out: Any = None, **kwargs: Any) -> tuple[Tensor, None]:
        """(B, T) tokens → (B, T, V) log-probabilities of the next token, nats, float32; −∞ if never seen."""
        first = (self.counts.double() / self.counts.sum()).log().float()
        then = torch.full_like(first, -math.inf)
        then[self.dictionary.eos()] = 0.0
        return torch.where(prev_output_tokens.eq(self.dictionary.eos()).unsqueeze(-1), first, then), None

    def max_positions(self) -> int:
        return LONGEST


@register_model("label_lm", dataclass=LabelLanguageModelConfig)
class LabelLanguageModel(FairseqLanguageModel):
    """The language model of a side of labels."""

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> LabelLanguageModel:
        return cls(LabelDecoder(task.source_dictionary))


def count_labels(data: Path, split: str, dictionary: Dictionary) -> Tensor:
    """(V,) how often each symbol is a label of a split.

    Raises:
        UserError: a sentence is not one known label.
    """
    sentences = MMapIndexedDataset(str(data / split))
    if not len(sentences) or (sentences.sizes != 2).any():
        raise UserError(f"{data / split}: is not one label a line; run dual-fairseq preprocess with --subword label")
    counts = torch.cat([sentences[i][:1] for i in range(len(sentences))]).bincount(minlength=len(dictionary))
    if counts[: dictionary.nspecial].any():
        raise UserError(f"{data / split}: holds labels that are not in {data / 'dict.txt'}; preprocess both together")
    return counts


def counted(data: Path) -> dict[str, Any]:
    """The checkpoint of a language model of labels; its validation loss is in bits per token, with ``</s>``.

    Args:
        data: binarized labels, as fairseq's language modeling reads them.

    Raises:
        UserError: the data are not labels, or the validation text has a label that the training text lacks.
    """
    dictionary = Dictionary.load(str(data / "dict.txt"))
    counts, held_out = (count_labels(data, split, dictionary) for split in ("train", "valid"))
    if unseen := [dictionary[i] for i in range(len(dictionary)) if held_out[i] and not counts[i]]:
        raise UserError(f"{data / 'valid'}: its label {unseen[0]} is not in the training text")
    seen = held_out > 0
    bits = -(held_out[seen] * (counts[seen].double() / counts.sum()).log2()).sum() / (2 * held_out.sum())
    model = LabelLanguageModel(LabelDecoder(dictionary))
    model.decoder.counts = counts
    state = finished_state(
        model.state_dict(),
        cfg={
            "model": {"_name": "label_lm"},
            "task": {"_name": "language_modeling", "data": os.path.abspath(data), "sample_break_mode": "eos"},
            "criterion": {"_name": "cross_entropy"},
        },
    )
    state["extra_state"]["val_loss"] = float(bits)
    return state


def main(arguments: Sequence[str]) -> None:
    """The command line; see the first lines of this file."""
    data, checkpoint = map(Path, arguments)
    write_checkpoint(counted(data), checkpoint)
