"""Plain Python values in the options that fairseq evaluates, read here without evaluating anything.

``[(512, 3)] * 20``, ``(0.9, 0.98)``, ``[True] + [False] * 5``: numbers, strings, ``True``, ``False``, ``None``, tuples,
lists and dictionaries of them, and ``+``, ``-`` and ``*``.
"""

from __future__ import annotations

import ast
import sys
from typing import Any

LONGEST_TEXT = 10_000  # characters
LARGEST_VALUE = 10_000  # items of all parts together; characters of a string count as items
_DEEPEST = 50


class NoLiteral(ValueError):
    """A text is not a plain value; the message says why, and can follow the text."""


def literal(text: str) -> Any:
    """The value of a text.

    Raises:
        NoLiteral: the text is not a plain value, or too large.
        TypeError: the argument is not a text (fairseq expects this from ``eval``).
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a string, not {type(text).__name__}")
    if len(text) > LONGEST_TEXT:
        raise NoLiteral(f"is longer than {LONGEST_TEXT:,} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, 0)[0]
    except NoLiteral:
        raise
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise NoLiteral("is not a plain value (numbers, strings, lists, and + and * of them)") from error


def _value(node: ast.expr, depth: int) -> tuple[Any, int]:
    """The value of a node, and its number of items."""
    if depth > _DEEPEST:
        raise NoLiteral("is nested too deeply")
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (bool, int, float, str)):
        return _reasonable(node.value), len(node.value) if isinstance(node.value, str) else 1
    if isinstance(node, ast.Tuple | ast.List):
        parts = [_value(part, depth + 1) for part in node.elts]
        values = [value for value, _ in parts]
        return (values if isinstance(node, ast.List) else tuple(values)), _bounded(1 + sum(size for _, size in parts))
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, depth + 1) for key in node.keys if key is not None]
        values = [_value(value, depth + 1) for value in node.values]
        size = 1 + sum(size for _, size in (*keys, *values))
        return {key: value for (key, _), (value, _) in zip(keys, values, strict=True)}, _bounded(size)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value, _ = _value(node.operand, depth + 1)
        return (-value if isinstance(node.op, ast.USub) else +value), 1
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        return _combined(node.op, *_value(node.left, depth + 1), *_value(node.right, depth + 1))
    raise NoLiteral("is not a plain value (numbers, strings, lists, and + and * of them)")


def _combined(operator: ast.operator, left: Any, left_size: int, right: Any, right_size: int) -> tuple[Any, int]:
    numbers = not (_sized(left) or _sized(right))
    if isinstance(operator, ast.Mult):
        # checked before the value is made: [0] * 10**9
        size = 1 if numbers else _bounded(left_size * max(right, 0) if _sized(left) else right_size * max(left, 0))
        value = left * right
    elif isinstance(operator, ast.Add):
        size = 1 if numbers else _bounded(left_size + right_size)
        value = left + right
    else:
        value, size = left - right, 1
    return _reasonable(value), size


def _reasonable(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise NoLiteral("holds a number that is too large")
    return value


def _sized(value: Any) -> bool:
    return isinstance(value, str | tuple | list | dict)


def _bounded(size: int) -> int:
    if size > LARGEST_VALUE:
        raise NoLiteral(f"has more than {LARGEST_VALUE:,} items")
    return size
