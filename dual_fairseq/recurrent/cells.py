"""The parts of recurrent models: cells, stacks of cells, states, and first weights."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from fairseq.models import register_model_architecture
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.options import flag

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}  # nn.RNN: tanh

SCHEMES = ("default", "uniform", "xavier", "kaiming", "orthogonal")

# The state of a stack of any cell: (h,), or (h, c) for an LSTM, each (layers · directions, B, H).
State = tuple[Tensor, ...]


def check_options(
    cfg: Any, choices: Mapping[str, Iterable[str]], sizes: Iterable[str], dropouts: Iterable[str]
) -> None:
    """Refuse invalid values of options, each with one line.

    Args:
        cfg: a model's options.
        choices: option → its valid values.
        sizes: options that are at least 1, or None.
        dropouts: options that are probabilities, or None.

    Raises:
        UserError: an option has another value.
    """

    def wrong(name: str, why: str) -> UserError:
        return UserError(f"{flag(name)} {getattr(cfg, name)}: {why}")

    for name, allowed in choices.items():
        if getattr(cfg, name) not in allowed:
            raise wrong(name, f"is not one of {', '.join(allowed)}")
    for name in sizes:
        size = getattr(cfg, name)
        if size is not None and size < 1:
            raise wrong(name, "must be at least 1")
    for name in dropouts:
        probability = getattr(cfg, name)
        if probability is not None and not 0 <= probability < 1:
            raise wrong(name, "must be at least 0 and less than 1")
    if not (math.isfinite(cfg.init_bound) and cfg.init_bound >= 0):
        raise wrong("init_bound", "must be a finite number, 0 or more")


def register_presets(model: str, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Register named forms of a model, which set options that the command line leaves out."""

    def apply(preset: Mapping[str, Any], args: Namespace) -> None:
        for name, value in preset.items():
            setattr(args, name, getattr(args, name, value))

    for name, preset in presets.items():
        register_model_architecture(model, name)(partial(apply, preset))


def recurrent_stack(
    cell: str, input_size: int, hidden_size: int, layers: int = 1, dropout: float = 0.0, bidirectional: bool = False
) -> nn.RNNBase:
    """Stacked recurrent layers; torch runs them over a whole sequence in one call.

    Args:
        cell: one of :data:`CELLS`.
        input_size: size of an input vector.
        hidden_size: size H of a state (of each direction).
        layers: the number of layers.
        dropout: between layers, but not between time steps and not after the last layer.
        bidirectional: whether each layer also reads from right to left; its output is then 2·H.

    Returns:
        (B, T, input_size) → (B, T, H · directions).
    """
    make: Any = CELLS[cell]
    return make(
        input_size,
        hidden_size,
        num_layers=layers,
        batch_first=True,
        dropout=dropout if layers > 1 else 0.0,  # torch warns of dropout with one layer
        bidirectional=bidirectional,
    )


def run_stack(stack: nn.RNNBase, inputs: Any, state: State | None = None) -> tuple[Any, State]:
    """Run a stack of any cell; its state is a tuple.

    Args:
        stack: from :func:`recurrent_stack`.
        inputs: (B, T, input_size), or a packed sequence.
        state: the first state; None is zeros.

    Returns:
        (B, T, H · directions) outputs, packed if the inputs were, and the last state.
    """
    initial: Any = state
    if state is not None:
        initial = tuple(part.contiguous() for part in state)  # cuDNN requires this
        if not isinstance(stack, nn.LSTM):
            (initial,) = initial
    outputs, last = stack(inputs, initial)
    return outputs, last if isinstance(last, tuple) else (last,)


def run_padded(stack: nn.RNNBase, inputs: Tensor, padding_mask: Tensor) -> tuple[Tensor, State]:
    """Run a stack over sentences of different lengths, with the results of each sentence alone.

    Args:
        stack: from :func:`recurrent_stack`.
        inputs: (B, S, input_size), padded on either side.
        padding_mask: (B, S), true at padding; no row is all padding.

    Returns:
        (B, S, H · directions) outputs at the positions of the inputs, 0 at padding; and the state after each sentence's
        last token (backward direction: after its first token).
    """
    lengths = padding_mask.size(1) - padding_mask.sum(1).cpu()  # on a GPU the host waits here
    if int(lengths.min()) == padding_mask.size(1):
        return run_stack(stack, inputs)
    if isinstance(stack, nn.LSTM) and inputs.device.type == "cpu" and inputs.dtype == torch.float32:
        return _run_muted(stack, inputs, padding_mask)
    order = padding_mask.long().argsort(dim=1, stable=True)  # tokens first
    packed = nn.utils.rnn.pack_padded_sequence(_at(inputs, order), lengths, batch_first=True, enforce_sorted=False)
    outputs, last = run_stack(stack, packed)
    outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=padding_mask.size(1))
    return _at(outputs, order.argsort(dim=1)), last


# The value for an LSTM's input gate at padding: its sigmoid is exactly 0.
_MUTE = -1e4
# Flags added to the inputs. Only one is used, but oneDNN is slow with odd widths.
_FLAGS = 16


def _run_muted(stack: nn.LSTM, inputs: Tensor, padding_mask: Tensor) -> tuple[Tensor, State]:
    """:func:`run_padded` for an LSTM, with torch's kernel for sequences without padding.

    On a CPU, torch runs packed sequences without oneDNN, which is two to three times slower. Here, padding goes first,
    and a flag in the input closes the input gate at padding. So c and h are still 0 when a sentence begins, and no
    gradient comes from the padding.
    """
    batch, length = padding_mask.shape
    order = (~padding_mask).long().argsort(dim=1, stable=True)
    padding = padding_mask.gather(1, order)
    position, start = torch.arange(length, device=order.device), padding.sum(1, keepdim=True)
    reverse = torch.where(position < start, position, length - 1 + start - position)
    flags = nn.functional.pad(padding.unsqueeze(-1).to(inputs.dtype), (0, _FLAGS - 1))
    mute = inputs.new_zeros(4 * stack.hidden_size, _FLAGS)
    mute[: stack.hidden_size, 0] = _MUTE  # gates: input, forget, cell, output
    zeros = inputs.new_zeros(1, batch, stack.hidden_size)
    directions = 2 if stack.bidirectional else 1
    x, hs, cs = _at(inputs, order), [], []
    for layer in range(stack.num_layers):
        if layer and stack.training:
            x = nn.functional.dropout(x, stack.dropout)
        x, outputs = torch.cat((x, flags), dim=-1), []
        for direction in range(directions):
            weight, *others = stack.all_weights[layer * directions + direction]
            weights = [torch.cat((weight, mute), dim=1), *others]
            y, h, c = torch.lstm(
                _at(x, reverse) if direction else x, (zeros, zeros), weights, True, 1, 0.0, stack.training, False, True
            )
            outputs.append(_at(y, reverse) if direction else y)
            hs.append(h)
            cs.append(c)
        x = torch.cat(outputs, dim=-1)
    return _at(x, order.argsort(dim=1)), (torch.cat(hs), torch.cat(cs))


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """(B, S, D), (B, S) → the vectors at these positions of each row."""
    return x.gather(1, positions.unsqueeze(-1).expand_as(x))


def reorder_state(state: State, order: Tensor) -> State:
    """The states of the rows ``order``: row i of the result is row ``order[i]`` (beam search)."""
    return tuple(part.index_select(1, order) for part in state)


class StepCells:
    """Runs a stack of one direction step by step, for inputs that depend on the state before them.

    The weights are the stack's own, so both ways of running compute the same.

    Args:
        stack: from :func:`recurrent_stack`.
        state: the first state.
    """

    def __init__(self, stack: nn.RNNBase, state: State) -> None:
        self._dropout = stack.dropout if stack.training else 0.0
        self._weights = [layer[:4] for layer in stack.all_weights]
        self._states = [tuple(part[i] for part in state) for i in range(stack.num_layers)]
        function: Any = torch.gru_cell if isinstance(stack, nn.GRU) else torch.rnn_tanh_cell
        self._cell = _lstm_step if isinstance(stack, nn.LSTM) else lambda x, state, *w: (function(x, *state, *w),)

    def __call__(self, x: Tensor) -> Tensor:
        """One step: (B, input_size) → (B, H), the top layer's new h."""
        for i, (weights, state) in enumerate(zip(self._weights, self._states, strict=True)):
            if i and self._dropout:
                x = nn.functional.dropout(x, self._dropout)
            self._states[i] = self._cell(x, state, *weights)
            x = self._states[i][0]
        return x

    def state(self) -> State:
        """The state after the last step."""
        return tuple(torch.stack(parts) for parts in zip(*self._states, strict=True))


def _lstm_step(x: Tensor, state: State, *weights: Tensor) -> State:
    return torch.lstm_cell(x, state, *weights)


def detach_state(state: State) -> State:
    """The same state; no gradient flows back through it."""
    return tuple(part.detach() for part in state)


def initialise(module: nn.Module, scheme: str, bound: float = 0.1) -> None:
    """Draw new weights for a module and all its submodules, in place.

    Torch keeps all gates in one matrix. Each gate is drawn alone, so fans and orthogonality are right for one gate.

    - ``default``: linear and recurrent layers keep PyTorch's weights: uniform within ±1/√fan;
    - ``uniform``: everything, including biases and embeddings, uniform within ±``bound`` (Luong et al. 2015, §4.1);
    - ``xavier``: uniform with variance 2 / (fan in + fan out) (Glorot & Bengio 2010);
    - ``kaiming``: uniform with variance 1 / fan in (He et al. 2015, with the gain of a linear unit, because
      nothing here rectifies);
    - ``orthogonal``: recurrent matrices orthogonal (Saxe et al. 2014), the rest as ``xavier``.

    With the last three, biases are 0, except at an LSTM's forget gate, where they add up to 1 (Jozefowicz et al.
    2015). With all except ``uniform``, embeddings are normal with standard deviation 1/√dimension, so that tied ones
    give logits of a sensible size. Padding's embedding is 0.

    Args:
        module: a model or a part of one.
        scheme: one of :data:`SCHEMES`.
        bound: the bound of ``uniform``.
    """
    with torch.no_grad():
        embeddings = [part for part in module.modules() if isinstance(part, nn.Embedding)]
        tied = {id(part.weight) for part in embeddings}
        for part in module.modules():
            if isinstance(part, nn.RNNBase):
                _initialise_recurrent(part, scheme, bound)
            elif isinstance(part, nn.Linear) and scheme != "default":
                for name, parameter in part.named_parameters(recurse=False):
                    if id(parameter) not in tied:
                        _draw(parameter, scheme, bound, recurrent=False, bias=name == "bias")
        for embedding in embeddings:
            if scheme == "uniform":
                nn.init.uniform_(embedding.weight, -bound, bound)
            else:
                nn.init.normal_(embedding.weight, std=1 / math.sqrt(embedding.embedding_dim))
            if embedding.padding_idx is not None:
                embedding.weight[embedding.padding_idx].zero_()


def _initialise_recurrent(layer: nn.RNNBase, scheme: str, bound: float) -> None:
    if scheme == "default":
        return
    size = layer.hidden_size
    for name, parameter in layer.named_parameters():
        for gate in parameter.split(size):
            _draw(gate, scheme, bound, recurrent="weight_hh" in name, bias="bias" in name)
        if scheme != "uniform" and "bias_ih" in name and isinstance(layer, nn.LSTM):
            parameter[size : 2 * size] = 1  # gates: input, forget, cell, output


def _draw(parameter: Tensor, scheme: str, bound: float, recurrent: bool, bias: bool) -> None:
    if scheme == "uniform":
        nn.init.uniform_(parameter, -bound, bound)
    elif bias:
        nn.init.zeros_(parameter)
    elif scheme == "orthogonal" and recurrent:
        nn.init.orthogonal_(parameter)
    elif scheme == "kaiming":
        nn.init.kaiming_uniform_(parameter, nonlinearity="linear")
    else:
        nn.init.xavier_uniform_(parameter)
