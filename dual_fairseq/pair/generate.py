"""Translates a split with any engine and prints the S-, H-, R- and L- lines of fairseq-generate.

This is a step of ``dual-fairseq evaluate --engine``. The first printed line names the engine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from fairseq.dataclass.configs import GenerationConfig

from ..common.arguments import Parser
from ..common.options import (
    add_beam,
    add_device,
    add_engine,
    add_languages,
    add_length_limit,
    add_max_tokens,
    finite_number,
    length_limit_given,
)
from ..plugin.extra_lines import LinePrinter
from ..plugin.ranking import Weights
from .engine import batch_tokens, choose_engine
from .load import load_pair
from .search import search


def main(arguments: Sequence[str] | None = None) -> None:
    """A step of ``dual-fairseq evaluate``: print the translations of a split.

    Raises:
        UserError: the checkpoint, its data, a language model or the engine is wrong.
    """
    parser = Parser("pair.generate", str(main.__doc__))
    parser.add_argument("data", type=Path, help="binarized data")
    parser.add_argument("checkpoint", type=Path, help="of a pair")
    add_languages(parser, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--lenpen", type=finite_number, default=1.0)
    parser.add_argument("--post-process", help="how fairseq undoes the segmentation")
    parser.add_argument("--components", action="store_true", help="all translations of the beam, with all scores")
    parser.add_argument("--src-lm")
    parser.add_argument("--tgt-lm")
    for add in (add_beam, add_length_limit, add_max_tokens, add_engine, add_device):
        add(parser)
    options = parser.parse_args(arguments)

    overrides = {"src_lm": options.src_lm, "tgt_lm": options.tgt_lm, "eval_bleu": False, "lm_score_cache": None}
    languages = (options.source_lang, options.target_lang)
    device = "cpu" if options.cpu else None
    pair, task = load_pair(options.checkpoint, options.data, *languages, device, overrides)
    task.dual_inference = Weights() if options.components else None
    engine = choose_engine(options.engine, [pair], task, [options.checkpoint], options.int8)
    limit = length_limit_given(options)
    generation = GenerationConfig(beam=options.beam, lenpen=options.lenpen, no_beamable_mm=True, **limit)
    pair.prepare_for_inference_(argparse.Namespace(generation=generation))
    generator = task.build_generator([pair], generation)
    if engine is not None:
        generator = engine.generator(task, generator, generation)

    task.load_dataset(options.split)
    dataset, longest = task.dataset(options.split), min(task.max_positions()[0], pair.max_positions()[0])
    numbers = [i for i in range(len(dataset)) if len(dataset.src[i]) <= longest]  # fairseq-generate leaves out the rest
    nbest = options.beam if options.components else 1
    printer = LinePrinter(task.source_dictionary)
    printer.set_up(nbest, None)
    print(f"engine: {engine or 'fairseq'}")
    max_tokens = batch_tokens(generator, options.max_tokens)
    for index, hypotheses in search(task, generator, [pair], [dataset.src[i] for i in numbers], max_tokens):
        number = numbers[index]
        print(f"S-{number}\t{task.source_dictionary.string(dataset.src[number], options.post_process)}")
        printer.print({"id": torch.tensor([number])}, [hypotheses])
        for hypothesis in hypotheses[:nbest]:
            text = task.target_dictionary.string(hypothesis["tokens"].cpu(), options.post_process)
            print(f"H-{number}\t{float(hypothesis['score']) / math.log(2)}\t{text}")
