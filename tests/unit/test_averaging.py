"""The mean of a stage's last checkpoints: when it is made, of what, and what uses it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dual_fairseq.common.folders import RunFolder, StageFolder, find_checkpoint
from dual_fairseq.pair import average as pair_average
from dual_fairseq.pair import commands
from dual_fairseq.pipeline import averaging
from dual_fairseq.pipeline.devices import Device
from dual_fairseq.pipeline.stages import Stage
from dual_fairseq.report.runs import read_run


@pytest.fixture
def stage(tmp_path) -> StageFolder:
    files = RunFolder(tmp_path / "run").stage("dual")
    files.folder.mkdir(parents=True)
    for name in ("best", "last", "8", "9", "10"):
        (files.folder / f"checkpoint{'_' * name.isalpha()}{name}.pt").write_text(name)
    return files


@pytest.fixture
def averaged(monkeypatch) -> list[list[str]]:
    """What the command was given to average, by the names of the files."""
    made: list[list[str]] = []

    def check(command):
        assert command[3] == "average"
        commands.average([str(word) for word in command[4:]])

    def average(inputs):
        made.append([Path(file).name for file in inputs])
        return "mean"

    monkeypatch.setattr(averaging, "check", check)
    monkeypatch.setattr(pair_average, "average", average)
    return made


def test_the_last_epochs_are_averaged_and_removed(stage, averaged):
    averaging.average(stage, "2", True)
    assert averaged == [["checkpoint10.pt", "checkpoint9.pt"]]
    assert sorted(file.name for file in stage.folder.iterdir()) == [
        "checkpoint_average.pt", "checkpoint_best.pt", "checkpoint_last.pt",
    ]  # fmt: skip
    averaging.average(stage, "2", True)
    assert len(averaged) == 1


EVERY_5 = ["--lr", "1", "--save-interval-updates", "5"]


def begun_with(stage: StageFolder, *options: str) -> None:
    stage.options_file.write_text("".join(f"{line}\n" for line in options))


def test_checkpoints_by_updates_are_averaged_instead_of_epochs(stage, averaged):
    for name in ("2_950", "2_1000", "1_900"):
        (stage.folder / f"checkpoint_{name}.pt").write_text(name)
    assert averaging.options(stage, "2", EVERY_5) == ["--keep-interval-updates", "2"]
    begun_with(stage, "--keep-interval-updates 2", "--save-interval-updates 5")
    averaging.average(stage, "2", True)
    assert averaged == [["checkpoint_2_1000.pt", "checkpoint_2_950.pt"]]
    left = sorted(file.name for file in stage.folder.glob("checkpoint*"))
    assert left == [f"checkpoint{name}.pt" for name in ("10", "8", "9", "_average", "_best", "_last")]


@pytest.mark.parametrize(
    "extra", [[], ["--save-interval-updates=0"], [*EVERY_5, "--keep-interval-updates=1"]],
    ids=["none", "off", "kept-by-the-user"],
)  # fmt: skip
def test_epochs_are_averaged_unless_the_user_leaves_checkpoints_by_updates_to_it(stage, averaged, extra):
    assert averaging.options(stage, "2", extra) == ["--keep-last-epochs", "2"]


def test_a_stage_that_began_with_epochs_goes_on_with_them(stage, averaged):
    begun_with(stage, "--keep-last-epochs 2", "--save-interval-updates 5", "--keep-interval-updates 1")
    (stage.folder / "checkpoint_2_1000.pt").touch()
    assert averaging.options(stage, "2", EVERY_5) == ["--keep-last-epochs", "2"]
    averaging.average(stage, "2", True)
    assert averaged == [["checkpoint10.pt", "checkpoint9.pt"]] and (stage.folder / "checkpoint_2_1000.pt").is_file()


def test_without_a_checkpoint_to_average_the_best_is_used_and_this_is_said(stage, averaged, capsys):
    begun_with(stage, "--keep-interval-updates 2", "--save-interval-updates 5")
    stage.average.write_text("of the training before")
    averaging.average(stage, "2", False)
    assert stage.result == stage.average and not capsys.readouterr().out  # nothing was trained
    averaging.average(stage, "2", True)
    assert stage.result == stage.best and averaged == []
    assert f"warning: {stage.folder}: there is no checkpoint to average" in capsys.readouterr().out


def test_a_training_that_went_on_without_the_option_has_no_average(stage, averaged):
    stage.average.write_text("of the training before")
    averaging.average(stage, None, False)
    assert stage.result == stage.average  # nothing was trained
    averaging.average(stage, None, True)
    assert stage.result == stage.best and averaged == []


def test_stopped_while_the_epochs_were_removed_it_is_not_made_again(stage, averaged, monkeypatch):
    removed = []

    def unlink(file):
        if removed:
            raise KeyboardInterrupt
        removed.append(file.name)
        os.unlink(file)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", unlink)
        averaging.average(stage, "2", True)
    assert removed == ["checkpoint8.pt"]  # the last epoch, whose time the average has, goes last
    averaging.average(stage, "2", True)
    assert len(averaged) == 1 and len([*stage.folder.glob("checkpoint*")]) == 3


@pytest.mark.parametrize("seconds", [1, 10**10], ids=["older", "of-a-clock-that-was-set-back"])
def test_a_training_that_went_on_is_averaged_anew(stage, averaged, seconds):
    stage.average.write_text("mean")
    os.utime(stage.average, (seconds, seconds))
    averaging.average(stage, "9", True)
    assert averaged == [["checkpoint10.pt", "checkpoint9.pt", "checkpoint8.pt"]]


def test_without_the_option_nothing_is_averaged_or_removed(stage, averaged):
    averaging.average(stage, None, True)
    assert averaged == [] and len([*stage.folder.iterdir()]) == 5


def test_the_average_is_what_a_run_is_used_by(stage, averaged):
    run = stage.folder.parent
    assert find_checkpoint(run) == find_checkpoint(stage.folder) == stage.result == stage.best
    averaging.average(stage, "2", True)
    assert find_checkpoint(run) == find_checkpoint(stage.folder) == stage.result == stage.average
    assert read_run(run).stages["dual"].checkpoint == stage.average


@pytest.mark.parametrize("count", [None, "3"])
def test_epochs_are_kept_only_to_be_averaged(tmp_path, count):
    command = Stage(
        StageFolder(tmp_path), "", tmp_path, [], averaging.options(StageFolder(tmp_path), count, [])
    ).command(Device(0, 1))
    assert ("--no-epoch-checkpoints" in command) is (count is None)
