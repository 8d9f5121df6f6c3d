"""Reads the words of the lexicon and inflects them in both languages."""

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """A noun of one language: singular, plural, and in German its gender (``m``, ``f``, ``n``; ``m!`` for weak)."""

    singular: str
    plural: str
    gender: str = ""


class EnglishVerb(NamedTuple):
    base: str
    third: str
    past: str
    participle: str
    ing: str
    progressive: bool = True


class GermanVerb(NamedTuple):
    prefix: str  # of a separable verb, else empty
    infinitive: str  # without the prefix; also the present plural
    third: str
    preterite: str
    participle: str  # with the prefix
    auxiliary: str  # "haben" or "sein"

    def preterite_plural(self) -> str:
        return self.preterite + ("n" if self.preterite.endswith("e") else "en")


def english_noun(text: str) -> Noun:
    singular, plural = text.split("/")
    return Noun(singular, plural)


def german_noun(text: str) -> Noun:
    gender, forms = text.split(" ", 1)
    singular, plural = forms.split("/")
    return Noun(singular, plural, gender)


def english_verb(text: str) -> EnglishVerb:
    """Reads one verb; a base form alone gives the regular forms."""
    progressive = not text.startswith("=")
    text, _, particle = text.lstrip("=").partition("+")
    forms = text.split()
    if len(forms) == 1:
        base = forms[0]
        soft_y = base.endswith("y") and base[-2] not in "aeiou"
        sibilant = base.endswith(("s", "x", "ch", "sh"))
        third = base[:-1] + "ies" if soft_y else base + ("es" if sibilant else "s")
        past = base[:-1] + "ied" if soft_y else base + ("d" if base.endswith("e") else "ed")
        ing = (base[:-1] if base.endswith("e") else base) + "ing"
        forms = [base, third, past, past, ing]
    if particle:
        forms = [f"{form} {particle}" for form in forms]
    base, third, past, participle, ing = forms
    return EnglishVerb(base, third, past, participle, ing, progressive)


def german_verb(text: str) -> GermanVerb:
    """Reads one verb; an infinitive alone gives the forms of a regular weak verb."""
    forms = text.split()
    auxiliary = "haben"
    if forms[-1] == "s":
        auxiliary = "sein"
        forms.pop()
    prefix, bar, infinitive = forms[0].rpartition("|")
    if len(forms) == 1:
        stem = infinitive[:-2] + ("e" if infinitive[-3] in "td" or infinitive.endswith("chnen") else "")
        forms = [forms[0], stem + "t", stem + "te", "ge" + stem + "t"]
    third, preterite, participle = forms[1:]
    return GermanVerb(prefix if bar else "", infinitive, third, preterite, prefix + participle, auxiliary)


_CASES = ("nom", "acc", "dat")
_DER = dict(
    zip(_CASES, (("der", "die", "das", "die"), ("den", "die", "das", "die"), ("dem", "der", "dem", "den")), strict=True)
)
_STRONG = dict(zip(_CASES, (("er", "e", "es", "e"), ("en", "e", "es", "e"), ("em", "er", "em", "en")), strict=True))
_EIN = dict(zip(_CASES, (("", "e", "", "e"), ("en", "e", "", "e"), ("em", "er", "em", "en")), strict=True))
_WEAK = dict(zip(_CASES, (("e", "e", "e", "en"), ("en", "e", "e", "en"), ("en", "en", "en", "en")), strict=True))
_MIXED = dict(zip(_CASES, (("er", "e", "es", "en"), ("en", "e", "es", "en"), ("en", "en", "en", "en")), strict=True))
_EIN_WORDS = ("ein", "kein", "mein", "dein", "sein", "ihr", "Ihr", "unser")
_CONTRACTIONS = {"in dem": "im", "in das": "ins", "an dem": "am", "an das": "ans", "zu dem": "zum", "zu der": "zur"}
_CONTRACTIONS["bei dem"] = "beim"


def german_noun_phrase(determiner: str, adjective: str, noun: Noun, number: str, case: str) -> str:
    """Inflects determiner, adjective and noun for gender, number (``sg``, ``pl``) and case (``nom``, ``acc``, ``dat``).

    Args:
        determiner: a stem of :data:`DETERMINERS`, ``-`` for none (plural only).
        adjective: the attributive stem, empty for none.
    """
    column = 3 if number == "pl" else "mfn".index(noun.gender[0])
    if determiner == "der":
        article, endings = _DER[case][column], _WEAK
    elif determiner in _EIN_WORDS:
        article, endings = determiner + _EIN[case][column], _MIXED
    elif determiner in ("dies", "jen", "jed", "all"):
        article, endings = determiner + _STRONG[case][column], _WEAK
    elif determiner in ("-", "zwei"):
        article, endings = determiner.strip("-"), _STRONG
    else:  # viele, einige
        article, endings = determiner + _STRONG[case][column], _STRONG
    words = [article] if article else []
    if adjective:
        words.append(adjective + endings[case][column])
    if number == "sg":
        words.append(noun.plural if noun.gender == "m!" and case != "nom" else noun.singular)
    else:
        words.append(noun.plural + ("n" if case == "dat" and not noun.plural.endswith(("n", "s")) else ""))
    return " ".join(words)


def english_noun_phrase(determiner: str, adjective: str, noun: Noun, number: str) -> str:
    words = [adjective] if adjective else []
    words.append(noun.singular if number == "sg" else noun.plural)
    if determiner == "a":
        determiner = "an" if words[0][0] in "aeiou" else "a"
    if determiner != "-":
        words.insert(0, determiner)
    return " ".join(words)


def contract(phrase: str) -> str:
    """Fuses a German preposition with a following definite article (``in dem Haus`` -> ``im Haus``)."""
    head, second, *rest = phrase.split(" ")
    fused = _CONTRACTIONS.get(f"{head} {second}")
    return " ".join([fused, *rest]) if fused else phrase


def english_verb_parts(verb: EnglishVerb, number: str, form: str, do: str) -> tuple[str, ...]:
    """Parts: auxiliary (may be empty) and full verb. ``do`` asks for do-support (question or negation)."""
    singular = number == "sg"
    if form == "infinitive":
        return (verb.base,)
    if form == "perfect":
        return ("has" if singular else "have", verb.participle)
    if form == "progressive" and verb.progressive:
        return ("is" if singular else "are", verb.ing)
    if form == "past":
        return ("did", verb.base) if do == "do" else ("", verb.past)
    if do == "do":
        return ("does" if singular else "do", verb.base)
    return ("", verb.third if singular else verb.base)


def german_verb_parts(verb: GermanVerb, number: str, form: str, place: str) -> tuple[str, ...]:
    """Parts in a main clause: finite verb and the words at the end (may be empty); one part if all is final."""
    singular = number == "sg"
    if form == "infinitive":
        return (verb.prefix + verb.infinitive,)
    if form == "perfect":
        auxiliary = {"haben": ("hat", "haben"), "sein": ("ist", "sind")}[verb.auxiliary][0 if singular else 1]
        return (f"{verb.participle} {auxiliary}",) if place == "final" else (auxiliary, verb.participle)
    if form == "present":
        finite = verb.third if singular else verb.infinitive
    else:
        finite = verb.preterite if singular else verb.preterite_plural()
    return (verb.prefix + finite,) if place == "final" else (finite, verb.prefix)
