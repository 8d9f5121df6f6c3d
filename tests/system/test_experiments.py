"""Experiments: recipes are read or refused, every job waits for what it needs, and a small one gives a whole table."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, run_command

sys.path.insert(0, str(ROOT / "experiments"))
try:
    import baseline
    import collect
    import published
    import syllables
finally:
    sys.path.pop(0)
from dual_fairseq.common.errors import UserError
from dual_fairseq.experiment import run, table
from dual_fairseq.experiment import runner as running
from dual_fairseq.experiment.plan import Plan
from dual_fairseq.experiment.recipe import Recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
EXPERIMENT = [sys.executable, "-m", "dual_fairseq", "experiment"]
RECIPE = '''
title = "small"
corpus = [
    "python -m dual_fairseq toy-corpus {text} --train 300 --valid 40 --test 60 --mono 300 --seed 1",
    """dual-fairseq preprocess -s de -t en --train {text}/train --valid {text}/valid --test {text}/test --bpe-size 300
       --extra-mono-source {text}/mono.de --extra-mono-target {text}/mono.en --dest {data}""",
]
pair_options = "--size tiny --max-tokens 1024 --lr-warmup 20 -- --weight-decay 0.001"
warmup_options = "--lr 0.002 --warmup-max-epoch 6"
continued_options = "--dual-lr 0.0007 --dual-max-update 4 --dual-max-epoch 1000 --patience 1000 -- --log-interval 5"

[language_models.all]
options = "--size tiny --max-tokens 1024 --max-epoch 1"

[language_models.parallel]
text = "parallel"
options = "--size tiny --max-tokens 1024 --max-epoch 1"

[synthetic.captions]
options = "--lines 40 --beam 2"
upsample = 2

[[row]]
id = "mle"
name = "MLE continued"
options = "--dual-lambda 0"
baseline = true

[[row]]
id = "dual"
name = "dual"
options = "--dual-lambda 0.01 -- --clip-norm 0.5"
language_models = "parallel"
synthetic = "captions"
'''


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def commands(recipe, tmp_path, **settings) -> dict[str, running.Job]:
    runner = running.Runner(tmp_path / "work", settings.get("machine", []))
    plan = Plan(Recipe.read(recipe), tmp_path / "work", runner)
    return {job.name: job for job in plan.jobs([1, 2])}


def test_the_recipes_of_the_repository_can_be_read():
    paths = sorted((ROOT / "experiments/recipes").glob("*.toml"))
    assert paths
    for path in paths:
        assert Recipe.read(path).rows[0].id == "warmup"


def test_a_recipe_of_a_base_makes_only_what_its_own_rows_need(recipe, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('base = "small.toml"\ntitle = "other"\n[[row]]\nid = "a"\nname = "A"\nbaseline = true\n')
    third = tmp_path / "third.toml"
    third.write_text('base = "other.toml"\ntitle = "third"\n')
    jobs = commands(third, tmp_path)
    assert Recipe.read(third).title == "third"
    assert "lm/all/de" in jobs and "seed-1/a/test" in jobs
    assert not [name for name in jobs if "parallel" in name or "captions" in name or "mle" in name]


def test_a_recipe_takes_some_rows_of_its_base(recipe, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('base = "small.toml"\nonly = ["mle"]\n')
    assert [row.id for row in Recipe.read(other).rows] == ["warmup", "mle"]
    other.write_text('base = "small.toml"\nonly = ["mle", "dula"]\n')
    with pytest.raises(SystemExit, match="there is no row dula"):
        Recipe.read(other)
    other.write_text('base = "small.toml"\nonly = ["mle"]\n')
    third = tmp_path / "third.toml"
    third.write_text('base = "other.toml"\n[[row]]\nid = "a"\nname = "A"\nbaseline = true\n')
    assert [row.id for row in Recipe.read(third).rows] == ["warmup", "a"]  # ``only`` is not about rows of its own


@pytest.mark.parametrize(
    "change, complaint",
    [
        (("baseline = true", ""), "one row must be the baseline"),
        (('language_models = "parallel"', 'language_models = "none"'), "there are no language models 'none'"),
        (('name = "dual"', 'nam = "dual"'), "nam"),
        (('synthetic = "captions"', 'synthetic = "none"'), "there is no synthetic text 'none'"),
        (("title", "titel"), "a record with title"),
        (('title = "small"', 'title = "small"\ntitel = "x"'), "titel"),
        (("[[row]]", "[[row"), "is not TOML"),
        (('title = "small"', 'base = "small.toml"'), "base: name another recipe file"),
        (('title = "small"', "title = 3"), "title is not a string"),
        (
            ('title = "small"', 'title = "small"\nbeam = 10000000000000000000000000'),
            "beam is not a whole number from 1",
        ),
        (("--clip-norm 0.5", "--clip-norm '0.5"), "No closing quotation"),
        (("--dual-lambda", "--dual-lamda"), "unknown option --dual-lamda; did you mean --dual-lambda?"),
        (('id = "dual"', 'id = "../../dual"'), "row '../../dual': give a name of its own"),
        (('id = "dual"', 'id = "--user-dir"'), "row '--user-dir': give a name of its own"),
        (('id = "dual"', 'id = "dual; rm"'), "row 'dual; rm': give a name of its own"),
        (('id = "dual"', 'id = "mle"'), "row 'mle': give a name of its own"),
        (('id = "dual"', 'id = "dual"\nstage = "../x"'), "stage '../x': is not one of warmup, mle, dual"),
        (('id = "dual"', 'id = "dual"\nbaseline = "yes"'), r"baseline is not true or false"),
        (('synthetic = "captions"', 'synthetic = ["captions"]'), "synthetic is not a string"),
        (("upsample = 2", 'with = ["none"]'), "synthetic.captions: with: there is no other synthetic text 'none'"),
        (("upsample = 2", 'with = ["captions"]'), "with: there is no other synthetic text 'captions'"),
        (("upsample = 2", 'with = ["b", "b"]\n[synthetic.b]'), "with: there is no other synthetic text 'b'"),
        (
            ("upsample = 2", 'with = ["b"]\n[synthetic.b]\nwith = ["c"]\n[synthetic.c]'),
            "synthetic.captions: with: 'b' has a with of its own; name all texts here",
        ),
    ],
)
def test_a_recipe_that_is_none_is_refused_in_a_line(recipe, change, complaint):
    recipe.write_text(recipe.read_text().replace(*change, 1 if change[0] != "[[row]]" else -1))
    with pytest.raises(SystemExit) as refusal:
        Recipe.read(recipe)
    assert str(recipe) in str(refusal.value) and complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_part_has_its_own_pairs_and_the_language_models_of_the_whole(recipe, tmp_path, monkeypatch):
    part = tmp_path / "part.toml"
    command = "dual-fairseq corpus multi30k {data} --from {whole} -- --like {whole}"
    own = f'base = "small.toml"\npart = "few"\npart_corpus = ["{command}"]\n'
    part.write_text(own)
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    work = tmp_path / "work"
    plan = Plan(Recipe.read(part), work, running.Runner(work, []), tmp_path)
    jobs = {job.name: job for job in plan.jobs([1])}
    done: set[str] = set()
    while ready := [name for name, job in jobs.items() if name not in done and done.issuperset(job.after)]:
        done.update(ready)
    assert done == set(jobs)
    for job in jobs.values():
        if not job.name.startswith("parallel"):
            job.run()
    assert jobs["few/corpus"].after == ["corpus"] and jobs["few/seed-1/warmup"].after == ["few/corpus"]
    whole = str(work / "data")
    given = ["--from", whole, "--from", str(tmp_path), "--", "--like", whole]
    assert ran["few/corpus"][5:] == [str(work / "few/data"), *given]
    assert ran["lm/all/de"][4:6] == [str(work / "data/lm/de"), str(work / "lm/all/de")]
    assert ran["few/seed-1/mle"][4:6] == [str(work / "few/data"), str(work / "few/seed-1/mle")]
    assert str(work / "lm/all/de/checkpoint_best.pt") in ran["few/seed-1/mle"]
    assert ran["few/seed-1/dual"][4] == str(work / "few/seed-1/data-captions")
    assert ran["few/seed-1/data-captions"][-4:-2] == ["--synthetic", str(work / "few/seed-1/synthetic-captions")]
    assert [job.name for job in baseline.jobs_of(plan, [1])] == ["corpus", "few/corpus", "few/seed-1/warmup"]
    for old, new, complaint in (
        ("part =", "# part =", "give part and part_corpus both"),
        ('"few"', '"../few"', "part '../few': give a folder's name"),
        ('"few"', '"seed-1"', "part 'seed-1': give a folder's name"),
        ("{whole}", "{hole}", "hole"),
        ("{data}", "{}", "is not a recipe"),
        ("part =", "pert =", "unknown key pert; did you mean part"),
        ("{data}", "{data.__class__}", "{data.__class__} in a command: is not one of"),
        ("{data}", "{data:>999999999999}", "in a command: is not one of"),
        ("{data}", "{data}'", "No closing quotation"),
        ("[", "", "is not TOML"),
    ):
        part.write_text(own.replace(old, new, 1))
        with pytest.raises(SystemExit, match=complaint):
            Recipe.read(part)


OWN_TEXT = """
title = "λ on my text"
data = "{data}"
continued_options = "--dual-max-update 1000 --patience 1000"

[[row]]
id = "mle"
name = "maximum likelihood"
options = "--dual-lambda 0"
baseline = true

[[row]]
id = "dual"
name = "dual, λ = 0.01"
options = "--dual-lambda 0.01"
"""


def own_data(folder: Path, exist_ok: bool = False) -> None:
    folder.mkdir(exist_ok=exist_ok)
    (folder / "preprocess.json").write_text('{"source": "en", "target": "sw", "tokenizer": "moses", "subword": "bpe"}')
    for language in ("en", "sw"):
        (folder / f"test.en-sw.{language}.idx").touch()


def test_anyone_s_text_needs_its_data_and_rows_and_no_more(tmp_path, monkeypatch):
    own_data(tmp_path / "mine")
    recipe = tmp_path / "my.toml"
    recipe.write_text(OWN_TEXT.format(data=tmp_path / "mine"))
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    jobs = commands(recipe, tmp_path)
    for job in jobs.values():
        job.run()
    assert set(ran) == {
        f"{name}{test}" for seed in (1, 2) for row in ("warmup", "mle", "dual") for test in ("", "/test")
        for name in [f"seed-{seed}/{row}"]
    } | {"lm/all/en", "lm/all/sw"}  # fmt: skip
    work = tmp_path / "work"
    assert ran["lm/all/sw"][4:] == [str(tmp_path / "mine/lm/sw"), str(work / "lm/all/sw")]
    assert ran["seed-1/dual"][4:6] == [str(tmp_path / "mine"), str(work / "seed-1/dual")]
    for text, complaint in (
        (OWN_TEXT.replace("data =", "# data ="), "give data, or the commands of corpus"),
        (OWN_TEXT.replace("{data}", "/no/data"), "/no/data/preprocess.json: No such file"),
        (
            OWN_TEXT + 'synthetic = "a"\n[synthetic.a]\n',
            "the commands of corpus preprocess synthetic text: give corpus, not data",
        ),
    ):
        recipe.write_text(text.format(data=tmp_path / "mine"))
        with pytest.raises(SystemExit, match=complaint):
            Recipe.read(recipe)
    (tmp_path / "mine" / "test.en-sw.sw.idx").unlink()
    recipe.write_text(OWN_TEXT.format(data=tmp_path / "mine"))
    with pytest.raises(SystemExit, match="mine has no test text"):
        Recipe.read(recipe)


def test_rows_may_go_on_from_a_run_that_is_there(tmp_path, monkeypatch):
    own_data(tmp_path / "mine")
    recipe = tmp_path / "my.toml"
    recipe.write_text(f'run = "{tmp_path / "run"}"\n' + OWN_TEXT.format(data=tmp_path / "mine"))
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    jobs = commands(recipe, tmp_path)
    with pytest.raises(SystemExit, match="run/warmup: holds no finished training"):
        jobs["corpus"].run()
    for name in ("warmup", "lm/en", "lm/sw"):
        (tmp_path / "run" / name).mkdir(parents=True)
        for file in ("checkpoint_best.pt", "finished", "options.txt"):
            (tmp_path / "run" / name / file).write_text(name)
    for job in jobs.values():
        job.run()
    names = [f"seed-{seed}/{row}{test}" for seed in (1, 2) for row in ("mle", "dual") for test in ("", "/test")]
    assert sorted(ran) == sorted([*names, "shared/warmup/test"])
    work = tmp_path / "work"
    start = work / "shared" / "warmup" / "warmup" / "checkpoint_best.pt"
    assert start.read_text() == "warmup" and str(start) in ran["seed-2/dual"]
    assert (work / "lm/all/sw/checkpoint_best.pt").read_text() == "lm/sw"
    (tmp_path / "mine" / "test.en-sw.sw.idx").unlink()  # other test text is enough
    own = 'test = "2"\ntest_corpus = ["dual-fairseq preprocess --like {whole} --dest {data}"]\n'
    text = recipe.read_text()
    recipe.write_text(own + text)
    assert {"test-2", "seed-1/mle/test-2", "shared/warmup/test-2"} <= set(commands(recipe, tmp_path))
    own_data(tmp_path / "mine", exist_ok=True)
    recipe.write_text(text)
    average = tmp_path / "run/warmup/checkpoint_average.pt"
    average.write_text("mean")
    for job in jobs.values():
        job.run()  # once more
    assert str(start.with_name(average.name)) in ran["seed-2/dual"]
    average.unlink()
    jobs["corpus"].run()
    assert not start.with_name(average.name).is_symlink()
    trained = work / "lm/all/sw/checkpoint_best.pt"  # by a recipe without the run
    trained.unlink()
    trained.write_text("hours of work")
    with pytest.raises(UserError, match=r"lm/all/sw/checkpoint_best\.pt: is of a training in WORK"):
        jobs["corpus"].run()
    assert trained.read_text() == "hours of work"
    recipe.write_text('warmup_options = "--lr 1"\n' + recipe.read_text())
    with pytest.raises(SystemExit, match="leave out the options of both"):
        Recipe.read(recipe)


def test_an_average_is_evaluated_and_continued_instead_of_the_best_checkpoint(recipe, tmp_path, monkeypatch):
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    jobs = commands(recipe, tmp_path)  # before there is any checkpoint
    results = {}
    for seed, name in ((1, "checkpoint_average.pt"), (2, "checkpoint_best.pt")):
        for stage in (f"seed-{seed}/warmup/warmup", f"seed-{seed}/mle/dual"):
            results[stage] = tmp_path / "work" / stage / name
            results[stage].parent.mkdir(parents=True)
            (results[stage].parent / "checkpoint_best.pt").touch()
            results[stage].touch()
    for job in jobs.values():
        if job.name.startswith("seed-") and "data" not in job.name:
            job.run()
    for seed in (1, 2):
        start = str(results[f"seed-{seed}/warmup/warmup"])
        for name in ("warmup/test", "synthetic-captions"):
            assert ran[f"seed-{seed}/{name}"][5] == start
        for row in ("mle", "dual"):
            command = ran[f"seed-{seed}/{row}"]
            assert [command[command.index(f"--init-{way}") + 1] for way in ("src2tgt", "tgt2src")] == [start] * 2
        assert ran[f"seed-{seed}/mle/test"][5] == str(results[f"seed-{seed}/mle/dual"])


def test_every_job_waits_for_what_it_needs(recipe, tmp_path):
    jobs = commands(recipe, tmp_path)
    done: set[str] = set()
    while ready := [name for name, job in jobs.items() if name not in done and done.issuperset(job.after)]:
        done.update(ready)
    seen = set(jobs)
    assert done == seen  # no job waits in vain
    assert {"seed-1/warmup/test", "seed-2/mle", "seed-2/dual/test", "lm/parallel/en", "parallel/de"} <= seen
    assert jobs["seed-2/mle"].after == ["seed-2/warmup", "lm/all/de", "lm/all/en"]
    assert jobs["seed-2/dual"].after == ["seed-2/data-captions", "lm/parallel/de", "lm/parallel/en"]  # fmt: skip


def test_variants_of_the_warm_start_differ_from_it_in_what_they_say(recipe, tmp_path, monkeypatch):
    recipe.write_text(
        recipe.read_text() + '[[variant]]\nid = "drier"\nname = "drier"\noptions = "--dropout 0.4 -- --clip-norm 2"\n'
        '[[variant]]\nid = "short"\nname = "short"\npreprocess = "--bpe-size 100"\n'
    )
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    plan = Plan(Recipe.read(recipe), tmp_path / "work", running.Runner(tmp_path / "work", ["--cpu"]))
    jobs = baseline.jobs_of(plan, [1, 2])
    for job in jobs:
        job.run()
    assert len({job.name for job in jobs}) == len(jobs) == 1 + 2 + 2 + 1 + 2
    assert [job.after for job in jobs if job.name == "baseline/short/seed-2"] == [["baseline/short/data"]]
    own, drier, short = (ran[name] for name in ("seed-2/warmup", "baseline/drier/seed-2", "baseline/short/seed-2"))
    work = tmp_path / "work"
    assert own[4:8] == ["--cpu", str(work / "data"), str(work / "seed-2/warmup"), "--warmup-only"]
    dashes = own.index("--")
    folder = str(work / "baseline/drier/seed-2")
    assert drier == [*own[:6], folder, *own[7:dashes], "--dropout", "0.4", *own[dashes:], "--clip-norm", "2"]
    assert short == [*own[:5], str(work / "baseline/short/data"), str(work / "baseline/short/seed-2"), *own[7:]]
    assert ran["baseline/short/data"][-2:] == ["--bpe-size", "100"]
    assert ran["baseline/short/data"].count("--bpe-size") == 2  # the last one counts


def test_the_table_of_variants_is_of_the_validation_text(recipe, tmp_path):
    recipe.write_text(recipe.read_text() + '[[variant]]\nid = "a"\nname = "drier"\n')
    for folder, scores in (("seed-1/warmup", (10, 20)), ("seed-2/warmup", (12, 20)), ("baseline/a/seed-1", (9, 9))):
        stage = tmp_path / folder / "warmup"
        stage.mkdir(parents=True)
        (stage / "finished").touch()
        mean = sum(scores) / 2
        valid = {"valid_bleu_de-en": scores[0], "valid_bleu_en-de": scores[1], "valid_bleu": mean,
                 "valid_best_bleu": mean, "valid_num_updates": 62}  # fmt: skip
        train = {"train_num_updates": 62, "train_train_wall": 36}
        (stage / "train.log").write_text(f"x | valid | {json.dumps(valid)}\nx | train | {json.dumps(train)}\n")
    text = baseline.table(Recipe.read(recipe), tmp_path, [1, 2])
    assert "| as in the recipe | 11.00 ± 1.41 | 20.00 ± 0.00 | 15.50 ± 0.71 | 62 | 0.01 |" in text
    assert "Not trained yet: drier." in text
    assert "| drier | 9.00 | 9.00 | 9.00 | 62 | 0.01 |" in baseline.table(Recipe.read(recipe), tmp_path, [1])


def test_synthetic_text_may_be_used_together_with_other_text(recipe, tmp_path):
    text = recipe.read_text().replace('synthetic = "captions"', 'synthetic = "both"')
    recipe.write_text(text + '[synthetic.both]\noptions = "--from-pairs"\nwith = ["captions"]\n[synthetic.other]\n')
    jobs = commands(recipe, tmp_path)
    made = {name.split("/")[1] for name in jobs if name.startswith("seed-1/") and ("synth" in name or "data" in name)}
    assert made == {"synthetic-both", "synthetic-captions", "data-both"}
    assert jobs["seed-1/data-both"].after == ["seed-1/synthetic-both", "seed-1/synthetic-captions"]
    assert jobs["seed-1/dual"].after[0] == "seed-1/data-both"


def test_burmese_is_cut_before_each_consonant_that_begins_a_syllable(tmp_path, monkeypatch):
    assert syllables.syllables("မင်း အဲ့ဒါ ကို  တက္ကသိုလ်၊ ၁၂ ab။") == "မင်း အဲ့ ဒါ ကို တက္က သိုလ် ၊ ၁ ၂ a b ။"
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.my").write_text("ကိုကို\n")
    monkeypatch.setattr(sys, "argv", ["syllables.py", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"train\.rk: there is no such file, and no train\.rk\.gz"):
        syllables.main()
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.rk.gz").write_bytes(gzip.compress("ကို\nကို".encode()))
    syllables.main()
    assert (tmp_path / "out" / "test.my").read_text() == "ကို ကို\n"
    assert (tmp_path / "out" / "test.rk").read_text() == "ကို\nကို\n"


def test_the_form_of_papers_is_lower_case_tokens_of_moses():
    lines = published.published_form(["Der „Hund“ läuft & läuft nicht-so.", "Um 3,5 km?"], "de")
    assert lines == ['der " hund " läuft & läuft nicht-so .', "um 3,5 km ?"]


def test_rows_may_be_evaluated_on_other_test_text(recipe, tmp_path, monkeypatch):
    command = "dual-fairseq corpus multi30k {data} --test 2017_flickr -- --like {whole}"
    own = tmp_path / "own.toml"
    own.write_text(f'base = "small.toml"\ntest = "2017"\ntest_corpus = ["{command}"]\n')
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.update({name: list(command)}))
    jobs, work = commands(own, tmp_path), tmp_path / "work"
    for job in jobs.values():
        if not job.name.startswith(("parallel", "test-")):
            job.run()
    with pytest.raises(UserError, match="test-2017: has no valid text; test_corpus needs --valid"):
        jobs["test-2017"].run()
    assert jobs["test-2017"].after == ["corpus"]
    assert ran["test-2017"][5:] == [
        str(work / "test-2017"),
        "--test",
        "2017_flickr",
        "--",
        "--like",
        str(work / "data"),
    ]
    assert ran["seed-2/mle/test-2017"][4:6] == [
        str(work / "test-2017"),
        str(work / "seed-2/mle/dual/checkpoint_best.pt"),
    ]
    assert set(jobs["seed-1/mle/test-2017"].after) >= {"seed-1/mle", "test-2017"}
    assert "seed-1/mle/test" not in jobs
    # one after the other, because each chooses a folder
    assert "seed-1/warmup/test" in jobs["seed-1/warmup/test-2017"].after
    # the text that the warm start translates does not depend on it
    assert ran["seed-1/warmup/test"][4] == str(work / "data") and "seed-1/warmup/test-2017" in jobs
    assert jobs["seed-1/synthetic-captions"].after == ["seed-1/warmup/test"]
    for change, complaint in (
        (("test =", "# test ="), "give test and test_corpus both"),
        (('"2017"', '"../x"'), "test '../x': give a folder's name"),
        (("{whole}", "{test}"), "{test} in a command: is not one of data, text, whole"),
    ):
        own.write_text(own.read_text().replace(*change))
        with pytest.raises(UserError, match=re.escape(complaint)):
            Recipe.read(own)
        own.write_text(own.read_text().replace(*reversed(change)))


def test_seeds_may_share_a_warm_start_and_what_it_translated(recipe, tmp_path):
    recipe.write_text("one_warm_start = true\n" + recipe.read_text())
    jobs = commands(recipe, tmp_path)
    assert not {"seed-1/warmup", "seed-2/data-captions"} & set(jobs)
    assert jobs["shared/synthetic-captions"].after == ["shared/warmup/test"]
    for seed in (1, 2):
        assert jobs[f"seed-{seed}/mle"].after[0] == "shared/warmup"
        assert jobs[f"seed-{seed}/dual"].after[0] == "shared/data-captions"


def test_what_is_meant_for_fairseq_stays_behind_the_dashes(recipe, tmp_path, monkeypatch):
    ran: list[list[str]] = []
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.append(list(command)))
    jobs = commands(recipe, tmp_path, machine=["--cpu"])
    jobs["seed-2/dual"].run()
    (command,) = ran
    dashes = command.index("--")
    assert command[dashes + 1 :] == ["--weight-decay", "0.001", "--log-interval", "5", "--clip-norm", "0.5"]
    front = command[:dashes]
    assert (
        "--cpu" in front
        and front[front.index("--seed") + 1] == "2"
        and front[front.index("--dual-lambda") + 1] == "0.01"
    )
    assert str(tmp_path / "work/lm/parallel/de/checkpoint_best.pt") in front
    # options that all rows have end with some for fairseq: a row's own are those of dual-fairseq train all the same
    jobs["seed-2/mle"].run()
    front = ran[1][: ran[1].index("--")]
    assert front[front.index("--dual-lambda") + 1] == "0"


@pytest.mark.parametrize("end", ["", " -- --bpe-size 300"])
def test_translated_text_goes_to_preprocessing_through_a_public_corpus_too(recipe, tmp_path, monkeypatch, end):
    of_corpus = f'corpus = ["dual-fairseq corpus multi30k {{data}} --mono{end}"]\n'
    text = recipe.read_text()
    recipe.write_text(text[: text.index("corpus")] + of_corpus + text[text.index("pair_options") :])
    ran: list[list[str]] = []
    monkeypatch.setattr(running.Runner, "__call__", lambda self, name, command: ran.append(list(command)))
    commands(recipe, tmp_path)["seed-1/data-captions"].run()
    (command,) = ran
    dashes = command.index("--")
    assert "--mono" in command[:dashes] and "--synthetic" in command[dashes:]


def test_a_failing_command_ends_all_with_a_line_that_names_its_log(tmp_path):
    runner = running.Runner(tmp_path, [])
    jobs = [
        running.Job("bad", lambda: runner("bad", [sys.executable, "-c", "raise SystemExit(3)"])),
        running.Job("next", lambda: pytest.fail("must not run"), ["bad"]),
    ]
    with pytest.raises(UserError, match=r"bad ended with status 3; see .*bad\.log; the same command continues"):
        running.run_all(jobs, 2, runner)


def test_stopped_from_outside_it_stops_what_it_runs(recipe, tmp_path):
    mark, sleeper = tmp_path / "pid", tmp_path / "sleeper.py"
    writes = f"print(os.getpid(), file=open({str(mark)!r}, 'w'), flush=True)"
    sleeper.write_text(f"import os, time\n{writes}\ntime.sleep(600)")
    text = recipe.read_text()
    of_corpus = f'corpus = ["python {sleeper}"]\n'
    recipe.write_text(text[: text.index("corpus")] + of_corpus + text[text.index("pair_options") :])
    command = ["-m", "dual_fairseq", "experiment", recipe, tmp_path / "work", "--cpu"]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (mark.is_file() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert errors.strip() == "dual-fairseq experiment: stopped by SIGTERM; the same command continues"
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def result(bleu: float, texts: list[str], references: list[str]) -> table.Result:
    scores = {search: {"bleu": bleu, "chrf": 1.0, "length_ratio": 1.0} for search in table.SEARCHES}
    return table.Result(scores, dict.fromkeys(table.SEARCHES, texts), references, 1.0, 2.0, None, 30.0, 300, 1000, 36.0)


def test_a_row_is_compared_with_the_baseline_seed_by_seed_and_search_by_search():
    references = ["a cat sat on the mat", "dogs run", "birds sing in the old tree", "we go home"] * 10
    worse = [text.replace("cat", "bat").replace("run", "sit").replace("old", "new") for text in references]
    baseline, same, bad = (result(b, t, references) for b, t in ((90, references), (90, references), (60, worse)))
    compared = [table.compare(mine, "tuned", baseline, "tuned") for mine in (same, bad)]
    assert [(c.gain, c.p == 1, c.p < 0.05) for c in compared] == [(0, True, False), (-30, False, True)]
    assert table.verdict(compared) == "0 of 2 (1 worse)"
    assert table.verdict(compared[:1]) == "1.000" and table.verdict(compared[1:]) == "<0.001"
    row = Recipe.read(ROOT / "experiments/recipes/multi30k-3k.toml").rows[1]
    lines = table.tables(
        [row], {"de-en": {row.id: [same, bad]}}, {"de-en": {row.id: {"tuned": compared}}}, {"de-en": {}}, 2
    )
    lines = [line for line in lines if line.startswith(f"| {row.name} |")]
    assert [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines] == [
        ["75.00 ± 21.21", "", ""],
        ["75.00 ± 21.21", "-15.00 ± 21.21", "0 of 2 (1 worse)", "1.000 ± 0.000"],
        ["75.00 ± 21.21", "", "", "", ""],
        ["75.00 ± 21.21", "", "", "", ""],
        ["1.00 ± 0.00", "1.000 ± 0.000", "2.000 ± 0.000", "30.00 ± 0.00", "300, 300", "0.01"],
    ]


def test_rows_are_compared_with_each_other_as_the_recipe_says(recipe):
    recipe.write_text('comparisons = [["dual", "mle"], ["dual", "gone"]]\n' + recipe.read_text())
    recipe = Recipe.read(recipe)
    assert recipe.comparisons == [["dual", "mle"]]
    references = ["a cat sat on the mat", "dogs run", "birds sing in the old tree", "we go home"] * 10
    found = {"dual": [result(91, references, references)] * 2, "mle": [result(90, references, references)] * 2}
    *_, line, end = table.against(recipe, recipe.rows, {"de-en": found}, 2)
    cells = ["dual − MLE continued", "+1.00 ± 0.00", "0 of 2", "+1.00 ± 0.00", "0 of 2"]
    assert line == f"| {' | '.join(cells)} |" and end == ""
    assert table.against(recipe, recipe.rows[:2], {"de-en": found}, 2) == []
    found["mle"] = found["mle"][:1]  # as of a warm start that all seeds share
    *_, line, _ = table.against(recipe, recipe.rows, {"de-en": found}, 2)
    assert line == "| dual − MLE continued |  |  |  |  |"


def test_a_comparison_is_one_of_two_rows(recipe):
    recipe.write_text('comparisons = [["dual", "mle", "dual"]]\n' + recipe.read_text())
    with pytest.raises(UserError, match=r"comparisons .*: give the ids of two rows"):
        Recipe.read(recipe)


def test_scores_of_other_signatures_or_texts_are_not_compared(recipe):
    references = ["a cat sat on the mat", "dogs run"]
    mine, other, of_other_text = (result(90, references, references) for _ in range(3))
    mine.signature, other.signature = "nrefs:1|tok:ja-mecab", "nrefs:1|tok:char"
    of_other_text.references, of_other_text.signature = ["another", "text"], mine.signature
    assert table.alike([(mine, mine)]) and not table.alike([(mine, mine), (mine, other)])
    assert not table.alike([(mine, of_other_text)])
    found = {"de-en": {"mle": [mine], "dual": [other]}}
    recipe.write_text('comparisons = [["dual", "mle"]]\n' + recipe.read_text())
    *_, line, _ = table.against(Recipe.read(recipe), Recipe.read(recipe).rows, found, 1)
    assert line == "| dual − MLE continued |  |  |  |  |"
    assert table.signatures_of({"de-en": {"mle": [mine]}, "en-de": {"mle": [mine]}}) == ["BLEU nrefs:1|tok:ja-mecab"]


def test_rows_with_other_updates_than_the_baseline_are_named(recipe):
    warm, mle, dual = Recipe.read(recipe).rows
    found = {id: [result(90, ["a"], ["a"])] for id in ("warmup", "mle", "dual")}
    found["warmup"][0].updates = 60
    assert table.with_other_updates([warm, mle, dual], mle, found) == []
    found["dual"][0].updates = 1001
    assert table.with_other_updates([warm, mle, dual], mle, found) == ["dual"]


def record_of(title: str, bleu: float, limit: float | None) -> dict:
    scores = {search: {"bleu": bleu} for search in table.SEARCHES}
    results = [{"scores": scores, "nll_bits": 2.0, "limit_bits": limit}]
    over = {"plain": [{"gain": 1.25, "p": 0.01}], "dual_inference": [{"gain": -0.001, "p": 0.5}]}
    mle = {"name": "MLE", "de-en": {"results": results, "over_baseline": {}, "over_beam_search": over}}
    return {"title": title, "seeds": [1], "pairs": 100 * bleu, "rows": {
        "mle": mle, "dual": {"name": "dual", "de-en": {"results": results, "over_baseline": over}}, "other": mle,
    }}  # fmt: skip


def test_a_bar_in_a_cell_does_not_divide_it():
    assert table.markdown(["", "|x|"], [["|gap|", "1"]]) == [
        r"|  | \|x\| |",
        "|---|---|",
        r"| \|gap\| | 1 |",
    ]


def test_several_experiments_make_a_table(tmp_path):
    records = {"gru": record_of("GRU", 10, 0.5), "lstm": record_of("LSTM", 20, 0.5)}
    lines = collect.collect(records, ["mle", "dual", "gone"]).splitlines()
    assert lines[2:6] == [
        "| `gru` | MLE | 10.00 |  |  | 10.00 |  |  | 2.000 | 1.500 | 4.00 |",
        "|  | dual | 10.00 | +1.25 | 0.010 | 10.00 | +0.00 | 0.500 | 2.000 | 1.500 | 4.00 |",
        "| `lstm` | MLE | 20.00 |  |  | 20.00 |  |  | 2.000 | 1.500 | 4.00 |",
        "|  | dual | 20.00 | +1.25 | 0.010 | 20.00 | +0.00 | 0.500 | 2.000 | 1.500 | 4.00 |",
    ]
    assert lines[-1] == "Seeds 1."
    for number, record in enumerate(records.values()):
        record["rows"]["dual"]["de-en"]["results"][0]["signature"] = f"tok:{number}"
    assert collect.collect(records, ["dual"]).splitlines()[-3:] == ["BLEU tok:0", "", "BLEU tok:1"]
    assert "above the limit" not in collect.collect({"a": record_of("A", 10, None)}, ["mle"])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"x\.json: is not a record of dual-fairseq experiment"):
        collect.read(tmp_path / "x.json")


def test_gains_by_the_number_of_pairs(tmp_path, monkeypatch):
    by_size = [record_of("small", 10, 0.5), record_of("large", 20, 0.5)]
    del by_size[0]["rows"]["other"]
    of = {id: [(r["pairs"], r["rows"][id]) for r in by_size] for id in ("mle", "dual")}
    assert collect.gains(of["mle"], "de-en") == [
        ("dual_inference", "MLE: dual inference over beam search", [-0.001, -0.001])
    ]
    assert collect.gains(of["dual"], "de-en") == [
        ("plain", "dual", [1.25, 1.25]),
        ("dual_inference", "dual, both by dual inference", [-0.001, -0.001]),
    ]
    assert collect.times_limit(by_size[0]["rows"]["dual"]["de-en"]["results"][0]) == 4
    for name, record in zip(("small", "large"), by_size, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    files, drawn = [str(tmp_path / f"{name}.json") for name in ("large", "small")], tmp_path / "sizes.png"

    def run(*arguments: str) -> None:
        output = ["--by-size", str(drawn), "-o", str(tmp_path / "sizes.md")]
        monkeypatch.setattr(sys, "argv", ["collect.py", *arguments, *output])
        collect.main()

    run(*files, "--rows", "mle", "dual", "other")
    assert drawn.read_bytes().startswith(b"\x89PNG")
    written = (tmp_path / "sizes.md").read_text()
    assert written.startswith(f"# sizes\n\nMade by\n\n    python experiments/collect.py {files[0]}")
    assert written.endswith(collect.collect({path.stem: collect.read(path) for path in map(Path, files)},
                                            ["mle", "dual", "other"]))  # fmt: skip
    with pytest.raises(SystemExit, match="--rows gone: is in none of large, small"):
        run(*files, "--rows", "gone")
    for row in by_size[0]["rows"].values():
        row["fr-en"] = row.pop("de-en")
    (tmp_path / "small.json").write_text(json.dumps(by_size[0]))
    with pytest.raises(SystemExit, match="large, small: are of several language pairs"):
        run(*files, "--rows", "mle")
    with pytest.raises(SystemExit, match="cannot be written"):
        collect.picture({"large": by_size[1]}, ["mle"], tmp_path / "none" / "sizes.png")
    del by_size[1]["pairs"]
    with pytest.raises(SystemExit, match="large: its record does not say how many pairs"):
        collect.picture({"large": by_size[1]}, ["mle"], drawn)


def test_a_job_that_waits_for_nothing_that_comes_ends_all(tmp_path):
    with pytest.raises(AssertionError, match="next waits for what nobody does: \\['bda'\\]"):
        running.run_all([running.Job("next", lambda: None, ["bda"])], 1, running.Runner(tmp_path, []))


def test_the_table_of_an_unfinished_experiment_needs_its_baseline(recipe, tmp_path):
    with pytest.raises(SystemExit, match="the baseline, mle, is not evaluated for every seed yet"):
        table.tabulate(Recipe.read(recipe), tmp_path, [1], recipe)


def test_a_folder_for_the_table_is_looked_for_before_the_work(recipe, tmp_path):
    with pytest.raises(UserError, match=r"--results .*gone: there is no such folder; make it first"):
        run.main([str(recipe), str(tmp_path / "work"), "--results", str(tmp_path / "gone")])
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_a_small_experiment_gives_a_table_and_goes_on_where_it_was_stopped(recipe, tmp_path):
    work = tmp_path / "work"
    command = [*EXPERIMENT, recipe, work, "--seeds", "2", "--cpu", "--jobs", "2"]
    env = ENVIRONMENT
    done = run_command(command, env=env, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((work / "small.json").read_text())
    assert record["seeds"] == [2] and set(record["rows"]) == {"warmup", "mle", "dual"}
    for row in record["rows"].values():
        for direction in ("de-en", "en-de"):
            results = row[direction]["results"]
            assert len(results) == 1
            # no model is better than the truth
            assert all(r["nll_bits"] > r["limit_bits"] > 0 for r in results)
            assert all(set(r["scores"]) == set(table.SEARCHES) and r["checkpoint_updates"] for r in results)
            assert all(0 <= r["validation_bleu"] <= 100 for r in results)
    assert {r["updates"] for id in ("mle", "dual") for r in record["rows"][id]["de-en"]["results"]} == {4}
    assert record["rows"]["mle"]["de-en"]["over_baseline"] == {}
    dual = record["rows"]["dual"]["de-en"]
    (own,), (its,) = dual["results"], record["rows"]["mle"]["de-en"]["results"]
    for search, (compared,) in dual["over_baseline"].items():
        assert compared["gain"] == own["scores"][search]["bleu"] - its["scores"][search]["bleu"]
        assert 0 < compared["p"] <= 1
    sides = [len((work / f"seed-2/synthetic-captions.{x}").read_text().splitlines()) for x in ("de", "en")]
    assert sides[0] == sides[1] <= 80
    drawn = (work / "seed-2/synthetic-captions.parts/de.txt").read_text().splitlines()
    assert len(drawn) == 40 and set(drawn) <= set((work / "data/raw/mono.de").read_text().splitlines())
    assert (work / "seed-2/synthetic-captions.de").read_text().startswith(drawn[0])
    assert len((work / "seed-2/data-captions/segmented/synthetic.en").read_text().splitlines()) > 0
    assert (work / "small.md").read_text().count("| MLE continued |") == 5
    assert (work / "small.png").read_bytes().startswith(b"\x89PNG")
    (work / "seed-2/dual/dual/eval/test/scores.json").rename(work / "kept.json")
    best = work / "seed-2/mle/dual/checkpoint_best.pt"
    average = shutil.copy(best, best.with_name("checkpoint_average.pt"))  # as evaluated
    again = run_command([*command, "--table", "--results", tmp_path], env=env)
    average.unlink()
    assert "the mean of the last checkpoints instead of that one: MLE continued." in again.stdout
    assert "Not evaluated yet for all of these seeds: dual." in again.stdout, again.stderr[-2000:]
    assert (tmp_path / "small.md").read_text() == (work / "small.md").read_text() == again.stdout[:-1]
    (work / "kept.json").rename(work / "seed-2/dual/dual/eval/test/scores.json")
    made = (work / "seed-2/dual/dual/checkpoint_best.pt").stat().st_mtime_ns
    assert run_command(command, env=env).returncode == 0
    assert (work / "seed-2/dual/dual/checkpoint_best.pt").stat().st_mtime_ns == made

    # A part of the corpus has pairs of its own, and what was trained on the whole fits them.
    part = tmp_path / "part.toml"
    part.write_text(
        'base = "small.toml"\ntitle = "part"\nonly = ["mle"]\npart = "few"\npart_corpus = ["""dual-fairseq preprocess '
        "-s de -t en --train {text}/valid --valid {text}/valid --test {text}/test --dest {data} --like {whole}"
        '"""]\n'
    )
    made = (work / "lm/all/de/checkpoint_best.pt").stat().st_mtime_ns
    command = [*EXPERIMENT, part, work, "--seeds", "2", "--cpu", "--jobs", "2"]
    done = run_command(command, env=env, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((work / "part.json").read_text())["pairs"] == 40 and record["pairs"] == 300
    assert (work / "few/seed-2/mle/dual/eval/test/scores.json").is_file()
    assert (work / "lm/all/de/checkpoint_best.pt").stat().st_mtime_ns == made

    # The same rows on other test text, and as papers give the scores.
    other = tmp_path / "other.toml"
    other.write_text(
        'base = "small.toml"\ntitle = "other"\nonly = ["mle"]\ntest = "other"\ntest_corpus = ["""'
        "dual-fairseq preprocess -s de -t en --test {text}/valid --valid {text}/valid --dest {data} --like {whole}"
        '"""]\n'
    )
    done = run_command([*EXPERIMENT, other, work, "--seeds", "2", "--cpu"], env=env, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = {name: json.loads((work / f"{name}.json").read_text())["rows"]["mle"] for name in ("small", "other")}
    assert scores["small"]["de-en"]["results"][0]["nll_bits"] != scores["other"]["de-en"]["results"][0]["nll_bits"]
    limits = [scores[name]["de-en"]["results"][0]["limit_bits"] for name in ("small", "other")]
    assert limits[0] > 0 and limits[1] is None  # the truth of the other text is not known
    script = [sys.executable, ROOT / "experiments" / "published.py"]
    done = run_command([*script, recipe, work, "--seeds", "2"], env=env)
    assert done.returncode == 0 and "| MLE continued | " in done.stdout, done.stderr[-2000:]
