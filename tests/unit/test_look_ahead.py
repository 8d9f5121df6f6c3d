"""What a later stage would refuse is refused before any stage is trained: no program is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import RunFolder
from dual_fairseq.pipeline import look_ahead, stages, train_lm
from dual_fairseq.pipeline.changes import Typed
from dual_fairseq.pipeline.stages import Stage

LIMITS = {"lm/xx": "40", "warmup": "60", "dual": "40", "mle": "40"}


class Run:
    """A run, finished if not told otherwise; options are given by the name of a stage."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.run, self.rounds, self.to_train, self.data = RunFolder(folder), None, ["xx"], SimpleNamespace(dual=folder)
        self.stages, self.options = ["warmup", "dual", "mle"], SimpleNamespace(go_on=False)
        self.given: dict[str, str] = {}
        monkeypatch.setattr(train_lm, "stage", lambda language: self.stage("lm/xx"))
        monkeypatch.setattr(stages, "ask", lambda command: LIMITS[Path(command[-1]).parent.name.replace("xx", "lm/xx")])

    def stage(self, name: str, known: bool = True) -> Stage:
        limit, *options = self.given.get(name, LIMITS[name]).split()
        inputs = ["start a"] if known and "/" not in name else []
        prefix = {"lm/xx": "lm", "mle": "dual"}.get(name, name)
        typed = Typed({"max-update": f"--{prefix}-max-update"})
        return Stage(self.run.stage(name), name, self.run.folder, inputs, options, max_update=limit, typed=typed)

    def finish(self) -> Run:
        for name in LIMITS:
            stage = self.stage(name)
            with stage.recorded_anew():
                for file in (stage.files.best, stage.files.last):
                    zipfile.ZipFile(file, "w").close()
            stage.files.finished.touch()
        return self

    def language_model(self, language: str) -> str:
        return language

    def warmup(self) -> Stage:
        return self.stage("warmup")

    def dual(self, known: bool) -> Stage:
        return self.stage("dual", known)

    def mle(self, known: bool) -> Stage:
        return self.stage("mle", known)

    def look(self, go_on: bool = False, **given: str) -> None:
        self.options.go_on = go_on
        self.given = {name.replace("lm", "lm/xx"): words for name, words in given.items()}
        look_ahead.look_ahead(self)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_an_earlier_stage_is_not_trained_on_where_a_later_one_began_with_it(run):
    run.finish().look()
    was = r"was: --lm-max-update 40, now: --lm-max-update 44"
    with pytest.raises(UserError, match=rf"/dual was trained with other options or input \({was}\): choose another"):
        run.look(lm="44")
    with pytest.raises(
        UserError, match=rf"/dual: nothing is left to train \({was}\): raise --dual-max-update above 40"
    ):
        run.look(lm="44", go_on=True)
    run.look(lm="44", dual="50", go_on=True)
    with pytest.raises(UserError, match=r"/dual was trained .*now: --warmup-max-update 70"):
        run.look(warmup="70")
    run.stage("lm/xx").files.best.unlink()
    run.stage("lm/xx").files.last.unlink()
    run.stage("lm/xx").files.finished.unlink()
    earlier = r"\(it began with an earlier .*/lm/xx, which will be trained again\)"
    with pytest.raises(UserError, match=rf"/dual was trained with other options or input {earlier}: choose another"):
        run.look()


def test_other_options_of_a_later_stage_are_refused_before_an_earlier_one_is_trained(run):
    run.look()
    run.finish().look(dual="50")  # the control has as many updates
    for name in ("dual", "mle"):
        with pytest.raises(UserError, match=rf"/{name} was trained with other options .*now: --seed 2"):
            run.look(**{name: "40 --seed 2"})


def test_other_options_that_leave_nothing_to_train_are_refused_unless_a_stage_goes_on(run):
    run.finish()
    with pytest.raises(UserError, match=r"/warmup: nothing is left .*raise --warmup-max-update above 60"):
        run.look(warmup="60 --seed 2", dual="40 --seed 2", go_on=True)
    run.look(warmup="60 --seed 2", dual="50 --seed 2", mle="50 --seed 2", go_on=True)


@pytest.fixture
def rounds(run) -> Run:
    """Two rounds, both finished."""
    run.finish()
    run.stages, run.rounds = ["warmup", "dual"], SimpleNamespace(number=3)
    run.look(warmup="70")
    for number in ("1", "2"):
        stage = stages_round(run, number)
        with stage.recorded_anew():
            for file in (stage.files.best, stage.files.last):
                zipfile.ZipFile(file, "w").close()
        stage.files.finished.touch()
    return run


def stages_round(run: Run, number: str) -> Stage:
    whole, run.run = run.run, RunFolder(run.run.folder / "rounds" / number)
    try:
        return run.stage("dual")
    finally:
        run.run = whole


def test_rounds_that_began_with_a_pair_are_refused_where_it_is_trained_on(rounds):
    rounds.look()
    with pytest.raises(UserError, match=r"rounds/1/dual was trained .*now: --warmup-max-update 70"):
        rounds.look(warmup="70")


def test_other_options_of_rounds_are_refused_though_nothing_is_trained_before_them(rounds):
    with pytest.raises(UserError, match=r"rounds/1/dual was trained .*now: --dual-lambda 0.05"):
        rounds.look(dual="40 --dual-lambda 0.05")
    with pytest.raises(UserError, match=r"rounds/2/dual was trained .*now: --dual-max-update 50"):
        rounds.look(dual="50")  # round 1 may go on, but round 2 began with it
    rounds.rounds.number = 1
    rounds.look(dual="50")


def test_a_round_with_nothing_left_to_train_is_refused_whatever_else_is_trained(rounds):
    nothing = r"rounds/1/dual: nothing is left to train \(.*\): raise --dual-max-update above 40"
    with pytest.raises(UserError, match=nothing):
        rounds.look(go_on=True, warmup="70")
    with pytest.raises(UserError, match=nothing):
        rounds.look(go_on=True, dual="40 --seed 2")
    rounds.look(go_on=True, warmup="70", dual="50")


def test_a_round_after_one_that_goes_on_is_refused(rounds):
    stages_round(rounds, "1").files.finished.unlink()
    with pytest.raises(
        UserError, match=r"rounds/2/dual .*began with an earlier .*/rounds/1/dual, which is not finished"
    ):
        rounds.look()
