"""The arch ``rnn_lm``, and truncated back-propagation through running text."""

from __future__ import annotations

from argparse import Namespace
from itertools import chain

import numpy as np
import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks.language_modeling import LanguageModelingTask
from helpers import gate_matrices
from torch import Tensor, nn

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin import output_layer
from dual_fairseq.plugin.language_model import FrozenLanguageModel
from dual_fairseq.recurrent.cells import CELLS
from dual_fairseq.recurrent.language_model import Carried, RecurrentLanguageModel, RecurrentLanguageModelConfig
from dual_fairseq.recurrent.running_text import Blocks, RunningText, RunningTextTask

WORDS = [f"w{i}" for i in range(30)]


def dictionary() -> Dictionary:
    symbols = Dictionary()
    for word in WORDS:
        symbols.add_symbol(word)
    return symbols


def language_model(**options) -> RecurrentLanguageModel:
    """A small model with random weights, in evaluation mode."""
    torch.manual_seed(1)
    small = {"decoder_embed_dim": 8, "decoder_hidden_size": 12, "max_target_positions": None}
    task = LanguageModelingTask(Namespace(), dictionary())
    return RecurrentLanguageModel.build_model(RecurrentLanguageModelConfig(**{**small, **options}), task).eval()


def text(*lengths: int, seed: int = 1) -> list[Tensor]:
    """Sentences of random words, each with ``</s>``, of these lengths."""
    generator, symbols = torch.Generator().manual_seed(seed), dictionary()
    words = [torch.randint(symbols.nspecial, len(symbols), (length - 1,), generator=generator) for length in lengths]
    return [torch.cat([sentence, torch.tensor([symbols.eos()])]) for sentence in words]


def running(sentences: list[Tensor]) -> RunningText:
    return RunningText(sentences, np.array([len(sentence) for sentence in sentences]), dictionary())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("cell", CELLS)
def test_decoding_step_by_step_gives_the_scores_of_the_whole(cell, tied):
    model = language_model(cell=cell, share_decoder_input_output_embed=tied)
    tokens = torch.stack(text(9, 9, 9))
    whole, _ = model(tokens, src_lengths=torch.tensor([9, 9, 9]))
    assert whole.shape == (3, 9, len(dictionary()))
    incremental: dict = {}
    order = torch.tensor([2, 0, 1])
    for step in range(9):
        if step == 4:  # as beam search does
            model.decoder.reorder_incremental_state_scripting(incremental, order)
            tokens, whole = tokens[order], whole[order]
        scores, _ = model.decoder(tokens[:, : step + 1], incremental_state=incremental)
        assert torch.allclose(scores[:, 0], whole[:, step], atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_generating_with_a_beam_of_one_takes_the_best_word_each_time(cell):
    model, symbols = language_model(cell=cell, init_scheme="orthogonal"), dictionary()
    generator = SequenceGenerator([model], symbols, beam_size=1, max_len_b=12)
    begin = torch.full((2, 1), symbols.eos())
    sample = {"net_input": {"src_tokens": begin, "src_lengths": torch.ones(2)}}
    prefix = torch.tensor([[symbols.index("w3")], [symbols.index("w7")]])
    found = generator.generate([model], sample, prefix_tokens=prefix, bos_token=symbols.eos())
    for (best,), first in zip(found, prefix, strict=True):
        tokens = [symbols.eos(), int(first)]
        while tokens[-1] != symbols.eos() or len(tokens) == 1:
            scores = model(torch.tensor([tokens]))[0][0, -1]
            scores[symbols.pad()] = -torch.inf
            tokens.append(int(scores.argmax()) if len(tokens) <= 12 else symbols.eos())
        assert best["tokens"].tolist() == tokens[1:]


def test_a_sentence_runs_through_the_kernel_in_one_call(monkeypatch):
    model, lengths = language_model(cell="gru"), []
    forward = nn.GRU.forward
    monkeypatch.setattr(nn.GRU, "forward", lambda self, x, h=None: lengths.append(x.size(1)) or forward(self, x, h))
    FrozenLanguageModel(model, dictionary()).sentence_log_prob(torch.stack(text(17, 17)), next(model.parameters()))
    assert lengths == [17]


@pytest.mark.parametrize("cell", CELLS)
def test_padding_and_neighbours_do_not_change_a_sentences_probability(cell):
    sentences, symbols = text(3, 9, 6), dictionary()
    lm = FrozenLanguageModel(language_model(cell=cell), symbols)
    like = torch.zeros(1)
    alone = torch.cat([lm.sentence_log_prob(sentence.unsqueeze(0), like) for sentence in sentences])
    padded = nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=symbols.pad())
    assert torch.allclose(lm.sentence_log_prob(padded, like), alone, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_output_layer_and_softmax_as_one_operation_give_the_same(tied, monkeypatch):
    model = language_model(share_decoder_input_output_embed=tied)
    tokens = torch.stack(text(7, 7))
    sample = {"net_input": {"src_tokens": tokens}, "target": tokens.roll(-1, dims=1)}
    assert output_layer.find_output_layer(model) is not None
    fused = output_layer.batch_log_probs(model, sample, dictionary().pad())
    monkeypatch.setattr(output_layer, "find_output_layer", lambda model: None)
    plain = output_layer.batch_log_probs(model, sample, dictionary().pad())
    assert torch.allclose(fused.log_prob, plain.log_prob, atol=1e-5)


def test_options_make_the_model_that_they_name():
    tied = language_model(share_decoder_input_output_embed=True, decoder_layers=3, cell="gru", init_scheme="orthogonal")
    assert tied.decoder.vocabulary_layer is tied.decoder.embed_tokens
    assert not any("output_projection" in name for name, _ in tied.named_parameters())
    assert (tied.decoder.stack.num_layers, type(tied.decoder.stack)) == (3, nn.GRU)
    for name, gate in gate_matrices(tied.decoder.stack):
        if "weight_hh" in name:
            assert torch.allclose(gate @ gate.T, torch.eye(12), atol=1e-5)
    drop = language_model(dropout=0.4, decoder_dropout_in=0.1, decoder_hidden_size=8).decoder
    assert (drop.dropout_in.p, drop.stack.dropout, drop.dropout_out.p) == (0.1, 0.4, 0.4)
    assert drop.projection is None  # states have the size of the output layer's input
    assert language_model().max_positions() > 10_000


def test_named_forms_leave_what_the_command_line_sets():
    for name, (embedding, hidden) in {"rnn_lm_small": (256, 512), "rnn_lm_large": (1024, 2048)}.items():
        args = Namespace(decoder_layers=5)
        ARCH_CONFIG_REGISTRY[name](args)
        assert ARCH_MODEL_REGISTRY[name] is RecurrentLanguageModel
        assert (args.decoder_embed_dim, args.decoder_hidden_size, args.decoder_layers) == (embedding, hidden, 5)
        args = Namespace(decoder_embed_dim=7)
        ARCH_CONFIG_REGISTRY[name](args)
        assert args.decoder_embed_dim == 7


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"cell": "qrnn"}, "--cell qrnn: is not one of rnn, gru, lstm"),
        ({"init_scheme": "zero"}, "--init-scheme zero: is not one of default"),
        ({"decoder_layers": 0}, "--decoder-layers 0: must be at least 1"),
        ({"dropout": 1.0}, "--dropout 1.0: must be at least 0 and less than 1"),
        ({"decoder_dropout_out": -0.1}, "--decoder-dropout-out -0.1: must be"),
    ],
)
def test_bad_options_are_refused_in_one_line(option, message):
    with pytest.raises(UserError, match=message) as caught:
        language_model(**option)
    assert "\n" not in str(caught.value)


def test_any_stretch_of_the_text_is_read_across_sentences():
    sentences = text(3, 1, 5, 2, 4)
    whole, run = torch.cat(sentences), running(sentences)
    assert len(run) == len(whole) == 15
    for start in range(15):
        for end in range(start, 16):
            assert run.tokens(start, end).tolist() == whole[start:end].tolist()
    assert run.tokens(-1, 2).tolist() == [dictionary().eos(), *whole[:2].tolist()]


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_each_row_goes_on_where_it_ended_and_every_token_is_predicted_once(streams, size):
    sentences = text(3, 1, 5, 2, 4, 8)
    whole, blocks = torch.cat(sentences), Blocks(running(sentences), streams, size)
    pad = dictionary().pad()
    targets: list[list[int]] = [[] for _ in range(streams)]
    for number, batch in enumerate(blocks.batches(streams)):
        sample = blocks.collater([blocks[i] for i in batch])
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        assert sample["block"] == number
        assert source.shape == target.shape and target.size(1) <= size + 1
        assert size > 100 / streams or sample["ntokens"] >= streams  # no batch of single tokens left over
        assert sample["ntokens"] == int(target.ne(pad).sum()) == int(source.ne(pad).sum())
        for row, (before, after) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
            real = [token for token in after if token != pad]
            assert after[: len(real)] == real  # padded on the right
            if targets[row] and real:
                assert before[0] == targets[row][-1]
            assert before[1 : len(real)] == real[:-1]
            targets[row] += real
    assert list(chain(*targets)) == whole.tolist()
    assert max(map(len, targets)) - min(map(len, targets)) <= 1


def running_task(size: int, sentences: list[Tensor]) -> RunningTextTask:
    task = RunningTextTask(Namespace(tokens_per_sample=size), dictionary())
    task.datasets["train"] = running(sentences)
    return task


@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_has_streams_of_its_own(processes):
    sentences = text(*[7] * 40)
    task, seen, counts = running_task(5, sentences), [], set()
    for process in range(processes):
        options = {"max_sentences": 4, "num_shards": processes, "shard_id": process}
        epoch = task.get_batch_iterator(task.datasets["train"], **options)
        rows: list[list[int]] = [[] for _ in range(4)]
        batches = list(epoch.next_epoch_itr(shuffle=True))
        for sample in batches:
            for row, target in zip(rows, sample["target"].tolist(), strict=True):
                row += [token for token in target if token != dictionary().pad()]
        assert [sample["block"] for sample in batches] == list(range(len(batches)))
        counts.add(len(batches))
        seen += rows
    assert list(chain(*seen)) == torch.cat(sentences).tolist()
    assert len(counts) == 1


def test_a_run_goes_on_with_the_block_that_follows():
    task = running_task(5, text(*[7] * 40))

    def epoch():
        return task.get_batch_iterator(task.datasets["train"], max_sentences=4)

    before = epoch()
    rows = before.next_epoch_itr(shuffle=True)
    last = [next(rows) for _ in range(3)][-1]
    after = epoch()
    after.load_state_dict(before.state_dict())
    following = next(after.next_epoch_itr(shuffle=True))
    assert (last["block"], following["block"]) == (2, 3)
    assert following["net_input"]["src_tokens"][:, 0].tolist() == last["target"][:, -1].tolist()


@pytest.mark.parametrize(
    ("options", "streams"),
    [
        ({"max_tokens": 23}, 4),
        ({"max_tokens": 23, "max_sentences": 3}, 3),
        ({"max_sentences": 1000}, 56),  # no stream is shorter than a block
        ({"max_tokens": 1000, "num_shards": 2}, 56),
    ],
)
def test_batches_are_as_wide_as_options_and_text_allow(options, streams):
    task = running_task(5, text(*[7] * 40))
    assert task.get_batch_iterator(task.datasets["train"], **options).dataset.streams == streams


def test_a_batch_that_holds_no_block_is_refused():
    task = running_task(5, text(7))
    with pytest.raises(UserError, match=r"--max-tokens 4: does not hold a block of --tokens-per-sample 5"):
        task.get_batch_iterator(task.datasets["train"], max_tokens=4)


class Backward:
    """What a training step asks of an optimizer."""

    def backward(self, loss: Tensor) -> None:
        loss.backward()


def batches(task: RunningTextTask, rows: int) -> list[dict]:
    return list(task.get_batch_iterator(task.datasets["train"], max_sentences=rows).next_epoch_itr(shuffle=False))


def criterion(task: RunningTextTask) -> CrossEntropyCriterion:
    return CrossEntropyCriterion(task, sentence_avg=False)


def long_loss(model: RecurrentLanguageModel, stream: Tensor, before: Tensor) -> Tensor:
    """Σ −log P of the tokens of one stream read as one sequence, (T,)."""
    scores = model(torch.cat([before, stream[:-1]]).unsqueeze(0))[0][0]
    return nn.functional.cross_entropy(scores, stream, reduction="none")


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_with_carried_states_lose_what_one_long_sequence_loses(cell):
    sentences = text(3, 6, 5, 2, 4)
    model, task = language_model(cell=cell), running_task(4, sentences)
    whole, eos = torch.cat(sentences), torch.tensor([dictionary().eos()])
    losses = long_loss(model, whole, eos)
    found = [task.valid_step(sample, model, criterion(task))[0] for sample in batches(task, 1)]
    assert torch.allclose(torch.stack(found), torch.stack([part.sum() for part in losses.split(4)]), atol=1e-4)
    # two streams: the second begins in the middle of the text, with a zero state
    halves = torch.stack([long_loss(model, whole[:10], eos), long_loss(model, whole[10:], whole[9:10])])
    found = [task.valid_step(sample, model, criterion(task))[0] for sample in batches(task, 2)]
    assert torch.allclose(torch.stack(found), torch.stack([p.sum() for p in halves.split(4, dim=1)]), atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_no_gradient_flows_back_beyond_a_block(cell):
    # words of the first half and of the second have no symbol in common, but for </s>
    first, second = (torch.tensor([index]).repeat(5) for index in (10, 20))
    task = running_task(5, [first, second])
    model = language_model(cell=cell, dropout=0.0)
    one, two = batches(task, 1)
    assert set(two["net_input"]["src_tokens"][0, 1:].tolist()) == {20}
    task.train_step(one, model, criterion(task), Backward(), 0)
    model.zero_grad()
    loss, _, _ = task.train_step(two, model, criterion(task), Backward(), 1)
    truncated = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    carried = Carried()
    with torch.no_grad():
        model(one["net_input"]["src_tokens"], carried=carried)
    scores, _ = model(two["net_input"]["src_tokens"], carried=carried)
    expected = nn.functional.cross_entropy(scores[0], two["target"][0], reduction="sum")
    expected.backward()
    assert torch.allclose(loss, expected, atol=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(truncated[name], p.grad, atol=1e-5), name

    model.zero_grad()  # with all of the history it is another gradient
    long_loss(model, torch.cat([first, second]), torch.tensor([dictionary().eos()]))[5:].sum().backward()
    whole = model.decoder.stack.weight_hh_l0.grad
    assert not torch.allclose(truncated["decoder.stack.weight_hh_l0"], whole, atol=1e-5)


def test_states_are_zero_in_a_new_epoch_after_a_leap_and_after_a_batch_that_failed():
    task, model = running_task(5, text(*[7] * 8)), language_model(dropout=0.0)
    samples = batches(task, 2)

    def loss(index: int) -> float:
        model.zero_grad()
        return float(task.train_step(samples[index], model, criterion(task), Backward(), 0)[0].detach())

    fresh = loss(0)
    task._ended.clear()
    zero_second = loss(1)  # as a run that goes on in the middle of an epoch
    task._ended.clear()
    zero_third = loss(2)
    assert loss(0) == pytest.approx(fresh)
    carried_second = loss(1)
    assert carried_second != pytest.approx(zero_second)
    assert loss(2) != pytest.approx(zero_third)
    assert loss(0) == pytest.approx(fresh)  # the next epoch
    assert loss(2) == pytest.approx(zero_third)  # a block was left out
    loss(0)
    with pytest.raises(RuntimeError), torch.no_grad():  # no gradient to go back: the batch fails after its forward
        loss(1)
    assert loss(2) == pytest.approx(zero_third)


def test_a_batch_that_failed_begins_where_it_began_when_it_is_tried_again():
    """As fairseq does with a validation batch for which a GPU's memory ran out."""
    task, model = running_task(5, text(*[7] * 8)), language_model(dropout=0.0)
    first, second, *_ = batches(task, 2)

    class Fails(CrossEntropyCriterion):
        def forward(self, *args, **kwargs):
            super().forward(*args, **kwargs)
            raise RuntimeError("out of memory")

    expected = [float(task.valid_step(sample, model, criterion(task))[0]) for sample in (first, second)]
    task.valid_step(first, model, criterion(task))
    with pytest.raises(RuntimeError, match="out of memory"):
        task.valid_step(second, model, Fails(task, sentence_avg=False))
    assert float(task.valid_step(second, model, criterion(task))[0]) == expected[1]


def test_validation_and_stand_in_batches_leave_the_states_of_training_alone():
    task, model = running_task(5, text(*[7] * 8)), language_model(dropout=0.0)
    samples = batches(task, 2)

    def step(index: int, **options) -> float:
        return float(task.train_step(samples[index], model, criterion(task), Backward(), 0, **options)[0].detach())

    step(0)
    expected = step(1)
    step(0)
    for sample in samples:
        task.valid_step(sample, model, criterion(task))
    step(0, ignore_grad=True)
    assert step(1) == pytest.approx(expected)
