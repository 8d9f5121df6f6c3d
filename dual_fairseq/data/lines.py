"""Raw text, plain or gzip, read line by line."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import select
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, NamedTuple, cast

from ..common.errors import UserError
from ..common.files import LONGEST_LINE, check_regular, lines_of

_BLOCK_LINES = 1000
_BLOCK_BYTES = 1 << 20  # limits memory, because lines may have any length
_PAUSE = 0.1  # seconds without input, after which the received lines are passed on


class Survey(NamedTuple):
    """The results of reading an input file once: its name, the SHA-256 of its text, its number of lines."""

    file: str
    sha256: str
    lines: int


class Rows(NamedTuple):
    """Consecutive rows of a corpus; a row is one line of every side.

    Attributes:
        part: the index of the files that they come from.
        first: the line number of the first row, from 1.
        lines: the rows, without line ends.
    """

    part: int
    first: int
    lines: list[tuple[bytes, ...]]


def _refuse_utf16(beginning: bytes, name: str) -> None:
    """Raises UserError if a text begins like UTF-16: with a byte order mark, or with NUL as every other byte."""
    units = beginning[:64]
    marked = units.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if marked or (len(units) > 3 and 0 in (any(units[0::2]), any(units[1::2]))):
        raise UserError(f"{name}: is UTF-16, not UTF-8; convert it, for example with iconv -f utf-16 -t utf-8")


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzip file (its name ends in ``.gz``); iteration splits the text only at newlines.

    Raises:
        UserError: the gzip file is damaged, or the text is UTF-16.
    """
    with cast(BufferedReader, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")) as file:
        try:
            _refuse_utf16(file.peek(2), str(path))
            yield file
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise UserError(f"{path}: damaged or incomplete gzip file; fetch it or make it again") from None


@contextmanager
def open_input(path: Path | None) -> Iterator[tuple[IO[bytes], str]]:
    """The text of ``--input``, by default standard input, and its name for messages.

    Raises:
        UserError: the file is missing or damaged.
    """
    if path is None:
        yield sys.stdin.buffer, "standard input"
        return
    if not path.exists() or path.is_dir():
        raise UserError(f"--input {path}: there is no such file")
    with open_text(path) as file:
        yield file, str(path)


def survey(path: Path) -> Survey:
    """Read a file once before any work, to check that it can be read, count its lines and notice later changes.

    Raises:
        UserError: the file is missing, unreadable, damaged or empty, or its lines end in carriage returns only.
    """
    check_regular(path)
    digest, newlines, returns, last = hashlib.sha256(), 0, 0, b"\n"
    try:
        with open_text(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                newlines += block.count(b"\n")
                returns += block.count(b"\r")
                last = block[-1:]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not newlines and last == b"\n":
        raise UserError(f"{path}: the file is empty; give text with one sentence per line")
    if not newlines and returns > 1:
        raise UserError(
            f"{path}: lines end in carriage returns only; convert them to newlines, for example with tr '\\r' '\\n'"
        )
    return Survey(str(path), digest.hexdigest(), newlines + (last != b"\n"))


def survey_pair(source: Path, target: Path) -> tuple[Survey, Survey]:
    """:func:`survey` of two files whose lines are translations of each other.

    Raises:
        UserError: as in :func:`survey`, or the files have different numbers of lines.
    """
    here, there = survey(source), survey(target)
    if here.lines != there.lines:
        raise UserError(
            f"{source} has {here.lines:,} lines and {target} has {there.lines:,}: they are not translations of each "
            "other line by line; give files of equal length"
        )
    return here, there


def read_rows(parts: Sequence[Sequence[Path]]) -> Iterator[Rows]:
    """The rows of a corpus in blocks of about a thousand lines or a megabyte.

    Args:
        parts: the corpus's pieces in order, each with one file per side; its files have equal numbers of lines.
    """
    for index, files in enumerate(parts):
        with ExitStack() as stack:
            handles = [stack.enter_context(open_text(file)) for file in files]
            block: list[tuple[bytes, ...]] = []
            first, size = 1, 0
            for row in zip(*map(lines_of, handles, files), strict=True):
                block.append(tuple(line.removesuffix(b"\n") for line in row))
                size += sum(map(len, row))
                if len(block) == _BLOCK_LINES or size > _BLOCK_BYTES:
                    yield Rows(index, first, block)
                    first, size, block = first + len(block), 0, []
            if block:
                yield Rows(index, first, block)


def _lines_and_pauses(stream: IO[bytes], name: str) -> Iterator[bytes | None]:
    """The lines of a stream; None if a pipe or a terminal has no more lines for now."""
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream in memory
        descriptor = -1
    if descriptor < 0 or stat.S_ISREG(os.fstat(descriptor).st_mode):
        yield from lines_of(stream, name)
        return
    buffer = bytearray()
    while chunk := cast(BufferedReader, stream).read1(1 << 16):
        buffer += chunk
        if b"\n" in chunk or len(buffer) >= LONGEST_LINE:
            complete = buffer[: buffer.rfind(b"\n") + 1] or buffer
            yield from lines_of(BytesIO(complete), name)
            del buffer[: len(complete)]
            if not select.select([descriptor], [], [], _PAUSE)[0]:
                yield None
    yield from lines_of(BytesIO(buffer), name)


def read_blocks(stream: IO[bytes], name: str, size: int) -> Iterator[tuple[int, list[str]]]:
    r"""UTF-8 text in blocks of at most ``size`` lines: the number of the first line, from 1, and the lines.

    A pause of a pipe or a terminal also ends a block, because the other end may wait for the answer.

    Args:
        stream: the text.
        name: the name of the text in messages.
        size: the most lines in a block; a block of very long lines has fewer.

    Raises:
        UserError: the text is UTF-16, or a line is not UTF-8; all lines before this line are yielded first.
    """
    first, held = 1, 0
    lines: list[str] = []
    for raw in _lines_and_pauses(stream, name):
        if raw is not None:
            number = first + len(lines)
            if number == 1:
                _refuse_utf16(raw, name)
            try:
                lines.append(raw.removesuffix(b"\n").decode("utf-8"))
            except UnicodeDecodeError as error:
                if lines:
                    yield first, lines
                raise UserError(
                    f"{name}: line {number}: is not UTF-8 (byte {error.start + 1} of the line); convert the text, "
                    "for example with iconv -f latin1 -t utf-8"
                ) from error
            held += len(raw)
        if lines and (raw is None or len(lines) >= size or held > 4 * _BLOCK_BYTES):
            yield first, lines
            first, lines, held = first + len(lines), [], 0
    if lines:
        yield first, lines
