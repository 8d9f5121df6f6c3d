"""What is said below a table of scores about systems whose scores are outdated or must not be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import sha256
from .folders import STAGES, RunFolder, recorded_lines


@dataclass(frozen=True)
class Scored:
    """The scores of a stage's result.

    Args:
        name: the system's, in the table.
        run: the run that it belongs to.
        stage: one of :data:`~dual_fairseq.common.folders.STAGES`.
        folder: of the scores.
        scores: the content of ``scores.json``.
    """

    name: str
    run: RunFolder
    stage: str
    folder: Path
    scores: Mapping[str, Any]

    @property
    def outdated(self) -> bool:
        """Whether the stage has another checkpoint now."""
        evaluated, now = self.scores.get("checkpoint_sha256"), self.run.stage(self.stage).result
        return evaluated is not None and now.is_file() and sha256(now) != evaluated

    @property
    def dictionaries(self) -> str:
        """A digest; empty if the run keeps no dictionaries."""
        return " ".join(sha256(file) for file in sorted(self.run.text.glob("dict.*.txt")))

    @property
    def language_models(self) -> str:
        """A digest of those that measured the gap; empty if they are not known."""
        lines = recorded_lines(self.folder / "options.txt")
        return _value(lines, "language models ") if self.scores.get("gap_abs") is not None else ""

    @property
    def text(self) -> str:
        """A digest of the references; empty if they are gone."""
        return " ".join(sha256(file) for file in sorted(self.folder.glob("*.ref.txt")))

    @property
    def signatures(self) -> str:
        """Those of BLEU, by direction; empty if an earlier version wrote none."""
        entries = sorted((name, entry) for name, entry in self.scores.items() if isinstance(entry, dict))
        return " ".join(f"{name} {entry['bleu_signature']}" for name, entry in entries if entry.get("bleu_signature"))


def unlike(mine: Mapping[str, Any], its: Mapping[str, Any]) -> str:
    """Why two systems must not be compared: the name of what differs; empty if nothing does.

    Args:
        mine, its: what their scores rest on, by name, such as the test text. What is not known (empty) does not differ.
    """
    return next((name for name in mine if mine[name] and its.get(name) and mine[name] != its[name]), "")


def comparison_notes(systems: Sequence[Scored]) -> list[str]:
    """Sentences on the systems of a table."""
    notes = []
    if outdated := [system.name for system in systems if system.outdated]:
        notes.append(f"{', '.join(outdated)}: scores of an earlier checkpoint: run dual-fairseq evaluate again.")
    notes += _groups(systems, lambda system: system.dictionaries, "NLL per token", "dictionaries")
    notes += _groups(systems, lambda system: system.language_models, "Mean |gap|", "language models")
    for run in {system.run: None for system in systems if system.stage == "dual"}:
        names = {system.stage: system.name for system in systems if system.run == run}
        notes += [f"{names['mle']}: {text}" for text in unequal_control(run)] if "mle" in names else []
    return notes


def measurement_notes(systems: Sequence[Scored]) -> list[str]:
    """Sentences on systems whose scores were measured otherwise; a report has its own, with its tests."""
    notes = _groups(systems, lambda system: system.text, "The score", "test texts")
    return notes + _groups(systems, lambda system: system.signatures, "BLEU", "sacreBLEU signatures")


def _groups(systems: Sequence[Scored], key: Callable[[Scored], str], value: str, cause: str) -> list[str]:
    groups: dict[str, list[str]] = {}
    for system in systems:
        if found := key(system):
            groups.setdefault(found, []).append(system.name)
    if len(groups) < 2:
        return []
    first, *others = (" and ".join(names) for names in groups.values())
    return [f"{value} of {first} cannot be compared with that of {' or of '.join(others)}: their {cause} differ."]


def unequal_control(run: RunFolder) -> list[str]:
    """What makes MLE continued and dual training an unequal comparison, if anything does."""
    control, dual = run.stage("mle"), run.stage("dual")
    updates, others = run.updates("mle"), run.updates("dual")
    notes = []
    if updates and others and updates != others:
        notes.append(
            f"made {updates:,} updates and {STAGES['dual']} {others:,}, so the comparison is unequal: run dual-fairseq "
            "train --control again."
        )
    starts = {_value(stage.recorded(), "start ") for stage in (control, dual)} - {""}
    if len(starts) > 1 and not dual.folder.is_symlink():  # later rounds start from the earlier ones
        notes.append(f"started from another checkpoint than {STAGES['dual']}, so the comparison is unequal.")
    return notes


def _value(lines: Sequence[str], name: str) -> str:
    return next((line.removeprefix(name).strip() for line in lines if line.startswith(name)), "")
