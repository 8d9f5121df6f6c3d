"""What training a pair costs beside two plain ``fairseq-train --task translation`` runs over the same batches.

    python benchmarks/training.py                     # or: make bench; both parts, tables to runs/bench/
    python benchmarks/training.py --parts step        # one of them
    python benchmarks/training.py --quick             # tiny sizes: does it run?

The parts, on generated data, each with its own baseline in the same run:

    step         seconds an update: two plain runs (= 1.00), the pair without and with language models, cached
    memory       peak memory of the same, each in a process of its own

Subjects take turns update by update. On the CPU, times are CPU time of one thread, so that other work on the machine
counts less (it still takes its share of caches and memory bandwidth). On a GPU they are wall-clock time. A ratio is the
median over batches of one subject's time to the baseline's on the same batch. A GPU is used where there is one, once
for each precision in ``--precision``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dual_fairseq.common.files import write_json, write_text

if __name__ == "__main__":  # --help should not wait for PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SUBJECTS = {
    "plain": "two plain runs",
    "one direction": "one plain run, source→target",
    "pair": "pair, λ = 0",
    "on the fly": "pair, language models on the fly",
    "cache": "pair, scores cached",
    "cache, torch_adam": "pair, scores cached, --optimizer torch_adam",
}


@dataclass(frozen=True)
class Plan:
    """Sizes of a run of the benchmark."""

    pairs: int = 4_000
    vocabulary: int = 4_400
    length: float = 14.0
    layers: int = 4
    width: int = 128
    max_tokens: int = 4_096
    max_sentences: int = 222
    updates: int = 20
    warmup: int = 2
    kinds: tuple[str, ...] = tuple(SUBJECTS)


QUICK = Plan(
    pairs=120, vocabulary=60, length=6, layers=1, width=16, max_tokens=200, max_sentences=20, updates=3, warmup=1
)
# Transformer-base
BASE = {"layers": 6, "width": 512, "vocabulary": 32_000, "length": 28.0, "max_sentences": 4_096, "pairs": 600}


@dataclass(frozen=True)
class Setting:
    """Where and on what a part runs.

    Args:
        plan: sizes.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        work: a folder for data.
    """

    plan: Plan
    device: str
    precision: str
    work: Path

    def subject(self, kind: str) -> Any:
        """One of SUBJECTS, ready to make updates."""
        import subjects

        if kind not in SUBJECTS:
            raise ValueError(f"{kind}: must be one of {', '.join(SUBJECTS)}")
        data, shape, where = self.data(), self.shape(), {"device": self.device, "precision": self.precision}
        if kind == "plain":
            return subjects.two_plain_runs(data, shape, **where)
        if kind == "one direction":
            return subjects.Subject([subjects.plain_run(data, shape, **where)])
        if kind == "pair":
            return subjects.Subject([subjects.trainer(data, *subjects.pair_options(shape, 0), **where)])
        lms = subjects.language_models(data, shape, self.plan.vocabulary)
        more = ["--lm-score-cache", data / "scores"] if kind.startswith("cache") else []
        more += ["--optimizer", "torch_adam"] if kind.endswith("torch_adam") else []
        built = subjects.trainer(data, *subjects.pair_options(shape, 0.01, *lms, *more), **where)
        return subjects.Subject([built])

    def shape(self) -> Any:
        import subjects

        plan = self.plan
        return subjects.Shape(plan.layers, plan.width, plan.max_tokens, plan.max_sentences)

    def data(self) -> Path:
        """The corpus, written once."""
        import subjects

        corpus = subjects.Corpus(self.plan.pairs, self.plan.vocabulary, self.plan.length)
        directory = self.work / "-".join(map(str, asdict(corpus).values()))
        return directory if (directory / "done").exists() else corpus.write(directory)


@dataclass
class Table:
    """Rows of figures under named columns, and what they were made of."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    samples: dict[str, Any]
    note: str = ""

    def markdown(self) -> str:
        """As it goes into docs/performance.md."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])


# --- parts -----------------------------------------------------------------------------------------------------------


def timed(subjects: dict[str, Any], batches: list[Any], warmup: int) -> dict[str, list[float]]:
    """Seconds of every update of every subject, over the same batches in turn; the first ``warmup`` do not count."""
    from tqdm import tqdm

    seconds: dict[str, list[float]] = {kind: [] for kind in subjects}
    for i, batch in enumerate(tqdm(batches, mininterval=2, disable=not sys.stderr.isatty())):
        kinds = list(subjects)
        for kind in kinds[i % len(kinds) :] + kinds[: i % len(kinds)]:  # no subject is always first
            taken = subjects[kind].update(batch)
            if i >= warmup:
                seconds[kind].append(taken)
    return seconds


def part_step(setting: Setting) -> Table:
    """Seconds an update."""
    plan = setting.plan
    kinds = [kind for kind in SUBJECTS if kind != "one direction" and (kind in plan.kinds or kind == "plain")]
    subjects = {kind: setting.subject(kind) for kind in kinds}
    batches = subjects["plain"].batches(setting.shape())
    batches = [batches[i % len(batches)] for i in range(plan.warmup + plan.updates)]
    seconds = timed(subjects, batches, plan.warmup)
    rows = []
    for kind in kinds:
        ratios = [mine / base for mine, base in zip(seconds[kind], seconds["plain"], strict=True)]
        low, _, high = statistics.quantiles(ratios)
        rows.append([SUBJECTS[kind], f"{statistics.median(seconds[kind]):.4f}", f"{statistics.median(ratios):.3f}",
                     f"{low:.3f}–{high:.3f}"])  # fmt: skip
    note = (
        f"{plan.updates} updates after {plan.warmup}; batches of {statistics.mean(map(len, batches)):.0f} pairs on "
        f"average; the pair has {subjects['plain'].parameters():,} parameters. Quartiles: of the ratio."
    )
    return Table("Seconds an update", ["", "seconds", "ratio", "quartiles"], rows, {"seconds": seconds}, note)


def part_memory(setting: Setting) -> Table:
    """Peak memory, each subject in a process of its own."""
    kinds = [kind for kind in SUBJECTS if kind in setting.plan.kinds or kind == "one direction"]
    _ = setting.subject("cache").datasets  # fills the cache
    peaks = {kind: measure(setting, kind) for kind in kinds}
    mb = {kind: peak["peak"] - peak["before"] for kind, peak in peaks.items()}
    rows = [[SUBJECTS[kind], f"{mb[kind]:,.0f}", f"{mb[kind] / mb['one direction']:.2f}"] for kind in kinds]
    what = "allocated on the GPU" if setting.device == "cuda" else "resident, above what the imports take"
    return Table("Peak memory", ["", "MB", "ratio"], rows, {"peaks": peaks},
                 f"{what}; the two plain runs are two trainers in one process, one after the other.")  # fmt: skip


def measure(setting: Setting, kind: str) -> dict[str, float]:
    """:func:`measured_peak` in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, str(setting.work)]
    command += [setting.device, setting.precision, json.dumps(asdict(setting.plan))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"peak of {kind}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured_peak(setting: Setting, kind: str) -> dict[str, float]:
    """Memory before and the peak after updates on the largest batches, in MB."""
    import subjects  # noqa: F401  (what it imports is not counted)
    import torch

    before = resident_mb()
    subject = setting.subject(kind)
    largest = max(subject.batches(setting.shape()), key=subject.tokens)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = 0.0
    for _ in range(2):
        subject.update(largest)
    peak = torch.cuda.max_memory_allocated() / 1e6 if setting.device == "cuda" else resident_mb(peak=True)
    return {"before": before, "peak": peak}


def resident_mb(peak: bool = False) -> float:
    """Resident memory of this process, or its peak so far, in MB."""
    # not getrusage's peak, which begins with the size of the process that started this one
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM" if peak else "VmRSS"].split()[0]) * 1024 / 1e6


PARTS: dict[str, Callable[[Setting], Table]] = {"step": part_step, "memory": part_memory}


# --- command line ----------------------------------------------------------------------------------------------------


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    name = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        name = found[1]
    return {
        "cpu": f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s)",
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    add("--dest", type=Path, default=Path("runs/bench"), help="folder for tables (default: %(default)s)")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    add("--precision", nargs="+", choices=("fp32", "fp16", "bf16"), help="default: all three on a GPU, fp32 on the CPU")
    add("--quick", action="store_true", help="tiny sizes, to see that it runs; the figures mean nothing")
    add("--base", action="store_true", help="two Transformer-base models, V = 32,000, joint batches of 4,096 tokens")
    add("--updates", type=int, help=f"updates that count (default: {Plan.updates})")
    add("--subjects", nargs="+", choices=list(SUBJECTS), metavar="SUBJECT",
        help=f"beside the baseline (default: all of {'; '.join(SUBJECTS)})")  # fmt: skip
    add("--work", type=Path, help="folder for generated data, kept (default: a temporary one)")
    add("--measure", nargs=5, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    arguments = get_parser().parse_args()
    logging.disable(logging.INFO)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if arguments.measure:
        kind, work, device, precision, plan = arguments.measure
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(plan).items()}
        print(json.dumps(measured_peak(Setting(Plan(**sizes), device, precision, Path(work)), kind)), flush=True)
        os._exit(0)  # fairseq's thread that reads batches ahead does not end by itself

    plan = QUICK if arguments.quick else Plan()
    if arguments.base:
        plan = replace(plan, **BASE, updates=plan.updates if torch.cuda.is_available() else 3, warmup=1)
    if arguments.updates:
        plan = replace(plan, updates=arguments.updates)
    if arguments.subjects:
        plan = replace(plan, kinds=tuple(arguments.subjects))
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    precisions = arguments.precision or (["fp32", "fp16", "bf16"] if device == "cuda" else ["fp32"])
    arguments.dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for part in arguments.parts:
            for precision in precisions:
                about = machine(device)
                table = PARTS[part](Setting(plan, device, precision, work))
                about["load"] = [round(about["load"], 1), round(os.getloadavg()[0], 1)]
                where = about["gpu"] or about["cpu"]
                table.note = f"{table.note}\n\n{where}; {precision}; torch {about['torch']}; load average " \
                    f"{about['load'][0]} before, {about['load'][1]} after.".lstrip()  # fmt: skip
                name = "-".join([part, *(["base"] if arguments.base else []), device, precision])
                record = {**asdict(table), "part": part, "machine": about, "precision": precision, "plan": asdict(plan)}
                write_json(arguments.dest / f"{name}.json", record)
                write_text(arguments.dest / f"{name}.md", table.markdown())
                print(table.markdown(), flush=True)


if __name__ == "__main__":
    main()
