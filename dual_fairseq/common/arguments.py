"""The parser of every command: an error is one line, and a mistyped option gets a suggestion."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError


class Parser(argparse.ArgumentParser):
    """Like argparse's, but options cannot be abbreviated, and a mistake is a :class:`UserError`.

    Args:
        command: its name after ``dual-fairseq``, or a script.
        text: the help above the options; its lines stay unchanged.
        passes_on: the fairseq command that gets the words after ``--``; see :meth:`parse`.
    """

    def __init__(self, command: str, text: str, passes_on: str | None = None) -> None:
        super().__init__(
            prog=command if command.endswith(".py") else f"dual-fairseq {command}",
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.passes_on = passes_on
        if passes_on:
            self.epilog = f"Options after `--` go to {passes_on} unchanged. They override the options above."

    def format_help(self) -> str:
        self.usage = self.usage or self._short_usage()
        return super().format_help()

    def _short_usage(self) -> str:
        """The arguments and the required options; the list below the usage has all options."""
        forms = {"?": "[{0}]", "*": "[{0} ...]", "+": "{0} [{0} ...]"}
        arguments, required = [], []
        for action in self._actions:
            value = forms.get(str(action.nargs), "{0}").format(action.metavar or action.dest)
            if not action.option_strings:
                arguments.append(value)
            elif action.required:
                required.append(f"{action.option_strings[0]} {value}")
        passed_on = [f"[-- options of {self.passes_on}]"] if self.passes_on else []
        return " ".join([self.prog, *arguments, *required, "[options]", *passed_on])

    def error(self, message: str) -> NoReturn:
        if match := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            choices = re.findall(r"[^\s,']+", match[2])
            message += did_you_mean(match[1], choices)
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        self.refuse(unknown)
        return options

    def refuse(self, rest: Sequence[str]) -> None:
        """Raises UserError if there are words that the command does not know."""
        for word in rest:
            if word.startswith("-") and word != "-":
                self._refuse_option(word.partition("=")[0])
        if rest:
            self.error(f"{rest[0]}: one argument too many")

    @staticmethod
    def split(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
        """The words before the first ``--``, and the words after it."""
        words = list(arguments or ())
        cut = words.index("--") if "--" in words else len(words)
        return words[:cut], words[cut + 1 :]

    def parse(self, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """The options, and the words after the first ``--``."""
        own, extra = self.split(arguments)
        return self.parse_args(own), extra

    def _refuse_option(self, option: str) -> NoReturn:
        passed_on = f"; options of {self.passes_on} go after --" * bool(self.passes_on)
        self.error(f"unknown option {option}" + (did_you_mean(option, self._option_string_actions) or passed_on))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: a similar known word, if there is one."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


LONGEST_NUMBER = 18  # characters; Python refuses to read very long numbers


def _number(pattern: str, what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text) or len(text) > LONGEST_NUMBER or math.isinf(float(text)):
            raise argparse.ArgumentTypeError(f"takes {what}, not '{text}'")
        return text

    return check


# Types of options for fairseq and options.txt: checked, but kept as the user wrote them.
positive = _number("0*[1-9][0-9]*", "a whole number above 0")
count = _number("[0-9]+", "a whole number that is 0 or more")
decimal = _number(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "a number that is 0 or more")


def file_path(text: str) -> Path:
    """A type for argparse: a path; if it begins with a dash, it becomes absolute, so no command reads an option."""
    path = Path(text)  # drops ./
    return path.absolute() if str(path).startswith("-") else path
