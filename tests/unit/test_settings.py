"""Settings by the size of the corpus: the table, what preprocessing and training take from it, and why."""

from __future__ import annotations

import argparse
import json
import struct
from array import array
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from dual_fairseq.common import settings
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data, RunFolder
from dual_fairseq.common.options import flag
from dual_fairseq.common.segmentation import by_language
from dual_fairseq.data import choices as of_text
from dual_fairseq.data.lines import survey_pair
from dual_fairseq.pipeline import choices, train_lm, train_options
from dual_fairseq.pipeline.inheritance import check_dictionaries, language_model_of
from dual_fairseq.pipeline.presets import PAIRS

ROOT = Path(__file__).resolve().parents[2]


def table(rows) -> str:
    """A Markdown table: one line per corpus size, one column per option."""
    names = [field.name for field in fields(rows[0]) if field.name not in ("up_to", "measured")]
    lines = ["| " + " | ".join(["up to", *(f"`{flag(name)}`" for name in names)]) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for row in rows:
        limit = "more" if row.up_to is None else f"{row.up_to:,}"
        cells = [limit + ("" if row.measured else " *")]
        cells += ["–" if (value := getattr(row, name)) is None else str(value) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("rows", [settings.PAIRS, settings.LANGUAGE_MODELS], ids=["pairs", "language models"])
def test_the_page_shows_the_table(rows):
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert table(rows) in page


def test_each_size_of_corpus_has_a_row():
    assert [settings.pair_settings(n).lr_warmup for n in (1, 2_000, 2_001)] == ["400"] * 3
    assert settings.pair_settings(20_000).bpe_size == 3000 and settings.pair_settings(20_001).bpe_size == 8000
    assert settings.pair_settings(10**9) is settings.PAIRS[-1]
    for table in (settings.PAIRS, settings.LANGUAGE_MODELS):
        bounds = [row.up_to for row in table]
        assert bounds[-1] is None and bounds[:-1] == sorted(bounds[:-1])


def write_index(path: Path, sizes: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack("<9sQBQ", b"MMIDIDX\0\0", 1, 4, len(sizes))
    path.write_bytes(head + array("i", sizes).tobytes() + bytes(8 * len(sizes)))


@pytest.fixture
def data(tmp_path) -> Data:
    """A DEST of 120 pairs, as far as its counts are looked at."""
    for language, size in (("xx", 10), ("yy", 12)):
        write_index(tmp_path / "data" / "dual" / f"train.xx-yy.{language}.idx", [size] * 120)
    return with_record(tmp_path / "data")


def with_record(folder: Path, **more: object) -> Data:
    """DEST with a record of its own."""
    record = {"source": "xx", "target": "yy", "tokenizer": "moses", "subword": "bpe", "bpe": {"type": "subword-nmt"}}
    (folder / "preprocess.json").write_text(json.dumps(record | more))
    return Data.from_folder(folder)


def chosen(data: Data, run: Path, *words: str) -> tuple[argparse.Namespace, list[str]]:
    options = train_options.parse(["DEST", str(run), *words])
    return options, choices.choose_pair(options, data, RunFolder(run))


def test_training_takes_its_settings_from_the_number_of_pairs_and_says_why(data, tmp_path):
    options, lines = chosen(data, tmp_path / "run")
    row = settings.pair_settings(120)
    for name in ("size", "dropout", "max_tokens", "lr", "lr_warmup", "warmup_max_update", "dual_lr", "dual_max_update"):
        assert getattr(options, name) == getattr(row, name), name
        assert any(line.split()[0] == f"--{name.replace('_', '-')}" for line in lines[1:]), name
    assert options.warmup_max_epoch is None
    assert lines[0].startswith("Settings for 120 sentence pairs (docs/settings.md)")
    assert all(len(line.split()) > 3 for line in lines[1:])
    many = with_record(data.folder, counts={"train": {"kept": 200_000}})
    options, lines = chosen(many, tmp_path / "run")
    assert (options.size, options.max_tokens, options.warmup_max_epoch) == ("small", "4096", "100")
    assert all(line.endswith("not measured here") for line in lines[1:] if not line.startswith("warning"))


def test_options_win_over_the_table_and_one_limit_stands_for_both(data, tmp_path):
    options, lines = chosen(data, tmp_path / "run", "--lr", "0.5", "--warmup-max-epoch=7", "--size", "base")
    assert (options.lr, options.size, options.warmup_max_epoch, options.warmup_max_update) == ("0.5", "base", "7", None)
    assert (options.dual_lr, options.lr_warmup, options.dropout) == ("0.0003", "4000", "0.3")  # of the size
    assert options.dual_max_update == "1000"
    assert not any(line.lstrip().startswith(("--lr ", "--size", "--warmup-max")) for line in lines)


def test_another_arch_keeps_its_own_dropout_and_characters_have_larger_batches(data, tmp_path):
    options, _ = chosen(data, tmp_path / "run", "--arch", "lstm")
    assert (options.size, options.dropout, options.lr, options.max_tokens) == (None, None, "0.0007", "1024")
    characters = with_record(data.folder, subword="char", bpe={"type": "char"})
    assert chosen(characters, tmp_path / "run")[0].max_tokens == "4096"


def test_a_run_that_was_begun_keeps_what_it_was_begun_with(data, tmp_path):
    stage = tmp_path / "run" / "warmup"
    stage.mkdir(parents=True)
    record = ["data abc", *(f"--{name} {value}" for name, value in PAIRS["small"].shape().items())]
    record += ["--dropout 0.3", "--warmup-updates 1000", "--encoder-layers 9"]  # the last by hand, after --
    record += ["--max-tokens 4096", "--lr 0.0007", "--max-epoch 100", "--max-update none", "--lr 5"]
    (stage / "options.txt").write_text("\n".join(record) + "\n")
    options, lines = chosen(data, tmp_path / "run", "--dual-lr", "0.1")
    assert (options.size, options.lr, options.lr_warmup, options.max_tokens) == ("small", "0.0007", "1000", "4096")
    assert (options.warmup_max_epoch, options.warmup_max_update, options.dual_lr) == ("100", None, "0.1")
    assert options.dual_max_update == "1000"  # dual training was not begun
    assert sum(line.endswith(choices.BEGUN) for line in lines) == 6


def test_several_epochs_of_little_text_pass_between_validations(data, tmp_path):
    stage = RunFolder(tmp_path / "run").stage("warmup")
    # 120 pairs of 12 tokens at most, 144 tokens a batch: 10 updates an epoch
    interval = ["--validate-interval", "6", "--save-interval", "6"]
    assert choices.validation_interval(data, stage, "144", None, []) == interval[:2]  # saved after each epoch
    assert choices.validation_interval(data, stage, "144", None, [], "3") == interval  # and these are averaged
    assert choices.validation_interval(data, stage, "144", "12", []) == []  # fairseq would not validate the twelfth
    assert choices.validation_interval(data, stage, "20", None, []) == []
    assert choices.validation_interval(data, stage, "144", None, ["--validate-interval=2"]) == []
    stage.folder.mkdir(parents=True)
    stage.options_file.write_text("--lr 1\n")  # begun without
    assert choices.validation_interval(data, stage, "144", None, []) == []
    stage.options_file.write_text("--lr 1\n--validate-interval 6\n--save-interval 6\n")
    assert choices.validation_interval(data, stage, "30", None, []) == interval
    stage.options_file.write_text("--lr 1\n--validate-interval 6\n")
    assert choices.validation_interval(data, stage, "30", None, []) == interval[:2]


def test_a_language_model_takes_its_settings_from_the_number_of_sentences(tmp_path):
    for name in ("dict.txt", "train.bin", "valid.bin", "valid.idx"):
        (tmp_path / name).touch()
    write_index(tmp_path / "train.idx", [9] * 60_000)
    options = train_lm.parse([str(tmp_path), str(tmp_path / "lm")])
    assert (options.size, options.dropout, options.max_tokens, options.max_update) == ("tiny", "0.1", "2048", "8000")
    assert options.max_epoch is None and options.chosen[0].startswith("Settings for 60,000 sentences")
    options = train_lm.parse([str(tmp_path), str(tmp_path / "lm"), "--size=small", "--max-epoch=3"])
    assert (options.lr, options.lr_warmup, options.max_epoch, options.max_update) == ("0.001", "400", "3", None)


@pytest.mark.parametrize("sentences", [1, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000])
def test_the_defaults_warn_of_nothing(sentences, tmp_path):
    data = with_record(tmp_path)
    for file in ("lm/xx/train.idx", "dual/train.xx-yy.xx.idx", "dual/train.xx-yy.yy.idx"):
        write_index(tmp_path / file, [12] * sentences)
    for name in ("dict.txt", "train.bin", "valid.bin", "valid.idx"):
        (tmp_path / "lm" / "xx" / name).touch()
    _, lines = chosen(data, tmp_path / "run")
    options = train_lm.parse([str(tmp_path / "lm" / "xx"), str(tmp_path / "lm-xx")])
    assert not [line for line in (*lines, *options.chosen) if line.startswith("warning")]
    assert options.lr_warmup == {1: "20", 100: "23", 300: "70"}.get(sentences, "200")
    few = train_lm.parse([str(tmp_path / "lm" / "xx"), str(tmp_path / "lm-xx"), "--max-update", "150"])
    assert few.lr_warmup == "200" and few.chosen[-1].startswith("warning: training ends at --max-update 150")


def test_a_damaged_index_is_refused(tmp_path):
    (tmp_path / "x.idx").write_bytes(b"MMIDIDX\0\0" + bytes(8) + b"\4" + b"\7" + bytes(9))
    with pytest.raises(SystemExit, match=r"x\.idx: was cut short"):
        choices.sizes_of(tmp_path / "x.idx")
    (tmp_path / "x.idx").write_bytes(b"TNTIDX")
    with pytest.raises(SystemExit, match=r"x\.idx: is not an index"):
        choices.sizes_of(tmp_path / "x.idx")


@pytest.fixture
def text(tmp_path):
    """Two sides that share half of their words."""
    files = [tmp_path / "train.xx", tmp_path / "train.yy"]
    files[0].write_text("a b c d\n" * 5)
    files[1].write_text("a b e f\n" * 5)
    return files


def of(**options: object) -> SimpleNamespace:
    given = {"subword": "bpe", "bpe_size": None, "joint_bpe": True, "joined_dictionary": None, "like": None}
    given |= {"tokenizer": "none", "vocab_size": 0, **options}
    for name in ("tokenizer", "subword", "vocab_size"):
        given[name] = by_language(given[name], ("xx", "yy"))
    return SimpleNamespace(**given)


def complete(options: SimpleNamespace, dest: Path, files: list[Path]) -> float | None:
    surveys = dict(zip(("xx", "yy"), ([file] for file in survey_pair(*files)), strict=True))
    return of_text.choose(options, dest, [files], surveys)


def test_the_overlap_is_that_of_the_word_distributions(text):
    assert of_text.overlap([[text[0]], [text[1]]], True) == pytest.approx(0.5)
    text[1].write_text("a, b e\n")
    assert of_text.overlap([[text[0]], [text[1]]], False) == pytest.approx(0.5)  # the comma is a word
    assert of_text.overlap([[text[0]], [text[1]]], True) == pytest.approx(0.25)


def test_languages_that_share_many_words_get_one_dictionary(text, tmp_path, capsys):
    options = of()
    assert complete(options, tmp_path, text) == pytest.approx(0.5)
    assert (options.bpe_size, options.joined_dictionary) == (3000, True)
    said = capsys.readouterr().err
    assert "--bpe-size 3000: for 5 pairs" in said and "share 50% of their words" in said
    two_ways = {"tokenizer": {"xx": "moses", "yy": "none"}, "joint_bpe": False}
    for given in ({"joined_dictionary": False}, {"joint_bpe": False}, {"subword": "char"}, two_ways):
        options = of(**given)
        complete(options, tmp_path, text)
        assert not options.joined_dictionary, given
    for given in ({"subword": "word"}, {"subword": "char", "joined_dictionary": True}, {"joined_dictionary": True}):
        options = of(**given)
        assert complete(options, tmp_path, text) == pytest.approx(0.5) and options.joined_dictionary, given
    (tmp_path / "like").mkdir()
    (tmp_path / "like" / "preprocess.json").write_text('{"overlap": 0.75}')
    like = of(like=str(tmp_path / "like"), bpe_size=3000, joined_dictionary=True)
    assert complete(like, tmp_path, text) == 0.75  # of the text that its dictionaries were made of
    text[1].write_text("g h i j\n" * 5)
    options = of()
    assert complete(options, tmp_path, text) == 0 and options.joined_dictionary is False


HAN = [chr(0x4E00 + i) for i in range(1800)]


def write_chinese(files: list[Path]) -> None:
    files[0].write_text("a b c d e f g h i j k\n" * 150)
    files[1].write_text("".join("".join(HAN[i : i + 12]) + "\n" for i in range(0, 1800, 12)))


@pytest.mark.parametrize("joint", [True, False])
def test_a_script_of_many_characters_gets_more_pieces_than_characters(text, tmp_path, capsys, joint):
    write_chinese(text)
    options = of(subword="sentencepiece", vocab_size=None, joint_bpe=joint)
    complete(options, tmp_path, text)
    sizes = (3626, 3626) if joint else (3000, 3602)  # the letters, the space and the line end are characters, too
    assert tuple(options.vocab_size.values()) == sizes
    assert f"--vocab-size {sizes[1]}: for {sizes[1] // 2:,} characters" in capsys.readouterr().err
    options = of(subword="sentencepiece", vocab_size=500, joint_bpe=joint)
    complete(options, tmp_path, text)
    assert set(options.vocab_size.values()) == {500}


def test_numbers_of_words_are_not_compared_where_white_space_does_not_separate_words(text):
    of_text.check_ratio(of(max_ratio=3.0), [text])
    write_chinese(text)
    of_text.check_ratio(of(max_ratio=0.0), [text])
    with pytest.raises(UserError, match="the script of yy puts no space between words"):
        of_text.check_ratio(of(max_ratio=3.0), [text])


def test_data_that_was_made_before_keeps_its_own(text, tmp_path):
    notes = tmp_path / ".stages"
    notes.mkdir()
    digests = [survey.sha256 for survey in survey_pair(*text)]
    settings_of = f'"text of train.xx": ["{digests[0]}"], "text of train.yy": ["{digests[1]}"], "tokenizer": "none"'
    (notes / "text.json").write_text(f'{{"settings": {{{settings_of}}}}}')
    (notes / "bpe.json").write_text('{"settings": {"bpe-size": 8000, "subword": "bpe"}}')
    (notes / "dual.json").write_text('{"settings": {"joined-dictionary": false}}')
    options = of()
    complete(options, tmp_path, text)
    assert (options.bpe_size, options.joined_dictionary) == (8000, False)
    text[0].write_text("a b c d e\n" * 5)  # other text
    options = of()
    complete(options, tmp_path, text)
    assert options.bpe_size == 3000


def test_embeddings_are_shared_where_the_dictionary_was_joined_for_its_words(data, tmp_path):
    run = RunFolder(tmp_path / "run")
    data.record.update(dictionary={"joined": True}, overlap=0.56)
    assert choices.shares_embeddings(data, run, None)
    data.record.update(overlap=0.2)  # joined because the user said so
    assert not choices.shares_embeddings(data, run, None)
    start = tmp_path / "pair" / "dual"
    start.mkdir(parents=True)
    (start / "options.txt").write_text("--share-all-embeddings\n")
    assert choices.shares_embeddings(data, run, start / "checkpoint_best.pt")
    run.stage("warmup").folder.mkdir(parents=True)
    run.stage("warmup").options_file.write_text("--share-all-embeddings\n")
    assert choices.shares_embeddings(data, run, None)  # the run was begun so


def test_a_limit_below_the_learning_rate_s_warm_up_is_warned_of(data, tmp_path):
    assert not any(line.startswith("warning") for line in chosen(data, tmp_path / "run")[1])
    # 120 pairs of 12 tokens at most, 144 tokens a batch: 10 updates an epoch
    _, lines = chosen(data, tmp_path / "run", "--max-tokens=144", "--warmup-max-epoch=39", "--dual-max-update=399")
    assert [line.split(", before")[0] for line in lines if line.startswith("warning")] == [
        "warning: warmup ends at --warmup-max-epoch 39, about update 390",
        "warning: dual ends at --dual-max-update 399, about update 399",
    ]


def test_an_option_that_a_run_has_not_recorded_is_chosen_as_usual(data, tmp_path):
    usual, _ = chosen(data, tmp_path / "new")
    (tmp_path / "run" / "warmup").mkdir(parents=True)
    (tmp_path / "run" / "warmup" / "options.txt").write_text("--arch transformer\n--lr 0.5\n")
    options, _ = chosen(data, tmp_path / "run")
    assert (options.lr, options.max_tokens, options.lr_warmup) == ("0.5", usual.max_tokens, usual.lr_warmup)


@pytest.mark.parametrize("language", ["xx", "."])
def test_the_segmentation_of_text_is_known_from_within_its_folder(tmp_path, monkeypatch, language):
    with_record(tmp_path, subword="char", bpe=None)
    (tmp_path / "lm" / "xx").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lm" / ("" if language == "xx" else "xx"))
    assert choices.subword_of(Path(language)) == "char"


def test_the_time_of_each_stage_is_known_before(data, tmp_path):
    words = ("--max-tokens=144", "--warmup-max-update=7200", "--dual-max-epoch=3")  # 10 updates an epoch
    options, _ = chosen(data, tmp_path / "run", *words)
    line = choices.longest_time(options, data, ["warmup", "dual"], 0.5)
    assert line.endswith(": warmup 1 h 00 min (7,200 updates), dual 15 s (30 updates)")
    options, _ = chosen(data, tmp_path / "run", *words, "--rounds=2")
    options.warmup_max_update = None  # as in a run that was begun without a limit
    line = choices.longest_time(options, data, ["warmup", "dual", "mle"], 0.5)
    text = "depends on the translated text"
    assert line.endswith(f": warmup has no limit, dual in each round {text}, mle {text}")
    options.dual_max_epoch, options.dual_max_update = None, "30"
    line = choices.longest_time(options, data, ["warmup", "dual", "mle"], 0.5)
    assert line.endswith(": warmup has no limit, dual in each round 15 s (30 updates), mle 30 s (60 updates)")
    options.rounds = "0"
    assert "in each round" not in choices.longest_time(options, data, ["warmup", "dual"], 0.5)


@pytest.fixture
def pair(tmp_path) -> Path:
    """A run to start from, of models with dimensions of their own; its language models are elsewhere."""
    run = tmp_path / "pair"
    for name in ("dual", "lm/xx", "lm/yy"):
        (run / name).mkdir(parents=True)
    (run / "dual" / "checkpoint_best.pt").touch()
    shape = [f"--{name} {value}" for name, value in PAIRS["tiny"].shape().items()]
    record = ["--arch transformer", *shape, "--encoder-layers 1"]
    (run / "dual" / "options.txt").write_text("\n".join(record) + "\n")
    return run


def test_a_run_takes_the_sizes_of_the_pair_that_it_starts_from(data, tmp_path, pair):
    options, lines = chosen(data, tmp_path / "run", "--init", str(pair))
    assert options.init_src2tgt == options.init_tgt2src == pair / "dual" / "checkpoint_best.pt"
    assert options.shape == PAIRS["tiny"].shape() | {"encoder-layers": "1"} and options.size is None
    assert not any("--size" in line for line in lines)
    record = (pair / "dual" / "options.txt").read_text()
    (pair / "dual" / "options.txt").write_text(record.replace("--encoder-layers 1\n", ""))
    options, _ = chosen(data, tmp_path / "run", f"--init-src2tgt={pair}", f"--init-tgt2src={pair}")
    assert (options.size, options.shape) == ("tiny", None)
    with pytest.raises(SystemExit, match=r"--size base: .*checkpoint_best.pt has --size tiny; leave"):
        chosen(data, tmp_path / "run", "--init", str(pair), "--size", "base")
    with pytest.raises(SystemExit, match=r"--arch lstm: .*checkpoint_best.pt has --arch transformer; leave"):
        chosen(data, tmp_path / "run", "--init", str(pair), "--arch", "lstm")
    with pytest.raises(SystemExit, match="give --init, or --init-src2tgt and"):
        chosen(data, tmp_path / "run", "--init", str(pair), f"--init-src2tgt={pair}")


def test_a_run_takes_the_language_models_of_the_pair_that_it_starts_from(data, tmp_path, pair):
    checkpoint = pair / "dual" / "checkpoint_best.pt"
    assert language_model_of(checkpoint, data, "xx") is None
    for language in ("xx", "yy"):
        (data.dual / f"dict.{language}.txt").write_text(f"{language} 1\n")
    own = pair / "lm" / "xx" / "checkpoint_best.pt"
    own.touch()
    (own.parent / "dict.txt").write_text("xx 1\n")
    elsewhere = tmp_path / "elsewhere" / "lm.pt"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    (elsewhere.parent / "dict.txt").write_text("yy 1\n")
    (pair / "train.toml").write_text(f'tgt-lm = "{elsewhere}"\n')
    assert language_model_of(checkpoint, data, "xx") == own
    assert language_model_of(checkpoint, data, "yy") == elsewhere
    (pair / "train.toml").write_text(f'src-lm = "{elsewhere}"\n')
    assert language_model_of(checkpoint, data, "yy") is None  # of xx
    with (pair / "dual" / "options.txt").open("a") as record:
        record.write("--source-lang yy\n")
    assert language_model_of(checkpoint, data, "yy") == elsewhere  # the run's source is the target of these data
    (elsewhere.parent / "dict.txt").write_text("zz 1\n")  # of other data
    assert language_model_of(checkpoint, data, "yy") is None


def test_a_pair_of_other_dictionaries_is_refused_before_any_training(data, tmp_path, pair):
    for language in ("xx", "yy"):
        (data.dual / f"dict.{language}.txt").write_text("a 2\nb 1\n")
    options, _ = chosen(data, tmp_path / "run", "--init", str(pair))
    check_dictionaries(options, data)  # they are not known
    (pair / "text").mkdir()
    (pair / "text" / "dict.yy.txt").write_text("a 9\nb 1\n")
    check_dictionaries(options, data)
    (pair / "text" / "dict.yy.txt").write_text("b 2\na 1\n")
    with pytest.raises(SystemExit, match=rf"--init {pair}: was trained with another dictionary of yy than that of"):
        check_dictionaries(options, data)
    options, _ = chosen(data, tmp_path / "run", f"--init-src2tgt={pair}", f"--init-tgt2src={pair}")
    with pytest.raises(SystemExit, match=r"--init-src2tgt .*best.pt: was trained .* preprocess with --like"):
        check_dictionaries(options, data)
    check_dictionaries(chosen(data, tmp_path / "run")[0], data)
