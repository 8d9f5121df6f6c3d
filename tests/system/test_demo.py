"""The demo's report: its figures from what a run leaves behind, and (slow) the whole demo."""

from __future__ import annotations

import json
import math
import re
import sys

import pytest
from helpers import PLUGIN, ROOT, TINY, binarize, fairseq_here, run_command

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pipeline import demo as pipeline
from dual_fairseq.report import demo, scores
from dual_fairseq.report.runs import read_log
from dual_fairseq.toy_corpus.corpus import write_corpus
from dual_fairseq.toy_corpus.grammar import ToyGrammar


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The corpus part of a run: text with its truth, binarized word by word."""
    run = tmp_path_factory.mktemp("run")
    write_corpus(run / "text", {"train": 60, "valid": 12, "test": 9}, 5, 1, entropy_samples=10)
    text = run / "text"
    prefixes = [f"--{split}pref={text / split}" for split in ("train", "valid", "test")]
    binarize("-s", "de", "-t", "en", *prefixes, "--destdir", run / "data" / "dual")
    return run


def test_the_limit_is_the_truth_in_bits_a_token(run_folder):
    limits = demo.entropy_limits(run_folder, "test")
    grammar = ToyGrammar()
    pairs = list(
        zip(*((run_folder / "text" / f"test.{lang}").read_text().splitlines() for lang in ("de", "en")), strict=True)
    )
    for direction, column, log_prob in (
        ("de-en", 1, lambda de, en: grammar.log_prob_joint(de, en) - grammar.log_prob(de, "de")),
        ("en-de", 0, lambda de, en: grammar.log_prob_joint(de, en) - grammar.log_prob(en, "en")),
    ):
        tokens = sum(len(pair[column].split()) + 1 for pair in pairs)  # </s> is a token
        expected = -sum(log_prob(de, en) for de, en in pairs) / math.log(2) / tokens
        assert limits[direction] == pytest.approx(expected, rel=1e-9)


def test_a_text_that_the_truth_is_not_of_is_refused(run_folder, tmp_path):
    truth = json.loads((run_folder / "text" / "truth.json").read_text())
    truth["splits"]["test"]["sentences"] += 1
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "data").symlink_to(run_folder / "data")
    with pytest.raises(UserError, match="run the demo again"):
        demo.entropy_limits(tmp_path, "test")


def test_the_demo_passes_its_device_on(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(pipeline, "check", ran.append)
    monkeypatch.setattr(pipeline.train, "main", ran.append)
    for options in ([], ["--cpu"]):
        main(["demo", str(tmp_path / "run"), *options])
        training, report = ran[-2:]
        assert training[: training.index("--")][-1:] == (options or ["--seed=1"])
        assert ("--cpu" in report) == bool(options)


def record(updates: int, bleu: float) -> str:
    values = {f"valid_{k}_{d}": str(bleu) for k in ("bleu", "nll_loss") for d in demo.DIRECTIONS}
    values |= {"epoch": 1, "valid_bleu": str(bleu), "valid_num_updates": str(updates)}
    return f"2026-01-01 | INFO | valid | {json.dumps(values)}\n"


def test_the_report_of_a_finished_run(run_folder, capsys, monkeypatch):
    """Table, picture and page from the files that the scripts write, with the text escaped."""
    monkeypatch.setattr(scores.score_rows, "__defaults__", (1000,))  # trials of significance
    for number, stage in enumerate(demo.STAGES):
        folder = run_folder / "train" / stage / "eval" / "test"
        folder.mkdir(parents=True)
        (run_folder / "train" / stage / "train.log").write_text(record(10, 20.0 + number) + record(20, 21.0 + number))
        rescored = {"bleu": 25.25, "chrf": 42.0, "length_ratio": 0.99}
        results = {
            d: {"bleu": 20.5 + number, "chrf": 40.0, "nll_bits_per_token": 2.5, "dual_inference": rescored}
            for d in demo.DIRECTIONS
        }
        (folder / "scores.json").write_text(json.dumps({**results, "gap_abs": 5.25 - number}))
        for direction in demo.DIRECTIONS:
            for kind in ("src", "ref", "hyp", "dual-inference.hyp"):
                (folder / f"{direction}.{kind}.txt").write_text(f"<b>{kind} {number if kind == 'hyp' else ''}\n" * 9)
    main(["report.demo", str(run_folder)])
    limits = demo.entropy_limits(run_folder, "test")
    table = (run_folder / "report" / "table.txt").read_text()
    assert table.strip() in capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines()]
    assert rows[0] == list(demo.HEAD)
    assert [row[:2] for row in rows[1:]] == [
        [d.replace("-", "→"), name] for d in demo.DIRECTIONS for name in demo.STAGES.values()
    ]
    assert rows[3][2:] == ["22.50", "40.00", "2.500", f"+{2.5 - limits['de-en']:.3f}", "3.25", "25.25"]
    assert (run_folder / "report" / "demo.png").read_bytes().startswith(b"\x89PNG")
    page = (run_folder / "report" / "index.html").read_text()
    assert page.count("dual + dual inference") >= len(demo.DIRECTIONS)  # a row of the score table each
    assert "<h2>Scores</h2>" in page and page.count("data:image/png;base64,") == 4
    assert "&lt;b&gt;<mark>hyp</mark> <ins><mark>2</mark></ins>" in page and "<b>" not in page
    for direction, limit in limits.items():
        cells = (direction.replace("-", "→"), "dual", "2.500", f"{limit:.3f}", f"+{2.5 - limit:.3f}")
        names, numbers = (
            "".join(f"<td{c}>{x}</td>" for x in part) for c, part in ((' class="name"', cells[:2]), ("", cells[2:]))
        )
        assert f"<tr>{names}{numbers}</tr>" in page


def assert_no_validation_is_below_the_limit(run, stage) -> None:
    limits = demo.entropy_limits(run, "valid")
    curve, _ = read_log(run / "train" / stage / "train.log")
    assert curve
    for record in curve:
        for direction, limit in limits.items():
            assert record[f"nll_loss_{direction}"] > limit > 0


def test_no_model_s_validation_nll_is_below_the_limit(run_folder):
    """A short training; the slow test below looks at the whole demo's."""
    folder = run_folder / "train" / "short"
    run = fairseq_here(
        "train", run_folder / "data" / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", "de", "-t",
        "en", *TINY["transformer"], "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--cpu", "--optimizer",
        "adam", "--lr", 0.01, "--max-epoch", 6, "--max-tokens", 400, "--save-dir", folder, "--no-epoch-checkpoints",
        "--log-format", "json",
    )  # fmt: skip
    (folder / "train.log").write_text(run.output)
    assert_no_validation_is_below_the_limit(run_folder, "short")


@pytest.mark.slow
def test_the_whole_demo_and_that_no_model_beats_the_truth(tmp_path):
    def run_demo() -> str:
        done = run_command([sys.executable, "-m", "dual_fairseq", "demo", tmp_path / "run"], cwd=ROOT, timeout=3600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    output = run_demo()
    rows = demo.result_rows(tmp_path / "run")
    assert len(rows) == 6 and demo.text_table(rows) in output
    assert all(row.nll > row.limit > 0 for row in rows)
    assert all(row.bleu > 10 for row in rows), "the models learnt nothing"
    for _, mle, dual in (rows[:3], rows[3:]):  # a gain that is no noise
        assert dual.bleu > mle.bleu + 1 and dual.rescored > mle.bleu + 2
    for stage in demo.STAGES:
        assert_no_validation_is_below_the_limit(tmp_path / "run", stage)
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "train").rglob("*.pt")}
    assert demo.text_table(rows) in run_demo()
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "train").rglob("*.pt")}
