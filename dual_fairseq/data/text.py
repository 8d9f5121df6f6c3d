"""Raw text to the tokens that a pair's models know, exactly as ``scripts/preprocess.sh`` makes them, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from fairseq.data.encoders.characters import SPACE_ESCAPE, Characters
from torch import Tensor

from ..common.errors import UserError
from ..common.folders import POST_PROCESS, RECORD, Data
from ..pair.evaluate import detokenize
from ..plugin.checkpoint import data_directories, load_state
from .clean import LONGEST_WORD, Tokenizer, mend

SEPARATOR = "@@"
VISIBLE_SPACE: str = SPACE_ESCAPE  # ▁, as SentencePiece has it
_CACHED_WORDS = 500_000  # subword-nmt keeps every word it has seen; a stream of text has no end of them


@dataclass(frozen=True)
class Subword:
    """What ``--subword`` makes of tokenised words.

    Attributes:
        post_process: fairseq's name for what undoes it (``--post-process``, ``--eval-bleu-remove-bpe``), if anything.
        space: the token that stands between two words; "" where words follow each other.
    """

    post_process: str | None
    space: str = ""


SUBWORDS = {kind: Subword(name, VISIBLE_SPACE if kind == "char" else "") for kind, name in POST_PROCESS.items()}


class TextPipeline:
    """Tokenisation and segmentation of a pair's languages, applied and undone.

    Attributes:
        languages: codes of the source and of the target language, as ``scripts/preprocess.sh`` was given them.
        dictionaries: the folder with ``dict.<lang>.txt`` of both, which is what a fairseq task takes for its data.
        kind: ``bpe``, ``char`` or ``word``.
        subword: what that means for its tokens.

    Args:
        folder: what ``scripts/preprocess.sh`` wrote (DEST), or the folder ``text`` that ``scripts/train_dual.sh`` keeps
            in a run: ``preprocess.json``, ``dict.<lang>.txt``, ``codes.<lang>``.

    Raises:
        UserError: a file is missing or damaged.
    """

    languages: tuple[str, str]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        data = Data.from_folder(folder)
        path = self.folder / RECORD
        self.languages, self.tokenizer, self.lowercase = data.languages, data.tokenizer, data.lowercase
        self.kind = data.subword
        self.subword = SUBWORDS[self.kind]
        self.dictionaries = data.dual
        needed = [data.dictionary(language) for language in self.languages]
        if data.has_codes:
            needed += [data.codes(language) for language in self.languages]
        for file in needed:
            if not file.is_file():
                raise UserError(
                    f"{file}: there is no such file, though {path} speaks of it; run scripts/preprocess.sh again"
                )
        self._tokenize = {language: Tokenizer(self.tokenizer, language) for language in self.languages}
        self._segment: dict[str, Callable[[str], str]] = {}  # nothing for words, nor for text that is in pieces already
        for language in self.languages:
            if data.has_codes:
                self._segment[language] = load_bpe(data.codes(language))
            elif self.kind == "char":
                self._segment[language] = characters

    @classmethod
    def of_checkpoint(
        cls, checkpoint: str | os.PathLike[str], dest: str | os.PathLike[str] | None = None
    ) -> TextPipeline:
        """The pipeline of the text that a pair was trained on.

        Args:
            checkpoint: of a pair. Looked for are a folder ``text`` beside it or beside its folder (a run of
                ``scripts/train_dual.sh`` has one), then the data folder that it was trained on.
            dest: the folder to take instead.

        Raises:
            UserError: it is not found, or damaged.
        """
        if dest is not None:
            return cls(dest)
        path = Path(os.path.abspath(checkpoint))
        candidates = [path.parent / "text", path.parent.parent / "text"]
        for folder in candidates:
            if (folder / RECORD).is_file():
                return cls(folder)
        recorded = data_directories(load_state(os.fspath(checkpoint), "checkpoint")["cfg"].task)
        for folder in (data.parent for data in recorded):
            if (folder / RECORD).is_file():
                return cls(folder)
        places = ", ".join(map(str, [*candidates, *(data.parent for data in recorded)]))
        raise UserError(
            f"{checkpoint}: how its text was tokenised is not known (no preprocess.json in {places}); give the folder "
            "that scripts/preprocess.sh wrote, by --dest DEST or dest=..."
        )

    def encode(self, text: str, language: str) -> str:
        """Normalise, tokenise and segment one line of raw text.

        What ``scripts/preprocess.sh`` mends is mended; what it drops a line for is taken as well as can be, since a
        line to translate cannot be dropped: control characters become spaces, and a word of more than
        ``LONGEST_WORD`` characters (BPE takes quadratic time on it) is taken apart, unless all words are.

        Returns:
            Tokens joined by single spaces; "" if there is nothing to see in the line.
        """
        text = mend(text)
        if self.lowercase:
            text = text.lower()
        if len(text) > LONGEST_WORD and self.kind != "char":
            text = " ".join(
                word[i : i + LONGEST_WORD] for word in text.split() for i in range(0, len(word), LONGEST_WORD)
            )
        tokens = self._tokenize[language](text)
        return self._segment[language](tokens) if self._segment and tokens else tokens

    def decode(self, tokens: str, language: str) -> str:
        """Undo segmentation and tokenisation, as ``scripts/evaluate.sh`` does: tokens joined by spaces → raw text."""
        if self._segment:
            tokens = post_process(tokens, self.subword.post_process)
        return detokenize([tokens], language, self.tokenizer)[0]

    def join(self, parts: Sequence[str]) -> str:
        """Several texts as one, each given as its tokens joined by spaces; empty ones are left out."""
        between = f" {self.subword.space} " if self.subword.space else " "
        return between.join(part for part in parts if part)


def indices(tokens: Sequence[str], dictionary: Dictionary) -> Tensor:
    """(T,) token indices with ``</s>``. A word that looks like one of fairseq's own symbols is unknown to the model."""
    known = (dictionary.index(token) for token in tokens)
    return torch.tensor([*(i if i >= dictionary.nspecial else dictionary.unk() for i in known), dictionary.eos()])


def looks_foreign(sentences: Iterable[Tensor], dictionary: Dictionary) -> bool:
    """Whether most tokens of a text are unknown to a model: swapped files, another language, text segmented otherwise.

    Args:
        sentences: token indices, each ending in ``</s>``; fewer than 20 tokens in all tell nothing.
        dictionary: the model's.
    """
    total = unknown = 0
    for sentence in sentences:
        total += int(sentence.ne(dictionary.eos()).sum())
        unknown += int(sentence.eq(dictionary.unk()).sum())
    return total >= 20 and unknown > total / 2


def characters(line: str) -> str:
    """Each character of a line as a token, a space as ``▁``: what fairseq's ``--bpe characters`` makes of it.

    A ``▁`` that the line has already becomes ``_``, or it would turn into a space when characters are joined again.
    """
    return Characters.encode(line.replace(VISIBLE_SPACE, "_"))


def load_bpe(codes: str | os.PathLike[str]) -> Callable[[str], str]:
    """What segments a tokenised line, as fairseq's ``--bpe subword_nmt`` does, by the BPE in the file ``codes``."""
    from subword_nmt.apply_bpe import BPE

    with open(codes, encoding="utf-8") as file:
        bpe = BPE(file, separator=SEPARATOR)

    def segment(line: str) -> str:
        if len(bpe.cache) > _CACHED_WORDS:
            bpe.cache.clear()
        return bpe.process_line(line)

    return segment
