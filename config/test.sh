#!/usr/bin/env bash
# Does config/default give what the helm chart gives with its default values? Are the samples complete?
#
#   config/test.sh              needs no cluster
#   config/test.sh --cluster    also asks the API server of $KUBECONFIG, which must have the kinds, whether it takes all of it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hack/lib.sh
source hack/lib.sh

for tool in helm kubectl; do
    command -v $tool >/dev/null || PATH=$KUBERNETES_BIN:$HELM_BIN:$PATH
    command -v $tool >/dev/null || die "no $tool: hack/setup.sh --cluster builds it"
done
# The python3 found first may be one to which the system's packages are unknown.
python=python3
"$python" -c 'import yaml' 2>/dev/null || python=/usr/bin/python3
"$python" -c 'import yaml' 2>/dev/null || die "no python3 with yaml: apt-get install python3-yaml"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

compare() {
    helm template ringwire charts/ringwire --namespace ringwire-system --kube-version 1.34 >"$out/chart.yaml"
    kubectl kustomize config/default >"$out/default.yaml"
    "$python" config/compare.py "$out/chart.yaml" "$out/default.yaml"
}

# An image that is replaced must be replaced in both places: the operator's own and the one that it gives gateways.
image() {
    cp -r config "$out/"
    sed -i 's|newName: .*|newName: registry.example.com/rw|; s|newTag: .*|newTag: "9.9"|' "$out/config/default/kustomization.yaml"
    kubectl kustomize "$out/config/default" >"$out/image.yaml"
    grep -q 'image: registry.example.com/rw:9.9$' "$out/image.yaml" || die "config/default: the operator's image stays"
    grep -q -- '- --image=registry.example.com/rw:9.9$' "$out/image.yaml" || die "config/default: the gateways' image stays"
}

# Another namespace must reach the binding's subject too, or the operator would have no rights.
namespace() {
    mkdir -p "$out/elsewhere"
    cp -r config "$out/"
    printf 'namespace: elsewhere\nresources: [../config/default]\n' >"$out/elsewhere/kustomization.yaml"
    kubectl kustomize "$out/elsewhere" >"$out/elsewhere.yaml"
    ! grep ringwire-system "$out/elsewhere.yaml" >&2 || die "config/default: an overlay can't change the namespace"
}

each_folder_builds() {
    local folder
    for folder in crd rbac operator default samples; do
        kubectl kustomize "config/$folder" >/dev/null || die "config/$folder does not build"
    done
}

accepted() {
    kubectl get -k config/crd >/dev/null || die "the kinds are not installed: kubectl apply --server-side -k config/crd"
    # A dry run makes no namespace that the others could be in: `default` stands in.
    sed 's/namespace: ringwire-system/namespace: default/' "$out/default.yaml" |
        kubectl apply --server-side --dry-run=server --force-conflicts -f - >/dev/null
    kubectl apply --dry-run=server -k config/samples >/dev/null
    kubectl apply --dry-run=server -f config/samples/local >/dev/null
}

case ${1:-} in
'' | --cluster) ;;
*)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    [[ $1 = -h || $1 = --help ]]
    exit
    ;;
esac
step "config: every folder builds" each_folder_builds
step "config: default is what the chart gives" compare
step "config: one image in both places" image
step "config: one namespace in all places" namespace
if [[ ${1:-} = --cluster ]]; then step "config: the API server takes default and samples" accepted; fi
