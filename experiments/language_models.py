"""Language models by cell and by token on the embedded corpus, whose entropy is known.

    python experiments/language_models.py WORK [--cpu]

Each model sees the same sentences as often; a BPE token and a character are not the same thing, so models are compared
by bits a sentence, `</s>` included, and by their distance from the truth's own, −log₂ P(sentence). WORK gets table.md.
The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from pathlib import Path

from runner import DUAL_FAIRSEQ, Runner
from table import markdown

LANGUAGES = ("de", "en")
TEXT = "--train 3000 --valid 500 --test 500 --mono 12000 --seed 1"
COMMON = "--size tiny --max-tokens 1024 --max-epoch 6 --patience 6 --lr 0.004 --lr-warmup 50 --dropout 0.1"
CHARACTERS = "--size tiny --max-tokens 4096 --max-epoch 6 --patience 6 --lr 0.004 --lr-warmup 50 --dropout 0.1"
# name → tokens, options of dual-fairseq train-lm
MODELS = {
    "LSTM (fairseq's `lstm_lm`)": ("bpe", COMMON),
    "LSTM": ("bpe", f"{COMMON} --arch rnn --cell lstm"),
    "GRU": ("bpe", f"{COMMON} --arch rnn --cell gru"),
    "plain RNN": ("bpe", f"{COMMON} --arch rnn --cell rnn"),
    "LSTM, characters": ("char", f"{CHARACTERS} --arch rnn --cell lstm"),
    "GRU, characters": ("char", f"{CHARACTERS} --arch rnn --cell gru"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cpu", action="store_true", help="use no GPU even if there is one")
    options = parser.parse_args()
    work = options.work.resolve()
    text = work / "text"

    with Runner(work, ["--cpu"] if options.cpu else []) as runner:
        runner("text", [*DUAL_FAIRSEQ, "toy-corpus", str(text), *TEXT.split()])
        for tokens, kind in (("bpe", "--bpe-size 1200"), ("char", "--subword char")):
            script = (
                f"-s de -t en --train {text}/train --valid {text}/valid --extra-mono-source {text}/mono.de "
                f"--extra-mono-target {text}/mono.en --dest {work}/{tokens} {kind}"
            )
            runner(tokens, [*DUAL_FAIRSEQ, "preprocess", *shlex.split(script)])
        for number, (name, (tokens, settings)) in enumerate(MODELS.items()):
            for language in LANGUAGES:
                print(f"{name}: {language}", flush=True)
                folder = work / f"model-{number}" / language
                command = [*DUAL_FAIRSEQ, "train-lm", str(work / tokens / "lm" / language), str(folder)]
                runner(f"model-{number}-{language}", [*command, *runner.machine, *settings.split()])
    tabulate(work)


def tabulate(work: Path) -> None:
    """Write and print table.md."""
    from fairseq.data.data_utils import load_indexed_dataset

    truth = json.loads((work / "text" / "truth.json").read_text())["splits"]["valid"]
    head = ["", "tokens"]
    for language in LANGUAGES:
        head += [f"{language}: perplexity a token", "bits a sentence", "above the limit"]
    head.append("updates")
    body = []
    for number, (name, (tokens, _)) in enumerate(MODELS.items()):
        cells = [name, tokens]
        for language in LANGUAGES:
            found = json.loads((work / f"model-{number}" / language / "perplexity.json").read_text())
            sentences = load_indexed_dataset(str(work / tokens / "lm" / language / "valid"), None)
            assert sentences is not None and len(sentences) == truth["sentences"]
            bits = found["bits_per_token"] * int(sentences.sizes.sum()) / len(sentences)
            limit = -truth[f"log_p_{language}"] / math.log(2) / len(sentences)
            cells += [f"{found['perplexity']:.2f}", f"{bits:.2f}", f"+{bits - limit:.2f}"]
        body.append([*cells, f"{found['num_updates']:,}"])
    text = "\n".join(markdown(head, body)) + "\n"
    (work / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
