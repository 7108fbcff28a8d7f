# shellcheck shell=bash
# Certificates and kubeconfigs. They are kept between runs: making them again would invalidate copies of the kubeconfig.

authority() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.crt" 2>/dev/null
}

certificate() { # AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$2.key" 2>/dev/null |
        openssl x509 -req -CA "$1.crt" -CAkey "$1.key" -set_serial "0x$(openssl rand -hex 8)" -days 3650 -out "$2.crt" \
            -extfile <(
                printf 'keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n'
                [[ -z ${4:-} ]] || printf 'subjectAltName=%s\n' "$4"
            ) 2>/dev/null
}

kubeconfig() { # NAME
    cat >"$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
  - name: ringwire
    cluster:
      server: https://$(node_address node1):6443
      certificate-authority-data: $(base64 -w0 ca.crt)
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$1.crt")
      client-key-data: $(base64 -w0 "$1.key")
contexts:
  - name: ringwire
    context: {cluster: ringwire, user: $1}
current-context: ringwire
END
}

client() { # NAME SUBJECT [ALTERNATIVE-NAMES]
    certificate ca "$@"
    kubeconfig "$1"
}

make_pki() {
    [[ ! -d $PKI ]] || return 0
    rm -rf "$PKI".tmp-*
    mkdir -p "$PKI.tmp-$$"
    (
        cd "$PKI.tmp-$$" || exit 1
        umask 077
        authority ca
        authority front-proxy-ca
        certificate ca apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:$(node_address node1)"
        certificate front-proxy-ca front-proxy /CN=front-proxy-client
        client admin /O=system:masters/CN=admin
        client controller-manager /CN=system:kube-controller-manager
        client scheduler /CN=system:kube-scheduler
        client kube-proxy /CN=system:kube-proxy
        for node in node1 node2; do
            client $node "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$(node_address $node)"
        done
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out service-account.key 2>/dev/null
        openssl pkey -in service-account.key -pubout -out service-account.pub
    )
    mv "$PKI.tmp-$$" "$PKI"
}
