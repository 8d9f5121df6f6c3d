"""``dual-fairseq synthesize``: parallel text that a pair makes of monolingual text."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser, file_path, positive
from ..common.errors import UserError
from ..common.files import whole_file
from ..common.folders import Data, find_checkpoint, refuse_colons
from ..common.options import add_device
from .jobs import check, locked, say, step
from .stages import digest, option_lines

HELP = """\
Make parallel text of monolingual text: a pair translates both languages' text, for the pair to be trained on.

DEST is the folder that preprocessing wrote, with extra monolingual text of both languages (DEST/raw/mono.<lang>);
CHECKPOINT a pair trained on it, or its run. OUT.<source> and OUT.<target> get the pairs: first the source language's
lines with their translations, then the target language's. A line with its translation is a pair for both directions:
in one of them its target is a person's (back-translation), and in the other it carries over what chose the
translation. By default that are both models and both language models (dual inference), with the weights that
dual-fairseq evaluate --dual-inference has tuned.

Then, with the options that DEST was made with, and some epochs more from where the pair stands:

    dual-fairseq preprocess ... --synthetic OUT --upsample 3 --dest DEST2
    dual-fairseq train DEST2 RUN2 --init-src2tgt CHECKPOINT --init-tgt2src CHECKPOINT

The same command again does nothing; stopped, it goes on after the last language that is done.
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("synthesize", HELP)
    parser.usage = "dual-fairseq synthesize DEST CHECKPOINT OUT [options]"
    add = parser.add_argument
    add("dest", metavar="DEST", type=file_path, help="the folder that preprocessing wrote")
    add("checkpoint", metavar="CHECKPOINT", type=file_path, help="of a pair, or its run")
    add("out", metavar="OUT", help="the prefix of the files to write")
    add("--lines", type=positive, metavar="N", help="of each language, drawn at random (default: all)")
    add("--weights", type=file_path, metavar="DIR",
        help="holds <src>-<tgt>/weights.json (default: eval/test/tuning beside CHECKPOINT)")  # fmt: skip
    add("--plain", action="store_true", help="no dual inference: the best translation of the beam")
    add("--src-lm", type=file_path, metavar="FILE", help="language model of the source language ...")
    add("--tgt-lm", type=file_path, metavar="FILE",
        help="... and of the target language (default: those that the pair was trained with)")  # fmt: skip
    add("--beam", type=positive, default="5", metavar="N", help="beam size (default 5)")
    add("--max-tokens", type=positive, default="4096", metavar="N",
        help="tokens of a batch, padding included (default 4096)")  # fmt: skip
    add("--seed", type=positive, default="1", metavar="N",
        help="seed of the random numbers; the same seed gives the same result (default 1)")  # fmt: skip
    add_device(parser)
    return parser


class Synthesis:
    """What a pair makes of the monolingual text of DEST.

    Args:
        options: of :func:`get_parser`.

    Raises:
        UserError: something is missing.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.checkpoint = find_checkpoint(options.checkpoint)
        refuse_colons(options.dest, self.checkpoint)
        self.data = data = Data.from_folder(options.dest)
        self.lms = dict(zip(data.languages, (options.src_lm, options.tgt_lm), strict=True))
        for file in self.lms.values():
            if file and not file.is_file():
                raise UserError(f"{file}: there is no such language model")
        self.weights = options.weights or self.checkpoint.parent / "eval" / "test" / "tuning"
        self.inputs = [self.checkpoint]
        for language in data.languages:
            text = data.raw("mono", language)
            if not text.is_file():
                raise UserError(
                    f"{text} not found: run dual-fairseq preprocess with --extra-mono-source and --extra-mono-target"
                )
            self.inputs.append(text)
        for source, target in [] if options.plain else (data.languages, data.languages[::-1]):
            file = self.weights / f"{source}-{target}" / "weights.json"
            if not file.is_file():
                raise UserError(
                    f"{file} not found: run dual-fairseq evaluate --dual-inference first, or give --weights or --plain"
                )
            self.inputs.append(file)
        self.parts = Path(f"{options.out}.parts")
        self.results = {language: Path(f"{options.out}.{language}") for language in data.languages}

    def identity(self) -> str:
        """What decides about the result, in lines."""
        options = self.options
        words = ["--lines", options.lines or "all", "--beam", options.beam, "--seed", options.seed]
        words += ["--plain", str(int(options.plain))]
        inputs = digest(*self.inputs, *filter(None, self.lms.values()))
        return "\n".join([f"input {inputs}", *option_lines(words)]) + "\n"

    def do(self) -> None:
        """Do what is not done yet.

        Raises:
            UserError: another run is at work there, or nothing was translated.
        """
        with locked(self.parts):
            record, identity = self.parts / "options.txt", self.identity()
            if not record.is_file() or record.read_text(encoding="utf-8") != identity:
                for old in [*self.parts.glob("*.txt"), *self.results.values()]:
                    old.unlink(missing_ok=True)
                with whole_file(record) as file:
                    file.write(identity.encode())
            if all(result.is_file() for result in self.results.values()):
                say(f"Made before: {', '.join(map(str, self.results.values()))}")
                return
            source, target = self.data.languages
            for languages in ((source, target), (target, source)):
                self.translate(*languages)
            self.join()

    def translate(self, source: str, target: str) -> None:
        """Write lines of a language and their translations, below :attr:`parts`."""
        options, lines = self.options, self.parts / f"{source}.txt"
        if not lines.is_file():
            text = read_lines(self.data.raw("mono", source))
            number = int(options.lines or 0)
            if 0 < number < len(text):
                chosen = random.Random(int(options.seed)).sample(range(len(text)), number)
                text = [text[i] for i in sorted(chosen)]
            write_lines(lines, text)
        translations = self.parts / f"{source}-{target}.txt"
        if translations.is_file():
            return
        say(f"Translating {len(read_lines(lines))} lines, {source} -> {target}")
        command = step(
            "translate", self.checkpoint, "--dest", self.data.folder, "-s", source, "-t", target, "--beam",
            options.beam, "--max-tokens", options.max_tokens, "--input", lines, "--output", translations,
        )  # fmt: skip
        if not options.plain:
            command += ["--dual-inference", str(self.weights / f"{source}-{target}" / "weights.json")]
            for option, language in (("--src-lm", source), ("--tgt-lm", target)):
                command += [option, str(self.lms[language])] if self.lms[language] else []
        check(command + ["--cpu"] * options.cpu)

    def join(self) -> None:
        """Put both languages' pairs together."""
        source, target = self.data.languages
        pairs: list[tuple[str, ...]] = []
        for names in ((source, f"{source}-{target}"), (f"{target}-{source}", target)):
            pairs += zip(*(read_lines(self.parts / f"{name}.txt") for name in names), strict=True)
        kept = [pair for pair in pairs if all(side.strip() for side in pair)]  # an empty translation makes no pair
        if not kept:
            raise UserError(f"{self.parts}: every translation is empty; train the pair longer")
        for result, side in zip(self.results.values(), zip(*kept, strict=True), strict=True):
            write_lines(result, side)
        empty = f"; {len(pairs) - len(kept)} had an empty side" * (len(pairs) > len(kept))
        say(f"{len(kept):,} pairs: {', '.join(map(str, self.results.values()))}{empty}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; only a newline ends one."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.removesuffix("\n") for line in file]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    with whole_file(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    Synthesis(get_parser().parse_args(arguments)).do()
