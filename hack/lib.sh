# shellcheck shell=bash
# Shared by the scripts in this folder: where state lives, versions, small helpers.

# shellcheck disable=SC2034  # used by the scripts that source this file
HACK=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$HACK")
STATE=${RINGWIRE_STATE:-$HOME/.cache/ringwire}

KUBERNETES_VERSION=v1.34.4
ETCD_VERSION=v3.6.16
HELM_VERSION=v3.22.0
COREDNS_VERSION=v1.12.4

KUBERNETES_BIN=$STATE/tools/kubernetes-$KUBERNETES_VERSION/bin
ETCD_BIN=$STATE/tools/etcd-$ETCD_VERSION/bin
HELM_BIN=$STATE/tools/helm-$HELM_VERSION/bin
COREDNS_BIN=$STATE/tools/coredns-$COREDNS_VERSION/bin
AUDIOSOCKET_BIN=$STATE/tools/audiosocket
WEBRTC_VENV=$STATE/tools/webrtc-1.15.0
G7221_VENV=$STATE/tools/g7221-0.1a3
PJSIP_VENV=$STATE/tools/pjsip-2.15.1
PESQ_VENV=$STATE/tools/pesq-0.0.4

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() { [[ $(id -u) = 0 ]] || die "$1 needs root (namespaces, mounts, packages)"; }

# step TEXT COMMAND... runs a command and says how long it took.
step() {
    local text=$1 start=$EPOCHREALTIME
    shift
    "$@"
    local micros=$((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}))
    say "$(printf '%-52s %d.%01d s' "$text" $((micros / 1000000)) $((micros / 100000 % 10)))"
}

# wait_for SECONDS TEXT COMMAND... polls until the command succeeds.
wait_for() {
    local limit=$1 text=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || { say "error: $text did not happen within $limit s"; return 1; }
        sleep 0.2
    done
}

# exclusively NAME takes a lock until the script ends, so that two runs don't trip over each other.
# Whatever is left running must be started with 9>&-, or it would keep the lock.
exclusively() {
    mkdir -p "$STATE/locks"
    exec 9>"$STATE/locks/$1"
    if ! flock -n 9; then
        say "waiting for another run of $1 to end"
        flock 9
    fi
}
