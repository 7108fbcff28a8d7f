# shellcheck shell=bash
# `hack/cluster.sh check`: one line for each thing that the tests rely on.

CHECK=(-n ringwire-cluster-check)

# expect TEXT PATTERN COMMAND... passes when the output matches.
expect() {
    local text=$1 pattern=$2 output
    shift 2
    if output=$(timeout 10 "$@" 2>&1) && [[ $output =~ $pattern ]]; then
        echo "ok    $text"
    else
        echo "FAIL  $text: ${output:-no output}"
        failed=1
    fi
}

pod_on() { kubectl "${CHECK[@]}" get pods -l app=web -o "jsonpath={.items[?(@.spec.nodeName==\"$1\")].$2}"; }

check() {
    local failed=0 k=("$KUBERNETES_BIN/kubectl" --kubeconfig "$KUBECONFIG_ADMIN" "${CHECK[@]}")
    need_root "the check"
    build_test_image
    import_on_both "$(test_image)"
    # What an earlier check has left would still run the earlier image.
    kubectl delete namespace ringwire-cluster-check --ignore-not-found >/dev/null
    kubectl apply --server-side -f "$HACK/cluster/check.yaml" >/dev/null
    kubectl "${CHECK[@]}" rollout status daemonset web --timeout=60s >/dev/null || failed=1

    local pod1 pod2 address1 address2 service port
    pod1=$(pod_on node1 metadata.name) pod2=$(pod_on node2 metadata.name)
    address1=$(pod_on node1 status.podIP) address2=$(pod_on node2 status.podIP)
    service=$(kubectl "${CHECK[@]}" get service web -o 'jsonpath={.spec.clusterIP}')
    port=$(kubectl "${CHECK[@]}" get service web -o 'jsonpath={.spec.ports[0].nodePort}')
    local get=(curl -sS --max-time 3)
    local carrier=(nsenter --net=/run/netns/rw-carrier)

    expect "a pod obeying pod security 'restricted' runs" web- echo "$pod1"
    expect "kubectl exec" uid=65532 "${k[@]}" exec "$pod1" -- id
    expect "pod to pod, node1 to node2" node2 "${k[@]}" exec "$pod1" -- wget -qO- "http://$address2:8080/"
    expect "pod to pod, node2 to node1" node1 "${k[@]}" exec "$pod2" -- wget -qO- "http://$address1:8080/"
    expect "pod to Service by name" node "${k[@]}" exec "$pod1" -- wget -qO- http://web/
    expect "pod to its own Service's address" node "${k[@]}" exec "$pod2" -- wget -qO- "http://$service/"
    expect "DNS: sip.carrier.test" 198.51.100.20 "${k[@]}" exec "$pod2" -- nslookup sip.carrier.test
    expect "DNS: NXDOMAIN for an unknown host" NXDOMAIN sh -c '"$@" || true' - \
        "${k[@]}" exec "$pod1" -- timeout 2 nslookup nobody.example.com
    expect "this machine to a pod" node2 "${get[@]}" "http://$address2:8080/"
    expect "this machine to a Service's address" node "${get[@]}" "http://$service/"
    expect "this machine to a NodePort" node "${get[@]}" "http://$(node_address node1):$port/"
    expect "carrier to a pod" node1 "${carrier[@]}" "${get[@]}" "http://$address1:8080/"
    expect "carrier to a NodePort" node "${carrier[@]}" "${get[@]}" "http://$(node_address node2):$port/"
    expect "a pod sees the carrier's own address" "$CARRIER_ADDRESS" "${k[@]}" logs "$pod1"
    expect "pod to the API server" open "${k[@]}" exec "$pod1" -- sh -c "nc -w 2 $(node_address node1) 6443 </dev/null && echo open"

    kubectl delete namespace ringwire-cluster-check --wait=false >/dev/null
    return $failed
}
