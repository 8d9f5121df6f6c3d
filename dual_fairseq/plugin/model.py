"""One model per direction, both in one fairseq model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from fairseq.models import ARCH_MODEL_REGISTRY, BaseFairseqModel, FairseqEncoderDecoderModel
from fairseq.models.nat import FairseqNATModel
from torch import Tensor, nn

from ..common.errors import UserError, first_line
from ..common.memory import enough_memory
from .output_layer import TokenLogProbs, batch_log_probs


def direction_name(source: str, target: str) -> str:
    """The name of a direction in state-dict keys and metrics: ``de-en``."""
    return f"{source}-{target}"


def of_direction(state_dict: dict[str, Tensor], direction: str) -> dict[str, Tensor]:
    """The weights of one direction of a pair under the arch's own keys; empty if the pair lacks it."""
    prefix = f"models.{direction}."
    return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}


class DualModel(BaseFairseqModel):
    """A pair of encoder–decoder models of any fairseq arch, one for each direction.

    State-dict keys are ``models.<direction>.<the arch's own keys>``. Both directions run in one :meth:`forward`,
    because DistributedDataParallel synchronises the gradients of that call only.

    Args:
        models: direction → encoder–decoder model.
    """

    def __init__(self, models: dict[str, FairseqEncoderDecoderModel]) -> None:
        super().__init__()
        self.models: Any = nn.ModuleDict(models)
        self.num_updates: int | None = None  # None until fairseq sets it

    def forward(
        self, batches: dict[str, dict[str, Any]], padding_idx: int, smoothing: bool = False
    ) -> dict[str, TokenLogProbs]:
        """Run each direction on its own batch, up to the log-probabilities of its target tokens.

        Args:
            batches: direction → ``net_input`` (``src_tokens`` (B, S), ``src_lengths`` (B,), ``prev_output_tokens``
                (B, T)), ``target`` (B, T), and whatever else the arch needs.
            padding_idx: the index of padding in targets.
            smoothing: whether sums over the vocabulary are wanted.

        Returns:
            direction → the result of :func:`batch_log_probs`.
        """
        return {
            direction: batch_log_probs(self.models[direction], batch, padding_idx, smoothing)
            for direction, batch in batches.items()
        }

    def max_positions(self) -> tuple[float, float]:
        """Every sentence is a source once and a target once, so both limits are the smallest limit."""
        limit = min(limit for model in self.models.values() for limit in model.max_positions())
        return (limit, limit)

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls this before every update (and on loading); the criterion's schedule of λ uses it."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq calls this before it translates; an arch may prepare itself or refuse."""
        for model in self.models.values():
            model.prepare_for_inference_(cfg)
        # nothing is left to prepare; fairseq's method would do it again and leave fconv's attention in training mode
        self.eval()

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, model_cfg=None, args=None) -> None:
        """Load each direction as its arch loads its own checkpoint (upgrades and pruning use the arch's keys).

        Raises:
            UserError: the checkpoint does not hold this model's directions.
        """
        self._check_directions(state_dict)
        for direction, model in self.models.items():
            weights = of_direction(state_dict, direction)
            # pruning writes into the configuration
            model.load_state_dict(weights, strict=strict, model_cfg=copy.deepcopy(model_cfg), args=args)

    def _check_directions(self, state_dict: dict[str, Tensor]) -> None:
        """Refuse a checkpoint of a single model or of other languages."""
        held = {key.split(".")[1] for key in state_dict if key.startswith("models.")}
        wanted = set(self.models)
        if not held:
            raise UserError(
                "the checkpoint holds a single model, not a pair: use it with --task translation, or start a pair "
                "from it with --init-src2tgt / --init-tgt2src"
            )
        if held != wanted:
            raise UserError(
                f"the checkpoint holds the directions {', '.join(sorted(held))}, not {', '.join(sorted(wanted))}: "
                "give the data that it was trained on, or its languages with -s and -t"
            )


_SPEECH = tuple(
    f"fairseq.models.{folder}."
    for folder in ("speech_to_text", "speech_to_speech", "text_to_speech", "wav2vec", "hubert")
)


def arch_name(model_cfg: Any) -> str:
    """``--arch`` of a model's options, or ``?``."""
    return getattr(model_cfg, "_name", None) or getattr(model_cfg, "arch", None) or "?"


def pair_arch(name: str) -> str:
    """An arch name, if a pair can use the arch.

    Raises:
        UserError: the arch has no P(target | source) of its own.
    """
    arch = ARCH_MODEL_REGISTRY.get(name)
    if arch is not None and not issubclass(arch, FairseqEncoderDecoderModel):
        raise UserError(f"--arch {name}: is not an encoder–decoder model, and a pair needs two; try --arch transformer")
    if arch is not None and issubclass(arch, FairseqNATModel):
        raise UserError(
            f"--arch {name}: is not autoregressive, so it has no log P(y|x) for the duality gap; try --arch transformer"
        )
    if arch is not None and arch.__module__.startswith(_SPEECH):
        raise UserError(f"--arch {name}: is for speech, but a pair translates text; try --arch transformer")
    return name


def built(arch: str, build: Callable[[], Any]) -> Any:
    """A new model; an error of fairseq's own archs becomes one line.

    Raises:
        UserError: the arch cannot be built with these options or dictionaries.
    """
    try:
        with enough_memory():
            return build()
    except Exception as error:
        if not ARCH_MODEL_REGISTRY[arch].__module__.startswith("fairseq."):
            raise  # for the arch's author
        raise UserError(
            f"--arch {arch}: cannot be built with these options and dictionaries: {first_line(error)}"
        ) from error


def parameter_like(model: nn.Module) -> Tensor:
    """Any parameter, as a sample of the model's device and precision."""
    return next(p for p in model.parameters() if torch.is_floating_point(p))
