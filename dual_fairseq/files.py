"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
