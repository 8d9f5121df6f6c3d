"""Turns raw text into clean, tokenised text, and counts every change.

A *row* is one line of every side of a corpus: two lines of parallel text, one line of monolingual text. Rows are kept
or dropped whole, so the sides of a corpus always have the same lines.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import UserError
from ..common.progress import Progress, say
from .lines import Rows, read_rows
from .normalize import BadLine, decode, described, lower
from .tokenizer import Tokenizer
from .workers import parallel

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
    "label": "none of the labels",
}

RESERVED = {"<s>", "</s>", "<pad>"}
_RESERVED_END = re.compile(rf"(?:{'|'.join(RESERVED)})(?!\S)")  # BPE may cut it from the end of a word


@dataclass(frozen=True)
class Rules:
    """How rows are cleaned and tokenised.

    Attributes:
        tokenizer: "moses", or "none" for text that is already segmented (only its white space is normalised); or a
            tokenizer for each language.
        normalize_punctuation: see :class:`Tokenizer`.
        lowercase: lower-case all text.
        max_length: the most words in a line, counted before and after tokenisation; 0 for any number.
        max_ratio: the largest ratio of the sides' lengths in words; 0 for any ratio.
        normalized: see :func:`~.normalize.decode`; False also splits words like earlier versions.
        keep_long: keep over-long rows (and count them) and rows over ``max_ratio``, as valid and test text needs.
    """

    tokenizer: str | Mapping[str, str] = "moses"
    normalize_punctuation: bool = False
    lowercase: bool = False
    max_length: int = 250
    max_ratio: float = 0.0
    normalized: bool = True
    keep_long: bool = False


class CleanRow(NamedTuple):
    """A cleaned row: why it is dropped ("" if it is kept), its texts and tokenised texts, whether it is over-long."""

    reason: str
    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    over_long: bool


class Cleaner:
    """Cleans and tokenises rows whose sides are in ``languages``, in this order."""

    def __init__(self, languages: Sequence[str], rules: Rules) -> None:
        self._rules = rules
        self._languages = languages
        self._tokenizers = [
            Tokenizer(
                rules.tokenizer if isinstance(rules.tokenizer, str) else rules.tokenizer[language],
                language,
                rules.normalize_punctuation,
                rules.normalized,
            )
            for language in languages
        ]

    def __call__(self, rows: Rows) -> tuple[Rows, list[CleanRow], list[Counter[str]]]:
        """Returns the rows, the cleaned rows, and the counts of repairs of each side."""
        repairs: list[Counter[str]] = [Counter() for _ in self._tokenizers]
        return rows, [self._clean(row, repairs) for row in rows.lines], repairs

    def _clean(self, row: tuple[bytes, ...], repairs: list[Counter[str]]) -> CleanRow:
        rules, texts, tokens, lengths = self._rules, [], [], []
        try:
            for raw, counts, language in zip(row, repairs, self._languages, strict=True):
                text = decode(raw, counts, rules.normalized)
                text = lower(text, language, rules.normalized) if rules.lowercase else text
                words = text.split()
                if max(map(len, words)) > LONGEST_WORD:
                    raise BadLine("long_word")
                if self._too_long(len(words)) and not rules.keep_long:
                    raise BadLine("over_long")  # before the tokeniser has to split a megabyte
                texts.append(text)
                lengths.append(len(words))
            for side, tokenize in enumerate(self._tokenizers):
                tokens.append(tokenize(texts[side]))
                words = tokens[side].split()
                if not words:
                    raise BadLine("empty")
                if _RESERVED_END.search(tokens[side]):
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
        raw, tokenized: the files to write, one per side; line i of each file belongs to the same row.
        dropped: a file to write, with one line per dropped row: input file, line number, reason.
        refuse: stop at the first bad row instead of dropping it.
        held_out: tokenised sentences; their rows are left out, but are not bad rows.
        label: the name of the corpus in progress lines.

    Returns:
        Counts: rows read and kept, dropped by reason, over-long rows kept, and per language words and repaired lines.

    Raises:
        UserError: a row is bad and ``refuse`` is set, or no row is left.
    """
    count: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    words = [0] * len(languages)
    repairs: list[Counter[str]] = [Counter() for _ in languages]
    with ExitStack() as stack:
        outputs = [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in (*raw, *tokenized)]
        raw_files, token_files = outputs[: len(languages)], outputs[len(languages) :]
        log = stack.enter_context(open(dropped, "w", encoding="utf-8", errors="surrogateescape", newline="\n"))
        bar = stack.enter_context(Progress(label, unit="lines"))
        for rows, cleaned, repaired in parallel(lambda: Cleaner(languages, rules), read_rows(parts), workers):
            for total, counts in zip(repairs, repaired, strict=True):
                total.update(counts)
            for number, row in enumerate(cleaned, start=rows.first):
                count["read"] += 1
                reason = row.reason or ("held_out" if not held_out.isdisjoint(row.tokens) else "")
                if reason:
                    if refuse and reason != "held_out":
                        raise UserError(
                            f"{_names(parts[rows.part])}: line {number}: {_describe(reason, rules)}; "
                            "fix the line or pass --on-bad-line drop"
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
            bar.update(len(cleaned))
    result: dict[str, Any] = {
        "read": count["read"],
        "kept": count["kept"],
        "dropped": {reason: drops[reason] for reason in REASONS if drops[reason]},
        "over_long_kept": count["over_long_kept"],
        "words": dict(zip(languages, words, strict=True)),
        "repaired": {lang: dict(sorted((+total).items())) for lang, total in zip(languages, repairs, strict=True)},
    }
    say(f"{label}: {summary(result, rules)}")
    if not count["kept"]:
        raise UserError(
            f"{_names(parts[0])}: no usable line is left ({summary(result, rules)}); give text with one sentence per "
            "line"
        )
    return result


def summary(counts: dict[str, Any], rules: Rules) -> str:
    """The counts of :func:`clean_corpus` as one line for people."""
    dropped = sum(counts["dropped"].values())
    line = f"{counts['read']:,} read, {counts['kept']:,} kept, {dropped:,} dropped"
    if dropped:
        line += " (" + ", ".join(f"{_describe(key, rules)}: {n:,}" for key, n in counts["dropped"].items()) + ")"
    if counts["over_long_kept"]:
        line += f"; kept although over {rules.max_length:,} words: {counts['over_long_kept']:,}"
    repaired: Counter[str] = sum(map(Counter, counts["repaired"].values()), Counter())
    if repaired:
        line += f"; repaired: {described(repaired)}"
    return line


def _describe(reason: str, rules: Rules) -> str:
    return f"more than {rules.max_length:,} words" if reason == "over_long" else REASONS[reason]


def _names(files: Sequence[Path]) -> str:
    return " and ".join(map(str, files))
