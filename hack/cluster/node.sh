# shellcheck shell=bash
# A node: containerd, kubelet, kube-proxy, their cgroups.

containerd_socket() { echo "$DIR/$1/containerd.sock"; }

start_containerd() {
    local node=$1 dir=$DIR/$1
    mkdir -p "$dir/cni"
    cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
state = "$dir/containerd-state"
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "$(containerd_socket "$node")"

[debug]
level = "warn"

[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$PAUSE_IMAGE"
# Without it runc cannot write the sandbox's oom_score_adj on a machine that is itself a container.
restrict_oom_score_adj = true
# So that what belongs to this node is found below its folder when it has to be taken down.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "$dir/runc"
END
    # No masquerading: the carrier sees the pods' own addresses, as in a routed network.
    cat >"$dir/cni/10-ringwire.conflist" <<END
{
  "cniVersion": "1.0.0",
  "name": "ringwire",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "$dir/ipam",
        "ranges": [[{"subnet": "$(pod_subnet "$node")"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
    spawn "containerd-$node" "rw-$node" containerd --config "$dir/containerd.toml"
}

# cgroup v1 has a tree for each controller, v2 has one; some machines have both.
cgroup_trees() { awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts; }

make_cgroups() {
    local tree controller
    for tree in $(cgroup_trees); do
        if [[ -e $tree/cgroup.controllers ]]; then
            for controller in $(<"$tree/cgroup.controllers"); do
                echo "+$controller" 2>/dev/null >"$tree/cgroup.subtree_control" || true
            done
        fi
        mkdir -p "$tree/rw-$1"
        # All pods of a node weigh as much as one process outside unless told otherwise: a compiler would starve them.
        if [[ -e $tree/rw-$1/cpu.shares ]]; then echo 8192 >"$tree/rw-$1/cpu.shares"; fi
        if [[ -e $tree/rw-$1/cpu.weight ]]; then echo 800 >"$tree/rw-$1/cpu.weight"; fi
    done
}

start_kubelet() {
    local node=$1 dir=$DIR/$1
    make_cgroups "$node"
    mkdir -p "$dir"/{kubelet,pod-logs}
    echo "nameserver $(node_address node1)" >"$dir/resolv.conf"
    cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$node.crt
tlsPrivateKeyFile: $PKI/$node.key
containerRuntimeEndpoint: unix://$(containerd_socket "$node")
cgroupDriver: cgroupfs
cgroupRoot: /rw-$node
podLogsDir: $dir/pod-logs
clusterDomain: cluster.local
clusterDNS: ["$(node_address node1)"]
resolvConf: $dir/resolv.conf
failSwapOn: false
localStorageCapacityIsolation: false
serializeImagePulls: false
# The disk is the developer's: how full it is says nothing about the pods, and images are loaded by hand.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", pid.available: "0%"}
END
    spawn "kubelet-$node" "rw-$node" "${FIRST[@]}" "$KUBERNETES_BIN/kubelet" --config="$dir/kubelet.yaml" \
        --kubeconfig="$PKI/$node.kubeconfig" --root-dir="$dir/kubelet" \
        --hostname-override="$node" --node-ip="$(node_address "$node")"
}

start_kube-proxy() {
    local node=$1
    cat >"$DIR/$node/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
hostnameOverride: $node
mode: iptables
# What comes from elsewhere to a Service's cluster address is masqueraded, or the answer would take another way.
clusterCIDR: 10.244.0.0/16
# nf_conntrack_max can't be set from within a network namespace.
conntrack: {maxPerCore: 0, min: 0}
iptables: {minSyncPeriod: 100ms}
END
    spawn "kube-proxy-$node" "rw-$node" "${FIRST[@]}" "$KUBERNETES_BIN/kube-proxy" --config="$DIR/$node/kube-proxy.yaml"
}

container_processes() {
    local tree
    for tree in $(cgroup_trees); do
        find "$tree/rw-$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -un
}

# A shim is ours when it serves our containerd's socket.
shims() {
    local socket cmdline argument found
    socket=$(containerd_socket "$1")
    for cmdline in /proc/[0-9]*/cmdline; do
        found=
        while IFS= read -r -d '' argument; do
            [[ $argument = "$socket" ]] && found=1
        done 2>/dev/null <"$cmdline" || true
        [[ -z $found ]] || basename "$(dirname "$cmdline")"
    done
}

kill_containers() {
    local pids address attempt
    kill_process "containerd-$1"
    # A shim may just be starting a process, hence more than once.
    for attempt in 1 2 3 4 5; do
        mapfile -t pids < <(shims "$1"; container_processes "$1")
        ((${#pids[@]})) || break
        kill -9 "${pids[@]}" 2>/dev/null || true
        sleep "0.$attempt"
    done
    # The shims' own sockets lie outside of our folder.
    for address in "$DIR/$1"/containerd-state/io.containerd.runtime.v2.task/k8s.io/*/address; do
        [[ ! -e $address ]] || rm -f "$(sed 's,^unix://,,' "$address")"
    done
}

remove_cgroups() {
    local tree
    for tree in $(cgroup_trees); do
        [[ ! -d $tree/rw-$1 ]] || find "$tree/rw-$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}
