"""Trainings that go on or are refused, and evaluations that keep what other settings gave: no program is run."""

from __future__ import annotations

import json
import re
import signal
import struct
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import write_record

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import StageFolder
from dual_fairseq.common.interruption import Stopped, stoppable
from dual_fairseq.experiment import results
from dual_fairseq.experiment.recipe import Recipe, resolved
from dual_fairseq.pipeline import choices, config, evaluate, jobs, stages, synthesize
from dual_fairseq.pipeline.changes import Typed, changes
from dual_fairseq.pipeline.devices import Device
from dual_fairseq.pipeline.stages import NothingLeft, Stage
from dual_fairseq.pipeline.train_options import get_parser

TYPED = Typed({"max-update": "--dual-max-update", "max-epoch": "--dual-max-epoch", "lr": "--dual-lr"})


def archive(path: Path, content: str = "") -> Path:
    """A file that was written to its end, as far as can be seen without torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", content)
    return path


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A finished training of 100 updates, and the same with other options."""
    monkeypatch.setattr(stages, "ask", lambda command: "100")

    def stage(max_update: str | None = "100", options: str = "--lr 1 --patience 5", inputs: str = "start a") -> Stage:
        files = StageFolder(tmp_path / "dual")
        return Stage(files, "Dual", tmp_path, [inputs], options.split(), max_update=max_update, typed=TYPED)

    first = stage()
    assert first.begin(go_on=False) and not first.files.folder.exists()
    with first.recorded_anew():
        for file in (first.files.best, first.files.last):
            archive(file)
    first.files.finished.write_text("stopped by --dual-max-update 100\n")
    assert not first.begin(go_on=False)
    assert first.finished_before().endswith("/dual); stopped by --dual-max-update 100")
    return stage


def test_raising_a_limit_is_no_other_training(training):
    stage = training(max_update="200")
    assert stage.begin(go_on=False)
    with stage.recorded_anew():
        assert not stage.files.finished.exists()
    assert stage.files.recorded()[-1] == "--max-update 200"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "train.log"}


def test_a_training_that_fails_before_its_first_checkpoint_leaves_everything_as_it_was(training, tmp_path, monkeypatch):
    stage = training(max_update="200", options="--lr 2 --patience 5")
    folder, run_options = stage.files.folder, tmp_path / "train.toml"
    stage.files.perplexity.write_text("{}")
    before = contents(folder)

    def fairseq_train(command, log, display):
        assert stage.files.recorded()[1] == "--lr 2" and not stage.files.finished.exists()
        log.write_text("fairseq-train: error: unrecognized arguments: --bogus\n")
        return 2

    monkeypatch.setattr(stages, "run", fairseq_train)
    assert stage.begin(go_on=True)
    with pytest.raises(UserError, match="unrecognized arguments: --bogus"), stage.recorded_anew(run_options):
        run_options.touch()
        stage.train(Device(0, 1))
    assert contents(folder) == before and not run_options.exists()
    assert not training().begin(go_on=False)
    with pytest.raises(KeyboardInterrupt), stage.recorded_anew():
        archive(stage.files.last, "update 150")  # it was trained with the new options
        raise KeyboardInterrupt
    assert stage.files.recorded()[1] == "--lr 2" and set(contents(folder)) == set(before) - {
        "finished", "perplexity.json",
    }  # fmt: skip


def test_what_was_there_is_put_back_without_room_and_whatever_fails(training, tmp_path, monkeypatch):
    stage = training(max_update="200", options="--lr 2 --patience 5")
    other = tmp_path / "other"
    other.write_text("old")
    before, put_back, first = contents(stage.files.folder), stages.put_back, [True]

    def fails_once(file: Path) -> None:
        if first.pop() if first else False:
            signal.raise_signal(signal.SIGTERM)  # waits
            raise OSError
        put_back(file)

    monkeypatch.setattr(stages, "put_back", fails_once)
    with pytest.raises(Stopped), stoppable(), stage.recorded_anew(other):
        other.unlink()
        other.write_text("new")
        monkeypatch.setattr(stages, "whole_file", None)  # the disk is full
        raise UserError("refused")
    after = contents(stage.files.folder)
    assert other.read_text() == "old" and after["finished"] == before["finished"]
    assert after[".options.txt.before"] == before["options.txt"]  # the one that failed


def test_a_file_system_without_links(training, monkeypatch):
    def link(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", link)
    stage = training(options="--lr 2 --patience 5")
    before = contents(stage.files.folder)
    with pytest.raises(UserError, match="refused"), stage.recorded_anew():
        raise UserError("refused")
    assert contents(stage.files.folder) == before


def test_limits_and_epochs_that_the_user_gives_to_fairseq_count(training):
    stage = training(max_update="200")
    stage.extra = ["--max-update", "50", "--keep-last-epochs=2"]
    command = stage.command(Device(0, 1))
    given = [command[i + 1] for i, word in enumerate(command) if word == "--max-update"]
    assert given == ["200", "50"]  # fairseq takes the last one
    assert "--no-epoch-checkpoints" not in command
    assert "--no-epoch-checkpoints" in training().command(Device(0, 1))
    stage.files.finished.unlink()
    stage.train(Device(0, 1))  # 100 updates were made
    assert stage.files.finished.read_text() == "stopped by --dual-max-update 50\n"


def test_a_first_training_that_is_refused_leaves_no_record(tmp_path):
    stage = Stage(StageFolder(tmp_path / "new"), "New", tmp_path, [], ["--max-tokens", "5"])
    with pytest.raises(UserError, match="refused"), stage.recorded_anew():
        raise UserError("refused")
    assert choices.recorded(stage.files) == {}


@pytest.mark.parametrize(
    ("reason", "options", "max_update", "limit"),
    [
        ("stopped by --dual-max-update 100", "--lr 2 --patience 5", "100", "--dual-max-update above 100"),
        ("", "--lr 2 --patience 5", "100", "--dual-max-update above 100"),
        ("", "--lr 1 --patience 5", "90", "--dual-max-update above 100"),
        ("stopped by --dual-max-epoch 3", "--lr 2 --max-epoch 3", "200", "--dual-max-epoch above 3"),
        ("stopped by --max-epoch 3; more", "--lr 2 --max-epoch 3", "200", "--dual-max-epoch above 3"),
    ],
    ids=["updates", "unknown", "lower", "epochs", "of train-lm"],
)
def test_where_nothing_is_left_to_train_the_record_stays(training, reason, options, max_update, limit):
    stage = training(max_update=max_update, options=options)
    stage.files.finished.write_text(reason)
    if "epoch" in reason:
        stage.files.options_file.write_text("start a\n--lr 1\n--max-epoch 3\n--max-update 200\n")
    before = contents(stage.files.folder)
    with pytest.raises(NothingLeft, match=rf"nothing is left to train \(was: .*\): raise {limit}$"):
        stage.begin(go_on=True)
    if "lr 2" in options:
        with pytest.raises(NothingLeft, match="nothing was left"), stage.recorded_anew():
            pass  # fairseq-train found it for itself
    assert contents(stage.files.folder) == before


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
    with pytest.raises(SystemExit, match=r"is missing, but its training has finished: put it back, .* to train again"):
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
    assert training(max_update="200", options="--lr 2 --patience 5").begin(go_on=True)
    assert stage.files.last.is_file()


@pytest.fixture
def dest(tmp_path) -> Path:
    folder = tmp_path / "data"
    for sub in ("dual", "raw"):
        (folder / sub).mkdir(parents=True)
    write_record(folder, "xx", "yy")
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


def test_new_scores_leave_no_dual_inference_of_old_ones(dest, tmp_path, monkeypatch):
    """The weights of another checkpoint would be used by synthesize, its translations shown beside the new scores."""
    checkpoint = archive(tmp_path / "run" / "dual" / "checkpoint_best.pt", "one")
    for language in ("xx", "yy"):
        archive(tmp_path / "run" / "lm" / language / "checkpoint_best.pt", language)
    out = tmp_path / "run" / "dual" / "eval" / "test"

    def do(command: list[str], output: Path | None = None, *_: object) -> int:
        """Write what the command would."""
        if output:
            output.write_text("printed\n")
        if "tune" in command:
            (output.parent / "weights.json").write_text("{}")
        if "pair.evaluate" in command:
            folder = Path(command[command.index(str(dest)) + 1])
            for name in ("xx-yy", "yy-xx") if "--dual-inference" in command else ():
                (folder / f"{name}.dual-inference.hyp.txt").write_text("b\n")
            (folder / "scores.json").write_text("{}")
        return 0

    def evaluated(*words: str) -> set[str]:
        options = evaluate.get_parser().parse_args([str(dest), str(checkpoint), *words])
        evaluate.Evaluation(options, [], Device(0, 1)).run()
        return {path.relative_to(out).as_posix() for path in out.rglob("*")} - {".lock"}

    monkeypatch.setattr(evaluate, "run", do)
    monkeypatch.setattr(evaluate, "check", do)
    both = evaluated("--dual-inference")
    assert {"tuning/xx-yy/weights.json", "yy-xx.dual-inference.hyp.txt"} < both and ".new" not in both
    assert evaluated() == both  # of the same checkpoint
    (out / "notes.txt").write_text("of the user\n")
    archive(checkpoint, "trained further")
    plain = {name for name in both if "tuning" not in name and "dual-inference" not in name} | {"notes.txt"}
    assert evaluated() == plain
    assert evaluated("--dual-inference", "-o", str(out)) == both | {"notes.txt"}
    assert evaluated("--lenpen", "1.5", "-o", str(out)) == plain


def test_an_experiment_takes_the_scores_of_its_own_settings(dest, tmp_path):
    """A recipe whose beam was changed once had the new beam over the scores of the old one."""
    path, work = tmp_path / "my.toml", tmp_path / "work"

    def recipe(beam: int) -> Recipe:
        row = '[[row]]\nid = "mle"\nname = "MLE"\nbaseline = true\n'
        path.write_text(f'title = "t"\ndata = "{dest}"\nbeam = {beam}\n{row}')
        return Recipe.read(path)

    def found(beam: int) -> Path | None:
        row = recipe(beam).rows[1]
        return results.scores_of(recipe(beam), work, row, 1)

    def do(beam: int) -> Path:
        arguments = resolved(recipe(beam).evaluation(work, recipe(beam).rows[1], 1))
        of = evaluate.Evaluation(evaluate.get_parser().parse_args(arguments), [], Device(0, 1))
        of.out.mkdir(parents=True)
        (of.out / "options.txt").write_text(of.identity())
        (of.out / "scores.json").write_text("{}")
        return of.out

    assert found(2) is None
    for folder in ("lm/all/xx", "lm/all/yy", "seed-1/mle/dual"):
        archive(work / folder / "checkpoint_best.pt", folder)
    assert found(2) is None
    first = do(2)
    assert (found(2), found(3)) == (first, None)
    second = do(3)
    assert (found(2), found(3)) == (first, second) and second.name == "test-beam3-lenpen1"
    text = (dest / "raw" / "test.xx").read_text()
    (dest / "raw" / "test.xx").write_text("other text\n")
    assert found(2) is None
    (dest / "raw" / "test.xx").write_text(text)
    archive(work / "seed-1" / "mle" / "dual" / "checkpoint_best.pt", "trained further")
    assert found(2) is None


def test_language_models_that_a_run_was_given_are_those_of_its_evaluation(dest, tmp_path):
    run = tmp_path / "run"
    archive(run / "dual" / "checkpoint_best.pt")
    lms = [archive(run / "lm" / "xx" / "checkpoint_best.pt"), archive(tmp_path / "elsewhere" / "lm.pt")]
    (lms[1].parent / "dict.txt").touch()
    options = evaluate.get_parser().parse_args([str(dest), str(run), "--dual-inference"])
    with pytest.raises(UserError, match="--dual-inference needs the language models"):
        evaluate.Evaluation(options, [], Device(0, 1))
    (run / "train.toml").write_text(f'tgt-lm = "{lms[1]}"\n')
    assert evaluate.Evaluation(options, [], Device(0, 1)).lms == dict(zip(("xx", "yy"), lms, strict=True))


@pytest.mark.parametrize("where", ["run", "run/dual"])
def test_a_run_is_found_from_within_its_folder(dest, tmp_path, monkeypatch, where):
    run = tmp_path / "run"
    archive(run / "dual" / "checkpoint_best.pt")
    for language in ("xx", "yy"):
        archive(run / "lm" / language / "checkpoint_best.pt")
    monkeypatch.chdir(tmp_path / where)
    options = evaluate.get_parser().parse_args([str(dest), ".", "--dual-inference"])
    files = {language: lm.resolve() for language, lm in evaluate.Evaluation(options, [], Device(0, 1)).lms.items()}
    assert files == {language: run / "lm" / language / "checkpoint_best.pt" for language in ("xx", "yy")}


def test_scores_of_two_checkpoints_are_not_mixed(dest, tmp_path, monkeypatch):
    """Training goes on during an evaluation, and replaces the checkpoint."""
    checkpoint = archive(tmp_path / "run" / "dual" / "checkpoint_best.pt", "one")
    evaluation = evaluate.Evaluation(evaluate.get_parser().parse_args([str(dest), str(checkpoint)]), [], Device(0, 1))
    monkeypatch.setattr(evaluate, "run", lambda *_: archive(checkpoint, "two") and 0)
    monkeypatch.setattr(evaluate, "check", lambda *_: None)
    with pytest.raises(UserError, match=r"checkpoint_best.pt: was replaced during its evaluation; evaluate it again"):
        evaluation.run()
    assert not (evaluation.out / "options.txt").exists()


@pytest.mark.parametrize("words", [["--lenpen", "2"], ["--lenpen=2"], ["--unnormalized"]])
def test_dual_inference_is_tuned_for_the_length_penalty_of_the_search(dest, tmp_path, words):
    checkpoint = archive(tmp_path / "pair" / "checkpoint_best.pt", "one")
    options = evaluate.get_parser().parse_args([str(dest), str(checkpoint)])
    assert evaluate.Evaluation(options, words, Device(0, 1)).extra == words
    options.dual_inference = True
    with pytest.raises(UserError, match=f"{words[0]}: give --lenpen before --"):
        evaluate.Evaluation(options, words, Device(0, 1))


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


@pytest.mark.parametrize(
    "word", ["--user-dir", "--user-dir=evil", "--tensorboard-logdir", "--log-file=x", "--checkpoint-suffix=/../x"]
)
def test_a_file_of_options_runs_no_code_and_names_no_place_to_write_to(tmp_path, word):
    file = tmp_path / "train.toml"
    file.write_text(f'fairseq-train = ["--fp16", "{word}", "evil"]\n')
    with pytest.raises(UserError, match=rf"train\.toml: fairseq-train: {word}: .*; give it after --"):
        config.parse(get_parser(), ["data", "run", "--config", str(file)])
    assert config.parse(get_parser(), ["data", "run", "--", word, "evil"])[1] == [word, "evil"]


def test_a_file_of_options_names_files_for_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = config.text("again", {"src-lm": Path("lm.pt"), "dropout": "0.3"}, [])
    assert text == f'# again\nsrc-lm = "{tmp_path / "lm.pt"}"\ndropout = 0.3\n'


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


PAIR = Typed(
    {"lr": "--dual-lr", "save-interval": ""},
    {"tiny": {"encoder-layers": "2", "decoder-layers": "2"}, "small": {"encoder-layers": "4", "decoder-layers": "4"}},
    words={"--init-src2tgt run/dual/checkpoint_best.pt": "--init run"},
)
RECORD = "data 1|--arch transformer|--encoder-layers 2|--decoder-layers 2|--eval-bleu-args {beam}|--save-interval 9"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"layers 2": "layers 4"}, "was: --size tiny, now: --size small"),
        ({"layers 2": "layers 3"}, "was: --size tiny, now: --size of other dimensions"),
        ({'"beam": 1': '"beam": 3'}, "was: --valid-beam 1, now: --valid-beam 3"),
        ({'"beam": 1': '"beam": 1, "max_len_a": 1.50'}, "now: --max-len-a 1.50"),
        ({"transformer": "lstm_lm", "layers 2": "units 5"}, "was: --arch transformer, now: --arch lstm"),
        ({"data 1": "data 2", "interval 9": "interval 3"}, "the binarized text changed"),
        ({"interval 9": "interval 3"}, "was: --save-interval 9, now: --save-interval 3"),  # there is nothing else
        ({"interval 9": "interval 9|--lr 2"}, "now: --dual-lr 2"),
        ({"args {": "args [{"}, 'was: --valid-beam 1, now: --eval-bleu-args [{"beam": 1}'),
    ],
)
def test_other_options_are_named_as_they_are_typed(change, expected):
    old = new = RECORD.replace("{beam}", '{"beam": 1}')
    for a, b in change.items():
        new = new.replace(a, b)
    assert changes(old.split("|"), new.split("|"), PAIR) == expected
    assert changes(new.split("|"), new.split("|"), PAIR) == ""


def test_a_message_of_fairseq_names_what_was_typed():
    assert PAIR.message("--lr 5.0: give less; see --lr-scheduler") == "--dual-lr 5.0: give less; see --lr-scheduler"
    assert PAIR.message("--lr 5.0: give less", ["--lr=5"]) == "--lr 5.0: give less"
    assert PAIR.message("--save-interval: x") == "--save-interval: x"
    assert PAIR.message("--init-src2tgt run/dual/checkpoint_best.pt: cannot be read") == "--init run: cannot be read"
