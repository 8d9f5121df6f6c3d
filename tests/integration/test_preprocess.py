"""scripts/preprocess.sh, on tiny text."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data, codes_name
from dual_fairseq.data import preprocess
from dual_fairseq.data.options import get_parser
from dual_fairseq.data.text import TextPipeline
from dual_fairseq.plugin.lengths import length_limit

NOUNS = {"de": ["Hund", "Mann", "Ball", "Baum", "Vogel"], "en": ["dog", "man", "ball", "tree", "bird"]}
VERBS = {"de": ["sieht", "findet", "trägt"], "en": ["sees", "finds", "carries"]}


def sentences(language: str, count: int, seed: int) -> list[str]:
    """Sentences of which those of the same seed translate each other."""
    dice = random.Random(seed)
    frame = {"de": "Der {} {} den {}, und lacht.", "en": "The {} {} the {}, and it's laughing."}[language]
    return [
        frame.format(NOUNS[language][dice.randrange(5)], VERBS[language][dice.randrange(3)], NOUNS[language][i % 5])
        for i in range(count)
    ]


def write_corpus(folder: Path, prefix: str = "{}", ending: str = "") -> None:
    """train, valid and test of German and English, named PREFIX.<language>."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate((("train", 60), ("valid", 8), ("test", 6))):
        for language in ("de", "en"):
            text = "".join(line + "\n" for line in sentences(language, count, seed)).encode()
            path = folder / f"{prefix.format(split)}.{language}{ending}"
            path.write_bytes(gzip.compress(text) if ending else text)


def script(name: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


def options(folder: Path, dest: Path, *more: str) -> list[str]:
    """Arguments for :func:`preprocess.main` on the corpus in ``folder``."""
    prefixes = [f"--{split}={folder / split}" for split in ("train", "valid", "test")]
    return ["--source-lang=de", "--target-lang=en", *prefixes, f"--dest={dest}", "--workers=1", "--bpe-size=40", *more]


def content(dest: Path) -> dict[str, bytes]:
    """Every file of the result; logs, which tell temporary names, and notes on stages left out."""
    files = (file for file in dest.rglob("*") if file.is_file() and file.suffix != ".log")
    return {str(file.relative_to(dest)): file.read_bytes() for file in files if ".stages" not in file.parts}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def decoded(dest: Path, prefix: str, dictionary: str) -> list[str]:
    """A binarized file back as text."""
    from fairseq.data import Dictionary
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    symbols = Dictionary.load(str(dest / dictionary))
    return [symbols.string(ids) for ids in MMapIndexedDataset(str(dest / prefix))]


def test_files_of_the_two_languages_that_are_exchanged_are_suspected(tmp_path, capsys):
    write_corpus(tmp_path)
    main(["preprocess", *options(tmp_path, tmp_path / "right")])
    assert "exchanged" not in capsys.readouterr().err
    for language in ("de", "en"):
        (tmp_path / f"other.{language}").write_text("Собака бежит .\n" * 6, encoding="utf-8")
    main(["preprocess", *options(tmp_path, tmp_path / "wrong"), f"--test={tmp_path / 'other'}"])
    assert "warning: test.de, test.en: many unknown symbols; are the files of the two" in capsys.readouterr().err


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus preprocessed in one go."""
    dest = tmp_path_factory.mktemp("done")
    main(["preprocess", *options(corpus, dest)])
    return dest


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_with_names_that_shells_and_fairseq_trip_over(tmp_path: Path) -> None:
    write_corpus(tmp_path, prefix="-{} 'x' \"y\" $(touch pwned)", ending=".gz")
    extra = tmp_path / "-mono;touch pwned.txt"
    extra.write_text("Ein Hund lacht.\n" + sentences("de", 6, 2)[0] + "\n\nEin Vogel lacht.\n", encoding="utf-8")
    with open(tmp_path / "random.py", "w") as trap:  # a library's name in the current directory
        trap.write("raise SystemExit('the wrong random')\n")
    prefixes = {split: f"-{split} 'x' \"y\" $(touch pwned)" for split in ("train", "valid", "test")}
    dest = "-out, $(touch pwned) *"
    arguments = [f"--{split}={prefix}" for split, prefix in prefixes.items()]
    arguments += ["-s", "de", "-t", "en", f"--extra-mono-source={extra.name}", f"--dest={dest}", "--bpe-size=40"]
    run = script("preprocess.sh", *arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "" and "\r" not in run.stderr
    assert not list(tmp_path.glob("**/pwned"))
    made = tmp_path / dest
    assert sorted(path.name for path in made.iterdir()) == sorted(
        [".stages", "bpe", "dual", "lm", "preprocess.json", "raw", "segmented", "tokenized"]
    )

    # The extra sentences are in the language model's text alone, without the empty one and the test sentence.
    record = json.loads((made / "preprocess.json").read_text(encoding="utf-8"))
    assert record["counts"]["mono.de"]["dropped"] == {"empty": 1, "held_out": 1}
    assert record["lm_sentences"]["de"]["train"] == 62 and record["lm_sentences"]["en"]["train"] == 60
    assert decoded(made, "lm/de/train", "lm/de/dict.txt")[:60] == decoded(
        made, "dual/train.de-en.de", "dual/dict.de.txt"
    )
    assert "Ein" not in (made / "dual" / "dict.de.txt").read_text(encoding="utf-8")

    # Again: nothing is done twice.
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.name not in (".stages", "lock")}
    again = script("preprocess.sh", *arguments, cwd=tmp_path)
    assert again.returncode == 0 and again.stderr.count("already done") == 4
    changed = {path.name for path, time_ in before.items() if path.stat().st_mtime_ns != time_}
    assert changed <= {"preprocess.json"}


def test_help_explains_every_option() -> None:
    run = script("preprocess.sh", "--help")
    assert run.returncode == 0 and run.stderr == ""
    for action in get_parser()._actions:
        assert action.help and all(option in run.stdout for option in action.option_strings)


REFUSALS = {
    "no arguments": ([], "the following arguments are required: -s/--source-lang, -t/--target-lang, --dest"),
    "no train": (
        ["-s", "de", "-t", "en", "--valid", "valid", "--dest", "out"],
        "--train: is needed; give the PREFIX of text",
    ),
    "slash in language": (["-s", "d/e"], "'d/e': use only letters"),
    "space in language": (["-t", "e n"], "'e n': use only letters"),
    "dot in language": (["-t", "en.x"], "'en.x': use only letters"),
    "empty language": (["-t", ""], "'': use only letters"),
    "leading dash in language": (["--target-lang=-en"], "'-en': use only letters"),
    "one language twice": (["-t", "de"], "both 'de'"),
    "missing file": (["--train", "trian"], "trian.de: no such file"),
    "missing side": (["--valid", "half"], "half.en: no such file"),
    "a directory for a file": (["--valid", "folder"], "folder.de: not a regular file"),
    "empty file": (["--test", "empty"], "empty.de: the file is empty"),
    "missing extra text": (["--extra-mono-target", "none.txt"], "none.txt: no such file"),
    "unknown option": (["--bpe-sise", "10"], "unknown option --bpe-sise; did you mean --bpe-size?"),
    "stray argument": (["train.de"], "train.de"),
    "value missing": (["--bpe-size"], "--bpe-size: expected one argument"),
    "no number": (["--bpe-size", "8k"], "--bpe-size: give a whole number of at least 0, not '8k'"),
    "arithmetic": (["--workers", "a[$(touch pwned)]"], "give a whole number"),
    "no workers": (["--workers", "0"], "of at least 1"),
    "negative length": (["--max-length=-1"], "--max-length: give a whole number"),
    "bad ratio": (["--max-ratio", "x"], "--max-ratio: give a number"),
    "bad tokenizer": (["--tokenizer", "spm"], "choose from 'moses', 'none'"),
    "bad choice": (["--on-bad-line", "ignore"], "choose from 'drop', 'refuse'"),
    "joined and separate": (["--joined-dictionary", "--separate-bpe"], "--joined-dictionary needs --joint-bpe"),
    "unknown kind of token": (["--subword", "syllable"], "choose from 'bpe', 'sentencepiece', 'char', 'word'"),
    "BPE's size with characters": (
        ["--subword", "char", "--bpe-size", "90"],
        "--bpe-size is for --subword bpe, not char",
    ),
    "separate BPE with words": (
        ["--separate-bpe", "--subword=word"],
        "--separate-bpe is for --subword bpe and sentencepiece, not word",
    ),
    "no size": (["--vocab-size", "many"], "--vocab-size: give a whole number"),
    "upsampling of nothing": (["--upsample", "2"], "give --synthetic too"),
    "like nothing": (["--like", "folder.de"], "--like folder.de: not a folder that this command has finished"),
    "dest is a file": (["--dest", "train.de"], "train.de: not a directory"),
    "dest below a file": (["--dest", "train.de/out"], "cannot be written"),
    "dest with a colon": (["--dest", "a:b"], "a colon"),
    "text in dest": (["--dest", "made", "--train", "made/raw/train"], "is a file that this command writes to --dest"),
}


@pytest.fixture(scope="module")
def odd_files(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(corpus, folder, dirs_exist_ok=True)
    (folder / "half.de").write_text("Eins.\n")
    (folder / "empty.de").touch()
    (folder / "empty.en").touch()
    (folder / "folder.de").mkdir()
    (folder / "made" / "raw").mkdir(parents=True)
    for language in ("de", "en"):
        shutil.copy(folder / f"train.{language}", folder / "made" / "raw")
    return folder


@pytest.mark.parametrize("case", REFUSALS)
def test_what_can_be_known_at_once_is_refused_in_one_line(
    odd_files: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, message = REFUSALS[case]
    good = ["-s", "de", "-t", "en", "--train", "train", "--valid", "valid", "--test", "test", "--dest", "out"]
    monkeypatch.chdir(odd_files)
    with pytest.raises(UserError) as refusal:
        main(["preprocess", *(more if case in ("no arguments", "no train") else good + more)])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (odd_files / "pwned").exists() and not list(odd_files.glob("out/*"))


def test_a_refusal_of_the_script_is_one_line_at_once(odd_files: Path) -> None:
    begun = time.monotonic()
    run = script("preprocess.sh", "-s", "de", "-t", "en", "--train", "trian", "--valid", "valid", "--dest", "out",
                 cwd=odd_files)  # fmt: skip
    assert run.returncode == 1 and time.monotonic() - begun < 10
    assert run.stderr.startswith("dual_fairseq: error: trian.de: no such file") and run.stderr.count("\n") == 1


def test_no_room_on_the_disk_is_one_line(corpus: Path, tmp_path: Path) -> None:
    # A limit on the size of a file is a full disk that needs no privileges.
    arguments = ["-s", "de", "-t", "en", "--dest", "out"]
    arguments += [part for split in ("train", "valid") for part in (f"--{split}", str(corpus / split))]
    program = 'ulimit -f 1; exec "$0" "$@"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", program, str(ROOT / "scripts" / "preprocess.sh"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("dual_fairseq: error: out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".stages"]


# --- what it makes ------------------------------------------------------------------------------------------------


def test_layout_and_alignment(done: Path) -> None:
    for split, count in (("train", 60), ("valid", 8), ("test", 6)):
        for language in ("de", "en"):
            segmented = lines(done / "segmented" / f"{split}.{language}")
            tokenized = lines(done / "tokenized" / f"{split}.{language}")
            raw = lines(done / "raw" / f"{split}.{language}")
            assert len(raw) == count and raw == sentences(language, count, ("train", "valid", "test").index(split))
            assert [line.replace("@@ ", "") for line in segmented] == tokenized
            assert any("@@" in line for line in segmented)
            pair = decoded(done, f"dual/{split}.de-en.{language}", f"dual/dict.{language}.txt")
            alone = decoded(done, f"lm/{language}/{split}", f"lm/{language}/dict.txt")
            assert pair == alone and len(pair) == count
            assert pair == segmented or split != "train"  # the rest may hold symbols that training text lacks
    assert "[de] Dictionary: " in (done / "dual" / "preprocess.log").read_text()
    for language in ("de", "en"):
        ours, theirs = done / "dual" / f"dict.{language}.txt", done / "lm" / language / "dict.txt"
        assert ours.read_bytes() == theirs.read_bytes()


def test_segmentation_is_that_of_fairseqs_encoders(done: Path) -> None:
    from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig
    from fairseq.data.encoders.subword_nmt_bpe import SubwordNMTBPE, SubwordNMTBPEConfig

    for language in ("de", "en"):
        tokenizer = MosesTokenizer(MosesTokenizerConfig(source_lang=language, target_lang=language))
        bpe = SubwordNMTBPE(SubwordNMTBPEConfig(bpe_codes=str(done / "bpe" / f"codes.{language}")))
        raw, segmented = (lines(done / folder / f"test.{language}") for folder in ("raw", "segmented"))
        assert [bpe.encode(tokenizer.encode(line)) for line in raw] == segmented


def test_bpe_and_dictionaries_see_the_training_text_alone(corpus: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "in")
    for split in ("valid", "test"):
        for language in ("de", "en"):
            (tmp_path / "in" / f"{split}.{language}").write_text("Quux quux quux ßß!\n" * 50, encoding="utf-8")
    extra = tmp_path / "extra"
    extra.write_text("Quux quux quux.\n" * 50)
    main(["preprocess", *options(tmp_path / "in", tmp_path / "out", f"--extra-mono-target={extra}")])
    for name in ("bpe/codes.de", "bpe/codes.en", "dual/dict.de.txt", "dual/dict.en.txt", "dual/train.de-en.en.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes()
    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert record["dictionary"]["unknown_share"]["test.de"] > 0.1


def test_codes_are_those_of_subword_nmts_command(done: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_bytes(b"".join((done / "tokenized" / f"train.{language}").read_bytes() for language in ("de", "en")))
    command = [sys.executable, "-m", "subword_nmt.learn_bpe", "-s", "40", "-i", both]
    codes = subprocess.run(command, capture_output=True, check=True).stdout
    assert (done / "bpe" / "codes.de").read_bytes() == (done / "bpe" / "codes.en").read_bytes() == codes


def test_separate_bpe_and_its_natural_end(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["preprocess", *options(corpus, tmp_path, "--separate-bpe", "--bpe-size=5000")])
    german, english = (lines(tmp_path / "bpe" / f"codes.{language}") for language in ("de", "en"))
    assert german != english
    record = json.loads((tmp_path / "preprocess.json").read_text())
    assert record["bpe"]["merges"] == {"de": len(german) - 1, "en": len(english) - 1}
    assert f"bpe: de: only {len(german) - 1} merges instead of 5,000" in capfd.readouterr().err


def test_segmented_text_one_dictionary_and_a_threshold(corpus: Path, tmp_path: Path) -> None:
    arguments = ["--tokenizer=none", "--bpe-size=0", "--joined-dictionary", "--vocab-threshold=30"]
    main(["preprocess", *options(corpus, tmp_path, *arguments)])
    dictionary = (tmp_path / "dual" / "dict.de.txt").read_text(encoding="utf-8")
    assert dictionary == (tmp_path / "dual" / "dict.en.txt").read_text(encoding="utf-8")
    assert dictionary == (tmp_path / "lm" / "en" / "dict.txt").read_text(encoding="utf-8")
    counts = {line.split(" ")[0]: int(line.split(" ")[1]) for line in dictionary.splitlines()}
    assert {"lacht.", "laughing.", "The"} <= set(counts)
    assert min(count for word, count in counts.items() if not word.startswith("madeupword")) >= 30
    assert lines(tmp_path / "segmented" / "train.en") == sentences("en", 60, 0)
    assert list((tmp_path / "bpe").iterdir()) == []


def test_several_training_corpora_are_one_after_the_other(corpus: Path, tmp_path: Path) -> None:
    # The first ends without a newline: its last line must not run into the next file's first.
    for language in ("de", "en"):
        (tmp_path / f"more.{language}").write_text("A.\nB.", encoding="utf-8")
    arguments = [f"--train={tmp_path / 'more'}", *options(corpus, tmp_path / "out")]
    main(["preprocess", *arguments])
    for language in ("de", "en"):
        assert lines(tmp_path / "out" / "raw" / f"train.{language}") == ["A.", "B.", *sentences(language, 60, 0)]


def test_synthetic_pairs_are_for_the_pair_alone(corpus: Path, done: Path, tmp_path: Path) -> None:
    for language in ("de", "en"):
        (tmp_path / f"made.{language}").write_text("Zebra qqq .\n" + (corpus / f"valid.{language}").read_text())
    dest = tmp_path / "dest"
    main(["preprocess", *options(corpus, dest, f"--synthetic={tmp_path / 'made'}", "--upsample=2")])
    for name, before in content(done).items():  # all that earlier models were trained on fits
        if name not in (
            "preprocess.json",
            "dual/lengths.json",
            *(f"dual/train.de-en.{x}.{kind}" for x in ("de", "en") for kind in ("bin", "idx")),
        ):
            assert (dest / name).read_bytes() == before, name
    assert "Zebra" not in (dest / "dual" / "dict.de.txt").read_text()
    for language in ("de", "en"):
        real, made = (lines(dest / "segmented" / f"{part}.{language}") for part in ("train", "synthetic"))
        assert len(made) == len(lines(tmp_path / f"made.{language}"))
        found = decoded(dest, f"dual/train.de-en.{language}", f"dual/dict.{language}.txt")
        assert len(found) == 2 * len(real) + len(made)
        assert found[: len(real)] == found[len(real) : 2 * len(real)] == real
        assert found[2 * len(real) + 1 :] == decoded(done, f"dual/valid.de-en.{language}", f"dual/dict.{language}.txt")
    again = content(dest)
    main(["preprocess", *options(corpus, dest, f"--synthetic={tmp_path / 'made'}", "--upsample=2")])
    assert content(dest) == again
    with pytest.raises(UserError, match="made with other input or options"):
        main(["preprocess", *options(corpus, dest, f"--synthetic={tmp_path / 'made'}")])


@pytest.mark.parametrize(
    "kind",
    [
        ["--bpe-size=30"],
        ["--separate-bpe"],
        ["--joined-dictionary"],
        ["--subword=char"],
        ["--bpe-size=0"],
        ["--subword=sentencepiece", "--vocab-size=60"],
    ],
)
def test_other_text_like_an_earlier_folder_fits_its_models(corpus: Path, tmp_path: Path, kind: list[str]) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    first_options = [option for option in options(corpus, first) if "--subword" not in kind[0] or "--bpe" not in option]
    main(["preprocess", *first_options, *kind, "--lowercase"])
    for language, line in (("de", "Zebra ein hund ."), ("en", "A zebra dog .")):
        (tmp_path / f"other.{language}").write_text(f"{line}\n", encoding="utf-8")
    other = ["--source-lang=en", "--target-lang=de", f"--train={tmp_path / 'other'}", f"--valid={tmp_path / 'other'}"]
    main(["preprocess", *other, f"--dest={second}", f"--like={first}"])
    record = json.loads((second / "preprocess.json").read_text())
    of_first = json.loads((first / "preprocess.json").read_text())
    assert record["lowercase"] and record["subword"] == of_first["subword"] and record["bpe"] == of_first["bpe"]
    assert (
        record["dictionary"]["unknown_share"]["train.de"] > 0
        and "train.de" not in of_first["dictionary"]["unknown_share"]
    )
    for language in ("de", "en"):
        codes, dictionary = f"bpe/{codes_name(record['subword'], language)}", f"dual/dict.{language}.txt"
        learned = of_first["bpe"]["type"] in ("subword-nmt", "sentencepiece")
        assert (first / codes).exists() == (second / codes).exists() == learned
        if (first / codes).exists():
            assert (second / codes).read_bytes() == (first / codes).read_bytes()
        for made in (dictionary, f"lm/{language}/dict.txt"):
            assert (second / made).read_bytes() == (first / dictionary).read_bytes()
        assert "zebra" not in (second / dictionary).read_text()
        assert len(decoded(second, f"dual/train.en-de.{language}", dictionary)) == 1

    # what synthetic text is added to, too
    again = content(second)
    main(["preprocess", *other, f"--dest={second}", f"--like={first}"])
    assert content(second) == again
    main(["preprocess", *other, f"--dest={third}", f"--like={first}", f"--synthetic={tmp_path / 'other'}"])
    assert (third / "dual" / "dict.de.txt").read_bytes() == (first / "dual" / "dict.de.txt").read_bytes()
    assert len(decoded(third, "dual/train.en-de.de", "dual/dict.de.txt")) == 2
    with pytest.raises(UserError, match="made with other input or options"):
        main(["preprocess", *other, f"--dest={second}", "--lowercase", *kind])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--bpe-size=7"], "was made with another --bpe-size"),
        (["--tokenizer=none"], "was made with another --tokenizer"),
        (["--lowercase"], "was made with another --lowercase"),
        (["--subword=word"], "was made with another --subword"),
        (["--bpe-size=0"], r"was made with another --bpe-size \(40, not 0\)"),
        (["--separate-bpe"], r"was made with another --joint-bpe \(on, not off\)"),
        (["--joined-dictionary"], r"was made with another --joined-dictionary \(off, not on\)"),
        (["--vocab-size=9"], "was made with another --vocab-size"),
        (["--target-lang=fr"], "has the languages de and en; give a folder of de and fr"),
        (["--like={tmp}"], "not a folder that this command has finished"),
        (["--dest={done}"], "is --dest itself"),
    ],
)
def test_like_an_earlier_folder_goes_with_nothing_else(
    corpus: Path, done: Path, tmp_path: Path, more: list[str], complaint: str
) -> None:
    before = content(done)
    more = [option.format(tmp=tmp_path, done=done) for option in more]
    arguments = [option for option in options(corpus, tmp_path / "out") if not option.startswith("--bpe-size")]
    with pytest.raises(UserError, match=complaint):
        main(["preprocess", *arguments, f"--like={done}", *more])
    assert content(done) == before and not (tmp_path / "out").exists()


def test_like_an_earlier_folder_that_is_not_whole(corpus: Path, done: Path, tmp_path: Path) -> None:
    folder, arguments = tmp_path / "folder", options(corpus, tmp_path / "out", f"--like={tmp_path / 'folder'}")
    shutil.copytree(done, folder)
    main(["preprocess", *arguments])
    shutil.rmtree(tmp_path / "out")
    (folder / "dual" / "dict.en.txt").unlink()
    with pytest.raises(UserError, match=r"dict\.en\.txt is missing; run the command that made the folder again"):
        main(["preprocess", *arguments])
    record = json.loads((done / "preprocess.json").read_text())
    record["options"]["subword"] = {"xx": "bpe"}
    (folder / "preprocess.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"preprocess\.json is damaged \(--subword is of other languages\)"):
        main(["preprocess", *arguments])
    assert not (tmp_path / "out").exists()


def test_a_test_set_or_monolingual_text_alone_like_an_earlier_folder(
    done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen, new = (lines(done / "raw" / "train.de")[0], lines(done / "raw" / "train.en")[0]), ("Der Baum.", "The tree.")
    for language, *text in zip(("de", "en"), seen, new, strict=True):
        (tmp_path / f"other.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    arguments = ["--source-lang=de", "--target-lang=en", f"--like={done}", "--workers=1"]
    main(["preprocess", *arguments, f"--test={tmp_path / 'other'}", f"--dest={tmp_path / 'test'}"])
    assert "test: 1 of 2 pairs are also in the training text, and 0 more have one side there" in capfd.readouterr().err
    data, segmented = Data.from_folder(tmp_path / "test"), lines(tmp_path / "test" / "segmented" / "test.de")
    assert decoded(data.folder, "dual/test.de-en.de", "dual/dict.de.txt") == segmented
    assert length_limit(data.dual, "de", "en") == length_limit(done / "dual", "de", "en")

    mono = tmp_path / "mono"
    mono.write_text("Ein Baum.\n" + lines(done / "raw" / "test.de")[0] + "\n", encoding="utf-8")
    main(["preprocess", *arguments, f"--extra-mono-source={mono}", f"--dest={tmp_path / 'mono-de'}"])
    assert lines(tmp_path / "mono-de" / "raw" / "mono.de") == ["Ein Baum."]  # without the sentence of LIKE's test text
    assert len(decoded(tmp_path / "mono-de", "lm/de/train", "lm/de/dict.txt")) == 1
    for wrong, refusal in (
        ([], "--like .*: give the text to preprocess, for example --test PREFIX"),
        ([f"--synthetic={tmp_path / 'other'}"], "--train: is needed with --synthetic; give the PREFIX of text"),
    ):
        with pytest.raises(UserError, match=refusal):
            main(["preprocess", *arguments, f"--dest={tmp_path / 'out'}", *wrong])


def test_training_text_drops_over_long_lines_and_test_text_keeps_them(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus, tmp_path / "in")
    for split in ("train", "test"):
        for language, more in (("de", ["Hund " * 30, "", "Hund."]), ("en", ["dog", "dog", " \u2028\t"])):
            with open(tmp_path / "in" / f"{split}.{language}", "a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in more))
    main(["preprocess", *options(tmp_path / "in", tmp_path / "out", "--max-length=20")])
    counts = json.loads((tmp_path / "out" / "preprocess.json").read_text())["counts"]
    assert counts["train"]["dropped"] == {"empty": 2, "over_long": 1} and counts["train"]["kept"] == 60
    assert counts["test"]["dropped"] == {"empty": 2} and counts["test"]["over_long_kept"] == 1
    assert len(decoded(tmp_path / "out", "dual/test.de-en.de", "dual/dict.de.txt")) == 7
    printed = capfd.readouterr().err
    assert "train: 63 read, 60 kept, 3 dropped (empty: 2, more than 20 words: 1)" in printed
    assert "warning: test: lines were dropped" in printed


# --- refusals that need the text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_unequal_line_counts_are_refused_with_both(corpus: Path, tmp_path: Path, split: str) -> None:
    shutil.copytree(corpus, tmp_path / "in")
    with open(tmp_path / "in" / f"{split}.en", "ab") as file:
        file.write(b"one more")
    count = {"train": 60, "valid": 8, "test": 6}[split]
    with pytest.raises(UserError, match=rf"{split}\.de has {count} lines and .*{split}\.en has {count + 1}") as caught:
        main(["preprocess", *options(tmp_path / "in", tmp_path / "out")])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_nothing_to_learn_is_one_line(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("a b c\nd e f\n")
    with pytest.raises(UserError, match="BPE cannot be learned; give more text or pass --bpe-size 0"):
        main(["preprocess", *options(tmp_path, tmp_path / "out")])
    main(["preprocess", *options(tmp_path, tmp_path / "out"), "--bpe-size=0", "--overwrite"])
    assert decoded(tmp_path / "out", "dual/train.de-en.de", "dual/dict.de.txt") == ["a b c", "d e f"]


def test_a_directory_of_somebody_elses_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "precious").write_text("x")
    with pytest.raises(UserError, match="holds raw, not made by this command"):
        main(["preprocess", *options(corpus, tmp_path, "--overwrite")])
    assert content(tmp_path) == {"raw/precious": b"x"}


# --- text to translate that is written otherwise ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (str, ""),
        (str.lower, "0.0% of its letters are in upper case, not "),
        (str.upper, "100.0% of its letters are in upper case, not "),
        (lambda line: line.replace(",", " ,").replace(".", " ."), "of its words are punctuation by itself, not 0.0%"),
        (lambda line: line.replace(" ", ""), "its words have 29.6 letters, not 4.2"),
    ],
    ids=["ordinary", "lower", "upper", "tokenised", "unspaced"],
)
def test_text_that_is_written_unlike_the_training_text_is_warned_of_once(
    change: Callable[[str], str], found: str, done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Data.from_folder(done).keep(tmp_path / "text")
    text = TextPipeline(tmp_path / "text")  # as a run has it
    for line in sentences("de", 200, seed=9):
        text.encode(change(line), "de")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == bool(found) and all(found in warning for warning in warnings), warnings
    assert all("the text of de is not written like the training text" in warning for warning in warnings)


# --- again, changed, interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped_at", ["_bpe", "_dual"])
def test_a_folder_that_is_made_anew_stays_as_it_was_until_all_of_it_is_there(
    stopped_at: str, corpus: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    dest = tmp_path / "out"
    shutil.copytree(done, dest)
    before = content(dest)
    anew = options(corpus, dest, "--bpe-size=30", "--overwrite")
    with monkeypatch.context() as patch:
        patch.setattr(preprocess.Preprocessing, stopped_at, lambda *_: (_ for _ in ()).throw(UserError("no")))
        with pytest.raises(UserError, match="no"):
            main(["preprocess", *anew])
    assert {name: of for name, of in content(dest).items() if not name.startswith(".new")} == before
    capfd.readouterr()
    if stopped_at == "_bpe":  # as it was made
        main(["preprocess", *options(corpus, dest)])
        assert capfd.readouterr().err.count("already done") == 4 and content(dest) == before
    main(["preprocess", *anew])
    assert capfd.readouterr().err.count("already done") == (1 if stopped_at == "_bpe" else 2)
    main(["preprocess", *options(corpus, tmp_path / "fresh", "--bpe-size=30")])
    assert content(dest) == content(tmp_path / "fresh")
    assert not any(path.is_symlink() for path in dest.rglob("*"))


@pytest.mark.parametrize("drop", [False, True])
def test_training_text_that_is_in_the_test_text_too_is_counted_and_can_be_left_out(
    drop: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    german, english = ("Ein Satz, der sich wiederholt.", "A sentence that comes again.")
    text = {
        "train": ([german, "Ja.", "Nur hier ist dieser Satz."], [english, "Yes.", "It is here alone."]),
        "test": ([german, "Ja.", german, "Neu."], [english, "Yes.", "Something else, and long.", "New."]),
    }
    text["valid"] = (["Gar nicht im Training."], ["Not in training at all."])
    for split, sides in text.items():
        for language, side in zip(("de", "en"), sides, strict=True):
            (tmp_path / f"{split}.{language}").write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    arguments = options(tmp_path, tmp_path / "out", "--subword=char", *["--drop-held-out"] * drop)
    main(["preprocess", *(word for word in arguments if not word.startswith("--bpe-size"))])
    record, printed = json.loads((tmp_path / "out" / "preprocess.json").read_text()), capfd.readouterr().err
    assert record["counts"]["test"]["in_training"] == {"pairs": 1 - drop, "one_side": 1 - drop}
    warning = "warning: test: 1 of 4 pairs are also in the training text, and 1 more have one side there"
    assert (warning in printed) is not drop
    assert "warning: valid" not in printed
    assert lines(tmp_path / "out" / "raw" / "train.de") == text["train"][0][drop:]
    assert record["counts"]["train"]["dropped"] == ({"held_out": 1} if drop else {})


def test_other_options_or_input_are_refused_and_overwrite_redoes_only_what_depends_on_them(
    corpus: Path, done: Path, tmp_path: Path
) -> None:
    dest, text = tmp_path / "out", tmp_path / "in"
    shutil.copytree(done, dest)
    shutil.copytree(corpus, text)  # the same content in another place is the same input
    main(["preprocess", *options(text, dest)])
    before = content(dest)
    with pytest.raises(UserError, match=r"--vocab-threshold 0 -> 25\); pass --overwrite"):
        main(["preprocess", *options(text, dest, "--vocab-threshold=25")])
    with pytest.raises(UserError, match=r"--joint-bpe True -> False, --vocab-threshold 0 -> 25\); pass --overwrite"):
        main(["preprocess", *options(text, dest, "--separate-bpe", "--vocab-threshold=25")])
    assert content(dest) == before

    (dest / "segmented" / "train.de").touch()
    kept = (dest / "segmented" / "train.de").stat().st_mtime_ns
    main(["preprocess", *options(text, dest, "--vocab-threshold=25", "--overwrite")])
    assert (dest / "segmented" / "train.de").stat().st_mtime_ns == kept
    assert content(dest)["dual/dict.de.txt"] != before["dual/dict.de.txt"]
    assert content(dest)["lm/de/dict.txt"] == content(dest)["dual/dict.de.txt"]

    with open(text / "valid.en", "a") as file:
        file.write("One more.\n")
    with open(text / "valid.de", "a") as file:
        file.write("Einer mehr.\n")
    with pytest.raises(UserError, match=r"text of valid\.de, text of valid\.en"):
        main(["preprocess", *options(text, dest, "--vocab-threshold=25")])
    main(["preprocess", *options(text, dest, "--vocab-threshold=25", "--overwrite")])
    fresh = tmp_path / "fresh"
    main(["preprocess", *options(text, fresh, "--vocab-threshold=25")])
    assert content(dest) == content(fresh)


@pytest.mark.parametrize("stage", ["text", "bpe", "dual", "lm"])
def test_interrupted_in_any_stage_it_reaches_the_same_end(
    corpus: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work = getattr(preprocess.Preprocessing, f"_{stage}")

    def interrupted(self: preprocess.Preprocessing, out: Path) -> None:
        work(self, out)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preprocess.Preprocessing, f"_{stage}", interrupted)
        with pytest.raises(SystemExit) as caught:
            main(["preprocess", *options(corpus, tmp_path)])
    assert caught.value.code == 130
    assert not list(tmp_path.glob(".partial.*"))
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    (tmp_path / ".partial.left").mkdir()  # as a kill -9 leaves it
    main(["preprocess", *options(corpus, tmp_path)])
    assert content(tmp_path) == content(done)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in finished.items() if path.parent.name != ".stages")


# Dies by its own hand: somewhere in the midst of a stage's work or, were the machine ever so fast, right after it.
KILLED = """
import os, signal, sys, threading
from dual_fairseq.__main__ import main
from dual_fairseq.data import preprocess

stage, delay = sys.argv[1], float(sys.argv[2])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
work = getattr(preprocess.Preprocessing, "_" + stage)

def killed(self, out):
    threading.Timer(delay, die).start()
    work(self, out)
    die()

setattr(preprocess.Preprocessing, "_" + stage, killed)
main(["preprocess", *sys.argv[3:]])
"""


@pytest.mark.slow
def test_killed_in_every_stage_it_reaches_the_same_end(corpus: Path, done: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for stage, delay in (("text", 0.02), ("bpe", 0.1), ("dual", 0.05), ("lm", 60.0)):
        command = [sys.executable, "-c", KILLED, stage, str(delay), *options(corpus, tmp_path)]
        assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    main(["preprocess", *options(corpus, tmp_path)])
    assert content(tmp_path) == content(done)


def test_two_runs_at_once_do_not_mix(corpus: Path, done: Path) -> None:
    import fcntl

    with open(done / ".stages" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is using it"):
            main(["preprocess", *options(corpus, done)])
