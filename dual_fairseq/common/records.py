"""Reads small JSON and TOML files and checks their shape; every error is one line."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import AnyPath, check_regular

# tomllib's time and memory grow with the square of the number of parts in a key (a.b.c)
_LONG_KEY = re.compile(r"""(?:(?<![\w-])(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+){50}""")
_NAMES = {bool: "true or false", str: "a string", int: "a whole number", float: "a finite number"}


class WrongShape(ValueError):
    """A value does not have the expected shape; the message says where and why."""


def read_record(path: AnyPath, shape: Any, fix: str, wrong: str = "is damaged") -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        shape: the expected shape, see :func:`check_shape`.
        fix, wrong: for the message: what the user can do, and what is wrong with a file of other content.

    Raises:
        UserError: the file cannot be read, is not JSON, or has another shape.
    """
    check_regular(path)
    try:
        content = parse_json(Path(path).read_bytes().decode("utf-8"))
        check_shape(content, shape)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {fix}") from error
    except ValueError as error:
        raise UserError(f"{path}: {wrong} ({error}); {fix}") from error
    return content


def read_toml(path: AnyPath, option: str = "", **options: Any) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: the file.
        option: the option that named it, for the message.
        options: for ``tomllib.loads``.

    Raises:
        UserError: the file cannot be read, or is not TOML.
    """
    name = f"{option} {path}".strip()
    try:
        text = Path(path).read_bytes().decode("utf-8")
        if _LONG_KEY.search(text):
            raise ValueError("a key has very many parts")
        return tomllib.loads(text, **options)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: is not TOML ({error})") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON (which has no NaN and no infinity), or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"holds {name}")


def check_shape(value: Any, shape: Any, where: str = "") -> None:
    """Check the shape of a value.

    Args:
        value: a value from JSON.
        shape: a type (``float`` is any finite number, ``object`` anything) or None; a range, for a whole number in it;
            a tuple of shapes, one of which must fit; a list of one shape, for all items; or a dictionary: name →
            shape of a field (a name that ends in ``?`` may be missing; ``str`` as a name stands for all other fields).
        where: the value's place, for the message.

    Raises:
        WrongShape: it differs.
    """
    if isinstance(shape, tuple):
        for number, alternative in enumerate(shape):
            try:
                return check_shape(value, alternative, where)
            except WrongShape:
                if number + 1 == len(shape):
                    raise
    elif isinstance(shape, dict):
        _expect(isinstance(value, dict), where, "a record")
        _expect(all(isinstance(name, str) for name in value), where, "a record whose names are strings")
        fields = {name.removesuffix("?"): inner for name, inner in shape.items() if name is not str}
        for name in (name for name in shape if name is not str and not name.endswith("?")):
            _expect(name in value, where, f"a record with {name}")
        for name, item in value.items():
            check_shape(
                item, fields.get(name, shape.get(str, object)), f"{where}.{name}" if where else ascii(name)[1:-1]
            )
    elif isinstance(shape, list):
        _expect(isinstance(value, list), where, "a list")
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{where}[{number}]")
    elif shape is None:
        _expect(value is None, where, "null")
    elif isinstance(shape, range):
        whole = isinstance(value, int) and not isinstance(value, bool)
        _expect(whole and value in shape, where, f"a whole number from {shape[0]} to {shape[-1]}")
    elif shape is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(number and abs(value) < 1e300 and math.isfinite(value), where, _NAMES[float])
    elif shape is int:
        _expect(isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63, where, _NAMES[int])
    else:
        _expect(isinstance(value, shape), where, _NAMES.get(shape, shape.__name__))


def _expect(fulfilled: bool, where: str, what: str) -> None:
    if not fulfilled:
        raise WrongShape(f"{where or 'its content'} is not {what}")
