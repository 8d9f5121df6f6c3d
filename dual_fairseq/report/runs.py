"""Reads the files of a run that exist: logs, options, scores and translations."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import read_lines, refuse_link
from ..common.folders import RECORD, STAGES, RunFolder, StageFolder, find_run
from ..common.records import read_record
from ..common.tables import read_scores

Record = dict[str, float]
RE_SCORED = " + dual inference"  # ends the name of a system whose translations dual inference chose


@dataclass
class Evaluation:
    """The folder ``eval/<split>`` of a stage: ``scores.json`` and the texts beside it."""

    folder: Path
    scores: dict[str, Any]

    @property
    def directions(self) -> list[str]:
        return [name for name, values in self.scores.items() if isinstance(values, dict)]

    def lines(self, direction: str, kind: str) -> list[str] | None:
        """The ``src``, ``hyp`` or ``ref`` text of a direction; None if the file is missing."""
        path = self.folder / f"{direction}.{kind}.txt"
        refuse_link(path)
        return read_lines(path) if path.is_file() else None


@dataclass
class Stage:
    """A folder of a run: ``warmup``, ``mle`` or ``dual``.

    Args:
        key: its name on disk, one of :data:`~dual_fairseq.common.folders.STAGES`.
        valid, train: records of its log by update; of two records for one update (a resumed run), the later one. The
            best of several rounds also has those of the rounds before it, and counts the updates of all.
        options: the options it was trained with, without the dashes.
        finished: whether it trained to its end.
        start: the number of updates of the warm start that it continues.
        before: the record of that warm start, as the first point of a curve.
    """

    key: str
    folder: Path
    valid: list[Record]
    train: list[Record]
    options: dict[str, str]
    finished: bool
    evaluations: dict[str, Evaluation]
    start: float = 0.0
    before: Record | None = None

    @property
    def name(self) -> str:
        return STAGES[self.key]

    @property
    def checkpoint(self) -> Path:
        return StageFolder(self.folder).result

    @cached_property
    def best(self) -> Record | None:
        """The validation after which ``checkpoint_best.pt`` was written: the last one that reached the best value."""
        metric = next((key.removeprefix("best_") for r in self.valid for key in r if key.startswith("best_")), None)
        if metric is None:  # fairseq logs no best with the first validation
            return self.valid[-1] if self.valid else None
        best = [r[f"best_{metric}"] for r in self.valid if f"best_{metric}" in r][-1]
        reached = [r for r in self.valid if r.get(metric) == best]
        return reached[-1] if reached else None

    def language_models(self) -> dict[str, Path]:
        """The folders of the language models that it was trained with, by language, as its log names them."""
        log = StageFolder(self.folder).log
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        command = next((line for line in reversed(lines) if line.startswith("# ") and " --src-lm " in line), "")
        try:
            words = shlex.split(command)
        except ValueError:  # a line that is still being written
            words = []
        values = dict(pairwise(words))
        found: dict[str, Path] = {}
        for language, option in (("source-lang", "--src-lm"), ("target-lang", "--tgt-lm")):
            if language in self.options and {option, "--save-dir"} <= values.keys():
                file = find(values[option], values["--save-dir"], self.folder)
                found |= {self.options[language]: file.resolve().parent} if file else {}
        return found

    def curve(self, key: str, which: str = "valid") -> tuple[list[float], list[float]]:
        """(updates since the warm start began, values) of a logged quantity; empty if it was not logged."""
        records = [(self.start + r["num_updates"], r[key]) for r in getattr(self, which) if key in r]
        if records and which == "valid" and self.before is not None and key in self.before:
            records.insert(0, (self.start, self.before[key]))
        return [update for update, _ in records], [value for _, value in records]


@dataclass
class Run:
    """A folder of ``dual-fairseq train``."""

    name: str
    folder: Path
    stages: dict[str, Stage] = field(default_factory=dict)

    def perplexities(self) -> dict[str, float]:
        """Validation perplexity of the language models, by language: those of dual training, else the run's own."""
        files = {folder.name: folder for folder in sorted((self.folder / "lm").glob("*"))}
        files |= self.stages["dual"].language_models() if "dual" in self.stages else {}
        values = {}
        for language, folder in files.items():
            if (file := folder / "perplexity.json").is_file():
                fix = "remove it, and run dual-fairseq train again"
                values[language] = read_record(file, {"perplexity": float}, fix)["perplexity"]
        return values

    @property
    def directions(self) -> list[str]:
        """The directions in logs and scores."""
        directions: dict[str, None] = {}
        for stage in self.stages.values():
            for evaluation in stage.evaluations.values():
                directions.update(dict.fromkeys(evaluation.directions))
            for record in stage.valid[:1]:
                names = [key.removeprefix("nll_loss_") for key in record if key.startswith("nll_loss_")]
                directions.update(dict.fromkeys(names))
        return list(directions)


@dataclass
class System:
    """A stage of a run, with its name in tables and pictures."""

    name: str
    run: Run
    stage: Stage


def read_log(path: Path) -> tuple[list[Record], list[Record]]:
    """The validation and the training records (one per epoch) of a ``train.log``, each in the order of updates.

    Lines that are not JSON records, and a line that is still being written, are skipped.
    """
    by_tag: dict[str, dict[float, Record]] = {"valid": {}, "train": {}}
    if not path.is_file():
        return [], []
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            for tag, records in by_tag.items():
                _, separator, text = line.partition(f" | {tag} | {{")
                if separator:
                    record = _record(text, tag)
                    if "num_updates" in record:
                        records[record["num_updates"]] = record
    valid, train = ([records[update] for update in sorted(records)] for records in by_tag.values())
    return valid, train


def _record(text: str, tag: str) -> Record:
    try:
        logged = json.loads("{" + text)
    except (ValueError, RecursionError):
        return {}
    record = {}
    for key, value in logged.items():
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):  # values of a diverged run cannot be drawn
            record[key.removeprefix(f"{tag}_")] = number
    return record


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run, even an unfinished one.

    Args:
        folder: a folder of ``dual-fairseq train``, or of the demo, which contains such a folder (``train``).

    Raises:
        UserError: the folder holds no stage.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one that dual-fairseq train wrote")
    if (folder / RECORD).is_file():
        raise UserError(f"{folder}: is the data of dual-fairseq preprocess; give the run of dual-fairseq train")
    root = find_run(folder)
    if root is None:
        raise UserError(
            f"{folder}: holds none of the stages {', '.join(STAGES)}; give a folder of dual-fairseq train, "
            "once its warm start has begun"
        )
    stages = {key: _read_stage(RunFolder(root), key) for key in STAGES if (root / key).is_dir()}
    warm = stages.get("warmup")
    if warm is not None and warm.best is not None:
        for key in stages.keys() - {"warmup"}:
            stages[key].start, stages[key].before = warm.best["num_updates"], warm.best
    return Run(name or folder.resolve().name, root, stages)


def _read_stage(run: RunFolder, key: str) -> Stage:
    files = run.stage(key)
    valid: list[Record] = []
    train: list[Record] = []
    for training in run.trainings(key):
        before = max((record["num_updates"] for record in (*valid, *train)), default=0.0)
        for records, new in zip((valid, train), read_log(training.log), strict=True):
            records += [record | {"num_updates": before + record["num_updates"]} for record in new]
    evaluations = {}
    for path in sorted(files.folder.glob("eval/*/scores.json")):
        evaluations[path.parent.name] = Evaluation(path.parent, read_scores(path))
    return Stage(key, files.folder, valid, train, files.options(), files.finished.is_file(), evaluations)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Several runs; their names are the shortest ends of their paths that all differ.

    Raises:
        UserError: see :func:`read_run`; or a folder is named twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice; name each folder once")
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    names = ["/".join(path.parts[-parts:]) for path in paths]
    return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def systems(runs: Sequence[Run]) -> list[System]:
    """The stages of all runs, in order; the names of a single run's stages leave out the run."""
    return [
        System(stage.name if len(runs) == 1 else f"{run.name}: {stage.name}", run, stage)
        for run in runs
        for stage in run.stages.values()
    ]


def choose_split(runs: Sequence[Run], wanted: str | None = None) -> str:
    """The split to show: ``wanted``, else ``test``, or another evaluated split if only others were evaluated.

    Raises:
        UserError: runs were evaluated, but none on ``wanted``.
    """
    evaluated = sorted({split for run in runs for stage in run.stages.values() for split in stage.evaluations})
    if wanted is not None:
        if evaluated and wanted not in evaluated:
            raise UserError(f"--split {wanted}: no stage was evaluated on it, only on {', '.join(evaluated)}")
        return wanted
    return "test" if "test" in evaluated or not evaluated else evaluated[0]


def find(recorded: str, save_dir: str, stage_folder: Path) -> Path | None:
    """A path that a stage recorded, or its new place if it was moved together with the run; None if it is gone."""
    moved = os.path.normpath(stage_folder.resolve() / os.path.relpath(recorded, save_dir))
    return next((path for path in (Path(recorded), Path(moved)) if path.exists()), None)


def arrow(direction: str) -> str:
    """``de-en`` as a reader sees it: ``de→en``."""
    return direction.replace("-", "→")
