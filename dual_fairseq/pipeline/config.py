"""Options of a command in a TOML file: ``--config`` reads them, and a run keeps them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.arguments import Parser, did_you_mean
from ..common.errors import UserError
from ..common.records import read_toml

EXTRA = "fairseq-train"  # the key for what follows `--` on the command line
# A file may come from a stranger, so it must not run code, write elsewhere or send data away.
_COMMAND_LINE_ALONE = frozenset(
    "--user-dir --save-dir --log-file --tensorboard-logdir --wandb-project --azureml-logging --aim-repo "
    "--distributed-init-method --lm-score-cache --checkpoint-suffix --post-save-script --results-path "
    "--plasma-path".split()
)


def parse(parser: Parser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command line and of the file that its ``--config`` names; the command line wins.

    Raises:
        UserError: something is wrong with the command line or the file.
    """
    options, extra = parser.parse(arguments)
    if options.config is None:
        return options, extra
    words, further = _words(parser, options.config)
    positional = [str(getattr(options, action.dest)) for action in parser._actions if not action.option_strings]
    try:
        parser.parse_args([*words, "--", *positional])
    except UserError as error:
        raise UserError(f"{options.config}: {error}") from None
    own, _ = parser.split(arguments)
    return parser.parse_args([*words, *own]), [*further, *extra]


def _words(parser: Parser, file: Path) -> tuple[list[str], list[str]]:
    """A file's options as words of a command line, and its options for fairseq-train."""
    # Numbers stay as they are written: 1e-4 in options.txt is not 0.0001.
    content = read_toml(file, "--config", parse_float=str)
    extra = content.pop(EXTRA, [])
    if not isinstance(extra, list) or not all(isinstance(word, str) for word in extra):
        raise UserError(f'{file}: {EXTRA}: give a list of strings such as ["--fp16", "--update-freq", "4"]')
    if refused := [word for word in extra if word.partition("=")[0] in _COMMAND_LINE_ALONE]:
        raise UserError(
            f"{file}: {EXTRA}: {refused[0]}: runs code or names a place to write to; give it after -- on the command "
            "line"
        )
    known = [option[2:] for option in parser._option_string_actions if option.startswith("--") and option != "--help"]
    words = []
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{file}: unknown option {key}{did_you_mean(key, known)}")
        switch = parser._option_string_actions[f"--{key}"].nargs == 0
        if switch != isinstance(value, bool) or isinstance(value, list | dict):
            kind = "true or false" if switch else "a number or a string"
            raise UserError(f"{file}: {key}: give {kind}")
        if not switch:
            words.append(f"--{key}={value}")
        elif value:
            words.append(f"--{key}")
        elif f"--no-{key}" in parser._option_string_actions:
            words.append(f"--no-{key}")
    return words, extra


def text(heading: str, options: Mapping[str, Any], extra: Sequence[str]) -> str:
    """A file for ``--config`` with these options, except options that are None or empty."""
    lines = [f"# {heading}"]
    for key, value in options.items():
        if value is not None and value != "":
            lines.append(f"{key} = {_toml(value)}")
    if extra:
        lines.append(f"{EXTRA} = [{', '.join(map(_string, extra))}]")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Path):  # the file may be read from another folder
        value = value.absolute()
    if isinstance(value, bool):
        return str(value).lower()
    number = re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", str(value))
    return str(value) if number else _string(str(value))


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
