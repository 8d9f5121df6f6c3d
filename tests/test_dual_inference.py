"""Dual inference: what is printed, and that what is printed is what is ranked by."""

import math

import numpy as np
import pytest
import torch
from conftest import PLUGIN, SOURCE, TARGET, fairseq_here, train
from fairseq.data import Dictionary

from dual_fairseq.common.errors import UserError
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.nbest import read_nbest
from dual_fairseq.plugin.dual_inference import ComponentPrinter
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.plugin.log_probs import language_model_log_probs, translation_log_probs
from dual_fairseq.plugin.model import parameter_like
from dual_fairseq.plugin.ranking import COMPONENTS, Weights, component_line, read_component_line, weights_of_options

LN2 = math.log(2)


# --- the formula


def test_alpha_is_the_formula_of_the_paper():
    forward, reverse, lm, source_lm, length = -3.0, -5.0, -7.0, -6.0, 4.0
    components = np.array([forward, reverse, lm, source_lm, length])
    for alpha in (0.0, 0.3, 1.0):
        expected = alpha * forward + (1 - alpha) * (reverse + lm - source_lm)
        assert Weights.of_alpha(alpha).score(components, 0.0) == pytest.approx(expected)
        assert Weights.of_alpha(alpha).score(components, 1.5) == pytest.approx(expected / length**1.5)
    assert Weights.of_alpha(1.0).plain and not Weights.of_alpha(0.99).plain


def test_the_general_form_and_components_that_could_not_be_computed():
    components = np.array([[-3.0, -5.0, -7.0, np.nan, 4.0], [-1.0, np.nan, -1.0, np.nan, 9.0]])
    scores = Weights(1.0, reverse=0.5, lm=0.25, length=2.0).score(components, 0.0)
    assert scores[0] == pytest.approx(-3 - 2.5 - 1.75 + 8) and scores[1] == -np.inf
    # what has no weight does not count
    assert Weights(1.0, lm=1.0).score(components, 0.0) == pytest.approx([-10, -2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((1.5, None, None, None), "--dual-inference-alpha 1.5: give a number from 0 to 1"),
        ((float("nan"), None, None, None), "--dual-inference-alpha nan"),
        ((0.5, None, 0.3, None), "either α or the weights"),
        ((None, float("inf"), None, None), "--dual-inference-reverse-weight inf: give a finite number"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        weights_of_options(*options)


def test_options():
    assert weights_of_options(None, None, None, None) is None
    assert weights_of_options(0.25, None, None, None) == Weights(0.25, 0.75, 0.75, -0.75, 0.0)
    assert weights_of_options(None, 0.5, None, 2.0) == Weights(1.0, 0.5, 0.0, 0.0, 2.0)


def test_component_lines_lose_nothing():
    components = np.array([np.float32(-3.1415927), np.float32(-1e-7), np.nan, np.float32(-12345.678), 17.0])
    number, read = read_component_line(component_line(12, components))
    assert number == 12
    assert np.array_equal(read.astype(np.float32), components.astype(np.float32), equal_nan=True)
    assert component_line(3, np.array([-LN2, 0, 0, 0, 5.0])).startswith("R-3\tforward=-1\t")


def test_sentences_of_the_input_are_numbered_in_order(capsys):
    printer = ComponentPrinter(Dictionary())
    a, b, long = torch.tensor([4, 2]), torch.tensor([5, 2]), torch.tensor([6, 4, 2])

    def printed(*sentences):
        rows = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=1, padding_side="left")
        beams = [[{"components": np.array([-1.0, 0, 0, 0, len(s)])}] * 3 for s in sentences]
        printer.print({"net_input": {"src_tokens": rows}}, beams)
        return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]

    printer.expect([a, b, a, long])
    assert printed(b, long, a) == ["R-1", "R-3", "R-0"] and printed(a) == ["R-2"]
    printer.expect([b])
    assert printed(b) == ["R-4"]
    printer.set_up(2, None)
    printer.expect([a])
    assert printed(a) == ["R-5", "R-5"]


# --- fairseq-generate


@pytest.fixture(scope="module")
def generate(corpus, trained_pair):
    def run(*options, source=SOURCE, target=TARGET, check=True):
        return fairseq_here(
            "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target,
            "--path", trained_pair[0] / "checkpoint_best.pt", "--gen-subset", "test", "--cpu", "--max-tokens", 100,
            "--beam", 4, "--required-batch-size-multiple", 1, "--no-progress-bar", "--num-workers", 0, *options,
            check=check,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def listed(generate, lm_options):
    return generate(*lm_options, "--nbest", 4, "--dual-inference-alpha", 1)


def lines(run, *kinds):
    return [line for line in run.output.splitlines() if line.startswith(kinds)]


def best(run):
    """Number → tokens of the first translation."""
    found = {}
    for line in lines(run, "H-"):
        head, _, tokens = line.split("\t", 2)
        found.setdefault(head, tokens)
    return found


def test_alpha_1_is_plain_generation(generate, listed):
    plain = generate("--nbest", 4)
    kinds = ("S-", "T-", "H-", "D-", "P-")
    assert lines(listed, *kinds) == lines(plain, *kinds)
    assert len(lines(listed, "R-")) == len(lines(plain, "H-")) == 16 * 4
    assert not lines(plain, "R-")


def test_components_are_what_the_models_say(listed, corpus, trained_pair, language_models):
    nbest = read_nbest(listed.output.splitlines(), 16, corpus)
    model, task = load_pair(trained_pair[0] / "checkpoint_best.pt", device="cpu")
    task.load_dataset("test")
    dataset, like = task.datasets["test"], parameter_like(model)
    lms = [
        load_language_model(str(language_models[language]), dictionary, language, "--lm")
        for language, dictionary in ((SOURCE, task.source_dictionary), (TARGET, task.target_dictionary))
    ]
    forward, reverse = model.models[f"{SOURCE}-{TARGET}"], model.models[f"{TARGET}-{SOURCE}"]
    for i, (texts, components) in enumerate(zip(nbest.texts, nbest.components, strict=True)):
        targets = [task.target_dictionary.encode_line(text, add_if_not_exist=False).long() for text in texts]
        sources = [dataset[i]["source"]] * len(texts)
        columns = [
            translation_log_probs([forward], sources, targets, task.target_dictionary),
            translation_log_probs([reverse], targets, sources, task.source_dictionary),
            language_model_log_probs(lms[1], targets, like),
            language_model_log_probs(lms[0], sources, like),
        ]
        for column, values in enumerate(columns):
            assert components[:, column] == pytest.approx(values.double().numpy(), abs=2e-3), COMPONENTS[column]
        assert components[:, 4].tolist() == [len(target) for target in targets]


@pytest.mark.parametrize(
    ("options", "weights", "lenpen"),
    [
        (("--dual-inference-alpha", 0.4), Weights.of_alpha(0.4), 1.0),
        (
            ("--dual-inference-reverse-weight", 0.7, "--dual-inference-lm-weight", 0.3,
             "--dual-inference-length-weight", 1.5, "--lenpen", 0),
            Weights(1.0, 0.7, 0.3, 0.0, 1.5), 0.0,
        ),
    ],
)  # fmt: skip
def test_what_generation_chooses_is_what_the_saved_list_gives(
    generate, listed, lm_options, corpus, options, weights, lenpen
):
    run = generate(*lm_options, *options)
    nbest = read_nbest(listed.output.splitlines(), 16, corpus)
    expected = nbest.best(weights, lenpen)
    chosen = best(run)
    assert [chosen[f"H-{i}"] for i in range(16)] == expected
    assert expected != [texts[0] for texts in nbest.texts]  # something was re-ranked
    scores = weights.score(nbest.components, lenpen)
    for line in lines(run, "H-"):
        head, score, _ = line.split("\t")
        assert float(score) * LN2 == pytest.approx(np.nanmax(scores[int(head[2:])]), abs=1e-5)


def test_the_other_direction_has_its_language_models_the_other_way_round(generate, listed, language_models, corpus):
    # Nothing on the command line: those that the pair was trained with, by language.
    run = generate("--nbest", 4, "--dual-inference-alpha", 1, source=TARGET, target=SOURCE)
    there, back = (read_nbest(r.output.splitlines(), 16, corpus).components for r in (listed, run))
    # log P of the source: the reference translation of the other direction, by the other language model
    model_scores = {name: {round(float(v), 3) for v in c[:, 0, 3]} for name, c in (("xx", there), ("yy", back))}
    assert not model_scores["xx"] & model_scores["yy"]
    given = ("--src-lm", language_models[TARGET], "--tgt-lm", language_models[SOURCE])
    same = generate("--nbest", 4, "--dual-inference-alpha", 1, *given, source=TARGET, target=SOURCE)
    assert lines(same, "R-") == lines(run, "R-")
    swapped = generate("--dual-inference-alpha", 1, "--src-lm", language_models[SOURCE], source=TARGET, target=SOURCE,
                       check=False)  # fmt: skip
    assert swapped.returncode == 1 and "dictionary" in swapped.error


def test_a_pair_without_language_models(corpus, tmp_path):
    train(corpus / "dual", tmp_path, "--dual-lambda", 0, "--max-update", 1, "--optimizer", "sgd", "--lr", 0.1,
          model="lstm")  # fmt: skip
    command = (
        "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        "--path", tmp_path / "checkpoint_last.pt", "--cpu", "--beam", 2, "--max-tokens", 100, "--no-progress-bar",
        "--max-len-b", 10, "--required-batch-size-multiple", 1, "--num-workers", 0,
    )  # fmt: skip
    run = fairseq_here(*command, "--dual-inference-alpha", 0.5, check=False)
    assert run.returncode == 1 and "--src-lm missing: dual inference" in run.error
    # the reverse model alone needs none; and the order of its batch is of no matter (an LSTM encoder wants it sorted)
    run = fairseq_here(*command, "--dual-inference-reverse-weight", 1, "--results-path", tmp_path / "results")
    found = [line for name in ("generate", "components") for line in (tmp_path / "results" / f"{name}-test.txt").open()]
    nbest = read_nbest(found, 16, tmp_path)
    assert [len(texts) for texts in nbest.texts] == [1] * 16 and np.isnan(nbest.components[:, :, 2:4]).all()
    assert not lines(run, "R-")


def test_interactive_numbers_its_lines_as_fairseq_does(corpus, trained_pair, lm_options, tmp_path):
    text = "s1 s2 s3\ns4\ns1 s2 s3\ns5 <pad> s6\ns7\n"  # <pad> is a symbol of the dictionary
    (tmp_path / "input").write_text(text)
    run = fairseq_here(
        "interactive", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        "--path", trained_pair[0] / "checkpoint_best.pt", "--cpu", "--beam", 3, "--buffer-size", 2, "--batch-size", 2,
        *lm_options, "--dual-inference-alpha", 0.5, "--input", tmp_path / "input",
    )  # fmt: skip
    printed = [line.split("\t") for line in run.output.splitlines() if line.startswith(("R-", "S-", "H-"))]
    sources = {fields[0]: fields[1] for fields in printed if fields[0].startswith("S-")}
    assert [sources[f"S-{i}"] for i in (0, 1, 2, 4)] == [text.splitlines()[i] for i in (0, 1, 2, 4)]
    components = dict(read_component_line("\t".join(fields)) for fields in printed if fields[0].startswith("R-"))
    assert sorted(components) == list(range(5))
    for fields in printed:
        if fields[0].startswith("H-"):
            score = Weights.of_alpha(0.5).score(components[int(fields[0][2:])], 1.0)
            assert float(fields[1]) * LN2 == pytest.approx(float(score), abs=1e-4)
