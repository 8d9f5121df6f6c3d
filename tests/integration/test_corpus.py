"""Reading, cleaning and tokenising raw text."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT


def test_workers_end_with_a_parent_that_is_killed() -> None:
    program = (
        "import os, sys, time\n"
        "from dual_fairseq.data.workers import parallel\n"
        "def work(n):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"  # in one piece, however buffered
        "    time.sleep(60)\n"
        "list(parallel(lambda: work, [1, 2], 2))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_is_killed_ends_the_work_in_one_line() -> None:
    program = (
        "import os, signal\n"
        "from dual_fairseq.common.errors import UserError\n"
        "from dual_fairseq.data.workers import parallel\n"
        "def work(n):\n"
        "    return n if n < 20 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "try:\n"
        "    for n in parallel(lambda: work, range(1000), 2):\n"
        "        print(n)\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    *numbers, last = done.stdout.splitlines()
    assert list(map(int, numbers)) == list(range(len(numbers))), done.stderr
    assert last == "a worker process was killed, maybe for lack of memory: give --workers 1"
