# shellcheck shell=bash
# What train_lm.sh, train_dual.sh and evaluate.sh share: devices, stages that are not done twice, stopping.
# To be sourced after common.sh.
# shellcheck disable=SC2034  # some of the names set here are for the scripts that source this file

# The command line as it was given, to show how to go on.
AGAIN=
# The process group of the command that runs now.
JOB=

# stoppable NAME [ARGS]: from now on Ctrl-C and SIGTERM stop what run_job started, and say how to go on.
stoppable() {
    printf -v AGAIN ' %q' "$@"
    trap 'on_stop 1' HUP
    trap 'on_stop 2' INT
    trap 'on_stop 15' TERM
}

on_stop() {
    local code=$((128 + $1)) tenths=0
    if [[ -n $JOB ]]; then
        # A second Ctrl-C does not wait any longer.
        trap 'tenths=999' HUP INT TERM
        kill -TERM -- "-$JOB" 2>/dev/null || true
        while kill -0 -- "-$JOB" 2>/dev/null && ((tenths++ < 300)); do
            sleep 0.1
        done
        kill -KILL -- "-$JOB" 2>/dev/null || true
        wait "$JOB" 2>/dev/null || true
    fi
    # A script started by another one leaves the last word to it.
    [[ -n ${DUAL_FAIRSEQ_INNER-} ]] ||
        printf '\n%s: stopped. The same command goes on from the last checkpoint:\n %s\n' "${0##*/}" "$AGAIN" >&2
    exit "$code"
}

# run_job COMMAND...: run it in a process group of its own, so that all of it can be stopped at any moment (bash runs a
# trap only after a foreground command has ended).
run_job() {
    local status=0
    set -m
    DUAL_FAIRSEQ_INNER=1 "$@" </dev/null &
    JOB=$!
    set +m
    wait "$JOB" || status=$?
    JOB=
    return "$status"
}

# run_or_exit COMMAND...: run_job, and the end if it fails; the command has said why, unless a signal ended it.
run_or_exit() {
    local status=0
    run_job "$@" || status=$?
    ((status < 128)) || printf '%s: error: %s was ended by signal %s\n' "${0##*/}" "${1##*/}" $((status - 128)) >&2
    ((status == 0)) || exit "$status"
}

# run_module NAME ARGUMENT...: dual-fairseq NAME.
run_module() {
    run_or_exit "$PYTHON" -m dual_fairseq "$@"
}

# lock DIR: make the folder, and refuse a second run in it. The children hold the lock too, so it lasts as long as one
# of them lives.
lock() {
    mkdir -p -- "$1" 2>/dev/null && [[ -w $1 ]] || die "cannot write to $1: choose another folder or mend its permissions"
    command -v flock >/dev/null || return 0
    local descriptor
    exec {descriptor}>"$1/.lock"
    flock -n "$descriptor" || die "another run is at work in $1: wait for it, or stop it"
}

# find_device CPU NPROC: sets DEVICE (fairseq options), LAUNCH (what starts fairseq-train) and WHERE (in words).
# CPU is 1 to use no GPU; NPROC is empty for one process a GPU.
find_device() {
    local cpu=$1 nproc=$2 gpus=0
    if [[ $cpu != 1 ]]; then
        # torch is asked, not nvidia-smi: a CPU build of torch cannot use the GPU that is there.
        gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)') ||
            die "torch cannot be imported by $PYTHON: set the environment up again (make setup)"
    fi
    if ((gpus == 0)); then
        : "${nproc:=1}"
        DEVICE=(--cpu)
        WHERE="CPU, $nproc process(es)"
        ((nproc == 1)) || DEVICE+=(--distributed-backend gloo)
    else
        : "${nproc:=$gpus}"
        ((nproc <= gpus)) || die "--nproc $nproc: only $gpus GPU(s) here"
        DEVICE=()
        WHERE="$nproc GPU(s)"
        # Otherwise fairseq starts a process for every GPU by itself, which does not go with --user-dir.
        ((nproc > 1)) || DEVICE=(--distributed-world-size 1)
    fi
    LAUNCH=(fairseq-train)
    ((nproc == 1)) || LAUNCH=(torchrun --standalone --nproc_per_node="$nproc" "$(command -v fairseq-train)")
}

# refuse_half_precision OPTION...: on a CPU fairseq fails on --fp16 with a traceback, and looks for a TPU on --bf16.
refuse_half_precision() {
    [[ ${DEVICE[0]-} == --cpu ]] || return 0
    local option
    for option in "$@"; do
        case $option in
            --fp16* | --bf16* | --memory-efficient-*) die "$option needs a GPU, and this run uses the CPU: leave it out" ;;
        esac
    done
}

# number OPTION VALUE: dies unless it is a whole number above 0.
number() {
    [[ $2 =~ ^0*[1-9][0-9]*$ ]] || die "$1 takes a whole number above 0, not '$2'"
}

# count OPTION VALUE: dies unless it is a whole number, 0 or more.
count() {
    [[ $2 =~ ^[0-9]+$ ]] || die "$1 takes a whole number that is 0 or more, not '$2'"
}

# decimal OPTION VALUE: dies unless it is a number that is 0 or more.
decimal() {
    [[ $2 =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$ ]] || die "$1 takes a number that is 0 or more, not '$2'"
}

# best_checkpoint PATH: prints the checkpoint; of a run, a stage or a folder of checkpoints the best one in it.
best_checkpoint() {
    local name
    for name in dual/ mle/ warmup/ ''; do
        [[ ! -f $1/${name}checkpoint_best.pt ]] || { printf '%s' "$1/${name}checkpoint_best.pt" && return; }
    done
    printf '%s' "$1"
}

# read_record DEST: sets SOURCE, TARGET, TOKENIZER and SUBWORD (bpe, char, word) from DEST/preprocess.json.
read_record() {
    [[ -f $1/preprocess.json ]] || die "$1/preprocess.json not found: give the folder that scripts/preprocess.sh wrote"
    [[ $1 != *:* ]] || die "fairseq takes ':' in a data path for a separator: rename $1"
    local record
    record=$("$PYTHON" - "$1/preprocess.json" 2>/dev/null <<'PY'
import json, re, sys

with open(sys.argv[1], encoding="utf-8") as file:
    record = json.load(file)
for key in ("source", "target"):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", record[key])
subword = record.get("subword", "bpe")  # earlier versions knew nothing else
assert record["tokenizer"] in ("moses", "none") and subword in ("bpe", "char", "word")
print(record["source"], record["target"], record["tokenizer"], subword)
PY
    ) || die "$1/preprocess.json is damaged: run scripts/preprocess.sh again"
    read -r SOURCE TARGET TOKENIZER SUBWORD <<<"$record"
}

# checkpoint_updates FILE: the number of updates made, then the score at its last validation.
checkpoint_updates() {
    "$PYTHON" - "$1" <<'PY'
import argparse, pickle, sys, torch

torch.serialization.add_safe_globals([argparse.Namespace])
options = {"map_location": "cpu", "weights_only": True, "mmap": True}
try:
    state = torch.load(sys.argv[1], **options)
except pickle.UnpicklingError:  # the plugin allows a few more classes, but takes its time to import
    import dual_fairseq

    state = torch.load(sys.argv[1], **options)
print(state["optimizer_history"][-1]["num_updates"], state["extra_state"].get("val_loss"))
PY
}

# replace FILE: standard input becomes the file's content, all of it or none.
replace() {
    cat >"$1.tmp" && mv -f -- "$1.tmp" "$1"
}

# A torch checkpoint is a zip archive, whose directory is written last.
whole() {
    "$PYTHON" -c 'import sys, zipfile; sys.exit(not zipfile.is_zipfile(sys.argv[1]))' "$1"
}

# option_lines OPTION...: the options, a line each with its values, for IDENTITY.
option_lines() {
    local word line=''
    for word in "$@"; do
        if [[ $word == --* && -n $line ]]; then
            printf '%s\n' "$line"
            line=$word
        else
            line+=${line:+ }$word
        fi
    done
    [[ -z $line ]] || printf '%s\n' "$line"
}

# begin_stage DIR CONTINUE: false when the stage in DIR is finished. IDENTITY holds, in lines, what decides about its
# result (options, digests of its input). Another stage's DIR is refused unless CONTINUE is 1.
begin_stage() {
    local dir=$1 continue=$2 recorded=$1/options.txt changes
    mkdir -p -- "$dir" 2>/dev/null || die "cannot write to $dir: choose another folder or mend its permissions"
    if [[ -f $dir/finished || -f $dir/checkpoint_last.pt ]]; then
        [[ -f $recorded ]] || recorded=/dev/null
        changes=$(diff -- "$recorded" <(printf '%s\n' "$IDENTITY") |
            sed -n 's/^< /was: /p; s/^> /now: /p' | paste -s -d ',' | sed 's/,/, /g') || true
        if [[ -n $changes ]]; then
            [[ $continue == 1 ]] ||
                die "$dir was trained with other options or input ($changes): choose another folder, delete this one to" \
                    "train anew, or give --continue to go on from its last checkpoint"
            rm -f -- "$dir/finished"
        elif [[ -f $dir/finished ]]; then
            return 1
        fi
    fi
    rm -f -- "$dir"/*.tmp
    # fairseq copies checkpoint_best.pt over checkpoint_last.pt in place: killed right then, it leaves a torn copy.
    if [[ -f $dir/checkpoint_last.pt ]] && ! whole "$dir/checkpoint_last.pt"; then
        whole "$dir/checkpoint_best.pt" || die "$dir/checkpoint_last.pt is damaged: delete $dir to train anew"
        replace "$dir/checkpoint_last.pt" <"$dir/checkpoint_best.pt"
    fi
    printf '%s\n' "$IDENTITY" | replace "$dir/options.txt" || die "cannot write to $dir: is the disk full?"
}

# train DIR MAX_UPDATE OPTION...: fairseq-train with these options, its log appended to DIR/train.log and a line for each
# validation shown; then DIR/finished. MAX_UPDATE is empty for no limit.
train() {
    local dir=$1 max_update=$2 log=$1/train.log now begin status=0 error made
    shift 2
    if [[ -f $dir/checkpoint_last.pt ]]; then
        read -r made _ <<<"$(checkpoint_updates "$dir/checkpoint_last.pt" 2>/dev/null)"
        [[ -n $made ]] || die "$dir/checkpoint_last.pt cannot be read: remove it, or copy checkpoint_best.pt over it"
        # fairseq looks at --max-update after an update only, and so would make one too many.
        if [[ -n $max_update ]] && ((made >= max_update)); then
            : >"$dir/finished"
            return
        fi
        say "  going on after update $made"
    fi
    set -- "${LAUNCH[@]}" "$@" --save-dir "$dir" "${DEVICE[@]}"
    [[ -z $max_update ]] || set -- "$@" --max-update "$max_update"
    # Without $(...): a trap that bash runs while it reads one is an error of syntax.
    printf -v now '%(%F %T)T' -1
    { printf '\n# started %s\n#' "$now" && printf ' %q' "$@" && printf '\n'; } >>"$log" || die "cannot write $log: is the disk full?"
    run_job logged "$log" "$@" || status=$?
    if ((status != 0)); then
        begin=$(grep -ab '^# started ' "$log" | tail -n 1)
        begin=${begin%%:*}
        error=$(tail -c "+$((begin + 1))" "$log" | grep -aE '^(dual_fairseq|fairseq-train): error: ' | head -n 1) || true
        [[ -z $error ]] || die "${error#*: error: } (log: $log)"
        tail -c "+$((begin + 1))" "$log" | tail -n 20 >&2
        die "fairseq-train ended with status $status; the whole log is in $log"
    fi
    [[ -f $dir/checkpoint_best.pt ]] || die "fairseq-train wrote no $dir/checkpoint_best.pt; see $log"
    : >"$dir/finished"
}

logged() {
    local log=$1
    shift
    "$@" 2>&1 | tee -a -- "$log" | "$PYTHON" "$ROOT/scripts/progress.py"
}
