"""A binarized directory: its languages, and why one of its splits cannot be used."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fairseq.data import Dictionary, data_utils, indexed_dataset

from ..common.errors import UserError
from .model import direction_name


def languages_of(directory: str, source: str | None, target: str | None) -> tuple[str, str]:
    """Source and target language; if not given, those of the directory's first pair.

    Raises:
        UserError: the directory or a language is missing.
    """
    if not os.path.isdir(directory):
        raise UserError(f"{directory}: there is no such data directory; make one with dual-fairseq preprocess")
    if source is None or target is None:
        source, target = data_utils.infer_language_pair(directory)
    if source is None or target is None:
        raise UserError(f"{directory}: holds no binarized pair; give the languages with -s and -t")
    if source == target:
        raise UserError(f"-s {source} -t {target}: a pair needs two languages")
    for language in (source, target):
        if "." in language:  # state-dict keys are dotted paths
            raise UserError(f"language code '{language}': must not contain a dot")
        if not os.path.isfile(os.path.join(directory, f"dict.{language}.txt")):
            raise UserError(
                f"{directory}: has no dict.{language}.txt; is '{language}' one of its languages "
                "(-s/-t), and was it made by fairseq-preprocess?"
            )
    return source, target


def explain_split(directory: str, split: str, dictionaries: Mapping[str, Dictionary], impl: str | None) -> None:
    """Say why a split could not be loaded: it is missing or empty, or its sides differ in length.

    For use after a failure only: opening a side reads it all.

    Args:
        directory: the binarized directory.
        split: its name.
        dictionaries: source language and target language → dictionary.
        impl: fairseq's ``--dataset-impl``.

    Raises:
        UserError: the reason.
    """
    fix = "make it again with dual-fairseq preprocess or fairseq-preprocess"
    source, target = dictionaries
    directions = (direction_name(source, target), direction_name(target, source))
    for direction in directions:
        files = {language: os.path.join(directory, f"{split}.{direction}.{language}") for language in dictionaries}
        if not indexed_dataset.dataset_exists(files[source], impl=impl):
            continue
        sizes = {}
        for language, dictionary in dictionaries.items():
            side = data_utils.load_indexed_dataset(files[language], dictionary, impl)
            if side is not None:
                sizes[language] = len(side)
        if 0 in sizes.values():
            raise UserError(f"{directory}: split '{split}' is empty; {fix}")
        if len(set(sizes.values())) > 1:
            counts = " and ".join(f"{size} {language}" for language, size in sizes.items())
            raise UserError(f"{directory}: split '{split}' has {counts} sentences; {fix}")
        return
    raise UserError(f"{directory}: has no binarized split '{split}' of {' or '.join(directions)}; {fix}")
