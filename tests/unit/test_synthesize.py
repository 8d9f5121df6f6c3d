"""Synthetic text has whole translations only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dual_fairseq.common.errors import UserError
from dual_fairseq.pipeline import synthesize

TEXT = {"de": ["ein Hund", "zwei Hunde", "drei Hunde"], "en": ["a cat", "two cats"]}
TRANSLATIONS = {"de-en": ["a dog", "", "three dogs"], "en-de": ["", "zwei Katzen"]}  # "": ended by the limit


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A DEST with monolingual text, a checkpoint, and a command to translate that leaves lines empty."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "preprocess.json").write_text(json.dumps({"source": "de", "target": "en", "tokenizer": "moses"}))
    for language, lines in TEXT.items():
        (tmp_path / "raw" / f"mono.{language}").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "pair.pt").touch()

    def translate(command: list[str]) -> None:
        assert "--only-complete" in command
        assert command[command.index("--max-len-a") :][:4] == ["--max-len-a", "3", "--max-len-b", "9"]
        output = Path(command[command.index("--output") + 1])
        output.write_text("".join(f"{line}\n" for line in TRANSLATIONS[output.stem]))

    monkeypatch.setattr(synthesize, "check", translate)
    return tmp_path


def test_what_the_limit_of_length_ended_is_left_out_and_counted(folder, capsys):
    words = [folder, folder / "pair.pt", folder / "out", "--plain", "--max-len-a", "3", "--max-len-b", "9"]
    synthesize.main([*map(str, words)])
    assert (folder / "out.de").read_text().splitlines() == ["ein Hund", "drei Hunde", "zwei Katzen"]
    assert (folder / "out.en").read_text().splitlines() == ["a dog", "three dogs", "two cats"]
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("3 pairs: ") and "; 2 left out, with an empty side or a translation that the limit" in said


def test_half_a_limit_is_refused(folder):
    with pytest.raises(UserError, match="give both --max-len-a and --max-len-b, or neither"):
        synthesize.main([*map(str, (folder, folder / "pair.pt", folder / "out", "--plain", "--max-len-b", "9"))])
