"""The content of a recipe file: data, language models, a warm start and the ways to continue from it."""

from __future__ import annotations

import argparse
import re
import shlex
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..common.arguments import did_you_mean
from ..common.errors import UserError
from ..common.folders import BEST, STAGES, Data, RunFolder, StageFolder
from ..common.options import add_device, whole_number
from ..common.records import check_shape, read_toml
from ..pipeline import synthesize, train_lm, train_options

TAKEN = ("baseline", "data", "lm", "logs", "parallel", "shared", "text")  # other folders in WORK
WHOLE_PLACES = ("data", "text")  # the names that a command may have in braces
PART_PLACES = (*WHOLE_PLACES, "whole")

_ROW = {
    "id": str, "name": str, "options?": str, "language_models?": str, "synthetic?": str, "baseline?": bool,
    "stage?": str,
}  # fmt: skip
_VARIANT = {"id": str, "name": str, "options?": str, "preprocess?": str}
_SHAPE = {
    "title": str, "row": [_ROW], "only?": [str],
    "variant?": [_VARIANT],
    "data?": str, "run?": str, "source?": str, "target?": str, "part?": str, "corpus?": [str], "part_corpus?": [str],
    "test?": str, "test_corpus?": [str],
    "language_models?": {str: {"options?": str, "text?": str}},
    "synthetic?": {str: {"options?": str, "upsample?": range(1, 1000), "with?": [str]}},
    "pair_options?": str, "warmup_options?": str, "continued_options?": str,
    "comparisons?": [[str]], "one_warm_start?": bool, "beam?": range(1, 10_000),
}  # fmt: skip
_MADE = ("data-", "synthetic-")  # prefixes of the other folders beside the rows' folders
_FOLDER = re.compile(r"\w[\w.-]*")  # the names in a recipe become folders


Made = TypeVar("Made")


@dataclass
class Row:
    """A way to continue from the warm start.

    Args:
        id: its folder, in WORK/seed-N or WORK/PART/seed-N.
        name: in the table.
        options: of dual-fairseq train.
        language_models: which of the recipe's language models it uses.
        synthetic: which of the recipe's synthetic text is in its training data.
        baseline: whether the other rows are compared with it.
        stage: the stage of dual-fairseq train that is evaluated.
    """

    id: str
    name: str
    options: str = ""
    language_models: str = ""
    synthetic: str = ""
    baseline: bool = False
    stage: str = "dual"


@dataclass
class Variant:
    """Another warm start.

    Args:
        id: its folder, in WORK/baseline or WORK/PART/baseline.
        name: in the table.
        options: of dual-fairseq train.
        preprocess: options of dual-fairseq preprocess.
    """

    id: str
    name: str
    options: str = ""
    preprocess: str = ""


@dataclass
class Recipe:
    """The content of a recipe file; ``*_options`` are options of the command in question.

    A file may name another one as ``base`` and hold only the differences; a base may have a base too. A list of ids,
    ``only``, leaves out all other rows. A file's own rows replace both the rows and the ``only`` of its base.

    Args:
        title: of the table.
        data: the folder that dual-fairseq preprocess made, relative to the current directory.
        run: a run of dual-fairseq train on ``data``. All rows use its warm start and language models, so that none are
            trained.
        corpus: instead of ``data``, commands of dual-fairseq or Python that make it; ``{data}`` stands for the folder
            of dual-fairseq preprocess, ``{text}`` for a folder for raw text.
        language_models: name → options of dual-fairseq train-lm and ``text``, "all" or "parallel". By default one pair
            with train-lm's own settings.
        pair_options: of dual-fairseq train, for the warm start and all rows.
        warmup_options, continued_options: for the warm start, and for the other rows.
        rows: the first is the warm start itself.
        source, target: the languages; by default those of ``data``.
        synthetic: name → options of dual-fairseq synthesize, with which each warm start makes this text, ``upsample``
            of dual-fairseq preprocess, and ``with``, the names of other synthetic text to use together with this text.
        comparisons: pairs of row ids, in addition to the comparisons with the baseline.
        variants: other warm starts, which were compared to choose this one (for experiments/baseline.py).
        part, part_corpus: a folder in WORK, and commands that make another corpus there (``{whole}`` stands for the
            folder of ``corpus``), with the same BPE and dictionaries. Pairs are trained on this corpus, in that folder.
            Language models are trained on ``corpus``, so parts of different sizes share them.
        test, test_corpus: a name, and commands that make a folder of dual-fairseq preprocess with other test text, with
            the same BPE and dictionaries (``{data}`` stands for this folder) and with validation text. All rows are
            evaluated on that text.
        one_warm_start: every seed continues from the same warm start (seed 1), in the folder ``shared``. This saves
            most of the time of long warm starts; the spread between seeds then comes from the continuation alone.
    """

    title: str
    rows: list[Row]
    data: str = ""
    run: str = ""
    corpus: list[str] = field(default_factory=list)
    language_models: dict[str, dict[str, str]] = field(default_factory=lambda: {"all": {}})
    pair_options: str = ""
    warmup_options: str = ""
    continued_options: str = ""
    synthetic: dict[str, dict[str, Any]] = field(default_factory=dict)
    comparisons: list[list[str]] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    part: str = ""
    part_corpus: list[str] = field(default_factory=list)
    test: str = ""
    test_corpus: list[str] = field(default_factory=list)
    one_warm_start: bool = False
    beam: int = 5
    source: str = ""
    target: str = ""

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a file.

        Raises:
            UserError: the file cannot be read, or is not a recipe.
        """
        try:
            content = read_with_bases(path)
            check_shape(content, _SHAPE)
            rows = [_made(Row, row) for row in content.pop("row")]
            if (only := content.pop("only", None)) is not None:
                if unknown := set(only) - {row.id for row in rows}:
                    raise ValueError(f"only: there is no row {', '.join(sorted(unknown))}")
                rows = [row for row in rows if row.id in only]
            rows.insert(0, Row("warmup", "warm start", stage="warmup"))
            variants = [_made(Variant, variant) for variant in content.pop("variant", [])]
            recipe = _made(cls, {"rows": rows, "variants": variants, **content})
            recipe.check()
            recipe.one_warm_start = recipe.one_warm_start or bool(recipe.run)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: is not a recipe: {error}") from error
        if sum(row.baseline for row in rows) != 1:
            raise UserError(f"{path}: one row must be the baseline")
        recipe.find_languages(path)
        ids = {row.id for row in rows}
        recipe.comparisons = [
            pair for pair in recipe.comparisons if ids.issuperset(pair)
        ]  # ``only`` may leave rows out
        for row in rows[1:]:
            row.language_models = row.language_models or recipe.first_language_models
            if row.language_models not in recipe.language_models:
                raise UserError(f"{path}: row {row.id}: there are no language models '{row.language_models}'")
            if row.synthetic and row.synthetic not in recipe.synthetic:
                raise UserError(f"{path}: row {row.id}: there is no synthetic text '{row.synthetic}'")
        # drop settings that no row needs; the first language models evaluate the warm start
        needed = {recipe.first_language_models, *(row.language_models for row in rows)}
        recipe.language_models = {name: settings for name, settings in recipe.language_models.items() if name in needed}
        needed = {row.synthetic for row in rows}
        needed |= {other for name in needed & set(recipe.synthetic) for other in recipe.synthetic[name].get("with", [])}
        recipe.synthetic = {name: settings for name, settings in recipe.synthetic.items() if name in needed}
        return recipe

    def find_languages(self, path: Path) -> None:
        """Complete the languages.

        Args:
            path: of the recipe, for messages.

        Raises:
            UserError: there are none, or ``data`` is no folder of dual-fairseq preprocess, has labels or no test text.
        """
        if self.data:
            if self.synthetic and any(row.synthetic for row in self.rows):
                raise UserError(f"{path}: the commands of corpus preprocess synthetic text: give corpus, not data")
            data = refuse_labels(Data.from_folder(self.data))
            languages = data.languages
            if not self.test and not all(data.index("test", language).is_file() for language in languages):
                raise UserError(
                    f"{path}: data {self.data} has no test text to compare rows on; make it with --test of "
                    "dual-fairseq preprocess"
                )
        else:
            languages = ("de", "en")  # as in the recipes for Multi30k and the embedded corpus
        self.source, self.target = self.source or languages[0], self.target or languages[1]

    def check(self) -> None:
        """Raises ValueError or LookupError if a part of the recipe cannot become a command."""
        self._check_names()
        self._check_options()
        self._check_synthetic()
        self._check_combinations()
        self._check_places()

    def _check_names(self) -> None:
        for kind, names in (
            ("row", [row.id for row in self.rows]),
            ("variant", [variant.id for variant in self.variants]),
            ("language_models", list(self.language_models)),
            ("synthetic", list(self.synthetic)),
        ):
            for name in names:
                if not _FOLDER.fullmatch(name) or names.count(name) > 1 or (kind == "row" and name.startswith(_MADE)):
                    raise ValueError(f"{kind} {name!r}: give a name of its own, of letters, digits, dots and dashes")
        if unknown := [row.stage for row in self.rows if row.stage not in STAGES]:
            raise ValueError(f"stage {unknown[0]!r}: is not one of {', '.join(STAGES)}")
        if self.part and (
            not re.fullmatch(r"[\w-]+", self.part) or self.part in TAKEN or self.part.startswith(("seed-", "test-"))
        ):
            raise ValueError(f"part {self.part!r}: give a folder's name that WORK does not use itself, such as '1k'")
        if self.test and not _FOLDER.fullmatch(self.test):
            raise ValueError(f"test {self.test!r}: give a folder's name, such as '2017'")

    def _check_options(self) -> None:
        train = [self.pair_options, self.warmup_options, self.continued_options]
        train += [row.options for row in self.rows] + [variant.options for variant in self.variants]
        lm_options, synthetic_options = (
            [settings.get("options", "") for settings in named.values()]
            for named in (self.language_models, self.synthetic)
        )
        for parser, arguments, texts in (
            (train_options.get_parser(), ["DEST", "RUN"], train),
            (train_lm.get_parser(), ["DATA", "SAVE_DIR"], lm_options),
            (synthesize.get_parser(), ["DEST", "CHECKPOINT", "OUT"], synthetic_options),
        ):
            for options in texts:
                try:
                    parser.parse([*arguments, *shlex.split(options)])
                except UserError as error:
                    raise ValueError(f"options {options!r}: {error}") from error
        for variant in self.variants:
            shlex.split(variant.preprocess)

    def _check_synthetic(self) -> None:
        for name, settings in self.synthetic.items():
            others = settings.get("with", [])
            for i, other in enumerate(others):
                if other not in self.synthetic or other in (name, *others[:i]):
                    raise ValueError(f"synthetic.{name}: with: there is no other synthetic text '{other}'")
                if self.synthetic[other].get("with"):
                    raise ValueError(f"synthetic.{name}: with: '{other}' has a with of its own; name all texts here")

    def _check_combinations(self) -> None:
        if wrong := [ids for ids in self.comparisons if len(ids) != 2]:
            raise ValueError(f"comparisons {wrong[0]}: give the ids of two rows")
        if bool(self.data) == bool(self.corpus):
            raise ValueError("give data, or the commands of corpus that make it")
        if self.run and (self.corpus or len(self.language_models) > 1 or self.warmup_options):
            raise ValueError(
                "run needs data, and already has a warm start and language models: leave out the options of both"
            )
        if bool(self.part) != bool(self.part_corpus):
            raise ValueError("give part and part_corpus both, or neither")
        if bool(self.test) != bool(self.test_corpus):
            raise ValueError("give test and test_corpus both, or neither")

    def _check_places(self) -> None:
        for commands, places in (
            (self.corpus, WHOLE_PLACES), (self.part_corpus, PART_PLACES), (self.test_corpus, PART_PLACES),
        ):  # fmt: skip
            for command in commands:
                for _, place, form, conversion in string.Formatter().parse(command):
                    if place is not None and (place not in places or form or conversion):
                        raise LookupError(f"{{{place}}} in a command: is not one of {', '.join(places)}")
                if not shlex.split(command):
                    raise ValueError("a command of corpus is empty")

    @property
    def first_language_models(self) -> str:
        """The name of the language models that a row uses by default."""
        return next(iter(self.language_models))

    def home(self, row: Row, seed: int) -> str:
        """The folder in WORK that holds the row's run of this seed."""
        folder = "shared" if self.one_warm_start and row.stage == "warmup" else f"seed-{seed}"
        return f"{self.part}/{folder}" if self.part else folder

    def folders(self, work: Path, row: Row, seeds: Sequence[int]) -> list[Path]:
        """The folders of the row's runs in WORK; only one if the seeds share a warm start."""
        return list(dict.fromkeys(work / self.home(row, seed) / row.id for seed in seeds))

    def whole(self, work: Path) -> Path:
        """The folder of dual-fairseq preprocess that the language models are trained on."""
        return Path(self.data).resolve() if self.data else work / "data"

    def of_pairs(self, work: Path) -> Path:
        """The folder of dual-fairseq preprocess that the pairs are trained on."""
        return work / self.part / "data" if self.part else self.whole(work)

    def data_of(self, work: Path, row: Row, seed: int) -> Path:
        """The folder of dual-fairseq preprocess that a row is trained on."""
        home = work / self.home(self.rows[0], seed)
        return home / f"data-{row.synthetic}" if row.synthetic else self.of_pairs(work)

    def test_data(self, work: Path) -> Path | None:
        """The folder of dual-fairseq preprocess that has the recipe's own test text, if it has one."""
        return work / f"test-{self.test}" if self.test else None

    def language_models_of(self, work: Path, name: str) -> list[str]:
        """The options that name the language models of a row; the warm start's evaluation uses the first ones."""
        folder = work / "lm" / (name or self.first_language_models)
        files = [folder / language / BEST for language in (self.source, self.target)]
        return ["--src-lm", str(files[0]), "--tgt-lm", str(files[1])]

    def evaluation(self, work: Path, row: Row, seed: int, data: Path | None = None) -> list[object]:
        """The arguments of dual-fairseq evaluate for a row's run, for :func:`resolved`.

        Args:
            data: the folder that has the test text (default: the recipe's own test text, or the row's data).
        """
        stage = RunFolder(work / self.home(row, seed) / row.id).stage(row.stage)
        lms = self.language_models_of(work, row.language_models)
        data = data or self.test_data(work) or self.data_of(work, row, seed)
        return [data, stage, *lms, "--dual-inference", "--beam", self.beam]


def resolved(arguments: Iterable[object]) -> list[str]:
    """The words of a command. A :class:`StageFolder` stands for its result, which is known only after its training."""
    return [str(word.result if isinstance(word, StageFolder) else word) for word in arguments]


def refuse_labels(data: Data) -> Data:
    """Raises UserError if a side is labels, which have no BLEU to compare."""
    if data.has_annotations:
        raise UserError(
            f"{data.folder}: has labels or tags, but an experiment compares BLEU; run dual-fairseq train for each seed"
        )
    return data


def _made(kind: type[Made], values: dict[str, Any]) -> Made:
    """Raises ValueError or TypeError if a value is unknown or missing."""
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    for name in values:
        if name not in known:
            raise ValueError(f"unknown key {name}{did_you_mean(name, known)}")
    return kind(**values)


def read_with_bases(path: Path, over: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a recipe file, with what it inherits from its bases.

    Args:
        path: the file.
        over: the files that are based on it.

    Raises:
        UserError: one of the files cannot be read, or is based on itself.
    """
    content = read_toml(path)
    if (base := content.pop("base", None)) is None:
        return content
    if not isinstance(base, str) or (path.parent / base).resolve() in (*over, path.resolve()):
        raise UserError(f"{path}: base: name another recipe file that is not based on this one")
    inherited = read_with_bases(path.parent / base, (*over, path.resolve()))
    if "row" in content:
        inherited.pop("only", None)  # it names rows of the base, which these replace
    return inherited | content


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a recipe, its folder and its seeds."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the file of the comparison")
    parser.add_argument("work", type=Path, metavar="WORK", nargs="?", help="its folder (default: runs/RECIPE)")
    parser.add_argument(
        "--seeds",
        type=whole_number(),
        nargs="+",
        default=[1, 2, 3],
        metavar="N",
        help="seeds of the runs (default 1 2 3)",
    )
    add_device(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that also trains."""
    add_experiment(parser)
    parser.add_argument("--jobs", type=whole_number(), default=1, metavar="N", help="commands side by side (default 1)")
    parser.add_argument(
        "--from", dest="folder", type=Path, metavar="FOLDER", help="read downloaded corpora from this folder"
    )
    parser.add_argument("--table", action="store_true", help="train nothing, only make the table")
