#!/usr/bin/env bash
# Fuzzes what reads bytes from the network: builds media-pod/sip/fuzz with libFuzzer (stable Rust, needs g++), runs
# each target for a while with bounded memory, and fails when one of them finds something.
#
#   hack/fuzz.sh SECONDS [message|sdp|stream ...]     (default: all targets)
#
# What a run learns stays in $CARGO_TARGET_DIR/fuzz/corpus, so that the next one goes on from there. An input that
# breaks something is kept in $CARGO_TARGET_DIR/fuzz/found: put it into media-pod/sip/fuzz/corpus with its fix, then
# `cargo test` runs it too.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { usage; exit 1; }
seconds=$1
shift
targets=("$@")
((${#targets[@]})) || targets=(message sdp stream)

FUZZ=$REPO/media-pod/sip/fuzz
STATE=${CARGO_TARGET_DIR:-$REPO/target}/fuzz
# A target of its own keeps the counters out of build scripts, which would not link with them.
host=$(rustc -vV | sed -n 's/^host: //p')
counters=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg=fuzzing
)

build() {
    RUSTFLAGS="${counters[*]}" CARGO_TARGET_DIR=$STATE/build cargo build --manifest-path "$FUZZ/Cargo.toml" \
        --locked --quiet --release --bins --target "$host"
}

# fuzz TARGET: libFuzzer's log goes to a file, its last figures to the terminal.
fuzz() {
    local name=$1 log=$STATE/$1.log
    mkdir -p "$STATE/corpus/$name" "$STATE/found"
    if ! "$STATE/build/$host/release/$name" -max_total_time="$seconds" -rss_limit_mb=512 -max_len=4096 -timeout=5 \
        -dict="$FUZZ/sip.dict" -print_final_stats=1 -artifact_prefix="$STATE/found/$name-" \
        "$STATE/corpus/$name" "$FUZZ/corpus/$name" >"$log" 2>&1; then
        grep -aE -A 3 'panicked|ERROR|SUMMARY|Test unit written' "$log" >&2 || tail -n 20 "$log" >&2
        die "$name found something, see $log"
    fi
    say "$(awk -v name="$name" '
        / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1); else if ($i == "corp:") corp = $(i + 1) }
        /number_of_executed_units/ { runs = $2 }
        /average_exec_per_sec/ { speed = $2 }
        /peak_rss_mb/ { memory = $2 }
        END { printf "%s: %s executions, %s/s, %s edges, corpus %s, peak %s MiB", name, runs, speed, cov, corp, memory }
    ' "$log")"
}

step "build of the fuzz targets" build
for name in "${targets[@]}"; do
    [[ -e $FUZZ/targets/$name.rs ]] || die "unknown target: $name"
    fuzz "$name"
done
