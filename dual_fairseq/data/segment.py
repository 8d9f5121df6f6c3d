"""The stage of preprocessing that makes the models' tokens, and measures what comes out when that is undone."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.folders import codes_name
from ..common.progress import say
from ..common.segmentation import POST_PROCESS, SEPARATOR, VISIBLE_SPACE, pieces_of
from .round_trip import Words, count_words, measure
from .subword import (
    Subword,
    characters,
    count_lines,
    count_pieces,
    learn_bpe,
    learn_sentencepiece,
    load_bpe,
    load_sentencepiece,
    segment_file,
    text_lines,
)
from .tokenizer import detokenize


def codes_files(folder: Path, options: argparse.Namespace) -> list[Path]:
    """The files in DEST by which words are segmented, one a side; none where that takes none."""
    languages, kind = (options.source_lang, options.target_lang), options.subword
    learned = kind == "sentencepiece" or (kind == "bpe" and options.bpe_size)
    return [folder / "bpe" / codes_name(kind, language) for language in languages] if learned else []


class Segmentation:
    """The models' tokens of all text in ``tokenized/``.

    Args:
        options: of :func:`~dual_fairseq.data.options.parse`.
        dest: has ``raw/`` and ``tokenized/``.
        out: gets ``bpe/`` and ``segmented/``.
    """

    def __init__(self, options: argparse.Namespace, dest: Path, out: Path) -> None:
        self.options, self.dest, self.out = options, dest, out
        self.languages: tuple[str, str] = (options.source_lang, options.target_lang)
        self.codes = codes_files(out, options)
        self.kind = options.subword if self.codes or options.subword in ("char", "word") else None

    def do(self, held_out: Sequence[str]) -> dict[str, Any]:
        """Segment.

        Args:
            held_out: the splits whose round trip is measured.

        Returns:
            What is worth recording; ``round_trip`` has the measurements.

        Raises:
            UserError: there is nothing to learn, or too much for the size.
        """
        words = {lang: count_words(text_lines(self.dest / "raw" / f"train.{lang}")) for lang in self.languages}
        pieces = self._find_pieces(words)
        result = self._learn()
        for text in sorted((self.dest / "tokenized").iterdir()):
            self._segment(text)
        if pieces:
            say(f"the text is in pieces already ({pieces}); translations and scores are of its words")
            return {**result, "pieces": pieces, "round_trip": {}}
        if self.kind in ("bpe", "word"):
            for language, of_language in words.items():
                of_language.report_unspaced(language)
        return {**result, "pieces": None, "round_trip": self._round_trips(held_out)}

    def _find_pieces(self, words: dict[str, Words]) -> str | None:
        """The kind of pieces that the text is in and stays in; None for words. Warns of pieces that are cut again.

        Raises:
            UserError: each language has its own kind.
        """
        kinds = {language: kind for language in words if (kind := pieces_of(words[language].pieces))}
        if self.kind is None and self.options.tokenizer == "none":
            if len(set(kinds.values())) > 1:
                both = " and ".join(f"{language} in those of {kind}" for language, kind in kinds.items())
                raise UserError(f"the text is in pieces already, {both}; give both languages in pieces of one kind")
            return next(iter(kinds.values()), None)
        for language, kind in kinds.items():
            counts = words[language].pieces
            marks = f"end in {SEPARATOR}" if kind == "subword_nmt" else f"begin with {VISIBLE_SPACE}"
            say(
                f"warning: train.{language}: {counts[kind]:,} of {counts['']:,} words {marks}: the text is in pieces "
                "already, which are now cut again; give --tokenizer none --bpe-size 0"
            )
        return None

    def _learn(self) -> dict[str, Any]:
        """Write what segments words, if anything, and describe it."""
        options = self.options
        if not self.codes:
            return {"type": self.kind, **({"space": VISIBLE_SPACE} if self.kind == "char" else {})}
        if self.kind == "bpe":
            numbers = self._learn_or_copy(learn_bpe, options.bpe_size, lambda codes: count_lines(codes) - 1)
            result = {"type": "subword-nmt", "size": options.bpe_size, "separator": f"{SEPARATOR} "}
        else:
            numbers = self._learn_or_copy(learn_sentencepiece, options.vocab_size, count_pieces)
            result = {"type": "sentencepiece", "size": options.vocab_size}
        return {**result, "joint": options.joint_bpe, "merges": dict(zip(self.languages, numbers, strict=True))}

    def _learn_or_copy(
        self, learn: Callable[[Sequence[Path], int, Path, str], int], size: int, count: Callable[[Path], int]
    ) -> list[int]:
        """Write the codes of both sides; returns their numbers."""
        if self.options.like:
            for source, codes in zip(codes_files(Path(self.options.like), self.options), self.codes, strict=True):
                shutil.copyfile(source, codes)
            return [count(codes) for codes in self.codes]
        train = [self.dest / "tokenized" / f"train.{language}" for language in self.languages]
        if self.options.joint_bpe:
            number = learn(train, size, self.codes[0], "joint")
            shutil.copyfile(self.codes[0], self.codes[1])
            return [number, number]
        sides = zip(train, self.codes, self.languages, strict=True)
        return [learn([text], size, codes, language) for text, codes, language in sides]

    def _segment(self, text: Path) -> None:
        output = self.out / "segmented" / text.name
        if self.kind in (None, "word"):
            shutil.copyfile(text, output)
            return

        def make() -> Callable[[str], str]:
            if self.kind == "char":
                return characters
            codes = self.codes[self.languages.index(text.name.rpartition(".")[2])]
            return load_bpe(codes) if self.kind == "bpe" else load_sentencepiece(codes)

        segment_file(text, make, output, self.options.workers)
        replaced = 0 if self.kind == "bpe" else sum(line.count(VISIBLE_SPACE) for line in text_lines(text))
        say(f"{self.kind}: {text.name} segmented" + f"; {VISIBLE_SPACE} became _ {replaced:,} times" * bool(replaced))

    def _round_trips(self, splits: Sequence[str]) -> dict[str, Any]:
        """What comes out of the models' tokens of held-out text; warns where it is not what went in."""
        subword = Subword(POST_PROCESS[self.kind] if self.kind else None, VISIBLE_SPACE if self.kind == "char" else "")
        records = {}
        for name, language in ((f"{split}.{language}", language) for split in splits for language in self.languages):
            words = [subword.join(line) for line in text_lines(self.out / "segmented" / name)]
            back = detokenize(words, language, self.options.tokenizer, self.options.normalized)
            trip = measure([*text_lines(self.dest / "raw" / name)], back, language)
            trip.report(name, self.options)
            records[name] = trip.record()
        return records
