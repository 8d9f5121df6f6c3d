"""The search for the module that first gave a NaN."""

from __future__ import annotations

import torch
from fairseq import trainer as fairseq_trainer
from fairseq.nan_detector import NanDetector


class _NanDetector(NanDetector):
    """Looks for the module that first gives a NaN, when gradients are not finite.

    PyTorch's backward hooks cannot be put on a module that returns a dictionary, as fairseq's encoders do: the search
    itself would fail. The modules inside of those return tensors.
    """

    backward: bool

    def add_hooks(self, module: torch.nn.Module) -> None:
        asked, has_parts = self.backward, next(module.children(), None) is not None
        self.backward = asked and not has_parts
        super().add_hooks(module)
        self.backward = asked


fairseq_trainer.NanDetector = _NanDetector
