"""Compares what helm and kustomize give, object by object: compare.py CHART DEFAULT.

These differences are allowed, and no others:
- helm's own labels helm.sh/chart and app.kubernetes.io/managed-by,
- the annotation helm.sh/resource-policy,
- the Namespace, which kustomize makes and `helm install --create-namespace` makes by itself.
"""

import difflib
import sys
from pathlib import Path

import yaml

HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
HELM_ANNOTATIONS = ("helm.sh/resource-policy",)


def without(mapping, keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def normalised(item):
    metadata = dict(item["metadata"])
    for field, keys in (("labels", HELM_LABELS), ("annotations", HELM_ANNOTATIONS)):
        rest = without(metadata.pop(field, None) or {}, keys)
        if rest:
            metadata[field] = rest
    item = {**item, "metadata": metadata}
    if item["kind"] == "ConfigMap":
        # Two ways to write one YAML document.
        item["data"] = {key: yaml.safe_load(text) for key, text in item["data"].items()}
    return yaml.safe_dump(item, sort_keys=True).splitlines()


def load(path):
    objects = {}
    for item in yaml.safe_load_all(Path(path).read_text()):
        if item and item["kind"] != "Namespace":
            key = (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
            if key in objects:
                raise SystemExit(f"{path}: {key} twice")
            objects[key] = normalised(item)
    return objects


def main():
    chart, default = load(sys.argv[1]), load(sys.argv[2])
    different = False
    for key in sorted(chart.keys() | default.keys()):
        name = "/".join(part for part in key if part)
        lines = list(
            difflib.unified_diff(chart.get(key, []), default.get(key, []), f"chart {name}", f"config/default {name}", lineterm="")
        )
        if lines:
            different = True
            print("\n".join(lines), file=sys.stderr)
    if different or not chart:
        raise SystemExit("config/default is not what the chart gives")


main()
