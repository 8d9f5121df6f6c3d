"""Pictures of attention: for each sentence, a heat map of source tokens by target tokens.

dual-fairseq attention RUN -t en --output pictures < some.de
"""

from __future__ import annotations

import io
import logging
import unicodedata
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.arguments import Parser
from ..common.drawing import look
from ..common.files import check_output, whole_file
from ..common.options import add_beam, add_dest, add_device, add_languages, add_output, whole_number
from ..pair.translate import text_output

if TYPE_CHECKING:
    from ..pair.attention import Attention

logger = logging.getLogger(__name__)

FONT = "DejaVu Sans"  # comes with matplotlib
_CELL = 0.27  # inches
# A token such as $x$ is not a formula.
LOOK: Any = {"font.size": 9, "text.parse_math": False}

DESCRIPTION = """\
Translate raw text with a trained pair, or a single model, and draw its attention, one PNG per sentence. The tokens of
the source are at the top, those of the translation on the left. A dark cell means much attention."""

EPILOG = """\
RUN is a folder of dual-fairseq train (with its stage dual, else mle, else warmup), a folder of one stage, or a
checkpoint. It can also be a checkpoint of --task translation; then --dest names the folder that segments its text.

The attention is that of fairseq's own generator (as for --print-alignment): for a Transformer the mean over the heads
of its last layer, for fconv the mean over the layers. The weights of each target token add up to 1. They show what the
decoder read. This is not always the word that was translated.

Standard output: the file and the translation of each sentence, separated by a tab."""


def draw_attention(axes: Any, attention: Attention) -> None:
    """Draw a heat map on matplotlib's axes: one row per target token, from the top, one column per source token."""
    axes.imshow(attention.weights, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(attention.source)), attention.source, rotation=90)
    axes.set_yticks(range(len(attention.target)), attention.target)
    axes.tick_params(length=0)
    for axis, count in ((axes.xaxis, len(attention.source)), (axes.yaxis, len(attention.target))):
        axis.set_ticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("0.6")


def picture(attention: Attention) -> bytes:
    """A PNG of :func:`draw_attention`. Characters that no installed font has are drawn as boxes, with a warning."""
    from matplotlib.figure import Figure

    fonts, missing = fonts_for("".join([*attention.source, *attention.target]))
    if missing:
        logger.warning("no installed font has %s: drawn as boxes (Google's Noto fonts have them)", " ".join(missing))
    label = max(map(len, [*attention.source, *attention.target])) * 0.09 + 0.3
    size = (label + _CELL * len(attention.source), label + _CELL * len(attention.target))
    buffer = io.BytesIO()
    with look({**LOOK, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support")
        figure = Figure(figsize=size, layout="constrained")
        draw_attention(figure.subplots(), attention)
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def fonts_for(text: str) -> tuple[list[str], list[str]]:
    """(families of fonts that together have a text's characters, the characters that no installed font has)."""
    from matplotlib import font_manager

    families = [FONT]
    missing = {c for c in text if unicodedata.category(c)[0] not in "CZ"} - _characters(font_manager.findfont(FONT))
    for entries in (lambda: font_manager.fontManager.ttflist, _new_fonts):
        for entry in entries() if missing else ():
            # matplotlib's last resort has a box for everything
            if entry.style == "normal" and entry.weight == 400 and not entry.name.startswith("Last Resort"):
                characters = missing & _characters(entry.fname)
                families += [entry.name] if characters else []
                missing -= characters
    return families, sorted(missing)


def _new_fonts() -> list[Any]:
    """The fonts that were installed after matplotlib wrote its list of fonts, which it never updates."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    before = len(font_manager.fontManager.ttflist)
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with suppress(OSError, RuntimeError):  # no font after all
            font_manager.fontManager.addfont(path)
    return font_manager.fontManager.ttflist[before:]


def _characters(font: str) -> set[str]:
    from matplotlib import font_manager

    try:
        return set(map(chr, font_manager.get_font(font).get_charmap()))
    except (OSError, RuntimeError):  # no font after all
        return set()


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("attention", DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", help="the folder of a run or a stage, or a checkpoint (see below)")
    add_languages(parser, source="(default: the pair's other)", target="(or give -s)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="text, plain or .gz (default: standard input)")
    add_output(parser, "the folder for the pictures: 001.de-en.png for line 1, ...", "DIR")
    parser.add_argument(
        "--limit", type=whole_number(), default=20, metavar="N", help="read at most N lines (default %(default)s)"
    )
    add_beam(parser)
    add_dest(parser)
    add_device(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file.

    Raises:
        UserError: an option, the input or the model is wrong.
    """
    parser = get_parser()
    options = parser.parse_args(arguments)
    if options.source_lang is None and options.target_lang is None:
        parser.error("give the language of the text (-s) or the one to translate into (-t)")
    options.output.mkdir(parents=True, exist_ok=True)
    from ..pair.attention import translate_with_attention

    with text_output() as stdout:
        lines = translate_with_attention(
            options.run,
            options.source_lang,
            options.target_lang,
            options.input,
            options.limit,
            options.beam,
            options.dest,
            options.cpu,
        )
        for line in lines:
            path = options.output / f"{line.number:03}.{line.direction}.png"
            check_output(path, [options.input])
            with whole_file(path) as file:
                file.write(picture(line.attention))
            print(path, line.translation, sep="\t", file=stdout, flush=True)
