#!/usr/bin/env bash
# Raw parallel text to everything that training reads: cleaned, tokenised, segmented and binarized.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'HELP'
Usage: scripts/preprocess.sh -s LANG -t LANG --train PREFIX --valid PREFIX [--test PREFIX] --dest DEST [options]

Makes a pair's training data from plain text, a sentence a line. A PREFIX stands for two files, PREFIX.<source> and
PREFIX.<target>, plain or with .gz at the end, whose lines are translations of each other.

  -s, --source-lang LANG     source language, as de; letters, digits and _ only
  -t, --target-lang LANG     target language
  --train PREFIX             training text; may be given several times, all of it is used
  --valid PREFIX             validation text
  --test PREFIX              test text
  --dest DEST                directory to make (see below)

Tokenisation
  --tokenizer moses|none     moses (default): Moses punctuation normalisation and tokenisation, by sacremoses;
                             none: the text is segmented already, words are what white space separates (default with
                             --subword char, where it means the characters of the text as it is)
  --lowercase                lower-case everything, the references too

The models' tokens
  --subword bpe|char|word    bpe (default): byte pair encoding; char: each character is a token, a space is ▁;
                             word: the words themselves, rare ones as <unk>

Byte pair encoding, learned on the training text only; with --subword bpe
  --bpe-size N               merges to learn (default 8000); fewer, and it says so, when no pair of symbols occurs
                             twice any more; 0: no BPE, for text that is in pieces already
  --joint-bpe                learn both languages' BPE together (default)
  --separate-bpe             learn it for each language apart

Dictionaries, made from the training text only
  --separate-dictionaries    one a language (default)
  --joined-dictionary        one for both, as --share-all-embeddings needs it; not with --separate-bpe
  --vocab-threshold N        symbols seen fewer than N times in the training text become <unk> (default 0; 2 with
                             --subword word, so that <unk> is met in training)
  --vocab-size N             keep the N most frequent symbols, the others become <unk> (default 0: all; 30000 with
                             --subword word)

More text for models that are there
  --like FOLDER              take BPE and dictionaries of FOLDER, a DEST of these languages, in place of learning
                             them, with all that the options of the four sections above say (they can be left out):
                             pairs and language models that were trained on FOLDER fit DEST, to be trained further or
                             evaluated on it. --train and --valid are needed as ever.

Text for the language models
  --extra-mono-source FILE   more text of the source language, plain or .gz, for its language model alone; may be
                             given several times. Sentences of the valid and test text are left out of it.
  --extra-mono-target FILE   the same for the target language

Pairs that models made, as scripts/synthesize.sh does, for the pair to train on besides
  --synthetic PREFIX         may be given several times. BPE, dictionaries and language models are made without it, so that
                             what was trained on the same text without it fits DEST
  --upsample N               times that the real pairs are in the training data (default 1)

Bad lines: an empty side, not UTF-8, NUL or another control character, a word of over 1,000 characters, a word that
fairseq reserves; in training text over-long or ill-proportioned ones as well. A line leaves both sides together.
  --on-bad-line drop|refuse  drop them, counted by reason (default), or stop at the first
  --max-length WORDS         longest line of training and extra text, in words (default 250; 0: any). Longer lines
                             of valid and test text are kept and counted.
  --max-ratio R              most times longer one side of a training pair may be than the other, in words
                             (default 0: any)
Mended and counted: Windows line ends, byte order marks, Unicode line separators (they become spaces). Files of unequal
length are always refused.

  --workers N                processes (default: the number of processors)
  --overwrite                make anew what was made from other input or options
  --help                     this text

DEST gets:
  dual/                      fairseq-preprocess's output for the pair, for both directions
  lm/<lang>/                 the same for a language model, with the pair's dictionary of that language
  bpe/codes.<lang>           BPE codes, for fairseq-interactive --bpe subword_nmt --bpe-codes
  raw/<split>.<lang>         the text cleaned but not tokenised, line by line that of dual/: references for sacreBLEU;
                             raw/<split>.dropped.tsv lists what was dropped
  tokenized/, segmented/     the text after tokenisation, as the models' tokens
  preprocess.json            a record: options, input files, counts, versions

Started again, it goes on after the last finished stage; what is finished is not done twice. If options or the content
of input files have changed since, it refuses to go on unless --overwrite is given.
HELP
}

whole_number() { # OPTION VALUE SMALLEST
    [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ && $2 -ge $3 ]] || die "$1 $2: give a whole number of at least $3"
}

source_lang='' target_lang='' valid='' test='' dest='' subword=bpe joined='' upsample='' like=''
joint='' # yes or no, where it is said
of_bpe='' # an option of BPE that was given
train=() synthetic=() mono_source=() mono_target=() pass=()

while (($#)); do
    if [[ $1 == --?*=* ]]; then # --option=value
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
    fi
    case $1 in
        -h | --help) usage && exit 0 ;;
        --lowercase | --overwrite) pass+=("$1") && shift && continue ;;
        --joint-bpe) joint=yes of_bpe=$1 && shift && continue ;;
        --separate-bpe) joint=no of_bpe=$1 && shift && continue ;;
        --joined-dictionary) joined=yes && shift && continue ;;
        --separate-dictionaries) joined=no && shift && continue ;;
    esac
    case $1 in
        -s | --source-lang | -t | --target-lang | --train | --synthetic | --upsample | --valid | --test | --dest | --like | --tokenizer | --subword | \
            --bpe-size | --vocab-threshold | --vocab-size | --extra-mono-source | --extra-mono-target | --max-length | \
            --max-ratio | --on-bad-line | --workers) need_value "$@" ;;
        *) die "unknown option '$1' (see --help)" ;;
    esac
    [[ -n $2 ]] || die "$1: the value is empty (see --help)"
    case $1 in
        -s | --source-lang) source_lang=$2 ;;
        -t | --target-lang) target_lang=$2 ;;
        --train) train+=("$2") ;;
        --synthetic) synthetic+=("$2") ;;
        --valid) valid=$2 ;;
        --test) test=$2 ;;
        --dest) dest=$2 ;;
        --like) like=$2 ;;
        --extra-mono-source) mono_source+=("$2") ;;
        --extra-mono-target) mono_target+=("$2") ;;
        --tokenizer) [[ $2 == moses || $2 == none ]] || die "--tokenizer $2: give moses or none" ;;
        --subword)
            [[ $2 == bpe || $2 == char || $2 == word ]] || die "--subword $2: give bpe, char or word"
            subword=$2
            ;;
        --bpe-size) whole_number "$1" "$2" 0 && of_bpe=$1 ;;
        --on-bad-line) [[ $2 == drop || $2 == refuse ]] || die "--on-bad-line $2: give drop or refuse" ;;
        --max-ratio) [[ $2 =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "--max-ratio $2: give a number, as 2.5, or 0 for any" ;;
        --workers) whole_number "$1" "$2" 1 ;;
        --upsample) whole_number "$1" "$2" 1 && upsample=$2 ;;
        *) whole_number "$1" "$2" 0 ;;
    esac
    case $1 in
        --tokenizer | --subword | --on-bad-line | --max-ratio | --workers | --bpe-size | --vocab-threshold | \
            --vocab-size | --max-length | --upsample)
            pass+=("$1=$2")
            ;;
    esac
    shift 2
done

# All that can be known without Python, whose start with fairseq takes seconds.
[[ -n $source_lang && -n $target_lang ]] || die "give both languages, as in -s de -t en (see --help)"
for language in "$source_lang" "$target_lang"; do
    [[ $language =~ ^[A-Za-z][A-Za-z0-9_]*$ ]] ||
        die "language code '$language': use letters, digits and _ only, as in de or zh_CN, and name the files so"
done
[[ $source_lang != "$target_lang" ]] ||
    die "source and target language are both '$source_lang'; give two, as in -s de -t en"
((${#train[@]})) || die "--train PREFIX is missing (see --help)"
[[ -z $upsample ]] || ((${#synthetic[@]})) ||
    die "--upsample $upsample: is for real text beside synthetic; give --synthetic PREFIX too"
[[ -n $valid ]] || die "--valid PREFIX is missing (see --help)"
[[ -n $dest ]] || die "--dest DEST is missing (see --help)"
[[ $subword == bpe || -z $of_bpe ]] || die "$of_bpe is for --subword bpe, not $subword; leave it out"
[[ $joined != yes || $joint != no ]] || die "--joined-dictionary needs --joint-bpe; separate BPE makes no common symbols"

[[ -z $like || -f $like/preprocess.json ]] ||
    die "--like $like: not a folder that this command has finished; give the --dest of one"

check_file() {
    [[ -e $1 ]] || die "$1: no such file"
    [[ -f $1 ]] || die "$1: not a regular file"
    [[ -r $1 ]] || die "$1: no permission to read it"
    [[ -s $1 ]] || die "$1: the file is empty; give one with a sentence a line"
}
for prefix in "${train[@]}" "${synthetic[@]}" "$valid" ${test:+"$test"}; do
    for language in "$source_lang" "$target_lang"; do
        file=$prefix.$language
        [[ -e $file || ! -e $file.gz ]] || file=$file.gz
        [[ -e $file ]] || die "$file: no such file, nor with .gz at the end; give the part of the name before .$language"
        check_file "$file"
    done
done
for file in "${mono_source[@]}" "${mono_target[@]}"; do
    check_file "$file"
done
[[ $dest != *:* && $dest != *$'\n'* ]] ||
    die "--dest $dest: fairseq cannot read a path with a colon or a line end in it; choose another"
[[ ! -e $dest || -d $dest ]] || die "--dest $dest: not a directory; choose another"
if ! mkdir -p -- "$dest" 2>/dev/null || [[ ! -w $dest ]]; then
    die "--dest $dest: cannot be written; choose another or mend its permissions"
fi

for prefix in "${train[@]}"; do pass+=("--train=$prefix"); done
for prefix in "${synthetic[@]}"; do pass+=("--synthetic=$prefix"); done
for file in "${mono_source[@]}"; do pass+=("--extra-mono-source=$file"); done
for file in "${mono_target[@]}"; do pass+=("--extra-mono-target=$file"); done
[[ -z $test ]] || pass+=("--test=$test")
[[ -z $like ]] || pass+=("--like=$like")
case $joint in yes) pass+=(--joint-bpe) ;; no) pass+=(--no-joint-bpe) ;; esac
case $joined in yes) pass+=(--joined-dictionary) ;; no) pass+=(--no-joined-dictionary) ;; esac

find_environment
# No progress bars (subword-nmt's), and no module of the current directory in place of a library's.
export TQDM_DISABLE=1 PYTHONSAFEPATH=1 PYTHONUTF8=1
exec "$PYTHON" -m dual_fairseq preprocess "--source-lang=$source_lang" "--target-lang=$target_lang" \
    "--valid=$valid" "--dest=$dest" "${pass[@]}"
