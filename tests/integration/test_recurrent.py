"""The recurrent archs: what they compute, alone and as a pair."""

from __future__ import annotations

from argparse import Namespace
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from fairseq import options
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.configs import GenerationConfig
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from fairseq.sequence_scorer import SequenceScorer
from fairseq.tasks.translation import TranslationTask
from helpers import PLUGIN, SOURCE, TARGET, configuration, fairseq_here, parameters, sentence_pairs, train
from omegaconf import OmegaConf
from torch import Tensor, nn

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.model import DualModel
from dual_fairseq.plugin.output_layer import batch_log_probs, find_output_layer
from dual_fairseq.recurrent.cells import (
    SCHEMES,
    initialise,
    run_stack,
)
from dual_fairseq.recurrent.model import PRESETS, RecurrentConfig, RecurrentModel
from integration import test_gradient

SYMBOLS, PAD, EOS = 29, 1, 2
SMALL = "--encoder-embed-dim 12 --decoder-embed-dim 10 --encoder-hidden-size 8 --decoder-hidden-size 8 --dropout 0.1"
# Each named form with shrunk sizes, and what no named form has.
NAMED = {
    "rnn_encoder_decoder": f"rnn_encoder_decoder {SMALL} --readout-size 10",
    "rnnsearch": f"rnnsearch {SMALL} --readout-size 10",
    "rnn_luong": f"rnn_luong {SMALL} --readout-size 10",
}
FORMS = {
    **NAMED,
    "input feeding": f"rnn_luong {SMALL} --readout-size 10 --input-feeding",
    "input feeding, additive": f"rnnsearch {SMALL} --readout-size 6 --input-feeding --decoder-layers 2 --cell lstm",
    "input feeding, no attention": f"rnn_encoder_decoder {SMALL} --readout-size 7 --input-feeding --decoder-layers 2",
    "dot, both directions copied": (
        f"rnn_luong {SMALL} --attention dot --encoder-bidirectional --decoder-hidden-size 16 --readout-size 6"
    ),
    "plain cell, tied": f"rnn {SMALL} --cell rnn --encoder-layers 3 --decoder-layers 2 "
    "--share-decoder-input-output-embed --readout linear --attention general",
    "one table": f"rnn {SMALL} --share-all-embeddings --decoder-embed-dim 12 --no-encoder-bidirectional",
}

# By the forms' own, small weights attention is all but uniform, and so hides what is wrong with it.
WIDE = " --init-scheme uniform --init-bound 0.7"


def dictionary() -> Dictionary:
    symbols = Dictionary()
    for i in range(SYMBOLS - 4):
        symbols.add_symbol(f"w{i}")
    return symbols


def options_of(arguments: str) -> Namespace:
    command = ["data", "--task", "translation", "--arch", *arguments.split()]
    return options.parse_args_and_arch(options.get_training_parser(), command)


def build(arguments: str, source: Dictionary | None = None, target: Dictionary | None = None) -> RecurrentModel:
    args, task = options_of(arguments), configuration("data", "--task", "translation", "--arch", "rnn").task
    task.left_pad_target = args.left_pad_target
    source = source or dictionary()
    torch.manual_seed(2)
    cfg = OmegaConf.structured(RecurrentConfig.from_namespace(args))
    cfg._name = args.arch
    return TranslationTask(task, source, target or source).build_model(cfg)


def sentences(*lengths: int, seed: int = 3) -> list[Tensor]:
    """Random sentences of these lengths, ``</s>`` included."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(4, SYMBOLS, (length,), generator=generator) for length in lengths]
    for sentence in drawn:
        sentence[-1] = EOS
    return drawn


def padded(rows: list[Tensor], left: bool = False, extra: int = 0) -> Tensor:
    """(B, S) with ``extra`` columns of padding too many."""
    width = max(map(len, rows)) + extra
    table = torch.full((len(rows), width), PAD)
    for row, sentence in zip(table, rows, strict=True):
        row[width - len(sentence) :] = sentence if left else row[width - len(sentence) :]
        row[: len(sentence)] = row[: len(sentence)] if left else sentence
    return table


def shifted(target: Tensor) -> Tensor:
    """(B, T) targets → the tokens before them."""
    return torch.cat([torch.full((len(target), 1), EOS), target[:, :-1]], dim=1)


def scores_of(model: RecurrentModel, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """(B, T, V) scores and attention (B, T, S)."""
    with torch.no_grad():
        scores, extra = model(sources, sources.ne(PAD).sum(1), shifted(targets))
    return scores, extra["attn"] and extra["attn"][0]


SOURCES, TARGETS = sentences(5, 7, 2, 4), sentences(6, 3, 4, 6, seed=4)


# --- what padding, batches and steps may not change


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_company_change_nothing(form):
    model = build(FORMS[form] + WIDE).eval()
    alone = [scores_of(model, x[None], y[None]) for x, y in zip(SOURCES, TARGETS, strict=True)]
    for left, extra in product((True, False), (0, 3)):
        scores, attention = scores_of(model, padded(SOURCES, left, extra), padded(TARGETS))
        for i, (x, y) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            torch.testing.assert_close(scores[i, : len(y)], alone[i][0][0], rtol=1e-5, atol=1e-5)
            if attention is not None:
                where = slice(attention.size(-1) - len(x), None) if left else slice(len(x))
                torch.testing.assert_close(attention[i, : len(y), where], alone[i][1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_attention_lies_on_tokens_only_and_sums_to_1(form):
    model = build(FORMS[form] + WIDE).eval()
    sources = padded(SOURCES, left=True)
    _, attention = scores_of(model, sources, padded(TARGETS))
    if "rnn_encoder_decoder" in FORMS[form]:
        assert attention is None
        return
    assert attention.shape == (4, 6, 7)
    torch.testing.assert_close(attention.sum(-1), torch.ones(4, 6))
    assert not attention.masked_select(sources.eq(PAD)[:, None].expand_as(attention)).any()


@pytest.mark.parametrize("form", FORMS)
def test_incremental_decoding_is_the_full_forward(form):
    model = build(FORMS[form] + WIDE).eval()
    sources, previous = padded(SOURCES, left=True), shifted(padded(TARGETS))
    scores, attention = scores_of(model, sources, padded(TARGETS))
    state: dict = {}
    with torch.no_grad():
        encoded = model.encoder(sources)
        for t in range(previous.size(1)):
            step, extra = model.decoder(previous[:, : t + 1], encoded, state)
            torch.testing.assert_close(step[:, 0], scores[:, t], rtol=0, atol=1e-5)
            if attention is not None:
                torch.testing.assert_close(extra["attn"][0][:, 0], attention[:, t], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_beams_may_change_places(form):
    """States reordered mid-way are those of the reordered batch; rows may be repeated or left out."""
    model = build(FORMS[form] + WIDE).eval()
    sources, previous = padded(SOURCES), shifted(padded(TARGETS))
    order = torch.tensor([2, 0, 0, 3, 2])
    state: dict = {}
    with torch.no_grad():
        encoded = model.encoder(sources)
        model.decoder(previous[:, :1], encoded, state)
        model.decoder(previous[:, :2], encoded, state)
        model.decoder.reorder_incremental_state_scripting(state, order)
        encoded = model.encoder.reorder_encoder_out(encoded, order)
        step, _ = model.decoder(previous[order, :3], encoded, state)
        expected, _ = model(sources[order], None, previous[order, :3])
    torch.testing.assert_close(step[:, 0], expected[:, 2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "form", ["rnn_encoder_decoder", "rnn_luong", "plain cell, tied", "dot, both directions copied"]
)
def test_the_whole_target_in_one_call_is_the_loop_over_steps(monkeypatch, form):
    model = build(FORMS[form] + WIDE + " --dropout 0")
    sample = {"src_tokens": padded(SOURCES, left=True), "src_lengths": None}
    sample["prev_output_tokens"] = shifted(padded(TARGETS))

    def outcome() -> list[Tensor]:
        scores, _ = model(**sample)
        return [scores, *torch.autograd.grad(scores.logsumexp(-1).sum(), list(model.parameters()))]

    at_once = outcome()
    monkeypatch.setattr(type(model.decoder), "_at_once", type(model.decoder)._step_by_step)
    for mine, other in zip(at_once, outcome(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["rnn_encoder_decoder", "rnn_luong", "dot, both directions copied"])
def test_without_feeding_the_target_is_one_call(monkeypatch, form):
    model = build(FORMS[form])
    monkeypatch.setattr(type(model.decoder), "_step_by_step", None)
    model(padded(SOURCES), None, shifted(padded(TARGETS)))


@pytest.mark.parametrize("form", FORMS)
def test_a_beam_of_1_is_greedy_decoding(form):
    model = build(FORMS[form] + WIDE).eval()
    sources, length = padded(SOURCES, left=True), 8
    generator = SequenceGenerator([model], dictionary(), beam_size=1, max_len_a=0, max_len_b=length)
    sample = {"net_input": {"src_tokens": sources, "src_lengths": sources.ne(PAD).sum(1)}}
    found = [hypotheses[0]["tokens"].tolist() for hypotheses in generator.generate([model], sample)]
    for x, tokens in zip(SOURCES, found, strict=True):
        greedy: list[int] = []
        while not greedy or greedy[-1] != EOS:
            scores, _ = scores_of(model, x[None], torch.tensor([[*greedy, 0]]))
            scores[0, -1, PAD] = -torch.inf
            greedy.append(EOS if len(greedy) == length else int(scores[0, -1].argmax()))
        assert tokens == greedy


def test_an_ensemble_searches_with_the_mean_of_its_probabilities():
    models = [build(FORMS[form]).eval() for form in ("rnnsearch", "rnn_encoder_decoder")]
    sources = padded(SOURCES, left=True)
    generator = SequenceGenerator(models, dictionary(), beam_size=3, max_len_a=0, max_len_b=5)
    sample = {"net_input": {"src_tokens": sources, "src_lengths": sources.ne(PAD).sum(1)}}
    for x, hypotheses in zip(SOURCES, generator.generate(models, sample), strict=True):
        for hypothesis in hypotheses:
            target = hypothesis["tokens"][None]
            probabilities = torch.stack([scores_of(m, x[None], target)[0].softmax(-1) for m in models]).mean(0)
            expected = probabilities[0].gather(-1, target[0, :, None]).log().squeeze(-1)
            torch.testing.assert_close(hypothesis["positional_scores"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["rnnsearch", "rnn_luong", "input feeding, additive", "dot, both directions copied"])
def test_a_printed_alignment_is_where_attention_is_highest(form):
    model = build(f"{FORMS[form]} --init-scheme uniform --init-bound 1.2").eval()
    sources = padded(SOURCES, left=True)
    generator = SequenceGeneratorWithAlignment(
        [model], dictionary(), left_pad_target=False, print_alignment="hard", beam_size=3, max_len_a=0, max_len_b=6
    )
    sample = {
        "net_input": {"src_tokens": sources, "src_lengths": sources.ne(PAD).sum(1),
                      "prev_output_tokens": shifted(padded(TARGETS))},
        "target": padded(TARGETS),
    }  # fmt: skip
    seen = set()
    for x, hypotheses in zip(SOURCES, generator.generate([model], sample), strict=True):
        for hypothesis in hypotheses:
            target = hypothesis["tokens"]
            attention = scores_of(model, x[None], target[None])[1][0]
            words = attention[:, :-1].argmax(-1)  # </s> is aligned with nothing
            expected = [(int(words[t]), t) for t in range(len(target)) if target[t] != EOS]
            assert hypothesis["alignment"] == expected
            seen.update(source for source, _ in expected)
    assert len(seen) > 1  # not all the same place


@pytest.mark.parametrize("order", [("rnnsearch", "rnn_encoder_decoder"), ("rnn_encoder_decoder", "rnnsearch")])
def test_an_ensemble_with_a_model_without_attention_scores_references(order):
    models = [build(FORMS[form] + WIDE).eval() for form in order]
    sources, targets = padded(SOURCES, left=True), padded(TARGETS)
    net_input = {"src_tokens": sources, "src_lengths": sources.ne(PAD).sum(1), "prev_output_tokens": shifted(targets)}
    scored = SequenceScorer(dictionary()).generate(models, {"net_input": net_input, "target": targets})
    for i, y in enumerate(TARGETS):
        probabilities = torch.stack([scores_of(m, sources, targets)[0][i].softmax(-1) for m in models]).mean(0)
        expected = probabilities[: len(y)].gather(-1, y[:, None]).log().squeeze(-1)
        torch.testing.assert_close(scored[i][0]["positional_scores"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["rnn_encoder_decoder", "rnnsearch"])
def test_an_alignment_of_a_model_without_attention_is_refused_alone_and_as_a_pair(form):
    cfg = SimpleNamespace(generation=GenerationConfig(print_alignment="hard"))
    for model in (build(FORMS[form]), DualModel({"a-b": build(FORMS[form]), "b-a": build(FORMS[form])})):
        if form == "rnnsearch":
            model.prepare_for_inference_(cfg)
            continue
        with pytest.raises(UserError, match="--print-alignment: a model without attention aligns nothing"):
            model.prepare_for_inference_(cfg)


# --- the papers' equations, a step and a position at a time


def by_the_equations(model: RecurrentModel, x: Tensor, y: Tensor) -> Tensor:
    """(T, V) scores of one sentence pair, from the weights alone and one-layer cells."""
    decoder, heads = model.decoder, dict(model.named_parameters())
    outputs, last = run_stack(model.encoder.stack, model.encoder.embed_tokens(x)[None])
    h, bridge = outputs[0], decoder.bridge.projections
    if bridge is not None:
        s = torch.tanh(last[0][-1, 0] @ heads["decoder.bridge.projections.0.weight"].T + bridge[0].bias)
        c = last[1][-1, 0] @ bridge[1].weight.T + bridge[1].bias if len(last) == 2 else None
    else:  # [→h; ←h] of the top layer, or h alone
        s, c = [*(torch.cat(part[:, 0].unbind(0)) for part in last), None][:2]
    summary = decoder.summary and torch.tanh(decoder.summary(torch.cat(tuple(last[0][:, 0]))))

    def context(state: Tensor) -> Tensor:
        if decoder.attention is None:
            return summary
        layers, scores = decoder.attention, []
        for h_j in h:
            if type(layers).__name__ == "DotAttention":
                scores.append(state @ h_j)
            elif type(layers).__name__ == "GeneralAttention":
                scores.append(h_j @ layers.query_projection.weight @ state)
            else:
                hidden = torch.tanh(layers.query_projection(state) + layers.key_projection.weight @ h_j)
                scores.append(layers.score_projection.weight[0] @ hidden)
        return sum(a * h_j for a, h_j in zip(torch.stack(scores).softmax(0), h, strict=True))

    rows, weights = [], decoder.stack.all_weights[0]
    fed = torch.zeros(decoder.readout.size)
    seen = decoder.attention is None or type(decoder.attention).__name__ == "AdditiveAttention"
    for word in [EOS, *y[:-1].tolist()]:
        embedded = decoder.embed_tokens.weight[word]
        parts = [embedded, *([context(s)] if seen else []), *([fed] if decoder.input_feeding else [])]
        look = context(s) if seen else None
        if isinstance(decoder.stack, nn.LSTM):
            s, c = (part[0] for part in torch.lstm_cell(torch.cat(parts)[None], (s[None], c[None]), *weights))
        else:
            s = torch.gru_cell(torch.cat(parts)[None], s[None], *weights)[0]
        look = context(s) if look is None else look
        projection, kind = decoder.readout.projection, decoder.readout.kind
        if kind == "maxout":
            t = projection(torch.cat((s, look, embedded)))
            fed = torch.stack([torch.maximum(t[2 * k], t[2 * k + 1]) for k in range(len(t) // 2)])
        else:
            t = projection(torch.cat((s, look)))
            fed = torch.tanh(t) if kind == "tanh" else t
        rows.append(decoder.output_layer(fed))
    return torch.stack(rows)


@pytest.mark.parametrize("form", [*NAMED, "input feeding", "dot, both directions copied"])
@pytest.mark.parametrize("cell", ["", "--cell lstm", "--cell gru"])
@pytest.mark.parametrize("more", ["", "--bridge tanh --readout linear", "--readout maxout"])
def test_scores_are_those_of_the_papers_equations(form, more, cell):
    options = f"{FORMS[form]} --encoder-layers 1 --decoder-layers 1 {WIDE} {more} {cell}"
    model = build(options).eval()
    for x, y in zip(SOURCES, TARGETS, strict=True):
        with torch.no_grad():
            expected = by_the_equations(model, x, y)
        torch.testing.assert_close(scores_of(model, x[None], y[None])[0][0], expected, rtol=1e-4, atol=1e-4)


# --- precision, gradients, the pair's loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_half_precision_throughout_and_close(form, dtype):
    model = build(FORMS[form] + WIDE).eval()
    sources, targets = padded(SOURCES, left=True), padded(TARGETS)
    scores, attention = scores_of(model, sources, targets)
    half_scores, half_attention = scores_of(model.to(dtype), sources, targets)
    assert half_scores.dtype == dtype
    torch.testing.assert_close(half_scores.float(), scores, rtol=0.05, atol=0.05)
    if attention is not None:
        assert half_attention.dtype == dtype
        torch.testing.assert_close(half_attention.float(), attention, rtol=0.05, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", FORMS)
def test_on_a_gpu_half_precision_learns_and_translates(form):
    """PyTorch's kernels there are others than on the CPU; what they give has to be the same."""
    model = build(FORMS[form] + WIDE).eval()
    sources, targets = padded(SOURCES, left=True), padded(TARGETS)
    scores, _ = scores_of(model, sources, targets)
    sample = {"net_input": {"src_tokens": sources.cuda(), "src_lengths": sources.ne(PAD).sum(1).cuda()}}
    for dtype, close in ((torch.float32, 1e-3), (torch.float16, 0.1)):
        model = build(FORMS[form] + WIDE + " --dropout 0").cuda().to(dtype)
        found, _ = model(**sample["net_input"], prev_output_tokens=shifted(targets).cuda())
        torch.testing.assert_close(found.float().cpu(), scores, rtol=close, atol=close)
        found.float().log_softmax(-1)[..., 5].mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        generator = SequenceGenerator([model.eval()], dictionary(), beam_size=3, max_len_a=0, max_len_b=6)
        assert all(hypotheses[0]["tokens"].numel() for hypotheses in generator.generate([model], sample))


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns(form):
    model = build(FORMS[form] + " --init-scheme xavier")
    model(padded(SOURCES), None, shifted(padded(TARGETS)))[0].log_softmax(-1)[..., 5].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("form", FORMS)
def test_the_pair_takes_output_layer_and_loss_as_one(form):
    model = build(FORMS[form]).eval()
    assert find_output_layer(model) is not None
    sources, targets = padded(SOURCES, left=True), padded(TARGETS)
    net_input = {"src_tokens": sources, "src_lengths": None, "prev_output_tokens": shifted(targets)}
    found = batch_log_probs(model, {"net_input": net_input, "target": targets}, PAD)
    expected = scores_of(model, sources, targets)[0].log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(found.log_prob, expected.where(targets.ne(PAD), torch.zeros(())), rtol=1e-4, atol=1e-4)


def test_an_arch_that_changes_the_output_layer_runs_as_it_is():
    model = build(NAMED["rnn_luong"])
    model.decoder.__class__ = type("Changed", (type(model.decoder),), {"output_layer": lambda self, x: 2 * x})
    assert find_output_layer(model) is None


# --- states and stacks


# --- initialisation


def test_uniform_is_everything_within_the_bound():
    model = build(NAMED["rnn_luong"] + " --init-bound 0.05")
    largest = max(p.abs().max().item() for p in model.parameters())
    assert 0.045 < largest <= 0.05
    assert not model.encoder.embed_tokens.weight[PAD].any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_embeddings_have_a_size_that_suits_tied_ones(scheme):
    table = nn.Embedding(2000, 64, padding_idx=PAD)
    initialise(table, scheme)
    wanted = 0.1 / 3**0.5 if scheme == "uniform" else 1 / 8
    assert table.weight.std().item() == pytest.approx(wanted, rel=0.05)
    assert not table.weight[PAD].any()


# --- options


def test_named_forms_are_their_papers():
    search = build("rnnsearch_small")
    assert search.encoder.stack.bidirectional and isinstance(search.decoder.stack, nn.GRU)
    assert search.decoder.readout.kind == "maxout"
    assert type(search.decoder.attention).__name__ == "AdditiveAttention"
    luong = build("rnn_luong_small")
    assert isinstance(luong.decoder.stack, nn.LSTM) and not luong.decoder.input_feeding
    assert type(luong.decoder.attention).__name__ == "GeneralAttention" and luong.decoder.readout.kind == "tanh"
    cho = build("rnn_encoder_decoder_small")
    assert cho.decoder.attention is None and isinstance(cho.encoder.stack, nn.GRU)
    paper = build("rnnsearch_50")
    assert paper.encoder.stack.bidirectional and paper.encoder.stack.hidden_size == 1000
    assert paper.encoder.embed_tokens.embedding_dim == 620 and paper.decoder.stack.hidden_size == 1000
    assert paper.decoder.attention.query_projection.out_features == 1000 and paper.decoder.readout.size == 500
    assert {f"{name}_small" for name in NAMED} <= PRESETS.keys()


def test_what_a_named_form_switches_on_can_be_switched_off():
    model = build(NAMED["rnnsearch"] + " --no-encoder-bidirectional")
    assert not model.encoder.stack.bidirectional


def test_dropouts_follow_dropout_unless_given():
    model = build(NAMED["rnn_luong"] + " --dropout 0.3 --decoder-dropout-in 0.0")
    assert (model.encoder.dropout_in.p, model.encoder.stack.dropout, model.decoder.dropout_out.p) == (0.3, 0.3, 0.3)
    assert model.decoder.dropout_in.p == 0


REFUSED = {
    "rnn --left-pad-target": "--left-pad-target: padding would enter the decoder's states",
    "rnn --cell lstn": "--cell lstn: is not one of rnn, gru, lstm",
    "rnn --attention bahdanau": "--attention bahdanau: is not one of none, dot, general, additive",
    "rnn --readout relu": "--readout relu: is not one of",
    "rnn --bridge relu": "--bridge relu: is not one of",
    "rnn --init-scheme he": "--init-scheme he: is not one of default, uniform, xavier, kaiming, orthogonal",
    "rnn --attention dot --encoder-bidirectional": "--attention dot: needs states of one size",
    "rnn_luong --encoder-bidirectional": "--bridge copy: needs a decoder like the encoder",
    "rnn_luong --decoder-layers 1": "--bridge copy: .* take --bridge tanh",
    "rnn --share-all-embeddings --encoder-embed-dim 8": "--share-all-embeddings: one table has one size",
    "rnn --share-all-embeddings --decoder-embed-path v.txt": "give it only with --encoder-embed-path",
    "rnn --share-decoder-input-output-embed --readout-size 8": "--readout-size 8 must be --decoder-embed-dim 512",
    "rnn --encoder-layers 0": "--encoder-layers 0: must be at least 1",
    "rnn --decoder-embed-dim 0": "--decoder-embed-dim 0: must be at least 1",
    "rnn --decoder-hidden-size -5": "--decoder-hidden-size -5: must be at least 1",
    "rnn --init-scheme uniform --init-bound inf": "--init-bound inf: must be a finite number",
    "rnn --init-scheme uniform --init-bound -0.1": "--init-bound -0.1: must be a finite number, 0 or more",
    "rnn --dropout 1.0": "--dropout 1.0: must be at least 0 and less than 1",
    "rnn --encoder-embed-path missing.vec": "--encoder-embed-path missing.vec: there is no such file",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_options_that_do_not_go_together_are_refused(arguments):
    with pytest.raises(UserError, match=REFUSED[arguments]) as refusal:
        build(arguments)
    assert "\n" not in str(refusal.value)


def test_shared_embeddings_of_two_dictionaries_are_refused():
    other = Dictionary()
    other.add_symbol("w")
    with pytest.raises(UserError, match="--share-all-embeddings: needs a joint dictionary"):
        build("rnn --share-all-embeddings", dictionary(), other)


def test_word_vectors_are_taken_by_role_and_may_be_frozen(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("1 10\nw3 " + " ".join(str(i / 10) for i in range(10)) + "\n")
    model = build(NAMED["rnn_luong"] + f" --decoder-embed-path {path} --decoder-freeze-embed")
    row = model.decoder.embed_tokens.weight[dictionary().index("w3")]
    torch.testing.assert_close(row, torch.arange(10) / 10)
    assert not model.decoder.embed_tokens.weight.requires_grad
    assert model.encoder.embed_tokens.weight.requires_grad


# --- learning


@pytest.mark.slow
@pytest.mark.parametrize("form", [*NAMED, "input feeding"])
def test_100_pairs_are_learnt_by_heart(form):
    names = {"s": Dictionary(), "t": Dictionary()}
    pairs = sentence_pairs(100, seed=5)
    for pair in pairs:
        for symbols, sentence in zip(names.values(), pair, strict=True):
            for word in sentence.split():
                symbols.add_symbol(word)
    encoded = [
        [symbols.encode_line(pair[i], add_if_not_exist=False).long() for pair in pairs]
        for i, symbols in enumerate(names.values())
    ]
    sizes = "--encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-hidden-size 128 --decoder-hidden-size 128 "
    arguments = FORMS[form].replace(SMALL, sizes).replace("--readout-size 10", "--readout-size 64")
    model = build(arguments + " --dropout 0 --encoder-layers 1 --decoder-layers 1", *names.values())
    sizes_of = [[len(sentence) for sentence in side] for side in encoded]
    data = LanguagePairDataset(
        encoded[0], sizes_of[0], names["s"], encoded[1], sizes_of[1], names["t"], shuffle=False
    )  # fmt: skip
    batch = data.collater([data[i] for i in range(len(data))])
    tokens = sum(sizes_of[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.004)
    for _ in range(300):
        optimizer.zero_grad()
        nll = -batch_log_probs(model, batch, PAD).log_prob.sum() / tokens
        nll.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert nll.item() < 0.02, "nats a token"
    # greedy: fairseq's beam search stops at as many ends as it has beams, however unlikely these are
    generator = SequenceGenerator([model.eval()], names["t"], beam_size=1)
    found = [names["t"].string(hypotheses[0]["tokens"]) for hypotheses in generator.generate([model], batch)]
    right = sum(translation == pairs[i][1] for i, translation in zip(batch["id"].tolist(), found, strict=True))
    assert right >= 98


@pytest.mark.slow
@pytest.mark.parametrize("form", [*NAMED, "input feeding"])
def test_one_sgd_step_of_a_pair_is_the_formula(corpus, language_models, lm_options, tmp_path, form):
    started = test_gradient.start(corpus, "--arch " + FORMS[form], tmp_path / "start")
    test_gradient.test_one_sgd_step_is_the_formula(corpus, language_models, lm_options, tmp_path, started, 0)


# --- real runs


def plain_run(corpus, directory, form: str, *args: object):
    return fairseq_here(
        "train", corpus / "dual", "--user-dir", PLUGIN, "--task", "translation", "-s", SOURCE, "-t", TARGET,
        "--arch", *FORMS[form].split(), "--optimizer", "adam", "--lr", 0.01, "--max-epoch", 2, "--max-tokens", 300,
        "--criterion", "label_smoothed_cross_entropy", "--save-dir", directory, "--cpu", "--no-epoch-checkpoints",
        "--log-format", "json", *args,
    )  # fmt: skip


def translations(corpus, task: str, path: object, *args: object, source: str = SOURCE, target: str = TARGET):
    run = fairseq_here(
        "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", task, "-s", source, "-t", target,
        "--path", path, "--cpu", "--beam", 3, "--gen-subset", "test", *args,
    )  # fmt: skip
    return run.output


def test_alone_it_trains_translates_and_aligns(corpus, tmp_path):
    run = plain_run(corpus, tmp_path, "rnnsearch")
    losses = [record["valid_nll_loss"] for record in run.logged("valid")]
    assert losses[-1] < losses[0]
    output = translations(corpus, "translation", tmp_path / "checkpoint_best.pt", "--print-alignment")
    assert output.count("\nH-") == output.count("\nA-") == 16


@pytest.mark.slow
@pytest.mark.parametrize("form", [*NAMED, "input feeding"])
def test_other_forms_train_and_translate_alone_and_together(corpus, tmp_path, form):
    plain_run(corpus, tmp_path / "plain", form)
    path = tmp_path / "plain" / "checkpoint_best.pt"
    assert translations(corpus, "translation", path).count("\nH-") == 16
    other = "rnnsearch" if form != "rnnsearch" else "rnn_luong"
    plain_run(corpus, tmp_path / "other", other, "--max-update", 2)
    ensemble = f"{path}:{tmp_path / 'other' / 'checkpoint_best.pt'}"
    assert translations(corpus, "translation", ensemble).count("\nH-") == 16


def pair_run(corpus, directory, form: str, *args: object):
    return train(corpus / "dual", directory, "--optimizer", "adam", "--lr", 0.01, *args, model="--arch " + FORMS[form])


TRAINED = [
    pytest.param(form, marks=[] if form == "rnn_luong" else pytest.mark.slow) for form in FORMS if form != "one table"
]


@pytest.mark.parametrize("form", TRAINED)  # "one table" needs one dictionary, and the corpus has two
def test_as_a_pair_it_trains_resumes_and_translates_both_ways(corpus, lm_options, tmp_path, form):
    pair_run(corpus, tmp_path, form, *lm_options, "--dual-lambda", 0.01, "--max-epoch", 1)
    run = pair_run(corpus, tmp_path, form, *lm_options, "--dual-lambda", 0.01, "--max-epoch", 2)
    assert run.logged("valid")[-1]["epoch"] == 2 and run.logged("train")[-1]["train_gap_abs"] > 0
    path = tmp_path / "checkpoint_last.pt"
    aligned = ("--print-alignment",) if form == "rnn_luong" else ()
    for source, target in ((SOURCE, TARGET), (TARGET, SOURCE)):
        output = translations(corpus, "dual_translation", path, *aligned, source=source, target=target)
        assert output.count("\nH-") == 16 and output.count("\nA-") == 16 * len(aligned)
    held = {key.split(".")[1] for key in parameters(tmp_path)}
    assert held == {f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"}
