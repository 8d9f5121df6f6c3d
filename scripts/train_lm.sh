#!/usr/bin/env bash
# Train a language model; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/training.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

usage() {
    cat <<'HELP'
Train the language model of one language, for dual training.

    scripts/train_lm.sh DATA SAVE_DIR [options] [-- more fairseq-train options]

DATA is the language's folder that scripts/preprocess.sh wrote (DEST/lm/de); its dictionary is that of the translation
data. SAVE_DIR gets checkpoint_best.pt, checkpoint_last.pt, dict.txt, train.log and perplexity.json. Each sentence is
trained on alone (--sample-break-mode eos), as dual training scores it, unless --running-text is given.

The same command again goes on where it was stopped; when it had finished, it does nothing.

  --arch lstm|transformer|rnn
                            the model (default lstm, which is fairseq's; rnn is one with a choice of cells)
  --cell rnn|gru|lstm       the cell of --arch rnn (default lstm; rnn is the plain one, with tanh)
  --size tiny|small|base    its size (default small), tied embeddings in all of them:
                              lstm, rnn    1x256 (d=128), 2x512 (d=256), 2x1024 (d=512)
                              transformer  2 layers d=128, 4 layers d=256, 6 layers d=512
  --running-text BLOCK      with --arch rnn: train on the text as it runs on from sentence to sentence, by truncated
                            back-propagation through blocks of BLOCK tokens (e.g. 64), for models of text beyond the
                            sentence; the perplexity is then that of running text
  --dropout P               default 0.3 for lstm and rnn; 0.1, 0.2, 0.3 for the transformers
  --max-tokens N            tokens in a batch, on each device (default 4096)
  --lr RATE                 peak learning rate of Adam (default 0.001 for lstm and rnn, 0.0005 for transformer)
  --lr-warmup N             updates until that peak; then it falls with the inverse square root (default 400)
  --max-epoch N             at most so many epochs (default 50)
  --max-update N            at most so many updates (default: no limit)
  --patience N              stop after N validations without improvement (default 4)
  --seed N                  default 1
  --nproc N                 processes, through torchrun (default: one for each GPU, or one on the CPU)
  --cpu                     use no GPU even if there is one
  --continue                go on in a SAVE_DIR that was trained with other options or input
  -h, --help                this text

Whatever follows `--` goes to fairseq-train as it is and wins over the above: -- --fp16 --update-freq 4
HELP
}

ARCH=lstm CELL='' SIZE=small BLOCK='' DROPOUT='' MAX_TOKENS=4096 LR='' LR_WARMUP=400 MAX_EPOCH=50 MAX_UPDATE='' PATIENCE=4 SEED=1
NPROC='' CPU=0 CONTINUE=0
OPERANDS=() EXTRA=()
stoppable "$0" "$@"
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --arch) need_value "$@" && ARCH=$2 && shift ;;
        --cell) need_value "$@" && CELL=$2 && shift ;;
        --size) need_value "$@" && SIZE=$2 && shift ;;
        --running-text) need_value "$@" && number "$1" "$2" && BLOCK=$2 && shift ;;
        --dropout) need_value "$@" && decimal "$1" "$2" && DROPOUT=$2 && shift ;;
        --max-tokens) need_value "$@" && number "$1" "$2" && MAX_TOKENS=$2 && shift ;;
        --lr) need_value "$@" && decimal "$1" "$2" && LR=$2 && shift ;;
        --lr-warmup) need_value "$@" && number "$1" "$2" && LR_WARMUP=$2 && shift ;;
        --max-epoch) need_value "$@" && number "$1" "$2" && MAX_EPOCH=$2 && shift ;;
        --max-update) need_value "$@" && number "$1" "$2" && MAX_UPDATE=$2 && shift ;;
        --patience) need_value "$@" && number "$1" "$2" && PATIENCE=$2 && shift ;;
        --seed) need_value "$@" && number "$1" "$2" && SEED=$2 && shift ;;
        --nproc) need_value "$@" && number "$1" "$2" && NPROC=$2 && shift ;;
        --cpu) CPU=1 ;;
        --continue) CONTINUE=1 ;;
        --) shift && EXTRA=("$@") && break ;;
        -?*) die "unknown option $1 (see --help; options of fairseq-train go after --)" ;;
        *) OPERANDS+=("$1") ;;
    esac
    shift
done
((${#OPERANDS[@]} == 2)) || die "give the data folder and the folder for the model (see --help)"
DATA=$(safe_path "${OPERANDS[0]}") SAVE_DIR=$(safe_path "${OPERANDS[1]}")

for name in dict.txt train.bin train.idx valid.bin valid.idx; do
    [[ -f $DATA/$name ]] || die "$DATA/$name not found: give a language's folder that scripts/preprocess.sh wrote, DEST/lm/<language>"
done
[[ $DATA != *:* ]] || die "fairseq takes ':' in a data path for a separator: rename $DATA"

case $ARCH-$SIZE in
    lstm-tiny | rnn-tiny) MODEL=(1 128 256) ;;
    lstm-small | rnn-small) MODEL=(2 256 512) ;;
    lstm-base | rnn-base) MODEL=(2 512 1024) ;;
    transformer-tiny) MODEL=(2 128 4 512 0.1) ;;
    transformer-small) MODEL=(4 256 4 1024 0.2) ;;
    transformer-base) MODEL=(6 512 8 2048 0.3) ;;
    lstm-* | rnn-* | transformer-*) die "--size $SIZE: choose tiny, small or base" ;;
    *) die "--arch $ARCH: choose lstm, transformer or rnn" ;;
esac
[[ $ARCH == rnn || -z $CELL ]] || die "--cell $CELL is for --arch rnn, not $ARCH"
[[ $ARCH == rnn || -z $BLOCK ]] || die "--running-text $BLOCK is for --arch rnn, not $ARCH"
case ${CELL:=lstm} in
    rnn | gru | lstm) ;;
    *) die "--cell $CELL: choose rnn, gru or lstm" ;;
esac
[[ -z $BLOCK ]] || ((10#$MAX_TOKENS >= 10#$BLOCK)) ||
    die "--running-text $BLOCK: needs --max-tokens of at least as many, not $MAX_TOKENS"
MODEL_OPTIONS=(--arch "${ARCH}_lm" --decoder-layers "${MODEL[0]}" --decoder-embed-dim "${MODEL[1]}"
    --share-decoder-input-output-embed)
if [[ $ARCH == rnn ]]; then
    MODEL_OPTIONS+=(--cell "$CELL" --decoder-hidden-size "${MODEL[2]}" --dropout "${DROPOUT:-0.3}")
elif [[ $ARCH == lstm ]]; then
    MODEL_OPTIONS+=(--decoder-out-embed-dim "${MODEL[1]}" --decoder-hidden-size "${MODEL[2]}" --dropout "${DROPOUT:-0.3}")
else
    MODEL_OPTIONS+=(--decoder-attention-heads "${MODEL[2]}" --decoder-ffn-embed-dim "${MODEL[3]}"
        --dropout "${DROPOUT:-${MODEL[4]}}")
fi
[[ -n $LR ]] || { [[ $ARCH == transformer ]] && LR=0.0005 || LR=0.001; }
TASK=(--task language_modeling --sample-break-mode eos)
# Validation text in one stream a process: its perplexity shall not depend on the size of a batch.
[[ -z $BLOCK ]] || TASK=(--task language_modeling_running_text --tokens-per-sample "$BLOCK" --batch-size-valid 1)

# fairseq drops the last batch of the longest sentences, in training and validation, when the number of its sentences is
# not a multiple of --required-batch-size-multiple (8 unless told).
OPTIONS=(
    "${TASK[@]}" "${MODEL_OPTIONS[@]}" --criterion cross_entropy
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0
    --lr "$LR" --lr-scheduler inverse_sqrt --warmup-updates "$LR_WARMUP" --warmup-init-lr 1e-7
    --max-tokens "$MAX_TOKENS" --required-batch-size-multiple 1 --max-epoch "$MAX_EPOCH" --patience "$PATIENCE" --seed "$SEED"
)

find_environment
find_device "$CPU" "$NPROC"
refuse_half_precision "${EXTRA[@]}"
lock "$SAVE_DIR"
IDENTITY="data $(sha256 "$DATA"/{dict.txt,train.idx,valid.idx})
$(option_lines "${OPTIONS[@]}" --max-update "${MAX_UPDATE:-none}" "${EXTRA[@]}")"
if begin_stage "$SAVE_DIR" "$CONTINUE"; then
    [[ $ARCH != rnn ]] || ARCH="rnn, $CELL"
    say "Language model ($ARCH, $SIZE; $WHERE): $DATA -> $SAVE_DIR"
    cp -f -- "$DATA/dict.txt" "$SAVE_DIR/dict.txt"
    # --user-dir: without the plugin's compat module today's torch refuses to resume.
    train "$SAVE_DIR" "$MAX_UPDATE" "$DATA" --user-dir "$ROOT/dual_fairseq" "${OPTIONS[@]}" \
        --skip-invalid-size-inputs-valid-test --no-epoch-checkpoints --log-format json --log-interval 50 "${EXTRA[@]}"
else
    say "Language model: finished before ($SAVE_DIR)"
fi
if [[ ! $SAVE_DIR/perplexity.json -nt $SAVE_DIR/checkpoint_best.pt ]]; then
    read -r updates bits <<<"$(checkpoint_updates "$SAVE_DIR/checkpoint_best.pt")"
    "$PYTHON" - "$updates" "$bits" <<'PY' >"$SAVE_DIR/perplexity.json.tmp"
import json, sys

updates, bits = int(sys.argv[1]), float(sys.argv[2])
print(json.dumps({"perplexity": 2**bits, "bits_per_token": bits, "num_updates": updates}))
PY
    mv -f -- "$SAVE_DIR/perplexity.json.tmp" "$SAVE_DIR/perplexity.json"
fi
say "  validation perplexity $(sed -E 's/.*"perplexity": ([0-9]+(\.[0-9]{1,2})?).*/\1/' "$SAVE_DIR/perplexity.json")" \
    "a token: $SAVE_DIR/checkpoint_best.pt"
