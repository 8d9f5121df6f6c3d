"""Work in stages. The outputs of a stage appear when they are complete, and are not made twice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..common.errors import UserError
from ..common.files import write_json
from ..common.progress import say
from ..common.records import read_record


@dataclass(frozen=True)
class Stage:
    """A step of the work.

    Attributes:
        name: the name in messages and in the stage's note.
        outputs: the folders that it makes below DEST.
        settings: the options and digests of inputs that it depends on, beyond those of the stages before it.
        work: writes the outputs into the folder that is its argument; returns a record.
        shape: of the part of this record that is read, see :func:`~dual_fairseq.common.records.check_shape`.
    """

    name: str
    outputs: tuple[str, ...]
    settings: dict[str, Any]
    work: Callable[[Path], dict[str, Any]]
    shape: Any = field(default_factory=dict)


@contextmanager
def locked(dest: Path, outputs: Sequence[str]) -> Iterator[None]:
    """Keep other runs away from DEST.

    Args:
        dest: the folder; made if it is missing.
        outputs: the folders that all stages together make.

    Raises:
        UserError: another command made one of the outputs, or another run uses DEST.
    """
    notes = dest / ".stages"
    existing = [name for name in outputs if (dest / name).exists()]
    if existing and not notes.exists():
        raise UserError(f"{dest}: holds {existing[0]}, not made by this command; choose another --dest")
    notes.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(notes / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{dest}: another run is using it; wait for it or choose another --dest") from None


def workplace(dest: Path, stages: Sequence[Stage], overwrite: bool, record: str) -> Path:
    """The folder to run the stages in: DEST, or a folder below it if a complete DEST is made again.

    So DEST stays as it is until all new outputs are complete; then :func:`replace` moves them.

    Args:
        dest, stages, overwrite: see :func:`run_stages`.
        record: the name of the file that marks DEST as complete.

    Raises:
        UserError: settings have changed, and ``overwrite`` is not set.
    """
    new, kept = dest / ".new", _finished(dest, stages, overwrite)
    if not (dest / record).is_file() or len(kept) == len(stages):
        shutil.rmtree(new, ignore_errors=True)
        return dest
    (new / ".stages").mkdir(parents=True, exist_ok=True)
    for stage in stages:
        if stage.name in kept:
            for name in stage.outputs:
                _remove(new / name)
                (new / name).symlink_to(Path("..") / name)
            shutil.copyfile(_note(dest, stage), _note(new, stage))
    return new


def replace(new: Path, dest: Path, stages: Sequence[Stage], record: str) -> None:
    """Move the new outputs from :func:`workplace` to DEST."""
    (dest / record).unlink()  # DEST is not complete until everything is moved
    for stage in stages:
        if (new / stage.outputs[0]).is_symlink():
            continue
        _note(dest, stage).unlink(missing_ok=True)
        for name in stage.outputs:
            _remove(dest / name)
            (new / name).rename(dest / name)
        _note(new, stage).replace(_note(dest, stage))
    (new / record).replace(dest / record)
    shutil.rmtree(new)


def run_stages(dest: Path, stages: Sequence[Stage], overwrite: bool) -> dict[str, Any]:
    """Run the stages that are not finished, one after the other.

    Args:
        dest: the folder, :func:`locked`.
        stages: each depends on those before it.
        overwrite: run stages again if their settings have changed.

    Returns:
        Stage → what its work returned.

    Raises:
        UserError: settings have changed, and ``overwrite`` is not set.
    """
    for leftover in dest.glob(".partial.*"):  # of a killed run
        shutil.rmtree(leftover)
    results = _finished(dest, stages, overwrite)
    for stage in stages:
        if stage.name not in results:
            _note(dest, stage).unlink(missing_ok=True)
    for stage in stages:
        if stage.name in results:
            say(f"{stage.name}: already done")
        else:
            say(f"{stage.name}: started")
            results[stage.name] = _do(dest, stage)
    return results


def _finished(dest: Path, stages: Sequence[Stage], overwrite: bool) -> dict[str, Any]:
    """The results of the stages that need not run again."""
    results: dict[str, Any] = {}
    changed: dict[str, None] = {}  # in the order of the stages
    for number, stage in enumerate(stages):
        if not _note(dest, stage).exists():
            continue
        file, fix = _note(dest, stage), "remove it, and the stage will be done again"
        if differences := _differences(read_record(file, {"settings": {}}, fix)["settings"], stage.settings):
            changed |= dict.fromkeys(differences)
        elif len(results) == number and all((dest / name).is_dir() for name in stage.outputs):
            results[stage.name] = read_record(file, {"result": stage.shape}, fix)["result"]
    if changed and not overwrite:
        raise UserError(
            f"{dest}: made with other input or options ({', '.join(changed)}); "
            "pass --overwrite to make it again, or choose another --dest"
        )
    return results


def _do(dest: Path, stage: Stage) -> dict[str, Any]:
    partial = dest / Path(tempfile.mkdtemp(prefix=".partial.", dir=dest)).name
    try:
        for name in stage.outputs:
            (partial / name).mkdir()
        result = stage.work(partial)
        for name in stage.outputs:
            _remove(dest / name)
            (partial / name).rename(dest / name)
        write_json(_note(dest, stage), {"settings": stage.settings, "result": result})
    except OSError as error:
        reason = f"{error.filename or dest}: {error.strerror or error}"
        raise UserError(f"{reason}; fix that and run the command again: it continues with {stage.name}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _remove(folder: Path) -> None:
    """Remove a folder, or a link to one, if it is there."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _note(dest: Path, stage: Stage) -> Path:
    return dest / ".stages" / f"{stage.name}.json"


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [key if " " in key else f"--{key} {old.get(key)} -> {new.get(key)}" for key in changed]
