#!/usr/bin/env bash
# `make bench`: what a call with audio costs, from a caller through the gateway to an agent and back, beside the floor, which is what the
# kernel alone costs. Some ten minutes; the machine should have nothing else to do. Prints a table, and writes media.json and media.svg.
#
#   hack/bench.sh [OPTIONS]      options of the load tool: hack/bench.sh --help
#
#   RINGWIRE_BIN=FILE     take that program instead of building it
#   OUT=FOLDER            where the files go (default: target/bench)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

"$HACK/setup.sh" --rust
if [[ -z ${RINGWIRE_BIN:-} ]]; then
    # What users run.
    step "program" cargo build --locked --quiet --release --package ringwire
    export RINGWIRE_BIN=$CARGO_TARGET_DIR/release/ringwire
fi
step "load tool" cargo build --locked --quiet --release --package ringwire-tests --bin ringwire-load
# The helpers of the tests find the repository by it.
export CARGO_MANIFEST_DIR=$REPO/tests
[[ $# -gt 0 ]] || set -- --protocols twilio --calls 50,100,200,400 --churn 20,40,100,200 --rounds 3
"$CARGO_TARGET_DIR/release/ringwire-load" bench --out "${OUT:-$CARGO_TARGET_DIR/bench}" "$@"
