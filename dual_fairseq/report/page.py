"""The page: one HTML file that needs no other file, made from the template page.html."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..common.tables import quality
from .examples import Example
from .pictures import Picture
from .runs import System, arrow
from .scores import Row, head_of, number, probability


class Part:
    """A part of a section; the template has a macro for each kind."""

    @property
    def macro(self) -> str:
        return type(self).__name__.lower()


@dataclass
class Paragraph(Part):
    """Plain text; ``kind`` is its class in the style sheet."""

    text: str
    kind: str = ""


@dataclass
class Table(Part):
    """A table of plain text whose first ``names`` columns are names."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    names: int = 1


@dataclass
class Scores(Part):
    """The table of scores."""

    rows: Sequence[Row]

    @property
    def head(self) -> Sequence[str]:
        return head_of(self.rows)[1:]


@dataclass
class Figures(Part):
    """Pictures side by side; a wide page has three ``small`` ones in a line, or two others."""

    pictures: Sequence[Picture]
    small: bool = False


@dataclass
class Examples(Part):
    """Sentences with their translations; there is at least one."""

    examples: Sequence[Example]
    direction: str

    @property
    def languages(self) -> list[str]:
        """Source and target as in HTML attributes: ``zh-CN`` for ``zh_CN``."""
        return [language.replace("_", "-") for language in self.direction.split("-")]

    @property
    def first(self) -> str:
        """The system that the others are compared with."""
        return next(iter(self.examples[0].translations))


@dataclass
class Section:
    """A heading and the parts under it."""

    title: str
    parts: Sequence[Part]


def render(title: str, lead: Part, sections: Iterable[Section]) -> str:
    """The whole file as text. All plain text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "arrow": arrow,
        "number": number,
        "probability": probability,
        "base64": lambda png: base64.b64encode(png).decode(),
    }
    return environment.get_template("page.html").render(title=title, lead=lead, sections=sections)


def stage_table(systems: Sequence[System]) -> Table:
    """How each system was trained."""
    head = ("system", "λ", "learning rate", "seed", "updates", "best at", "best validation BLEU or accuracy", "state")
    lines = []
    for system in systems:
        stage = system.stage
        best = stage.best or {}
        last = max((r["num_updates"] for r in [*stage.valid, *stage.train]), default=None)
        options = stage.options
        lines.append(
            (
                system.name, options.get("dual-lambda", "-"), options.get("lr", "-"), options.get("seed", "-"),
                number(last, 0),
                number(best.get("num_updates"), 0), quality(best),
                "finished" if stage.finished else "training, or stopped",
            )
        )  # fmt: skip
    return Table(head, lines)
