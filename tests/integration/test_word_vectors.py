"""Word vectors: read in every usual form, given to each language in both its roles, and only at the start."""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import tasks
from fairseq.data import Dictionary
from helpers import (
    PLUGIN,
    ROOT,
    SOURCE,
    TARGET,
    TINY,
    Run,
    configuration,
    fairseq_here,
    parameters,
    preprocessed,
    run_command,
    train,
)

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.data import vectors as train_vectors
from dual_fairseq.plugin.word_vectors import VectorFile, WordVectors, read_word_vectors, start_from_vectors

FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"
DIMENSION = 16  # of TINY's embeddings
VALUE = {SOURCE: 0.25, TARGET: -0.5}
LEFT_OUT = {SOURCE: "s3", TARGET: "t5"}


def dictionary_of(corpus: Path, language: str) -> Dictionary:
    return Dictionary.load(str(corpus / "dual" / f"dict.{language}.txt"))


def words_of(corpus: Path, language: str) -> list[str]:
    return [line.split()[0] for line in (corpus / "dual" / f"dict.{language}.txt").read_text().splitlines()]


def write_vectors(path: Path, words: list[str], value: float, dimension: int = DIMENSION) -> Path:
    rows = [" ".join([word, *[str(value)] * dimension]) for word in words]
    path.write_text("\n".join([f"{len(rows)} {dimension}", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def vectors(corpus, tmp_path_factory) -> dict[str, Path]:
    """Vectors of all words of a language but one."""
    folder = tmp_path_factory.mktemp("vectors")
    return {
        language: write_vectors(
            folder / f"{language}.vec", [w for w in words_of(corpus, language) if w != LEFT_OUT[language]], value
        )
        for language, value in VALUE.items()
    }


def both(vectors: dict[str, Path]) -> tuple[object, ...]:
    return ("--src-embed-path", vectors[SOURCE], "--tgt-embed-path", vectors[TARGET])


# --- files


@pytest.fixture
def small() -> Dictionary:
    dictionary = Dictionary()
    for count, word in ((6, "the"), (3, "at"), (1, "ſ€")):
        dictionary.add_symbol(word, count)
    dictionary.pad_to_multiple_(8)
    return dictionary


def read(path: Path, content: str | bytes, dictionary: Dictionary, dimension: int = 3) -> WordVectors:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_word_vectors(VectorFile("--src-embed-path", str(path), "xx", dictionary), dimension)


def as_words(vectors: WordVectors, dictionary: Dictionary) -> dict[str, list[float]]:
    rows = zip(vectors.indices.tolist(), vectors.values.tolist(), strict=True)
    return {dictionary[index]: row for index, row in rows}


ROWS = "the 1 -2e0 .5\nat 4 5 6\nother 7 8 9\n"


@pytest.mark.parametrize(
    "content",
    [
        "3 3\n" + ROWS,  # word2vec, fastText
        "3 3 \n" + ROWS.replace("\n", " \n"),
        ROWS,  # GloVe
        "\ufeff" + ROWS,
        ROWS.replace("\n", "\r\n"),
        ROWS.replace(" ", "\t"),
        "at the house 7 7 7\nthe end 8 8 8\n" + ROWS,  # words with spaces
        ROWS + "the 9 9 9\n",  # the first counts
        ROWS + "\n\n",
        (ROWS + "caf\u00e9 1 2 3\n").encode("latin-1"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_usual_form_is_read(content, packed, small, tmp_path):
    content = content if isinstance(content, bytes) else content.encode()
    found = read(tmp_path / "v", gzip.compress(content) if packed else content, small)
    assert as_words(found, small) == {"the": [1, -2, 0.5], "at": [4, 5, 6]}
    assert (found.words, found.known, found.tokens) == (2, 3, 0.9)


def test_only_exactly_the_same_word_counts(small, tmp_path):
    found = read(tmp_path / "v", "The 1 1 1\nthe@@ 2 2 2\nat 3 3 3\nſ€ 4 4 4\n", small)
    assert as_words(found, small) == {"at": [3, 3, 3], "ſ€": [4, 4, 4]}


def test_padding_never_gets_a_vector(small, tmp_path):
    found = read(tmp_path / "v", "<pad> 1 1 1\n</s> 2 2 2\nmadeupword0000 3 3 3\nthe 4 4 4\n", small)
    assert as_words(found, small) == {"</s>": [2, 2, 2], "madeupword0000": [3, 3, 3], "the": [4, 4, 4]}
    assert (found.words, found.known) == (1, 3)


def test_a_file_that_ends_too_early_is_told(small, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "v", "3 3\n" + ROWS, small)
        assert not caplog.text
        read(tmp_path / "v", "4 3\n" + ROWS, small)
    assert "has 3 of the 4 vectors that its first line names" in caplog.text


BAD_FILES = {
    "": "holds no word vectors",
    "\n\n": "holds no word vectors",
    "just some text\n": "has vectors of 2 numbers, but the model's embeddings have 3",
    "one\ntwo\n": "holds no word vectors",
    "2 4\nthe 1 2 3 4\nat 1 2 3 4\n": "vectors of 4 numbers, but the model's embeddings have 3; give such vectors, or "
    "--encoder-embed-dim 4 --decoder-embed-dim 4",
    "the 1 2 3 4\nat 1 2 3 4\n": "has vectors of 4 numbers",
    "other 1 2 3\n": "has none of the 3 words of dict.xx.txt",
    "1 3\n": "has none of the 3 words",
    "2 3\nother 1 2 3\nthe 1 2\n": "line 3: 'the' is not followed by 3 finite numbers",
    "2 3\nother 1 2 3\nthe 1 2 x\n": "line 3: 'the' is not followed",
    "the 1 2 nan\n": "line 1: 'the' is not followed",
    "the 1 2 1e60\n": "line 1: 'the' is not followed",
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.items())
def test_a_file_of_another_form_is_refused(content, message, small, tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "v", content, small)
    assert f"--src-embed-path {tmp_path / 'v'}: " in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_gzip_file_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="damaged or incomplete gzip file"):
        read(tmp_path / "v", gzip.compress(ROWS.encode() * 100)[:60], small)


# --- the pair


def build(data: Path, *arguments: object, model: str = "transformer"):
    """The model of a fairseq-train command line, before its first update."""
    cfg = configuration(
        data, "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        *TINY.get(model, model.split()), "--criterion", "dual_cross_entropy", "--cpu", "--max-tokens", 300, *arguments,
    )  # fmt: skip
    return tasks.setup_task(cfg.task).build_model(cfg.model)


def assert_vectors(weights: dict[str, torch.Tensor], corpus: Path, directions=(FORWARD, REVERSE)) -> None:
    """Both tables of each direction have their language's vectors, and other rows for the word left out."""
    for direction in directions:
        for role, language in zip(("encoder", "decoder"), direction.split("-"), strict=True):
            table = weights[f"models.{direction}.{role}.embed_tokens.weight"]
            dictionary = dictionary_of(corpus, language)
            for word in words_of(corpus, language):
                has_vector = (table[dictionary.index(word)] == VALUE[language]).all()
                assert has_vector == (word != LEFT_OUT[language]), (direction, role, word)
            assert (table[dictionary.pad()] == 0).all()


@pytest.fixture(scope="module")
def run(corpus, vectors, tmp_path_factory) -> tuple[Path, Run]:
    """A run that started from vectors and has learnt nothing since."""
    folder = tmp_path_factory.mktemp("run")
    command = ("--dual-lambda", 0, "--max-update", 1, "--lr", 0, "--optimizer", "sgd", *both(vectors))
    return folder, train(corpus / "dual", folder, *command)


def test_each_language_has_its_vectors_in_both_directions(run, corpus, vectors):
    folder, done = run
    assert_vectors(parameters(folder), corpus)
    for language in (SOURCE, TARGET):
        dictionary = dictionary_of(corpus, language)
        number = sum("madeupword" not in symbol for symbol in dictionary.symbols[dictionary.nspecial :])
        count = sum(dictionary.count[dictionary.nspecial :])
        share = 100 - 100 * dictionary.count[dictionary.index(LEFT_OUT[language])] / count
        words = f"{language}: {number - 1} of {number} words of the dictionary"
        line = next(line for line in done.output.splitlines() if words in line)
        covered = f"({100 - 100 / number:.1f} %), {share:.1f} % of their occurrences"
        assert f"{covered}, start from the vectors in {vectors[language]}" in line
        assert f"mean norm {abs(VALUE[language]) * DIMENSION**0.5:.3g} " in line


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lstm", "--share-decoder-input-output-embed"),
        ("fconv_iwslt_de_en", "--encoder-layers [(8,3)] --decoder-layers [(8,3)] --decoder-out-embed-dim 16"),
        ("lightconv_iwslt_de_en", "--encoder-layers 1 --decoder-layers 1 --encoder-conv-dim 16 --decoder-conv-dim 16 "
         "--encoder-kernel-size-list [3] --decoder-kernel-size-list [3]"),
        ("transformer", "--share-decoder-input-output-embed"),
    ],
)  # fmt: skip
def test_any_arch_with_an_embedding_table_takes_them(corpus, vectors, model, options):
    if model not in TINY:
        model = f"--arch {model} --encoder-embed-dim 16 --decoder-embed-dim 16"
    pair = build(corpus / "dual", *options.split(), *both(vectors), model=model)
    assert_vectors(pair.state_dict(), corpus)
    if options == "--share-decoder-input-output-embed" and model == "transformer":
        decoder = pair.models[FORWARD].decoder
        assert decoder.output_projection.weight is decoder.embed_tokens.weight


def test_one_language_may_have_vectors_alone(corpus, vectors):
    weights = build(corpus / "dual", "--tgt-embed-path", vectors[TARGET]).state_dict()
    index = dictionary_of(corpus, TARGET).index("t1")
    for table in (f"models.{FORWARD}.decoder", f"models.{REVERSE}.encoder"):
        assert (weights[f"{table}.embed_tokens.weight"][index] == VALUE[TARGET]).all()
    for table in (f"models.{FORWARD}.encoder", f"models.{REVERSE}.decoder"):
        assert weights[f"{table}.embed_tokens.weight"][4:].unique(dim=0).size(0) > 10


def test_a_run_goes_on_and_translates_without_the_files(run, corpus, tmp_path):
    gone = {language: tmp_path / f"gone.{language}" for language in VALUE}
    before = parameters(run[0])
    (tmp_path / "checkpoint_last.pt").write_bytes((run[0] / "checkpoint_last.pt").read_bytes())
    options = ("--dual-lambda", 0, "--max-update", 2, "--lr", 0.1, "--optimizer", "sgd", "--reset-lr-scheduler")
    done = train(corpus / "dual", tmp_path, *options, *both(gone))
    assert "start from the vectors" not in done.output
    after = parameters(tmp_path)
    for key in before:
        if key.endswith("embed_tokens.weight"):
            change = (after[key] - before[key]).abs().max()
            assert 0 < change < 0.2, "the trained ones are kept, and trained on"
    fairseq_here(
        "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", TARGET, "-t", SOURCE,
        "--path", tmp_path / "checkpoint_last.pt", "--gen-subset", "valid", "--beam", 1, "--cpu", "--max-len-b", 3,
    )  # fmt: skip


def test_a_checkpoint_to_start_from_comes_before_vectors(run, corpus, vectors, tmp_path):
    other = write_vectors(tmp_path / "other.vec", words_of(corpus, SOURCE), 0.125)
    checkpoint = run[0] / "checkpoint_last.pt"
    weights = build(corpus / "dual", "--init-src2tgt", checkpoint, "--src-embed-path", other).state_dict()
    assert_vectors(weights, corpus, (FORWARD,))  # as in the checkpoint
    assert (weights[f"models.{REVERSE}.decoder.embed_tokens.weight"][4:] == 0.125).all()
    gone = ("--src-embed-path", tmp_path / "gone")
    build(corpus / "dual", "--init-src2tgt", checkpoint, "--init-tgt2src", checkpoint, *gone)
    build(corpus / "dual", "--finetune-from-model", checkpoint, *gone)


@pytest.fixture
def joint(corpus, tmp_path) -> Path:
    """As much of binarized data with a joint dictionary as it takes to build a model."""
    folder = tmp_path / "dual"
    folder.mkdir()
    words = "".join((corpus / "dual" / f"dict.{language}.txt").read_text() for language in VALUE)
    for language in VALUE:
        (folder / f"dict.{language}.txt").write_text(words)
    return folder


def test_a_shared_table_takes_one_file_for_both_languages(joint, vectors):
    shared = "--share-all-embeddings"
    with pytest.raises(UserError, match="--share-all-embeddings makes one table for both languages; give one file"):
        build(joint, shared, *both(vectors))
    words = words_of(joint.parent, SOURCE)
    file = write_vectors(joint / "joint.vec", words, 0.75)
    pair = build(joint, shared, "--src-embed-path", file, "--tgt-embed-path", file)
    for model in pair.models.values():
        assert model.encoder.embed_tokens is model.decoder.embed_tokens
        assert (model.encoder.embed_tokens.weight[4:] == 0.75).all()
    build(joint, *both(vectors))  # separate tables over a joint dictionary


def test_coverage_of_a_joint_dictionary_is_told_as_such(joint, vectors, caplog):
    with caplog.at_level(logging.INFO, logger="dual_fairseq"):
        build(joint, *both(vectors))
    lines = [record.getMessage() for record in caplog.records if "start from the vectors" in record.getMessage()]
    assert len(lines) == 2 and all("of 41 words of the joint dictionary (" in line for line in lines)


REFUSED = {
    "missing": ("--src-embed-path /no/vectors", "--src-embed-path /no/vectors: there is no such file"),
    "folder": ("--tgt-embed-path {tmp}", "is a folder; give a file of vectors"),
    "dimension": (
        "--src-embed-path {xx} --encoder-embed-dim 8 --decoder-embed-dim 8",
        "vectors of 16 numbers, but the",
    ),
    "two dimensions": (
        "--arch lstm --encoder-embed-dim 8 --decoder-embed-dim 16 --src-embed-path {xx}",
        "embeddings have 8 numbers in one role and 16 in the other",
    ),
    "other language": ("--src-embed-path {yy}", "has none of the 21 words of dict.xx.txt"),
    "binary": ("--src-embed-path {binary}", "line 2: 's1' is not followed by 16 finite numbers"),
    "two dimensions of roles": (
        "--arch lstm --encoder-embed-dim 16 --decoder-embed-dim 8 --encoder-embed-path {xx}",
        ": a pair has each language in both roles",
    ),
    "role too": ("--src-embed-path {xx} --encoder-embed-path {xx}", "not together with --src-embed-path"),
    "frozen": ("--arch lstm --src-embed-path {xx} --encoder-freeze-embed", "fairseq's lstm freezes only vectors that"),
    "other role": ("--tgt-embed-path {yy} --encoder-embed-path {xx}", "not together with --tgt-embed-path"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_vectors_that_cannot_be_used_are_refused_before_training(corpus, vectors, tmp_path, options, message):
    binary = tmp_path / "vectors.bin"  # as word2vec writes them unless told otherwise
    binary.write_bytes(b"1 16\ns1 " + struct.pack("16f", *range(16)) + b"\n")
    options = options.format(tmp=tmp_path, binary=binary, **vectors)
    with pytest.raises(UserError) as caught:
        build(corpus / "dual", *options.split(), model="" if "--arch" in options else "transformer")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_arch_without_a_single_table_is_refused(corpus, vectors):
    pair = build(corpus / "dual")
    pair.models[REVERSE].decoder.embed_tokens = torch.nn.Linear(1, 1)
    file = VectorFile("--src-embed-path", str(vectors[SOURCE]), SOURCE, dictionary_of(corpus, SOURCE))
    languages = {FORWARD: (SOURCE, TARGET), REVERSE: (TARGET, SOURCE)}
    with pytest.raises(UserError, match=f"the decoder of {REVERSE} has no single embedding table"):
        start_from_vectors(dict(pair.models.items()), languages, [file])


# --- dual-fairseq vectors


@pytest.fixture
def dest(corpus, tmp_path) -> Path:
    """What dual-fairseq preprocess leaves, with more text of the source language."""
    folder = preprocessed(corpus, tmp_path / "a $(touch pwned) b", "none")
    shutil.copytree(corpus / "text", folder / "segmented")
    (folder / "segmented" / f"mono.{SOURCE}").write_text("s1 s2 more\n" * 20)
    return folder


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dual_fairseq", "vectors", *map(str, arguments)]
    return run_command(command, env=environment)


class Trained:
    """In place of gensim's vectors."""

    def __init__(self, files: list[Path], dimension: int) -> None:
        words = {word for sentence in train_vectors.Sentences(files) for word in sentence}
        self.index_to_key, self.vector_size = sorted(words), dimension
        self.vectors = np.full((len(words), dimension), 1 / 3, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.index_to_key)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The names of the vectors that were trained, by nobody: gensim is not needed."""
    names: list[str] = []

    def train_nothing(files, title, options):
        names.append(title)
        return Trained(files, options.dim)

    monkeypatch.setattr(train_vectors, "train", train_nothing)
    monkeypatch.setattr(train_vectors, "_gensim_version", lambda: "4")
    return names


def test_vectors_of_each_language_s_text_are_what_a_pair_starts_from(dest, trained, corpus):
    main(["vectors", str(dest), "--dim", "16"])
    assert trained == [SOURCE, TARGET]
    files = {language: dest / "vectors" / f"{language}.vec" for language in VALUE}
    assert "\nmore 0.25 0.25 " in files[SOURCE].read_text(), "the extra monolingual text counts"
    weights = build(corpus / "dual", *both(files)).state_dict()
    for table in (f"models.{FORWARD}.encoder", f"models.{REVERSE}.decoder"):
        # norm 1, but for the symbols that fill the dictionary up, which no text has
        words = dictionary_of(corpus, SOURCE).symbols
        known = [i for i, word in enumerate(words) if i >= 4 and "madeupword" not in word]
        assert torch.allclose(weights[f"{table}.embed_tokens.weight"][known], torch.tensor(0.25))


def test_vectors_have_the_norm_that_is_asked_for(dest, trained):
    values = np.array([[3.0, 4.0], [0.0, 15.0]])
    assert np.allclose(train_vectors.scaled(values, 0.5), values / 20)
    main(["vectors", str(dest), "--norm", "0"])
    assert "\nmore 0.333333 0.333333 " in (dest / "vectors" / f"{SOURCE}.vec").read_text(), "as they came"


def test_vectors_are_trained_again_only_for_other_options_or_text(dest, trained):
    main(["vectors", str(dest)])
    main(["vectors", str(dest), "--workers", "3"])
    assert trained == [SOURCE, TARGET]
    with open(dest / "segmented" / f"train.{TARGET}", "a") as text:
        text.write("t1 t2\n")
    main(["vectors", str(dest)])
    assert trained == [SOURCE, TARGET, TARGET]
    (dest / "vectors" / f"{SOURCE}.vec").unlink()
    main(["vectors", str(dest)])
    assert trained == [SOURCE, TARGET, TARGET, SOURCE]
    main(["vectors", str(dest), "--window", "3"])
    assert trained[4:] == [SOURCE, TARGET]


def test_a_training_of_vectors_that_fails_leaves_the_old_ones_with_their_record(dest, trained, monkeypatch):
    main(["vectors", str(dest)])
    before = {path: path.read_bytes() for path in (dest / "vectors").iterdir()}
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(train_vectors, "train", lambda *arguments: (_ for _ in ()).throw(RuntimeError("stopped")))
        main(["vectors", str(dest), "--window", "3"])
    assert {path: path.read_bytes() for path in (dest / "vectors").iterdir()} == before


def test_vectors_of_another_program_stay(dest, trained):
    (dest / "vectors").mkdir()
    (dest / "vectors" / f"{TARGET}.vec").write_text("mine")
    with pytest.raises(UserError, match=rf"{TARGET}\.vec: was not made by this command"):
        main(["vectors", str(dest)])
    assert not trained and [path.name for path in (dest / "vectors").iterdir()] == [f"{TARGET}.vec"]


def test_joint_vectors_are_of_both_languages(dest, trained):
    main(["vectors", str(dest), "--joint"])
    assert trained == [FORWARD]
    words = {line.split()[0] for line in (dest / "vectors" / f"{FORWARD}.vec").read_text().splitlines()}
    assert {"s1", "t1", "more"} <= words


def test_without_gensim_one_line_tells_how_to_have_it(dest, monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim", None)
    with pytest.raises(
        UserError, match=f"gensim is not installed.*: {re.escape(sys.executable)} -m pip install gensim"
    ):
        main(["vectors", str(dest)])
    assert not (dest / "vectors").exists()


def test_vectors_of_text_that_is_not_there_are_refused(dest, trained):
    shutil.rmtree(dest / "segmented")
    with pytest.raises(UserError, match=r"segmented/train.xx: there is no such file; run dual-fairseq preprocess"):
        main(["vectors", str(dest)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: DEST"),
        (("/nowhere",), "/nowhere/preprocess.json: No such file or directory; give the folder that dual-fairseq"),
        (("/nowhere", "--dim", "0"), "--dim: give a whole number of at least 1, not '0'"),
        (("/nowhere", "--epochs=many"), "--epochs: give a whole number of at least 1, not 'many'"),
        (("/nowhere", "--norm", "-1"), "--norm: give a number that is 0 or more, such as 2.5, not '-1'"),
        (("/nowhere", "--window"), "--window: expected one argument"),
        (("/nowhere", "--cbow"), "unknown option --cbow"),
        (("/nowhere", "--min-coun", "2"), "unknown option --min-coun; did you mean --min-count?"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError) as refusal:
        main(["vectors", *arguments])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_help_explains_every_option():
    assert all(action.help for action in train_vectors.get_parser()._actions)


def test_gensim_trains_vectors(dest):
    pytest.importorskip("gensim")
    done = script(dest, "--dim", 16, "--epochs", 3, "--workers", 1)
    assert done.returncode == 0, done.stderr
    first = {language: (dest / "vectors" / f"{language}.vec").read_text() for language in VALUE}
    for language, text in first.items():
        words = {w for name in ("train", "mono") for f in [dest / "segmented" / f"{name}.{language}"] if f.exists()
                 for w in f.read_text().split()}  # fmt: skip
        head, *rows = text.splitlines()
        assert head == f"{len(words)} 16"
        assert {row.split()[0] for row in rows} == words
        assert all(len(row.split()) == 17 for row in rows)
    assert "finished before" in script(dest, "--dim", 16, "--epochs", 3).stderr
    shutil.rmtree(dest / "vectors")
    assert script(dest, "--dim", 16, "--epochs", 3, "--workers", 1).returncode == 0
    assert first == {language: (dest / "vectors" / f"{language}.vec").read_text() for language in VALUE}
    done = script(dest, "--dim", 16, "--min-count", 10**6)
    assert done.returncode == 1 and "no word of xx occurs this often" in done.stderr
