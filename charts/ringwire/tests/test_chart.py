"""What the chart renders. Run by run.sh."""

import subprocess
import unittest
from pathlib import Path

import yaml

HERE = Path(__file__).parent
CHART = HERE.parent
NAMESPACE = "ringwire-system"
KINDS = {"sipproviders", "phonenumbers", "voiceagents", "mediagateways"}


def helm(*arguments, release="ringwire", notes=False, kube_version="1.34"):
    command = ["helm", "install", "--dry-run=client"] if notes else ["helm", "template"]
    command += [release, str(CHART), "--namespace", NAMESPACE, *arguments]
    if not notes:
        command += ["--kube-version", kube_version]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Rendered:
    """The objects of one rendering."""

    def __init__(self, *arguments, **options):
        result = helm(*arguments, **options)
        if result.returncode:
            raise AssertionError(result.stderr)
        self.objects = [item for item in yaml.safe_load_all(result.stdout) if item]

    def names(self, kind):
        return [item["metadata"]["name"] for item in self.objects if item["kind"] == kind]

    def all(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind):
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} of kind {kind}"
        return found[0]

    def pod(self):
        return self.one("Deployment")["spec"]["template"]

    def container(self):
        (container,) = self.pod()["spec"]["containers"]
        return container

    def gateway_spec(self):
        return yaml.safe_load(self.one("ConfigMap")["data"]["spec.yaml"])


def values(name):
    return "--values", str(HERE / "values" / f"{name}.yaml")


def allowed(rules, group, resource):
    return {verb for rule in rules if group in rule["apiGroups"] and resource in rule["resources"] for verb in rule["verbs"]}


class ChartTest(unittest.TestCase):
    maxDiff = None

    def assert_refused(self, *arguments, says):
        result = helm(*arguments)
        self.assertNotEqual(result.returncode, 0, f"{arguments} was accepted")
        for text in says:
            self.assertIn(text, result.stderr)

    def test_installs_kinds_operator_rights_and_the_default_gateway(self):
        chart = Rendered()
        self.assertEqual(
            sorted((item["kind"], item["metadata"]["name"]) for item in chart.objects),
            [
                ("ClusterRole", "ringwire-operator"),
                ("ClusterRoleBinding", "ringwire-operator"),
                ("ConfigMap", "ringwire-default-gateway"),
                *[("CustomResourceDefinition", f"{kind}.ringwire.dev") for kind in sorted(KINDS)],
                ("Deployment", "ringwire-operator"),
                ("PodDisruptionBudget", "ringwire-operator"),
                ("Service", "ringwire-operator-metrics"),
                ("ServiceAccount", "ringwire-operator"),
            ],
        )
        self.assertEqual(chart.gateway_spec(), {"allowedNamespaces": {"from": "All"}})

    def test_tells_the_operator_what_it_needs(self):
        container = Rendered().container()
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        self.assertEqual(container["command"], ["/ringwire", "operator"])
        self.assertEqual(container["image"], f"ghcr.io/ringwire/ringwire:{version}")
        self.assertEqual(
            container["args"],
            [
                f"--image=ghcr.io/ringwire/ringwire:{version}",
                "--image-pull-policy=IfNotPresent",
                "--default-gateway=$(POD_NAMESPACE)/default",
                "--default-gateway-config=ringwire-default-gateway",
                "--deployment-name=ringwire-operator",
                "--metrics-address=0.0.0.0:8080",
                "--log-format=json",
            ],
        )
        self.assertEqual({item["name"] for item in container["env"]}, {"POD_NAME", "POD_NAMESPACE"})

    def test_obeys_pod_security_restricted(self):
        chart = Rendered()
        pod, container = chart.pod()["spec"], chart.container()
        self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertEqual(
            container["securityContext"],
            {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        )
        self.assertFalse({"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod))

    def test_runs_two_operators_on_two_nodes_and_replaces_them_without_a_gap(self):
        deployment = Rendered().one("Deployment")["spec"]
        self.assertEqual(deployment["replicas"], 2)
        self.assertEqual(deployment["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
        # A cluster of one node must run both all the same.
        self.assertEqual((spread["topologyKey"], spread["whenUnsatisfiable"]), ("kubernetes.io/hostname", "ScheduleAnyway"))
        self.assertEqual(spread["labelSelector"], deployment["selector"])

    def test_one_operator_always_stays_unless_there_is_only_one(self):
        budget = Rendered().one("PodDisruptionBudget")["spec"]
        self.assertEqual(budget["minAvailable"], 1)
        self.assertEqual(budget["selector"], Rendered().one("Deployment")["spec"]["selector"])
        self.assertEqual(Rendered("--set", "replicas=1").all("PodDisruptionBudget"), [])

    def test_operators_may_elect_one_of_them(self):
        for chart in (Rendered(), Rendered(*values("watch-namespaces"))):
            roles = chart.all("ClusterRole") + [item for item in chart.all("Role") if item["metadata"]["namespace"] == NAMESPACE]
            rules = [rule for role in roles for rule in role["rules"]]
            self.assertLessEqual({"get", "create", "update"}, allowed(rules, "coordination.k8s.io", "leases"))

    def test_probes_and_scrapes_the_port_that_the_operator_listens_on(self):
        chart = Rendered()
        container = chart.container()
        self.assertEqual(container["ports"], [{"name": "metrics", "containerPort": 8080}])
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "metrics"})
        service = chart.one("Service")["spec"]
        self.assertEqual(service["ports"], [{"name": "metrics", "port": 8080, "targetPort": "metrics"}])
        self.assertEqual(service["selector"], chart.one("Deployment")["spec"]["selector"]["matchLabels"])

    def test_selects_no_pods_of_gateways(self):
        # Gateways' pods have the same app.kubernetes.io/name, and the gateway's name as instance.
        self.assertEqual(Rendered().one("Service")["spec"]["selector"]["app.kubernetes.io/component"], "operator")

    def test_operator_has_every_right_that_it_gives_on(self):
        rules = Rendered().one("ClusterRole")["rules"]
        self.assertLessEqual({"get", "list", "watch"}, allowed(rules, "", "secrets"))
        self.assertLessEqual({"get", "list", "watch"}, allowed(rules, "discovery.k8s.io", "endpointslices"))
        self.assertLessEqual(
            {"get", "list", "watch", "create", "update", "patch", "delete"},
            allowed(rules, "coordination.k8s.io", "leases"),
        )

    def test_operator_may_write_what_gateways_are_made_of(self):
        kinds = (
            ("", ("secrets", "services", "serviceaccounts")),
            ("apps", ("deployments",)),
            ("policy", ("poddisruptionbudgets",)),
            ("rbac.authorization.k8s.io", ("roles", "rolebindings")),
        )
        for rules in (Rendered().one("ClusterRole")["rules"], Rendered(*values("watch-namespaces")).all("Role")[0]["rules"]):
            for group, resources in kinds:
                for resource in resources:
                    self.assertLessEqual({"list", "watch", "create", "patch", "delete"}, allowed(rules, group, resource), resource)

    def test_operator_may_not_do_everything(self):
        for item in Rendered().all("ClusterRole") + Rendered(*values("watch-namespaces")).all("Role"):
            for rule in item["rules"]:
                self.assertNotIn("*", rule["apiGroups"] + rule["resources"] + rule["verbs"])
            for verb in ("escalate", "bind", "impersonate"):
                self.assertNotIn(verb, {verb for rule in item["rules"] for verb in rule["verbs"]})
            self.assertFalse({"update", "delete"} & allowed(item["rules"], "ringwire.dev", "sipproviders"))

    def test_watching_namespaces_needs_no_cluster_role(self):
        chart = Rendered(*values("watch-namespaces"))
        self.assertEqual((chart.all("ClusterRole"), chart.all("ClusterRoleBinding")), ([], []))
        namespaces = ["edge", NAMESPACE, "voice-a", "voice-b"]
        for kind in ("Role", "RoleBinding"):
            self.assertEqual([item["metadata"]["namespace"] for item in chart.all(kind)], namespaces)
        for item in chart.all("RoleBinding"):
            self.assertEqual(item["subjects"][0]["namespace"], NAMESPACE)
        arguments = chart.container()["args"]
        self.assertIn(f"--watch-namespaces={','.join(namespaces)}", arguments)
        self.assertIn("--shared-gateway-namespaces=edge", arguments)

    def test_roles_allow_what_the_cluster_role_allows_in_namespaces(self):
        everywhere = Rendered().one("ClusterRole")["rules"]
        role = Rendered(*values("watch-namespaces")).all("Role")[0]["rules"]
        outside = [rule for rule in everywhere if rule not in role]
        self.assertEqual(outside, [{"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["get", "list", "watch"]}])

    def test_reads_nodes_when_watching_namespaces_if_asked_to(self):
        chart = Rendered(*values("watch-namespaces"), "--set", "rbac.readNodesAndNamespaces=true")
        self.assertEqual(len(chart.one("ClusterRole")["rules"]), 1)

    def test_makes_no_rights_if_somebody_else_does(self):
        for arguments in ((), values("watch-namespaces")):
            chart = Rendered(*arguments, "--set", "rbac.create=false,serviceAccount.create=false")
            for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"):
                self.assertEqual(chart.all(kind), [])
            self.assertEqual(chart.pod()["spec"]["serviceAccountName"], "default")

    def test_keeps_the_kinds_unless_told_otherwise(self):
        for keep, annotations in (("true", {"helm.sh/resource-policy": "keep"}), ("false", None)):
            chart = Rendered("--set", f"crds.keep={keep}")
            self.assertEqual(len(chart.all("CustomResourceDefinition")), 4)
            for crd in chart.all("CustomResourceDefinition"):
                self.assertEqual(crd["metadata"].get("annotations"), annotations)

    def test_leaves_out_the_kinds_if_somebody_else_installs_them(self):
        self.assertEqual(Rendered("--set", "crds.enabled=false").all("CustomResourceDefinition"), [])

    def test_kinds_are_those_that_are_generated(self):
        rendered = {item["metadata"]["name"]: item["spec"] for item in Rendered().all("CustomResourceDefinition")}
        generated = {}
        for file in (CHART.parent.parent / "crds/crds").glob("*.yaml"):
            crd = yaml.safe_load(file.read_text())
            generated[crd["metadata"]["name"]] = crd["spec"]
        self.assertEqual(rendered, generated)

    def test_holds_no_object_of_its_own_kinds(self):
        for arguments in ((), values("host-network"), values("everything")):
            self.assertEqual([item for item in Rendered(*arguments).objects if item["apiVersion"].startswith("ringwire.dev")], [])

    def test_passes_on_the_default_gateways_spec(self):
        chart = Rendered(*values("host-network"))
        given = yaml.safe_load((HERE / "values/host-network.yaml").read_text())["defaultGateway"]["spec"]
        given["podTemplate"]["imagePullSecrets"] = [{"name": "registry"}]
        self.assertEqual(chart.gateway_spec(), given)
        self.assertIn("--default-gateway=$(POD_NAMESPACE)/edge", chart.container()["args"])

    def test_the_gateways_own_pull_secrets_win(self):
        chart = Rendered(
            "--set", "imagePullSecrets[0].name=a", "--set", "defaultGateway.spec.podTemplate.imagePullSecrets[0].name=b"
        )
        self.assertEqual(chart.gateway_spec()["podTemplate"]["imagePullSecrets"], [{"name": "b"}])
        self.assertEqual(chart.pod()["spec"]["imagePullSecrets"], [{"name": "a"}])

    def test_makes_no_gateway_if_told_so(self):
        chart = Rendered("--set", "defaultGateway.enabled=false")
        self.assertEqual(chart.all("ConfigMap"), [])
        self.assertFalse([argument for argument in chart.container()["args"] if "config" in argument])
        self.assertIn("--default-gateway=$(POD_NAMESPACE)/default", chart.container()["args"])

    def test_every_value_does_something(self):
        chart = Rendered(*values("everything"), release="other")
        container, template = chart.container(), chart.pod()
        pod = template["spec"]
        image = "registry.example.com/voice/ringwire@sha256:" + 4 * "0123456789abcdef"
        name = "other-rw-operator"
        self.assertEqual(chart.names("Deployment"), [name])
        self.assertEqual((container["image"], container["imagePullPolicy"]), (image, "Always"))
        self.assertEqual(
            container["args"],
            [
                f"--image={image}",
                "--image-pull-policy=Always",
                "--default-gateway=$(POD_NAMESPACE)/edge",
                f"--deployment-name={name}",
                f"--watch-namespaces={NAMESPACE},voice",
                "--shared-gateway-namespaces=voice",
                "--metrics-address=0.0.0.0:8080",
                "--log-format=text",
                "--one",
                "--two=a b",
            ],
        )
        given = yaml.safe_load((HERE / "values/everything.yaml").read_text())
        for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"):
            self.assertEqual(pod[key], given[key])
        self.assertEqual(chart.one("Deployment")["spec"]["replicas"], 3)
        self.assertEqual(container["resources"]["limits"], {"cpu": 1, "memory": "256Mi"})
        self.assertEqual(template["metadata"]["annotations"]["example.com/a"], "b")
        labels = template["metadata"]["labels"]
        self.assertEqual((labels["team"], labels["app.kubernetes.io/component"]), ("voice", "operator"))
        account = chart.one("ServiceAccount")["metadata"]
        self.assertEqual((account["name"], account["annotations"]), ("operator", {"example.com/role": "ringwire"}))
        self.assertEqual(chart.names("ClusterRole"), [name])
        for kind in ("RoleBinding", "ClusterRoleBinding"):
            for binding in chart.all(kind):
                self.assertEqual(binding["subjects"][0]["name"], "operator")
        monitor = chart.one("ServiceMonitor")
        self.assertEqual(monitor["spec"]["endpoints"], [{"port": "metrics", "interval": "15s"}])
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        self.assertEqual(chart.one("Service")["metadata"]["annotations"], {"prometheus.io/scrape": "true"})
        self.assertEqual(monitor["spec"]["selector"]["matchLabels"].items() - chart.one("Service")["metadata"]["labels"].items(), set())

    def test_names_stay_short_enough(self):
        chart = Rendered(release="a" * 53)
        for item in chart.objects:
            self.assertLessEqual(len(item["metadata"]["name"]), 63)

    def test_objects_in_namespaces_say_which(self):
        for item in Rendered().objects:
            if not item["kind"].startswith(("Cluster", "Custom")):
                self.assertEqual(item["metadata"]["namespace"], NAMESPACE)

    def test_refuses_bad_values_and_says_which(self):
        for value, says in (
            ("crd.keep=true", "additional properties 'crd' not allowed"),
            ("logFormat=xml", "value must be one of 'json', 'text'"),
            ("replicas=0", "at '/replicas'"),
            ("crds.enabled=maybe", "at '/crds/enabled': got string, want boolean"),
            ("image.tag=a/b", "at '/image/tag'"),
            ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
            ("watchNamespaces={Voice}", "at '/watchNamespaces/0'"),
            ("watchNamespaces={a,a}", "at '/watchNamespaces'"),
            ("defaultGateway.name=Default", "at '/defaultGateway/name'"),
            ("podLabels.a=1", "at '/podLabels/a': got number, want string"),
            ("resources.limit.cpu=1", "additional properties 'limit' not allowed"),
            ("metrics.serviceMonitor.interval=often", "at '/metrics/serviceMonitor/interval'"),
        ):
            with self.subTest(value):
                self.assert_refused("--set", value, says=["schema", says])

    def test_refuses_a_gateway_spec_that_the_api_server_would_refuse(self):
        for value, says in (
            ("sip.udpport=5060", "additional properties 'udpport' not allowed"),
            ("sip.udpPort=70000", "at '/defaultGateway/spec/sip/udpPort'"),
            ("rtp.exposure.type=LoadBalancer", "value must be one of 'PodNetwork', 'HostNetwork'"),
            ("replicas=many", "at '/defaultGateway/spec/replicas': got string, want integer"),
            ("podTemplate.resource.cpu=1", "additional properties 'resource' not allowed"),
        ):
            with self.subTest(value):
                self.assert_refused("--set", f"defaultGateway.spec.{value}", says=["schema", says])

    def test_refuses_a_monitor_without_service(self):
        self.assert_refused(
            "--set",
            "metrics.serviceMonitor.enabled=true,metrics.service.enabled=false",
            says=["metrics.serviceMonitor.enabled needs metrics.service.enabled"],
        )

    def test_refuses_a_cluster_that_is_too_old(self):
        result = helm(kube_version="1.29")
        self.assertIn("chart requires kubeVersion: >=1.30", result.stderr)


if __name__ == "__main__":
    unittest.main()
