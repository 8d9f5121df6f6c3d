"""The training benchmark runs on tiny sizes, and its tables say what it measured. No figure is judged."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest
from helpers import ROOT

SCRIPT = ROOT / "benchmarks" / "training.py"


def bench(directory, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, "--quick", "--device", "cpu", "--dest", directory / "tables", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, dict]:
    """What the parts that run in one process wrote, by part."""
    directory = tmp_path_factory.mktemp("bench")
    done = bench(directory, "--parts", "step")
    assert done.returncode == 0, done.stderr[-3000:]
    records = {}
    for path in (directory / "tables").glob("*.json"):
        record = json.loads(path.read_text())
        records[record["part"]] = record
        assert path.with_suffix(".md").read_text() in done.stdout
    return records


@pytest.mark.slow
def test_every_subject_makes_the_same_updates_and_ratios_are_medians_against_the_baseline(tables):
    seconds = tables["step"]["samples"]["seconds"]
    assert {len(of_kind) for of_kind in seconds.values()} == {tables["step"]["plan"]["updates"]}
    assert all(second > 0 for of_kind in seconds.values() for second in of_kind)
    for row, of_kind in zip(tables["step"]["rows"], seconds.values(), strict=True):
        ratio = statistics.median(a / b for a, b in zip(of_kind, seconds["plain"], strict=True))
        assert float(row[2]) == pytest.approx(ratio, abs=0.0051)
    assert float(tables["step"]["rows"][0][2]) == 1


@pytest.mark.slow
def test_the_table_names_the_machine_and_the_precision(tables):
    for record in tables.values():
        assert record["machine"]["cpu"] in record["note"] and "fp32" in record["note"]


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path):
    big = bytearray(b"x") * 1_500_000_000  # more than the measured process needs
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import training
    finally:
        sys.path.pop(0)
    setting = training.Setting(training.QUICK, "cpu", "fp32", tmp_path)
    peak = training.measure(setting, "pair")
    assert len(big) / 1e6 > peak["peak"] > peak["before"] > 0
    with pytest.raises(SystemExit, match="peak of no such"):
        training.measure(setting, "no such")


def test_unknown_parts_are_refused_before_anything_runs(tmp_path):
    done = bench(tmp_path, "--parts", "speed")
    assert done.returncode == 2 and "speed" in done.stderr and not (tmp_path / "tables").exists()
