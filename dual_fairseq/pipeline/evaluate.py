"""``dual-fairseq evaluate``: translates a split in both directions with one checkpoint, and scores the result."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..common.arguments import Parser, decimal, file_path, positive
from ..common.bleu import bleu_tokenizer, missing_tokenizer
from ..common.errors import UserError
from ..common.files import count_lines, write_text
from ..common.folders import Data, RunFolder, StageFolder, find_checkpoint, refuse_colons
from ..common.options import (
    add_beam,
    add_device,
    add_dry_run,
    add_engine,
    add_language_models,
    add_length_limit,
    add_lenpen,
    add_max_tokens,
    add_sacrebleu_tokenize,
    add_split,
    check_length_limit,
    engine_words,
    length_limit_words,
)
from .devices import Device, find_device
from .inheritance import language_model_of
from .jobs import PACKAGE, check, locked, run, say, show, step
from .progress import SentenceDisplay
from .score_sets import covers, evaluated, place, replace
from .stages import digest, failure, is_whole, option_lines

HELP = """\
Translate a split in both directions with one checkpoint of a pair, and score the result.

The references are DEST/raw/<split>.<language>. These files are written to the output folder for each direction. The
text is detokenised and in the order of the split.
  <src>-<tgt>.src.txt, .hyp.txt, .ref.txt   source, translation, reference
  <src>-<tgt>.generate.txt                  the output of fairseq-generate, or of --engine
scores.json holds the scores: BLEU and chrF with their sacreBLEU signatures (for labels and tags, accuracy and
confusion), length ratio, NLL in bits per target token (of the reference), and with both language models the mean |gap|
in nats per sentence pair.

Running the same command again does nothing. Scores of another checkpoint replace the old scores when they are complete.
Scores of other text, or with another beam, length penalty and so on, get a folder of their own
(eval/test-beam5-lenpen1.5).
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("evaluate", HELP, passes_on="fairseq-generate")
    add = parser.add_argument
    add("dest", metavar="DEST", type=file_path, help="the folder that dual-fairseq preprocess wrote")
    add("checkpoint", metavar="CHECKPOINT", type=file_path,
        help="a checkpoint of a pair; or a run, which means the best checkpoint of its stage dual, else of mle, else "
        "of warmup")  # fmt: skip
    add_split(parser, "(default %(default)s)", "test", split_name)
    add("-o", "--output", type=file_path, metavar="DIR",
        help="the output folder; its files are replaced (default: eval/<split> beside the checkpoint; a new folder "
        "beside that one if it holds scores with other settings)")  # fmt: skip
    add_search(parser)
    add_max_tokens(parser, positive)
    add_language_models(parser, "those that the run was given, or has: RUN/lm/<language>", file_path)
    add("--dual-inference", action="store_true",
        help="also re-score the translations of the beam by both models and both language models: weights tuned on "
        "--tune-split (<output>/tuning/<src>-<tgt>), results in scores.json and "
        "<src>-<tgt>.dual-inference.hyp.txt; needs both language models")  # fmt: skip
    add("--tune-split", type=split_name, default="valid", metavar="NAME",
        help="the split on which --dual-inference tunes (default %(default)s)")  # fmt: skip
    add_engine(parser)
    add_device(parser)
    add_dry_run(parser)
    return parser


def add_search(parser: argparse._ActionsContainer) -> None:
    """Add the options of beam search and of BLEU, which ``train`` has too; see :func:`check_search`."""
    add_beam(parser, positive)
    add_lenpen(parser, decimal)
    add_length_limit(parser)
    add_sacrebleu_tokenize(parser)


def check_search(options: argparse.Namespace, data: Data) -> None:
    """Raises UserError if only half of a length limit was given, or BLEU cannot be computed as asked."""
    check_length_limit(options)
    for language in data.languages:
        bleu_tokenizer(language, data.sides[language].segmented, options.sacrebleu_tokenize or None)


def say_missing(options: argparse.Namespace, data: Data) -> None:
    """Say, before the work, if a language's tokenizer for BLEU is not installed."""
    for language in data.languages:
        if missing := missing_tokenizer(language, data.sides[language].segmented, options.sacrebleu_tokenize or None):
            say(missing)


def split_name(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_]+", text):
        raise argparse.ArgumentTypeError(f"takes a name such as test, not '{text}'")
    return text


@dataclass(frozen=True)
class Part:
    """A fairseq command of an evaluation.

    Attributes:
        title: what it does, for people.
        name: the file for its output, below the output folder.
        command: its words.
        sentences: how many sentences it reads.
    """

    title: str
    name: str
    command: list[str]
    sentences: int


class Evaluation:
    """The evaluation of a checkpoint on a split.

    Args:
        options: of :func:`get_parser`; if they name no language models, those of the run are used.
        extra: options of fairseq-generate.
        device: where to run.
        expected: whether the checkpoint and the language models may be missing, for a dry run or for old scores.

    Raises:
        UserError: something is wrong with the options, the data, the checkpoint or the language models.
    """

    def __init__(
        self, options: argparse.Namespace, extra: Sequence[str], device: Device, expected: bool = False
    ) -> None:
        self.options, self.extra, self.device = options, list(extra), device
        self.engine = engine_words(options)
        if extra and options.engine == "ctranslate2":
            raise UserError(
                f"--engine ctranslate2: takes no options of fairseq-generate ({extra[0]}); leave out --engine, "
                "or the options after --"
            )
        if extra and options.engine == "auto":
            say(f"--engine auto: fairseq translates, because CTranslate2 does not take {extra[0]}")
            self.engine = []
        normalisation = [word for word in extra if re.match("--(lenpen|unnormalized)(=|$)", word)]
        if options.dual_inference and normalisation:
            raise UserError(
                f"{normalisation[0]}: give --lenpen before -- (0 is --unnormalized): the weights of --dual-inference "
                "are tuned for it"
            )
        if options.dual_inference and options.split == options.tune_split:
            raise UserError(f"--dual-inference tunes its weights on '{options.tune_split}': evaluate another split")
        self.checkpoint = options.checkpoint if expected else find_checkpoint(options.checkpoint)
        lm_files = [lm for lm in (options.src_lm, options.tgt_lm) if lm]
        if len(lm_files) == 1:
            raise UserError("give both --src-lm and --tgt-lm, or neither")
        for file in [] if expected else lm_files:
            if not file.is_file():
                raise UserError(f"{file}: there is no such language model")
        self.data = data = Data.from_folder(options.dest)
        check_search(options, data)
        refuse_colons(options.dest, self.checkpoint)
        self.splits = [options.split, *([options.tune_split] if options.dual_inference else [])]
        self.lms = dict(zip(data.languages, lm_files, strict=True)) if lm_files else self._own_language_models()
        for split in self.splits:
            for language in data.languages:
                if not data.index(split, language).is_file():
                    existing = sorted(path.name.partition(".")[0] for path in data.dual.glob(f"*.{data.pair}.*.idx"))
                    has = ", ".join(dict.fromkeys(existing)) or "none"
                    fix = (
                        "see --split"
                        if split == options.split
                        else "dual inference tunes its weights on it; give --valid to dual-fairseq preprocess, too"
                    )
                    raise UserError(f"{data.dual} has no split '{split}' of {data.pair}, only {has}: {fix}")
                if not data.raw(split, language).is_file():
                    raise UserError(f"{data.raw(split, language)} not found: run dual-fairseq preprocess again")
        if not expected and not is_whole(self.checkpoint):
            raise UserError(
                f"{self.checkpoint} is not a checkpoint, or was cut short: give a checkpoint_best.pt of a pair"
            )
        self.search = ["--beam", options.beam, "--lenpen", options.lenpen, *length_limit_words(options), *self.extra]
        self.beam = {language: str(len(data.labels(language)) or options.beam) for language in data.languages}
        folder = StageFolder(self.checkpoint.parent).evaluation(options.split)
        self.out = options.output or place(folder, self._comparable, self._settings(), lambda: self._digests[1][:6])

    def _settings(self) -> str:
        """The name of a folder for scores with these settings."""
        options = self.options
        name = f"beam{options.beam}-lenpen{options.lenpen}"
        name += f"-{options.sacrebleu_tokenize}" * bool(options.sacrebleu_tokenize)
        name += "".join(f"-{word.lstrip('-')}" for word in self.engine[1:])
        if search_options := " ".join(self.search[4:]):
            name += f"-{hashlib.sha256(search_options.encode()).hexdigest()[:6]}"
        return name

    def _comparable(self, theirs: Sequence[str]) -> list[str]:
        """The lines of :meth:`identity` for the splits of another record."""
        tuned_on = theirs[-1].removeprefix("--dual-inference").strip() if theirs else ""
        splits = [self.options.split, tuned_on] if tuned_on else [self.options.split]
        if not all(self.data.raw(split, language).is_file() for split in splits for language in self.data.languages):
            splits = []
        return self.identity(splits).splitlines()

    def _own_language_models(self) -> dict[str, Path]:
        """The language models that the checkpoint's run has or was given, by language; empty if one is missing."""
        run = RunFolder.of(self.checkpoint)
        files = {}
        for language in self.data.languages:
            own = run.language_model(language)
            own.check_finished()
            if file := language_model_of(self.checkpoint, self.data, language):
                files[language] = file
            elif own.best.is_file():  # fairseq says what is wrong with it
                files[language] = own.best
        if len(files) == 2:
            return files
        if self.options.dual_inference:
            raise UserError(
                f"--dual-inference needs the language models, which are not in {run.folder / 'lm'}: give --src-lm and "
                "--tgt-lm"
            )
        return {}

    @cached_property
    def _digests(self) -> tuple[str, str]:
        """Those of the checkpoint and of the language models; empty if a file is gone, or none was given."""
        files = ([self.checkpoint], list(self.lms.values()))
        checkpoint, lms = (digest(*some) if some and all(f.is_file() for f in some) else "" for some in files)
        return checkpoint, lms

    def identity(self, splits: Sequence[str] = ()) -> str:
        """Everything that affects the result, in lines.

        Args:
            splits: the splits whose text is read; by default those of this evaluation.
        """
        data = self.data
        texts = [data.raw(split, language) for split in splits or self.splits for language in data.languages]
        segmented = [language for language, side in data.sides.items() if side.segmented]
        default = "none" + f" for {segmented[0]}" * (len(segmented) == 1) if segmented else ""
        tokenizer = self.options.sacrebleu_tokenize or default
        words = [*self.search, "--sacrebleu-tokenize", tokenizer, *self.engine]
        words += ["--dual-inference", " ".join(self.splits[1:])]
        checkpoint, lms = self._digests
        lines = [
            f"checkpoint {checkpoint}",
            f"data {digest(*map(data.dictionary, data.languages), *texts)}",
            f"language models {lms}",
            *option_lines(words),
        ]
        return "\n".join(lines) + "\n"

    def done(self) -> bool:
        """Whether the output folder has all of this evaluation."""
        record = evaluated(self.out)
        return (self.out / "scores.json").is_file() and covers(record, self._comparable(record))

    def run(self) -> None:
        """Evaluate, unless this was done before. The old output stays until the new one is complete.

        Raises:
            UserError: a command failed, or another run is using the output folder.
        """
        with locked(self.out):
            if self.done():
                say(f"Evaluated before: {self.out / 'scores.json'}")
                return
            record, identity = self.out / "options.txt", self.identity()
            say(f"Checkpoint: {self.checkpoint}; output: {self.out}")
            new = self.out / ".new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            for part in self.steps():
                say(part.title)
                (new / part.name).parent.mkdir(parents=True, exist_ok=True)
                status = run(part.command, new / part.name, SentenceDisplay(part.sentences))
                if status:
                    raise failure(new / part.name, 0, part.command[0], status)
            for command, table in self.tuning(new):
                say(f"Tuning the weights of dual inference, {table.parent.name.replace('-', ' -> ')}")
                check(command, table)
            check(self.scoring(new))
            if digest(self.checkpoint) != self._digests[0]:
                raise UserError(f"{self.checkpoint}: was replaced during its evaluation; evaluate it again")
            record.unlink(missing_ok=True)  # the folder holds no evaluation until all files are in place
            replace(self.out, new, [self.data.pair, "-".join(reversed(self.data.languages))])
            write_text(record, identity)

    def show(self) -> None:
        """Print the commands of the evaluation, ready to copy."""
        folders = {(self.out / part.name).parent for part in self.steps()}
        show(f"Evaluation of {self.checkpoint} on {self.options.split}", ["mkdir", "-p", *map(str, sorted(folders))])
        for part in self.steps():
            show(part.title, part.command, self.out / part.name)
        for command, table in self.tuning(self.out):
            show(f"The weights of dual inference, {table.parent.name.replace('-', ' -> ')}", command, table)
        show("BLEU and chrF", self.scoring(self.out))

    def steps(self) -> list[Part]:
        """The fairseq commands."""
        data, split = self.data, self.options.split
        weight = 1.0 if self.lms else 0.0
        source_lm, target_lm = (str(self.lms[lang]) if self.lms else None for lang in data.languages)
        # The checkpoint records λ, the LM files and the use of BLEU; this measurement must not depend on them.
        overrides = {"dual_lambda": weight, "dual_lambda_reverse": weight, "src_lm": source_lm, "tgt_lm": target_lm}
        overrides |= {"lm_score_cache": None, "eval_bleu": False}
        validation = [
            *self._common("fairseq-validate"), "-s", data.source, "-t", data.target, "--valid-subset", split,
            "--log-format", "json", "--model-overrides", str(overrides),
        ]  # fmt: skip
        title = "Measuring NLL" + " and |gap|" * bool(self.lms)
        steps = [Part(title, "validate.txt", validation, self._count(split))]
        for source, target in (data.languages, data.languages[::-1]):
            steps.append(self._translation(split, source, target, f"{source}-{target}.generate.txt"))
            if self.options.dual_inference:
                name = f"tuning/{source}-{target}/generate.txt"
                steps.append(self._translation(self.options.tune_split, source, target, name))
        return steps

    def _common(self, command: str) -> list[str]:
        # fairseq drops the last batch when its size is not a multiple of --required-batch-size-multiple (8 by default).
        return [
            command, str(self.data.dual), "--user-dir", str(PACKAGE), "--task", "dual_translation",
            "--path", str(self.checkpoint), "--max-tokens", self.options.max_tokens,
            "--required-batch-size-multiple", "1", "--skip-invalid-size-inputs-valid-test", *self.device.options,
        ]  # fmt: skip

    def _translation(self, split: str, source: str, target: str, name: str) -> Part:
        """The command that translates a split; for dual inference, into n-best lists with all scores."""
        options, post_process = self.options, self.data.sides[target].post_process
        search = ["--beam", self.beam[target], *self.search[2:]]
        if self.engine:
            command = step(
                "pair.generate", self.data.dual, self.checkpoint, "-s", source, "-t", target, "--split", split,
                "--max-tokens", options.max_tokens, *search, *self.engine, *["--cpu"] * options.cpu,
            )  # fmt: skip
            nbest = ["--components"]
        else:
            command = [*self._common("fairseq-generate"), "-s", source, "-t", target, "--gen-subset", split]
            command += ["--no-progress-bar", *search]
            nbest = ["--nbest", self.beam[target], "--dual-inference-alpha", "1"]
        command += ["--post-process", post_process] if post_process else []
        if options.dual_inference:
            command += [*nbest, "--src-lm", str(self.lms[source]), "--tgt-lm", str(self.lms[target])]
        count = self._count(split)
        title = f"Translating {split}, {source} -> {target}: {count} sentences ({self.device})"
        return Part(title, name, command, count)

    def _count(self, split: str) -> int:
        """The number of sentences of a split."""
        return count_lines(self.data.raw(split, self.data.source))

    def tuning(self, out: Path) -> list[tuple[list[str], Path]]:
        """The commands that tune the weights of dual inference, each with the file for its table."""
        if not self.options.dual_inference:
            return []
        commands = []
        for source, target in (self.data.languages, self.data.languages[::-1]):
            folder = out / "tuning" / f"{source}-{target}"
            command = step(
                "tune", folder / "generate.txt", "--output", folder, "-t", target, "--dest", self.data.folder,
                "--split", self.options.tune_split, "--lenpen", self.options.lenpen, "--sacrebleu-tokenize",
                bleu_tokenizer(target, self.data.sides[target].segmented, self.options.sacrebleu_tokenize or None),
            )  # fmt: skip
            commands.append((command, folder / "table.txt"))
        return commands

    def scoring(self, out: Path) -> list[str]:
        """The command that makes ``scores.json`` from the output of the other commands."""
        name = self.options.sacrebleu_tokenize
        options = ["--sacrebleu-tokenize", name] if name else []
        options += ["--dual-inference"] if self.options.dual_inference else []
        search_options = shlex.join(self.search[4:])
        settings = {"beam": self.options.beam, "lenpen": self.options.lenpen, "search_options": search_options}
        options += [f"--setting={name}={value}" for name, value in settings.items() if value]
        return step(
            "pair.evaluate", self.data.folder, out, "--split", self.options.split, "--checkpoint", self.checkpoint,
            *options,
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    options, extra = get_parser().parse(arguments)
    # Errors that can be found without torch are reported first, because asking for GPUs takes seconds.
    evaluation = Evaluation(options, extra, Device(0, 1))
    evaluation.device = find_device(options.cpu, "1", extra)
    if options.dry_run:
        evaluation.show()
    else:
        say_missing(options, evaluation.data)
        evaluation.run()
