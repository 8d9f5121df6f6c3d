"""The entropies of the grammar: the limits that no model can beat on average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

from .grammar import ToyGrammar
from .phrases import Leaf


def entropies(grammar: ToyGrammar, samples: int = 2000, seed: int = 0) -> dict[str, float]:
    """Entropies in nats per sentence, and their standard errors.

    H(X) = H(D) - H(D|X), where D is the derivation of X. H(D) is computed exactly, rule by rule and table by table.
    H(D|X) is small; it is the mean, over a seeded sample, of the exact entropy of the derivations given the sentence
    (no log-probability is estimated). The same holds for Y and for the pair.

    Returns:
        ``de``, ``en``, ``joint``, ``en_given_de``, ``de_given_en`` and ``mutual_information``;
        ``<name>_stderr`` for each; ``samples`` and ``seed``.
    """
    if samples < 2:
        raise ValueError("samples must be at least 2")
    columns: dict[str, list[float]] = {name: [] for name in ("de", "en", "joint")}
    for de, en in grammar.sample(samples, seed):
        weights = {
            "de": [p for _, vector in grammar.derivations(de, "de") for p in vector],
            "en": [p for _, vector in grammar.derivations(en, "en") for p in vector],
            "joint": grammar.joint_derivations(de, en),
        }
        for name, values in weights.items():
            total = math.fsum(values)
            columns[name].append(_entropy(value / total for value in values))
    exact = {name: _derivation_entropy(grammar, name) for name in columns}
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


def _derivation_entropy(grammar: ToyGrammar, what: str) -> float:
    """Exact entropy of (topic, rules, phrases) in one language or, for ``"joint"``, in both."""
    tables: dict = {}

    def of_slot(slot: Leaf | str | tuple, topic: int) -> float:
        if isinstance(slot, str):
            return of_symbol(slot, topic)
        if slot not in tables:
            vectors = grammar.tables.joint(slot) if isinstance(slot, Leaf) else grammar.tables.side(slot, what).prob
            tables[slot] = [_entropy(column) for column in zip(*vectors.values(), strict=True)]
        return tables[slot][topic]

    @cache
    def of_symbol(symbol: str, topic: int) -> float:
        nonterminal = grammar.nonterminals[symbol]
        if what == "joint":
            choices = [(rule.weight, rule.slots) for rule in nonterminal.rules]
        else:
            slots_of = [slots for slots, _ in nonterminal.patterns[what]]
            choices = list(zip(nonterminal.weights[what], slots_of, strict=True))
        entropy = _entropy(weight for weight, _ in choices)
        return entropy + math.fsum(w * math.fsum(of_slot(slot, topic) for slot in slots) for w, slots in choices)

    inner = math.fsum(p * of_symbol("S", z) for z, p in enumerate(grammar.topic_weights))
    return _entropy(grammar.topic_weights) + inner


def _entropy(weights: Iterable[float]) -> float:
    return -math.fsum(w * math.log(w) for w in weights if w > 0)
