"""What is said below a table of scores about systems whose scores are outdated or must not be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import sha256
from .folders import STAGES, RunFolder, StageFolder


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
        return _recorded(StageFolder(self.folder), "language models ") if self.scores.get("gap_abs") is not None else ""


def comparison_notes(systems: Sequence[Scored]) -> list[str]:
    """Sentences on the systems of a table."""
    outdated = [system.name for system in systems if system.outdated]
    notes = [f"{', '.join(outdated)}: scores of an earlier checkpoint: run dual-fairseq evaluate again."][
        : len(outdated)
    ]
    notes += _unlike(systems, lambda system: system.dictionaries, "NLL a token", "dictionaries")
    notes += _unlike(systems, lambda system: system.language_models, "Mean |gap|", "language models")
    for run in {system.run: None for system in systems if system.stage == "dual"}:
        names = {system.stage: system.name for system in systems if system.run == run}
        notes += [f"{names['mle']}: {text}" for text in unequal_control(run)] if "mle" in names else []
    return notes


def _unlike(systems: Sequence[Scored], key: Callable[[Scored], str], value: str, cause: str) -> list[str]:
    groups: dict[str, list[str]] = {}
    for system in systems:
        if found := key(system):
            groups.setdefault(found, []).append(system.name)
    those = " with that of ".join(", ".join(names) for names in groups.values())
    return [f"{value} of {those} cannot be compared: other {cause}."] if len(groups) > 1 else []


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
    starts = {_recorded(stage, "start ") for stage in (control, dual)} - {""}
    if len(starts) > 1 and not dual.folder.is_symlink():  # later rounds start from the earlier ones
        notes.append(f"started from another checkpoint than {STAGES['dual']}, so the comparison is unequal.")
    return notes


def _recorded(folder: StageFolder, name: str) -> str:
    return next((line.removeprefix(name).strip() for line in folder.recorded() if line.startswith(name)), "")
