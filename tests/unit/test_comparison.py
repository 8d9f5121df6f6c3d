"""What is said of scores that are outdated, or that stand in one table and must not be compared."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from pathlib import Path

import pytest

from dual_fairseq.common.comparison import Scored, comparison_notes, measurement_notes, unlike
from dual_fairseq.common.folders import RunFolder
from dual_fairseq.pipeline.train import Training


def stage(run: RunFolder, name: str, updates: int, start: str = "a") -> None:
    files = run.stage(name)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.best.write_text(name)
    files.options_file.write_text(f"data d\nstart {start}\n--lr 1\n")
    records = [("valid", updates), ("train", updates - 1)]
    lines = [f'x | {tag} | {{"{tag}_num_updates": "{n}"}}\n' for tag, n in records]
    files.log.write_text('x | train_inner | {"num_updates": "99999"}\n' + "".join(lines))


def scored(run: RunFolder, name: str, title: str = "", language_models: str = "l", **scores: object) -> Scored:
    folder = run.stage(name).evaluation("test")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.txt").write_text(f"checkpoint c\ndata d\nlanguage models {language_models}\n--beam 5\n")
    digest = hashlib.sha256(run.stage(name).result.read_bytes()).hexdigest()
    return Scored(title or name, run, name, folder, {"checkpoint_sha256": digest, "gap_abs": 3.5, **scores})


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.text.mkdir(parents=True)
    (folder.text / "dict.de.txt").write_text("a 1\n")
    for name, updates in (("mle", 30), ("dual", 30)):
        stage(folder, name, updates)
    return folder


def test_equal_systems_have_no_note(run):
    assert comparison_notes([scored(run, "mle"), scored(run, "dual")]) == []
    assert comparison_notes([]) == []


def test_scores_of_an_earlier_checkpoint_are_named(run):
    systems = [scored(run, "mle"), scored(run, "dual", checkpoint_sha256=None)]
    assert comparison_notes(systems) == []  # of an earlier version, which kept no digest
    systems = [scored(run, "mle"), scored(run, "dual")]
    run.stage("dual").best.write_text("trained further")
    assert comparison_notes(systems) == ["dual: scores of an earlier checkpoint: run dual-fairseq evaluate again."]
    run.stage("dual").best.unlink()
    assert comparison_notes(systems) == []


def test_a_control_with_other_updates_or_another_start_is_named(run):
    stage(run, "dual", 1040)
    assert comparison_notes([scored(run, "dual")]) == []
    systems = [scored(run, "mle", "MLE continued"), scored(run, "dual")]
    assert comparison_notes(systems) == [
        "MLE continued: made 30 updates and dual 1,040, so the comparison is unequal: run dual-fairseq train --control "
        "again."
    ]
    stage(run, "dual", 30, start="b")
    assert comparison_notes(systems) == [
        "MLE continued: started from another checkpoint than dual, so the comparison is unequal."
    ]


def test_the_last_table_of_train_has_the_notes(run, monkeypatch, capsys):
    stage(run, "dual", 40)
    for name in ("mle", "dual"):
        scores = dict(scored(run, name).scores)
        (run.stage(name).evaluation("test") / "scores.json").write_text(json.dumps(scores))
        (run.stage(name).evaluation("test") / "de-en.ref.txt").write_text(f"The {name}.\n")  # DEST was made again
    run.stage("mle").best.write_text("trained further")
    training = Training.__new__(Training)
    training.run, training.rounds = run, None
    training.options = Namespace(split="test", warmup_only=False, init_src2tgt="a.pt", control=False)
    monkeypatch.setattr(Training, "evaluated", lambda self, run, name: run.stage(name).evaluation("test"))
    training.evaluate()
    *_, text, outdated, unequal = capsys.readouterr().out.splitlines()
    assert text == "The score of MLE continued cannot be compared with that of dual: their test texts differ."
    assert outdated.startswith("MLE continued: scores of an earlier checkpoint")
    assert unequal.startswith("MLE continued: made 30 updates and dual 40")


def test_the_updates_of_rounds_are_summed(run, tmp_path):
    for number, updates in ((1, 10), (2, 20), (3, 40)):
        stage(RunFolder(run.folder / "rounds" / str(number)), "dual", updates, start=str(number))
    run.stage("dual").folder.rename(tmp_path / "old")
    run.stage("dual").folder.symlink_to(Path("rounds/2/dual"))
    assert run.updates("dual") == 30
    assert comparison_notes([scored(run, "mle"), scored(run, "dual")]) == []


def test_numbers_of_other_dictionaries_or_language_models_are_not_compared(run, tmp_path):
    other = RunFolder(tmp_path / "other")
    stage(other, "dual", 5)
    systems = [scored(run, "mle"), scored(run, "dual"), scored(other, "dual", "other")]
    assert comparison_notes(systems) == []  # the dictionaries are not known
    other.text.mkdir()
    (other.text / "dict.de.txt").write_text("b 1\n")
    systems[2] = scored(other, "dual", "other", "m")
    assert comparison_notes(systems) == [
        "NLL per token of mle and dual cannot be compared with that of other: their dictionaries differ.",
        "Mean |gap| of mle and dual cannot be compared with that of other: their language models differ.",
    ]
    without = [scored(run, "dual"), scored(other, "dual", "other", "m", gap_abs=None)]
    assert len(comparison_notes(without)) == 1


def test_scores_of_other_text_or_signatures_are_not_compared(run):
    systems = [scored(run, name, **{"de-en": {"bleu_signature": "tok:13a"}}) for name in ("mle", "dual")]
    assert measurement_notes(systems) == []
    for system in systems:
        (system.folder / "de-en.ref.txt").write_text("Yes.\n")
    assert measurement_notes(systems) == []
    (systems[1].folder / "de-en.ref.txt").write_text("No.\n")
    systems[0] = scored(run, "mle", **{"de-en": {"bleu_signature": "tok:none"}})
    assert measurement_notes(systems) == [
        "The score of mle cannot be compared with that of dual: their test texts differ.",
        "BLEU of mle cannot be compared with that of dual: their sacreBLEU signatures differ.",
    ]


def test_what_is_not_known_does_not_differ():
    assert unlike({"beam": "5", "text": ["a"]}, {"beam": "5", "text": ["b"]}) == "text"
    assert unlike({"beam": "5", "text": None}, {"beam": "5", "text": ["b"]}) == unlike({"beam": "5"}, {}) == ""
