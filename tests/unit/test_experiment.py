"""What the table of an experiment takes from the runs of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import write_record

from dual_fairseq.common.folders import RunFolder
from dual_fairseq.experiment import results
from dual_fairseq.experiment.recipe import Recipe, Row
from dual_fairseq.pipeline import evaluate
from dual_fairseq.pipeline.devices import Device


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    folder = tmp_path / "data"
    (folder / "raw").mkdir(parents=True)
    write_record(folder, "de", "en")
    for language in ("de", "en"):
        (folder / f"dict.{language}.txt").touch()
        for split in ("test", "valid"):
            (folder / f"{split}.de-en.{language}.idx").touch()
            (folder / "raw" / f"{split}.{language}").write_text("Ja.\n")
    rows = [Row("warmup", "warm start", stage="warmup"), Row("mle", "MLE", language_models="all", baseline=True)]
    return Recipe("small", rows, data=str(folder), source="de", target="en")


@pytest.fixture
def evaluation(recipe, tmp_path, monkeypatch) -> evaluate.Evaluation:
    """The evaluation of a row, done."""
    work, row = tmp_path / "work", recipe.rows[1]
    for language in ("de", "en"):
        (work / "lm" / "all" / language).mkdir(parents=True)
        (work / "lm" / "all" / language / "checkpoint_best.pt").write_text(language)
    stage = RunFolder(work / "seed-1" / "mle").stage("dual")
    stage.folder.mkdir(parents=True)
    stage.best.write_text("weights")
    monkeypatch.setattr(evaluate, "is_whole", Path.is_file)
    words = results.resolved(recipe.evaluation(work, row, 1))
    made = evaluate.Evaluation(evaluate.get_parser().parse_args(words), [], Device(0, 1))
    made.out.mkdir(parents=True)
    (made.out / "options.txt").write_text(made.identity())
    (made.out / "scores.json").write_text("{}")
    return made


def test_scores_are_found_when_the_files_that_they_are_of_are_gone(recipe, evaluation, tmp_path):
    work, row = tmp_path / "work", recipe.rows[1]
    assert results.scores_of(recipe, work, row, 1) == evaluation.out
    assert results.scores_of(recipe, work, row, 2) is None
    assert not results.unchecked(recipe, work, row, [1])
    evaluation.checkpoint.write_text("trained further")
    assert results.scores_of(recipe, work, row, 1) is None
    evaluation.checkpoint.unlink()
    assert results.scores_of(recipe, work, row, 1) == evaluation.out and results.unchecked(recipe, work, row, [1])
    evaluation.checkpoint.write_text("weights")
    for file in evaluation.lms.values():
        file.unlink()
        assert results.scores_of(recipe, work, row, 1) == evaluation.out and results.unchecked(recipe, work, row, [1])
    (Path(recipe.data) / "raw" / "test.de").write_text("Nein.\n")  # what is not gone is still compared
    evaluation.checkpoint.unlink()
    assert results.scores_of(recipe, work, row, 1) is None


def test_an_evaluation_reads_its_checkpoint_once(evaluation, monkeypatch, capsys):
    read = []
    monkeypatch.setattr(evaluate, "digest", lambda *files: read.append([f.name for f in files]) or "0" * 64)
    again = evaluate.Evaluation(evaluation.options, [], Device(0, 1))
    again.out = evaluation.out
    (evaluation.out / "options.txt").write_text(again.identity())
    again.run()
    assert "Evaluated before" in capsys.readouterr().out
    assert read.count(["checkpoint_best.pt"]) == read.count(["checkpoint_best.pt"] * 2) == 1


def test_updates_and_hours_are_those_of_all_rounds(tmp_path):
    run = RunFolder(tmp_path)
    assert (run.updates("dual"), results.seconds_of(run, "dual")) == (0, 0)  # no epoch was logged
    for number, updates in ((1, 10), (2, 20), (3, 40)):
        stage = RunFolder(tmp_path / "rounds" / str(number)).stage("dual")
        stage.folder.mkdir(parents=True)
        stage.log.write_text(f'x | train | {{"train_num_updates": "{updates}", "train_train_wall": "{updates / 2}"}}\n')
    run.stage("dual").folder.symlink_to(Path("rounds/2/dual"))
    assert (run.updates("dual"), results.seconds_of(run, "dual")) == (30, 15)
