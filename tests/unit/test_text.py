"""What goes in comes out: raw text in one form, words that stay whole, pieces joined, round trips measured."""

from __future__ import annotations

import gzip
import json
import unicodedata
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data
from dual_fairseq.common.segmentation import count_pieces, pieces_of
from dual_fairseq.data.lines import read_blocks, survey
from dual_fairseq.data.normalize import decode, lower, repair
from dual_fairseq.data.round_trip import count_words, measure
from dual_fairseq.data.subword import (
    Subword,
    characters,
    learn_bpe,
    learn_sentencepiece,
    load_bpe,
    load_sentencepiece,
)
from dual_fairseq.data.tokenizer import Tokenizer, detokenize
from dual_fairseq.data.writing import differences

SENTENCES = sorted((Path(__file__).parents[1] / "sentences").glob("*.txt"))
NFD = "Ma\u0308dchen mo\u0308gen Ka\u0308se."


def there_and_back(text: str, language: str) -> str:
    return detokenize([Tokenizer("moses", language)(text)], language, "moses")[0]


# --- raw text in one form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text", "repairs"),
    [
        (NFD, "Mädchen mögen Käse.", {"lines_not_in_NFC": 1}),
        ("가나".replace("가", "\u1100\u1161"), "가나", {"lines_not_in_NFC": 1}),
        ("Donau\u00addampf\u00adschiff", "Donaudampfschiff", {"soft_hyphens": 2}),
        ("a\u200bb \ufeffc\u2060 \u200fd", "ab c d", {"invisible_characters": 4}),
        ("\u061cنعم\u206a", "نعم", {"invisible_characters": 2}),
        ("می\u200cخواهم", "می\u200cخواهم", {}),
        ("র\u200d্যাব", "র\u200d্যাব", {}),
        ("AT&amp;T &quot;x&quot; &#228; &#xE4;", 'AT&T "x" ä ä', {"entities": 5}),
        ("&amp;lt;", "&lt;", {"entities": 1}),  # once
        ("R&D &unknown; & Co; &notit; AT&T;", "R&D &unknown; & Co; &notit; AT&T;", {}),
        ("a&#10;b&#0;c&nbsp;d", "a b\ufffdc\u00a0d", {"entities": 3}),
        ("“typographic” – it’s…", "“typographic” – it’s…", {}),
    ],
)
def test_text_is_normalised_and_counted(raw, text, repairs):
    counted: Counter[str] = Counter()
    assert decode(raw.encode(), counted) == text
    assert +counted == Counter(repairs)
    assert repair(raw, Counter()) == text
    assert repair(raw, Counter(), normalized=False) == raw.replace("\ufeff", "\ufeff")


@given(st.text())
@settings(deadline=None)
def test_normalised_text_is_composed_and_stays_as_it_is(text):
    once = repair(text.replace("&", ""), Counter())
    assert unicodedata.is_normalized("NFC", once)
    counted: Counter[str] = Counter()
    assert repair(once, counted) == once and not +counted


def test_lower_case():
    assert lower("İZMİR", "en") == "izmir"
    assert lower("İSTANBUL IĞDIR", "tr") == lower("İSTANBUL IĞDIR", "tur_Latn") == "istanbul ığdır"
    assert lower("QIRIM İLİ", "crh_Latn") == lower("QIRIM İLİ", "gag") == "qırım ili"
    assert lower("İ", "tr", normalized=False) == "i\u0307"
    assert lower("ΟΔΟΣ", "el") == "οδος"
    assert lower("STRASSE I", "de") == "strasse i"


@pytest.mark.parametrize("text", ["ΠΡΟΫ\u0301ΠΟΘΕΣΗ", "H\u0331ALAL", "J\u030c"])
def test_lower_case_is_composed(text):
    lowered = lower(repair(text, Counter()), "en")
    assert len(lowered) == len(text) - 1 and lowered == repair(lowered, Counter())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_utf_16_is_refused_by_name(encoding, ending, tmp_path):
    text = "Ein Hund rennt.\nEine Katze schläft.\n".encode(encoding)
    path = tmp_path / f"text.de{ending}"
    path.write_bytes(gzip.compress(text) if ending else text)
    with pytest.raises(
        UserError,
        match=r"text\.de.*: is UTF-16, not UTF-8; convert it, for example with iconv -f "
        "utf-16",
    ):
        survey(path)
    if not ending:
        with open(path, "rb") as stream, pytest.raises(UserError, match="standard input: is UTF-16"):
            list(read_blocks(stream, "standard input", 10))


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SENTENCES, ids=lambda path: path.stem)
def test_text_of_many_scripts_survives_tokenisation(path):
    language = "en" if path.stem == "emoji" else path.stem
    lines = [repair(line, Counter()) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        assert there_and_back(line, language).split() == line.split()
    tokens = [Tokenizer("moses", language)(line) for line in lines]
    assert tokens != lines  # there was something to do


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Take tea and/or coffee.", "Take tea and/or coffee ."),
        ("It is 20°C, (35°C).", "It is 20°C , ( 35°C ) ."),
        (
            "See https://x.org/a_b?c=1&d=2, or mail a.b@c.org!",
            "See https://x.org/a_b?c=1&amp;d=2 , or mail a.b@c.org !",
        ),
        ("Use snake_case and AT&T.", "Use snake_case and AT&amp;T ."),
        ("in C:\\x\\y.txt or /etc/hosts", "in C:\\x\\y.txt or /etc/hosts"),
        ("family 👨\u200d👩\u200d👧 here 🇩🇪!", "family 👨\u200d👩\u200d👧 here 🇩🇪 !"),
        ("at 10:30 for $5 or 5%", "at 10:30 for $5 or 5%"),
        ("a well-known fact", "a well @-@ known fact"),
        ("words@@ stay@@", "words@@ stay@@"),
        ("They call it 'normalcy.'", "They call it &apos; normalcy . &apos;"),
    ],
)
def test_words_stay_whole_where_moses_would_tear_them(text, tokens):
    assert Tokenizer("moses", "en")(text) == tokens
    assert there_and_back(text, "en") == text


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Go get 'em 'cause it's 'til dawn."),
        ("cs", "Skupina Guns N' - mailem zaslala odpověď."),
        ("cs", "Chceš' - li, přijď."),
        ("en", "He said \"she's 'good' now\"."),
        ("en", "They play rock 'n' roll at O'Neill's, y'all."),
        ("it", "Un po' di pane, un po' alla volta, l'amico dell'uomo."),
        ("it", "Perche' no? E' vero, la citta' di Roma."),
        ("it", "Che cos'e'? E' un po' tardi."),
        ("fr", "Aujourd'hui, quelqu'un dit qu'il l'a vu 'a' midi."),
        ("ga", "a' chù mhòr, m'athair d'ól"),
    ],
)
def test_an_apostrophe_keeps_the_space_beside_it(language, text):
    assert there_and_back(text, language) == text


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ko", "나는 《토지》를 읽었다 ， 『말』 을！"),
        ("en", "I read 《红楼梦》 and 「this」 there。 ok？ yes"),
        ("zh", "你好，世界！再见。《书》、“引”。"),
        ("wuu", "侬好，世界！"),
    ],
)
def test_wide_punctuation_keeps_the_spaces_beside_it(language, text):
    assert there_and_back(text, language) == text


def test_an_elided_word_is_split():
    assert Tokenizer("moses", "it")("L'amico c'è.") == "L&apos; amico c&apos; è ."
    assert Tokenizer("moses", "fr")("Qu'il s'en aille.") == "Qu&apos; il s&apos; en aille ."
    assert Tokenizer("moses", "en")("I'd don't O'Hara's") == "I &apos;d don &apos;t O&apos;Hara&apos;s"


def test_joiners_and_marks_stay_inside_words():
    assert Tokenizer("moses", "fa")("من می\u200cخواهم.") == "من می\u200cخواهم ."
    assert Tokenizer("moses", "bn")("র\u200d্যাব নদী-নালা আছে।") == "র\u200d্যাব নদী @-@ নালা আছে।"
    assert Tokenizer("moses", "de")("Ma\u0308dchen.") == "Ma\u0308dchen ."
    torn = Tokenizer("moses", "de", normalize_punctuation=True, whole_words=False)
    assert torn("Ma\u0308dchen.") == "Ma \u0308 dchen ."


def test_plain_sentences_are_tokenised_as_by_fairseq():
    from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig

    encoder = MosesTokenizer(MosesTokenizerConfig(source_lang="en", target_lang="en"))
    text = "Mr. Smith's well-known dog (a poodle) doesn't bark: it \"sings\", e.g. 1,000.5 songs a day..."
    assert Tokenizer("moses", "en")(text) == encoder.encode(text)


def test_an_earlier_versions_words_are_joined_as_it_joined_them():
    tokens = "&quot; 50 % &quot; or $ 5 ."
    assert detokenize([tokens], "en", "moses", whole_words=False) == ['"50%" or $5.']
    assert there_and_back('"50%" or $5.', "en") == '"50%" or $5.'
    assert there_and_back('"50 %" or 5 $ (five).', "en") == '"50 %" or 5 $ (five).'


def test_typographic_quotation_marks_are_kept_unless_they_are_to_be_normalised():
    text = "“Well,” he said – ‘it’s done’."
    assert there_and_back(text, "en") == text
    assert Tokenizer("moses", "en", normalize_punctuation=True)(text).startswith("&quot; Well , &quot; he said -")
    for language, other in (
        ("de", "»Ja«, sagt sie, „nein“ und ‚gut‘."),
        ("fr", "« Oui », dit-il ; «Non»."),
        ("es", "«Sí», dijo."),
    ):
        assert there_and_back(other, language) == other


@given(st.text(st.sampled_from("aB1'\"“”’«»„-–.,:;!?()[]&<>|@_/°%$€\u0308\u200d 👍 你。あกخ"), max_size=40))
@settings(deadline=None, max_examples=300)
def test_tokenisation_never_fails_and_loses_nothing_but_space(text):
    line = repair(text.replace("&", "+"), Counter())
    assert "".join(there_and_back(line, "en").split()) == "".join(line.split())


@pytest.mark.parametrize("text", ["d' x " * 5000, "x " * 100_000])
def test_a_line_of_repeated_words_takes_no_longer_than_another(text):
    assert len(Tokenizer("moses", "en")(text)) >= len(text) - 1  # hours, if the time grew with the square or the cube


def test_more_odd_words_than_sacremoses_counts():
    text = " ".join(f"a/{n}" for n in range(1200))
    assert there_and_back(text, "en").replace(" ", "") == text.replace(" ", "")


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_pieces_are_told_from_words():
    def kind(text):
        return pieces_of(count_pieces((word, 1) for word in text.split()))

    assert kind("ges@@ u@@ cht wird ein H@@ und .") == "subword_nmt"
    assert kind("▁Das ▁ist ▁gut .") == "sentencepiece"
    assert kind("Das ist gut . " * 50 + "odd@@ ▁") is None


@pytest.mark.parametrize(
    ("post_process", "tokens", "words"),
    [
        ("subword_nmt", "ges@@ u@@ cht wird", "gesucht wird"),
        ("sentencepiece", "▁Das ▁is t .", "Das ist."),
        (None, "word@@ ▁ x", "word@@ ▁ x"),
    ],
)
def test_pieces_are_joined_to_words(post_process, tokens, words):
    assert Subword(post_process).join(tokens) == words


def test_words_that_end_in_the_separator_survive_bpe(tmp_path):
    text = tmp_path / "train"
    text.write_text("see a@@ b@@ and a@@ @@ @@\n" * 3)
    learn_bpe([text], 50, tmp_path / "codes", "text")
    segment = load_bpe(tmp_path / "codes")
    for line in ("see a@@ b@@ and a@@ @@ @@", "@@", "new@@ words@@ x"):
        assert Subword("subword_nmt").join(segment(line)) == line


def kind_of_pieces(folder):
    (kind,) = {side.post_process for side in Data.from_folder(folder).sides.values()}
    return kind


def test_text_in_pieces_is_known_from_the_record_or_an_earlier_versions_dictionary(tmp_path):
    record = {"source": "de", "target": "en", "tokenizer": "none", "subword": "bpe", "bpe": {"type": None}}
    (tmp_path / "preprocess.json").write_text(json.dumps(record))
    assert kind_of_pieces(tmp_path) is None
    for pieces, kind in (("H@@ 9\nund 9", "subword_nmt"), ("▁Hu 9\nnd 9", "sentencepiece"), ("Hund 9\n. 9", None)):
        for language in ("de", "en"):
            (tmp_path / f"dict.{language}.txt").write_text(f"{pieces}\n", encoding="utf-8")
        data = Data.from_folder(tmp_path)
        assert kind_of_pieces(tmp_path) == kind
        assert (data.normalized, data.normalize_punctuation) == (False, True)
    (tmp_path / "preprocess.json").write_text(json.dumps({**record, "bpe": {"type": None, "pieces": "subword_nmt"}}))
    assert kind_of_pieces(tmp_path) == "subword_nmt"


# --- SentencePiece --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    text = folder / "train"
    text.write_text("".join(path.read_text(encoding="utf-8") for path in SENTENCES), encoding="utf-8")
    assert learn_sentencepiece([text], 1800, folder / "model", "all") == 1800
    return folder / "model"


@pytest.mark.parametrize("path", SENTENCES, ids=lambda path: path.stem)
def test_text_of_many_scripts_survives_sentencepiece(path, model):
    segment = load_sentencepiece(model)
    for line in path.read_text(encoding="utf-8").splitlines():
        words = " ".join(line.split())
        assert Subword("sentencepiece").join(segment(words)) == words


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_any_text_survives_sentencepiece(model, text):
    line = Tokenizer("none", "en")(repair(text, Counter()))
    assert Subword("sentencepiece").join(load_sentencepiece(model)(line)) == line.replace("▁", "_")


def test_its_segmentation_is_that_of_fairseqs_encoder(model):
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig

    encoder = SentencepieceBPE(SentencepieceConfig(sentencepiece_model=str(model)))
    for path in SENTENCES:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert load_sentencepiece(model)(line) == encoder.encode(line)


def test_too_few_pieces_for_the_characters_is_one_line(tmp_path):
    text = tmp_path / "train"
    text.write_text("abcdefghijklmnopqrstuvwxyz\n" * 9)
    with pytest.raises(UserError, match=r"--vocab-size 10: .* at least [0-9]+ pieces"):
        learn_sentencepiece([text], 10, tmp_path / "model", "text")


def test_lines_with_a_block_are_learned_too(tmp_path):
    """SentencePiece leaves out lines with ▅, and fails if no line is left."""
    text = tmp_path / "train"
    text.write_text("level ▅▅ up\n" * 9, encoding="utf-8")
    learn_sentencepiece([text], 30, tmp_path / "model", "text")
    assert load_sentencepiece(tmp_path / "model")("up") == "▁up"


def test_a_damaged_model_is_one_line(tmp_path):
    (tmp_path / "model").write_bytes(b"no model")
    for path in (tmp_path / "model", tmp_path / "missing"):
        with pytest.raises(UserError, match="is not a model of SentencePiece"):
            load_sentencepiece(path)


def test_where_words_end_in_pieces():
    subword = Subword("sentencepiece")
    assert subword.ends_word("t", "▁und") and subword.ends_word("t", "") and subword.ends_word("。", "a")
    assert not subword.ends_word("▁is", "t")
    assert Subword("sentencepiece", "▁").join(characters("ab c")) == "ab c"


# --- round trips ----------------------------------------------------------------------------------------------------


def options(**more):
    return Namespace(
        **{"normalized": True, "normalize_punctuation": False, "subword": "bpe", "tokenizer": "moses", **more}
    )


def test_a_round_trip_that_gives_the_text_back_is_100_whatever_the_white_space(capsys):
    trip = measure(["Ein\u00a0Hund .", "x"], ["Ein Hund .", "x"], "de")
    assert trip.bleu == 100 and not trip.differences
    trip.report("test.de", options())
    assert capsys.readouterr().err == "round trip: test.de: 100.0\n"


def tokenised_report(capsys, option):
    lines = ["It 's Anna 's well @-@ known dog , is n't it ?", "I 'm here ."]
    back = [there_and_back(line, "en") for line in lines]
    measure(lines, back, "en").report("test.en", options(), option)
    return capsys.readouterr().err


def test_a_round_trip_shows_the_commonest_differences_and_warns(capsys):
    lines = ["Das Ma\u0308dchen und ein Ka\u0308fer sind im Haus.", "Er sagt ja/nein zu allem, was kommt."] * 5
    torn = Tokenizer("moses", "de", normalize_punctuation=True, whole_words=False)
    trip = measure(lines, detokenize([torn(line) for line in lines], "de", "moses"), "de")
    assert 0 < trip.bleu < 99
    assert trip.differences.most_common() == [(("\u0308", " \u0308 "), 10), (("/", " / "), 5)]
    trip.report("test.de", options())
    said = capsys.readouterr().err
    assert '10 times "<U+0308>" -> " <U+0308> ", as in "Ma<U+0308>dchen" -> "Ma <U+0308> dchen"' in said
    assert "warning: test.de: no translation can reach more than BLEU" in said and "--subword sentencepiece" in said
    trip.report("test.de", options(normalize_punctuation=True))
    assert "--normalize-punctuation changes it; leave that out" in capsys.readouterr().err
    assert "sentencepiece" not in tokenised_report(capsys, "--subword")
    assert "--source-tokenizer none keeps its words" in tokenised_report(capsys, "--source-subword")
    trip.report("test.de", options(), "")
    assert "▁ stands for a space among tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        ("今天天气很好我们去公园散步吧 他说明天我不来了然后就走了", True),
        ("วันนี้อากาศดีมากเราไปเดินเล่น", True),
        ("今天 天气 很 好", False),
        ("Donaudampfschifffahrtsgesellschaft", False),
    ],
)
def test_a_script_without_spaces_is_known(text, unspaced):
    assert (count_words([text]).unspaced_length is not None) is unspaced


# --- how text is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        ({"length": 20.0}, {"length": 60.0}, []),  # short and long sentences of a script without spaces
        ({"length": 2.0}, {"length": 30.0}, ["its words have 2.0 letters, not 30.0"]),  # segmented
        ({"length": 25.0}, {"length": 2.0}, ["its words have 25.0 letters, not 2.0"]),  # not segmented
        ({"upper": 0.0}, {"upper": 0.009}, []),  # a script that has hardly any case
        ({"upper": 0.03}, {"upper": 0.0}, ["3.0% of its letters are in upper case, not 0.0%"]),
        ({"unknown": 0.0}, {"unknown": 0.3}, []),  # better than expected
        ({"unknown": 0.4}, {"unknown": 0.01}, ["40.0% of its tokens are unknown, not 1.0%"]),
    ],
)
def test_how_texts_differ_in_writing(here, there, found):
    usual = {"upper": 0.02, "apart": 0.0, "unknown": 0.0, "length": 5.0}
    assert differences({**usual, **here}, {**usual, **there}) == found
