"""``dual-fairseq export``: writes one direction of a pair as a plain fairseq ``translation`` checkpoint."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from torch import Tensor

from ..common.errors import UserError, first_detail
from ..common.files import check_output, refuse_link, whole_file
from ..common.folders import RECORD, Data, RunFolder, find_checkpoint
from ..data.text import TextPipeline
from ..plugin.checkpoint import check_dictionary, data_directories, load_state, pair_languages
from ..plugin.finished import arch_options, finished_state, plain_namespace, translation_options, write_checkpoint
from ..plugin.model import arch_name, direction_name, of_direction


def export_state(state: dict[str, Any], direction: str, path: str, half: bool = False) -> dict[str, Any]:
    """One direction of a pair as the state of a plain ``translation`` checkpoint.

    Args:
        state: a pair's checkpoint, as :func:`~dual_fairseq.plugin.checkpoint.load_state` reads it.
        direction: ``de-en``.
        path: the checkpoint's file, for messages.
        half: keep floating-point weights as 16-bit floats.

    Returns:
        The state: only built-in types and tensors.

    Raises:
        UserError: the checkpoint is not a pair, or lacks the direction.
    """
    directions = {key.split(".")[1] for key in state["model"] if key.startswith("models.")}
    if not directions:
        raise UserError(f"{path}: holds a single model already, not a pair")
    if direction not in directions:
        raise UserError(f"--direction {direction}: {path} holds {' and '.join(sorted(directions))}")
    source, target = pair_languages(state, path)
    if direction != direction_name(source, target):
        source, target = target, source
    return single_state(state, source, target, _copied(of_direction(state["model"], direction), half))


def single_state(state: dict[str, Any], source: str, target: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    """The state of a plain ``translation`` checkpoint.

    Args:
        state: of the checkpoint that the model comes from.
        source, target: the languages.
        weights: of the model.

    Raises:
        UserError: an option cannot be kept.
    """
    model_cfg, criterion = state["cfg"].model, state["cfg"].criterion
    options = {
        **arch_options(model_cfg),
        **translation_options(state["cfg"].task),
        "arch": arch_name(model_cfg),
        "task": "translation",
        "source_lang": source,
        "target_lang": target,
        "data": ".",  # every program that loads a model names the data itself
        # for fairseq-validate
        "criterion": "label_smoothed_cross_entropy",
        "label_smoothing": float(getattr(criterion, "label_smoothing", 0.0)),
        "sentence_avg": bool(getattr(criterion, "sentence_avg", False)),
    }
    last = state["optimizer_history"][-1]
    return finished_state(
        weights,
        args=plain_namespace(options),
        criterion="LabelSmoothedCrossEntropyCriterion",
        optimizer=str(last["optimizer_name"]),
        updates=int(last["num_updates"]),
        # the dictionaries of the weights; stock fairseq ignores this entry
        task_state={"dictionaries": (state.get("task_state") or {}).get("dictionaries") or {}},
    )


def _copied(weights: dict[str, Tensor], half: bool) -> OrderedDict[str, Tensor]:
    """Copies that own their memory. Tensors that share memory (tied embeddings) also share it in the copy."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    result: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in weights.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if memory not in copies:
            dtype = torch.half if half and tensor.is_floating_point() else tensor.dtype
            copies[memory] = tensor.detach().to(dtype, copy=True).contiguous()
        result[key] = copies[memory]
    return result


# --- dictionaries


def _find_dictionaries(
    data: str | None, task_state: dict[str, Any], recorded: list[Path], languages: Sequence[str], path: str
) -> list[Path]:
    """The dictionary files in the folder ``data``, by default in the folder that the pair was trained on.

    Returns:
        The files; none if ``data`` is None and the recorded folders are gone.

    Raises:
        UserError: a file is not in ``data``, or is not the dictionary that the pair was trained with.
    """
    if data is None:
        for folder in recorded:
            files = [folder / f"dict.{language}.txt" for language in languages]
            if all(file.is_file() for file in files):
                break
        else:
            return []
    else:
        files = [Path(data) / f"dict.{language}.txt" for language in languages]
    for file, language in zip(files, languages, strict=True):
        if not file.is_file():
            raise UserError(f"--data {data}: has no dict.{language}.txt")
        check_dictionary(Dictionary.load(str(file)), language, task_state, recorded, path, "checkpoint")
    return files


def _check_fit(state: dict[str, Any], files: list[Path], path: str) -> None:
    """Build the exported model over its dictionaries, as stock fairseq will.

    Raises:
        UserError: the weights do not fit the dictionaries.
    """
    options = {**state["args"], "data": os.fspath(files[0].parent)}
    try:
        checkpoint_utils.load_model_ensemble_and_task([path], state={**state, "args": plain_namespace(options)})
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit the dictionaries in {files[0].parent} (give those that it was trained "
            f"with by --data): {first_detail(error)}"
        ) from error


def _refuse_other_dictionaries(files: list[Path], folder: Path) -> None:
    """Raises UserError if ``folder`` holds another model's dictionary: same name, other content."""
    for file in files:
        existing = folder / file.name
        if existing.exists() and existing.read_bytes() != file.read_bytes():
            raise UserError(f"{existing}: differs from the dictionary {file}; write to another folder")


def _copy(file: Path, folder: Path) -> bool:
    """Copy a dictionary; False if it already exists."""
    copied = folder / file.name
    if copied.exists():
        return False
    with whole_file(copied) as output:
        output.write(file.read_bytes())
    return True


def export(
    checkpoint: str | os.PathLike[str],
    direction: str,
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    half: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write one direction of a pair as a plain fairseq checkpoint, with its dictionaries beside it.

    The folder ``text`` beside it gets the files that ``dual-fairseq translate`` needs for raw text.

    Args:
        checkpoint: of a pair.
        direction: ``de-en``.
        output: the file to write.
        data: a folder with ``dict.<lang>.txt`` of both languages; default: the folder in the checkpoint's record.
        half: keep floating-point weights as 16-bit floats.

    Returns:
        (written, missing): the written files, without dictionaries that existed already, and the names of dictionaries
        that were not found.

    Raises:
        UserError: the checkpoint is unreadable, is not a pair or lacks the direction; the dictionaries do not fit;
            another model's dictionary is beside the output; or the output cannot be written.
    """
    path, output = os.fspath(checkpoint), Path(output)
    if os.path.isdir(path):
        path = str(find_checkpoint(path))
    if not output.is_dir():
        check_output(output, [path])
    if output.is_dir() or not output.suffix:  # most users would expect a folder for all written files
        raise UserError(f"-o {output}: name the checkpoint to write, as in {output / (direction + '.pt')}")
    pair = load_state(path, "checkpoint")
    state = export_state(pair, direction, path, half)
    languages = (state["args"]["source_lang"], state["args"]["target_lang"])
    recorded = [*data_directories(pair["cfg"].task), RunFolder.of(path).text]
    files = _find_dictionaries(
        None if data is None else os.fspath(data), state["task_state"], recorded, languages, path
    )
    pipeline = TextPipeline.find(path)
    text = pipeline.data if pipeline else None
    record = output.parent / "text" / RECORD
    if text is not None and record.is_file() and Data.from_folder(record.parent).kept() != text.kept():
        raise UserError(
            f"{record}: belongs to a model whose text is preprocessed in another way; write to another folder"
        )
    for file in [*(files if data is None else []), *(text.files_to_keep() if text else [])]:
        refuse_link(file)
    if files:
        _check_fit(state, files, path)
        _refuse_other_dictionaries(files, output.parent)
    write_checkpoint(state, output)
    written = [output, *(output.parent / file.name for file in files if _copy(file, output.parent))]
    if text is not None:
        written += [] if record.is_file() else [record.parent]
        text.keep(record.parent)
    names = [f"dict.{language}.txt" for language in dict.fromkeys(languages)]
    return written, [name for name in names if not (output.parent / name).is_file()]
