"""Pretrained word vectors of a language, for the encoder of one direction and the decoder of the other.

fairseq's own ``--encoder-embed-path`` and ``--decoder-embed-path`` name roles, and only read files with a header. Here
each language gets its vectors once, in the text format of word2vec, fastText or GloVe: a word and its numbers per line,
with or without a first line "number-of-words dimension", plain or gzip.
"""

from __future__ import annotations

import codecs
import copy
import gzip
import logging
import statistics
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.models.lstm import LSTMModel
from torch import Tensor, nn

from ..common.arguments import LONGEST_NUMBER
from ..common.errors import UserError
from ..common.files import lines_of
from ..common.options import flag
from .checkpoint import set_options

logger = logging.getLogger(__name__)

_ROLE_OPTIONS = ("encoder_embed_path", "decoder_embed_path")
_HEAD = 100  # lines that show the dimension if the first line does not name it
_FORMAT = "a word and its numbers a line, as word2vec, fastText and GloVe write (text, not .bin)"


@dataclass(frozen=True, eq=False)
class VectorFile:
    """The file of a language's vectors.

    Args:
        option: the option that named the file, for messages.
        path: the file.
        language: its code.
        dictionary: the language's.
        joint: whether both languages share it.
    """

    option: str
    path: str
    language: str
    dictionary: Dictionary
    joint: bool = False

    def __str__(self) -> str:
        return f"{self.option} {self.path}"


@dataclass(frozen=True)
class WordVectors:
    """The vectors in a file for symbols of a dictionary.

    Args:
        indices: (N,) in the dictionary.
        values: (N, D) float32, as they are in the file.
        words: how many of them are words, not fairseq's own symbols.
        known: the number of words in the dictionary.
        tokens: the share of ``words`` in all occurrences of ``known``, 0 to 1.
    """

    indices: Tensor
    values: Tensor
    words: int
    known: int
    tokens: float

    def copy_into(self, table: nn.Embedding) -> None:
        """Put the vectors in their rows; layers that share the weights get them too."""
        with torch.no_grad():
            table.weight[self.indices] = self.values.to(table.weight)


def vector_files(cfg: Any, source: Dictionary, target: Dictionary) -> list[VectorFile]:
    """The files that ``--src-embed-path`` and ``--tgt-embed-path`` of a pair's task name."""
    files = (
        VectorFile("--src-embed-path", cfg.src_embed_path, cfg.source_lang, source, source == target),
        VectorFile("--tgt-embed-path", cfg.tgt_embed_path, cfg.target_lang, target, source == target),
    )
    return [file for file in files if file.path]


def reversed_model_options(model_cfg: Any) -> Any:
    """The model options of the reverse direction: word vectors by role are swapped, like the languages."""
    reverse = copy.deepcopy(model_cfg)
    if getattr(model_cfg, "share_all_embeddings", False):
        return reverse  # one table for both roles
    for option in ("embed_path", "freeze_embed"):
        encoder, decoder = f"encoder_{option}", f"decoder_{option}"
        if hasattr(model_cfg, encoder) and hasattr(model_cfg, decoder):
            set_options(reverse, {encoder: getattr(model_cfg, decoder), decoder: getattr(model_cfg, encoder)})
    return reverse


def read_word_vectors(file: VectorFile, dimension: int) -> WordVectors:
    """Read the vectors of a dictionary's symbols, one line in memory at a time.

    A symbol has a vector if the file has exactly that string: with BPE, train vectors on segmented text. fairseq's own
    symbols may have one (fastText's ``</s>``), except padding, whose embedding is 0. If a word has several lines, the
    first counts; words with spaces (GloVe 840B) are skipped.

    Args:
        file: the file, and the facts about it.
        dimension: of the embedding tables, D.

    Raises:
        UserError: the file is missing, damaged, of another format or dimension, or has none of the words.
    """
    dictionary = file.dictionary
    wanted = {symbol.encode(): index for index, symbol in enumerate(dictionary.symbols) if index != dictionary.pad()}
    vectors: dict[int, np.ndarray] = {}  # index → (D,)
    with _opened(file) as stream:
        lines = lines_of(stream, str(file))
        head = list(islice(lines, _HEAD))
        if head:
            head[0] = head[0].removeprefix(codecs.BOM_UTF8)
        promised, actual = _shape(head)
        if actual < 1:
            raise UserError(f"{file}: holds no word vectors; give {_FORMAT}")
        if actual != dimension:
            raise UserError(
                f"{file}: has vectors of {actual} numbers, but the model's embeddings have {dimension}; give such "
                f"vectors, or --encoder-embed-dim {actual} --decoder-embed-dim {actual}"
            )
        rows = 0
        for number, line in enumerate(chain(head, lines), start=1):
            if number == 1 and promised is not None:
                continue
            rows += 1
            word, *tail = line.split(None, 1) or (b"",)
            index = wanted.get(word)
            if index is None or index in vectors:
                continue
            numbers = tail[0].split() if tail else []
            if len(numbers) > dimension:
                continue  # the beginning of a word with spaces
            vector = _numbers(numbers)
            if len(vector) != dimension:
                raise UserError(
                    f"{file}: line {number}: '{word.decode(errors='replace')}' is not followed by {dimension} finite "
                    f"numbers; is the file complete? Give {_FORMAT}"
                )
            vectors[index] = vector
            if len(vectors) == len(wanted):
                break
        else:
            if promised is not None and rows < promised:
                logger.warning("%s: has %d of the %d vectors that its first line names", file, rows, promised)
    words = {index for index in range(dictionary.nspecial, len(dictionary)) if not _is_filler(dictionary[index])}
    covered = words & vectors.keys()
    if not covered:
        raise UserError(
            f"{file}: has none of the {len(words):,} words of dict.{file.language}.txt; give vectors of this language, "
            "trained on text with the same segmentation (dual-fairseq vectors)"
        )
    occurrences = sum(dictionary.count[index] for index in words)
    return WordVectors(
        indices=torch.tensor(list(vectors)),
        values=torch.from_numpy(np.stack(list(vectors.values()))),
        words=len(covered),
        known=len(words),
        tokens=sum(dictionary.count[index] for index in covered) / max(occurrences, 1),
    )


def start_from_vectors(
    models: Mapping[str, FairseqEncoderDecoderModel],
    languages: Mapping[str, tuple[str, str]],
    files: Sequence[VectorFile],
) -> None:
    """Give each language's vectors to the encoder that reads it and to the decoder that writes it.

    The numbers are copied unchanged, as with fairseq's own options; an arch that scales embeddings (a transformer by
    √d, without ``--no-scale-embedding``) scales these too. Symbols without a vector keep their initial values.

    Args:
        models: direction → its model, for new directions.
        languages: direction → (source, target).
        files: at most one per language.

    Raises:
        UserError: a file cannot be used (see :func:`read_word_vectors`), an arch has no single embedding table for
            words, or two files would fill one table.
    """
    tables = {
        file: [
            _table(model, role, direction, file)
            for direction, model in models.items()
            for role, language in zip(("encoder", "decoder"), languages[direction], strict=True)
            if language == file.language
        ]
        for file in files
        if models
    }
    _refuse_two_files(tables)
    for file, language_tables in tables.items():
        dimensions = sorted({table.embedding_dim for table in language_tables})
        if len(dimensions) > 1:
            raise UserError(
                f"{file}: embeddings have {dimensions[0]} numbers in one role and {dimensions[1]} in the other, but a "
                "pair has each language in both; give --encoder-embed-dim and --decoder-embed-dim the same value"
            )
        start_tables(language_tables, file)


def start_tables(tables: Sequence[nn.Embedding], file: VectorFile) -> None:
    """Copy a file's vectors into tables of one dimension, and log how much of the language they cover.

    Raises:
        UserError: the file cannot be used (see :func:`read_word_vectors`).
    """
    vectors = read_word_vectors(file, tables[0].embedding_dim)
    initial = _mean_norm(tables[0].weight.detach()[vectors.indices])
    for table in tables:
        vectors.copy_into(table)
    logger.info(
        "%s: %d of %d words of the %sdictionary (%.1f %%), %.1f %% of their occurrences, start from the vectors in %s; "
        "mean norm %.3g (initially %.3g)",
        file.language, vectors.words, vectors.known, "joint " if file.joint else "",
        100 * vectors.words / vectors.known, 100 * vectors.tokens, file.path, _mean_norm(vectors.values), initial,
    )  # fmt: skip


def check_options(files: Sequence[VectorFile], model_cfg: Any, arch: type | None) -> None:
    """Refuse vectors given both by language and by role, vectors that an arch would not freeze, and unequal sizes.

    Args:
        files: the vectors that are given.
        model_cfg: the model's options.
        arch: the class of the model.

    Raises:
        UserError: one of these cases.
    """
    roles = [name for name in _ROLE_OPTIONS if getattr(model_cfg, name, None)]
    sizes = [getattr(model_cfg, f"{role}_embed_dim", None) for role in ("encoder", "decoder")]
    if not files:
        if roles and sizes[0] != sizes[1]:
            raise UserError(
                f"{flag(roles[0])} {getattr(model_cfg, roles[0])}: a pair has each language in both roles, so "
                f"--encoder-embed-dim {sizes[0]} and --decoder-embed-dim {sizes[1]} must be equal"
            )
        return
    options = " and ".join(file.option for file in files)
    if roles:
        raise UserError(
            f"{flag(roles[0])} {getattr(model_cfg, roles[0])}: not together with {options}, which give each language "
            "its vectors in both directions; leave one kind out"
        )
    for name in ("encoder_freeze_embed", "decoder_freeze_embed"):
        if arch is LSTMModel and getattr(model_cfg, name, False):
            raise UserError(
                f"{flag(name)}: fairseq's lstm freezes only vectors that --encoder-embed-path and "
                f"--decoder-embed-path give; use these instead of {options}, or another arch"
            )


@contextmanager
def _opened(file: VectorFile):
    """A file as bytes, unpacked if it is gzip, with any name.

    Raises:
        UserError: it is missing, a folder, unreadable or damaged, even if this shows only during reading.
    """
    if Path(file.path).is_dir():
        raise UserError(f"{file}: is a folder; give a file of vectors")
    try:
        with open(file.path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain, "rb") if packed else plain as stream:
                yield stream
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{file}: damaged or incomplete gzip file; fetch or make it again") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from error


def _shape(head: Sequence[bytes]) -> tuple[int | None, int]:
    """(number of vectors, if the first line names it; numbers of each vector)."""
    first = head[0].split() if head else []
    if len(first) == 2 and all(cell.isdigit() and len(cell) <= LONGEST_NUMBER for cell in first):
        return int(first[0]), int(first[1])
    lengths = [len(line.split()) - 1 for line in head]
    return None, statistics.mode(lengths) if lengths else 0  # most words have no spaces


def _numbers(cells: Sequence[bytes]) -> np.ndarray:
    """(D,) float32; empty if a cell is not a finite number."""
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(cell) for cell in cells]).astype(np.float32)
    except ValueError:
        return np.empty(0, dtype=np.float32)
    return vector if np.isfinite(vector).all() else np.empty(0, dtype=np.float32)


def _is_filler(symbol: str) -> bool:
    return symbol.startswith("madeupword")  # fairseq fills dictionaries up to a multiple of 8


def _table(model: FairseqEncoderDecoderModel, role: str, direction: str, file: VectorFile) -> nn.Embedding:
    table = getattr(getattr(model, role, None), "embed_tokens", None)
    if not isinstance(table, nn.Embedding):  # an adaptive input has several
        raise UserError(f"{file}: the {role} of {direction} has no single embedding table to put vectors in")
    return table


def _refuse_two_files(tables: Mapping[VectorFile, Sequence[nn.Embedding]]) -> None:
    owner: dict[int, VectorFile] = {}  # by table
    for file, language_tables in tables.items():
        for table in language_tables:
            other = owner.setdefault(id(table.weight), file)
            if other.path != file.path:
                raise UserError(
                    f"{other} and {file}: --share-all-embeddings makes one table for both languages; give one file "
                    "for both (dual-fairseq vectors --joint)"
                )


def _mean_norm(rows: Tensor) -> float:
    return rows.norm(dim=-1).mean().item()
