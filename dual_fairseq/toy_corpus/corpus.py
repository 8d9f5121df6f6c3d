"""``dual-fairseq toy-corpus``: text of the grammar, and its exact probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import write_json, write_text
from ..common.options import add_seed, whole_number
from .grammar import ToyGrammar
from .index import LANGUAGES
from .limits import entropies

DESCRIPTION = """\
Write the embedded corpus, pairs of German and English sentences, and its exact probabilities.

The command writes {train,valid,test,mono}.{de,en} to OUT, and then truth.json: the sums of the log-probabilities of
each split and the entropies of the grammar, in nats. The sentences of mono.de and mono.en are not translations of each
other."""


def write_corpus(
    out: Path,
    sizes: dict[str, int],
    mono: int,
    seed: int,
    grammar: ToyGrammar | None = None,
    entropy_samples: int = 2000,
) -> dict:
    """Writes the corpus and ``truth.json`` (last, so that its presence means that all files are complete).

    Args:
        out: folder, made if it is missing.
        sizes: pairs per split (``train``, ``valid`` and ``test``), drawn separately.
        mono: sentences of ``mono.de`` and of ``mono.en``.

    Returns:
        The content of ``truth.json``; log-probabilities and entropies in nats.

    Raises:
        CannotWrite: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    grammar = grammar or ToyGrammar()
    splits: dict[str, dict[str, float]] = {}
    train: set[tuple[str, str]] = set()
    (out / "truth.json").unlink(missing_ok=True)
    for offset, (split, size) in enumerate(sizes.items()):
        pairs = grammar.sample(size, _seed(seed, offset))
        for lang, *column in zip(LANGUAGES, *pairs, strict=True):
            write_text(out / f"{split}.{lang}", "".join(line + "\n" for line in column))
        splits[split] = _truth(grammar, pairs)
        if split == "train":
            train = set(pairs)
        elif train:
            splits[split]["share_in_train"] = sum(pair in train for pair in pairs) / size
    for offset, lang in enumerate(LANGUAGES):
        drawn = grammar.sample(mono, _seed(seed, len(sizes) + offset))
        write_text(out / f"mono.{lang}", "".join(pair[offset] + "\n" for pair in drawn))
    truth = {
        "unit": "nats",
        "seed": seed,
        "splits": splits,
        "mono": {"sentences": mono},
        "entropies": entropies(grammar, entropy_samples),
    }
    write_json(out / "truth.json", truth)
    return truth


def _seed(seed: int, offset: int) -> int:
    # Far apart, so that neighbouring seeds of the user share no split.
    return seed * 1_000 + offset


def _truth(grammar: ToyGrammar, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    joint = math.fsum(grammar.log_prob_joint(de, en) for de, en in pairs)
    source = math.fsum(grammar.log_prob(de, "de") for de, _ in pairs)
    target = math.fsum(grammar.log_prob(en, "en") for _, en in pairs)
    return {
        "sentences": len(pairs),
        "log_p_joint": joint,
        "log_p_de": source,
        "log_p_en": target,
        "log_p_en_given_de": math.fsum(grammar.log_prob_conditional(en, de, "de") for de, en in pairs),
        "log_p_de_given_en": math.fsum(grammar.log_prob_conditional(de, en, "en") for de, en in pairs),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the description above."""
    parser = Parser("toy-corpus", DESCRIPTION)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    for split, name, default in (("train", "training", 3000), ("valid", "validation", 500), ("test", "test", 500)):
        parser.add_argument(
            f"--{split}", type=whole_number(), default=default, metavar="N", help=f"{name} pairs (default %(default)s)"
        )
    parser.add_argument(
        "--mono", type=whole_number(0), default=20_000, metavar="N",
        help="monolingual sentences per language (default %(default)s)",
    )  # fmt: skip
    add_seed(parser)
    options = parser.parse_args(arguments)
    sizes = {"train": options.train, "valid": options.valid, "test": options.test}
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file; name a folder to write the corpus to")
    truth = write_corpus(options.out, sizes, options.mono, options.seed)
    limits = truth["entropies"]
    print(
        f"wrote {', '.join(f'{size} {name}' for name, size in sizes.items())} pairs and {options.mono} monolingual "
        f"sentences per language to {options.out}; H(en|de) = {limits['en_given_de']:.2f}, "
        f"H(de|en) = {limits['de_given_en']:.2f} nats a sentence"
    )
