"""Scores of parallel text: the criterion's own numbers, in the order of the input, with a note where there is none."""

from __future__ import annotations

import gzip
import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import PLUGIN, SOURCE, TARGET, fairseq_here, sentence_pairs

from dual_fairseq.__main__ import main
from dual_fairseq.data.lines import survey_pair
from dual_fairseq.pair import score, score_table
from dual_fairseq.pair.evaluate import read_validation
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.probabilities import score_pairs
from dual_fairseq.pair.score_table import name_text


@pytest.fixture(autouse=True)
def _log_levels():
    """The command line quiets the loggers for its process; give the next test its own levels."""
    loggers = [logging.getLogger(name) for name in ("fairseq", "dual_fairseq")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def checkpoint(trained_pair):
    return trained_pair[0] / "checkpoint_best.pt"


@pytest.fixture
def text(tmp_path):
    """Segmented text: 12 pairs of many lengths."""
    pairs = sentence_pairs(12, seed=7)
    files = (tmp_path / f"text.{SOURCE}", tmp_path / f"text.{TARGET}")
    for i, file in enumerate(files):
        file.write_text("".join(pair[i] + "\n" for pair in pairs))
    return files


def run(checkpoint, tmp_path, *arguments):
    """The rows of the table that the command line writes, a dictionary each."""
    output = tmp_path / "scores.tsv"
    main(["score", str(checkpoint), "--cpu", "--output", str(output), *map(str, arguments)])
    head, *lines = (line.split("\t") for line in output.read_text().splitlines())
    assert tuple(head) == score_table.COLUMNS
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    return [dict(zip(head, line, strict=True)) for line in lines]


def column(rows, name):
    return np.array([float(row[name] or "nan") for row in rows])


def segmented(files):
    return ("--source", files[0], "--target", files[1], "--segmented")


def test_a_split_gives_what_the_criterion_logs(checkpoint, corpus, tmp_path):
    rows = run(checkpoint, tmp_path, "-s", SOURCE, "-t", TARGET, "--split", "valid")
    validate = fairseq_here(
        "validate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        "--path", checkpoint, "--valid-subset", "valid", "--cpu", "--max-tokens", 300, "--log-format", "json",
        "--model-overrides", "{'eval_bleu': False}",
    )  # fmt: skip
    logged = read_validation(validate.output.splitlines(), "valid")
    assert len(rows) == 24 and [row["line"] for row in rows] == [str(i) for i in range(1, 25)]
    gap = column(rows, "gap")
    assert np.abs(gap).mean() == pytest.approx(logged["gap_abs"], abs=1e-3)
    assert gap.mean() == pytest.approx(logged["gap_mean"], abs=1e-3)
    assert (gap**2).mean() == pytest.approx(logged["gap_sq"], abs=1e-3 + 1e-3 * logged["gap_sq"])
    for direction, name, tokens in (
        (f"{SOURCE}-{TARGET}", "log_p_y_given_x", "tokens_y"),
        (f"{TARGET}-{SOURCE}", "log_p_x_given_y", "tokens_x"),
    ):
        bits = -column(rows, name).sum() / column(rows, tokens).sum() / math.log(2)
        assert bits == pytest.approx(logged[f"nll_loss_{direction}"], abs=1e-3)


def test_columns_follow_from_each_other(checkpoint, tmp_path, text):
    rows = run(checkpoint, tmp_path, *segmented(text))
    c = {name: column(rows, name) for name in score_table.COLUMNS if name not in ("note", "line", "text")}
    lines = [file.read_text().splitlines() for file in text]
    for name, side in zip("xy", lines, strict=True):
        np.testing.assert_array_equal(c[f"tokens_{name}"], [len(line.split()) + 1 for line in side])
    np.testing.assert_allclose(
        c["gap"], c["log_p_x"] + c["log_p_y_given_x"] - c["log_p_y"] - c["log_p_x_given_y"], atol=3e-4
    )
    for name, tokens in (
        ("log_p_y_given_x", c["tokens_y"]), ("log_p_y", c["tokens_y"]), ("log_p_x_given_y", c["tokens_x"]),
        ("log_p_x", c["tokens_x"]), ("gap", c["tokens_x"] + c["tokens_y"]),
    ):  # fmt: skip
        np.testing.assert_allclose(c[f"{name}_per_token"], c[name] / tokens, atol=2e-5)
    assert {row["note"] for row in rows} == {""}


class ConstantLanguageModel:
    """log P = a constant a token."""

    max_positions = 100

    def __init__(self, nats, dictionary):
        self.nats, self.dictionary = nats, dictionary

    def sentence_log_prob(self, tokens, like):
        return self.nats * tokens.ne(self.dictionary.pad()).sum(dim=-1).float()


def test_uniform_models_give_the_closed_form(checkpoint):
    pair, task = load_pair(checkpoint, device="cpu")
    for model in pair.models.values():
        torch.nn.init.zeros_(model.decoder.output_projection.weight)
    dictionaries = (task.source_dictionary, task.target_dictionary)
    lms = tuple(ConstantLanguageModel(n, d) for n, d in zip((-2.0, -0.5), dictionaries, strict=True))
    x = [dictionaries[0].encode_line(line, add_if_not_exist=False) for line in ("s1 s2 s3", "s4")]
    y = [dictionaries[1].encode_line(line, add_if_not_exist=False) for line in ("t1", "t2 t3 t4 t5 t6")]
    scores = score_pairs(pair, task, x, y, lms, max_tokens=4)
    a, b = np.array([4.0, 2.0]), np.array([2.0, 6.0])
    v = [math.log(len(d)) for d in dictionaries]
    expected = {
        "log_p_y_given_x": -b * v[1], "log_p_x_given_y": -a * v[0], "log_p_x": -2 * a, "log_p_y": -b / 2,
        "gap": (-2 * a - b * v[1]) - (-b / 2 - a * v[0]),
    }  # fmt: skip
    assert scores.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-6)


def test_half_precision_is_close(checkpoint):
    pair, task = load_pair(checkpoint, device="cpu")
    task.load_dataset("valid")
    dataset = task.datasets["valid"]
    text = [[side[i] for i in range(8)] for side in (dataset.src, dataset.tgt)]
    full = score_pairs(pair, task, *text, task.priors.models())
    half = score_pairs(pair.half(), task, *text, task.priors.models())
    for name, values in full.items():
        assert half[name].dtype == np.float64
        np.testing.assert_allclose(half[name], values, atol=0.3)
        assert not np.array_equal(half[name], values)


def test_order_and_batches_do_not_matter(checkpoint, tmp_path, text, monkeypatch):
    whole = run(checkpoint, tmp_path, *segmented(text))
    monkeypatch.setattr(score, "BLOCK_PAIRS", 5)
    in_blocks = run(checkpoint, tmp_path, *segmented(text), "--max-tokens", 1)
    assert [row["line"] for row in in_blocks] == [row["line"] for row in whole]
    for name in score_table.LOG_PROBS:
        np.testing.assert_allclose(column(in_blocks, name), column(whole, name), atol=2e-4)
    for file in text:
        file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[::-1]))
    backwards = run(checkpoint, tmp_path, *segmented(text))[::-1]
    for name in score_table.LOG_PROBS:
        np.testing.assert_allclose(column(backwards, name), column(whole, name), atol=2e-4)
        assert len(set(column(whole, name))) > 6


def test_seen_from_the_other_side_the_columns_change_places(checkpoint, tmp_path, text):
    here = run(checkpoint, tmp_path, *segmented(text))
    there = run(checkpoint, tmp_path, "-s", TARGET, "-t", SOURCE, *segmented(text[::-1]))
    np.testing.assert_allclose(column(there, "gap"), -column(here, "gap"), atol=1e-3)
    for name, other in (("log_p_y_given_x", "log_p_x_given_y"), ("log_p_x", "log_p_y"), ("tokens_x", "tokens_y")):
        np.testing.assert_allclose(column(there, name), column(here, other), atol=1e-3)
        np.testing.assert_allclose(column(there, other), column(here, name), atol=1e-3)


def test_swapped_files_are_told(checkpoint, tmp_path, text, capsys):
    run(checkpoint, tmp_path, *segmented(text))
    assert "warning" not in capsys.readouterr().err
    run(checkpoint, tmp_path, *segmented(text[::-1]))
    assert f"most tokens of source ({SOURCE}) and target ({TARGET}) are unknown" in capsys.readouterr().err


def test_what_cannot_be_scored_has_empty_cells_and_a_note(checkpoint, tmp_path, text):
    good = run(checkpoint, tmp_path, *segmented(text))
    source, target = (file.read_bytes().splitlines() for file in text)
    source[1], target[2], source[3], target[4] = b"", b" \t ", b"s1 \xff", b"t1 </s> t2"
    source[5] = b" ".join([b"s1"] * 1100)
    source[6] = b"s1 nonsense s2"
    for file, lines in zip(text, (source, target), strict=True):
        packed = file.with_name(file.name + ".gz")
        packed.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    rows = run(checkpoint, tmp_path, *segmented([f"{file}.gz" for file in text]))
    assert [row["note"] for row in rows[:8]] == [
        "", "source: empty", "target: empty", "source: not UTF-8",
        "target: a word that fairseq reserves: <s>, </s> or <pad>", "too long", "", "",
    ]  # fmt: skip
    for row in rows[1:5]:
        assert {row[name] for name in score_table.COLUMNS if name not in ("line", "note")} == {""}  # of text, too
    assert rows[5]["tokens_x"] == "1101"
    assert rows[5]["log_p_y_given_x"] == rows[5]["log_p_x_given_y"] == rows[5]["gap"] == ""
    assert float(rows[5]["log_p_y"]) == pytest.approx(float(good[5]["log_p_y"]), abs=2e-4)  # short enough for its LM
    assert (rows[6]["unknown_x"], rows[6]["unknown_y"], rows[6]["tokens_x"]) == ("1", "0", "4")
    for i in (0, 7, 8, 9, 10, 11):
        assert float(rows[i]["gap"]) == pytest.approx(float(good[i]["gap"]), abs=1e-3)


def test_raw_text_goes_through_the_preprocessing_of_its_folder(checkpoint, corpus, tmp_path, text, capsys):
    expected = run(checkpoint, tmp_path, *segmented(text))
    dest = tmp_path / "dest"
    shutil.copytree(corpus / "dual", dest / "dual")
    record = {"source": SOURCE, "target": TARGET, "tokenizer": "moses", "lowercase": True, "subword": "bpe"}
    (dest / "preprocess.json").write_text(json.dumps(record))
    for file in text:
        file.write_text(file.read_text().upper())
    raw = ("--source", text[0], "--target", text[1])
    expected[0]["text"] = name_text((SOURCE, TARGET), survey_pair(*text))
    assert run(checkpoint, tmp_path, *raw, "--dest", dest) == expected
    (dest / "preprocess.json").write_text(json.dumps({**record, "normalized": True}))
    for file in text:
        file.write_text("".join(f"{line[0]}\u00ad{line[1:]}\n" for line in file.read_text().splitlines()))
    expected[0]["text"] = name_text((SOURCE, TARGET), survey_pair(*text))
    assert run(checkpoint, tmp_path, *raw, "--dest", dest) == expected
    assert "repaired: soft hyphens" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--dest"):  # nothing beside this checkpoint tells how its text was made
        run(checkpoint, tmp_path, *raw)


def test_without_language_models_the_conditionals_remain(checkpoint, tmp_path, text):
    full = run(checkpoint, tmp_path, *segmented(text))
    rows = run(checkpoint, tmp_path, *segmented(text), "--no-lm")
    for row, whole in zip(rows, full, strict=True):
        assert row["log_p_x"] == row["log_p_y_per_token"] == row["gap"] == row["gap_per_token"] == row["note"] == ""
        assert row["log_p_y_given_x"] == whole["log_p_y_given_x"]
        assert row["log_p_x_given_y_per_token"] == whole["log_p_x_given_y_per_token"]


def test_language_models_that_are_gone_are_named_and_can_be_given(checkpoint, lm_options, tmp_path, text, capfd):
    expected = run(checkpoint, tmp_path, *segmented(text))
    state = torch.load(checkpoint, map_location="cpu")
    state["cfg"]["task"]["src_lm"] = "/gone/lm.pt"
    moved = tmp_path / "moved.pt"
    torch.save(state, moved)
    capfd.readouterr()
    rows = run(moved, tmp_path, *segmented(text))
    note = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("note: "))
    assert "/gone/lm.pt" in note and "--src-lm" in note
    assert set(column(rows, "tokens_x")) and np.isnan(column(rows, "gap")).all()
    assert run(moved, tmp_path, *segmented(text), *lm_options) == expected


def test_the_table_can_be_read_from_stdout(checkpoint, tmp_path, text, capfd):
    run(checkpoint, tmp_path, *segmented(text))
    capfd.readouterr()
    main(["score", str(checkpoint), "--cpu", *map(str, segmented(text))])
    assert capfd.readouterr().out == (tmp_path / "scores.tsv").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give what to score"),
        (["--split", "valid", "--source", "F", "--target", "F"], "give what to score"),
        (["--source", "F"], "both --source FILE and --target FILE"),
        (["--split", "valid", "--segmented"], "--segmented: needs --source"),
        (["--source", "F", "--target", "F", "--segmented", "--dest", "D"], "--segmented"),
        (["--split", "valid", "--src-lm", "F"], "--src-lm and --tgt-lm: give both"),
        (["--split", "valid", "--src-lm", "F", "--tgt-lm", "F", "--no-lm"], "--no-lm: contradicts"),
        (["--split", "valid", "--max-tokens", "0"], "--max-tokens: give a whole number of at least 1"),
        (["--split", "valid", "--fp16", "--cpu"], "--fp16: needs a GPU"),
        (["--split", "valid"], "nothing.pt: there is no such folder or checkpoint"),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(arguments, reason):
    with pytest.raises(SystemExit, match=reason) as refusal:
        main(["score", "nothing.pt", *arguments])
    assert "\n" not in str(refusal.value)


def test_what_does_not_fit_is_refused(checkpoint, tmp_path, text):
    with pytest.raises(SystemExit, match=r"scores\.tsv: cannot be written: there is no folder /nowhere"):
        main(["score", str(checkpoint), "--split", "valid", "--output", "/nowhere/scores.tsv"])
    with pytest.raises(SystemExit, match=r"no binarized split 'dev'"):
        run(checkpoint, tmp_path, "--split", "dev")
    with pytest.raises(SystemExit, match="is the same file as the input"):
        main(["score", str(checkpoint), "--cpu", "--output", str(text[0]), *map(str, segmented(text))])
    text[0].write_text("s1\n")
    with pytest.raises(SystemExit, match=r"has 1 lines and .* has 12"):
        run(checkpoint, tmp_path, *segmented(text))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"text.{SOURCE}", f"text.{TARGET}"]


def test_an_interrupt_leaves_no_file(checkpoint, tmp_path, text, monkeypatch, capfd):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "score_pairs", interrupted)
    with pytest.raises(SystemExit) as stop:
        run(checkpoint, tmp_path, *segmented(text))
    assert stop.value.code == 130
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"text.{SOURCE}", f"text.{TARGET}"]
