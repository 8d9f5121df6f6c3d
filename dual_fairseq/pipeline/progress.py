"""What a person wants to see of a log of fairseq's: each validation, each epoch, and now and then a sign of life."""

from __future__ import annotations

import json
import time
from typing import Any

INTERVAL = 30.0  # seconds between two signs of life
# What fairseq or the plugin notes about the input or the course of a run: the beginning or a part of a message.
NOTES = (
    "early stop since",
    "Stopping training due to",
    "loading pretrained model",
    "Loaded checkpoint",
    "LM scores of ",
)
PARTS = (
    "start from the vectors in",
    "was trained with --sample-break-mode",
    "was not found and not compared",
    "will be skipped",
)


class TrainingDisplay:
    """Prints a line now and then about the lines of fairseq-train's log (``--log-format json``)."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._seen: set[tuple[object, ...]] = set()  # each process of a distributed run logs the same

    def __call__(self, line: str) -> None:
        parts = line.split(" | ", 3)
        if len(parts) != 4:
            return
        tag, message = parts[2:]
        text: str | None = None
        key: tuple[object, ...] = (tag, message)
        if tag in ("train", "valid", "train_inner") and message.startswith("{"):
            try:
                stats = json.loads(message)
            except ValueError:  # two processes have written into one line
                return
            key = (tag, stats.get("epoch"), stats.get(f"{tag}_num_updates"))
            if tag != "train_inner" or time.monotonic() - self._shown >= INTERVAL:
                text = describe(tag, stats)
        elif message.startswith(NOTES) or any(part in message for part in PARTS):
            text = f"  {message}"
        if text is not None and (tag == "train_inner" or key not in self._seen):
            self._seen.add(key)
            self._shown = time.monotonic()
            print(text, flush=True)


class SentenceDisplay:
    """Prints now and then how many sentences fairseq-generate has translated.

    Args:
        total: of how many.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, time.monotonic()

    def __call__(self, line: str) -> None:
        self._done += line.startswith("S-")  # an n-best list has an H- line for each translation
        if time.monotonic() - self._shown >= INTERVAL:
            self._shown = time.monotonic()
            print(f"  {self._done:,} of {self._total:,} sentences", flush=True)


def describe(tag: str, stats: dict[str, Any]) -> str:
    """One line for one record of fairseq's JSON log."""
    epoch = f"  epoch {stats.get('epoch', '?'):>3}"
    if tag == "train_inner":
        return (
            f"{epoch}  update {_number(stats, 'num_updates', 0)}, loss {_number(stats, 'loss')}, "
            f"{_number(stats, 'wps', 0)} tokens/s"
        )
    gap = _number(stats, f"{tag}_gap_abs")
    gap = f"mean |gap| {gap} nats; " if gap else ""
    if tag == "train":
        nll = _number(stats, "train_nll_loss") or _number(stats, "train_loss")
        return f"{epoch}  train: NLL {nll} bits; {gap}{_number(stats, 'train_wall', 0)} s so far"
    if "valid_bleu" in stats:
        best = _number(stats, "valid_best_bleu") or _number(stats, "valid_bleu")
        scores = f"BLEU {_by_direction(stats, 'bleu')}, best {best}; NLL {_by_direction(stats, 'nll_loss')} bits"
    else:
        best = _number(stats, "valid_best_loss", 3) or _number(stats, "valid_loss", 3)
        scores = f"perplexity {_number(stats, 'valid_ppl')} ({_number(stats, 'valid_loss', 3)} bits, best {best})"
    count = sum(int(stats[key]) for key in stats if key.startswith("valid_cut_off_"))
    cut_off = f"{count:,} translations cut off; " if count else ""
    return f"{epoch}  valid: {scores}; {gap}{cut_off}{_number(stats, 'valid_num_updates', 0)} updates"


def _number(stats: dict[str, Any], key: str, digits: int = 2) -> str:
    """The value of a fairseq statistic, rounded; empty when there is none."""
    try:
        return f"{float(str(stats[key])):,.{digits}f}"
    except (KeyError, ValueError):
        return ""


def _by_direction(stats: dict[str, Any], name: str) -> str:
    """The validation value of both directions together, and of each (``de-en ..., en-de ...``) where it was logged."""
    prefix = f"valid_{name}_"
    parts = [
        f"{key.removeprefix(prefix)} {_number(stats, key)}" for key in stats if key.startswith(prefix) and "-" in key
    ]
    return _number(stats, f"valid_{name}") + (f" ({', '.join(parts)})" if parts else "")
