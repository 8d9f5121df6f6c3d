"""Raw text to clean, tokenised text: reading, cleaning, Moses tokenisation, and the count of everything that was done.

A *row* is one line of every side of a corpus: two lines for parallel text, one for monolingual text. Rows are kept or
dropped whole, so the sides of a corpus cannot get out of step.
"""

import codecs
import gzip
import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from ..common.errors import UserError

LONGEST_WORD = 1000  # characters; a longer "word" is no text, and BPE takes quadratic time on it
REASONS = {
    "bad_utf8": "not UTF-8",
    "control": "NUL or another control character",
    "empty": "empty",
    "reserved": "a word that fairseq reserves: <s>, </s> or <pad>",
    "long_word": f"a word of more than {LONGEST_WORD:,} characters",
    "over_long": "over-long",
    "ratio": "lengths out of proportion",
    "held_out": "in the valid or test text too",
}

# Unicode calls these line separators; a corpus has one kind of line end, the newline, and these become spaces.
_SEPARATORS = re.compile("[\x0b\x0c\r\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SPACES = re.compile("[ \t]+")
# Something to see: neither space nor one of the characters that only steer the layout.
_VISIBLE = re.compile("[^\\s\u00ad\u200b-\u200f\u2060\ufeff]")
_RESERVED = {"<s>", "</s>", "<pad>"}

Job = TypeVar("Job")
Result = TypeVar("Result")


class Survey(NamedTuple):
    """What one reading of an input file tells before any work: the SHA-256 of its text and its number of lines."""

    sha256: str
    lines: int


@dataclass(frozen=True)
class Rules:
    """How rows are cleaned and tokenised.

    Attributes:
        tokenizer: "moses", or "none" for text that is already segmented (only white space is put in order).
        lowercase: lower-case all text.
        max_length: most words a line may have, counted before and after tokenisation; 0 for any number.
        max_ratio: most times longer (in words) one side may be than the other; 0 for any ratio.
        keep_long: keep over-long rows (counted) and ill-proportioned ones: what valid and test text needs.
    """

    tokenizer: str = "moses"
    lowercase: bool = False
    max_length: int = 250
    max_ratio: float = 0.0
    keep_long: bool = False


class Rows(NamedTuple):
    """Consecutive rows of a corpus: the index of the file they come from, the first one's line number, the lines."""

    part: int
    first: int
    lines: list[tuple[bytes, ...]]


class CleanRow(NamedTuple):
    """One row cleaned: why it is dropped ("" if it is kept), its texts and tokenised texts, whether it is over-long."""

    reason: str
    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    over_long: bool


class BadLine(Exception):
    """A line that cannot be used; the message is a key of REASONS."""


def say(message: str) -> None:
    """Print a line of progress to stderr."""
    print(message, file=sys.stderr, flush=True)


def open_text(path: Path) -> IO[bytes]:
    """Open a plain or gzip (by its name's end, ``.gz``) file; iterating over it splits at newlines and nowhere else."""
    return cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))


def survey(path: Path) -> Survey:
    """Read a file once, to know before any work that it can be read, how many lines it has and whether it changed.

    Raises:
        UserError: it is missing, unreadable, damaged or empty, or has no line ends that could be trusted.
    """
    digest, newlines, returns, last = hashlib.sha256(), 0, 0, b"\n"
    try:
        with open_text(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                newlines += block.count(b"\n")
                returns += block.count(b"\r")
                last = block[-1:]
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path}: damaged or incomplete gzip file; fetch or make it again") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not newlines and last == b"\n":
        raise UserError(f"{path}: the file is empty; give one with a sentence a line")
    if not newlines and returns > 1:
        raise UserError(f"{path}: lines end in carriage returns alone; convert them to newlines, as by tr '\\r' '\\n'")
    return Survey(digest.hexdigest(), newlines + (last != b"\n"))


def decode(raw: bytes, notes: Counter[str]) -> str:
    """One line as text: no line end, no byte order mark, single spaces; what was mended is counted in ``notes``.

    Raises:
        BadLine: nothing can be made of it.
    """
    if raw.endswith(b"\r"):
        notes["windows_line_ends"] += 1
        raw = raw[:-1]
    if raw.startswith(codecs.BOM_UTF8):  # files put together carry it in the middle
        notes["byte_order_marks"] += 1
        raw = raw[len(codecs.BOM_UTF8) :]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadLine("bad_utf8") from None
    text, replaced = _SEPARATORS.subn(" ", text)
    notes["line_separators"] += replaced
    if _CONTROL.search(text):
        raise BadLine("control")
    if not _VISIBLE.search(text):
        raise BadLine("empty")
    return _SPACES.sub(" ", text).strip()


def mend(text: str) -> str:
    """One line of text in the form that :func:`decode` gives, whatever is in it.

    Control characters become spaces too, and what has nothing to see becomes "".
    """
    text = _CONTROL.sub(" ", _SEPARATORS.sub(" ", text.removeprefix("\ufeff").replace("\n", " ")))
    return _SPACES.sub(" ", text).strip() if _VISIBLE.search(text) else ""


class Tokenizer:
    """Tokenises one language as fairseq's ``--tokenizer moses`` does, after Moses punctuation normalisation.

    Args:
        name: "moses" or "none" (words are what white space separates).
        language: its code, which chooses the rules for abbreviations and numbers.
    """

    def __init__(self, name: str, language: str) -> None:
        self._moses = None
        if name == "moses":
            from sacremoses import MosesPunctNormalizer, MosesTokenizer

            self._normalizer = MosesPunctNormalizer(language)
            self._moses = MosesTokenizer(language)

    def __call__(self, text: str) -> str:
        if self._moses is not None:
            text = self._normalizer.normalize(text)
            text = self._moses.tokenize(text, aggressive_dash_splits=True, escape=True, return_str=True)
        return " ".join(text.split())


class Cleaner:
    """Cleans and tokenises rows whose sides are in ``languages``, in this order."""

    def __init__(self, languages: Sequence[str], rules: Rules) -> None:
        self._rules = rules
        self._tokenizers = [Tokenizer(rules.tokenizer, language) for language in languages]

    def __call__(self, rows: Rows) -> tuple[Rows, list[CleanRow], list[Counter[str]]]:
        """Returns the rows, each of them cleaned, and per side how many lines had something to mend."""
        notes: list[Counter[str]] = [Counter() for _ in self._tokenizers]
        return rows, [self._clean(row, notes) for row in rows.lines], notes

    def _clean(self, row: tuple[bytes, ...], notes: list[Counter[str]]) -> CleanRow:
        rules, texts, tokens, lengths = self._rules, [], [], []
        try:
            for raw, note in zip(row, notes, strict=True):
                text = decode(raw, note)
                text = text.lower() if rules.lowercase else text
                words = text.split()
                if max(map(len, words)) > LONGEST_WORD:
                    raise BadLine("long_word")
                if self._too_long(len(words)) and not rules.keep_long:
                    raise BadLine("over_long")  # before the tokeniser has to take a megabyte apart
                texts.append(text)
                lengths.append(len(words))
            for side, tokenize in enumerate(self._tokenizers):
                tokens.append(tokenize(texts[side]))
                words = tokens[side].split()
                if not words:
                    raise BadLine("empty")
                if not _RESERVED.isdisjoint(words):
                    raise BadLine("reserved")
                lengths[side] = max(lengths[side], len(words))
        except BadLine as bad:
            return CleanRow(str(bad), (), (), False)
        over_long = self._too_long(max(lengths))
        out_of_ratio = bool(rules.max_ratio) and max(lengths) > rules.max_ratio * min(lengths)
        reason = "over_long" if over_long else "ratio" if out_of_ratio else ""
        return CleanRow("" if rules.keep_long else reason, tuple(texts), tuple(tokens), over_long)

    def _too_long(self, words: int) -> bool:
        return 0 < self._rules.max_length < words


def read_rows(parts: Sequence[Sequence[Path]]) -> Iterator[Rows]:
    """The rows of a corpus in blocks of about a thousand lines or a megabyte.

    Args:
        parts: the corpus's pieces one after the other, each as its files, a file a side, of equal numbers of lines.
    """
    for index, files in enumerate(parts):
        with ExitStack() as stack:
            handles = [stack.enter_context(open_text(file)) for file in files]
            block: list[tuple[bytes, ...]] = []
            first, size = 1, 0
            for row in zip(*handles, strict=True):
                block.append(tuple(line.removesuffix(b"\n") for line in row))
                size += sum(map(len, row))
                if len(block) == 1000 or size > 1 << 20:
                    yield Rows(index, first, block)
                    first, size, block = first + len(block), 0, []
            if block:
                yield Rows(index, first, block)


def clean_corpus(
    parts: Sequence[Sequence[Path]],
    languages: Sequence[str],
    rules: Rules,
    raw: Sequence[Path],
    tokenized: Sequence[Path],
    dropped: Path,
    *,
    refuse: bool = False,
    held_out: frozenset[str] = frozenset(),
    workers: int = 1,
    label: str = "corpus",
) -> dict[str, Any]:
    """Clean and tokenise a corpus.

    Args:
        parts: as for :func:`read_rows`.
        languages: the language of each side.
        raw, tokenized: the files to write, one a side each, line-aligned with each other.
        dropped: a file to write with a line for each dropped row: input file, line number, reason.
        refuse: stop at the first bad row instead of dropping it.
        held_out: tokenised sentences whose rows are left out without being called bad.
        label: what progress lines call the corpus.

    Returns:
        Counts: rows read and kept, dropped by reason, over-long rows kept, and per language words and mended lines.

    Raises:
        UserError: a row is bad and ``refuse`` is set, or no row is left.
    """
    count: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    words = [0] * len(languages)
    notes: list[Counter[str]] = [Counter() for _ in languages]
    said = time.monotonic()
    with ExitStack() as stack:
        raw_files = [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in raw]
        token_files = [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in tokenized]
        log = stack.enter_context(open(dropped, "w", encoding="utf-8", newline="\n"))
        results = parallel(lambda: Cleaner(languages, rules), read_rows(parts), workers)
        for rows, cleaned, block_notes in results:
            for note, more in zip(notes, block_notes, strict=True):
                note.update(more)
            for number, row in enumerate(cleaned, start=rows.first):
                count["read"] += 1
                reason = row.reason or ("held_out" if not held_out.isdisjoint(row.tokens) else "")
                if reason:
                    files = " and ".join(str(path) for path in parts[rows.part])
                    if refuse and reason != "held_out":
                        raise UserError(
                            f"{files}: line {number}: {_describe(reason, rules)}; mend it or pass --on-bad-line drop"
                        )
                    drops[reason] += 1
                    log.write(f"{parts[rows.part][0]}\t{number}\t{reason}\n")
                    continue
                count["kept"] += 1
                count["over_long_kept"] += row.over_long
                for side in range(len(languages)):
                    raw_files[side].write(row.texts[side] + "\n")
                    token_files[side].write(row.tokens[side] + "\n")
                    words[side] += row.tokens[side].count(" ") + 1
            if time.monotonic() - said > 10:
                say(f"{label}: {count['read']:,} lines read")
                said = time.monotonic()
    result: dict[str, Any] = {
        "read": count["read"],
        "kept": count["kept"],
        "dropped": {reason: drops[reason] for reason in REASONS if drops[reason]},
        "over_long_kept": count["over_long_kept"],
        "words": dict(zip(languages, words, strict=True)),
        "mended": {language: dict(sorted((+note).items())) for language, note in zip(languages, notes, strict=True)},
    }
    say(f"{label}: {summary(result, rules)}")
    if not count["kept"]:
        files = " and ".join(str(path) for path in parts[0])
        raise UserError(f"{files}: no usable line is left ({summary(result, rules)}); give text with a sentence a line")
    return result


def summary(counts: dict[str, Any], rules: Rules) -> str:
    """The counts of :func:`clean_corpus` as one line for people."""
    total = sum(counts["dropped"].values())
    line = f"{counts['read']:,} read, {counts['kept']:,} kept, {total:,} dropped"
    if total:
        line += " (" + ", ".join(f"{_describe(key, rules)}: {n:,}" for key, n in counts["dropped"].items()) + ")"
    if counts["over_long_kept"]:
        line += f"; kept although over {rules.max_length:,} words: {counts['over_long_kept']:,}"
    mended: Counter[str] = sum((Counter(notes) for notes in counts["mended"].values()), Counter())
    if mended:
        line += "; mended: " + ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in mended.items())
    return line


def _describe(reason: str, rules: Rules) -> str:
    return f"more than {rules.max_length:,} words" if reason == "over_long" else REASONS[reason]


# --- processes ------------------------------------------------------------------------------------------------------

_work: Callable[[Any], Any]


def parallel(make: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Apply a function to jobs in ``workers`` processes and yield its results in order.

    Args:
        make: makes the function, once in each process.
    """
    if workers == 1:
        yield from map(make(), jobs)
        return
    # Forked, for a fresh process would import torch and fairseq again.
    with multiprocessing.get_context("fork").Pool(workers, _start_worker, (make, os.getpid())) as pool:
        yield from pool.imap(_call_worker, jobs)


def _start_worker(make: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _work = make()


def _end_with(parent: int) -> None:
    # Workers of a parent that was killed would wait for jobs for ever.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call_worker(job: Any) -> Any:
    return _work(job)
