"""Monolingual text that is like the pairs: trigram models, the choice by them, and how texts differ in form."""

from __future__ import annotations

import gzip
import math
import random
from collections import Counter
from itertools import product

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.data.likeness import differences, form
from dual_fairseq.data.ngrams import Trigrams, tokens, vocabulary
from dual_fairseq.data.select import bare, candidates, draw, read_clean


def captions(count: int, seed: int) -> list[str]:
    """Sentences of one kind."""
    chance = random.Random(seed)
    who, what, where = ("man", "woman", "dog", "child", "girl"), ("runs", "sits", "waits", "sleeps"), ("park", "house")
    return [
        f"A {chance.choice(who)} {chance.choice(what)} in the {chance.choice(where)} number {chance.randrange(900)}."
        for _ in range(count)
    ]


def noise(count: int, seed: int) -> list[str]:
    """Sentences of another kind, partly of the same words."""
    chance = random.Random(seed)
    return [
        f"order {chance.randrange(900)} the house now and save {chance.choice(('big', 'more'))}" for _ in range(count)
    ]


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return {
        "pairs": write(tmp_path / "train.en", captions(300, 1)),
        "valid": write(tmp_path / "valid.en", captions(60, 2)),
        "test": write(tmp_path / "test.en", captions(40, 3)),
        "mono": write(tmp_path / "mono.en", [*captions(300, 4), *noise(300, 5)]),
        "out": tmp_path / "chosen.en",
    }


def run(files, *options):
    main(["select", "--pairs", str(files["pairs"]), "--valid", str(files["valid"]), "--not", str(files["test"]),
          "--from", str(files["mono"]), "-o", str(files["out"]), *options])  # fmt: skip
    return files["out"].read_text(encoding="utf-8").splitlines()


def test_tokens_are_words_marks_and_characters_of_scripts_without_spaces():
    assert tokens("Don't stop, naïve café!") == ["Don", "'", "t", "stop", ",", "naïve", "café", "!"]
    assert tokens("東京は good") == ["東", "京", "は", "good"]
    for word in ("हिन्दी", "தமிழ்", "می‌رود", "שָׁלוֹם", "كِتَابٌ", "cafe\u0301", "x_1"):
        assert tokens(f"({word}, {word})") == ["(", word, ",", word, ")"]


def test_a_trigram_model_is_a_distribution():
    known = {"a", "b"}
    model = Trigrams(["a b a", "b b", "a x"], known)
    for context in product(("<s>", "a", "b", "<unk>"), repeat=2):
        total = sum(model._probability((*context, word)) for word in ("a", "b", "<unk>", "</s>"))
        assert math.isclose(total, 1)


def test_bits_are_lower_for_text_of_the_kind_that_was_learned():
    learned = captions(300, 1)
    model = Trigrams(learned, vocabulary(learned))
    assert max(map(model.bits, captions(20, 2))) < min(map(model.bits, noise(20, 2)))


def test_lines_of_the_pairs_kind_are_chosen(files, capsys):
    chosen = run(files)
    assert sum(line.startswith("order") for line in chosen) == 0
    assert len(chosen) > 250
    table = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in table] == ["text", "pairs", "validation", "monolingual", "chosen"]
    assert "50.0%" in table[3]  # the noise has no full stop


def test_a_smaller_share_is_stricter(files):
    assert len(run(files, "--keep", "0.3")) < len(run(files))


def test_what_is_known_is_left_out_whatever_its_case_and_punctuation(files):
    known = [files[name].read_text(encoding="utf-8").splitlines()[0] for name in ("pairs", "valid", "test")]
    written = [known[0].upper(), known[1].rstrip("."), f"“{known[2]}”", "A dog sits in the house number 1."] * 2
    with gzip.open(files["mono"].with_suffix(".en.gz"), "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in written)
    files["mono"] = files["mono"].with_suffix(".en.gz")
    assert run(files, "--keep", "1") == ["A dog sits in the house number 1."]


def test_marks_of_indic_scripts_tell_lines_apart():
    assert bare("ကို") != bare("ကာ")
    assert candidates(["ကာ", "...", "ကို"], ["ကို"]) == ["ကာ"]


def test_lengths_follow_the_pairs():
    long, short = ["a b c d e f"] * 900, ["a b"] * 900
    lines = [f"{line} {number}" for number, line in enumerate([*long, *short])]
    like = [f"{line} 0" for line in ["a b c d e f"] * 300 + ["a b"] * 100]
    drawn = draw(lines, 400, like, 1)
    assert abs(Counter(len(tokens(line)) for line in drawn)[7] - 300) < 10
    assert drawn == sorted(drawn, key=lines.index)
    assert draw(lines, 400, like, 1) == drawn != draw(lines, 400, like, 2)
    assert len(draw(lines, 50, None, 1)) == 50
    many = [" ".join("a" * length) for length in range(1, 11)]
    for count in (1, 5, 6, 10, 13):  # less than one line, or more, of each length
        assert len(draw(many * 10, count, many, 1)) == count


def test_the_same_seed_chooses_the_same_lines(files):
    assert run(files, "--lines", "50") == run(files, "--lines", "50") != run(files, "--lines", "50", "--seed", "2")


@pytest.mark.parametrize(
    ("options", "message"), [(["--keep", "0"], "--keep 0.0: is a share"), (["--from", "gone"], "gone: No such file")]
)
def test_a_mistake_is_one_line_and_leaves_the_output(files, options, message):
    files["out"].write_text("old\n")
    with pytest.raises(UserError, match=message):
        run(files, *options)
    assert files["out"].read_text() == "old\n"


@pytest.mark.parametrize("first", [True, False])
def test_a_file_without_a_usable_line_is_refused_wherever_it_stands(tmp_path, first):
    good, bad = write(tmp_path / "good.en", captions(3, 1)), write(tmp_path / "bad.en", ["", " "])
    with pytest.raises(UserError, match=r"bad\.en: no usable line"):
        read_clean([bad, good] if first else [good, bad])


def test_text_that_has_only_sides_of_the_pairs_is_refused(files):
    files["mono"] = files["pairs"]
    with pytest.raises(UserError, match="every line is a side of the pairs"):
        run(files)


def test_the_form_of_a_text_and_in_what_it_differs():
    pairs, mono = captions(200, 1), noise(200, 2)
    known = vocabulary(pairs)
    of_pairs, of_valid, of_mono = (form(lines, known) for lines in (pairs, captions(50, 3), mono))
    assert (of_pairs.unended, of_pairs.lower, of_mono.unended, of_mono.lower) == (0, 0, 1, 1)
    assert differences(of_valid, of_pairs, of_valid) == []
    found = differences(of_mono, of_pairs, of_valid)
    assert [part.partition(" (")[0].partition(" ")[2] for part in found] == [
        "lines without final punctuation", "lines that begin in lower case", "tokens that the pairs lack",
    ]  # fmt: skip
