"""``--optimizer torch_adam``: fairseq's Adam by PyTorch's fused kernel."""

import math
from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035 (fairseq reads its options' types from the fields)

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam
from omegaconf import II


@dataclass
class TorchAdamConfig(FairseqDataclass):
    adam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for Adam optimizer"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon for Adam optimizer"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay"})
    lr: List[float] = II("optimization.lr")  # noqa: RUF009, UP006


@register_optimizer("torch_adam", dataclass=TorchAdamConfig)
class TorchAdam(FairseqOptimizer):
    """The update of fairseq's ``adam``, with its options, in one pass over all parameters.

    fairseq's own loops over the parameters in Python, about ten small operations per tensor (on a GPU with apex, it is
    fused).
    """

    def __init__(self, cfg: TorchAdamConfig, params) -> None:
        super().__init__(cfg)
        self._optimizer = _Adam(params, **self.optimizer_config)

    optimizer_config = FairseqAdam.optimizer_config
    average_params = FairseqAdam.average_params


class _Adam(torch.optim.AdamW):
    """AdamW with ε as in fairseq: m/(√v + ε) with bias corrections outside; PyTorch has m̂/(√v̂ + ε)."""

    supports_flat_params = True  # for fairseq's FP16Optimizer

    def __init__(self, params, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, fused=True)
        for group in self.param_groups:
            group["updates"] = 0

    def step(self, closure=None):
        """One update."""
        eps = [group["eps"] for group in self.param_groups]
        for group in self.param_groups:
            group["updates"] += 1
            # √v̂ = √v / √(1 − β₂ᵗ), so dividing ε by the same root adds ε to √v
            group["eps"] /= math.sqrt(1 - group["betas"][1] ** group["updates"])
        try:
            return super().step(closure)
        finally:
            for group, value in zip(self.param_groups, eps, strict=True):
                group["eps"] = value
