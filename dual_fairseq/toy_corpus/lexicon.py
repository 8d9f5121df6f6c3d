"""Words of the toy grammar: a hand-made English-German lexicon and the inflection of both languages.

Every line of the tables below reads ``[class |] topics | English | German [| prepositions]``. Alternatives are
separated by ``;`` and may carry a relative weight (``Wagen/Wagen:0.6``, 1 when absent); an English and a German
alternative of one line are drawn independently. Several words are ambiguous on purpose, in both directions: English
*bank* is *Bank* or *Ufer*, *draw* is *zeichnen* or *ziehen*; German *Schloss* is *castle* or *lock*, *schwer* is
*heavy* or *difficult*. Lines with the widest ambiguity stand first: a grammar cut down to a few words keeps some.

:func:`word_pairs` makes tables of phrase pairs with probabilities of them, :func:`phrase` inflects what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

TOPICS = ("home", "city", "nature", "work", "school", "travel")
TOPIC_WEIGHTS = (0.2, 0.2, 0.15, 0.15, 0.15, 0.15)

# A noun outside its topics is not drawn; "*" is every topic. Gender "m!" is a weak masculine (der Junge, den Jungen).
NOUNS = """
person | city home work nature | manager/managers; boss/bosses:0.6 | m Leiter/Leiter; m Chef/Chefs
person | school | student/students; pupil/pupils:0.6 | m Schüler/Schüler; m! Student/Studenten:0.6
person | * | man/men | m Mann/Männer
person | * | woman/women; lady/ladies:0.3 | f Frau/Frauen; f Dame/Damen:0.25
person | home school nature | child/children; kid/kids:0.4 | n Kind/Kinder
person | home work travel | doctor/doctors | m Arzt/Ärzte; m Doktor/Doktoren:0.4
person | school | teacher/teachers | m Lehrer/Lehrer; f Lehrerin/Lehrerinnen:0.7
person | travel city | guest/guests; visitor/visitors:0.6 | m Gast/Gäste; m Besucher/Besucher:0.6
person | home city | neighbour/neighbours | m! Nachbar/Nachbarn; f Nachbarin/Nachbarinnen:0.5
person | * | friend/friends | m Freund/Freunde; f Freundin/Freundinnen:0.7
animal | home nature city | dog/dogs | m Hund/Hunde
animal | nature city | bird/birds | m Vogel/Vögel
thing | city travel | castle/castles | n Schloss/Schlösser; f Burg/Burgen:0.4
thing | home travel city | lock/locks | n Schloss/Schlösser
thing | home travel | key/keys | m Schlüssel/Schlüssel
thing | work | key/keys; button/buttons:0.4 | f Taste/Tasten
thing | work home | letter/letters | m Brief/Briefe
thing | school | letter/letters | m! Buchstabe/Buchstaben
thing | nature home work | ladder/ladders | f Leiter/Leitern
thing | home school | table/tables | m Tisch/Tische
thing | work school | table/tables; list/lists:0.5 | f Tabelle/Tabellen; f Liste/Listen:0.5
thing | home work | lamp/lamps; light/lights:0.6 | f Lampe/Lampen; n Licht/Lichter:0.5
thing | city | traffic light/traffic lights; light/lights:0.6 | f Ampel/Ampeln
thing | travel school | map/maps | f Karte/Karten; f Landkarte/Landkarten:0.4
thing | home work | card/cards | f Karte/Karten
thing | travel city | ticket/tickets | f Karte/Karten:0.5; f Fahrkarte/Fahrkarten
thing | travel city | car/cars | n Auto/Autos; m Wagen/Wagen:0.6
thing | city school nature | bike/bikes; bicycle/bicycles:0.6 | n Fahrrad/Fahrräder; n Rad/Räder:0.6
thing | school home | book/books | n Buch/Bücher
thing | work school | computer/computers | m Computer/Computer; m Rechner/Rechner:0.7
thing | nature home | flower/flowers; plant/plants:0.5 | f Blume/Blumen; f Pflanze/Pflanzen:0.5
thing | nature city | stone/stones; rock/rocks:0.5 | m Stein/Steine
thing | school city home | picture/pictures; painting/paintings:0.5 | n Bild/Bilder; n Gemälde/Gemälde:0.3
place | city work | bank/banks | f Bank/Banken | in/in; at/in:0.4 | to/zu; to/in:0.4
place | nature | bank/banks; shore/shores:0.6 | n Ufer/Ufer | on/an; at/an:0.5 | to/an; to/zu:0.6
place | home nature city | bench/benches | f Bank/Bänke | on/auf | to/zu
place | city travel | castle/castles | n Schloss/Schlösser; f Burg/Burgen:0.5 | in/in; at/an:0.3 | to/zu; into/in:0.5
place | home | garden/gardens; yard/yards:0.4 | m Garten/Gärten | in/in | into/in; to/in:0.5
place | home city school | house/houses; building/buildings:0.4 | n Haus/Häuser; n Gebäude/Gebäude:0.4 | in/in | to/zu
place | home travel school | room/rooms | n Zimmer/Zimmer; m Raum/Räume:0.5 | in/in | into/in
place | city | street/streets; road/roads:0.5 | f Straße/Straßen | on/auf; in/auf:0.5 | to/zu; onto/auf
place | travel city | station/stations | m Bahnhof/Bahnhöfe | at/an; at/auf:0.3 | to/zu
place | travel nature | sea/seas; ocean/oceans:0.4 | n Meer/Meere; f See/Seen:0.5 | at/an | to/an
place | nature | lake/lakes | m See/Seen | at/an | to/an; to/zu:0.5
place | nature | forest/forests; wood/woods:0.5 | m Wald/Wälder | in/in | into/in; to/in:0.3
place | work | factory/factories; plant/plants:0.6 | f Fabrik/Fabriken; n Werk/Werke:0.5 | in/in; at/in:0.5 | to/zu
place | work | office/offices | n Büro/Büros | in/in; at/in:0.4 | to/in; into/in:0.5
place | school | school/schools | f Schule/Schulen | in/in; at/in | to/in; to/zu:0.6
"""

# Prepositions of place that go with any noun: English, German (with the dative).
PREPOSITIONS = "in front of/vor; behind/hinter; near/bei:0.7; next to/neben:0.8"

# English: base form, or "base 3sg past participle ing"; a trailing +word stays uninflected (look+for).
# German: infinitive, or "infinitive 3sg preterite participle"; "auf|machen" is separable; a final "s" takes sein.
# A "=" before the English verb marks one without a progressive form.
VERBS = """
animate | school home | draw draws drew drawn drawing | zeichnen; malen:0.6
animate | nature work travel | pull; draw draws drew drawn drawing:0.7 | ziehen zieht zog gezogen
animate | city travel school work | meet meets met met meeting | treffen trifft traf getroffen
animate | * | =see sees saw seen seeing | sehen sieht sah gesehen
animate | * | =know knows knew known knowing | kennen kennt kannte gekannt
animate | * | look+for; seek seeks sought sought seeking:0.3 | suchen
animate | * | watch; look+at:0.6 | beobachten; an|sehen sieht sah gesehen:0.7
animate | home work city | call | rufen ruft rief gerufen:0.7; an|rufen ruft rief gerufen
animate | travel city work | pick+up; fetch:0.6 | ab|holen; holen:0.5
thing | school home | draw draws drew drawn drawing | zeichnen; malen:0.6
thing | nature work travel | pull; draw draws drew drawn drawing:0.7 | ziehen zieht zog gezogen
thing | school home city | paint | malen; streichen streicht strich gestrichen:0.5
thing | * | find finds found found finding | finden findet fand gefunden
thing | city work travel home | buy buys bought bought buying; purchase:0.3 | kaufen
thing | city work | sell sells sold sold selling | verkaufen verkauft verkaufte verkauft
thing | * | =need | brauchen; benötigen benötigt benötigte benötigt:0.5
thing | * | look+for; seek seeks sought sought seeking:0.3 | suchen
thing | work school | use | benutzen benutzt benutzte benutzt; verwenden verwendet verwendete verwendet:0.7
thing | * | bring brings brought brought bringing | bringen bringt brachte gebracht
thing | work home travel | repair; fix:0.6 | reparieren repariert reparierte repariert
place | * | wait | warten
place | home travel nature | sleep sleeps slept slept sleeping | schlafen schläft schlief geschlafen
place | work school city | work | arbeiten
place | city nature home | =live | wohnen; leben:0.7
place | * | stay; remain:0.4 | bleiben bleibt blieb geblieben s
place | * | stand stands stood stood standing | stehen steht stand gestanden
goal | * | walk | laufen läuft lief gelaufen s; gehen geht ging gegangen s:0.8
goal | nature home school | run runs ran run running | laufen läuft lief gelaufen s; rennen rennt rannte gerannt s:0.8
goal | * | go goes went gone going | gehen geht ging gegangen s; fahren fährt fuhr gefahren s:0.4
goal | travel city work | drive drives drove driven driving | fahren fährt fuhr gefahren s
goal | travel home work | return | zurück|kehren kehrt kehrte gekehrt s; zurück|kommen kommt kam gekommen s:0.8
give | * | give gives gave given giving | geben gibt gab gegeben; schenken:0.4
give | * | show shows showed shown showing | zeigen
give | work city travel | send sends sent sent sending | schicken; senden sendet sandte gesandt:0.5
give | city work | sell sells sold sold selling | verkaufen verkauft verkaufte verkauft
"""

# "a": said of persons and animals, "i": of things, "p": of places. German: predicative form[/attributive stem].
ADJECTIVES = """
i | nature work travel | heavy | schwer
i | school work | difficult; hard:0.7 | schwer; schwierig:0.8
i | travel home city | light | leicht
ip | home school | light; bright:0.6 | hell
aip | * | old | alt
aip | * | big; large:0.6 | groß
aip | * | small; little:0.7 | klein
aip | * | beautiful; pretty:0.6 | schön; hübsch:0.5
ip | * | new | neu; modern:0.3
ap | home nature travel | quiet; calm:0.6 | ruhig; still:0.6
a | work school city | clever; smart:0.7 | klug; schlau:0.6
a | home travel city | kind; friendly | nett; freundlich
i | city home school | cheap | billig; günstig:0.6
"""

# Weight, English, German: stems, of the der-declension ("der", "dies"...) or of the ein-declension ("ein", "mein"...).
DETERMINERS = {
    "sg": "0.36 the der; 0.07 the dies; 0.2 a ein; 0.05 this dies; 0.02 that dies; 0.03 that jen; 0.05 my mein; "
    "0.03 your dein; 0.03 your Ihr; 0.05 his sein; 0.04 her ihr; 0.02 their ihr; 0.03 our unser; 0.02 every jed",
    "pl": "0.26 the der; 0.05 the dies; 0.18 - -; 0.1 some einig; 0.1 many viel; 0.06 two zwei; 0.06 these dies; "
    "0.02 those dies; 0.02 those jen; 0.03 all all; 0.04 my mein; 0.02 your dein; 0.03 his sein; 0.03 their ihr",
}

# Weight | English subject, object | German nominative, accusative, dative.
PRONOUNS = {
    "sg": """
0.25 | she her | sie sie ihr
0.25 | he him | er ihn ihm
0.1 | someone someone | jemand jemanden jemandem
0.05 | somebody somebody | jemand jemanden jemandem
0.12 | Anna Anna | Anna Anna Anna
0.1 | Peter Peter | Peter Peter Peter
0.13 | Clara Clara | Clara Clara Clara
""",
    "pl": """
0.5 | they them | sie sie ihnen
0.2 | you you | Sie Sie Ihnen
0.3 | we us | wir uns uns
""",
}

TIMES = {
    "present": """
0.16 | now; right now:0.4 | jetzt; nun:0.4; gerade:0.4
0.2 | today | heute
0.2 | every day; daily:0.3 | jeden Tag; täglich:0.7
0.16 | in the morning | am Morgen; morgens:0.7
0.12 | in the evening | am Abend; abends:0.7
0.16 | at the moment; currently:0.6 | im Moment; gerade:0.7; momentan:0.4
""",
    "past": """
0.3 | yesterday | gestern
0.2 | last week | letzte Woche; vorige Woche:0.4
0.15 | last night; yesterday evening:0.4 | gestern Abend; letzte Nacht:0.5
0.15 | recently; a short time ago:0.3 | vor kurzem; neulich:0.7; kürzlich:0.5
0.2 | this morning | heute Morgen; heute früh:0.5
""",
    "modal": """
0.3 | tomorrow | morgen
0.2 | soon | bald; in Kürze:0.3
0.2 | next week | nächste Woche; kommende Woche:0.4
0.15 | today | heute
0.15 | later; afterwards:0.4 | später; danach:0.5
""",
}

FREQUENCIES = """
0.25 | often; frequently:0.4 | oft; häufig:0.6
0.2 | always | immer; stets:0.3
0.2 | sometimes; occasionally:0.3 | manchmal; gelegentlich:0.3; ab und zu:0.2
0.15 | never | nie; niemals:0.6
0.2 | usually; normally:0.5 | meistens; normalerweise:0.6; gewöhnlich:0.4
"""

CONJUNCTIONS = {
    "present": """
0.3 | when; if:0.2 | wenn; sobald:0.3
0.25 | if | wenn; falls:0.6
0.25 | because; since:0.4 | weil; da:0.5
0.1 | although; though:0.5 | obwohl; obgleich:0.3
0.1 | while | während
""",
    "past": """
0.35 | when; as:0.3 | als
0.35 | because; since:0.4 | weil; da:0.5
0.15 | although; though:0.5 | obwohl; obgleich:0.3
0.15 | while; as:0.3 | während
""",
}

# Weight | English | German sg pl. English "have+to" takes do in questions and negations; the others are auxiliaries.
MODALS = {
    "positive": """
0.25 | must; have+to | muss müssen
0.22 | can | kann können
0.2 | want+to; would like to:0.3 | will wollen; möchte möchten:0.8
0.12 | should | soll sollen; sollte sollten
0.08 | may; can:0.7 | darf dürfen
0.13 | will | wird werden
""",
    "negative": """
0.15 | have+to | muss müssen
0.25 | can | kann können
0.2 | want+to | will wollen; möchte möchten:0.8
0.12 | should | soll sollen; sollte sollten
0.13 | must; may:0.5 | darf dürfen
0.15 | will | wird werden
""",
}


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


def split_alternatives(text: str) -> list[tuple[str, float]]:
    """``"big; large:0.6"`` -> ``[("big", 0.625), ("large", 0.375)]``."""
    found = []
    for item in text.split(";"):
        word, _, weight = item.strip().partition(":")
        found.append((word.strip(), float(weight) if weight else 1.0))
    total = sum(weight for _, weight in found)
    return [(word, weight / total) for word, weight in found]


def rows(table: str) -> list[list[str]]:
    """The fields of a table's lines, in order (the bar inside a separable verb has no spaces around it)."""
    return [line.split(" | ") for line in table.strip().splitlines()]


def topics_of(field: str) -> tuple[str, ...]:
    return TOPICS if field == "*" else tuple(field.split())


def english_noun(text: str) -> Noun:
    singular, plural = text.split("/")
    return Noun(singular, plural)


def german_noun(text: str) -> Noun:
    gender, forms = text.split(" ", 1)
    singular, plural = forms.split("/")
    return Noun(singular, plural, gender)


def english_verb(text: str) -> EnglishVerb:
    """Reads one verb; regular forms are derived from a lone base form."""
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
    """Reads one verb; forms of a regular weak verb are derived from a lone infinitive."""
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


# ---- tables of phrase pairs, drawn from the lists above -----

Phrase = tuple[tuple[str, ...], ...]  # the tokens of each part of a phrase: a verb may stand in two places


class Leaf(NamedTuple):
    """A table of phrase pairs; ``en`` and ``de`` are what only that language's form depends on (do-support, case)."""

    kind: str
    shared: tuple[str, ...]
    en: tuple[str, ...] = ()
    de: tuple[str, ...] = ()

    def side(self, lang: str) -> tuple:
        return (self.kind, self.shared, self.en if lang == "en" else self.de)


class Limits(NamedTuple):
    """What a small grammar keeps of the lexicon: entries a list, and alternatives a word; None for all."""

    words: int | None = None
    alternatives: int | None = None


def _alternatives(text: str, limits: Limits) -> list[tuple[str, float]]:
    return split_alternatives(text)[: limits.alternatives]


def _topic_rows(table: str, column: int, topic: str) -> list[list[str]]:
    return [row for row in rows(table) if topic in topics_of(row[column])]


def _cross(weight: float, english: list[tuple], german: list[tuple]) -> list[tuple]:
    return [(en, de, weight * p * q) for en, p in english for de, q in german]


def _weighted_rows(table: str, limits: Limits) -> list[tuple]:
    found: list[tuple] = []
    for weight, en, de in rows(table)[: limits.words]:
        found += _cross(float(weight), _alternatives(en, limits), _alternatives(de, limits))
    return found


def _nouns(noun_class: str, topic: str, limits: Limits) -> list[tuple]:
    found: list[tuple] = []
    for row in [row for row in _topic_rows(NOUNS, 1, topic) if row[0] == noun_class][: limits.words]:
        english = [(english_noun(text), p) for text, p in _alternatives(row[2], limits)]
        german = [(german_noun(text), p) for text, p in _alternatives(row[3], limits)]
        found += [(item, row) for item in _cross(1.0, english, german)]
    return found


def _adjectives(mark: str, topic: str, limits: Limits) -> list[tuple]:
    """``(English, (predicative, attributive), weight)`` of the adjectives said of animates, things or places."""
    found: list[tuple] = []
    for _, _, en, de in [row for row in _topic_rows(ADJECTIVES, 1, topic) if mark in row[0]][: limits.words]:
        german = [((text.split("/")[0], text.split("/")[-1]), p) for text, p in _alternatives(de, limits)]
        found += _cross(1.0, _alternatives(en, limits), german)
    return found


def _determiners(number: str, limits: Limits) -> list[tuple]:
    lines = DETERMINERS[number].split("; ")[: limits.words]
    return [(en, de, float(weight)) for weight, en, de in (line.split() for line in lines)]


def _pronouns(number: str, limits: Limits) -> list[tuple]:
    """Items ``("pronoun", form, ...)``; ``number`` is ``sg``, ``pl`` or ``any``."""
    found: list[tuple] = []
    for name, number_weight in _number_weights(number):
        for weight, en, de in rows(PRONOUNS[name])[: limits.words]:
            found.append((("pronoun", *en.split()), ("pronoun", *de.split()), number_weight * float(weight)))
    return found


def _number_weights(number: str) -> list[tuple[str, float]]:
    return [("sg", 0.7), ("pl", 0.3)] if number == "any" else [(number, 1.0)]


def _noun_phrases(noun_class: str, number: str, options: Sequence[str], topic: str, limits: Limits) -> list[tuple]:
    """Items ``("np", determiner, adjective, noun, number)``.

    Args:
        noun_class: ``animate`` or ``thing``.
        options: ``adjective`` (there may be one), ``pronoun`` (or a pronoun instead), ``no`` (the determiner *no*).
    """
    found: list[tuple] = []
    pronouns = 0.25 if "pronoun" in options else 0.0
    if pronouns:
        offered = _pronouns(number, limits)
        total = math.fsum(p for *_, p in offered)
        found += [(en, de, pronouns * p / total) for en, de, p in offered]
    classes = (("person", 0.8), ("animal", 0.2)) if noun_class == "animate" else ((noun_class, 1.0),)
    for (one, number_weight), (name, class_weight) in product(_number_weights(number), classes):
        nouns = [item for item, _ in _nouns(name, topic, limits)]
        if not nouns:
            continue
        adjectives: list[tuple] = [("", ("", ""), 1.0)]
        if "adjective" in options:
            offered = _adjectives("i" if name == "thing" else "a", topic, limits)
            total = math.fsum(p for *_, p in offered)
            adjectives = [("", ("", ""), 0.55), *((en, de, 0.45 * p / total) for en, de, p in offered)]
        determiners = [("no", "kein", 1.0)] if "no" in options else _determiners(one, limits)
        scale = number_weight * (1 - pronouns) * class_weight
        scale /= math.fsum(p for *_, p in nouns) * math.fsum(p for *_, p in determiners)
        for (det_en, det_de, p), (adj_en, (_, adj_de), q), (noun_en, noun_de, r) in product(
            determiners, adjectives, nouns
        ):
            en = ("np", det_en, adj_en, noun_en, one)
            de = ("np", det_de, adj_de, noun_de, one)
            found.append((en, de, scale * p * q * r))
    return found


def _place_phrases(kind: str, topic: str, limits: Limits) -> list[tuple]:
    """Items ``(preposition, determiner, noun[, case])`` of place (``loc``) or direction (``goal``)."""
    determiners = [("the", "der", 0.65), ("a", "ein", 0.12), ("this", "dies", 0.08), ("our", "unser", 0.07)]
    determiners = [*determiners, ("that", "dies", 0.04), ("that", "jen", 0.04)][: limits.words]
    found: list[tuple] = []
    for (en, de, p), row in _nouns("place", topic, limits):
        own = _alternatives(row[4 if kind == "loc" else 5], limits)
        if kind == "loc":
            general = _alternatives(PREPOSITIONS, limits)[: limits.words]
            own = [(text, 0.55 * q) for text, q in own] + [(text, 0.45 * q) for text, q in general]
        for (text, q), det in product(own, determiners):
            there, here = text.split("/")
            case = "acc" if kind == "goal" and here != "zu" else "dat"
            found.append(((there, det[0], en), (here, det[1], de, case), p * q * det[2]))
    return found


@cache
def word_pairs(kind: str, shared: tuple[str, ...], topic: str, limits: Limits) -> list[tuple]:
    """``(English item, German item, probability)`` of a table, probabilities summing to 1."""
    found = _weighted_pairs(kind, shared, topic, limits)
    total = math.fsum(p for _, _, p in found)
    return [(en, de, p / total) for en, de, p in found]


def _weighted_pairs(kind: str, shared: tuple[str, ...], topic: str, limits: Limits) -> list[tuple]:
    if kind == "np":
        return _noun_phrases(shared[0], shared[1], shared[2:], topic, limits)
    if kind == "pronoun":
        return _pronouns(shared[0], limits)
    if kind in ("loc", "goal"):
        return _place_phrases(kind, topic, limits)
    if kind == "verb":
        found: list[tuple] = []
        for _, _, en, de in [row for row in _topic_rows(VERBS, 1, topic) if row[0] == shared[0]][: limits.words]:
            english = [(english_verb(text), p) for text, p in _alternatives(en, limits)]
            german = [(german_verb(text), p) for text, p in _alternatives(de, limits)]
            found += _cross(1.0, english, german)
        return found
    if kind == "predicate":
        return [(en, de[0], p) for en, de, p in _adjectives(shared[0], topic, limits)]
    tables = {
        "time": lambda: TIMES[shared[0]],
        "frequency": lambda: FREQUENCIES,
        "conjunction": lambda: CONJUNCTIONS[shared[0]],
        "modal": lambda: MODALS[shared[0]],
    }
    return _weighted_rows(tables[kind](), limits)


@cache
def phrase(leaf: Leaf, lang: str, item: Any) -> Phrase:
    """The words of an item, inflected, part by part."""
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
        return _english_verb(item, leaf.shared[1], *leaf.en)
    if leaf.kind == "modal":
        number, do = leaf.shared[1], leaf.en[0] == "do"
        head, plus, rest = item.partition("+")
        if not plus:
            first, _, second = item.partition(" ")
            return (first, second)
        if do:
            return ("does" if number == "sg" else "do", f"{head} {rest}")
        return ("", f"{head if number == 'pl' else {'have': 'has', 'want': 'wants'}[head]} {rest}")
    return (item,)


def _english_verb(verb: EnglishVerb, number: str, form: str, do: str) -> tuple[str, ...]:
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
        return _german_verb(item, leaf.shared[1], *leaf.de)
    if leaf.kind == "modal":
        return (item.split()[0 if leaf.shared[1] == "sg" else 1],)
    return (item,)


def _german_verb(verb: GermanVerb, number: str, form: str, place: str) -> tuple[str, ...]:
    """Parts in a main clause: finite verb and what stands at the end (may be empty); one part where all is final."""
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
