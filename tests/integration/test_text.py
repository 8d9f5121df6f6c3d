"""Text of every kind through preprocessing and evaluation: what is normalised, what is measured, what is compared."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.data.options import parse
from dual_fairseq.data.preprocess import Preprocessing
from dual_fairseq.data.subword import learn_bpe, load_bpe
from dual_fairseq.data.text import TextPipeline
from dual_fairseq.pair import evaluate as evaluation
from dual_fairseq.pair import tune
from integration.test_evaluation import generated
from integration.test_preprocess import content, lines, options, write_corpus

SPLITS = ("train", "valid", "test")


def corpus(folder: Path, change) -> Path:
    """The German and English text, each line changed."""
    write_corpus(folder)
    for split in SPLITS:
        for language in ("de", "en"):
            path = folder / f"{split}.{language}"
            path.write_text("".join(f"{change(line)}\n" for line in lines(path)), encoding="utf-8")
    return folder


def decomposed(line: str) -> str:
    return unicodedata.normalize("NFD", f"{line} Das Mädchen trägt schöne Bälle für Löwen.")


def record(dest: Path) -> dict:
    return json.loads((dest / "preprocess.json").read_text(encoding="utf-8"))


def earlier_version(arguments: list[str], dest: Path) -> None:
    """Make a DEST as versions did that knew nothing of normalisation."""
    given = parse(arguments)
    given.normalized, given.normalize_punctuation = False, True
    Preprocessing(given).run()
    old = record(dest)
    for name in ("normalized", "normalize_punctuation", "round_trip"):
        del old[name]
    for name in ("normalized", "normalize-punctuation"):
        del old["options"][name]
    del old["bpe"]["pieces"]
    (dest / "preprocess.json").write_text(json.dumps(old), encoding="utf-8")
    note = dest / ".stages" / "text.json"
    made = json.loads(note.read_text(encoding="utf-8"))
    del made["settings"]["text normalized"], made["settings"]["normalize-punctuation"]
    del made["result"]["train"]["writing"]
    note.write_text(json.dumps(made), encoding="utf-8")


def evaluated(dest: Path, out: Path, hypotheses: dict[str, list[str]]) -> dict:
    """The scores of what fairseq-generate --post-process would have printed, by target language."""
    out.mkdir()
    for source, target in (("de", "en"), ("en", "de")):
        (out / f"{source}-{target}.generate.txt").write_text(generated(hypotheses[target]), encoding="utf-8")
    (out / "validate.txt").write_text('x | INFO | test | {"test_nll_loss_de-en": "1", "test_nll_loss_en-de": "1"}\n')
    return evaluation.evaluate(dest, out, "test")


def words(dest: Path) -> dict[str, list[str]]:
    """The test text as the models' tokens joined to words: a perfect translation."""
    join = TextPipeline(dest).subword["de"].join
    return {
        language: [join(line) for line in lines(dest / "segmented" / f"test.{language}")] for language in ("de", "en")
    }


# --- normalised -----------------------------------------------------------------------------------------------------


def test_decomposed_text_is_composed_counted_and_comes_back(tmp_path, capfd):
    dest = tmp_path / "out"
    main(["preprocess", *options(corpus(tmp_path / "in", decomposed), dest)])
    said = capfd.readouterr().err
    assert "train: 60 read, 60 kept, 0 dropped; repaired: lines not in NFC 120" in said
    for name in ("valid.de", "valid.en", "test.de", "test.en"):
        assert f"round trip: {name}: 100.0\n" in said and record(dest)["round_trip"][name]["bleu"] == 100
        assert all(unicodedata.is_normalized("NFC", line) for line in lines(dest / "raw" / name))
    assert "no translation can reach" not in said
    text, line = TextPipeline(dest), "Das Mädchen trägt Bälle."
    assert text.encode(unicodedata.normalize("NFD", line), "de") == text.encode(line, "de")
    assert +text.repairs == {"lines_not_in_NFC": 1}
    scores = evaluated(dest, tmp_path / "eval", words(dest))
    assert scores["en-de"]["bleu"] == scores["de-en"]["bleu"] == pytest.approx(100)


def test_what_tokenisation_changes_is_shown_and_warned_of(tmp_path, capfd):
    dest, folder = tmp_path / "out", corpus(tmp_path / "in", lambda line: f"“{line}” – it’s 10–20…")
    main(["preprocess", *options(folder, dest, "--normalize-punctuation")])
    said = capfd.readouterr().err
    trip = record(dest)["round_trip"]["test.de"]
    assert trip["bleu"] < 99 and len(trip["differences"]) == 3
    assert f"round trip: test.de: {trip['bleu']:.1f}\n" in said and '"“" -> """' in said
    assert "warning: test.de: no translation can reach" in said and "--normalize-punctuation changes it" in said
    assert lines(dest / "raw" / "test.de")[0].startswith("“Der ")  # references are kept
    main(["preprocess", *options(folder, tmp_path / "kept")])
    assert record(tmp_path / "kept")["round_trip"]["test.de"]["bleu"] == 100


def test_punctuation_is_normalised_by_moses_alone(tmp_path):
    write_corpus(tmp_path / "in")
    with pytest.raises(UserError, match="--normalize-punctuation is for --tokenizer moses, not none; leave it out"):
        main(["preprocess", *options(tmp_path / "in", tmp_path / "out", "--normalize-punctuation", "--tokenizer=none")])


def test_utf_16_is_refused_before_anything_is_made(tmp_path):
    write_corpus(tmp_path / "in")
    path = tmp_path / "in" / "valid.en"
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(UserError, match=r"valid\.en: is UTF-16"):
        main(["preprocess", *options(tmp_path / "in", tmp_path / "out")])
    assert not (tmp_path / "out").exists()


# --- by an earlier version ------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path) -> tuple[Path, Path]:
    """Decomposed text, and what an earlier version made of it."""
    folder, dest = corpus(tmp_path / "in", decomposed), tmp_path / "old"
    earlier_version(options(folder, dest), dest)
    return folder, dest


def test_text_that_was_never_composed_is_tokenised_as_it_was_trained(old, tmp_path):
    _, dest = old
    text = TextPipeline(dest)
    raw = lines(dest / "raw" / "test.de")
    assert [text.encode(line, "de") for line in raw] == lines(dest / "segmented" / "test.de")
    assert "Ma \u0308 dchen" in lines(dest / "tokenized" / "test.de")[0]
    assert text.text("test", "de") == raw
    evaluated(dest, tmp_path / "eval", words(dest))
    assert lines(tmp_path / "eval" / "en-de.hyp.txt") == [text.decode(line, "de") for line in words(dest)["de"]]


def test_other_text_can_be_made_like_it_and_only_overwrite_makes_it_anew(old, tmp_path):
    folder, dest = old
    before = content(dest)
    main(["preprocess", *options(folder, tmp_path / "like")[:-1], f"--like={dest}"])
    assert lines(tmp_path / "like" / "segmented" / "test.de") == lines(dest / "segmented" / "test.de")
    with pytest.raises(UserError, match=r"made with other input or options \(text normalized.*; pass --overwrite"):
        main(["preprocess", *options(folder, dest)])
    assert content(dest) == before
    main(["preprocess", *options(folder, dest), "--overwrite"])
    main(["preprocess", *options(folder, tmp_path / "new")])
    assert content(dest) == content(tmp_path / "new") and record(dest)["normalized"] is True


# --- text in pieces -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["subword_nmt", "sentencepiece"])
def pieces(request, tmp_path) -> Path:
    """The text in pieces of words."""
    if request.param == "sentencepiece":
        return corpus(tmp_path / "in", lambda line: f"▁{line.replace(' ', ' ▁').replace('in', 'i n')}")
    write_corpus(tmp_path / "words")
    learn_bpe([tmp_path / "words" / "train.de"], 20, tmp_path / "codes", "text")
    return corpus(tmp_path / "in", load_bpe(tmp_path / "codes"))


def test_text_in_pieces_is_compared_as_words(pieces, tmp_path, capfd):
    write_corpus(tmp_path / "words")
    dest, split = (
        tmp_path / "out",
        [option for option in options(pieces, tmp_path / "out") if "--bpe-size" not in option],
    )
    main(["preprocess", *split, "--tokenizer=none", "--bpe-size=0"])
    said = capfd.readouterr().err
    assert "no translation can reach" not in said and "the text is already split into pieces" in said
    text, of_words = TextPipeline(dest), lines(tmp_path / "words" / "test.de")
    assert lines(dest / "segmented" / "test.de") == lines(pieces / "test.de") != of_words
    assert text.text("test", "de") == of_words
    assert [text.decode(line, "de") for line in lines(pieces / "test.de")] == of_words
    scores = evaluated(dest, tmp_path / "eval", words(dest))
    assert scores["en-de"]["bleu"] == scores["de-en"]["bleu"] == pytest.approx(100)
    assert lines(tmp_path / "eval" / "en-de.ref.txt") == lines(tmp_path / "eval" / "en-de.hyp.txt") == of_words
    # without the options it would be cut again
    main(["preprocess", *options(pieces, tmp_path / "again")])
    said = capfd.readouterr().err
    assert "warning: train.de: " in said and "words " in said
    assert (
        "the text is already split into pieces, and BPE now splits it again; give --tokenizer none --bpe-size 0" in said
    )


def test_pieces_of_two_kinds_are_refused(tmp_path):
    write_corpus(tmp_path / "in")
    for language, change in (("de", lambda line: line.replace("un", "u@@ n")), ("en", lambda line: f"▁{line}")):
        path = tmp_path / "in" / f"train.{language}"
        path.write_text("".join(f"{change(line)}\n" for line in lines(path)), encoding="utf-8")
    arguments = [option for option in options(tmp_path / "in", tmp_path / "out") if "--bpe-size" not in option]
    with pytest.raises(UserError, match="de in those of subword_nmt and en in those of sentencepiece; give both"):
        main(["preprocess", *arguments, "--tokenizer=none", "--bpe-size=0"])


def test_tuning_reads_its_references_from_the_folder(pieces, tmp_path, monkeypatch):
    arguments = [option for option in options(pieces, tmp_path / "out") if "--bpe-size" not in option]
    main(["preprocess", *arguments, "--tokenizer=none", "--bpe-size=0"])
    seen = {}

    def tuned(nbest, references, *more):
        seen.update(references=references, texts=nbest.texts)
        raise UserError("enough")

    monkeypatch.setattr(tune, "tune", tuned)
    texts = words(tmp_path / "out")["de"]
    monkeypatch.setattr(tune, "read_nbest", lambda *_: tune.NBest([[text] for text in texts], None))
    (tmp_path / "list").touch()
    command = ["tune", tmp_path / "list", "-t", "de", "-o", tmp_path, "--dest", tmp_path / "out", "--split", "test"]
    with pytest.raises(UserError, match="enough"):
        main([str(word) for word in command])
    assert seen["references"] == [text for (text,) in seen["texts"]] == texts
    with pytest.raises(UserError, match="give the references, by --reference FILE or by --dest DEST"):
        main([str(word) for word in command[:6]])


def test_sentencepiece_without_its_package_is_one_line(tmp_path, monkeypatch):
    import sys

    write_corpus(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    arguments = [option for option in options(tmp_path / "in", tmp_path / "out") if "--bpe-size" not in option]
    with pytest.raises(UserError, match=r"sentencepiece is not installed; .* -m pip install sentencepiece"):
        main(["preprocess", *arguments, "--subword=sentencepiece"])
    with pytest.raises(UserError, match="--vocab-size 0: is for the other kinds"):
        main(["preprocess", *arguments, "--subword=sentencepiece", "--vocab-size=0"])
