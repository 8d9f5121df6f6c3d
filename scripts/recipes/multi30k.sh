#!/usr/bin/env bash
# Multi30k (image captions; 29,000 training pairs): from the public repository, or a copy of it, to training data.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/recipes/fetch.sh
source "$ROOT/scripts/recipes/fetch.sh"

URL=https://raw.githubusercontent.com/multi30k/dataset/master/data

usage() {
    cat <<HELP
Usage: scripts/recipes/multi30k.sh DEST [options] [-- options of scripts/preprocess.sh]

Fetches Multi30k (task 1) and preprocesses it into DEST: train, valid (val) and test (test_2016_flickr).
For non-commercial research and education only; see https://github.com/multi30k/dataset for its terms.

  -s, --source-lang LANG   de (default), en or fr
  -t, --target-lang LANG   en (default), de or fr
  --mono                   give the language models the task 2 captions too: 145,000 lines of German and of English.
                           The German ones were written independently; among the English ones is the English side of
                           each training pair. There are none of French: with --pairs, the French lines that it leaves
                           over
  --mono-unpaired          as --mono, without captions that are a side of a training pair (29,000 of English, 185 of
                           German): no translation of another language's text is in them
  --mono-of-pairs          with --pairs: give them text of the pairs that it leaves over, the source side of the first
                           half and the target side of the second, so that no sentence's translation is in it. It is
                           of the same kind as the pairs; the German captions of task 2 are not (and shorter)
  --pairs N                take only the first N training pairs: a low-resource setting
  --from FOLDER            fetch nothing, take FOLDER/{train,val,test_2016_flickr}.LANG.gz and, for the captions,
                           FOLDER/mono/train.{1..5}.LANG.gz
  --url URL                a mirror of $URL
  --help                   this text

Settings: Moses tokenisation, joint BPE of 8000 merges, a dictionary a language. What follows -- comes last and so
wins, as in -- --bpe-size 4000 --joined-dictionary. Downloads are kept in DEST/download.
HELP
}

dest='' from='' source_lang=de target_lang=en mono=no unpaired=no pairs=''
while (($#)); do
    case $1 in
        -h | --help) usage && exit 0 ;;
        -s | --source-lang) need_value "$@" && source_lang=$2 && shift ;;
        -t | --target-lang) need_value "$@" && target_lang=$2 && shift ;;
        --from) need_value "$@" && from=$2 && shift ;;
        --url) need_value "$@" && URL=${2%/} && shift ;;
        --pairs) need_value "$@" && pairs=$2 && shift ;;
        --mono) mono=yes ;;
        --mono-unpaired) mono=yes unpaired=yes ;;
        --mono-of-pairs) mono=pairs ;;
        --) shift && break ;;
        -*) die "unknown option '$1' (see --help; options of preprocess.sh follow --, a path may begin with ./)" ;;
        *)
            [[ -z $dest ]] || die "one DEST only: '$dest' or '$1'? (see --help)"
            dest=$1
            ;;
    esac
    shift
done
[[ -n $dest ]] || die "DEST is missing (see --help)"
for language in "$source_lang" "$target_lang"; do
    [[ $language =~ ^(de|en|fr)$ ]] || die "language '$language': this recipe knows de, en and fr"
done
[[ $source_lang != "$target_lang" ]] || die "source and target language are both '$source_lang'; give two"
[[ $mono != pairs || -n $pairs ]] || die "--mono-of-pairs: without --pairs none are left over; give that too"
[[ -z $pairs || $pairs =~ ^[1-9][0-9]*$ ]] || die "--pairs '$pairs': give a whole number above 0"

own=$dest/download
[[ $own != -* ]] || own=./$own
mkdir -p -- "$own" 2>/dev/null || die "$own: cannot be written; choose another DEST"

if [[ -z $from ]]; then
    from=$own
    for language in "$source_lang" "$target_lang"; do
        for split in train val test_2016_flickr; do
            fetch "$URL/task1/raw/$split.$language.gz" "$from/$split.$language.gz"
        done
        if [[ $mono == yes && $language != fr ]]; then
            mkdir -p -- "$from/mono"
            for i in 1 2 3 4 5; do
                fetch "$URL/task2/raw/train.$i.$language.gz" "$from/mono/train.$i.$language.gz"
            done
        fi
    done
fi

extra=()
if [[ $mono == yes ]]; then
    for role in source target; do
        language=${role}_lang language=${!language}
        [[ $language != fr ]] || continue
        captions=("$from/mono/train."{1..5}".$language.gz") pairs_side=$from/train.$language.gz
        if [[ $unpaired == yes ]]; then
            for file in "${captions[@]}" "$pairs_side"; do [[ -r $file ]] || die "$file: there is no such file"; done
            gzip -dc -- "${captions[@]}" | LC_ALL=C grep -vxF -f <(gzip -dc -- "$pairs_side") >"$own/unpaired.$language" ||
                die "$from/mono: every $language line is a side of a pair; do without --mono-unpaired"
            captions=("$own/unpaired.$language")
        fi
        for file in "${captions[@]}"; do extra+=("--extra-mono-$role" "$file"); done
    done
fi

train=$from/train
if [[ -n $pairs ]]; then
    train=$own/train-$pairs
    # lines RANGE LANGUAGE FILE: of the training text; sed reads to the end, so that gzip is not cut off.
    lines() {
        gzip -dc -- "$from/train.$2.gz" | sed -n "$1p" >"$3.partial"
        mv -- "$3.partial" "$3"
    }
    for role in source target; do
        language=${role}_lang language=${!language}
        [[ -r $from/train.$language.gz ]] || die "$from/train.$language.gz: there is no such file"
        lines "1,$pairs" "$language" "$train.$language"
        others=
        if [[ $mono == pairs ]]; then
            middle=$(((pairs + $(gzip -dc -- "$from/train.$language.gz" | sed -n '$=')) / 2))
            case $role in source) others="$((pairs + 1)),$middle" ;; target) others="$((middle + 1)),\$" ;; esac
        elif [[ $mono == yes && $language == fr ]]; then
            others="$((pairs + 1)),\$"
        fi
        if [[ -n $others ]]; then
            lines "$others" "$language" "$train.others.$language"
            extra+=("--extra-mono-$role" "$train.others.$language")
        fi
    done
fi

rmdir -- "$own" 2>/dev/null || true # where nothing came into it
exec "$ROOT/scripts/preprocess.sh" -s "$source_lang" -t "$target_lang" --dest "$dest" \
    --train "$train" --valid "$from/val" --test "$from/test_2016_flickr" "${extra[@]}" "$@"
