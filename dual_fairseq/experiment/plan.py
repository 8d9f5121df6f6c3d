"""A recipe as commands, each with the names of those that it waits for."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..common.errors import UserError
from ..common.folders import RECORD, Data, RunFolder, StageFolder
from ..pipeline.jobs import step
from .recipe import Recipe, Row, refuse_labels, resolved
from .runner import Job, Runner


@dataclass
class Plan:
    """The jobs of a recipe in the folder ``work``.

    Args:
        recipe: the recipe.
        work: the folder for data, language models and runs.
        runner: runs the commands.
        folder: the folder from which dual-fairseq corpus takes files, instead of downloading them.
    """

    recipe: Recipe
    work: Path
    runner: Runner
    folder: Path | None = None

    @property
    def whole(self) -> Path:
        """The folder of dual-fairseq preprocess that the language models are trained on."""
        return self.recipe.whole(self.work)

    @property
    def data(self) -> Path:
        """The folder of dual-fairseq preprocess that the pairs are trained on."""
        return self.recipe.of_pairs(self.work)

    @property
    def corpus(self) -> tuple[str, list[str]]:
        """The job that makes :attr:`data`, and its commands."""
        recipe = self.recipe
        return (f"{recipe.part}/corpus", recipe.part_corpus) if recipe.part else ("corpus", recipe.corpus)

    @property
    def languages(self) -> tuple[str, str]:
        return self.recipe.source, self.recipe.target

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        """All jobs of a recipe: corpus, language models, and the warm start and rows of every seed."""
        recipe = self.recipe
        jobs, warm_starts = self.corpus_jobs(), self.warm_starts(seeds)
        for home, seed in warm_starts.items():  # first, because they take longest
            jobs += self.row_jobs(recipe.rows[0], home, seed)
        jobs += self.language_model_jobs()
        for home in warm_starts:
            jobs += self.synthetic_jobs(home)
        for seed in seeds:
            for row in recipe.rows[1:]:
                jobs += self.row_jobs(row, recipe.home(row, seed), seed)
        return jobs

    def command(self, name: str, after: Sequence[str], command: str, *arguments: object) -> Job:
        """The job that calls a command of dual-fairseq that trains or translates.

        A :class:`StageFolder` in ``arguments`` stands for its result, which is known only when the job runs.
        """

        def run() -> None:
            self.runner(name, step(command, *self.runner.machine, *resolved(arguments)))

        return Job(name, run, list(after))

    def corpus_jobs(self) -> list[Job]:
        recipe = self.recipe
        make = self.use_run if recipe.run else partial(self.make_corpus, "corpus", recipe.corpus, self.whole)
        jobs = [Job("corpus", make)]
        name, commands = self.corpus
        if recipe.part:
            jobs.append(Job(name, partial(self.make_corpus, name, commands, self.data), ["corpus"]))
        if test := recipe.test_data(self.work):
            jobs.append(Job(test.name, partial(self.make_test, test), ["corpus"]))
        return jobs

    def make_test(self, folder: Path) -> None:
        """Make the recipe's own test text.

        Raises:
            UserError: the folder has no test text, or no validation text, on which weights are tuned.
        """
        self.make_corpus(folder.name, self.recipe.test_corpus, folder)
        for split in ("valid", "test"):
            if not (folder / "raw" / f"{split}.{self.recipe.source}").is_file():
                raise UserError(
                    f"{folder}: has no {split} text; test_corpus needs --{split} of dual-fairseq preprocess"
                )

    def use_run(self) -> None:
        """Link the warm start and the language models of the recipe's run to their places in ``work``.

        Raises:
            UserError: the run has none, or ``work`` has its own.
        """
        run, recipe = RunFolder(Path(self.recipe.run).resolve()), self.recipe
        folders = {self.warm_start(recipe.home(recipe.rows[0], 1)).folder: run.stage("warmup")}
        for language in self.languages:
            folders[self.language_model(recipe.first_language_models, language).folder] = run.language_model(language)
        for place, files in folders.items():
            if not files.finished.is_file() or not files.result.is_file():
                raise UserError(
                    f"{files.folder}: holds no finished training; run has to name a run of dual-fairseq train with a "
                    "warm start and language models of its own"
                )
            place.mkdir(parents=True, exist_ok=True)
            sources = [files.best, files.average, files.last, files.log, files.options_file, files.finished]
            for file in (*sources, files.folder / "dict.txt"):
                link = place / file.name
                if link.exists() and not link.is_symlink():
                    raise UserError(f"{link}: is of a training in WORK, not of {run.folder}; give another WORK")
                link.unlink(missing_ok=True)
                if file.is_file():
                    link.symlink_to(file)

    def make_corpus(self, name: str, commands: Sequence[str], data: Path, *more: object) -> None:
        """Run some of the recipe's commands, with ``more`` options of dual-fairseq preprocess."""
        places = {"data": data, "text": self.work / "text", "whole": self.whole}
        quoted = {key: shlex.quote(str(place)) for key, place in places.items()}
        for command in commands:
            words = shlex.split(command.format(**quoted))
            if words[:2] == ["dual-fairseq", "corpus"]:
                if "--" not in words:  # after it come options of dual-fairseq preprocess
                    words.append("--")
                cut = words.index("--")  # the last --from counts
                words[cut:cut] = ["--from", str(self.folder.resolve())] if self.folder else []
            program = {"python": [sys.executable], "dual-fairseq": step("")[:-1]}.get(words[0], words[:1])
            self.runner(name, [*program, *words[1:], *map(str, more)])
        if (data / RECORD).is_file():
            refuse_labels(Data.from_folder(data))

    def language_model_jobs(self) -> list[Job]:
        jobs = []
        for name, settings in self.recipe.language_models.items():
            for language in self.languages:
                if self.recipe.run:
                    jobs.append(Job(f"lm/{name}/{language}", lambda: None, ["corpus"]))
                    continue
                data, waits = self.whole / "lm" / language, ["corpus"]
                if settings.get("text") == "parallel":
                    data, waits = self.work / "parallel" / language, [f"parallel/{language}"]
                    side = (self.whole, self.recipe, language, data)
                    jobs.append(Job(waits[0], partial(parallel_text, *side), ["corpus"]))
                options = shlex.split(settings.get("options", ""))
                folder = self.language_model(name, language).folder
                jobs.append(self.command(f"lm/{name}/{language}", waits, "train-lm", data, folder, *options))
        return jobs

    def language_model(self, name: str, language: str) -> StageFolder:
        return StageFolder(self.work / "lm" / name / language)

    def warm_starts(self, seeds: Sequence[int]) -> dict[str, int]:
        """Folder → seed of each warm start that these seeds need."""
        recipe = self.recipe
        return {recipe.home(recipe.rows[0], seed): 1 if recipe.one_warm_start else seed for seed in seeds}

    def warm_start(self, home: str) -> StageFolder:
        return RunFolder(self.work / home / "warmup").stage("warmup")

    def warm_start_job(
        self, name: str, after: Sequence[str], data: Path, folder: Path, seed: int, more: Sequence[str] = ()
    ) -> Job:
        """The training of a warm start into ``folder``, with ``more`` options of dual-fairseq train."""
        options = joined(self.pair_options(seed), shlex.split(self.recipe.warmup_options), more)
        return self.command(name, after, "train", data, folder, "--warmup-only", *options)

    def pair_options(self, seed: int) -> list[str]:
        return ["--seed", str(seed), "--no-eval", *shlex.split(self.recipe.pair_options)]

    def synthetic_jobs(self, home: str) -> list[Job]:
        """The jobs that let the warm start translate, and make the corpus with the result."""
        jobs = []
        used = {row.synthetic for row in self.recipe.rows}
        for made, settings in self.recipe.synthetic.items():
            prefix, place = self.work / home / f"synthetic-{made}", self.work / home / f"data-{made}"
            name, waits = f"{home}/synthetic-{made}", [f"{home}/warmup/test"]
            options = [
                *self.recipe.language_models_of(self.work, ""),
                *shlex.split(settings.get("options", "")),
            ]
            start = self.warm_start(home)
            jobs.append(self.command(name, waits, "synthesize", self.data, start, prefix, *options))
            if made not in used:  # only with other text
                continue
            names = [f"{home}/synthetic-{each}" for each in (made, *settings.get("with", []))]
            texts = [word for each in names for word in ("--synthetic", self.work / each)]
            more = (*texts, "--upsample", settings.get("upsample", 1))
            data_name = f"{home}/data-{made}"
            jobs.append(Job(data_name, partial(self.make_corpus, data_name, self.corpus[1][-1:], place, *more), names))
        return jobs

    def row_jobs(self, row: Row, home: str, seed: int) -> list[Job]:
        """The training of a row with a seed, and its evaluation."""
        name, folder = f"{home}/{row.id}", self.work / home / row.id
        # the warm start itself needs no language models, but its evaluation does
        models = row.language_models or self.recipe.first_language_models
        lm_options = self.recipe.language_models_of(self.work, models)
        lm_jobs = [f"lm/{models}/{language}" for language in self.languages]
        data = self.recipe.data_of(self.work, row, seed)
        if row.stage == "warmup" and self.recipe.run:
            training = Job(name, lambda: None, ["corpus"])
        elif row.stage == "warmup":
            training = self.warm_start_job(name, [self.corpus[0]], self.data, folder, seed)
        else:
            start = self.recipe.home(self.recipe.rows[0], seed)
            waits = [f"{start}/data-{row.synthetic}" if row.synthetic else f"{start}/warmup", *lm_jobs]
            init = ["--init-src2tgt", self.warm_start(start), "--init-tgt2src", self.warm_start(start)]
            options = joined(
                self.pair_options(seed), shlex.split(self.recipe.continued_options), shlex.split(row.options)
            )
            training = self.command(name, waits, "train", data, folder, *lm_options, *init, *options)
        evaluate = partial(self.recipe.evaluation, self.work, row, seed)
        test, jobs, waits = self.recipe.test_data(self.work), [training], [name, *lm_jobs]
        # synthesize uses the weights that the evaluation of the warm start tunes
        if test is None or (row.stage == "warmup" and self.recipe.synthetic):
            jobs.append(self.command(f"{name}/test", waits, "evaluate", *evaluate(data)))
            waits = [*waits, f"{name}/test"]  # one evaluation at a time chooses its folder
        if test is not None:
            jobs.append(self.command(f"{name}/{test.name}", [*waits, test.name], "evaluate", *evaluate(test)))
        return jobs


def joined(*parts: Sequence[str]) -> list[str]:
    """Joins options of dual-fairseq train; those for fairseq-train, after each part's ``--``, come last."""
    front: list[str] = []
    back: list[str] = []
    for options in parts:
        cut = options.index("--") if "--" in options else len(options)
        front += options[:cut]
        back += options[cut + 1 :]
    return [*front, *(["--", *back] if back else [])]


def parallel_text(corpus: Path, recipe: Recipe, language: str, folder: Path) -> None:
    """A side of the parallel text as language model data: the pair's files under a language model's names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"dict.txt": f"dict.{language}.txt"}
    for split in ("train", "valid"):
        for kind in ("bin", "idx"):
            files[f"{split}.{kind}"] = f"{split}.{recipe.source}-{recipe.target}.{language}.{kind}"
    for link, name in files.items():
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(os.path.relpath(corpus / "dual" / name, folder))
