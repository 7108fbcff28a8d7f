#!/usr/bin/env bash
# Installs, upgrades and uninstalls the chart on the cluster of $KUBECONFIG, and looks at what is left.
#
#   IMAGE=NAME:TAG charts/ringwire/tests/cluster.sh [NAMESPACE]
#
# IMAGE (default: the one that hack/image.sh builds) must be on the nodes. NAMESPACE (default: chart-test) must not exist. Kinds
# that are there already are left alone, and then somebody else works with them: the operator under test gets no more than NAMESPACE
# to work in, unless ALL_NAMESPACES=true says that nobody minds. Else the kinds are installed, and removed at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/lib.sh
source ../../hack/lib.sh

namespace=${1:-chart-test}
image=${IMAGE:-ringwire.dev/ringwire:dev}
release=ringwire-test
for tool in helm kubectl; do
    command -v $tool >/dev/null || PATH=$KUBERNETES_BIN:$HELM_BIN:$PATH
done
work=$(mktemp -d)

kube() { kubectl --namespace "$namespace" "$@"; }

values=(
    --namespace "$namespace" --wait --timeout 2m
    --set "image.repository=${image%:*}" --set-string "image.tag=${image##*:}" --set image.pullPolicy=Never
)
# Kinds are shared by everybody on the cluster: those that somebody else has installed are his, and so are their objects, which
# an operator for all namespaces would take over.
kinds_are_ours=true
if kubectl get crd sipproviders.ringwire.dev >/dev/null 2>&1; then
    kinds_are_ours=false
    values+=(--set crds.enabled=false)
    if [[ ${ALL_NAMESPACES:-} != true ]]; then
        say "the kinds are in use: testing in namespace $namespace alone"
        values+=(--set "watchNamespaces={$namespace}" --set rbac.readNodesAndNamespaces=true)
    fi
fi

show_trouble() {
    kube get all,mediagateways -o wide || true
    kube get mediagateway --output yaml || true
    kube get events --sort-by=.lastTimestamp | tail -n 20 || true
    kube logs --selector app.kubernetes.io/component=operator --tail 30 || true
}

clean_up() {
    local status=$?
    ((status == 0)) || show_trouble >&2
    helm uninstall "$release" --namespace "$namespace" --ignore-not-found --timeout 1m >/dev/null 2>&1 || true
    kubectl delete namespace "$namespace" --ignore-not-found --timeout 90s >/dev/null || true
    if $kinds_are_ours; then kubectl delete -k ../../config/crd --ignore-not-found --timeout 60s >/dev/null 2>&1 || true; fi
    rm -rf "$work"
    exit "$status"
}

# What people would find in the namespace, without what Kubernetes puts into each one.
contents() {
    local types
    types=$(kubectl api-resources --verbs=list --namespaced --output=name | grep -vE '^(events|events\.events\.k8s\.io)$' | paste -sd,)
    kube get "$types" --ignore-not-found --output=name 2>/dev/null |
        grep -vE '^(configmap/kube-root-ca.crt|serviceaccount/default)$' || true
}
empty() { [[ -z $(contents) ]]; }
gateway_field_is() { [[ $(kube get mediagateway default --output "jsonpath=$1" 2>/dev/null) = "$2" ]]; }

install() {
    kubectl create namespace "$namespace" >/dev/null
    # As strict as a namespace gets: neither the operator nor a gateway on the pod network needs more.
    kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
    trap clean_up EXIT
    helm install "$release" . "${values[@]}" >"$work/notes"
}
gateway_ready() { wait_for 60 "the default gateway" kube get mediagateway default && kube wait --for=condition=Ready --timeout=60s mediagateway/default >/dev/null; }
upgrade() {
    helm upgrade "$release" . "${values[@]}" --set defaultGateway.spec.drainSeconds=7 >/dev/null
    wait_for 10 "drainSeconds of the default gateway" gateway_field_is '{.spec.drainSeconds}' 7
}
heals() {
    kube patch mediagateway default --type merge --patch '{"spec":{"drainSeconds":8}}' >/dev/null
    wait_for 10 "the default gateway as the values say" gateway_field_is '{.spec.drainSeconds}' 7
}
uninstall() {
    helm uninstall "$release" --namespace "$namespace" --wait --timeout 1m >/dev/null
    wait_for 60 "an empty namespace" empty || { contents >&2; return 1; }
}
kinds_are_kept() { kubectl get -k ../../config/crd >/dev/null; }

if kubectl get namespace "$namespace" >/dev/null 2>&1; then die "namespace $namespace exists; name another"; fi
step "chart: helm install" install
step "chart: the default gateway is Ready" gateway_ready
step "chart: helm upgrade changes the default gateway" upgrade
step "chart: an edit of the default gateway is undone" heals
step "chart: helm uninstall leaves nothing behind" uninstall
step "chart: the kinds are kept" kinds_are_kept
