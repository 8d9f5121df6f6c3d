"""Killed, stopped or without room on the disk at any moment, a run goes on to the same end and loses no checkpoint."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PLUGIN, ROOT, SOURCE, TARGET, TINY, parameter_difference, preprocessed, run_command, train

from dual_fairseq.pipeline import forks
from dual_fairseq.plugin.checkpoint import load_state

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


# --- a checkpoint is the old one or the new one


# --- kill -9, and the same command again


class Interrupted:
    """A dual run with a score cache, the same command every time.

    Args:
        model: fairseq's options for the arch.
    """

    def __init__(self, corpus: Path, folder: Path, model: list[str], *options: object) -> None:
        self.save, self.cache = folder / "save", folder / "cache"
        self.command = [
            "fairseq-train", str(corpus / "dual"), "--user-dir", str(PLUGIN),
            "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, *model, "--criterion", "dual_cross_entropy",
            "--cpu", "--num-workers", "1", "--log-format", "json", "--log-interval", "1", "--max-tokens", "300",
            "--no-epoch-checkpoints", "--optimizer", "adam", "--lr", "0.01", "--dropout", "0.1",
            "--dual-lambda", "0.05", "--save-dir", str(self.save), "--lm-score-cache", str(self.cache),
            *map(str, options),
        ]  # fmt: skip

    def run(self) -> None:
        """To its end."""
        done = run_command(self.command, env=ENVIRONMENT)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    def stopped(self, sent: signal.Signals, marker: str, nth: int = 1, delay: float = 0.0) -> tuple[int, str]:
        """Run until ``marker`` was printed ``nth`` times and some seconds more, then send a signal."""
        reading, writing = os.pipe()
        if forks.forkable(self.command):
            process = forks.fork(self.command, [writing, writing], ENVIRONMENT)
        else:
            process = subprocess.Popen(self.command, env=ENVIRONMENT, stdout=writing, stderr=writing)
        os.close(writing)
        output = b""
        while output.count(marker.encode()) < nth and (block := os.read(reading, 1 << 16)):
            output += block
        time.sleep(delay)
        os.kill(process.pid, sent)
        if sent != signal.SIGKILL:  # a killed run's data loader keeps the pipe open for a while
            while block := os.read(reading, 1 << 16):
                output += block
        os.close(reading)
        return process.wait(120), output.decode()

    def look(self, whole: Interrupted) -> float | None:
        """Everything there is must be whole. Returns the score of the best checkpoint, None where there is none.

        Args:
            whole: the run that was not interrupted, whose caches are the right ones.
        """
        right = {path.name: path.read_bytes() for path in whole.cache.iterdir()}
        for path in self.cache.glob("[!.]*") if self.cache.is_dir() else ():
            assert path.read_bytes() == right[path.name]
        for path in self.save.glob("*.pt") if self.save.is_dir() else ():
            load_state(str(path), "--path")
        best = self.save / "checkpoint_best.pt"
        return load_state(str(best), "--path")["extra_state"]["val_loss"] if best.exists() else None


def test_a_killed_run_goes_on_to_the_same_end(corpus, lm_options, tmp_path):
    options = (*lm_options, "--max-update", 10, "--save-interval-updates", 4, "--keep-interval-updates", 1)
    whole = Interrupted(corpus, tmp_path / "whole", TINY["transformer"], *options)
    whole.run()
    killed = Interrupted(corpus, tmp_path / "killed", TINY["transformer"], *options)
    code, _ = killed.stopped(signal.SIGKILL, "Finished saving checkpoint")
    assert code == -signal.SIGKILL
    killed.look(whole)
    killed.run()
    assert killed.look(whole) == whole.look(whole)
    assert parameter_difference(whole.save, killed.save) == 0


@pytest.mark.slow
def test_a_run_that_goes_on_knows_how_long_it_has_not_improved(corpus, tmp_path):
    """Nothing improves without a learning rate: the third validation is one too many, whenever the run is stopped."""
    options = ("--dual-lambda", 0, "--lr", 0, "--optimizer", "sgd", "--patience", 2)
    train(corpus / "dual", tmp_path, *options, "--max-epoch", 2)
    run = train(corpus / "dual", tmp_path, *options, "--max-epoch", 9)
    assert len(run.logged("valid")) == 1
    assert "early stop since valid performance hasn't improved for last 2 runs" in run.output


# What a run prints when it is at these things.
TRAINING, VALIDATING, SCORING = '"epoch": ', "begin validation on", "LM scores of"
WRITING, COPYING = "Saving checkpoint to", "Finished saving checkpoint"


def moments() -> list[tuple[str, int, float]]:
    """Twenty moments to kill a run at: what it prints, how often, and how many seconds later."""
    rng = random.Random(6)
    # The bar of each of the four files of scores (of validation and of training data), and then while it is being made.
    chosen = [(SCORING, 1, rng.uniform(0, 0.01)) for _ in range(4)]
    later = [(TRAINING, rng.randint(1, 20), rng.uniform(0, 0.1)) for _ in range(4)]
    later += [(VALIDATING, rng.randint(1, 3), rng.uniform(0, 0.1)) for _ in range(4)]
    later += [(WRITING, rng.randint(1, 3), rng.uniform(0, 0.02)) for _ in range(4)]
    later += [(COPYING, rng.randint(1, 3), rng.uniform(0, 0.02)) for _ in range(4)]
    rng.shuffle(later)
    return chosen + later


@pytest.mark.slow
def test_killed_at_twenty_moments_a_run_reaches_the_same_end_and_never_loses_its_best(corpus, lm_options, tmp_path):
    model = [word.replace("16", "64").replace("32", "256") for word in TINY["transformer"]]  # files that take a while
    options = (
        *lm_options, "--max-update", 320, "--save-interval-updates", 5, "--keep-interval-updates", 2, "--eval-bleu",
        "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}', "--best-checkpoint-metric", "bleu",
        "--maximize-best-checkpoint-metric",
    )  # fmt: skip
    whole = Interrupted(corpus, tmp_path / "whole", model, *options)
    whole.run()
    killed = Interrupted(corpus, tmp_path / "killed", model, *options)
    best = None
    for marker, nth, delay in moments():
        if marker == SCORING:  # nothing of the scores there is left, or a part of them
            for path in sorted(killed.cache.glob("*"))[nth:]:
                path.unlink()
        code, output = killed.stopped(signal.SIGKILL, marker, nth, delay)
        assert code == -signal.SIGKILL, f"it ended before it was killed: {output[-2000:]}"
        score = killed.look(whole)
        assert best is None or (score is not None and score >= best), "the best checkpoint was lost"
        best = score
        made = updates(killed.save / "checkpoint_last.pt")
        print(
            f"killed at {marker!r} {nth} + {delay * 1000:.0f} ms: {made} updates saved, best {best}, "
            f"{left_over(killed)} unfinished files"
        )
    assert best is not None
    killed.run()
    assert killed.look(whole) == whole.look(whole)
    assert parameter_difference(whole.save, killed.save) == 0
    names = [sorted(path.name for path in run.save.glob("*.pt")) for run in (whole, killed)]
    assert names[0] == names[1]


def updates(checkpoint: Path) -> int:
    return load_state(str(checkpoint), "--path")["optimizer_history"][-1]["num_updates"] if checkpoint.exists() else 0


def left_over(run: Interrupted) -> int:
    return len([*run.save.glob(".*"), *run.cache.glob(".*")])


# --- Ctrl-C, SIGTERM and SIGHUP


@pytest.mark.parametrize(
    "sent",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))],
    ids=["ctrl-c", "sigterm", "sighup"],
)
def test_a_stopped_run_says_where_its_last_checkpoint_is(corpus, tmp_path, sent):
    options = ("--dual-lambda", 0, "--save-interval-updates", 3, "--keep-interval-updates", 1, "--max-update", 100_000)
    run = Interrupted(corpus, tmp_path, TINY["transformer"], *options)
    marker = "Saved checkpoint" if sent == signal.SIGINT else "Start iterating over samples"
    code, output = run.stopped(sent, marker)
    assert code == 128 + sent and "Traceback" not in output
    last = run.save / "checkpoint_last.pt"
    (line,) = (line for line in output.splitlines() if line.startswith("dual_fairseq: stopped"))
    assert line.startswith(f"dual_fairseq: stopped by {sent.name}: ")
    if last.exists():
        assert f"the same command continues from {last}, written " in line
        assert load_state(str(last), "--path")["optimizer_history"][-1]["num_updates"] >= 3
    else:
        assert f"{run.save} has no checkpoint_last.pt, so the same command starts again from the beginning" in line
    assert last.exists() or sent != signal.SIGINT


# --- a full disk in the middle of a run


@pytest.mark.slow
def test_a_disk_that_runs_full_ends_in_one_line_and_the_run_goes_on_later(corpus, tmp_path):
    options = ("--dual-lambda", 0, "--optimizer", "adam", "--lr", 0.01, "--max-update", 4)
    limited = ("bash", "-c", 'ulimit -f 40; exec "$0" "$@"', sys.executable)  # a checkpoint has more than 40 KiB
    run = train(corpus / "dual", tmp_path, *options, check=False, here=False, launcher=limited)
    assert run.returncode == 1 and "Traceback" not in run.output
    assert f"{tmp_path}/checkpoint_best.pt: this checkpoint cannot be written" in run.error
    assert run.error.startswith("dual_fairseq: error: ") and "there is no old one" in run.error
    assert list(tmp_path.iterdir()) == []


# --- the scripts


def descendants(pid: int) -> list[int]:
    """A process and all that it started, whatever their process groups."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [pid], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def kill_all_of_it(process: subprocess.Popen[str], lock: Path) -> None:
    """As when the machine goes down: nothing is left that could put anything in order, or that holds the lock."""
    stopped: set[int] = set()
    while new := set(descendants(process.pid)) - stopped:  # what is stopped starts nothing more
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if lock.exists():  # killed processes take a moment to be gone
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX)


@pytest.mark.slow
def test_a_script_killed_in_every_stage_reaches_the_same_end(corpus, tmp_path):
    """kill -9 of train_dual.sh and of everything it started; what was finished is not done again."""
    dest = preprocessed(corpus, tmp_path / "data", "none")

    def command(run: Path) -> list[str]:
        return [
            *(str(ROOT / "scripts" / "train_dual.sh"), str(dest), str(run), "--cpu", "--control"),
            *shlex.split("--dual-lambda 0.02 --lm-size tiny --lm-max-epoch 2 --lm-max-tokens 300 --lm-lr-warmup 5"),
            *shlex.split("--max-tokens 300 --warmup-max-epoch 2 --dual-max-epoch 2 --lr-warmup 5 --patience 9 --"),
            *TINY["transformer"][2:],
        ]

    def killed_at(text: str) -> str:
        process = subprocess.Popen(
            command(tmp_path / "killed"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
        )
        output = ""
        for line in process.stdout:
            output += line
            if text in line:
                kill_all_of_it(process, tmp_path / "killed" / ".lock")
                break
        process.stdout.close()
        assert process.wait(timeout=120) == -signal.SIGKILL, output
        return output

    done = subprocess.run(command(tmp_path / "whole"), capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("epoch   1  valid", f"lm/{TARGET}", "Warm start", "epoch   1  train", "Dual training", "Control"):
        killed_at(text)
    again = subprocess.run(command(tmp_path / "killed"), capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Dual training, λ = 0.02: finished before" in again.stdout
    for stage in (f"lm/{SOURCE}", f"lm/{TARGET}", "warmup", "dual", "mle"):
        assert parameter_difference(tmp_path / "whole" / stage, tmp_path / "killed" / stage) == 0, stage
    for stage in ("warmup", "dual", "mle"):
        scores = [
            json.loads((tmp_path / run / stage / "eval" / "test" / "scores.json").read_text())
            for run in ("whole", "killed")
        ]
        assert plain(scores[0]) == plain(scores[1])


def plain(scores: dict) -> dict:
    """Scores without what names files and times."""
    return {key: value for key, value in scores.items() if not re.search("path|file|checkpoint|time|date", key)}
