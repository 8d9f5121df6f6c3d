"""A lack of memory ends in one line."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

# What PyTorch, the operating system and its loader of libraries say.
_LACK = "DefaultCPUAllocator|std::bad_alloc|Cannot allocate memory|failed to map segment|can't start new thread"


@contextmanager
def enough_memory() -> Iterator[None]:
    """Inside, what Python and PyTorch raise when the machine's memory does not suffice becomes one error.

    Raises:
        UserError: it does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        allocator = re.search(_LACK, str(error))
        if not (allocator or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM):
            raise
        wanted = re.search(r"tried to allocate (\d+) bytes", str(error))
        amount = f" ({int(wanted[1]) / 2**20:,.0f} MB more were wanted)" if wanted else ""
        raise UserError(
            f"there is not enough memory{amount}: give a smaller --max-tokens or a smaller model, or raise the limit "
            "(ulimit -v)"
        ) from error
