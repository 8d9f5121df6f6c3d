"""Significance: the p-value is that of all exchanges of two systems' translations, whatever is sampled of them."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from dual_fairseq.pair.significance import paired_test

WORDS = [f"word{i}" for i in range(40)]


def texts(count: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=dice.randrange(8, 30))) for _ in range(count)]


def worse(references: list[str], errors: list[int]) -> list[str]:
    """Translations of which so many words are wrong, here and there."""
    dice = random.Random(0)
    translations = []
    for reference, count in zip(references, errors, strict=True):
        words = reference.split()
        for place in dice.sample(range(len(words)), count):
            words[place] = "x"
        translations.append(" ".join(words))
    return translations


def p_values(system, baseline, references, **more):
    found = paired_test(("a", baseline), [("b", system)], references, {"BLEU": BLEU(), "chrF": CHRF()}, **more)
    assert found["a"]["BLEU"].p_value is None
    return {metric: result.p_value for metric, result in found["b"].items()}


def test_p_is_the_share_of_exchanges_with_as_large_a_difference():
    references = texts(10, 1)
    dice = random.Random(3)
    first = worse(references, [dice.randrange(5) for _ in references])
    second = worse(references[::-1], [dice.randrange(5) for _ in references])[::-1]  # wrong at other places
    metric = BLEU()

    def difference(swapped) -> float:
        mine = [b if swap else a for a, b, swap in zip(first, second, swapped, strict=True)]
        its = [a if swap else b for a, b, swap in zip(first, second, swapped, strict=True)]
        return abs(metric.corpus_score(mine, [references]).score - metric.corpus_score(its, [references]).score)

    observed = difference([False] * 10)
    every = np.array([difference(swapped) for swapped in itertools.product((False, True), repeat=10)])
    exact = float((every >= observed - 1e-9).mean())
    assert 0.05 < exact < 0.95
    assert p_values(first, second, references)["BLEU"] == pytest.approx(exact, abs=0.02)


def test_a_clear_difference_is_significant_and_its_sign_does_not_matter():
    references = texts(60, 3)
    good, bad = worse(references, [1] * 60), worse(references, [3] * 60)
    for system, baseline in ((good, bad), (bad, good)):
        assert p_values(system, baseline, references, trials=1000) == {"BLEU": 1 / 1001, "chrF2": 1 / 1001}


def test_a_few_sentences_that_differ_are_no_evidence():
    references = texts(60, 4)
    same = worse(references, [2] * 60)
    for differing, least in ((0, 1.0), (1, 1.0), (3, 0.25), (6, 2**-5)):
        other = [*worse(references[:differing], [4] * differing), *same[differing:]]
        found = p_values(other, same, references)
        assert list(found.values()) == pytest.approx([least] * 2, abs=0.01)


@pytest.mark.parametrize(("better", "worse"), [(14, 6), (9, 3), (7, 1), (20, 10)])
def test_p_of_an_accuracy_is_that_of_the_sign_test(better, worse):
    references = ["right"] * 500
    system = ["wrong"] * worse + ["right"] * (500 - worse)
    baseline = ["right"] * worse + ["wrong"] * better + ["right"] * (500 - worse - better)
    differing = better + worse
    exact = sum(math.comb(differing, k) for k in range(better, differing + 1)) / 2 ** (differing - 1)
    accuracy = BLEU(tokenize="none", max_ngram_order=1, smooth_method="none")
    found = paired_test(("a", baseline), [("b", system)], references, {"BLEU": accuracy})["b"]["BLEU"].p_value
    assert found == pytest.approx(exact, abs=0.015)


def test_equal_systems_are_told_apart_as_often_as_the_level_says():
    references = texts(40, 5)
    dice = random.Random(6)
    found = []
    for _ in range(200):
        pair = [worse(references, [dice.randrange(5) for _ in references]) for _ in range(2)]
        found.append(
            paired_test(("a", pair[0]), [("b", pair[1])], references, {"BLEU": BLEU()}, 200)["b"]["BLEU"].p_value
        )
    assert np.mean(np.array(found) < 0.05) < 0.1  # sacreBLEU's bootstrap: 0.14
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.12)


def test_intervals_are_there_when_asked_for():
    references = texts(30, 7)
    dice = random.Random(8)
    system = worse(references, [dice.randrange(5) for _ in references])
    result = paired_test(("a", system), [("b", references)], references, {"BLEU": BLEU()}, 100, 200)["a"]["BLEU"]
    assert result.score == pytest.approx(BLEU().corpus_score(system, [references]).score)
    assert result.ci > 0 and abs(result.mean - result.score) < result.ci
