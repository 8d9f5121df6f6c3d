"""The folders that commands write: DEST (preprocessing) and RUN (training, with its stages)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dictionaries import counted_symbols
from .errors import UserError
from .files import whole_file, write_json
from .records import read_record
from .segmentation import ANNOTATIONS, POST_PROCESS, Side, by_language, pieces_of_dictionary
from .settings import SHARED_WORDS

# The stages of a pair in RUN, in the order of tables: folder → name for people.
STAGES = {"warmup": "warm start", "mle": "MLE continued", "dual": "dual"}
BEST, LAST, AVERAGE = "checkpoint_best.pt", "checkpoint_last.pt", "checkpoint_average.pt"
RECORD = "preprocess.json"
LENGTHS = "lengths.json"  # beside the dictionaries: the length limits of translations
# The part of the record that says how text is processed; the rest names files of one machine. If the two languages are
# processed differently, tokenizer, subword and bpe hold one value per language.
_BPE = {"type?": (None, str), "pieces?": (None, str)}
_SHARES = {str: float}  # by text
WRITING = {str: {"upper": float, "apart": float, "length": float}}  # how the training text of a language is written
_SHAPE = {
    "source": str, "target": str, "normalized?": bool, "tokenizer": ({str: str}, str), "normalize_punctuation?": bool,
    "lowercase?": bool, "subword": ({str: str}, str), "bpe?": (None, {str: _BPE}, _BPE),
    "writing?": WRITING, "dictionary?": (None, {"unknown_share?": (None, _SHARES)}),
}  # fmt: skip
_KEPT = (
    "source", "target", "normalized", "tokenizer", "normalize_punctuation", "lowercase", "subword", "bpe", "dictionary",
    "writing", "versions",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """The output of preprocessing (DEST), or the part that a run keeps (RUN/text).

    Attributes:
        folder: its path.
        source, target: language codes.
        normalized: whether text was normalised (composed, without invisible characters) and words that Moses would
            split stay whole; earlier versions did neither.
        normalize_punctuation: whether Moses' rules normalised the punctuation of tokenised text.
        lowercase: whether all text is in lower case.
        sides: how the text of each language becomes tokens.
        record: all of ``preprocess.json``.
    """

    folder: Path
    source: str
    target: str
    normalized: bool
    normalize_punctuation: bool
    lowercase: bool
    sides: dict[str, Side]
    record: dict[str, Any]

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Data:
        """Read and check the record.

        Raises:
            UserError: the record is missing, damaged, or from another version of this package.
        """
        path = Path(folder) / RECORD
        record = read_record(path, _SHAPE, "give the folder that dual-fairseq preprocess wrote, or make it again")
        normalized = record.get("normalized", False)
        data = cls(
            Path(folder),
            record["source"],
            record["target"],
            normalized,
            record.get("normalize_punctuation", not normalized),
            record.get("lowercase", False),
            {},
            record,
        )
        if not all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]*", code) for code in data.languages):
            raise UserError(f"{path}: is damaged (no language codes); run dual-fairseq preprocess again")
        data.sides.update({language: data._side(language) for language in data.languages})
        return data

    @classmethod
    def of_binarized(cls, folder: str | os.PathLike[str]) -> Data | None:
        """The data of a folder with dictionaries (DEST/dual, RUN/text); None if another program binarized it.

        Raises:
            UserError: see :meth:`from_folder`.
        """
        for candidate in (Path(folder), Path(folder).parent):
            if (candidate / RECORD).is_file():
                data = cls.from_folder(candidate)
                return data if data.dual.resolve() == Path(folder).resolve() else None
        return None

    def _side(self, language: str) -> Side:
        """Raises UserError if the record names a method that is unknown here."""
        tokenizer, subword, bpe = (
            by_language(value, self.languages)[language]
            for value in (self.record["tokenizer"], self.record["subword"], self.record.get("bpe") or {})
        )
        segmentation = bpe.get("type")
        expected = (None, "subword-nmt" if subword == "bpe" else subword)
        if tokenizer not in ("moses", "none") or subword not in list(POST_PROCESS) or segmentation not in expected:
            raise UserError(
                f"{self.folder / RECORD}: names a tokenizer or segmentation unknown here ({tokenizer}, {subword}, "
                f"{segmentation}); update dual-fairseq"
            )
        pieces = POST_PROCESS[subword]
        if subword == "bpe" and segmentation is None:
            pieces = bpe["pieces"] if "pieces" in bpe else self._pieces_by_an_earlier_version()
        if pieces not in POST_PROCESS.values():
            raise UserError(f"{self.folder / RECORD}: names pieces unknown here ({pieces}); update dual-fairseq")
        return Side(tokenizer, subword, segmentation in ("subword-nmt", "sentencepiece"), pieces)

    def _pieces_by_an_earlier_version(self) -> str | None:
        """The kind of pieces in the input text, which the record does not name."""
        return next(
            filter(None, (pieces_of_dictionary(self.dictionary(language)) for language in self.languages)), None
        )

    @property
    def languages(self) -> tuple[str, str]:
        return self.source, self.target

    @property
    def pair(self) -> str:
        return f"{self.source}-{self.target}"

    @property
    def shares_words(self) -> bool:
        """Whether both sides have one dictionary because they share many words."""
        dictionary, overlap = self.record.get("dictionary"), self.record.get("overlap")
        joined = isinstance(dictionary, dict) and bool(dictionary.get("joined"))
        return joined and isinstance(overlap, float) and overlap >= SHARED_WORDS

    @property
    def dual(self) -> Path:
        """The folder of the binarized pair, with the dictionaries."""
        return self.folder / "dual" if (self.folder / "dual").is_dir() else self.folder

    def dictionary(self, language: str) -> Path:
        return self.dual / f"dict.{language}.txt"

    @property
    def has_annotations(self) -> bool:
        """Whether one side is labels or tags."""
        return any(side.subword in ANNOTATIONS for side in self.sides.values())

    def labels(self, language: str) -> list[str]:
        """The labels of a side of labels, most frequent first; empty for text."""
        return counted_symbols(self.dictionary(language)) if self.sides[language].labels else []

    def codes(self, language: str) -> Path:
        """The BPE codes or the SentencePiece model of a language."""
        folder = self.folder / "bpe" if (self.folder / "bpe").is_dir() else self.folder
        return folder / codes_name(self.sides[language].subword, language)

    def raw(self, split: str, language: str) -> Path:
        """The text of a split, clean but not tokenised."""
        return self.folder / "raw" / f"{split}.{language}"

    def index(self, split: str, language: str) -> Path:
        """The index of one side of a binarized split."""
        return self.dual / f"{split}.{self.pair}.{language}.idx"

    def kept(self) -> dict[str, Any]:
        """The part of the record that :meth:`keep` copies."""
        return {key: self.record[key] for key in _KEPT if key in self.record}

    def files_to_keep(self) -> list[Path]:
        """The files that are needed, with a checkpoint and the record, to translate."""
        files = [self.dictionary(language) for language in self.languages]
        codes = (self.codes(language) for language, side in self.sides.items() if side.has_codes)
        files += [file for file in codes if file.is_file()]
        return files + ([self.dual / LENGTHS] if (self.dual / LENGTHS).is_file() else [])

    def keep(self, folder: Path) -> None:
        """Copy :meth:`files_to_keep` and the record to ``folder`` (RUN/text)."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in self.files_to_keep():
            with whole_file(folder / file.name) as copy:
                copy.write(file.read_bytes())
        write_json(folder / RECORD, self.kept())


def codes_name(subword: str, language: str) -> str:
    """The name of the file that segments a language's words."""
    return f"sentencepiece.{language}.model" if subword == "sentencepiece" else f"codes.{language}"


@dataclass(frozen=True)
class StageFolder:
    """The folder of one training by fairseq-train: a stage of a pair, or a language model."""

    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / BEST

    @property
    def last(self) -> Path:
        return self.folder / LAST

    @property
    def average(self) -> Path:
        """The mean of the last checkpoints, if it was requested."""
        return self.folder / AVERAGE

    @property
    def result(self) -> Path:
        """The checkpoint to use: the average if there is one, else the best."""
        return self.average if self.average.is_file() else self.best

    def checkpoints(self, by_update: bool) -> list[tuple[int, Path]]:
        """The number and file of each kept checkpoint of an epoch, or of an update; the last one is first."""
        pattern = r"checkpoint_\d+_(\d+)\.pt" if by_update else r"checkpoint(\d+)\.pt"
        names = ((file, re.fullmatch(pattern, file.name)) for file in self.folder.glob("checkpoint*.pt"))
        return sorted(((int(name[1]), file) for file, name in names if name), reverse=True)

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def finished(self) -> Path:
        """A file that exists once the training has finished."""
        return self.folder / "finished"

    @property
    def perplexity(self) -> Path:
        """The score of a finished language model."""
        return self.folder / "perplexity.json"

    @property
    def begun(self) -> bool:
        """Whether it was trained, at least until its first checkpoint."""
        return any(file.is_file() for file in (self.finished, self.best, self.last))

    def check_finished(self) -> None:
        """Raises UserError if the training has finished but its checkpoint is gone."""
        if self.finished.is_file() and not self.result.is_file():
            raise UserError(
                f"{self.best} is missing, but its training has finished: put it back, or delete {self.folder} to train "
                "again"
            )

    @property
    def options_file(self) -> Path:
        return self.folder / "options.txt"

    def recorded(self) -> list[str]:
        """The lines of ``options.txt``: digests of the input, then the options of fairseq-train."""
        return recorded_lines(self.options_file)

    def options(self) -> dict[str, str]:
        """The options of the training, without dashes."""
        return dict(self.option_values())

    def option_values(self) -> Iterator[tuple[str, str]]:
        """The name and value of each option, in order; the user's own come last.

        Other commands use them, and the file may come from a stranger.

        Raises:
            UserError: a value looks like an option.
        """
        for line in self.recorded():
            if line.startswith("--"):
                name, _, value = line[2:].partition(" ")
                if value.startswith("--"):
                    raise UserError(f"{self.options_file}: is damaged ({line!r}); delete {self.folder} to train again")
                yield name, value

    def updates(self) -> int:
        """The number of updates by the log; 0 if it has none."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        return max(map(int, re.findall(r'"(?:train|valid)_num_updates": "([0-9]{1,12})"', text)), default=0)

    def evaluation(self, split: str) -> Path:
        """The folder of translations and scores of a split."""
        return self.folder / "eval" / split


@dataclass(frozen=True)
class RunFolder:
    """The folder that ``dual-fairseq train`` writes."""

    folder: Path

    @classmethod
    def of(cls, checkpoint: str | os.PathLike[str]) -> RunFolder:
        """The run of a checkpoint that is in the folder of a stage."""
        stage = Path(checkpoint).parent
        if stage.name in ("", ".."):  # such a path does not name the folder above
            stage = Path(os.path.abspath(stage))
        return cls(stage.parent)

    def stage(self, name: str) -> StageFolder:
        """One of :data:`STAGES`."""
        return StageFolder(self.folder / name)

    def trainings(self, name: str) -> list[StageFolder]:
        """The trainings of a stage: only itself; for the best of several rounds, also the rounds before it."""
        folder = self.stage(name).folder.resolve()
        rounds, number = folder.parent.parent, folder.parent.name
        if rounds != self.folder.resolve() / "rounds" or not re.fullmatch("[0-9]{1,4}", number):
            return [self.stage(name)]
        return [StageFolder(rounds / str(n) / name) for n in range(1, int(number) + 1)]

    def updates(self, name: str) -> int:
        """The number of updates of a stage, in all its :meth:`trainings`."""
        return sum(training.updates() for training in self.trainings(name))

    def language_model(self, language: str) -> StageFolder:
        return StageFolder(self.folder / "lm" / language)

    @property
    def text(self) -> Path:
        """The files of DEST that translation needs: see :meth:`Data.keep`."""
        return self.folder / "text"


def recorded_lines(record: Path) -> list[str]:
    """The lines of an ``options.txt``; none if it is missing."""
    if not record.is_file():
        return []
    lines = record.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").split("\n")
    return [option_line(line) for line in lines]


def option_line(text: str) -> str:
    """An option, a space and its value, even if it was given as ``--option=value``."""
    return re.sub(r"\A(--[\w-]+)=", r"\1 ", text)


def refuse_colons(*paths: Path | None) -> None:
    """Raises UserError if a path contains ``:``, which fairseq reads as a separator of paths."""
    for path in paths:
        if ":" in str(path):
            raise UserError(f"fairseq reads ':' in a path as a separator: rename {path}")


def find_run(folder: Path) -> Path | None:
    """The folder that holds stages: ``folder``, or its subfolder ``train`` (the demo's run); else None."""
    return next((f for f in (folder, folder / "train") if any((f / stage).is_dir() for stage in STAGES)), None)


def find_checkpoint(run: str | os.PathLike[str], languages: tuple[str | None, ...] = ()) -> Path:
    """The checkpoint to use for a pair.

    Args:
        run: a checkpoint file; or a folder of ``dual-fairseq train``: the best checkpoint of the stage ``dual``, else
            of ``mle``, else of ``warmup``; or the folder of one stage (any folder of checkpoints): the best, else the
            last. An average is used instead of the best. If a folder has none of these, the file of
            ``dual-fairseq export`` in it, such as ``de-en.pt``.
        languages: the source and the target, or None, that decide if a folder has several such files; leave them out
            if the user cannot name them.

    Raises:
        UserError: there is no checkpoint, or a finished stage lost its own.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder or checkpoint")
    path = find_run(path) or path
    for folder in (*(StageFolder(path / stage) for stage in reversed(STAGES)), StageFolder(path)):
        folder.check_finished()
        if folder.folder != path and folder.result.is_file():
            return folder.result
    for checkpoint in (StageFolder(path).result, path / LAST):
        if checkpoint.is_file():
            return checkpoint
    exported = _exported(path)
    asked = exported if len(exported) == 1 else _exported(path, *languages)
    if len(asked) == 1:
        return asked[0]
    if exported:
        several = ", ".join(file.name for file in exported)
        named = ", or its languages with -s and -t" if languages else ""
        raise UserError(f"{path}: holds several models ({several}); name one of them{named}")
    if (path / "model.bin").is_file() and (path / "config.json").is_file():
        origin = " or ".join(map(str, _exported(path.parent, *languages))) or "the checkpoint that it was made from"
        raise UserError(
            f"{path}: holds a model of CTranslate2, which does not say how text becomes tokens; give {origin} with "
            "--engine ctranslate2, which converts it"
        )
    names = [f"{stage}/{BEST}" for stage in reversed(STAGES)] + [BEST, LAST]
    raise UserError(f"{path}: holds no checkpoint of a pair ({', '.join(names)}); has dual-fairseq train run?")


def _exported(folder: Path, source: str | None = None, target: str | None = None) -> list[Path]:
    """The files of ``dual-fairseq export`` in a folder, by their names; None for any language."""
    names = ((file, re.fullmatch(r"(\w+)-(\w+)\.pt", file.name)) for file in sorted(folder.glob("*-*.pt")))
    return [file for file, name in names if name and source in (None, name[1]) and target in (None, name[2])]
