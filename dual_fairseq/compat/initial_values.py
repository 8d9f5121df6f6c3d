"""A parameter that fairseq does not initialise starts from 0: a bias that lightconv has but does not use.

Uninitialised memory may hold NaN, and a checkpoint with NaN would be refused as diverged.
"""

from __future__ import annotations

from fairseq.modules.dynamic_convolution import DynamicConv_scripatable
from torch import nn

_reset_parameters = DynamicConv_scripatable.reset_parameters


def reset_parameters(self: DynamicConv_scripatable) -> None:
    """Like fairseq's method, and always sets the bias to 0."""
    _reset_parameters(self)
    nn.init.zeros_(self.conv_bias)


DynamicConv_scripatable.reset_parameters = reset_parameters
