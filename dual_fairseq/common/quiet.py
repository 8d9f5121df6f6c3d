"""Hides known warnings of fairseq 0.12 that only a change of its own code could avoid, and no other warnings.

Each is recognised by its text and, if certain, by the module that it names; any other text is shown as usual. (Some
always name PyTorch as the cause, so they are also hidden if a user's own arch causes them.) ``python -W default`` (or
``PYTHONWARNINGS``) shows them all. Commands whose output is a table or text print even less
(:func:`quieten_libraries`).
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownNoise:
    """A warning that tells a user of this package nothing.

    Args:
        reason: why it appears, and why it is harmless.
        message: a regular expression for the beginning of its text.
        category: its class.
        module: a regular expression for the module it names; empty if that depends on how fairseq was started.
    """

    reason: str
    message: str
    category: type[Warning] = UserWarning
    module: str = ""


KNOWN_NOISE = (
    KnownNoise(
        "fairseq starts hydra by the names of hydra 1.0; hydra 1.3 still has them",
        r"hydra\.experimental\.(initialize|compose)\(\) is no longer experimental",
        module=r"hydra\.experimental\.",
    ),
    KnownNoise(
        "fairseq does not tell hydra which version's behaviour it wants, and gets that of 1.1",
        r"\s*The version_base parameter is not specified",
        module=r"hydra\.experimental\.initialize",
    ),
    KnownNoise(
        "the header of fairseq's config.yaml, written for hydra 1.0",
        r"In 'config': Usage of deprecated keyword in package header '# @package _group_'",
        module=r"hydra\.core\.",
    ),
    KnownNoise(
        "fairseq's config.yaml and its dataclass of the same name, matched as in hydra 1.0",
        r"\s*'config' is validated against ConfigStore schema with the same name",
    ),
    KnownNoise(
        "fairseq reads its options with hydra's strict=False, which hydra 1.3 still honours",
        r"\s*The strict flag in the compose API is deprecated",
        module=r"hydra\.compose",
    ),
    KnownNoise(
        "fairseq asks for pinned memory whether or not there is a GPU; without one it changes nothing",
        r"'pin_memory' argument is set as true but no accelerator is found",
        module=r"torch\.utils\.data\.dataloader",
    ),
    KnownNoise(
        "fairseq's trainer uses mixed precision by its old name, which PyTorch still has",
        r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated",
        category=FutureWarning,
        module=r"fairseq\.",
    ),
    KnownNoise(
        "fairseq's attention gives a causal mask of floats and a padding mask of booleans; PyTorch converts one",
        r"Support for mismatched key_padding_mask and attn_mask is deprecated",
        module=r"torch\.nn\.functional",
    ),
    KnownNoise(
        "fairseq gives DistributedDataParallel, through the wrapper in compat/processes.py, an option by its old name",
        r"`broadcast_buffers` is deprecated\. Use `forward_sync_buffers` instead",
        category=FutureWarning,
        module=r"dual_fairseq\.compat\.processes|torch\.nn\.parallel\.distributed|fairseq\.",
    ),
    KnownNoise(
        "fairseq's fconv normalises its weights by PyTorch's older function, which works",
        r"`torch\.nn\.utils\.weight_norm` is deprecated",
        category=FutureWarning,
        module=r"torch\.nn\.utils\.weight_norm",
    ),
    KnownNoise(
        "fairseq's convolutions of fconv hook into the backward pass in the older way; PyTorch still calls the hook",
        r"Using non-full backward hooks on a Module that does not take as input a single Tensor",
        category=FutureWarning,
        module=r"torch\.nn\.modules\.module",
    ),
    KnownNoise(
        "fairseq's convolutions of fconv pass an argument of state_dict() by its place",
        r"Positional args are being deprecated, use kwargs instead",
        category=FutureWarning,
        module=r"fairseq\.modules\.linearized_convolution",
    ),
)

# (logger, level, reason)
CHATTY_LOGGERS = (
    ("hydra", logging.INFO, "hydra's DEBUG messages: fairseq's commands log before they have set a level"),
    (
        "matplotlib",
        logging.INFO,
        "matplotlib's, too: one of fairseq's models has all of DEBUG shown when it is imported",
    ),
    ("fairseq.tasks.text_to_speech", logging.WARNING, "asks everybody to install tensorboardX, for speech synthesis"),
)


def silence_known_noise() -> None:
    """Add a filter for each of :data:`KNOWN_NOISE`, after the user's filters, and quieten :data:`CHATTY_LOGGERS`."""
    for noise in KNOWN_NOISE:
        warnings.filterwarnings("ignore", noise.message, noise.category, noise.module, append=True)
    for name, level, _ in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(level)


def quieten_libraries() -> None:
    """Show nothing below a warning, for a command whose output is a table or text.

    The import of fairseq's text-to-speech task turns on INFO for all libraries.
    """
    for name in ("fairseq", "dual_fairseq", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)  # its tokenizer is named in the signature
