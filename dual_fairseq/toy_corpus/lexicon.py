"""Words of the toy grammar: a hand-made English-German lexicon.

Every line of the tables reads ``[class |] topics | English | German [| prepositions]``. Alternatives are separated by
``;`` and may carry a relative weight (``Wagen/Wagen:0.6``, 1 when absent); an English and a German alternative of one
line are drawn independently. Several words are ambiguous on purpose, in both directions: English *bank* is *Bank* or
*Ufer*, *draw* is *zeichnen* or *ziehen*; German *Schloss* is *castle* or *lock*, *schwer* is *heavy* or *difficult*.
The lines with the widest ambiguity are first, so that a grammar of only a few words keeps some ambiguity.

:mod:`.inflection` reads and inflects words, :mod:`.phrases` makes tables of phrase pairs with probabilities.
"""

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
# A "=" before the English verb marks a verb without a progressive form.
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

# "a": for persons and animals, "i": for things, "p": for places. German: predicative form[/attributive stem].
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
