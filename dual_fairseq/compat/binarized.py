"""Damaged binarized text gives a one-line error; fairseq would read outside the text or take zeros as words."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from fairseq.data import Dictionary, indexed_dataset
from fairseq.data.indexed_dataset import IndexedDataset, MMapIndexedDataset

from ..common.errors import UserError

_HEADER = struct.Struct("<9sQBQ")  # magic, version, type of numbers, sentences
_SENTENCE = 4 + 8  # bytes of a sentence's size and position
_make_dataset = indexed_dataset.make_dataset


def make_dataset(path: str, impl: str | None, *args: Any, dictionary: Dictionary | None = None, **kwargs: Any) -> Any:
    """Like fairseq's function, with which every task and command opens each side of its data.

    Raises:
        UserError: the data is damaged, belongs to another dictionary, has no sentences, or has another format. (One of
            fairseq's formats runs a shell command with the file's name, others believe any size that the file claims.)
    """
    if impl != "mmap":
        if not (IndexedDataset.exists(path) or indexed_dataset.infer_dataset_impl(path)):
            return None  # there are no files
        raise UserError(
            f"{path}.bin, .idx: are damaged, or in an old or rare format ({impl}); make them again with dual-fairseq "
            "preprocess, or fairseq-preprocess without --dataset-impl"
        )
    try:
        mapped = MMapIndexedDataset.exists(path)
        if mapped:
            check_header(path)
        dataset = _make_dataset(path, impl, *args, dictionary=dictionary, **kwargs)
        if mapped:
            check_sentences(dataset, dictionary)
    except (AssertionError, LookupError, ValueError, struct.error) as error:
        if not os.path.isfile(f"{path}.idx"):
            raise
        raise UserError(
            f"{path}.bin, .idx: {error or 'are damaged'}; make them again with dual-fairseq preprocess or "
            "fairseq-preprocess"
        ) from error
    return dataset


def check_header(path: str) -> None:
    """Check the beginning of the index and the sizes of both files.

    Raises:
        ValueError: the files are not binarized text, or not complete.
    """
    with open(f"{path}.idx", "rb") as file:
        header = file.read(_HEADER.size)
    index_size, data_size = os.path.getsize(f"{path}.idx"), os.path.getsize(f"{path}.bin")
    magic, version, code, length = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, 0)
    known = magic == MMapIndexedDataset.Index._HDR_MAGIC and version == 1 and code in indexed_dataset._code_to_dtype
    if not known or index_size != _HEADER.size + length * _SENTENCE:
        raise ValueError("the index is damaged")
    if length == 0:
        raise ValueError("have no sentences: the split is empty")
    if not data_size or data_size % np.dtype(indexed_dataset._code_to_dtype[code]).itemsize:
        raise ValueError("the text is damaged")


def check_sentences(dataset: MMapIndexedDataset, dictionary: Dictionary | None) -> None:
    """Check all sentences.

    Raises:
        ValueError: a sentence is not inside the file; or, if there is a dictionary, a word number is not in the
            dictionary, or a sentence does not end in ``</s>``.
    """
    numbers = np.frombuffer(dataset._bin_buffer, dtype=dataset._index.dtype)
    sizes = dataset.sizes.astype(np.int64)
    starts, remainders = np.divmod(dataset._index._pointers, numbers.itemsize)
    wrong = (
        (starts < 0)
        | (remainders != 0)
        | (sizes < int(dictionary is not None))
        | (sizes > len(numbers))
        | (starts > len(numbers) - sizes)
    )
    if wrong.any():
        raise ValueError(f"are damaged (sentence number {int(wrong.argmax())} from 0 is not in the text)")
    if dictionary is None:
        return
    smallest, largest = int(numbers.min()), int(numbers.max())
    if smallest < 0 or largest >= len(dictionary):
        number = smallest if smallest < 0 else largest
        raise ValueError(
            f"have the word number {number}, but their dictionary has {len(dictionary):,}; they are damaged, or belong "
            "to another dictionary"
        )
    unfinished = numbers[starts + sizes - 1] != dictionary.eos()
    if unfinished.any():
        raise ValueError(f"the text is damaged: sentence number {int(unfinished.argmax())} (from 0) has no </s>")


def _closed_by(close: Callable[[Any], None]) -> Callable[[Any], None]:
    """fairseq's destructor, also for files that were never mapped, for example if memory was short."""
    return lambda self: close(self) if hasattr(self, "_bin_buffer_mmap") else None


indexed_dataset.make_dataset = make_dataset
for _kind in (MMapIndexedDataset, MMapIndexedDataset.Index):
    _kind.__del__ = _closed_by(_kind.__del__)
