"""Filtering by a table of scores."""

from __future__ import annotations

import gzip
import logging
import math
import re

import numpy as np
import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.data.lines import survey_pair
from dual_fairseq.pair import score_table
from dual_fairseq.pair.filter import STATISTICS, choose
from dual_fairseq.pair.score_table import read_table

# Two pairs whose statistics can be computed by hand.
COLUMNS = {
    "tokens_x": np.array([4.0, 2.0]),
    "tokens_y": np.array([5.0, 8.0]),
    "log_p_y_given_x": np.array([-10.0, -4.0]),
    "log_p_x_given_y": np.array([-8.0, -6.0]),
    "log_p_x": np.array([-20.0, -16.0]),
    "log_p_y": np.array([-25.0, -16.0]),
}
EXPECTED = {
    "pmi_forward": (15, 12),
    "pmi_reverse": (12, 10),
    "pmi": (13.5, 11),
    "pmi_per_token": (1.5, 1.1),
    "normalized_pmi": (13.5 / 31.5, 11 / 21),
    "forward": (-2, -0.5),
    "reverse": (-2, -3),
    "conditionals": (-2, -1.75),
    "dual_cross_entropy": (2, 2.5 + 1.75),
    "gap": (3, 2),
    "gap_per_token": (3 / 9, 0.2),
}


@pytest.fixture(autouse=True)
def _log_levels():
    """The command lines quiet the loggers for their process; give the next test its own levels."""
    loggers = [logging.getLogger(name) for name in ("fairseq", "dual_fairseq", "sacrebleu")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def table(tmp_path):
    """Writes a table of scores: rows of (log P(y|x), log P(x|y), log P(x), log P(y)), or None for an unscored pair."""

    def write(rows, name="scores.tsv"):
        path = tmp_path / name
        blocks = {
            column: np.full(len(rows), math.nan) for column in score_table.COLUMNS if column not in ("line", "note")
        }
        for i, row in enumerate(rows):
            if row is not None:
                for column, value in zip(score_table.LOG_PROBS, row, strict=True):
                    blocks[column][i] = value
                blocks["tokens_x"][i], blocks["tokens_y"][i] = 4, 5
        notes = np.array(["" if row else "source: empty" for row in rows], dtype=object)
        with open(path, "wb") as file:
            file.write("\t".join(score_table.COLUMNS).encode() + b"\n")
            score_table.write_rows(file, 1, blocks | {"note": notes})
        return path

    return write


def run(*arguments):
    main(["filter", *map(str, arguments)])


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_by_hand(name):
    np.testing.assert_allclose(STATISTICS[name].compute(COLUMNS), EXPECTED[name])
    sign = 1 if STATISTICS[name].higher_is_better else -1
    np.testing.assert_allclose(STATISTICS[name].goodness(COLUMNS), np.multiply(sign, EXPECTED[name]))
    without = COLUMNS | {column: np.full(2, math.nan) for column in ("log_p_x", "log_p_y")}
    assert np.isnan(STATISTICS[name].compute(without)).all() == STATISTICS[name].needs_language_models


def test_a_table_is_read_as_it_was_written(table):
    rows = [(-1.25, -2.5, -3.75, -4.0), None, (-0.0001, -1000.5, -7.0, -8.0)]
    path = table(rows)
    columns = read_table(path)
    np.testing.assert_array_equal(columns["line"], [1, 2, 3])
    for i, name in enumerate(score_table.LOG_PROBS):
        np.testing.assert_array_equal(columns[name], [rows[0][i], math.nan, rows[2][i]])
    np.testing.assert_array_equal(columns["tokens_y"], [5, math.nan, 5])

    head, *lines = path.read_text().splitlines(keepends=True)
    other = path.with_name("sorted.tsv.gz")
    other.write_bytes(gzip.compress("".join([head, *lines[::-1]]).encode()))
    for name, values in read_table(other).items():
        np.testing.assert_array_equal(values, columns[name])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0] + "\n", "holds no scores"),
        (lambda text: text.replace("log_p_x\t", "other\t", 1), "names no column log_p_x"),
        (lambda text: text.replace("-2.0000", "minus two", 1), "line 2: could not convert"),
        (lambda text: text + "4\t1\n", "line 5 has 2 cells"),
        (lambda text: text.replace("\n3\t", "\n2\t"), "not numbered 1 to 3"),
        (lambda text: text.replace("-2.0000", "inf", 1), "line 2: has a number that no score or count can be"),
        (lambda text: re.sub("\n2\t[0-9]+", "\n2\t0", text), "line 3: has a number that no score or count can be"),
    ],
    ids=["empty", "head only", "column", "number", "cells", "lines", "infinity", "count"],
)
def test_a_damaged_table_is_refused(table, change, reason):
    path = table([(-1.0, -2.0, -3.0, -4.0)] * 3)
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit, match=reason) as refusal:
        read_table(path)
    assert str(path) in str(refusal.value)


def test_text_that_was_not_scored_is_refused(table, tmp_path):
    """Even if it has as many lines; a table that does not name its text is for any text of its length."""
    scores, source, target = table([(-1.0, -2.0, -3.0, -4.0)] * 3), tmp_path / "my.de", tmp_path / "my.en"
    source.write_text("a\nb\nc\n")
    target.write_text("A\nB\nC\n")
    (tmp_path / "your.de").write_text("a\nb\nd\n")
    lines = scores.read_text().splitlines(keepends=True)
    lines[1] = f"{lines[1][:-1]}{score_table.name_text(('de', 'en'), survey_pair(source, target))}\n"
    named = tmp_path / "named.tsv"
    named.write_text("".join(lines))
    np.testing.assert_equal(read_table(named), read_table(scores))
    common = ("--output-prefix", tmp_path / "out" / "clean", "--keep", 1)
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit, match=r"named\.tsv: has scores of other text than .*your\.de \(de\); give the text"):
        run(named, "--source", tmp_path / "your.de", "--target", target, *common)
    with pytest.raises(SystemExit, match="are exchanged"):
        run(named, "--source", target, "--target", source, *common)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(SystemExit, match="to filter it line by line by these scores, remove the column text"):
        run(named, "--source", tmp_path / "your.de", "--target", target, *common)
    without = tmp_path / "without.tsv"
    without.write_text("".join(line.rpartition("\t")[0] + "\n" for line in lines))
    run(without, "--source", tmp_path / "your.de", "--target", target, *common)
    run(named, "--source", source, "--target", target, *common)
    run(scores, "--source", tmp_path / "your.de", "--target", target, *common)


def test_the_best_are_chosen():
    goodness = np.array([0.5, math.nan, 0.9, 0.5, 0.1, 0.5])
    assert choose(goodness, keep=0.5).tolist() == [True, False, True, True, False, False]  # of equals the first
    assert choose(goodness, keep=1.0).tolist() == [True, False, True, True, True, True]
    assert choose(goodness, threshold=0.5).tolist() == [True, False, True, True, False, True]


@pytest.fixture
def parallel_text(tmp_path):
    files = (tmp_path / "my.de", tmp_path / "my.en")
    files[0].write_bytes("ä\r\nb  b\n\nd\te\nf".encode())
    files[1].write_bytes(b"A\nB\nC\nD\nF\n")
    return files


ROWS = [(-1, -1, -20, -20), (-9, -9, -10, -10), None, (-2, -8, -20, -20), (-5, -5, -20, -20)]


def test_kept_lines_are_the_inputs_own_bytes(table, parallel_text, tmp_path):
    source, target = parallel_text
    packed = target.with_name("my.en.gz")
    packed.write_bytes(gzip.compress(target.read_bytes()))
    dropped = tmp_path / "dropped.tsv"
    run(table(ROWS), "--source", source, "--target", packed, "--keep", 0.6, "--output-prefix", tmp_path / "clean",
        "--by", "conditionals", "--dropped", dropped)  # fmt: skip
    assert (tmp_path / "clean.de").read_bytes() == "ä\r\nd\te\nf\n".encode()
    assert (tmp_path / "clean.en").read_bytes() == b"A\nD\nF\n"
    assert dropped.read_text().splitlines() == [
        "line\tvalue\tsource\ttarget", "2\t-2.025\tb  b\tB", "3\t\t\tC",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("--by", "gap", "--threshold", 0), b"A\nB\nF\n"),
        (("--by", "gap", "--keep", 0.8), b"A\nB\nD\nF\n"),
        (("--by", "pmi", "--threshold", 15), b"A\nD\nF\n"),
        (("--threshold", 0.7), b"A\n"),
        (("--keep", 0.2), b"A\n"),
    ],
    ids=["low is good", "share", "high is good", "default threshold", "default share"],
)
def test_statistics_choose_in_their_own_direction(table, parallel_text, tmp_path, arguments, kept):
    run(table(ROWS), "--source", parallel_text[0], "--target", parallel_text[1],
        "--output-prefix", tmp_path / "clean", *arguments)  # fmt: skip
    assert (tmp_path / "clean.en").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--keep", 0), "--keep 0: is a share"),
        (("--keep", 80), r"--keep 80: is a share, above 0 and at most 1; did you mean 0\.8\?"),
        (("--keep", 800), "--keep 800: is a share, above 0 and at most 1$"),
        (("--threshold", "nan"), "--threshold: give a finite number"),
        (("--keep", 0.5, "--target", "{other}/my.de"), "name the files by their languages"),
        (("--keep", 0.5, "--target", "{other}/short.en"), "has 1 lines, but .* of 5 pairs"),
        (("--keep", 0.5, "--target", "{other}/nothing.en"), "nothing.en: No such file"),
        (("--keep", 0.5, "--output-prefix", "{other}/my"), "is the same file as the input"),
        (("--keep", 0.5, "--dropped", "{other}/clean.en"), "is the file of the kept lines"),
    ],
    ids=["none", "percent", "much", "nan", "same name", "short", "missing", "overwrite", "dropped"],
)
def test_filtering_refuses(table, parallel_text, tmp_path, arguments, reason):
    (tmp_path / "short.en").write_text("A\n")
    scores = table(ROWS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = [str(argument).format(other=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit, match=reason):
        run(scores, "--source", parallel_text[0], "--target", parallel_text[1],
            "--output-prefix", tmp_path / "clean", *arguments)  # fmt: skip
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_statistic_of_missing_language_models_is_refused(table, parallel_text, tmp_path):
    scores = table([(-1, -1, math.nan, math.nan)] * 5)
    common = ("--source", parallel_text[0], "--target", parallel_text[1], "--output-prefix", tmp_path / "clean")
    with pytest.raises(SystemExit, match="--by conditionals does not"):
        run(scores, *common, "--keep", 0.5)
    run(scores, *common, "--keep", 0.4, "--by", "conditionals")
    assert (tmp_path / "clean.en").read_bytes() == b"A\nB\n"


def test_exchanged_files_are_refused(tmp_path):
    """Their names say nothing about the table; the lengths of their lines do."""
    random = np.random.default_rng(1)
    tokens = random.integers(2, 20, size=(50, 2))
    names = ("my.de", "my.en")
    for side, name in enumerate(names):
        (tmp_path / name).write_text("".join("word " * n + "\n" for n in tokens[:, side]))
    blocks = {c: np.full(50, -1.0) for c in score_table.COLUMNS if c not in ("line", "note")}
    blocks |= {"tokens_x": tokens[:, 0], "tokens_y": tokens[:, 1], "note": np.full(50, "", dtype=object)}
    with open(tmp_path / "scores.tsv", "wb") as file:
        score_table.write_head(file)
        score_table.write_rows(file, 1, blocks)
    given = ["--keep", 0.5, "--by", "forward", "--output-prefix", tmp_path / "clean", tmp_path / "scores.tsv"]
    with pytest.raises(SystemExit, match=r"--source .*my\.en --target .*my\.de: look exchanged"):
        run("--source", tmp_path / "my.en", "--target", tmp_path / "my.de", *given)
    assert not list(tmp_path.glob("clean.*"))
    run("--source", tmp_path / "my.de", "--target", tmp_path / "my.en", *given)
    assert len((tmp_path / "clean.en").read_text().splitlines()) == 25


def test_the_name_of_a_text_may_be_long(tmp_path):
    (tmp_path / "scores.tsv").write_text("line\ttext\n1\t" + "a" * 10**6 + "\n")
    # hours, if the time grew with the square
    assert score_table.scored_text(tmp_path / "scores.tsv") == []
