"""A parameter that fairseq leaves to chance starts from 0: a bias that lightconv has and does not use.

What stands in the memory may be NaN, and a checkpoint with it would be refused as diverged.
"""

from __future__ import annotations

from fairseq.modules.dynamic_convolution import DynamicConv_scripatable
from torch import nn

_reset_parameters = DynamicConv_scripatable.reset_parameters


def reset_parameters(self: DynamicConv_scripatable) -> None:
    """As fairseq's, and the bias is 0 in any case."""
    _reset_parameters(self)
    nn.init.zeros_(self.conv_bias)


DynamicConv_scripatable.reset_parameters = reset_parameters
