#!/usr/bin/env bash
# A Kubernetes cluster with two nodes and a carrier beside them, on one Linux machine, without Docker.
#
#   hack/cluster.sh up               start it; repairs or replaces what a crash has left
#   hack/cluster.sh down             stop it and delete its data
#   hack/cluster.sh status           what runs
#   hack/cluster.sh env              eval "$(hack/cluster.sh env)" sets KUBECONFIG, PATH, RINGWIRE_CARRIER_NETNS
#   hack/cluster.sh load-image TAR   import an image (docker-archive) on both nodes
#   hack/cluster.sh check            does everything work that the tests rely on?
#   hack/cluster.sh logs [NAME]      the last lines of one process, or of all
#   hack/cluster.sh stop|start NAME  one process, for tests of what happens without it
#
# The hosts are network namespaces on one bridge, 198.51.100.0/24 (a range for documentation):
#   .1 this machine   .11 rw-node1   .12 rw-node2   .20 rw-carrier   .100 on node1, for Services' external addresses
# Pods (10.244.0.0/24 on node1, 10.244.1.0/24 on node2) and Services (10.96.0.0/16) are reached from each of them.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/cluster/processes.sh
source "$HACK/cluster/processes.sh"
# shellcheck source=hack/cluster/network.sh
source "$HACK/cluster/network.sh"
# shellcheck source=hack/cluster/pki.sh
source "$HACK/cluster/pki.sh"
# shellcheck source=hack/cluster/images.sh
source "$HACK/cluster/images.sh"
# shellcheck source=hack/cluster/node.sh
source "$HACK/cluster/node.sh"
# shellcheck source=hack/cluster/control-plane.sh
source "$HACK/cluster/control-plane.sh"
# shellcheck source=hack/cluster/check.sh
source "$HACK/cluster/check.sh"

DIR=$STATE/cluster
PKI=$STATE/cluster-pki # outlives the cluster, so that a kubeconfig stays valid
KUBECONFIG_ADMIN=$PKI/admin.kubeconfig

# In the order in which they start.
PROCESSES=(
    containerd-node1 containerd-node2 etcd apiserver controller-manager scheduler
    kubelet-node1 kubelet-node2 kube-proxy-node1 kube-proxy-node2 coredns
)

kubectl() { "$KUBERNETES_BIN/kubectl" --kubeconfig "$KUBECONFIG_ADMIN" "$@"; }

start_process() {
    case $1 in
    containerd-* | kubelet-* | kube-proxy-*) "start_${1%-node?}" "${1##*-}" ;;
    *) "start_${1//-/_}" ;;
    esac
}

healthy() {
    local ready
    ready=$(kubectl get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) &&
        [[ $ready = "True True" ]] && kubectl get serviceaccount default -o name >/dev/null 2>&1 &&
        dns_answers
}

start_everything() {
    mkdir -p "$DIR"/{logs,pids,etcd,dns}
    step "network" network_up
    step "certificates" make_pki
    step "pause image" build_pause_image
    start_process containerd-node1
    start_process containerd-node2
    start_process etcd
    start_process apiserver
    step "containerd" wait_for 60 "containerd with the pause image" import_on_both "$(pause_image)"
    step "control plane" wait_for 120 "a ready API server" apiserver_ready
    start_process controller-manager
    start_process scheduler
    create_nodes
    local process
    for process in "${PROCESSES[@]:6}"; do start_process "$process"; done
    step "nodes ready" wait_for 120 "two ready nodes" healthy
}

repair() {
    local process
    for process in "${PROCESSES[@]}"; do
        alive "$process" && continue
        say "$process is not running, starting it"
        start_process "$process"
        if [[ $process = apiserver ]]; then wait_for 120 "a ready API server" apiserver_ready || return 1; fi
    done
    wait_for 120 "two ready nodes" healthy
}

up() {
    need_root "the cluster"
    if ! [[ -d $KUBERNETES_BIN && -d $ETCD_BIN && -d $COREDNS_BIN ]] || ! command -v containerd buildah >/dev/null; then
        "$HACK/setup.sh" --cluster --image
    fi
    exclusively cluster
    # Linux limits a socket's path to 107 bytes, and containerd appends to ours.
    ((${#DIR} < 70)) || die "the path $DIR is too long for sockets; set RINGWIRE_STATE to a shorter one"
    if [[ -e $DIR/ready ]] && network_exists; then
        if repair; then return; fi
        say "could not be repaired, starting anew"
    fi
    clean_up
    start_everything
    touch "$DIR/ready"
}

# Nothing is worth a graceful stop, for all data goes too. Kubelets first, or they would start pods again.
clean_up() {
    local process node
    rm -f "$DIR/ready"
    # A carrier in a namespace without a name could not be reached any more.
    if grep -qs '^rw-carrier' "$STATE/carrier/rendered/netns"; then "$HACK/carrier.sh" --dir "$STATE/carrier" down; fi
    for process in kubelet-node1 kubelet-node2; do kill_process "$process"; done
    for node in node1 node2; do kill_containers "$node"; done
    for process in "${PROCESSES[@]}"; do kill_process "$process"; done
    network_down
    unmount_below "$DIR"
    for node in node1 node2; do remove_cgroups "$node"; done
    find /var/log/containers -lname "$DIR/*" -delete 2>/dev/null || true
    rm -rf "$DIR"
}

down() {
    need_root "the cluster"
    exclusively cluster
    clean_up
}

status() {
    local process
    for process in "${PROCESSES[@]}"; do
        if alive "$process"; then
            printf '%-20s running  pid %s\n' "$process" "$(process_id "$process")"
        else
            printf '%-20s stopped\n' "$process"
        fi
    done
    kubectl get nodes -o wide --request-timeout=3s 2>/dev/null || { echo "the API server does not answer"; return 1; }
}

environment() {
    cat <<END
export KUBECONFIG='$KUBECONFIG_ADMIN'
export PATH='$KUBERNETES_BIN:$HELM_BIN:$ETCD_BIN':"\$PATH"
export RINGWIRE_CARRIER_NETNS=rw-carrier
END
}

show_logs() {
    if (($#)); then tail -n 200 "$DIR/logs/$1.log"; else tail -n 20 "$DIR"/logs/*.log; fi
}

known_process() { [[ " ${PROCESSES[*]} " = *" $1 "* ]] || die "no process '$1'; there are: ${PROCESSES[*]}"; }

command=${1:-}
shift || true
case $command in
up) step "cluster up" up ;;
down) step "cluster down" down ;;
status) status ;;
env) environment ;;
load-image) exclusively images; import_on_both "${1:?which file?}" ;;
check) check ;;
logs) show_logs "$@" ;;
stop) known_process "${1:-}"; kill_process "$1" ;;
start) known_process "${1:-}"; alive "$1" || start_process "$1" ;;
*) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; [[ $command = -h || $command = --help ]] ;;
esac
