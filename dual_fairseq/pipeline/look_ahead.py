"""Looks at all stages of a run before any of them is trained: what a later one would refuse is refused at once."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Any

from . import train_lm
from .rounds import round_folder
from .stages import NothingLeft, Stage


def round_stage(training: Any, number: int, known: bool) -> Stage:
    """The training of a round that has begun, on the text that the round has made.

    Args:
        known: whether the checkpoint that it starts from exists.
    """
    before = training.run.stage("warmup") if number == 1 else round_folder(training.run, number - 1).stage("dual")
    within = copy.copy(training)
    within.run = round_folder(training.run, number)
    start = {"init_src2tgt": before.result, "init_tgt2src": before.result}
    within.options = Namespace(**vars(training.options) | start)
    within.data_line = next(filter(lambda line: line.startswith("data "), within.run.stage("dual").recorded()), "")
    return within.dual(known)


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
        for number in range(1, training.rounds.number + 1):
            if not round_folder(run, number).stage("dual").begun:
                trained.append(f"round {number}")
                break
            # a round with nothing left to train ends with an error, whatever else is trained
            trained.append(round_stage(training, number, not first).look(training.options.go_on, first))
            first = first or trained[-1]
    elif "dual" in stages:
        look(training.dual(known=run.stage("dual").begun and not first), first)
        if "mle" in stages and run.stage("dual").last.is_file():
            stage = training.mle(known=not warm)
            if any(trained):  # dual training may make more updates
                stage.max_update = None
            look(stage, warm)
    if left and not any(trained):
        raise left[0]
