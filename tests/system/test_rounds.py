"""Rounds as a user runs them: killed in every step, they go on; finished, nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, SOURCE, TARGET, run_command, sentence_pairs, write_pairs

OPTIONS = (
    "--rounds 1 --control --cpu --size tiny --max-tokens 600 --warmup-max-epoch 4 --dual-max-epoch 1 --lr 0.005 "
    "--lr-warmup 10 --lm-size tiny --lm-max-epoch 1 --round-lines 30 --beam 2 --split valid"
).split()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "dual_fairseq", *map(str, words)]


def finish(words: list[str]) -> str:
    """Run a command to its end, after the jobs of one that was killed."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        done = run_command(words, env=ENVIRONMENT, timeout=1800)
        if "another run is using" not in done.stderr:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            return done.stdout
        time.sleep(2)
    raise AssertionError("a job of the killed run does not end")


def killed_at(words: list[str], title: str) -> None:
    """Start a command, and kill it when it has printed a line."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(title):
            break
        if "another run is using" in line:  # a job of the one killed before
            process.wait()
            time.sleep(2)
            return killed_at(words, title)
    else:
        raise AssertionError(f"{title} did not come: {''.join(seen)[-2000:]}")
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_killed_in_every_step_the_same_command_goes_on(tmp_path: Path):
    text, data, run = tmp_path / "text", tmp_path / "data", tmp_path / "run"
    for split, (count, seed) in {"train": (120, 1), "valid": (16, 2), "mono": (80, 4)}.items():
        write_pairs(text, split, sentence_pairs(count, seed))
    mono = [f"--extra-mono-{side}={text / 'mono'}.{lang}" for side, lang in (("source", SOURCE), ("target", TARGET))]
    finish(command("preprocess", "-s", SOURCE, "-t", TARGET, "--train", text / "train", "--valid", text / "valid",
                   *mono, "--bpe-size", 40, "--dest", data, "--workers", 1))  # fmt: skip
    words = command("train", data, run, *OPTIONS)
    for title in ("Warm start", "Round 1: translating", "Round 1: preprocessing", "Round 1: training", "Control"):
        killed_at(words, title)
    output = finish(words)
    table = output[output.rindex("system") :].splitlines()
    assert [row.split("  ")[0] for row in table[1:4]] == ["warm start", "round 1 (kept)", "MLE continued"]
    assert (run / "dual").resolve() == run / "rounds" / "1" / "dual"
    stamps = {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
    assert finish(words).splitlines()[-3:] == output.splitlines()[-3:]
    assert stamps == {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
