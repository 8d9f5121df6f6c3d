"""The recurrent archs: what they compute, alone and as a pair."""

from __future__ import annotations

import pytest
import torch
from helpers import gate_matrices, zero_state

from dual_fairseq.recurrent.cells import (
    CELLS,
    StepCells,
    detach_state,
    initialise,
    recurrent_stack,
    reorder_state,
    run_padded,
    run_stack,
)


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_tuples_whatever_the_cell(cell):
    stack = recurrent_stack(cell, 4, 5, layers=2, bidirectional=True)
    x = torch.randn(3, 6, 4)
    outputs, last = run_stack(stack, x)
    assert outputs.shape == (3, 6, 10) and len(last) == (2 if cell == "lstm" else 1)
    assert all(part.shape == (4, 3, 5) for part in last)
    from_zero, _ = run_stack(stack, x, zero_state(stack, 3, x))
    torch.testing.assert_close(outputs, from_zero)
    order = torch.tensor([2, 2, 0])
    _, of_order = run_stack(stack, x[order])
    for part, other in zip(reorder_state(last, order), of_order, strict=True):
        torch.testing.assert_close(part, other)
    assert not any(part.requires_grad for part in detach_state(last))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_sentences_of_different_lengths_are_read_as_if_alone(cell, bidirectional, dtype):
    torch.manual_seed(1)
    stack = recurrent_stack(cell, 4, 5, layers=2, bidirectional=bidirectional).to(dtype)
    x = torch.randn(4, 6, 4, dtype=dtype, requires_grad=True)
    # padding on the left, on the right, on both sides, and none
    spans = [(2, 6), (0, 5), (1, 4), (0, 6)]
    padding = torch.tensor([[not start <= i < end for i in range(6)] for start, end in spans])
    outputs, last = run_padded(stack, x, padding)
    assert not outputs[padding].any()
    alone = [run_stack(stack, x[i : i + 1, start:end]) for i, (start, end) in enumerate(spans)]
    for i, (start, end) in enumerate(spans):
        torch.testing.assert_close(outputs[i, start:end], alone[i][0][0])
        for part, other in zip(last, alone[i][1], strict=True):
            torch.testing.assert_close(part[:, i], other[:, 0])

    leaves = [x, *stack.parameters()]
    together = torch.autograd.grad((outputs**2).sum() + sum((part**3).sum() for part in last), leaves)
    apart = sum((y**2).sum() + sum((part**3).sum() for part in state) for y, state in alone)
    for mine, other in zip(together, torch.autograd.grad(apart, leaves), strict=True):
        torch.testing.assert_close(mine, other)


def test_dropout_between_layers_is_there_in_training_only_however_a_stack_is_run():
    stack = recurrent_stack("lstm", 4, 200, layers=2, dropout=0.4)
    x = torch.randn(2, 3, 4)
    padding = torch.tensor([[True, False, False], [False, False, False]])
    for run in (
        lambda: run_padded(stack, x, padding)[0],
        lambda: run_stack(stack, x)[0],
        lambda: torch.stack(
            [step(word) for step in [StepCells(stack, zero_state(stack, 2, x))] for word in x.unbind(1)]
        ),
    ):
        torch.manual_seed(3)
        first = run()
        assert not torch.equal(first, run()), "training drops out"
        stack.eval()
        torch.testing.assert_close(run(), run())
        stack.train()


@pytest.mark.parametrize("cell", CELLS)
def test_orthogonal_means_each_gate_is(cell):
    stack = recurrent_stack(cell, 6, 8, layers=2, bidirectional=True)
    initialise(stack, "orthogonal")
    recurrent = [gate for name, gate in gate_matrices(stack) if "weight_hh" in name]
    assert len(recurrent) == 4 * {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    for gate in recurrent:
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheme", ["xavier", "kaiming", "orthogonal"])
def test_schemes_scale_by_the_fans_of_one_gate(scheme):
    stack = recurrent_stack("lstm", 300, 100)
    initialise(stack, scheme)
    variance = 1 / 300 if scheme == "kaiming" else 2 / 400
    for name, gate in gate_matrices(stack):
        if "weight_ih" in name:
            assert gate.var().item() == pytest.approx(variance, rel=0.05)
    biases = stack.bias_ih_l0 + stack.bias_hh_l0
    assert biases.view(4, 100).sum(1).tolist() == [0, 100, 0, 0], "of an LSTM, the forget gate's is 1"


def test_default_is_what_pytorch_makes_of_layers():
    torch.manual_seed(0)
    stack = recurrent_stack("gru", 4, 5)
    before = [p.clone() for p in stack.parameters()]
    initialise(stack, "default")
    assert all(torch.equal(p, b) for p, b in zip(stack.parameters(), before, strict=True))
