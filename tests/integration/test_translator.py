"""Raw text to tokens and back, and translation of raw text with a pair, from Python and from the command line."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import generate
from helpers import ROOT, SOURCE, TARGET, train, train_language_model

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data, RunFolder
from dual_fairseq.data.clean import LONGEST_WORD
from dual_fairseq.data.normalize import repair
from dual_fairseq.data.text import TextPipeline, indices
from dual_fairseq.data.tokenizer import detokenize
from dual_fairseq.pair import export
from dual_fairseq.pair.evaluate import read_hypotheses
from dual_fairseq.pair.translator import DualTranslator, Hypothesis
from dual_fairseq.plugin.lengths import length_limit
from dual_fairseq.plugin.log_probs import translation_log_probs

DIRECTIONS = [(SOURCE, TARGET), (TARGET, SOURCE)]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# What tokenisation, its undoing and the reading of lines have to get right.
ODDITIES = [
    "„Na, gut“ – so?",
    "50\u00a0% of x&y <b>",
    "well-known e.g. Mr. X's",
    "caf\u00e9\u2028au lait",
    "@-@ a@@ | [b]",
]


def sentence(dice: random.Random, stem: str) -> str:
    words = [
        f"{stem}{'aeiou'[n % 5]}{'kpt'[n % 3]}{n % 4}" for n in (dice.randrange(40) for _ in range(dice.randint(2, 9)))
    ]
    return f"{' '.join(words).capitalize()}{dice.choice(['.', '?', ', ok.'])}"


def write_text(folder: Path) -> None:
    folder.mkdir()
    for split, count, seed in (("train", 150, 1), ("valid", 20, 2), ("test", 30, 3)):
        for language, stem in ((SOURCE, "b"), (TARGET, "m")):
            dice = random.Random(seed)
            lines = ODDITIES + [sentence(dice, stem) for _ in range(count)]
            (folder / f"{split}.{language}").write_text("\r\n".join(lines), encoding="utf-8")


def preprocess_text(folder: Path, dest: Path, *more: str) -> Path:
    """A folder of scripts/preprocess.sh."""
    if not folder.exists():
        write_text(folder)
    prefixes = [f"--{split}={folder / split}" for split in ("train", "valid", "test")]
    languages = [f"--source-lang={SOURCE}", f"--target-lang={TARGET}"]
    main(["preprocess", *languages, *prefixes, f"--dest={dest}", "--workers=1", "--bpe-size=60", *more])
    return dest


def lines_of(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return lines


@pytest.fixture(scope="module")
def dest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("translator")
    return preprocess_text(folder / "in", folder / "data")


@pytest.fixture(scope="module")
def run(dest, tmp_path_factory) -> Path:
    """A run: its text as dual-fairseq train keeps it, and a checkpoint in place of its stages."""
    folder = tmp_path_factory.mktemp("a run")
    Data.from_folder(dest).keep(RunFolder(folder).text)
    train(
        dest / "dual", folder / "dual", "--dual-lambda", 0, "--optimizer", "adam", "--lr", 0.01, "--max-epoch", 4,
        "--max-source-positions", 60, "--max-target-positions", 60, "--skip-invalid-size-inputs-valid-test",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def lm_files(dest, tmp_path_factory) -> dict[str, Path]:
    """A language model of each language, that no checkpoint knows of."""
    folder = tmp_path_factory.mktemp("language models")
    return {lang: train_language_model(dest / "lm" / lang, folder / lang) for lang in (SOURCE, TARGET)}


@pytest.fixture(scope="module")
def pair(run) -> DualTranslator:
    return DualTranslator.from_pretrained(run, device="cpu")


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="moses-joint-bpe"),
        pytest.param(["--lowercase", "--separate-bpe"], id="lowercase-separate-bpe"),
        pytest.param(["--tokenizer=none", "--bpe-size=0"], id="segmented-before"),
        pytest.param(["--tokenizer=none"], id="bpe-alone"),
    ],
)
def test_encoding_gives_what_preprocessing_gave(more, tmp_path):
    dest = preprocess_text(tmp_path / "in", tmp_path / "data", *more)
    text = TextPipeline(dest)
    assert text.languages == (SOURCE, TARGET)
    for split in ("train", "valid", "test"):
        for language in text.languages:
            segmented = lines_of(dest / "segmented" / f"{split}.{language}")
            raw = lines_of(dest / "raw" / f"{split}.{language}")
            assert [text.encode(line, language) for line in raw] == segmented
            given = (tmp_path / "in" / f"{split}.{language}").read_bytes().decode().split("\n")
            assert [text.encode(line, language) for line in given] == segmented
            tokenized = lines_of(dest / "tokenized" / f"{split}.{language}")
            decoded = [text.decode(line, language) for line in segmented]
            assert decoded == detokenize(tokenized, language, text.data.sides[language].tokenizer)
    assert text.decode("", TARGET) == ""


def test_a_line_that_preprocessing_drops_is_still_text(dest):
    text = TextPipeline(dest)
    assert text.encode("\ufeffa\x00b\tc\n\u0085d\r", SOURCE) == text.encode("a b c d", SOURCE)
    assert [text.encode(line, SOURCE) for line in ("", "\r", " \t\x07", "\u200b\ufeff")] == [""] * 4
    long_word = "ab" * LONGEST_WORD
    halves = long_word[:LONGEST_WORD], long_word[LONGEST_WORD:]
    assert text.encode(f"x {long_word} y", SOURCE) == text.encode(f"x {' '.join(halves)} y", SOURCE)
    assert repair("  a \t b  ", Counter()) == "a b"


def test_the_run_holds_the_text_and_names_no_file_of_this_machine(dest, run):
    names = {f"dict.{SOURCE}.txt", f"dict.{TARGET}.txt", f"codes.{SOURCE}", f"codes.{TARGET}"}
    assert {path.name for path in (run / "text").iterdir()} == {"preprocess.json", "lengths.json", *names}
    assert (run / "text" / "lengths.json").read_bytes() == (dest / "dual" / "lengths.json").read_bytes()
    for language in (SOURCE, TARGET):
        assert (run / "text" / f"codes.{language}").read_bytes() == (dest / "bpe" / f"codes.{language}").read_bytes()
        assert (run / "text" / f"dict.{language}.txt").read_bytes() == (
            dest / "dual" / f"dict.{language}.txt"
        ).read_bytes()
    record = (run / "text" / "preprocess.json").read_text()
    assert str(dest.parent) not in record
    assert json.loads((dest / "preprocess.json").read_text()).items() >= json.loads(record).items()


def test_text_is_found_in_the_run_then_in_the_data_then_where_it_is_said(dest, run, tmp_path):
    checkpoint = run / "dual" / "checkpoint_best.pt"
    assert TextPipeline.of_checkpoint(checkpoint).folder == run / "text"
    assert TextPipeline.of_checkpoint(checkpoint, dest).dictionaries == dest / "dual"
    bare = tmp_path / "bare.pt"
    shutil.copy(checkpoint, bare)
    assert TextPipeline.of_checkpoint(bare).folder == dest
    moved = torch.load(bare, weights_only=False)
    moved["cfg"]["task"]["data"] = str(tmp_path / "gone" / "dual")
    torch.save(moved, bare)
    with pytest.raises(UserError, match=r"bare\.pt: cannot tell how its text was tokenised .*gone.*--dest DEST"):
        TextPipeline.of_checkpoint(bare)
    translator = DualTranslator.from_pretrained(bare, dest=dest, device="cpu")
    assert translator.text.folder == dest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"preprocess.json": None}, r"preprocess\.json: No such file.*dual-fairseq preprocess wrote", id="no-record"
        ),
        pytest.param({"preprocess.json": "{"}, r"preprocess\.json: is damaged", id="no-json"),
        pytest.param({"preprocess.json": "[]"}, r"preprocess\.json: is damaged", id="another-json"),
        pytest.param({"preprocess.json": '{"source": "xx"}'}, r"preprocess\.json: is damaged", id="half-a-record"),
        pytest.param(
            {"preprocess.json": '{"source": "xx", "target": "yy", "tokenizer": "spm", "subword": "bpe"}'},
            "spm",
            id="tokenizer",
        ),
        pytest.param({"codes.xx": None}, r"codes\.xx: is missing, but ", id="no-codes"),
        pytest.param({"dict.yy.txt": None}, r"dict\.yy\.txt: is missing, but ", id="no-dictionary"),
    ],
)
def test_a_damaged_text_folder_is_refused_in_one_line(change, message, run, tmp_path):
    shutil.copytree(run / "text", tmp_path / "text")
    for name, content in change.items():
        (tmp_path / "text" / name).unlink()
        if content is not None:
            (tmp_path / "text" / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        TextPipeline(tmp_path / "text")
    assert "\n" not in str(caught.value)


# --- translation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), DIRECTIONS, ids=["there", "back"])
def test_it_translates_as_fairseq_generate_and_evaluation_do(source, target, dest, run, pair):
    parser = fairseq_options.get_generation_parser(default_task="dual_translation")
    command = [dest / "dual", "--path", run / "dual" / "checkpoint_best.pt", "-s", source, "-t", target, "--cpu"]
    command += ["--gen-subset", "test", "--beam", 4, "--lenpen", 0.7, "--max-len-a", 1.5, "--max-len-b", 20]
    command += ["--post-process", "subword_nmt", "--required-batch-size-multiple", 1, "--max-tokens", 4096]
    command += ["--num-workers", 0, "--no-progress-bar"]
    printed = io.StringIO()
    generate._main(
        convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, list(map(str, command)))), printed
    )
    hypotheses = read_hypotheses(printed.getvalue().splitlines())
    raw = lines_of(dest / "raw" / f"test.{source}")
    expected = detokenize([hypotheses[number] for number in range(len(raw))], target, "moses")
    assert len(set(expected)) > 5
    assert pair.translate(raw, source, target, beam=4, lenpen=0.7) == expected
    assert pair.translate(raw, target=target, beam=4, lenpen=0.7) == expected


@pytest.mark.parametrize(("source", "target"), DIRECTIONS, ids=["there", "back"])
def test_scores_are_log_probabilities(source, target, pair):
    dice = random.Random(4)
    texts = [sentence(dice, "bm"[source == TARGET]) for _ in range(6)]
    found = pair.translate_nbest(texts, source, target, nbest=3, beam=3, lenpen=0.5)
    assert [len(hypotheses) for hypotheses in found] == [3] * 6
    task = pair._tasks[source, target]
    sources = [
        indices(pair.text.encode(text, source).split(), task.source_dictionary) for text in texts for _ in range(3)
    ]
    flat = [hypothesis for hypotheses in found for hypothesis in hypotheses]
    targets = [indices(hypothesis.tokens.split(), task.target_dictionary) for hypothesis in flat]
    model = pair.pairs[0].models[f"{source}-{target}"]
    log_probs = translation_log_probs([model], sources, targets, task.target_dictionary)
    scores = torch.tensor([hypothesis.score for hypothesis in flat])
    assert torch.allclose(scores, log_probs / torch.tensor([len(t) for t in targets]) ** 0.5, atol=1e-4)
    for hypotheses in found:
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert [h.text for h in hypotheses] == [pair.text.decode(h.tokens, target) for h in hypotheses]


def test_order_and_empty_lines_are_kept_in_batches_of_any_size(pair):
    dice = random.Random(5)
    texts = [sentence(dice, "b") for _ in range(12)]
    texts[3] = texts[7] = ""
    done: list[int] = []
    together = pair.translate_nbest(texts, SOURCE, TARGET, beam=2, max_len_a=0, max_len_b=15, advance=done.append)
    assert sum(done) == len(texts)
    assert together[3] == together[7] == [Hypothesis("", 0.0, "")]
    for text, expected in zip(texts, together, strict=True):
        (alone,) = pair.translate_nbest([text], SOURCE, TARGET, beam=2, max_len_a=0, max_len_b=15)
        assert alone[0].score == pytest.approx(expected[0].score, abs=1e-4)
    single = pair.translate_nbest(texts, SOURCE, TARGET, beam=2, max_len_a=0, max_len_b=15, max_tokens=1)
    assert [h[0].score for h in single] == pytest.approx([h[0].score for h in together], abs=1e-4)
    assert pair.translate([], SOURCE, TARGET) == []


def test_what_the_limit_of_length_ended_is_marked_and_said(pair, command, run, caplog):
    texts = ["Bak1 bet2 bik3 bop0.", "", "Bak1."]
    whole = pair.translate_nbest(texts, SOURCE, TARGET, beam=1)
    limit = length_limit(run / "text", SOURCE, TARGET)
    given = {"max_len_a": limit.max_len_a, "max_len_b": limit.max_len_b}
    assert pair.translate_nbest(texts, SOURCE, TARGET, beam=1, **given) == whole
    length = len(whole[0][0].tokens.split())
    assert length > 3 and not whole[0][0].cut_off
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="dual_fairseq"):
        short = pair.translate_nbest(texts, SOURCE, TARGET, beam=1, max_len_a=0, max_len_b=length - 2, first=7)
    assert short[0][0].cut_off and short[0][0].tokens.split() == whole[0][0].tokens.split()[: length - 2]
    assert not short[1][0].cut_off
    numbers = [7 + i for i, (best,) in enumerate(short) if best.cut_off]
    assert [record.getMessage() for record in caplog.records] == [
        f"line {', '.join(map(str, numbers))}: {len(numbers)} of 3 translations were cut off at the length limit; "
        "--max-len-a and --max-len-b (in Python max_len_a and max_len_b) allow longer translations"
    ]
    words = ("-t", TARGET, "--beam", 1, "--max-len-a", 0, "--max-len-b", length - 2)
    data = "\n".join(texts).encode()
    assert command(data, *words) == "".join(f"{best.text}\n" for (best,) in short)
    with pytest.raises(UserError, match="give both --max-len-a and --max-len-b, or neither"):
        command(data, "-t", TARGET, "--max-len-b", 9)


def test_text_of_which_the_models_know_nothing_is_told_once(run, dest, caplog):
    pair = DualTranslator.from_pretrained(run, dest, "cpu")
    options = {"beam": 1, "max_len_a": 0, "max_len_b": 3}
    with caplog.at_level(logging.WARNING, logger="dual_fairseq"):
        caplog.clear()
        pair.translate(["Bak1 bet2 bik3."] * 20, SOURCE, TARGET, **options)
        pair.translate(["\u4f60\u597d"], SOURCE, TARGET, **options)  # too little to tell by
        assert all("length limit" in record.getMessage() for record in caplog.records)
        for _ in range(2):
            pair.translate(["\u4f60\u597d \u4e16\u754c"] * 10, SOURCE, TARGET, first=3, **options)
    (record,) = (record for record in caplog.records if "length limit" not in record.getMessage())
    assert record.getMessage() == f"lines 3 to 12: most tokens are unknown to the models; is the text {SOURCE}?"


def test_an_over_long_line_is_translated_in_pieces_and_named(pair, caplog):
    first, second = "Bak1 bet2 bik3 bop0. " * 5, "Bak1 bet2. " * 6
    tokens = [len(pair.text.encode(text, SOURCE).split()) for text in (first, second)]
    assert max(tokens) < 60 < sum(tokens)
    with caplog.at_level(logging.WARNING, logger="dual_fairseq"):
        short, long, third = pair.translate_nbest(["Bop1.", first + second, first], SOURCE, TARGET, first=11, nbest=2)
    assert [record.getMessage() for record in caplog.records] == [
        f"line 12: {sum(tokens)} tokens, more than the 59 that this model can read; translated in 11 pieces"
    ]
    pieces = pair.text.subword[SOURCE].cut(pair.text.encode(first + second, SOURCE).split(), 59)
    parts = [pair.translate_nbest([pair.text.decode(" ".join(p), SOURCE)], SOURCE, TARGET, nbest=2)[0] for p in pieces]
    for rank, whole in enumerate(long):
        assert whole.tokens.split() == [token for part in parts for token in part[rank].tokens.split()]
        lengths = [len(part[rank].tokens.split()) + 1 for part in parts]
        mean = sum(part[rank].score * n for part, n in zip(parts, lengths, strict=True)) / sum(lengths)
        assert whole.score == pytest.approx(mean, abs=1e-4)
    assert len(short) == len(third) == 2


def test_words_that_fairseq_reserves_are_unknown_to_the_model(pair):
    dictionary = pair._tasks[SOURCE, TARGET].source_dictionary
    known = dictionary.symbols[dictionary.nspecial]
    found = indices(["<s>", known, "<pad>", "</s>", "<unk>", "unheard-of"], dictionary)
    unknown = dictionary.unk()
    assert found.tolist() == [unknown, dictionary.index(known), *[unknown] * 4, dictionary.eos()]


def test_an_ensemble_of_one_pair_twice_is_that_pair(run, pair):
    twice = DualTranslator.from_pretrained([run, run / "dual"], device="cpu")
    texts = ["Bak1 bet2.", "Bik3, bop0?"]
    for found, expected in zip(
        twice.translate_nbest(texts, target=TARGET), pair.translate_nbest(texts, target=TARGET), strict=True
    ):
        assert found[0].tokens == expected[0].tokens
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-4)


def test_overrides_reach_the_task_and_the_model(run):
    pair = DualTranslator.from_pretrained(run, device="cpu", max_source_positions=30, src_lm="a.pt", tgt_lm="b.pt")
    there, back = (pair._tasks[direction].cfg for direction in DIRECTIONS)
    assert there.max_source_positions == back.max_source_positions == 30
    assert (there.src_lm, there.tgt_lm, back.src_lm, back.tgt_lm) == ("a.pt", "b.pt", "b.pt", "a.pt")


@pytest.mark.parametrize(("source", "target"), DIRECTIONS, ids=["there", "back"])
def test_dual_inference_is_an_override(source, target, run):
    pair = DualTranslator.from_pretrained(run, device="cpu", dual_inference_reverse_weight=0.5)
    text = "Bak1 bet2." if source == SOURCE else "Mak1 met2."
    (hypotheses,) = pair.translate_nbest([text], source, target, nbest=3)
    task = pair._tasks[source, target]
    x = indices(pair.text.encode(text, source).split(), task.source_dictionary)
    for hypothesis in hypotheses:
        y = indices(hypothesis.tokens.split(), task.target_dictionary)
        models = pair.pairs[0].models
        there = translation_log_probs([models[f"{source}-{target}"]], [x], [y], task.target_dictionary)
        back = translation_log_probs([models[f"{target}-{source}"]], [y], [x], task.source_dictionary)
        assert hypothesis.score == pytest.approx((there + 0.5 * back).item() / len(y), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "zz"}, UserError, "this pair translates xx to yy and yy to xx"),
        ({"source": "xx", "target": "xx"}, UserError, "xx to xx: this pair translates"),
        ({}, UserError, "no language was named"),
        ({"target": "yy", "beam": 0}, UserError, "beam 0: give a whole number above 0"),
        ({"target": "yy", "beam": 2, "nbest": 3}, UserError, "nbest 3: is more than the beam of 2; give a beam"),
        ({"target": "yy", "bream": 2}, TypeError, "bream"),
    ],
    ids=["language", "one-language", "none", "beam", "nbest", "unknown"],
)
def test_options_without_sense_are_refused(options, error, message, pair):
    with pytest.raises(error, match=message):
        pair.translate_nbest(["a"], **options)


def test_of_one_string_the_translation_is_one_string(pair):
    text = "Bak1 bet2."
    assert pair.translate(text, target=TARGET) == pair.translate([text], target=TARGET)[0]
    with pytest.raises(TypeError, match="give a list of strings"):
        pair.translate_nbest(text, target=TARGET)


def test_at_a_prompt_a_translator_says_what_it_is_and_refuses_in_plain_words(pair):
    assert re.fullmatch(rf"<DualTranslator {SOURCE}-{TARGET}, cpu, fairseq, text as in /.*>", repr(pair))
    with pytest.raises(UserError) as refusal:
        pair.translate("a", target="zz")
    assert str(refusal.value).startswith(f"{TARGET} to zz: this pair translates")
    assert refusal.value.code == f"dual_fairseq: error: {refusal.value}"


def test_text_of_other_languages_is_refused(run, tmp_path):
    shutil.copytree(run / "text", tmp_path / "text")
    for path in tmp_path.glob(f"text/*{TARGET}*"):
        path.rename(path.with_name(path.name.replace(TARGET, "zz")))
    record = tmp_path / "text" / "preprocess.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"target": "zz"}))
    with pytest.raises(UserError, match=r"yy|zz"):
        DualTranslator.from_pretrained(run, dest=tmp_path / "text", device="cpu")


# --- the command ----------------------------------------------------------------------------------------------------

TEXT = "\ufeffBak1 bet2.\r\n\r\nBik3, bop0?\nBut1 but1".encode()  # no line end at the end


@pytest.fixture
def command(run, capfd, tmp_path):
    """Runs the command on some bytes in this process; gives its output, after a look at what it warned of."""
    root, quiet = logging.getLogger(), logging.getLogger("fairseq")
    before = list(root.handlers), root.level, quiet.level

    def execute(text: bytes, *arguments: object, warning: str = "") -> str:
        (tmp_path / "text").write_bytes(text)
        capfd.readouterr()
        main(["translate", str(run), "--cpu", "--input", str(tmp_path / "text"), *map(str, arguments)])
        out, err = capfd.readouterr()
        checkpoint, *said = [line for line in err.splitlines(keepends=True) if "length limit" not in line]
        assert checkpoint.split(" with ")[1] == f"{run / 'dual' / 'checkpoint_best.pt'}\n"
        assert "".join(said) == warning
        return out

    yield execute
    root.handlers[:], root.level, quiet.level = before


def test_lines_in_are_lines_out(command, pair):
    texts = ["Bak1 bet2.", "", "Bik3, bop0?", "But1 but1"]
    best = pair.translate_nbest(texts, target=TARGET, beam=3, nbest=2)
    assert command(TEXT, "-t", TARGET, "--beam", 3) == "".join(f"{h[0].text}\n" for h in best)
    scored = command(TEXT, "-s", SOURCE, "-t", TARGET, "--beam", 3, "--scores")
    assert scored == "".join(f"{h[0].score:.4f}\t{h[0].text}\n" for h in best)
    ranked = command(TEXT, "-t", TARGET, "--beam", 3, "--scores", "--nbest", 2)
    assert ranked == "".join(f"{n}\t{h.score:.4f}\t{h.text}\n" for n, hs in enumerate(best, start=1) for h in hs)
    one_by_one = command(TEXT, "-t", TARGET, "--beam", 3, "--buffer", 1)
    assert one_by_one == "".join(
        f"{text}\n" for line in texts for text in pair.translate([line], target=TARGET, beam=3)
    )
    assert command(b"", "-t", TARGET) == ""


def test_language_models_of_the_run_are_found(command, run, tmp_path, lm_files):
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(UserError, match="--src-lm missing: dual inference"):
        DualTranslator.from_pretrained(tmp_path / "run", device="cpu", dual_inference=0.5).translate(["bak1"], SOURCE)
    for language, file in lm_files.items():
        (tmp_path / "run" / "lm" / language).mkdir(parents=True)
        shutil.copy(file, tmp_path / "run" / "lm" / language / "checkpoint_best.pt")
    found = DualTranslator.from_pretrained(tmp_path / "run", device="cpu", dual_inference=0.5)
    texts = TEXT.decode().splitlines()
    for source, target in ((SOURCE, TARGET), (TARGET, SOURCE)):
        best = found.translate_nbest(texts, source, target, beam=3)
        options = ("-t", target, "--beam", 3, "--scores", "--dual-inference", 0.5)
        lms = ("--src-lm", lm_files[source], "--tgt-lm", lm_files[target])
        assert command(TEXT, *options, *lms) == "".join(f"{h[0].score:.4f}\t{h[0].text}\n" for h in best)
    assert len(found._tasks[SOURCE, TARGET].priors.for_inference) == 2  # loaded once, for both directions


def test_dual_inference_by_tuned_weights(command, run, pair, tmp_path):
    weights = {"forward": 1.0, "reverse": 0.5, "lm": 0.0, "source_lm": 0.0, "length": 0.25}
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"best": "general", "general": {"weights": weights, "lenpen": 0.5}}))
    tuned = DualTranslator.from_pretrained(run, device="cpu", dual_inference={TARGET: path, SOURCE: None})
    texts = TEXT.decode().splitlines()
    best = tuned.translate_nbest(texts, target=TARGET, beam=4)
    assert command(TEXT, "-t", TARGET, "--beam", 4, "--scores", "--dual-inference", path) == "".join(
        f"{h[0].score:.4f}\t{h[0].text}\n" for h in best
    )
    options = {"dual_inference_reverse_weight": 0.5, "dual_inference_length_weight": 0.25}
    by_hand = DualTranslator.from_pretrained(run, device="cpu", **options)
    assert by_hand.translate_nbest(texts, target=TARGET, beam=4, lenpen=0.5) == best
    # the other direction has plain search
    assert not tuned.chooses(SOURCE)
    assert tuned.translate(["Mak1 met2."], TARGET, SOURCE) == pair.translate(["Mak1 met2."], TARGET, SOURCE)
    plain = command(TEXT, "-t", TARGET, "--scores")
    assert command(TEXT, "-s", SOURCE, "--scores", "--dual-inference", 1) == plain
    path.write_text(
        json.dumps({"best": "general", "target_lang": SOURCE, "general": {"weights": weights, "lenpen": 0.5}})
    )
    with pytest.raises(UserError, match=f"was not tuned for translations into {TARGET}"):
        command(TEXT, "-t", TARGET, "--dual-inference", path)
    refusals = {
        tmp_path / "none": "is neither a number nor a file",
        run / "text" / "preprocess.json": "is not the weights.json",
        2: "dual inference 2: give α from 0 to 1",
    }
    for given, message in refusals.items():
        with pytest.raises(UserError, match=message):
            command(TEXT, "-t", TARGET, "--dual-inference", given)


def test_text_of_another_form_is_the_same_text(command):
    expected = command(b"Bak1 bet2.\n", "-t", TARGET)
    odd = "B\u00adak1 b\u200bet2&#46;\n".encode()
    said = "repaired: entities 1, invisible characters 1, soft hyphens 1\n"
    assert command(odd, "-t", TARGET, warning=said) == expected


def test_utf_16_is_named(command):
    with pytest.raises(UserError, match="text: is UTF-16"):
        command("Bak1 bet2.\n".encode("utf-16"), "-t", TARGET)


def test_a_file_is_written_whole_and_gzip_is_read(command, tmp_path):
    expected = command(TEXT, "-t", TARGET)
    out, packed = tmp_path / "out", tmp_path / "in.gz"
    packed.write_bytes(gzip.compress(TEXT))
    assert command(b"", "-t", TARGET, "--input", packed, "--output", out) == ""
    assert out.read_text() == expected and not list(tmp_path.glob("*.partial"))
    packed.write_bytes(gzip.compress(TEXT)[:-9])
    with pytest.raises(UserError, match=r"in\.gz: damaged or incomplete gzip file"):
        command(b"", "-t", TARGET, "--input", packed, "--output", out)
    assert out.read_text() == expected and not list(tmp_path.glob("*.partial"))


def test_a_line_that_is_not_utf8_is_named_after_the_lines_before_it(command, tmp_path, capfd):
    expected = command(TEXT, "-t", TARGET).splitlines()[:3]
    with pytest.raises(UserError, match=r"text: line 4: is not UTF-8 \(byte 2 of the line\)"):
        command(TEXT.replace(b"But1 but1", b"B\xe4t1\nBak1"), "-t", TARGET, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").read_text().splitlines() == expected
    assert (
        capfd.readouterr().err.splitlines(keepends=True)[-1] == f"the finished part is in {tmp_path / 'out.partial'}\n"
    )


def test_an_over_long_line_is_named_on_stderr(command, pair):
    long = "Bak1 bet2 bik3. " * 10  # ten sentences
    count, (expected,) = len(pair.text.encode(long, SOURCE).split()), pair.translate([long], target=TARGET)
    warning = (
        f"dual_fairseq: warning: line 3: {count} tokens, more than the 59 that this model can read; translated in 10 "
        "pieces\n"
    )
    out = command(f"Bak1.\nBop1.\n{long}".encode(), "-t", TARGET, "--buffer", 2, warning=warning)
    assert out.splitlines()[2] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "zz"], "to zz: this pair translates"),
        (["-t", TARGET, "--nbest", "6"], "nbest 6: is more than the beam of 5; give a beam of at least 6"),
        (["-t", TARGET, "--input", "/nowhere/text"], "--input /nowhere/text: there is no such file"),
        (["-t", TARGET, "--output", "/nowhere/text"], "/nowhere/text: cannot be written: there is no folder /nowhere"),
        (["-t", TARGET, "--fp16"], "fp16: half precision needs a GPU"),
        (["-t", TARGET, "--dest", "/nowhere"], "/nowhere/preprocess.json: No such file"),
    ],
    ids=["language", "nbest", "input", "output", "fp16", "dest"],
)
def test_what_cannot_be_done_is_refused_in_one_line(arguments, message, command):
    with pytest.raises(UserError, match=message) as caught:
        command(TEXT, *arguments)
    assert "\n" not in str(caught.value)


def test_what_export_wrote_translates_raw_text_by_the_same_command(command, run, pair, tmp_path, capfd):
    out, texts = tmp_path / "out", TEXT.decode().splitlines()
    export.export(run, f"{SOURCE}-{TARGET}", out / f"{SOURCE}-{TARGET}.pt")
    best = pair.translate_nbest(texts, target=TARGET, beam=3)
    (tmp_path / "text").write_bytes(TEXT)
    main(["translate", str(out), "--cpu", "--beam", "3", "--scores", "--input", str(tmp_path / "text")])
    assert capfd.readouterr().out == "".join(f"{h[0].score:.4f}\t{h[0].text}\n" for h in best)
    forward = DualTranslator.from_pretrained(out, device="cpu")
    assert forward.translate(texts, beam=3) == [h[0].text for h in best]
    for refusal, options in (
        (rf"{TARGET} to {SOURCE}: this model translates {SOURCE} to {TARGET}$", {"target": SOURCE}),
        ("needs a pair, not a model of one direction", {"dual_inference": 0.5}),
    ):
        with pytest.raises(UserError, match=refusal):
            wanted = {name: value for name, value in options.items() if name == "dual_inference"}
            DualTranslator.from_pretrained(out, device="cpu", **wanted).translate(texts, target=options.get("target"))
    export.export(run, f"{TARGET}-{SOURCE}", out / f"{TARGET}-{SOURCE}.pt")
    with pytest.raises(UserError, match=rf"holds several models \({SOURCE}-{TARGET}\.pt, {TARGET}-{SOURCE}\.pt\)"):
        DualTranslator.from_pretrained(out, device="cpu")
    back = DualTranslator.from_pretrained(out / f"{TARGET}-{SOURCE}.pt", device="cpu")
    assert back.translate("Mak1 met2.", TARGET) == pair.translate("Mak1 met2.", TARGET)
    record = out / "text" / "preprocess.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"lowercase": True}))
    with pytest.raises(UserError, match="belongs to a model whose text is preprocessed in another way"):
        export.export(run, f"{SOURCE}-{TARGET}", out / "again.pt")
    assert not (out / "again.pt").exists()


def test_export_publishes_no_file_that_a_link_in_the_run_leads_to(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "mine").write_text("secret")
    lengths = tmp_path / "run" / "text" / "lengths.json"
    lengths.unlink()
    lengths.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=rf"{lengths}: is a link; if its text may be shown to others, replace the link"):
        export.export(tmp_path / "run", f"{SOURCE}-{TARGET}", tmp_path / "out" / "a.pt")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_an_option_gets_a_hint_where_it_belongs(command, tmp_path):
    with pytest.raises(UserError, match="text to translate is given with --input FILE"):
        command(TEXT, "-t", TARGET, tmp_path / "text")
    with pytest.raises(UserError, match="unknown option --lenpan; did you mean --lenpen"):
        command(TEXT, "-t", TARGET, "--lenpan=1.2")


def test_without_fairseq_a_command_ends_in_one_line(tmp_path):
    bare = [sys.executable, "-S", "-m", "dual_fairseq", "translate"]
    done = subprocess.run(bare, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"dual_fairseq: error: fairseq is not installed for {sys.executable}: run 'make setup'"
    )
    assert done.stderr.count("\n") == 1


def test_as_a_filter_it_answers_at_once_and_ends_quietly(run, pair):
    argv = [sys.executable, "-m", "dual_fairseq", "translate", run, "-t", TARGET, "--cpu"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, text=True) as process:
        for text in ("Bak1 bet2.", "Bik3, bop0?"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{pair.translate([text], target=TARGET)[0]}\n"
        process.send_signal(signal.SIGINT)  # Ctrl-C
        assert process.wait(timeout=60) == 128 + signal.SIGINT
        assert process.stdout.read() == ""
        assert re.fullmatch(rf"{SOURCE} -> {TARGET} with /.*/dual/checkpoint_best\.pt\n", process.stderr.read())


def test_it_ends_when_nobody_reads_any_more(run):
    argv = [sys.executable, "-m", "dual_fairseq", "translate", run, "-t", TARGET, "--cpu", "--buffer", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT) as process:
        process.stdin.write(b"Bak1 bet2.\n" * 2)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"Bak1 bet2.\n" * 40)
        process.stdin.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert process.stderr.read().count(b"\n") == 1  # which checkpoint it took
