"""How fast the recurrent archs train and translate, beside fairseq's ``lstm`` of the same size.

    python benchmarks/recurrent.py             # tables to standard output
    python benchmarks/recurrent.py --quick     # tiny sizes: does it run?

Each arch is a plain run (``--task translation``) and a pair, built by fairseq's own trainer on generated data. In
translation all write hypotheses of one set length, beam 5, so that untrained models do the same work. Subjects take
turns batch by batch. Times are CPU time of one thread on the CPU, and wall-clock time on a GPU. A ratio is the median
over batches of the baseline's time to the arch's on the same batch: above 1 is faster than fairseq's ``lstm``.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # --help should not wait for PyTorch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

BASELINE = "lstm"
ARCHS = {
    "lstm": "--arch lstm",
    "rnn_luong": "--arch rnn_luong",
    "rnn_luong --input-feeding": "--arch rnn_luong --input-feeding",
    "rnn_luong --cell gru": "--arch rnn_luong --cell gru",
    "rnnsearch": "--arch rnnsearch",
    "rnn_encoder_decoder": "--arch rnn_encoder_decoder",
}


@dataclass(frozen=True)
class Plan:
    """Sizes of a run of the benchmark; ``width`` is that of embeddings and states alike."""

    pairs: int = 4_000
    vocabulary: int = 4_400
    length: float = 20.0
    layers: int = 2
    width: int = 256
    max_tokens: int = 2_048
    updates: int = 10
    searches: int = 4
    searched: int = 16
    warmup: int = 1


QUICK = Plan(
    pairs=120, vocabulary=60, length=6, layers=1, width=16, max_tokens=200, updates=2, searches=2, searched=4
)  # fmt: skip


def sizes(plan: Plan, kind: str) -> list[object]:
    """Options that make the archs equally large, as far as their form allows."""
    width, chosen = plan.width, []
    for role in ("encoder", "decoder"):
        chosen += [f"--{role}-layers", plan.layers, f"--{role}-embed-dim", width, f"--{role}-hidden-size", width]
    chosen += ["--decoder-out-embed-dim" if kind == BASELINE else "--readout-size", width]
    chosen += ["--share-decoder-input-output-embed", "--max-tokens", plan.max_tokens]
    return chosen


class Search:
    """Translation with one of a subject's models: beam 5, hypotheses of ``length`` tokens.

    Args:
        subject: whose first trainer has the model.
        length: tokens of a hypothesis, ``</s>`` included.
    """

    def __init__(self, subject: Any, length: int) -> None:
        from fairseq.sequence_generator import SequenceGenerator

        self.subject = subject
        self.model = subject.trainers[0].model.eval()
        target = subject.tasks[0].target_dictionary
        self.generator = SequenceGenerator(
            [self.model], target, beam_size=5, max_len_a=0, max_len_b=length - 1, min_len=length - 1
        )

    def update(self, rows: Any) -> float:
        """Translate the sources of the pairs ``rows``; seconds."""
        import subjects

        batch = collated(self.subject, rows)
        start = subjects.now()
        self.generator.generate([self.model], batch)
        return subjects.now() - start


def table(title: str, unit: str, amounts: list[int], seconds: dict[str, list[float]], plan: Plan) -> str:
    """A Markdown table: median speed over batches, and the ratio to the baseline with its quartiles."""
    lines = [f"### {title}", "", f"| arch | {unit} | ratio | quartiles |", "|---|---|---|---|"]
    for kind, of_kind in seconds.items():
        speed = statistics.median(amount / s for amount, s in zip(amounts[plan.warmup :], of_kind, strict=True))
        ratio = [base / mine for base, mine in zip(seconds[BASELINE], of_kind, strict=True)]
        low, middle, high = statistics.quantiles(ratio) if len(ratio) > 1 else ratio * 3
        lines.append(f"| {kind} | {speed:,.0f} | {middle:.2f} | {low:.2f}–{high:.2f} |")
    return "\n".join([*lines, ""])


class Core:
    """What an arch itself does in an update: encoder and decoder, there and back, without output layer, loss and step.

    Args:
        subject: whose first trainer has the model.
    """

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self.model = subject.trainers[0].model

    def update(self, rows: Any) -> float:
        """Features of the pairs ``rows`` and the gradients of their sum; seconds."""
        import subjects

        net_input = collated(self.subject, rows)["net_input"]
        start = subjects.now()
        self.model.train()
        encoded = self.model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        features, _ = self.model.decoder.extract_features(net_input["prev_output_tokens"], encoder_out=encoded)
        features.float().sum().backward()
        taken = subjects.now() - start
        self.model.zero_grad()
        return taken


def collated(subject: Any, rows: Any) -> dict[str, Any]:
    """A batch of the pairs ``rows`` where the model is."""
    from fairseq import utils

    dataset = subject.datasets[0]
    batch = dataset.collater([dataset[i] for i in rows])
    return utils.move_to_cuda(batch) if next(subject.trainers[0].model.parameters()).is_cuda else batch


def runs(plan: Plan, archs: list[str], data: Path, pair: bool, where: dict[str, str]) -> dict[str, Any]:
    """A run of each arch, alone or as a pair (λ = 0)."""
    import subjects

    task = ["--task", "dual_translation" if pair else "translation", "-s", subjects.SOURCE, "-t", subjects.TARGET]
    criterion = ["dual_cross_entropy", "--dual-lambda", 0] if pair else ["label_smoothed_cross_entropy"]
    common = [*task, "--criterion", *criterion, "--label-smoothing", 0.1]
    common += ["--user-dir", Path(subjects.dual_fairseq.__file__).parent]
    built = {}
    for kind in archs:
        run = subjects.trainer(data, *common, *ARCHS[kind].split(), *sizes(plan, kind), **where)
        built[kind] = subjects.Subject([run])
    return built


def measure(plan: Plan, archs: list[str], device: str, precision: str, work: Path) -> list[str]:
    """The tables."""
    import subjects
    import training

    data = subjects.Corpus(plan.pairs, plan.vocabulary, plan.length).write(work / "corpus")
    shape = subjects.Shape(plan.layers, plan.width, plan.max_tokens, plan.max_tokens)
    where = {"device": device, "precision": precision}
    alone, together = (runs(plan, archs, data, pair, where) for pair in (False, True))
    first = alone[BASELINE]
    batches = first.batches(shape)[: plan.updates + plan.warmup]
    tokens = [first.tokens(b) for b in batches]
    tables = []
    for title, subject in (
        ("Training", alone),
        ("Training a pair (λ = 0)", together),
        ("Encoder and decoder alone, forward and backward", {kind: Core(of_kind) for kind, of_kind in alone.items()}),
    ):
        seconds = training.timed(subject, batches, plan.warmup, title)
        tables.append(table(title, "target tokens/s", tokens, seconds, plan))
    batches = [b[: plan.searched] for b in first.batches(shape)[: plan.searches + plan.warmup]]
    searches = {kind: Search(subject, round(plan.length)) for kind, subject in alone.items()}
    seconds = training.timed(searches, batches, plan.warmup, "translating")
    tables.append(table("Translating, beam 5", "sentences/s", [len(b) for b in batches], seconds, plan))
    counts = ", ".join(f"{kind} {subject.parameters():,}" for kind, subject in alone.items())
    return [*tables, f"Parameters: {counts}."]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=list(ARCHS), help="which (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    for name in ("layers", "width", "vocabulary", "max_tokens", "length", "updates", "searches"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default: {getattr(Plan(), name)}")
    args = parser.parse_args(arguments)
    plan = QUICK if args.quick else Plan()
    given = {name: value for name in asdict(plan) if (value := getattr(args, name, None)) is not None}
    plan = Plan(**{**asdict(plan), **given})
    archs = list(dict.fromkeys([BASELINE, *args.archs]))

    import torch

    logging.disable(logging.INFO)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as work:
        tables = measure(plan, archs, device, args.precision, Path(work))
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print("\n".join(tables))
    print(
        f"\n{plan.layers}+{plan.layers} layers, width {plan.width}, {plan.vocabulary:,} symbols, "
        f"{plan.max_tokens:,} tokens a batch; {where}, {args.precision}, PyTorch {torch.__version__}."
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
