"""One line for a lack of memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

# Messages of PyTorch, the operating system and its library loader.
_LACK = "DefaultCPUAllocator|std::bad_alloc|Cannot allocate memory|failed to map segment|can't start new thread"


@contextmanager
def enough_memory() -> Iterator[None]:
    """In this context, the errors of Python and PyTorch for a lack of memory become one error.

    Raises:
        UserError: there is too little memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        lack = re.search(_LACK, str(error))
        if not (lack or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM):
            raise
        request = re.search(r"tried to allocate (\d+) bytes", str(error))
        amount = f" ({int(request[1]) / 2**20:,.0f} MB more were wanted)" if request else ""
        raise UserError(
            f"there is not enough memory{amount}: give a smaller --max-tokens or a smaller model, or raise the limit "
            "(ulimit -v)"
        ) from error
