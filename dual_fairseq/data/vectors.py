"""``dual-fairseq vectors``: trains word vectors on the text that a pair's models see.

Skip-gram with negative sampling (Mikolov et al., NIPS 2013) by gensim, which is optional. A language's vectors are
trained on its training text and extra monolingual text in ``DEST/segmented``. This text consists of the dictionary's
symbols, so every symbol can have a vector.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.arguments import Parser
from ..common.errors import UserError, import_package
from ..common.files import sha256, whole_file, write_json
from ..common.folders import Data
from ..common.options import add_seed, add_workers, whole_number
from ..common.progress import Progress, say
from ..common.records import parse_json
from .options import number
from .subword import text_lines

DESCRIPTION = """\
Train word vectors of both languages (skip-gram, by gensim). The embeddings of a model can start from them.

The vectors are trained on the training text of each language, as the models see it (DEST/segmented), and on its extra
monolingual text, if any. They are written to DEST/vectors/<lang>.vec, in the text format of word2vec, for

    fairseq-train ... --src-embed-path DEST/vectors/<source>.vec --tgt-embed-path DEST/vectors/<target>.vec

Running the same command again does nothing; with other options or other text it trains the vectors again. It needs
gensim, which `make setup` does not install: pip install gensim. With more than one worker the vectors differ slightly
from run to run."""


class Sentences:
    """The lines of several files as lists of words; they can be read several times.

    Args:
        files: text, words separated by spaces.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __iter__(self) -> Iterator[list[str]]:
        for file in self.files:
            for line in text_lines(file):
                yield line.split()


def training_text(dest: Path, language: str) -> list[Path]:
    """The segmented text of a language in the folder of ``dual-fairseq preprocess``.

    Raises:
        UserError: the text is missing.
    """
    train, mono = (dest / "segmented" / f"{name}.{language}" for name in ("train", "mono"))
    if not train.is_file():
        raise UserError(f"{train}: there is no such file; run dual-fairseq preprocess again")
    return [train, mono] if mono.is_file() else [train]


def train(files: Sequence[Path], title: str, options: argparse.Namespace) -> Any:
    """Train skip-gram vectors.

    Args:
        files: the text.
        title: the name of the vectors in the progress bar.
        options: from :func:`get_parser`.

    Returns:
        gensim's ``KeyedVectors``, the most frequent word first.

    Raises:
        UserError: no word is frequent enough.
    """
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    with Progress(f"vectors: {title}", options.epochs, "epochs") as bar:

        class Epochs(CallbackAny2Vec):
            def on_epoch_end(self, model: Any) -> None:
                bar.update(1)

        model = Word2Vec(
            sg=1,
            vector_size=options.dim,
            window=options.window,
            negative=options.negative,
            min_count=options.min_count,
            seed=options.seed,
            workers=options.workers,
            epochs=options.epochs,
        )
        sentences = Sentences(files)
        model.build_vocab(sentences)
        if not len(model.wv):
            raise UserError(
                f"--min-count {options.min_count}: no word of {title} occurs this often; give a smaller number"
            )
        model.train(sentences, total_examples=model.corpus_count, epochs=options.epochs, callbacks=[Epochs()])
    return model.wv


def scaled(values: np.ndarray, norm: float) -> np.ndarray:
    """Vectors multiplied by one factor, so that angles do not change and the mean norm is ``norm``; 0: no factor.

    Args:
        values: (N, D).
    """
    return values * (norm / np.linalg.norm(values, axis=1).mean()) if norm else values


def write_vectors(words: Sequence[str], values: np.ndarray, path: Path) -> None:
    """Write vectors in the text format of word2vec, whole or not at all.

    Args:
        words: N words.
        values: (N, D).
        path: the file.
    """
    with whole_file(path) as file:
        file.write("{} {}\n".format(*values.shape).encode())
        for word, row in zip(words, values.tolist(), strict=True):
            file.write(f"{word} {' '.join(f'{value:.6g}' for value in row)}\n".encode())


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("vectors", DESCRIPTION)
    parser.add_argument("dest", type=Path, metavar="DEST", help="the folder that dual-fairseq preprocess wrote")
    for name, default, text in (
        ("dim", 256, "numbers in a vector: the model's --encoder-embed-dim and --decoder-embed-dim"),
        ("window", 5, "words on each side that a word predicts"),
        ("negative", 5, "random words that each of these is compared with"),
        ("min-count", 1, "no vectors for words that occur less often"),
        ("epochs", 10, "times through the text"),
    ):
        parser.add_argument(
            f"--{name}", type=whole_number(), default=default, metavar="N", help=f"{text} (default %(default)s)"
        )
    parser.add_argument(
        "--norm", type=number, default=1.0, metavar="X",
        help="mean norm of the vectors, all multiplied by one factor (default 1, which is that of a Transformer's own "
        "initial embeddings; 0: no factor)",
    )  # fmt: skip
    add_seed(parser)
    add_workers(parser)
    parser.add_argument(
        "--joint", action="store_true",
        help="one file for both languages, DEST/vectors/<source>-<target>.vec, for a model with --share-all-embeddings "
        "(and data of --joined-dictionary): give it as both options",
    )  # fmt: skip
    return parser


def _gensim_version() -> str:
    """The version of gensim; raises UserError if it is not installed."""
    return str(import_package("gensim", "trains the vectors").__version__)


def run(options: argparse.Namespace) -> None:
    """Train the vectors that are not yet trained with these options on this text.

    Raises:
        UserError: gensim or the text is missing.
    """
    languages = Data.from_folder(options.dest).languages
    version = _gensim_version()
    logging.getLogger("gensim").setLevel(logging.ERROR)  # gensim warns if text is too small for its threads
    groups = {"-".join(languages): languages} if options.joint else {language: (language,) for language in languages}
    texts = {
        name: [file for lang in group for file in training_text(options.dest, lang)] for name, group in groups.items()
    }
    folder = options.dest / "vectors"
    folder.mkdir(exist_ok=True)
    for name in texts:
        if (folder / f"{name}.vec").is_file() and not (folder / f"{name}.json").is_file():
            raise UserError(f"{folder / name}.vec: was not made by this command; move it to another folder")
    for name, files in texts.items():
        path, record_path = folder / f"{name}.vec", folder / f"{name}.json"
        record = {
            "options": {key: value for key, value in vars(options).items() if key not in ("dest", "joint", "workers")},
            "text": {str(file.relative_to(options.dest)): sha256(file) for file in files},
            "gensim": version,
        }
        if path.is_file() and _read(record_path) == record:
            say(f"vectors: {name}: finished before ({path})")
            continue
        vectors = train(files, name, options)
        write_json(record_path, {})  # the old one belongs to the old vectors
        write_vectors(vectors.index_to_key, scaled(vectors.vectors, options.norm), path)
        write_json(record_path, record)
        say(f"vectors: {name}: {len(vectors):,} vectors of {options.dim} numbers: {path}")


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Raises:
        UserError: an option or the folder is wrong, or gensim is missing.
    """
    run(get_parser().parse_args(arguments))
