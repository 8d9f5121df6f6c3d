"""What training a pair costs beside two plain ``fairseq-train --task translation`` runs over the same batches.

    python benchmarks/training.py                     # or: make bench; all parts, tables to runs/bench/
    python benchmarks/training.py --parts step lm     # some of them
    python benchmarks/training.py --quick             # tiny sizes: does it run?

The parts, each on generated data and with a baseline of its own in the same run:

    step         seconds an update: two plain runs (= 1.00), the pair without and with language models, cached
    memory       peak memory of the same, each in a process of its own
    vocabulary   how time and memory grow with the vocabulary
    length       and with the length of sentences
    corpus       start-up time and resident memory for corpora of growing size, scores cached
    processes    two processes (torchrun) against one
    lm           language model scoring against the bare forward pass

Subjects take turns update by update. Times are CPU time of one thread on the CPU (so that other work on the machine
counts less; it still takes its share of caches and memory bandwidth) and wall-clock time on a GPU; ``processes`` and
``corpus`` take wall-clock time. A ratio is the median over batches of one subject's time to the baseline's on the
same batch. Where there is a GPU it is used, once a precision in ``--precision``.
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
from unittest import mock

if __name__ == "__main__":  # --help should not wait for PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

PARTS = ("step", "memory", "vocabulary", "length", "corpus", "processes", "lm")
SUBJECTS = {
    "plain": "two plain runs",
    "one direction": "one plain run, source→target",
    "pair": "pair, λ = 0",
    "on the fly": "pair, language models on the fly",
    "cache": "pair, scores cached",
    "cache, torch_adam": "pair, scores cached, --optimizer torch_adam",
    "apart": "pair, λ = 0, output layer apart from the loss",
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
    vocabularies: tuple[int, ...] = (4_000, 16_000, 64_000)
    lengths: tuple[int, ...] = (10, 50, 200)
    corpora: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    growth_updates: int = 4
    growth_tokens: int = 2_048
    kinds: tuple[str, ...] = tuple(SUBJECTS)


QUICK = Plan(
    pairs=120, vocabulary=60, length=6, layers=1, width=16, max_tokens=200, max_sentences=20, updates=3, warmup=1,
    vocabularies=(50, 100), lengths=(5, 20), corpora=(100, 300), growth_updates=2, growth_tokens=100,
)  # fmt: skip
# Transformer-base, as the memory part takes it with --base
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

    def subject(self, kind: str, data: Path) -> Any:
        """One of SUBJECTS, ready to make updates."""
        import subjects

        if kind not in SUBJECTS:
            raise ValueError(f"{kind}: must be one of {', '.join(SUBJECTS)}")
        shape, where = self.shape(), {"device": self.device, "precision": self.precision}
        if kind == "plain":
            return subjects.two_plain_runs(data, shape, **where)
        if kind == "one direction":
            return subjects.Subject([subjects.trainer(data, *subjects.plain_options(shape), **where)])
        if kind in ("pair", "apart"):
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

    def data(self, pairs: int | None = None) -> Path:
        """The corpus, written once."""
        import subjects

        plan = self.plan
        corpus = subjects.Corpus(pairs or plan.pairs, plan.vocabulary, plan.length)
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


def timed(subjects: dict[str, Any], batches: list[Any], warmup: int, show: str) -> dict[str, list[float]]:
    """Seconds of every update of every subject, over the same batches in turn; the first ``warmup`` do not count."""
    from tqdm import tqdm

    from dual_fairseq.plugin import output_layer

    seconds: dict[str, list[float]] = {kind: [] for kind in subjects}
    for i, batch in enumerate(tqdm(batches, desc=show, mininterval=2, disable=not sys.stderr.isatty())):
        kinds = list(subjects)
        for kind in kinds[i % len(kinds) :] + kinds[: i % len(kinds)]:  # nobody is always first
            if kind == "apart":
                with mock.patch.object(output_layer, "find_output_layer", lambda _: None):
                    taken = subjects[kind].update(batch)
            else:
                taken = subjects[kind].update(batch)
            if i >= warmup:
                seconds[kind].append(taken)
    return seconds


def ratios(seconds: dict[str, list[float]], baseline: str) -> dict[str, float]:
    """The median over batches of a subject's time to the baseline's on the same batch."""
    return {
        kind: statistics.median(mine / base for mine, base in zip(of_kind, seconds[baseline], strict=True))
        for kind, of_kind in seconds.items()
    }


def part_step(setting: Setting) -> Table:
    """Seconds an update."""
    data = setting.data()
    kinds = [kind for kind in SUBJECTS if kind != "one direction" and (kind in setting.plan.kinds or kind == "plain")]
    subjects = {kind: setting.subject(kind, data) for kind in kinds}
    batches = subjects["plain"].batches(setting.shape())
    count = setting.plan.warmup + setting.plan.updates
    batches = [batches[i % len(batches)] for i in range(count)]
    seconds = timed(subjects, batches, setting.plan.warmup, "step")
    ratio = ratios(seconds, "plain")
    rows = []
    for kind in kinds:
        low, _, high = statistics.quantiles([a / b for a, b in zip(seconds[kind], seconds["plain"], strict=True)])
        rows.append([SUBJECTS[kind], f"{statistics.median(seconds[kind]):.4f}", f"{ratio[kind]:.3f}",
                     f"{low:.3f}–{high:.3f}"])  # fmt: skip
    of_lms = 0
    if "on the fly" in subjects:
        lms = subjects["on the fly"].tasks[0].priors.models()
        of_lms = sum(p.numel() for lm in lms for p in lm._model.parameters())
    note = (
        f"{setting.plan.updates} updates after {setting.plan.warmup}; batches of "
        f"{statistics.mean(map(len, batches)):.0f} pairs on average; the pair has "
        f"{subjects['plain'].parameters():,} parameters, its language models {of_lms:,}. Quartiles: of the ratio."
    )
    return Table("Seconds an update", ["", "seconds", "ratio", "quartiles"], rows, {"seconds": seconds}, note)


def part_memory(setting: Setting) -> Table:
    """Peak memory, each subject in a process of its own."""
    kinds = [kind for kind in SUBJECTS if kind in setting.plan.kinds or kind == "one direction"]
    _ = setting.subject("cache", setting.data()).datasets  # fills the cache
    peaks = {kind: measure(setting, "peak", kind) for kind in kinds}
    mb = {kind: peak["peak"] - peak["before"] for kind, peak in peaks.items()}
    rows = [[SUBJECTS[kind], f"{mb[kind]:,.0f}", f"{mb[kind] / mb['one direction']:.2f}"] for kind in kinds]
    what = "allocated on the GPU" if setting.device == "cuda" else "resident, above what the imports take"
    return Table("Peak memory", ["", "MB", "ratio"], rows, {"peaks": peaks},
                 f"{what}; the two plain runs are two trainers in one process, one after the other.")  # fmt: skip


def measure(setting: Setting, what: str, kind: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, kind, str(setting.work)]
    command += [setting.device, setting.precision, json.dumps(asdict(setting.plan))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{what} of {kind}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured_peak(setting: Setting, kind: str) -> dict[str, float]:
    """Memory before and the peak after updates on the largest batches, in MB."""
    import subjects  # noqa: F401  (what it imports is not counted)
    import torch

    from dual_fairseq.plugin import output_layer

    before = resident_mb()
    subject = setting.subject(kind, setting.data())
    largest = max(subject.batches(setting.shape()), key=subject.tokens)
    if kind == "apart":
        mock.patch.object(output_layer, "find_output_layer", lambda _: None).start()
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


def part_growth(setting: Setting, name: str, plans: dict[int, Plan]) -> Table:
    """Time and memory of the pair and of the two plain runs as one size grows."""
    rows, samples = [], {}
    for value, plan in plans.items():
        at = replace(setting, plan=plan)
        data = at.data()
        subjects = {kind: at.subject(kind, data) for kind in ("plain", "pair")}
        batches = subjects["plain"].batches(at.shape())[: plan.growth_updates + 1]
        seconds = timed(subjects, batches, 1, f"{name} {value}")
        tokens = sum(subjects["plain"].tokens(b) for b in batches[1:])
        peaks = {kind: measure(at, "peak", kind) for kind in subjects}
        mb = {kind: peak["peak"] - peak["before"] for kind, peak in peaks.items()}
        samples[value] = {"seconds": seconds, "peaks": peaks, "tokens": tokens}
        spent = [f"{sum(of_kind) / tokens * 1e6:,.0f}" for of_kind in seconds.values()]
        memory = [f"{of_kind:,.0f}" for of_kind in mb.values()]
        rows.append([f"{value:,}", *spent, f"{ratios(seconds, 'plain')['pair']:.3f}", *memory])
    columns = [name, "two plain runs, µs a token", "pair", "ratio", "two plain runs, MB", "pair, MB"]
    note = f"Batches of {setting.plan.growth_tokens:,} tokens; a token is a source and a target token together."
    return Table(f"Growth with the {name}", columns, rows, samples, note)


def part_vocabulary(setting: Setting) -> Table:
    plan = replace(setting.plan, pairs=min(setting.plan.pairs, 1000), max_tokens=setting.plan.growth_tokens)
    return part_growth(setting, "vocabulary", {v: replace(plan, vocabulary=v) for v in plan.vocabularies})


def part_length(setting: Setting) -> Table:
    plan = replace(setting.plan, pairs=min(setting.plan.pairs, 1000), max_tokens=setting.plan.growth_tokens)
    plan = replace(plan, max_sentences=plan.growth_tokens)
    return part_growth(setting, "length", {n: replace(plan, length=float(n)) for n in plan.lengths})


def part_corpus(setting: Setting) -> Table:
    """Start-up and resident memory."""
    rows, samples = [], {}
    for pairs in setting.plan.corpora:
        at = replace(setting, plan=replace(setting.plan, pairs=pairs))
        data = at.data()
        write_scores(at, data)
        found = {kind: measure(at, "start", kind) for kind in ("one direction", "cache")}
        samples[pairs] = found
        rows.append([f"{pairs:,}", *(f"{found[k]['seconds']:.1f}" for k in found),
                     *(f"{found[k]['resident']:,.0f}" for k in found), f"{found['cache']['scores']:.2f}"])  # fmt: skip
    columns = ["pairs", "plain: seconds", "pair, scores cached: seconds", "plain: MB", "pair: MB", "of that scores, s"]
    note = (
        "From the built models to the first batch; resident memory then, in MB above what imports and models take. "
        "Scores are numbers that the benchmark wrote in place of a language model's."
    )
    return Table("Growth with the corpus", columns, rows, samples, note)


def write_scores(setting: Setting, data: Path) -> None:
    """A warm cache without scoring: some number for every sentence, under the name that the cache looks for."""
    import numpy as np
    import subjects
    from fairseq.data import Dictionary
    from fairseq.data.data_utils import load_indexed_dataset

    from dual_fairseq.plugin.score_cache import cache_key

    lms = subjects.language_models(data, setting.shape(), setting.plan.vocabulary)
    (data / "scores").mkdir(exist_ok=True)
    for language, lm in zip((subjects.SOURCE, subjects.TARGET), lms[1::2], strict=True):
        dictionary = Dictionary.load(str(data / f"dict.{language}.txt"))
        prefix = f"train.{subjects.SOURCE}-{subjects.TARGET}.{language}"
        key = cache_key(str(lm), dictionary, load_indexed_dataset(str(data / prefix), dictionary))
        np.save(data / "scores" / f"train.{language}.{key}.npy", np.full(setting.plan.pairs, -30, dtype=np.float32))
        (data / "scores" / f"train.{language}.{key}.json").write_text('{"max_positions": 1024}')


def measured_start(setting: Setting, kind: str) -> dict[str, float]:
    """From the built models to the first batch: seconds, and resident memory added, in MB."""
    from dual_fairseq.plugin.score_cache import ScoreCache

    spent = [0.0]
    original = ScoreCache.scores

    def scores(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = original(*args, **kwargs)
        spent[0] += time.perf_counter() - start
        return found

    with mock.patch.object(ScoreCache, "scores", scores):
        subject = setting.subject(kind, setting.data())
        before, start = resident_mb(), time.perf_counter()
        next(iter(subject.trainers[0].get_train_iterator(1).next_epoch_itr()))
    return {"seconds": time.perf_counter() - start, "resident": resident_mb() - before, "scores": spent[0]}


def part_processes(setting: Setting) -> Table:
    """Two processes by torchrun against one, over the same batches."""
    import subjects

    data, plan = setting.data(), setting.plan
    options = [str(o) for o in subjects.pair_options(setting.shape(), 0)]
    command = ["-m", "fairseq_cli.train", str(data), "--user-dir", str(Path(subjects.dual_fairseq.__file__).parent)]
    command += [
        *options,
        "--optimizer",
        "adam",
        "--lr",
        "1e-4",
        "--clip-norm",
        "1",
        "--no-save",
        "--disable-validation",
    ]
    command += [
        "--max-tokens",
        plan.max_tokens,
        "--batch-size",
        plan.max_sentences,
        "--max-update",
        max(4, plan.updates // 2),
    ]
    command += ["--log-format", "json", "--log-interval", "1", "--num-workers", "0"]
    command += [] if setting.precision == "fp32" else [f"--{setting.precision}"]
    command += ["--cpu", "--distributed-backend", "gloo"] if setting.device == "cpu" else []
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    speeds: dict[str, list[float]] = {"one process, --update-freq 2": [], "two processes": []}
    for _ in range(1 if plan.updates < 5 else 2):
        speeds["one process, --update-freq 2"].append(tokens_a_second([sys.executable, *command, "--update-freq", 2]))
        speeds["two processes"].append(tokens_a_second([*launch, *command]))
    median = {kind: statistics.median(of_kind) for kind, of_kind in speeds.items()}
    base = median["one process, --update-freq 2"]
    rows = [[kind, f"{value:,.0f}", f"{value / base:.2f}"] for kind, value in median.items()]
    note = f"Wall-clock time of whole updates after the first, {os.cpu_count()} cores, one thread a process."
    return Table("Two processes", ["", "tokens/s", "speed"], rows, {"speeds": speeds}, note)


def tokens_a_second(command: list[Any]) -> float:
    """Of a fairseq run that logs every update: both directions' target tokens over time, the first update left out."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{(done.stdout + done.stderr)[-2000:]}")
    records = {}
    for line in (done.stdout + done.stderr).splitlines():
        if found := re.search(r"\| train_inner \| (\{.*\})", line):
            record = json.loads(found[1])
            records[record["num_updates"]] = record  # every process logs it
    rates = [float(r["wps"]) for n, r in records.items() if int(n) > 2]
    return statistics.median(rates)


def part_lm(setting: Setting) -> Table:
    """Language model scoring against the bare forward pass."""
    import subjects
    import torch

    data = setting.data()
    subject = setting.subject("on the fly", data)
    task, dataset = subject.tasks[0], subject.datasets[0]
    lm = task.priors.models()[1]
    like = torch.zeros((), device=setting.device, dtype=subjects.DTYPES[setting.precision])
    batches = [dataset.collater([dataset[i] for i in rows])["target"].to(setting.device)
               for rows in subject.batches(setting.shape())[: setting.plan.updates]]  # fmt: skip
    pad = lm.dictionary.pad()

    def previous(tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([tokens.new_full((len(tokens), 1), lm.dictionary.eos()), tokens[:, :-1]], dim=1)

    ways: dict[str, Callable[[torch.Tensor], Any]] = {
        "bare forward pass": lambda tokens: lm._model(previous(tokens)),
        "scoring": lambda tokens: lm.sentence_log_prob(tokens, like),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        lm.sentence_log_prob(batches[0], like)
        for i, tokens in enumerate(batches):
            names = list(ways)
            for name in names[i % len(names) :] + names[: i % len(names)]:
                start = subjects.now()
                ways[name](tokens)
                seconds[name].append(subjects.now() - start)
    ratio = ratios(seconds, "bare forward pass")
    total = sum(int(tokens.ne(pad).sum()) for tokens in batches)
    rows = [[name, f"{total / sum(of_way):,.0f}", f"{1 / ratio[name]:.2f}"] for name, of_way in seconds.items()]
    return Table("Language model scoring", ["", "tokens/s", "throughput"], rows, {"seconds": seconds})


RUN: dict[str, Callable[[Setting], Table]] = {
    "step": part_step,
    "memory": part_memory,
    "vocabulary": part_vocabulary,
    "length": part_length,
    "corpus": part_corpus,
    "processes": part_processes,
    "lm": part_lm,
}


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


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="\n\n".join(__doc__.split("\n\n")[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--dest", type=Path, default=Path("runs/bench"), help="folder for tables (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "fp16", "bf16"), help="default: all three on a GPU, "
                        "fp32 on the CPU")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it runs; the figures mean nothing"
    )
    parser.add_argument("--base", action="store_true", help="step and memory of two Transformer-base models, "
                        "V = 32,000, joint batches of 4,096 tokens")  # fmt: skip
    parser.add_argument("--updates", type=int, help=f"updates that count (default: {Plan.updates})")
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), metavar="SUBJECT", help="of step and memory, "
                        f"beside their baseline (default: all of {'; '.join(SUBJECTS)})")  # fmt: skip
    parser.add_argument("--corpora", type=int, nargs="+", help="sizes of the corpus part, in pairs")
    parser.add_argument("--work", type=Path, help="folder for generated data, kept (default: a temporary one)")
    parser.add_argument("--measure", nargs=6, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    arguments = options().parse_args()
    logging.disable(logging.INFO)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if arguments.measure:
        what, kind, work, device, precision, plan = arguments.measure
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(plan).items()}
        setting = Setting(Plan(**sizes), device, precision, Path(work))
        print(json.dumps({"peak": measured_peak, "start": measured_start}[what](setting, kind)), flush=True)
        os._exit(0)  # fairseq's thread that reads batches ahead does not end by itself

    plan = QUICK if arguments.quick else Plan()
    if arguments.base:
        plan = replace(plan, **BASE, updates=plan.updates if torch.cuda.is_available() else 3, warmup=1)
    if arguments.updates:
        plan = replace(plan, updates=arguments.updates)
    if arguments.subjects:
        plan = replace(plan, kinds=tuple(arguments.subjects))
    if arguments.corpora:
        plan = replace(plan, corpora=tuple(arguments.corpora))
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    precisions = arguments.precision or (["fp32", "fp16", "bf16"] if device == "cuda" else ["fp32"])
    arguments.dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for part in arguments.parts:
            for precision in precisions:
                about = machine(device)
                table = RUN[part](Setting(plan, device, precision, work))
                about["load"] = [round(about["load"], 1), round(os.getloadavg()[0], 1)]
                where = about["gpu"] or about["cpu"]
                table.note = f"{table.note}\n\n{where}; {precision}; torch {about['torch']}; load average " \
                    f"{about['load'][0]} before, {about['load'][1]} after.".lstrip()  # fmt: skip
                name = "-".join([part, *(["base"] if arguments.base else []), device, precision])
                record = {**asdict(table), "part": part, "machine": about, "precision": precision, "plan": asdict(plan)}
                (arguments.dest / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
                (arguments.dest / f"{name}.md").write_text(table.markdown())
                print(table.markdown(), flush=True)


if __name__ == "__main__":
    main()
