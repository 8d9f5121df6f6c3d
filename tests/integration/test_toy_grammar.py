"""The toy grammar: its probabilities against enumeration, sampling and each other; the corpus it writes."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.toy_corpus import corpus
from dual_fairseq.toy_corpus.grammar import ToyGrammar
from dual_fairseq.toy_corpus.limits import entropies
from dual_fairseq.toy_corpus.rules import FRAMES, STRUCTURES, TENSES
from dual_fairseq.toy_corpus.sentences import render, tokenize

PACKAGE = Path(corpus.__file__).parent.parent

# Small enough to be written out in full; together they use every frame, structure and tense.
SMALL = [
    {"frames": ("animate",), "structures": ("main",), "tenses": ("modal",), "words": 1, "alternatives": 1},
    {"frames": ("thing",), "structures": ("main", "question"), "tenses": ("modal",), "words": 1, "alternatives": 1},
    {"frames": ("thing-place",), "structures": ("question",), "tenses": ("past",), "words": 1, "alternatives": 1},
    {"frames": ("place",), "structures": ("main",), "tenses": ("past",), "words": 1, "alternatives": 1},
    {"frames": ("place",), "structures": ("question",), "tenses": ("modal",), "words": 1, "alternatives": 2},
    {"frames": ("goal",), "structures": ("question",), "tenses": ("present",), "words": 1, "alternatives": 2},
    {"frames": ("goal",), "structures": ("because-fronted",), "tenses": ("modal",), "words": 1, "alternatives": 1},
    {"frames": ("give",), "structures": ("question",), "tenses": ("modal",), "words": 1, "alternatives": 1},
    {"frames": ("be-animate",), "structures": ("because",), "tenses": ("past",), "words": 1, "alternatives": 1},
    {"frames": ("be-thing",), "structures": STRUCTURES, "tenses": TENSES, "words": 1, "alternatives": 1},
    # Two words a list bring in the ambiguous ones, three topics what tells them apart in part.
    {
        "frames": ("be-thing",),
        "structures": ("main",),
        "tenses": ("modal",),
        "words": 2,
        "topics": ("home", "travel", "work"),
    },
]


def enumerated(grammar: ToyGrammar) -> tuple[dict, dict, dict]:
    joint: dict = defaultdict(float)
    sides: dict = {"de": defaultdict(float), "en": defaultdict(float)}
    for de, en, p in grammar.enumerate():
        joint[de, en] += p
        sides["de"][de] += p
        sides["en"][en] += p
    return joint, sides["de"], sides["en"]


def entropy(distribution: dict) -> float:
    return -math.fsum(p * math.log(p) for p in distribution.values())


@pytest.fixture(scope="module")
def grammar() -> ToyGrammar:
    return ToyGrammar()


@pytest.fixture(scope="module")
def pairs(grammar: ToyGrammar) -> list[tuple[str, str]]:
    return grammar.sample(3000, seed=1)


@pytest.mark.parametrize(
    "options", SMALL, ids=lambda o: "-".join([*o["frames"], *o["structures"][:1], *o["tenses"][:1]])
)
def test_parsed_probabilities_equal_the_enumeration_and_sum_to_one(options):
    grammar = ToyGrammar(**{"topics": ("home", "nature"), **options})
    joint, german, english = enumerated(grammar)
    assert math.fsum(math.exp(grammar.log_prob_joint(*pair)) for pair in joint) == pytest.approx(1, abs=1e-9)
    for lang, marginal in (("de", german), ("en", english)):
        assert math.fsum(math.exp(grammar.log_prob(sentence, lang)) for sentence in marginal) == pytest.approx(
            1, abs=1e-9
        )
        for sentence, p in marginal.items():
            assert grammar.log_prob(sentence, lang) == pytest.approx(math.log(p), abs=1e-9)
    for index, ((de, en), p) in enumerate(joint.items()):
        assert grammar.log_prob_joint(de, en) == pytest.approx(math.log(p), abs=1e-9)
        if index % 7 == 0:
            assert grammar.log_prob_conditional(en, de, "de") == pytest.approx(math.log(p / german[de]), abs=1e-9)
            assert grammar.log_prob_conditional(de, en, "en") == pytest.approx(math.log(p / english[en]), abs=1e-9)
    # Sentences that exist but do not belong together.
    strangers = [(de, en) for de, en in zip(sorted(german), sorted(english, reverse=True), strict=False)]
    strangers = [pair for pair in strangers[:200] if pair not in joint]
    assert strangers
    for de, en in strangers:
        assert grammar.log_prob_joint(de, en) == -math.inf
        assert grammar.log_prob_conditional(en, de, "de") == -math.inf


def test_small_grammars_cover_every_frame_structure_and_tense():
    for name, known in (("frames", FRAMES), ("structures", STRUCTURES), ("tenses", TENSES)):
        assert {value for options in SMALL for value in options[name]} == set(known)


def test_truth_has_no_gap_and_both_routes_to_the_joint_agree(grammar, pairs):
    for de, en in pairs[:300]:
        assert abs(grammar.gap(de, en)) < 1e-9
        joint = grammar.log_prob_joint(de, en)
        assert grammar.log_prob(de, "de") + grammar.log_prob_conditional(en, de, "de") == pytest.approx(joint, abs=1e-9)
        assert grammar.log_prob(en, "en") + grammar.log_prob_conditional(de, en, "en") == pytest.approx(joint, abs=1e-9)


def test_translations_of_a_sentence_sum_to_one_in_the_full_grammar(grammar):
    # The full grammar cannot be written out, but the few German sentences that can mean this one are soon all drawn.
    english = "Was the key heavy?"
    drawn = ToyGrammar(frames=("be-thing",), structures=("question",), tenses=("past",)).sample(40_000, seed=5)
    german = {de for de, _ in drawn if re.search(r"Schlüssel|Taste", de)}
    assert len(german) > 10
    total = math.fsum(math.exp(grammar.log_prob_conditional(de, english, "en")) for de in german)
    assert total == pytest.approx(1, abs=1e-9)


def test_another_grammar_is_expected_to_be_as_probable_under_the_truth(grammar):
    # E_P[Q/P] = 1 for a Q with the same support: here the same grammar with other topic probabilities.
    other = ToyGrammar(topic_weights=(0.3, 0.1, 0.15, 0.2, 0.1, 0.15))
    sample = grammar.sample(600, seed=11)
    ratios = {
        "joint": [math.exp(other.log_prob_joint(de, en) - grammar.log_prob_joint(de, en)) for de, en in sample],
        "de": [math.exp(other.log_prob(de, "de") - grammar.log_prob(de, "de")) for de, _ in sample],
        "en": [math.exp(other.log_prob(en, "en") - grammar.log_prob(en, "en")) for _, en in sample],
    }
    for values in ratios.values():
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        assert 0.05 < deviation < 1
        assert abs(mean - 1) < 4 * deviation / math.sqrt(len(values))


def test_samples_are_as_frequent_as_their_probability():
    grammar = ToyGrammar(topics=("home", "city", "nature"), words=2, frames=("animate", "goal", "be-thing"))
    n = 20_000
    sample = grammar.sample(n, seed=3)
    for lang, column in zip(("de", "en"), zip(*sample, strict=True), strict=True):
        frequent = [sentence for sentence, _ in Counter(grammar_side(grammar, lang)).most_common(40)]
        counts = Counter(column)
        for sentence in frequent:
            p = math.exp(grammar.log_prob(sentence, lang))
            assert abs(counts[sentence] - n * p) < 4.5 * math.sqrt(n * p) + 1
        assert sum(counts[sentence] for sentence in frequent) > 300


def grammar_side(grammar: ToyGrammar, lang: str) -> list[str]:
    """Sentences of another draw, so that the choice of the frequent ones does not bias their counts."""
    return [pair[0 if lang == "de" else 1] for pair in grammar.sample(5000, seed=4)]


def test_entropies_of_a_small_grammar_equal_the_enumeration():
    grammar = ToyGrammar(topics=("home", "travel", "work"), words=2, frames=("be-thing",), structures=("main",))
    joint, german, english = enumerated(grammar)
    found = entropies(grammar, samples=1500, seed=2)
    truth = {"joint": entropy(joint), "de": entropy(german), "en": entropy(english)}
    truth["en_given_de"] = truth["joint"] - truth["de"]
    truth["de_given_en"] = truth["joint"] - truth["en"]
    truth["mutual_information"] = truth["de"] + truth["en"] - truth["joint"]
    for name, value in truth.items():
        assert 0 < found[f"{name}_stderr"] < 0.03
        assert abs(found[name] - value) < 4 * found[f"{name}_stderr"]


def test_entropies_of_the_full_grammar_equal_the_mean_log_probability(grammar):
    found = entropies(grammar, samples=500, seed=6)
    sample = grammar.sample(800, seed=7)
    surprise = {
        "joint": [-grammar.log_prob_joint(de, en) for de, en in sample],
        "de": [-grammar.log_prob(de, "de") for de, _ in sample],
        "en": [-grammar.log_prob(en, "en") for _, en in sample],
        "en_given_de": [-grammar.log_prob_conditional(en, de, "de") for de, en in sample],
        "de_given_en": [-grammar.log_prob_conditional(de, en, "en") for de, en in sample],
    }
    for name, values in surprise.items():
        mean = math.fsum(values) / len(values)
        error = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / len(values)
        assert abs(mean - found[name]) < 4 * math.hypot(error, found[f"{name}_stderr"])


def test_corpus_is_neither_trivial_nor_hopeless(grammar, pairs):
    found = entropies(grammar, samples=500)
    assert 2.5 < found["en_given_de"] < 0.25 * found["en"]
    assert 2.5 < found["de_given_en"] < 0.25 * found["de"]
    for lang, column in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
        tokens = [tokenize(sentence) for sentence in column]
        assert 300 < len({word.lower() for sentence in tokens for word in sentence}) < 650
        assert 8 < sum(map(len, tokens)) / len(tokens) < 14
        assert max(map(len, tokens)) <= grammar.longest(lang) <= 30
    assert len(set(pairs)) > 0.99 * len(pairs)


CORRECT = [
    ("Gestern hat der alte Mann den Hund gesehen.", "Yesterday the old man saw the dog."),
    ("Den Hund sieht der alte Mann.", "The old man sees the dog."),
    ("Schenken die Frauen dem Kind ein Buch?", "Are the women giving a book to the child?"),
    ("Weil sie am Ufer schliefen, sucht Anna das Rad.", None),
    (
        "Der Hund schläft im Garten, weil das Schloss neu ist.",
        "The dog sleeps in the garden because the lock is new.",
    ),
    ("Clara ruft den Nachbarn an.", "Clara calls the neighbour."),
    ("Sie dürfen den Vogel nicht sehen.", "You must not see the bird."),
    ("Mit einem Satz.", None),
    ("Ein Kind ist in den Garten gelaufen.", "A child has walked into the garden."),
    ("Ein Kind ist in den Garten gelaufen.", "A child ran into the garden."),
    ("Ihr Freund kennt mich.", None),
]


@pytest.mark.parametrize(("de", "en"), CORRECT)
def test_known_pairs(grammar, de, en):
    if en is None:  # mixed tenses, unknown words
        assert grammar.log_prob(de, "de") == -math.inf
    else:
        assert -60 < grammar.log_prob_joint(de, en) < -5


WRONG = [
    ("de", "Der alter Mann sieht den Hund."),  # adjective ending
    ("de", "Der alte Mann sieht der Hund."),  # case
    ("de", "Der alte Mann sehen den Hund."),  # agreement
    ("de", "Gestern der Mann sah den Hund."),  # verb second
    ("de", "Der Hund schläft im Garten weil das Schloss neu ist."),  # comma
    ("de", "Der Hund schläft im Garten, weil das Schloss ist neu."),  # verb last
    ("de", "der alte Mann sieht den Hund."),  # lower-case start
    ("de", "Der  alte Mann sieht den Hund."),  # spacing
    ("de", "Der alte Mann sieht den Hund"),  # no full stop
    ("de", ""),
    ("de", "."),
    ("en", "The old man see the dog."),
    ("en", "The old man sees a old dog."),
    ("en", "The old man does not sees the dog."),
    ("en", "Sees the old man the dog?"),
    ("en", "Der alte Mann sieht den Hund."),
]


@pytest.mark.parametrize(("lang", "sentence"), WRONG)
def test_ungrammatical_text_has_probability_zero(grammar, lang, sentence):
    assert grammar.log_prob(sentence, lang) == -math.inf


def share(grammar: ToyGrammar, lang: str, source: str, first: str, second: str) -> float:
    """P(first | source) as a share of the two translations' probability."""
    one, other = (math.exp(grammar.log_prob_conditional(target, source, lang)) for target in (first, second))
    assert one > 0 and other > 0
    return one / (one + other)


def test_ambiguous_words_translate_both_ways_and_context_shifts_the_choice(grammar):
    # One English word, two German ones: a Bank in a city or an Ufer where, more often, stones lie.
    plain = share(grammar, "en", "He waits near the bank.", "Er wartet bei der Bank.", "Er wartet beim Ufer.")
    stones = share(
        grammar,
        "en",
        "When he needs the stone, he waits near the bank.",
        "Wenn er den Stein braucht, wartet er bei der Bank.",
        "Wenn er den Stein braucht, wartet er beim Ufer.",
    )
    assert 0.9 > plain > stones > 0.1
    # One German word, two English ones: Schloss is a castle or, nearer home, a lock.
    plain = share(grammar, "de", "Er sucht das Schloss.", "He looks for the castle.", "He looks for the lock.")
    outside = share(
        grammar,
        "de",
        "Der Gast sucht das Schloss.",
        "The guest looks for the castle.",
        "The guest looks for the lock.",
    )
    assert 0.1 < plain < outside < 0.9


def test_every_sentence_survives_tokenisation(pairs):
    for lang, column in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
        normalise = MosesPunctNormalizer(lang=lang).normalize
        tokenizer, detokenizer = MosesTokenizer(lang=lang), MosesDetokenizer(lang=lang)
        for sentence in column:
            assert normalise(sentence) == sentence
            tokens = tokenizer.tokenize(sentence, aggressive_dash_splits=True, escape=True)
            assert tokens == tokenize(sentence)
            assert detokenizer.detokenize(tokens) == render(tokens) == sentence


FIRST = [
    ("Der Leiter sollte seinem Freund diesen Tisch zeigen.", "The manager should show his friend this table."),
    ("Diese stillen Nachbarn schenken den Freundinnen das Schloss.", "The quiet neighbours give the friends the lock."),
    ("Ist ihre Tabelle schwer?", "Is her table difficult?"),
]


def test_the_same_seed_gives_the_same_corpus_in_every_process(pairs):
    # The package itself is left out: importing it would load fairseq, which the module must not need.
    script = f"""
import sys, types
package = types.ModuleType("dual_fairseq"); package.__path__ = [{str(PACKAGE)!r}]; sys.modules["dual_fairseq"] = package
from dual_fairseq.toy_corpus.grammar import ToyGrammar
for pair in ToyGrammar().sample(300, seed=1): print(*pair, sep="|")
assert not {{"fairseq", "torch"}} & set(sys.modules)
"""
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"}
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", env=environment)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines() == ["|".join(pair) for pair in pairs[:300]]
    assert pairs[:3] == FIRST  # whatever the Python version


def test_text_that_the_grammar_cannot_write_has_no_translation(grammar):
    with pytest.raises(ValueError, match="cannot write"):
        grammar.log_prob_conditional("He sees the dog.", "Unfug.", "de")
    with pytest.raises(ValueError, match="cannot write"):
        grammar.gap("Er sieht den Hund.", "She sees the dog.")
    with pytest.raises(ValueError, match="language"):
        grammar.log_prob("Er sieht den Hund.", "fr")
    assert grammar.log_prob_joint("Er sieht den Hund.", "She sees the dog.") == -math.inf


def test_command_writes_the_corpus_and_its_truth(tmp_path, capsys, monkeypatch, grammar):
    monkeypatch.setattr(corpus, "ToyGrammar", lambda: grammar)  # spares building its tables anew
    monkeypatch.setattr(corpus.write_corpus, "__defaults__", (None, 200))  # samples of entropies
    out = tmp_path / "deep" / "corpus"
    arguments = [str(out), "--train", "60", "--valid", "20", "--test", "30", "--mono", "50", "--seed", "4"]
    main(["toy-corpus", *arguments])
    assert "wrote 60 train, 20 valid, 30 test pairs" in capsys.readouterr().out
    names = [f"{split}.{lang}" for split in ("train", "valid", "test", "mono") for lang in ("de", "en")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "truth.json"])
    lines = {name: (out / name).read_text(encoding="utf-8").splitlines() for name in names}
    truth = json.loads((out / "truth.json").read_text())
    for split, size in (("train", 60), ("valid", 20), ("test", 30)):
        pairs = list(zip(lines[f"{split}.de"], lines[f"{split}.en"], strict=True))
        record = truth["splits"][split]
        assert record["sentences"] == len(pairs) == size
        assert record["log_p_joint"] == pytest.approx(sum(grammar.log_prob_joint(*pair) for pair in pairs))
        assert record["log_p_de"] == pytest.approx(sum(grammar.log_prob(de, "de") for de, _ in pairs))
        assert record["log_p_en"] == pytest.approx(sum(grammar.log_prob(en, "en") for _, en in pairs))
        assert record["log_p_de"] + record["log_p_en_given_de"] == pytest.approx(record["log_p_joint"])
        assert record["log_p_en"] + record["log_p_de_given_en"] == pytest.approx(record["log_p_joint"])
    assert truth["splits"]["test"]["share_in_train"] == 0
    assert truth["entropies"]["joint"] > truth["entropies"]["de"] > 20
    assert len(lines["mono.de"]) == len(lines["mono.en"]) == truth["mono"]["sentences"] == 50
    monolingual = zip(lines["mono.de"], lines["mono.en"], strict=True)
    assert all(grammar.log_prob_joint(*pair) == -math.inf for pair in monolingual)  # not aligned
    assert not set(lines["train.de"]) & set(lines["mono.de"])

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    main(["toy-corpus", *arguments])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for other in (["--seed", "5"], ["--mono", "0"]):
        with pytest.raises(UserError, match="holds other text; choose another folder"):
            main(["toy-corpus", *arguments, *other])
    (out / "valid.en").unlink()
    (out / "test.de").write_text("mine\n")
    with pytest.raises(UserError, match=r"test\.de: holds other text"):
        main(["toy-corpus", *arguments])
    assert {path.name for path in out.iterdir()} == before.keys() - {"valid.en"}


def test_share_of_test_pairs_seen_in_training_is_reported(tmp_path):
    small = ToyGrammar(topics=("home",), words=1, alternatives=1, frames=("be-thing",), structures=("main",))
    truth = corpus.write_corpus(tmp_path, {"train": 200, "test": 100}, 0, 1, small, entropy_samples=10)
    sides = {
        split: [(tmp_path / f"{split}.{lang}").read_text().splitlines() for lang in ("de", "en")]
        for split in ("train", "test")
    }
    train, test = (list(zip(*columns, strict=True)) for columns in sides.values())
    assert truth["splits"]["test"]["share_in_train"] == sum(pair in train for pair in test) / 100 > 0.5
