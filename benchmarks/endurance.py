"""Does a long run leak? Dual training without a pause on generated text, its memory and open files looked at all along.

    python benchmarks/endurance.py WORK --minutes 60

Draws text from the embedded grammar, preprocesses it, trains two small language models (all of it kept in WORK and not
done twice), and then lets fairseq-train train a pair on the CPU for so many minutes, with validation, validation BLEU
and checkpoints every so many updates. Every few seconds it notes, in WORK/samples.tsv, of the training process its
resident memory, open files and threads, and of its folder the number and size of checkpoints and the size of the log.

Printed at the end, and kept in WORK/endurance.json:

- the slope of the resident memory in MB an hour with its 95 % interval. Neighbouring samples are not independent of
  each other (memory rises and falls with every validation), so the line is fitted to the means of equal blocks of time,
  after a warm-up that is left out;
- open files, threads and checkpoints at the start and at the end, and the most there ever were;
- the growth of the log.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
TRAINING = (
    "-s de -t en --user-dir {plugin} --task dual_translation --arch transformer --share-decoder-input-output-embed "
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 "
    "--decoder-ffn-embed-dim 128 --encoder-attention-heads 2 --decoder-attention-heads 2 "
    "--criterion dual_cross_entropy --label-smoothing 0.1 --dual-lambda 0.01 --optimizer adam --clip-norm 1 --lr 0.001 "
    "--lr-scheduler inverse_sqrt --warmup-updates 200 --max-tokens 512 --required-batch-size-multiple 1 --cpu "
    "--eval-bleu --eval-bleu-remove-bpe --eval-bleu-detok moses --best-checkpoint-metric bleu "
    "--maximize-best-checkpoint-metric --log-format json --log-interval 50 "
    "--save-interval-updates {interval} --keep-interval-updates {keep} --keep-last-epochs {keep}"
)


class Sample(NamedTuple):
    """One look: seconds since the start, MB, then counts, then MB and bytes."""

    seconds: float
    resident: float
    open_files: int
    threads: int
    checkpoints: int
    checkpoint_size: float
    log_size: int
    updates: int


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for text, models, logs and the result")
    parser.add_argument("--minutes", type=float, default=60, help="how long to train (default 60)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples (default 10)")
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the time left out (default 0.1)")
    parser.add_argument("--blocks", type=int, default=20, help="blocks of time that the line is fitted to (default 20)")
    parser.add_argument("--pairs", type=int, default=3000, help="training pairs (default 3000)")
    parser.add_argument("--interval", type=int, default=500, help="updates from one checkpoint to the next")
    parser.add_argument("--keep", type=int, default=2, help="checkpoints of updates and of epochs to keep (default 2)")
    parser.add_argument("--no-cache", action="store_true", help="run the language models in every batch")
    options = parser.parse_args(arguments)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = prepare(work, options.pairs, environment)
    samples = watch(train(work, data, options, environment), work, options.minutes * 60, options.every)
    result = {
        "minutes": options.minutes,
        "settings": {"interval": options.interval, "keep": options.keep, "cache": not options.no_cache},
        **summary(samples, options.warm_up, options.blocks),
    }
    (work / "endurance.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def prepare(work: Path, pairs: int, environment: dict[str, str]) -> Path:
    """Text, binarized data and language models, where they are not there yet; returns the data folder."""

    def run(*command: object) -> None:
        subprocess.run([str(word) for word in command], env=environment, check=True, stdin=subprocess.DEVNULL)

    text, data = work / "text", work / "data"
    if not (text / "truth.json").is_file():
        grammar = ("-m", "dual_fairseq", "toy-corpus", text, "--train", pairs, "--valid", 100, "--test", 100)
        run(sys.executable, *grammar, "--mono", 2000)
    scripts = ROOT / "scripts"
    run(
        scripts / "preprocess.sh", "-s", "de", "-t", "en", "--train", text / "train", "--valid", text / "valid",
        "--dest", data, "--bpe-size", 600, "--workers", 1,
    )  # fmt: skip
    for language in ("de", "en"):
        lm = ("--size", "tiny", "--max-tokens", 1024, "--max-epoch", 2, "--lr", 0.004, "--lr-warmup", 50, "--cpu")
        run(scripts / "train_lm.sh", data / "lm" / language, work / "lm" / language, *lm)
    return data


def train(work: Path, data: Path, options: argparse.Namespace, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start fairseq-train, a new run, with no end of its own."""
    save = work / "pair"
    save.mkdir(exist_ok=True)
    for old in save.iterdir():
        old.unlink()
    command = [sys.executable, "-m", "fairseq_cli.train", str(data / "dual"), "--save-dir", str(save)]
    command += TRAINING.format(plugin=ROOT / "dual_fairseq", interval=options.interval, keep=options.keep).split()
    for option, language in (("--src-lm", "de"), ("--tgt-lm", "en")):
        command += [option, str(work / "lm" / language / "checkpoint_best.pt")]
    if not options.no_cache:
        command += ["--lm-score-cache", str(work / "lm-scores")]
    with open(save / "train.log", "wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )


def watch(process: subprocess.Popen[bytes], work: Path, seconds: float, every: float) -> list[Sample]:
    """Look at the process until its time is up, then stop it."""
    samples: list[Sample] = []
    begun = time.monotonic()
    try:
        with open(work / "samples.tsv", "w", encoding="utf-8", buffering=1) as table:
            print(*Sample._fields, sep="\t", file=table)
            while (passed := time.monotonic() - begun) < seconds:
                time.sleep(min(every, seconds - passed))
                if process.poll() is not None:
                    raise SystemExit(f"training ended with status {process.returncode}; see {work}/pair/train.log")
                samples.append(look(process.pid, work / "pair", time.monotonic() - begun))
                print(*samples[-1], sep="\t", file=table)
    finally:
        process.terminate()
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
    return samples


def look(pid: int, save: Path, seconds: float) -> Sample:
    """One sample of a process (Linux: from /proc) and of its folder."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = {name: int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) for name in ("VmRSS", "Threads")}
    sizes = [file.stat().st_size for file in save.glob("*.pt")]
    log = save / "train.log"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        updates = re.findall(rb'"num_updates": "(\d+)"', file.read())
    return Sample(
        round(seconds, 1),
        values["VmRSS"] / 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        values["Threads"],
        len(sizes),
        sum(sizes) / 1e6,
        log.stat().st_size,
        int(updates[-1]) if updates else 0,
    )


def summary(samples: list[Sample], warm_up: float, blocks: int) -> dict[str, object]:
    """Slopes and extremes of the samples after the warm-up."""
    table = np.array(samples, dtype=np.float64)
    table = table[table[:, 0] >= warm_up * table[-1, 0]]
    columns = dict(zip(Sample._fields, table.T, strict=True))
    hours = columns["seconds"] / 3600
    result: dict[str, object] = {"samples": len(table), "updates": int(columns["updates"][-1])}
    slope, interval = block_slope(hours, columns["resident"], blocks)
    result["resident MB"] = {
        "first": round(columns["resident"][0], 1),
        "last": round(columns["resident"][-1], 1),
        "most": round(columns["resident"].max(), 1),
        "slope an hour": round(slope, 2),
        "95 % interval": [round(slope - interval, 2), round(slope + interval, 2)],
    }
    for name in ("open_files", "threads", "checkpoints"):
        values = columns[name].astype(int)
        result[name] = {"first": int(values[0]), "last": int(values[-1]), "most": int(values.max())}
    result["checkpoints MB"] = round(columns["checkpoint_size"].max(), 2)
    grown = columns["log_size"][-1] - columns["log_size"][0]
    result["log"] = {
        "bytes": int(columns["log_size"][-1]),
        "bytes an update": round(grown / max(1.0, columns["updates"][-1] - columns["updates"][0]), 2),
    }
    return result


def block_slope(hours: np.ndarray, values: np.ndarray, blocks: int) -> tuple[float, float]:
    """The slope an hour of the line through the means of equal blocks, and half the width of its 95 % interval."""
    parts = np.array_split(np.arange(len(hours)), min(blocks, len(hours)))
    line = stats.linregress([hours[p].mean() for p in parts], [values[p].mean() for p in parts])
    return float(line.slope), float(line.stderr * stats.t.ppf(0.975, len(parts) - 2))


if __name__ == "__main__":
    main()
