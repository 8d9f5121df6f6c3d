"""A batch seen from both sides: every pair in both orders, each padded as fairseq pads it alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, FairseqDataset, LanguagePairDataset

from dual_fairseq.plugin.dataset import DualLanguagePairDataset, align_rows

LENGTHS = [(3, 9), (7, 2), (5, 5), (7, 4), (1, 6)]  # tokens before </s>, source and target


class Sentences(torch.utils.data.Dataset):
    def __init__(self, dictionary: Dictionary, lengths: list[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.sentences = [
            torch.cat([torch.randint(4, len(dictionary), (n,), generator=generator), torch.tensor([dictionary.eos()])])
            for n in lengths
        ]
        self.sizes = [n + 1 for n in lengths]

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.sentences[index]

    def __len__(self) -> int:
        return len(self.sentences)


def dictionary(size: int) -> Dictionary:
    symbols = Dictionary()
    for i in range(size):
        symbols.add_symbol(f"w{i}")
    return symbols


def pair_dataset(swap: bool = False) -> LanguagePairDataset:
    src_dict, tgt_dict = dictionary(30), dictionary(20)
    src = Sentences(src_dict, [s for s, _ in LENGTHS], 1)
    tgt = Sentences(tgt_dict, [t for _, t in LENGTHS], 2)
    sides = [(src, src.sizes, src_dict), (tgt, tgt.sizes, tgt_dict)]
    (a, b) = reversed(sides) if swap else sides
    return LanguagePairDataset(*a, *b)


def assert_same_batch(batch, expected) -> None:
    assert batch["id"].tolist() == expected["id"].tolist()
    assert batch["ntokens"] == expected["ntokens"] and batch["nsentences"] == expected["nsentences"]
    torch.testing.assert_close(batch["target"], expected["target"])
    assert batch["net_input"].keys() == expected["net_input"].keys()
    for key, value in expected["net_input"].items():
        torch.testing.assert_close(batch["net_input"][key], value)


def test_a_batch_is_both_plain_batches():
    dual = DualLanguagePairDataset(pair_dataset())
    batch = dual.collater([dual[i] for i in range(len(LENGTHS))])
    for part, plain in ((batch, pair_dataset()), (batch["reverse"], pair_dataset(swap=True))):
        assert_same_batch(part, plain.collater([plain[i] for i in range(len(LENGTHS))]))


def test_each_direction_is_sorted_by_its_own_source_and_rows_are_found_again():
    dual = DualLanguagePairDataset(pair_dataset())
    batch = dual.collater([dual[i] for i in range(len(LENGTHS))])
    for part in (batch, batch["reverse"]):
        lengths = part["net_input"]["src_lengths"].tolist()
        assert lengths == sorted(lengths, reverse=True)
    assert batch["id"].tolist() != batch["reverse"]["id"].tolist()
    assert batch["reverse"]["id"][batch["align"]].tolist() == batch["id"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_align_rows(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(9, generator=generator) * 100
    other = ids[torch.randperm(9, generator=generator)]
    assert other[align_rows(ids, other)].tolist() == ids.tolist()


def test_no_sentence_of_an_evaluation_split_gets_lost_in_batching():
    indices = pair_dataset().ordered_indices()
    options = {"max_tokens": 100, "required_batch_size_multiple": 2}
    batches = DualLanguagePairDataset(pair_dataset(), keep_remainder=True).batch_by_size(indices, **options)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    assert [len(b) for b in DualLanguagePairDataset(pair_dataset()).batch_by_size(indices, **options)] == [
        len(b) for b in pair_dataset().batch_by_size(indices, **options)
    ]


def test_a_source_side_alone_is_batched_whole_as_fairseq_does():
    words = Sentences(symbols := dictionary(30), [length for length, _ in LENGTHS], 1)
    plain = LanguagePairDataset(words, words.sizes, symbols)
    dual = DualLanguagePairDataset(plain, keep_remainder=True)
    batches = dual.batch_by_size(plain.ordered_indices(), max_tokens=100, required_batch_size_multiple=8)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    batch = dual.collater([dual[i] for i in range(len(LENGTHS))])
    expected = plain.collater([plain[i] for i in range(len(LENGTHS))])
    assert batch.keys() == expected.keys() and batch["id"].tolist() == expected["id"].tolist()


def test_where_nothing_is_left_over_no_batch_is_added():
    dual = DualLanguagePairDataset(pair_dataset(), keep_remainder=True)
    batches = dual.batch_by_size(np.arange(len(LENGTHS)), max_tokens=1000, max_sentences=1)
    assert [len(batch) for batch in batches] == [1] * len(LENGTHS)


def test_cached_scores_are_those_of_the_batch_s_rows_and_keep_their_digits():
    scores = tuple(np.arange(len(LENGTHS), dtype=np.float32) * factor - 300.1 for factor in (1, -7))
    dual = DualLanguagePairDataset(pair_dataset(), lm_scores=scores)
    batch = dual.collater([dual[i] for i in (3, 0, 4)])
    for name, of_all in zip(("log_p_source", "log_p_target"), scores, strict=True):
        assert batch[name].dtype == torch.float64
        assert batch[name].tolist() == [float(of_all[i]) for i in batch["id"].tolist()]


def test_an_empty_list_gives_an_empty_batch():
    assert DualLanguagePairDataset(pair_dataset()).collater([]) == {}


def test_it_survives_the_way_to_a_data_loader_worker_and_passes_on_what_fairseq_asks_for():
    dual = pickle.loads(pickle.dumps(DualLanguagePairDataset(pair_dataset())))
    assert isinstance(dual, FairseqDataset) and len(dual) == len(LENGTHS)
    assert dual.src_sizes[0] == 4 and dual.size(0) == (4, 10)
    kept, removed = dual.filter_indices_by_size(dual.ordered_indices(), (6, 6))
    assert sorted(kept) == [2] and sorted(removed) == [0, 1, 3, 4]
    with pytest.raises(AttributeError):
        dual.no_such_thing  # noqa: B018
