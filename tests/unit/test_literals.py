"""Plain values written as Python are read; nothing else is, and nothing large is made on the way."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_fairseq.common.literals import LARGEST_VALUE, NoLiteral, literal

PLAIN = [
    "[(512, 3)] * 20",
    "[(512, 3)] * 3 + [(1024, 3)] * 2",
    "[True] + [False]*5",
    "(0.9, 0.98)",
    "0.5,1e-4",
    "-3",
    "2000,10000",
    "None",
    "' [a] '",
    "{'dropout': 0.1, 'layers': [1, 2]}",
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_fairseq_evaluates_is_read(text):
    assert literal(text) == eval(text)


scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(values)
def test_every_plain_value_is_read_back(value):
    assert literal(repr(value)) == value


HOSTILE = [
    "__import__('os').getcwd()",
    "[__import__('os').getcwd()] and [(16, 3)]",
    "().__class__.__bases__[0].__subclasses__()",
    "(lambda: 0)()",
    "[x for x in (1,)]",
    "f'{1}'",
    "print",
    "[1][0]",
    "2 ** 9 ** 9",
    "(x := 1)",
    "not 1",
    "*[1]",
    "{**{}}",
    "{[]: 1}",
    "'%s' % 1",
    "'a' - 'b'",
    "[1] * [1]",
    "b'x'",
    "1j",
    "...",
    "1; 2",
    "# nothing",
    "",
    "\0",
]
LARGE = [
    "[0] * 10**9",
    "[0] * 1000000000",
    "1000000000 * [0]",
    "'a' * 1000000000",
    "[[0] * 5000] * 5000",
    "[0] * 6000 + [0] * 6000",
    f"{'[0,' * 3}{'0,' * LARGEST_VALUE}{']' * 3}",
    "(" * 5000,
    "[" * 150 + "]" * 150,
    "-" * 9000 + "1",
    "1+" * 4000 + "1",
    "9" * 5000,
    "9" * 30,
    "999999999999999999 * 999999999999999999",
    " " * 20_000 + "1",
]


@pytest.mark.parametrize("text", [*HOSTILE, *LARGE])
def test_anything_else_is_refused_at_once(text):
    begin = time.process_time()
    with pytest.raises(NoLiteral) as caught:
        literal(text)
    assert time.process_time() - begin < 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, True, 3, [1], b"1"])
def test_what_is_no_text_is_a_type_error(value):
    """fairseq's ``eval_bool`` takes its default then."""
    with pytest.raises(TypeError):
        literal(value)
