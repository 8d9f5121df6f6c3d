"""Tables of phrase pairs with their probabilities, made from the lexicon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from . import lexicon
from .inflection import (
    contract,
    english_noun,
    english_noun_phrase,
    english_verb,
    english_verb_parts,
    german_noun,
    german_noun_phrase,
    german_verb,
    german_verb_parts,
)
from .lexicon import TOPICS

Phrase = tuple[tuple[str, ...], ...]  # the tokens of each part of a phrase: a verb may be in two places


class Leaf(NamedTuple):
    """A table of phrase pairs; ``en`` and ``de`` affect only the form in that language (do-support, case)."""

    kind: str
    shared: tuple[str, ...]
    en: tuple[str, ...] = ()
    de: tuple[str, ...] = ()

    def side(self, lang: str) -> tuple:
        return (self.kind, self.shared, self.en if lang == "en" else self.de)


class Limits(NamedTuple):
    """The part of the lexicon in a small grammar: entries per list, alternatives per word; None for all."""

    words: int | None = None
    alternatives: int | None = None


def split_alternatives(text: str) -> list[tuple[str, float]]:
    """``"big; large:0.6"`` -> ``[("big", 0.625), ("large", 0.375)]``."""
    alternatives = []
    for item in text.split(";"):
        word, _, weight = item.strip().partition(":")
        alternatives.append((word.strip(), float(weight) if weight else 1.0))
    total = sum(weight for _, weight in alternatives)
    return [(word, weight / total) for word, weight in alternatives]


def rows(table: str) -> list[list[str]]:
    """The fields of a table's lines, in order (the bar inside a separable verb has no spaces around it)."""
    return [line.split(" | ") for line in table.strip().splitlines()]


def topics_of(field: str) -> tuple[str, ...]:
    return TOPICS if field == "*" else tuple(field.split())


def _alternatives(text: str, limits: Limits) -> list[tuple[str, float]]:
    return split_alternatives(text)[: limits.alternatives]


def _topic_rows(table: str, topic: str) -> list[list[str]]:
    return [row for row in rows(table) if topic in topics_of(row[1])]


def _cross(weight: float, english: list[tuple], german: list[tuple]) -> list[tuple]:
    return [(en, de, weight * p * q) for en, p in english for de, q in german]


def _weighted_rows(table: str, limits: Limits) -> list[tuple]:
    pairs: list[tuple] = []
    for weight, en, de in rows(table)[: limits.words]:
        pairs += _cross(float(weight), _alternatives(en, limits), _alternatives(de, limits))
    return pairs


def _nouns(noun_class: str, topic: str, limits: Limits) -> list[tuple]:
    pairs: list[tuple] = []
    for row in [row for row in _topic_rows(lexicon.NOUNS, topic) if row[0] == noun_class][: limits.words]:
        english = [(english_noun(text), p) for text, p in _alternatives(row[2], limits)]
        german = [(german_noun(text), p) for text, p in _alternatives(row[3], limits)]
        pairs += [(item, row) for item in _cross(1.0, english, german)]
    return pairs


def _adjectives(mark: str, topic: str, limits: Limits) -> list[tuple]:
    """``(English, (predicative, attributive), weight)`` of the adjectives for animates, things or places."""
    pairs: list[tuple] = []
    for _, _, en, de in [row for row in _topic_rows(lexicon.ADJECTIVES, topic) if mark in row[0]][: limits.words]:
        german = [((text.split("/")[0], text.split("/")[-1]), p) for text, p in _alternatives(de, limits)]
        pairs += _cross(1.0, _alternatives(en, limits), german)
    return pairs


def _determiners(number: str, limits: Limits) -> list[tuple]:
    lines = lexicon.DETERMINERS[number].split("; ")[: limits.words]
    return [(en, de, float(weight)) for weight, en, de in (line.split() for line in lines)]


def _pronouns(number: str, limits: Limits) -> list[tuple]:
    """Items ``("pronoun", form, ...)``; ``number`` is ``sg``, ``pl`` or ``any``."""
    pairs: list[tuple] = []
    for name, number_weight in _number_weights(number):
        for weight, en, de in rows(lexicon.PRONOUNS[name])[: limits.words]:
            pairs.append((("pronoun", *en.split()), ("pronoun", *de.split()), number_weight * float(weight)))
    return pairs


def _number_weights(number: str) -> list[tuple[str, float]]:
    return [("sg", 0.7), ("pl", 0.3)] if number == "any" else [(number, 1.0)]


def _noun_phrases(noun_class: str, number: str, options: Sequence[str], topic: str, limits: Limits) -> list[tuple]:
    """Items ``("np", determiner, adjective, noun, number)``.

    Args:
        noun_class: ``animate`` or ``thing``.
        options: ``adjective`` (allows one), ``pronoun`` (allows one instead), ``no`` (the determiner *no*).
    """
    pairs: list[tuple] = []
    pronouns = 0.25 if "pronoun" in options else 0.0
    if pronouns:
        offered = _pronouns(number, limits)
        total = math.fsum(p for *_, p in offered)
        pairs += [(en, de, pronouns * p / total) for en, de, p in offered]
    classes = (("person", 0.8), ("animal", 0.2)) if noun_class == "animate" else ((noun_class, 1.0),)
    for (sg_or_pl, number_weight), (name, class_weight) in product(_number_weights(number), classes):
        nouns = [item for item, _ in _nouns(name, topic, limits)]
        if not nouns:
            continue
        adjectives: list[tuple] = [("", ("", ""), 1.0)]
        if "adjective" in options:
            offered = _adjectives("i" if name == "thing" else "a", topic, limits)
            total = math.fsum(p for *_, p in offered)
            adjectives = [("", ("", ""), 0.55), *((en, de, 0.45 * p / total) for en, de, p in offered)]
        determiners = [("no", "kein", 1.0)] if "no" in options else _determiners(sg_or_pl, limits)
        scale = number_weight * (1 - pronouns) * class_weight
        scale /= math.fsum(p for *_, p in nouns) * math.fsum(p for *_, p in determiners)
        for (det_en, det_de, p), (adj_en, (_, adj_de), q), (noun_en, noun_de, r) in product(
            determiners, adjectives, nouns
        ):
            en = ("np", det_en, adj_en, noun_en, sg_or_pl)
            de = ("np", det_de, adj_de, noun_de, sg_or_pl)
            pairs.append((en, de, scale * p * q * r))
    return pairs


def _place_phrases(kind: str, topic: str, limits: Limits) -> list[tuple]:
    """Items ``(preposition, determiner, noun[, case])`` of place (``loc``) or direction (``goal``)."""
    determiners = [("the", "der", 0.65), ("a", "ein", 0.12), ("this", "dies", 0.08), ("our", "unser", 0.07)]
    determiners = [*determiners, ("that", "dies", 0.04), ("that", "jen", 0.04)][: limits.words]
    pairs: list[tuple] = []
    for (en, de, p), row in _nouns("place", topic, limits):
        choices = _alternatives(row[4 if kind == "loc" else 5], limits)
        if kind == "loc":
            general = _alternatives(lexicon.PREPOSITIONS, limits)[: limits.words]
            choices = [(text, 0.55 * q) for text, q in choices] + [(text, 0.45 * q) for text, q in general]
        for (text, q), det in product(choices, determiners):
            english, german = text.split("/")
            case = "acc" if kind == "goal" and german != "zu" else "dat"
            pairs.append(((english, det[0], en), (german, det[1], de, case), p * q * det[2]))
    return pairs


@cache
def word_pairs(kind: str, shared: tuple[str, ...], topic: str, limits: Limits) -> list[tuple]:
    """``(English item, German item, probability)`` of a table, probabilities summing to 1."""
    pairs = _weighted_pairs(kind, shared, topic, limits)
    total = math.fsum(p for _, _, p in pairs)
    return [(en, de, p / total) for en, de, p in pairs]


def _weighted_pairs(kind: str, shared: tuple[str, ...], topic: str, limits: Limits) -> list[tuple]:
    if kind == "np":
        return _noun_phrases(shared[0], shared[1], shared[2:], topic, limits)
    if kind == "pronoun":
        return _pronouns(shared[0], limits)
    if kind in ("loc", "goal"):
        return _place_phrases(kind, topic, limits)
    if kind == "verb":
        pairs: list[tuple] = []
        for _, _, en, de in [row for row in _topic_rows(lexicon.VERBS, topic) if row[0] == shared[0]][: limits.words]:
            english = [(english_verb(text), p) for text, p in _alternatives(en, limits)]
            german = [(german_verb(text), p) for text, p in _alternatives(de, limits)]
            pairs += _cross(1.0, english, german)
        return pairs
    if kind == "predicate":
        return [(en, de[0], p) for en, de, p in _adjectives(shared[0], topic, limits)]
    tables = {
        "time": lambda: lexicon.TIMES[shared[0]],
        "frequency": lambda: lexicon.FREQUENCIES,
        "conjunction": lambda: lexicon.CONJUNCTIONS[shared[0]],
        "modal": lambda: lexicon.MODALS[shared[0]],
    }
    return _weighted_rows(tables[kind](), limits)


@cache
def phrase_of(leaf: Leaf, lang: str, item: Any) -> Phrase:
    """The inflected words of an item, part by part."""
    parts = (_english if lang == "en" else _german)(leaf, item)
    return tuple(tuple(part.split()) for part in parts)


def _english(leaf: Leaf, item: Any) -> tuple[str, ...]:
    if leaf.kind in ("np", "pronoun"):
        if item[0] == "pronoun":
            return (item[1 if leaf.en[0] == "subject" else 2],)
        return (english_noun_phrase(*item[1:]),)
    if leaf.kind in ("loc", "goal"):
        preposition, determiner, noun = item
        return (f"{preposition} {english_noun_phrase(determiner, '', noun, 'sg')}",)
    if leaf.kind == "verb":
        return english_verb_parts(item, leaf.shared[1], *leaf.en)
    if leaf.kind == "modal":
        number, do = leaf.shared[1], leaf.en[0] == "do"
        head, plus, particle = item.partition("+")
        if not plus:
            first, _, second = item.partition(" ")
            return (first, second)
        if do:
            return ("does" if number == "sg" else "do", f"{head} {particle}")
        return ("", f"{head if number == 'pl' else {'have': 'has', 'want': 'wants'}[head]} {particle}")
    return (item,)


def _german(leaf: Leaf, item: Any) -> tuple[str, ...]:
    if leaf.kind in ("np", "pronoun"):
        case = leaf.de[0]
        if item[0] == "pronoun":
            return (item[1 + ("nom", "acc", "dat").index(case)],)
        _, determiner, adjective, noun, number = item
        return (german_noun_phrase(determiner, adjective, noun, number, case),)
    if leaf.kind in ("loc", "goal"):
        preposition, determiner, noun, case = item
        return (contract(f"{preposition} {german_noun_phrase(determiner, '', noun, 'sg', case)}"),)
    if leaf.kind == "verb":
        return german_verb_parts(item, leaf.shared[1], *leaf.de)
    if leaf.kind == "modal":
        return (item.split()[0 if leaf.shared[1] == "sg" else 1],)
    return (item,)
