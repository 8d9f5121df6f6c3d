"""The criterion on a batch whose two directions stand in different orders, against each sentence pair alone."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from fairseq import options
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.tasks.language_modeling import LanguageModelingTask

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin import output_layer
from dual_fairseq.plugin.criterion import DualCrossEntropyConfig, DualCrossEntropyCriterion
from dual_fairseq.plugin.dataset import DualLanguagePairDataset
from dual_fairseq.plugin.language_model import FrozenLanguageModel
from dual_fairseq.plugin.task import DualTranslationTask

FORWARD, REVERSE = "xx-yy", "yy-xx"
LENGTHS = [(3, 9), (7, 2), (5, 5), (7, 4), (1, 6), (3, 3), (5, 5)]  # tokens before </s>, source and target
LAMBDA, LAMBDA_REVERSE = 0.3, 0.02
SIZES = "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-ffn-embed-dim 8 --decoder-ffn-embed-dim 8 "
LAYERS = "--encoder-layers 1 --decoder-layers 1 --encoder-attention-heads 2 --decoder-attention-heads 2 --dropout 0"


def dictionary(words: int, prefix: str) -> Dictionary:
    symbols = Dictionary()
    for i in range(words):
        symbols.add_symbol(f"{prefix}{i}")
    return symbols


def sentences(lengths: list[int], symbols: Dictionary, seed: int) -> list[torch.Tensor]:
    """The last two pairs are the same sentence on the source side."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randint(4, len(symbols), (n,), generator=generator) for n in lengths]
    made[-1] = made[2] if lengths[2] == lengths[-1] and seed == 1 else made[-1]
    return [torch.cat([words, torch.tensor([symbols.eos()])]) for words in made]


def parsed(*arguments: str):
    parser = options.get_training_parser(arguments[arguments.index("--task") + 1])
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, ["data", *arguments]))


def language_model(symbols: Dictionary, seed: int) -> FrozenLanguageModel:
    sizes = "--decoder-layers 1 --decoder-embed-dim 8 --decoder-ffn-embed-dim 8 --decoder-attention-heads 2"
    cfg = parsed("--task", "language_modeling", "--arch", "transformer_lm", *sizes.split())
    torch.manual_seed(seed)
    model = LanguageModelingTask(cfg.task, symbols).build_model(cfg.model)
    return FrozenLanguageModel(scattered(model), symbols)


def scattered(model):
    """Weights so large that no two sentences are equally likely."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


class Setting:
    """A pair, its data and language models, all in memory."""

    def __init__(self) -> None:
        cfg = parsed("--task", "dual_translation", "-s", "xx", "-t", "yy", "--criterion", "dual_cross_entropy",
                     "--arch", "transformer", *SIZES.split(), *LAYERS.split())  # fmt: skip
        self.source, self.target = dictionary(30, "s"), dictionary(21, "t")
        self.task = DualTranslationTask(cfg.task, self.source, self.target)
        self.task.priors._models = self.lms = (language_model(self.source, 1), language_model(self.target, 2))
        torch.manual_seed(3)
        self.model = scattered(self.task.build_model(cfg.model))
        self.x = sentences([s for s, _ in LENGTHS], self.source, 1)
        self.y = sentences([t for _, t in LENGTHS], self.target, 2)
        sides = ((self.x, list(map(len, self.x)), self.source), (self.y, list(map(len, self.y)), self.target))
        self.dataset = DualLanguagePairDataset(LanguagePairDataset(*sides[0], *sides[1]))

    def batch(self, *rows: int):
        """All pairs, or these."""
        return self.dataset.collater([self.dataset[i] for i in rows or range(len(LENGTHS))])

    def criterion(self, **changes) -> DualCrossEntropyCriterion:
        options = {"label_smoothing": 0.1, "sentence_avg": False, "dual_lambda": LAMBDA}
        config = DualCrossEntropyConfig(**{**options, "dual_lambda_reverse": LAMBDA_REVERSE, **changes})
        return DualCrossEntropyCriterion.build_criterion(config, self.task)

    def log_softmax(self, direction: str, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one sentence alone, as fairseq's own model computes it: (T, V), and its tokens (T,)."""
        source, target = (self.x[i], self.y[i]) if direction == FORWARD else (self.y[i], self.x[i])
        previous = torch.cat([target[-1:], target[:-1]])
        scores = self.model.models[direction](source[None], torch.tensor([len(source)]), previous[None])[0][0]
        return scores.log_softmax(-1), target

    def log_prob(self, direction: str, i: int) -> torch.Tensor:
        table, target = self.log_softmax(direction, i)
        return table.gather(-1, target[:, None]).sum()

    def smoothed_nll(self, direction: str, i: int, epsilon: float) -> torch.Tensor:
        table, target = self.log_softmax(direction, i)
        reference = torch.full_like(table, epsilon / (table.size(1) - 1))
        reference.scatter_(-1, target[:, None], 1 - epsilon)
        return -(reference * table).sum()

    def prior(self, side: int, i: int) -> torch.Tensor:
        sentence = (self.x, self.y)[side][i]
        previous = torch.cat([sentence[-1:], sentence[:-1]])
        with torch.no_grad():
            scores = self.lms[side]._model(previous[None])[0][0]
        return scores.log_softmax(-1).gather(-1, sentence[:, None]).sum()

    def gap(self, i: int) -> torch.Tensor:
        with torch.no_grad():
            return (self.prior(0, i) + self.log_prob(FORWARD, i)) - (self.prior(1, i) + self.log_prob(REVERSE, i))


@pytest.fixture(scope="module")
def setting():
    return Setting()


def gradients(setting, loss: torch.Tensor) -> torch.Tensor:
    setting.model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in setting.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("clip", [0.0, 4.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_loss_and_gradient_of_a_batch_are_those_of_its_sentence_pairs(setting, epsilon, clip):
    batch = setting.batch()
    ids = batch["id"].tolist()
    assert ids != batch["reverse"]["id"].tolist(), "or no order would show"
    criterion = setting.criterion(label_smoothing=epsilon, dual_gap_clip=clip)
    expected, surrogate = [], torch.zeros(())
    for i in ids:
        gap = setting.gap(i)
        square = 2 * clip * gap.abs() - clip**2 if clip and gap.abs() > clip else gap**2
        bounded = gap.clamp(-clip, clip) if clip else gap
        nll = setting.smoothed_nll(FORWARD, i, epsilon) + setting.smoothed_nll(REVERSE, i, epsilon)
        expected.append(nll.detach() + (LAMBDA + LAMBDA_REVERSE) * square)
        surrogate = surrogate + nll + 2 * LAMBDA * bounded * setting.log_prob(FORWARD, i)
        surrogate = surrogate - 2 * LAMBDA_REVERSE * bounded * setting.log_prob(REVERSE, i)
    if clip:
        assert 0 < sum(setting.gap(i).abs() > clip for i in ids) < len(ids), "the clip has to be felt by some"

    each, _, _ = criterion(setting.model, batch, reduce=False)
    torch.testing.assert_close(each, torch.stack(expected), rtol=1e-4, atol=1e-3)
    total, _, _ = criterion(setting.model, batch)
    torch.testing.assert_close(total, torch.stack(expected).sum(), rtol=1e-4, atol=1e-3)
    wanted = gradients(setting, surrogate)
    torch.testing.assert_close(gradients(setting, total), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@pytest.mark.parametrize("sentence_avg", [False, True])
def test_what_is_logged_of_a_batch(setting, sentence_avg):
    batch = setting.batch()
    loss, size, logged = setting.criterion(sentence_avg=sentence_avg)(setting.model, batch)
    rows = range(len(LENGTHS))
    gaps = torch.stack([setting.gap(i) for i in rows])
    nll = {d: -sum(setting.log_prob(d, i).item() for i in rows) for d in (FORWARD, REVERSE)}
    tokens = {FORWARD: sum(map(len, setting.y)), REVERSE: sum(map(len, setting.x))}
    assert tokens[FORWARD] != tokens[REVERSE]
    expected = {
        "loss": loss.item(),
        "nll_loss": sum(nll.values()),
        "nll_loss_xx-yy": nll[FORWARD],
        "nll_loss_yy-xx": nll[REVERSE],
        "ntokens": sum(tokens.values()),
        "ntokens_xx-yy": tokens[FORWARD],
        "ntokens_yy-xx": tokens[REVERSE],
        "nsentences": len(LENGTHS),
        "sample_size": len(LENGTHS) if sentence_avg else sum(tokens.values()) / 2,
        "gap_sum": gaps.sum().item(),
        "gap_abs_sum": gaps.abs().sum().item(),
        "gap_sq_sum": gaps.square().sum().item(),
        "neg_weight_sum": sum(2 * (LAMBDA if g > 0 else LAMBDA_REVERSE) * abs(g) > 1 for g in gaps.tolist()),
        "dual_lambda_sum": LAMBDA * len(LENGTHS),
        "gap_count": len(LENGTHS),
    }
    assert {name: float(value) for name, value in logged.items()} == pytest.approx(expected, rel=1e-4)
    assert size == expected["sample_size"]
    assert 0 < expected["neg_weight_sum"] < len(LENGTHS) and not any(
        value.requires_grad for value in logged.values() if isinstance(value, torch.Tensor)
    )

    bits = 1 / math.log(2)
    with metrics.aggregate() as aggregated:
        DualCrossEntropyCriterion.reduce_metrics([logged, logged])
    values = {name: float(value) for name, value in aggregated.get_smoothed_values().items()}
    total = sum(tokens.values())
    assert values == pytest.approx(
        {
            "loss": expected["loss"] / total * bits,
            "nll_loss": sum(nll.values()) / total * bits,
            "ppl": 2 ** (sum(nll.values()) / total * bits),
            "nll_loss_xx-yy": nll[FORWARD] / tokens[FORWARD] * bits,
            "nll_loss_yy-xx": nll[REVERSE] / tokens[REVERSE] * bits,
            "gap_abs": gaps.abs().mean().item(),
            "gap_sq": gaps.square().mean().item(),
            "gap_mean": gaps.mean().item(),
            "neg_weight": expected["neg_weight_sum"] / len(LENGTHS),
            "dual_lambda": LAMBDA,
        },
        rel=1e-2, abs=6e-4,
    )  # fmt: skip
    assert DualCrossEntropyCriterion.logging_outputs_can_be_summed()


def test_logged_means_are_those_of_the_pairs_that_had_a_gap():
    without = {"loss": 2.0, "nll_loss": 2.0, "ntokens": 4}
    one = {**without, "gap_count": 1, "gap_sum": -3.0, "gap_abs_sum": 3.0, "gap_sq_sum": 9.0, "neg_weight_sum": 0.12345}
    with metrics.aggregate(new_root=True) as aggregated:
        DualCrossEntropyCriterion.reduce_metrics([without, one])
    values = aggregated.get_smoothed_values()
    assert [values[name] for name in ("gap_mean", "gap_abs", "gap_sq", "neg_weight")] == [-3.0, 3.0, 9.0, 0.1235]


def test_padding_counts_nothing_whatever_an_arch_says_of_it(setting, monkeypatch):
    batch, criterion = setting.batch(), setting.criterion()
    expected, _, _ = criterion(setting.model, batch, reduce=False)
    monkeypatch.setattr(output_layer, "find_output_layer", lambda _: None)  # which gives 0 at padding
    each, _, _ = criterion(setting.model, batch, reduce=False)
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-3)


def test_the_share_of_negative_weights_goes_by_the_lambda_of_the_gap_s_direction(setting):
    sums = setting.criterion()._gap_sums(torch.tensor([5.0, 6.0, -5.0]), {FORWARD: 0.3, REVERSE: 0.02})
    assert sums["neg_weight_sum"] == 2


def test_without_lambda_there_is_no_gap_and_no_language_model_is_asked(setting, monkeypatch):
    monkeypatch.setattr(setting.task.priors, "models", lambda: 1 / 0)
    criterion = setting.criterion(dual_lambda=0.0, dual_lambda_reverse=None)
    each, _, logged = criterion(setting.model, setting.batch(), reduce=False)
    nll = [sum(setting.smoothed_nll(d, i, 0.1).item() for d in (FORWARD, REVERSE)) for i in setting.batch()["id"]]
    torch.testing.assert_close(each, torch.tensor(nll), rtol=1e-4, atol=1e-3)
    assert not any("gap" in name or "lambda" in name for name in logged)
    with metrics.aggregate() as aggregated:
        DualCrossEntropyCriterion.reduce_metrics([logged])
    assert "gap_abs" not in aggregated.get_smoothed_values()


def test_the_best_checkpoint_is_not_told_by_what_grows_with_lambda(setting, monkeypatch, caplog):
    def build(metric: str, **options) -> None:
        caplog.clear()
        monkeypatch.setattr(setting.task, "cfg", SimpleNamespace(best_checkpoint_metric=metric))
        config = DualCrossEntropyConfig(sentence_avg=False, dual_lambda=0, **options)
        config._name = "dual_cross_entropy"
        setting.task.build_criterion(config)

    for schedule in ({"dual_start_update": 1}, {"dual_ramp_updates": 1}):
        with pytest.raises(UserError, match=r"--best-checkpoint-metric gap_abs: .* give bleu or nll_loss"):
            build("gap_abs", **schedule)
        build("loss", **schedule)
        assert "early checkpoints look better" in caplog.text
    for metric, schedule in (("gap_abs", {}), ("loss", {}), ("bleu", {"dual_start_update": 1})):
        build(metric, **schedule)
        assert not caplog.messages


def test_lambda_follows_its_schedule_only_while_a_run_trains(setting, monkeypatch):
    criterion = setting.criterion(dual_start_update=2, dual_ramp_updates=4, dual_lambda_reverse=None)
    for updates, share in ((0, 0), (1, 0), (2, 0.25), (4, 0.75), (5, 1), (9, 1)):
        monkeypatch.setattr(setting.model, "num_updates", updates)
        assert criterion._lambdas_now(setting.model) == pytest.approx(
            {FORWARD: share * LAMBDA, REVERSE: share * LAMBDA}
        )
    monkeypatch.setattr(setting.model, "num_updates", 0)
    monkeypatch.setattr(setting.task, "from_checkpoint", True)
    assert criterion._lambdas_now(setting.model) == {FORWARD: LAMBDA, REVERSE: LAMBDA}
    monkeypatch.setattr(setting.task, "from_checkpoint", False)
    monkeypatch.setattr(setting.model, "num_updates", None)
    assert criterion._lambdas_now(setting.model) == {FORWARD: LAMBDA, REVERSE: LAMBDA}


def test_lambda_belongs_to_the_direction_that_the_run_was_started_with(setting, monkeypatch):
    monkeypatch.setattr(setting.task.priors, "trained", {**setting.task.priors.trained, "source_lang": "yy"})
    criterion = setting.criterion()
    assert criterion.lambdas == {REVERSE: LAMBDA, FORWARD: LAMBDA_REVERSE}
    _, _, logged = criterion(setting.model, setting.batch())
    gaps = [setting.gap(i).item() for i in range(len(LENGTHS))]
    assert logged["dual_lambda_sum"] == pytest.approx(LAMBDA * len(LENGTHS))
    assert logged["neg_weight_sum"] == sum(2 * (LAMBDA_REVERSE if g > 0 else LAMBDA) * abs(g) > 1 for g in gaps)


def test_scores_of_the_batch_stand_for_the_language_models(setting, monkeypatch):
    batch = setting.batch()
    expected, _, _ = setting.criterion()(setting.model, batch, reduce=False)
    priors = [[setting.prior(side, i).item() for i in batch["id"].tolist()] for side in (0, 1)]
    batch["log_p_source"], batch["log_p_target"] = (torch.tensor(p, dtype=torch.float64) for p in priors)
    criterion = setting.criterion()
    monkeypatch.setattr(setting.task.priors, "models", lambda: 1 / 0)
    each, _, _ = criterion(setting.model, batch, reduce=False)
    assert each.dtype == torch.float32
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-3)


@pytest.fixture
def named(setting, monkeypatch, caplog):
    """What is logged of three pairs after 7 updates, with these log P(x)."""
    batch = setting.batch(4, 0, 3)
    batch["log_p_target"] = torch.zeros(3, dtype=torch.float64)
    monkeypatch.setattr(setting.model, "num_updates", 7)
    criterion = setting.criterion()

    def run(*log_p_source: float) -> list[str]:
        batch["log_p_source"] = torch.tensor(log_p_source, dtype=torch.float64)
        caplog.clear()
        with caplog.at_level(logging.ERROR, "dual_fairseq.plugin.criterion"):
            criterion(setting.model, batch)
        return list(caplog.messages)

    yield batch["id"].tolist(), run
    setting.model.eval()


def test_in_validation_sentences_whose_loss_is_not_finite_are_named(setting, named):
    ids, run = named
    setting.model.eval()
    where = "in 1 sentence pair(s) of the validation data, ids (from 0): "
    assert run(0.0, math.nan, 0.0) == [
        f"update 7: {name}: NaN or infinite {where}{ids[1]}" for name in ("duality gap", "loss")
    ]
    assert run(0.0, 0.0, -math.inf)[1].endswith(f"{where}{ids[2]}")
    assert run(0.0, 0.0, 0.0) == []


def test_in_training_sentences_are_named_when_fairseq_looks_for_the_place(setting, named):
    ids, run = named
    setting.model.train()
    assert run(0.0, math.nan, 0.0) == [], "a look at every batch would cost"
    hooks = [side.register_forward_hook(lambda *_: None) for side in setting.model.models.values()]
    of_train = "sentence pair(s) of the train data, ids (from 0):"
    assert f"update 8: loss: NaN or infinite in 1 {of_train} {ids[1]}" in run(0.0, math.nan, 0.0)
    everything = ", ".join(map(str, ids))
    assert run(0.0, 0.0, 0.0) == [f"update 8: losses finite, but not a gradient, in 3 {of_train} {everything}"]
    for hook in hooks:
        hook.remove()


def test_of_many_bad_sentences_the_first_are_named():
    from dual_fairseq.plugin.criterion import _listed

    assert _listed(torch.arange(20), "train").endswith("ids (from 0): " + ", ".join(map(str, range(20))))
    assert _listed(torch.arange(21), "train").startswith("21 sentence pair(s) of the train data, ids (from 0): 0, 1,")
    assert _listed(torch.arange(21), "train").endswith(", 19, ...")


@pytest.mark.parametrize(
    "settings, option",
    [
        ({"dual_lambda": -0.1}, "--dual-lambda "),
        ({"dual_lambda": math.inf}, "--dual-lambda "),
        ({"dual_lambda_reverse": math.nan}, "--dual-lambda-reverse"),
        ({"dual_gap_clip": -1.0}, "--dual-gap-clip"),
        ({"dual_start_update": -1}, "--dual-start-update"),
        ({"dual_ramp_updates": -1}, "--dual-ramp-updates"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"label_smoothing": -0.1}, "--label-smoothing"),
    ],
)
def test_options_out_of_range_are_refused(setting, settings, option):
    with pytest.raises(UserError, match=option):
        setting.criterion(**settings)


def test_it_needs_the_task_of_a_pair_and_both_sides(setting):
    plain = SimpleNamespace(target_dictionary=setting.target)
    with pytest.raises(UserError, match="--task dual_translation"):
        DualCrossEntropyCriterion.build_criterion(DualCrossEntropyConfig(sentence_avg=False), plain)
    batch = setting.batch()
    del batch["reverse"]
    with pytest.raises(UserError, match="no target side"):
        setting.criterion()(setting.model, batch)
