"""Rules and phrases of the grammar, indexed for parsing one language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from .phrases import Leaf, Limits, Phrase, phrase_of, word_pairs
from .rules import Rule, Symbol

LANGUAGES = ("de", "en")
Vector = tuple[float, ...]  # one value per topic


@dataclass
class Trie:
    next: dict = field(default_factory=dict)
    pattern: int = -1


class Side:
    """One language's phrases of a table: probability by topic, and the continuations of a partly matched phrase."""

    def __init__(self, phrases: dict[Phrase, Vector]) -> None:
        self.prob = phrases
        self.after: dict[Phrase, dict[tuple[str, ...], None]] = {}
        for phrase in phrases:
            for part in range(len(phrase)):
                self.after.setdefault(phrase[:part], {})[phrase[part]] = None
        self.lengths = {done: sorted({len(part) for part in parts}) for done, parts in self.after.items()}
        self.longest = max(sum(map(len, phrase)) for phrase in phrases)

    def matches(self, tokens: Sequence[str], start: int, done: Phrase) -> Iterator[tuple[int, tuple[str, ...]]]:
        parts = self.after.get(done, {})
        for length in self.lengths.get(done, ()):
            piece = tuple(tokens[start : start + length])
            if len(piece) == length and piece in parts:
                yield start + length, piece


class Nonterminal:
    """The rules of one nonterminal, indexed for parsing.

    ``patterns[lang]`` lists the distinct one-language views of the rules; a parse holds their numbers.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        total = math.fsum(rule.weight for rule in rules)
        merged: dict[tuple, float] = {}
        for rule in rules:
            if rule.weight > 0:
                key = (rule.slots, rule.en, rule.de)
                merged[key] = merged.get(key, 0.0) + rule.weight / total
        self.rules = [Rule(weight, *key) for key, weight in merged.items()]
        self.cumulative = list(accumulate(rule.weight for rule in self.rules))
        self.patterns: dict[str, list[tuple[tuple, tuple[Symbol, ...]]]] = {}
        self.weights: dict[str, list[float]] = {}
        self.trie: dict[str, Trie] = {}
        self.by_pair: dict[tuple[int, int], list[Rule]] = {}  # (de pattern, en pattern)
        self.by_pattern: dict[str, list[list[Rule]]] = {}
        numbers: dict[str, list[int]] = {}
        for lang in LANGUAGES:
            known: dict[tuple, int] = {}
            self.trie[lang], self.weights[lang], self.by_pattern[lang] = Trie(), [], []
            numbers[lang] = []
            for rule in self.rules:
                slots = tuple(slot.side(lang) if isinstance(slot, Leaf) else slot for slot in rule.slots)
                pattern = rule.en if lang == "en" else rule.de
                number = known.setdefault((slots, pattern), len(known))
                if number == len(self.weights[lang]):
                    self.weights[lang].append(0.0)
                    self.by_pattern[lang].append([])
                    self._insert(lang, slots, pattern, number)
                self.weights[lang][number] += rule.weight
                self.by_pattern[lang][number].append(rule)
                numbers[lang].append(number)
            self.patterns[lang] = list(known)
        for rule, *pair in zip(self.rules, numbers["de"], numbers["en"], strict=True):
            self.by_pair.setdefault((pair[0], pair[1]), []).append(rule)

    def _insert(self, lang: str, slots: tuple, pattern: tuple[Symbol, ...], number: int) -> None:
        node = self.trie[lang]
        for symbol in pattern:
            edge = symbol if isinstance(symbol, str) else (*symbol, slots[symbol[0]])
            node = node.next.setdefault(edge, Trie())
        # Two rules may share a pattern only if all their slots agree; otherwise a parse would not identify its slots.
        assert node.pattern == -1, "a rule leaves a slot out of its pattern"
        node.pattern = number


class Tables:
    """The tables of phrase pairs that the rules refer to.

    Args:
        topics: topic names.
        limits: the part of the lexicon to keep.
    """

    def __init__(self, topics: Sequence[str], limits: Limits) -> None:
        self._topics, self._limits = topics, limits
        self._pair_cache: dict[tuple, list[tuple]] = {}
        self._cumulative: dict[tuple, list[float]] = {}
        self._sides: dict[tuple, Side] = {}
        self._joint: dict[Leaf, dict[tuple[Phrase, Phrase], Vector]] = {}
        self._translations: dict[tuple[Leaf, str], dict[Phrase, list[tuple[Phrase, Vector]]]] = {}

    def pairs(self, leaf: Leaf, topic: int) -> list[tuple]:
        """``(English item, German item, probability)`` of a table in one topic, before inflection."""
        key = (leaf.kind, leaf.shared, topic)
        if key not in self._pair_cache:
            self._pair_cache[key] = word_pairs(leaf.kind, leaf.shared, self._topics[topic], self._limits)
        return self._pair_cache[key]

    def cumulative(self, leaf: Leaf, topic: int) -> list[float]:
        """The running sums of the probabilities of :meth:`pairs`."""
        key = (leaf.kind, leaf.shared, topic)
        if key not in self._cumulative:
            self._cumulative[key] = list(accumulate(p for _, _, p in self.pairs(leaf, topic)))
        return self._cumulative[key]

    def side(self, side: tuple, lang: str) -> Side:
        key = (lang, side)
        if key not in self._sides:
            leaf = Leaf(side[0], side[1], side[2], side[2])
            phrases: dict[Phrase, list[float]] = {}
            for z in range(len(self._topics)):
                for en, de, p in self.pairs(leaf, z):
                    phrase = phrase_of(leaf, lang, en if lang == "en" else de)
                    phrases.setdefault(phrase, [0.0] * len(self._topics))[z] += p
            self._sides[key] = Side({phrase: tuple(vector) for phrase, vector in phrases.items()})
        return self._sides[key]

    def joint(self, leaf: Leaf) -> dict[tuple[Phrase, Phrase], Vector]:
        """Probability by topic of each (German phrase, English phrase)."""
        if leaf not in self._joint:
            table: dict[tuple[Phrase, Phrase], list[float]] = {}
            for z in range(len(self._topics)):
                for en, de, p in self.pairs(leaf, z):
                    key = (phrase_of(leaf, "de", de), phrase_of(leaf, "en", en))
                    table.setdefault(key, [0.0] * len(self._topics))[z] += p
            self._joint[leaf] = {key: tuple(vector) for key, vector in table.items()}
        return self._joint[leaf]

    def translations(self, leaf: Leaf, source: str, phrase: Phrase) -> list[tuple[Phrase, Vector]]:
        """Translations of a phrase with their conditional probability by topic."""
        if (leaf, source) not in self._translations:
            by_source: dict[Phrase, dict[Phrase, Vector]] = {}
            for (de, en), vector in self.joint(leaf).items():
                here, there = (de, en) if source == "de" else (en, de)
                by_source.setdefault(here, {})[there] = vector
            normalised = {}
            for here, options in by_source.items():
                totals = [math.fsum(column) for column in zip(*options.values(), strict=True)]
                normalised[here] = [
                    (there, tuple(v / t if t > 0 else 0.0 for v, t in zip(vector, totals, strict=True)))
                    for there, vector in options.items()
                ]
            self._translations[leaf, source] = normalised
        return self._translations[leaf, source].get(phrase, [])
