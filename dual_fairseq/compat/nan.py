"""The search for the module that first gave a NaN."""

from __future__ import annotations

import torch
from fairseq import trainer as fairseq_trainer
from fairseq.nan_detector import NanDetector


class _NanDetector(NanDetector):
    """Looks for the module that first gives a NaN, when gradients are not finite.

    PyTorch's backward hooks fail on a module that returns a dictionary, such as fairseq's encoders, so only modules
    without parts get them. The modules inside an encoder return tensors.
    """

    backward: bool

    def add_hooks(self, module: torch.nn.Module) -> None:
        backward, has_parts = self.backward, next(module.children(), None) is not None
        self.backward = backward and not has_parts
        super().add_hooks(module)
        self.backward = backward


fairseq_trainer.NanDetector = _NanDetector
