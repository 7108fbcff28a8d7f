#!/usr/bin/env bash
# Renders the chart with several values and looks at what comes out. Needs no cluster.
#
#   charts/ringwire/tests/run.sh [TEST...]       for example: ChartTest.test_refuses_an_unknown_value
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=hack/lib.sh
source ../../../hack/lib.sh

command -v helm >/dev/null || PATH=$HELM_BIN:$PATH
command -v helm >/dev/null || die "no helm: hack/setup.sh --cluster builds it"
# The python3 found first may be one to which the system's packages are unknown.
python=python3
"$python" -c 'import yaml' 2>/dev/null || python=/usr/bin/python3
"$python" -c 'import yaml' 2>/dev/null || die "no python3 with yaml: apt-get install python3-yaml"

step "helm lint" helm lint --strict --quiet --kube-version 1.34 .. >&2
PYTHONDONTWRITEBYTECODE=1 step "chart" "$python" -m unittest --quiet "${@:-test_chart}"
