"""Moses tokenisation, and how it is undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import regex

from ..common.languages import CHINESE, language_of

if TYPE_CHECKING:
    import sacremoses  # imported only when used: it imports numpy, which would slow down --help

# The characters of words; Moses' own lists lack marks, the joiners of Persian, Bengali and emoji, and the underscore.
_ALNUM = r"\p{L}\p{M}\p{N}_\u200c\u200d"
_SENTENCE_MARKS = ".,;:!?"
_EDGES = _SENTENCE_MARKS + "()[]{}\"'„“”‚‘’«»‹›،؛؟।॥։"  # may stand before or after a word
# A quotation mark that may end a quotation → the mark that begins it.
_BEGINNING = {'"': '"', "'": "'", "“": "„", "”": "“", "‘": "‚", "’": "‘", "»": "«", "«": "»", "›": "‹", "‹": "›"}
_KIND = {mark: kind for kind in ("„“”", "‚‘’", "«»", "‹›") for mark in kind}
_QUOTATION_MARK = regex.compile(r"(?<!\S)[„“”‚‘’«»‹›](?=$|[\s.,;:!?)\]}])")
_WIDE_PUNCTUATION = regex.compile(" ?([、。，．：；？！「」『』（）【】《》〈〉]) ?")
_VOWELS = "aeiouàáâäèéêëìíîïòóôöùúûü"  # an elided word ends in a consonant, because its vowel was left out
_CACHED_WORDS = 200_000
_ROUNDS = 4  # a word that stays whole may change how Moses splits its neighbours


class Tokenizer:
    """Tokenises one language by Moses' rules, as fairseq's ``--tokenizer moses`` does.

    A word that :func:`detokenize` would not give back (``and/or``, ``20°C``, addresses, file names) stays whole.

    Args:
        name: "moses", or "none" for text in which white space separates the words.
        language: a code; its language decides the rules for abbreviations, apostrophes and numbers.
        normalize_punctuation: first replace typographic quotation marks, dashes and the like by Moses' rules.
        whole_words: False: split words at marks, joiners and symbols, like earlier versions.
    """

    def __init__(self, name: str, language: str, normalize_punctuation: bool = False, whole_words: bool = True) -> None:
        language = language_of(language)
        self._language, self._whole_words = language, whole_words
        self._moses: Any = None
        self._normalizer: Any = None
        if name == "moses":
            import sacremoses

            self._moses = _tokenizer(language) if whole_words else sacremoses.MosesTokenizer(language)
            self._normalizer = sacremoses.MosesPunctNormalizer(language) if normalize_punctuation else None
        self._torn = lru_cache(_CACHED_WORDS)(self._find_torn)

    def __call__(self, text: str) -> str:
        """One line of text → its words, joined by single spaces."""
        if self._normalizer is not None:
            text = self._normalizer.normalize(text)
        words = text.split()
        if self._moses is None:
            return " ".join(words)
        if not self._whole_words:
            return self._split(text)
        whole = dict.fromkeys(torn for word in words if not word.isalnum() and (torn := self._torn(word)))
        for _ in range(_ROUNDS):
            tokens = self._split(text, [*whole])
            back = self._join(tokens).split()
            known = len(whole)  # the context may split other words, such as a quotation without end
            whole |= dict.fromkeys(word for word in Counter(words) - Counter(back) if not word.isalnum())
            if len(whole) == known:
                break
        return tokens

    def _split(self, text: str, whole: Sequence[str] = ()) -> str:
        """Moses' tokens of a text; the words in ``whole`` stay as they are."""
        patterns = [regex.escape(word, special_only=True) for word in whole] or None
        try:
            tokens = self._moses.tokenize(text, aggressive_dash_splits=True, protected_patterns=patterns)
        except ValueError:  # more words than sacremoses can count
            tokens = self._moses.tokenize(text, aggressive_dash_splits=True)
        return " ".join(tokens)

    def _join(self, tokens: str) -> str:
        return detokenize([tokens], self._language, "moses")[0]

    def _find_torn(self, word: str) -> str:
        """The part of a word that has to stay whole; "" if Moses gives the word back."""
        if self._returns(word):
            return ""
        parts = [word.strip(_EDGES), word.rstrip(_SENTENCE_MARKS)]
        return next((part for part in parts if part and self._returns(word.replace(part, "x", 1))), word)

    def _returns(self, word: str) -> bool:
        """Whether a word is the same after tokenisation and back, by itself or at the end of a quotation."""
        starts = ["", *(f"{_BEGINNING[mark]}x " for mark in dict.fromkeys(word) if mark in _BEGINNING)]
        return any(self._join(self._split(start + word)) == start + word for start in starts)


@cache
def _tokenizer(language: str) -> sacremoses.MosesTokenizer:
    import sacremoses

    moses = sacremoses.MosesTokenizer(language)
    moses.PAD_NOT_ISALNUM = regex.compile(rf"([^{_ALNUM}\s.'`,\-])"), r" \1 "
    moses.AGGRESSIVE_HYPHEN_SPLIT = regex.compile(rf"([{_ALNUM}])-(?=[{_ALNUM}])"), r"\1 @-@ "
    return moses


@cache
def _detokenizer(language: str) -> sacremoses.MosesDetokenizer:
    import sacremoses

    moses = sacremoses.MosesDetokenizer(lang=language)
    # "50%" and "$5" are words and stay whole, so "50 %" and "5 $ (" keep their spaces.
    moses.IS_PUNCT = regex.compile(r"^[,.?!:;}\])]+$")
    moses.IS_CURRENCY_SYMBOL = regex.compile(r"^[(\[{¿¡]+$")
    moses.IS_OPEN_QUOTE = regex.compile(r"""^['"`]+$""")  # other marks: see _close_up
    # Only these are joined with their neighbour: "get 'em", "said 'yes'" and "un po' di" keep their spaces.
    moses.IS_ENGLISH_CONTRACTION = regex.compile(r"^'(?:s|m|d|t|ll|re|ve)$", regex.IGNORECASE)
    moses.IS_FRENCH_CONRTACTION = regex.compile(rf"^[\p{{L}}-]*(?:[^\P{{L}}{_VOWELS}]|qu)'$", regex.IGNORECASE)
    if language == "cs":  # sacremoses has a branch for Czech that fails
        moses.IS_FRENCH_CONRTACTION = regex.compile("(?!)")
    return moses


def detokenize(lines: Sequence[str], language: str, tokenizer: str, whole_words: bool = True) -> list[str]:
    """Undo :class:`Tokenizer`.

    Args:
        lines: words joined by spaces, without BPE.
        language: a code; its language decides about quotation marks, apostrophes and the like.
        tokenizer: "moses", or "none" to leave the lines as they are.
        whole_words: the same as for :class:`Tokenizer`.
    """
    if tokenizer == "none":
        return list(lines)
    language = language_of(language)
    if not whole_words:
        import sacremoses

        moses = sacremoses.MosesDetokenizer(lang=language)
        return [moses.detokenize(line.split()) for line in lines]
    moses = _detokenizer(language)
    texts = (moses.detokenize(line.split()) for line in lines)
    if language in CHINESE or language == "ja":  # others, such as Korean, have spaces beside it
        texts = (_WIDE_PUNCTUATION.sub(r"\1", text) for text in texts)
    return [_close_up(text, spaced="«»" if language == "fr" else "") for text in texts]


def rules_in_words(languages: Sequence[str]) -> str:
    """The rules that Moses uses for some languages, for the user: ``en for eng_Latn, none of its own for sw``."""
    from sacremoses.corpus import NonbreakingPrefixes

    known = {*NonbreakingPrefixes().available_langs.values(), "ja", "ko"}
    parts = []
    for code in languages:
        rules = language_of(code)
        own = rules if rules == code else f"{rules} for {code}"
        parts.append(own if rules in known else f"none of its own for {code} (those that fit every language)")
    return ", ".join(parts)


def _close_up(text: str, spaced: str) -> str:
    """Remove the spaces between typographic quotation marks and the quoted text; ``spaced`` marks keep them."""
    begun: set[str] = set()
    parts, last = [], 0
    for match in _QUOTATION_MARK.finditer(text):
        mark, kind = match[0], _KIND[match[0]]
        if mark in spaced:
            continue
        ends = kind in begun or mark == "’"
        begun = begun - {kind} if ends else begun | {kind}
        before = text[last : match.start()]
        parts += [before.removesuffix(" ") if ends else before, mark]
        last = match.end() + (not ends and text.startswith(" ", match.end()))
    return "".join([*parts, text[last:]])
