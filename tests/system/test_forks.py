"""Commands that are forked: they are what a process of their own would be."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import PLUGIN, short_command

from dual_fairseq.pipeline import forks

OURS = [sys.executable, "-m", "dual_fairseq"]


def run(command: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    assert forks.forkable(command)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = forks.fork(command, [out.fileno(), err.fileno()], environment, folder).wait()
        out.seek(0)
        err.seek(0)
        return status, undated(out.read()), err.read()


def undated(log: str) -> str:
    """`log` without the times at which its lines were written."""
    return re.sub(r"^[0-9-]{10} [0-9:]{8}(?= \| )", "TIME", log, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        None,
        [*OURS, "train-lm"],
        [*OURS, "--help"],
        ["fairseq-train", "data", "--user-dir", str(PLUGIN), "--dual-lambda", "x"],
    ],
    ids=["select", "train-lm", "--help", "fairseq-train"],
)
def test_a_fork_prints_and_ends_as_a_process_does(words, tmp_path):
    environment = {**os.environ, "NAME": "\udcff"}  # a byte that is no UTF-8
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        short = short_command(folder)
    words = words or short
    forked = run(words, environment, first)
    program = [str(Path(sys.executable).with_name(words[0])), *words[1:]] if words[0].startswith("fairseq") else words
    null = subprocess.DEVNULL
    process = subprocess.run(program, cwd=second, env=environment, stdin=null, capture_output=True, text=True)
    printed = "".join(line for line in process.stdout.splitlines(True) if "Please install" not in line)  # at its import
    assert forked == (process.returncode, undated(printed), process.stderr)
    assert sorted(p.relative_to(first) for p in first.rglob("*")) == sorted(
        p.relative_to(second) for p in second.rglob("*")
    )


def test_a_fork_that_is_killed_says_so_and_leads_a_group_of_its_own(tmp_path):
    reading, writing = os.pipe()
    with os.fdopen(reading):
        command = [*OURS, "toy-corpus", str(tmp_path), "--train", "1000000", "--valid", "2", "--test", "2"]
        process = forks.fork(command, [writing, writing], os.environ)
        assert os.getpgid(process.pid) == process.pid and process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == process.poll() == process.returncode == -signal.SIGKILL
        os.close(writing)


def test_a_machine_with_a_gpu_does_not_fork(monkeypatch):
    monkeypatch.setattr(forks, "_GPUS", ("null",))
    assert not forks.forkable(OURS)
    assert not forks.forkable(["bash"])
