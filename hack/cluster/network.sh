# shellcheck shell=bash
# Hosts are network namespaces; their names start with rw-, not to meet anybody else's.

LAN=198.51.100
HOST_ADDRESS=$LAN.1
CARRIER_ADDRESS=$LAN.20
EXTERNAL_ADDRESS=$LAN.100

in_netns() { nsenter --net="/run/netns/rw-$1" "${@:2}"; }
node_address() { echo "$LAN.1${1#node}"; }
pod_subnet() { echo "10.244.$((${1#node} - 1)).0/24"; }

# attach HOST ADDRESS: a namespace with one interface, lan0, on the bridge.
attach() {
    local host=$1 net=rw-$1
    ip netns add "$net"
    ip -n "$net" link set lo up
    # `carrier` is a keyword of `ip link`, so the bridge's end is called v-NAME.
    ip -n rw-lan link add "v-$host" type veth peer name lan0 netns "$net"
    ip -n rw-lan link set "v-$host" master lan up
    ip -n "$net" address add "$2/24" dev lan0
    ip -n "$net" link set lan0 up
}

# route_to_pods HOST...: `ip` with the options that select the namespace.
route_to_pods() {
    local node
    for node in node1 node2; do "$@" route replace "$(pod_subnet $node)" via "$(node_address $node)"; done
    # kube-proxy on node1 translates the addresses of Services for callers without one.
    "$@" route replace 10.96.0.0/16 via "$(node_address node1)"
}

network_up() {
    local node other
    ip netns add rw-lan
    ip -n rw-lan link set lo up
    ip -n rw-lan link add lan type bridge
    ip -n rw-lan link set lan up

    attach carrier $CARRIER_ADDRESS
    for node in node1 node2; do
        attach $node "$(node_address $node)"
        ip -n rw-$node route add default via $CARRIER_ADDRESS
        in_netns $node sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    done
    for node in node1 node2; do
        other=node$((3 - ${node#node}))
        ip -n rw-$node route add "$(pod_subnet $other)" via "$(node_address $other)"
    done
    ip -n rw-node1 address add $EXTERNAL_ADDRESS/32 dev lan0
    route_to_pods ip -n rw-carrier

    # This machine's own leg, so that tests reach the API server, nodes and pods without entering a namespace.
    ip link add rw-host type veth peer name v-host netns rw-lan
    ip -n rw-lan link set v-host master lan up
    ip address add $HOST_ADDRESS/24 dev rw-host
    ip link set rw-host up
    route_to_pods ip

    # Two kubelets and containerds watch many files; the default is 128.
    local instances=/proc/sys/fs/inotify/max_user_instances
    (($(<$instances) >= 1024)) || echo 1024 >$instances
}

network_exists() {
    local host
    for host in lan node1 node2 carrier; do
        ip -n rw-$host link show lo >/dev/null 2>&1 || return 1
    done
    ip link show rw-host >/dev/null 2>&1
}

network_down() {
    local host
    ip link delete rw-host 2>/dev/null || true
    for host in carrier node1 node2 lan; do
        ip netns delete rw-$host 2>/dev/null || true
    done
}
