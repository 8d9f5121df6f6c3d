"""A checkpoint is written whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from ..common.errors import UserError
from ..common.files import CannotWrite, whole_file

logger = logging.getLogger(__name__)

# fairseq saves a checkpoint under another name and renames it, but copies it over the old checkpoint_best.pt and
# checkpoint_last.pt in place. A run that is killed at that moment keeps half a checkpoint and loses the old one.
_ATTEMPTS, _PAUSE = 3, 2.5  # fairseq's values, for network file systems that fail for a moment

_copy_file = PathManager.copy
_persistent_save = checkpoint_utils.torch_persistent_save


def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """Copy a file so that at any moment the destination is either the old file or the new file."""
    if not PathManager.supports_rename(dst_path):
        return _copy_file(src_path, dst_path, overwrite=overwrite)
    if not overwrite and os.path.exists(dst_path):
        return False

    def write(file: Any) -> None:
        with open(src_path, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 24)

    _write(dst_path, write)
    return True


def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
    """Save a checkpoint so that at any moment the file is either the old one or the new one.

    Raises:
        UserError: the checkpoint cannot be written.
    """
    if async_write or not PathManager.supports_rename(filename):
        _persistent_save(obj, filename, async_write=async_write)
    else:
        _write(filename, lambda file: torch.save(obj, file))


def _write(path: str, write: Callable[[Any], Any]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with whole_file(path) as file:
                write(file)
            return
        except CannotWrite as error:
            if attempt == _ATTEMPTS:
                kept = "the old one is whole" if os.path.exists(path) else "there is no old one"
                raise UserError(
                    f"{path}: this checkpoint cannot be written ({error.reason}); {kept}: make room or change the "
                    "folder's permissions, then run the same command again"
                ) from error
            logger.warning("%s: %s; trying again", path, error.reason)
            time.sleep(_PAUSE)


PathManager.copy = staticmethod(copy)
checkpoint_utils.torch_persistent_save = torch_persistent_save
