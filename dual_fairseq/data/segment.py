"""The stage of preprocessing that makes the models' tokens, and measures the round trip back to text."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import count_lines
from ..common.folders import Data, codes_name
from ..common.progress import say
from ..common.segmentation import ANNOTATIONS, POST_PROCESS, SEPARATOR, VISIBLE_SPACE, pieces_of, shared
from .options import same_way
from .round_trip import Words, count_words, measure
from .subword import (
    Subword,
    characters,
    count_pieces,
    learn_bpe,
    learn_sentencepiece,
    load_bpe,
    load_sentencepiece,
    segment_file,
    text_lines,
)
from .tokenizer import detokenize


def codes_files(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The files in DEST that segment words, by language; languages without such a file are left out."""
    learned = {"sentencepiece"} | ({"bpe"} if options.bpe_size else set())
    return {lang: folder / "bpe" / codes_name(kind, lang) for lang, kind in options.subword.items() if kind in learned}


class Segmentation:
    """The models' tokens of all text in ``tokenized/``.

    Args:
        options: from :func:`~dual_fairseq.data.options.parse`.
        dest: has ``raw/`` and ``tokenized/``.
        out: gets ``bpe/`` and ``segmented/``.
    """

    def __init__(self, options: argparse.Namespace, dest: Path, out: Path) -> None:
        self.options, self.dest, self.out = options, dest, out
        self.codes = codes_files(out, options)
        # None: the tokens are the words or pieces between the spaces of the text
        self.kinds = {
            language: kind if language in self.codes or kind in ("char", "word", *ANNOTATIONS) else None
            for language, kind in options.subword.items()
        }
        # languages that are segmented together
        languages = tuple(options.subword)
        self.groups = [languages] if same_way(options) else [(language,) for language in languages]

    def do(self, held_out: Sequence[str]) -> dict[str, Any]:
        """Segment all text.

        Args:
            held_out: the splits whose round trip is measured.

        Returns:
            A record, by language if the sides differ, with the measurements as ``round_trip``.

        Raises:
            UserError: there is nothing to learn, or the size is too small.
        """
        train = {lang: self.dest / "raw" / f"train.{lang}" for lang in self.kinds}
        words = {lang: count_words(text_lines(file)) for lang, file in train.items() if file.is_file()}
        ways: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            pieces = self._find_pieces({language: words[language] for language in group if language in words}, group)
            if pieces:
                suffix = "" if len(group) > 1 else f" of {group[0]}"
                say(
                    f"the text{suffix} is already split into pieces ({pieces}); translations consist of words, and "
                    "scores are computed on words"
                )
            way = {**self._learn(group), "pieces": pieces}
            ways |= dict.fromkeys(group, way)
        for text in sorted((self.dest / "tokenized").iterdir()):
            self._segment(text)
        languages = [lang for lang, way in ways.items() if not way["pieces"] and self.kinds[lang] not in ANNOTATIONS]
        by_words = [language for language in languages if self.kinds[language] in ("bpe", "word")]
        self._report_unspaced({language: words[language] for language in by_words if language in words})
        return {**shared(ways), "round_trip": self._round_trips(held_out, languages)}

    def _option(self, languages: Iterable[str]) -> str:
        """``--subword``, or the option of one side if only this side is meant."""
        sides = {self.options.source_lang: "--source-subword", self.options.target_lang: "--target-subword"}
        options = [sides[language] for language in languages]
        return options[0] if len(options) == 1 else "--subword"

    def _report_unspaced(self, words: dict[str, Words]) -> None:
        """Say which option helps if white space does not separate words."""
        lengths = {language: length for language, counts in words.items() if (length := counts.unspaced_length)}
        for language, length in lengths.items():
            say(
                f"note: {language}: its script puts no space between words ({length:.0f} letters from space to space); "
                f"{self._option(lengths)} sentencepiece finds pieces in such text"
            )

    def _find_pieces(self, words: dict[str, Words], group: Sequence[str]) -> str | None:
        """The kind of pieces that the text is in and stays in; None for words. Warns if pieces are split again.

        Args:
            words: the words of the training text, by language; none if there is no such text.
            group: the languages.

        Raises:
            UserError: the languages have different kinds.
        """
        if not words:  # --like has read the text
            side = Data.from_folder(self.options.like).sides[group[0]]
            return side.post_process if side.in_pieces else None
        kinds = {language: kind for language in words if (kind := pieces_of(words[language].pieces))}
        if self.kinds[group[0]] is None and self.options.tokenizer[group[0]] == "none":
            if len(set(kinds.values())) > 1:
                listed = " and ".join(f"{language} in those of {kind}" for language, kind in kinds.items())
                raise UserError(
                    f"the text is already split into pieces, {listed}; give both languages in pieces of one kind"
                )
            return next(iter(kinds.values()), None)
        for language, kind in kinds.items():
            counts = words[language].pieces
            marks = f"end in {SEPARATOR}" if kind == "subword_nmt" else f"begin with {VISIBLE_SPACE}"
            say(
                f"warning: train.{language}: {counts[kind]:,} of {counts['']:,} words {marks}: the text is already "
                "split into pieces, and BPE now splits it again; give --tokenizer none --bpe-size 0"
            )
        return None

    def _learn(self, group: tuple[str, ...]) -> dict[str, Any]:
        """Write the codes or the model for some languages, if they need any, and describe them."""
        options, kind = self.options, self.kinds[group[0]]
        if kind not in ("bpe", "sentencepiece"):
            return {"type": kind, **({"space": VISIBLE_SPACE} if kind == "char" else {})}
        if kind == "bpe":
            size = options.bpe_size
            merges = self._learn_or_copy(group, learn_bpe, size, lambda codes: count_lines(codes) - 1)
            result = {"type": "subword-nmt", "size": size, "separator": f"{SEPARATOR} "}
        else:
            size = options.vocab_size[group[0]]
            merges = self._learn_or_copy(group, learn_sentencepiece, size, count_pieces)
            result = {"type": "sentencepiece", "size": size}
        return {**result, "joint": options.joint_bpe, "merges": merges}

    def _learn_or_copy(
        self,
        group: tuple[str, ...],
        learn: Callable[[Sequence[Path], int, Path, str], int],
        size: int,
        count: Callable[[Path], int],
    ) -> dict[str, int]:
        """Write the codes of some languages; returns the number of codes of each."""
        if self.options.like:
            like_codes = codes_files(Path(self.options.like), self.options)
            return {lang: count(Path(shutil.copyfile(like_codes[lang], self.codes[lang]))) for lang in group}
        train = {language: self.dest / "tokenized" / f"train.{language}" for language in group}
        if not self.options.joint_bpe:
            return {lang: learn([text], size, self.codes[lang], lang) for lang, text in train.items()}
        first, *others = (self.codes[language] for language in group)
        number = learn([*train.values()], size, first, "joint")
        for other in others:
            shutil.copyfile(first, other)
        return dict.fromkeys(group, number)

    def _segment(self, text: Path) -> None:
        output, language = self.out / "segmented" / text.name, text.name.rpartition(".")[2]
        kind = self.kinds[language]
        if kind in (None, "word", *ANNOTATIONS):
            shutil.copyfile(text, output)
            return

        def make() -> Callable[[str], str]:
            if kind == "char":
                return characters
            return load_bpe(self.codes[language]) if kind == "bpe" else load_sentencepiece(self.codes[language])

        segment_file(text, make, output, self.options.workers)
        replaced = 0 if kind == "bpe" else sum(line.count(VISIBLE_SPACE) for line in text_lines(text))
        say(f"{kind}: {text.name} segmented" + f"; {VISIBLE_SPACE} became _ {replaced:,} times" * bool(replaced))

    def _round_trips(self, splits: Sequence[str], languages: Sequence[str]) -> dict[str, Any]:
        """The round trips of held-out text; warns if a text does not come back the same."""
        records = {}
        for name, language in ((f"{split}.{language}", language) for split in splits for language in languages):
            kind = self.kinds[language]
            subword = Subword(POST_PROCESS[kind] if kind else None, VISIBLE_SPACE if kind == "char" else "")
            words = [subword.join(line) for line in text_lines(self.out / "segmented" / name)]
            back = detokenize(words, language, self.options.tokenizer[language], self.options.normalized)
            trip = measure([*text_lines(self.dest / "raw" / name)], back, language)
            option = self._option(self.kinds if len(self.groups) == 1 else [language])
            lossless = subword.post_process == "sentencepiece" and self.options.tokenizer[language] == "none"
            trip.report(name, self.options, "" if lossless else option)
            records[name] = trip.record()
        return records
