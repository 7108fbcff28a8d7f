#!/usr/bin/env bash
# `make bench-codecs`: recorded and synthesised speech in real calls of each codec, to the built-in echo and back, one call at a time. Prints
# the table of docs/performance.md: set-up, delay, loss, PESQ, beside what the codecs alone make of the same speech. Some eight minutes; the
# machine should have nothing else to do.
#
#   RINGWIRE_BIN=FILE     take that program, with all codecs, instead of building it
#   OUT=FOLDER            where the sound goes (default: target/bench/codecs)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

CODECS=(PCMU PCMA G722 L16 Opus AMR-WB iLBC G7221)
FEATURES=amr-wb,ilbc,g7221
# Nobody else's: other servers and tests have 127.0.0.1.
SERVER=127.0.73.1
CALLER=127.0.73.2
SECONDS_OF_SPEECH=8

"$HACK/setup.sh" --rust --sound
exclusively bench-codecs
if [[ -z ${RINGWIRE_BIN:-} ]]; then
    step "program" cargo build --locked --quiet --package ringwire --features "$FEATURES"
    RINGWIRE_BIN=$CARGO_TARGET_DIR/debug/ringwire
fi
out=${OUT:-$CARGO_TARGET_DIR/bench/codecs}
mkdir -p "$out"
export RINGWIRE_SERVER=http://$SERVER:8080

recorded=/usr/share/asterisk/sounds/en_US_f_Allison
names=() files=()
for name in demo-abouttotry demo-moreinfo vm-msginstruct; do
    sox -q -D "$recorded/$name.wav" "$out/$name.wav" trim 0 "$SECONDS_OF_SPEECH"
    names+=("$name") files+=("$out/$name.wav")
done
text="Good morning. I would like to change the date of my appointment, please. It was on Thursday at half past nine, and the number
is four eight two, one seven six. Could you tell me whether Friday afternoon is possible?"
for voice in awb rms slt; do
    flite -voice "$voice" -t "$text" -o "$out/whole.wav"
    sox -q -D "$out/whole.wav" -r 8000 -c 1 -b 16 "$out/$voice.wav" trim 0 "$SECONDS_OF_SPEECH"
    names+=("$voice") files+=("$out/$voice.wav")
done
RINGWIRE_SPEECH=$(IFS=:; echo "${files[*]}")
export RINGWIRE_SPEECH RINGWIRE_CODECS_OUT=$out
step "codecs without calls" cargo test --locked --quiet --package ringwire-media --features "$FEATURES" --test codec_table -- --ignored >&2

manifests=$out/manifests
mkdir -p "$manifests"
cp config/samples/local/{phonenumber,voiceagent}.yaml "$manifests"
{
    cat config/samples/local/sipprovider.yaml
    echo "  codecs: [$(IFS=,; echo "${CODECS[*]}")]"
} >"$manifests/sipprovider.yaml"
"$RINGWIRE_BIN" check -f "$manifests" >&2

server='' call=''
# Both end with this script, however that ends.
stop() {
    local process
    for process in $call $server; do kill "$process" 2>/dev/null || true; done
    for process in $call $server; do wait "$process" 2>/dev/null || true; done
}
trap stop EXIT
"$RINGWIRE_BIN" run -f "$manifests" --bind "$SERVER" --http "$SERVER:8080" --state-dir "$out/state" --log-format json \
    >"$out/server.log" 2>&1 9>&- &
server=$!
is_ready() { kill -0 "$server" 2>/dev/null && "$RINGWIRE_BIN" get mediagateways 2>/dev/null | grep -q True; }
wait_for 20 "the embedded server" is_ready || { tail -5 "$out/server.log" >&2; die "the server did not start"; }

place() { # CODEC NAME
    "$RINGWIRE_BIN" call "sip:+34911234567@$SERVER" --bind "$CALLER" --codec "$1" --play "$out/$2.wav" \
        --record "$out/$1-call-$2.wav" --json >"$out/$1-$2.json" 2>"$out/call.log" 9>&- &
    call=$!
    wait "$call" || { cat "$out/call.log" >&2; die "the call in $1 ($2) failed"; }
    call=''
}
place_all() {
    local codec name
    for codec in "${CODECS[@]}"; do
        for name in "${names[@]}"; do place "$codec" "$name"; done
    done
}
load() { say "load of the machine: $(cut -d ' ' -f 1-3 /proc/loadavg)"; }
load
step "$((${#CODECS[@]} * ${#names[@]})) calls" place_all
load
# With it ends its log.
stop
server=''
step "scores" "$PESQ_VENV/bin/python" "$HACK/codecs/score.py" "$out" "${CODECS[@]}" -- "${names[@]}"
