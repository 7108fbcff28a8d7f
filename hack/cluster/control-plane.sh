# shellcheck shell=bash
# The control plane and the cluster's DNS, all in node1's namespace.

# Before compilers, or the leases lapse while one builds. Not for containerd: the pods would inherit it.
FIRST=(nice -n -10)

start_etcd() {
    # Without fsync: this data never has to survive the machine.
    spawn etcd rw-node1 "${FIRST[@]}" "$ETCD_BIN/etcd" --name ringwire --data-dir "$DIR/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
}

start_apiserver() {
    spawn apiserver rw-node1 "${FIRST[@]}" "$KUBERNETES_BIN/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --advertise-address="$(node_address node1)" \
        --service-cluster-ip-range=10.96.0.0/16 \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --allow-privileged=true --enable-aggregator-routing=true \
        --client-ca-file="$PKI/ca.crt" \
        --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
        --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$PKI/ca.crt" \
        --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$PKI/service-account.pub" \
        --service-account-signing-key-file="$PKI/service-account.key" \
        --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
        --requestheader-allowed-names=front-proxy-client \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key"
}

apiserver_ready() { [[ $(kubectl get --raw /readyz --request-timeout=2s) = ok ]]; }

start_controller_manager() {
    spawn controller-manager rw-node1 "${FIRST[@]}" "$KUBERNETES_BIN/kube-controller-manager" \
        --kubeconfig="$PKI/controller-manager.kubeconfig" --use-service-account-credentials --leader-elect=false \
        --service-account-private-key-file="$PKI/service-account.key" --root-ca-file="$PKI/ca.crt" \
        --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
}

start_scheduler() {
    spawn scheduler rw-node1 "${FIRST[@]}" "$KUBERNETES_BIN/kube-scheduler" --kubeconfig="$PKI/scheduler.kubeconfig" --leader-elect=false
}

# The subnets are fixed: routes and the bridges' configuration name them. An allocator would give them out
# in the order in which the kubelets come.
create_nodes() {
    local node
    for node in node1 node2; do
        cat <<END
apiVersion: v1
kind: Node
metadata: {name: $node}
spec: {podCIDR: $(pod_subnet $node), podCIDRs: [$(pod_subnet $node)]}
---
END
    done | kubectl apply --server-side -f - >/dev/null
}

# Tests may edit $DIR/dns/hosts and $DIR/dns/carrier.test.zone (raise the serial); both are read again within 2 s.
start_coredns() {
    local dns=$DIR/dns
    [[ -e $dns/hosts ]] || echo "# address name ..." >"$dns/hosts"
    [[ -e $dns/carrier.test.zone ]] || cp "$HACK/cluster/carrier.test.zone" "$dns/carrier.test.zone"
    # Nobody to ask outside: an empty root zone says NXDOMAIN at once to all that the others don't know.
    echo '. 5 IN SOA . . 1 60 60 60 5' >"$dns/root.zone"
    cat >"$dns/Corefile" <<END
.:53 {
    bind $(node_address node1)
    errors
    hosts $dns/hosts {
        ttl 5
        reload 1s
        fallthrough
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $KUBECONFIG_ADMIN
        pods insecure
        ttl 5
        fallthrough in-addr.arpa ip6.arpa
    }
    file $dns/carrier.test.zone carrier.test {
        reload 1s
    }
    file $dns/root.zone .
}
END
    spawn coredns rw-node1 "${FIRST[@]}" "$COREDNS_BIN/coredns" -conf "$dns/Corefile" -quiet
}

# A UDP query by hand, for the machine may have no dig: "sip.carrier.test A" must bring an answer.
dns_answers() {
    local answer
    answer=$(printf '\0\1\1\0\0\1\0\0\0\0\0\0\3sip\7carrier\4test\0\0\1\0\1' |
        socat -t 1 -T 1 - "UDP:$(node_address node1):53" 2>/dev/null | base64 -w0)
    ((${#answer} > 60))
}
