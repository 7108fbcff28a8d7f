#!/usr/bin/env bash
# Makes the files that are made from other files, which are checked in all the same:
#
#   crds/crds                                  from the types in crds/src
#   charts/ringwire/templates/crds, config/crd  copies of these
#   charts/ringwire/values.schema.json         from hack/generate/values.schema.json, values.yaml and the CRDs
#   charts/ringwire/README.md                  from values.yaml and Chart.yaml
#   config/samples/**/README.md                from the samples
#
#   hack/generate.sh            writes them
#   hack/generate.sh --check    changes nothing; lists the files that are not as they should be, and fails if there are any
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Folders in which every file is generated: one too many is as wrong as one missing.
FOLDERS=(crds/crds charts/ringwire/templates/crds config/crd)

# The python3 found first may be one to which the system's packages are unknown.
python_with_yaml() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import yaml' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    die "no python3 with yaml: apt-get install python3-yaml"
}

make_all() { # OUT
    mkdir -p "$1/crds/crds"
    (cd "$REPO" && cargo run --quiet --locked --package ringwire-crds --bin crdgen -- "$1/crds/crds")
    PYTHONDONTWRITEBYTECODE=1 "$PYTHON" "$HACK/generate/generate.py" "$REPO" "$1"
}

drifted() { # OUT; the files that differ, are missing or should not be there
    local out=$1 file folder
    (cd "$out" && find . -type f -printf '%P\n') | sort | while read -r file; do
        cmp -s "$out/$file" "$REPO/$file" || echo "$file"
    done
    for folder in "${FOLDERS[@]}"; do
        (cd "$REPO" && find "$folder" -type f) | sort | while read -r file; do
            [[ -e $out/$file ]] || echo "$file"
        done
    done
}

case ${1:-} in
'' | --check) ;;
*)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    [[ $1 = -h || $1 = --help ]]
    exit
    ;;
esac

PYTHON=$(python_with_yaml)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
make_all "$out"
mapfile -t files < <(drifted "$out")
((${#files[@]})) || exit 0
if [[ ${1:-} = --check ]]; then
    say "error: these files are not what hack/generate.sh makes; run it and commit the result:"
    say "$(printf '  %s\n' "${files[@]}")"
    exit 1
fi
for file in "${files[@]}"; do
    if [[ -e $out/$file ]]; then
        # One file at a time, and at once: others may be reading it.
        mkdir -p "$REPO/$(dirname "$file")"
        install -m 644 "$out/$file" "$REPO/$file.tmp-$$"
        mv "$REPO/$file.tmp-$$" "$REPO/$file"
    else
        rm -f "$REPO/$file"
    fi
    say "generated $file"
done
