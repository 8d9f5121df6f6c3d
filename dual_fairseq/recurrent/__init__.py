"""Recurrent encoder–decoders and language models, and running text (registers archs and task)."""

from . import language_model, model, running_text  # noqa: F401
