"""``--subword char``, ``word`` and ``sentencepiece``: from raw text to tokens and back, and through every command."""

from __future__ import annotations

import csv
import json
import math
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fairseq.data import Dictionary, data_utils
from fairseq.data.encoders.characters import Characters
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from system.test_scripts import succeed

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data
from dual_fairseq.common.segmentation import VISIBLE_SPACE, Side
from dual_fairseq.data.clean import LONGEST_WORD
from dual_fairseq.data.normalize import repair
from dual_fairseq.data.subword import Subword, characters
from dual_fairseq.data.text import TextPipeline
from dual_fairseq.data.tokenizer import Tokenizer, detokenize
from dual_fairseq.pair.translator import DualTranslator
from integration.test_preprocess import content, options, write_corpus
from integration.test_preprocess import script as run_script

KINDS = {
    "char": ["--subword=char"],
    "char-moses": ["--subword=char", "--tokenizer=moses"],
    "sentencepiece": ["--subword=sentencepiece", "--vocab-size=120"],
    "sentencepiece-lowercase": ["--subword=sentencepiece", "--vocab-size=90", "--separate-bpe", "--lowercase"],
    "word": ["--subword=word", "--vocab-threshold=0"],
    "word-untokenized": ["--subword=word", "--tokenizer=none", "--lowercase"],
}
ODDITIES = [
    "Snake_case, $5 & <b>\u00a0bold</b> \u2581 \u4f60\u597d\u3002",
    "caf\u00e9 cafe\u0301 \U0001f600 d'accord a@@ b",
    "x  y\tz",
]


def preprocessed(folder: Path, dest: Path, *more: str) -> Path:
    arguments = [option for option in options(folder, dest, *more) if not option.startswith("--bpe-size")]
    main(["preprocess", *arguments])
    return dest


def lines(path: Path) -> list[str]:
    found = path.read_text(encoding="utf-8").split("\n")
    assert found.pop() == ""
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            with open(folder / f"{split}.{language}", "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in ODDITIES)
    return folder


@pytest.fixture(scope="module")
def dests(corpus, tmp_path_factory) -> dict[str, Path]:
    """The corpus preprocessed in every kind."""
    folder = tmp_path_factory.mktemp("dests")
    return {kind: preprocessed(corpus, folder / kind, *more) for kind, more in KINDS.items()}


# --- text to tokens and back ----------------------------------------------------------------------------------------


@given(st.text())
@settings(deadline=None, max_examples=300)
def test_characters_come_back_exactly(text):
    line = Tokenizer("none", "en")(repair(text, Counter())).replace(VISIBLE_SPACE, "_")
    tokens = characters(line)
    assert all(len(token) == 1 for token in tokens.split())
    assert len(tokens.split()) == len(line)
    assert data_utils.post_process(tokens, "sentencepiece") == line
    assert tokens == Characters.encode(line)  # as of fairseq-interactive --bpe characters


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_gives_what_preprocessing_gave_and_decoding_undoes_it(kind, dests):
    dest = dests[kind]
    text = TextPipeline(dest)
    assert {side.subword for side in text.data.sides.values()} == {kind.partition("-")[0]}
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            segmented = lines(dest / "segmented" / f"{split}.{language}")
            raw = lines(dest / "raw" / f"{split}.{language}")
            tokenized = [line.replace(VISIBLE_SPACE, "_") for line in lines(dest / "tokenized" / f"{split}.{language}")]
            assert [text.encode(line, language) for line in raw] == segmented
            decoded = [text.decode(line, language).replace(VISIBLE_SPACE, "_") for line in segmented]
            assert decoded == detokenize(tokenized, language, text.data.sides[language].tokenizer)
            if kind in ("char", "sentencepiece", "sentencepiece-lowercase"):
                assert decoded == [" ".join(line.split()).replace(VISIBLE_SPACE, "_") for line in raw]


def test_a_translation_obeys_no_symbol_of_a_strangers_dictionary(dests):
    for kind in ("word", "word-untokenized"):
        assert TextPipeline(dests[kind]).decode("a\x1b[2J b\x85c d\te", "en") == "a [2J b c d e"


def test_fairseq_undoes_characters_of_a_models_output(dests):
    dest = dests["char"]
    symbols = Dictionary.load(str(dest / "dual" / "dict.de.txt"))
    for line in lines(dest / "segmented" / "train.de"):
        ids = symbols.encode_line(line, add_if_not_exist=False)
        assert symbols.string(ids, bpe_symbol="sentencepiece") == line.replace(" ", "").replace(VISIBLE_SPACE, " ")
    assert len(symbols) < 80 + len("".join(ODDITIES))


def test_long_words_stay_whole_as_characters(dests):
    text, word = TextPipeline(dests["char"]), "ab" * LONGEST_WORD
    assert text.decode(text.encode(f"x {word} y", "de"), "de") == f"x {word} y"


# --- dictionaries ---------------------------------------------------------------------------------------------------


def known_words(dest: Path, language: str) -> set[str]:
    found = {line.rpartition(" ")[0] for line in lines(dest / "dual" / f"dict.{language}.txt")}
    return {word for word in found if not word.startswith("madeupword")}


def test_rare_words_are_unknown_unless_all_are_asked_for(corpus, dests, tmp_path):
    assert "\U0001f600" in known_words(dests["word"], "en")
    dest = preprocessed(corpus, tmp_path / "default", "--subword=word")
    assert "\U0001f600" not in known_words(dest, "en") and "dog" in known_words(dest, "en")
    record = json.loads((dest / "preprocess.json").read_text())
    assert (record["options"]["vocab-threshold"], record["options"]["vocab-size"]) == (2, 30_000)
    assert 0 < record["dictionary"]["unknown_share"]["valid.en"] < 0.6


@pytest.mark.parametrize("more", ["--subword=word", "--subword=char", "--subword=bpe"])
def test_a_vocabulary_has_the_most_frequent_symbols(more, corpus, tmp_path):
    dest = tmp_path / "out"
    preprocessed(corpus, dest, "--vocab-size=6", more)
    counts: dict[str, int] = {}
    for line in lines(dest / "segmented" / "train.en"):
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    kept = known_words(dest, "en")
    assert len(kept) == 6
    assert min(counts[word] for word in kept) >= max(count for word, count in counts.items() if word not in kept)


# --- the record -----------------------------------------------------------------------------------------------------


def test_the_record_names_the_kind(dests):
    for kind, dest in dests.items():
        record = json.loads((dest / "preprocess.json").read_text())
        assert record["subword"] == record["options"]["subword"] == kind.partition("-")[0]


@pytest.mark.parametrize("change", [{"subword": "syllable"}, {"subword": "word"}])
def test_a_record_of_a_kind_unknown_here_is_refused(change, dests, tmp_path):
    shutil.copytree(dests["char"], tmp_path / "dest")
    path = tmp_path / "dest" / "preprocess.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match="names a tokenizer or segmentation unknown here"):
        TextPipeline(tmp_path / "dest")


def test_another_kind_in_the_same_place_is_refused(corpus, tmp_path):
    dest = tmp_path / "out"
    main(["preprocess", *options(corpus, dest)])
    with pytest.raises(UserError, match="--subword bpe -> char"):
        preprocessed(corpus, dest, "--subword=char", "--tokenizer=moses")
    preprocessed(corpus, dest, "--subword=char", "--tokenizer=moses", "--overwrite")
    fresh = preprocessed(corpus, tmp_path / "fresh", "--subword=char", "--tokenizer=moses")
    assert content(dest) == content(fresh)


@pytest.mark.parametrize("option", ["--bpe-size=9", "--joint-bpe", "--separate-bpe"])
def test_options_of_bpe_are_refused_with_another_kind(option, corpus, tmp_path):
    arguments = [word for word in options(corpus, tmp_path / "out", "--subword=char") if "--bpe-size" not in word]
    refusal = f"{option.partition('=')[0]} is for --subword bpe( and sentencepiece)?, not char; leave it out"
    with pytest.raises(UserError, match=refusal):
        main(["preprocess", *arguments, option])


# --- each side in its own way ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(corpus, tmp_path_factory) -> Path:
    """German in pieces of SentencePiece; English in words, as for text that is a label a line."""
    more = ["--subword=sentencepiece", "--vocab-size=120", "--target-tokenizer=none", "--target-subword=word"]
    return preprocessed(corpus, tmp_path_factory.mktemp("mixed") / "dest", *more)


def test_each_side_may_have_its_own_tokenizer_and_subwords(mixed, tmp_path):
    Data.from_folder(mixed).keep(tmp_path / "text")  # what a run keeps does the same
    for text in (TextPipeline(mixed), TextPipeline(tmp_path / "text")):
        assert text.data.sides == {
            "de": Side("none", "sentencepiece", True, "sentencepiece"),
            "en": Side("none", "word", False, None),
        }
        for language in ("de", "en"):
            raw, segmented = (lines(mixed / name / f"test.{language}") for name in ("raw", "segmented"))
            assert [text.encode(line, language) for line in raw] == segmented
            decoded = [text.decode(line, language).replace(VISIBLE_SPACE, "_") for line in segmented]
            assert decoded == [" ".join(line.split()).replace(VISIBLE_SPACE, "_") for line in raw]
    assert [file.name for file in (mixed / "bpe").iterdir()] == ["sentencepiece.de.model"]
    record = json.loads((mixed / "preprocess.json").read_text())
    assert record["options"]["tokenizer"] == "none" and record["subword"] == {"de": "sentencepiece", "en": "word"}
    assert record["options"]["vocab-size"] == 120 and not record["options"]["joined-dictionary"]
    assert record["options"]["vocab-threshold"] == {"de": 0, "en": 2}


def test_text_like_that_of_a_folder_with_two_ways_has_them_too(corpus, mixed, tmp_path):
    words = options(corpus, tmp_path / "like", "-s=en", "-t=de", f"--like={mixed}")
    swapped = [word for word in words if not word.startswith("--bpe-size")]
    with pytest.raises(UserError, match=r"another --subword \(de sentencepiece, en word, not de bpe\)"):
        main(["preprocess", *swapped, "--target-subword=bpe"])
    main(["preprocess", *swapped, "--source-subword=word"])
    of_first, of_like = (json.loads((dest / "preprocess.json").read_text()) for dest in (mixed, tmp_path / "like"))
    assert of_like["subword"] == of_first["subword"] and of_like["bpe"] == of_first["bpe"]
    assert (tmp_path / "like" / "segmented" / "test.de").read_text() == (mixed / "segmented" / "test.de").read_text()


@pytest.mark.parametrize("option", ["--joint-bpe", "--joined-dictionary"])
def test_sides_that_differ_have_no_symbols_in_common(option, corpus, tmp_path):
    with pytest.raises(UserError, match=rf"{option}: .* differ \(de moses and bpe, en none and bpe\); leave it out"):
        main(["preprocess", *options(corpus, tmp_path / "out", "--target-tokenizer=none", option)])
    assert not (tmp_path / "out").exists()


# --- translation of long lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Ab c.", ["Ab c."]),
        ("Ab c. De f.", ["Ab c.", "De f."]),
        ("A 1.5 b. C", ["A 1.5 b.", "C"]),
        ("ab cd efgh ij", ["ab cd", "efgh ij"]),
        ("abcdefg hijk", ["abcdefg", "hijk"]),
        ("abcdefgh ijk", ["abcdefgh", "ijk"]),
        ("abcdefghijk", ["abcdefgh", "ijk"]),
        (
            "\u4f60\u597d\u3002\u4f60\u597d\u5417\u4f60\u597d\u3002",
            ["\u4f60\u597d\u3002", "\u4f60\u597d\u5417\u4f60\u597d\u3002"],
        ),
    ],
)
def test_where_an_over_long_line_of_characters_is_cut(line, expected):
    pieces = Subword("sentencepiece", VISIBLE_SPACE).cut(characters(line).split(), 8)
    assert [data_utils.post_process(" ".join(piece), "sentencepiece") for piece in pieces] == expected
    assert all(VISIBLE_SPACE not in (piece[0], piece[-1]) for piece in pieces)


def test_pieces_are_joined_by_what_stands_between_words(dests):
    char, word = TextPipeline(dests["char"]), TextPipeline(dests["word-untokenized"])
    assert char.decode(char.join(["A b .", "", "C"], "en"), "en") == "Ab. C"
    assert word.decode(word.join(["A b .", "", "C"], "en"), "en") == "A b . C"


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["char", "word", "sentencepiece"])
def test_a_whole_run(kind, corpus, tmp_path):
    """preprocess, train_lm, train_dual, evaluate, translate, score."""
    dest, run = tmp_path / "data", tmp_path / "run"
    more = ["--vocab-size", "120"] if kind == "sentencepiece" else []
    prefixes = [f"--{split}={corpus / split}" for split in ("train", "valid", "test")]
    done = run_script("preprocess.sh", "-s", "de", "-t", "en", *prefixes, "--dest", dest, "--subword", kind, *more)
    assert done.returncode == 0, done.stderr
    command = "--cpu --lm-size tiny --lm-arch rnn --lm-cell gru --lm-max-epoch 1 --max-tokens 1000 --size tiny "
    command += "--warmup-max-epoch 30 --patience 20 --dual-max-epoch 1 --lr 0.003 --lr-warmup 30 --no-dual-inference"
    succeed("train_dual.sh", dest, run, *shlex.split(command), "--", "--eval-bleu-print-samples")

    # validation BLEU is that of words, not of characters
    log = (run / "dual" / "train.log").read_text()
    references = [line.partition("example reference: ")[2] for line in log.splitlines() if "example reference" in line]
    assert references and all(VISIBLE_SPACE not in line and len(line) > 3 * line.count(" ") for line in references)
    assert json.loads((run / "text" / "preprocess.json").read_text())["subword"] == kind

    scores = json.loads((run / "dual" / "eval" / "test" / "scores.json").read_text())
    for source, target in (("de", "en"), ("en", "de")):
        hypotheses = lines(run / "dual" / "eval" / "test" / f"{source}-{target}.hyp.txt")
        assert any(hypotheses) and not any(VISIBLE_SPACE in line for line in hypotheses)
        symbols = len(known_words(dest, target))
        assert 0 < scores[f"{source}-{target}"]["nll_bits_per_token"] < math.log2(symbols)  # it has learnt something
        raw = lines(dest / "raw" / f"test.{source}")
        assert DualTranslator.from_pretrained(run, device="cpu").translate(raw, source, target) == hypotheses
        command = [sys.executable, "-m", "dual_fairseq", "translate", run, "-s", source, "-t", target, "--cpu"]
        text = "".join(f"{line}\n" for line in raw)
        done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.split("\n") == [*hypotheses, ""], done.stderr
    table = tmp_path / "scores.tsv"
    files = ["--source", str(corpus / "test.de"), "--target", str(corpus / "test.en")]
    main(
        [
            "score",
            *[
                str(run / "dual" / "checkpoint_best.pt"),
                "-s",
                "de",
                "-t",
                "en",
                *files,
                "--output",
                str(table),
                "--cpu",
            ],
        ]
    )
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    encode = TextPipeline(run / "text").encode
    for row, raw in zip(rows, lines(dest / "raw" / "test.de"), strict=True):
        assert int(row["tokens_x"]) == len(encode(raw, "de").split()) + 1 and row["gap"]
