"""Looks at all stages of a run before any of them is trained: what a later one would refuse is refused at once."""

from __future__ import annotations

from typing import Any

from ..common.folders import RunFolder
from . import train_lm
from .stages import NothingLeft, Stage


def look_ahead(training: Any) -> None:
    """Look at the stages of a :class:`~.train.Training`.

    Raises:
        UserError: a stage would be refused, or other options leave nothing to train.
    """
    stages, run = training.stages, training.run
    trained: list[str] = []  # why
    left: list[NothingLeft] = []

    def look(stage: Stage, anew: str = "") -> str:
        try:
            trained.append(stage.look(training.options.go_on, anew))
            return trained[-1]
        except NothingLeft as reason:
            if anew:
                raise
            left.append(reason)
            return ""

    lms = [look(train_lm.stage(training.language_model(language))) for language in training.to_train]
    warm = look(training.warmup()) if "warmup" in stages else ""
    first = next(filter(None, [warm, *lms]), "")
    if training.rounds:
        if first:  # a round looks for itself whether its options are others
            folder = RunFolder(run.folder / "rounds" / "1").stage("dual")
            look(Stage(folder, "", training.data.dual, [], []), first)
    elif "dual" in stages:
        look(training.dual(known=run.stage("dual").begun and not first), first)
        if "mle" in stages and run.stage("dual").last.is_file():
            stage = training.mle(known=not warm)
            if any(trained):  # dual training may make more updates
                stage.max_update = None
            look(stage, warm)
    if left and not any(trained):
        raise left[0]
