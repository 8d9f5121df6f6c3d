"""DEST and RUN: their record, stages and best checkpoint."""

import json

import pytest

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data, RunFolder, StageFolder, find_checkpoint
from dual_fairseq.common.segmentation import Side

RECORD = {
    "source": "de", "target": "en", "tokenizer": "moses", "subword": "bpe", "bpe": {"type": "subword-nmt"},
    "inputs": {"a": "/b"},
}  # fmt: skip


def write(folder, record):
    (folder / "preprocess.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return folder


def test_a_record_is_read(tmp_path):
    data = Data.from_folder(write(tmp_path, RECORD))
    assert (data.languages, data.pair, data.lowercase) == (("de", "en"), "de-en", False)
    assert data.sides == dict.fromkeys(data.languages, Side("moses", "bpe", True, "subword_nmt"))


def test_a_record_may_hold_a_way_for_each_language(tmp_path):
    ways = {"tokenizer": {"de": "moses", "en": "none"}, "subword": {"de": "sentencepiece", "en": "word"}}
    bpe = {"de": {"type": "sentencepiece", "pieces": None}, "en": {"type": "word", "pieces": None}}
    data = Data.from_folder(write(tmp_path, {**RECORD, **ways, "bpe": bpe}))
    assert data.sides == {
        "de": Side("moses", "sentencepiece", True, "sentencepiece"),
        "en": Side("none", "word", False, None),
    }
    assert not data.sides["de"].segmented and data.sides["en"].segmented
    assert data.codes("de").name == "sentencepiece.de.model"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "No such file or directory; give the folder that dual-fairseq preprocess wrote"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ({**RECORD, "source": "a/b"}, "is damaged"),
        ({**RECORD, "target": 1}, "is damaged"),
        ({**RECORD, "bpe": "subword-nmt"}, "is damaged"),
        ({key: value for key, value in RECORD.items() if key != "tokenizer"}, "is damaged"),
        ({key: value for key, value in RECORD.items() if key != "subword"}, "is damaged"),
        ({**RECORD, "tokenizer": "mecab"}, r"unknown here \(mecab, bpe, subword-nmt\); update dual-fairseq"),
        ({**RECORD, "subword": "unigram"}, "unknown here"),
        ({**RECORD, "subword": "char"}, "unknown here"),
        ({**RECORD, "subword": ["bpe"]}, "is damaged"),
        ({**RECORD, "subword": {"de": "bpe"}}, "unknown here"),
        ({**RECORD, "subword": {"de": "bpe", "en": "word"}}, r"unknown here \(moses, word, subword-nmt\)"),
        ({**RECORD, "tokenizer": {"de": 1, "en": "none"}}, "is damaged"),
        ({**RECORD, "dictionary": [1]}, "is damaged"),
        ({**RECORD, "dictionary": {"unknown_share": {"valid.de": "x"}}}, "is damaged"),
        ({**RECORD, "dictionary": {"unknown_share": {"valid.de": None}}}, "is damaged"),
        ({**RECORD, "bpe": {"type": None, "pieces": "../x"}}, "names pieces unknown here"),
        ({**RECORD, "tokenizer": {"\x1b[2J\n": 1}}, "is damaged"),
    ],
)
def test_a_record_that_is_none_is_refused_in_one_line(record, message, tmp_path):
    if record is not None:
        write(tmp_path, record)
    with pytest.raises(UserError, match=rf"preprocess\.json: .*({message})") as refusal:
        Data.from_folder(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_run_keeps_what_translating_needs_and_no_name_of_this_machine(tmp_path):
    dest, text = write(tmp_path, RECORD), tmp_path / "run" / "text"
    for name in ("dual/dict.de.txt", "dual/dict.en.txt", "bpe/codes.de", "bpe/codes.en"):
        (dest / name).parent.mkdir(exist_ok=True)
        (dest / name).write_text(name)
    Data.from_folder(dest).keep(text)
    kept = Data.from_folder(text)
    assert "inputs" not in kept.record and kept.languages == ("de", "en")
    assert kept.dictionary("de").read_text() == "dual/dict.de.txt"
    assert kept.codes("en").read_text() == "bpe/codes.en"


def test_options_are_those_of_fairseq_without_the_digests(tmp_path):
    stage = StageFolder(tmp_path)
    assert (stage.recorded(), stage.options()) == ([], {})
    stage.options_file.write_text("data 12\n--lr=0.1\n--adam-betas (0.9, 0.98)\n--eval-bleu\n")
    assert stage.recorded()[1] == "--lr 0.1"  # however it was given
    assert stage.options() == {"lr": "0.1", "adam-betas": "(0.9, 0.98)", "eval-bleu": ""}


@pytest.mark.parametrize("line", ["--arch --user-dir=evil", "--lr --user-dir evil", "--encoder-layers --"])
def test_a_value_that_is_an_option_is_refused_since_it_becomes_a_part_of_commands(tmp_path, line):
    stage = StageFolder(tmp_path)
    stage.options_file.write_text(f"data 1\n--warmup-init-lr -.5\n{line}\n")
    with pytest.raises(UserError, match=f"options.txt: is damaged .*{line}"):
        stage.options()
    stage.options_file.write_text("--warmup-init-lr -.5\n--fp16 -a lstm\n")  # short options are the user's own
    assert stage.options() == {"warmup-init-lr": "-.5", "fp16": "-a lstm"}


def test_the_best_checkpoint_of_a_run_or_of_the_demo(tmp_path):
    run = RunFolder(tmp_path / "train")
    with pytest.raises(UserError, match="there is no such folder or checkpoint"):
        find_checkpoint(run.folder)
    run.folder.mkdir()
    with pytest.raises(UserError, match="holds no checkpoint of a pair"):
        find_checkpoint(tmp_path)
    converted = tmp_path / "converted"
    converted.mkdir()
    for name in ("model.bin", "config.json"):
        (converted / name).touch()
    with pytest.raises(UserError, match=r"holds a model of CTranslate2.* with --engine ctranslate2"):
        find_checkpoint(converted)
    (tmp_path / "de-en.pt").touch()
    with pytest.raises(UserError, match=rf"give {tmp_path}/de-en\.pt with --engine ctranslate2"):
        find_checkpoint(converted)
    (tmp_path / "de-en.pt").unlink()
    for name in ("warmup", "mle", "dual"):
        stage = run.stage(name)
        stage.folder.mkdir()
        stage.last.touch()
        assert find_checkpoint(stage.folder) == stage.last
        stage.best.touch()
        assert find_checkpoint(tmp_path) == find_checkpoint(run.folder) == find_checkpoint(stage.folder) == stage.best
    assert find_checkpoint(run.stage("mle").last) == run.stage("mle").last


def test_the_languages_decide_among_the_files_of_export(tmp_path):
    (tmp_path / "de-en.pt").touch()
    assert (
        find_checkpoint(tmp_path) == find_checkpoint(tmp_path, ("en", None)) == tmp_path / "de-en.pt"
    )  # refused later
    (tmp_path / "en-de.pt").touch()
    assert find_checkpoint(tmp_path, ("de", "en")) == find_checkpoint(tmp_path, ("de", None)) == tmp_path / "de-en.pt"
    assert find_checkpoint(tmp_path, (None, "de")) == tmp_path / "en-de.pt"
    for languages in ((None, None), ("fr", "de"), ("(", "de")):
        with pytest.raises(UserError, match=r"several models \(de-en\.pt, en-de\.pt\); name one .* -s and -t"):
            find_checkpoint(tmp_path, languages)
    with pytest.raises(UserError, match=r"name one of them$"):  # export and Python have no -s and -t
        find_checkpoint(tmp_path)


def test_another_stage_does_not_take_the_place_of_one_whose_checkpoint_is_gone(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("warmup", "dual"):
        run.stage(name).folder.mkdir()
        run.stage(name).best.touch()
        run.stage(name).last.touch()
        run.stage(name).finished.touch()
    assert find_checkpoint(tmp_path) == run.stage("dual").best
    run.stage("dual").best.unlink()
    for folder in (tmp_path, tmp_path / "dual"):
        with pytest.raises(UserError, match=r"dual/checkpoint_best\.pt is missing, but its training has finished"):
            find_checkpoint(folder)
    assert find_checkpoint(tmp_path / "warmup") == run.stage("warmup").best
