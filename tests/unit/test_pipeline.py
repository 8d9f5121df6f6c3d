"""Trainings that go on or are refused, and evaluations that keep what other settings gave: no program is run."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import StageFolder
from dual_fairseq.pipeline import choices, config, evaluate, jobs, synthesize
from dual_fairseq.pipeline.devices import Device
from dual_fairseq.pipeline.stages import Stage
from dual_fairseq.pipeline.train_options import get_parser

TYPED = {"max-update": "--dual-max-update", "lr": "--dual-lr"}


def archive(path: Path, content: str = "") -> Path:
    """A file that was written to its end, as far as can be seen without torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", content)
    return path


@pytest.fixture
def training(tmp_path):
    """A finished training of 100 updates, and the same with other options."""

    def stage(max_update: str | None = "100", options: str = "--lr 1 --patience 5", inputs: str = "start a") -> Stage:
        files = StageFolder(tmp_path / "dual")
        return Stage(files, "Dual", tmp_path, [inputs], options.split(), max_update=max_update, typed=TYPED)

    first = stage()
    assert first.begin(go_on=False)
    for file in (first.files.best, first.files.last):
        archive(file)
    first.files.finished.write_text("stopped by --dual-max-update 100\n")
    assert not first.begin(go_on=False)
    assert first.finished_before().endswith("/dual); stopped by --dual-max-update 100")
    return stage


def test_raising_a_limit_is_no_other_training(training):
    stage = training(max_update="200")
    assert stage.begin(go_on=False)
    assert not stage.files.finished.exists()
    assert stage.files.recorded()[-1] == "--max-update 200"


def test_where_patience_ended_a_training_only_more_patience_goes_on(training):
    training().files.finished.write_text("stopped by --patience: no improvement\n")
    assert not training(max_update="200").begin(go_on=False)
    assert training(options="--lr 1 --patience 6").begin(go_on=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_update": "99"}, r"\(was: --dual-max-update 100, now: --dual-max-update 99\)"),
        ({"options": "--lr 2 --patience 5"}, r"\(was: --dual-lr 1, now: --dual-lr 2\)"),
        ({"inputs": "start b"}, r"\(the checkpoint that it starts from changed\)"),
        ({"max_update": "200", "options": "--lr 2 --patience 5"}, r"\(was: --dual-lr 1, now: --dual-lr 2\)"),
    ],
    ids=["lower", "another option", "another start", "both"],
)
def test_a_refusal_names_what_was_typed(training, change, message):
    stage = training(**change)
    before = stage.files.recorded()
    with pytest.raises(SystemExit, match=message):
        stage.begin(go_on=False)
    assert stage.files.recorded() == before and stage.files.finished.is_file()


def test_a_checkpoint_that_was_deleted_is_named(training, capsys):
    stage = training()
    stage.files.best.unlink()
    with pytest.raises(SystemExit, match=r"checkpoint_best.pt is missing, but its training has finished: put it back"):
        stage.begin(go_on=False)
    assert stage.files.last.is_file() and stage.files.finished.is_file()


def test_without_its_last_checkpoint_a_training_goes_on_from_its_best_and_says_so(training, capsys):
    stage = training(max_update="200")
    stage.files.last.unlink()
    assert stage.begin(go_on=False)
    assert "checkpoint_last.pt is missing: continuing from checkpoint_best.pt" in capsys.readouterr().out
    assert stage.files.last.read_bytes() == stage.files.best.read_bytes()
    stage.files.last.unlink()  # not finished
    assert stage.begin(go_on=False)
    assert stage.files.last.is_file()
    stage.files.finished.touch()
    stage.files.last.unlink()
    assert training(options="--lr 2 --patience 5").begin(go_on=True)
    assert stage.files.last.is_file()


@pytest.fixture
def dest(tmp_path) -> Path:
    folder = tmp_path / "data"
    for sub in ("dual", "raw"):
        (folder / sub).mkdir(parents=True)
    (folder / "preprocess.json").write_text(
        json.dumps({"source": "xx", "target": "yy", "tokenizer": "none", "subword": "bpe"})
    )
    for language in ("xx", "yy"):
        (folder / "dual" / f"dict.{language}.txt").touch()
        for split in ("valid", "test"):
            (folder / "dual" / f"{split}.xx-yy.{language}.idx").touch()
            (folder / "raw" / f"{split}.{language}").write_text("a\n")
    return folder


def test_scores_with_other_settings_get_a_folder_of_their_own(dest, tmp_path):
    checkpoint = archive(tmp_path / "run" / "dual" / "checkpoint_best.pt", "one")
    lms = [archive(tmp_path / "run" / "lm" / language / "checkpoint_best.pt", language) for language in ("xx", "yy")]

    def evaluation(*words: str, extra: tuple[str, ...] = ()) -> evaluate.Evaluation:
        options = evaluate.get_parser().parse_args([str(dest), str(checkpoint), *words])
        return evaluate.Evaluation(options, extra, Device(0, 1))

    def done(of: evaluate.Evaluation) -> None:
        of.out.mkdir(parents=True)
        (of.out / "options.txt").write_text(of.identity())
        (of.out / "scores.json").write_text("{}")

    def place(of: evaluate.Evaluation) -> str:
        return str(of.out.relative_to(tmp_path / "run" / "dual" / "eval"))

    first = evaluation("--dual-inference")
    assert place(first) == "test"
    done(first)
    plain = evaluation()
    assert place(plain) == "test"
    plain.run()  # nothing: what is there has all of it, and dual inference too
    assert place(evaluation("--lenpen", "1.5")) == "test-beam5-lenpen1.5"
    done(evaluation("--lenpen", "1.5"))
    assert place(evaluation("--lenpen", "1.5")) == "test-beam5-lenpen1.5"
    assert place(evaluation("--beam", "2", "--split=valid")) == "valid"
    assert place(evaluation("--sacrebleu-tokenize", "char")) == "test-beam5-lenpen1-char"
    assert place(evaluation(extra=("--max-len-b", "9"))).startswith("test-beam5-lenpen1-")
    engine = ("--engine", "ctranslate2", "--int8")
    assert place(evaluation(*engine)) == "test-beam5-lenpen1-ctranslate2-int8"
    done(evaluation(*engine))
    assert place(evaluation(*engine)) == "test-beam5-lenpen1-ctranslate2-int8"
    assert place(evaluation(*engine[:2])) == "test-beam5-lenpen1-ctranslate2"
    others = [archive(tmp_path / language, "other") for language in ("xx", "yy")]
    with_others = evaluation(f"--src-lm={others[0]}", f"--tgt-lm={others[1]}")
    assert place(with_others) == "test-beam5-lenpen1"
    text = (dest / "raw" / "test.xx").read_text()
    (dest / "raw" / "test.xx").write_text("another test set\n")
    second = evaluation("--dual-inference")
    assert re.fullmatch("test-beam5-lenpen1-[0-9a-f]{6}", place(second))
    done(second)
    assert place(evaluation()) == place(evaluation("--dual-inference")) == place(second)
    (dest / "raw" / "test.xx").write_text(text)
    assert place(evaluation()) == place(evaluation("--dual-inference")) == "test"
    archive(lms[0], "trained on")
    archive(checkpoint, "two")
    assert place(evaluation()) == "test"  # another checkpoint replaces the scores of the old one


def test_an_engine_translates_with_the_same_options(dest, tmp_path):
    checkpoint = archive(tmp_path / "pair" / "checkpoint_best.pt", "one")
    words = [str(dest), str(checkpoint), "--engine", "auto", "--lenpen", "2", "--max-len-a", "2", "--max-len-b", "7"]
    options = evaluate.get_parser().parse_args(words)
    for part in evaluate.Evaluation(options, [], Device(0, 1)).steps()[1:]:
        of = {word: part.command[i + 1] for i, word in enumerate(part.command[:-1]) if word.startswith("--")}
        assert part.command[3] == "pair.generate" and of["--engine"] == "auto"
        assert (of["--lenpen"], of["--max-len-a"], of["--max-len-b"]) == ("2", "2", "7")
    with pytest.raises(UserError, match="--engine ctranslate2: takes no options of fairseq-generate"):
        options.engine = "ctranslate2"
        evaluate.Evaluation(options, ["--sampling"], Device(0, 1))
    options.engine = "auto"
    left = evaluate.Evaluation(options, ["--sampling"], Device(0, 1))
    assert left.steps()[1].command[0] == "fairseq-generate"


def synthesis(folder: Path, checkpoint: Path, *words: str) -> synthesize.Synthesis:
    options = synthesize.get_parser().parse_args([str(folder), str(checkpoint), str(folder / "out"), "--plain", *words])
    return synthesize.Synthesis(options)


def test_text_that_was_made_stays_until_the_new_one_is_complete(dest, tmp_path, monkeypatch):
    checkpoint = archive(tmp_path / "pair.pt")
    for language in ("xx", "yy"):
        (dest / "raw" / f"mono.{language}").write_text(f"{language} 1\n{language} 2\n")
    fails = False

    def check(command: list[str]) -> None:
        if fails:
            raise SystemExit(1)
        values = dict(pairwise(command))
        lines = Path(values["--input"]).read_text().splitlines()
        made = {"pairs": [[line, line.upper()] for line in lines], "left_out": {}}
        Path(values["--output"]).write_text(json.dumps(made))

    monkeypatch.setattr(synthesize, "check", lambda command: check([*map(str, command)]))
    synthesis(dest, checkpoint).do()
    made = {language: (dest / f"out.{language}").read_bytes() for language in ("xx", "yy")}
    assert made["xx"] == b"xx 1\nxx 2\nYY 1\nYY 2\n"
    fails = True
    with pytest.raises(SystemExit):
        synthesis(dest, checkpoint, "--beam", "9").do()
    assert made == {language: (dest / f"out.{language}").read_bytes() for language in made}
    synthesis(dest, checkpoint).do()  # made before
    with pytest.raises(SystemExit):
        synthesis(dest, checkpoint, "--beam", "9").do()  # not made before
    fails = False
    synthesis(dest, checkpoint, "--beam", "9").do()
    assert not (dest / "out.parts" / "begun.txt").exists()
    fails = True
    synthesis(dest, checkpoint, "--beam", "9").do()  # made before


@pytest.mark.parametrize(
    "line", ["--max-tokens x", "--max-tokens 0", "--max-update 1.5", "--lr 1e999", "--dropout $(id)"]
)
def test_an_option_of_a_training_that_was_begun_is_a_number(tmp_path, line):
    (tmp_path / "options.txt").write_text(f"data 1\n--seed 1\n{line}\n--max-tokens y\n")
    with pytest.raises(UserError, match=r"options.txt: is damaged .*; delete .* to train again"):
        choices.recorded(StageFolder(tmp_path))
    (tmp_path / "options.txt").write_text("--max-tokens 10\n--max-update none\n--lr 1e-3\n--max-tokens y\n")
    assert choices.recorded(StageFolder(tmp_path)) == {"max-tokens": "10", "max-update": None, "lr": "1e-3"}


@pytest.mark.parametrize("claimed", [3, 2**40, 2**64 - 1])
def test_an_index_that_claims_more_sentences_than_it_has_is_refused_at_once(tmp_path, claimed):
    (tmp_path / "train.idx").write_bytes(struct.pack("<9sQBQii", b"MMIDIDX\0\0", 1, 4, claimed, 5, 6))
    with pytest.raises(UserError, match=r"train.idx: was cut short"):
        choices.sizes_of(tmp_path / "train.idx")


@pytest.mark.parametrize("word", ["--user-dir", "--user-dir=evil", "--tensorboard-logdir", "--log-file=x"])
def test_a_file_of_options_runs_no_code_and_names_no_place_to_write_to(tmp_path, word):
    file = tmp_path / "train.toml"
    file.write_text(f'fairseq-train = ["--fp16", "{word}", "evil"]\n')
    with pytest.raises(UserError, match=rf"train\.toml: fairseq-train: {word}: .*; give it after --"):
        config.parse(get_parser(), ["data", "run", "--config", str(file)])
    assert config.parse(get_parser(), ["data", "run", "--", word, "evil"])[1] == [word, "evil"]


def test_a_refused_command_leaves_no_folder(tmp_path):
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "old" / "deep" / "new", tmp_path / "new"):
        with pytest.raises(UserError, match="refused"), jobs.locked(folder):
            raise UserError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and not (tmp_path / "old" / "deep").exists()
    with jobs.locked(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").is_file()


@pytest.mark.parametrize("name", ["train.log", "finished"])
def test_a_training_does_not_write_through_a_link(training, tmp_path, name):
    stage = training(max_update="200")
    (stage.files.folder / name).unlink(missing_ok=True)
    (stage.files.folder / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=f"{name}: is a link to another file"):
        stage.begin(go_on=True)
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="cannot write to"), jobs.locked(tmp_path):
        pass
    assert not (tmp_path / "mine").exists()
