"""Commands that the pipeline runs: stopped, locked, and what is shown of their output."""

import json
import time

import pytest

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
    assert capsys.readouterr().out == "".join(
        f"  {n} of 1,234 sentences, about {minutes} min to go\n" for n, minutes in ((30, 20), (60, 20), (90, 19))
    )


def inner(update: int, epochs: float) -> str:
    stats = {"epoch": 1, "update": epochs, "num_updates": str(update), "loss": "5", "wps": "900"}
    return f"2026 | INFO | train_inner | {json.dumps(stats)}"


def test_progress_has_a_total_and_a_time_to_go(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for limits in (("1000", None), (None, "20"), ("4000", "20"), (None, None)):
        display = TrainingDisplay(*limits)
        display(inner(50, 1.0))
        now[0] += 60
        display(inner(150, 3.0))
        out = capsys.readouterr().out
        if limits == (None, None):
            assert "update 150, loss 5.00, 900 tokens/s\n" in out
        else:
            assert "update 150 of 1,000, loss 5.00, 900 tokens/s, at most 8 min to go without validation\n" in out, (
                limits
            )


def test_the_time_to_go_counts_validations(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display = TrainingDisplay("1000")
    for updates in (100, 200):  # one a second; a validation takes 200 seconds
        display(inner(updates - 99, updates / 100))
        now[0] += 99
        display(inner(updates, updates / 100))
        display('2026 | INFO | fairseq_cli.train | begin validation on "valid" subset')
        now[0] += 200
        display(valid(updates, bleu=updates))
    now[0] += 60
    display(inner(260, 2.6))
    out = capsys.readouterr().out
    assert "update 100 of 1,000, loss 5.00, 900 tokens/s, at most 15 min to go without validation\n" in out
    assert out.count("validation has begun\n") == 1
    # 458 seconds for 259 updates, so 1,309 for the 740 to come, and 200 for each of three validations
    assert "update 260 of 1,000, loss 5.00, 900 tokens/s, at most 32 min to go\n" in out


def test_short_epochs_have_a_total_and_a_time_to_go(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for limits in (("8000", None), (None, "800")):
        display = TrainingDisplay(*limits)
        for epoch in range(1, 41):
            now[0] += 1
            if epoch % 5 == 0:
                display(inner(epoch * 10, epoch))
            if epoch in (10, 20):
                display('2026 | INFO | fairseq_cli.train | begin validation on "valid" subset')
                display(valid(epoch * 10, bleu=1))
            display(f'2026 | INFO | train | {{"epoch": {epoch}, "train_num_updates": "{epoch * 10}"}}')
        out = capsys.readouterr().out
        assert "NLL  bits; 100 of 8,000 updates, at most 13 min to go\n" in out
        assert "NLL  bits; 200 of 8,000 updates, at most 13 min to go\n" in out
        assert "update " not in out and out.count("train:") == 40
        now[0] += 11
        display(inner(410, 41))
        assert "update 410 of 8,000, loss 5.00, 900 tokens/s, at most 16 min to go\n" in capsys.readouterr().out


def valid(update: int, **values: float) -> str:
    stats = {
        "epoch": update // 10,
        "valid_num_updates": str(update),
        **{f"valid_{k}": str(v) for k, v in values.items()},
    }
    return f"2026 | INFO | valid | {json.dumps(stats)}"


NAMES = {"max-update": "--warmup-max-update", "max-epoch": "--warmup-max-epoch"}
MAX_UPDATE = "2026 | INFO | fairseq_cli.train | Stopping training due to num_updates: 30 >= max_update: 30"
EARLY = "2026 | INFO | fairseq_cli.train | early stop since valid performance hasn't improved for last 10 runs"
LAST_EPOCH = '2026 | INFO | train | {"epoch": 3, "train_num_updates": "30"}'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([valid(10, bleu=1), valid(20, bleu=2, best_bleu=2), MAX_UPDATE],
         "stopped by --warmup-max-update 30; BLEU was still rising: more updates would help"),
        ([valid(20, bleu=2, best_bleu=2), MAX_UPDATE],
         "stopped by --warmup-max-update 30; BLEU was still rising: more updates would help"),
        ([valid(20, bleu=2), MAX_UPDATE], "stopped by --warmup-max-update 30"),
        ([valid(10, bleu=3), valid(20, bleu=2, best_bleu=3), MAX_UPDATE], "stopped by --warmup-max-update 30"),
        ([valid(10, bleu=2), valid(20, bleu=2, best_bleu=2), MAX_UPDATE], "stopped by --warmup-max-update 30"),
        ([valid(10, loss=3), valid(20, loss=2, best_loss=2), LAST_EPOCH],
         "stopped by --warmup-max-epoch 3; perplexity was still falling: more updates would help"),
        ([valid(10, bleu=3), valid(20, bleu=2, best_bleu=3), EARLY],
         "stopped by --patience: the last validations brought no improvement"),
    ],
    ids=["rising", "going on", "the first", "not rising", "level", "epochs", "patience"],
)  # fmt: skip
def test_a_training_says_why_it_stopped(lines, expected, capsys):
    display = TrainingDisplay("30", "3")
    for line in lines:
        display(line)
        display(line)  # of another process
    assert display.reason(lambda name: NAMES.get(name, f"--{name}")) == expected
