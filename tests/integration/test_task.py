"""The task seen from inside: which way round, how long, which model, which BLEU."""

from __future__ import annotations

import shutil

import pytest
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.logging import metrics
from helpers import PLUGIN, SOURCE, TARGET, TINY, configuration, fairseq_here, parameters, train

from dual_fairseq.common.errors import UserError

FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"


def build(corpus, *arguments: object):
    """Task, model and criterion of a fairseq-train command line."""
    cfg = configuration(
        corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        *TINY["transformer"], "--criterion", "dual_cross_entropy", "--cpu", "--max-tokens", 300, *arguments,
    )  # fmt: skip
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def reopened(path, **overrides):
    """The task of a checkpoint, as fairseq-validate opens it: the command line's options override the checkpoint's."""
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], arg_overrides=overrides)
    return task


def test_a_checkpoint_s_own_language_models_follow_the_languages(trained_pair, language_models):
    """Seen the other way round, the LM that was --src-lm in training is that of the target."""
    path = trained_pair[0] / "checkpoint_last.pt"
    other_way = {"source_lang": TARGET, "target_lang": SOURCE}
    source, target = str(language_models[SOURCE]), str(language_models[TARGET])
    assert [lm for _, lm in reopened(path).priors.files()] == [source, target]
    assert [lm for _, lm in reopened(path, **other_way).priors.files()] == [target, source]


def test_language_models_given_anew_are_taken_as_given(trained_pair, language_models, tmp_path):
    path = trained_pair[0] / "checkpoint_last.pt"
    lms = {language: str(shutil.copy(lm, tmp_path / f"{language}.pt")) for language, lm in language_models.items()}
    task = reopened(path, source_lang=TARGET, target_lang=SOURCE, src_lm=lms[TARGET], tgt_lm=lms[SOURCE])
    assert [lm for _, lm in task.priors.files()] == [lms[TARGET], lms[SOURCE]]
    assert task.trained_directions == (FORWARD, REVERSE)
    assert reopened(path, src_lm=lms[SOURCE]).priors.files()[0][1] == lms[SOURCE]


def test_lambda_stays_with_its_direction(trained_pair):
    path = trained_pair[0] / "checkpoint_last.pt"
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(path)], arg_overrides={"source_lang": TARGET, "target_lang": SOURCE}
    )
    criterion = task.build_criterion(cfg.criterion)
    assert criterion.lambdas == {FORWARD: 0.02, REVERSE: 0.01}
    assert models[0].num_updates > 0


def test_a_finished_checkpoint_is_looked_at_with_its_final_lambda(corpus, lm_options, tmp_path):
    train(
        corpus / "dual", tmp_path, *lm_options, "--dual-lambda", 0.3, "--dual-start-update", 1000, "--max-update", 1,
        "--lr", 0.1, "--optimizer", "sgd",
    )  # fmt: skip
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "checkpoint_last.pt")])
    assert task.build_criterion(cfg.criterion)._lambdas_now(models[0]) == {FORWARD: 0.3, REVERSE: 0.3}


def test_length_limits_apply_to_both_roles_and_to_the_language_models(corpus, lm_options):
    limits = ("--max-source-positions", 40, "--max-target-positions", 30)
    task, model, _ = build(corpus, *limits, "--dual-lambda", 0)
    assert task.max_positions() == (30, 30) and model.max_positions() == (30, 30)
    task, _, _ = build(corpus, *limits, *lm_options)
    assert task.max_positions() == (30, 30)
    task.priors.limit = 12
    assert task.max_positions() == (12, 12)
    task, _, _ = build(corpus, "--max-source-positions", 9999, "--max-target-positions", 9999, *lm_options)
    assert task.max_positions() == (1024, 1024), "the transformer LM's own limit"


def test_every_sentence_of_validation_text_is_batched(corpus):
    task, _, _ = build(corpus, "--dual-lambda", 0)
    for split in ("train", "valid"):
        task.load_dataset(split)
    assert not task.dataset("train").keep_remainder and task.dataset("valid").keep_remainder
    task.load_dataset("train", task_cfg=task.cfg)  # as fairseq-generate does
    assert task.dataset("train").keep_remainder


def test_a_missing_split_is_named_with_its_own_shard(corpus, tmp_path):
    task, _, _ = build(corpus, "--dual-lambda", 0)
    shards = [shutil.copytree(corpus / "dual", tmp_path / name) for name in ("first", "second")]
    task.cfg.data = ":".join(map(str, shards))
    for shard, split in zip(shards[::-1], ("train", "valid"), strict=True):  # valid is only looked for in the first
        for file in shard.glob(f"{split}.*"):
            file.unlink()
        with pytest.raises(UserError, match=f"{shard}.*{split}"):
            task.load_dataset(split, epoch=2)


def test_bleu_of_each_direction_and_their_mean(corpus):
    """From n-gram counts of several batches, against sacreBLEU's own figure of all sentences."""
    from sacrebleu import corpus_bleu

    from dual_fairseq.common.bleu import BLEU, bleu_counts
    from dual_fairseq.plugin.validation_bleu import _keys

    task, _, criterion = build(corpus, "--dual-lambda", 0, "--eval-bleu")
    references = ["a b c d e f", "g h i j k", "a c e g i k m", "b d f h j"]
    hypotheses = {
        FORWARD: ["a b c d e f", "g h i j x", "a c e g i k", "b d f h j"],
        REVERSE: ["a b x d e f g", "g h i j k", "a c e", "b d f h x j"],
    }
    logs = []
    for half in (slice(0, 2), slice(2, 4)):
        log = {"ntokens": 1, "nsentences": 2, "sample_size": 1, "loss": 1.0, "nll_loss": 1.0}
        for direction, lines in hypotheses.items():
            counts = bleu_counts(corpus_bleu(lines[half], [references[half]]))
            log.update({**dict(zip(_keys(direction, BLEU()), counts, strict=True)), f"cut_off_{direction}": 0})
        logs.append(log)
    with metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics(logs, criterion)
        values = aggregator.get_smoothed_values()
    expected = {d: corpus_bleu(lines, [references]).score for d, lines in hypotheses.items()}
    assert expected[FORWARD] > expected[REVERSE] + 5 > 5
    for direction, score in expected.items():
        assert values[f"bleu_{direction}"] == pytest.approx(score, abs=0.006)
    assert values["bleu"] == pytest.approx(sum(expected.values()) / 2, abs=0.011)


def test_a_reference_is_scored_by_its_own_direction(corpus, trained_pair):
    """fairseq-generate --score-reference: the mean log-probability is the NLL that validation gives."""
    path = trained_pair[0] / "checkpoint_last.pt"
    for source, target in ((SOURCE, TARGET), (TARGET, SOURCE)):
        run = fairseq_here(
            "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target,
            "--path", path, "--gen-subset", "valid", "--score-reference", "--cpu", "--batch-size", 8,
        )  # fmt: skip
        bits = [
            -float(x) for line in run.output.splitlines() if line.startswith("P-") for x in line.split("\t")[1].split()
        ]
        expected = trained_pair[1].logged("valid")[-1][f"valid_nll_loss_{source}-{target}"]
        assert sum(bits) / len(bits) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("options", "started"), [(("src2tgt",), {FORWARD}), (("tgt2src",), {REVERSE}), ((), set())])
def test_each_direction_is_warm_started_by_its_own_option(corpus, trained_pair, tmp_path, options, started):
    best = trained_pair[0] / "checkpoint_best.pt"
    init = [part for option in options for part in (f"--init-{option}", best)]
    run = ("--dual-lambda", 0, "--save-dir", tmp_path, *init)
    weights = parameters(trained_pair[0], "checkpoint_best.pt")

    def same(pair) -> set[str]:
        mine = pair.state_dict()
        differing = {key.split(".")[1] for key, value in weights.items() if not torch.equal(mine[key], value)}
        return {FORWARD, REVERSE} - differing

    assert same(build(corpus, *run)[1]) == started
    shutil.copy(best, tmp_path / "checkpoint_last.pt")
    assert same(build(corpus, *run)[1]) == set(), "a run that goes on is not started again"


def test_what_a_warm_start_could_not_compare_is_said(corpus, trained_pair, tmp_path, caplog):
    best = trained_pair[0] / "checkpoint_best.pt"
    state = torch.load(best, weights_only=True)
    state["task_state"], state["cfg"]["task"]["data"] = {}, str(tmp_path / "gone")
    torch.save(state, tmp_path / "moved.pt")
    with caplog.at_level("WARNING", logger="dual_fairseq"):
        build(corpus, "--dual-lambda", 0, "--init-src2tgt", best)
        assert "not compared" not in caplog.text
        build(corpus, "--dual-lambda", 0, "--init-src2tgt", tmp_path / "moved.pt")
    for language in (SOURCE, TARGET):
        assert f"moved.pt: its dict.{language}.txt was not found and not compared" in caplog.text


def test_a_warm_started_run_goes_on_without_the_checkpoints_it_began_with(corpus, trained_pair, tmp_path):
    first, second = (shutil.copy(trained_pair[0] / "checkpoint_last.pt", tmp_path / name) for name in ("a.pt", "b.pt"))
    init = ("--init-src2tgt", first, "--init-tgt2src", second, "--dual-lambda", 0, "--lr", 0.1, "--optimizer", "sgd")
    train(corpus / "dual", tmp_path / "run", *init, "--max-update", 1)
    first.unlink()
    second.unlink()
    run = train(corpus / "dual", tmp_path / "run", *init, "--max-update", 2)
    assert [record["num_updates"] for record in run.logged("train_inner")] == [2]
