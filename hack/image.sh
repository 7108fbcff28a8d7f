#!/usr/bin/env bash
# Builds the image from the Dockerfile without pulling anything: the program is built here, and takes the place of the
# Dockerfile's first stage. Prints the name of the archive, which hack/cluster.sh load-image takes.
#
#   hack/image.sh [NAME]          (default: ringwire.dev/ringwire:dev)
#
#   BIN_DIR=FOLDER                take `ringwire` from there instead of building it
#   CARGO_TARGET_DIR=FOLDER       as for cargo
#   PROFILE=image                 cargo profile; the default is release (smaller and faster, but slow to link)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/cluster/images.sh
source "$HACK/cluster/images.sh"

LIMIT_MB=40
PROFILE=${PROFILE:-release}

# Naming the target keeps the flag away from procedural macros, which are loaded by the compiler and can't be static.
build_program() {
    local flags="-C target-feature=+crt-static"
    # Rust links with lld there, which folds functions that compile to the same code.
    [[ $PROFILE != release || $1 != x86_64-* ]] || flags+=" -C link-arg=-Wl,--icf=safe"
    (
        cd "$REPO"
        RUSTFLAGS=$flags \
            cargo build --locked --profile "$PROFILE" --target "$1" --package ringwire >&2
    )
}

case ${1:-} in
-*)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
    ;;
esac
name=${1:-ringwire.dev/ringwire:dev}

if [[ -z ${BIN_DIR:-} ]]; then
    target=$(rustc -vV | sed -n 's/^host: //p')
    step "program" build_program "$target"
    BIN_DIR=${CARGO_TARGET_DIR:-$REPO/target}/$target/$PROFILE
fi

command -v buildah >/dev/null || "$HACK/setup.sh" --image
mkdir -p "$STATE/images"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
program=$BIN_DIR/ringwire
[[ -x $program ]] || die "no ringwire in $BIN_DIR"
# In an image without a C library a dynamic program fails with a puzzling "no such file".
! readelf -l "$program" | grep -q INTERP || die "$program is not linked statically"
mkdir "$context/image"
install -m 755 "$program" "$context/image/"
ln -s ringwire "$context/image/ringwire-operator"

# Named by what is in it, so that the same program is not packed twice.
hash=$({ cat "$program" "$REPO/Dockerfile"; echo "$name"; } | sha256sum | cut -c1-12)
archive=$STATE/images/ringwire-$hash.tar
if [[ ! -e $archive ]]; then
    step "image" image_from "$context" "$name" "$archive.tmp-$$" \
        --file "$REPO/Dockerfile" --target runtime --build-context "build=$context"
    mv "$archive.tmp-$$" "$archive"
fi
touch "$archive"
# The newest five are kept.
find "$STATE/images" -name 'ringwire-*.tar*' -printf '%T@ %p\n' | sort -rn | tail -n +6 | cut -d' ' -f2- | xargs -r rm -f

size=$(stat -c %s "$archive")
say "$(printf '%s: %d.%d MB' "$name" $((size / 1000000)) $((size / 100000 % 10)))"
# The tests' profile links faster and larger; what users get has the limit.
[[ $PROFILE != release ]] || ((size <= LIMIT_MB * 1000000)) || die "the image is larger than $LIMIT_MB MB"
echo "$archive"
