"""The scores of an experiment as many papers on Multi30k give them: lower-cased and tokenised.

    python experiments/published.py experiments/recipes/multi30k-all.toml WORK --seeds 1 2 3

Translations and references are normalised, lower-cased and tokenised by Moses' rules, as in the files lc.norm.tok of
Multi30k's task 1. BLEU is computed on these tokens. It cannot be compared with the scores of other tables.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dual_fairseq.common.arguments import Parser
from dual_fairseq.common.errors import UserError
from dual_fairseq.experiment.recipe import Recipe, add_experiment
from dual_fairseq.experiment.results import all_scores_of, result_of
from dual_fairseq.experiment.run import work_of
from dual_fairseq.experiment.table import SEARCHES, markdown, mean_sd


def published_form(lines: Sequence[str], language: str) -> list[str]:
    """Lower-cased tokens, separated by spaces."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)
    return [tokenizer.tokenize(normalizer.normalize(line.lower()), return_str=True, escape=False) for line in lines]


def table(recipe: Recipe, work: Path, seeds: Sequence[int]) -> str:
    """Markdown; a line for each row that is evaluated for all seeds.

    Raises:
        UserError: no row is.
    """
    from sacrebleu.metrics import BLEU

    directions = [(recipe.source, recipe.target), (recipe.target, recipe.source)]
    searches = ("plain", "dual_inference")
    head = ["", *(f"{source}→{target} {SEARCHES[s]}" for source, target in directions for s in searches)]
    body, missing, metric = [], [], BLEU(tokenize="none", force=True)
    for row in recipe.rows:
        places = all_scores_of(recipe, work, row, seeds)
        if not places:
            missing.append(row.id)
            continue
        cells = [row.name]
        for source, target in directions:
            results = [result_of(recipe, work, place, f"{source}-{target}") for place in places]
            references = [[published_form(result.references, target)] for result in results]
            for search in searches:
                texts = [published_form(result.texts[search], target) for result in results]
                cells.append(
                    mean_sd([metric.corpus_score(*pair).score for pair in zip(texts, references, strict=True)])
                )
        body.append(cells)
    if not body:
        raise UserError(f"{work}: no row is evaluated for all seeds; run dual-fairseq experiment first")
    test = f" Test text: {recipe.test}." if recipe.test else ""
    about = f"{recipe.title}: lower-cased, Moses' tokens. Seeds {', '.join(map(str, seeds))}."
    note = f"{about}{test} {metric.get_signature()}"
    return "\n".join([*markdown(head, body), "", note, *([f"Not evaluated: {', '.join(missing)}."] if missing else [])])


def main() -> None:
    parser = Parser("experiments/published.py", str(__doc__))
    add_experiment(parser)
    options = parser.parse_args(sys.argv[1:])
    print(table(Recipe.read(options.recipe), work_of(options.recipe, options.work), options.seeds))


if __name__ == "__main__":
    main()
