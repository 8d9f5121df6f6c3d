"""Files that are there whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_A_DAY = 24 * 60 * 60


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when it is complete; what is left of one after an error is removed.

    Args:
        path: its name; a file of that name stays as it is until then.
        sync: whether it has to be on the disk by then, so that not even a crash of the machine leaves a part of it.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(OSError):  # by a process that was killed; a younger one may still be written
            if time.time() - left.stat().st_mtime > _A_DAY:
                left.unlink()


def sha256(path: Path) -> str:
    """The digest of its content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
