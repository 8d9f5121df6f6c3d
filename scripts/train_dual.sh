#!/usr/bin/env bash
# Train a pair of translation models; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/training.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

usage() {
    cat <<'HELP'
Train both translation models of a language pair with dual supervision, from preprocessed text to evaluated models.

    scripts/train_dual.sh DEST RUN [options] [-- more fairseq-train options]

DEST is the folder that scripts/preprocess.sh wrote. The stages, each with its folder in RUN:
  lm/<language>  the two language models (scripts/train_lm.sh), unless they are given
  warmup         warm start: the pair by maximum likelihood (λ = 0), until the mean BLEU of both directions on the
                 validation text no longer improves
  dual           dual training from the best warm start, until the mean BLEU no longer improves
  mle            with --control: the same, but by maximum likelihood, for exactly as many updates
The language models' scores of the training text are computed once and kept in RUN/lm-scores. RUN/text holds what
dual-fairseq translate RUN needs of DEST: dictionaries, BPE codes, how text is tokenised.
Each keeps checkpoint_best.pt (best mean BLEU), checkpoint_last.pt and train.log, and is evaluated in both directions
(<stage>/eval/test, see scripts/evaluate.sh). A table of the results ends the run.

The same command again goes on where it was stopped; finished stages are not done twice.

Language models
  --src-lm FILE, --tgt-lm FILE    trained language models of the source and the target language (default: train them)
  --lm-arch lstm|transformer|rnn, --lm-cell rnn|gru|lstm, --lm-size tiny|small|base, --lm-max-tokens N, --lm-lr RATE,
  --lm-lr-warmup N, --lm-max-epoch N, --lm-patience N    for the training of those not given: see scripts/train_lm.sh

The pair
  --arch NAME               any encoder-decoder of fairseq (default transformer), or rnnsearch, rnn_luong,
                            rnn_encoder_decoder, each also with _small (docs/recurrent.md)
  --size tiny|small|base    for --arch transformer: 2+2 layers d=128, 4+4 d=256 (default), 6+6 d=512; decoder embeddings
                            tied. Another arch has its own defaults: set its dimensions after `--`
  --dropout P               default 0.2, 0.3, 0.3 for the sizes above; another arch: its own
  --label-smoothing X       default 0.1; never in the gap
  --init-src2tgt FILE, --init-tgt2src FILE
                            start dual training from two plain fairseq translation checkpoints of the same --arch and
                            dictionaries, instead of the stage warmup

Dual training
  --dual-lambda X           weight of the squared gap, both directions (default 0.01)
  --dual-lambda-reverse X   that of target->source, when it differs
  --dual-start-update N     weight 0 for the first N updates (default 0)
  --dual-ramp-updates N     then growing linearly over N updates (default 0)
  --dual-gap-clip X         bound |gap| (nats) in the gradient (default 0: not bounded)
  --control                 train and evaluate the stage mle too

Both stages of the pair
  --max-tokens N            target tokens in a batch, on each device (default 4096)
  --lr RATE                 peak learning rate of the warm start (default 0.001, 0.0007, 0.0007 for the sizes;
                            another arch: 0.0007)
  --dual-lr RATE            peak learning rate of dual training and of mle (default 0.0005, 0.0003, 0.0003;
                            another arch: 0.0003)
  --lr-warmup N             updates until the peak, then inverse square root (default 200, 1000, 4000;
                            another arch: 1000)
  --warmup-max-epoch N      at most so many epochs of warm start (default 100)
  --warmup-max-update N     at most so many updates of warm start (default: no limit)
  --dual-max-epoch N        at most so many epochs of dual training (default 50)
  --dual-max-update N       at most so many updates of dual training (default: no limit)
  --warmup-only             train the warm start and no more; needs no language models, whose options and those of dual
                            training are then of no account
  --patience N              stop after N validations without a better mean BLEU (default 10)
  --valid-beam N            beam size of validation (default 1)
  --seed N                  default 1

Evaluation
  --split NAME              what to evaluate on (default: test, or valid if there is no test)
  --beam N, --lenpen X, --sacrebleu-tokenize NAME    see scripts/evaluate.sh
  --no-dual-inference       do not re-score translations by both models and both language models as well (weights are
                            tuned on the validation text; takes another translation of it)
  --no-eval                 leave it out

Machine
  --nproc N                 processes, through torchrun (default: one for each GPU, or one on the CPU)
  --cpu                     use no GPU even if there is one
  --continue                go on in stages that were trained with other options or input
  -h, --help                this text

Whatever follows `--` goes to fairseq-train of the pair's stages as it is and wins over the above:
  -- --fp16 --update-freq 4
  -- --save-interval-updates 2000 --keep-interval-updates 1    for long epochs: less is lost when stopped
HELP
}

SRC_LM='' TGT_LM='' LM_ARCH='' LM_CELL='' LM_OPTIONS=()
ARCH=transformer SIZE='' DROPOUT='' LABEL_SMOOTHING=0.1 INIT_SRC2TGT='' INIT_TGT2SRC=''
LAMBDA=0.01 DUAL_OPTIONS=() CONTROL=0 WARMUP_ONLY=0
MAX_TOKENS=4096 LR='' DUAL_LR='' LR_WARMUP='' WARMUP_MAX_EPOCH=100 WARMUP_MAX_UPDATE='' DUAL_MAX_EPOCH=50
DUAL_MAX_UPDATE='' PATIENCE=10 VALID_BEAM=1 SEED=1
SPLIT='' EVAL_OPTIONS=() EVALUATE=1 DUAL_INFERENCE=1
NPROC='' CPU=0 CONTINUE=0
OPERANDS=() EXTRA=()
stoppable "$0" "$@"
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --src-lm) need_value "$@" && SRC_LM=$2 && shift ;;
        --tgt-lm) need_value "$@" && TGT_LM=$2 && shift ;;
        --lm-arch) need_value "$@" && LM_ARCH=$2 && shift ;;
        --lm-cell) need_value "$@" && LM_CELL=$2 && shift ;;
        --lm-size) need_value "$@" && LM_OPTIONS+=(--size "$2") && shift ;;
        --lm-lr) need_value "$@" && decimal "$1" "$2" && LM_OPTIONS+=(--lr "$2") && shift ;;
        --lm-max-tokens | --lm-lr-warmup | --lm-max-epoch | --lm-patience)
            need_value "$@" && number "$1" "$2" && LM_OPTIONS+=("--${1#--lm-}" "$2") && shift
            ;;
        --arch) need_value "$@" && ARCH=$2 && shift ;;
        --size) need_value "$@" && SIZE=$2 && shift ;;
        --dropout) need_value "$@" && decimal "$1" "$2" && DROPOUT=$2 && shift ;;
        --label-smoothing) need_value "$@" && decimal "$1" "$2" && LABEL_SMOOTHING=$2 && shift ;;
        --init-src2tgt) need_value "$@" && INIT_SRC2TGT=$2 && shift ;;
        --init-tgt2src) need_value "$@" && INIT_TGT2SRC=$2 && shift ;;
        --dual-lambda) need_value "$@" && decimal "$1" "$2" && LAMBDA=$2 && shift ;;
        --dual-start-update | --dual-ramp-updates)
            need_value "$@" && count "$1" "$2" && DUAL_OPTIONS+=("$1" "$2") && shift
            ;;
        --dual-lambda-reverse | --dual-gap-clip)
            need_value "$@" && decimal "$1" "$2" && DUAL_OPTIONS+=("$1" "$2") && shift
            ;;
        --control) CONTROL=1 ;;
        --warmup-only) WARMUP_ONLY=1 ;;
        --max-tokens) need_value "$@" && number "$1" "$2" && MAX_TOKENS=$2 && shift ;;
        --lr) need_value "$@" && decimal "$1" "$2" && LR=$2 && shift ;;
        --dual-lr) need_value "$@" && decimal "$1" "$2" && DUAL_LR=$2 && shift ;;
        --lr-warmup) need_value "$@" && number "$1" "$2" && LR_WARMUP=$2 && shift ;;
        --warmup-max-epoch) need_value "$@" && number "$1" "$2" && WARMUP_MAX_EPOCH=$2 && shift ;;
        --warmup-max-update) need_value "$@" && number "$1" "$2" && WARMUP_MAX_UPDATE=$2 && shift ;;
        --dual-max-epoch) need_value "$@" && number "$1" "$2" && DUAL_MAX_EPOCH=$2 && shift ;;
        --dual-max-update) need_value "$@" && number "$1" "$2" && DUAL_MAX_UPDATE=$2 && shift ;;
        --patience) need_value "$@" && number "$1" "$2" && PATIENCE=$2 && shift ;;
        --valid-beam) need_value "$@" && number "$1" "$2" && VALID_BEAM=$2 && shift ;;
        --seed) need_value "$@" && number "$1" "$2" && SEED=$2 && shift ;;
        --split) need_value "$@" && SPLIT=$2 && shift ;;
        --beam) need_value "$@" && number "$1" "$2" && EVAL_OPTIONS+=("$1" "$2") && shift ;;
        --lenpen) need_value "$@" && decimal "$1" "$2" && EVAL_OPTIONS+=("$1" "$2") && shift ;;
        --sacrebleu-tokenize) need_value "$@" && EVAL_OPTIONS+=("$1" "$2") && shift ;;
        --no-dual-inference) DUAL_INFERENCE=0 ;;
        --no-eval) EVALUATE=0 ;;
        --nproc) need_value "$@" && number "$1" "$2" && NPROC=$2 && shift ;;
        --cpu) CPU=1 ;;
        --continue) CONTINUE=1 ;;
        --) shift && EXTRA=("$@") && break ;;
        -?*) die "unknown option $1 (see --help; options of fairseq-train go after --)" ;;
        *) OPERANDS+=("$1") ;;
    esac
    shift
done
((${#OPERANDS[@]} == 2)) || die "give the folder of preprocess.sh and the folder for the run (see --help)"
DEST=$(safe_path "${OPERANDS[0]}") RUN=$(safe_path "${OPERANDS[1]}")

for file in ${SRC_LM:+"$SRC_LM"} ${TGT_LM:+"$TGT_LM"}; do
    [[ -f $file ]] || die "$file: there is no such language model"
done
for file in ${INIT_SRC2TGT:+"$INIT_SRC2TGT"} ${INIT_TGT2SRC:+"$INIT_TGT2SRC"}; do
    [[ -f $file ]] || die "$file: there is no such checkpoint"
done
[[ -z $LM_CELL || $LM_ARCH == rnn ]] || die "--lm-cell $LM_CELL is for --lm-arch rnn: give that too"
LM_OPTIONS+=(${LM_ARCH:+--arch "$LM_ARCH"} ${LM_CELL:+--cell "$LM_CELL"})
[[ -z $INIT_SRC2TGT && -z $INIT_TGT2SRC || -n $INIT_SRC2TGT && -n $INIT_TGT2SRC ]] ||
    die "give both --init-src2tgt and --init-tgt2src, or neither"
((WARMUP_ONLY == 0)) || [[ -z $INIT_SRC2TGT && $CONTROL == 0 ]] ||
    die "--warmup-only: leave out --init-src2tgt, --init-tgt2src and --control, which are about what comes after it"
[[ -z $SIZE || $ARCH == transformer ]] || die "--size goes with --arch transformer; set the dimensions of $ARCH after --"

MODEL_OPTIONS=(--arch "$ARCH")
case ${SIZE:-small} in
    # layers, dimension, heads, feed-forward dimension, dropout, learning rates, updates until the peak
    tiny) PRESET=(2 128 4 512 0.2 0.001 0.0005 200) ;;
    small) PRESET=(4 256 4 1024 0.3 0.0007 0.0003 1000) ;;
    base) PRESET=(6 512 8 2048 0.3 0.0007 0.0003 4000) ;;
    *) die "--size $SIZE: choose tiny, small or base" ;;
esac
if [[ $ARCH == transformer ]]; then
    for side in encoder decoder; do
        MODEL_OPTIONS+=("--$side-layers" "${PRESET[0]}" "--$side-embed-dim" "${PRESET[1]}"
            "--$side-attention-heads" "${PRESET[2]}" "--$side-ffn-embed-dim" "${PRESET[3]}")
    done
    MODEL_OPTIONS+=(--share-decoder-input-output-embed --dropout "${DROPOUT:-${PRESET[4]}}")
elif [[ -n $DROPOUT ]]; then
    MODEL_OPTIONS+=(--dropout "$DROPOUT")
fi
: "${LR:=${PRESET[5]}}" "${DUAL_LR:=${PRESET[6]}}" "${LR_WARMUP:=${PRESET[7]}}"

find_environment
read_record "$DEST"
PAIR=$SOURCE-$TARGET
for split in train valid; do
    for language in "$SOURCE" "$TARGET"; do
        [[ -f $DEST/dual/$split.$PAIR.$language.idx ]] ||
            die "$DEST/dual/$split.$PAIR.$language.idx not found: run scripts/preprocess.sh with $split text"
    done
done
if [[ -z $SPLIT ]]; then
    SPLIT='test'
    [[ -f $DEST/dual/test.$PAIR.$SOURCE.idx ]] || SPLIT=valid
fi
find_device "$CPU" "$NPROC"
refuse_half_precision "${EXTRA[@]}"
lock "$RUN"
DATA_DIGEST=$(sha256 "$DEST"/dual/{dict."$SOURCE".txt,dict."$TARGET".txt} "$DEST"/dual/{train,valid}."$PAIR".{"$SOURCE","$TARGET"}.idx)
MACHINE_OPTIONS=()
((CPU == 0)) || MACHINE_OPTIONS+=(--cpu)
((CONTINUE == 0)) || LM_OPTIONS+=(--continue)
say "Dual training $SOURCE <-> $TARGET ($WHERE): $DEST -> $RUN"

case $SUBWORD in # what makes words of tokens again
    bpe) WORDS=(--eval-bleu-remove-bpe) ;;
    char) WORDS=(--eval-bleu-remove-bpe sentencepiece) ;;
    *) WORDS=() ;;
esac
# What the stages have in common. fairseq drops the last batch, that of the longest sentences, in training and
# validation, when the number of its sentences is not a multiple of --required-batch-size-multiple (8 unless told).
OPTIONS=(
    --task dual_translation --source-lang "$SOURCE" --target-lang "$TARGET" "${MODEL_OPTIONS[@]}"
    --criterion dual_cross_entropy --label-smoothing "$LABEL_SMOOTHING"
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 --weight-decay 0.0001
    --lr-scheduler inverse_sqrt --warmup-updates "$LR_WARMUP" --warmup-init-lr 1e-7
    --max-tokens "$MAX_TOKENS" --required-batch-size-multiple 1 --seed "$SEED"
    --eval-bleu "${WORDS[@]}" --eval-bleu-args "{\"beam\": $VALID_BEAM, \"max_len_a\": 1.2, \"max_len_b\": 10}"
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
)
if [[ $TOKENIZER == moses ]]; then
    OPTIONS+=(--eval-bleu-detok moses)
else
    OPTIONS+=(--eval-bleu-detok space)
    # Text that was segmented by someone else is scored as it is; that of characters was not segmented by anybody.
    [[ $SUBWORD == char ]] || OPTIONS+=(--eval-tokenized-bleu)
fi

# keep_text: RUN/text, all that translating raw text needs beside a checkpoint, so that RUN can be used without DEST. Of
# the record only what says how text is treated: the rest names files of this machine.
keep_text() {
    local language record
    mkdir -p -- "$RUN/text"
    for language in "$SOURCE" "$TARGET"; do
        replace "$RUN/text/dict.$language.txt" <"$DEST/dual/dict.$language.txt"
        [[ ! -f $DEST/bpe/codes.$language ]] || replace "$RUN/text/codes.$language" <"$DEST/bpe/codes.$language"
    done
    record=$("$PYTHON" - "$DEST/preprocess.json" <<'PY'
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    record = json.load(file)
keys = ("source", "target", "tokenizer", "lowercase", "subword", "bpe", "dictionary", "versions")
print(json.dumps({key: record[key] for key in keys if key in record}, indent=2, ensure_ascii=True))
PY
    )
    printf '%s\n' "$record" | replace "$RUN/text/preprocess.json"
}

# pair_stage STAGE TITLE MAX_UPDATE OPTION...: train a stage unless it is finished; INPUT names what it starts from.
pair_stage() {
    local dir=$RUN/$1 title=$2 max_update=$3
    shift 3
    IDENTITY="data $DATA_DIGEST${INPUT:+
$INPUT}
$(option_lines "${OPTIONS[@]}" "$@" --max-update "${max_update:-none}" "${EXTRA[@]}")"
    local finished=0
    begin_stage "$dir" "$CONTINUE" || finished=1
    keep_text # not before begin_stage has seen that DEST is what RUN was made from
    if ((finished == 1)); then
        say "$title: finished before ($dir)"
        return
    fi
    say "$title: $dir"
    train "$dir" "$max_update" "$DEST/dual" --user-dir "$ROOT/dual_fairseq" "${OPTIONS[@]}" "$@" "${START[@]}" \
        --skip-invalid-size-inputs-valid-test --no-epoch-checkpoints --log-format json --log-interval 50 "${EXTRA[@]}"
}

# evaluate STAGE: its best checkpoint, on the split.
evaluate() {
    ((EVALUATE == 1)) || return 0
    local re_score=() lms=()
    if [[ -n $SRC_LM && -n $TGT_LM ]]; then
        lms=(--src-lm "$SRC_LM" --tgt-lm "$TGT_LM")
    else
        DUAL_INFERENCE=0
    fi
    # its weights are tuned on valid, so valid itself would tell nothing
    [[ $DUAL_INFERENCE == 0 || $SPLIT == valid ]] || re_score=(--dual-inference)
    say "Evaluation of the best checkpoint of stage $1"
    run_or_exit "$ROOT/scripts/evaluate.sh" "$DEST" "$RUN/$1/checkpoint_best.pt" --split "$SPLIT" "${lms[@]}" \
        "${re_score[@]}" "${EVAL_OPTIONS[@]}" "${MACHINE_OPTIONS[@]}"
}

if ((WARMUP_ONLY == 0)) && [[ -z $SRC_LM || -z $TGT_LM ]] && [[ ! -f $RUN/lm/$TARGET/finished ]]; then
    # Before hours are spent on language models: what fairseq says of the pair's options.
    run_or_exit "$PYTHON" -c '
import argparse, logging, sys
logging.basicConfig(level=logging.ERROR)
def refuse(parser, message):
    sys.exit(f"train_dual.sh: error: {message}")
argparse.ArgumentParser.error = refuse
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

given = options.parse_args_and_arch(options.get_training_parser(), sys.argv[1:])
cfg = convert_namespace_to_omegaconf(given)
tasks.setup_task(cfg.task).build_model(cfg.model)
' "$DEST/dual" --user-dir "$ROOT/dual_fairseq" "${OPTIONS[@]}" --dual-lambda 0 --save-dir "$RUN/warmup" "${DEVICE[@]}" \
        "${EXTRA[@]}"
fi

# language_model LANGUAGE GIVEN: sets LM to the given language model, or trains one.
language_model() {
    LM=$2
    [[ -z $LM ]] || return 0
    LM=$RUN/lm/$1/checkpoint_best.pt
    run_or_exit "$ROOT/scripts/train_lm.sh" "$DEST/lm/$1" "$RUN/lm/$1" --seed "$SEED" "${LM_OPTIONS[@]}" \
        "${MACHINE_OPTIONS[@]}" ${NPROC:+--nproc "$NPROC"}
}
GIVEN=$SRC_LM$TGT_LM
if ((WARMUP_ONLY == 0)); then
    language_model "$SOURCE" "$SRC_LM" && SRC_LM=$LM
    language_model "$TARGET" "$TGT_LM" && TGT_LM=$LM
    LM_DIGEST=$(sha256 "$SRC_LM" "$TGT_LM")
fi
if [[ ! -f $RUN/warmup/finished && -z $INIT_SRC2TGT && -n $GIVEN && -n $SRC_LM && -n $TGT_LM ]]; then
    # The warm start does not look at the language models: better to know now than after it.
    run_or_exit "$PYTHON" -c '
import logging, sys
logging.basicConfig(level=logging.ERROR)
from fairseq.data import Dictionary
from dual_fairseq.plugin.language_model import load_language_model

dest, *languages = sys.argv[1:]
for option, language, path in zip(("--src-lm", "--tgt-lm"), languages[::2], languages[1::2]):
    load_language_model(path, Dictionary.load(f"{dest}/dual/dict.{language}.txt"), language, option)
' "$DEST" "$SOURCE" "$SRC_LM" "$TARGET" "$TGT_LM"
fi

STAGES=(dual)
INPUT='' START=()
if [[ -n $INIT_SRC2TGT ]]; then
    INPUT="start $(sha256 "$INIT_SRC2TGT" "$INIT_TGT2SRC")"
    START=(--init-src2tgt "$INIT_SRC2TGT" --init-tgt2src "$INIT_TGT2SRC")
else
    STAGES=(warmup dual)
    pair_stage warmup "Warm start by maximum likelihood" "$WARMUP_MAX_UPDATE" \
        --dual-lambda 0 --lr "$LR" --max-epoch "$WARMUP_MAX_EPOCH" --patience "$PATIENCE"
    INPUT="start $(sha256 "$RUN/warmup/checkpoint_best.pt")"
    START=(--finetune-from-model "$RUN/warmup/checkpoint_best.pt")
fi

if ((WARMUP_ONLY == 1)); then
    STAGES=(warmup)
else
    BEFORE=$INPUT
    INPUT+="
language models $LM_DIGEST"
    WARM=("${START[@]}")
    START+=(--src-lm "$SRC_LM" --tgt-lm "$TGT_LM" --lm-score-cache "$RUN/lm-scores")
    pair_stage dual "Dual training, λ = $LAMBDA" "$DUAL_MAX_UPDATE" --dual-lambda "$LAMBDA" "${DUAL_OPTIONS[@]}" \
        --lr "$DUAL_LR" --max-epoch "$DUAL_MAX_EPOCH" --patience "$PATIENCE"

    if ((CONTROL == 1)); then
        STAGES+=(mle)
        read -r UPDATES _ <<<"$(checkpoint_updates "$RUN/dual/checkpoint_last.pt")"
        INPUT=$BEFORE START=("${WARM[@]}")
        pair_stage mle "Control: maximum likelihood continued for $UPDATES updates" "$UPDATES" --dual-lambda 0 --lr "$DUAL_LR"
    fi
fi

((EVALUATE == 1)) || exit 0
for stage in "${STAGES[@]}"; do
    evaluate "$stage"
done
run_module evaluate-files table "$RUN" --split "$SPLIT"
