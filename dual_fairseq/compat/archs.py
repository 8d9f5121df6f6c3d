"""A mistyped ``--arch`` ends with a one-line error."""

from __future__ import annotations

import argparse
import difflib

from fairseq import options as fairseq_options
from fairseq.models import ARCH_MODEL_REGISTRY

from ..common.errors import UserError

# argparse would list the names of all archs, which fills three screens.
_add_model_args = fairseq_options.add_model_args


def add_model_args(parser: argparse.ArgumentParser):
    """Like fairseq's function; an unknown arch gives a one-line error."""
    group = _add_model_args(parser)
    for action in group._group_actions:
        if "--arch" in action.option_strings and action.choices is not None:
            action.type = _known_arch
    return group


def _known_arch(name: str) -> str:
    if name not in ARCH_MODEL_REGISTRY:
        close = difflib.get_close_matches(name, ARCH_MODEL_REGISTRY, n=3)
        raise UserError(
            f"--arch {name}: there is no such arch; "
            + (f"did you mean {' or '.join(close)}?" if close else "try transformer or rnnsearch")
        )
    return name


fairseq_options.add_model_args = add_model_args
