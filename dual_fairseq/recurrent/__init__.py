"""Recurrent encoder–decoders and language models (registers their archs)."""

from . import language_model, model  # noqa: F401
