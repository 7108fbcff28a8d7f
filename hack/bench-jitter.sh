#!/usr/bin/env bash
# `make bench-jitter`: recorded and synthesised speech through loss and jitter into the jitter buffer and into fixed ones. Prints the table of
# docs/jitter.md: delay added, frames concealed, PESQ. Some five minutes.
#
#   OUT=FOLDER            where the sound goes (default: target/bench/jitter)
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}

"$HACK/setup.sh" --rust --sound
out=${OUT:-$CARGO_TARGET_DIR/bench/jitter}
mkdir -p "$out"

recorded=/usr/share/asterisk/sounds/en_US_f_Allison
files=()
for name in demo-abouttotry demo-moreinfo dir-intro vm-msginstruct; do
    sox -q "$recorded/$name.wav" "$out/speech-$name.wav" trim 0 12
    files+=("$out/speech-$name.wav")
done
text="Good morning. I would like to change the date of my appointment, please. It was on Thursday at half past nine, and the number
is four eight two, one seven six. Could you tell me whether Friday afternoon is possible?"
for voice in awb kal16 rms slt; do
    flite -voice "$voice" -t "$text" -o "$out/whole.wav"
    sox -q "$out/whole.wav" -r 8000 -c 1 -b 16 "$out/speech-$voice.wav" trim 0 12
    files+=("$out/speech-$voice.wav")
done
RINGWIRE_SPEECH=$(IFS=:; echo "${files[*]}")
export RINGWIRE_SPEECH RINGWIRE_JITTER_OUT=$out
step "calls" cargo test --locked --quiet --package ringwire-media --test jitter_table -- --ignored >&2
step "scores" "$PESQ_VENV/bin/python" "$HACK/jitter/score.py" "$out"
