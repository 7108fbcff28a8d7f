#!/usr/bin/env bash
# Measures thousands of registrations in one registrar, against Kamailio on this machine: docs/performance.md tells of the results.
#
#   hack/bench-registrations.sh [TRUNKS]          (default: 5000)
#
#   RINGWIRE_BIN=FILE             measure this program instead of building it
#   RINGWIRE_EXPIRY_SECONDS=S     how long a binding lasts                           (default: 60, the shortest)
#   RINGWIRE_STEADY_SECONDS=S     how long the steady state is watched               (default: 60)
#   RINGWIRE_SETTLE_SECONDS=S     before, so that refreshes have begun               (default: 0.8 × the binding)
#   RINGWIRE_CALLS_PER_SECOND=N   calls of 1 s beside it, for as long again; 0: none (default: 20)
#   RINGWIRE_LIMIT_SECONDS=S      all have to be registered by then                  (default: 300)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

case ${1:-} in
-*)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

if ! command -v kamailio >/dev/null || ! command -v sipp >/dev/null; then "$HACK/setup.sh" --sip; fi
if [[ -z ${RINGWIRE_BIN:-} ]]; then
    # As it is in the image.
    step "program" cargo build --locked --quiet --profile image --package ringwire
    RINGWIRE_BIN=$CARGO_TARGET_DIR/image/ringwire
fi
export RINGWIRE_BIN
export RINGWIRE_TRUNKS=${1:-5000}
export RINGWIRE_EXPIRY_SECONDS=${RINGWIRE_EXPIRY_SECONDS:-60}
export RINGWIRE_STEADY_SECONDS=${RINGWIRE_STEADY_SECONDS:-60}
export RINGWIRE_SETTLE_SECONDS=${RINGWIRE_SETTLE_SECONDS:-$((RINGWIRE_EXPIRY_SECONDS * 4 / 5))}
export RINGWIRE_CALLS_PER_SECOND=${RINGWIRE_CALLS_PER_SECOND:-20}
export RINGWIRE_LIMIT_SECONDS=${RINGWIRE_LIMIT_SECONDS:-300}
# A benchmark tells; what is asserted is asserted by hack/test.sh.
export RINGWIRE_MEASURE_ONLY=1
exec cargo test --locked --quiet --package ringwire-tests --test registrations -- --nocapture
