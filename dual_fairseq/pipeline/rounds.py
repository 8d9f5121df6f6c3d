"""``dual-fairseq train --rounds``: the pair repeatedly translates text and learns from it with the penalty.

A round runs the commands that a user would run by hand: synthesize, preprocess, train, evaluate. Each continues if it
was stopped. ``RUN/rounds/N`` holds the text, data and run of a round; ``RUN/dual`` links to the stage of the best one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..common.arguments import count, positive
from ..common.comparison import unequal_control
from ..common.errors import UserError
from ..common.files import count_lines
from ..common.folders import STAGES, Data, RunFolder, StageFolder
from ..common.tables import aligned, read_scores, search_of, searches, signatures
from .changes import Typed
from .jobs import ask, check, say, show, step
from .synthesize import Synthesis, get_parser

TIMES = 2  # translated lines of each language, per pair
MANY = 10_000  # pairs; with this many or more, translated text gained less
TYPED = Typed({"lines": "--round-lines"})  # option of synthesize → option of train
REAL = 0.75  # real pairs in the training text, repetitions included, per made pair


def add_rounds(group: argparse._ArgumentGroup) -> None:
    """Add the options of rounds."""
    add = group.add_argument
    add("--rounds", type=count, metavar="N",
        help="repeat up to N times, as long as validation BLEU rises: the pair translates text and continues dual "
        "training on it. The rounds are in RUN/rounds, RUN/dual is the best round (default 0)")  # fmt: skip
    add("--round-text", choices=("mono", "pairs", "both"),
        help="mono: translate monolingual text that is similar to the pairs (see dual-fairseq select); pairs: "
        "translate the sides of the pairs, with two translations of each; both: with one translation of each side "
        f"(default: pairs if DEST has no monolingual text, both with {MANY:,} pairs or more, "
        "otherwise mono)")  # fmt: skip
    add("--round-lines", type=positive, metavar="N",
        help=f"lines of each language to translate (default: {TIMES} times the number of pairs; all sides of the "
        "pairs)")  # fmt: skip
    add("--upsample", type=positive, metavar="N",
        help="repeat the real pairs N times in the training data (default: real pairs become about two fifths of the "
        "text)")  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A text that a round translates.

    Args:
        name: of the files with its translations, without the language.
        title: names it in messages.
        options: of synthesize, which choose its lines.
        size: the number of pairs that a round makes of it, if every translation is usable.
    """

    name: str
    title: str
    options: list[str]
    size: int


@dataclass(frozen=True)
class RoundPlan:
    """What a round does.

    Args:
        options: of ``train``.
        data: DEST.
        dual_inference: whether translations can be chosen by dual inference.

    Raises:
        UserError: monolingual text was asked for, but there is none.
    """

    options: argparse.Namespace
    data: Data
    dual_inference: bool

    def __post_init__(self) -> None:
        if self.options.round_text in ("mono", "both") and not self.languages:
            raise UserError(
                f"--round-text {self.options.round_text}: {self.data.raw('mono', self.data.source)} not found; run "
                "dual-fairseq preprocess with --extra-mono-source and --extra-mono-target"
            )

    @cached_property
    def languages(self) -> list[str]:
        """The languages that have monolingual text."""
        return [language for language in self.data.languages if self.data.raw("mono", language).is_file()]

    @cached_property
    def pairs(self) -> int:
        return count_lines(self.data.raw("train", self.data.source))

    @cached_property
    def texts(self) -> list[Text]:
        """The texts that a round translates."""
        default = "pairs" if not self.languages else "both" if self.pairs >= MANY else "mono"
        asked, lines = self.options.round_text or default, self.options.round_lines
        texts = []
        if asked != "pairs":
            number = int(lines or TIMES * self.pairs)
            words = ["--select", "--match-lengths", "--lines", str(number)]
            words += ["--only", self.languages[0]] if len(self.languages) == 1 else []
            title = f"up to {number:,} lines of {' and '.join(self.languages)} that are like the {self.pairs:,} pairs"
            texts.append(Text("made", title, words, len(self.languages) * number))
        if asked != "mono":
            nbest, name = (1, "made-pairs") if texts else (2, "made")
            words = ["--from-pairs", "--nbest", str(nbest), *(["--lines", lines] if lines else [])]
            title = f"the sides of the pairs, {('one translation', 'two translations')[nbest - 1]} of each"
            texts.append(Text(name, title, words, 2 * nbest * int(lines or self.pairs)))
        return texts

    def synthesize(self, text: Text) -> list[str]:
        """The options of synthesize that say which text is translated, and how."""
        options = self.options
        words = [*text.options, "--beam", options.beam, "--seed", options.seed, *(["--cpu"] if options.cpu else [])]
        return words if self.dual_inference else [*words, "--plain"]

    def upsample(self, made: int) -> str:
        """How many times the real pairs are in the training text of a round that made ``made`` pairs."""
        return self.options.upsample or str(max(1, round(REAL * made / self.pairs)))

    def explain(self) -> list[str]:
        """Lines that tell the user what a round does, and why."""
        if self.options.round_text:
            why = f"--round-text {self.options.round_text}"
        elif not self.languages:
            why = "there is no monolingual text in DEST/raw. With 14,000 pairs it lost 0.6 BLEU; docs/results.md"
        elif self.pairs < MANY:
            why = "it gained 1.0 to 3.7 BLEU with 3,000 pairs; docs/results.md"
        else:
            why = "they gained 0.6 to 0.8 BLEU with 29,000 pairs; docs/results.md"
        chooser = "dual inference chooses" if self.dual_inference else "the beam chooses"
        return [
            f"  text: {', and '.join(text.title for text in self.texts)} ({why})",
            f"  translations: {chooser}"
            + ("" if self.dual_inference else ", since dual inference needs test text and --dual-inference"),
            "  training: from the pair so far, with the penalty, on the real pairs "
            + (f"{self.options.upsample} times" if self.options.upsample else "repeated to about two fifths")
            + " and the pairs made",
        ]


@dataclass(frozen=True)
class Round:
    """A round's folders and commands.

    Args:
        number: from 1.
        start: the checkpoint that translates, and from which training starts.
        weights: the option of synthesize that names the weights of dual inference, if it is used.
    """

    plan: RoundPlan
    run: RunFolder
    lms: dict[str, Path]
    number: int
    start: Path
    weights: list[str]

    @property
    def folder(self) -> RunFolder:
        return round_folder(self.run, self.number)

    @property
    def stage(self) -> StageFolder:
        return self.folder.stage("dual")

    def file(self, text: Text) -> Path:
        """The source side of a text and its translations."""
        return self.folder.folder / f"{text.name}.{self.plan.data.source}"

    def made(self) -> int:
        """The number of pairs that the round made; before that, the expected number."""
        files = ((self.file(text), text.size) for text in self.plan.texts)
        return sum(count_lines(file) if file.is_file() else size for file, size in files)

    @property
    def open(self) -> bool:
        """Whether its text may be made again: it was not trained on, or other text is wanted."""
        return self.plan.options.go_on or not self.stage.begun

    @property
    def lm_options(self) -> list[str]:
        return [f"--{side}-lm={lm}" for side, lm in zip(("src", "tgt"), self.lms.values(), strict=True)]

    def synthesize(self, text: Text) -> list[str]:
        """The arguments of synthesize."""
        words = [str(self.plan.data.folder), str(self.start), str(self.folder.folder / text.name)]
        return [*words, *self.plan.synthesize(text), *self.weights, *self.lm_options]

    def changed(self) -> str:
        """How its options and input differ from those of the text that was made; empty if they do not."""
        texts = self.plan.texts
        if not all(self.file(text).is_file() for text in texts):
            return "--round-text"
        made = (Synthesis(get_parser().parse_args(self.synthesize(text))) for text in texts)
        return next(filter(None, (synthesis.changed(TYPED) for synthesis in made)), "")

    def look(self) -> None:
        """Raises UserError if it was trained on text that was made with other options or input."""
        changed = "" if self.open else self.changed()
        if changed:
            raise UserError(
                f"{self.folder.folder} was trained on text that was made with other options or input ({changed}): "
                "choose another folder, delete this one to do the round again, or give --continue to continue on new "
                "text"
            )

    def steps(self) -> Iterator[tuple[str, Callable[[], list[str]]]]:
        """The commands, each with a title; a command may depend on the output of those before it."""
        data, folder, lms, texts = self.plan.data, self.folder.folder, self.lm_options, self.plan.texts
        for text in texts:
            yield f"Round {self.number}: translating {text.title}", partial(step, "synthesize", *self.synthesize(text))
        yield f"Round {self.number}: preprocessing", lambda: step(
            "preprocess", "--source-lang", data.source, "--target-lang", data.target, "--like", data.folder,
            "--train", data.folder / "raw" / "train", "--valid", data.folder / "raw" / "valid", "--max-length=0",
            *(word for text in texts for word in ("--synthetic", folder / text.name)),
            "--upsample", self.plan.upsample(self.made()),
            "--dest", folder / "data", *(["--overwrite"] if self.open else []),
        )  # fmt: skip
        yield f"Round {self.number}: training", lambda: step(
            "train", folder / "data", folder, "--config", folder.parent / "train.toml", "--rounds=0", "--no-eval",
            "--no-control", "--init-src2tgt", self.start, "--init-tgt2src", self.start, *lms,
            *(["--continue"] if self.plan.options.go_on else []),
        )  # fmt: skip


def round_folder(run: RunFolder, number: int) -> RunFolder:
    """The folder of a round of a run."""
    return RunFolder(run.folder / "rounds" / str(number))


class Rounds:
    """All rounds of a run.

    Args:
        plan: what each round does.
        run: RUN.
        lms: language → its language model.
        evaluate: evaluates the result of a run's stage; returns the folder of the scores.

    Raises:
        UserError: RUN/dual holds a training without rounds.
    """

    def __init__(
        self, plan: RoundPlan, run: RunFolder, lms: dict[str, Path], evaluate: Callable[[RunFolder, str], Path]
    ) -> None:
        self.plan, self.run, self.lms, self.evaluate = plan, run, lms, evaluate
        self.number = int(plan.options.rounds)
        self.place = run.stage("dual").folder
        if self.place.exists() and not self.place.is_symlink():
            raise UserError(f"{self.place} was trained without --rounds: choose another folder for the run")
        self.done: list[Round] = []
        self.weights: list[str] = []  # the option of synthesize, for the pair so far
        self.scores: list[float] = []  # validation BLEU of the warm start, then of each round

    def do(self) -> None:
        """Do the rounds that are not done yet.

        Raises:
            UserError: a round was trained on other text.
            SystemExit: a command failed.
        """
        say("Rounds: the pair translates text and is trained on it")
        say("\n".join(self.plan.explain()))
        self._judge(self.run, self.run.stage("warmup"))
        while len(self.done) < self.number:
            new = Round(self.plan, self.run, self.lms, len(self.done) + 1, self._last().result, self.weights)
            new.look()
            for title, command in new.steps():
                say(f"{title}: {new.folder.folder}")
                check(command())
            self.done.append(new)
            self._judge(new.folder, new.stage)
            gain = self.scores[-1] - max(self.scores[:-1])
            say(f"Round {new.number}: {new.made():,} pairs made; validation BLEU {self.scores[-1]:.2f} ({gain:+.2f})")
            if gain <= 0:
                if len(self.done) < self.number:
                    say(f"Validation BLEU no longer rises: stopping after round {new.number} of {self.number}")
                break
        link(self.place, os.path.relpath(self.best.stage.folder, self.place.parent))

    def _last(self) -> StageFolder:
        return self.done[-1].stage if self.done else self.run.stage("warmup")

    def _judge(self, run: RunFolder, stage: StageFolder) -> None:
        """Evaluate a stage, if dual inference needs its weights, and note its validation BLEU."""
        if self.plan.dual_inference:
            self.weights = ["--weights", str(self.evaluate(run, stage.folder.name) / "tuning")]
        self.scores.append(validation_bleu(stage))

    @property
    def best(self) -> Round:
        """The round with the best validation BLEU."""
        round_scores = self.scores[1:]
        return self.done[round_scores.index(max(round_scores))]

    def updates(self) -> str:
        """The number of updates from the warm start to the best round."""
        made = [int(ask(step("pipeline.probe", "updates", past.stage.last))) for past in self.done[: self.best.number]]
        return str(sum(made))

    def table(self) -> str:
        """What each round gained; stages that were not evaluated before are evaluated."""
        stages = [("warm start", self.run, "warmup", self.scores[0])]
        stages += [
            (f"round {past.number}" + " (kept)" * (past is self.best), past.folder, "dual", score)
            for past, score in zip(self.done, self.scores[1:], strict=True)
        ]
        control = self.run.stage("mle")
        if control.finished.is_file():
            stages.append((STAGES["mle"], self.run, "mle", validation_bleu(control)))
        data = self.plan.data
        directions = [f"{data.source}-{data.target}", f"{data.target}-{data.source}"]
        lines = [("system", "made", "valid BLEU", *(f"{d} {x}" for d in directions for x in ("BLEU", "re-scored")))]
        first: list[float | None] = []
        evaluated: list[tuple[str, dict[str, Any]]] = []
        for number, (name, run, stage, score) in enumerate(stages):
            scores = read_scores(self.evaluate(run, stage) / "scores.json")
            evaluated.append((name, scores))
            values: list[float | None] = [score]
            for direction in directions:
                own_scores = scores.get(direction) or {}
                values += [own_scores.get("bleu"), (own_scores.get("dual_inference") or {}).get("bleu")]
            first = first or values
            made = f"{self.done[number - 1].made():,}" if 0 < number <= len(self.done) else "-"
            lines.append((name, made, *(gained(a, b, number) for a, b in zip(values, first, strict=True))))
        notes = searches((name, search_of(scores)) for name, scores in evaluated)
        notes += signatures(
            (direction, {"bleu_signature": (scores.get(direction) or {}).get("bleu_signature")})
            for _, scores in evaluated
            for direction in directions
        )
        notes += [f"{STAGES['mle']}: {text}" for text in unequal_control(self.run) if control.finished.is_file()]
        return "\n".join([aligned(lines), *notes])

    def show(self) -> None:
        """Print the commands of the first round, ready to copy; later rounds are alike."""
        start = self.run.stage("warmup").result
        for title, command in Round(self.plan, self.run, self.lms, 1, start, []).steps():
            show(title, command())


def validation_bleu(stage: StageFolder) -> float:
    """Mean BLEU of both directions on the validation text, of a stage's best checkpoint."""
    return float(ask(step("pipeline.probe", "score", stage.best)).split()[1])


def gained(value: float | None, start: float | None, number: int) -> str:
    """A score, with its gain over the warm start (line 0)."""
    if value is None:
        return "-"
    return f"{value:.2f}" + (f" ({value - start:+.2f})" if number and start is not None else "")


def link(place: Path, target: str) -> None:
    """Point a symbolic link to a folder; an old link stays until the new one replaces it."""
    new = place.with_name(f".{place.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target, target_is_directory=True)
    os.replace(new, place)
