#!/usr/bin/env bash
# The whole pipeline on the embedded corpus; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'HELP'
The whole pipeline on the embedded corpus, a small German-English grammar whose probabilities are known exactly:
preprocessing, both language models, a warm start by maximum likelihood, dual training, a control that goes on with
maximum likelihood for as many updates, and a table, a picture and a page at the end. Under 10 minutes on two CPU cores.

    scripts/demo.sh [RUN]

RUN (default runs/demo) gets everything; RUN/report/ the result. The same command again goes on where it was stopped.
HELP
}

case ${1-} in
    -h | --help) usage && exit ;;
    -?*) die "unknown option $1 (see --help)" ;;
esac
(($# <= 1)) || die "give at most one folder (see --help)"
RUN=$(safe_path "${1:-$ROOT/runs/demo}")
find_environment
SECONDS=0
stage() { printf '\n=== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

stage "1/4 Drawing 3,000 sentence pairs from the grammar"
if [[ -f $RUN/text/truth.json ]]; then
    echo "drawn before: $RUN/text"
else
    mkdir -p -- "$RUN"
    "$PYTHON" -m dual_fairseq toy-corpus "$RUN/text" --train 3000 --valid 300 --test 500 --mono 12000 --seed 1
fi

stage "2/4 Preprocessing"
"$ROOT/scripts/preprocess.sh" -s de -t en --train "$RUN/text/train" --valid "$RUN/text/valid" --test "$RUN/text/test" \
    --extra-mono-source "$RUN/text/mono.de" --extra-mono-target "$RUN/text/mono.en" --bpe-size 1200 --dest "$RUN/data"

stage "3/4 Language models, warm start, dual training, control, evaluation"
"$ROOT/scripts/train_dual.sh" "$RUN/data" "$RUN/train" --control --size tiny --max-tokens 1024 \
    --lm-size tiny --lm-max-tokens 1024 --lm-max-epoch 4 --lm-lr 0.004 --lm-lr-warmup 50 \
    --lr 0.002 --lr-warmup 200 --warmup-max-epoch 12 --dual-max-epoch 6 --dual-lr 0.0007 --dual-lambda 0.01

stage "4/4 Report"
"$PYTHON" -m dual_fairseq demo-page "$RUN"
printf 'The demo took %d:%02d minutes.\n' $((SECONDS / 60)) $((SECONDS % 60))
