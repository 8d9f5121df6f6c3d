"""Where a training runs: on GPUs or the CPU, in one process or through torchrun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ..common.errors import UserError
from .jobs import Shell, ask, program, step


@dataclass(frozen=True)
class Device:
    """
    Attributes:
        gpus: how many GPUs to use.
        processes: how many processes of fairseq-train.
    """

    gpus: int
    processes: int

    @property
    def options(self) -> list[str]:
        """The options of a fairseq command for this device."""
        if not self.gpus:
            return ["--cpu"] + ["--distributed-backend", "gloo"] * (self.processes > 1)
        # Otherwise fairseq starts a process for every GPU by itself, which does not work with --user-dir.
        return ["--distributed-world-size", "1"] * (self.processes == 1)

    def launch(self, shown: bool = False) -> list[str]:
        """The words that start fairseq-train.

        Args:
            shown: whether a person will read and copy them.
        """
        if self.processes == 1:
            return ["fairseq-train"]
        path = Shell('"$(command -v fairseq-train)"') if shown else program("fairseq-train")
        return ["torchrun", "--standalone", f"--nproc_per_node={self.processes}", path]

    def __str__(self) -> str:
        return f"{self.processes} GPU(s)" if self.gpus else f"CPU, {self.processes} process(es)"


def find_device(cpu: bool, processes: str | None = None, options: Sequence[str] = ()) -> Device:
    """The device of a command.

    Args:
        cpu: use no GPU.
        processes: how many; None for one per GPU, or one on the CPU.
        options: the user's options for fairseq.

    Raises:
        UserError: there are too few GPUs, or an option needs a GPU and there is none.
    """
    gpus = 0 if cpu else _gpus()
    number = int(processes) if processes else gpus or 1
    if gpus and number > gpus:
        raise UserError(f"--nproc {number}: only {gpus} GPU(s) here")
    if not gpus:  # fairseq fails on --fp16 with a traceback, and looks for a TPU on --bf16
        for option in options:
            if option.startswith(("--fp16", "--bf16", "--memory-efficient-")):
                raise UserError(f"{option} needs a GPU, and this run uses the CPU: leave it out")
    return Device(gpus, number)


@cache
def _gpus() -> int:
    return int(ask(step("pipeline.probe", "gpus")))
