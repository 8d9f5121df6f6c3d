"""The pipeline's plans: options on record, dry runs, files of options, and signals."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from helpers import PLUGIN, ROOT, SOURCE, TARGET, TINY, parameter_difference, preprocessed, run_command

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import RunFolder
from dual_fairseq.pipeline import evaluate, train, train_lm
from dual_fairseq.pipeline.changes import changes
from dual_fairseq.pipeline.devices import Device
from dual_fairseq.pipeline.look_ahead import round_stage
from dual_fairseq.pipeline.rounds import Round
from dual_fairseq.pipeline.stages import option_lines

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "dual_fairseq", *map(str, words)]


def succeed(*words: object) -> str:
    done = run_command(command(*words), env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_time_of_an_update_grows_with_its_tokens(corpus):
    words = [
        *(corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, "--cpu"),
        *(*TINY["transformer"], "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--max-tokens", 200),
    ]
    source, target, one = succeed("plugin.check", *words).split()
    four = succeed("plugin.check", *words, "--update-freq", 4).split()[-1]
    assert int(source) > 2 and int(target) > 2 and 0 < float(one) < float(four)


@pytest.fixture(scope="module")
def dest(corpus, tmp_path_factory) -> Path:
    return preprocessed(corpus, tmp_path_factory.mktemp("pipeline") / "a $(touch pwned) b", "moses")


def digest(*files: Path) -> str:
    lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  -\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


# --- options.txt: half-finished runs of earlier versions are recognised by it

COMMON = """\
--task dual_translation
--source-lang xx
--target-lang yy
--arch transformer
--encoder-layers 2
--encoder-embed-dim 128
--encoder-attention-heads 4
--encoder-ffn-embed-dim 512
--decoder-layers 2
--decoder-embed-dim 128
--decoder-attention-heads 4
--decoder-ffn-embed-dim 512
--share-decoder-input-output-embed
--dropout 0.2
--criterion dual_cross_entropy
--label-smoothing 0.1
--optimizer adam
--adam-betas (0.9, 0.98)
--clip-norm 1.0
--weight-decay 0.0001
--lr-scheduler inverse_sqrt
--warmup-updates 50
--warmup-init-lr 1e-7
--max-tokens 1024
--required-batch-size-multiple 1
--seed 3
--eval-bleu
--eval-bleu-remove-bpe
--eval-bleu-args {"beam": 1}
--best-checkpoint-metric bleu
--maximize-best-checkpoint-metric
--eval-bleu-detok moses
"""
WARMUP = "--dual-lambda 0\n--lr 1e-3\n--max-epoch 100\n--patience 10\n--max-update 120\n--update-freq 2\n"
DUAL = (
    "--dual-lambda 0.050\n--dual-lambda-reverse 0.1\n--dual-gap-clip 5\n--lr 0.0005\n--max-epoch 50\n--patience 10\n"
    "--max-update none\n--update-freq 2\n"
)
TRAIN = (
    "--size tiny --max-tokens 1024 --lr-warmup 50 --warmup-max-update 120 --seed 3 --cpu --lr 1e-3 --dual-lambda 0.050 "
    "--dual-gap-clip 5 --dual-lambda-reverse=0.1 -- --update-freq 2"
)


def begun(folder: Path, text: str) -> None:
    """A training that an earlier version began."""
    folder.mkdir(parents=True)
    (folder / "options.txt").write_text(text)


def test_the_options_on_record_of_a_pair_stay_what_they_are(dest, tmp_path):
    begun(tmp_path / "warmup", COMMON + WARMUP)
    begun(tmp_path / "dual", COMMON + DUAL)
    training = train.Training(train.parse([str(dest), str(tmp_path), *shlex.split(TRAIN)]))
    files = [training.run.stage("warmup").best, *(training.run.language_model(lang).best for lang in (SOURCE, TARGET))]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.parent.name)
    dual = dest / "dual"
    sides = [dual / f"{split}.xx-yy.{lang}.idx" for split in ("train", "valid") for lang in (SOURCE, TARGET)]
    data = f"data {digest(dual / 'dict.xx.txt', dual / 'dict.yy.txt', *sides)}\n"
    assert "\n".join(training.warmup().identity()) + "\n" == data + COMMON + WARMUP
    start = f"start {digest(files[0])}\nlanguage models {digest(*files[1:])}\n"
    stage = training.dual()
    assert "\n".join(stage.identity()) + "\n" == data + start + COMMON + DUAL
    # the order of options on the command line was that of the record once
    stage.files.best.touch()
    stage.files.finished.touch()
    lines = (data + start + COMMON + DUAL).splitlines()
    lines[-8:-5] = ["--dual-lambda 0.050", "--dual-gap-clip 5", "--dual-lambda-reverse 0.1"]
    # and validation had a limit of its own
    index = lines.index('--eval-bleu-args {"beam": 1}')
    lines[index] = '--eval-bleu-args {"beam": 1, "max_len_a": 1.2, "max_len_b": 10}'
    stage.files.options_file.write_text("\n".join(lines) + "\n")
    assert not stage.begin(go_on=False)
    stage.files.options_file.write_text("\n".join(lines).replace("clip 5", "clip 4") + "\n")
    with pytest.raises(UserError, match=r"was: --dual-gap-clip 4, now: .*--dual-gap-clip 5"):
        stage.begin(go_on=False)


@pytest.mark.parametrize(
    ("options", "recorded"),
    [
        (
            "--size tiny --cell gru --arch rnn --running-text 64",
            "--task language_modeling_running_text --tokens-per-sample 64 --batch-size-valid 1 --arch rnn_lm "
            "--decoder-layers 1 --decoder-embed-dim 128 --share-decoder-input-output-embed --cell gru "
            "--decoder-hidden-size 256 --dropout 0.3 @ --lr 0.001 @ --max-update none",
        ),
        (
            "--max-update 7 -- --fp16-no-flatten-grads",
            "--task language_modeling --sample-break-mode eos --arch lstm_lm --decoder-layers 2 "
            "--decoder-embed-dim 256 --share-decoder-input-output-embed --decoder-out-embed-dim 256 "
            "--decoder-hidden-size 512 --dropout 0.3 @ --lr 0.001 @ --max-update 7 --fp16-no-flatten-grads",
        ),
        (
            "--size base --arch transformer --dropout .25",
            "--task language_modeling --sample-break-mode eos --arch transformer_lm --decoder-layers 6 "
            "--decoder-embed-dim 512 --share-decoder-input-output-embed --decoder-attention-heads 8 "
            "--decoder-ffn-embed-dim 2048 --dropout .25 @ --lr 0.0005 @ --max-update none",
        ),
    ],
)
def test_the_options_on_record_of_a_language_model_stay_what_they_are(options, recorded, dest, tmp_path):
    data = dest / "lm" / SOURCE
    head, rate, tail = recorded.split(" @ ")
    middle = "--criterion cross_entropy --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0"
    schedule = "--lr-scheduler inverse_sqrt --warmup-updates 400 --warmup-init-lr 1e-7 --max-tokens 4096 "
    schedule += "--required-batch-size-multiple 1 --max-epoch 50 --patience 4 --seed 1"
    expected = option_lines(shlex.split(" ".join([head, middle, rate, schedule, tail])))
    begun(tmp_path / "lm", "\n".join(expected))
    stage = train_lm.stage(train_lm.parse([str(data), str(tmp_path / "lm"), *shlex.split(options)]))
    files = [data / name for name in ("dict.txt", "train.idx", "valid.idx")]
    assert stage.identity() == [f"data {digest(*files)}", *expected]


def test_the_options_on_record_of_an_evaluation_stay_what_they_are(dest, trained_pair, lm_options):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    words = [str(dest), str(checkpoint), *map(str, lm_options), "--dual-inference", "--beam", "2"]
    options = evaluate.get_parser().parse_args(words)
    evaluation = evaluate.Evaluation(options, ["--max-len-b", "5"], Device(0, 1))
    texts = [dest / "raw" / f"{split}.{lang}" for split in ("test", "valid") for lang in (SOURCE, TARGET)]
    dictionaries = [dest / "dual" / f"dict.{language}.txt" for language in (SOURCE, TARGET)]
    assert evaluation.identity() == (
        f"checkpoint {digest(checkpoint)}\ndata {digest(*dictionaries, *texts)}\n"
        f"language models {digest(*lm_options[1::2])}\n--beam 2\n--lenpen 1\n--max-len-b 5\n--sacrebleu-tokenize \n"
        "--dual-inference valid\n"
    )


def test_the_limit_of_length_and_the_tokenizer_of_bleu_are_those_of_validation_and_evaluation(dest, tmp_path):
    words = [str(dest), str(tmp_path), "--cpu", "--max-len-a", "2", "--max-len-b", "9", "--sacrebleu-tokenize", "intl"]
    training = train.Training(train.parse(words))
    validation = training.validation_options()
    assert validation[validation.index("--eval-bleu-args") + 1] == '{"beam": 1, "max_len_a": 2, "max_len_b": 9}'
    assert validation[-2:] == ["--sacrebleu-tokenize", "intl"]
    typed = ["--valid-beam", "05", "--max-len-a", ".5", "--max-len-b", "09"]
    validation = train.Training(train.parse([*words[:3], *typed])).validation_options()
    assert validation[validation.index("--eval-bleu-args") + 1] == '{"beam": 5, "max_len_a": 0.5, "max_len_b": 9}'
    evaluation = training.evaluation("warmup", expected=True)
    assert evaluation.search == ["--beam", "5", "--lenpen", "1", "--max-len-a", "2", "--max-len-b", "9"]
    assert " --sacrebleu-tokenize intl" in " ".join(evaluation.scoring(tmp_path))
    for wrong, message in (
        (["--max-len-a", "2"], "give both --max-len-a and --max-len-b, or neither"),
        (["--sacrebleu-tokenize", "moses"], "--sacrebleu-tokenize moses: choose one of 13a"),
    ):
        with pytest.raises(UserError, match=message):
            train.Training(train.parse([str(dest), str(tmp_path), "--cpu", *wrong]))


def test_words_that_others_have_made_are_scored_as_they_are_everywhere(dest, tmp_path):
    segmented = tmp_path / "segmented"
    segmented.mkdir()
    for name in ("dual", "lm", "raw"):
        (segmented / name).symlink_to(dest / name)
    record = json.loads((dest / "preprocess.json").read_text())
    (segmented / "preprocess.json").write_text(json.dumps({**record, "tokenizer": "none"}))
    training = train.Training(train.parse([str(segmented), str(tmp_path / "run"), "--cpu"]))
    for stage in (training.run.stage("warmup"), *map(training.run.language_model, (SOURCE, TARGET))):
        stage.folder.mkdir(parents=True)
        stage.best.touch()
    assert "--eval-tokenized-bleu" in training.validation_options()
    evaluation = training.evaluation("warmup", expected=True)
    assert "\n--sacrebleu-tokenize none\n" in evaluation.identity()
    for command, _ in evaluation.tuning(tmp_path):
        assert command[-2:] == ["--sacrebleu-tokenize", "none"]
    # of one side alone
    ways = {"tokenizer": {SOURCE: "moses", TARGET: "none"}, "subword": {SOURCE: "bpe", TARGET: "word"}}
    bpe = {SOURCE: {"type": "subword-nmt"}, TARGET: {"type": "word"}}
    (segmented / "preprocess.json").write_text(json.dumps({**record, **ways, "bpe": bpe}))
    training = train.Training(train.parse([str(segmented), str(tmp_path / "run"), "--cpu"]))
    words = training.validation_options()
    assert "--eval-bleu-remove-bpe" in words and "--eval-tokenized-bleu" not in words
    own = {"eval_bleu_remove_bpe": None, "eval_bleu_detok": "space", "eval_tokenized_bleu": True}
    assert json.loads(words[words.index("--eval-bleu-by-language") + 1]) == {TARGET: own}
    evaluation = training.evaluation("warmup", expected=True)
    assert f"\n--sacrebleu-tokenize none for {TARGET}\n" in evaluation.identity()
    undone = {part.name: part.command[part.command.index("--post-process") + 1] for part in evaluation.steps()
              if "--post-process" in part.command}  # fmt: skip
    into_source = f"{TARGET}-{SOURCE}"
    assert undone == dict.fromkeys((f"{into_source}.generate.txt", f"tuning/{into_source}/generate.txt"), "subword_nmt")


# --- dry runs

TINY_LM = "--size tiny --max-tokens 300 --lr-warmup 5 --cpu --max-epoch 2"


def by_hand(text: str, folder: Path) -> None:
    script = folder / "commands.sh"
    script.write_text(f"set -e\n{text}")
    done = subprocess.run(["bash", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=1200, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_dry_run_s_command_trains_the_same_language_model(dest, tmp_path):
    data = dest / "lm" / SOURCE
    shown = succeed("train-lm", data, tmp_path / "it's", *TINY_LM.split(), "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert shown.count("fairseq-train") == 1
    by_hand(shown, tmp_path)
    succeed("train-lm", data, tmp_path / "done", *TINY_LM.split())
    assert parameter_difference(tmp_path / "it's", tmp_path / "done") == 0


SMALL = (
    "--cpu --control --lm-size tiny --lm-max-epoch 1 --lm-max-tokens 300 --lm-lr-warmup 5 --size tiny --max-tokens 300 "
    "--warmup-max-epoch 2 --dual-max-epoch 1 --lr-warmup 5 --beam 2"
)


def test_a_dry_run_shows_every_command_and_does_nothing(dest, tmp_path):
    shown = succeed("train", dest, tmp_path / "run", *SMALL.split(), "--dry-run")
    assert list(tmp_path.iterdir()) == []
    words = shlex.split(shown, comments=True)
    assert {name: words.count(name) for name in ("fairseq-train", "fairseq-validate", "fairseq-generate")} == {
        "fairseq-train": 5, "fairseq-validate": 3, "fairseq-generate": 12,
    }  # fmt: skip
    assert f"updates {tmp_path}/run/dual/checkpoint_last.pt" in shown
    assert subprocess.run(["bash", "-n"], input=shown, text=True).returncode == 0


@pytest.mark.slow
def test_a_dry_run_s_commands_train_and_evaluate_the_same(dest, tmp_path):
    by_hand(succeed("train", dest, tmp_path / "run", *SMALL.split(), "--dry-run"), tmp_path)
    succeed("train", dest, tmp_path / "done", *SMALL.split())
    for stage in (f"lm/{SOURCE}", f"lm/{TARGET}", "warmup", "dual", "mle"):
        assert parameter_difference(tmp_path / "run" / stage, tmp_path / "done" / stage) == 0, stage
    for stage in ("warmup", "dual", "mle"):
        scores = [json.loads((tmp_path / run / stage / "eval/test/scores.json").read_text()) for run in ("run", "done")]
        for of_run in scores:
            del of_run["checkpoint_sha256"]  # a checkpoint names its folder
        assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_dry_run_of_an_evaluation(dest, trained_pair, tmp_path):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    shown = succeed("evaluate", dest, checkpoint, "--cpu", "-o", tmp_path / "out", "--beam", 1, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    by_hand(shown, tmp_path)
    assert (tmp_path / "out" / "scores.json").is_file()
    assert not list(Path(tmp_path).glob("**/pwned"))


# --- options from a file


def parsed(folder: Path, text: str, *words: str):
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return train.parse(["DEST", "RUN", "--config", str(folder / "run.toml"), *words])


FILE = """\
size = "tiny"
lr = 1e-3
dual-lambda = 0.010
max-tokens = 1024
control = true
eval = false
dual-inference = true
fairseq-train = ["--update-freq", "4"]
"""


def test_options_come_from_a_file_as_they_are_written_and_the_command_line_wins(tmp_path):
    options = parsed(tmp_path, FILE)
    assert (options.size, options.lr, options.dual_lambda, options.max_tokens) == ("tiny", "1e-3", "0.010", "1024")
    assert (options.control, options.eval, options.dual_inference) == (True, False, True)
    assert options.extra == ["--update-freq", "4"]
    options = parsed(tmp_path, FILE, "--lr=.5", "--no-control", "--eval", "--", "--fp16")
    assert (options.lr, options.control, options.eval) == (".5", False, True)
    assert options.extra == ["--update-freq", "4", "--fp16"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dual-lamda = 1", "run.toml: unknown option dual-lamda; did you mean dual-lambda?"),
        ("lr = [", "run.toml: is not TOML"),
        ("lr = true", "run.toml: lr: give a number or a string"),
        ("lr = [0.1]", "run.toml: lr: give a number or a string"),
        ("control = 1", "run.toml: control: give true or false"),
        ("max-tokens = 0", "run.toml: --max-tokens: takes a whole number above 0, not '0'"),
        ('size = "huge"', "run.toml: --size: invalid choice: 'huge'"),
        ("fairseq-train = [4]", "run.toml: fairseq-train: give a list of strings"),
        ("[train]\nlr = 1", "run.toml: unknown option train"),
    ],
)
def test_a_mistake_in_a_file_of_options_is_one_line_that_names_it(text, message, tmp_path):
    with pytest.raises(UserError) as refusal:
        parsed(tmp_path, text)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_of_options_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"--config /no/run.toml: No such file"):
        train.parse(["DEST", "RUN", "--config", "/no/run.toml"])


def test_a_run_keeps_all_its_options_for_another(dest, tmp_path):
    words = [
        str(dest),
        str(tmp_path / "run"),
        *shlex.split(TRAIN.replace("--cpu", "--cpu --lm-arch rnn --split valid")),
    ]
    first = train.parse(words)
    training = train.Training(first)
    training.run.folder.mkdir()
    training.keep_options(training.run.folder)
    kept = tmp_path / "run" / "train.toml"
    content = tomllib.loads(kept.read_text(), parse_float=str)
    assert (content["lr"], content["dual-lr"], content["lm-lr"], content["patience"]) == ("1e-3", "0.0005", "0.003", 10)
    assert "config" not in content and "continue" not in content
    again = train.parse([str(dest), str(tmp_path / "run"), "--config", str(kept)])
    second = train.Training(again)
    assert second.warmup().identity() == training.warmup().identity()
    for language in (SOURCE, TARGET):
        ours, theirs = (vars(of.language_model(language)) for of in (second, training))
        assert ours | {"chosen": None} == theirs | {"chosen": None}
    ours = {key: value for key, value in vars(again).items() if key != "config" and not key.startswith("lm_")}
    assert ours == {key: vars(first)[key] for key in ours}


def test_a_round_that_has_begun_is_known_before_it_is_trained_on(dest, tmp_path):
    """What is looked at before any training is what the round's own command compares with its record."""
    run = RunFolder(tmp_path / "run")
    lms = [run.language_model(language).best for language in (SOURCE, TARGET)]
    for file in (run.stage("warmup").best, *lms):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    (run.folder / "rounds" / "1").mkdir(parents=True)
    (run.folder / "rounds" / "1" / "data").symlink_to(dest)
    given = ["--rounds=1", "--round-text=pairs", f"--src-lm={lms[0]}", f"--tgt-lm={lms[1]}", "--split=valid"]
    given += shlex.split(TRAIN)

    def training(words: list[str]) -> train.Training:
        return train.Training(train.parse([str(dest), str(run.folder), *words]))

    first = training(given)
    first.keep_options(run.folder / "rounds")
    start = run.stage("warmup").best
    *_, (_, command) = Round(first.rounds.plan, run, first.lms, 1, start, []).steps()
    nested = train.Training(train.parse(command()[4:]))
    stage = nested.run.stage("dual")
    stage.folder.mkdir()
    stage.options_file.write_text("".join(f"{line}\n" for line in nested.dual().identity()))
    again = round_stage(training(given), 1, known=True)
    assert (again.files, again.identity()) == (stage, nested.dual().identity())
    other = round_stage(training(["--dual-lambda=0.5", *given]), 1, known=True)
    assert other.identity() == again.identity()  # the later of two values counts
    other = round_stage(training([word.replace("0.050", "0.5") for word in given]), 1, known=True)
    assert (
        changes(again.identity(), other.identity(), other.typed) == "was: --dual-lambda 0.050, now: --dual-lambda 0.5"
    )


# --- signals


def processes_of(mark: str) -> list[str]:
    """The command lines of all processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if line]


def stopped(words: list[object], text: str | None, sent: signal.Signals, folder: Path) -> tuple[int, str, str]:
    """Run a command until it has printed ``text`` and a process of its own runs, send a signal, see what is left."""
    mark = folder.name
    process = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, "MARK": mark}
    )
    for line in process.stdout if text else ():
        if text in line:
            break
    for _ in range(600):
        if len(processes_of(mark)) > 1:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(processes_of(mark)) > 1
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert processes_of(mark) == []
    return process.returncode, errors.strip().splitlines()[-1], errors


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_demo_leaves_no_process_behind(sent, tmp_path):
    code, last, errors = stopped(["demo", tmp_path / "demo"], "=== 1/4", sent, tmp_path)
    assert (code, last) == (
        128 + sent,
        f"dual-fairseq demo: stopped by {sent.name}; the same command continues",
    )
    assert "Traceback" not in errors


def test_training_leaves_no_process_behind(dest, tmp_path):
    words = ["train", dest, tmp_path / "run", *SMALL.split(), "--lm-max-epoch", 10**6]
    code, last, errors = stopped(words, "epoch   1", signal.SIGTERM, tmp_path)
    assert (code, last) == (143, "dual-fairseq train: stopped by SIGTERM; the same command continues")
    assert "Traceback" not in errors


def test_preprocessing_leaves_no_process_behind(tmp_path):
    for language, number in ((SOURCE, 40_000), (TARGET, 40_000)):
        (tmp_path / f"train.{language}").write_text("A line of some words, which takes a while.\n" * number)
    prefixes = ["--train", tmp_path / "train", "--valid", tmp_path / "train"]
    words = ["preprocess", "-s", SOURCE, "-t", TARGET, *prefixes, "--dest", tmp_path / "data", "--workers", 2]
    code, last, errors = stopped(words, None, signal.SIGTERM, tmp_path)
    assert (code, last) == (143, "dual-fairseq preprocess: stopped by SIGTERM; the same command continues")
    assert "Traceback" not in errors


def test_an_evaluation_leaves_no_process_behind(dest, trained_pair, tmp_path):
    words = ["evaluate", dest, trained_pair[0], "--cpu", "-o", tmp_path / "out"]
    code, last, _ = stopped(words, "Measuring", signal.SIGTERM, tmp_path)
    assert (code, last) == (143, "dual-fairseq evaluate: stopped by SIGTERM; the same command continues")


def test_whoever_calls_a_command_keeps_handlers_of_their_own():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(UserError):
        main(["train", "--no-such-option"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
