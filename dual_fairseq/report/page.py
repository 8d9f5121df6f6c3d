"""The page: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

import base64
import difflib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .pictures import Picture
from .runs import System, arrow
from .scores import HEAD, Row, number, probability

STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; background: #fbfbf9; color: #1d2126;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1.2rem 4rem }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .6rem }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #dcdcd6 }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
p { max-width: 46rem; margin: .5rem 0 } .muted, figcaption, .note { color: #5d646d } .note { font-size: .9rem }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; background: #fff; font-variant-numeric: tabular-nums; font-size: .94rem }
th, td { padding: .38rem .85rem; text-align: right; border-bottom: 1px solid #e6e6e0; white-space: nowrap }
thead th { border-bottom: 2px solid #c9c9c2; font-weight: 600; vertical-align: bottom }
th.name, td.name { text-align: left } tbody th { text-align: left; background: #f1f1ec; font-weight: 600 }
tr.base td { background: #f8f8f5 } td small { color: #6c737c }
.figures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)) }
.figures.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)) }
figure { margin: 0; background: #fff; border: 1px solid #e3e3dc; border-radius: 6px; padding: .9rem 1rem }
figure h3 { margin: 0 0 .3rem }
figure img { display: block; width: 100%; height: auto } figcaption { font-size: .88rem }
.figures + .figures { margin-top: 1.2rem }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1.1rem; margin: 0 0 1rem;
  background: #fff; border: 1px solid #e3e3dc; border-radius: 6px; padding: .8rem 1rem }
dt { color: #5d646d } dd { margin: 0; overflow-wrap: anywhere } dd.reference { color: #176b2c }
mark { background: #fde3dc; color: inherit; border-radius: 3px; padding: 0 .1em }
ins { text-decoration: underline; text-decoration-color: #1f5fa8; text-decoration-thickness: 2px;
  text-underline-offset: 3px } del { color: #9097a0 }
@media (max-width: 40rem) {
  main { padding: 1.2rem .8rem } dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } }
@media print { h2, figure, dl { break-inside: avoid } }
"""

# Signs that are words of their own, and scripts that are written without spaces.
_SIGNS = re.escape(string.punctuation) + "„“”‚‘’«»‹›–—…¿¡。、，！？；：「」（）"
_UNSPACED = "\u0e00-\u0e7f\u1000-\u109f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_SIGNS}{_UNSPACED}]+|[{_SIGNS}])")


def page(title: str, lead: str, sections: Iterable[str]) -> str:
    """The whole file. ``lead`` and ``sections`` are HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n{lead}\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where there is nothing."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def element(tag: str, content: str, kind: str = "") -> str:
    """``content`` is HTML; ``kind`` is its class."""
    opening = f'{tag} class="{kind}"' if kind else tag
    return f"<{opening}>{content}</{tag}>"


def paragraph(text: str, kind: str = "") -> str:
    """``text`` is plain."""
    return element("p", escape(text), kind)


def table(head: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table of plain text, whose first ``names`` columns are names."""

    def line(tag: str, values: Sequence[str]) -> str:
        cells = (element(tag, escape(value), "name" if i < names else "") for i, value in enumerate(values))
        return element("tr", "".join(cells))

    return _table(line("th", head), [line("td", values) for values in lines])


def _table(head: str, body: Sequence[str]) -> str:
    """Rows of HTML; a table too wide for the page scrolls by itself."""
    rows = "\n".join(body)
    return f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def score_table(rows: Sequence[Row]) -> str:
    """The systems under their directions; scores with the half-width of their interval, p-values below 0.05 bold."""
    if not rows:
        return ""
    head = "".join(element("th", escape(name), "" if i else "name") for i, name in enumerate(HEAD[1:]))
    body = []
    for direction in dict.fromkeys(row.direction for row in rows):
        body.append(f'<tr><th colspan="{len(HEAD) - 1}">{escape(arrow(direction))}</th></tr>')
        for row in (row for row in rows if row.direction == direction):
            cells = [f'<td class="name">{escape(row.system)}</td>']
            for key, metric in (("bleu", "BLEU"), ("chrf", "chrF")):
                result, p = row.test(metric), row.p_value(metric)
                interval = f" <small>± {result.ci:.2f}</small>" if result is not None and result.ci is not None else ""
                cells.append(f"<td>{number(row.scores.get(key), 2)}{interval}</td>")
                cells.append(f"<td>{_p_value(p, row.baseline)}</td>")
            cells += [f"<td>{escape(value)}</td>" for value in row.cells()[6:]]
            body.append(element("tr", "".join(cells), "base" if row.baseline else ""))
    return _table(element("tr", head), body)


def _p_value(p: float | None, baseline: bool) -> str:
    if baseline:
        return "<small>baseline</small>"
    text = escape(probability(p))
    return f"<strong>{text}</strong>" if p is not None and p < 0.05 else text


def figures(pictures: Sequence[Picture], three: bool = False) -> str:
    """Pictures side by side, as many as fit."""
    if not pictures:
        return ""
    parts = (
        f"<figure><h3>{escape(p.title)}</h3>"
        f'<img alt="{escape(p.title)}" src="data:image/png;base64,{base64.b64encode(p.png).decode()}">'
        f"<figcaption>{escape(p.caption)}</figcaption></figure>"
        for p in pictures
    )
    return element("div", "\n".join(parts), "figures three" if three else "figures")


@dataclass
class Example:
    """A sentence, its reference, and its translation by each system."""

    source: str
    reference: str
    translations: dict[str, str]


def examples(systems: Sequence[System], split: str, direction: str, count: int) -> list[Example]:
    """Sentences that the systems translate differently, at even distances in the text.

    A system whose texts are gone, or are of another test text than the first one's, is left out.
    """
    source: list[str] | None = None
    reference: list[str] | None = None
    columns: dict[str, list[str]] = {}
    for system in systems:
        evaluation = system.stage.evaluations.get(split)
        if evaluation is None:
            continue
        texts = [evaluation.lines(direction, kind) for kind in ("src", "ref", "hyp")]
        if any(text is None for text in texts) or len({len(text or ()) for text in texts}) > 1:
            continue
        if reference is None:
            source, reference = texts[0], texts[1]
        if texts[1] == reference:
            columns[system.name] = texts[2] or []
    differing = [i for i, lines in enumerate(zip(*columns.values(), strict=True)) if len(set(lines)) > 1]
    if not differing or source is None or reference is None:
        return []
    chosen = np.unique(np.linspace(0, len(differing) - 1, min(count, len(differing))).round().astype(int))
    return [
        Example(source[i], reference[i], {name: lines[i] for name, lines in columns.items()})
        for i in (differing[int(c)] for c in chosen)
    ]


def example_lists(found: Sequence[Example]) -> str:
    """Each sentence with its translations, marked (see :func:`marked`) against the first system's."""
    parts = []
    for example in found:
        lines = [("source", escape(example.source), ""), ("reference", escape(example.reference), "reference")]
        first = next(iter(example.translations.values()))
        lines += [(name, marked(text, example.reference, first), "") for name, text in example.translations.items()]
        content = "".join(element("dt", escape(name)) + element("dd", text, kind) for name, text, kind in lines)
        parts.append(f"<dl>{content}</dl>")
    return "\n".join(parts)


def words(text: str) -> list[str]:
    """Words and signs, each with the white space before it; joined they are the text, but for trailing space."""
    return _WORD.findall(text)


def marked(text: str, reference: str, first: str) -> str:
    """A translation as HTML: ``<mark>`` where it is not the reference's, ``<ins>`` and ``<del>`` where not ``first``'s.

    Args:
        text, reference, first: plain sentences. ``first`` is another system's translation of the same source.
    """
    tokens = words(text)
    plain = [token.strip() for token in tokens]
    foreign = [True] * len(tokens)
    for _, start, size in _matches([w.strip() for w in words(reference)], plain):
        foreign[start : start + size] = [False] * size
    new, dropped = [True] * len(tokens), {}
    before = words(first)
    previous = (0, 0)
    for there, here, size in _matches([w.strip() for w in before], plain):
        new[here : here + size] = [False] * size
        if here == previous[1] and there > previous[0]:  # words gone, none in their place
            dropped[here] = before[previous[0] : there]
        previous = (there + size, here + size)
    parts = []
    for index in range(len(tokens) + 1):
        parts += [f"{space}<del>{escape(word)}</del>" for space, word in map(_apart, dropped.get(index, ()))]
        if index < len(tokens):
            space, word = _apart(tokens[index])
            html = escape(word)
            html = f"<mark>{html}</mark>" if foreign[index] else html
            parts.append(space + (f"<ins>{html}</ins>" if new[index] else html))
    return "".join(parts)


def _apart(token: str) -> tuple[str, str]:
    word = token.lstrip()
    return token[: len(token) - len(word)], word


def _matches(a: list[str], b: list[str]) -> list[difflib.Match]:
    """Ends with an empty match at both ends, as difflib has it."""
    return difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_matching_blocks()


def stage_table(systems: Sequence[System]) -> str:
    """How each system was trained."""
    head = ("system", "λ", "seed", "updates", "best at", "best validation BLEU", "state")
    lines = []
    for system in systems:
        stage = system.stage
        best = stage.best or {}
        bleu = best.get("bleu")
        last = max((r["num_updates"] for r in [*stage.valid, *stage.train]), default=None)
        options = stage.options
        lines.append(
            (
                system.name, options.get("dual-lambda", "-"), options.get("seed", "-"), number(last, 0),
                number(best.get("num_updates"), 0), number(bleu, 2),
                "finished" if stage.finished else "training, or stopped",
            )
        )  # fmt: skip
    return table(head, lines)
