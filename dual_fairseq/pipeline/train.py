"""``dual-fairseq train``: trains both models of a language pair with dual supervision, and evaluates them."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..common.comparison import Scored, comparison_notes, measurement_notes
from ..common.errors import UserError
from ..common.files import write_text
from ..common.folders import STAGES, Data, RunFolder, refuse_colons
from ..common.options import flag
from ..common.segmentation import POST_PROCESS
from ..common.tables import read_scores, score_table
from . import averaging, config, evaluate, train_lm
from .changes import Typed
from .choices import choose_pair, limits_of, longest_time, shares_embeddings, validation_interval
from .devices import Device, find_device
from .inheritance import check_dictionaries, language_model_of, typed_start
from .jobs import PACKAGE, ask, locked, run, say, show, step
from .look_ahead import look_ahead
from .presets import PAIRS
from .rounds import RoundPlan, Rounds
from .stages import NothingLeft, Stage, digest, refusal, updates_of
from .train_options import LM_OPTIONS, get_parser, parse


class Training:
    """All stages of a run.

    Args:
        options: of :func:`parse`.

    Raises:
        UserError: DEST is not what preprocessing writes.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.run = RunFolder(options.run)
        self.data = data = Data.from_folder(options.dest)
        refuse_colons(options.dest, options.run)
        sides = [data.index(split, language) for split in ("train", "valid") for language in data.languages]
        for file in sides:
            if not file.is_file():
                raise UserError(f"{file} not found: run dual-fairseq preprocess with {file.name.split('.')[0]} text")
        if not options.split:
            options.split = "test" if data.index("test", data.source).is_file() else "valid"
        evaluate.check_search(options, data)
        check_dictionaries(options, data)
        self.data_line = f"data {digest(*map(data.dictionary, data.languages), *sides)}"
        self.chosen = choose_pair(options, data, self.run)
        self.device = find_device(options.cpu, options.nproc, options.extra)
        lm_files = dict(zip(data.languages, (options.src_lm, options.tgt_lm), strict=True))
        for language in data.languages if options.init_src2tgt else ():
            if not lm_files[language] and not self.run.language_model(language).options_file.is_file():
                lm_files[language] = language_model_of(options.init_src2tgt, data, language)
        self.lms = {
            language: lm_files[language] or self.run.language_model(language).best
            for language in ([] if options.warmup_only else data.languages)
        }
        self.to_train = [language for language in self.lms if not lm_files[language]]
        self.left_out = False  # whether a stage should continue with other options, but nothing was left to train
        self.rounds: Rounds | None = None
        if int(options.rounds or 0):
            if data.has_annotations:
                raise UserError("--rounds: is for text on both sides, not for labels or tags; leave it out")
            plan = RoundPlan(options, data, options.eval and options.dual_inference and options.split != "valid")
            self.rounds = Rounds(plan, self.run, self.lms, self.evaluated)

    # --- the commands

    def model_options(self) -> list[str]:
        """The options that the stages of the pair have in common."""
        options, data = self.options, self.data
        words = ["--task", "dual_translation", "--source-lang", data.source, "--target-lang", data.target]
        words += ["--arch", options.arch]
        if options.arch == "transformer":
            shape = options.shape or PAIRS[options.size].shape()
            words += [word for name, value in shape.items() for word in (f"--{name}", value)]
            shared = shares_embeddings(data, self.run, options.init_src2tgt)
            words.append("--share-all-embeddings" if shared else "--share-decoder-input-output-embed")
        if options.dropout:
            words += ["--dropout", options.dropout]
        words += ["--criterion", "dual_cross_entropy", "--label-smoothing", options.label_smoothing]
        words += ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0"]
        words += ["--weight-decay", "0.0001", "--lr-scheduler", "inverse_sqrt"]
        words += ["--warmup-updates", options.lr_warmup, "--warmup-init-lr", "1e-7"]
        # In training and validation, fairseq drops the last batch (the longest sentences) if its number of sentences is
        # not a multiple of --required-batch-size-multiple (8 by default).
        words += ["--max-tokens", options.max_tokens, "--required-batch-size-multiple", "1", "--seed", options.seed]
        return words + self.validation_options()

    def validation_options(self) -> list[str]:
        """The options for BLEU of words, which depend on the tokenisation of the text."""
        sides = self.data.sides
        pieces = {lang: side.post_process or POST_PROCESS[side.subword] for lang, side in sides.items()}
        detok = {lang: "moses" if side.tokenizer == "moses" else "space" for lang, side in sides.items()}
        source, target = sides
        words = ["--eval-bleu"]
        if kind := pieces[source]:
            words += ["--eval-bleu-remove-bpe", *([] if kind == "subword_nmt" else [kind])]
        search = f'"beam": {int(self.options.valid_beam)}'  # a number such as .5 or 05 is not JSON
        if self.options.max_len_a:
            longest = float(self.options.max_len_a), int(self.options.max_len_b)
            search += ', "max_len_a": {:g}, "max_len_b": {}'.format(*longest)
        words += ["--eval-bleu-args", f"{{{search}}}"]
        best = "accuracy" if self.data.has_annotations else "bleu"
        words += ["--best-checkpoint-metric", best, "--maximize-best-checkpoint-metric"]
        words += ["--eval-bleu-detok", detok[source]]
        words += ["--eval-tokenized-bleu"] if sides[source].segmented else []
        by_language = {
            lang: {
                "eval_bleu_remove_bpe": pieces[lang],
                "eval_bleu_detok": detok[lang],
                "eval_tokenized_bleu": side.segmented,
            }
            for lang, side in sides.items()
        }
        if by_language[source] != by_language[target]:
            words += ["--eval-bleu-by-language", json.dumps({target: by_language[target]})]
        name = self.options.sacrebleu_tokenize
        return words + (["--sacrebleu-tokenize", name] if name else [])

    def stage(self, name: str, title: str, words: list[str], inputs: list[str], start: list[str]) -> Stage:
        """A stage of the pair, without a limit of updates."""
        options, files = self.options, self.run.stage(name)
        most_updates, most_epochs = limits_of(name)
        epochs = getattr(options, most_epochs)
        words += validation_interval(self.data, files, options.max_tokens, epochs, options.extra, options.average)
        typed = {
            "lr": "--lr" if name == "warmup" else "--dual-lr", "warmup-updates": "--lr-warmup",
            "max-update": flag(most_updates), "max-epoch": flag(most_epochs),
            "validate-interval": "", "save-interval": "",
        }  # fmt: skip
        own = {word.partition("=")[0] for word in options.extra}
        typed |= {name: "--average" for name in ("keep-last-epochs", "keep-interval-updates") if f"--{name}" not in own}
        sizes = {size: preset.shape() for size, preset in PAIRS.items()}
        words += averaging.options(files, options.average, options.extra)
        return Stage(
            files, title, self.data.dual, [self.data_line, *inputs], [*self.model_options(), *words], start,
            extra=options.extra, typed=Typed(typed, sizes, words=typed_start(options)),
        )  # fmt: skip

    def warmup(self) -> Stage:
        options = self.options
        words = ["--dual-lambda", "0", "--lr", options.lr]
        words += ["--max-epoch", options.warmup_max_epoch] if options.warmup_max_epoch else []
        words += ["--patience", options.patience]
        stage = self.stage("warmup", "Warm start by maximum likelihood", words, [], [])
        stage.max_update = options.warmup_max_update
        return stage

    def beginning(self, known: bool) -> tuple[list[str], list[str]]:
        """The start of dual training: a line with the digest of its checkpoints, and options.

        Args:
            known: whether the checkpoints exist.
        """
        options, warm = self.options, self.run.stage("warmup").result
        if options.init_src2tgt:
            files = [options.init_src2tgt, options.init_tgt2src]
            start = ["--init-src2tgt", str(files[0]), "--init-tgt2src", str(files[1])]
        else:
            files, start = [warm], ["--finetune-from-model", str(warm)]
        return [f"start {digest(*files)}"] if known else [], start

    def dual(self, known: bool = True) -> Stage:
        options = self.options
        inputs, start = self.beginning(known)
        source_lm, target_lm = (self.lms[language] for language in self.data.languages)
        words = ["--dual-lambda", options.dual_lambda]
        for name in ("dual_lambda_reverse", "dual_start_update", "dual_ramp_updates", "dual_gap_clip"):
            if getattr(options, name) is not None:
                words += [flag(name), getattr(options, name)]
        words += ["--lr", options.dual_lr]
        words += ["--max-epoch", options.dual_max_epoch] if options.dual_max_epoch else []
        words += ["--patience", options.patience]
        stage = self.stage(
            "dual", f"Dual training, λ = {options.dual_lambda}", words,
            [*inputs, *([f"language models {digest(source_lm, target_lm)}"] if known else [])],
            [*start, "--src-lm", str(source_lm), "--tgt-lm", str(target_lm),
             "--lm-score-cache", str(self.run.folder / "lm-scores")],
        )  # fmt: skip
        stage.max_update = options.dual_max_update
        return stage

    def mle(self, known: bool = True) -> Stage:
        dual = self.run.stage("dual")
        if self.rounds and known:
            updates = self.rounds.updates()
        elif known and not dual.last.is_file():
            raise UserError(
                f"{dual.last} is missing; it holds the number of updates for the control: put it back, or leave "
                "--control out"
            )
        else:
            updates = ask(step("pipeline.probe", "updates", dual.last)) if known else updates_of(dual)
        title = "Control: maximum likelihood continued for " + (f"{updates} updates" if known else "as many updates")
        inputs, start = self.beginning(known)
        stage = self.stage("mle", title, ["--dual-lambda", "0", "--lr", self.options.dual_lr], inputs, start)
        stage.max_update = updates
        return stage

    def language_model(self, language: str) -> argparse.Namespace:
        """The options of train-lm for a language."""
        options = self.options
        words = [f"{self.data.folder / 'lm' / language}", f"{self.run.language_model(language).folder}"]
        for name in LM_OPTIONS:
            value = getattr(options, f"lm_{name}")
            words += [f"{flag(name)}={value}"] if value else []
        words.append(f"--seed={options.seed}")
        words += ["--continue"] if options.go_on else []
        return train_lm.parse(words, prefix="lm-")

    def evaluation(self, stage: str, expected: bool = False, run: RunFolder | None = None) -> evaluate.Evaluation:
        """The evaluation of a stage's result, in this run or in ``run``."""
        options = self.options
        words = [f"{self.data.folder}", f"{(run or self.run).stage(stage).result}", f"--split={options.split}"]
        words += [f"--beam={options.beam}", f"--lenpen={options.lenpen}"]
        for name in ("max_len_a", "max_len_b", "sacrebleu_tokenize"):
            value = getattr(options, name)
            words += [f"{flag(name)}={value}"] if value else []
        lms = self.lms or {"src": options.src_lm, "tgt": options.tgt_lm}
        if all(lms.values()):
            words += [f"--{side}-lm={lm}" for side, lm in zip(("src", "tgt"), lms.values(), strict=True)]
            # the weights are tuned on valid, so scores on valid would say nothing
            words += ["--dual-inference"] if options.dual_inference and options.split != "valid" else []
        device = Device(self.device.gpus, 1)
        return evaluate.Evaluation(evaluate.get_parser().parse_args(words), [], device, expected)

    @property
    def stages(self) -> list[str]:
        """The names of the stages of the pair, in the order of training."""
        options = self.options
        if options.warmup_only:
            return ["warmup"]
        return ["warmup"] * (not options.init_src2tgt) + ["dual"] + ["mle"] * options.control

    # --- the work

    def do(self) -> None:
        """Train and evaluate the stages that are not finished.

        Raises:
            UserError: RUN holds another training or is in use, or a command failed.
        """
        options, data = self.options, self.data
        with locked(self.run.folder):
            say(f"Dual training {data.source} <-> {data.target} ({self.device}): {data.folder} -> {self.run.folder}")
            for line in self.chosen:
                say(line)
            evaluate.say_missing(options, data)
            look_ahead(self)
            missing, checked = self.to_train, False
            if missing and not self.run.language_model(missing[-1]).finished.is_file():
                self.check_pair(
                    self.beginning(False)[1] if options.init_src2tgt else []
                )  # before hours are spent on language models
                checked = True
            for language in missing:
                with self.going_on():
                    train_lm.train(self.language_model(language), self.device)
            if "warmup" in self.stages:
                if len(missing) < len(self.lms) and not self.run.stage("warmup").finished.is_file():
                    # The warm start does not use the language models: errors in them should show before it, not after.
                    source_lm, target_lm = map(str, self.lms.values())
                    self.check_pair(["--src-lm", source_lm, "--tgt-lm", target_lm], times=not checked)
                self.train(self.warmup())
            if self.rounds:
                self.keep_options(self.run.folder / "rounds")
                self.rounds.do()
            elif "dual" in self.stages:
                self.train(self.dual())
            if "mle" in self.stages:
                self.train(self.mle())
            if not self.left_out:
                self.keep_options(self.run.folder)
            if options.eval:
                self.evaluate()

    def check_pair(self, checkpoints: list[str], times: bool = True) -> None:
        """Let fairseq check the pair's options and the validation text, before any training.

        Args:
            checkpoints: options that name language models, or the checkpoints to start from.
            times: whether to print how long the training takes.
        """
        words = [str(self.data.dual), "--user-dir", str(PACKAGE), *self.model_options(), "--dual-lambda", "0"]
        words += [*checkpoints, "--save-dir", str(self.run.stage("warmup").folder), *self.device.options]
        with TemporaryDirectory() as folder:
            output = Path(folder) / "output"
            status = run(step("plugin.check", *words, *self.options.extra), output)
            text = output.read_text(encoding="utf-8", errors="replace").strip()
        if status:
            refused = Typed(words=typed_start(self.options)).message(refusal(text))
            raise UserError(refused or f"{text}\nthe check of the options ended with status {status}")
        source, target, *seconds = text.splitlines()[-1].split()
        for language, longest in zip(self.data.languages, (source, target), strict=True):
            if language not in self.to_train or self.data.sides[language].labels:
                continue
            if int(longest) > int(self.language_model(language).max_tokens):
                raise UserError(
                    f"--lm-max-tokens {self.language_model(language).max_tokens}: the longest validation sentence of "
                    f"{language} has {longest} tokens, </s> included; give --lm-max-tokens {longest} or more"
                )
        if times and seconds and self.device.processes == 1:
            say(longest_time(self.options, self.data, self.stages, float(*seconds)))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """If nothing is left to train here, say so: other stages are trained."""
        try:
            yield
        except NothingLeft as reason:
            say(f"  {reason}")
            self.left_out = True

    def train(self, stage: Stage) -> None:
        """Train a stage unless it is finished."""
        with self.going_on():
            trained = stage.begin(self.options.go_on)
            if not trained:
                self.data.keep(self.run.text)  # only now it is known that RUN was made from DEST
                say(stage.finished_before())
            else:
                with stage.recorded_anew(self.run.folder / "train.toml", *self.run.text.glob("[!.]*")):
                    self.data.keep(self.run.text)
                    self.keep_options(self.run.folder)
                    say(f"{stage.title}: {stage.files.folder}")
                    stage.train(self.device)
            averaging.average(stage.files, self.options.average, trained)

    def keep_options(self, folder: Path) -> None:
        """Write ``train.toml``: to RUN, or to the folder of its rounds, which read it."""
        options = vars(self.options)
        names = {action.dest: action.option_strings[0][2:] for action in get_parser()._actions if action.option_strings}
        left_out = ("help", "config", "dry_run", "go_on", "init")
        kept = {name: options[dest] for dest, name in names.items() if dest not in left_out}
        texts = [language for language in self.to_train if not self.data.sides[language].labels]
        lms = [vars(self.language_model(language)) for language in texts]
        for name in LM_OPTIONS if lms else ():
            values = {lm[name] for lm in lms}  # texts of different sizes have different settings
            kept[f"lm-{name.replace('_', '-')}"] = values.pop() if len(values) == 1 else None
        again = shlex.join(["dual-fairseq", "train", str(self.data.folder), "RUN", "--config", "train.toml"])
        folder.mkdir(exist_ok=True)
        write_text(folder / "train.toml", config.text(f"to train so again: {again}", kept, self.options.extra))

    def evaluated(self, run: RunFolder, stage: str) -> Path:
        """The folder of the scores of a stage's result, which is evaluated first if it was not."""
        evaluation = self.evaluation(stage, run=run)
        evaluation.run()
        return evaluation.out

    def evaluate(self) -> None:
        """Evaluate the result of each stage, and print a table."""
        if self.rounds:
            say(self.rounds.table())
            return
        folders = {stage: self.run.stage(stage).evaluation(self.options.split) for stage in STAGES}
        for stage in self.stages:
            say(f"Evaluation of stage {stage}: {self.run.stage(stage).result.name}")
            folders[stage] = self.evaluated(self.run, stage)
        files = {stage: folder / "scores.json" for stage, folder in folders.items()}
        systems = [
            Scored(STAGES[stage], self.run, stage, file.parent, read_scores(file))
            for stage, file in files.items()
            if file.is_file()
        ]
        table = score_table((system.name, system.scores) for system in systems)
        say("\n".join([table, *measurement_notes(systems), *comparison_notes(systems)]))

    def show(self) -> None:
        """Print the commands of all stages, ready to copy."""
        for line in self.chosen:
            say(f"# {line}")
        for language in self.to_train:
            train_lm.show(self.language_model(language), self.device)
        for name in self.stages:
            if name == "dual" and self.rounds:
                self.rounds.show()
                continue
            stage = self.warmup() if name == "warmup" else getattr(self, name)(known=False)
            show(stage.title, stage.command(self.device, shown=True))
        for name in self.stages if self.options.eval else []:
            self.evaluation(name, expected=True).show()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    training = Training(parse(arguments))
    if training.options.dry_run:
        training.show()
    else:
        training.do()
