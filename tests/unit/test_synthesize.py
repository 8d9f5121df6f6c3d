"""Parallel text that pairs make: which translations count, and what is translated by whom."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair.synthetic import usable
from dual_fairseq.pair.translator import Hypothesis
from dual_fairseq.pipeline import synthesize

MONO = {"de": ["Das Haus.", "Der Hund.", "Ein Ball."], "en": ["The cat.", "A tree.", "The sea."]}
TRAIN = {"de": ["Ja.", "Nein."], "en": ["Yes.", "No."]}


@pytest.fixture
def dest(tmp_path) -> Path:
    folder = tmp_path / "data"
    (folder / "raw").mkdir(parents=True)
    record = {"source": "de", "target": "en", "tokenizer": "none", "bpe": {"type": None}, "subword": "bpe"}
    (folder / "preprocess.json").write_text(json.dumps(record))
    for name, text in (("mono", MONO), ("train", TRAIN), ("valid", TRAIN)):
        for language, lines in text.items():
            (folder / "raw" / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines))
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run; a pair translates a line into itself in capitals, with its own name."""
    ran = []

    def check(command):
        command = [str(word) for word in command[3:]]
        ran.append(command)
        words = {word: command[i + 1] for i, word in enumerate(command[:-1]) if word.startswith("-")}
        if command[0] == "select":
            Path(words["--output"]).write_text("Das Haus.\n")
        else:
            name = "+".join(Path(word).stem for word in command[1 : command.index("--dest")])
            lines = Path(words["--input"]).read_text().splitlines()
            content = {"pairs": [[line, f"{name} {line.upper()}"] for line in lines], "left_out": {"empty": 1}}
            Path(words["--output"]).write_text(json.dumps(content))

    monkeypatch.setattr(synthesize, "check", check)
    return ran


def made(dest, *options, pairs=("a.pt",)):
    """The pairs of a command."""
    folder = dest.parent
    main(["synthesize", str(dest), *(str(folder / pair) for pair in pairs), str(folder / "out"), "--plain", *options])
    return list(zip(*((folder / f"out.{language}").read_text().splitlines() for language in ("de", "en")), strict=True))


def hypotheses(*texts, cut_off=False):
    return [Hypothesis(text, -1.0, text, cut_off) for text in texts]


def test_the_best_distinct_translations_count():
    out = Counter()
    best = usable("Das Haus.", hypotheses("The house.", "the house", "A house.", "House."), None, 2, out)
    assert [one.text for one in best] == ["The house.", "A house."]
    assert out == {"repeated": 1}
    usable("Das Haus.", hypotheses("The house.", "A house.", "the house", ""), None, 2, out)
    assert out == {"repeated": 1}  # nothing is left out of those that are not needed


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("...", "empty"), ("das haus", "copied"), ("The house!", "known"), ("The house of", "cut_off")],
)
def test_what_teaches_nothing_is_left_out_and_counted(text, reason):
    out = Counter()
    assert usable("Das Haus.", hypotheses(text, cut_off=reason == "cut_off"), "The house.", 1, out) == []
    assert out == {reason: 1}


def test_both_languages_lines_get_translations(dest, commands, capsys):
    pairs = made(dest)
    assert pairs == [(line, f"a {line.upper()}") for line in MONO["de"]] + [
        (f"a {line.upper()}", line) for line in MONO["en"]
    ]
    assert "6 pairs" in (printed := capsys.readouterr().out)
    assert "left out: empty 2" in printed
    del commands[:]
    assert made(dest) == pairs and commands == []  # done before


def test_the_limit_of_lengths_reaches_the_search(dest, commands):
    made(dest, "--max-len-a", "2", "--max-len-b", "7")
    assert all(
        command[command.index("--max-len-a") :][:4] == ["--max-len-a", "2", "--max-len-b", "7"] for command in commands
    )


def test_the_engine_reaches_the_step_and_another_makes_it_anew(dest, commands):
    made(dest)
    del commands[:]
    made(dest, "--engine", "ctranslate2", "--int8")
    assert len(commands) == 2
    assert all(
        command[command.index("--engine") :][:3] == ["--engine", "ctranslate2", "--int8"] for command in commands
    )


def test_several_pairs_translate_in_turn_or_together(dest, commands):
    assert len(made(dest, pairs=("a.pt", "b.pt"))) == 12
    assert len(commands) == 4
    assert made(dest, "--ensemble", pairs=("a.pt", "b.pt"))[0] == ("Das Haus.", "a+b DAS HAUS.")


def test_one_language_alone_needs_no_text_of_the_other(dest, commands):
    (dest / "raw" / "mono.en").unlink()
    assert [line for line, _ in made(dest, "--only", "de")] == MONO["de"]
    with pytest.raises(UserError, match=r"mono\.en not found: .*--only LANG"):
        made(dest)


def test_the_pairs_own_text_is_translated_with_its_known_translations(dest, commands):
    assert [line for line, _ in made(dest, "--from-pairs", "--nbest", "2")][:2] == TRAIN["de"]
    command = commands[0]
    references = Path(command[command.index("--references") + 1])
    assert references.read_text().splitlines() == TRAIN["en"]
    assert command[command.index("--nbest") + 1] == "2"


def test_lines_drawn_from_the_pairs_keep_their_translations(dest, commands):
    made(dest, "--from-pairs", "--lines", "1", "--seed", "3")
    of = dict(zip(TRAIN["de"], TRAIN["en"], strict=True))
    lines, references = ((dest.parent / "out.parts" / f"de{name}.txt").read_text() for name in ("", ".references"))
    assert of[lines.strip()] == references.strip()


def test_text_is_selected_by_the_pairs_and_the_validation_text(dest, commands):
    made(dest, "--select", "--match-lengths", "--lines", "1")
    assert commands[0][:5] == ["select", "--pairs", str(dest / "raw/train.de"), "--valid", str(dest / "raw/valid.de")]
    assert {"--match-lengths", "--lines"} <= set(commands[0])


def test_stopped_it_goes_on_after_the_last_pair_that_is_done(dest, commands, monkeypatch):
    check, calls = synthesize.check, []

    def stop(command):
        calls.append(command)
        if len(calls) == 3:
            raise KeyboardInterrupt
        check(command)

    monkeypatch.setattr(synthesize, "check", stop)
    with pytest.raises(SystemExit):
        made(dest, pairs=("a.pt", "b.pt"))
    monkeypatch.setattr(synthesize, "check", check)
    del commands[:]
    assert len(made(dest, pairs=("a.pt", "b.pt"))) == 12
    assert len(commands) == 2


def test_other_options_make_it_anew(dest, commands):
    made(dest)
    del commands[:]
    made(dest, "--sampling", "10")
    assert len(commands) == 2 and "--sampling" in commands[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "fr"], "--only fr: .* has the languages de and en"),
        (["--match-lengths"], "--match-lengths needs --select"),
        (["--from-pairs", "--select"], "--select is for monolingual text"),
        (["--nbest", "6"], "--nbest 6: needs --beam 6 or more, not 5"),
        (["--int8"], "--int8: fairseq does not compute in 8 bits"),
        (["--engine", "ctranslate2", "--sampling", "9"], "--engine ctranslate2: does not translate with --sampling"),
        (["--engine", "ctranslate2", "--ensemble"], "--engine ctranslate2: does not translate with --ensemble"),
    ],
)
def test_a_mistake_is_one_line(dest, commands, options, message):
    with pytest.raises(UserError, match=message):
        made(dest, *options)
    assert commands == []


def test_without_a_usable_translation_nothing_is_written(dest, monkeypatch):
    def check(command):
        content = {"pairs": [], "left_out": {"cut_off": 3}}
        Path(str(command[command.index("--output") + 1])).write_text(json.dumps(content))

    monkeypatch.setattr(synthesize, "check", check)
    with pytest.raises(UserError, match=r"no translation is usable \(cut off 6\)"):
        made(dest)
    assert not (dest.parent / "out.de").exists()


def test_text_that_another_command_made_is_not_replaced(dest, commands):
    mine = dest.parent / "out.en"
    mine.write_text("mine\n")
    with pytest.raises(UserError, match=r"out\.en: exists, not made by this command; choose another OUT"):
        made(dest)
    assert mine.read_text() == "mine\n" and commands == [] and not (dest.parent / "out.parts").exists()
    mine.unlink()
    pairs = made(dest)
    (dest.parent / "out.parts" / "options.txt").unlink()  # killed while it joined the text
    assert made(dest) == pairs


def test_half_a_limit_of_lengths_is_refused(dest, commands):
    with pytest.raises(UserError, match="give both --max-len-a and --max-len-b, or neither"):
        made(dest, "--max-len-b", "9")
    assert commands == []
