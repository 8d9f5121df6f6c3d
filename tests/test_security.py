"""A stranger's checkpoint runs no code, whatever reads it; names of files are names and never commands."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PLUGIN, ROOT, SOURCE, TARGET, TINY, preprocessed
from fairseq_cli import generate, interactive, train, validate

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError

SCRIPTS = ROOT / "scripts"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(PLUGIN.parent),
}


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


# --- every way in


PAIR = ("--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, "--cpu")
TRAIN = (*PAIR, *TINY["transformer"], "--criterion", "dual_cross_entropy", "--max-tokens", 300, "--dual-lambda", 0)
# what reads a checkpoint: a main function of fairseq or a command of ours, and its arguments
ENTRIES: dict[str, tuple[object, tuple[object, ...]]] = {
    "src-lm": (train, ("{data}", *TRAIN, "--dual-lambda", 0.1, "--src-lm", "{bad}", "--tgt-lm", "{lm}")),
    "tgt-lm": (train, ("{data}", *TRAIN, "--dual-lambda", 0.1, "--src-lm", "{lm}", "--tgt-lm", "{bad}")),
    "init-src2tgt": (train, ("{data}", *TRAIN, "--init-src2tgt", "{bad}")),
    "init-tgt2src": (train, ("{data}", *TRAIN, "--init-tgt2src", "{bad}")),
    "resume": (train, ("{data}", *TRAIN, "--save-dir", "{resumed}")),
    "restore-file": (train, ("{data}", *TRAIN, "--restore-file", "{bad}")),
    "finetune-from-model": (train, ("{data}", *TRAIN, "--finetune-from-model", "{bad}")),
    "generate": (generate, ("{data}", *PAIR, "--path", "{bad}")),
    "interactive": (interactive, ("{data}", *PAIR, "--path", "{bad}")),
    "validate": (validate, ("{data}", *PAIR, "--batch-size", 8, "--path", "{bad}")),
    "generate-dual-inference": (
        generate,
        ("{data}", *PAIR, "--path", "{pair}", "--dual-inference-alpha", 0.5, "--src-lm", "{bad}", "--tgt-lm", "{lm}"),
    ),
    "translate": ("translate", ("{bad}", "-t", TARGET, "--cpu", "--input", "{text}")),
    "score": ("score", ("{bad}", "--split", "valid", "--data", "{data}", "--no-lm")),
    "export": ("export", ("{bad}", "--direction", f"{SOURCE}-{TARGET}", "-o", "{out}")),
    "import-src2tgt": ("import", ("--src2tgt", "{bad}", "--tgt2src", "{bad}", "--data", "{data}", "-o", "{out}")),
    "average": ("average", ("--inputs", "{bad}", "{bad}", "--output", "{out}")),
}


def checkpoint_of(kind: str, path: Path, marker: Path, pair: Path) -> None:
    if kind == "pickle":  # as torch wrote files long ago
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    elif kind == "archive":
        torch.save({"model": Hostile(marker)}, path)
    elif kind == "in_a_good_one":  # a whole checkpoint of a pair, with something more in it
        state = torch.load(pair)
        state["extra_state"]["more"] = Hostile(marker)
        torch.save(state, path)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("pickle", marks=pytest.mark.slow), pytest.param("archive", marks=pytest.mark.slow), "in_a_good_one"],
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_hostile_checkpoint_runs_nothing_and_is_refused_by_name(
    corpus, trained_pair, language_models, tmp_path, monkeypatch, entry, kind
):
    pair = trained_pair[0] / "checkpoint_best.pt"
    marker, bad, resumed = tmp_path / "ran", tmp_path / "bad.pt", tmp_path / "resumed"
    checkpoint_of(kind, bad, marker, pair)
    resumed.mkdir()
    shutil.copy(bad, resumed / "checkpoint_last.pt")
    (tmp_path / "text").write_text("s1 s2\n")
    places = {
        "data": corpus / "dual", "bad": bad, "resumed": resumed, "lm": language_models[SOURCE], "pair": pair,
        "text": tmp_path / "text", "out": tmp_path / "out.pt",
    }  # fmt: skip
    if entry == "tgt-lm":
        places["lm"] = language_models[SOURCE]
    elif entry in ("src-lm", "generate-dual-inference"):
        places["lm"] = language_models[TARGET]
    program, arguments = ENTRIES[entry]
    argv = [str(argument).format(**places) for argument in arguments]
    if program is train and entry != "resume":
        argv += ["--save-dir", str(tmp_path / "save")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        if isinstance(program, str):
            main([program, *argv])
        else:
            monkeypatch.setattr(sys, "argv", [entry, *argv])
            program.cli_main()
    message = str(caught.value)
    assert not marker.exists(), "it ran"
    assert "\n" not in message and "a file that could run code is not loaded" in message
    assert str(resumed / "checkpoint_last.pt" if entry == "resume" else bad) in message
    assert kind == "pickle" or f"asks for {os.mkdir.__module__}.mkdir" in message
    assert not (tmp_path / "out.pt").exists()

    with contextlib.suppress(RuntimeError):  # of a bare pickle torch finds out afterwards that it is no checkpoint
        torch.load(bad, weights_only=False)
    assert marker.is_dir(), "the test's own checkpoint is harmless"


def test_only_plain_records_may_be_unpickled():
    """What the plugin adds to PyTorch's own list: neither of them does anything with what a file says."""
    added = [item for item in torch.serialization.get_safe_globals() if not item.__module__.startswith("torch.")]
    allowed = {item.__name__ for item in added}
    assert allowed <= {"Namespace", "ndarray", "dtype", "Int64DType", "Float64DType", "_reconstruct", "scalar"}


def test_nothing_turns_weights_only_off():
    sources = [*PLUGIN.rglob("*.py"), *SCRIPTS.rglob("*.sh"), *SCRIPTS.rglob("*.py")]
    assert len(sources) > 30
    for path in sources:
        text = path.read_text()
        assert not re.search(r"weights_only\"?\s*[=:]\s*False", text), path
        assert not re.search(r"\b(pickle|marshal|dill|joblib)\.loads?\(", text), path
        assert "allow_pickle=True" not in text, path


# --- scripts

EVALUATE = [sys.executable, "-m", "dual_fairseq", "evaluate"]


def test_scripts_evaluate_no_text_and_make_no_names_that_can_be_guessed():
    scripts = [*SCRIPTS.rglob("*.sh")]
    assert len(scripts) > 3
    for path in scripts:
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert not re.search(r"(^|[;&|(]|\b(then|do|else)\b)\s*eval\s", code, re.MULTILINE), path
        assert not re.search(r"/tmp\b|\$\$", code), path


@pytest.mark.slow
def test_evaluate_refuses_a_hostile_checkpoint_in_one_line(corpus, trained_pair, tmp_path):
    preprocessed(corpus, tmp_path / "data", "none")
    bad = tmp_path / "bad.pt"
    checkpoint_of("in_a_good_one", bad, tmp_path / "ran", trained_pair[0] / "checkpoint_best.pt")
    command = [*EVALUATE, str(tmp_path / "data"), str(bad), "--cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
    (line,) = done.stderr.strip().splitlines()
    assert (
        line.startswith(f"dual_fairseq: error: --path {bad}: ") and "a file that could run code is not loaded" in line
    )
    assert not (tmp_path / "out" / "scores.json").exists()


ODD_NAMES = ["-a 'quote', \"two\"; touch pwned; * ? [a] $(touch pwned)", "`touch pwned` & \\ | > < # {a,b} ~ !"]


@pytest.mark.parametrize("name", [ODD_NAMES[0], pytest.param(ODD_NAMES[1], marks=pytest.mark.slow)], ids=["one", "two"])
def test_any_name_of_a_file_is_a_name(corpus, trained_pair, tmp_path, name):
    """As the data's folder, the checkpoint and the folder of results of one script that hands them all on."""
    preprocessed(corpus, tmp_path / name, "none")
    folder = tmp_path / f"{name} models"
    folder.mkdir()
    shutil.copy(trained_pair[0] / "checkpoint_best.pt", folder / f"{name}.pt")
    operands = [f"{name}", f"{name} models/{name}.pt"]
    arguments = ["--cpu", "--beam", "1", "--out", f"{name} results", "--", "--max-len-b", "5"]
    # operands that begin with a dash are told from options as everywhere
    command = [*EVALUATE, *(f"./{o}" if o.startswith("-") else o for o in operands), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{name} results" / "scores.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name} models", f"{name} results"])


LANGUAGES = ["x/y", "x y", "-x", "x'y", "$(touch pwned)", "../xx", "", "x;y"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_that_is_no_code_is_refused_by_the_scripts(corpus, tmp_path, language):
    (tmp_path / "preprocess.json").write_text(f'{{"source": "{language}", "target": "{TARGET}", "tokenizer": "none"}}')
    commands = [
        [SCRIPTS / "train_dual.sh", tmp_path, tmp_path / "run"],
        [*EVALUATE, tmp_path, tmp_path / "preprocess.json"],
        [
            SCRIPTS / "preprocess.sh",
            f"-s={language}",
            "-t",
            TARGET,
            "--train",
            "a",
            "--valid",
            "b",
            "--dest",
            tmp_path / "out",
        ],
    ]
    for words in commands:
        command = list(map(str, words))
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert ": error: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["preprocess.json"]
