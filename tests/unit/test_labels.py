"""A side that is labels: what is refused, P(label) from counts, accuracy, and dual inference over all labels."""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.configs import GenerationConfig
from helpers import TINY, binarize, configuration

from dual_fairseq.common.bleu import Accuracy, bleu_counts, bleu_of_counts, name_of
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.tables import confusion_cells, score_table
from dual_fairseq.data.labels import check_labels
from dual_fairseq.data.options import parse
from dual_fairseq.pair.evaluate import score
from dual_fairseq.pair.nbest import NBest
from dual_fairseq.pair.tune import table, tune
from dual_fairseq.plugin.dual_inference import DualInferenceGenerator
from dual_fairseq.plugin.generator import DirectionTask
from dual_fairseq.plugin.label_model import LabelDecoder, LabelLanguageModel, counted
from dual_fairseq.plugin.language_model import FrozenLanguageModel, load_language_model
from dual_fairseq.plugin.log_probs import language_model_log_probs, translation_log_probs
from dual_fairseq.plugin.ranking import Weights

TRAIN = ["good"] * 5 + ["bad"] * 2 + ["a_label_of_more_than_twenty_letters"]


# --- text


def labelled(folder: Path, **splits: str) -> Namespace:
    files = []
    for split, text in {"train": "good\nbad\n", "valid": "bad\n", "test": "good\n", **splits}.items():
        (folder / f"{split}.x").write_text("a sentence\n" * text.count("\n"))
        (folder / f"{split}.y").write_text(text)
        files += [f"--{split}", str(folder / split)]
    return parse([*files, "-s", "x", "-t", "y", "--target-subword", "label", "--dest", str(folder / "dest")])


def check(folder: Path, options: Namespace, dictionaries: tuple[Path, ...] = ()) -> None:
    parts = {split: [[folder / f"{split}.{side}" for side in "xy"]] for split in ("train", "valid", "test")}
    check_labels(options, parts, dictionaries)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "good\nvery bad\n"}, "train.y: line 2: 2 words, not one label (very bad)"),
        ({"valid": "bad\n\n"}, "valid.y: line 2: no label"),
        ({"train": "good\n<unk>\n"}, "train.y: line 2: a word that fairseq reserves: <unk>"),
        ({"test": "good\nugly\n"}, "test.y: line 2: the label ugly is not in the training text"),
        ({"valid": "Good\n"}, "valid.y: line 1: the label Good is not in the training text"),
    ],
)
def test_a_line_that_is_not_one_known_label_is_refused_by_file_and_line(splits, message, tmp_path):
    with pytest.raises(UserError) as refusal:
        check(tmp_path, labelled(tmp_path, **splits))
    assert message in str(refusal.value)


def test_white_space_around_a_label_is_none_of_it(tmp_path, capsys):
    check(tmp_path, labelled(tmp_path, train=" good \r\nbad\t\n", valid="good\n"))
    assert "y: 2 labels: bad, good" in capsys.readouterr().err


def test_labels_of_other_text_are_those_of_the_models(tmp_path):
    options = labelled(tmp_path, train="good\nugly\n")
    dictionary = tmp_path / "dict.y.txt"
    dictionary.write_text("good 5\nbad 3\nugly 0\n")  # fairseq fills a dictionary up with symbols without a count
    with pytest.raises(UserError, match=r"train.y: line 2: the label ugly"):
        check(tmp_path, options, (tmp_path / "dict.x.txt", dictionary))


def test_a_side_that_is_labels_is_neither_tokenised_nor_cut(tmp_path):
    options = labelled(tmp_path)
    assert options.tokenizer == {"x": "moses", "y": "none"} and options.vocab_threshold["y"] == 0
    files = ["--train", str(tmp_path / "train"), "--valid", str(tmp_path / "valid"), "--dest", str(tmp_path / "d")]
    for more, message in (
        (["--subword", "label"], "--subword label: is for one side"),
        (["--target-subword", "label", "--target-tokenizer", "moses"], "--target-tokenizer moses: labels are not"),
        (["--target-subword", "label", "--max-ratio", "3"], "--max-ratio: each label of y is one word"),
        (["--target-subword", "label", "--extra-mono-target", str(tmp_path / "train.y")], "--extra-mono-target: "),
    ):
        with pytest.raises(UserError, match=message):
            parse([*files, "-s", "x", "-t", "y", *more])


# --- P(label)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Labels, binarized as DEST/lm/<language> is."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "train").write_text("\n".join(TRAIN) + "\n")
    (folder / "valid").write_text("good\nbad\n")
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid")]
    binarize("--only-source", *prefixes, "--destdir", folder / "lm")
    return folder / "lm"


def test_the_language_model_is_the_share_of_the_training_text(data, tmp_path):
    state = counted(data)
    path, dictionary = str(tmp_path / "checkpoint_best.pt"), Dictionary.load(str(data / "dict.txt"))
    checkpoint_utils.torch_persistent_save(state, path)
    (tmp_path / "dict.txt").write_text((data / "dict.txt").read_text())
    lm = load_language_model(path, dictionary, "y", "--tgt-lm")
    total, counts = len(TRAIN), Counter(TRAIN)
    sentences = [dictionary.encode_line(label, add_if_not_exist=False) for label in counts]
    expected = [math.log(count / total) for count in counts.values()]
    for like in (torch.zeros(()), torch.zeros((), dtype=torch.half)):
        found = lm.token_log_probs(torch.stack(sentences).long(), like)
        assert found[:, 0].double().tolist() == pytest.approx(expected, abs=1e-6) and not found[:, 1].any()
    assert language_model_log_probs(lm, sentences, torch.zeros(())).exp().sum() == pytest.approx(1, abs=1e-6)
    bits = -sum(math.log2(counts[label] / total) for label in ("good", "bad")) / 4
    assert state["extra_state"]["val_loss"] == pytest.approx(bits)
    # a sentence of the other side may be as long as its own models allow
    assert lm.max_positions > 10_000


def test_another_dictionary_is_refused(data, tmp_path):
    path = str(tmp_path / "checkpoint_best.pt")
    checkpoint_utils.torch_persistent_save(counted(data), path)
    other = Dictionary.load(str(data / "dict.txt"))
    other.symbols[4], other.symbols[5] = other.symbols[5], other.symbols[4]
    with pytest.raises(UserError, match="symbol 4 is 'good' there and 'bad' here"):
        load_language_model(path, other, "y", "--tgt-lm")
    with pytest.raises(UserError, match="has 8 symbols, but the data's dictionary of y has 4"):
        load_language_model(path, Dictionary(), "y", "--tgt-lm")


def test_text_is_not_counted(corpus):
    with pytest.raises(UserError, match="is not one label a line"):
        counted(corpus / "lm" / "xx")


def test_labels_with_a_damaged_dictionary_are_refused(data, tmp_path):
    shutil.copytree(data, tmp_path / "lm")
    (tmp_path / "lm" / "dict.txt").write_text("good 3\nbad\n")
    with pytest.raises(UserError, match=r"dict\.txt: "):
        counted(tmp_path / "lm")


# --- accuracy


def test_accuracy_is_the_share_of_lines_that_are_right():
    references, hypotheses = ["a", "b", "b", "c"], ["a", "b", "", "d"]
    metric = Accuracy()
    assert metric.corpus_score(hypotheses, [references]).score == pytest.approx(50) and name_of(metric) == "accuracy"
    assert metric.corpus_score(["b"] * 4, [["a"] * 4]).score == 0.0
    counts = [bleu_counts(metric.corpus_score([h], [[r]])) for h, r in zip(hypotheses, references, strict=True)]
    assert bleu_of_counts(np.sum(counts, axis=0).tolist()) == pytest.approx(50) and bleu_of_counts(counts[2]) == 0.0
    scores = score(hypotheses, references, "y", subword="label")
    assert scores.accuracy == pytest.approx(50) and scores.bleu is None and scores.chrf is None
    assert scores.confusion == {"b": {"b": 1, "": 1}, "a": {"a": 1}, "c": {"d": 1}}
    printed = score_table([("system", {"x-y": vars(scores)})])
    assert (
        "50.00 %" in printed
        and "%: accuracy" in printed
        and printed.splitlines()[0].split()[2:5] == ["BLEU", "or", "%"]
    )
    assert score_table([("system", {"x-y": {"bleu": 1.0}})]).splitlines()[0].split()[2:4] == ["BLEU", "chrF"]
    head, first, *_ = confusion_cells(scores.confusion)
    assert head == ("right label", "found: b", "found: a", "found: c", "found: ", "found: d")
    assert first == ("b", "1", "0", "0", "1", "0")
    assert len(confusion_cells({str(label): {str(label): 1} for label in range(100)})[0]) == 21


def test_weights_are_tuned_by_accuracy():
    random = np.random.default_rng(1)
    labels = ["a", "b", "c"]
    right = random.integers(3, size=300)
    components = random.normal(size=(300, 3, 5))
    components[..., 4] = 2.0  # a label and </s>
    components[np.arange(300), right, 1] += 4.0  # the reverse model knows
    order = np.argsort(-components[..., 0], axis=1)
    nbest = NBest([[labels[k] for k in row] for row in order], np.take_along_axis(components, order[..., None], axis=1))
    result = tune(nbest, [labels[k] for k in right], "y", 1.0, Accuracy())
    assert result["plain"]["accuracy"] < 45 and result[result["best"]]["accuracy"] > 95
    assert "bleu" not in result["plain"] and result["general"]["weights"]["length"] == 0.0
    assert "accuracy %" in table(result) and "BLEU" not in table(result)


# --- dual inference


@pytest.mark.parametrize(("arch", "count"), [("transformer", 1), ("transformer", 7), ("lstm", 2)])
def test_dual_inference_over_labels_is_exact(arch, count):
    """Every label is scored, and the best is that of the formula, computed without a search."""
    text, labels = Dictionary(), Dictionary()
    for i in range(20):
        text.add_symbol(f"w{i}")
    for i in range(count):
        labels.add_symbol(f"l{i}", n=i + 1)
    labels.pad_to_multiple_(8)
    tasks, models = [], []
    torch.manual_seed(1)
    for source, target in ((text, labels), (labels, text)):
        cfg = configuration("data", "--task", "translation", "-s", "x", "-t", "y", *TINY[arch])
        tasks.append(DirectionTask(cfg.task, source, target))
        tasks[-1].labels = [*range(4, 4 + count)] if target is labels else []
        models.append(tasks[-1].build_model(cfg.model).eval())
        for parameter in models[-1].parameters():
            parameter.data.mul_(4)
    prior = LabelLanguageModel(LabelDecoder(labels))
    prior.decoder.counts = torch.tensor(labels.count)
    lm = FrozenLanguageModel(prior, labels)
    eos = torch.tensor([text.eos()])
    sentences = [torch.cat([torch.randint(4, 24, (n,)), eos]) for n in (2, 9, 5, 3, 12)]
    data = LanguagePairDataset(sentences, [*map(len, sentences)], text, tgt_dict=labels, shuffle=False)
    sample = data.collater([data[i] for i in range(len(sentences))])
    weights = Weights(0.7, reverse=0.3, lm=0.3)  # log P(x) is the same for all labels
    search = tasks[0].build_generator([models[0]], GenerationConfig(beam=1))
    generator = DualInferenceGenerator(search, [models[1]], (None, lm), text, True, weights, lenpen=0.0)
    found = generator.generate([models[0]], sample)

    candidates = [torch.tensor([label, labels.eos()]) for label in tasks[0].labels]
    xs = [x for x in sentences for _ in candidates]
    ys = candidates * len(sentences)
    terms = torch.stack([
        translation_log_probs([models[0]], xs, ys, labels), translation_log_probs([models[1]], ys, xs, text),
        language_model_log_probs(lm, ys, torch.zeros(())),
    ]).double()  # fmt: skip
    expected = (torch.tensor([0.7, 0.3, 0.3], dtype=torch.double) @ terms).view(len(sentences), count)
    plain = terms[0].view(len(sentences), count)
    for i, hypotheses in zip(sample["id"].tolist(), found, strict=True):
        assert sorted(h["tokens"][0].item() for h in hypotheses) == tasks[0].labels
        by_label = {h["tokens"][0].item() - 4: h for h in hypotheses}
        for label, hypothesis in by_label.items():
            assert hypothesis["tokens"].tolist() == [label + 4, labels.eos()] and not hypothesis["cut_off"]
            assert hypothesis["components"][0] == pytest.approx(plain[i, label].item(), abs=1e-4)
            assert float(hypothesis["score"]) == pytest.approx(expected[i, label].item(), rel=1e-5, abs=1e-4)
        assert hypotheses[0]["tokens"][0].item() - 4 == expected[i].argmax()
