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
