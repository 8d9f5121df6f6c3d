"""Tuning on saved n-best lists: exact counts, a plateau rather than a spike, files that another command can use."""

import itertools
import json
import math
import random
import re

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from dual_fairseq.__main__ import main
from dual_fairseq.common.bleu import bleu_metric
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair import tune
from dual_fairseq.pair.nbest import NBest, best_of, read_nbest
from dual_fairseq.plugin.ranking import Choice, Weights, component_line, read_choice

WORDS = "the a dog cat man sees hears near old red house in of and".split()


def sentences(rng, count):
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def lists():
    """References, and four more or less damaged copies of each; the language model and the reverse model notice."""
    rng = random.Random(5)
    references = sentences(rng, 60)
    texts, components = [], []
    for reference in references:
        row, numbers = [], []
        for _ in range(4):
            words = reference.split()
            damage = rng.randint(0, 3)
            for _ in range(damage):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            row.append(" ".join(words))
            numbers.append(
                [rng.gauss(-10, 2), -10 - 3 * damage + rng.gauss(0, 1), -20 + rng.gauss(0, 3), -21, len(words) + 1]
            )
        order = np.argsort([-n[0] / n[-1] for n in numbers])
        texts.append([row[i] for i in order])
        components.append([numbers[i] for i in order])
    return references, NBest(texts, np.array(components))


def test_counts_give_corpus_bleu(lists):
    references, nbest = lists
    metric = BLEU()
    bleu = tune.CorpusBleu(nbest.texts, references, metric)
    rng = np.random.default_rng(1)
    for _ in range(5):
        chosen = rng.integers(0, 4, len(references))
        text = [of_sentence[i] for of_sentence, i in zip(nbest.texts, chosen, strict=True)]
        assert bleu.score(chosen) == pytest.approx(metric.corpus_score(text, [references]).score)


def test_what_is_best(lists):
    _, nbest = lists
    assert best_of(nbest.components, Weights(), 1.0).tolist() == [0] * 60
    weights = Weights(1.0, reverse=0.5, lm=0.1, length=0.2)
    by_hand = [
        max(range(4), key=lambda k: c[k][0] + 0.5 * c[k][1] + 0.1 * c[k][2] + 0.2 * c[k][4]) for c in nbest.components
    ]
    assert best_of(nbest.components, weights, 0.0).tolist() == by_hand
    # a list that is shorter than the others is padded with NaN, which never wins
    padded = nbest.components.copy()
    padded[:, 3] = np.nan
    assert (best_of(padded, weights, 0.0) < 3).all()


def test_a_spike_is_not_chosen():
    surface = np.full((7, 7), 30.0)
    surface[1, 1] = 33.0  # alone
    surface[4:7, 3:6] = 32.0  # a plateau
    smoothed = tune._smooth(surface)
    assert np.unravel_index(smoothed.argmax(), smoothed.shape) == (5, 4)
    assert smoothed[0, 0] == pytest.approx((30 * 3 + 33) / 4)  # the corner has but four points


def test_the_fine_grid_stays_within_the_coarse_one(monkeypatch):
    seen = []
    monkeypatch.setattr(tune, "_best_point", lambda nbest, bleu, axes: seen.append(axes) or dict.fromkeys(axes, 0.0))
    tune.grid_search(NBest([["a", "b"]], np.arange(10.0).reshape(1, 2, 5)), None)
    for axes in seen:
        assert {name: (axes[name] >= tune.GRID[name][0]).all() for name in axes} == dict.fromkeys(tune.GRID, True)
    assert seen[1]["reverse"].tolist() == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_reverse_model_is_found_to_help(lists):
    references, nbest = lists
    result = tune.tune(nbest, references, "en", 1.0, bleu_metric("en"))
    assert result["general"]["weights"]["reverse"] > 0.3
    assert result["general"]["bleu"] > result["plain"]["bleu"] + 3
    assert result["alpha"]["bleu"] == max(row["bleu"] for row in result["by_alpha"])
    assert result["by_alpha"][-1]["alpha"] == 1 and result["by_alpha"][-1]["bleu"] == result["plain"]["bleu"]
    assert result[result["best"]]["bleu"] == max(result[form]["bleu"] for form in tune.FORMS)
    for form in ("alpha", "general"):
        row = result[form]
        text = nbest.best(Weights(**row["weights"]), row["lenpen"])
        assert BLEU().corpus_score(text, [references]).score == pytest.approx(row["bleu"])


def two_translations(pairs: list[tuple[str, str]]) -> NBest:
    """Of each sentence a short and a long one; the long ones are chosen from a length penalty of 1.1 on."""
    components = np.full((len(pairs), 2, 5), np.nan)
    for row, texts in zip(components, pairs, strict=True):
        lengths = np.array([len(text.split()) + 1 for text in texts])
        row[:, 0], row[:, 4] = -(lengths**1.05), lengths
    return NBest([list(pair) for pair in pairs], components)


def lenpen_of(references: list[str], nbest: NBest) -> float:
    return tune.tune_lenpen(nbest, tune.CorpusBleu(nbest.texts, references, BLEU()), 1.0)


def test_a_length_penalty_that_helps_is_found_and_no_more_than_needed_is_taken():
    references = [" ".join(f"w{i}{k}" for k in range(10)) for i in range(100)]
    nbest = two_translations([(" ".join(text.split()[:6]), text) for text in references])
    assert lenpen_of(references, nbest) == 1.1
    nbest.components[..., 1] = nbest.components[..., 2] = 0.0  # no opinion
    result = tune.tune(nbest, references, "en", 1.15, BLEU())
    assert result["lenpen"]["lenpen"] == 1.15 and "plain, lenpen 1.15 " in tune.table(result)


def test_where_bleu_is_flat_the_length_penalty_stays():
    """The long translation is right of 4 sentences in 200 and wrong of 3: better, but by chance."""
    references = [" ".join(f"w{i}{k}" for k in range(10)) for i in range(200)]
    short = [" ".join(text.split()[:9]) for text in references]
    pairs = [(text, f"{text} more") for text in references]
    for i, (text, less) in enumerate(zip(references[:7], short, strict=False)):
        pairs[i] = (less, text) if i < 4 else (text, f"{text} and more")
    for i in range(7, 200):
        pairs[i] = (references[i], references[i])
    nbest = two_translations(pairs)
    metric = tune.CorpusBleu(nbest.texts, references, BLEU())
    long = np.ones(200, dtype=int)
    assert metric.score(long) != metric.score(0 * long)
    assert lenpen_of(references, nbest) == 1.0


def test_without_language_models_there_is_no_form_to_tune(lists):
    references, nbest = lists
    bare = nbest.components.copy()
    bare[..., 2:4] = np.nan
    with pytest.raises(UserError, match="no language model scores"):
        tune.tune(NBest(nbest.texts, bare), references, "en", 1.0, bleu_metric("en"))
    bare[..., 2] = nbest.components[..., 2]  # that of the source is missing: no α form
    assert "alpha" not in tune.tune(NBest(nbest.texts, bare), references, "en", 1.0, bleu_metric("en"))


def write_list(path, nbest):
    lines = []
    for i in reversed(range(len(nbest.texts))):
        lines += [component_line(i, c) for c in nbest.components[i]]
        lines.append(f"S-{i}\tsource")
        lines += [f"H-{i}\t-1.0\t{text}" for text in nbest.texts[i]]
    path.write_text("\n".join(lines) + "\n")


def test_the_command(lists, tmp_path, capsys):
    references, nbest = lists
    write_list(tmp_path / "list.txt", nbest)
    (tmp_path / "ref.en").write_text("\n".join(references) + "\n")
    files = [tmp_path / "list.txt", "--reference", tmp_path / "ref.en", "-o", tmp_path / "out"]
    main(["tune", *map(str, files), "-t", "en", "--tokenizer", "none"])
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "weights.json").read_text())
    for form in tune.FORMS:
        row = result[form]
        assert read_choice(tmp_path / "out" / "weights.json", form) == Choice(
            Weights(**row["weights"]), row["lenpen"], "en"
        )
    assert f"{result['general']['bleu']:.2f}" in printed and "--dual-inference-reverse-weight" in printed
    assert (tmp_path / "out" / "tuning.png").read_bytes().startswith(b"\x89PNG")
    table = [line.split("\t") for line in (tmp_path / "out" / "alpha.tsv").read_text().splitlines()]
    assert table[0] == ["alpha", "bleu", "chrf", "length_ratio"] and len(table) == 22
    assert float(table[-1][1]) == pytest.approx(result["plain"]["bleu"], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("R-3\t", "X-3\t"), "lacks component scores"),
        (lambda text: text.replace("reverse=", "verse="), "is not output of fairseq-generate"),
        (lambda text: text + "H-60\t0\tx\n", "more sentences than the 60"),
        (lambda text: text.replace("dog", "do@@ g"), r"translations hold BPE marks \(@@\)"),
        (lambda text: text.replace("H-3\t", "H--3\t"), "is not output of fairseq-generate"),
        (lambda text: re.sub("(R-3.*)length=[0-9]+", r"\1length=0", text), "is not output of fairseq-generate"),
        (lambda text: re.sub("(R-3.*)forward=[^\t]+", r"\1forward=inf", text), "is not output of fairseq-generate"),
        (lambda text: "", "has no translation of 60 of the reference"),
        (
            lambda text: text + "".join(re.findall("(?:R-3|H-3)\t.*\n", text)) * 40_000,
            "translations of one sentence, but few of others",
        ),
    ],
)
def test_a_list_that_cannot_be_used(lists, tmp_path, change, message):
    write_list(tmp_path / "list.txt", lists[1])
    text = change((tmp_path / "list.txt").read_text())
    with pytest.raises(UserError, match=message):
        read_nbest(text.splitlines(), 60, tmp_path / "list.txt")


def test_lists_are_read_whatever_the_order_and_a_sentence_may_be_missing(tmp_path):
    values = [np.array([-1.0, -2, -3, -4, 5]), np.array([-2.0, -2, -3, -4, 6])]
    lines = [component_line(2, v) for v in values] + ["H-2\t-1\tfirst one", "H-2\t-2\tsecond"]
    lines += [component_line(0, values[0]), "H-0\t-1\tonly"]
    for number in range(3, 20):  # so many that one may be missing
        lines += [component_line(number, values[0]), f"H-{number}\t-1\tmore"]
    nbest = read_nbest(lines, 20, tmp_path)
    assert nbest.texts[:3] == [["only"], [], ["first one", "second"]]
    assert nbest.components.shape == (20, 2, 5) and np.isnan(nbest.components[0, 1]).all()
    for i, j in itertools.product((0, 1), repeat=2):
        assert math.isclose(nbest.components[2, i, j], values[i][j], rel_tol=1e-8)
    assert nbest.best(Weights(1.0, length=0.5), 0.0)[:3] == ["only", "", "first one"]
