"""Reads whole text files; writes files completely or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any, AnyStr

from .errors import UserError
from .progress import say

LONGEST_LINE = 1 << 26  # characters or bytes; a small .gz file may hold an endless line
# Files of a run and of training data that no command replaces by an output with a name that the user chose.
_KEPT = (
    "checkpoint_best.pt", "checkpoint_last.pt", "checkpoint_average.pt", "checkpoint[0-9]*.pt", "checkpoint_[0-9]*.pt",
    "checkpoint.best_*.pt", "train.toml", "options.txt", "train.log", "finished", "scores.json", "preprocess.json",
    "lengths.json", "dict.txt", "dict.*.txt", "codes.*", "sentencepiece.*.model", "truth.json",
)  # fmt: skip
_STREAM = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AnyPath = str | os.PathLike[str]


class CannotWrite(UserError):
    """A file cannot be written.

    Args:
        path: the file.
        reason: what the operating system says.
    """

    def __init__(self, path: Path, reason: OSError) -> None:
        self._of = path, reason
        self.reason = reason.strerror or str(reason)
        if not path.parent.is_dir():
            super().__init__(f"{path}: cannot be written: there is no folder {path.parent}; make it first")
        else:
            super().__init__(f"{path}: cannot be written ({self.reason}); make room there or choose another place")

    def __reduce__(self) -> tuple[type[CannotWrite], tuple[Path, OSError]]:  # a worker process sends it to its parent
        return CannotWrite, self._of


def check_output(path: AnyPath, inputs: Iterable[AnyPath | None] = ()) -> None:
    """Refuse to write a file that the user named over something that the user would miss.

    Args:
        path: the file to write.
        inputs: the files that the command reads; None and missing files are skipped.

    Raises:
        UserError: ``path`` is a folder, the same file as one of the inputs, or a checkpoint or a record of a run or of
            training data, by its name.
    """
    path = Path(path)
    _refuse_folder(path)
    for file in inputs:
        if file is not None and path.is_file() and os.path.exists(file) and path.samefile(file):
            raise UserError(f"{path}: is the same file as the input {file}; write to another file")
    if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _KEPT):
        raise UserError(f"{path}: exists, and has the name of a file of a run or of its data; write to another file")


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")


@contextmanager
def whole_file(path: AnyPath, keep_partial: bool = False) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete and on the disk; until then the old file stays.

    Several processes may write a file of the same name at once. Leftovers of a killed process are removed the next time
    the file is written.

    Args:
        path: the file. A device, a named pipe or an open stream such as ``/dev/stdout`` is written directly.
        keep_partial: after an error, keep the written part as ``<path>.partial``.

    Raises:
        UserError: ``path`` is a folder.
        CannotWrite: the disk is full, the folder is missing, or writing is not permitted.
    """
    path = Path(path)
    _refuse_folder(path)
    if path.exists() and (not path.is_file() or _STREAM.fullmatch(os.path.abspath(path))):
        with open(path, "ab") as device:
            yield device
        return
    try:
        file = _unfinished(path)
    except OSError as error:
        raise CannotWrite(path, error) from error
    complete = False
    try:
        with file:
            yield file
            complete = True
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except BaseException as error:
        if keep_partial and os.path.getsize(file.name):
            os.replace(file.name, f"{path}.partial")
            say(f"the finished part is in {path}.partial")
        else:
            Path(file.name).unlink(missing_ok=True)
        reason = error if complete and isinstance(error, OSError) else _failed_write(error)
        if reason is not None:
            raise CannotWrite(path, reason) from error
        raise
    _remove_leftovers(path)


def _unfinished(path: Path) -> IO[bytes]:
    """A new file beside ``path``, locked while its process lives, so that other processes know whether it lives."""
    while True:
        file = open(path.with_name(f".{path.name}.{uuid.uuid4().hex}"), "xb")  # noqa: SIM115
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # nobody removed it before it was locked
            return file
        file.close()


def _failed_write(error: BaseException | None) -> OSError | None:
    """The lack of room that caused an error: PyTorch raises a RuntimeError for it, NumPy an OSError without errno."""
    if isinstance(error, RuntimeError):
        error = error.__context__
    if isinstance(error, OSError) and (error.errno in _NO_ROOM or (error.errno is None and type(error) is OSError)):
        return error
    return None


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def write_text(path: AnyPath, text: str, errors: str = "surrogateescape") -> None:
    """Write a text file with :func:`whole_file`. It may name files whose names are not UTF-8."""
    with whole_file(path) as file:
        file.write(text.encode(errors=errors))


def write_json(path: AnyPath, content: Any) -> None:
    """Write a JSON file with :func:`whole_file`."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n", "backslashreplace")  # still JSON


def refuse_link(file: Path) -> None:
    """Raises UserError if a file whose text will be published is a link: it may lead to any file of the user."""
    if file.is_symlink():
        raise UserError(f"{file}: is a link; if its text may be shown to others, replace the link with its file")


def read_lines(path: AnyPath) -> list[str]:
    r"""The lines of a text file, split only at ``\n``: a sentence may contain other Unicode line separators.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    try:
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 (byte {error.start}); convert it, for example with iconv -f latin1"
        ) from error
    if lines[-1] == "":
        lines.pop()
    return lines


def count_lines(path: AnyPath) -> int:
    """The number of lines of a text file; the last one may lack a line end."""
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def lines_of(stream: IO[AnyStr], name: AnyPath) -> Iterator[AnyStr]:
    """The lines of a stream with their line ends; no line may take all memory.

    Args:
        name: the text's name, for the message.

    Raises:
        UserError: a line is longer than :data:`LONGEST_LINE`.
    """
    while line := stream.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise UserError(
                f"{name}: has a line of more than {LONGEST_LINE >> 20} MB; give text with a sentence a line"
            )
        yield line


def check_regular(path: AnyPath) -> None:
    """Raise a UserError for a pipe or a device: reading it may never end, or cannot be repeated."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{path}: is a pipe or a device; give a regular file")


def sha256(path: AnyPath) -> str:
    """The SHA-256 digest of a file, in hexadecimal.

    Raises:
        UserError: see :func:`check_regular`.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
