"""The language of a code decides about rules, whatever standard the code is of."""

from __future__ import annotations

import pytest
from sacremoses.corpus import NonbreakingPrefixes

from dual_fairseq.common.languages import _TWO_LETTERS, language_of
from dual_fairseq.data.tokenizer import Tokenizer, rules_in_words


@pytest.mark.parametrize(
    ("codes", "language"),
    [
        ("en eng en_US en-GB eng_Latn EN", "en"),
        ("de deu ger de_CH deu_Latn", "de"),
        ("zh zho zh_CN zho_Hans zh-Hant cmn cmn_Hani", "zh"),
        ("ja jpn ja_JP jpn_Jpan", "ja"),
        ("fr fra fr_FR fra_Latn", "fr"),
        ("lv lvs_Latn", "lv"),
        ("yue yue_Hant", "yue"),
        ("sw", "sw"),
        ("swh_Latn", "swh"),
        ("rk", "rk"),
    ],
)
def test_the_language_of_a_code(codes, language):
    assert {language_of(code) for code in codes.split()} == {language}


def test_every_language_with_rules_is_reached_from_its_code_of_three_letters():
    rules = {code for code in NonbreakingPrefixes().available_langs.values() if len(code) == 2}
    assert rules | {"ja", "ko"} == set(_TWO_LETTERS.values())


@pytest.mark.parametrize("code", ["en", "eng", "en_US", "eng_Latn"])
def test_apostrophes_are_treated_by_the_rules_of_the_language(code):
    assert Tokenizer("moses", code)("It's Anna's dog.") == "It &apos;s Anna &apos;s dog ."


@pytest.mark.parametrize("code", ["fr", "fra_Latn", "fr_FR"])
def test_numbers_are_normalised_by_the_rules_of_the_language(code):
    assert Tokenizer("moses", code, normalize_punctuation=True)("l'an 1\u00a0000") == "l&apos; an 1,000"


def test_the_rules_are_said():
    assert rules_in_words(["eng_Latn", "de"]) == "en for eng_Latn, de"
    assert rules_in_words(["ja_JP", "sw"]) == "ja for ja_JP, none of its own for sw (those that fit every language)"
