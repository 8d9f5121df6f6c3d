"""The table that ``dual-fairseq score`` writes and ``dual-fairseq filter`` reads: one line per sentence pair."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..common.errors import UserError
from ..common.files import lines_of
from ..data.lines import Survey, open_text, survey
from ..plugin.ranking import LARGEST

CONDITIONALS = ("log_p_y_given_x", "log_p_x_given_y")
LOG_PROBS = (*CONDITIONALS, "log_p_x", "log_p_y")
COUNTS = ("tokens_x", "tokens_y", "unknown_x", "unknown_y")
COLUMNS = ("line", *COUNTS, *LOG_PROBS, "gap", *(f"{name}_per_token" for name in (*LOG_PROBS, "gap")), "note", "text")
DIGITS = 16  # of the digest of a text


def write_head(file: IO[bytes]) -> None:
    """Write the first line, the names of the columns."""
    file.write("\t".join(COLUMNS).encode() + b"\n")


def write_rows(file: IO[bytes], first: int, columns: Mapping[str, np.ndarray], text: str = "") -> None:
    """Write a block of the table.

    Args:
        file: the table.
        first: the line number of the block's first pair.
        columns: (N,) each, all of ``COLUMNS`` except ``line`` and ``text``; NaN makes an empty cell.
        text: for the first line of the table: see :func:`name_text`.
    """
    count = len(columns["note"])
    cells: list[list[str]] = []
    for name in COLUMNS:
        if name == "line":
            cells.append([str(line) for line in range(first, first + count)])
        elif name == "text":
            cells.append([text if line == 1 else "" for line in range(first, first + count)])
        elif name == "note":
            cells.append(columns[name].tolist())
        else:
            digits = 0 if name in COUNTS else 5 if name.endswith("_per_token") else 4
            cells.append([f"{value:.{digits}f}" if math.isfinite(value) else "" for value in columns[name].tolist()])
    file.writelines(("\t".join(row) + "\n").encode() for row in zip(*cells, strict=True))


def name_text(languages: Sequence[str], texts: Sequence[Survey]) -> str:
    """The scored text: the language and the digest of each side, such as ``de=0123456789abcdef en=...``."""
    return " ".join(f"{lang}={text.sha256[:DIGITS]}" for lang, text in zip(languages, texts, strict=True))


def scored_text(path: Path) -> list[tuple[str, str]]:
    """The language and the digest of each side of the text that a table has scores of; none if it does not say."""
    with open_text(path) as file:
        head = file.readline().rstrip(b"\r\n").split(b"\t")
        if b"text" not in head:
            return []
        named = {raw.rstrip(b"\r\n").split(b"\t")[head.index(b"text")] for raw in lines_of(file, path)} - {b""}
    if len(named) != 1:  # several texts: another program joined tables
        return []
    found = re.findall(r"(?<!\w)(\w+)=([0-9a-f]+)", named.pop().decode("utf-8", "replace"))
    return found if len(found) == 2 else []


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read a table of scores.

    Returns:
        ``line``, (N,) int64; the log-probabilities and token counts, each (N,) float64, NaN for an empty cell.

    Raises:
        UserError: the file is no table of scores, or damaged.
    """
    wanted = ("line", "tokens_x", "tokens_y", *LOG_PROBS)
    values = {name: array("d") for name in wanted}
    survey(path)  # refuses unreadable files
    try:
        with open_text(path) as file:
            head = file.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
            if missing := [name for name in wanted if name not in head]:
                raise UserError(
                    f"{path}: its first line names no column {missing[0]}; give a table of dual-fairseq score"
                )
            positions = [(head.index(name), values[name]) for name in wanted]
            for number, raw in enumerate(lines_of(file, path), start=2):
                cells = raw.rstrip(b"\r\n").split(b"\t")
                if len(cells) != len(head):
                    raise UserError(f"{path}: line {number} has {len(cells)} cells, the first line {len(head)}")
                for index, column in positions:
                    column.append(float(cells[index]) if cells[index] else math.nan)
    except ValueError as error:
        raise UserError(f"{path}: line {number}: {error}") from error
    columns = {name: np.array(column) for name, column in values.items()}
    wrong = np.logical_or.reduce([np.abs(column) > LARGEST for column in columns.values()])
    wrong |= (columns["tokens_x"] < 1) | (columns["tokens_y"] < 1)
    if wrong.any():
        raise UserError(f"{path}: line {int(wrong.argmax()) + 2}: has a number that no score or count can be")
    if not len(columns["line"]):
        raise UserError(f"{path}: holds no scores")
    if not np.array_equal(np.sort(columns["line"]), np.arange(1, len(columns["line"]) + 1)):
        raise UserError(f"{path}: its lines are not numbered 1 to {len(columns['line']):,}; give the whole table")
    order = np.argsort(columns["line"])  # another program may have sorted it
    columns = {name: column[order] for name, column in columns.items()}
    columns["line"] = columns["line"].astype(np.int64)
    return columns
