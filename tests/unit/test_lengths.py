"""How long a translation may become follows from the lengths of the training text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fairseq.data import indexed_dataset
from helpers import SOURCE, TARGET

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.lengths import UNKNOWN, LengthLimit, length_limit, limits_of, record


def lengths(ratio: float, spread: float = 0.2, count: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of sources and of targets that are longer by a ratio, more or less."""
    dice = np.random.default_rng(1)
    source = dice.integers(3, 60, count).astype(float)
    return source, np.maximum(2, np.round(source * ratio * dice.lognormal(0, spread, count)))


@pytest.mark.parametrize("ratio", [0.2, 0.9, 1.0, 4.0])
def test_nearly_all_training_text_fits_with_room_to_spare(ratio):
    source, target = lengths(ratio)
    limit = LengthLimit.of_training(source, target)
    longest = limit.max_len_a * source + limit.max_len_b
    assert np.mean(target <= longest) > 0.9995 and np.mean(target * 1.2 <= longest) > 0.995
    assert limit.ratio == pytest.approx(ratio, rel=0.05) and limit.max_len_a == pytest.approx(
        1.5 * limit.ratio, rel=1e-3
    )
    assert np.mean(longest) < 4 * np.mean(target) + 20  # a translation without end is not carried on for long


def test_text_of_even_lengths_has_the_limit_of_old():
    assert LengthLimit.of_training(*lengths(1.0, spread=0.1)).max_len_b == 20


def test_a_pair_that_is_no_translation_does_not_raise_the_limit():
    source, target = lengths(1.0, spread=0.1)
    target[7] = 2000
    assert LengthLimit.of_training(source, target).max_len_b < 40


def test_the_record_counts_then_the_training_text_and_without_both_a_generous_limit(corpus, tmp_path):
    measured = limits_of(corpus / "dual", SOURCE, TARGET)
    assert set(measured) == {f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"}
    assert measured == limits_of(corpus / "dual", TARGET, SOURCE)
    assert length_limit(corpus / "dual", SOURCE, TARGET) == measured[f"{SOURCE}-{TARGET}"]
    assert length_limit(corpus / "dual", TARGET, SOURCE) == measured[f"{TARGET}-{SOURCE}"]
    assert length_limit(tmp_path, SOURCE, TARGET) == UNKNOWN == length_limit(tmp_path / "no", SOURCE, TARGET)
    own = {f"{SOURCE}-{TARGET}": LengthLimit(2.0, 3.5, 7)}
    (tmp_path / "lengths.json").write_text(json.dumps(record(own)))
    assert length_limit(tmp_path, SOURCE, TARGET) == LengthLimit(2.0, 3.5, 7)
    (tmp_path / "lengths.json").write_text('{"xx-yy": {"ratio": 1, "max_len_a": "x", "max_len_b": 3}}')
    with pytest.raises(
        UserError, match=r"lengths.json: is damaged .*; remove it, or run dual-fairseq preprocess again"
    ):
        length_limit(tmp_path, SOURCE, TARGET)
    (tmp_path / "lengths.json").write_text(json.dumps(record({f"{SOURCE}-{TARGET}": LengthLimit(1.0, 0.0, 1)})))
    assert length_limit(tmp_path, SOURCE, TARGET) == LengthLimit(1.0, 0.0, 1)
    content = record(own)
    content[f"{SOURCE}-{TARGET}"]["note"] = "of a later version"
    (tmp_path / "lengths.json").write_text(json.dumps(content))
    assert length_limit(tmp_path, SOURCE, TARGET) == LengthLimit(2.0, 3.5, 7)
    for wrong in (LengthLimit(1.0, -1.0, 7), LengthLimit(1.0, 1.0, 0)):
        (tmp_path / "lengths.json").write_text(json.dumps(record({f"{SOURCE}-{TARGET}": wrong})))
        with pytest.raises(UserError, match="allows no translation"):
            length_limit(tmp_path, SOURCE, TARGET)


def test_text_that_is_no_parallel_text_has_no_limits(tmp_path):
    for language, sizes in ((SOURCE, [3, 4]), (TARGET, [5])):
        prefix = str(tmp_path / f"train.{SOURCE}-{TARGET}.{language}")
        builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", vocab_size=100)
        for size in sizes:
            builder.add_item(torch.full((size,), 4))
        builder.finalize(f"{prefix}.idx")
    assert limits_of(tmp_path, SOURCE, TARGET) == {}
