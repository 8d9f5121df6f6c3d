"""The toy grammar: its probabilities against enumeration, sampling and each other; the corpus it writes."""

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.toy_corpus import corpus
from dual_fairseq.toy_corpus.grammar import ToyGrammar


@pytest.mark.parametrize(
    "options",
    [
        {"topics": ("sea",)},
        {"topics": ()},
        {"frames": ("place", "place")},
        {"tenses": ("future",)},
        {"structures": ("verse",)},
        {"words": 0},
        {"alternatives": 0},
        {"topics": ("home", "city"), "topic_weights": (1.0,)},
        {"topics": ("home", "city"), "topic_weights": (1.0, 0.0)},
        {"frames": ("give",), "structures": ("because",)},
    ],
)
def test_options_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match=r"must|leave"):
        ToyGrammar(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "0"], "--train: give a whole number of at least 1, not '0'"),
        (["--mono=-1"], "--mono: give a whole number of at least 0, not '-1'"),
        (["--seed=-1"], "--seed: give a whole number of at least 0, not '-1'"),
    ],
)
def test_bad_numbers_are_one_clear_line(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        main(["toy-corpus", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "ToyGrammar", None)  # it is seen before the grammar is made
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"is a file; name a folder"):
        main(["toy-corpus", str(tmp_path / "file")])
    with pytest.raises(UserError, match="file/below: Not a directory"):
        main(["toy-corpus", str(tmp_path / "file" / "below"), "--train", "1"])
    assert (tmp_path / "file").read_text() == "mine"
