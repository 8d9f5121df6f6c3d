"""Words: Moses tokenisation and how it is undone."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.languages import language_of


class Tokenizer:
    """Tokenises one language as fairseq's ``--tokenizer moses`` does, after Moses punctuation normalisation.

    Args:
        name: "moses", or "none" for text whose words are what white space separates.
        language: its code, whose language chooses the rules for abbreviations, apostrophes and numbers.
    """

    def __init__(self, name: str, language: str) -> None:
        self._moses = None
        if name == "moses":
            from sacremoses import MosesPunctNormalizer, MosesTokenizer

            self._normalizer = MosesPunctNormalizer(language_of(language))
            self._moses = MosesTokenizer(language_of(language))

    def __call__(self, text: str) -> str:
        """One line of text → its words, joined by single spaces."""
        if self._moses is not None:
            text = self._normalizer.normalize(text)
            text = self._moses.tokenize(text, aggressive_dash_splits=True, escape=True, return_str=True)
        return " ".join(text.split())


def detokenize(lines: Sequence[str], language: str, tokenizer: str) -> list[str]:
    """Undo :class:`Tokenizer`.

    Args:
        lines: words joined by spaces, without BPE.
        language: its code, whose language decides about quotation marks, apostrophes and the like.
        tokenizer: "moses", or "none", by which the lines stay as they are.
    """
    if tokenizer == "none":
        return list(lines)
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang=language_of(language))
    return [moses.detokenize(line.split()) for line in lines]


def rules_in_words(languages: Sequence[str]) -> str:
    """By whose rules Moses treats some languages, for the user: ``en for eng_Latn, none of its own for sw``."""
    from sacremoses.corpus import NonbreakingPrefixes

    known = {*NonbreakingPrefixes().available_langs.values(), "ja", "ko"}
    parts = []
    for code in languages:
        rules = language_of(code)
        own = rules if rules == code else f"{rules} for {code}"
        parts.append(own if rules in known else f"none of its own for {code} (those that fit every language)")
    return ", ".join(parts)
