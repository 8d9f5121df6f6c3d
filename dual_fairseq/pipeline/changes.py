"""How two records of a training's options differ, in the words that a user types."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..common.options import flag

# Earlier versions had their own limit for the length of translations in validation.
_EARLIER_LIMIT = ', "max_len_a": 1.2, "max_len_b": 10'
# The first word of a line that names an input by its digest → the name of the input.
_INPUTS = {
    "data": "the binarized text",
    "input": "the text to translate, a model or the weights",
    "start": "the checkpoint that it starts from",
    "language": "the language models",
}


@dataclass
class Typed:
    """What the user types for options of fairseq-train.

    Args:
        names: option of fairseq-train → the user's option; empty if the option follows from others.
        sizes: value of ``--size`` → the options of fairseq-train that follow from it.
        size: the user's option for the size.
        words: further words of a message → the user's words.
    """

    names: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, dict[str, str]] = field(default_factory=dict)
    size: str = "--size"
    words: dict[str, str] = field(default_factory=dict)

    def option(self, name: str) -> str:
        return self.names.get(name, f"--{name}")

    def message(self, text: str, extra: Sequence[str] = ()) -> str:
        """A message of fairseq-train with the user's options.

        Args:
            extra: options that the user gave to fairseq-train under their own names.
        """
        for words, typed in self.words.items():
            text = text.replace(words, typed)
        own = {word.partition("=")[0] for word in extra}
        return re.sub(r"--([a-z][\w-]*)", lambda found: found[0] if found[0] in own else self._name(found), text)

    def _name(self, found: re.Match[str]) -> str:
        return self.names.get(found[1]) or found[0]

    def record(self, lines: Sequence[str]) -> Iterator[str]:
        """The lines of a record as a user would type them; options that follow from others are left out."""
        first: dict[str, str] = {}
        for line in lines:
            first.setdefault(name_of(line), line.partition(" ")[2])
        shape = {name for options in self.sizes.values() for name in options}
        named = bool(shape) and shape <= first.keys()
        if named:
            sizes = (size for size, options in self.sizes.items() if options.items() <= first.items())
            yield f"{self.size} {next(sizes, 'of other dimensions')}"
        for line in lines:
            name, value = name_of(line), line.partition(" ")[2]
            if not line.startswith("--"):
                yield line
            elif name == "eval-bleu-args":
                yield from _search(line)
            elif not (named and name in shape and value == first[name]) and (option := self.option(name)):
                yield f"{option} {value.removesuffix('_lm') if name == 'arch' else value}".rstrip()


def _search(line: str) -> Iterator[str]:
    """The options of validation's beam search."""
    try:
        for name, value in json.loads(line.partition(" ")[2], parse_float=str).items():
            yield f"{'--valid-beam' if name == 'beam' else flag(name)} {value}"
    except (AttributeError, ValueError):  # written by hand
        yield line


def changes(old: Sequence[str], new: Sequence[str], typed: Typed, left_out: Sequence[str] = ()) -> str:
    """How two records of options differ, in the words that a user types; empty if they do not.

    Args:
        left_out: options whose values do not count.
    """
    old, new = ([line for line in lines if name_of(line) not in left_out] for lines in (old, new))
    names = [line.partition(" ")[0] for line in new]
    old = [line.replace(_EARLIER_LIMIT, "") for line in old]
    if sorted(old) == sorted(new) and len(set(names)) == len(names):  # the order of options does not matter
        return ""
    arch = [[line for line in lines if name_of(line) == "arch"] for lines in (old, new)]
    if arch[0] and arch[0] != arch[1]:  # its other options follow
        old, new = arch
    return ", ".join(_difference([*typed.record(old)], [*typed.record(new)]) or _difference(old, new))


def _difference(old: Sequence[str], new: Sequence[str]) -> list[str]:
    inputs: list[str] = []
    words = []
    for _, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for label, lines in (("was", old[a:b]), ("now", new[c:d])) if old[a:b] != new[c:d] else ():
            for line in lines:
                if (first := line.partition(" ")[0]) in _INPUTS:
                    inputs.append(f"{_INPUTS[first]} changed")
                else:
                    words.append(f"{label}: {line}")
    return [*dict.fromkeys(inputs), *words]


def name_of(line: str) -> str:
    """The option of a line of a record, without its dashes."""
    return line.partition(" ")[0].removeprefix("--")


def value_of(lines: Sequence[str], name: str) -> str | None:
    """The value of an option in a record; the last one of several counts."""
    return next((line.partition(" ")[2] for line in reversed(lines) if name_of(line) == name), None)


def limit_of(lines: Sequence[str], name: str) -> float:
    """A limit in a record; a limit of 0 (for patience: below 0) means no limit in fairseq."""
    try:
        value = float(value_of(lines, name) or 0)
    except ValueError:  # "none"
        return math.inf
    return value if value > 0 else math.inf
