"""``dual-fairseq train`` where a stage has nothing left to train: the others go on. No program is run."""

from __future__ import annotations

import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from dual_fairseq.common.files import write_text
from dual_fairseq.common.folders import RunFolder
from dual_fairseq.pipeline import train
from dual_fairseq.pipeline.stages import NothingLeft, Stage


class Training(train.Training):
    """Stages whose training is one call; those in ``nothing`` find that nothing is left to train."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.options = SimpleNamespace(go_on=True, eval=True, average=None, init_src2tgt=None)
        self.run, self.chosen, self.device, self.left_out, self.rounds = RunFolder(folder), [], "cpu", False, None
        self.data = SimpleNamespace(folder=folder, source="de", target="en", dual=folder, keep=lambda folder: None)
        self.lms = {language: self.run.language_model(language).best for language in ("de", "en")}
        self.to_train = ["de", "en"]
        self.nothing: set[str] = set()
        self.done: list[str] = []
        self.times: list[bool] = []
        monkeypatch.setattr(train, "locked", lambda folder: nullcontext())
        monkeypatch.setattr(train, "look_ahead", lambda training: None)
        monkeypatch.setattr(train.evaluate, "say_missing", lambda options, data: None)
        monkeypatch.setattr(train.train_lm, "train", lambda language, device: self.do_stage(language))
        monkeypatch.setattr(Stage, "train", lambda stage, device: self.do_stage(stage.title))

    stages = property(lambda self: ["warmup", "dual", "mle"])

    def do_stage(self, name: str) -> None:
        if name in self.nothing:
            raise NothingLeft(f"{name}: nothing was left to train")
        self.done.append(name)

    def language_model(self, language: str) -> str:
        return language

    def check_pair(self, checkpoints: list[str], times: bool = True) -> None:
        self.times.append(times)

    def pair(self, name: str) -> Stage:
        return Stage(self.run.stage(name), name, self.run.folder, [], [])

    def warmup(self) -> Stage:
        return self.pair("warmup")

    def dual(self, known: bool = True) -> Stage:
        return self.pair("dual")

    def mle(self, known: bool = True) -> Stage:
        return self.pair("mle")

    def keep_options(self, folder: Path) -> None:
        write_text(folder / "train.toml", "new")

    def evaluate(self) -> None:
        self.done.append("evaluation")


@pytest.fixture
def training(tmp_path, monkeypatch) -> Training:
    (tmp_path / "train.toml").write_text("old")
    return Training(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["de", "en", "warmup", "dual", "mle"])
def test_where_nothing_is_left_of_a_stage_the_others_are_trained_and_evaluated(training, name, capsys):
    training.nothing = {name}
    training.do()
    every = ["de", "en", "warmup", "dual", "mle", "evaluation"]
    assert training.done == [other for other in every if other != name]
    assert f"  {name}: nothing was left to train\n" in capsys.readouterr().out


@pytest.mark.parametrize(("finished", "times"), [(False, [True, False]), (True, [True])], ids=["new", "resumed"])
def test_the_time_is_printed_once_if_one_language_model_is_given(training, finished, times):
    training.to_train = ["en"]
    if finished:
        training.run.language_model("en").finished.parent.mkdir(parents=True)
        training.run.language_model("en").finished.touch()
    training.do()
    assert training.times == times


def test_options_that_trained_nothing_are_not_those_of_the_run(training):
    training.nothing = {"warmup", "dual", "mle"}
    training.do()
    assert (training.run.folder / "train.toml").read_text() == "old"
    training.left_out, training.nothing = False, set()
    training.do()
    assert (training.run.folder / "train.toml").read_text() == "new"


def test_rounds_have_their_own_file_of_options_until_they_are_done(training):
    """A round that is refused leaves RUN/train.toml as it was."""

    def rounds() -> None:
        assert [(training.run.folder / place / "train.toml").read_text() for place in ("rounds", ".")] == ["new", "old"]
        training.done.append("rounds")

    for file in (training.run.stage("warmup").best, training.run.stage("warmup").last):
        file.parent.mkdir(exist_ok=True)
        zipfile.ZipFile(file, "w").close()
    training.warmup().files.options_file.write_text("".join(f"{line}\n" for line in training.warmup().identity()))
    training.run.stage("warmup").finished.touch()
    (training.run.folder / "rounds").mkdir()
    training.rounds = SimpleNamespace(do=rounds)
    training.do()
    assert training.done == ["de", "en", "rounds", "mle", "evaluation"]
