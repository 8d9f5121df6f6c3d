"""The attention of a decoder: the weight of each source token for each target token."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models import BaseFairseqModel

from ..common.errors import UserError
from ..common.folders import find_checkpoint
from ..common.progress import say
from ..data.lines import open_input, read_blocks
from ..data.text import TextPipeline, indices
from ..plugin.model import parameter_like
from .load import load_model

logger = logging.getLogger(__name__)

LONGEST = 200  # tokens; longer pictures are unreadable


@dataclass(frozen=True)
class Attention:
    """The attention of a decoder while it translated a sentence.

    Args:
        source: S tokens, with ``</s>``.
        target: T tokens of the translation, with ``</s>``.
        weights: (T, S), each row adding up to 1.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: np.ndarray


def attention_of(model: BaseFairseqModel, task: Any, generator: Any, tokens: Sequence[str]) -> tuple[Attention, str]:
    """Translate a sentence and return the decoder's attention.

    Args:
        model: a pair, or a single model, in evaluation mode.
        task: the direction's task.
        generator: the task's generator.
        tokens: the sentence in model tokens.

    Returns:
        (attention, tokens of the best translation joined by spaces, without ``</s>``).

    Raises:
        UserError: the arch has no attention, or its generator does not report it.
    """
    device = parameter_like(model).device
    source = indices(tokens, task.source_dictionary)
    sample = {"net_input": {"src_tokens": source[None], "src_lengths": torch.tensor([len(source)])}}
    sample = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
    best = task.inference_step(generator, [model], sample)[0][0]
    weights = best.get("attention")
    if weights is None or weights.numel() == 0:
        raise UserError("the arch has no attention, or does not report it: there is nothing to draw")
    dictionary, target = task.target_dictionary, best["tokens"].cpu()
    eos = dictionary[dictionary.eos()]
    return (
        Attention([*tokens, eos], [dictionary[i] for i in target.tolist()], weights.float().cpu().numpy().T),
        dictionary.string(target),
    )


@dataclass(frozen=True)
class Line:
    """A translated line of text.

    Attributes:
        number: the line number, from 1.
        direction: ``de-en``.
        translation: raw text.
        attention: the decoder's attention.
    """

    number: int
    direction: str
    translation: str
    attention: Attention


def translate_with_attention(
    run: str | Path,
    source: str | None = None,
    target: str | None = None,
    text_file: Path | None = None,
    limit: int = 20,
    beam: int = 5,
    dest: str | None = None,
    cpu: bool = False,
) -> Iterator[Line]:
    """Translate the first lines of a text. Lines that are empty or too long are left out, with a warning.

    Args:
        run: see :func:`~dual_fairseq.common.folders.find_checkpoint`; also a checkpoint of a single model.
        source, target: the languages; one may be left out.
        text_file: raw text, plain or gzip; None for standard input.
        limit: how many lines to read.
        beam: beam size.
        dest: see :meth:`~dual_fairseq.data.text.TextPipeline.of_checkpoint`.
        cpu: use no GPU even if there is one.

    Raises:
        UserError: there is no such file, model or direction, or the arch has no attention.
    """
    with open_input(text_file) as (stream, name):
        checkpoint = find_checkpoint(run, (source, target))
        text = TextPipeline.of_checkpoint(checkpoint, dest)
        device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
        model, task = load_model(checkpoint, text.dictionaries, source, target, device, {"eval_bleu": False})
        source, target = task.cfg.source_lang, task.cfg.target_lang
        say(f"{source} -> {target} with {checkpoint}")
        # Not prepared for inference as in fairseq-generate, because that leaves attention out.
        generator = task.build_generator([model], GenerationConfig(beam=beam))
        longest = min(LONGEST, int(min(task.max_positions()[0], model.max_positions()[0])) - 1)
        for number, (line,) in islice(read_blocks(stream, name, 1), limit):
            tokens = text.encode(line, source).split()
            if not tokens or len(tokens) > longest:
                reason = f"{len(tokens)} tokens, over {longest}" if tokens else "empty"
                logger.warning("line %d: %s; not drawn", number, reason)
                continue
            attention, translation = attention_of(model, task, generator, tokens)
            yield Line(number, f"{source}-{target}", text.decode(translation, target), attention)
