"""Plain-text tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError
from .records import read_record

_NUMBER = (None, float)
# Settings of a search in scores.json, and their names for people.
SEARCH = {"beam": "beam", "lenpen": "length penalty", "search_options": "options", "engine": "engine"}
FAIRSEQ = "fairseq-generate"  # the usual engine; tables do not name it
_LABELS = 20  # columns of a confusion table
_METRICS = {"bleu": "BLEU", "chrf": "chrF"}
_QUALITY = {
    **{f"{name}?": _NUMBER for name in ("bleu", "chrf", "length_ratio", "accuracy")},
    "bleu_signature?": (None, str),
    "confusion?": (None, {str: {str: int}}),
}
_DIRECTION = {
    **_QUALITY,
    "nll_bits_per_token?": _NUMBER,
    "chrf_signature?": (None, str),
    "cut_off?": (None, int),
    "dual_inference?": (None, _QUALITY),
}


def read_scores(path: Path) -> dict[str, Any]:
    """A ``scores.json`` of ``dual-fairseq evaluate``.

    Raises:
        UserError: it cannot be read, or has other content.
    """
    fix = "run dual-fairseq evaluate again"
    scores = read_record(path, {"gap_abs?": _NUMBER, str: (None, str, float, _DIRECTION)}, fix)
    for name, values in scores.items():
        if isinstance(values, dict) and not re.fullmatch(r"\w{1,64}-\w{1,64}", name):  # a part of file names
            raise UserError(f"{path}: is damaged ({name} is not a direction); {fix}")
    return scores


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as plain-text columns: the first two (names) are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def quality(scores: Mapping[str, Any]) -> str:
    """BLEU as a table cell; if the target language is labels or tags, accuracy with a percent sign."""
    bleu, accuracy = scores.get("bleu"), scores.get("accuracy")
    return f"{accuracy:.2f} %" if accuracy is not None else "-" if bleu is None else f"{bleu:.2f}"


def quality_name(scores: Iterable[Any]) -> str:
    """The head of a column of :func:`quality`.

    Args:
        scores: of each system and direction; anything else is ignored.
    """
    return "BLEU or %" if any(isinstance(s, Mapping) and s.get("accuracy") is not None for s in scores) else "BLEU"


def confusion_cells(confusion: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    """The confusion of labels or tags as rows of cells, header first: right ones by line, found ones by column.

    If there are many, only the most frequent are shown.
    """
    predicted = (label for counts in confusion.values() for label in counts)
    names = list(dict.fromkeys([*confusion, *predicted]))[:_LABELS]
    rows = [(right, *(str(counts.get(label, 0)) for label in names)) for right, counts in confusion.items()]
    return [("right label", *(f"found: {label}" for label in names)), *rows[:_LABELS]]


def score_table(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """A table of scores, one line per system and direction.

    Args:
        rows: the name of each system, and its ``scores.json``.
    """
    rows = list(rows)
    bleu = quality_name(value for _, scores in rows for value in scores.values())
    head: tuple[str, ...] = ("direction", "system", bleu, "chrF", "length", "NLL bits/token", "mean |gap| nats")
    rescored = any(isinstance(v, dict) and v.get("dual_inference") for _, scores in rows for v in scores.values())
    if rescored:
        head += (f"dual inference: {bleu}", "length")
    lines: list[tuple[str, ...]] = [head]
    for name, scores in rows:
        gap = scores.get("gap_abs")
        for direction, values in scores.items():
            if isinstance(values, dict):
                numbers = [(values.get("chrf"), 2), (values.get("length_ratio"), 3)]
                numbers += [(values.get("nll_bits_per_token"), 3), (gap, 2)]
                cells = [quality(values), *("-" if n is None else f"{n:.{digits}f}" for n, digits in numbers)]
                if rescored:
                    rescoring = values.get("dual_inference") or {}
                    length = rescoring.get("length_ratio")
                    cells += [quality(rescoring), "-" if length is None else f"{length:.3f}"]
                lines.append((direction, name, *cells))
    directions = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: directions.index(line[0]))
    notes = searches((name, search_of(scores)) for name, scores in rows)
    return "\n".join([aligned(lines), *notes, *signatures(values for _, scores in rows for values in scores.items())])


def search_of(scores: Mapping[str, Any]) -> dict[str, str]:
    """The search settings in a ``scores.json``, by the names of :data:`SEARCH`."""
    return {name: str(scores[name]) for name in SEARCH if scores.get(name) and scores[name] != FAIRSEQ}


def searches(systems: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """The search settings as text, one line per combination.

    Args:
        systems: the name of each, and its settings by the names of :data:`SEARCH`; empty if unknown.
    """
    by_search: dict[str, dict[str, None]] = {}
    for name, settings in systems:
        if settings:
            search = ", ".join(f"{SEARCH[key]} {value}" for key, value in settings.items())
            by_search.setdefault(search, {})[name] = None
    if len(by_search) < 2:
        return [f"Search: {search}" for search in by_search]
    return [f"Search of {', '.join(names)}: {search}" for search, names in by_search.items()]


def signatures(scores: Iterable[tuple[str, Any]]) -> list[str]:
    """The signatures of sacreBLEU, one per line, with the directions that each belongs to.

    Args:
        scores: (direction, its entry in ``scores.json``); other entries are skipped.
    """
    by_signature: dict[str, dict[str, None]] = {}
    for direction, values in scores:
        for metric in ("bleu", "chrf") if isinstance(values, dict) else ():
            if signature := values.get(f"{metric}_signature"):
                by_signature.setdefault(f"{_METRICS[metric]} {signature}", {})[direction] = None
        if isinstance(values, dict) and values.get("accuracy") is not None:
            by_signature.setdefault("%: accuracy", {})[direction] = None
    all_directions = {direction for directions in by_signature.values() for direction in directions}
    return [
        line if len(directions) == len(all_directions) else f"{line} ({', '.join(directions)})"
        for line, directions in sorted(by_signature.items())
    ]
