"""The options of score, export, import and average. The modules that do the work load torch and fairseq at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.folders import find_checkpoint
from ..common.options import (
    add_dest,
    add_device,
    add_engine,
    add_language_models,
    add_languages,
    add_max_tokens,
    add_output,
    add_split,
    whole_number,
)
from ..common.progress import say

RUN = "the folder of a run or a stage, or a checkpoint"
DICTIONARIES = "the folder with dict.LANG.txt of both languages"

SCORE = """\
Score parallel text with a trained pair: log P(y|x), log P(x|y), log P(x), log P(y) and the gap of each pair.

    dual-fairseq score RUN -s de -t en --split valid
    dual-fairseq score RUN -s de -t en --source my.de --target my.en -o scores.tsv
    dual-fairseq filter scores.tsv --source my.de --target my.en --keep 0.8 --output-prefix clean

docs/scoring.md explains how to filter noisy parallel text and how to estimate the quality of translations."""

TABLE = """\
The table has a header line and one line for each pair, in the order of the input; x is the -s and y the -t language:
  line                            number of the pair, from 1
  tokens_x, tokens_y              tokens of the models (BPE pieces, characters or words), </s> included
  unknown_x, unknown_y            how many of these are not in the dictionary
  log_p_y_given_x ... log_p_y     log P(y|x), log P(x|y), log P(x), log P(y), in nats, </s> included
  gap                             [log P(x) + log P(y|x)] - [log P(y) + log P(x|y)], in nats
  ..._per_token                   each divided by the number of its tokens (for the gap: those of x and y)
  note                            the reason for empty cells: a sentence is empty, too long, not UTF-8, ...
  text                            in line 1: the language and a digest of each scored file (not with --segmented)

`dual-fairseq filter --help` explains filtering."""

EXPORT = """\
Write one direction of a pair as a plain fairseq checkpoint of the task translation, with its dictionaries beside it.

    dual-fairseq export dual.pt --direction de-en -o out/de-en.pt

fairseq without this plugin, and tools for fairseq, can use the file like any other single model: fairseq-generate,
TransformerModel.from_pretrained, checkpoint averaging, ensembles, CTranslate2's fairseq converter. The file holds only
tensors and plain Python values. PyTorch >= 2.6 reads it with weights_only, and nothing in it can run code."""

IMPORT = """\
Make a pair's checkpoint from two plain fairseq translation models, one for each direction.

    dual-fairseq import --src2tgt de-en.pt --tgt2src en-de.pt --data DIR -o pair.pt

fairseq-train --task translation must have trained both models with the same arch and sizes, over the dictionaries in
DIR. The pair can translate, validate and be exported like a trained pair. The option --finetune-from-model pair.pt of
fairseq-train continues its training."""

AVERAGE = """\
Average the weights of several checkpoints: pairs, or any other fairseq checkpoints of one kind.

    dual-fairseq average --inputs a.pt b.pt c.pt -o average.pt
    dual-fairseq average --inputs run/dual --num-epoch-checkpoints 5 -o average.pt

The options are those of fairseq's scripts/average_checkpoints.py. No pip package of fairseq contains this script, and
with PyTorch >= 2.6 it cannot read the checkpoints of a training run. Everything except the weights is taken from the
first input. With --num-epoch-checkpoints or --num-update-checkpoints, the first input is the newest checkpoint."""


def score(arguments: Sequence[str]) -> None:
    """Score parallel text.

    Raises:
        UserError: an option, a file or the checkpoint is wrong.
    """
    parser = Parser("score", SCORE)
    parser.epilog = TABLE
    parser.add_argument("run", metavar="RUN", help=RUN)
    add_languages(parser, source="(of x; default: as trained)", target="(of y; default: as trained)")
    parser.add_argument(
        "--data", metavar="DIR",
        help="binarized data, or a folder with its dictionaries (default: DEST/dual, else as trained)",
    )  # fmt: skip
    text = parser.add_argument_group("what to score: --split, or --source and --target")
    add_split(text)
    text.add_argument("--source", type=Path, metavar="FILE", help="sentences in the -s language, one per line (or .gz)")
    text.add_argument("--target", type=Path, metavar="FILE", help="their translations, line by line")
    add_dest(text)
    text.add_argument("--segmented", action="store_true", help="the text is already tokenised and segmented (BPE)")
    lms = parser.add_argument_group("language models")
    add_language_models(lms)
    lms.add_argument("--no-lm", action="store_true", help="only log P(y|x) and log P(x|y); the other cells stay empty")
    add_output(parser, "the file to write (default: standard output)", required=False)
    add_max_tokens(parser)
    add_engine(parser)
    add_device(parser, fp16=True)
    options = parser.parse_args(arguments)
    _check_score(options)
    from .score import run

    run(options)


def _check_score(options: argparse.Namespace) -> None:
    files = [path for path in (options.source, options.target) if path]
    if bool(options.split) == bool(files) or len(files) == 1:
        raise UserError("give what to score: --split NAME, or both --source FILE and --target FILE")
    if options.segmented and (options.split or options.dest):
        raise UserError("--segmented: needs --source and --target, and takes no --dest, which is for raw text")
    if bool(options.src_lm) != bool(options.tgt_lm):
        raise UserError("--src-lm and --tgt-lm: give both, or neither for those that the pair was trained with")
    if options.no_lm and options.src_lm:
        raise UserError("--no-lm: contradicts --src-lm and --tgt-lm")


def export(arguments: Sequence[str]) -> None:
    """Write one direction of a pair.

    Raises:
        UserError: an option or the checkpoint is wrong.
    """
    parser = Parser("export", EXPORT)
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("--direction", required=True, metavar="de-en", help="the direction to write: source-target")
    add_output(parser)
    parser.add_argument(
        "--data", metavar="DIR",
        help=f"{DICTIONARIES}, which are copied beside the output (default: the one that the pair was trained on)",
    )  # fmt: skip
    parser.add_argument("--fp16", action="store_true", help="write the weights as 16-bit floats: half the size")
    options = parser.parse_args(arguments)
    from .export import export as write

    checkpoint = find_checkpoint(options.run)
    say(f"{options.direction.replace('-', ' -> ')} with {checkpoint}")
    written, missing = write(checkpoint, options.direction, options.output, options.data, options.fp16)
    for file in written:
        print(f"wrote {file}")
    if missing:
        print(
            f"note: {' and '.join(missing)} not found; the model needs these files in its folder; name their "
            "folder with --data"
        )


def import_pair(arguments: Sequence[str]) -> None:
    """Make a pair of two models.

    Raises:
        UserError: an option or a checkpoint is wrong.
    """
    parser = Parser("import", IMPORT)
    parser.add_argument("--src2tgt", required=True, metavar="FILE", help="the model of the pair's source→target")
    parser.add_argument("--tgt2src", required=True, metavar="FILE", help="the model of the opposite direction")
    parser.add_argument("--data", required=True, metavar="DIR", help=f"{DICTIONARIES}, and the data")
    add_output(parser)
    options = parser.parse_args(arguments)
    from .import_pair import write_pair

    for remark in write_pair(options.output, options.src2tgt, options.tgt2src, options.data):
        print(f"note: {remark}")
    print(f"wrote {options.output}")


def average(arguments: Sequence[str]) -> None:
    """Average checkpoints.

    Raises:
        UserError: an option or a checkpoint is wrong.
    """
    parser = Parser("average", AVERAGE)
    parser.add_argument(
        "--inputs", required=True, nargs="+", metavar="PATH", help="checkpoints, or with --num-... a run's folder"
    )
    add_output(parser)
    number = parser.add_mutually_exclusive_group()
    for kind, name in (("epoch", "checkpointEPOCH.pt"), ("update", "checkpoint_EPOCH_UPDATE.pt")):
        number.add_argument(
            f"--num-{kind}-checkpoints", type=whole_number(), metavar="N",
            help=f"take the newest N files {name} of the folder",
        )  # fmt: skip
    parser.add_argument(
        "--checkpoint-upper-bound",
        type=whole_number(),
        metavar="N",
        help="take none after this epoch (or update): with --num-epoch-checkpoints 10 and 50, those of epochs 41 to 50",
    )
    options = parser.parse_args(arguments)
    by_number = options.num_epoch_checkpoints or options.num_update_checkpoints
    if by_number and len(options.inputs) != 1:
        parser.error("--num-epoch-checkpoints and --num-update-checkpoints take one folder as --inputs")
    if options.checkpoint_upper_bound is not None and not by_number:
        parser.error("--checkpoint-upper-bound goes with --num-epoch-checkpoints or --num-update-checkpoints")
    from .average import run

    run(options)
