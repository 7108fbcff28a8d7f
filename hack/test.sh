#!/usr/bin/env bash
# `make test`: sets up what it needs, then runs everything. Prints what it does and how long it took.
#
#   hack/test.sh [lint|unit|chart|local|cluster|soak ...]     (default: all but soak)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

wanted=("$@")
((${#wanted[@]})) || wanted=(lint unit chart local cluster)
begun=$SECONDS

host=$(rustc -vV | sed -n 's/^host: //p')
# The program under test is that of the image: static, optimised.
export PROFILE=image
export RINGWIRE_BIN=$CARGO_TARGET_DIR/$host/$PROFILE/ringwire
image=

section() { say ""; say "== $*"; }

program() {
    [[ -z $image ]] || return 0
    section "program and image"
    image=$("$HACK/image.sh")
}

run_lint() {
    section "lint"
    step "formatting" cargo fmt --all --check
    step "shell scripts" shellcheck --external-sources hack/*.sh hack/cluster/*.sh charts/ringwire/tests/*.sh config/*.sh .ci/run
    step "generated files" "$HACK/generate.sh" --check
    step "clippy" cargo clippy --locked --quiet --workspace --all-targets -- --deny warnings
    step "clippy of features" \
        cargo clippy --locked --quiet --package ringwire --package ringwire-media --package ringwire-amr-wb --all-features --all-targets -- --deny warnings
}

run_unit() {
    section "unit, snapshot and schema tests"
    step "cargo test" cargo test --locked --quiet --workspace --exclude ringwire-tests
    step "codecs of features" cargo test --locked --quiet --package ringwire-media --features amr-wb,g7221,ilbc codec
    step "codecs of features against other programs" \
        cargo test --locked --quiet --package ringwire-media --features amr-wb,g7221,ilbc --test ffmpeg --test g7221 --test codecs
    step "load tool" cargo test --locked --quiet --package ringwire-tests --bin ringwire-load
    step "fuzzing, 20 s each" "$HACK/fuzz.sh" 20
}

run_chart() {
    section "chart and kustomize"
    # helm and kubectl of the versions that are built here.
    PATH=$HELM_BIN:$KUBERNETES_BIN:$PATH
    step "chart" charts/ringwire/tests/run.sh
    step "kustomize renders the same" config/test.sh
}

run_local() {
    program
    section "end to end without a cluster: Kamailio, sipp, baresip"
    # They wait more than they compute.
    step "local" cargo test --locked --package ringwire-tests --test local -- --test-threads=6
    # One at a time: sound suffers from what else runs.
    step "sound" cargo test --locked --package ringwire-tests --test audio -- --test-threads=1
    step "program with codecs of features" cargo build --locked --quiet --package ringwire --features amr-wb,g7221,ilbc
    step "calls in codecs of features" env RINGWIRE_BIN="$CARGO_TARGET_DIR/debug/ringwire" \
        cargo test --locked --quiet --package ringwire-tests --test codecs -- --test-threads=1
    step "leaks" cargo test --locked --package ringwire-tests --test leak -- --nocapture
    step "5,000 registrations" cargo test --locked --package ringwire-tests --test registrations -- --nocapture
    step "flood" cargo test --locked --package ringwire-tests --test flood -- --test-threads=1 --nocapture
}

run_cluster() {
    program
    section "end to end on a two-node cluster"
    trap '"$HACK/cluster.sh" down' EXIT
    # A new one: what the tests change, they change in it.
    "$HACK/cluster.sh" down
    step "cluster" "$HACK/cluster.sh" up
    step "image on both nodes" "$HACK/cluster.sh" load-image "$image"
    eval "$("$HACK/cluster.sh" env)"
    RINGWIRE_IMAGE=ringwire.dev/ringwire:dev step "cluster tests" \
        cargo test --locked --package ringwire-tests --test cluster -- --test-threads=1 --nocapture
    "$HACK/cluster.sh" down
    trap - EXIT
}

run_soak() {
    program
    section "soak"
    step "fuzzing, 10 minutes each" "$HACK/fuzz.sh" 600
    step "leaks" cargo test --locked --package ringwire-tests --test leak -- --nocapture
}

section "set-up"
step "set-up" "$HACK/setup.sh" --all
for part in "${wanted[@]}"; do
    case $part in
    lint | unit | chart | local | cluster | soak) "run_$part" ;;
    *) die "unknown part: $part" ;;
    esac
done
say ""
say "all passed in $((SECONDS - begun)) s"
