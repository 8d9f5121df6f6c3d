"""Rounds of learning from text that the pair translates: what they do, when they stop, where they go on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from helpers import write_record

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data, RunFolder
from dual_fairseq.pipeline import choices, rounds, synthesize, train_options
from dual_fairseq.pipeline.rounds import RoundPlan, Rounds

PAIRS = 40


@pytest.fixture
def data(tmp_path) -> Data:
    folder = tmp_path / "data"
    (folder / "raw").mkdir(parents=True)
    write_record(folder, "de", "en")
    for name in ("train", "mono"):
        for language in ("de", "en"):
            (folder / "raw" / f"{name}.{language}").write_text("Ja.\n" * PAIRS)
    return Data.from_folder(folder)


def options(*words: str) -> argparse.Namespace:
    return train_options.parse(["DEST", "RUN", "--rounds=3", *words])


class Pipeline:
    """Commands that leave what the real ones leave.

    Args:
        bleu: validation BLEU of the warm start and of each round.
    """

    def __init__(self, monkeypatch, folder: Path, bleu: list[float]) -> None:
        self.run, self.bleu, self.ran = RunFolder(folder), bleu, []
        self.fails, self.weights = "", "{}"
        monkeypatch.setattr(rounds, "check", self.check)
        monkeypatch.setattr(rounds, "ask", self.ask)
        self.checkpoint(self.run, "warmup")

    def checkpoint(self, run: RunFolder, stage: str) -> None:
        folder = run.stage(stage).folder
        folder.mkdir(parents=True, exist_ok=True)
        for file in (run.stage(stage).best, run.stage(stage).last):
            file.write_text(str(folder))

    def check(self, command: list[str]) -> None:
        name, *words = command[3:]
        self.ran.append([name, *words])
        if self.fails and self.fails == name:
            raise KeyboardInterrupt
        if name == "synthesize":
            out = Path(words[2])
            out.parent.mkdir(parents=True, exist_ok=True)
            for language in ("de", "en"):
                out.with_name(f"{out.name}.{language}").write_text("Ja.\n" * 160)
            made = synthesize.Synthesis(synthesize.get_parser().parse_args(words))
            made.parts.mkdir(exist_ok=True)
            (made.parts / "options.txt").write_text(made.identity())
        elif name == "train":
            self.checkpoint(RunFolder(Path(words[1])), "dual")

    def ask(self, command: list[str]) -> str:
        question, checkpoint = command[4], Path(command[5])
        number = int(checkpoint.parts[checkpoint.parts.index("rounds") + 1]) if "rounds" in checkpoint.parts else 0
        return f"{100 * number} {self.bleu[number]}" if question == "score" else str(100 * number)

    def rounds(self, data: Data, *words: str, dual_inference: bool = True) -> Rounds:
        plan = RoundPlan(options(*words), data, dual_inference)
        lms = {language: self.run.folder / f"{language}.pt" for language in ("de", "en")}
        for lm in lms.values():
            lm.touch()
        return Rounds(plan, self.run, lms, self.evaluate)

    def evaluate(self, run: RunFolder, stage: str) -> Path:
        self.ran.append(["evaluate", str(run.folder), stage])
        folder = run.stage(stage).evaluation("test")
        folder.mkdir(parents=True, exist_ok=True)
        number = int(run.folder.name) if run.folder.parent.name == "rounds" else 0
        scores: dict[str, object] = {
            d: {"bleu": 30.0 + number, "bleu_signature": "tok:13a", "dual_inference": {"bleu": 32.0 + number}}
            for d in ("de-en", "en-de")
        }
        scores["beam"] = "5"
        (folder / "scores.json").write_text(json.dumps(scores))
        for direction in ("de-en", "en-de"):
            (folder / "tuning" / direction).mkdir(parents=True, exist_ok=True)
            (folder / "tuning" / direction / "weights.json").write_text(self.weights)
        return folder


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    return lambda *bleu: Pipeline(monkeypatch, tmp_path / "run", list(bleu))


def synthesized(plan: RoundPlan) -> list[str]:
    """The options of synthesize for the only text of a round."""
    (text,) = plan.texts
    return plan.synthesize(text)


def names(made: Pipeline) -> list[str]:
    return [command[0] for command in made.ran]


def test_each_round_goes_on_from_the_one_before(pipeline, data):
    made = pipeline(20.0, 21.0, 22.0, 23.0)
    done = made.rounds(data)
    done.do()
    assert names(made) == ["evaluate", *["synthesize", "preprocess", "train", "evaluate"] * 3]
    starts = [command[2] for command in made.ran if command[0] == "synthesize"]
    run = made.run.folder
    weights = [command[command.index("--weights") + 1] for command in made.ran if command[0] == "synthesize"]
    assert weights[1] == str(run / "rounds/1/dual/eval/test/tuning")
    stages = [run / "warmup", run / "rounds/1/dual", run / "rounds/2/dual"]
    assert starts == [str(stage / "checkpoint_best.pt") for stage in stages]
    assert (run / "dual/checkpoint_best.pt").read_text() == str(run / "rounds/3/dual")
    assert done.updates() == "600"


def test_rounds_stop_when_validation_no_longer_gains(pipeline, data, capsys):
    made = pipeline(20.0, 21.0, 20.9, 23.0)
    done = made.rounds(data)
    done.do()
    assert len(done.done) == 2 and done.best.number == 1
    assert (made.run.folder / "dual").resolve() == made.run.folder / "rounds/1/dual"
    assert done.updates() == "100"
    assert "stopping after round 2 of 3" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["synthesize", "preprocess", "train"])
def test_stopped_anywhere_the_same_command_goes_on(pipeline, data, step):
    made = pipeline(20.0, 21.0, 22.0, 21.0)
    made.fails = step
    with pytest.raises(KeyboardInterrupt):
        made.rounds(data).do()
    assert not (made.run.folder / "dual").exists()
    made.fails, made.ran = "", []
    done = made.rounds(data)
    done.do()
    before = [[word for word in command if word != "--overwrite"] for command in made.ran]
    made.ran = []
    made.rounds(data).do()  # finished: the same commands, which do nothing twice and replace nothing
    assert made.ran == before and done.best.number == 2


def test_a_round_that_was_trained_keeps_its_text(pipeline, data):
    made = pipeline(20.0, 21.0)
    made.rounds(data, "--rounds=1", "--round-lines=50").do()
    made.ran = []
    with pytest.raises(UserError, match=r"rounds/1 was trained on text .*was: --round-lines 50, now: --round-lines 60"):
        made.rounds(data, "--rounds=1", "--round-lines=60").do()
    made.weights = "other weights"  # of another search
    with pytest.raises(UserError, match=r"text that was made .*the text to translate, a model or the weights changed"):
        made.rounds(data, "--rounds=1", "--round-lines=50").do()
    assert names(made) == ["evaluate"] * 2
    made.weights = "{}"
    made.rounds(data, "--rounds=1", "--round-lines=50").do()
    made.rounds(data, "--rounds=1", "--round-lines=60", "--continue").do()
    assert ["--overwrite" in command for command in made.ran if command[0] == "preprocess"] == [False, True]


def test_the_training_text_is_two_fifths_real(pipeline, data):
    made = pipeline(20.0, 21.0, 20.0)
    made.rounds(data).do()
    command = next(command for command in made.ran if command[0] == "preprocess")
    assert command[command.index("--upsample") + 1] == "3"  # 160 pairs were made of 40
    made.ran = []
    made.rounds(data, "--upsample=7").do()
    assert any(command[command.index("--upsample") + 1] == "7" for command in made.ran if command[0] == "preprocess")


def test_monolingual_text_is_selected_twice_as_much_as_the_pairs(data):
    words = synthesized(RoundPlan(options(), data, True))
    assert words[:4] == ["--select", "--match-lengths", "--lines", str(2 * PAIRS)]
    assert "--plain" not in words and "--plain" in synthesized(RoundPlan(options(), data, False))


def test_one_language_with_monolingual_text_is_enough(data):
    data.raw("mono", "en").unlink()
    words = synthesized(RoundPlan(options(), data, True))
    assert words[words.index("--only") + 1] == "de"


def test_without_monolingual_text_the_pairs_are_told_again(data):
    asked = RoundPlan(options("--round-text=pairs"), data, True)
    for language in data.languages:
        data.raw("mono", language).unlink()
    plan = RoundPlan(options(), data, True)
    assert synthesized(plan)[:3] == ["--from-pairs", "--nbest", "2"] == synthesized(asked)[:3]
    assert "there is no monolingual text" in plan.explain()[0]
    for text in ("mono", "both"):
        with pytest.raises(UserError, match=rf"--round-text {text}: .* not found"):
            RoundPlan(options(f"--round-text={text}"), data, True)


def test_many_pairs_are_translated_together_with_monolingual_text(pipeline, data, monkeypatch):
    monkeypatch.setattr(rounds, "MANY", PAIRS)
    made = pipeline(20.0, 21.0, 20.0)
    done = made.rounds(data)
    done.do()
    out = made.run.folder / "rounds" / "1"
    texts = [command for command in made.ran if command[0] == "synthesize"][:2]
    assert [command[3] for command in texts] == [str(out / "made"), str(out / "made-pairs")]
    assert ["--select" in command for command in texts] == [True, False]
    assert texts[1][4:7] == ["--from-pairs", "--nbest", "1"]
    command = next(command for command in made.ran if command[0] == "preprocess")
    assert [command[i + 1] for i, word in enumerate(command) if word == "--synthetic"] == [
        str(out / "made"), str(out / "made-pairs"),
    ]  # fmt: skip
    assert command[command.index("--upsample") + 1] == "6"  # 320 pairs were made of 40
    assert done.done[0].made() == 320
    assert "0.6 to 0.8 BLEU with 29,000 pairs" in "".join(done.plan.explain())


def test_a_round_that_was_trained_on_one_text_gets_no_second_one(pipeline, data):
    made = pipeline(20.0, 21.0)
    made.rounds(data, "--rounds=1").do()
    made.ran = []
    with pytest.raises(UserError, match=r"rounds/1 was trained on text .*\(--round-text\)"):
        made.rounds(data, "--rounds=1", "--round-text=both").do()
    assert names(made) == ["evaluate"]


def test_a_run_that_was_trained_otherwise_is_left_alone(pipeline, data):
    made = pipeline(20.0, 21.0)
    made.checkpoint(made.run, "dual")
    with pytest.raises(UserError, match="was trained without --rounds"):
        made.rounds(data).do()
    assert made.ran == [] and made.run.stage("dual").best.is_file()


def test_the_table_says_what_each_round_gained(pipeline, data):
    made = pipeline(20.0, 21.0, 20.5)
    done = made.rounds(data)
    done.do()
    table = [line.split("  ") for line in done.table().splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in table]
    assert rows[1] == ["warm start", "-", "20.00", "30.00", "32.00", "30.00", "32.00"]
    assert rows[2] == ["round 1 (kept)", "160", "21.00 (+1.00)", *["31.00 (+1.00)", "33.00 (+1.00)"] * 2]
    assert rows[3][:3] == ["round 2", "160", "20.50 (+0.50)"]
    assert rows[4:] == [["Search: beam 5"], ["BLEU tok:13a"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds=1", "--warmup-only"], "--rounds: begins with the warm start"),
        (["--rounds=1", "--average=3"], "--rounds: judges rounds by their best checkpoints; leave out --average"),
        (["--upsample=2"], "--upsample 2: needs --rounds"),
        (["--round-text=pairs"], "--round-text pairs: needs --rounds"),
    ],
)
def test_a_mistake_is_one_line(words, message):
    train_options.parse(["DEST", "RUN", "--rounds=0", "--upsample=2"])  # of a file of options that has rounds
    with pytest.raises(UserError, match=message):
        train_options.parse(["DEST", "RUN", *words])


def test_a_round_shares_embeddings_where_the_pair_that_it_starts_from_does(data, tmp_path):
    """The text of a round is made --like DEST, and does not say so itself."""
    start = RunFolder(tmp_path / "run").stage("warmup")
    start.folder.mkdir(parents=True)
    run = RunFolder(tmp_path / "run" / "rounds" / "1")
    for option in ("--share-all-embeddings", "--share-decoder-input-output-embed"):
        start.options_file.write_text(f"{option}\n")
        assert choices.shares_embeddings(data, run, start.best) is (option == "--share-all-embeddings")


def test_a_dry_run_shows_the_steps_of_a_round(pipeline, data, capsys):
    made = pipeline(20.0)
    made.rounds(data).show()
    printed = capsys.readouterr().out
    titles = [line.removeprefix("# Round 1: ") for line in printed.splitlines() if line.startswith("#")]
    assert titles == [
        "translating up to 80 lines of de and en that are like the 40 pairs", "preprocessing", "training",
    ]  # fmt: skip
    assert "--upsample 3" in printed  # 160 pairs of 40, if every line gets a translation
    assert made.ran == []
