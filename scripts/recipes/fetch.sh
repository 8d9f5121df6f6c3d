# shellcheck shell=bash
# Downloads for the recipes; to be sourced after common.sh.

# fetch URL FILE: download a gzip file, unless FILE is there already. FILE appears only when it is whole.
fetch() {
    local url=$1 file=$2 part
    [[ ! -s $file ]] || return 0
    part=$(mktemp -- "$file.part.XXXXXX")
    # shellcheck disable=SC2064 # the name of now is meant
    trap "rm -f -- ${part@Q}" EXIT
    say "fetching $url" >&2
    if command -v curl >/dev/null; then
        curl --fail --location --silent --show-error --retry 3 --connect-timeout 20 --output "$part" -- "$url"
    elif command -v wget >/dev/null; then
        wget --quiet --tries 3 --timeout 20 --output-document "$part" -- "$url"
    else
        die "no curl and no wget to download with: install one, or give a folder with the files by --from"
    fi || die "$url: could not be fetched; check the network and try again, or give a folder with the files by --from"
    gzip --test -- "$part" 2>/dev/null ||
        die "$url: what came is no whole gzip file; try again, or give a folder with the files by --from"
    chmod "$(printf '%o' $((0666 & ~$(umask))))" "$part" # mktemp made it private
    mv -- "$part" "$file"
    trap - EXIT
}
