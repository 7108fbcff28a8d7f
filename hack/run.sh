#!/usr/bin/env bash
# The first minute with Ringwire: builds it, starts the embedded server on loopback, calls it, and keeps serving.
#
#   hack/run.sh [--once]      --once: stop after the test call
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ ${1:-} = --once ]] && once=1 || once=

"$HACK/setup.sh" --rust
cd "$REPO"
step "build" cargo build --locked --quiet --package ringwire
ringwire=${CARGO_TARGET_DIR:-$REPO/target}/debug/ringwire

"$ringwire" check -f config/samples/local
"$ringwire" run -f config/samples/local --bind 127.0.0.1 &
server=$!
# The server ends with this script, however that ends.
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
is_ready() { kill -0 "$server" 2>/dev/null && "$ringwire" get mediagateways 2>/dev/null | grep -q True; }
wait_for 20 "the embedded server" is_ready || die "the server did not start; is another program using port 5060 or 8080?"

say ""
say "--- ringwire get all"
"$ringwire" get all >&2
say ""
say "--- ringwire call sip:+34911234567@127.0.0.1"
"$ringwire" call sip:+34911234567@127.0.0.1 --min-correlation 0.9
[[ -z $once ]] || exit 0
say ""
say "Serving on 127.0.0.1:5060 until Ctrl-C. In another terminal:"
say "  $ringwire call sip:+34911234567@127.0.0.1 --play some.wav --record echo.wav"
say "  $ringwire get all -o wide"
say "  edit config/samples/local/*.yaml: the next call follows"
trap 'kill -INT "$server" 2>/dev/null' INT TERM
wait "$server" || true
# A signal ends the first wait; the server may still be finishing its calls.
wait "$server" 2>/dev/null || true
