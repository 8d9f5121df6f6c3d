"""Dual inference: what is printed, and that what is printed is what is ranked by."""

import math

import numpy as np
import pytest
from helpers import PLUGIN, SOURCE, TARGET, fairseq_here, train

from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.nbest import read_nbest
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.plugin.log_probs import language_model_log_probs, translation_log_probs
from dual_fairseq.plugin.model import parameter_like
from dual_fairseq.plugin.ranking import COMPONENTS, Weights, component_line, read_component_line

LN2 = math.log(2)


# --- the formula


def test_component_lines_lose_nothing():
    components = np.array([np.float32(-3.1415927), np.float32(-1e-7), np.nan, np.float32(-12345.678), 17.0])
    number, read = read_component_line(component_line(12, components))
    assert number == 12
    assert np.array_equal(read.astype(np.float32), components.astype(np.float32), equal_nan=True)
    assert component_line(3, np.array([-LN2, 0, 0, 0, 5.0])).startswith("R-3\tforward=-1\t")


# --- fairseq-generate


@pytest.fixture(scope="module")
def generate(corpus, trained_pair):
    def run(*options, source=SOURCE, target=TARGET, check=True):
        return fairseq_here(
            "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target,
            "--path", trained_pair[0] / "checkpoint_best.pt", "--gen-subset", "test", "--cpu", "--max-tokens", 100,
            "--beam", 4, "--required-batch-size-multiple", 1, "--no-progress-bar", *options,
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


def test_an_option_that_changes_the_beams_scores_is_refused(generate, lm_options):
    refused = generate(*lm_options, "--dual-inference-alpha", 0.5, "--unkpen", 2, check=False)
    assert refused.returncode and "unkpen" in refused.error


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
        "--max-len-b", 10, "--required-batch-size-multiple", 1,
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
