"""The embedded corpus: a probabilistic synchronous grammar whose probabilities are known exactly.

It generates pairs of a German and an English sentence. A hidden topic chooses the words of a sentence; rules choose its
shape in both languages at once (main clause with verb-second order, question, subordinate clause with the verb last,
modal, perfect or preterite, negation, fronted adverbials and objects); within a rule each phrase is drawn from a finite
table of phrase pairs. Beyond the rule, the topic is all that phrases have in common, so

    P(de, en) = sum over topics of P(topic) * sum over derivations of the product of rule and phrase probabilities

and this, with P(de) and P(en), is computed exactly (float64, nats) by parsing the strings: every segmentation of an
ambiguous string counts. P(en | de) is computed by another route than the joint probability: from the posterior of the
derivations of the German sentence, whose phrases are translated and matched with the English one. For the truth
log P(x) + log P(y|x) - log P(y) - log P(x|y) is 0 to rounding.

Command::

    dual-fairseq toy-corpus OUT [--train 3000 --valid 500 --test 500 --mono 20000 --seed 1]

writes OUT/{train,valid,test,mono}.{de,en} and, last, OUT/truth.json: the sums of the log-probabilities of each split
and the entropies of the grammar in nats. The sentences of mono.de and mono.en are no translations of each other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, product
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError
from . import lexicon
from .lexicon import Leaf, Phrase

LANGUAGES = ("de", "en")
TENSES = ("present", "past", "modal")
STRUCTURES = ("main", "question", "because", "because-fronted")
FRAMES = ("animate", "thing", "thing-place", "place", "goal", "give", "be-animate", "be-thing")

Vector = tuple[float, ...]  # one value a topic


# In a pattern a string is a literal word, a pair (slot, part) a piece of that slot's phrase or clause.
_Part = tuple[int, int]
Symbol = str | _Part
_Verb = tuple[list[Symbol], list[Symbol]]  # finite part, rest


@dataclass(frozen=True)
class Rule:
    """One way to write a clause or sentence: its slots, and the order of their parts in both languages."""

    weight: float
    slots: tuple[Leaf | str, ...]
    en: tuple[Symbol, ...]
    de: tuple[Symbol, ...]


@dataclass
class _Trie:
    next: dict = field(default_factory=dict)
    pattern: int = -1


class _Side:
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


class _Grammar:
    """The rules of one nonterminal, indexed for parsing.

    ``patterns[lang]`` lists the distinct one-language views of the rules; a parse names one by its number.
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
        self.trie: dict[str, _Trie] = {}
        self.by_pair: dict[tuple[int, int], list[Rule]] = {}  # (de pattern, en pattern)
        self.by_pattern: dict[str, list[list[Rule]]] = {}
        numbers: dict[str, list[int]] = {}
        for lang in LANGUAGES:
            known: dict[tuple, int] = {}
            self.trie[lang], self.weights[lang], self.by_pattern[lang] = _Trie(), [], []
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
            node = node.next.setdefault(edge, _Trie())
        # Two rules may share a pattern only if all their slots agree, else a parse would not name its slots.
        assert node.pattern == -1, "a rule leaves a slot out of its pattern"
        node.pattern = number


class Node(NamedTuple):
    """A parse in one language: nonterminal, pattern number, and for each slot a phrase or another node."""

    symbol: str
    pattern: int
    children: tuple


def tokenize(sentence: str) -> list[str]:
    """Splits a sentence into words and the marks ``. , ?``."""
    return re.findall(r"[^\s.,?]+|[.,?]", sentence)


def render(tokens: Sequence[str]) -> str:
    """Joins words and marks into a written sentence with an upper-case start."""
    text = re.sub(r" ([.,?])", r"\1", " ".join(tokens))
    return text[:1].upper() + text[1:]


def _times(a: Sequence[float], b: Sequence[float]) -> Vector:
    return tuple([u * v for u, v in zip(a, b, strict=True)])


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _entropy(weights: Iterable[float]) -> float:
    return -math.fsum(w * math.log(w) for w in weights if w > 0)


class ToyGrammar:
    """The grammar. All log-probabilities and entropies are in nats; German is ``"de"``, English ``"en"``.

    The options make a smaller grammar of the same make, small enough to be enumerated.

    Args:
        topics: some of :data:`dual_fairseq.toy_corpus.lexicon.TOPICS`; their weights are normalised again.
        words: at most so many entries of each word list (in each topic) instead of all.
        alternatives: at most so many synonyms of a word in each language instead of all.
        tenses: some of :data:`TENSES`.
        structures: some of :data:`STRUCTURES`.
        frames: some of :data:`FRAMES`.
        topic_weights: other probabilities for the topics, in the order of ``topics``.

    Raises:
        ValueError: an option names nothing known, or leaves nothing.
    """

    def __init__(
        self,
        topics: Sequence[str] | None = None,
        words: int | None = None,
        alternatives: int | None = None,
        tenses: Sequence[str] = TENSES,
        structures: Sequence[str] = STRUCTURES,
        frames: Sequence[str] = FRAMES,
        topic_weights: Sequence[float] | None = None,
    ) -> None:
        self.topics = tuple(lexicon.TOPICS if topics is None else topics)
        for name, chosen, known in (
            ("topics", self.topics, lexicon.TOPICS),
            ("tenses", tenses, TENSES),
            ("structures", structures, STRUCTURES),
            ("frames", frames, FRAMES),
        ):
            if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - set(known):
                raise ValueError(f"{name} must be some of {', '.join(known)}, each once")
        for name, limit in (("words", words), ("alternatives", alternatives)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1")
        if topic_weights is None:
            topic_weights = [lexicon.TOPIC_WEIGHTS[lexicon.TOPICS.index(topic)] for topic in self.topics]
        if len(topic_weights) != len(self.topics) or min(topic_weights) <= 0:
            raise ValueError("topic_weights must hold one positive number a topic")
        self.topic_weights = tuple(weight / math.fsum(topic_weights) for weight in topic_weights)
        self._limits = lexicon.Limits(words, alternatives)
        self._grammars = {
            symbol: _Grammar(rules) for symbol, rules in _rules(tuple(tenses), tuple(structures), tuple(frames)).items()
        }
        self._pair_cache: dict[tuple, list[tuple]] = {}
        self._cumulative: dict[tuple, list[float]] = {}
        self._sides: dict[tuple, _Side] = {}
        self._tables: dict[Leaf, dict[tuple[Phrase, Phrase], Vector]] = {}
        self._translations: dict[tuple[Leaf, str], dict[Phrase, list[tuple[Phrase, Vector]]]] = {}
        self._parse_cache: dict[tuple[str, str], list[Node]] = {}

    # ---- tables of phrases -------------------------------------------------------------------------------------

    def _pairs(self, leaf: Leaf, topic: int) -> list[tuple]:
        """``(English item, German item, probability)`` of a table in one topic, before inflection."""
        key = (leaf.kind, leaf.shared, topic)
        if key not in self._pair_cache:
            self._pair_cache[key] = lexicon.word_pairs(leaf.kind, leaf.shared, self.topics[topic], self._limits)
            self._cumulative[key] = list(accumulate(p for _, _, p in self._pair_cache[key]))
        return self._pair_cache[key]

    def _side(self, side: tuple, lang: str) -> _Side:
        key = (lang, side)
        if key not in self._sides:
            leaf = Leaf(side[0], side[1], side[2], side[2])
            phrases: dict[Phrase, list[float]] = {}
            for z in range(len(self.topics)):
                for en, de, p in self._pairs(leaf, z):
                    phrase = lexicon.phrase(leaf, lang, en if lang == "en" else de)
                    phrases.setdefault(phrase, [0.0] * len(self.topics))[z] += p
            self._sides[key] = _Side({phrase: tuple(vector) for phrase, vector in phrases.items()})
        return self._sides[key]

    def _table(self, leaf: Leaf) -> dict[tuple[Phrase, Phrase], Vector]:
        """Probability by topic of each (German phrase, English phrase)."""
        if leaf not in self._tables:
            table: dict[tuple[Phrase, Phrase], list[float]] = {}
            for z in range(len(self.topics)):
                for en, de, p in self._pairs(leaf, z):
                    key = (lexicon.phrase(leaf, "de", de), lexicon.phrase(leaf, "en", en))
                    table.setdefault(key, [0.0] * len(self.topics))[z] += p
            self._tables[leaf] = {key: tuple(vector) for key, vector in table.items()}
        return self._tables[leaf]

    def _translate(self, leaf: Leaf, source: str, phrase: Phrase) -> list[tuple[Phrase, Vector]]:
        """Translations of a phrase with their conditional probability by topic."""
        if (leaf, source) not in self._translations:
            by_source: dict[Phrase, dict[Phrase, Vector]] = {}
            for (de, en), vector in self._table(leaf).items():
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

    # ---- generation --------------------------------------------------------------------------------------------

    def sample(self, n: int, seed: int) -> list[tuple[str, str]]:
        """Draws ``n`` independent pairs ``(German sentence, English sentence)``; the same for the same seed."""
        rng = random.Random(seed)
        cumulative = list(accumulate(self.topic_weights))
        topics = range(len(self.topics))
        pairs = []
        for _ in range(n):
            de, en = self._draw("S", rng.choices(topics, cum_weights=cumulative)[0], rng)
            pairs.append((render(de[0]), render(en[0])))
        return pairs

    def _draw(self, symbol: str, topic: int, rng: random.Random) -> tuple[Phrase, Phrase]:
        grammar = self._grammars[symbol]
        rule = rng.choices(grammar.rules, cum_weights=grammar.cumulative)[0]
        drawn = []
        for slot in rule.slots:
            if isinstance(slot, Leaf):
                pairs = self._pairs(slot, topic)
                cumulative = self._cumulative[slot.kind, slot.shared, topic]
                en, de, _ = rng.choices(pairs, cum_weights=cumulative)[0]
                drawn.append((lexicon.phrase(slot, "de", de), lexicon.phrase(slot, "en", en)))
            else:
                drawn.append(self._draw(slot, topic, rng))
        return _fill(rule.de, [de for de, _ in drawn]), _fill(rule.en, [en for _, en in drawn])

    def enumerate(self) -> Iterator[tuple[str, str, float]]:
        """All derivations as (German sentence, English sentence, probability); a pair may come up several times.

        Meant for small grammars. It shares nothing with parsing, so that the one can be checked by the other.
        """
        for z, weight in enumerate(self.topic_weights):
            for de, en, p in self._derivations("S", z):
                yield render(de[0]), render(en[0]), weight * p

    def _derivations(self, symbol: str, topic: int) -> Iterator[tuple[Phrase, Phrase, float]]:
        for rule in self._grammars[symbol].rules:
            options = []
            for slot in rule.slots:
                if isinstance(slot, Leaf):
                    pairs = self._pairs(slot, topic)
                    options.append(
                        [(lexicon.phrase(slot, "de", de), lexicon.phrase(slot, "en", en), p) for en, de, p in pairs]
                    )
                else:
                    options.append(list(self._derivations(slot, topic)))
            for chosen in product(*options):
                de = _fill(rule.de, [item[0] for item in chosen])
                en = _fill(rule.en, [item[1] for item in chosen])
                yield de, en, rule.weight * math.prod(item[2] for item in chosen)

    # ---- parsing -----------------------------------------------------------------------------------------------

    def _parses(self, sentence: str, lang: str) -> list[Node]:
        """All parses of a sentence; empty if the grammar cannot write it."""
        if lang not in LANGUAGES:
            raise ValueError(f"the language must be one of {', '.join(LANGUAGES)}, not {lang!r}")
        key = (lang, sentence)
        if key not in self._parse_cache:
            nodes = []
            for tokens in _readings(sentence):
                memo: dict = {}
                nodes += [node for end, node in self._match("S", lang, tokens, 0, memo) if end == len(tokens)]
            if len(self._parse_cache) >= 10_000:
                self._parse_cache.clear()
            self._parse_cache[key] = nodes
        return self._parse_cache[key]

    def _match(self, symbol: str, lang: str, tokens: list[str], start: int, memo: dict) -> list[tuple[int, Node]]:
        if (symbol, start) in memo:
            return memo[symbol, start]
        grammar = self._grammars[symbol]
        found: list[tuple[int, Node]] = []

        def walk(trie: _Trie, at: int, chosen: dict) -> None:
            if trie.pattern >= 0:
                found.append((at, Node(symbol, trie.pattern, tuple(chosen[k] for k in range(len(chosen))))))
            for edge, child in trie.next.items():
                if isinstance(edge, str):
                    if at < len(tokens) and tokens[at] == edge:
                        walk(child, at + 1, chosen)
                    continue
                slot, part, side = edge
                if isinstance(side, str):
                    for end, node in self._match(side, lang, tokens, at, memo):
                        walk(child, end, {**chosen, slot: node})
                    continue
                done = chosen[slot] if part else ()
                key = (side, at, done)
                if key not in memo:
                    memo[key] = list(self._side(side, lang).matches(tokens, at, done))
                for end, piece in memo[key]:
                    walk(child, end, {**chosen, slot: (*done, piece)})

        walk(grammar.trie[lang], start, {})
        memo[symbol, start] = found
        return found

    def _inside(self, node: Node, lang: str) -> Vector:
        """Probability by topic of a parse in one language."""
        grammar = self._grammars[node.symbol]
        slots = grammar.patterns[lang][node.pattern][0]
        vector: Vector = (grammar.weights[lang][node.pattern],) * len(self.topics)
        for slot, child in zip(slots, node.children, strict=True):
            inner = self._inside(child, lang) if isinstance(slot, str) else self._side(slot, lang).prob[child]
            vector = _times(vector, inner)
        return vector

    def _joint(self, de: Node, en: Node) -> list[Vector]:
        """Probability by topic of each derivation that has these two parses."""
        if de.symbol != en.symbol:
            return []
        derivations = []
        for rule in self._grammars[de.symbol].by_pair.get((de.pattern, en.pattern), ()):
            vectors: list[Vector] = [(rule.weight,) * len(self.topics)]
            for slot, here, there in zip(rule.slots, de.children, en.children, strict=True):
                if isinstance(slot, Leaf):
                    inner = self._table(slot).get((here, there))
                    options = [inner] if inner else []
                else:
                    options = self._joint(here, there)
                vectors = [_times(vector, option) for vector in vectors for option in options]
            derivations += vectors
        return derivations

    def _joint_derivations(self, de: str, en: str) -> list[float]:
        """Probability of each derivation (topic, rules, phrases) of a pair."""
        found: list[float] = []
        english = self._parses(en, "en")
        for source in self._parses(de, "de"):
            for target in english:
                for vector in self._joint(source, target):
                    found += _times(vector, self.topic_weights)
        return found

    def _derivations_of(self, sentence: str, lang: str) -> list[tuple[Node, Vector]]:
        return [(node, _times(self._inside(node, lang), self.topic_weights)) for node in self._parses(sentence, lang)]

    # ---- log-probabilities -------------------------------------------------------------------------------------

    def log_prob_joint(self, de: str, en: str) -> float:
        """log P(de, en) in nats; ``-inf`` for a pair that the grammar cannot write."""
        return _log(math.fsum(self._joint_derivations(de, en)))

    def log_prob(self, sentence: str, lang: str) -> float:
        """log P(sentence) in nats, ``lang`` being ``"de"`` or ``"en"``; ``-inf`` if the grammar cannot write it."""
        return _log(math.fsum(p for _, vector in self._derivations_of(sentence, lang) for p in vector))

    def log_prob_conditional(self, target: str, source: str, source_lang: str) -> float:
        """log P(target | source) in nats, where ``source_lang`` is ``"de"`` (de to en) or ``"en"`` (en to de).

        Computed forward, from the posterior of the source's derivations and their translations, and not as a quotient
        of :meth:`log_prob_joint` and :meth:`log_prob`.

        Raises:
            ValueError: the source itself has probability 0.
        """
        derivations = self._derivations_of(source, source_lang)
        total = math.fsum(p for _, vector in derivations for p in vector)
        if total == 0:
            raise ValueError(f"the grammar cannot write this {source_lang} sentence: {source!r}")
        terms: list[float] = []
        for tokens in _readings(target):
            for node, vector in derivations:
                posterior = tuple(p / total for p in vector)
                for end, translated in self._translated(node, source_lang, tokens, 0):
                    if end == len(tokens):
                        terms += _times(posterior, translated)
        return _log(math.fsum(terms))

    def _translated(self, node: Node, source: str, tokens: list[str], start: int) -> list[tuple[int, Vector]]:
        """Ends and, by topic, probabilities of the translations of a source parse that the tokens go on with."""
        grammar = self._grammars[node.symbol]
        found: list[tuple[int, Vector]] = []

        def walk(rule: Rule, pattern: tuple[Symbol, ...], at: int, vector: Vector, chosen: dict[int, Phrase]) -> None:
            if not pattern:
                found.append((at, vector))
                return
            symbol, rest = pattern[0], pattern[1:]
            if isinstance(symbol, str):
                if at < len(tokens) and tokens[at] == symbol:
                    walk(rule, rest, at + 1, vector, chosen)
                return
            index, part = symbol
            slot, child = rule.slots[index], node.children[index]
            if isinstance(slot, str):
                for end, inner in self._translated(child, source, tokens, at):
                    walk(rule, rest, end, _times(vector, inner), chosen)
                return
            certain = (1.0,) * len(self.topics)
            options = [(chosen[index], certain)] if part else self._translate(slot, source, child)
            for phrase, inner in options:
                end = at + len(phrase[part])
                if tuple(tokens[at:end]) == phrase[part]:
                    walk(rule, rest, end, _times(vector, inner), {**chosen, index: phrase})

        for rule in grammar.by_pattern[source][node.pattern]:
            share = rule.weight / grammar.weights[source][node.pattern]
            walk(rule, rule.de if source == "en" else rule.en, start, (share,) * len(self.topics), {})
        return found

    def gap(self, de: str, en: str) -> float:
        """[log P(de) + log P(en|de)] - [log P(en) + log P(de|en)] in nats: 0 but for rounding.

        Raises:
            ValueError: the grammar cannot write the pair.
        """
        forward = self.log_prob(de, "de") + self.log_prob_conditional(en, de, "de")
        backward = self.log_prob(en, "en") + self.log_prob_conditional(de, en, "en")
        if math.isinf(forward) or math.isinf(backward):
            raise ValueError("the grammar cannot write this pair")
        return forward - backward

    # ---- entropies ---------------------------------------------------------------------------------------------

    def entropies(self, samples: int = 2000, seed: int = 0) -> dict[str, float]:
        """Entropies in nats a sentence, and their standard errors.

        H(X) = H(D) - H(D|X), where D is the derivation that wrote X. H(D) is computed exactly, rule by rule and table
        by table; H(D|X), which is small, is the mean over a seeded sample of the exact entropy of the derivations given
        the sentence (no log-probability is estimated). The same holds for Y and for the pair.

        Returns:
            ``de``, ``en``, ``joint``, ``en_given_de``, ``de_given_en`` and ``mutual_information``; for each
            ``<name>_stderr``; ``samples`` and ``seed``.
        """
        if samples < 2:
            raise ValueError("samples must be at least 2")
        columns: dict[str, list[float]] = {name: [] for name in ("de", "en", "joint")}
        for de, en in self.sample(samples, seed):
            weights = {
                "de": [p for _, vector in self._derivations_of(de, "de") for p in vector],
                "en": [p for _, vector in self._derivations_of(en, "en") for p in vector],
                "joint": self._joint_derivations(de, en),
            }
            for name, values in weights.items():
                total = math.fsum(values)
                columns[name].append(_entropy(value / total for value in values))
        exact = {name: self._derivation_entropy(name) for name in columns}
        triples = list(zip(columns["de"], columns["en"], columns["joint"], strict=True))
        columns["en_given_de"] = [joint - de for de, _, joint in triples]
        columns["de_given_en"] = [joint - en for _, en, joint in triples]
        columns["mutual_information"] = [de + en - joint for de, en, joint in triples]
        exact["en_given_de"] = exact["joint"] - exact["de"]
        exact["de_given_en"] = exact["joint"] - exact["en"]
        exact["mutual_information"] = exact["de"] + exact["en"] - exact["joint"]
        result: dict[str, float] = {}
        for name, values in columns.items():
            mean = math.fsum(values) / samples
            variance = math.fsum((value - mean) ** 2 for value in values) / (samples - 1)
            result[name] = exact[name] - mean
            result[f"{name}_stderr"] = math.sqrt(variance / samples)
        return {**result, "samples": samples, "seed": seed}

    def _derivation_entropy(self, what: str) -> float:
        """Exact entropy of (topic, rules, phrases) as seen in one language or, for ``"joint"``, in both."""
        tables: dict = {}

        def of_slot(slot: Leaf | str | tuple, topic: int) -> float:
            if isinstance(slot, str):
                return of_symbol(slot, topic)
            if slot not in tables:
                vectors = self._table(slot) if isinstance(slot, Leaf) else self._side(slot, what).prob
                tables[slot] = [_entropy(column) for column in zip(*vectors.values(), strict=True)]
            return tables[slot][topic]

        @cache
        def of_symbol(symbol: str, topic: int) -> float:
            grammar = self._grammars[symbol]
            if what == "joint":
                choices = [(rule.weight, rule.slots) for rule in grammar.rules]
            else:
                slots_of = [slots for slots, _ in grammar.patterns[what]]
                choices = list(zip(grammar.weights[what], slots_of, strict=True))
            own = _entropy(weight for weight, _ in choices)
            return own + math.fsum(w * math.fsum(of_slot(slot, topic) for slot in slots) for w, slots in choices)

        inner = math.fsum(p * of_symbol("S", z) for z, p in enumerate(self.topic_weights))
        return _entropy(self.topic_weights) + inner

    # ---- facts -------------------------------------------------------------------------------------------------

    def longest(self, lang: str) -> int:
        """The number of words and marks of the longest sentence there is (an upper bound, reached or nearly so)."""

        @cache
        def of_symbol(symbol: str) -> int:
            lengths = []
            for slots, pattern in self._grammars[symbol].patterns[lang]:
                inner = [of_symbol(slot) if isinstance(slot, str) else self._side(slot, lang).longest for slot in slots]
                lengths.append(sum(inner) + sum(isinstance(item, str) for item in pattern))
            return max(lengths)

        return of_symbol("S")


def _fill(pattern: Sequence[Symbol], phrases: Sequence[Phrase]) -> Phrase:
    tokens: list[str] = []
    for symbol in pattern:
        tokens += [symbol] if isinstance(symbol, str) else phrases[symbol[0]][symbol[1]]
    return (tuple(tokens),)


def _readings(sentence: str) -> list[list[str]]:
    """The token sequences that are written like this: the first word may owe its upper case to its place."""
    tokens = tokenize(sentence)
    if not tokens or render(tokens) != sentence or not sentence[0].isupper():
        return []
    lowered = tokens[0][0].lower() + tokens[0][1:]
    return [tokens, [lowered, *tokens[1:]]]


# ---- rules ---------------------------------------------------------------------------------------------------------

# (English form, German form, weight); the tense of a translation is not settled by the source.
_FORMS = {
    "present": (("present", "present", 0.65), ("progressive", "present", 0.35)),
    "past": (
        ("past", "preterite", 0.4),
        ("past", "perfect", 0.32),
        ("perfect", "perfect", 0.2),
        ("perfect", "preterite", 0.08),
    ),
    "modal": (("infinitive", "infinitive", 1.0),),
}
_TENSE_WEIGHTS = {"present": 0.4, "past": 0.36, "modal": 0.24}
_STRUCTURE_WEIGHTS = {"main": 0.56, "question": 0.14, "because": 0.18, "because-fronted": 0.12}
_FRAME_WEIGHTS = {
    "animate": 0.22,
    "thing": 0.2,
    "thing-place": 0.1,
    "place": 0.14,
    "goal": 0.1,
    "give": 0.1,
    "be-animate": 0.06,
    "be-thing": 0.08,
}
_LONG_FRAMES = ("thing-place", "give")  # not in a sentence of two clauses
_OBJECTS = {"": 0.72, "pronoun": 0.16, "no": 0.12}
_OBJECT_FRAMES = {"pronoun": ("animate", "give"), "no": ("animate", "thing", "thing-place", "give")}
_NUMBERS = {"sg": 0.68, "pl": 0.32}


def _rules(tenses: Sequence[str], structures: Sequence[str], frames: Sequence[str]) -> dict[str, list[Rule]]:
    """All rules by nonterminal. A clause's tense is part of its name, so that both clauses of a sentence agree."""
    rules: dict[str, list[Rule]] = {"S": []}
    short = [frame for frame in frames if frame not in _LONG_FRAMES]
    for tense in tenses:
        weights = {name: _TENSE_WEIGHTS[tense] * _STRUCTURE_WEIGHTS[name] for name in structures}
        if not short:
            weights = {name: weight for name, weight in weights.items() if not name.startswith("because")}
        for name, weight in weights.items():
            rules["S"] += _sentence_rules(name, tense, weight)
        needed = {slot for rule in rules["S"] for slot in rule.slots if isinstance(slot, str)}
        for shape, allowed in (("main", frames), ("question", frames), ("short", short), ("inverted", short)):
            if f"{shape} {tense}" in needed:
                rules[f"{shape} {tense}"] = _clause_rules(shape, tense, allowed)
        inner = "past" if tense == "past" else "present"
        if f"subordinate {inner}" in needed and f"subordinate {inner}" not in rules:
            rules[f"subordinate {inner}"] = _clause_rules("subordinate", inner, short)
    if not rules["S"]:
        raise ValueError(
            "these structures, tenses and frames leave no sentence: a subordinate clause needs a short frame"
        )
    return rules


def _sentence_rules(name: str, tense: str, weight: float) -> list[Rule]:
    if name in ("main", "question"):
        mark = "." if name == "main" else "?"
        return [Rule(weight, (f"{name} {tense}",), ((0, 0), mark), ((0, 0), mark))]
    inner = "past" if tense == "past" else "present"
    conjunction = Leaf("conjunction", (inner,))

    def build(share: float, main: str, english_first: bool, german_first: bool) -> Rule:
        # Slots: main clause, conjunction, subordinate clause.
        en = ((1, 0), (2, 0), ",", (0, 0), ".") if english_first else ((0, 0), (1, 0), (2, 0), ".")
        de = ((1, 0), (2, 0), ",", (0, 0), ".") if german_first else ((0, 0), ",", (1, 0), (2, 0), ".")
        return Rule(weight * share, (f"{main} {tense}", conjunction, f"subordinate {inner}"), en, de)

    if name == "because":
        return [build(0.85, "short", False, False), build(0.15, "inverted", False, True)]
    return [build(0.8, "inverted", True, True), build(0.2, "short", True, False)]


def _clause_rules(shape: str, tense: str, frames: Sequence[str]) -> list[Rule]:
    """Rules of a clause.

    Args:
        shape: ``main``, ``question``, ``subordinate`` (German verb last), ``short`` (like main, nothing fronted; part
            of a longer sentence), ``inverted`` (the same after a fronted subordinate clause: German verb first).
    """
    rules = []
    adverbs = {"subordinate": {"": 1.0}, "short": {"": 0.6, "time": 0.25, "frequency": 0.15}}.get(
        shape, {"": 0.4, "time": 0.4, "frequency": 0.2}
    )
    if shape == "inverted":
        adverbs = {"": 0.7, "time": 0.15, "frequency": 0.15}
    polarities = {"": 1.0} if shape == "question" else {"": 0.86, "not": 0.14}
    choices = product(frames, _NUMBERS.items(), _FORMS[tense], polarities.items(), adverbs.items(), _OBJECTS.items())
    for frame, (number, p), (en_form, de_form, q), (polarity, r), (adverb, s), (object_kind, t) in choices:
        if polarity and adverb == "frequency":  # "does not often see" and "sieht nicht oft" would need a scope
            continue
        if frame.startswith("be-") and (en_form, de_form) not in (
            ("present", "present"),
            ("past", "preterite"),
            ("infinitive", "infinitive"),
        ):
            continue
        if object_kind and (adverb or frame not in _OBJECT_FRAMES[object_kind]):
            continue  # a German pronoun would have to go before the adverb
        if object_kind == "no" and polarity:
            continue
        weight = _FRAME_WEIGHTS[frame] * p * q * r * s * t
        if frame.startswith("be-"):  # the forms skipped above leave their share to the one kept
            weight /= q
        clause = _Clause(shape, tense, frame, number, en_form, de_form, bool(polarity), adverb, object_kind)
        rules += clause.rules(weight)
    return rules


@dataclass
class _Clause:
    """The slots of a clause and the word orders that both languages allow."""

    shape: str
    tense: str
    frame: str
    number: str
    en_form: str
    de_form: str
    negated: bool
    adverb: str
    object_kind: str
    slots: list[Leaf | str] = field(default_factory=list)

    def add(self, kind: str, shared: Iterable[str] = (), en: Iterable[str] = (), de: Iterable[str] = ()) -> int:
        self.slots.append(Leaf(kind, tuple(shared), tuple(en), tuple(de)))
        return len(self.slots) - 1

    def rules(self, weight: float) -> list[Rule]:
        subject, objects, place = self._arguments()
        adverb = [(self.add(self.adverb, (self.tense,) if self.adverb == "time" else ()), 0)] if self.adverb else []
        verb = self._verb()
        rules = []
        for de_share, de in self._german_orders(subject, verb, objects, place, adverb):
            for en_share, en in self._english_orders(subject, verb, objects, place, adverb, de):
                rules.append(Rule(weight * de_share * en_share, tuple(self.slots), tuple(en), tuple(de)))
        return rules

    def _arguments(self) -> tuple[_Part, list[_Part], list[_Part]]:
        """Slots of the subject, the objects (indirect first) and the place."""
        adjective = ["adjective"] * (self.shape != "subordinate")
        if self.frame == "be-thing":
            subject = self.add("np", ("thing", self.number), ("subject",), ("nom",))
        else:
            subject = self.add("np", ("animate", self.number, "pronoun", *adjective), ("subject",), ("nom",))
        objects, place = [], []
        if self.frame in ("animate", "give"):
            case = "acc" if self.frame == "animate" else "dat"
            options = [
                *(adjective if case == "acc" else []),
                *(["no"] if case == "acc" and self.object_kind == "no" else []),
            ]
            if self.object_kind == "pronoun":
                objects.append(self.add("pronoun", ("any",), ("object",), (case,)))
            else:
                objects.append(self.add("np", ("animate", "any", *options), ("object",), (case,)))
        if self.frame in ("thing", "thing-place", "give"):
            options = [*adjective, *(["no"] if self.object_kind == "no" else [])]
            objects.append(self.add("np", ("thing", "any", *options), ("object",), ("acc",)))
        if self.frame in ("place", "thing-place"):
            place = [self.add("loc")]
        elif self.frame == "goal":
            place = [self.add("goal")]
        return (subject, 0), [(slot, 0) for slot in objects], [(slot, 0) for slot in place]

    def _verb(self) -> dict[str, _Verb]:
        """For each language the finite part and the rest of the predicate."""
        singular = self.number == "sg"
        do = "do" if self.negated or self.shape == "question" else ""
        final = "final" if self.shape == "subordinate" else ""
        be = self.frame.startswith("be-")
        english: _Verb
        german: _Verb
        if be:
            marks = "a" if self.frame == "be-animate" else "i"
            english, german = ([], [(self.add("predicate", (marks,)), 0)]), ([], [(len(self.slots) - 1, 0)])
        else:
            lemma = "thing" if self.frame == "thing-place" else self.frame
            verb = self.add("verb", (lemma, self.number), (self.en_form, do), (self.de_form, final))
            english, german = ([(verb, 0)], [(verb, 1)]), ([(verb, 0)], [(verb, 1)])
        if self.tense == "modal":
            modal = self.add("modal", ("negative" if self.negated else "positive", self.number), (do,))
            english = ([(modal, 0)], [(modal, 1), *(["be", *english[1]] if be else english[0])])
            german = ([(modal, 0)], [*german[1], "sein"] if be else german[0])
        elif be and self.tense == "present":
            english[0].append("is" if singular else "are")
            german[0].append("ist" if singular else "sind")
        elif be:
            english[0].append("was" if singular else "were")
            german[0].append("war" if singular else "waren")
        elif final:
            german = (german[0], [])
        return {"en": english, "de": german}

    def _german_orders(
        self, subject: _Part, verb: dict[str, _Verb], objects: list[_Part], place: list[_Part], adverb: list[_Part]
    ) -> list[tuple[float, list[Symbol]]]:
        """Word orders and their probabilities."""
        finite, rest = verb["de"]
        no: list[Symbol] = ["nicht"] if self.negated else []
        subjects = [subject]
        if self.shape == "subordinate":
            return [(1.0, [*subjects, *objects, *no, *place, *rest, *finite])]
        # The two orders of what lies between the finite verb and the end, beyond the subject.
        middles = [(1.0, [*adverb, *objects])]
        if adverb and objects:
            middles = [(0.75, [*adverb, *objects]), (0.25, [*objects, *adverb])]
        elif len(objects) == 2:
            middles = [(0.8, objects), (0.2, objects[::-1])]
        found: list[tuple[float, list[Symbol]]] = []
        if self.shape in ("question", "inverted"):
            return [(p, [*finite, *subjects, *middle, *no, *place, *rest]) for p, middle in middles]
        fronted: list[tuple[float, list[Symbol]]] = []
        if self.shape == "main":
            if adverb:
                p = 0.4 if self.adverb == "time" else 0.15
                fronted.append((p, [*adverb, *finite, *subjects, *objects, *no, *place, *rest]))
            if place and self.frame != "goal":
                fronted.append((0.12, [*place, *finite, *subjects, *adverb, *objects, *no, *rest]))
            if len(objects) == 1:
                fronted.append((0.07, [*objects, *finite, *subjects, *adverb, *no, *place, *rest]))
        left = 1 - math.fsum(p for p, _ in fronted)
        for p, middle in middles:
            found.append((left * p, [*subjects, *finite, *middle, *no, *place, *rest]))
        return found + fronted

    def _english_orders(
        self,
        subject: _Part,
        verb: dict[str, _Verb],
        objects: list[_Part],
        place: list[_Part],
        adverb: list[_Part],
        de: list[Symbol],
    ) -> list[tuple[float, list[Symbol]]]:
        """Word orders and their probabilities, given the German one."""
        finite, rest = verb["en"]
        no: list[Symbol] = ["not"] if self.negated else []
        often = adverb if self.adverb == "frequency" else []
        when = adverb if self.adverb == "time" else []
        tails: list[tuple[float, list[Symbol]]] = [(1.0, [*objects])]
        if len(objects) == 2:
            tails = [(0.6, [*objects]), (0.4, [objects[1], "to", objects[0]])]
        found: list[tuple[float, list[Symbol]]] = []
        for p, tail in tails:
            if self.shape == "question":
                found.append((p, [*finite, subject, *often, *rest, *tail, *place, *when]))
                continue
            core = [subject, *finite, *no, *often, *rest, *tail, *place]
            if when and self.shape == "main":
                # What German puts first, English rather puts first too.
                first = 0.7 if de[0] == when[0] else 0.2
                found += [(p * first, [*when, *core]), (p * (1 - first), [*core, *when])]
            else:
                found.append((p, [*core, *when]))
        return found


# ---- the corpus on disk --------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_corpus(
    out: Path,
    sizes: dict[str, int],
    mono: int,
    seed: int,
    grammar: ToyGrammar | None = None,
    entropy_samples: int = 2000,
) -> dict:
    """Writes the corpus and ``truth.json`` (last, so that its presence means that all files are complete).

    Args:
        out: folder, made if it is missing.
        sizes: pairs a split, ``train``, ``valid`` and ``test``, each drawn on its own.
        mono: sentences of ``mono.de`` and of ``mono.en``.

    Returns:
        what ``truth.json`` holds; log-probabilities and entropies in nats.

    Raises:
        UserError: the folder cannot be written.
    """
    grammar = grammar or ToyGrammar()
    splits: dict[str, dict[str, float]] = {}
    train: set[tuple[str, str]] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "truth.json").unlink(missing_ok=True)
        for offset, (split, size) in enumerate(sizes.items()):
            pairs = grammar.sample(size, _seed(seed, offset))
            for lang, *column in zip(LANGUAGES, *pairs, strict=True):
                _write(out / f"{split}.{lang}", "".join(line + "\n" for line in column))
            splits[split] = _truth(grammar, pairs)
            if split == "train":
                train = set(pairs)
            elif train:
                splits[split]["share_in_train"] = sum(pair in train for pair in pairs) / size
        for offset, lang in enumerate(LANGUAGES):
            drawn = grammar.sample(mono, _seed(seed, len(sizes) + offset))
            _write(out / f"mono.{lang}", "".join(pair[offset] + "\n" for pair in drawn))
        truth = {
            "unit": "nats",
            "seed": seed,
            "splits": splits,
            "mono": {"sentences": mono},
            "entropies": grammar.entropies(entropy_samples),
        }
        _write(out / "truth.json", json.dumps(truth, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the corpus to {out}: {error.strerror}; choose another folder") from error
    return truth


def _seed(seed: int, offset: int) -> int:
    # Far apart, so that neighbouring seeds of the user share no split.
    return seed * 1_000 + offset


def _truth(grammar: ToyGrammar, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    joint = math.fsum(grammar.log_prob_joint(de, en) for de, en in pairs)
    source = math.fsum(grammar.log_prob(de, "de") for de, _ in pairs)
    target = math.fsum(grammar.log_prob(en, "en") for _, en in pairs)
    return {
        "sentences": len(pairs),
        "log_p_joint": joint,
        "log_p_de": source,
        "log_p_en": target,
        "log_p_en_given_de": math.fsum(grammar.log_prob_conditional(en, de, "de") for de, en in pairs),
        "log_p_de_given_en": math.fsum(grammar.log_prob_conditional(de, en, "en") for de, en in pairs),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="dual-fairseq toy-corpus", description="Write the embedded corpus and its exact probabilities."
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=3000, help="training pairs (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=500, help="validation pairs (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, help="test pairs (default: %(default)s)")
    parser.add_argument(
        "--mono", type=int, default=20000, help="monolingual sentences a language (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed gives the same corpus (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    sizes = {"train": options.train, "valid": options.valid, "test": options.test}
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"--{name} must be at least 1, not {size}")
    if options.mono < 0:
        raise UserError(f"--mono must not be negative, not {options.mono}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, not {options.seed}")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file; name a folder to write the corpus to")
    truth = write_corpus(options.out, sizes, options.mono, options.seed)
    limits = truth["entropies"]
    print(
        f"wrote {', '.join(f'{size} {name}' for name, size in sizes.items())} pairs and {options.mono} monolingual "
        f"sentences a language to {options.out}; H(en|de) = {limits['en_given_de']:.2f}, "
        f"H(de|en) = {limits['de_given_en']:.2f} nats a sentence"
    )
