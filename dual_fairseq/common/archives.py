"""Refuses a checkpoint whose archive would become larger in memory than the file, before torch reads it."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

_FILE = b"PK\3\4"
_END = struct.Struct("<4s4H2LH")  # of the archive: ..., size and start of the directory, length of a comment
_END_64 = struct.Struct("<4sQ2H2L4Q")  # of a large archive: ..., size and start of the directory
_LOCATOR = struct.Struct("<4sLQL")  # of _END_64, between the two: ..., its start, ...


def check_archive(file: BinaryIO) -> None:
    """Check a file of ``torch.save``, which never compresses, and go back to its start.

    Raises:
        ValueError: the file has the format of PyTorch before 1.6, in which weights may be missing; it is damaged; it is
            compressed, or its parts claim more than its size.
    """
    size = os.fstat(file.fileno()).st_size
    if file.read(4) != _FILE:
        raise ValueError("it is no archive of PyTorch 1.6 or newer; SECURITY.md says how to write an older file again")
    if not _whole(file, size):
        raise ValueError("the end of the archive is missing or damaged")
    with zipfile.ZipFile(file) as archive:
        claimed = sum(info.file_size for info in archive.infolist())
    if claimed > size:
        raise ValueError("it is compressed, or its parts claim to be larger than the file")
    file.seek(0)


def _whole(file: BinaryIO, size: int) -> bool:
    """Whether the archive's directory is at its end, where it says; otherwise two programs may find different ones."""
    file.seek(max(size - _END.size - _LOCATOR.size - _END_64.size, 0))
    tail = file.read()
    if len(tail) < _END.size:
        return False
    end = size - _END.size
    magic, *_, length, start, comment = _END.unpack(tail[-_END.size :])
    if magic != b"PK\5\6" or comment:
        return False
    rest = tail[: -_END.size]
    if rest[-_LOCATOR.size :].startswith(b"PK\6\7"):
        if len(rest) < _LOCATOR.size + _END_64.size:
            return False
        end -= _LOCATOR.size + _END_64.size
        located = _LOCATOR.unpack(rest[-_LOCATOR.size :])[2]
        magic, *_, length, start = _END_64.unpack(rest[: _END_64.size])
        if magic != b"PK\6\6" or located != end:
            return False
    return start + length == end
