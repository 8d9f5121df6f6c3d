"""A bar on a terminal, lines elsewhere, silence where it is asked for."""

import sys

import pytest

from dual_fairseq.common import progress
from dual_fairseq.common.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(clock):
    told = []
    with Progress("score", 1234, "pairs", tell=told.append) as bar:
        for second in range(0, 100, 10):
            clock[0] = second
            bar.update(100)
    expected = [("400", "1 min"), ("700", "46 s"), ("1,000", "21 s")]
    assert told == [f"score: {n} of 1,234 pairs, about {to_go} to go" for n, to_go in expected]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(59.4, "59 s"), (60, "1 min"), (59 * 60, "59 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, shown):
    assert progress.duration(seconds) == shown


def test_a_total_may_be_unknown(clock):
    told = []
    with Progress("translate", None, "lines", tell=told.append) as bar:
        clock[0] = 31.0
        bar.update(7)
    assert told == ["translate: 7 lines"]


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_on_a_terminal(clock, monkeypatch, capsys, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    told = []
    with Progress("score", 10, shown=shown, tell=told.append) as bar:
        clock[0] = 100.0
        bar.update(10)
    assert not told
    assert ("score" in capsys.readouterr().err) == shown


def test_silence(clock):
    told = []
    with Progress("score", 10, shown=False, tell=told.append) as bar:
        clock[0] = 100.0
        bar.update(10)
    assert not told
