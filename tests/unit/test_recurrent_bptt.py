"""Back-propagation through time, written out as equations, against what the recurrent layers compute.

For each cell one backward loop by hand, in float64: against autograd of torch's own kernels as the archs use them
(whole sequence and step by step), and against finite differences of the forward equations.

Notation: x_t (B, E) inputs, h_t (B, H) states, W (gates·H, E) and U (gates·H, H) weights, b and d (gates·H) the two
biases that torch has; δv = ∂L/∂v. L = Σ_t Σ h_t ∘ G_t + Σ (last state) ∘ G', so that every step and the last state
have a gradient of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dual_fairseq.recurrent.cells import CELLS, StepCells, recurrent_stack, run_stack

BATCH, LENGTH, INPUT, HIDDEN = 3, 6, 4, 5
TOLERANCE = 1e-8  # of the largest element of a gradient

Gradients = dict[str, Tensor]
Case = dict[str, Tensor]


def case(cell: str) -> Case:
    """Inputs, first states, weights, and the gradients that come from outside, all drawn at random."""
    torch.manual_seed(7)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    shapes = {
        "x": (BATCH, LENGTH, INPUT), "h0": (BATCH, HIDDEN), "c0": (BATCH, HIDDEN),
        "W": (gates * HIDDEN, INPUT), "U": (gates * HIDDEN, HIDDEN), "b": (gates * HIDDEN,), "d": (gates * HIDDEN,),
        "G": (BATCH, LENGTH, HIDDEN), "G_h": (BATCH, HIDDEN), "G_c": (BATCH, HIDDEN),
    }  # fmt: skip
    return {name: torch.randn(shape, dtype=torch.float64) * 0.7 for name, shape in shapes.items()}


def rnn_bptt(v: Case) -> tuple[Tensor, Gradients]:
    """h_t = tanh(a_t), a_t = W x_t + b + U h_{t−1} + d."""
    h, hs = v["h0"], [v["h0"]]
    for t in range(LENGTH):
        h = torch.tanh(v["x"][:, t] @ v["W"].T + v["b"] + h @ v["U"].T + v["d"])
        hs.append(h)
    loss = (torch.stack(hs[1:], 1) * v["G"]).sum() + (h * v["G_h"]).sum()

    g = {name: torch.zeros_like(v[name]) for name in ("x", "h0", "W", "U", "b", "d")}
    dh = v["G_h"]
    for t in reversed(range(LENGTH)):
        dh = dh + v["G"][:, t]
        da = dh * (1 - hs[t + 1] ** 2)  # δa = δh ∘ (1 − h²)
        g["W"] += da.T @ v["x"][:, t]  # δW += Σ_batch δa xᵀ
        g["U"] += da.T @ hs[t]  # δU += Σ_batch δa h_{t−1}ᵀ
        g["b"] += da.sum(0)
        g["d"] += da.sum(0)
        g["x"][:, t] = da @ v["W"]  # δx = Wᵀ δa
        dh = da @ v["U"]  # δh_{t−1} = Uᵀ δa
    g["h0"] = dh
    return loss, g


def lstm_bptt(v: Case) -> tuple[Tensor, Gradients]:
    """(i, f, o) = σ(a_i, a_f, a_o), g = tanh(a_g), c_t = f ∘ c_{t−1} + i ∘ g, h_t = o ∘ tanh(c_t); a = i, f, g, o."""
    h, c, steps = v["h0"], v["c0"], []
    for t in range(LENGTH):
        a_i, a_f, a_g, a_o = (v["x"][:, t] @ v["W"].T + v["b"] + h @ v["U"].T + v["d"]).chunk(4, dim=1)
        i, f, g_, o = torch.sigmoid(a_i), torch.sigmoid(a_f), torch.tanh(a_g), torch.sigmoid(a_o)
        before = h, c
        c = f * c + i * g_
        h = o * torch.tanh(c)
        steps.append((*before, i, f, g_, o, c, h))
    loss = (torch.stack([step[-1] for step in steps], 1) * v["G"]).sum() + (h * v["G_h"]).sum() + (c * v["G_c"]).sum()

    g = {name: torch.zeros_like(v[name]) for name in ("x", "h0", "c0", "W", "U", "b", "d")}
    dh, dc = v["G_h"], v["G_c"]
    for t in reversed(range(LENGTH)):
        h_before, c_before, i, f, g_, o, c, _ = steps[t]
        dh = dh + v["G"][:, t]
        dc = dc + dh * o * (1 - torch.tanh(c) ** 2)  # δc += δh ∘ o ∘ (1 − tanh²c)
        da = torch.cat(
            (
                dc * g_ * i * (1 - i),  # δa_i = δc ∘ g ∘ σ'
                dc * c_before * f * (1 - f),  # δa_f = δc ∘ c_{t−1} ∘ σ'
                dc * i * (1 - g_**2),  # δa_g = δc ∘ i ∘ tanh'
                dh * torch.tanh(c) * o * (1 - o),  # δa_o = δh ∘ tanh(c) ∘ σ'
            ),
            dim=1,
        )
        g["W"] += da.T @ v["x"][:, t]
        g["U"] += da.T @ h_before
        g["b"] += da.sum(0)
        g["d"] += da.sum(0)
        g["x"][:, t] = da @ v["W"]
        dh, dc = da @ v["U"], dc * f  # δh_{t−1} = Uᵀ δa, δc_{t−1} = δc ∘ f
    g["h0"], g["c0"] = dh, dc
    return loss, g


def gru_bptt(v: Case) -> tuple[Tensor, Gradients]:
    """(r, z) = σ(a_r, a_z), n = tanh(a_n + r ∘ q), q = U_n h_{t−1} + d_n, h_t = (1 − z) ∘ n + z ∘ h_{t−1}.

    torch's convention: the reset gate is applied after the product with U_n, bias included (Cho et al. 2014, appendix
    A.1: so in the decoder, before the product in the encoder).
    """
    h, steps = v["h0"], []
    for t in range(LENGTH):
        x_r, x_z, x_n = (v["x"][:, t] @ v["W"].T + v["b"]).chunk(3, dim=1)
        h_r, h_z, q = (h @ v["U"].T + v["d"]).chunk(3, dim=1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * q)
        before, h = h, (1 - z) * n + z * h
        steps.append((before, r, z, n, q, h))
    loss = (torch.stack([step[-1] for step in steps], 1) * v["G"]).sum() + (h * v["G_h"]).sum()

    g = {name: torch.zeros_like(v[name]) for name in ("x", "h0", "W", "U", "b", "d")}
    dh = v["G_h"]
    for t in reversed(range(LENGTH)):
        h_before, r, z, n, q, _ = steps[t]
        dh = dh + v["G"][:, t]
        da_n = dh * (1 - z) * (1 - n**2)  # δa_n = δh ∘ (1 − z) ∘ tanh'
        da_z = dh * (h_before - n) * z * (1 - z)  # δa_z = δh ∘ (h_{t−1} − n) ∘ σ'
        da_r = da_n * q * r * (1 - r)  # δa_r = δa_n ∘ q ∘ σ'
        dx = torch.cat((da_r, da_z, da_n), dim=1)  # what reaches W x + b
        dq = torch.cat((da_r, da_z, da_n * r), dim=1)  # what reaches U h + d: δq = δa_n ∘ r
        g["W"] += dx.T @ v["x"][:, t]
        g["b"] += dx.sum(0)
        g["U"] += dq.T @ h_before
        g["d"] += dq.sum(0)
        g["x"][:, t] = dx @ v["W"]
        dh = dh * z + dq @ v["U"]  # δh_{t−1} = δh ∘ z + Uᵀ δq
    g["h0"] = dh
    return loss, g


BPTT: dict[str, Callable[[Case], tuple[Tensor, Gradients]]] = {"rnn": rnn_bptt, "gru": gru_bptt, "lstm": lstm_bptt}


def autograd(cell: str, v: Case, by_steps: bool) -> tuple[Tensor, Gradients]:
    """The same loss and gradients by the project's layers."""
    stack = recurrent_stack(cell, INPUT, HIDDEN).double()
    with torch.no_grad():
        for name, parameter in zip(("W", "U", "b", "d"), stack.parameters(), strict=True):
            parameter.copy_(v[name])
    names = ("x", "h0", "c0") if cell == "lstm" else ("x", "h0")
    leaves = {name: v[name].clone().requires_grad_() for name in names}
    state = tuple(leaves[name][None] for name in names[1:])
    if by_steps:
        step = StepCells(stack, state)
        outputs, last = torch.stack([step(x) for x in leaves["x"].unbind(1)], 1), step.state()
    else:
        outputs, last = run_stack(stack, leaves["x"], state)
    loss = (outputs * v["G"]).sum() + sum(
        (part * v[name]).sum() for part, name in zip(last, ("G_h", "G_c")[: len(last)], strict=True)
    )
    wanted = {**leaves, **dict(zip(("W", "U", "b", "d"), stack.parameters(), strict=True))}
    return loss, dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def assert_equal_gradients(mine: Gradients, others: Gradients) -> None:
    assert mine.keys() == others.keys()
    for name, gradient in mine.items():
        difference = (gradient - others[name]).abs().max() / gradient.abs().max()
        assert difference < TOLERANCE, f"{name}: {difference}"


def test_every_cell_has_its_equations():
    assert BPTT.keys() == CELLS.keys()


@pytest.mark.parametrize("by_steps", [False, True], ids=["whole sequence", "step by step"])
@pytest.mark.parametrize("cell", BPTT)
def test_gradients_are_those_of_the_equations(cell, by_steps):
    v = case(cell)
    loss, gradients = BPTT[cell](v)
    their_loss, theirs = autograd(cell, v, by_steps)
    torch.testing.assert_close(loss, their_loss, rtol=1e-12, atol=0)
    assert_equal_gradients(gradients, theirs)


@pytest.mark.parametrize("cell", BPTT)
def test_gradients_are_finite_differences(cell):
    v = case(cell)
    _, gradients = BPTT[cell](v)
    step, numeric = 1e-3, {name: torch.zeros_like(g) for name, g in gradients.items()}
    for name, found in numeric.items():
        flat = v[name].view(-1)
        for k in range(flat.numel()):
            value = flat[k].item()
            loss = {}
            for offset in (-2, -1, 1, 2):
                flat[k] = value + offset * step
                loss[offset] = BPTT[cell](v)[0]
            flat[k] = value
            # five-point stencil: the error is of order step⁴
            found.view(-1)[k] = (loss[-2] - 8 * loss[-1] + 8 * loss[1] - loss[2]) / (12 * step)
    assert_equal_gradients(gradients, numeric)
