"""The pipeline's commands and scripts: options, refusals, stopping, and a whole run with interruptions."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, SOURCE, TARGET, TINY, preprocessed, run_command

from dual_fairseq.__main__ import COMMANDS, main
from dual_fairseq.common.arguments import Parser

SCRIPTS = ROOT / "scripts"
TINY_LM = shlex.split("--size tiny --max-tokens 300 --lr-warmup 5 --cpu --max-epoch")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}


def command_line(name: str, *args: object) -> list[str]:
    """One of ``scripts/``, or a command of dual-fairseq."""
    program = [str(SCRIPTS / name)] if name.endswith(".sh") else [sys.executable, "-m", "dual_fairseq", name]
    return [*program, *map(str, args)]


def script(name: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = command_line(name, *args)
    return run_command(command, env=ENVIRONMENT, cwd=cwd)


def succeed(name: str, *args: object) -> str:
    done = script(name, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode not in (0, None)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def dest(corpus, tmp_path_factory) -> Path:
    """What dual-fairseq preprocess leaves, under a name that asks for careful quoting."""
    folder = tmp_path_factory.mktemp("scripts") / "a $(touch pwned) b"
    return preprocessed(corpus, folder, "moses")


WITHOUT_NUMPY = {"preprocess", "corpus", *(name for name in COMMANDS if COMMANDS[name].module.startswith("pipeline."))}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_and_loads_no_torch(name, monkeypatch):
    """That is what makes it quick."""
    code = "import sys, dual_fairseq.__main__ as m\n"
    code = f"import sys; sys.argv[0] = 'dual-fairseq'\n{code}"
    code += "try: m.main()\nexcept SystemExit: pass\nprint('loaded', *{'torch', 'fairseq', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, name, "--help"], capture_output=True, text=True, env=ENVIRONMENT)
    text, _, loaded = done.stdout.rpartition("loaded")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(loaded.split()) <= (set() if name in WITHOUT_NUMPY else {"numpy"})
    assert re.match(rf"usage: dual-fairseq {name} (?!\[-h\])[^\n]*\[options\]", text)
    assert "``" not in text, "markup is for readers of the code"
    parsers = []
    monkeypatch.setattr(Parser, "print_help", lambda self: parsers.append(self))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert all(action.help or action.dest.startswith("lm_") for action in parsers[0]._actions)
    known = {option for action in parsers[0]._actions for option in action.option_strings}
    assert known <= set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train_lm.sh", "the following arguments are required: DATA, SAVE_DIR"),
        ("train-lm {dest} {out}", "dict.txt not found: give a language's folder"),
        (
            "train-lm {dest}/lm/xx {out} --size huge",
            "--size: invalid choice: 'huge' (choose from 'tiny', 'small', 'base')",
        ),
        (
            "train-lm {dest}/lm/xx {out} --arch cnn",
            "--arch: invalid choice: 'cnn' (choose from 'lstm', 'rnn', 'transformer')",
        ),
        (
            "train-lm {dest}/lm/xx {out} --arch rnn --cell qrnn",
            "--cell: invalid choice: 'qrnn' (choose from 'rnn', 'gru', 'lstm')",
        ),
        ("train-lm {dest}/lm/xx {out} --cell gru", "--cell gru is for --arch rnn, not lstm"),
        ("train-lm {dest}/lm/xx {out} --running-text 64", "--running-text 64 is for --arch rnn, not lstm"),
        ("train-lm {dest}/lm/xx {out} --arch rnn --running-text 0", "--running-text: takes a whole number above 0"),
        (
            "train-lm {dest}/lm/xx {out} --arch rnn --max-tokens 32 --running-text 64",
            "--running-text 64: needs --max-tokens of at least as many, not 32",
        ),
        ("train-lm {dest}/lm/xx {out} --max-epoch 0", "--max-epoch: takes a whole number above 0, not '0'"),
        ("train-lm {dest}/lm/xx {out} --lr", "--lr: expected one argument"),
        ("train-lm {dest}/lm/xx {out} --fp16", "unknown option --fp16; options of fairseq-train go after --"),
        ("train-lm {dest}/lm/xx {out} --cpu -- --fp16", "--fp16 needs a GPU"),
        ("train-lm {dest}/lm/xx /proc/none --cpu", "cannot write to /proc/none"),
        ("train {dest} {out} --dual-lamda 1", "unknown option --dual-lamda; did you mean --dual-lambda?"),
        ("train {dest} {out} more", "more: one argument too many"),
        ("train_dual.sh {dest}", "the following arguments are required: RUN"),
        (
            "train /nowhere {out}",
            "/nowhere/preprocess.json: No such file or directory; give the folder that dual-fairseq preprocess",
        ),
        ("train {dest} {out} --src-lm /no/lm.pt", "/no/lm.pt: there is no such language model"),
        ("train {dest} {out} --init-src2tgt {dest}/preprocess.json", "give both --init-src2tgt and"),
        (
            "train {dest} {out} --warmup-only --control",
            "--warmup-only: trains no later stages; leave out --control",
        ),
        ("train {dest} {out} --lm-cell gru", "--lm-cell gru is for --lm-arch rnn: give that too"),
        ("train {dest} {out} --dual-lambda nan", "--dual-lambda: takes a number that is 0 or more, not 'nan'"),
        ("train {dest} {out} --dual-lambda -1", "--dual-lambda: takes a number that is 0 or more, not '-1'"),
        ("train {dest} {out} --dual-gap-clip x", "--dual-gap-clip: takes a number"),
        ("train {dest} {out} --dual-start-update 0.5", "--dual-start-update: takes a whole number"),
        ("train {dest} {out} --arch lstm --size tiny", "--size is for --arch transformer"),
        ("evaluate {dest} /no/pair.pt", "/no/pair.pt: there is no such folder or checkpoint"),
        ("evaluate {dest} {dest}/preprocess.json --split ../x", "--split: takes a name such as test, not '../x'"),
        ("evaluate {dest} {dest}/preprocess.json --split dev", "has no split 'dev' of xx-yy"),
        ("evaluate {dest} {dest}/preprocess.json", "preprocess.json is not a checkpoint, or was cut short"),
        (
            "synthesize {dest} {out}",
            "the following arguments are required: OUT",
        ),
        ("synthesize {dest} /no/pair.pt {out}/a", "/no/pair.pt: there is no such folder or checkpoint"),
        ("synthesize {dest} {dest}/preprocess.json {out}/a --src-lm x", "x: there is no such language model"),
        (
            "synthesize {dest} {dest}/preprocess.json {out}/a",
            "raw/mono.xx not found: run dual-fairseq preprocess with --extra-",
        ),
        ("synthesize {dest} {dest}/preprocess.json {out}/a --lines 0", "--lines: takes a whole number above 0"),
        ("evaluate {dest} {dest}/preprocess.json --dual-inference", "needs the language models, which are not in"),
        ("evaluate {dest} {dest}/preprocess.json --src-lm x", "give both --src-lm and --tgt-lm, or neither"),
    ],
)
def test_bad_options_are_refused_in_one_line(command, message, dest, tmp_path):
    name, *args = command.split()
    line = refused(script(name, *(arg.format(dest=dest, out=tmp_path / "out") for arg in args)))
    assert line.startswith("dual_fairseq: error: ")
    assert message in line
    assert not list((tmp_path / "out").glob("*.pt"))


@pytest.mark.parametrize(
    "record", ["{", "{}", '{"source": "a/b", "target": "c", "tokenizer": "moses", "subword": "bpe"}']
)
def test_a_damaged_record_is_refused(record, tmp_path):
    (tmp_path / "preprocess.json").write_text(record)
    assert "preprocess.json: is damaged" in refused(script("train", tmp_path, tmp_path / "run"))


def test_an_arch_that_fits_no_pair_is_refused_in_one_line(dest, language_models, tmp_path):
    lms = ("--src-lm", language_models[SOURCE], "--tgt-lm", language_models[TARGET])
    done = script("train", dest, tmp_path / "run", "--cpu", *lms, "--arch", "lstm_lm")
    assert "lstm_lm: is not an encoder–decoder" in refused(done)


def test_a_language_model_of_the_other_language_is_refused_before_the_warm_start(dest, language_models, tmp_path):
    lms = ("--src-lm", language_models[TARGET], "--tgt-lm", language_models[SOURCE])
    line = refused(script("train", dest, tmp_path / "run", "--cpu", *lms))
    assert f"--src-lm {language_models[TARGET]}: " in line
    assert not (tmp_path / "run" / "warmup").exists()


def test_a_language_model_is_trained_once_and_repaired_when_torn(dest, tmp_path):
    data, save = dest / "lm" / SOURCE, tmp_path / "a model"
    out = succeed("train-lm", data, save, *TINY_LM, 2)
    assert "epoch   2  valid: perplexity" in out
    best = torch.load(save / "checkpoint_best.pt", weights_only=False)
    record = json.loads((save / "perplexity.json").read_text())
    assert record["perplexity"] == pytest.approx(2 ** best["extra_state"]["val_loss"])
    assert 1 < record["perplexity"] < 60 and f"perplexity {record['perplexity']:.2f} per token" in out.splitlines()[-1]
    assert best["cfg"]["task"]["sample_break_mode"] == "eos"
    assert (save / "dict.txt").read_bytes() == (data / "dict.txt").read_bytes()
    assert sorted(path.name for path in save.glob("*.pt")) == ["checkpoint_best.pt", "checkpoint_last.pt"]

    log = (save / "train.log").read_bytes()
    assert "finished before" in succeed("train-lm", data, save, *TINY_LM, 2)
    assert (save / "train.log").read_bytes() == log

    assert "was: --max-epoch 2, now: --max-epoch 1" in refused(script("train-lm", data, save, *TINY_LM, 1))
    last = save / "checkpoint_last.pt"
    last.write_bytes(last.read_bytes()[:2000])  # as a kill leaves it while fairseq copies the best over it
    out = succeed("train-lm", data, save, *TINY_LM, 3)  # a higher limit is no other training
    assert f"continuing after update {record['num_updates']}" in out and "epoch   3  valid" in out
    assert "  stopped by --max-epoch 3" in out
    assert not list(Path.cwd().glob("pwned"))


def test_a_checkpoint_is_evaluated_once_in_both_directions(dest, trained_pair, language_models, lm_options, tmp_path):
    checkpoint, out = trained_pair[0] / "checkpoint_best.pt", tmp_path / "out"
    options = ("--split", "valid", "--output", out, "--beam", 2, "--cpu", *lm_options)
    succeed("evaluate", dest, checkpoint, *options)
    scores = json.loads((out / "scores.json").read_text())
    valid = trained_pair[1].logged("valid")
    record = max(reversed(valid), key=lambda r: r["valid_bleu"])  # of equal ones fairseq keeps the last
    for direction in (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"):
        assert (scores[direction]["sentences"], scores[direction]["untranslated"]) == (24, 0)
        assert len((out / f"{direction}.hyp.txt").read_text().splitlines()) == 24
        assert scores[direction]["nll_bits_per_token"] == pytest.approx(
            record[f"valid_nll_loss_{direction}"], abs=0.002
        )
    assert scores["gap_abs"] > 0
    assert "Evaluated before" in succeed("evaluate", dest, checkpoint, *options)
    # without options the run's own language models are taken
    for language, model in language_models.items():
        (tmp_path / "run/lm" / language).mkdir(parents=True)
        (tmp_path / "run/lm" / language / "checkpoint_best.pt").symlink_to(model)
    (tmp_path / "run/mle").mkdir()
    shutil.copy(checkpoint, tmp_path / "run/mle")
    succeed("evaluate", dest, tmp_path / "run", *options[: -len(lm_options)])
    assert json.loads((out / "scores.json").read_text())["gap_abs"] == scores["gap_abs"]
    torn = tmp_path / "torn.pt"
    torn.write_bytes(checkpoint.read_bytes()[:-100])
    assert "torn.pt is not a checkpoint, or was cut short" in refused(script("evaluate", dest, torn, *options))
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.suffix in (".txt", ".json")}
    message = refused(script("evaluate", dest, checkpoint, *options, "--", "--max-len-b", "many"))
    assert "invalid int value: 'many'" in message
    assert {path: path.read_bytes() for path in before} == before, "a failed evaluation leaves the old one as it is"


def run_until(command: list[str], text: str | None, sent: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Run a command, and send it a signal as soon as it prints a line with ``text``."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    output = ""
    for line in process.stdout:
        output += line
        if text is not None and text in line:
            process.send_signal(sent)
            text = None
    return process.wait(timeout=600), output


def updates(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=False)["optimizer_history"][-1]["num_updates"]


@pytest.mark.slow
def test_a_whole_run_stopped_in_every_stage_reaches_its_end(dest, tmp_path):
    """Language models, warm start, dual training, control and evaluation; each stage is done once."""
    run = tmp_path / "the run"
    command = [
        *(str(SCRIPTS / "train_dual.sh"), str(dest), str(run), "--cpu", "--control", "--dual-lambda", "0.02"),
        *shlex.split("--lm-size tiny --lm-max-epoch 2 --lm-max-tokens 300 --lm-lr-warmup 5"),
        *shlex.split("--max-tokens 300 --warmup-max-epoch 3 --dual-max-epoch 2 --lr-warmup 5 --patience 3 --"),
        *TINY["transformer"][2:],
    ]
    last_line = "dual-fairseq train: stopped by SIGTERM; the same command continues\n"
    for text in (
        "epoch   1  train",
        f"lm/{TARGET}",
        "epoch   1  train",
        "Dual training, λ",
        "epoch   1  valid",
        "Control",
    ):
        code, output = run_until(command, text)
        assert code == 128 + signal.SIGTERM and output.endswith(last_line), output
    code, output = run_until(command, None)
    assert code == 0, output
    for done in ("Warm start by maximum likelihood: finished before", "Dual training, λ = 0.02: finished before"):
        assert done in output

    for stage in ("warmup", "dual", "mle"):
        assert (run / stage / "checkpoint_best.pt").is_file()
        scores = json.loads((run / stage / "eval" / "test" / "scores.json").read_text())
        for direction in (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"):
            assert (scores[direction]["sentences"], scores[direction]["untranslated"]) == (16, 0)
            assert 0 < scores[direction]["nll_bits_per_token"] < 8
            language = direction.split("-")[1]
            reference = (run / stage / "eval" / "test" / f"{direction}.ref.txt").read_text()
            assert reference == (dest / "raw" / f"test.{language}").read_text()
        assert math.isfinite(scores["gap_abs"])
    assert updates(run / "mle" / "checkpoint_last.pt") == updates(run / "dual" / "checkpoint_last.pt") > 0
    table = output[output.rindex("direction  system") :].splitlines()
    assert [" ".join(line.split()[:2]) for line in table[1:7]] == [
        f"{direction} {system}" for direction in ("xx-yy", "yy-xx") for system in ("warm", "MLE", "dual")
    ]

    logs = {path: path.read_bytes() for path in run.glob("*/train.log")}
    code, output = run_until(command, None)
    assert code == 0 and output.count("Evaluated before") == 3, output
    assert {path: path.read_bytes() for path in run.glob("*/train.log")} == logs
    assert not list(Path.cwd().glob("pwned"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--arch rnn_search", "--arch rnn_search: there is no such arch; did you mean rnnsearch"),
        ("--arch rnnsearch_small -- --attention location", "--attention location: is not one of none, dot"),
        ("-- --no-such-option", "unrecognized arguments: --no-such-option"),
        ("-- --src-embed-path /no/vectors", "--src-embed-path /no/vectors: there is no such file"),
        ("--max-tokens 10", "--max-tokens 10: the longest sentence (number "),
        ("--lm-max-tokens 10", "--lm-max-tokens 10: the longest validation sentence of "),
        ("-- --best-checkpoint-metric blue", "--best-checkpoint-metric blue: is not logged; give one of bleu, "),
    ],
)
def test_what_is_wrong_with_the_pair_is_said_before_language_models_are_trained(options, message, dest, tmp_path):
    done = script("train", dest, tmp_path / "run", "--cpu", *options.split())
    assert done.returncode != 0
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "lm").exists()
