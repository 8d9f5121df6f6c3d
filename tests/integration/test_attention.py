"""Pictures of attention: the right weights the right way round, a PNG a sentence, one line where there is nothing."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import tasks
from fairseq.dataclass.configs import GenerationConfig
from helpers import PLUGIN, SOURCE, TARGET, TINY, configuration, preprocessed, train
from matplotlib.figure import Figure

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair.attention import Attention, attention_of
from dual_fairseq.report import attention
from dual_fairseq.report.attention import draw_attention, fonts_for, picture

PNG = b"\x89PNG\r\n\x1a\n"
FCONV = (
    "--arch fconv --encoder-embed-dim 16 --decoder-embed-dim 16 --decoder-out-embed-dim 16 --encoder-layers [(16,3)]*2 "
    "--decoder-layers [(16,3)]*2 --decoder-attention True"
)
SMALL = "--encoder-embed-dim 8 --decoder-embed-dim 8 --readout-size 8 --init-scheme uniform --init-bound 0.7"
RNNSEARCH = f"--arch rnnsearch {SMALL} --encoder-hidden-size 6 --decoder-hidden-size 8"
LUONG = f"--arch rnn_luong {SMALL} --encoder-hidden-size 8 --decoder-hidden-size 8"
WORDS = ["s1", "s2", "never-seen", "s4", "s4", "s9"]


def build(corpus: Path, model: str):
    """An untrained pair, its task, and a generator."""
    cfg = configuration(
        corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, "--cpu",
        "--criterion", "dual_cross_entropy", "--max-tokens", 300, *TINY.get(model, model.split()),
    )  # fmt: skip
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(1)
    pair = task.build_model(cfg.model).eval()
    return pair, task, task.build_generator([pair], GenerationConfig(beam=2, max_len_a=0, max_len_b=6))


@pytest.mark.parametrize("model", ["transformer", "lstm", FCONV, RNNSEARCH, LUONG])
def test_weights_are_what_the_decoder_gave_each_source_token(corpus, model):
    pair, task, generator = build(corpus, model)
    seen, translation = attention_of(pair, task, generator, WORDS)
    assert seen.source == [*WORDS, "</s>"]
    assert seen.target == [*translation.split(), "</s>"]
    assert seen.weights.shape == (len(seen.target), len(seen.source))
    assert np.allclose(seen.weights.sum(axis=1), 1, atol=1e-5)
    # the same by one forward pass over the translation
    source = torch.tensor([task.source_dictionary.index(word) for word in seen.source])
    target = torch.tensor([task.target_dictionary.index(word) for word in ["</s>", *seen.target[:-1]]])
    with torch.no_grad():
        extra = pair.models[f"{SOURCE}-{TARGET}"](source[None], torch.tensor([len(source)]), target[None])[1]
    forward = extra["attn"][0] if isinstance(extra, dict) else extra  # (1, T, S)
    assert np.allclose(seen.weights, forward[0].numpy(), atol=1e-5)


def test_a_model_without_attention_is_refused_in_one_line(corpus):
    model = " ".join([*TINY["lstm"], "--decoder-attention", "0"])
    with pytest.raises(UserError, match="has no attention, or does not report it") as caught:
        attention_of(*build(corpus, model), WORDS)
    assert "\n" not in str(caught.value)


# --- pictures


def test_source_tokens_stand_above_and_target_tokens_on_the_left():
    weights = np.zeros((2, 3))
    weights[0, 2] = weights[1, 0] = 1
    axes = Figure().subplots()
    draw_attention(axes, Attention(["ein", "Hund", "</s>"], ["the", "dog"], weights))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ein", "Hund", "</s>"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["the", "dog"]
    assert axes.yaxis_inverted(), "the first target token is at the top"
    (image,) = axes.images
    assert (image.get_array() == weights).all()


def test_a_planted_attention_is_dark_where_it_was_planted():
    weights = np.zeros((4, 6))
    weights[0, 5] = 1  # the first target token looks at the last source token: top right
    drawn = pixels(picture(Attention(list("abcdef"), list("wxyz"), weights)))
    blue = (drawn[..., 2] - drawn[..., 0] > 0.2).nonzero()
    rows, columns = (positions.mean() / size for positions, size in zip(blue, drawn.shape, strict=False))
    assert rows < 0.5 and columns > 0.75, (rows, columns)


def pixels(png: bytes) -> np.ndarray:
    from matplotlib import image

    assert png.startswith(PNG)
    return image.imread(io.BytesIO(png))


@pytest.mark.parametrize("words", [["$\\frac$", "$x$", "a_b^c"], ["東京", "한국"], ["שלום", "مرحبا"], ["é" * 40]])
def test_any_token_is_drawn_as_it_is_and_nothing_warns(words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(picture(Attention(words, ["x"], np.ones((1, len(words))) / len(words)))).size


def test_characters_that_no_font_has_are_told_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(attention, "_characters", lambda font: set("abx"))
    with caplog.at_level(logging.WARNING):
        picture(Attention(["a", "字", "b"], ["x"], np.ones((1, 3)) / 3))
    assert [record.message for record in caplog.records] == [
        "no installed font has 字: drawn as boxes (Google's Noto fonts have them)"
    ]
    assert fonts_for("ab x\u200b") == ([attention.FONT], [])


# --- command line


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A pair trained on what scripts/preprocess.sh leaves."""
    folder = tmp_path_factory.mktemp("attention")
    dest = preprocessed(corpus, folder / "data", "none")
    train(
        dest / "dual", folder / "pair", "--dual-lambda", 0, "--max-update", 2, "--optimizer", "adam", "--lr", 0.01,
        "--max-source-positions", 60, "--max-target-positions", 60,
    )  # fmt: skip
    return folder / "pair"


@pytest.fixture
def command(run, tmp_path, monkeypatch, capsys):
    """Run the command line on text: what it printed on standard output and on standard error."""

    def call(text: str, *options: object) -> tuple[list[str], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        main(["attention", str(run), "--output", str(tmp_path / "out"), "--cpu", *map(str, options)])
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err

    return call


@pytest.mark.parametrize(("source", "target"), [(SOURCE, TARGET), (TARGET, SOURCE)])
def test_each_line_has_its_picture_in_both_directions(command, run, tmp_path, source, target):
    text = "s1 s2\n\ns3 s4 s5\n" if source == SOURCE else "t1\n\nt2 t3\n"
    lines, said = command(text, "-s", source)
    assert f"{source} -> {target} with {run / 'checkpoint_best.pt'}\n" in said
    files = [tmp_path / "out" / f"{number:03}.{source}-{target}.png" for number in (1, 3)]
    assert [line.split("\t")[0] for line in lines] == [str(file) for file in files]
    assert sorted((tmp_path / "out").iterdir()) == files
    assert all(file.read_bytes().startswith(PNG) for file in files)


def test_only_the_first_lines_are_read_and_long_ones_left_out(command, tmp_path, caplog):
    long = " ".join(["s1"] * 60)
    lines, _ = command(f"s1\n{long}\ns2\ns3\n", "-t", TARGET, "--limit", 3)
    assert [Path(line.split("\t")[0]).name[:3] for line in lines] == ["001", "003"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-s", "fr"), "is a pair of xx and yy, not of 'fr'"),
        (("-s", SOURCE, "--input", "/no/text"), "--input /no/text: there is no such file"),
        (("-s", SOURCE, "--output", "/proc/none"), "/proc/none: "),
        (("-s", SOURCE, "--dest", "/no/dest"), "/no/dest/preprocess.json: "),
    ],
)
def test_what_the_user_can_mend_is_one_line(command, options, message):
    with pytest.raises(UserError) as caught:
        command("s1\n", *options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_model_is_drawn_as_in_its_pair(run, command, tmp_path):
    single, dest = tmp_path / "single" / "model.pt", run.parent / "data"
    main(["export", str(run / "checkpoint_best.pt"), "--direction", f"{SOURCE}-{TARGET}", "-o", str(single)])
    drawn = {}
    for name, path in (("pair", run), ("single", single)):
        options = ["-s", SOURCE, "--cpu", "--dest", str(dest), "--output", str(tmp_path / name)]
        text = tmp_path / "text"
        text.write_text("s1 s2 s3\n")
        main(["attention", str(path), *options, "--input", str(text)])
        drawn[name] = (tmp_path / name / f"001.{SOURCE}-{TARGET}.png").read_bytes()
    assert drawn["single"] == drawn["pair"]
    with pytest.raises(UserError, match=f"-t {SOURCE}: .*model.pt translates {SOURCE} to {TARGET}"):
        main(["attention", str(single), "-t", SOURCE, "--cpu", "--dest", str(dest), "--output", str(tmp_path)])


@pytest.mark.parametrize("options", [(), ("-s", SOURCE, "--limit", "0"), ("-s", SOURCE, "--beam", "-1")])
def test_options_that_make_no_sense_are_refused(command, options):
    with pytest.raises(SystemExit) as caught:
        command("s1\n", *options)
    assert "dual-fairseq attention --help" in str(caught.value)
