"""What a run takes over from the pair that it starts from: arch, sizes, language models."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.dictionaries import counted_symbols
from ..common.errors import UserError
from ..common.folders import Data, RunFolder, StageFolder
from ..common.records import read_toml
from .choices import recorded, size_of
from .presets import PAIRS


def take_over(options: argparse.Namespace) -> None:
    """Complete ``arch`` and ``size``, and set ``shape``: the Transformers' dimensions if their size has no name.

    Args:
        options: of ``dual-fairseq train``, with both start checkpoints or none.

    Raises:
        UserError: they ask for another arch or size than that of the checkpoint.
    """
    options.shape = None
    checkpoint = options.init_src2tgt
    record = StageFolder(checkpoint.parent).options() if checkpoint else {}
    if not record:  # no stage of ours wrote this checkpoint
        return
    arch = record.get("arch")
    if options.arch and arch != options.arch:
        raise UserError(f"--arch {options.arch}: {checkpoint} has --arch {arch}; leave the option out")
    options.arch = arch
    if arch != "transformer" or size_of(recorded(RunFolder(options.run).stage("dual"))):  # already begun
        return
    shape = {name: record[name] for name in PAIRS["tiny"].shape() if name in record}
    size = size_of(shape)
    if options.size and options.size != size:
        raise UserError(
            f"--size {options.size}: {checkpoint} has " + (f"--size {size}" if size else "other dimensions") +
            "; leave the option out"
        )  # fmt: skip
    if size:
        options.size = size
    else:
        options.shape = shape


def language_model_of(checkpoint: Path, data: Data, language: str) -> Path | None:
    """The language model of the checkpoint's run; None if there is none or its dictionary is not that of the data.

    Args:
        checkpoint: in a stage of a run.
        data: the data that it will score.
        language: the language of the model.
    """
    run, record = RunFolder.of(checkpoint), StageFolder(checkpoint.parent).options()
    options = run.folder / "train.toml"
    try:
        kept = read_toml(options) if options.is_file() else {}
    except UserError:
        kept = {}
    named = kept.get("src-lm" if language == record.get("source-lang", data.source) else "tgt-lm")
    given = [Path(named).absolute()] if isinstance(named, str) else []  # an absolute path never looks like an option
    for file in [*given, run.language_model(language).best]:
        its_dict = file.parent / "dict.txt"
        if file.is_file() and its_dict.is_file() and its_dict.read_bytes() == data.dictionary(language).read_bytes():
            return file
    return None


def typed_start(options: argparse.Namespace) -> dict[str, str]:
    """The start checkpoints as options of fairseq-train → as the user named them."""
    start = {f"--init-{side}": getattr(options, f"init_{side}") for side in ("src2tgt", "tgt2src")}
    words = {f"{option} {file}": f"{option} {file}" for option, file in start.items() if file}
    return dict.fromkeys(words, f"--init {options.init}") if options.init else words


def check_dictionaries(options: argparse.Namespace, data: Data) -> None:
    """Compare the dictionaries of the runs to start from with those of the data, before any training.

    Raises:
        UserError: they differ.
    """
    for words, typed in typed_start(options).items():
        text = RunFolder.of(words.partition(" ")[2]).text
        for file, language in ((text / f"dict.{language}.txt", language) for language in data.languages):
            if file.is_file() and counted_symbols(file) != counted_symbols(data.dictionary(language)):
                raise UserError(
                    f"{typed}: was trained with another dictionary of {language} than that of {data.folder}; run "
                    "dual-fairseq preprocess with --like and the folder that it was trained on"
                )
