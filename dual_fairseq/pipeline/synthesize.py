"""``dual-fairseq synthesize``: a pair makes parallel text from monolingual text."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..common.arguments import Parser, file_path, positive
from ..common.errors import UserError
from ..common.files import read_lines, whole_file, write_text
from ..common.folders import Data, StageFolder, find_checkpoint, refuse_colons
from ..common.options import (
    add_beam,
    add_device,
    add_engine,
    add_language_models,
    add_length_limit,
    add_max_tokens,
    add_seed,
    check_length_limit,
    engine_words,
    flag,
    length_limit_words,
)
from ..common.records import read_record
from .changes import Typed, changes
from .jobs import check, locked, say, step
from .stages import digest, option_lines

HELP = """\
Make parallel text to train a pair on. The pair translates monolingual text of both languages, or the sides of its own
training pairs.

DEST is the folder that dual-fairseq preprocess wrote. It needs extra monolingual text (DEST/raw/mono.<lang>), unless
--from-pairs is given. CHECKPOINT is a pair trained on DEST, or its run. Several CHECKPOINTs translate one after the
other, and all their distinct translations are used; with --ensemble they translate together. The new pairs are written
to OUT.<source> and OUT.<target>: first the lines of the source language with their translations, then those of the
target language. Each line with its translation is a training pair for both directions. For one direction a person wrote
the target (back-translation). The other direction learns from the choice of the translation. By default both models and
both language models choose (dual inference), with the weights that dual-fairseq evaluate --dual-inference tuned.

A translation is counted and left out if it is empty, is cut off at the length limit, copies its line, repeats another
translation, or (with --from-pairs) is the same as the other side of the pair.

Next, preprocess with the options that DEST was made with, and continue the training of the pair:

    dual-fairseq preprocess ... --synthetic OUT --upsample 3 --dest DEST2
    dual-fairseq train DEST2 RUN2 --init CHECKPOINT

dual-fairseq train --rounds does all of this. If the command is finished, running it again does nothing. If it was
stopped, it continues after the last finished language and checkpoint. With other options, the old text stays until the
new text is complete.
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("synthesize", HELP)
    add = parser.add_argument
    add("dest", metavar="DEST", type=file_path, help="the folder that dual-fairseq preprocess wrote")
    add("checkpoints", metavar="CHECKPOINT", nargs="+", type=file_path, help="a checkpoint of a pair, or its run")
    add("out", metavar="OUT", help="the prefix of the files to write")
    text = parser.add_argument_group("the text to translate")
    add_text(text)
    text.add_argument("--only", metavar="LANG", help="translate only the text of this language (default: both)")
    text.add_argument("--from-pairs", action="store_true", help="translate the sides of the training pairs")
    search = parser.add_argument_group("translation")
    add = search.add_argument
    add("--ensemble", action="store_true", help="several pairs translate together")
    add("--nbest", type=positive, default="1", metavar="N",
        help="distinct translations of each line, at most --beam (default 1)")  # fmt: skip
    add("--sampling", type=positive, metavar="K",
        help="no beam search: draw --beam translations, each token at random among the K most likely")  # fmt: skip
    add("--weights", type=file_path, metavar="DIR",
        help="holds <src>-<tgt>/weights.json (default: eval/test/tuning beside each CHECKPOINT)")  # fmt: skip
    add("--plain", action="store_true", help="no dual inference: the best translations of the beam")
    add_language_models(search, type=file_path)
    add_beam(search, positive)
    add_length_limit(search)
    add_max_tokens(search, positive)
    add_seed(search, positive)
    add_engine(parser)
    add_device(parser)
    return parser


def add_text(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which lines are translated."""
    add = group.add_argument
    add("--lines", type=positive, metavar="N", help="at most N lines of each language, drawn at random (default: all)")
    add("--select", action="store_true", help="only lines that are similar to the pairs, see dual-fairseq select")
    add("--match-lengths", action="store_true",
        help="draw lines at random with the same distribution of lengths as the pairs; needs --select")  # fmt: skip


class Synthesis:
    """The translation of the text of DEST by pairs.

    Args:
        options: of :func:`get_parser`.

    Raises:
        UserError: something is missing.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.engine = engine_words(options)
        check_length_limit(options)
        checkpoints = [find_checkpoint(checkpoint) for checkpoint in options.checkpoints]
        refuse_colons(options.dest, *checkpoints)
        self.data = data = Data.from_folder(options.dest)
        if options.only not in (None, *data.languages):
            raise UserError(f"--only {options.only}: {data.folder} has the languages {' and '.join(data.languages)}")
        if options.match_lengths and not options.select:
            raise UserError("--match-lengths needs --select: give both")
        if options.from_pairs and options.select:
            raise UserError("--select is for monolingual text: leave it out with --from-pairs")
        if int(options.nbest) > int(options.beam):
            raise UserError(f"--nbest {options.nbest}: needs --beam {options.nbest} or more, not {options.beam}")
        for option in ("ensemble", "sampling") if options.engine == "ctranslate2" else ():
            if getattr(options, option):
                raise UserError(f"--engine ctranslate2: does not translate with --{option}; give --engine fairseq")
        self.lms = dict(zip(data.languages, (options.src_lm, options.tgt_lm), strict=True))
        for file in self.lms.values():
            if file and not file.is_file():
                raise UserError(f"{file}: there is no such language model")
        # The checkpoints that translate together, and their weights.
        self.pairs = [checkpoints] if options.ensemble else [[checkpoint] for checkpoint in checkpoints]
        self.weights = [
            options.weights or StageFolder(pair[0].parent).evaluation("test") / "tuning" for pair in self.pairs
        ]
        self.directions = [pair for pair in (data.languages, data.languages[::-1]) if options.only in (None, pair[0])]
        self.inputs = list(checkpoints)
        self.text = "train" if options.from_pairs else "mono"
        for source, target in self.directions:
            if not (text := data.raw(self.text, source)).is_file():
                raise UserError(
                    f"{text} not found: run dual-fairseq preprocess with --extra-mono-source and --extra-mono-target, "
                    "or give --from-pairs, or --only LANG for the language that has such text"
                )
            self.inputs += [text] if not options.from_pairs else [data.raw("train", lang) for lang in data.languages]
            for weights in [] if options.plain else self.weights:
                if not (file := weights / f"{source}-{target}" / "weights.json").is_file():
                    raise UserError(
                        f"{file} not found: run dual-fairseq evaluate --dual-inference first, or give --weights or "
                        "--plain"
                    )
                self.inputs.append(file)
        self.limit = length_limit_words(options)
        self.parts = Path(f"{options.out}.parts")
        self.results = {language: Path(f"{options.out}.{language}") for language in data.languages}

    def identity(self) -> str:
        """Everything that affects the result, in lines."""
        options = self.options
        words = ["--lines", options.lines or "all", "--beam", options.beam, "--seed", options.seed]
        words += ["--nbest", options.nbest, "--sampling", options.sampling or "none", "--only", options.only or "none"]
        for name in ("plain", "ensemble", "from_pairs", "select", "match_lengths"):
            words += [flag(name), str(int(getattr(options, name)))]
        words += [*self.limit, *self.engine]
        inputs = digest(*self.inputs, *filter(None, self.lms.values()))
        return "\n".join([f"input {inputs}", *option_lines(words)]) + "\n"

    def changed(self, typed: Typed) -> str:
        """How its options and input differ from those of the text that was made; empty if they do not."""
        made = _text(self.parts / "options.txt").splitlines()
        return changes(made, self.identity().splitlines(), typed) if made else ""

    def do(self) -> None:
        """Do the steps that are not done yet.

        Raises:
            UserError: another run is using the files, they are not its own, or no translation is usable.
        """
        with locked(self.parts):
            # the options of the results, and of the parts if these have other options
            record, begun = self.parts / "options.txt", self.parts / "begun.txt"
            identity, result_identity, parts_identity = self.identity(), _text(record), _text(begun) or _text(record)
            if result_identity == identity and all(result.is_file() for result in self.results.values()):
                say(f"Made before: {', '.join(map(str, self.results.values()))}")
                return
            foreign = [] if any(self.parts.glob("*.txt")) else [f for f in self.results.values() if f.exists()]
            if foreign:
                raise UserError(f"{foreign[0]}: exists, not made by this command; choose another OUT")
            if parts_identity != identity:
                for old in [*self.parts.glob("*.txt"), *self.parts.glob("*.json")]:
                    if old != record:
                        old.unlink()
                write_text(begun, identity)
            say(f"Checkpoint: {', '.join(str(file) for pair in self.pairs for file in pair)}")
            for languages in self.directions:
                self.choose(languages[0])
                for number in range(len(self.pairs)):
                    self.translate(*languages, number)
            record.unlink(missing_ok=True)  # the results have no record until all of them are in place
            self.join()
            write_text(record, identity)
            begun.unlink(missing_ok=True)

    def choose(self, language: str) -> None:
        """Write the lines of a language that will be translated, below :attr:`parts`."""
        options, data, lines = self.options, self.data, self.parts / f"{language}.txt"
        if lines.is_file():
            return
        if options.select:
            words = ["--pairs", data.raw("train", language), "--valid", data.raw("valid", language)]
            words += ["--from", data.raw("mono", language), "--output", lines, "--seed", options.seed]
            words += ["--lines", options.lines] if options.lines else []
            words += ["--match-lengths"] if options.match_lengths else []
            test = data.raw("test", language)
            check(step("select", *words, *(["--not", test] if test.is_file() else [])))
            return
        text = read_lines(data.raw(self.text, language))
        write_lines(lines, [text[i] for i in self.drawn(len(text))])

    def drawn(self, count: int) -> list[int]:
        """The numbers of the lines to translate, out of ``count`` lines."""
        number = int(self.options.lines or count)
        return sorted(random.Random(int(self.options.seed)).sample(range(count), min(number, count)))

    def translate(self, source: str, target: str, number: int) -> None:
        """Write a pair's translations of the lines of a language, below :attr:`parts`."""
        options, lines = self.options, self.parts / f"{source}.txt"
        result = self.result(source, target, number)
        if result.is_file():
            return
        progress = f", pair {number + 1} of {len(self.pairs)}" if len(self.pairs) > 1 else ""
        say(f"Translating {len(read_lines(lines)):,} lines, {source} -> {target}{progress}")
        command = step(
            "pair.synthetic", *self.pairs[number], "--dest", self.data.folder, "-s", source, "-t", target, "--beam",
            options.beam, "--nbest", options.nbest, "--seed", options.seed, "--max-tokens", options.max_tokens,
            "--input", lines, "--output", result,
            *self.limit, *self.engine,
        )  # fmt: skip
        command += ["--sampling", options.sampling] if options.sampling else []
        if options.from_pairs:
            references = self.parts / f"{source}.references.txt"
            text = read_lines(self.data.raw("train", target))
            write_lines(references, [text[i] for i in self.drawn(len(text))])
            command += ["--references", str(references)]
        if not options.plain:
            command += ["--dual-inference", str(self.weights[number] / f"{source}-{target}" / "weights.json")]
            for option, language in (("--src-lm", source), ("--tgt-lm", target)):
                command += [option, str(self.lms[language])] if self.lms[language] else []
        check(command + ["--cpu"] * options.cpu)

    def result(self, source: str, target: str, number: int) -> Path:
        """The file that gets the translations of a direction by a pair."""
        return self.parts / f"{source}-{target}.{number + 1}.json"

    def join(self) -> None:
        """Join the sentence pairs of all directions and models."""
        pairs: dict[tuple[str, str], None] = {}
        left_out = Counter[str]()
        for direction in self.directions:
            for number in range(len(self.pairs)):
                file = self.result(*direction, number)
                content = read_record(
                    file, {"pairs": [[str]], "left_out": {str: int}}, "remove it, and it is made again"
                )
                left_out.update(content["left_out"])
                for line, translation in content["pairs"]:
                    pair = (line, translation) if direction == self.data.languages else (translation, line)
                    left_out["repeated"] += pair in pairs
                    pairs[pair] = None
        if not pairs:
            raise UserError(f"{self.parts}: no translation is usable ({reasons(left_out)}); train the pair longer")
        for result, side in zip(self.results.values(), zip(*pairs, strict=True), strict=True):
            write_lines(result, side)
        say(f"{len(pairs):,} pairs: {', '.join(map(str, self.results.values()))}; left out: {reasons(left_out)}")


def reasons(left_out: Mapping[str, int]) -> str:
    """How many translations were left out, and why."""
    names = {
        "empty": "empty", "cut_off": "cut off", "copied": "copies of their line", "repeated": "repeated",
        "known": "as the pair has it",
    }  # fmt: skip
    return ", ".join(f"{name} {left_out.get(key, 0):,}" for key, name in names.items() if left_out.get(key)) or "none"


def _text(path: Path) -> str:
    """The content of a file; empty if there is no file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with whole_file(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    Synthesis(get_parser().parse_args(arguments)).do()
