# shellcheck shell=bash
# What all scripts share; to be sourced. Defines functions and ROOT, runs nothing.

# The checkout: the folder that holds scripts/ and dual_fairseq/.
ROOT=$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Put the environment's commands on PATH and its interpreter into PYTHON: the active environment when fairseq is
# installed there, else the checkout's own .venv.
find_environment() {
    if ! command -v fairseq-train >/dev/null; then
        [[ -x $ROOT/.venv/bin/fairseq-train ]] ||
            die "fairseq is not installed: run 'make setup' in $ROOT, or activate the environment that has it"
        PATH=$ROOT/.venv/bin:$PATH
    fi
    PYTHON=$(dirname -- "$(command -v fairseq-train)")/python
    [[ -x $PYTHON ]] || PYTHON=$(command -v python3) || die "no python beside fairseq-train and no python3 on PATH"
    # The checkout's own package and no other version of it; no output held back while a run goes on.
    export PATH PYTHON PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
}

# safe_path PATH: the path as it can be given to any command; a leading dash would be taken for an option.
safe_path() {
    case $1 in
        -*) printf './%s' "$1" ;;
        *) printf '%s' "$1" ;;
    esac
}

# need_value "$@" at an option: dies unless a value follows it.
need_value() {
    (($# >= 2)) || die "option $1 needs a value (see --help)"
}

# sha256 FILE...: one digest of the files' contents, whatever their names.
sha256() {
    local file
    for file in "$@"; do
        sha256sum <"$file"
    done | sha256sum | cut -c 1-64
}
