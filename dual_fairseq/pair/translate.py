"""Translates raw text with a trained pair, line by line.

dual-fairseq translate RUN -t en < text.de > text.en
dual-fairseq translate RUN -s en -t de --nbest 5 --scores --input text.en.gz --output text.de.tsv
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import check_output, lines_of, whole_file
from ..common.folders import find_checkpoint
from ..common.options import (
    add_beam,
    add_dest,
    add_device,
    add_engine,
    add_language_models,
    add_languages,
    add_length_limit,
    add_lenpen,
    add_max_tokens,
    add_output,
    check_length_limit,
    length_limit_given,
    whole_number,
)
from ..common.progress import Progress, say
from ..data.lines import open_input, open_text, read_blocks
from ..data.normalize import described

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Translate raw text with a trained pair, in either direction, one sentence per line. Tokenisation and BPE are applied and
undone. Standard output holds only the translations, in the order of the input."""

EPILOG = """\
RUN is a folder of dual-fairseq train (with its stage dual, else mle, else warmup), a folder of one stage, a checkpoint,
or a file of dual-fairseq export, or its folder (-s or -t chooses the file). Several RUNs translate together, as an
ensemble.

Output: one line for each line of the input; an empty line for an empty line. With --scores, the score and a tab come
before the translation. The score is the log-probability in nats, or the score of --dual-inference, divided by
length ** lenpen (0 for an empty line). With --nbest N above 1, each line of the input has up to N lines of output, best
first. Each begins with the number of the input line and a tab.

If a line has more tokens than the model can read (1,023 by default), its sentences are translated one by one, and a
warning names the line. If a line is not UTF-8, the command stops there; the lines before it are translated. Windows
line ends and byte order marks are accepted. If a command with --output stops early, the finished translations are kept
in FILE.partial."""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("translate", DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument(
        "run", nargs="+", metavar="RUN", help="the folder of a run or a stage, or a checkpoint (see below)"
    )
    add_languages(parser, source="(default: the pair's other)", target="(or give -s)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="text, plain or .gz (default: standard input)")
    add_output(
        parser, "the file to write, which appears when it is complete (default: standard output)", required=False
    )
    add_beam(parser)
    parser.add_argument(
        "--nbest", type=whole_number(), default=1, metavar="N", help="translations of each line (default 1)"
    )
    add_lenpen(parser, default=None)
    add_length_limit(parser)
    parser.add_argument(
        "--dual-inference", metavar="WEIGHTS",
        help="use both models and both language models to choose among the beam's translations: α from 0 to 1, or the "
        "weights.json that dual-fairseq evaluate wrote to RUN/dual/eval/test/tuning/<src>-<tgt>, whose length penalty "
        "applies without --lenpen",
    )  # fmt: skip
    add_language_models(parser)
    parser.add_argument("--scores", action="store_true", help="print the score before each translation")
    add_max_tokens(parser)
    parser.add_argument(
        "--buffer", type=whole_number(), default=2000, metavar="LINES",
        help="lines to read, sort by length and translate at a time (default 2000; fewer when the input pauses)",
    )  # fmt: skip
    add_dest(parser)
    add_engine(parser)
    add_device(parser, fp16=True)
    parser.add_argument(
        "--model-overrides", default="{}", metavar="DICT", help="fairseq options of the model and task, as in fairseq"
    )
    return parser


@contextmanager
def text_output() -> Iterator[IO[str]]:
    """Yields standard output for text only; output and logs of libraries go to standard error."""
    logging.getLogger("fairseq").setLevel(logging.ERROR)
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield stdout


def _count_lines(path: Path) -> int | None:
    """The number of lines for a progress bar; None if they cannot be read twice."""
    if not path.is_file():
        return None
    with open_text(path) as file:
        return sum(1 for _ in lines_of(file, path))


def translate_stream(options: argparse.Namespace, overrides: dict[str, Any], stdout: IO[bytes]) -> None:
    """Translate the input of the options to their output."""
    from .translator import DualTranslator

    checkpoints = [find_checkpoint(run, (options.source_lang, options.target_lang)) for run in options.run]
    inputs = [options.input, *checkpoints, options.src_lm, options.tgt_lm, options.dual_inference]
    if options.output:
        check_output(options.output, inputs)
    with ExitStack() as stack:
        stream, name = stack.enter_context(open_input(options.input))
        output = stack.enter_context(
            whole_file(options.output, keep_partial=True) if options.output else nullcontext(stdout)
        )
        device = "cpu" if options.cpu else None
        pair = DualTranslator.from_pretrained(
            checkpoints, options.dest, device, options.fp16, options.dual_inference, options.engine, options.int8,
            **overrides,
        )  # fmt: skip
        source, target = pair.direction(options.source_lang, options.target_lang)
        if options.dual_inference is not None and not pair.chooses(target):
            raise UserError(f"--dual-inference {options.dual_inference}: was not tuned for translations into {target}")
        pair.use_language_models({source: options.src_lm, target: options.tgt_lm})
        say(f"{source} -> {target} with {', '.join(map(str, checkpoints))}")
        typed = options.input is None and sys.stdin.isatty()
        on_screen = options.output is None and os.isatty(1)  # a bar would appear between the translations
        shown = not typed and not (on_screen and sys.stderr.isatty())
        total = _count_lines(options.input) if shown and options.input is not None else None
        bar = stack.enter_context(Progress("translate", total, "lines", shown))
        for first, lines in read_blocks(stream, name, options.buffer):
            translations = pair.translate_nbest(
                lines,
                source,
                target,
                nbest=options.nbest,
                beam=options.beam,
                lenpen=options.lenpen,
                max_tokens=options.max_tokens,
                first=first,
                advance=bar.update,
                **length_limit_given(options),
            )
            for number, hypotheses in enumerate(translations, start=first):
                for hypothesis in hypotheses:
                    cells = [str(number)] if options.nbest > 1 else []
                    cells += [f"{hypothesis.score:.4f}"] if options.scores else []
                    output.write("\t".join([*cells, hypothesis.text]).encode() + b"\n")
            output.flush()
    if repaired := described(pair.text.repairs):
        say(f"repaired: {repaired}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file.

    Raises:
        UserError: an option, the input or the pair is wrong.
    """
    parser = get_parser()
    options, extra = parser.parse_known_args(arguments)
    if extra and os.path.isfile(extra[0]):
        parser.error(f"{extra[0]}: text to translate is given with --input FILE or '< FILE'")
    parser.refuse(extra)
    check_length_limit(options)
    from ..compat.option_values import read_overrides

    overrides = read_overrides(options.model_overrides)

    with text_output() as stdout:
        translate_stream(options, overrides, stdout.buffer)  # type: ignore[attr-defined]
