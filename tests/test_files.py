"""Files are there whole or not at all."""

from __future__ import annotations

import os
import time

import pytest

from dual_fairseq.common.files import whole_file


def test_a_file_gets_its_name_when_it_is_complete_and_nothing_is_left_of_a_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path, sync=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_after_a_day_by_the_next_that_writes_the_file(tmp_path):
    path = tmp_path / "[a].txt"
    left, young, others = (tmp_path / f".{name}.{'0123456789abcdef' * 2}" for name in ("[a].txt", "[a].txt", "b.txt"))
    young = young.with_name(young.name[:-1] + "0")
    for file in (left, young, others):
        file.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    for file in (left, others):
        os.utime(file, (two_days_ago, two_days_ago))
    with whole_file(path) as file:
        file.write(b"whole")
    assert set(tmp_path.iterdir()) == {path, young, others}
