"""The report: what is read of a run, scores and their significance, pictures, and the page in a real browser."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_fairseq.report import examples, gaps, runs


def test_the_best_is_the_validation_after_which_the_best_checkpoint_was_last_written():
    records = [
        {"num_updates": u, "bleu": b, "best_bleu": m} for u, b, m in ((1, 2, 2), (2, 5, 5), (3, 5, 5), (4, 4, 5))
    ]
    stage = runs.Stage("warmup", None, records, [], {}, True, {})
    assert stage.best["num_updates"] == 3  # fairseq writes it again where the score is equalled


def test_a_run_that_was_moved_with_its_data_finds_them(tmp_path):
    for name in ("data/dual", "runs/one/dual"):
        (tmp_path / name).mkdir(parents=True)
    here = tmp_path / "runs" / "one" / "dual"
    assert gaps._find("/gone/data/dual", "/gone/runs/one/dual", here) == tmp_path.resolve() / "data" / "dual"
    assert gaps._find("/gone/data/other", "/gone/runs/one/dual", here) is None
    assert gaps._find(str(tmp_path / "data"), "/gone/runs/one/dual", here) == tmp_path / "data"


WORDS = st.lists(st.sampled_from("a b c dd , . <i> & 猫 犬".split()), max_size=8).map(" ".join)


@given(WORDS | st.text(max_size=20), WORDS, WORDS)
def test_marks_neither_add_nor_lose_a_word(text, reference, first):
    assert "".join(examples.words(text)) == text.rstrip()
    marks = examples.marked(text, reference, first)
    shown = re.sub(r"\s*<del>.*?</del>", "", marks)
    assert html.unescape(re.sub(r"</?(?:ins|mark)>", "", shown)).split() == text.split()


@pytest.mark.parametrize(
    ("text", "reference", "first", "expected"),
    [
        ("a cat", "a cat", "a cat", "a cat"),
        ("a dog", "a cat", "a dog", "a <mark>dog</mark>"),
        ("a cat", "a cat", "a dog", "a <ins>cat</ins>"),
        ("a cow", "a cat", "a dog", "a <ins><mark>cow</mark></ins>"),
        ("a cat", "a cat", "a big cat", "a <del>big</del> cat"),
        ("a cat", "a cat", "a cat!", "a cat<del>!</del>"),
        ("x < y", "x < y", "x < y", "x &lt; y"),
        ("黒い猫", "黒い犬", "黒い猫", "黒い<mark>猫</mark>"),
    ],
    ids=["same", "foreign", "improved", "both", "dropped", "dropped-last", "escaped", "unspaced"],
)
def test_what_is_marked(text, reference, first, expected):
    assert examples.marked(text, reference, first) == expected
