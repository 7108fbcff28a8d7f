#!/usr/bin/env bash
# Installs what building and testing Ringwire needs on Debian 12. Everything is safe to repeat.
#
#   hack/setup.sh [--all] [--rust] [--cluster] [--image] [--sip] [--sound] [--lint]
#
#   --rust     what `cargo build` and `cargo test` need; the ITU's G.722.1, for its tests (of PJSIP, in a Python
#              environment of its own)
#   --cluster  Kubernetes, etcd, CoreDNS, helm (built from Go modules) and containerd for hack/cluster.sh
#   --image    buildah, for hack/image.sh
#   --sip      the SIP peers of the end-to-end tests, an AudioSocket agent (built from a Go module), a WebRTC
#              peer (aiortc) and a phone (PJSIP), each in a Python environment of its own, and tools for sound
#   --sound    recorded speech and PESQ (in a Python environment of its own), for `make bench-jitter`
#              and `make bench-codecs`; not part of --all
#   --lint     shellcheck
#   --all      all of these but --sound (the default)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The libraries are those of the feature amr-wb; ffmpeg, and PJSIP in a Python environment, judge the codecs that are built in by features.
RUST_PACKAGES=(build-essential cmake ffmpeg libopencore-amrwb-dev libvo-amrwbenc-dev lld pkg-config python3-venv)
IMAGE_PACKAGES=(buildah crun ca-certificates gcc)
CLUSTER_PACKAGES=(
    busybox-static conntrack containerd containernetworking-plugins curl ethtool gcc iproute2 iptables jq
    kmod libc6-dev nftables openssl procps runc socat util-linux
)
# With libavcodec-extra, which takes the place of libavcodec59, rtpengine codes AMR-WB; without it it only decodes it.
SIP_PACKAGES=(
    baresip-core flite kamailio kamailio-extra-modules kamailio-tls-modules libavcodec-extra python3-venv rtpengine-daemon
    sip-tester sox tshark
)
SOUND_PACKAGES=(asterisk-core-sounds-en-wav build-essential flite python3-dev python3-venv sox)
LINT_PACKAGES=(python3-yaml shellcheck)

missing_packages() {
    local package
    for package; do
        # Packages that were removed but not purged are known to dpkg too, hence the look at the status.
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) = installed ]] || echo "$package"
    done
}

# Debian starts the services of the packages that it installs. Kamailio would take port 5060.
forbid_services() {
    local policy=/usr/sbin/policy-rc.d
    # A copy with our mark is one left by an interrupted run: it is not somebody's own to put back.
    if [[ -e $policy ]] && ! grep -q 'ringwire hack/setup.sh' $policy; then mv $policy $policy.ringwire-saved; fi
    printf '#!/bin/sh\n# ringwire hack/setup.sh\nexit 101\n' >$policy
    chmod +x $policy
}
allow_services() {
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy.ringwire-saved ]]; then mv $policy.ringwire-saved $policy; else rm -f $policy; fi
}

apt_install() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    need_root "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    step "apt-get update" apt-get -qq update >/dev/null
    trap allow_services EXIT
    forbid_services
    step "apt-get install ${#missing[@]} packages" \
        apt-get -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Lock::Timeout=300 \
        "${missing[@]}" >/dev/null 9>&-
    allow_services
    trap - EXIT
}

check_rust() {
    command -v cargo >/dev/null ||
        die "no Rust: install it with rustup (https://rustup.rs); rust-toolchain.toml or Cargo.toml names the version"
}

check_go() {
    command -v go >/dev/null || die "no Go: Go 1.26 or newer is needed to build Kubernetes and the AudioSocket agent of the tests (https://go.dev/dl)"
}

# build NAME DIRECTORY COMMAND... runs the command with a temporary directory as last argument and puts it in
# place only when it succeeded, so that a half-finished build is never taken for a finished one.
build() {
    local name=$1 bin=$2 temporary
    shift 2
    [[ ! -d $bin ]] || return 0
    mkdir -p "$(dirname "$bin")"
    rm -rf "$bin".tmp-*
    temporary=$bin.tmp-$$
    mkdir -p "$temporary"
    step "built $name" "$@" "$temporary"
    mv "$temporary" "$bin"
}

go_build() { # MODULE-DIRECTORY LDFLAGS OUT; builds what the `tool` lines of go.mod name
    (cd "$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w $2" -o "$3/" tool)
}

# Kubernetes calls itself v0.0.0 unless it is told.
build_kubernetes() {
    local version=k8s.io/component-base/version
    go_build "$HACK/kubernetes" "-X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=34" "$1"
}

build_etcd() {
    go_build "$HACK/etcd" "" "$1"
    mv "$1/server" "$1/etcd"
}

# Always: go knows what has changed since the last time.
build_audiosocket() {
    check_go
    mkdir -p "$AUDIOSOCKET_BIN"
    (cd "$HACK/audiosocket" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -o "$AUDIOSOCKET_BIN/agent" .)
}

# set_up_python NAME DIRECTORY REQUIREMENTS makes a Python environment. Where it is, is written into it, so it is made in place, and is whole when
# the mark is there.
set_up_python() {
    [[ ! -e $2/complete ]] || return 0
    rm -rf "$2"
    step "built $1" build_python "$2" "$3"
    touch "$2/complete"
}

build_python() { # OUT REQUIREMENTS; /usr/bin's Python, whose headers are installed
    /usr/bin/python3 -m venv "$1"
    "$1/bin/python" -m pip --quiet --disable-pip-version-check install --requirement "$2"
}

go_install() { # PACKAGE@VERSION LDFLAGS OUT
    (cd / && CGO_ENABLED=0 GOFLAGS=-mod=mod GOBIN=$3 go install -trimpath -ldflags "-s -w $2" "$1")
}

set_up_cluster() {
    [[ -d $KUBERNETES_BIN && -d $ETCD_BIN && -d $COREDNS_BIN && -d $HELM_BIN ]] || check_go
    build "etcd $ETCD_VERSION" "$ETCD_BIN" build_etcd
    build "Kubernetes $KUBERNETES_VERSION" "$KUBERNETES_BIN" build_kubernetes
    build "CoreDNS $COREDNS_VERSION" "$COREDNS_BIN" go_install "github.com/coredns/coredns@$COREDNS_VERSION" ""
    build "helm $HELM_VERSION" "$HELM_BIN" go_install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION" \
        "-X helm.sh/helm/v3/internal/version.version=$HELM_VERSION"
}

main() {
    local part parts=()
    for part; do
        case $part in
        --rust | --cluster | --image | --sip | --sound | --lint) parts+=("${part#--}") ;;
        --all) parts=(rust cluster image sip lint) ;;
        *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; [[ $part = -h || $part = --help ]]; exit ;;
        esac
    done
    ((${#parts[@]})) || parts=(rust cluster image sip lint)

    exclusively setup
    # One call for all parts: apt is slow to start.
    local packages=()
    for part in "${parts[@]}"; do
        case $part in
        rust) packages+=("${RUST_PACKAGES[@]}") ;;
        cluster) packages+=("${CLUSTER_PACKAGES[@]}") ;;
        image) packages+=("${IMAGE_PACKAGES[@]}") ;;
        sip) packages+=("${SIP_PACKAGES[@]}") ;;
        sound) packages+=("${SOUND_PACKAGES[@]}") ;;
        lint) packages+=("${LINT_PACKAGES[@]}") ;;
        esac
    done
    apt_install "${packages[@]}"
    for part in "${parts[@]}"; do
        case $part in
        rust)
            check_rust
            set_up_python "the judge of G.722.1" "$G7221_VENV" "$REPO/media-pod/media/tests/g7221/requirements.txt"
            ;;
        cluster) set_up_cluster ;;
        sip)
            step "built the AudioSocket agent" build_audiosocket
            set_up_python "the WebRTC peer" "$WEBRTC_VENV" "$REPO/tests/webrtc/requirements.txt"
            set_up_python PJSIP "$PJSIP_VENV" "$REPO/tests/pjsip/requirements.txt"
            ;;
        sound) set_up_python PESQ "$PESQ_VENV" "$HACK/jitter/requirements.txt" ;;
        esac
    done
}

step "set up" main "$@"
