"""Reads a fairseq log (``--log-format json``) or fairseq-generate's output and prints a line now and then.

    fairseq-train ... 2>&1 | tee train.log | python scripts/progress.py
    fairseq-generate ... | tee generate.txt | python scripts/progress.py --sentences 1000

The whole log is somebody else's to keep; this is what a person wants to see: each validation, each epoch, and in long
epochs a sign of life every INTERVAL seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

INTERVAL = 30.0
# what is said of a run's input: it would be a pity to find it in the log afterwards
TOLD = ("start from the vectors in", "was trained with --sample-break-mode", "was not found and not compared")
NOTABLE = (
    "early stop since",
    "Stopping training due to",
    "loading pretrained model",
    "Loaded checkpoint",
    "LM scores of ",
)


def number(stats: dict[str, object], key: str, digits: int = 2) -> str:
    """The value of a fairseq statistic, rounded; empty when it is not there."""
    try:
        return f"{float(str(stats[key])):,.{digits}f}"
    except (KeyError, ValueError):
        return ""


def by_direction(stats: dict[str, object], name: str, prefix: str) -> str:
    """`NAME of both (de-en ..., en-de ...)`, as far as it was logged."""
    parts = [
        f"{key.removeprefix(f'{prefix}_{name}_')} {number(stats, key)}"
        for key in stats
        if key.startswith(f"{prefix}_{name}_") and "-" in key
    ]
    return number(stats, f"{prefix}_{name}") + (f" ({', '.join(parts)})" if parts else "")


def describe(tag: str, stats: dict[str, object]) -> str:
    """One line for one record of fairseq's JSON log."""
    epoch = f"  epoch {stats.get('epoch', '?'):>3}"
    if tag == "train_inner":
        return (
            f"{epoch}  update {number(stats, 'num_updates', 0)}, loss {number(stats, 'loss')}, "
            f"{number(stats, 'wps', 0)} tokens/s"
        )
    fields = []
    if tag == "valid":
        if "valid_bleu" in stats:
            best = number(stats, "valid_best_bleu") or number(stats, "valid_bleu")
            fields.append(f"BLEU {by_direction(stats, 'bleu', tag)}, best {best}")
            fields.append(f"NLL {by_direction(stats, 'nll_loss', tag)} bits")
        else:
            best = number(stats, "valid_best_loss", 3) or number(stats, "valid_loss", 3)
            fields.append(
                f"perplexity {number(stats, 'valid_ppl')} ({number(stats, 'valid_loss', 3)} bits, best {best})"
            )
        if "valid_gap_abs" in stats:
            fields.append(f"mean |gap| {number(stats, 'valid_gap_abs')} nats")
        return f"{epoch}  valid: {'; '.join(fields)}; {number(stats, 'valid_num_updates', 0)} updates"
    fields.append(f"NLL {number(stats, 'train_nll_loss') or number(stats, 'train_loss')} bits")
    if "train_gap_abs" in stats:
        fields.append(f"mean |gap| {number(stats, 'train_gap_abs')} nats")
    return f"{epoch}  train: {'; '.join(fields)}; {number(stats, 'train_wall', 0)} s so far"


def main() -> None:
    """Standard input to standard output, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, help="count fairseq-generate's sentences, out of so many")
    expected = parser.parse_args().sentences
    shown, done = time.monotonic(), 0
    seen: set[tuple[str, str, object, object]] = set()  # each process of a distributed run logs the same
    sys.stdin.reconfigure(errors="replace", newline="\n")  # type: ignore[union-attr]
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in sys.stdin:
        late = time.monotonic() - shown >= INTERVAL
        text = None
        if expected is not None:
            done += line.startswith("S-")  # an H- line is there for each translation of an n-best list
            if late:
                text = f"  {done:,} of {expected:,} sentences"
        else:
            parts = line.rstrip("\n").split(" | ", 3)
            if len(parts) == 4 and parts[2] in ("train", "valid", "train_inner") and parts[3].startswith("{"):
                tag, stats = parts[2], json.loads(parts[3])
                record = (tag, "", stats.get("epoch"), stats.get(f"{tag}_num_updates"))
                if late if tag == "train_inner" else record not in seen:
                    text = describe(tag, stats)
                seen.add(record)
            elif len(parts) == 4 and (parts[3].startswith(NOTABLE) or any(told in parts[3] for told in TOLD)):
                record = ("", parts[3], None, None)
                if record not in seen:
                    text = f"  {parts[3]}"
                seen.add(record)
        if text is not None:
            print(text, flush=True)
            shown = time.monotonic()


if __name__ == "__main__":
    main()
