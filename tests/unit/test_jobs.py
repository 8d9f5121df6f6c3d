"""Commands that the pipeline runs: stopped, locked, and what is shown of their output."""

import json
import time

from dual_fairseq.pipeline.progress import SentenceDisplay, TrainingDisplay


def test_progress_shows_each_validation_once(capsys):
    valid = {
        "epoch": 3,
        "valid_bleu": "20.5",
        "valid_bleu_xx-yy": "21",
        "valid_bleu_yy-xx": "20",
        "valid_best_bleu": "22",
    }
    valid |= {"valid_nll_loss": "4.1", "valid_gap_abs": "7.25", "valid_num_updates": "1200"}
    line = f"2026-01-01 00:00:00 | INFO | valid | {json.dumps(valid)}"
    display = TrainingDisplay()
    for text in (
        "not | a | log | line",
        line,
        line,
        line[:-9],
        '2026 | INFO | train_inner | {"epoch": 3, "loss": "5"}',
    ):
        display(text)
    assert capsys.readouterr().out == (
        "  epoch   3  valid: BLEU 20.50 (xx-yy 21.00, yy-xx 20.00), best 22.00; NLL 4.10 bits; mean |gap| 7.25 nats; "
        "1,200 updates\n"
    )


def test_progress_counts_sentences_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = SentenceDisplay(1234)
    for _ in range(100):
        now[0] += 1
        for text in ("S-1\ta b", "H-1\t-1.0\tc d", "H-1\t-2.0\tc"):
            display(text)
    assert capsys.readouterr().out == "".join(f"  {n} of 1,234 sentences\n" for n in (30, 60, 90))
