"""Translations of monolingual text that are good enough to learn from: a step of ``dual-fairseq synthesize``.

The output is a JSON file: ``pairs``, a list of [line, translation], and ``left_out``, the number of translations by
reason.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..common.arguments import Parser
from ..common.files import read_lines, write_json
from ..common.options import (
    add_beam,
    add_device,
    add_engine,
    add_languages,
    add_length_limit,
    add_max_tokens,
    add_output,
    add_seed,
    length_limit_given,
    whole_number,
)
from ..common.progress import Progress
from ..data.select import bare
from .translator import DualTranslator, Hypothesis

_BLOCK = 2000  # lines that are sorted by length and translated at a time


def get_parser() -> argparse.ArgumentParser:
    """The options of the step."""
    parser = Parser("pair.synthetic", __doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help="of a pair; several translate together")
    parser.add_argument("--dest", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--references", type=Path, help="translations that are known, line by line")
    parser.add_argument("--nbest", type=whole_number(), default=1)
    parser.add_argument("--sampling", type=whole_number())
    parser.add_argument("--dual-inference")
    parser.add_argument("--src-lm")
    parser.add_argument("--tgt-lm")
    add_languages(parser, required=True)
    add_output(parser)
    for add in (add_beam, add_length_limit, add_max_tokens, add_seed, add_engine, add_device):
        add(parser)
    return parser


def usable(
    line: str, hypotheses: Iterable[Hypothesis], known: str | None, count: int, out: Counter[str]
) -> list[Hypothesis]:
    """The best distinct translations of a line that are worth learning from.

    Args:
        line: text, in words.
        hypotheses: its translations, best first.
        known: an existing translation.
        count: the largest number.
        out: counts the translations left out, by reason.
    """
    kept: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        if len(kept) == count:
            break
        text = bare(hypothesis.text)
        if not text:
            out["empty"] += 1
        elif hypothesis.cut_off:
            out["cut_off"] += 1
        elif text == bare(line):
            out["copied"] += 1
        elif known is not None and text == bare(known):
            out["known"] += 1
        elif text in kept:
            out["repeated"] += 1
        else:
            kept[text] = hypothesis
    return [*kept.values()]


def main(arguments: Sequence[str]) -> None:
    """The command line of the step.

    Raises:
        UserError: the pair, a language model or the text cannot be used.
    """
    options = get_parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    pair = DualTranslator.from_pretrained(
        options.checkpoints, options.dest, "cpu" if options.cpu else None, dual_inference=options.dual_inference,
        engine=options.engine, int8=options.int8,
    )  # fmt: skip
    source, target = pair.direction(options.source_lang, options.target_lang)
    pair.use_language_models({source: options.src_lm, target: options.tgt_lm})
    generation: dict[str, Any] = {"sampling": True, "sampling_topk": options.sampling} if options.sampling else {}
    generation |= length_limit_given(options)
    sides, decode = pair.text.data.sides, pair.text.decode
    lines = read_lines(options.input)
    references = read_lines(options.references) if options.references else [None] * len(lines)
    pairs: list[tuple[str, str]] = []
    out = Counter[str]()
    with Progress(f"{source} -> {target}", len(lines), "lines") as bar:
        for first in range(0, len(lines), _BLOCK):
            block = lines[first : first + _BLOCK]
            translations = pair.translate_nbest(
                block, source, target, nbest=options.beam, beam=options.beam, max_tokens=options.max_tokens,
                first=first + 1, advance=bar.update, **generation,
            )  # fmt: skip
            expected = references[first : first + _BLOCK]
            for line, hypotheses, reference in zip(block, translations, expected, strict=True):
                # with one translation per line, only the best counts
                best = hypotheses if options.nbest > 1 else hypotheses[:1]
                words = decode(line, source) if sides[source].in_pieces else line
                in_pieces = sides[target].in_pieces
                known = decode(reference, target) if reference and in_pieces else reference
                learnable = usable(words, best, known, options.nbest, out)
                pairs += ((line, good.tokens if in_pieces else good.text) for good in learnable)
    write_json(options.output, {"pairs": pairs, "left_out": out})
