"""Length limits of translations, from the lengths of the training text.

A translation of n source tokens (``</s>`` included) ends after at most a · n + b tokens; a and b are fairseq's
``--max-len-a`` and ``--max-len-b``. ``dual-fairseq preprocess`` records them for each direction beside the
dictionaries.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..common.folders import LENGTHS
from ..common.records import read_record

if TYPE_CHECKING:
    import numpy as np

# Spare room: factors on the training text's mean ratio and on its longest translations' excess; the least excess.
_OVER_RATIO, _OVER_REST, _AT_LEAST = 1.5, 2, 20
LIMITS = {str: {"ratio": float, "max_len_a": float, "max_len_b": int}}


@dataclass(frozen=True)
class LengthLimit:
    """The most tokens of a translation: ``max_len_a`` · source tokens + ``max_len_b``.

    Attributes:
        ratio: target tokens per source token in the training text, for the record.
    """

    ratio: float
    max_len_a: float
    max_len_b: int

    @classmethod
    def of_training(cls, source: np.ndarray, target: np.ndarray) -> LengthLimit:
        """The limit for text like the training text.

        The longest 0.1 % of its pairs do not count: a few pairs are not translations of each other.

        Args:
            source, target: (N,) tokens of each sentence.
        """
        import numpy as np  # not needed for a command's --help

        ratio = round(float(target.sum() / source.sum()), 4)
        a = round(_OVER_RATIO * ratio, 4)
        excess = float(np.quantile(target - a * source, 0.999)) * _OVER_REST
        return cls(ratio, a, max(_AT_LEAST, math.ceil(excess)))


# For a folder with neither a record nor training text: of an earlier version's run, or only for test text.
UNKNOWN = LengthLimit(1.0, 3.0, 50)


def limits_of(folder: Path, source: str, target: str) -> dict[str, LengthLimit]:
    """The limits of both directions for the training text in a binarized folder; empty if it has none."""
    # fairseq is slow to load, and reading a record does not need it
    import numpy as np
    from fairseq.data import indexed_dataset

    def sizes(file: str) -> np.ndarray:
        text = indexed_dataset.make_dataset(file, "mmap")  # unmapped on return, so the sizes are copied
        return text.sizes.astype(np.float64)

    for pair in (f"{source}-{target}", f"{target}-{source}"):
        files = [str(folder / f"train.{pair}.{language}") for language in (source, target)]
        if all(map(indexed_dataset.MMapIndexedDataset.exists, files)):
            source_sizes, target_sizes = map(sizes, files)
            if len(source_sizes) == len(target_sizes):
                return {
                    f"{source}-{target}": LengthLimit.of_training(source_sizes, target_sizes),
                    f"{target}-{source}": LengthLimit.of_training(target_sizes, source_sizes),
                }
    return {}


def record(limits: dict[str, LengthLimit]) -> dict[str, Any]:
    """The content of :data:`~dual_fairseq.common.folders.LENGTHS`."""
    return {direction: asdict(limit) for direction, limit in limits.items()}


def length_limit(folder: str | os.PathLike[str], source: str, target: str) -> LengthLimit:
    """The limit of a direction: from the record in a binarized folder, else from its training text.

    Raises:
        UserError: the record is damaged.
    """
    path, direction = Path(folder) / LENGTHS, f"{source}-{target}"
    if path.is_file():
        fix = "remove it, or run dual-fairseq preprocess again"
        content = read_record(path, LIMITS, fix)
        if direction in content:
            limit = LengthLimit(**{field.name: content[direction][field.name] for field in fields(LengthLimit)})
            if limit.max_len_a < 0 or limit.max_len_b < 1:
                raise UserError(f"{path}: is damaged ({direction} allows no translation); {fix}")
            return limit
    return limits_of(Path(folder), source, target).get(direction, UNKNOWN)
