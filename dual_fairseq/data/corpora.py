"""``dual-fairseq corpus``: turns public corpora, from their repositories or from copies, into training data."""

from __future__ import annotations

import gzip
import html
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from ..common.arguments import Parser, file_path, positive
from ..common.errors import UserError
from ..common.files import lines_of, whole_file
from ..common.options import add_languages
from ..common.progress import say
from .lines import open_text

FROM = "give a folder with the files by --from"

# --- Multi30k -------------------------------------------------------------------------------------------------------

MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data"
MULTI30K_TESTS = ("2016_flickr", "2017_flickr", "2017_mscoco")
MULTI30K = """\
Download and preprocess Multi30k (image captions; 29,000 training pairs).

The command downloads task 1 from the public repository, or from a copy, and preprocesses it into DEST: train, valid
(val) and test (test_2016_flickr, or others by --test). For non-commercial research and education only; see
https://github.com/multi30k/dataset for its terms.

The settings are the defaults of dual-fairseq preprocess: Moses tokenisation and joint BPE (8000 merges for all pairs).
Downloads are kept in DEST/download.
"""


def multi30k_parser() -> Parser:
    """The options of ``dual-fairseq corpus multi30k``."""
    parser = _parser("multi30k", MULTI30K, ("de", "en", "fr"))
    add = parser.add_argument
    mono = parser.add_mutually_exclusive_group()
    mono.add_argument("--mono", action="store_true",
        help="also train the language models on the task 2 captions: 145,000 lines of German and of English. The "
        "German captions were written independently; the English captions contain the English side of each training "
        "pair. There are no French captions; with --pairs, the remaining French lines are used")  # fmt: skip
    mono.add_argument("--mono-unpaired", action="store_true",
        help="like --mono, without captions that are a side of a training pair (29,000 English, 185 German), so they "
        "contain no translation of the other language's text")  # fmt: skip
    mono.add_argument("--mono-of-pairs", action="store_true",
        help="with --pairs: train them on the remaining pairs, on the source side of the first half and the target "
        "side of the second half, so the text contains no translation of its sentences. This text is of the same kind "
        "as the pairs; the German captions of task 2 differ from the pairs and are shorter")  # fmt: skip
    add("--pairs", type=positive, metavar="N", help="use only the first N training pairs: a low-resource setting")
    add("--test", action="append", choices=MULTI30K_TESTS,
        help="the test text (default 2016_flickr); may be given several times: all are used together")  # fmt: skip
    add("--from", dest="folder", type=file_path, metavar="FOLDER",
        help="download nothing, use FOLDER/{train,val,test_2016_flickr}.LANG.gz (or the files of --test) and, for the "
        "captions, FOLDER/mono/train.{1..5}.LANG.gz")  # fmt: skip
    add("--url", default=MULTI30K_URL, help="a mirror of %(default)s")
    return parser


def multi30k(arguments: Sequence[str]) -> None:
    """Make training data from Multi30k.

    Raises:
        UserError: a file is missing or could not be fetched, or an option is wrong.
    """
    options, passed_on = multi30k_parser().parse(arguments)
    if options.mono_of_pairs and not options.pairs:
        raise UserError("--mono-of-pairs: no pairs remain without --pairs; give --pairs too")
    languages, downloads = _languages(options), options.dest / "download"
    captions = [language for language in languages if language != "fr" and (options.mono or options.mono_unpaired)]
    folder, tests = options.folder, [f"test_{name}" for name in dict.fromkeys(options.test or MULTI30K_TESTS[:1])]
    if folder is None:
        folder, url = downloads, options.url.rstrip("/")
        for language in languages:
            for split in ("train", "val", *tests):
                fetch(f"{url}/task1/raw/{split}.{language}.gz", folder / f"{split}.{language}.gz")
            for i in range(1, 6) if language in captions else ():
                fetch(f"{url}/task2/raw/train.{i}.{language}.gz", folder / "mono" / f"train.{i}.{language}.gz")
    extra = []
    for role, language in zip(("source", "target"), languages, strict=True):
        if language in captions:
            files = [folder / "mono" / f"train.{i}.{language}.gz" for i in range(1, 6)]
            if options.mono_unpaired:
                texts = [_lines(file) for file in files]
                paired = set(_lines(folder / f"train.{language}.gz"))
                others = [line for text in texts for line in text if line not in paired]
                if not others:
                    raise UserError(f"{folder / 'mono'}: every {language} line is a side of a pair; leave out "
                                    "--mono-unpaired")  # fmt: skip
                files = [_write(downloads / f"unpaired.{language}", others)]
            extra += [f"--extra-mono-{role}={file}" for file in files]
    train = folder / "train"
    if options.pairs:
        count, train = int(options.pairs), downloads / f"train-{options.pairs}"
        for role, language in zip(("source", "target"), languages, strict=True):
            lines = _lines(folder / f"train.{language}.gz")
            _write(downloads / f"{train.name}.{language}", lines[:count])
            unused, others = lines[count:], []
            if options.mono_of_pairs:
                half = (count + len(lines)) // 2 - count
                others = unused[:half] if role == "source" else unused[half:]
            elif language == "fr" and (options.mono or options.mono_unpaired):
                others = unused
            if others:
                file = _write(downloads / f"{train.name}.others.{language}", others)
                extra.append(f"--extra-mono-{role}={file}")
    test = folder / tests[0]
    if len(tests) > 1:
        test = downloads / "-".join(tests)
        for language in languages:
            texts = [_lines(folder / f"{name}.{language}.gz") for name in tests]
            _write(downloads / f"{test.name}.{language}", [line for text in texts for line in text])
    _preprocess(options, [train], folder / "val", test, [*extra, *passed_on])


# --- WMT16 ----------------------------------------------------------------------------------------------------------

WMT16_URLS = (
    "https://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
    "https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
    "https://data.statmt.org/wmt16/translation-task/training-parallel-nc-v11.tgz",
    "https://data.statmt.org/wmt16/translation-task/dev.tgz",
    "https://data.statmt.org/wmt16/translation-task/test.tgz",
)
WMT16 = f"""\
Download and preprocess WMT16 German-English news translation (4.5 million training pairs).

Training: Europarl v7, Common Crawl, News Commentary v11; valid: newstest2013; test: newstest2016. The archives have 1.7
GB; DEST needs up to 15 GB.

Settings: Moses tokenisation, joint BPE of 32000 merges, one dictionary for both languages, training pairs of up to 250
words whose lengths differ by a factor of up to 2.5. Downloads are kept in DEST/download, and their text in
DEST/text.<source>-<target>. The archives:
  {", ".join(url.rpartition("/")[2] for url in WMT16_URLS)}
"""
WMT16_TRAINING = ("europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v11.de-en")


def wmt16_parser() -> Parser:
    """The options of ``dual-fairseq corpus wmt16``."""
    parser = _parser("wmt16", WMT16, ("de", "en"))
    parser.add_argument("--from", dest="folder", type=file_path, metavar="FOLDER",
                        help="download nothing, use the archives in FOLDER")  # fmt: skip
    parser.add_argument("--url", help="a mirror that has all five archives at URL/<name>, instead of statmt.org")
    return parser


def wmt16(arguments: Sequence[str]) -> None:
    """Make training data from WMT16.

    Raises:
        UserError: an archive is missing, damaged or could not be fetched, or an option is wrong.
    """
    options, extra = wmt16_parser().parse(arguments)
    source, target = _languages(options)
    text = options.dest / f"text.{source}-{target}"
    if text.exists() and not (text / "archives").is_file():
        raise UserError(f"{text}: was not made by this command; choose another DEST")
    folder = options.folder or options.dest / "download"
    archives = []
    for address in WMT16_URLS:
        name = address.rpartition("/")[2]
        if options.folder is None:
            fetch(f"{options.url.rstrip('/')}/{name}" if options.url else address, folder / name)
        elif not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; put the archive there, or leave out --from to fetch it")
        archives.append(folder / name)
    # The text is extracted once, and again if the archives have changed.
    stamp = "\n".join(f"{path} {path.stat().st_size} {int(path.stat().st_mtime)}" for path in archives)
    if not (text / "archives").is_file() or (text / "archives").read_text(encoding="utf-8").rstrip("\n") != stamp:
        options.dest.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".text.", dir=options.dest))
        try:
            for archive, name in zip(archives, WMT16_TRAINING, strict=False):
                extract(archive, new, [f"{name}.{language}" for language in (source, target)])
            valid = [f"newstest2013-src.{source}.sgm", f"newstest2013-ref.{target}.sgm"]
            test = [f"newstest2016-{source}{target}-{side}.sgm" for side in (f"src.{source}", f"ref.{target}")]
            for archive, split, names in zip(archives[3:], ("valid", "test"), (valid, test), strict=True):
                extract(archive, new, names)
                sides = [new / name for name in (*names, f"{split}.{source}", f"{split}.{target}")]
                sgm_to_text(*sides)
            (new / "archives").write_text(f"{stamp}\n", encoding="utf-8")
            new.chmod(options.dest.stat().st_mode & 0o777)
            shutil.rmtree(text, ignore_errors=True)
            new.rename(text)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    settings = ["--max-length=250", "--max-ratio=2.5"]
    if not any(word.partition("=")[0] == "--like" for word in extra):  # --like has its own settings
        settings += ["--bpe-size=32000", "--joined-dictionary"]
    _preprocess(options, [text / name for name in WMT16_TRAINING], text / "valid", text / "test", [*settings, *extra])


# WMT's files are not well-formed XML, so no XML parser reads them all.
_TAG = re.compile(r"<(doc|/?seg)\b([^<>]*)>", re.IGNORECASE)
_LARGEST = 1 << 33  # bytes of a file in an archive; tarfile would read as many as the archive claims
_ID = re.compile(r"""\b(?:doc)?id\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def read_segments(path: Path) -> list[tuple[tuple[str, str], str]]:
    """The segments of an SGM file in order: ((document, number), text in one line, entities resolved).

    Raises:
        UserError: the file is not UTF-8, or its segments are not all closed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; fetch the archive again") from None
    segments, document = [], ""
    begun: tuple[str, int] | None = None  # the open segment: its number, and where its text begins
    for match in _TAG.finditer(text):
        tag = match[1].lower()
        name = identity[1] if (identity := _ID.search(match[2])) else ""
        if tag == "doc":
            document = name
        elif tag == "seg":
            begun = name, match.end()
        elif begun is not None:
            segments.append(((document, begun[0]), " ".join(html.unescape(text[begun[1] : match.start()]).split())))
            begun = None
    expected = len(re.findall(r"<seg\b", text, re.IGNORECASE))
    if not segments or len(segments) != expected:
        raise UserError(f"{path}: {len(segments)} whole segments of {expected}; fetch the archive again")
    return segments


def sgm_to_text(source_sgm: Path, reference_sgm: Path, source_text: Path, reference_text: Path) -> None:
    """Write a WMT test set, source and reference, as text with one segment per line.

    Raises:
        UserError: the files do not have the same segments of the same documents, or one is damaged.
    """
    source, reference = read_segments(source_sgm), read_segments(reference_sgm)
    if len(source) != len(reference):
        raise UserError(
            f"{source_sgm} has {len(source)} segments and {reference_sgm} has {len(reference)}; take both from one "
            "archive"
        )
    for (name, _), (other, _) in zip(source, reference, strict=True):
        if name != other:
            raise UserError(
                f"{source_sgm}: document {name[0]}, segment {name[1]} stands where {reference_sgm} has document "
                f"{other[0]}, segment {other[1]}; take both from one archive"
            )
    for path, segments in ((source_text, source), (reference_text, reference)):
        _write(path, [text.encode() for _, text in segments])


def extract(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Extract files from an archive, from any folder in the archive.

    Raises:
        UserError: the archive is damaged, or lacks a file.
    """
    say(f"extracting {', '.join(names)} from {archive.name}")
    missing = set(names)
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in members:
                    name = member.name.rpartition("/")[2]
                    if member.size > _LARGEST:
                        raise tarfile.ReadError
                    content = members.extractfile(member) if name in missing else None
                    if content is not None:
                        with open(folder / name, "wb") as file:
                            shutil.copyfileobj(content, file)
                        missing.remove(name)
            _drain(stream)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
        missing.add("")
    if missing:
        raise UserError(f"{archive}: the archive is damaged, or does not hold {', '.join(names)}; fetch it again")


# --- both -----------------------------------------------------------------------------------------------------------


def fetch(url: str, file: Path) -> None:
    """Download a gzip file, unless it already exists. The file appears only when it is complete.

    Raises:
        UserError: the file could not be fetched.
    """
    if file.is_file() and file.stat().st_size:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching {url}")
    with whole_file(file) as part:
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                shutil.copyfileobj(response, part, 1 << 20)
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UserError(
                f"{url}: could not be fetched ({reason}); check the network and try again, or {FROM}"
            ) from None
        part.flush()
        try:
            with gzip.open(part.name) as content:
                _drain(content)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise UserError(f"{url}: the download is not a complete gzip file; try again, or {FROM}") from None


def _drain(stream: gzip.GzipFile | IO[bytes]) -> None:
    while stream.read(1 << 20):
        pass


def _lines(file: Path) -> list[bytes]:
    """The lines of a gzip file, without line ends."""
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    with open_text(file) as text:
        return [line.removesuffix(b"\n") for line in lines_of(text, file)]


def _write(file: Path, lines: Iterable[bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as text:
        text.writelines(line + b"\n" for line in lines)
    return file


def _parser(name: str, text: str, languages: Sequence[str]) -> Parser:
    parser = Parser(f"corpus {name}", text, passes_on="dual-fairseq preprocess")
    parser.add_argument("dest", metavar="DEST", type=file_path, help="the folder to make")
    add_languages(parser, source="(default de)", target="(default en)")
    parser.set_defaults(source_lang="de", target_lang="en", known_languages=languages)
    return parser


def _languages(options: Any) -> tuple[str, str]:
    """The source and target language; raises UserError if they are not two of the corpus's languages."""
    source, target, known = options.source_lang, options.target_lang, options.known_languages
    for language in (source, target):
        if language not in known:
            raise UserError(f"language '{language}': this corpus has {', '.join(known[:-1])} and {known[-1]}")
    if source == target:
        raise UserError(f"source and target language are both '{source}'; give two")
    return source, target


def _preprocess(options: Any, train: Sequence[Path], valid: Path, test: Path, more: Sequence[str]) -> None:
    from . import preprocess

    words = [f"--source-lang={options.source_lang}", f"--target-lang={options.target_lang}", f"--dest={options.dest}"]
    words += [f"--train={prefix}" for prefix in train]
    preprocess.main([*words, f"--valid={valid}", f"--test={test}", *more])


CORPORA = {"multi30k": multi30k, "wmt16": wmt16}


def get_parser() -> Parser:
    """The options of ``dual-fairseq corpus``."""
    parser = Parser("corpus", "Download a public corpus, or read a copy of it, and make training data from it.\n\n"
                    "dual-fairseq corpus NAME --help explains the options of a corpus.")  # fmt: skip
    parser.usage = "dual-fairseq corpus NAME DEST [options] [-- options of dual-fairseq preprocess]"
    parser.add_argument("name", metavar="NAME", choices=tuple(CORPORA),
                        help="multi30k: image captions, 29,000 pairs of de, en and fr; "
                        "wmt16: news and other text, 4.5 million pairs of de and en")  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    name = get_parser().parse_args(arguments[:1]).name
    CORPORA[name](arguments[1:])
