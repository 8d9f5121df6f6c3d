"""Chooses options that the user left out, by the size of the corpus: see :mod:`dual_fairseq.common.settings`.

A resumed training keeps its original settings, even if the table has changed since.
"""

from __future__ import annotations

import argparse
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.arguments import decimal, positive
from ..common.errors import UserError
from ..common.folders import RECORD, Data, RunFolder, StageFolder
from ..common.options import flag
from ..common.progress import duration
from ..common.settings import REASONS, UNMEASURED, language_model_settings, pair_settings
from .presets import LANGUAGE_MODELS, PAIRS

BEGUN = "as it was begun"
ENOUGH_UPDATES = 60  # between two validations; an epoch of 3,000 pairs has this many
CHARACTERS = 4  # a batch has this many times more tokens if they are characters: about as much text
_HEAD = struct.Struct("<9sQBQ")  # start of fairseq's memory-mapped index: magic, version, type, length
# option of train-lm → option of fairseq-train
_LANGUAGE_MODEL = {
    "dropout": "dropout", "max_tokens": "max-tokens", "lr": "lr", "lr_warmup": "warmup-updates",
    "max_update": "max-update", "max_epoch": "max-epoch",
}  # fmt: skip
_PAIR = {"dropout": "dropout", "max_tokens": "max-tokens", "lr_warmup": "warmup-updates"}
_NUMBERS = {
    "dropout": decimal, "lr": decimal, "max-tokens": positive, "warmup-updates": positive, "max-update": positive,
    "max-epoch": positive,
}  # fmt: skip
_OF_STAGE = {
    "warmup": {"lr": "lr", "warmup_max_update": "max-update", "warmup_max_epoch": "max-epoch"},
    "dual": {"dual_lr": "lr", "dual_max_update": "max-update", "dual_max_epoch": "max-epoch"},
}


def sizes_of(index: Path) -> array[int]:
    """The number of tokens of each sentence of a binarized side.

    Raises:
        UserError: the file is no index of fairseq-preprocess.
    """
    with open(index, "rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(b"MMIDIDX"):
            raise UserError(f"{index}: is not an index of binarized text; run dual-fairseq preprocess again")
        sizes = array("i")
        try:
            sizes.fromfile(file, min(_HEAD.unpack(head)[3], index.stat().st_size))
        except (EOFError, ValueError):
            raise UserError(f"{index}: was cut short; run dual-fairseq preprocess again") from None
    return sizes


def count_pairs(data: Data) -> int:
    """The number of sentence pairs that people wrote, without pairs that models made."""
    counts = data.record.get("counts")
    train = counts.get("train") if isinstance(counts, dict) else None
    kept = train.get("kept") if isinstance(train, dict) else None
    return kept if type(kept) is int and kept > 0 else len(sizes_of(data.index("train", data.source)))


def recorded(stage: StageFolder) -> dict[str, str | None]:
    """The options of fairseq-train that a training began with; the user's options after ``--`` do not override them.

    None means no limit. Empty if the training has not begun.

    Raises:
        UserError: an option that needs a number has another value.
    """
    options: dict[str, str | None] = {}
    for name, value in stage.option_values():
        try:
            if name in _NUMBERS and name not in options and value != "none":
                _NUMBERS[name](value)
        except argparse.ArgumentTypeError as error:
            raise UserError(
                f"{stage.options_file}: is damaged (--{name} {error}); delete {stage.folder} to train again"
            ) from error
        options.setdefault(name, None if name == "max-update" and value == "none" else value)
    return options


class Choices:
    """Gives values to options, and remembers the reasons.

    Args:
        options: None for each option that was not given.
        measured: whether the settings of the table were measured.
        prefix: begins the option names that are printed.
    """

    def __init__(self, options: argparse.Namespace, measured: bool, prefix: str = "") -> None:
        self.options, self.measured, self.prefix = options, measured, prefix
        self.reasons: dict[str, str] = {}

    def take(self, values: Mapping[str, str | None], reason: str | None = None) -> None:
        """Give these values to the options that have none yet; the default reason is the table's."""
        for name, value in values.items():
            if getattr(self.options, name) is None and name not in self.reasons:
                setattr(self.options, name, value)
                self.reasons[name] = UNMEASURED if reason is None and not self.measured else reason or REASONS[name]

    def keep_limits(self, *names: str) -> None:
        """If one of the limits is known, leave the others unlimited."""
        if any(getattr(self.options, name) is not None for name in names):
            self.take(dict.fromkeys(names), "no limit")

    def lines(self) -> list[str]:
        """The chosen values, one line per option."""
        chosen = [
            (f"{flag(self.prefix + name)} {value}", reason)
            for name, reason in self.reasons.items()
            if (value := getattr(self.options, name)) is not None
        ]
        width = max((len(option) for option, _ in chosen), default=0)
        return [f"  {option:{width}}  {reason}".rstrip() for option, reason in chosen]


def _begun(found: Mapping[str, str | None], names: Mapping[str, str]) -> dict[str, str | None]:
    """The recorded values of options, by their own names; no limit on record is no limit."""
    limits = ("max-update", "max-epoch")
    return {name: found.get(option) for name, option in names.items() if option in found or option in limits}


def begun_pair(options: argparse.Namespace, run: RunFolder) -> dict[str, str | None]:
    """The options of those stages of a run that have begun."""
    values: dict[str, str | None] = {}
    for stage, names in _OF_STAGE.items():
        begun = recorded(run.stage(stage))
        if not begun:
            continue
        values |= {name: value for name, value in _begun(begun, _PAIR | names).items() if name not in values}
        if options.arch == "transformer" and (size := size_of(begun)):
            values.setdefault("size", size)
    return values


def size_of(found: Mapping[str, str | None]) -> str | None:
    """The size of a pair's Transformers; None if their size has no name."""
    return next((name for name, preset in PAIRS.items() if preset.shape().items() <= found.items()), None)


def choose_pair(options: argparse.Namespace, data: Data, run: RunFolder) -> list[str]:
    """Complete the options of ``dual-fairseq train``.

    Returns:
        Lines that say what was chosen, and why.
    """
    pairs = count_pairs(data)
    row = pair_settings(pairs)
    choices = Choices(options, row.measured)
    characters = CHARACTERS if any(side.subword == "char" for side in data.sides.values()) else 1
    choices.take(begun_pair(options, run), BEGUN)
    limits = {stage: limits_of(stage) for stage in ("warmup", "dual")}
    for names in limits.values():
        choices.keep_limits(*names)
    if options.arch != "transformer":
        choices.take({"size": None, "dropout": None}, "its own")
    elif options.shape is None:
        choices.take({"size": row.size})
    if options.size not in (row.size, None) or options.arch != "transformer":
        size = options.size or "small"
        preset = PAIRS[size]
        values = {"dropout": preset.dropout} if options.size else {}
        values |= {"lr": preset.lr, "lr_warmup": preset.lr_warmup, "dual_lr": preset.dual_lr}
        choices.take(values, f"of --size {size}")
    else:
        choices.take({name: getattr(row, name) for name in ("dropout", "lr", "lr_warmup", "dual_lr")})
    choices.take({"max_tokens": str(characters * int(row.max_tokens))})
    for names in limits.values():
        choices.take({name: getattr(row, name) for name in names})
    lines = choices.lines()
    updates = updates_an_epoch(data, options.max_tokens)
    for stage in limits if not options.warmup_only else ["warmup"]:
        lines += short_limit(options, limits[stage], updates, stage)
    return [f"Settings for {pairs:,} sentence pairs (docs/settings.md):", *lines]


def choose_language_model(options: argparse.Namespace) -> list[str]:
    """Complete the options of ``dual-fairseq train-lm``.

    Args:
        options: of train-lm; ``prefix`` begins their names in ``dual-fairseq train``.

    Returns:
        Lines that say what was chosen, and why.
    """
    sizes = sizes_of(options.data / "train.idx")
    sentences = len(sizes)
    row = language_model_settings(sentences)
    choices = Choices(options, row.measured, options.prefix)
    if begun := recorded(StageFolder(options.save_dir)):
        values = _begun(begun, _LANGUAGE_MODEL)
        presets, dimension = LANGUAGE_MODELS[options.arch], begun.get("decoder-embed-dim")
        values["size"] = next((name for name, preset in presets.items() if preset.dimension == dimension), None)
        choices.take({name: value for name, value in values.items() if name != "size" or value}, BEGUN)
    choices.keep_limits("max_update", "max_epoch")
    choices.take({"size": row.size})
    if options.size == row.size and options.arch != "transformer":
        choices.take({name: getattr(row, name) for name in ("dropout", "lr", "lr_warmup")})
    else:
        preset = LANGUAGE_MODELS[options.arch][options.size]
        choices.take({"dropout": preset.dropout, "lr": preset.lr, "lr_warmup": "400"}, f"of --size {options.size}")
    characters = CHARACTERS if subword_of(options.data) == "char" else 1
    choices.take({"max_tokens": str(characters * int(row.max_tokens))})
    limits = ("max_update", "max_epoch")
    defaults = {name: getattr(row, name) for name in limits if getattr(options, name) is None}
    choices.take(defaults)
    updates = max(sum(sizes) / int(options.max_tokens), 1)
    last, name = last_update(options, limits, updates)
    if name in defaults and choices.reasons.get("lr_warmup") not in (None, BEGUN) and last < 2 * int(options.lr_warmup):
        options.lr_warmup = str(max(last // 2, 1))
        choices.reasons["lr_warmup"] = f"half of about {last:,} updates"
    lines = [*choices.lines(), *short_limit(options, limits, updates, "training", options.prefix)]
    return [f"Settings for {sentences:,} sentences (docs/settings.md):", *lines]


def limits_of(stage: str) -> tuple[str, str]:
    """The names of a stage's limits of updates and of epochs; mle uses those of dual training."""
    prefix = "warmup" if stage == "warmup" else "dual"
    return f"{prefix}_max_update", f"{prefix}_max_epoch"


def last_update(options: argparse.Namespace, names: tuple[str, str], updates: float) -> tuple[int, str | None]:
    """The last update of a training, and the option that sets this limit; 0 and None if there is no limit.

    Args:
        names: the options that limit updates and epochs.
        updates: about how many updates an epoch has.
    """
    limits = [
        (round(int(value) * factor), name)
        for name, factor in zip(names, (1.0, updates), strict=True)
        if (value := getattr(options, name))
    ]
    return min(limits, default=(0, None))


def longest_time(options: argparse.Namespace, data: Data, stages: Sequence[str], seconds: float) -> str:
    """How long the stages of a pair take at most, as one line.

    Args:
        options: of ``dual-fairseq train``, complete.
        stages: their names.
        seconds: for one update.
    """
    epoch = updates_an_epoch(data, options.max_tokens)
    times = []
    rounds = int(options.rounds or 0)
    for stage in stages:
        last, name = last_update(options, limits_of(stage), epoch)
        title = f"{stage} in each round" if stage == "dual" and rounds else stage
        if rounds and stage != "warmup" and name and name.endswith("max_epoch"):
            times.append(f"{title} depends on the translated text")
            continue
        last *= max(rounds, 1) if stage == "mle" else 1  # as many as all rounds
        times.append(f"{title} {duration(last * seconds)} ({last:,} updates)" if name else f"{title} has no limit")
    return f"Time on this CPU, at most, without language models, validation and evaluation: {', '.join(times)}"


def short_limit(
    options: argparse.Namespace, names: tuple[str, str], updates: float, what: str, prefix: str = ""
) -> list[str]:
    """A warning if a training ends before its learning rate reaches its peak.

    Args:
        names: the options that limit updates and epochs.
        updates: about how many updates an epoch has.
        what: the name of the training.
        prefix: begins the option names that are printed.
    """
    last, name = last_update(options, names, updates)
    if name is None or last >= int(options.lr_warmup):
        return []
    limit = f"{flag(prefix + name)} {getattr(options, name)}"
    return [
        f"warning: {what} ends at {limit}, about update {last:,}, before the learning rate reaches its peak "
        f"(--{prefix}lr-warmup {options.lr_warmup}): raise the one or lower the other"
    ]


def subword_of(data: Path) -> str | None:
    """The subword method of a language model's text (DEST/lm/<language>); None if the text has no record of it."""
    data = data.absolute()
    folder = data.parent.parent
    side = Data.from_folder(folder).sides.get(data.name) if (folder / RECORD).is_file() else None
    return side.subword if side else None


def shares_embeddings(data: Data, run: RunFolder, start: Path | None = None) -> bool:
    """Whether both sides share one set of embeddings: if they have a common dictionary for their common words.

    Args:
        start: the checkpoint that training starts from; its stage decides if no stage of the run has begun.
    """
    for stage in (run.stage("warmup"), run.stage("dual"), *([StageFolder(start.parent)] if start else [])):
        if begun := recorded(stage):
            return "share-all-embeddings" in begun
    return data.shares_words


def validation_interval(
    data: Data, stage: StageFolder, max_tokens: str, max_epoch: str | None, extra: list[str], average: str | None = None
) -> list[str]:
    """Options for little text: several epochs between two validations.

    A checkpoint is written after each epoch, so that a run that is stopped loses little.

    Args:
        max_epoch: with this limit, each epoch is validated, because fairseq might not validate the last one otherwise.
        extra: the user's options, which may set an interval themselves.
        average: how many of the last checkpoints will be averaged; if several, they are only written after validations.
    """
    if any(word.startswith(("--validate-interval", "--save-interval")) for word in extra):
        return []
    if begun := recorded(stage):
        interval, saved = begun.get("validate-interval") or "1", begun.get("save-interval")
    else:
        updates = updates_an_epoch(data, max_tokens)
        interval = "1" if max_epoch else str(int(ENOUGH_UPDATES / max(updates, 1)))
        saved = interval if int(average or 1) > 1 else None
    words = [] if interval in ("0", "1") else ["--validate-interval", interval]
    return words + (["--save-interval", saved] if words and saved else [])


def updates_an_epoch(data: Data, max_tokens: str) -> float:
    """About how many updates one process makes in an epoch of the pairs."""
    sides = [sizes_of(data.index("train", language)) for language in data.languages]
    return sum(map(max, *sides)) / int(max_tokens)
