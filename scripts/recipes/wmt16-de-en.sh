#!/usr/bin/env bash
# WMT16 German-English news translation (4.5 million training pairs): from the standard archives to training data.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=scripts/recipes/fetch.sh
source "$ROOT/scripts/recipes/fetch.sh"

URLS=(
    https://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz
    https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz
    https://data.statmt.org/wmt16/translation-task/training-parallel-nc-v11.tgz
    https://data.statmt.org/wmt16/translation-task/dev.tgz
    https://data.statmt.org/wmt16/translation-task/test.tgz
)

usage() {
    cat <<HELP
Usage: scripts/recipes/wmt16-de-en.sh DEST [options] [-- options of scripts/preprocess.sh]

Fetches the data of WMT16's German-English news task and preprocesses it into DEST. Training: Europarl v7, Common
Crawl, News Commentary v11; valid: newstest2013; test: newstest2016. Archives of 1.7 GB; allow 15 GB in DEST.

  -s, --source-lang LANG   de (default) or en
  -t, --target-lang LANG   en (default) or de
  --from FOLDER            fetch nothing, take the archives from FOLDER:
$(printf '                             %s\n' "${URLS[@]##*/}")
  --url URL                a mirror that has all five archives at URL/<name>, instead of statmt.org
  --help                   this text

Settings: Moses tokenisation, joint BPE of 32000 merges, one dictionary for both languages, training pairs of up to 250
words whose lengths differ by a factor of up to 2.5. What follows -- comes last and so wins, as in -- --bpe-size 16000
--separate-dictionaries. Downloads are kept in DEST/download, the text out of them in DEST/text.<source>-<target>.
HELP
}

dest='' from='' url='' source_lang=de target_lang=en
while (($#)); do
    case $1 in
        -h | --help) usage && exit 0 ;;
        -s | --source-lang) need_value "$@" && source_lang=$2 && shift ;;
        -t | --target-lang) need_value "$@" && target_lang=$2 && shift ;;
        --from) need_value "$@" && from=$2 && shift ;;
        --url) need_value "$@" && url=${2%/} && shift ;;
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
[[ $source_lang-$target_lang =~ ^(de-en|en-de)$ ]] || die "languages '$source_lang' and '$target_lang': give de and en"

dest=$(safe_path "$dest")
mkdir -p -- "$dest" 2>/dev/null || die "$dest: cannot be written; choose another DEST"
if [[ -z $from ]]; then
    from=$dest/download
    mkdir -p -- "$from"
    for address in "${URLS[@]}"; do
        name=${address##*/}
        [[ -z $url ]] || address=$url/$name
        fetch "$address" "$from/$name"
    done
fi
from=$(safe_path "$from")
archives=()
for address in "${URLS[@]}"; do
    archives+=("$from/${address##*/}")
    [[ -f ${archives[-1]} ]] || die "${archives[-1]}: no such file; put the archive there or leave out --from to fetch it"
done

# extract ARCHIVE FOLDER NAME...: take files out of an archive, whatever folder they have in it.
extract() {
    local archive=$1 folder=$2
    shift 2
    say "taking $* out of ${archive##*/}" >&2
    tar -xzf "$archive" -C "$folder" --no-same-owner --no-anchored --transform='s|.*/||' -- "$@" 2>/dev/null ||
        die "$archive: the archive is damaged, or does not hold $*; fetch it again"
}

# The text is taken out once, and again if the archives are others.
text=$dest/text.$source_lang-$target_lang
stamp=$(stat --format='%n %s %Y' -- "${archives[@]}")
if [[ ! -f $text/archives || $(<"$text/archives") != "$stamp" ]]; then
    find_environment
    new=$(mktemp -d -- "$dest/.text.XXXXXX")
    # shellcheck disable=SC2064 # the name of now is meant
    trap "rm -rf -- ${new@Q}" EXIT
    extract "${archives[0]}" "$new" europarl-v7.de-en.de europarl-v7.de-en.en
    extract "${archives[1]}" "$new" commoncrawl.de-en.de commoncrawl.de-en.en
    extract "${archives[2]}" "$new" news-commentary-v11.de-en.de news-commentary-v11.de-en.en
    valid=(newstest2013-src."$source_lang".sgm newstest2013-ref."$target_lang".sgm)
    test=(newstest2016-"$source_lang$target_lang"-{src."$source_lang",ref."$target_lang"}.sgm)
    extract "${archives[3]}" "$new" "${valid[@]}"
    extract "${archives[4]}" "$new" "${test[@]}"
    convert=$ROOT/scripts/recipes/sgm_to_text.py
    "$PYTHON" "$convert" "$new/${valid[0]}" "$new/${valid[1]}" "$new/valid.$source_lang" "$new/valid.$target_lang"
    "$PYTHON" "$convert" "$new/${test[0]}" "$new/${test[1]}" "$new/test.$source_lang" "$new/test.$target_lang"
    printf '%s\n' "$stamp" >"$new/archives"
    chmod --reference="$dest" -- "$new"
    rm -rf -- "$text"
    mv -- "$new" "$text"
    trap - EXIT
fi

settings=(--bpe-size 32000 --joined-dictionary)
[[ " $*" != *" --like"* ]] || settings=() # it has its own
exec "$ROOT/scripts/preprocess.sh" -s "$source_lang" -t "$target_lang" --dest "$dest" \
    --train "$text/europarl-v7.de-en" --train "$text/commoncrawl.de-en" --train "$text/news-commentary-v11.de-en" \
    --valid "$text/valid" --test "$text/test" \
    "${settings[@]}" --max-length 250 --max-ratio 2.5 "$@"
