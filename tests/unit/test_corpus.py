"""Reading, cleaning and tokenising raw text."""

import gzip
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_fairseq.common import files
from dual_fairseq.common.dictionaries import check_dictionary_file
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.files import CannotWrite, sha256, write_text
from dual_fairseq.common.interruption import stoppable
from dual_fairseq.common.records import read_record
from dual_fairseq.data.clean import LONGEST_WORD, Cleaner, Rules, clean_corpus
from dual_fairseq.data.lines import Rows, open_text, read_blocks, read_rows, survey
from dual_fairseq.data.normalize import BadLine, decode
from dual_fairseq.data.tokenizer import Tokenizer
from dual_fairseq.data.workers import parallel

SENTENCES = {
    "de": [
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        "Der Hund z. B. rennt „schnell“ – sehr schnell – zum 3. Mal um 10:30 Uhr!",
        "E-Mail-Adresse: a.b@c.de & mehr [100 %] <b>fett</b> | Rand",
        "Er sagte: ‚Das ist’s…‘ und ging (nach Hause).",
    ],
    "en": [
        "Two young, White males are outside near many bushes.",
        "It's the U.S. dog's 1,000.5 $ well-known e-mail -- isn't it?",
        "Mr. Smith said: “I can't” & left; 'tis <so> [odd]...",
        "a/b http://x.org/y?z=1 10% @-@ &amp; done.",
    ],
    "fr": ["L'homme n'est pas là : « c'est ça ! » aujourd'hui, 5 % de 10 000."],
}


def clean(*lines: bytes, rules: Rules = Rules(), languages: tuple[str, ...] = ("de", "en")):  # noqa: B008
    """The reasons, kept rows and notes for rows of which every side is the same line."""
    rows = Rows(0, 1, [(line,) * len(languages) for line in lines])
    return Cleaner(languages, rules)(rows)[1]


@pytest.mark.parametrize("language", SENTENCES)
def test_an_earlier_versions_tokenisation_is_that_of_fairseqs_moses_encoder_after_punctuation(language: str) -> None:
    from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig
    from sacremoses import MosesPunctNormalizer

    encoder = MosesTokenizer(MosesTokenizerConfig(source_lang=language, target_lang=language))
    tokenize = Tokenizer("moses", language, normalize_punctuation=True, whole_words=False)
    for sentence in SENTENCES[language]:
        normalized = MosesPunctNormalizer(language).normalize(sentence)
        assert tokenize(sentence).split() == encoder.encode(normalized).split()
        assert tokenize(sentence) != sentence  # there was something to do


def test_tokenizer_none_only_puts_white_space_in_order() -> None:
    assert Tokenizer("none", "ko")("나는\u3000학교 에\u00a0 간다 .") == "나는 학교 에 간다 ."


@pytest.mark.parametrize(
    ("raw", "text", "note"),
    [
        (b"one two\r", "one two", "windows_line_ends"),
        (b"\xef\xbb\xbfone two", "one two", "byte_order_marks"),
        ("one\u2028two".encode(), "one two", "line_separators"),
        ("one\u0085two".encode(), "one two", "line_separators"),
        (b"one\x0btwo", "one two", "line_separators"),
        (b"one\x0ctwo", "one two", "line_separators"),
        (b"one\rtwo", "one two", "line_separators"),
        (b"  one \t  two ", "one two", None),
        ("5\u00a0%".encode(), "5\u00a0%", None),
    ],
)
def test_lines_are_repaired_and_repairs_are_counted(raw: bytes, text: str, note: str | None) -> None:
    notes: Counter[str] = Counter()
    assert decode(raw, notes) == text
    assert +notes == (Counter({note: 1}) if note else Counter())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b" \t\r", "empty"),
        ("\u200b\u00a0\u2028".encode(), "empty"),
        (b"caf\xe9", "bad_utf8"),
        ("\ud800".encode("utf-8", "surrogatepass"), "bad_utf8"),
        (b"a\0b", "control"),
        (b"a\x1bb", "control"),
        ("a\u0092b".encode(), "control"),
    ],
)
def test_unusable_lines_are_told_apart(raw: bytes, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        decode(raw, Counter())


def test_limits_on_words_and_lengths() -> None:
    rules = Rules("none", max_length=4, max_ratio=2)
    pairs = [(b"a b c d", b"a b"), (b"a b c d e", b"a b c"), (b"a b c", b"a"), (b"x" * (LONGEST_WORD + 1), b"a")]
    found = Cleaner(["de", "en"], rules)(Rows(0, 1, pairs))[1]
    assert [row.reason for row in found] == ["", "over_long", "ratio", "long_word"]
    kept = Cleaner(["de", "en"], Rules("none", max_length=4, max_ratio=2, keep_long=True))(Rows(0, 1, pairs))[1]
    assert [(row.reason, row.over_long) for row in kept] == [("", False), ("", True), ("", False), ("long_word", False)]


def test_words_are_counted_after_tokenisation_too() -> None:
    assert [row.reason for row in clean(b"one, two.", rules=Rules(max_length=3))] == ["over_long"]
    assert [row.reason for row in clean(b"one, two.", rules=Rules(max_length=4))] == [""]


@pytest.mark.parametrize("word", ["<s>", "</s>", "<pad>"])
def test_words_that_fairseq_reserves(word: str) -> None:
    assert clean(f"a {word} b".encode(), rules=Rules("none"))[0].reason == "reserved"
    assert clean(f"a b{word}".encode(), rules=Rules("none"))[0].reason == "reserved"  # BPE may cut it off
    assert clean(f"a {word}b".encode(), rules=Rules("none"))[0].reason == ""
    escaped = clean(f"a {word} b".encode())[0]
    assert escaped.reason == "" and word not in escaped.tokens[0].split()


def test_lower_casing_reaches_the_references() -> None:
    row = clean("Über UNS".encode(), rules=Rules(lowercase=True))[0]
    assert row.texts == row.tokens == ("über uns", "über uns")


def test_survey_counts_newlines_and_nothing_else(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour\r\nfive\n\nsix".encode()
    (tmp_path / "plain").write_bytes(text)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text))
    assert survey(tmp_path / "plain").lines == 4
    assert survey(tmp_path / "plain")[1:] == survey(tmp_path / "packed.gz")[1:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "No such file"),
        ("empty", b"", "empty"),
        ("empty.gz", gzip.compress(b"", mtime=0), "empty"),
        ("text.gz", b"not gzip\n", "damaged or incomplete gzip"),
        ("half.gz", gzip.compress(os.urandom(5000))[:2000], "damaged or incomplete gzip"),
        ("mac", b"one\rtwo\rthree\r", "carriage returns"),
    ],
)
def test_survey_refuses_what_it_cannot_trust(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        survey(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (survey, sha256, check_dictionary_file, lambda path: read_record(path, {}, "")):
        with pytest.raises(UserError, match="pipe: is a pipe or a device; give a regular file"):
            read(tmp_path / "pipe")


def test_a_line_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1 << 20)
    text = tmp_path / "text.gz"
    text.write_bytes(gzip.compress(b"short\n" + b"a" * (1 << 21)))
    with open_text(text) as stream, pytest.raises(UserError, match=r"text\.gz: has a line of more than 1 MB"):
        list(read_blocks(stream, str(text), 10))
    with pytest.raises(UserError, match=r"text\.gz: has a line of more than 1 MB"):
        list(read_rows([[text]]))


def test_who_sends_a_line_through_a_pipe_need_not_send_more(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, sender = os.pipe()
    with open(receiver, "rb") as stream, open(sender, "wb", buffering=0) as pipe:
        blocks = read_blocks(stream, "standard input", 2)
        for sent, block in (
            ("un\n\n", (1, ["un", ""])),
            ("deux\nmoi", (3, ["deux"])),  # half a line waits for its end
            ("tié\n", (4, ["moitié"])),
            ("a\nb\nc\n", (5, ["a", "b"])),
            ("", (7, ["c"])),
        ):
            pipe.write(sent.encode())
            assert next(blocks) == block
        pipe.write(b"end")
        pipe.close()
        assert list(blocks) == [(8, ["end"])]
    receiver, sender = os.pipe()
    monkeypatch.setattr("dual_fairseq.data.lines.LONGEST_LINE", 10)
    monkeypatch.setattr(files, "LONGEST_LINE", 10)
    with open(receiver, "rb") as stream, open(sender, "wb", buffering=0) as pipe:
        pipe.write(b"a line that does not end")
        with pytest.raises(UserError, match="standard input: has a line of more than"):
            next(read_blocks(stream, "standard input", 2))


def run_clean(folder: Path, sides: list[list[bytes]], **options) -> tuple[dict, list[list[str]], list[list[str]]]:
    """Clean a corpus of the given lines a side; returns counts, raw lines and tokenised lines a side."""
    languages = ["de", "en"][: len(sides)]
    files = [folder / f"in.{language}" for language in languages]
    for file, lines in zip(files, sides, strict=True):
        file.write_bytes(b"".join(line + b"\n" for line in lines))
    raw, tokenized = ([folder / f"{kind}.{language}" for language in languages] for kind in ("raw", "tok"))
    rules = options.pop("rules", Rules("none", max_length=5))
    counts = clean_corpus([files], languages, rules, raw, tokenized, folder / "dropped", **options)
    read = [[file.read_text(encoding="utf-8").split("\n")[:-1] for file in group] for group in (raw, tokenized)]
    return counts, read[0], read[1]


def test_a_bad_line_takes_its_translation_with_it(tmp_path: Path) -> None:
    german = [b"a", b"", b"c", b"d", b"\xff", b"f f f f f f", b"g", b"\xef\xbb\xbfh\r"]
    english = [b"A", b"B", b"C\0", b"D", b"E", b"F", b"G", b"H"]
    counts, raw, tokenized = run_clean(tmp_path, [german, english])
    assert raw == tokenized == [["a", "d", "g", "h"], ["A", "D", "G", "H"]]
    assert (counts["read"], counts["kept"]) == (8, 4)
    assert counts["dropped"] == {"bad_utf8": 1, "control": 1, "empty": 1, "over_long": 1}
    assert counts["repaired"]["de"] == {"byte_order_marks": 1, "windows_line_ends": 1}
    assert counts["words"] == {"de": 4, "en": 4}
    dropped = [line.split("\t")[1:] for line in (tmp_path / "dropped").read_text().splitlines()]
    assert dropped == [["2", "empty"], ["3", "control"], ["5", "bad_utf8"], ["6", "over_long"]]


def test_refusal_names_file_line_and_reason(tmp_path: Path) -> None:
    lines = [b"fine"] * 2500
    with pytest.raises(UserError, match=r"in\.de and .*in\.en: line 2345: not UTF-8") as caught:
        run_clean(tmp_path, [lines, [*lines[:2344], b"\xff", *lines[2345:]]], refuse=True, workers=2)
    assert "\n" not in str(caught.value)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no usable line is left \(2 read, 0 kept, 2 dropped \(empty: 2\)\)"):
        run_clean(tmp_path, [[b"", b"a"], [b"b", b""]])


def test_sentences_of_the_held_out_text_are_left_out(tmp_path: Path) -> None:
    counts, raw, _ = run_clean(tmp_path, [[b"a  b", b"c", b"a b"]], held_out=frozenset({"a b"}), refuse=True)
    assert raw == [["c"]] and counts["dropped"] == {"held_out": 2}


def test_processes_change_nothing(tmp_path: Path) -> None:
    german = [f"Satz {i}, {'x' * (i % 7)}.".encode() if i % 11 else b"" for i in range(5000)]
    english = [f"line {i}.".encode() if i % 13 else b"\xff" for i in range(5000)]
    one = run_clean(tmp_path, [german, english], rules=Rules(), workers=1)
    two = run_clean(tmp_path, [german, english], rules=Rules(), workers=2)
    assert one == two and one[0]["kept"] > 4000


# What real files have in them, so that drawn lines are often nearly right.
PIECES = st.sampled_from([b"a", b"B.", b" ", b"\r", b"\0", b"\xc3", b"\xbc", b"\xef\xbb\xbf", b"\x0b", b"\xe2\x80\xa8"])


LINES = st.lists(PIECES, max_size=6).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LINES, LINES), min_size=1, max_size=30))
def test_the_sides_never_get_out_of_step(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[bytes, bytes]]):
    # Each line begins with its number; whatever follows it, both sides keep the same numbers, one to a line.
    sides = [[b"%d " % i + pair[side] for i, pair in enumerate(pairs)] for side in (0, 1)]
    sides = [[b"0 ok", *side] for side in sides]
    counts, raw, tokenized = run_clean(tmp_path_factory.mktemp("any"), sides, rules=Rules())
    for group in (raw, tokenized):
        numbers = [[line.split()[0] for line in side] for side in group]
        assert numbers[0] == numbers[1] and len(numbers[0]) == counts["kept"]
        assert not any(len(line.splitlines()) != 1 for side in group for line in side)
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["read"] == len(pairs) + 1


def test_an_error_in_a_worker_or_in_the_jobs_arrives_and_does_not_hang() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel(lambda: lambda n: 1 // n, [1, 2, 0], 2))

    def jobs():
        yield 1
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        list(parallel(lambda: lambda n: n, jobs(), 2))


def test_what_a_worker_says_to_the_user_arrives(tmp_path, capfd):
    def refuse():
        raise UserError("codes.de: is damaged")

    with pytest.raises(UserError, match=r"^codes\.de: is damaged$"):
        list(parallel(refuse, [1, 2], 2))

    def write(_):
        write_text(tmp_path / "none" / "a", "x")

    with pytest.raises(CannotWrite, match="there is no folder") as caught:
        list(parallel(lambda: write, [1, 2], 2))
    assert caught.value.reason == "No such file or directory" and caught.value.code.startswith("dual_fairseq: error: ")
    assert capfd.readouterr().err == ""


def test_a_worker_has_no_handler_for_the_signal_that_ends_it():
    """A handler runs between two steps of Python only: a worker that begins to wait for a job would never end."""
    with stoppable():
        assert set(parallel(lambda: lambda _: signal.getsignal(signal.SIGTERM), [1, 2], 2)) == {signal.SIG_DFL}
