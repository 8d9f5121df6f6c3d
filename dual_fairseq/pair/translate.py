"""Translates raw text with a trained pair, a line at a time.

dual-fairseq translate RUN -t en < text.de > text.en
dual-fairseq translate RUN -s en -t de --nbest 5 --scores --input text.en.gz --output text.de.tsv
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, Any, cast

from ..common.errors import UserError
from ..common.progress import Progress
from ..data.clean import open_text, say

_BUFFER_BYTES = 1 << 22  # lines of any length are read, but not thousands of very long ones at once

DESCRIPTION = """\
Translate raw text, a sentence a line, with a pair of scripts/train_dual.sh, in either direction. Tokenisation and BPE
are applied and undone. Standard output holds the translations and nothing else, in the order of the input."""

EPILOG = """\
RUN is a folder of scripts/train_dual.sh (the best checkpoint of its stage dual is taken, else of mle, else of warmup),
a folder of one stage, or a checkpoint. Several translate together, as an ensemble.

Output: a line for each line of the input, and an empty one for an empty one. With --scores the score and a tab before
the translation: its log-probability in nats, or what --dual-inference chose it by, divided by length ** lenpen (0 for
an empty line). With --nbest above 1 up to as many lines, best first, each with the number of the input's line and a tab
before it (and before the score).

A line of more tokens than the model takes (1,023 unless it was trained otherwise) is cut into its sentences, which
are translated one by one; a warning names the line. A line that is not UTF-8 ends the work after the lines before it
are translated. Windows line ends and byte order marks are understood."""


def get_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="dual-fairseq translate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", nargs="+", metavar="RUN", help="folder of a run or a stage, or a checkpoint (see below)")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="language to translate into (or give -s)")
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="language of the text (default: the pair's other)")
    parser.add_argument("--input", metavar="FILE", help="text, plain or .gz (default: standard input)")
    parser.add_argument("--output", metavar="FILE", help="default: standard output; FILE appears when it is complete")
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="beam size (default 5)")
    parser.add_argument("--nbest", type=int, default=1, metavar="N", help="translations of each line (default 1)")
    parser.add_argument("--lenpen", type=float, metavar="X", help="above 1 favours longer output (default 1)")
    parser.add_argument(
        "--dual-inference", metavar="WEIGHTS",
        help="let both models and both language models choose among the beam's translations: α from 0 to 1, or the "
        "weights.json that scripts/evaluate.sh left in RUN/dual/eval/test/tuning/<src>-<tgt>",
    )  # fmt: skip
    parser.add_argument(
        "--src-lm", metavar="FILE", help="language model of the source language, for --dual-inference ..."
    )
    parser.add_argument(
        "--tgt-lm",
        metavar="FILE",
        help="... and of the target language (default: those that the pair was trained with)",
    )
    parser.add_argument("--scores", action="store_true", help="print the score before each translation")
    parser.add_argument(
        "--max-tokens", type=int, default=4096, metavar="N", help="source tokens a batch (default 4096)"
    )
    parser.add_argument(
        "--buffer", type=int, default=2000, metavar="LINES",
        help="lines to read, sort by length and translate at a time (default 2000; from a terminal 1)",
    )  # fmt: skip
    parser.add_argument(
        "--dest", metavar="DEST",
        help="folder of scripts/preprocess.sh, for a checkpoint that lies neither in its run nor knows where DEST is",
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    parser.add_argument("--fp16", action="store_true", help="half precision, on a GPU")
    parser.add_argument(
        "--model-overrides", default="{}", metavar="DICT", help="fairseq options of the model and task, as in fairseq"
    )
    return parser


def read_lines(stream: IO[bytes], name: str, size: int) -> Iterator[tuple[int, list[str]]]:
    r"""Text in blocks of at most ``size`` lines: the number of the first line (from 1), and the lines without ``\n``.

    Raises:
        UserError: a line is not UTF-8; the lines before it have been yielded.
    """
    first, lines, held = 1, [], 0
    for number, raw in enumerate(stream, start=1):
        try:
            lines.append(raw.removesuffix(b"\n").decode("utf-8"))
        except UnicodeDecodeError as error:
            if lines:
                yield first, lines
            raise UserError(
                f"{name}: line {number}: is not UTF-8 (byte {error.start + 1} of the line); convert the text, "
                "as by iconv -f latin1 -t utf-8"
            ) from error
        held += len(raw)
        if len(lines) >= size or held > _BUFFER_BYTES:
            yield first, lines
            first, lines, held = number + 1, [], 0
    if lines:
        yield first, lines


@contextmanager
def written(path: str | None) -> Iterator[IO[bytes]]:
    """Where to write: standard output, or a file that takes its name when all of it is written.

    What there is of it after an error is left as ``<path>.partial``.
    """
    if path is None:
        yield cast(IO[bytes], sys.__stdout__.buffer)  # type: ignore[union-attr]
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a device, a named pipe
        with open(target, "wb") as file:
            yield file
        return
    partial = target.with_name(target.name + ".partial")
    with open(partial, "wb") as file:
        try:
            yield file
        except BaseException:
            file.flush()
            if file.tell():
                say(f"what was translated until then is in {partial}")
            else:
                partial.unlink(missing_ok=True)
            raise
    os.replace(partial, target)


@contextmanager
def text_output() -> Iterator[None]:
    """Standard output carries lines of text alone: what a library prints or logs goes to standard error."""
    logging.getLogger("fairseq").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):
        yield


def _count_lines(path: str) -> int | None:
    """For a progress bar; None where reading twice is not possible."""
    if not os.path.isfile(path):
        return None
    with open_text(Path(path)) as file:
        return sum(1 for _ in file)


def translate_stream(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Translate from the input to the output that the options name."""
    from .translator import DualTranslator, find_checkpoint

    if options.input is not None and not os.path.exists(options.input):
        raise UserError(f"--input {options.input}: there is no such file")
    if options.output is not None and not Path(options.output).absolute().parent.is_dir():
        raise UserError(f"--output {options.output}: there is no folder {Path(options.output).parent}; make it first")
    device = "cpu" if options.cpu else None
    pair = DualTranslator.from_pretrained(
        options.run, options.dest, device, options.fp16, dual_inference=options.dual_inference, **overrides
    )
    source, target = pair.direction(options.source_lang, options.target_lang)
    if options.dual_inference is not None and not pair.chooses(target):
        raise UserError(f"--dual-inference {options.dual_inference}: was not tuned for translations into {target}")
    pair.use_language_models({source: options.src_lm, target: options.tgt_lm})
    if sys.stderr.isatty():
        say(f"{source} -> {target} with {', '.join(str(find_checkpoint(run)) for run in options.run)}")
    with ExitStack() as stack:
        if options.input is None:
            stream, name, typed = sys.stdin.buffer, "standard input", sys.stdin.isatty()
        else:
            stream, name, typed = stack.enter_context(open_text(Path(options.input))), options.input, False
        output = stack.enter_context(written(options.output))
        on_screen = options.output is None and os.isatty(1)  # translations, among which no bar shall stand
        shown = not typed and not (on_screen and sys.stderr.isatty())
        total = _count_lines(options.input) if shown and options.input is not None else None
        bar = stack.enter_context(Progress("translate", total, "lines", shown))
        for first, lines in read_lines(stream, name, 1 if typed else options.buffer):
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
            )
            for number, hypotheses in enumerate(translations, start=first):
                for hypothesis in hypotheses:
                    cells = [str(number)] if options.nbest > 1 else []
                    cells += [f"{hypothesis.score:.4f}"] if options.scores else []
                    output.write("\t".join([*cells, hypothesis.text]).encode() + b"\n")
            output.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file.

    Raises:
        UserError: the user has something to mend.
    """
    parser = get_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        hint = "; text to translate is given with --input FILE or '< FILE'" if os.path.isfile(rest[0]) else ""
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if options.buffer < 1:
        parser.error(f"--buffer {options.buffer}: give a whole number above 0")
    try:
        overrides = ast.literal_eval(options.model_overrides)
        overrides = {str(name): value for name, value in overrides.items()}
    except (ValueError, SyntaxError, AttributeError):
        parser.error(f"--model-overrides {options.model_overrides}: give a dictionary, as \"{{'dropout': 0.1}}\"")

    with text_output():
        translate_stream(options, overrides)
