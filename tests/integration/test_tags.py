"""Tags from text to scores: preprocessing, a pair, its evaluation and translation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.folders import Data
from dual_fairseq.pair.translator import DualTranslator
from dual_fairseq.toy_corpus.grammar import ToyGrammar
from dual_fairseq.toy_corpus.lexicon import ADJECTIVES, DETERMINERS, NOUNS

SPLITS = {"train": 200, "valid": 30, "test": 30}


def english(table: str) -> list[str]:
    """The English words of a table of the lexicon."""
    columns = (line.split("|")[2] for line in table.strip().splitlines())
    return [word.split(":")[0].strip() for column in columns for word in column.split(";")]


NUMBERS = {
    form.split()[-1]: n for noun in english(NOUNS) for form, n in zip(noun.split("/"), ("sg", "pl"), strict=True)
}
DETERMINING = {entry.split()[1] for table in DETERMINERS.values() for entry in table.split(";")} | {"an", "no"}


def tags_of(sentence: str) -> str:
    """Nouns with their number; adjectives and determiners with the number of the noun that follows them; O."""
    tags: list[str] = []
    number = ""  # of the noun phrase that follows
    for word in reversed(sentence.lower().split()):
        if word in english(ADJECTIVES) and (number or word not in NUMBERS):  # "light" is a noun, too
            tags.append(f"A-{number}" if number else "A")
            continue
        determines = word in DETERMINING and number
        tags.append(f"D-{number}" if determines else NUMBERS.get(word, "O"))
        number = "" if determines else NUMBERS.get(word, "")
    return " ".join(reversed(tags))


def test_the_tags_need_their_context():
    assert tags_of("The old dogs saw her new light") == "D-pl A-pl pl O D-sg A-sg sg"
    assert tags_of("The light lamp is old and he knows that") == "D-sg A-sg sg O A O O O O"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A pair, trained for a moment and evaluated."""
    folder = tmp_path_factory.mktemp("tags")
    grammar = ToyGrammar()
    for seed, (split, count) in enumerate(SPLITS.items()):
        sentences = [text.rstrip(".?").replace(",", "") for _, text in grammar.sample(count, seed)]
        (folder / f"{split}.text").write_text("".join(f"{line}\n" for line in sentences))
        (folder / f"{split}.tags").write_text("".join(f"{tags_of(line)}\n" for line in sentences))
    prefixes = [word for split in SPLITS for word in (f"--{split}", str(folder / split))]
    data = ["-s", "text", "-t", "tags", "--target-subword", "tag", *prefixes, "--dest", str(folder / "data")]
    main(["preprocess", *data])
    limits = "--lm-max-update 5 --warmup-max-update 20 --dual-max-update 5 --lr-warmup 5 --lm-lr-warmup 2"
    tiny = "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2"
    words = ["train", str(folder / "data"), str(folder / "run"), *limits.split(), "--size", "tiny", "--cpu"]
    main([*words, "--no-eval", "--", *tiny.split()])
    main(["evaluate", str(folder / "data"), str(folder / "run"), "--dual-inference", "--beam", "3", "--cpu"])
    return folder / "run"


def test_accuracy_is_of_words_and_chooses_the_checkpoint(run):
    data = Data.from_folder(run.parent / "data")
    assert data.sides["tags"].tags and data.sides["text"].segmented and data.has_annotations
    assert "--best-checkpoint-metric accuracy" in (run / "warmup" / "options.txt").read_text()
    log = (run / "warmup" / "train.log").read_text()
    assert re.search(r'"valid_accuracy_text-tags": "[\d.]+".*"valid_accuracy": ', log) and "valid_bleu" not in log
    out = run / "dual" / "eval" / "test"
    scores = json.loads((out / "scores.json").read_text())["text-tags"]
    found, right, rescored = (
        [line.split() for line in (out / f"text-tags.{kind}.txt").read_text().splitlines()]
        for kind in ("hyp", "ref", "dual-inference.hyp")
    )
    for of, lines in ((scores, found), (scores["dual_inference"], rescored)):
        assert [*map(len, lines)] == [*map(len, right)]
        hits = sum(a == b for line, tags in zip(lines, right, strict=True) for a, b in zip(line, tags, strict=True))
        assert of["accuracy"] == pytest.approx(100 * hits / sum(map(len, right))) and of["bleu"] is None
        assert sum(counts.get(tag, 0) for tag, counts in of["confusion"].items()) == hits
    weights = json.loads((out / "tuning" / "text-tags" / "weights.json").read_text())
    assert weights["general"]["weights"]["length"] == 0.0 and "accuracy" in weights["plain"]


def test_each_word_gets_a_tag(run):
    pair = DualTranslator.from_pretrained(run, device="cpu", dual_inference=0.5)
    texts = ["dog", "The unheard-of words have tags , too", "", "a " * 40]
    for text, hypotheses in zip(texts, pair.translate_nbest(texts, target="tags", nbest=3), strict=True):
        assert all(len(h.text.split()) == len(text.split()) and not h.cut_off for h in hypotheses)
