"""Turns raw text into the tokens that a pair's models know, exactly like ``dual-fairseq preprocess``, and back."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from fairseq.data import Dictionary
from torch import Tensor

from ..common.errors import UserError
from ..common.files import read_lines
from ..common.folders import RECORD, Data
from ..common.segmentation import VISIBLE_SPACE
from ..plugin.checkpoint import data_directories, load_state
from .binarize import symbols
from .clean import LONGEST_WORD
from .normalize import lower, repair, without_controls
from .subword import Subword, characters, load_bpe, load_sentencepiece, unmarked
from .tokenizer import Tokenizer, detokenize
from .writing import Watch

logger = logging.getLogger(__name__)


class UnknownLabel(UserError):
    """A line that should be a label is not a label that the models know."""


class TextPipeline:
    """Tokenisation and segmentation of a pair's languages, applied and undone.

    Attributes:
        languages: codes of the source and of the target language, in the order of ``dual-fairseq preprocess``.
        dictionaries: the folder with ``dict.<lang>.txt`` of both languages; fairseq tasks take it as their data.
        subword: the models' tokens of each language.
        repairs: counts what :meth:`encode` repaired.

    Args:
        folder: the DEST of ``dual-fairseq preprocess``, or the folder ``text`` that ``dual-fairseq train`` keeps in a
            run: ``preprocess.json``, ``dict.<lang>.txt``, ``codes.<lang>``.

    Raises:
        UserError: a file is missing or damaged.
    """

    languages: tuple[str, str]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        data = Data.from_folder(folder)
        path = self.folder / RECORD
        self.data, self.languages = data, data.languages
        self.subword = {
            language: Subword(side.post_process, VISIBLE_SPACE if side.subword == "char" else "")
            for language, side in data.sides.items()
        }
        self.repairs: Counter[str] = Counter()
        self.dictionaries = data.dual
        needed = [data.dictionary(language) for language in self.languages]
        needed += [data.codes(language) for language, side in data.sides.items() if side.has_codes]
        for file in needed:
            if not file.is_file():
                raise UserError(f"{file}: is missing, but {path} names it; run dual-fairseq preprocess again")
        self._tokenize = {
            language: Tokenizer(side.tokenizer, language, data.normalize_punctuation, data.normalized)
            for language, side in data.sides.items()
        }
        self._segment: dict[str, Callable[[str], str]] = {}  # not for words, nor for text that is already in pieces
        for language, side in data.sides.items():
            if side.has_codes:
                load = load_sentencepiece if side.subword == "sentencepiece" else load_bpe
                self._segment[language] = load(data.codes(language))
            elif side.subword == "char":
                self._segment[language] = characters
        self._labels = {language: data.labels(language) for language in self.languages}
        unknown = (data.record.get("dictionary") or {}).get("unknown_share") or {}
        self._watched: dict[str, Watch] = {}  # languages whose text is not yet compared with the training text
        for language, writing in data.record.get("writing", {}).items():
            if language not in data.sides:
                continue
            training = {**writing, "unknown": unknown.get(f"valid.{language}", 1.0)}
            self._watched[language] = Watch(training, symbols(data.dictionary(language)))

    @classmethod
    def of_checkpoint(
        cls, checkpoint: str | os.PathLike[str], dest: str | os.PathLike[str] | None = None
    ) -> TextPipeline:
        """The pipeline of the text that a pair was trained on.

        Args:
            checkpoint: of a pair. The pipeline is read from a folder ``text`` beside this file or beside its folder
                (as in a run of ``dual-fairseq train``), else from the data folder that the pair was trained on.
            dest: the folder to read the pipeline from instead.

        Raises:
            UserError: no such folder exists, or it is damaged.
        """
        if pipeline := cls.find(checkpoint) if dest is None else cls(dest):
            return pipeline
        places = ", ".join(map(str, _places(checkpoint)))
        raise UserError(
            f"{checkpoint}: cannot tell how its text was tokenised (no preprocess.json in {places}); give the folder "
            "that dual-fairseq preprocess wrote, by --dest DEST or dest=..."
        )

    @classmethod
    def find(cls, checkpoint: str | os.PathLike[str]) -> TextPipeline | None:
        """Like :meth:`of_checkpoint`, but None if no such folder exists.

        Raises:
            UserError: the folder is damaged.
        """
        return next((cls(folder) for folder in _places(checkpoint) if (folder / RECORD).is_file()), None)

    def encode(self, text: str, language: str) -> str:
        """Normalise, tokenise and segment one line of raw text.

        The line is repaired like in ``dual-fairseq preprocess``. A line to translate cannot be dropped, so control
        characters become spaces, and a word of more than ``LONGEST_WORD`` characters (BPE takes quadratic time on it)
        is cut, unless the tokens are characters or SentencePiece's.

        Returns:
            Tokens joined by single spaces; "" if the line has no visible character.

        Raises:
            UnknownLabel: the language is labels, and the line is not one of its labels.
        """
        text = repair(text, self.repairs, self.data.normalized)
        if self.data.lowercase:
            text = lower(text, language, self.data.normalized)
        if len(text) > LONGEST_WORD and self.data.sides[language].subword not in ("char", "sentencepiece"):
            text = " ".join(
                word[i : i + LONGEST_WORD] for word in text.split() for i in range(0, len(word), LONGEST_WORD)
            )
        tokens = self._tokenize[language](text)
        if language in self._segment and tokens:
            tokens = self._segment[language](tokens)
        if language in self._watched:
            self._watch(text, tokens, language)
        known = self._labels[language]
        if known and tokens and tokens not in known:
            some = ", ".join(known[:10]) + ", ..." * (len(known) > 10)
            raise UnknownLabel(f"'{tokens[:60]}' is not a label of {language}: {some}")
        return tokens

    def _watch(self, text: str, tokens: str, language: str) -> None:
        """Warn once if text is clearly not written like the training text."""
        differences = self._watched[language].add(text, tokens)
        if differences is None:
            return
        del self._watched[language]
        if differences:
            logger.warning(
                "the text of %s is not written like the training text: %s; models work best on text with the same case "
                "and spaces", language, "; ".join(differences),
            )  # fmt: skip

    def decode(self, tokens: str, language: str) -> str:
        """Undo segmentation and tokenisation: tokens joined by spaces → raw text."""
        return self.detokenize([self.subword[language].join(tokens)], language)[0]

    def detokenize(self, lines: Sequence[str], language: str) -> list[str]:
        """Undo only tokenisation, of words that fairseq has joined by ``--post-process``.

        A dictionary may come from a stranger, so control characters and tabs become spaces.
        """
        lines = [without_controls(unmarked(line)).replace("\t", " ") for line in lines]
        return detokenize(lines, language, self.data.sides[language].tokenizer, self.data.normalized)

    def text(self, split: str, language: str) -> list[str]:
        """The text of a split that translations are compared with, one sentence per line.

        This is ``raw/<split>.<language>``; text in pieces is joined.

        Raises:
            UserError: the file is missing.
        """
        lines = read_lines(self.data.raw(split, language))
        return [self.decode(line, language) for line in lines] if self.data.sides[language].in_pieces else lines

    def join(self, parts: Sequence[str], language: str) -> str:
        """Join several texts, each of tokens joined by spaces; empty texts are left out."""
        space = self.subword[language].space
        between = f" {space} " if space else " "
        return between.join(part for part in parts if part)


def _places(checkpoint: str | os.PathLike[str]) -> Iterator[Path]:
    """The folders that may hold the record of a pair's text; the checkpoint is read only if it is needed."""
    path = Path(os.path.abspath(checkpoint))
    yield from (path.parent / "text", path.parent.parent / "text")
    yield from (data.parent for data in data_directories(load_state(os.fspath(checkpoint), "checkpoint")["cfg"].task))


def indices(tokens: Sequence[str], dictionary: Dictionary) -> Tensor:
    """(T,) token indices with ``</s>``. A word that looks like one of fairseq's own symbols is unknown to the model."""
    known = (dictionary.index(token) for token in tokens)
    return torch.tensor([*(i if i >= dictionary.nspecial else dictionary.unk() for i in known), dictionary.eos()])


def looks_foreign(sentences: Iterable[Tensor], dictionary: Dictionary) -> bool:
    """Whether most tokens of a text are unknown to a model: swapped files, another language, other segmentation.

    Args:
        sentences: token indices, each ending in ``</s>``; fewer than 20 tokens in all are too few to tell.
        dictionary: the model's.
    """
    total = unknown = 0
    for sentence in sentences:
        total += int(sentence.ne(dictionary.eos()).sum())
        unknown += int(sentence.eq(dictionary.unk()).sum())
    return total >= 20 and unknown > total / 2
