#!/usr/bin/env bash
# `make cluster`: the local cluster with Ringwire installed, a carrier to register with, and the lines to try.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"

step "set-up" "$HACK/setup.sh" --cluster --image --sip
step "cluster" "$HACK/cluster.sh" up
image=$(PROFILE=${PROFILE:-image} "$HACK/image.sh")
step "image on both nodes" "$HACK/cluster.sh" load-image "$image"
eval "$("$HACK/cluster.sh" env)"
step "carrier" "$HACK/carrier.sh" up
"$HACK/carrier.sh" number +34911234567 trunk1
step "helm install" helm upgrade --install ringwire charts/ringwire --namespace ringwire-system --create-namespace \
    --set image.repository=ringwire.dev/ringwire,image.tag=dev,image.pullPolicy=IfNotPresent --wait >&2
kubectl apply -f "$HACK/demo.yaml" >&2
step "trunk registered" kubectl --namespace demo wait --for=condition=Ready --timeout=60s sipprovider/carrier >&2
cat <<END

Try it (first: eval "\$(hack/cluster.sh env)"):
  kubectl -n demo get sipproviders,phonenumbers,voiceagents -o wide
  kubectl -n ringwire-system get mediagateways,pods -o wide
  hack/carrier.sh call +34911234567                          # a call from the telephone network
  kubectl -n ringwire-system logs deploy/default-media       # its record
  kubectl -n demo explain sipprovider.spec
  kubectl -n demo patch secret carrier -p '{"stringData":{"password":"wrong"}}'   # and watch the trunk
END
