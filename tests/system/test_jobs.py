"""Commands that the pipeline runs: stopped, locked, and what is shown of their output."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.interruption import Stopped, stoppable
from dual_fairseq.pipeline import jobs

# A command of the pipeline's kind: a job whose own child ignores SIGTERM's sender and waits for a minute.
COMMAND = """
import sys
from pathlib import Path
from dual_fairseq.__main__ import policy
from dual_fairseq.pipeline import jobs

with policy("train", goes_on=True), jobs.locked(Path(sys.argv[1])):
    jobs.run(["bash", "-c", "sleep 60 & echo $$ $! >pids; wait"], Path("log"))
"""


def start(folder: Path, *prefix: str) -> tuple[subprocess.Popen, list[int]]:
    code = f"import sys; sys.argv[0] = 'dual-fairseq'\n{COMMAND}"
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", code, "lock"], cwd=folder, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for _ in range(200):
        if (folder / "pids").exists() and (folder / "pids").read_text():
            break
        time.sleep(0.05)
    return process, [int(pid) for pid in (folder / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_one_line_says_how_to_go_on(sent, tmp_path):
    process, pids = start(tmp_path)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    assert errors == f"dual-fairseq train: stopped by {sent.name}; the same command continues\n"
    assert not any(map(alive, pids))


def test_what_nohup_started_does_not_hear_a_hang_up(tmp_path):
    process, pids = start(tmp_path, "bash", "-c", 'trap "" HUP; exec "$@"', "bash")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None and all(map(alive, pids))
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and not any(map(alive, pids))


def test_a_job_that_outlives_its_command_keeps_the_folder(tmp_path):
    process, pids = start(tmp_path)
    process.kill()
    process.communicate()
    assert all(map(alive, pids))
    with (
        pytest.raises(UserError, match=f"another run is using {tmp_path / 'lock'}"),
        jobs.locked(tmp_path / "lock"),
    ):
        pass
    os.killpg(pids[0], signal.SIGKILL)
    for _ in range(100):
        if not any(map(alive, pids)):
            break
        time.sleep(0.05)
    with jobs.locked(tmp_path / "lock"):
        pass


def test_a_signal_that_comes_while_a_job_is_started_does_not_lose_the_job(tmp_path, monkeypatch):
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(jobs.subprocess, "Popen", Popen)
    with pytest.raises(Stopped), stoppable():
        jobs.run(["sleep", "60"])
    assert len(started) == 1 and not alive(started[0])


def test_output_is_appended_and_seen_line_by_line(tmp_path):
    (tmp_path / "log").write_text("before\n")
    seen = []
    status = jobs.run(["bash", "-c", "echo one; echo two >&2; printf end; exit 3"], tmp_path / "log", seen.append)
    assert (status, seen) == (3, ["one", "two"])
    assert (tmp_path / "log").read_text() == "before\none\ntwo\nend"


def test_a_step_that_fails_ends_the_command(tmp_path):
    with pytest.raises(SystemExit) as ended:
        jobs.check(["bash", "-c", "exit 7"])
    assert ended.value.code == 7
    with pytest.raises(UserError, match="bash was ended by SIGKILL"):
        jobs.check(["bash", "-c", "kill -KILL $$"])
    with pytest.raises(UserError, match="no-such-program is not installed for"):
        jobs.run(["no-such-program"])
