"""Turns segmented text into fairseq's binarized data, by fairseq-preprocess in this process."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..common.files import count_lines
from .subword import text_lines

_LINES_A_PROCESS = 100_000  # with fewer lines per process, fairseq's binarizer is not faster


def fairseq_preprocess(dest: Path, output: Path, arguments: Sequence[str], largest: Path | None, workers: int) -> None:
    """Run fairseq-preprocess in this process, because its start alone takes seconds.

    Args:
        dest: the folder to run in. Paths are relative to it, because fairseq splits lists of paths at commas, and the
            name of ``dest`` may contain a comma.
        output: the folder for --destdir, below ``dest``; fairseq's log goes there too.
        arguments: the other options.
        largest: the longest text, which decides the number of processes; None if only dictionaries are written.
        workers: the most processes.
    """
    from fairseq import options
    from fairseq_cli import preprocess

    workers = min(workers, 1 + (count_lines(largest) if largest else 0) // _LINES_A_PROCESS)
    arguments = [*arguments, "--destdir", str(output.relative_to(dest)), "--workers", str(workers)]
    logger, handlers = preprocess.logger, list(preprocess.logger.handlers)
    level, logger.propagate = logger.level, False  # the log goes to the file beside the data, not to the terminal
    logger.setLevel(logging.INFO)
    with _working_directory(dest):
        try:
            preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
        finally:
            logger.propagate = True
            logger.setLevel(level)
            for handler in set(logger.handlers) - set(handlers):  # the log file of this run
                logger.removeHandler(handler)
                handler.close()


def dictionary_options(options: argparse.Namespace) -> list[str]:
    """The options of fairseq-preprocess that decide how the dictionaries are made."""
    from fairseq.data import Dictionary

    arguments = []
    for side, language in (("src", options.source_lang), ("tgt", options.target_lang)):
        arguments += [f"--threshold{side}", str(options.vocab_threshold[language])]
        if size := options.vocab_size[language]:  # fairseq counts its own symbols too
            arguments += [f"--nwords{side}", str(size + Dictionary().nspecial)]
    return [*arguments, "--joined-dictionary"] if options.joined_dictionary else arguments


def check_size(prefix: Path, text: Path) -> int:
    """The number of sentences in a binarized file, which must be its text's number of lines."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    sentences, lines = len(MMapIndexedDataset(str(prefix))), count_lines(text)
    if sentences != lines:
        raise RuntimeError(f"fairseq-preprocess made {sentences} sentences of the {lines} lines of {text}")
    return sentences


def concatenate(texts: Sequence[Path], output: Path) -> None:
    """Write several texts one after the other."""
    with open(output, "wb") as file:
        for text in texts:
            with open(text, "rb") as part:
                shutil.copyfileobj(part, file)


def symbols(dictionary: Path) -> set[str]:
    """The symbols of a dictionary file, without fairseq's own symbols."""
    return {line.rpartition(" ")[0] for line in text_lines(dictionary)}


def unknown_share(text: Path, known: set[str]) -> float:
    """The share of a text's tokens that are not in a dictionary."""
    words = [word for line in text_lines(text) for word in line.split()]
    return round(sum(word not in known for word in words) / len(words), 5)


@contextlib.contextmanager
def _working_directory(path: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
