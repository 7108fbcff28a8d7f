#!/usr/bin/env bash
# `make bench-proxy`: processor time of the registrar for a call, beside Kamailio's for the same. Some two minutes; the machine should
# have nothing else to do.
#
#   hack/bench-proxy.sh [--rate N] [--seconds N] [--rounds N]      (default: 1000 calls per second, 15 s, 3 rounds of each)
#
#   RINGWIRE_BIN=FILE     take that program instead of building it
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

"$HACK/setup.sh" --rust --sip
if [[ -z ${RINGWIRE_BIN:-} ]]; then
    # What users run.
    step "program" cargo build --locked --quiet --release --package ringwire
    export RINGWIRE_BIN=$CARGO_TARGET_DIR/release/ringwire
fi
cargo bench --locked --quiet --package ringwire-tests --bench proxy -- "$@"
