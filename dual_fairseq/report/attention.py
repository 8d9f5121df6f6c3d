"""Pictures of where a decoder looks: a heat map of source tokens by target tokens for each sentence.

dual-fairseq attention RUN -t en --output pictures < some.de
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models import BaseFairseqModel

from ..common.errors import UserError
from ..common.files import whole_file
from ..data.clean import open_text
from ..data.text import TextPipeline, indices
from ..pair.load import find_checkpoint, load_pair, model_of_state
from ..pair.translate import read_lines, text_output
from ..pair.translator import MAX_LEN_A, MAX_LEN_B
from ..plugin.checkpoint import load_state
from ..plugin.model import parameter_like

logger = logging.getLogger(__name__)

LONGEST = 200  # tokens; of more, nobody can read the picture
FONT = "DejaVu Sans"  # matplotlib brings it along
_CELL = 0.27  # inches
# A token such as $x$ is no formula.
LOOK: Any = {"font.size": 9, "text.parse_math": False}

DESCRIPTION = """\
Translate raw text with a pair of scripts/train_dual.sh, or a single model, and draw where the decoder looks: a PNG a
sentence, the source's tokens above, those of the translation on the left, a dark cell where much attention is."""

EPILOG = """\
RUN is a folder of scripts/train_dual.sh (the best checkpoint of its stage dual is taken, else of mle, else of warmup),
a folder of one stage, or a checkpoint; also one of --task translation, whose text DEST (--dest) segments.

The attention is what fairseq's own generator reports (as for --print-alignment): of a Transformer the mean over the
heads of its last layer, of fconv the mean over the layers. The weights of each target token add up to 1. It shows what
the decoder read, not always what a word was translated from.

Standard output: the file and the translation of each sentence, separated by a tab."""


@dataclass(frozen=True)
class Attention:
    """What a decoder looked at while it translated a sentence.

    Args:
        source: S tokens, with ``</s>``.
        target: T tokens of the translation, with ``</s>``.
        weights: (T, S), each row adding up to 1.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: np.ndarray


def attention_of(model: BaseFairseqModel, task: Any, generator: Any, tokens: Sequence[str]) -> tuple[Attention, str]:
    """Translate a sentence and see what the decoder looked at.

    Args:
        model: a pair, or a single model, in evaluation mode.
        task: of the direction.
        generator: that task's.
        tokens: of the sentence, as the model knows them.

    Returns:
        (attention, tokens of the best translation joined by spaces, without ``</s>``).

    Raises:
        UserError: the arch has no attention, or its generator does not report it.
    """
    device = parameter_like(model).device
    source = indices(tokens, task.source_dictionary)
    sample = {"net_input": {"src_tokens": source[None], "src_lengths": torch.tensor([len(source)])}}
    sample = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
    best = task.inference_step(generator, [model], sample)[0][0]
    weights = best.get("attention")
    if weights is None or weights.numel() == 0:
        raise UserError("the arch has no attention, or does not report it: there is nothing to draw")
    dictionary, target = task.target_dictionary, best["tokens"].cpu()
    eos = dictionary[dictionary.eos()]
    return (
        Attention([*tokens, eos], [dictionary[i] for i in target.tolist()], weights.float().cpu().numpy().T),
        dictionary.string(target),
    )


# --- pictures


def draw_attention(axes: Any, attention: Attention) -> None:
    """Draw a heat map on matplotlib's axes: a row a target token from the top, a column a source token."""
    axes.imshow(attention.weights, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(attention.source)), attention.source, rotation=90)
    axes.set_yticks(range(len(attention.target)), attention.target)
    axes.tick_params(length=0)
    for at, count in ((axes.xaxis, len(attention.source)), (axes.yaxis, len(attention.target))):
        at.set_ticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("0.6")


def picture(attention: Attention) -> bytes:
    """A PNG of :func:`draw_attention`. Characters that no installed font has are drawn as boxes, and told."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    fonts, missing = fonts_for("".join([*attention.source, *attention.target]))
    if missing:
        logger.warning("no installed font has %s: drawn as boxes (Google's Noto fonts have them)", " ".join(missing))
    label = max(map(len, [*attention.source, *attention.target])) * 0.09 + 0.3
    size = (label + _CELL * len(attention.source), label + _CELL * len(attention.target))
    buffer = io.BytesIO()
    with rc_context({**LOOK, "font.family": fonts}), warnings.catch_warnings():
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
    for entry in font_manager.fontManager.ttflist:
        if not missing:
            break
        # matplotlib's last resort has a box for everything
        if entry.style == "normal" and entry.weight == 400 and not entry.name.startswith("Last Resort"):
            found = missing & _characters(entry.fname)
            families += [entry.name] if found else []
            missing -= found
    return families, sorted(missing)


def _characters(font: str) -> set[str]:
    from matplotlib import font_manager

    try:
        return set(map(chr, font_manager.get_font(font).get_charmap()))
    except (OSError, RuntimeError):  # no font after all
        return set()


# --- command line


def get_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="dual-fairseq attention",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run or a stage, or a checkpoint (see below)")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="language to translate into (or give -s)")
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="language of the text (default: the pair's other)")
    parser.add_argument("--input", metavar="FILE", help="text, plain or .gz (default: standard input)")
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder for the pictures: 001.de-en.png for line 1, ..."
    )
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="read at most so many lines (default 20)")
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="beam size (default 5)")
    parser.add_argument(
        "--dest", metavar="DEST",
        help="folder of scripts/preprocess.sh, for a checkpoint that lies neither in its run nor knows where DEST is",
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    return parser


def _read(options: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """(number, line) of the first lines of the input."""
    with ExitStack() as stack:
        stream, name = sys.stdin.buffer, "standard input"
        if options.input is not None:
            stream, name = stack.enter_context(open_text(Path(options.input))), options.input
        for number, (line,) in islice(read_lines(stream, name, 1), options.limit):
            yield number, line


def load_model(
    checkpoint: Path, text: TextPipeline, source: str | None, target: str | None, device: str
) -> tuple[BaseFairseqModel, Any]:
    """A pair, or a single model of ``--task translation``, with the task of the direction.

    Raises:
        UserError: the checkpoint, its dictionaries or a language do not fit.
    """
    path = str(checkpoint)
    state = load_state(path, "checkpoint")
    cfg, options = state["cfg"].task, {"eval_bleu": False}
    if cfg._name != "translation":
        return load_pair(path, text.dictionaries, source, target, device, options, state)
    for option, wanted, trained in (("-s", source, cfg.source_lang), ("-t", target, cfg.target_lang)):
        if wanted not in (None, trained):
            raise UserError(f"{option} {wanted}: {path} translates {cfg.source_lang} to {cfg.target_lang}")
    return model_of_state(path, state, text.dictionaries, options, device)


def draw_lines(options: argparse.Namespace, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[Path, str]]:
    """Translate and draw numbered lines of raw text.

    Returns:
        (picture, translation) of each; a line of too many tokens and an empty one are left out, and told.

    Raises:
        UserError: there is no such model or direction, or the arch has no attention.
    """
    checkpoint = find_checkpoint(options.run)
    text = TextPipeline.of_checkpoint(checkpoint, options.dest)
    device = "cuda" if torch.cuda.is_available() and not options.cpu else "cpu"
    model, task = load_model(checkpoint, text, options.source_lang, options.target_lang, device)
    source, target = task.cfg.source_lang, task.cfg.target_lang
    # not prepared for inference as fairseq-generate does it, which leaves attention out
    generator = task.build_generator(
        [model], GenerationConfig(beam=options.beam, max_len_a=MAX_LEN_A, max_len_b=MAX_LEN_B)
    )
    limit = min(LONGEST, int(min(task.max_positions()[0], model.max_positions()[0])) - 1)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for number, line in lines:
        tokens = text.encode(line, source).split()
        if not tokens or len(tokens) > limit:
            reason = f"{len(tokens)} tokens, over {limit}" if tokens else "empty"
            logger.warning("line %d: %s; not drawn", number, reason)
            continue
        attention, translation = attention_of(model, task, generator, tokens)
        path = folder / f"{number:03}.{source}-{target}.png"
        with whole_file(path) as file:
            file.write(picture(attention))
        yield path, text.decode(translation, target)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file.

    Raises:
        UserError: the user has something to mend.
    """
    parser = get_parser()
    options = parser.parse_args(arguments)
    for name in ("limit", "beam"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: give a whole number above 0")
    if options.source_lang is None and options.target_lang is None:
        parser.error("give the language of the text (-s) or the one to translate into (-t)")
    if options.input is not None and not os.path.isfile(options.input):
        raise UserError(f"--input {options.input}: there is no such file")
    output = sys.stdout
    with text_output():
        for path, translation in draw_lines(options, _read(options)):
            print(path, translation, sep="\t", file=output, flush=True)
