#!/usr/bin/env bash
# Builds the image from the Dockerfile without pulling anything: the programs are built here, and take the place of the
# Dockerfile's first stage. Prints the name of the archive, which hack/cluster.sh load-image takes.
#
#   hack/image.sh [NAME]          (default: ringwire.dev/ringwire:dev)
#
#   BIN_DIR=FOLDER                take `ringwire` and `ringwire-operator` from there instead of building them
#   CARGO_TARGET_DIR=FOLDER       as for cargo
#   PROFILE=image                 cargo profile; the default is release (smaller and faster, but slow to link)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/cluster/images.sh
source "$HACK/cluster/images.sh"

LIMIT_MB=40
PROGRAMS=(ringwire ringwire-operator)
PROFILE=${PROFILE:-release}

# Naming the target keeps the flag away from procedural macros, which are loaded by the compiler and can't be static.
build_programs() {
    local flags="-C target-feature=+crt-static"
    # Rust links with lld there, which folds functions that compile to the same code.
    [[ $PROFILE != release || $1 != x86_64-* ]] || flags+=" -C link-arg=-Wl,--icf=safe"
    (
        cd "$REPO"
        RUSTFLAGS=$flags \
            cargo build --locked --profile "$PROFILE" --target "$1" "${PROGRAMS[@]/#/--package=}" >&2
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
    step "programs" build_programs "$target"
    BIN_DIR=${CARGO_TARGET_DIR:-$REPO/target}/$target/$PROFILE
fi

command -v buildah >/dev/null || "$HACK/setup.sh" --image
mkdir -p "$STATE/images"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
for program in "${PROGRAMS[@]}"; do
    [[ -x $BIN_DIR/$program ]] || die "no $program in $BIN_DIR"
    # In an image without a C library a dynamic program fails with a puzzling "no such file".
    ! readelf -l "$BIN_DIR/$program" | grep -q INTERP || die "$BIN_DIR/$program is not linked statically"
    install -m 755 "$BIN_DIR/$program" "$context/"
done

# Named by what is in it, so that the same programs are not packed twice.
hash=$({ cat "$context"/* "$REPO/Dockerfile"; echo "$name"; } | sha256sum | cut -c1-12)
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
