"""The rules of sentences and clauses: their slots, and the order of their parts in both languages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from .phrases import Leaf

TENSES = ("present", "past", "modal")
STRUCTURES = ("main", "question", "because", "because-fronted")
FRAMES = ("animate", "thing", "thing-place", "place", "goal", "give", "be-animate", "be-thing")

# In a pattern, a string is a literal word; a pair (slot, part) is a piece of that slot's phrase or clause.
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


# (English form, German form, weight); the source does not decide the tense of a translation.
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


def rules_of(tenses: Sequence[str], structures: Sequence[str], frames: Sequence[str]) -> dict[str, list[Rule]]:
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
            of a longer sentence), ``inverted`` (short, after a fronted subordinate clause: German verb first).
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
        if frame.startswith("be-"):  # the remaining form gets the share of the forms skipped above
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
        """For each language, the finite part and the rest of the predicate."""
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
        nicht: list[Symbol] = ["nicht"] if self.negated else []
        subjects = [subject]
        if self.shape == "subordinate":
            return [(1.0, [*subjects, *objects, *nicht, *place, *rest, *finite])]
        # The orders of the words between the finite verb and the end, without the subject.
        middles = [(1.0, [*adverb, *objects])]
        if adverb and objects:
            middles = [(0.75, [*adverb, *objects]), (0.25, [*objects, *adverb])]
        elif len(objects) == 2:
            middles = [(0.8, objects), (0.2, objects[::-1])]
        orders: list[tuple[float, list[Symbol]]] = []
        if self.shape in ("question", "inverted"):
            return [(p, [*finite, *subjects, *middle, *nicht, *place, *rest]) for p, middle in middles]
        fronted: list[tuple[float, list[Symbol]]] = []
        if self.shape == "main":
            if adverb:
                p = 0.4 if self.adverb == "time" else 0.15
                fronted.append((p, [*adverb, *finite, *subjects, *objects, *nicht, *place, *rest]))
            if place and self.frame != "goal":
                fronted.append((0.12, [*place, *finite, *subjects, *adverb, *objects, *nicht, *rest]))
            if len(objects) == 1:
                fronted.append((0.07, [*objects, *finite, *subjects, *adverb, *nicht, *place, *rest]))
        left = 1 - math.fsum(p for p, _ in fronted)
        for p, middle in middles:
            orders.append((left * p, [*subjects, *finite, *middle, *nicht, *place, *rest]))
        return orders + fronted

    def _english_orders(
        self,
        subject: _Part,
        verb: dict[str, _Verb],
        objects: list[_Part],
        place: list[_Part],
        adverb: list[_Part],
        de: list[Symbol],
    ) -> list[tuple[float, list[Symbol]]]:
        """Word orders and their probabilities, given the German word order."""
        finite, rest = verb["en"]
        not_: list[Symbol] = ["not"] if self.negated else []
        often = adverb if self.adverb == "frequency" else []
        when = adverb if self.adverb == "time" else []
        tails: list[tuple[float, list[Symbol]]] = [(1.0, [*objects])]
        if len(objects) == 2:
            tails = [(0.6, [*objects]), (0.4, [objects[1], "to", objects[0]])]
        orders: list[tuple[float, list[Symbol]]] = []
        for p, tail in tails:
            if self.shape == "question":
                orders.append((p, [*finite, subject, *often, *rest, *tail, *place, *when]))
                continue
            core = [subject, *finite, *not_, *often, *rest, *tail, *place]
            if when and self.shape == "main":
                # If German puts the time first, English usually does, too.
                first = 0.7 if de[0] == when[0] else 0.2
                orders += [(p * first, [*when, *core]), (p * (1 - first), [*core, *when])]
            else:
                orders.append((p, [*core, *when]))
        return orders
