"""Damaged binarized text is refused before anything is read from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

import dual_fairseq
from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.lengths import limits_of

dual_fairseq.register()

SENTENCES = [[4, 5, 2], [6, 2], [7, 4, 4, 2]]


@pytest.fixture
def dictionary() -> Dictionary:
    dictionary = Dictionary()
    for word in "abcd":
        dictionary.add_symbol(word)
    return dictionary


@pytest.fixture
def prefix(tmp_path) -> Path:
    builder = MMapIndexedDatasetBuilder(str(tmp_path / "train.bin"), dtype=np.uint16)
    for sentence in SENTENCES:
        builder.add_item(torch.tensor(sentence))
    builder.finalize(str(tmp_path / "train.idx"))
    return tmp_path / "train"


def test_what_is_whole_is_read(prefix, dictionary):
    for words in (dictionary, None):
        assert [line.tolist() for line in data_utils.load_indexed_dataset(str(prefix), words)] == SENTENCES


def at(position: int, content: bytes):
    return lambda old: old[:position] + content + old[position + len(content) :]


PLACES = 26 + 3 * 4  # in the index: its header, then the sizes
DAMAGES = {
    "index-empty": ("idx", lambda old: b"", "are damaged, or in an old or rare format"),
    "index-cut-in-its-header": ("idx", lambda old: old[:20], "the index is damaged"),
    "index-cut": ("idx", lambda old: old[:-1], "the index is damaged"),
    "index-longer": ("idx", lambda old: old + b"x", "the index is damaged"),
    "index-zeros": ("idx", lambda old: bytes(len(old)), "are damaged, or in an old or rare format"),
    "index-version": ("idx", at(9, b"\2"), "the index is damaged"),
    "index-type": ("idx", at(17, b"\x63"), "the index is damaged"),
    "index-other-type": ("idx", at(17, b"\4"), "the text is damaged|the index is damaged"),
    "index-length": ("idx", at(18, b"\xff" * 8), "the index is damaged"),
    "no-sentences": ("idx", lambda old: at(18, b"\0")(old[:26]), "the split is empty"),
    "size-beyond": ("idx", at(26, b"\xff\xff\xff\x7f"), r"are damaged \(sentence number 0 from 0 is not in the text\)"),
    "size-negative": ("idx", at(30, b"\xff" * 4), r"sentence number 1 from 0"),
    "size-zero": ("idx", at(30, b"\0" * 4), r"sentence number 1 from 0"),
    "place-beyond": ("idx", at(PLACES, b"\xff" * 7 + b"\x7f"), r"sentence number 0 from 0"),
    "place-negative": ("idx", at(PLACES + 8, b"\xff" * 8), r"sentence number 1 from 0"),
    "place-between": ("idx", at(PLACES + 8, b"\5"), r"sentence number 1 from 0"),
    "text-empty": ("bin", lambda old: b"", "the text is damaged"),
    "text-cut": ("bin", lambda old: old[:-2], r"sentence number 2 from 0"),
    "text-cut-in-a-word": ("bin", lambda old: old[:-1], "the text is damaged"),
    "text-zeros": ("bin", lambda old: bytes(len(old)), r"sentence number 0 \(from 0\) has no </s>"),
    "text-of-another-dictionary": ("bin", at(0, b"\xff\0"), "have the word number 255, but their dictionary has 8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_one_line(prefix, dictionary, damage, capfd):
    kind, change, message = DAMAGES[damage]
    file = prefix.with_suffix(f".{kind}")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        data_utils.load_indexed_dataset(str(prefix), dictionary)
    assert str(caught.value).startswith(f"{prefix}.bin, .idx: ") and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_limit_of_length_looks_at_an_index_too(prefix):
    pair = [prefix.with_name(f"train.xx-yy.{language}") for language in ("xx", "yy")]
    for side in pair:
        for kind in ("bin", "idx"):
            shutil.copy(prefix.with_suffix(f".{kind}"), f"{side}.{kind}")
    assert limits_of(prefix.parent, "xx", "yy")["xx-yy"].ratio == 1
    Path(f"{pair[1]}.idx").write_bytes(bytes(62))
    with pytest.raises(UserError, match=r"train.xx-yy.yy.bin, .idx: the index is damaged"):
        limits_of(prefix.parent, "xx", "yy")
