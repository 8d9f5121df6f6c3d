"""Labels from text to scores: preprocessing, a pair, its evaluation, translation and report."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data
from dual_fairseq.pair.nbest import read_nbest
from dual_fairseq.pair.translator import DualTranslator
from dual_fairseq.toy_corpus.grammar import ToyGrammar

SPLITS = {"train": 200, "valid": 30, "test": 30}
KINDS = ["statement", "question", "reason"]


def kind_of(sentence: str) -> str:
    return "question" if sentence.endswith("?") else "reason" if "ecause" in sentence else "statement"


@pytest.fixture(scope="module")
def dest(tmp_path_factory) -> Path:
    """Sentences of the embedded corpus without their last mark, and their kinds."""
    folder = tmp_path_factory.mktemp("labels")
    grammar = ToyGrammar()
    for seed, (split, count) in enumerate(SPLITS.items()):
        sentences = [english for _, english in grammar.sample(count, seed)]
        (folder / f"{split}.text").write_text("".join(f"{line[:-1]}\n" for line in sentences))
        (folder / f"{split}.kind").write_text("".join(f"{kind_of(line)}\n" for line in sentences))
    prefixes = [word for split in SPLITS for word in (f"--{split}", str(folder / split))]
    options = ["-s", "text", "-t", "kind", "--target-subword", "label", "--bpe-size", "100", *prefixes]
    with pytest.raises(UserError, match=r"kind: has a label whose training pairs were all dropped"):
        main(["preprocess", *options, "--max-length", "5", "--dest", str(folder / "data")])
    main(["preprocess", *options, "--max-length", "9", "--overwrite", "--dest", str(folder / "data")])
    return folder / "data"


@pytest.fixture(scope="module")
def run(dest) -> Path:
    """A pair, trained for a moment and evaluated."""
    limits = "--lm-max-update 5 --warmup-max-update 20 --dual-max-update 5 --lr-warmup 5 --lm-lr-warmup 2"
    tiny = "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2"
    words = ["train", str(dest), str(dest.parent / "run"), *limits.split(), "--size", "tiny", "--cpu", "--no-eval"]
    main([*words, "--", *tiny.split()])
    main(["evaluate", str(dest), str(dest.parent / "run"), "--dual-inference", "--beam", "1", "--cpu"])
    return dest.parent / "run"


def test_the_record_says_which_side_is_labels(dest):
    data = Data.from_folder(dest)
    assert data.sides["kind"].labels and not data.sides["text"].labels
    assert data.record["dictionary"]["symbols"]["kind"] == 3
    assert sorted(data.labels("kind")) == sorted(KINDS) and data.labels("text") == []
    assert Data.of_binarized(dest / "dual").sides == data.sides and Data.of_binarized(dest / "lm" / "kind") is None
    # a pair that is dropped for its text leaves both sides
    rows = [(dest / "raw" / f"train.{side}").read_text().count("\n") for side in ("text", "kind")]
    assert rows[0] == rows[1] == data.record["counts"]["train"]["kept"] < SPLITS["train"]
    assert "kind" not in data.record["writing"] and "valid.kind" not in data.record["round_trip"]


def test_accuracy_chooses_the_checkpoint_and_is_reported(run, capsys, monkeypatch):
    assert "--best-checkpoint-metric accuracy" in (run / "warmup" / "options.txt").read_text()
    log = (run / "warmup" / "train.log").read_text()
    assert re.search(r'"valid_accuracy_text-kind": "[\d.]+".*"valid_accuracy": ', log) and "valid_bleu" not in log
    out = run / "dual" / "eval" / "test"
    scores = json.loads((out / "scores.json").read_text())["text-kind"]
    found, right, rescored = (
        (out / f"text-kind.{kind}.txt").read_text().splitlines() for kind in ("hyp", "ref", "dual-inference.hyp")
    )
    for of, lines in ((scores, found), (scores["dual_inference"], rescored)):
        hits = sum(a == b for a, b in zip(lines, right, strict=True))
        assert of["accuracy"] == pytest.approx(100 * hits / SPLITS["test"]) and of["bleu"] is None
        assert sum(of["confusion"][kind].get(kind, 0) for kind in set(right)) == hits
    monkeypatch.setattr(sys, "argv", ["dual-fairseq"])
    main(["report", str(run), "--no-scatter"])
    assert f"{scores['accuracy']:.2f} %" in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert "right label" in page and "found: statement" in page and "Validation accuracy" in page


def test_dual_inference_looks_at_every_label(run):
    out = run / "dual" / "eval" / "test"
    nbest = read_nbest((out / "text-kind.generate.txt").read_text().splitlines(), SPLITS["test"], out)
    assert all(sorted(labels) == sorted(KINDS) for labels in nbest.texts)
    weights = json.loads((out / "tuning" / "text-kind" / "weights.json").read_text())
    assert weights["general"]["weights"]["length"] == 0.0 and "accuracy" in weights["plain"]
    pair = DualTranslator.from_pretrained(run, device="cpu", dual_inference=0.5)
    alpha = pair.translate_nbest((out / "text-kind.src.txt").read_text().splitlines(), target="kind", nbest=3)
    for hypotheses, labels, components in zip(alpha, nbest.texts, nbest.components, strict=True):
        forward, reverse, lm, source_lm, length = components.T
        expected = (0.5 * forward + 0.5 * (reverse + lm - source_lm)) / length
        assert [h.text for h in hypotheses] == [labels[k] for k in (-expected).argsort()]
        assert [h.score for h in hypotheses] == pytest.approx(sorted(expected, reverse=True), abs=1e-3)


def test_a_line_that_is_no_label_is_not_translated(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"question\nfish\n")))
    with pytest.raises(UserError, match="line 2: 'fish' is not a label of kind: "):
        main(["translate", str(run), "-s", "kind", "--cpu"])


def test_rounds_are_for_text(dest, tmp_path):
    with pytest.raises(UserError, match="--rounds: is for text on both sides"):
        main(["train", str(dest), str(tmp_path / "run"), "--rounds", "1", "--cpu"])
