"""The report: what is read of a run, scores and their significance, pictures, and the page in a real browser."""

from __future__ import annotations

import html
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_fairseq.common import comparison
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.tables import read_scores
from dual_fairseq.report import attention, build, examples, page, pictures, runs, scores


def test_the_best_is_the_validation_after_which_the_best_checkpoint_was_last_written():
    records = [
        {"num_updates": u, "bleu": b, "best_bleu": m} for u, b, m in ((1, 2, 2), (2, 5, 5), (3, 5, 5), (4, 4, 5))
    ]
    stage = runs.Stage("warmup", None, records, [], {}, True, {})
    assert stage.best["num_updates"] == 3  # fairseq writes it again where the score is equalled


def test_the_best_round_goes_on_where_the_round_before_it_ended(tmp_path):
    run = tmp_path / "run"
    for folder, updates in (("warmup", (100, 200)), ("rounds/1/dual", (50, 70)), ("rounds/2/dual", (50,))):
        (run / folder).mkdir(parents=True)
        lines = [
            f'| INFO | valid | {{"valid_num_updates": "{u}", "valid_bleu": "{u}", "valid_best_bleu": "{u}"}}\n'
            for u in updates
        ]
        (run / folder / "train.log").write_text("".join(lines))
    (run / "dual").symlink_to("rounds/2/dual")
    read = runs.read_run(run)
    assert read.stages["dual"].curve("bleu") == ([200, 250, 270, 320], [200, 50, 70, 50])
    assert page.stage_table(runs.systems([read])).lines[-1][4:6] == ("120", "120")


def test_a_run_that_was_moved_with_its_data_finds_them(tmp_path):
    for name in ("data/dual", "runs/one/dual"):
        (tmp_path / name).mkdir(parents=True)
    here = tmp_path / "runs" / "one" / "dual"
    assert runs.find("/gone/data/dual", "/gone/runs/one/dual", here) == tmp_path.resolve() / "data" / "dual"
    assert runs.find("/gone/data/other", "/gone/runs/one/dual", here) is None
    assert runs.find(str(tmp_path / "data"), "/gone/runs/one/dual", here) == tmp_path / "data"


WORDS = st.lists(st.sampled_from("a b c dd , . <i> & 猫 犬".split()), max_size=8).map(" ".join)


def test_a_line_of_spaces_takes_no_longer_than_another():
    assert examples.words("a" + " " * 10**6) == ["a"]  # hours, if the time grew with the square


@given(WORDS | st.text(max_size=20), WORDS, WORDS)
def test_marks_neither_add_nor_lose_a_word(text, reference, first):
    assert "".join(examples.words(text)) == text.rstrip()
    marks = examples.marked(text, reference, first)
    shown = re.sub(r"\s*<del>.*?</del>", "", marks)
    assert html.unescape(re.sub(r"</?(?:ins|mark)>", "", shown)).split() == text.split()


@pytest.mark.parametrize(
    ("text", "reference", "first", "expected"),
    [
        ("a cat", "a cat", "a cat", "a cat"),
        ("a dog", "a cat", "a dog", "a <mark>dog</mark>"),
        ("a cat", "a cat", "a dog", "a <ins>cat</ins>"),
        ("a cow", "a cat", "a dog", "a <ins><mark>cow</mark></ins>"),
        ("a cat", "a cat", "a big cat", "a <del>big</del> cat"),
        ("a cat", "a cat", "a cat!", "a cat<del>!</del>"),
        ("x < y", "x < y", "x < y", "x &lt; y"),
        ("黒い猫", "黒い犬", "黒い猫", "黒い<mark>猫</mark>"),
        ("ကို မန္တ", "ကာ မတ", "ကာ မတ", "<ins><mark>ကို</mark></ins> မ<ins><mark>န္တ</mark></ins>"),
        ("ที่", "ทา", "ที่", "<mark>ที่</mark>"),
    ],
    ids=["same", "foreign", "improved", "both", "dropped", "dropped-last", "escaped", "unspaced", "Myanmar", "Thai"],
)
def test_what_is_marked(text, reference, first, expected):
    assert examples.marked(text, reference, first) == expected


def test_long_texts_have_no_marks():
    """To find them would take hours."""
    long = ["".join(random.Random(seed).choices(("a ", "b "), k=20_000)) for seed in (1, 2, 3)]
    assert examples.marked(f"<{long[0]}", long[1], long[2]) == f"&lt;{long[0]}"


def test_a_direction_is_one(tmp_path):
    """It names files, too."""
    for name in ("../../x-y", "<b>", "a\x1b-b", "a-b-c"):
        (tmp_path / "scores.json").write_text(json.dumps({name: {"bleu": 1.0}}))
        with pytest.raises(UserError, match="is not a direction"):
            read_scores(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.05, "0.050"), (0.0499, "0.0499"), (0.04999, "0.04999"), (0.0494, "0.049"), (0.0004, "<0.001"), (None, "-")],
)
def test_what_is_below_the_bound_reads_so(p, shown):
    assert scores.probability(p) == shown


def evaluation(folder, **more: object) -> runs.Evaluation:
    return runs.Evaluation(folder, {"xx-yy": {"bleu": 1.0, "bleu_signature": "tok:13a"}, **more})


def rows_of(*searches: dict[str, str], signature: str = "tok:13a") -> list[scores.Row]:
    return [
        scores.Row("xx-yy", f"system {number}", {"bleu_signature": signature}, None, search=search)
        for number, search in enumerate(searches)
    ]


def difference(mine: scores.Row, its: scores.Row) -> str:
    return comparison.unlike(scores._basis(mine, ["a"]), scores._basis(its, ["a"]))


def test_scores_with_unlike_settings_are_not_tested_against_each_other():
    like, unlike, unknown = rows_of({"beam": "5", "lenpen": "1"}, {"beam": "5", "lenpen": "1.5"}, {})
    assert difference(unlike, like) == "length penalty" and difference(like, like) == ""
    assert difference(unknown, like) == ""
    (of_an_engine,) = rows_of({"beam": "5", "lenpen": "1", "engine": "ctranslate2"})
    assert difference(of_an_engine, like) == difference(like, of_an_engine) == "engine"
    (another,) = rows_of({"beam": "5", "lenpen": "1"}, signature="tok:char")
    assert difference(another, like) == "sacreBLEU signature"
    assert scores.searches_of([like, like]) == ["Search: beam 5, length penalty 1"]
    assert scores.searches_of([like, unlike, unknown]) == [
        "Search of system 0: beam 5, length penalty 1",
        "Search of system 1: beam 5, length penalty 1.5",
    ]


def test_translations_by_dual_inference_are_shown_too(tmp_path):
    for kind, text in (("src", "a"), ("ref", "b"), ("hyp", "c"), ("dual-inference.hyp", "b")):
        (tmp_path / f"xx-yy.{kind}.txt").write_text(f"{text}\n")
    of = evaluation(tmp_path)
    system = runs.System("dual", None, runs.Stage("dual", tmp_path, [], [], {}, True, {"test": of}))
    assert examples.examples([system], "test", "xx-yy", 3) == []  # the file is of an earlier checkpoint
    of.scores["xx-yy"]["dual_inference"] = {"bleu": 1.0}
    (example,) = examples.examples([system], "test", "xx-yy", 3)
    assert example.translations == {"dual": "c", "dual + dual inference": "b"}


def test_systems_with_and_without_dual_inference_share_a_table(tmp_path):
    found = [evaluation(tmp_path) for _ in range(3)]
    found[1].scores["xx-yy"]["dual_inference"] = {"bleu": 2.0, "bleu_signature": "tok:13a"}
    found[2].scores["xx-yy"]["dual_inference"] = None
    shown = [
        runs.System(key, None, runs.Stage(key, tmp_path, [], [], {}, True, {"test": of}))
        for key, of in zip(("warmup", "mle", "dual"), found, strict=True)
    ]
    rows, notes = scores.score_rows(shown, "test", trials=0)
    assert [row.system for row in rows] == ["warmup", "mle", "mle + dual inference", "dual"] and notes == []
    text = page.render("t", page.Paragraph(""), [page.Section("s", [page.Scores(rows)])])
    assert all(f'<td class="name">{row.system}</td>' in text for row in rows)
    assert [line.split()[0] for line in scores.text_table(rows).splitlines()[1:5]] == ["xx→yy"] * 4


def test_a_page_names_the_languages_of_its_sentences():
    example = examples.Example("猫", "a cat", {"dual": "a dog"})
    text = page.render("t", page.Paragraph(""), [page.Section("s", [page.Examples([example], "zh_CN-en")])])
    assert '<dd lang="zh-CN">猫</dd>' in text and '<dd class="reference" lang="en">a cat</dd>' in text
    assert '<dd lang="en">a <' in text


def test_language_models_are_named_with_their_perplexity(tmp_path):
    (tmp_path / "lm" / "xx").mkdir(parents=True)
    (tmp_path / "lm" / "xx" / "perplexity.json").write_text('{"perplexity": 51.04, "num_updates": 3}')
    run = runs.Run("r", tmp_path)
    assert build._perplexities([run]) == ["Perplexity of the language models, a token of the validation text: xx 51.0."]


def test_language_models_of_another_run_are_found_by_the_log(tmp_path):
    for language, value in (("xx", 51), ("yy", 12)):
        folder = tmp_path / "first" / "lm" / language
        folder.mkdir(parents=True)
        (folder / "checkpoint_best.pt").touch()
        (folder / "perplexity.json").write_text(json.dumps({"perplexity": float(value)}))
    stage = tmp_path / "second" / "dual"
    stage.mkdir(parents=True)
    (stage / "options.txt").write_text("data d\n--source-lang xx\n--target-lang yy\n")
    lms = "--src-lm runs/first/lm/xx/checkpoint_best.pt --tgt-lm runs/first/lm/yy/checkpoint_best.pt"
    command = f"# fairseq-train data {lms} --save-dir runs/second/dual"
    (stage / "train.log").write_text(f"# started\n{command}\nx | valid | {{}}\n")
    assert runs.read_run(tmp_path / "second").perplexities() == {"xx": 51.0, "yy": 12.0}
    (stage / "train.log").write_text(f"{command} 'not closed\n")
    assert runs.read_run(tmp_path / "second").perplexities() == {}


def test_fonts_that_were_installed_later_are_found(monkeypatch):
    """matplotlib keeps a list of fonts for ever."""
    from matplotlib import font_manager

    (entry,) = [e for e in font_manager.fontManager.ttflist if e.name == "STIXGeneral" and e.weight == 400
                and e.style == "normal"][:1]  # fmt: skip
    known = [e for e in font_manager.fontManager.ttflist if e.name == attention.FONT]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    only = sorted(attention._characters(entry.fname) - attention._characters(font_manager.findfont(attention.FONT)))[0]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    assert attention.fonts_for(only) == ([attention.FONT], [only])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [entry.fname])
    assert attention.fonts_for(only) == ([attention.FONT, "STIXGeneral"], [])


def test_a_name_with_dollars_is_no_formula():
    with pictures._figure() as axes:
        axes.set_title(r"$\frac$")
        assert pictures._png(axes).startswith(b"\x89PNG")
