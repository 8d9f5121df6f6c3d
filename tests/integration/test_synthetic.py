"""Translations to learn from, by a pair that was trained a little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import SOURCE, TARGET, preprocessed

from dual_fairseq.__main__ import main


@pytest.fixture(scope="module")
def dest(corpus, tmp_path_factory) -> Path:
    return preprocessed(corpus, tmp_path_factory.mktemp("synthetic") / "data", "none")


def translated(dest, checkpoint, out, *options, checkpoints=1) -> dict:
    lines = dest / "raw" / f"test.{SOURCE}"
    main(["pair.synthetic", *[str(checkpoint)] * checkpoints, "--dest", str(dest), "-s", SOURCE, "-t", TARGET, "--cpu",
          "--input", str(lines), "--output", str(out), *options])  # fmt: skip
    return json.loads(out.read_text())


def test_distinct_translations_by_beam_search_sampling_and_an_ensemble(dest, trained_pair, tmp_path):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    lines = (dest / "raw" / f"test.{SOURCE}").read_text().splitlines()
    limit = ("--max-len-a", "0", "--max-len-b", "200")  # a pair that was trained so little does not end by itself
    made = translated(dest, checkpoint, tmp_path / "beam.json", "--nbest", "3", *limit)
    assert {line for line, _ in made["pairs"]} <= set(lines)
    for line in set(lines):
        texts = [text for source, text in made["pairs"] if source == line]
        assert len(texts) <= 3 * lines.count(line) and len(set(texts)) * lines.count(line) == len(texts)
    once = translated(dest, checkpoint, tmp_path / "one.json", *limit)
    together = translated(dest, checkpoint, tmp_path / "both.json", *limit, checkpoints=2)
    assert once["pairs"] == together["pairs"]  # of one model twice
    samples = [
        translated(dest, checkpoint, tmp_path / f"{seed}.json", *limit, "--sampling", "5", "--seed", seed)["pairs"]
        for seed in ("1", "1", "2")
    ]
    assert samples[0] == samples[1] != samples[2]


def test_what_the_limit_ends_is_counted(dest, trained_pair, tmp_path):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    made = translated(dest, checkpoint, tmp_path / "out.json", "--max-len-a", "0", "--max-len-b", "1")
    count = len((dest / "raw" / f"test.{SOURCE}").read_text().splitlines())
    assert made["left_out"].get("cut_off", 0) + made["left_out"].get("empty", 0) + len(made["pairs"]) == count
    assert made["left_out"]["cut_off"] > 0


def test_known_translations_are_left_out(dest, trained_pair, tmp_path):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    limit = ("--max-len-a", "0", "--max-len-b", "200")
    pairs = translated(dest, checkpoint, tmp_path / "out.json", *limit)["pairs"]
    of = dict(map(tuple, pairs))
    references = tmp_path / "references"
    lines = (dest / "raw" / f"test.{SOURCE}").read_text().splitlines()
    references.write_text("".join(f"{of.get(line, 'x')}\n" for line in lines))
    made = translated(dest, checkpoint, tmp_path / "again.json", *limit, "--references", str(references))
    assert made["pairs"] == [] and made["left_out"]["known"] == len(pairs)
