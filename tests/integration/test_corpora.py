"""dual-fairseq corpus: Multi30k and WMT16, from a mirror or a folder, on tiny text."""

import functools
import gzip
import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, run_command

from dual_fairseq.common.errors import UserError
from dual_fairseq.data import corpora
from integration.test_preprocess import lines, sentences, write_corpus


def corpus(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dual_fairseq", "corpus", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run_command(command, cwd=cwd, env=environment)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server: its address and the folder that it serves."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_multi30k_downloads_or_takes_a_folder(mirror: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = mirror
    dest = tmp_path / "m 30k"
    command = ["multi30k", dest, "--url", url, "--mono", "--", "--bpe-size", "40"]

    # Nothing is there; then a file is cut off; then all of it is there.
    run = corpus(*command)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].startswith("dual_fairseq: error: " + url)
    write_corpus(folder / "task1" / "raw", ending=".gz")
    for language in ("de", "en"):
        for name, new in (("valid", "val"), ("test", "test_2016_flickr")):
            source = folder / "task1" / "raw" / f"{name}.{language}.gz"
            source.rename(source.with_name(f"{new}.{language}.gz"))
        (folder / "task2" / "raw").mkdir(parents=True, exist_ok=True)
        for i in range(1, 6):
            text = "".join(line + "\n" for line in sentences(language, 3, 10 + i))
            (folder / "task2" / "raw" / f"train.{i}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    whole = (folder / "task1" / "raw" / "val.en.gz").read_bytes()
    (folder / "task1" / "raw" / "val.en.gz").write_bytes(whole[:-20])
    run = corpus(*command)
    assert run.returncode == 1 and "val.en.gz: the download is not a complete gzip file" in run.stderr
    assert not [path.name for path in (dest / "download").iterdir() if "val.en" in path.name]
    (folder / "task1" / "raw" / "val.en.gz").write_bytes(whole)
    run = corpus(*command)
    assert run.returncode == 0, run.stderr
    assert "task1/raw/train.de.gz" not in run.stderr  # came the first time
    record = json.loads((dest / "preprocess.json").read_text())
    assert record["options"]["bpe-size"] == 40 and record["counts"]["train"]["kept"] == 60
    mono = record["counts"]["mono.de"]
    assert mono["read"] == 15 and record["lm_sentences"]["de"]["train"] == 60 + mono["kept"]

    # The same files given as a folder are the same input.
    run = corpus("multi30k", dest, "--from", dest / "download", "--mono", "--", "--bpe-size", "40")
    assert run.returncode == 0 and run.stderr.count("already done") == 4
    elsewhere = tmp_path / "elsewhere"
    run = corpus("multi30k", elsewhere, "--from", dest / "download", "--", "--bpe-size", "40")
    assert run.returncode == 0 and not (elsewhere / "download").exists()

    # Two test sets together.
    tests = {}
    for language in ("de", "en"):
        first = dest / "download" / f"test_2016_flickr.{language}.gz"
        tests[language] = gzip.decompress(first.read_bytes()).decode().splitlines()
        more = f"{sentences(language, 1, 99)[0]} {language}"
        (dest / "download" / f"test_2017_mscoco.{language}.gz").write_bytes(gzip.compress(more.encode()))
        tests[language].append(more)
    both = tmp_path / "both"
    chosen = ("--test", "2016_flickr", "--test", "2017_mscoco")
    run = corpus("multi30k", both, "--from", dest / "download", *chosen, "--", "--like", dest)
    assert run.returncode == 0, run.stderr
    for language, both_tests in tests.items():
        assert (both / "raw" / f"test.{language}").read_text().splitlines() == both_tests


def test_text_in_one_language_only_need_not_have_its_translation_in_the_other(tmp_path: Path) -> None:
    """French that the pairs leave over (there are no captions), English captions that are no side of a pair."""
    folder = tmp_path / "m30k"
    write_corpus(folder, ending=".gz")
    for name, new in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr")):
        (folder / f"{name}.de.gz").rename(folder / f"{new}.fr.gz")
        (folder / f"{name}.en.gz").rename(folder / f"{new}.en.gz")
    training = [f"{line[:-1]} {number}." for number, line in enumerate(sentences("de", 60, 0))]
    (folder / "train.fr.gz").write_bytes(gzip.compress("\n".join(training).encode()))
    (folder / "mono").mkdir()
    english = gzip.decompress((folder / "train.en.gz").read_bytes()).decode().splitlines()
    for i in range(1, 6):
        captions = f"{english[-i]}\nA caption {i}.\n"  # the first is a side of a pair
        (folder / "mono" / f"train.{i}.en.gz").write_bytes(gzip.compress(captions.encode()))
    arguments = ["-s", "en", "-t", "fr", "--from", folder, "--mono-unpaired", "--pairs", "40", "--", "--bpe-size", "40"]
    run = corpus("multi30k", tmp_path / "data", *arguments)
    assert run.returncode == 0, run.stderr
    raw = tmp_path / "data" / "raw"
    assert (raw / "train.fr").read_text().splitlines() == training[:40]
    assert (raw / "mono.fr").read_text().splitlines() == training[40:]
    assert (raw / "mono.en").read_text().splitlines() == [f"A caption {i}." for i in range(1, 6)]

    # Of all pairs left over, one side each, with the BPE and dictionaries of before.
    arguments = [
        "-s",
        "en",
        "-t",
        "fr",
        "--from",
        folder,
        "--mono-of-pairs",
        "--pairs",
        "50",
        "--",
        "--like",
        raw.parent,
    ]
    run = corpus("multi30k", tmp_path / "more", *arguments)
    assert run.returncode == 0, run.stderr
    raw = tmp_path / "more" / "raw"
    assert (raw / "train.fr").read_text().splitlines() == training[:50]
    assert (raw / "mono.en").read_text().splitlines() == [line for line in english[50:55] if line not in held_out(raw)]
    assert (raw / "mono.fr").read_text().splitlines() == training[55:]
    for name in ("dual/dict.fr.txt", "bpe/codes.en"):
        assert (tmp_path / "more" / name).read_bytes() == (tmp_path / "data" / name).read_bytes()


def held_out(raw: Path) -> set[str]:
    """English lines of the validation and test text, which preprocessing leaves out of monolingual text."""
    return {line for split in ("valid", "test") for line in (raw / f"{split}.en").read_text().splitlines()}


def test_multi30k_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    for arguments, message in (
        ([], "the following arguments are required: DEST"),
        (["a", "b"], "b: one argument too many"),
        (["a", "-s", "cs"], "this corpus has de, en and fr"),
        (["a", "-s", "en"], "both 'en'"),
        (["a", "--from", "absent"], "absent/train.de: no such file"),
        (["a", "--from", "absent", "--pairs", "2"], "absent/train.de.gz: there is no such file"),
        (["a", "--pairs", "0"], "--pairs: takes a whole number above 0, not '0'"),
        (["a", "--from", "absent", "--mono-unpaired"], "absent/mono/train.1.de.gz: there is no such file"),
        (["a", "--mono-of-pairs"], "--mono-of-pairs: no pairs remain without --pairs; give --pairs too"),
        (["a", "--bpe-size", "5"], "options of dual-fairseq preprocess go after --"),
    ):
        run = corpus("multi30k", *arguments, cwd=tmp_path)
        assert run.returncode == 1 and message in run.stderr and run.stderr.count("\n") == 1


def test_a_damaged_file_of_captions_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.1.de.gz"
    for content in (b"no gzip file", gzip.compress(b"Ein Hund.\n" * 99)[:30]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"train\.1\.de\.gz: damaged or incomplete gzip file"):
            corpora._lines(file)


def sgm(kind: str, language: str, segments: list[str], documents: int = 2) -> str:
    """A WMT file: ``kind`` is src or ref; the segments are spread over documents."""
    parts = []
    for document in range(documents):
        own = segments[document::documents]
        body = "".join(f'<seg id="{i}">{segment}</seg>\n' for i, segment in enumerate(own, start=1))
        parts.append(f'<doc sysid="ref" docid="news/{document}" genre="news" origlang="en">\n<p>\n{body}</p>\n</doc>')
    return f'<{kind}set setid="newstest" srclang="any" trglang="{language}">\n' + "\n".join(parts) + f"\n</{kind}set>\n"


def write_wmt_archives(folder: Path) -> None:
    """Small archives with the names and the layout of WMT16's."""
    folder.mkdir(parents=True)
    files: dict[str, dict[str, str]] = {name: {} for name in ("europarl-v7", "commoncrawl", "nc-v11")}
    for language in ("de", "en"):
        for seed, (name, path) in enumerate(
            (
                ("europarl-v7", "training/europarl-v7.de-en"),
                ("commoncrawl", "commoncrawl.de-en"),
                ("nc-v11", "training-parallel-nc-v11/news-commentary-v11.de-en"),
            )
        ):
            files[name][f"{path}.{language}"] = "\n".join(sentences(language, 25, seed))
            files[name][f"{path.replace('de-en', 'fr-en')}.{language}"] = "other languages\n"
    archives = {f"training-parallel-{name}": content_ for name, content_ in files.items()}
    valid, test = {}, {}
    for kind, language in (("src", "de"), ("ref", "en"), ("src", "en"), ("ref", "de")):
        segments = [f"A &amp; B: &quot;{line}&quot;" for line in sentences(language, 6, 20)]
        valid[f"dev/newstest2013-{kind}.{language}.sgm"] = sgm(kind, language, segments)
        pair = {"src": {"de": "deen", "en": "ende"}, "ref": {"de": "ende", "en": "deen"}}[kind][language]
        test[f"test/newstest2016-{pair}-{kind}.{language}.sgm"] = sgm(kind, language, segments[:4]).upper()
    for name, members in {**archives, "dev": valid, "test": test}.items():
        base = folder.parent / f"{name}.tree"
        for path, text in members.items():
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).write_text(text, encoding="utf-8")
        with tarfile.open(folder / f"{name}.tgz", "w:gz") as archive:
            for child in sorted(base.iterdir()):
                archive.add(child, arcname=child.name)


def test_wmt16_from_archives(tmp_path: Path) -> None:
    archives = tmp_path / "my archives"
    write_wmt_archives(archives)
    dest = tmp_path / "wmt"
    command = ["wmt16", dest, "--from", archives, "--", "--bpe-size", "60"]

    (tmp_path / "wmt" / "text.de-en").mkdir(parents=True)
    run = corpus(*command)
    assert run.stderr.endswith("text.de-en: was not made by this command; choose another DEST\n")
    (tmp_path / "wmt" / "text.de-en").rmdir()

    # A cut-off archive is not trusted, nor is what it held.
    commoncrawl = archives / "training-parallel-commoncrawl.tgz"
    whole = commoncrawl.read_bytes()
    commoncrawl.write_bytes(whole[:-30])
    run = corpus(*command)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"dual_fairseq: error: {commoncrawl}: the archive is damaged")
    assert list(dest.iterdir()) == []
    commoncrawl.write_bytes(whole)

    run = corpus(*command)
    assert run.returncode == 0, run.stderr
    for language in ("de", "en"):
        expected = [line for seed in range(3) for line in sentences(language, 25, seed)]
        assert lines(dest / "raw" / f"train.{language}") == expected
        valid = lines(dest / "raw" / f"valid.{language}")
        assert valid[0] == f'A & B: "{sentences(language, 6, 20)[0]}"' and len(valid) == 6
        assert len(lines(dest / "raw" / f"test.{language}")) == 4
    record = json.loads((dest / "preprocess.json").read_text())
    assert record["dictionary"]["joined"] and record["options"]["max-ratio"] == 2.5
    assert len(record["inputs"]["train.de"]) == 3


def test_sgm_sides_that_do_not_match_are_refused(tmp_path: Path) -> None:
    def convert(source: str, reference: str) -> None:
        (tmp_path / "a.sgm").write_text(source)
        (tmp_path / "b.sgm").write_text(reference)
        corpora.sgm_to_text(*(tmp_path / name for name in ("a.sgm", "b.sgm", "a", "b")))

    good = sgm("src", "de", ["x", "y\n z", "w"])
    convert(good, good)
    assert (tmp_path / "a").read_text() == "x\nw\ny z\n"
    (tmp_path / "a").unlink()
    for bad, message in (
        (sgm("ref", "en", ["x", "y"]), "has 3 segments and"),
        (sgm("ref", "en", ["x", "y", "z"], documents=1), "stands where"),
        (good.replace("</seg>", "", 1), "2 whole segments of 3"),
        ("", "0 whole segments of 0"),
        ("<seg id=1>" * 50_000 + "<doc " * 50_000, "0 whole segments of 50000"),  # at once, not after hours
    ):
        with pytest.raises(UserError, match=message):
            convert(good, bad)
    assert not (tmp_path / "a").exists()


def test_a_file_in_an_archive_that_claims_to_be_endless_is_refused(tmp_path: Path) -> None:
    """tarfile would read on to where it says that the next one begins."""
    claim = tarfile.TarInfo("train.de")
    claim.size = 1 << 70
    head = claim.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(head))
    with pytest.raises(UserError, match=r"a\.tgz: the archive is damaged"):
        corpora.extract(tmp_path / "a.tgz", tmp_path, ["other"])
