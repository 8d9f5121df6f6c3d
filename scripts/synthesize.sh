#!/usr/bin/env bash
# Parallel text that a pair makes of monolingual text; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/training.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

usage() {
    cat <<'HELP'
Make parallel text of monolingual text: a pair translates both languages' text, for the pair to be trained on.

    scripts/synthesize.sh DEST CHECKPOINT OUT [options]

DEST is the folder that scripts/preprocess.sh wrote, with extra monolingual text of both languages (DEST/raw/mono.<lang>);
CHECKPOINT a pair trained on it, or its run. OUT.<source> and OUT.<target> get the pairs: first the source language's lines with their
translations, then the target language's. A line with its translation is a pair for both directions, for in one of them
its target is a person's (back-translation) and in the other it carries over what chose the translation: by default all of
the pair and both language models (dual inference), with the weights that scripts/evaluate.sh --dual-inference tuned.

Then, with the options that DEST was made with, and some epochs more from where the pair stands:

    scripts/preprocess.sh ... --synthetic OUT --upsample 3 --dest DEST2
    scripts/train_dual.sh DEST2 RUN2 --init-src2tgt CHECKPOINT --init-tgt2src CHECKPOINT

The same command again does nothing; stopped, it goes on after the last language that is done.

  --lines N                 of each language, drawn at random (default: all)
  --weights DIR             holds <src>-<tgt>/weights.json (default: eval/test/tuning beside CHECKPOINT)
  --plain                   no dual inference: the best translation of the beam
  --src-lm FILE             language model of the source language ...
  --tgt-lm FILE             ... and of the target language (default: those that the pair was trained with)
  --beam N                  beam size (default 5)
  --max-tokens N            source tokens in a batch (default 4096)
  --seed N                  of what is drawn (default 1)
  --cpu                     use no GPU even if there is one
  -h, --help                this text
HELP
}

COUNT='' WEIGHTS='' PLAIN=0 SRC_LM='' TGT_LM='' BEAM=5 MAX_TOKENS=4096 SEED=1 CPU=() OPERANDS=()
stoppable "$0" "$@"
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --lines) need_value "$@" && number "$1" "$2" && COUNT=$2 && shift ;;
        --weights) need_value "$@" && WEIGHTS=$2 && shift ;;
        --plain) PLAIN=1 ;;
        --src-lm) need_value "$@" && SRC_LM=$2 && shift ;;
        --tgt-lm) need_value "$@" && TGT_LM=$2 && shift ;;
        --beam) need_value "$@" && number "$1" "$2" && BEAM=$2 && shift ;;
        --max-tokens) need_value "$@" && number "$1" "$2" && MAX_TOKENS=$2 && shift ;;
        --seed) need_value "$@" && number "$1" "$2" && SEED=$2 && shift ;;
        --cpu) CPU=(--cpu) ;;
        -?*) die "unknown option $1 (see --help)" ;;
        *) OPERANDS+=("$1") ;;
    esac
    shift
done
((${#OPERANDS[@]} == 3)) || die "give the folder of preprocess.sh, a checkpoint and the prefix of what to write (see --help)"
DEST=$(safe_path "${OPERANDS[0]}") OUT=$(safe_path "${OPERANDS[2]}")
CHECKPOINT=$(best_checkpoint "$(safe_path "${OPERANDS[1]}")")
for file in ${SRC_LM:+"$SRC_LM"} ${TGT_LM:+"$TGT_LM"}; do
    [[ -f $file ]] || die "$file: there is no such language model"
done
[[ -f $CHECKPOINT ]] || die "$CHECKPOINT: there is no such checkpoint"
find_environment
read_record "$DEST"
: "${WEIGHTS:=$(dirname -- "$CHECKPOINT")/eval/test/tuning}"
for language in "$SOURCE" "$TARGET"; do
    [[ -f $DEST/raw/mono.$language ]] ||
        die "$DEST/raw/mono.$language not found: run preprocess.sh with --extra-mono-source and --extra-mono-target"
done
INPUTS=("$CHECKPOINT" "$DEST"/raw/mono.{"$SOURCE","$TARGET"})
if ((PLAIN == 0)); then
    for direction in "$SOURCE-$TARGET" "$TARGET-$SOURCE"; do
        [[ -f $WEIGHTS/$direction/weights.json ]] ||
            die "$WEIGHTS/$direction/weights.json not found: run evaluate.sh --dual-inference first, or give --weights or --plain"
        INPUTS+=("$WEIGHTS/$direction/weights.json")
    done
fi
PARTS=$OUT.parts
lock "$PARTS"
IDENTITY="input $(sha256 "${INPUTS[@]}" ${SRC_LM:+"$SRC_LM"} ${TGT_LM:+"$TGT_LM"})
$(option_lines --lines "${COUNT:-all}" --beam "$BEAM" --seed "$SEED" --plain "$PLAIN")"
if [[ ! -f $PARTS/options.txt || $(<"$PARTS/options.txt") != "$IDENTITY" ]]; then
    rm -f -- "$PARTS"/*.txt "$OUT.$SOURCE" "$OUT.$TARGET"
    printf '%s\n' "$IDENTITY" | replace "$PARTS/options.txt" || die "cannot write to $PARTS: is the disk full?"
fi
if [[ -f $OUT.$SOURCE && -f $OUT.$TARGET ]]; then
    say "Made before: $OUT.$SOURCE, $OUT.$TARGET"
    exit
fi

# translated FROM LM TO LM: PARTS/FROM.txt, lines of a language, and PARTS/FROM-TO.txt, their translations.
translated() {
    local from=$1 from_lm=$2 to=$3 to_lm=$4 choice=()
    ((PLAIN == 1)) || choice=(--dual-inference "$WEIGHTS/$from-$to/weights.json" ${from_lm:+--src-lm "$from_lm"}
        ${to_lm:+--tgt-lm "$to_lm"})
    if [[ ! -f $PARTS/$from.txt ]]; then
        "$PYTHON" - "$DEST/raw/mono.$from" "${COUNT:-0}" "$SEED" <<'PY' >"$PARTS/$from.txt.tmp"
import random, sys

path, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, encoding="utf-8", newline="\n") as file:
    lines = file.readlines()
if 0 < count < len(lines):
    lines = [lines[i] for i in sorted(random.Random(seed).sample(range(len(lines)), count))]
sys.stdout.reconfigure(encoding="utf-8", newline="\n")
sys.stdout.writelines(line.rstrip("\n") + "\n" for line in lines)
PY
        mv -f -- "$PARTS/$from.txt.tmp" "$PARTS/$from.txt"
    fi
    [[ ! -f $PARTS/$from-$to.txt ]] || return 0
    say "Translating $(wc -l <"$PARTS/$from.txt") lines, $from -> $to"
    run_module translate "$CHECKPOINT" --dest "$DEST" -s "$from" -t "$to" --beam "$BEAM" --max-tokens "$MAX_TOKENS" \
        --input "$PARTS/$from.txt" --output "$PARTS/$from-$to.txt" "${choice[@]}" "${CPU[@]}"
}
translated "$SOURCE" "$SRC_LM" "$TARGET" "$TGT_LM"
translated "$TARGET" "$TGT_LM" "$SOURCE" "$SRC_LM"

"$PYTHON" - "$PARTS" "$OUT" "$SOURCE" "$TARGET" <<'PY'
import os, sys

parts, out, source, target = sys.argv[1:]


def lines(name):
    with open(f"{parts}/{name}.txt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


pairs = [*zip(lines(source), lines(f"{source}-{target}"), strict=True)]
pairs += zip(lines(f"{target}-{source}"), lines(target), strict=True)
kept = [pair for pair in pairs if all(side.strip() for side in pair)]  # what became nothing is no pair
if not kept:
    sys.exit(f"synthesize.sh: error: {parts}: every translation is empty; train the pair longer")
for language, side in zip((source, target), zip(*kept), strict=True):
    with open(f"{out}.{language}.tmp", "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in side)
    os.replace(f"{out}.{language}.tmp", f"{out}.{language}")
print(f"{len(kept):,} pairs: {out}.{source}, {out}.{target}" + (f"; {len(pairs) - len(kept)} had an empty side" * (len(pairs) > len(kept))))
PY
