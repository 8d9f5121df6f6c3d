"""Shows the useful lines of a fairseq log: each validation, each epoch, and sometimes a sign of life."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ..common.progress import duration, time_to_go

# Metrics of validation: fairseq's name → the usual name.
_RISING = {"accuracy": "accuracy", "bleu": "BLEU"}
ENOUGH = 10  # updates, to know their speed
INTERVAL = 30.0  # seconds between two signs of life
# Messages of fairseq or the plugin about the input or the course of a run: their beginnings (PARTS: parts of them).
STOPPING = ("early stop since", "Stopping training due to", "stopping training because current learning rate")
NOTES = (
    "loading pretrained model",
    "Loaded checkpoint",
    "LM scores of ",
)
PATIENCE = "stopped by --patience"  # start of the reason if --patience stopped a training
PARTS = (
    "start from the vectors in",
    "was trained with --sample-break-mode",
    "was not found and not compared",
    "will be skipped",
)


class TrainingDisplay:
    """Prints the useful lines of fairseq-train's log (``--log-format json``) in short.

    Args:
        max_update, max_epoch: the limits of the training; None for no limit.
    """

    def __init__(self, max_update: str | None = None, max_epoch: str | None = None) -> None:
        self._shown = time.monotonic()
        self._seen: set[tuple[object, ...]] = set()  # each process of a distributed run logs the same
        self._max_update, self._max_epoch = (int(n) if n and n.isdecimal() else 0 for n in (max_update, max_epoch))
        self._began: tuple[float, float] | None = None  # time and number of the first update that was seen
        self._epoch = 0.0  # updates per epoch
        self._validating = 0.0  # when the last validation began
        self._in_validation = 0.0  # seconds, in all validations
        self._validation: float | None = None  # seconds of the last validation
        self._valid: list[dict[str, Any]] = []
        self._train: dict[str, Any] = {}
        self._messages: list[str] = []

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
            self._measure(tag, stats)
            if tag == "train":
                self._train = stats
            elif tag == "valid" and key not in self._seen:
                self._valid.append(stats)
                self._validation = time.monotonic() - self._validating
                self._in_validation += self._validation
            to_go = self._to_go(_updates(tag, stats))
            if tag != "train_inner" or time.monotonic() - self._shown >= INTERVAL:
                text = describe(tag, stats, self._total()) + ("" if tag == "train" else to_go)
        elif message.startswith("begin validation"):
            self._validating = time.monotonic()
            text = "  validation has begun"  # only the first one: it can take longer than an epoch, without any output
        elif message.startswith(STOPPING):
            self._messages.append(message)
        elif message.startswith(NOTES) or any(part in message for part in PARTS):
            text = f"  {message}"
        if text is not None and (tag == "train_inner" or key not in self._seen):
            if tag != "train":  # the line of an epoch does not say how much is left
                self._shown = time.monotonic()
            print(text, flush=True)
        if text is not None:
            self._seen.add(key)

    def _measure(self, tag: str, stats: dict[str, Any]) -> None:
        """Note how many updates an epoch has."""
        try:
            epochs = float(str(stats["update" if tag == "train_inner" else "epoch"]))
        except (KeyError, ValueError):
            return
        updates = _updates(tag, stats)
        if updates and epochs > 0 and (tag != "valid" or not self._epoch):
            self._epoch = updates / epochs

    def _total(self) -> float:
        """The most updates that the training can make; 0 if there is no limit."""
        return min(filter(None, (self._max_update, self._max_epoch * self._epoch)), default=0)

    def _to_go(self, made: float | None) -> str:
        """How long the rest takes at most, at the speed so far, including validations.

        Args:
            made: updates so far.
        """
        if made is None:
            return ""
        now = time.monotonic()
        if self._began is None or made < self._began[1]:
            self._began, self._in_validation = (now, made), 0.0
        seconds, updates = now - self._began[0] - self._in_validation, made - self._began[1]
        total = self._total()
        if updates < ENOUGH or total <= made:
            return ""
        left = (total - made) * seconds / updates
        if self._validation is None:
            return f", at most {duration(left)} to go without validation"
        validations = max(1, round((total - made) * len(self._valid) / made))
        return f", at most {duration(left + validations * self._validation)} to go"

    def reason(self, option: Callable[[str], str]) -> str:
        """Why the training ended, in words.

        Args:
            option: what the user types for an option of fairseq-train (without its dashes).
        """
        messages = " ".join(self._messages)
        if "early stop since" in messages:
            return f"{PATIENCE}: the last validations brought no improvement"
        if "num_updates:" in messages:
            reason = f"stopped by {option('max-update')} {self._max_update or ''}".rstrip()
        elif "cumulative_training_time" in messages:
            reason = "stopped by --stop-time-hours"
        elif "learning rate" in messages:
            reason = "stopped by --stop-min-lr"
        elif self._max_epoch and int(self._train.get("epoch") or 0) >= self._max_epoch:
            reason = f"stopped by {option('max-epoch')} {self._max_epoch}"
        else:
            return "finished"
        return reason + self._still_improving()

    def _still_improving(self) -> str:
        """A hint if the last validation was the best so far; fairseq logs the first validation without a best."""
        for key, name in (*_RISING.items(), ("loss", "perplexity")):
            values = [(s[f"valid_{key}"], s.get(f"valid_best_{key}")) for s in self._valid if f"valid_{key}" in s]
            if values:
                value, best = values[-1]
                improving = value == best and (len(values) == 1 or value != values[-2][0])
                course = "falling" if key == "loss" else "rising"
                return f"; {name} was still {course}: more updates would help" if improving else ""
        return ""


class SentenceDisplay:
    """Prints from time to time how many sentences fairseq-generate has translated.

    Args:
        total: the number of all sentences.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, time.monotonic()
        self._first: float | None = None

    def __call__(self, line: str) -> None:
        self._done += line.startswith("S-")  # an n-best list has an H- line for each translation
        if self._done and self._first is None:
            self._first = time.monotonic()
        if time.monotonic() - self._shown >= INTERVAL:
            self._shown = time.monotonic()
            # timed from the first sentence on, when the models are loaded
            to_go = time_to_go(self._shown - (self._first or 0), self._done - 1, self._total - 1)
            print(f"  {self._done:,} of {self._total:,} sentences{to_go}", flush=True)


def describe(tag: str, stats: dict[str, Any], total: float = 0) -> str:
    """One line for one record of fairseq's JSON log.

    Args:
        total: the number of all updates; 0 if it is not known.
    """
    epoch = f"  epoch {stats.get('epoch', '?'):>3}"
    of_total = f" of {total:,.0f}" if total else ""
    if tag == "train_inner":
        return (
            f"{epoch}  update {_number(stats, 'num_updates', 0)}{of_total}, loss {_number(stats, 'loss')}, "
            f"{_number(stats, 'wps', 0)} tokens/s"
        )
    gap = _number(stats, f"{tag}_gap_abs")
    gap = f"mean |gap| {gap} nats; " if gap else ""
    if tag == "train":
        nll = _number(stats, "train_nll_loss") or _number(stats, "train_loss")
        return f"{epoch}  train: NLL {nll} bits; {gap}{_number(stats, 'train_wall', 0)} s so far"
    if key := next((key for key in _RISING if f"valid_{key}" in stats), None):
        best = _number(stats, f"valid_best_{key}") or _number(stats, f"valid_{key}")
        scores = f"{_RISING[key]} {_by_direction(stats, key)}, best {best}; NLL {_by_direction(stats, 'nll_loss')} bits"
    else:
        best = _number(stats, "valid_best_loss", 3) or _number(stats, "valid_loss", 3)
        scores = f"perplexity {_number(stats, 'valid_ppl')} ({_number(stats, 'valid_loss', 3)} bits, best {best})"
    count = sum(int(stats[key]) for key in stats if key.startswith("valid_cut_off_"))
    cut_off = f"{count:,} translations cut off; " if count else ""
    return f"{epoch}  valid: {scores}; {gap}{cut_off}{_number(stats, 'valid_num_updates', 0)}{of_total} updates"


def _updates(tag: str, stats: dict[str, Any]) -> float | None:
    """The updates so far; None if the record has no number of them."""
    try:
        return float(str(stats["num_updates" if tag == "train_inner" else f"{tag}_num_updates"]))
    except (KeyError, ValueError):
        return None


def _number(stats: dict[str, Any], key: str, digits: int = 2) -> str:
    """The value of a fairseq statistic, rounded; empty if there is none."""
    try:
        return f"{float(str(stats[key])):,.{digits}f}"
    except (KeyError, ValueError):
        return ""


def _by_direction(stats: dict[str, Any], name: str) -> str:
    """The validation value of both directions together, and of each (``de-en ..., en-de ...``) if it was logged."""
    prefix = f"valid_{name}_"
    parts = [
        f"{key.removeprefix(prefix)} {_number(stats, key)}" for key in stats if key.startswith(prefix) and "-" in key
    ]
    return _number(stats, f"valid_{name}") + (f" ({', '.join(parts)})" if parts else "")
