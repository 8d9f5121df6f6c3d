"""The report: what is read of a run, scores and their significance, pictures, and the page in a real browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from helpers import SOURCE, TARGET
from PIL import Image

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import STAGES
from dual_fairseq.pair.evaluate import score
from dual_fairseq.pair.significance import TRIALS
from dual_fairseq.report import examples, gaps, pictures, runs, scores

DIRECTIONS = (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}")
REFERENCES = [f"the {a} cat sees a {b} dog and {c} old birds ." for a in "abcd" for b in "efgh" for c in ("two", "six")]


def log_line(tag: str, updates: int, **values: object) -> str:
    record = {f"{tag}_{key}": str(value) for key, value in values.items()}
    return f"2026-01-01 | INFO | {tag} | {json.dumps({'epoch': 1, f'{tag}_num_updates': str(updates), **record})}\n"


def valid(updates: int, bleu: float, best: float, **more: object) -> str:
    directions = {f"{key}_{d}": bleu for key in ("bleu", "nll_loss") for d in DIRECTIONS}
    return log_line("valid", updates, **directions, bleu=bleu, best_bleu=best, **more)


def worse(lines: list[str], every: int) -> list[str]:
    """One word lost from every so many sentences."""
    return [line.replace(" sees", "") if i % every == 0 else line for i, line in enumerate(lines)]


def evaluated(stage, hypotheses: list[str], references: list[str] = REFERENCES, split: str = "test", **more) -> None:
    """What dual-fairseq evaluate leaves in a stage."""
    folder = stage / "eval" / split
    folder.mkdir(parents=True)
    result: dict[str, object] = dict(more)
    for direction in DIRECTIONS:
        result[direction] = asdict(score(hypotheses, references, TARGET)) | {"nll_bits_per_token": 2.5}
        for kind, lines in (("src", references), ("hyp", hypotheses), ("ref", references)):
            (folder / f"{direction}.{kind}.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "scores.json").write_text(json.dumps(result))


def stage_folder(run, key: str, log: str = "") -> object:
    folder = run / key
    folder.mkdir(parents=True)
    (folder / "train.log").write_text(log)
    (folder / "options.txt").write_text(f"data 12ab\n--dual-lambda {0.25 if key == 'dual' else 0}\n--seed 7\n")
    return folder


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    """Significance tests are most of a report's time, and a tenth of their trials shows the same."""
    monkeypatch.setattr(scores.score_rows, "__defaults__", (TRIALS // 10,))


@pytest.fixture
def run(tmp_path):
    """A finished run without checkpoints: warm start, MLE and dual training."""
    folder = tmp_path / "run"
    warmup = stage_folder(folder, "warmup", valid(10, 1.5, 1.5) + valid(20, 4.5, 4.5) + valid(30, 3.5, 4.5))
    mle = stage_folder(folder, "mle", valid(5, 4.75, 4.75) + valid(10, 5.5, 5.5))
    gap = {"gap_abs": 3.25, "neg_weight": 0.125}
    dual = stage_folder(
        folder, "dual", valid(5, 5.0, 5.0, **gap) + log_line("train", 5, **gap) + valid(10, 6.0, 6.0, **gap)
    )
    evaluated(warmup, worse(REFERENCES, 1))
    evaluated(mle, worse(REFERENCES, 4), gap_abs=3.75)
    evaluated(dual, worse(REFERENCES, 4), gap_abs=3.5)
    return folder


# --- reading


def test_of_two_records_of_an_update_the_later_counts_and_a_torn_line_none(tmp_path):
    log = tmp_path / "train.log"
    records = [
        valid(20, 2.0, 2.0),
        valid(10, 1.0, 1.0),
        "noise\n",
        valid(20, 2.5, 2.5),
        log_line("train", 10, gap_abs=3),
    ]
    log.write_text("".join(records) + log_line("valid", 30, bleu="nan", gap_abs="7") + valid(40, 4.0, 4.0)[:60])
    found, training = runs.read_log(log)
    assert [(r["num_updates"], r.get("bleu")) for r in found] == [(10, 1.0), (20, 2.5), (30, None)]
    assert [(r["num_updates"], r["gap_abs"]) for r in training] == [(10, 3.0)]


def test_no_text_that_a_link_leads_to_is_shown(run, tmp_path):
    (tmp_path / "mine").write_text("secret\n")
    text = run / "dual" / "eval" / "test" / "xx-yy.src.txt"
    text.unlink()
    text.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=rf"{text}: is a link; if its text may be shown to others, replace the link"):
        main(["report", str(run), "-o", str(tmp_path / "page.html"), "--no-scatter"])
    assert not (tmp_path / "page.html").exists()


def test_a_stranger_s_settings_of_matplotlib_are_not_used(run, tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)  # as by a file matplotlibrc; it would start LaTeX
    main(["report", str(run), "-o", str(tmp_path / "page.html"), "--no-scatter"])
    assert (tmp_path / "page.html").is_file() and matplotlib.rcParams["text.usetex"]


def test_stages_go_on_from_the_best_of_the_warm_start(run):
    stages = runs.read_run(run).stages
    assert list(stages) == list(STAGES)
    assert stages["warmup"].curve("bleu_xx-yy") == ([10, 20, 30], [1.5, 4.5, 3.5])
    assert stages["dual"].curve("bleu_xx-yy") == ([20, 25, 30], [4.5, 5.0, 6.0])  # update 20 was the best
    assert stages["dual"].curve("gap_abs") == ([25, 30], [3.25, 3.25])  # not measured in the warm start
    assert stages["dual"].curve("gap_abs", "train") == ([25], [3.25])
    assert stages["mle"].curve("gap_abs") == ([], [])


def test_the_best_may_be_the_first_with_which_fairseq_logs_none():
    valid = [{"num_updates": 1, "bleu": 7.0}, *({"num_updates": u, "bleu": 5.0, "best_bleu": 7.0} for u in (2, 3))]
    stage = runs.Stage("dual", None, valid, [], {}, True, {})
    assert stage.best["num_updates"] == 1


def test_a_demo_s_folder_is_a_run_too(run, tmp_path):
    (tmp_path / "demo").mkdir()
    run.rename(tmp_path / "demo" / "train")
    assert list(runs.read_run(tmp_path / "demo").stages) == list(STAGES)


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart(tmp_path):
    folders = [tmp_path / name for name in ("a/seed1", "a/seed2", "b/seed1")]
    for folder in folders:
        stage_folder(folder, "dual")
    assert [r.name for r in runs.read_runs(folders[:2])] == ["seed1", "seed2"]
    assert [r.name for r in runs.read_runs(folders)] == ["a/seed1", "a/seed2", "b/seed1"]


def test_refusals(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "data" / "dual").mkdir(parents=True)
    (tmp_path / "data" / "preprocess.json").write_text("{}")
    for arguments, message in (
        ([tmp_path / "absent"], "there is no such folder"),
        ([tmp_path / "empty"], "holds none of the stages warmup, mle, dual"),
        ([tmp_path / "data"], "is the data of dual-fairseq preprocess; give the run"),
        ([run, run], "named twice"),
        ([run, "--split", "dev"], "no stage was evaluated on it, only on test"),
        ([run, "-o", tmp_path / "absent" / "x.html"], "there is no folder"),
        ([run, "-o", run], "is a folder; name the file to write"),
        ([run, "-o", run / "dual" / "train.log"], "is the same file as the input"),
        ([run, "--dest", tmp_path / "absent"], "there is no such folder"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            main(["report", *(str(a) for a in arguments)])


# --- scores


def test_significance_is_measured_against_mle_continued(run, monkeypatch):
    monkeypatch.undo()  # all trials
    rows, notes = scores.score_rows(runs.systems([runs.read_run(run)]), "test")
    assert notes == []
    assert [(row.direction, row.system) for row in rows] == [(d, name) for d in DIRECTIONS for name in STAGES.values()]
    warm, mle, dual = rows[:3]
    assert (warm.baseline, mle.baseline, dual.baseline) == (False, True, False)
    for metric in ("BLEU", "chrF"):
        assert dual.p_value(metric) == 1.0  # the same translations
        assert warm.p_value(metric) == pytest.approx(1 / (TRIALS + 1))
        assert mle.p_value(metric) is None and mle.test(metric).ci > 0
    assert warm.test("BLEU").score == pytest.approx(warm.scores["bleu"])
    line = re.split(r"\s{2,}", scores.text_table(rows).splitlines()[1])
    bleu, chrf, ratio = (warm.scores[key] for key in ("bleu", "chrf", "length_ratio"))
    assert line == [
        "xx→yy",
        "warm start",
        f"{bleu:.2f}",
        "<0.001",
        f"{chrf:.2f}",
        "<0.001",
        f"{ratio:.3f}",
        "2.500",
        "-",
    ]


def test_systems_on_another_test_text_are_shown_but_not_compared(run, tmp_path):
    other = tmp_path / "other"
    evaluated(stage_folder(other, "dual"), REFERENCES[:9], REFERENCES[:9])
    rows, notes = scores.score_rows(runs.systems(runs.read_runs([run, other])), "test")
    assert [row.system for row in rows][:4] == [f"run: {name}" for name in STAGES.values()] + ["other: dual"]
    assert rows[2].p_value("BLEU") == 1.0 and rows[3].p_value("BLEU") is None and rows[3].scores["bleu"] > 99
    assert notes == ["other: dual: has another test text than run: MLE continued, so it is not compared."]


# --- the gap


@pytest.fixture(scope="module")
def scored_run(trained_pair, tmp_path_factory):
    """A trained dual stage with its log, and as its warm start other weights, which know of no language model."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    directory, output = trained_pair
    dual = stage_folder(folder, "dual", output.output)
    shutil.copy(directory / "checkpoint_best.pt", dual)
    state = torch.load(dual / "checkpoint_best.pt")
    state["model"] = {key: value / 2 if value.is_floating_point() else value for key, value in state["model"].items()}
    state["cfg"]["task"].update({"src_lm": None, "tgt_lm": None})
    torch.save(state, stage_folder(folder, "warmup", valid(30, 4.5, 4.5)) / "checkpoint_best.pt")
    return folder


def test_the_gap_is_that_of_the_criterion(scored_run):
    run = runs.read_run(scored_run)
    found = gaps.score_run(run, "valid", pairs=1000, cpu=True)
    assert list(found) == ["warmup", "dual"]
    assert len(found["dual"].gap) == 24
    best = run.stages["dual"].best
    assert np.abs(found["dual"].gap).mean() == pytest.approx(best["gap_abs"], abs=1e-3)
    assert found["dual"].gap.mean() == pytest.approx(best["gap_mean"], abs=1e-3)
    assert not np.allclose(found["warmup"].gap, found["dual"].gap)


def test_pairs_come_from_the_text_of_an_earlier_stage_if_the_last_one_has_no_such_split(scored_run, tmp_path):
    """The text of a round has no test split."""
    copy = tmp_path / "run"
    shutil.copytree(scored_run, copy)
    state = torch.load(copy / "dual" / "checkpoint_best.pt")
    state["cfg"]["task"]["data"] = str(tmp_path / "round")
    (tmp_path / "round").mkdir()
    torch.save(state, copy / "dual" / "checkpoint_best.pt")
    found, expected = (gaps.score_run(runs.read_run(run), "valid", pairs=1000, cpu=True) for run in (copy, scored_run))
    assert np.array_equal(found["dual"].gap, expected["dual"].gap)


def test_scores_are_kept_and_follow_the_checkpoint(scored_run, monkeypatch, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(scored_run, copy)
    run = runs.read_run(copy)
    first = gaps.score_run(run, "valid", pairs=7, cpu=True)
    assert len(first["dual"].gap) == 7

    def loaded(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(gaps, "load_pair", loaded)
    monkeypatch.setattr(gaps, "load_language_model", loaded)
    again = gaps.score_run(run, "valid", pairs=7, cpu=True)
    assert np.array_equal(again["dual"].gap, first["dual"].gap)
    shutil.copy(copy / "dual" / "checkpoint_best.pt", copy / "warmup")
    with pytest.raises(AssertionError, match="loaded"):
        gaps.score_run(run, "valid", pairs=7, cpu=True)


def test_without_language_models_the_rest_is_reported(scored_run, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "run"
    shutil.copytree(scored_run / "warmup", copy / "warmup")  # λ = 0: no language model was recorded
    main(["report", str(copy), "--split", "valid", "--cpu"])
    text = (copy / "report.html").read_text()
    assert "no scatter of sentence pairs, because the language model of xx (none was used) is missing." in text
    assert "Validation NLL, xx→yy" in text and "Nothing was evaluated yet" in capsys.readouterr().out


# --- examples


def test_examples_are_sentences_that_the_systems_translate_differently(run):
    shown = runs.systems([runs.read_run(run)])
    found = examples.examples(shown, "test", DIRECTIONS[0], 5)
    assert len(found) == 5
    for example in found:
        assert list(example.translations) == list(STAGES.values())
        assert len(set(example.translations.values())) == 2
        assert example.reference in REFERENCES


# --- the page


class Structure(HTMLParser):
    """Tags in the order of their opening; refuses a page whose tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.opened.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)

    def images(self) -> list[bytes]:
        prefix = "data:image/png;base64,"
        sources = [attrs["src"] for tag, attrs in self.opened if tag == "img"]
        assert all(source.startswith(prefix) for source in sources)
        assert all(attrs["alt"] for tag, attrs in self.opened if tag == "img")
        return [base64.b64decode(source[len(prefix) :], validate=True) for source in sources]


def assert_whole_page(text: str) -> Structure:
    """Well formed, all pictures in it and readable, nothing from elsewhere."""
    structure = Structure(text)
    for image in structure.images():
        picture = Image.open(io.BytesIO(image))
        assert picture.format == "PNG" and min(picture.size) > 300
        picture.load()
    assert not {tag for tag, _ in structure.opened} & {"script", "link", "iframe", "object"}
    sources = [attrs[name] for _, attrs in structure.opened for name in ("src", "href", "srcset") if name in attrs]
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"url\(|@import", text)
    assert structure.opened[0][0] == "html" and "<meta charset" in text
    return structure


def test_the_page_of_a_run(run, capsys):
    main(["report", str(run), "--no-scatter", "--examples", "2"])
    structure = assert_whole_page((run / "report.html").read_text())
    titles = [f"{name}, {d}" for name in ("Validation NLL", "Validation BLEU") for d in ("xx→yy", "yy→xx")]
    titles += ["Mean |gap| over updates", "Share of negative weights over updates"]
    assert [h for h in structure.headings if "over updates" in h or h.startswith("Valid")] == titles
    assert len(structure.images()) == len(titles)
    sections = ["Scores", "Training", "The duality gap", "Translations, xx→yy", "Translations, yy→xx"]
    assert [h for h in structure.headings if h not in titles] == ["Dual training: run", *sections]
    tags = [tag for tag, _ in structure.opened]
    assert tags.count("table") == 2 and tags.count("dl") == 4 and "ins" in tags and "mark" in tags
    rows, _ = scores.score_rows(runs.systems([runs.read_run(run)]), "test")
    assert scores.text_table(rows) in capsys.readouterr().out
    assert not list(run.glob("*.tmp")) and not list(run.glob(".report.html.*"))


def test_text_is_escaped(run):
    for path in run.glob("*/eval/test/*.txt"):
        path.write_text(path.read_text().replace("cat", "<b onclick='x'>&cat</b>"))
    main(["report", "--no-scatter", str(run)])
    structure = assert_whole_page((run / "report.html").read_text())
    assert "b" not in {tag for tag, _ in structure.opened}
    assert "&lt;b onclick=" in (run / "report.html").read_text()


def test_several_runs_share_tables_and_pictures(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    out = tmp_path / "both.html"
    main(["report", str(run), str(other), "--no-scatter", "--output", str(out)])
    structure = assert_whole_page(out.read_text())
    assert len(structure.images()) == 6
    for name in STAGES.values():
        for folder in ("run", "other"):
            assert (
                out.read_text().count(f'<td class="name">{folder}: {name}</td>') == 3
            )  # a direction each, and Training
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("parts", ["nothing logged", "logs only", "scores only", "texts gone"])
def test_what_a_run_lacks_is_left_out(run, parts):
    for key in STAGES:
        stage = run / key
        if parts == "nothing logged":
            shutil.rmtree(stage)
            stage.mkdir()
        elif parts == "logs only":
            shutil.rmtree(stage / "eval")
        elif parts == "scores only":
            (stage / "train.log").unlink()
        else:
            for path in stage.glob("eval/test/*.txt"):
                path.unlink()
    if parts == "nothing logged":
        shutil.rmtree(run / "mle")
        shutil.rmtree(run / "dual")
    main(["report", str(run)])
    text = (run / "report.html").read_text()
    structure = assert_whole_page(text)
    assert "no stage has a checkpoint_best.pt" in text
    assert len(structure.images()) == (6 if parts in ("logs only", "texts gone") else 0)
    assert ("was not evaluated on" in text) == (parts in ("nothing logged", "logs only"))
    assert ("<strong>&lt;0.001</strong>" in text) == (parts == "scores only")
    assert ("No significance" in text) == (parts == "texts gone")
    assert ("Translations," in text) == (parts == "scores only")


def test_pictures_show_what_was_drawn(run):
    """The same quantity without one of its lines is another picture."""
    shown = runs.systems([runs.read_run(run)])
    everything = [p.png for p in pictures.curves(shown, DIRECTIONS, {})]
    assert len(set(everything)) == 2  # the log above has NLL = BLEU in both directions; only the axes differ
    for i in range(3):
        assert everything[0] != pictures.curves(shown[:i] + shown[i + 1 :], DIRECTIONS, {})[0].png
    assert everything[0] != pictures.curves(shown, DIRECTIONS, {DIRECTIONS[0]: 0.5})[0].png


def test_scatter_and_histogram_of_every_stage(scored_run, tmp_path):
    out = tmp_path / "report.html"
    main(["report", str(scored_run), "--split", "valid", "--cpu", "--output", str(out)])
    headings = assert_whole_page(out.read_text()).headings
    assert {"log P(x, y) both ways, warm start", "log P(x, y) both ways, dual", "Distribution of the gap"} <= {
        *headings
    }
    assert "24 pairs, mean |gap|" in out.read_text()


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Shows the page in a frame of a telephone's width, and leaves in the document what was found there.
FRAMED = """<!doctype html><meta charset="utf-8"><iframe width="390" height="800" srcdoc="{page}"></iframe><pre></pre>
<script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe").contentDocument, all = q => [...frame.querySelectorAll(q)];
  document.querySelector("pre").textContent = "found" + JSON.stringify({{
    images: all("img").map(i => [i.complete && i.naturalWidth > 0, i.getBoundingClientRect().width > 100]).flat(),
    tables: all("table").filter(t => t.getBoundingClientRect().height > 50).length,
    headings: all("h2").length,
    wide: frame.documentElement.scrollWidth,
  }}) + "found";
  document.querySelector("iframe").remove();
}});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH to look at the page with")
def test_a_browser_shows_the_page_even_on_a_narrow_screen(run, tmp_path):
    main(["report", str(run), "--no-scatter"])
    (tmp_path / "frame.html").write_text(FRAMED.format(page=html.escape((run / "report.html").read_text())))
    argv = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*argv, "--virtual-time-budget=20000", "--dump-dom", f"file://{tmp_path / 'frame.html'}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-2000:]
    found = json.loads(html.unescape(shown.stdout.rpartition("<pre>found")[2].partition("found</pre>")[0]))
    assert found["images"] == [True] * 12
    assert (found["tables"], found["headings"]) == (2, 5)
    assert found["wide"] <= 390  # what is wider scrolls by itself
    assert "CONSOLE" not in shown.stderr
