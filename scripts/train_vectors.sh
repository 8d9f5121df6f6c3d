#!/usr/bin/env bash
# Train word vectors of both languages on the text that the models see; see usage below.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'HELP'
Train word vectors of both languages (skip-gram, by gensim) for the embeddings to start from.

    scripts/train_vectors.sh DEST [options]

DEST is the folder that scripts/preprocess.sh wrote. The vectors are trained on the training text of each language, as
the models see it (DEST/segmented), and on the extra monolingual text, where there is some. DEST/vectors/<lang>.vec gets
them in the text format of word2vec, for

    fairseq-train ... --src-embed-path DEST/vectors/<source>.vec --tgt-embed-path DEST/vectors/<target>.vec

The same command again does nothing; other options or other text train them anew. Needs gensim, which `make setup` does
not install: pip install gensim 'numpy<2'

  --dim N          numbers in a vector: the model's --encoder-embed-dim and --decoder-embed-dim (default 256)
  --window N       words on either side that a word is to predict (default 5)
  --negative N     words drawn at random for each of these (default 5)
  --min-count N    no vectors for words that occur less often (default 1)
  --epochs N       times through the text (default 10)
  --norm X         mean norm of the vectors, all multiplied by one factor (default 1, which is that of a Transformer's
                   own initial embeddings; 0: as they come)
  --seed N         default 1
  --workers N      threads (default: the number of processors; only with 1 are the vectors the same every time)
  --joint          one file for both languages, DEST/vectors/<source>-<target>.vec, for a model with
                   --share-all-embeddings (and text of preprocess.sh --joined-dictionary): give it as both options
  -h, --help       this text
HELP
}

OPERANDS=() PASS=()
while (($#)); do
    if [[ $1 == --?*=* ]]; then # --option=value
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
    fi
    case $1 in
        -h | --help) usage && exit ;;
        --dim | --window | --negative | --min-count | --epochs | --seed | --workers)
            need_value "$@"
            [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || die "$1 takes a whole number above 0, not '$2'"
            PASS+=("$1=$2") && shift
            ;;
        --norm)
            need_value "$@"
            [[ $2 =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)$ ]] || die "$1 takes a number that is 0 or more, not '$2'"
            PASS+=("$1=$2") && shift
            ;;
        --joint) PASS+=("$1") ;;
        -?*) die "unknown option $1 (see --help)" ;;
        *) OPERANDS+=("$1") ;;
    esac
    shift
done
((${#OPERANDS[@]} == 1)) || die "give the folder of preprocess.sh (see --help)"
DEST=$(safe_path "${OPERANDS[0]}")
[[ -f $DEST/preprocess.json ]] ||
    die "$DEST/preprocess.json not found: give the folder that scripts/preprocess.sh wrote"

find_environment
# No module of the current directory in place of a library's.
export PYTHONSAFEPATH=1 PYTHONUTF8=1
exec "$PYTHON" -m dual_fairseq vectors "$DEST" "${PASS[@]}"
