"""Log-probabilities of given text in batches of like length, whatever the batch they are computed in."""

import copy
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers import SOURCE, TARGET
from omegaconf import OmegaConf, open_dict

from dual_fairseq.common.errors import UserError
from dual_fairseq.pair.export import export
from dual_fairseq.pair.load import load_pair
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.plugin.log_probs import language_model_log_probs, length_sorted_batches, translation_log_probs
from dual_fairseq.plugin.model import parameter_like


@pytest.fixture(scope="module")
def pair(trained_pair):
    return load_pair(trained_pair[0] / "checkpoint_best.pt", device="cpu")


@pytest.fixture(scope="module")
def sides(pair):
    _, task = pair
    task.load_dataset("valid")
    dataset = task.datasets["valid"]
    return [dataset[i]["source"] for i in range(len(dataset))], [dataset[i]["target"] for i in range(len(dataset))]


def token_log_probs(model, source, target):
    """log P(target_t | target_<t, source) straight from the formula, in float64."""
    previous = torch.cat([target[-1:], target[:-1]])
    logits, _ = model(source.unsqueeze(0), torch.tensor([len(source)]), previous.unsqueeze(0))
    return logits[0].double().log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def test_translations_are_scored_as_one_by_one_in_their_order(pair, sides):
    model, task = pair
    source, target = sides
    done = []
    for name, (x, y) in ((f"{SOURCE}-{TARGET}", (source, target)), (f"{TARGET}-{SOURCE}", (target, source))):
        one = model.models[name]
        scores = translation_log_probs([one], x, y, task.target_dictionary, max_tokens=40, advance=done.append)
        with torch.no_grad():
            expected = torch.stack([token_log_probs(one, *sentence).sum() for sentence in zip(x, y, strict=True)])
        torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-3)
    assert sum(done) == 2 * len(source) and max(done) > 1


def test_an_ensemble_averages_probabilities_token_by_token(pair, sides):
    model, task = pair
    source, target = (side[:5] for side in sides)
    first = model.models[f"{SOURCE}-{TARGET}"]
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.1)
        tokens = [
            torch.stack([token_log_probs(m, *s) for m in (first, second)]) for s in zip(source, target, strict=True)
        ]
        expected = torch.stack([t.exp().mean(0).log().sum() for t in tokens])
    scores = translation_log_probs([first, second], source, target, task.target_dictionary)
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-3)


def test_what_is_too_long_for_a_model_is_nan(pair, sides, monkeypatch):
    model, task = pair
    source, target = sides
    one = model.models[f"{SOURCE}-{TARGET}"]
    limit = sorted(map(len, source))[len(source) // 2]
    monkeypatch.setattr(one, "max_positions", lambda: (limit, 1024))
    scores = translation_log_probs([one], source, target, task.target_dictionary)
    assert scores.isnan().tolist() == [len(sentence) > limit for sentence in source]
    monkeypatch.undo()
    limit = sorted(map(len, target))[len(target) // 2]
    monkeypatch.setattr(one, "max_decoder_positions", lambda: limit)
    scores = translation_log_probs([one], source, target, task.target_dictionary)
    assert scores.isnan().tolist() == [len(sentence) > limit for sentence in target]


def test_language_model_scores_in_their_order(pair, sides, language_models):
    model, task = pair
    lm = load_language_model(str(language_models[SOURCE]), task.source_dictionary, SOURCE, "--src-lm")
    like = parameter_like(model)
    scores = language_model_log_probs(lm, sides[0], like, max_tokens=40)
    expected = torch.cat([lm.sentence_log_prob(sentence.unsqueeze(0), like) for sentence in sides[0]])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)


def test_batches_hold_every_sentence_once_within_the_limits():
    sizes = np.array([3, 9, 1, 4, 4, 12, 7, 0])
    batches = list(length_sorted_batches(sizes, max_tokens=16))
    assert sorted(np.concatenate(batches)) == [0, 1, 2, 3, 4, 5, 6]
    assert all(len(b) == 1 or len(b) * sizes[b].max() <= 16 for b in batches)
    assert [sizes[b].max() for b in batches] == sorted((sizes[b].max() for b in batches), reverse=True)
    assert list(length_sorted_batches(np.array([0, 0]), 16)) == []


def test_a_pair_is_loaded_either_way_round(trained_pair, language_models, tmp_path):
    checkpoint = trained_pair[0] / "checkpoint_best.pt"
    for given in ({"source": TARGET}, {"target": SOURCE}):
        assert load_pair(checkpoint, device="cpu", **given)[1].directions[0] == f"{TARGET}-{SOURCE}"
    for arguments, message in (
        ((checkpoint, None, "qq"), "not of 'qq'"),
        ((checkpoint, None, SOURCE, SOURCE), "a pair needs two languages"),
        ((checkpoint, tmp_path / "gone"), "the folder of its dictionaries"),
        ((language_models[SOURCE],), "of --task language_modeling, not of a pair"),
        ((tmp_path / "none.pt",), "there is no such file"),
    ):
        with pytest.raises(UserError, match=message):
            load_pair(*arguments)


def test_options_may_be_younger_than_the_checkpoint_but_not_unknown(trained_pair, tmp_path):
    path = trained_pair[0] / "checkpoint_best.pt"
    state = torch.load(path, weights_only=False)
    with open_dict(state["cfg"].task) if OmegaConf.is_config(state["cfg"]) else nullcontext():
        del state["cfg"]["task"]["dual_inference_alpha"]
    torch.save(state, tmp_path / "old.pt")
    _, task = load_pair(tmp_path / "old.pt", device="cpu", overrides={"dual_inference_alpha": 0.5})
    assert task.dual_inference.forward == 0.5
    with pytest.raises(UserError, match="bean: is not an option of"):
        load_pair(path, device="cpu", overrides={"bean": 4})


def test_a_run_that_was_moved_has_its_dictionaries_with_it(trained_pair, corpus, tmp_path):
    state = torch.load(trained_pair[0] / "checkpoint_best.pt", weights_only=False)
    state["cfg"]["task"]["data"] = str(tmp_path / "gone")
    (tmp_path / "run" / "dual").mkdir(parents=True)
    torch.save(state, tmp_path / "run" / "dual" / "checkpoint_best.pt")
    with pytest.raises(UserError, match=r"the folder of its dictionaries, .*gone, is missing; name their new folder"):
        load_pair(tmp_path / "run")
    (tmp_path / "run" / "text").mkdir()
    for language in (SOURCE, TARGET):
        shutil.copy(corpus / "dual" / f"dict.{language}.txt", tmp_path / "run" / "text")
    assert load_pair(tmp_path / "run")[1].directions == (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}")
    written, missing = export(tmp_path / "run", f"{SOURCE}-{TARGET}", tmp_path / "out" / "one.pt")
    assert len(written) == 3 and not missing


def test_a_pair_over_other_dictionaries_is_refused(trained_pair, corpus, tmp_path):
    for name in (f"dict.{SOURCE}.txt", f"dict.{TARGET}.txt"):
        shutil.copy(corpus / "dual" / name, tmp_path)
    dictionary = tmp_path / f"dict.{TARGET}.txt"
    lines = dictionary.read_text().splitlines()
    for changed in (lines[:-1], [lines[1], lines[0], *lines[2:]]):
        dictionary.write_text("\n".join(changed) + "\n")
        with pytest.raises(UserError, match=f"was trained with another dictionary of {TARGET}"):
            load_pair(trained_pair[0] / "checkpoint_best.pt", tmp_path)
