"""The embedded corpus: a probabilistic synchronous grammar whose probabilities are known exactly.

It generates pairs of a German and an English sentence. A hidden topic chooses the words of a sentence; rules choose its
shape in both languages at once (main clause with verb-second order, question, subordinate clause with the verb last,
modal, perfect or preterite, negation, fronted adverbials and objects); within a rule each phrase is drawn from a finite
table of phrase pairs. Given the rule, phrases depend on each other only through the topic, so

    P(de, en) = sum over topics of P(topic) * sum over derivations of the product of rule and phrase probabilities

This sum, P(de) and P(en) are computed exactly (float64, nats) by parsing the strings: every segmentation of an
ambiguous string counts. P(en | de) is not computed from the joint probability, but from the posterior of the
derivations of the German sentence: their phrases are translated and matched with the English sentence. For the truth,
log P(x) + log P(y|x) - log P(y) - log P(x|y) is 0 except for rounding.

dual-fairseq toy-corpus (:mod:`.corpus`) writes text of the grammar, :mod:`.limits` computes its entropies.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, product
from typing import NamedTuple

from . import lexicon
from .index import LANGUAGES, Nonterminal, Tables, Trie, Vector
from .phrases import Leaf, Limits, Phrase, phrase_of
from .rules import FRAMES, STRUCTURES, TENSES, Rule, Symbol, rules_of
from .sentences import readings, render


class Node(NamedTuple):
    """A parse in one language: nonterminal, pattern number, and for each slot a phrase or another node."""

    symbol: str
    pattern: int
    children: tuple


def _times(a: Sequence[float], b: Sequence[float]) -> Vector:
    return tuple([u * v for u, v in zip(a, b, strict=True)])


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


class ToyGrammar:
    """The grammar. All log-probabilities and entropies are in nats; German is ``"de"``, English ``"en"``.

    The options make a smaller grammar of the same kind, small enough to be enumerated.

    Args:
        topics: some of :data:`dual_fairseq.toy_corpus.lexicon.TOPICS`; their weights are normalised again.
        words: the largest number of entries of each word list (in each topic); default: all.
        alternatives: the largest number of synonyms of a word in each language; default: all.
        tenses: some of :data:`TENSES`.
        structures: some of :data:`STRUCTURES`.
        frames: some of :data:`FRAMES`.
        topic_weights: other probabilities for the topics, in the order of ``topics``.

    Raises:
        ValueError: an option has an unknown name, or nothing is left.
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
        self.tables = Tables(self.topics, Limits(words, alternatives))
        self.nonterminals = {
            symbol: Nonterminal(rules) for symbol, rules in rules_of(tenses, structures, frames).items()
        }
        self._parse_cache: dict[tuple[str, str], list[Node]] = {}

    # ---- generation --------------------------------------------------------------------------------------------

    def sample(self, n: int, seed: int) -> list[tuple[str, str]]:
        """Draws ``n`` independent pairs ``(German sentence, English sentence)``; one seed gives the same pairs."""
        rng = random.Random(seed)
        cumulative = list(accumulate(self.topic_weights))
        topics = range(len(self.topics))
        pairs = []
        for _ in range(n):
            de, en = self._draw("S", rng.choices(topics, cum_weights=cumulative)[0], rng)
            pairs.append((render(de[0]), render(en[0])))
        return pairs

    def _draw(self, symbol: str, topic: int, rng: random.Random) -> tuple[Phrase, Phrase]:
        nonterminal = self.nonterminals[symbol]
        rule = rng.choices(nonterminal.rules, cum_weights=nonterminal.cumulative)[0]
        drawn = []
        for slot in rule.slots:
            if isinstance(slot, Leaf):
                pairs = self.tables.pairs(slot, topic)
                en, de, _ = rng.choices(pairs, cum_weights=self.tables.cumulative(slot, topic))[0]
                drawn.append((phrase_of(slot, "de", de), phrase_of(slot, "en", en)))
            else:
                drawn.append(self._draw(slot, topic, rng))
        return _fill(rule.de, [de for de, _ in drawn]), _fill(rule.en, [en for _, en in drawn])

    def enumerate(self) -> Iterator[tuple[str, str, float]]:
        """All derivations as (German sentence, English sentence, probability); a pair may occur several times.

        This is for small grammars. It shares nothing with parsing, so that each can check the other.
        """
        for z, weight in enumerate(self.topic_weights):
            for de, en, p in self._enumerate("S", z):
                yield render(de[0]), render(en[0]), weight * p

    def _enumerate(self, symbol: str, topic: int) -> Iterator[tuple[Phrase, Phrase, float]]:
        for rule in self.nonterminals[symbol].rules:
            options = []
            for slot in rule.slots:
                if isinstance(slot, Leaf):
                    pairs = self.tables.pairs(slot, topic)
                    options.append([(phrase_of(slot, "de", de), phrase_of(slot, "en", en), p) for en, de, p in pairs])
                else:
                    options.append(list(self._enumerate(slot, topic)))
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
            for tokens in readings(sentence):
                memo: dict = {}
                nodes += [node for end, node in self._match("S", lang, tokens, 0, memo) if end == len(tokens)]
            if len(self._parse_cache) >= 10_000:
                self._parse_cache.clear()
            self._parse_cache[key] = nodes
        return self._parse_cache[key]

    def _match(self, symbol: str, lang: str, tokens: list[str], start: int, memo: dict) -> list[tuple[int, Node]]:
        if (symbol, start) in memo:
            return memo[symbol, start]
        nonterminal = self.nonterminals[symbol]
        matches: list[tuple[int, Node]] = []

        def walk(trie: Trie, at: int, chosen: dict) -> None:
            if trie.pattern >= 0:
                matches.append((at, Node(symbol, trie.pattern, tuple(chosen[k] for k in range(len(chosen))))))
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
                    memo[key] = list(self.tables.side(side, lang).matches(tokens, at, done))
                for end, piece in memo[key]:
                    walk(child, end, {**chosen, slot: (*done, piece)})

        walk(nonterminal.trie[lang], start, {})
        memo[symbol, start] = matches
        return matches

    def _inside(self, node: Node, lang: str) -> Vector:
        """Probability by topic of a parse in one language."""
        nonterminal = self.nonterminals[node.symbol]
        slots = nonterminal.patterns[lang][node.pattern][0]
        vector: Vector = (nonterminal.weights[lang][node.pattern],) * len(self.topics)
        for slot, child in zip(slots, node.children, strict=True):
            inner = self._inside(child, lang) if isinstance(slot, str) else self.tables.side(slot, lang).prob[child]
            vector = _times(vector, inner)
        return vector

    def _joint(self, de: Node, en: Node) -> list[Vector]:
        """Probability by topic of each derivation that has these two parses."""
        if de.symbol != en.symbol:
            return []
        derivations = []
        for rule in self.nonterminals[de.symbol].by_pair.get((de.pattern, en.pattern), ()):
            vectors: list[Vector] = [(rule.weight,) * len(self.topics)]
            for slot, here, there in zip(rule.slots, de.children, en.children, strict=True):
                if isinstance(slot, Leaf):
                    inner = self.tables.joint(slot).get((here, there))
                    options = [inner] if inner else []
                else:
                    options = self._joint(here, there)
                vectors = [_times(vector, option) for vector in vectors for option in options]
            derivations += vectors
        return derivations

    def joint_derivations(self, de: str, en: str) -> list[float]:
        """Probability of each derivation (topic, rules, phrases) of a pair."""
        probabilities: list[float] = []
        english = self._parses(en, "en")
        for source in self._parses(de, "de"):
            for target in english:
                for vector in self._joint(source, target):
                    probabilities += _times(vector, self.topic_weights)
        return probabilities

    def derivations(self, sentence: str, lang: str) -> list[tuple[Node, Vector]]:
        return [(node, _times(self._inside(node, lang), self.topic_weights)) for node in self._parses(sentence, lang)]

    # ---- log-probabilities -------------------------------------------------------------------------------------

    def log_prob_joint(self, de: str, en: str) -> float:
        """log P(de, en) in nats; ``-inf`` for a pair that the grammar cannot write."""
        return _log(math.fsum(self.joint_derivations(de, en)))

    def log_prob(self, sentence: str, lang: str) -> float:
        """log P(sentence) in nats, ``lang`` is ``"de"`` or ``"en"``; ``-inf`` if the grammar cannot write it."""
        return _log(math.fsum(p for _, vector in self.derivations(sentence, lang) for p in vector))

    def log_prob_conditional(self, target: str, source: str, source_lang: str) -> float:
        """log P(target | source) in nats, where ``source_lang`` is ``"de"`` (de to en) or ``"en"`` (en to de).

        It is computed forward, from the posterior of the source's derivations and their translations, not as a quotient
        of :meth:`log_prob_joint` and :meth:`log_prob`.

        Raises:
            ValueError: the source itself has probability 0.
        """
        derivations = self.derivations(source, source_lang)
        total = math.fsum(p for _, vector in derivations for p in vector)
        if total == 0:
            raise ValueError(f"the grammar cannot write this {source_lang} sentence: {source!r}")
        terms: list[float] = []
        for tokens in readings(target):
            for node, vector in derivations:
                posterior = tuple(p / total for p in vector)
                for end, translated in self._translated(node, source_lang, tokens, 0):
                    if end == len(tokens):
                        terms += _times(posterior, translated)
        return _log(math.fsum(terms))

    def _translated(self, node: Node, source: str, tokens: list[str], start: int) -> list[tuple[int, Vector]]:
        """Ends and probabilities by topic of the translations of a source parse that match the next tokens."""
        nonterminal = self.nonterminals[node.symbol]
        translations: list[tuple[int, Vector]] = []

        def walk(rule: Rule, pattern: tuple[Symbol, ...], at: int, vector: Vector, chosen: dict[int, Phrase]) -> None:
            if not pattern:
                translations.append((at, vector))
                return
            symbol, tail = pattern[0], pattern[1:]
            if isinstance(symbol, str):
                if at < len(tokens) and tokens[at] == symbol:
                    walk(rule, tail, at + 1, vector, chosen)
                return
            index, part = symbol
            slot, child = rule.slots[index], node.children[index]
            if isinstance(slot, str):
                for end, inner in self._translated(child, source, tokens, at):
                    walk(rule, tail, end, _times(vector, inner), chosen)
                return
            certain = (1.0,) * len(self.topics)
            options = [(chosen[index], certain)] if part else self.tables.translations(slot, source, child)
            for phrase, inner in options:
                end = at + len(phrase[part])
                if tuple(tokens[at:end]) == phrase[part]:
                    walk(rule, tail, end, _times(vector, inner), {**chosen, index: phrase})

        for rule in nonterminal.by_pattern[source][node.pattern]:
            share = rule.weight / nonterminal.weights[source][node.pattern]
            walk(rule, rule.de if source == "en" else rule.en, start, (share,) * len(self.topics), {})
        return translations

    def gap(self, de: str, en: str) -> float:
        """[log P(de) + log P(en|de)] - [log P(en) + log P(de|en)] in nats: 0 except for rounding.

        Raises:
            ValueError: the grammar cannot write the pair.
        """
        forward = self.log_prob(de, "de") + self.log_prob_conditional(en, de, "de")
        backward = self.log_prob(en, "en") + self.log_prob_conditional(de, en, "en")
        if math.isinf(forward) or math.isinf(backward):
            raise ValueError("the grammar cannot write this pair")
        return forward - backward

    # ---- facts -------------------------------------------------------------------------------------------------

    def longest(self, lang: str) -> int:
        """The number of words and marks of the longest sentence (an upper bound, reached or nearly reached)."""

        @cache
        def of_symbol(symbol: str) -> int:
            lengths = []
            for slots, pattern in self.nonterminals[symbol].patterns[lang]:
                inner = [
                    of_symbol(slot) if isinstance(slot, str) else self.tables.side(slot, lang).longest for slot in slots
                ]
                lengths.append(sum(inner) + sum(isinstance(item, str) for item in pattern))
            return max(lengths)

        return of_symbol("S")


def _fill(pattern: Sequence[Symbol], phrases: Sequence[Phrase]) -> Phrase:
    tokens: list[str] = []
    for symbol in pattern:
        tokens += [symbol] if isinstance(symbol, str) else phrases[symbol[0]][symbol[1]]
    return (tuple(tokens),)
