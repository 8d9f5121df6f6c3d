"""Every command of the README and of docs/ runs on a small corpus and a small run.

The pages show the options that matter to them; what makes a model small and a training short is added here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PLUGIN, ROOT

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from test_docs import blocks_and_spans, command_in

pytestmark = pytest.mark.slow

LABELS = ROOT / "docs" / "labels.md"  # its recipes are shell scripts over text of their own
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page != LABELS)]
NOT_HERE = re.compile(r"make|python|dual-fairseq (experiment|train .*--rounds)")  # they have tests of their own
SIZES = {"layers": 2, "embed-dim": 128, "attention-heads": 4, "ffn-embed-dim": 512}  # those of --size tiny
MODEL = " ".join(f"--{side}-{name} {n}" for side in ("encoder", "decoder") for name, n in SIZES.items())
TRAINING = "--cpu --lr-warmup 2 --max-tokens 2000 --warmup-max-update 60 --dual-max-update 1 --beam 2"
# What is added to a command, before its own options, which win.
ADDED = {
    "dual-fairseq preprocess": "--bpe-size 200 --workers 1 --extra-mono-source text/mono.de "
    "--extra-mono-target text/mono.en",
    "dual-fairseq train": f"{TRAINING} --size tiny --lm-size tiny --lm-max-epoch 1 --lm-lr-warmup 2",
    "dual-fairseq train --arch": f"{TRAINING} --warmup-only --no-eval",
    "dual-fairseq train --init": f"{TRAINING} --no-eval",
    "fairseq-train": f"{MODEL} --share-decoder-input-output-embed --cpu --max-update 1 --max-tokens 2000 --lr 0.001 "
    "--optimizer adam",
    **dict.fromkeys(("fairseq-generate", "fairseq-validate"), "--cpu"),
    **{f"dual-fairseq {name}": "--cpu" for name in
       ("evaluate", "synthesize", "translate", "score", "attention", "report")},
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """The commands in the blocks of a page, as a shell gets them here."""
    found = []
    for line in blocks_and_spans(page.read_text())[0]:
        words = command_in(line)
        if not words or line.split()[0] != words[0] or NOT_HERE.match(line):
            continue
        name = " ".join(words[: 2 if words[0] == "dual-fairseq" else 1])
        # A run with other options is another run.
        other = name == "dual-fairseq train" and {"--arch", "--src-embed-path"} & set(words)
        special = next((f"{name} {word}" for word in words if f"{name} {word}" in ADDED), name)
        added = ADDED.get(special, "")
        if name == "fairseq-train" and "--user-dir" not in words:
            added += " --save-dir single"
        rest = line.replace(name, f"{name} {added}", 1).replace(" ...", "")
        found.append(rest.replace(" data run ", f" data other{len(found)} ", 1) if other else rest)
    return found


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=3000,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what the pages take for granted: text, a finished run, and files under the names that they use."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "dual_fairseq").symlink_to(PLUGIN)
    first = [c for c in commands(PAGES[0]) if re.match(r"dual-fairseq (preprocess|train) ", c)]
    assert len(first) == 2
    generate = "fairseq-generate data/dual --user-dir dual_fairseq --task dual_translation -s de -t en --cpu --beam 2"
    for command in [
        "dual-fairseq toy-corpus text --train 100 --valid 16 --test 12 --mono 40",
        "for l in de en; do cp text/valid.$l .; "
        "for n in my my-text text test translations; do head -12 text/mono.$l > $n.$l; done; done",
        *first,
        "ln -s run/lm lm; cp -r run seed1; cp -r run seed2; cp -r run seed3; mkdir other out",
        "head -30 text/mono.de | gzip > more.de.gz; for n in a b c; do cp run/dual/checkpoint_best.pt $n.pt; done",
        "for n in 1 2 3 4 5; do cp run/dual/checkpoint_last.pt run/dual/checkpoint$n.pt; "
        "cp run/dual/checkpoint_last.pt run/dual/checkpoint_1_$n.pt; done",
        "for d in de-en en-de; do dual-fairseq export run --direction $d -o $d.pt; cp $d.pt dict.*.txt other; done",
        f"{generate} --path run/dual/checkpoint_best.pt --gen-subset valid --remove-bpe --nbest 2 "
        "--dual-inference-alpha 1 > nbest.txt",
    ]:
        done = run(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return folder


def test_no_command_is_forgotten():
    found = {page.name: commands(page) for page in PAGES}
    assert len(found["README.md"]) >= 7 and len(found["export.md"]) >= 11
    assert sum(map(len, found.values())) >= 40


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page, folder):
    failed = []
    for command in commands(page):
        if "vectors" in command and importlib.util.find_spec("gensim") is None:
            continue
        done = run(command, folder)
        if done.returncode or "Traceback" in done.stderr:
            failed.append(f"{command}\n{done.stdout[-500:]}\n{done.stderr[-1000:]}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("kind", ["label", "tags"])
def test_the_recipes_of_labels_and_tags_run(kind, tmp_path):
    use, make, tags, *_ = re.findall(r"^```\n(dual-fairseq .*?)^```$", LABELS.read_text(), re.MULTILINE | re.DOTALL)
    recipe = f"{make}{use}" if kind == "label" else tags
    recipe = recipe.replace("toy-corpus text", "toy-corpus text --train 100 --valid 20 --test 10")
    recipe = recipe.replace("train data run", f"train data run {TRAINING} --size tiny --lm-size tiny --lm-max-epoch 1")
    done = run(f"set -e\n{recipe}", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    found = (tmp_path / f"found.{kind}").read_text().splitlines()
    texts = (tmp_path / "text" / "test.text").read_text().splitlines()
    assert len(found) == len(texts) == 10
    words = [len(text.split()) if kind == "tags" else 1 for text in texts]
    assert [len(line.split()) for line in found] == words
