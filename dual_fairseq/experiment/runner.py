"""Runs commands side by side, and stops them when it is stopped itself."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import UserError
from ..pipeline.jobs import environment


@dataclass
class Job:
    """A command and the jobs that must be done before it."""

    name: str
    run: Callable[[], None]
    after: list[str] = field(default_factory=list)


class Runner:
    """Runs commands and keeps their output, one log per job.

    Args:
        work: the folder for ``logs``.
        machine: options that every command of dual-fairseq gets.
    """

    def __init__(self, work: Path, machine: Sequence[str]) -> None:
        self.work, self.machine = work, list(machine)
        (work / "logs").mkdir(parents=True, exist_ok=True)
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, name: str, command: Sequence[str]) -> None:
        """Run a command; raises RuntimeError if it fails."""
        log = self.work / "logs" / f"{name.replace('/', '-')}.log"
        with log.open("ab") as file:
            file.write(f"\n# {time.strftime('%F %T')}\n# {shlex.join(command)}\n".encode())
            file.flush()
            with self._lock:
                if self._stopped:
                    raise RuntimeError(f"{name} was not begun")
                process = subprocess.Popen(
                    command, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        if status:
            raise RuntimeError(f"{name} ended with status {status}; see {log}")

    def stop(self) -> None:
        """Ask all running commands to stop; no other command starts any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def run_all(jobs: Sequence[Job], workers: int, runner: Runner) -> None:
    """Run the jobs, ``workers`` of them side by side; the first failure, or a signal, stops all of them.

    Raises:
        UserError: a command failed.
    """
    waiting = list(jobs)
    done: set[str] = set()
    running: dict[Future[None], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if done.issuperset(job.after)][: workers - len(running)]:
                    waiting.remove(job)
                    print(f"{time.strftime('%T')} {job.name}", flush=True)
                    running[pool.submit(job.run)] = job
                if not running:
                    raise AssertionError(f"{waiting[0].name} waits for what nobody does: {waiting[0].after}")
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job = running.pop(future)
                    future.result()
                    done.add(job.name)
        except BaseException as error:
            runner.stop()  # otherwise the pool would wait for the commands
            if isinstance(error, RuntimeError):
                raise UserError(f"{error}; the same command continues") from error
            raise
