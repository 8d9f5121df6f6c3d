"""What a run takes over from the pair that it starts from: arch, sizes, language models."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.errors import UserError
from ..common.folders import Data, RunFolder, StageFolder
from ..common.records import read_toml
from .choices import recorded, size_of
from .presets import PAIRS


def take_over(options: argparse.Namespace) -> None:
    """Complete ``arch`` and ``size``, and set ``shape``: the Transformers' dimensions where these have no name.

    Args:
        options: of ``dual-fairseq train``, with both checkpoints to start from or none.

    Raises:
        UserError: they ask for models of another size than those to start from.
    """
    options.shape = None
    checkpoint = options.init_src2tgt
    found = StageFolder(checkpoint.parent).options() if checkpoint else {}
    if not found:  # a checkpoint that no stage of ours has written
        return
    arch = found.get("arch")
    if options.arch and arch != options.arch:
        raise UserError(f"--arch {options.arch}: {checkpoint} has --arch {arch}; leave the option out")
    options.arch = arch
    if arch != "transformer" or size_of(recorded(RunFolder(options.run).stage("dual"))):  # begun with that
        return
    shape = {name: found[name] for name in PAIRS["tiny"].shape() if name in found}
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
    """The language model of the checkpoint's run; None where there is none, or it has another dictionary than the data.

    Args:
        checkpoint: in a stage of a run.
        data: that it is to score.
        language: of it.
    """
    run = RunFolder(checkpoint.parent.parent)
    files = [run.language_model(language).best]
    options = run.folder / "train.toml"
    try:
        kept = read_toml(options) if options.is_file() else {}
    except UserError:
        kept = {}
    side = "src-lm" if language == data.source else "tgt-lm"
    if isinstance(named := kept.get(side), str):
        files.append(Path(named).absolute())  # which no command takes for an option
    for file in files:
        own = file.parent / "dict.txt"
        if file.is_file() and own.is_file() and own.read_bytes() == data.dictionary(language).read_bytes():
            return file
    return None
