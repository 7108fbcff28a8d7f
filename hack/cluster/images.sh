# shellcheck shell=bash
# The two small images that the cluster itself needs, and how images get onto the nodes.

PAUSE_IMAGE=ringwire.dev/pause:1
TEST_IMAGE=ringwire.dev/busybox:1

pause_image() { echo "$STATE/tools/pause-1/image.tar"; }
test_image() { echo "$STATE/tools/busybox-1/image.tar"; }

# image_from DIR NAME OUT [OPTIONS...]: builds the Dockerfile there into a docker-archive.
image_from() {
    local dir=$1 name=$2 out=$3 store result=0
    shift 3
    store=$(mktemp -d)
    # vfs and chroot need nothing of the kernel, so that this works in a container too.
    local buildah=(buildah --storage-driver vfs --root "$store/root" --runroot "$store/run")
    "${buildah[@]}" bud --quiet --isolation chroot "$@" -t "$name" "$dir" >/dev/null &&
        "${buildah[@]}" push --quiet "$name" "docker-archive:$out:$name" >/dev/null || result=$?
    rm -rf "$store"
    return $result
}

build_pause_image() {
    [[ ! -e $(pause_image) ]] || return 0
    local dir
    dir=$(dirname "$(pause_image)")
    rm -rf "$dir" "$dir".tmp-*
    mkdir -p "$dir.tmp-$$"
    gcc -static -Os -s -o "$dir.tmp-$$/pause" "$HACK/cluster/pause.c"
    printf 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n' >"$dir.tmp-$$/Dockerfile"
    image_from "$dir.tmp-$$" $PAUSE_IMAGE "$dir.tmp-$$/image.tar"
    mv "$dir.tmp-$$" "$dir"
}

build_test_image() {
    [[ ! -e $(test_image) ]] || return 0
    local dir
    dir=$(dirname "$(test_image)")
    rm -rf "$dir" "$dir".tmp-*
    mkdir -p "$dir.tmp-$$/bin"
    cp /bin/busybox "$dir.tmp-$$/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do ln -s busybox "$dir.tmp-$$/bin/$applet" 2>/dev/null || true; done
    printf 'FROM scratch\nCOPY bin /bin\nENV PATH=/bin\nUSER 65532:65532\n' >"$dir.tmp-$$/Dockerfile"
    image_from "$dir.tmp-$$" $TEST_IMAGE "$dir.tmp-$$/image.tar"
    mv "$dir.tmp-$$" "$dir"
}

import_on_both() {
    local node
    for node in node1 node2; do
        ctr -a "$(containerd_socket $node)" -n k8s.io images import "$1" >/dev/null || return 1
    done
}
