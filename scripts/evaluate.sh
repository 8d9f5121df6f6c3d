#!/usr/bin/env bash
# Evaluate a pair; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/training.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

usage() {
    cat <<'HELP'
Translate a split in both directions with one checkpoint of a pair, and score the result.

    scripts/evaluate.sh DEST CHECKPOINT [options] [-- more fairseq-generate options]

DEST is the folder that scripts/preprocess.sh wrote, CHECKPOINT a checkpoint or a run (its best is taken: of the stage dual,
else mle, else warmup); the references are DEST/raw/<split>.<language>. For each direction
the output folder gets, all in the order of the split, detokenised:
  <src>-<tgt>.src.txt, .hyp.txt, .ref.txt   source, translation, reference
  <src>-<tgt>.generate.txt                  what fairseq-generate printed
and scores.json: BLEU and chrF with their sacreBLEU signatures, length ratio, NLL in bits a target token (of the
reference), and with both language models the mean |gap| in nats a sentence pair.

The same command again does nothing; another checkpoint or other options overwrite the output.

  --split NAME              test (default), valid, ...
  --out DIR                 output folder (default: eval/<split> beside the checkpoint)
  --beam N                  beam size (default 5)
  --lenpen X                length penalty: above 1 favours longer output (default 1)
  --max-tokens N            tokens in a batch (default 4096)
  --src-lm FILE             language model of the source language ...
  --tgt-lm FILE             ... and of the target language, to measure |gap| (both or none; default: those in the run,
                            RUN/lm/<language>, if there are such)
  --dual-inference          also re-score the translations of the beam by both models and both language models: weights
                            tuned on the validation text (<out>/tuning/<src>-<tgt>), results in scores.json and
                            <src>-<tgt>.dual-inference.hyp.txt; needs both language models
  --tune-split NAME         the validation text (default valid)
  --sacrebleu-tokenize NAME sacreBLEU's tokenizer, in both directions (default: 13a, or the one that sacreBLEU has for
                            the target language: zh, ja-mecab, ko-mecab)
  --cpu                     use no GPU even if there is one
  -h, --help                this text
HELP
}

SPLIT=test OUT='' BEAM=5 LENPEN=1 MAX_TOKENS=4096 SRC_LM='' TGT_LM='' SACREBLEU='' CPU=0 DUAL_INFERENCE=0 TUNE_SPLIT=valid
OPERANDS=() EXTRA=()
stoppable "$0" "$@"
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --split) need_value "$@" && SPLIT=$2 && shift ;;
        --out) need_value "$@" && OUT=$(safe_path "$2") && shift ;;
        --beam) need_value "$@" && number "$1" "$2" && BEAM=$2 && shift ;;
        --lenpen) need_value "$@" && decimal "$1" "$2" && LENPEN=$2 && shift ;;
        --max-tokens) need_value "$@" && number "$1" "$2" && MAX_TOKENS=$2 && shift ;;
        --src-lm) need_value "$@" && SRC_LM=$2 && shift ;;
        --tgt-lm) need_value "$@" && TGT_LM=$2 && shift ;;
        --dual-inference) DUAL_INFERENCE=1 ;;
        --tune-split) need_value "$@" && TUNE_SPLIT=$2 && shift ;;
        --sacrebleu-tokenize) need_value "$@" && SACREBLEU=$2 && shift ;;
        --cpu) CPU=1 ;;
        --) shift && EXTRA=("$@") && break ;;
        -?*) die "unknown option $1 (see --help; options of fairseq-generate go after --)" ;;
        *) OPERANDS+=("$1") ;;
    esac
    shift
done
((${#OPERANDS[@]} == 2)) || die "give the folder of preprocess.sh and a checkpoint (see --help)"
DEST=$(safe_path "${OPERANDS[0]}") CHECKPOINT=$(best_checkpoint "$(safe_path "${OPERANDS[1]}")")
for name in "$SPLIT" "$TUNE_SPLIT"; do
    [[ $name =~ ^[A-Za-z0-9_]+$ ]] || die "--split and --tune-split take a name such as test, not '$name'"
done
if ((DUAL_INFERENCE)); then
    [[ $SPLIT != "$TUNE_SPLIT" ]] || die "--dual-inference tunes its weights on '$TUNE_SPLIT': evaluate another split"
fi
[[ -f $CHECKPOINT ]] || die "$CHECKPOINT: there is no such checkpoint"
[[ -z $SRC_LM && -z $TGT_LM || -n $SRC_LM && -n $TGT_LM ]] || die "give both --src-lm and --tgt-lm, or neither"
for file in ${SRC_LM:+"$SRC_LM" "$TGT_LM"}; do
    [[ -f $file ]] || die "$file: there is no such language model"
done

find_environment
read_record "$DEST"
OWN=$(dirname -- "$CHECKPOINT")/../lm
if [[ -z $SRC_LM && -f $OWN/$SOURCE/checkpoint_best.pt && -f $OWN/$TARGET/checkpoint_best.pt ]]; then
    SRC_LM=$OWN/$SOURCE/checkpoint_best.pt TGT_LM=$OWN/$TARGET/checkpoint_best.pt
fi
((!DUAL_INFERENCE)) || [[ -n $SRC_LM ]] ||
    die "--dual-inference needs the language models, which are not in $OWN: give --src-lm and --tgt-lm"
case $SUBWORD in # fairseq's name of what makes words of tokens again
    bpe) WORDS=(--post-process subword_nmt) ;;
    char) WORDS=(--post-process sentencepiece) ;;
    *) WORDS=() ;;
esac
PAIR=$SOURCE-$TARGET
SPLITS=("$SPLIT")
((!DUAL_INFERENCE)) || SPLITS+=("$TUNE_SPLIT")
TEXTS=()
for split in "${SPLITS[@]}"; do
    for language in "$SOURCE" "$TARGET"; do
        [[ -f $DEST/dual/$split.$PAIR.$language.idx ]] || die "$DEST/dual has no split '$split' of $PAIR: see --split"
        [[ -f $DEST/raw/$split.$language ]] || die "$DEST/raw/$split.$language not found: run scripts/preprocess.sh again"
        TEXTS+=("$DEST/raw/$split.$language")
    done
done
whole "$CHECKPOINT" || die "$CHECKPOINT is not a checkpoint, or was cut short: give a checkpoint_best.pt of a pair"
[[ -n $OUT ]] || OUT=$(dirname -- "$CHECKPOINT")/eval/$SPLIT
lock "$OUT"

OPTIONS=(--beam "$BEAM" --lenpen "$LENPEN" "${EXTRA[@]}")
IDENTITY="checkpoint $(sha256 "$CHECKPOINT")
data $(sha256 "$DEST"/dual/dict.{"$SOURCE","$TARGET"}.txt "${TEXTS[@]}")
language models ${SRC_LM:+$(sha256 "$SRC_LM" "$TGT_LM")}
$(option_lines "${OPTIONS[@]}" --sacrebleu-tokenize "$SACREBLEU" --dual-inference "${SPLITS[*]:1}")"
if [[ -s $OUT/scores.json && -f $OUT/options.txt && $(<"$OUT/options.txt") == "$IDENTITY" ]]; then
    say "Evaluated before: $OUT/scores.json"
    exit
fi
rm -f -- "$OUT/options.txt" "$OUT/scores.json"

# fairseq_output NAME COMMAND...: run it, its output to OUT/NAME; says why if it fails.
fairseq_output() {
    local name=$1 error
    shift
    run_job piped "$OUT/$name.tmp" "$@" || {
        error=$(grep -aE '^(dual_fairseq|fairseq-[a-z]+): error: ' "$OUT/$name.tmp" | head -n 1) || true
        [[ -z $error ]] || die "${error#*: error: }"
        tail -n 20 "$OUT/$name.tmp" >&2
        die "$1 failed; its output is in $OUT/$name.tmp"
    }
    mv -f -- "$OUT/$name.tmp" "$OUT/$name"
}

# count SPLIT: its sentences. Read by sed, not as a number of line-end characters: the last line may lack one.
count() {
    local lines
    lines=$(sed -n '$=' "$DEST/raw/$1.$SOURCE")
    printf '%s' "${lines:-0}"
}

piped() {
    local file=$1
    shift
    "$@" 2>&1 | tee -- "$file" | "$PYTHON" "$ROOT/scripts/progress.py" --sentences "$SENTENCES"
}

find_device "$CPU" 1
refuse_half_precision "${EXTRA[@]}"
# fairseq drops the last batch when its size is not a multiple of --required-batch-size-multiple (8 unless told).
COMMON=("$DEST/dual" --user-dir "$ROOT/dual_fairseq" --task dual_translation --path "$CHECKPOINT"
    --max-tokens "$MAX_TOKENS" --required-batch-size-multiple 1 --skip-invalid-size-inputs-valid-test "${DEVICE[@]}")
# The checkpoint remembers a λ and LM files, which this measurement shall not depend on, and that BLEU was wanted.
OVERRIDES=$("$PYTHON" - "$SRC_LM" "$TGT_LM" <<'PY'
import sys

source, target = (path or None for path in sys.argv[1:])
weight = 1.0 if source else 0.0
lms = {"src_lm": source, "tgt_lm": target, "lm_score_cache": None}
print({"dual_lambda": weight, "dual_lambda_reverse": weight, **lms, "eval_bleu": False})
PY
)
SENTENCES=$(count "$SPLIT")
say "Measuring NLL${SRC_LM:+ and |gap|}"
fairseq_output validate.txt fairseq-validate "${COMMON[@]}" -s "$SOURCE" -t "$TARGET" --valid-subset "$SPLIT" \
    --log-format json --model-overrides "$OVERRIDES"
# translate SPLIT FROM TO NAME: the translations of a split, its n-best lists with all scores for dual inference.
translate() {
    local split=$1 from=$2 to=$3 name=$4 options=("${OPTIONS[@]}")
    SENTENCES=$(count "$split")
    if ((DUAL_INFERENCE)); then
        local lms=("$SRC_LM" "$TGT_LM")
        [[ $from == "$SOURCE" ]] || lms=("$TGT_LM" "$SRC_LM")
        options+=(--nbest "$BEAM" --dual-inference-alpha 1 --src-lm "${lms[0]}" --tgt-lm "${lms[1]}")
    fi
    say "Translating $split, $from -> $to: $SENTENCES sentences ($WHERE)"
    fairseq_output "$name" fairseq-generate "${COMMON[@]}" -s "$from" -t "$to" --gen-subset "$split" \
        "${WORDS[@]}" --max-len-a 1.5 --max-len-b 20 --no-progress-bar "${options[@]}"
}

for direction in "$SOURCE $TARGET" "$TARGET $SOURCE"; do
    read -r from to <<<"$direction"
    translate "$SPLIT" "$from" "$to" "$from-$to.generate.txt"
    if ((DUAL_INFERENCE)); then
        mkdir -p -- "$OUT/tuning/$from-$to"
        translate "$TUNE_SPLIT" "$from" "$to" "tuning/$from-$to/generate.txt"
        say "Tuning the weights of dual inference, $from -> $to"
        run_module tune "$OUT/tuning/$from-$to/generate.txt" --out "$OUT/tuning/$from-$to" -t "$to" \
            --reference "$DEST/raw/$TUNE_SPLIT.$to" --tokenizer "$TOKENIZER" --lenpen "$LENPEN" \
            ${SACREBLEU:+--sacrebleu-tokenize "$SACREBLEU"} >"$OUT/tuning/$from-$to/table.txt"
    fi
done

DI=()
((!DUAL_INFERENCE)) || DI=(--dual-inference)
run_module evaluate-files score "$DEST" "$OUT" --split "$SPLIT" "${DI[@]}" \
    ${SACREBLEU:+--sacrebleu-tokenize "$SACREBLEU"}
printf '%s\n' "$IDENTITY" | replace "$OUT/options.txt"
