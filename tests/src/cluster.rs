//! The two-node cluster of `hack/cluster.sh`, driven as a user would: with `kubectl`, `helm` and a carrier beside it.
//!
//! Everything is installed once for the whole test binary. What it has started outside of the cluster ends with its process, however that ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::audio::IS_ECHO;
use crate::process::{self, Process, repository};
use crate::scratch::Scratch;
use crate::wait::{self, seconds};

/// Where the release and the default gateway are.
pub const SYSTEM: &str = "ringwire-system";

/// The machine's address in the cluster's network: no node has it.
pub const HERE: &str = "198.51.100.1";

/// The carrier's address.
pub const CARRIER: &str = "198.51.100.20";

/// Accounts that the carrier knows, and so how many [`Space`]s one run may have.
const ACCOUNTS: u32 = 80;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// `hack/cluster.sh env`.
static ENVIRONMENT: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let script = repository().join("hack/cluster.sh");
    let text = "eval \"$(\"$1\" env)\" && echo \"$KUBECONFIG\" && echo \"$PATH\" && echo \"$RINGWIRE_CARRIER_NETNS\"";
    let output = Command::new("bash")
        .args(["-c", text, "bash"])
        .arg(script)
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    ["KUBECONFIG", "PATH", "RINGWIRE_CARRIER_NETNS"]
        .iter()
        .map(|name| (*name).to_owned())
        .zip(output.lines().map(str::to_owned))
        .collect()
});

/// What every test needs: the chart installed, the carrier up.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::start);

struct Fixture {
    proxy: SocketAddr,
    carrier: PathBuf,
    options: Mutex<Vec<String>>,
    /// Sees by its standard input that this process ends.
    _guard: Child,
}

impl Fixture {
    fn start() -> Self {
        let carrier = Scratch::new("carrier");
        let folder = carrier.path().to_owned();
        // It stays when this process ends: the guard below takes it away.
        std::mem::forget(carrier);
        let guard = guard(&format!(
            "hack/carrier.sh --dir '{0}' down; rm -rf '{0}'",
            folder.display()
        ));
        let _ = hack("carrier.sh", &["down"]);
        let proxy = start_proxy();
        let fixture = Self {
            proxy,
            carrier: folder,
            options: Mutex::default(),
            _guard: guard,
        };
        remove_leftovers();
        let begun = Instant::now();
        install(&[]);
        println!(
            "    helm install --wait: {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        fixture
    }
}

/// A child that waits for the end of this process and then runs a command of the shell.
fn guard(script: &str) -> Child {
    let mut command = Command::new("setsid");
    command
        .args(["sh", "-c", &format!("cat >/dev/null; {script}")])
        .current_dir(repository());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `kubectl proxy`: polling through it takes a millisecond where a `kubectl get` takes 100.
fn start_proxy() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    // It ends with the thread that starts it, so that one lives on.
    std::thread::spawn(move || {
        let mut command = process::command("kubectl");
        with_environment(&mut command)
            .args(["proxy", "--port=0"])
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (mut text, mut byte) = (String::new(), [0]);
        while output.read(&mut byte).unwrap_or(0) > 0 && byte[0] != b'\n' {
            text.push(char::from(byte[0]));
        }
        sender.send(text).unwrap();
        let _ = child.wait();
    });
    let text = receiver.recv().unwrap();
    let address = text
        .rsplit(' ')
        .next()
        .and_then(|address| address.parse().ok());
    address.unwrap_or_else(|| panic!("kubectl proxy said {text:?}"))
}

fn with_environment(command: &mut Command) -> &mut Command {
    command
        .envs(ENVIRONMENT.iter())
        .stdin(Stdio::null())
        .current_dir(repository())
}

/// Releases, namespaces and CRDs of a run that was interrupted, or of `make cluster`.
fn remove_leftovers() {
    let _ = helm(&[
        "uninstall",
        "ringwire",
        "--namespace",
        SYSTEM,
        "--ignore-not-found",
        "--wait",
    ]);
    let _ = kubectl(&[
        "delete",
        "crd",
        "--selector",
        "app.kubernetes.io/name=ringwire",
        "--timeout=60s",
    ]);
    let all = kubectl(&["get", "crd,namespace", "-o", "name"]).unwrap_or_default();
    let ours = |name: &&str| {
        name.ends_with(".ringwire.dev")
            || ["/ringwire-system", "/demo"]
                .iter()
                .any(|end| name.ends_with(end))
            || name.contains("/e2e-")
    };
    let names: Vec<&str> = all.lines().filter(ours).collect();
    if !names.is_empty() {
        let mut arguments = vec!["delete", "--ignore-not-found", "--timeout=90s"];
        arguments.extend(&names);
        kubectl(&arguments).unwrap_or_else(|error| panic!("leftovers cannot be deleted: {error}"));
    }
}

/// `helm upgrade --install` with the image under test and these further arguments, into a namespace that enforces pod security `restricted`.
#[track_caller]
pub fn install(more: &[&str]) {
    let namespace = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": SYSTEM, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    apply_cluster(&namespace.to_string());
    let image =
        std::env::var("RINGWIRE_IMAGE").unwrap_or_else(|_| "ringwire.dev/ringwire:dev".to_owned());
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let image =
        format!("image.repository={repository},image.tag={tag},image.pullPolicy=IfNotPresent");
    let mut arguments = vec![
        "upgrade",
        "--install",
        "ringwire",
        "charts/ringwire",
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "90s",
    ];
    arguments.extend(["--set", &image]);
    arguments.extend(more);
    helm(&arguments).unwrap_or_else(|error| panic!("helm install: {error}"));
}

/// Makes sure that the chart is installed, the default gateway ready and the carrier up with its usual options.
#[track_caller]
pub fn ready() {
    LazyLock::force(&FIXTURE);
    wait_ready(SYSTEM, "mediagateway", "default", "True", seconds(60));
    // With the second one half of the providers move.
    wait::until_ok(seconds(60), "two ready registrars", || {
        let ready = ready_pods("registrar");
        if ready.len() == 2 {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    });
    carrier_up(&[]);
}

fn finish(output: Output) -> Result<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr) + &text(output.stdout))
    }
}

/// Runs `kubectl`: standard output, or what it complains about.
pub fn kubectl(arguments: &[&str]) -> Result<String, String> {
    finish(
        with_environment(Command::new("kubectl").args(arguments))
            .output()
            .unwrap(),
    )
}

/// Runs `kubectl` with something on its standard input.
pub fn kubectl_with(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    with_environment(command.args(arguments))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    finish(child.wait_with_output().unwrap())
}

/// Runs `helm`.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    finish(
        with_environment(Command::new("helm").args(arguments))
            .output()
            .unwrap(),
    )
}

/// Runs a script of `hack/`.
pub fn hack(script: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(repository().join("hack").join(script));
    finish(
        command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    )
}

/// `kubectl apply` of what names its own namespaces.
#[track_caller]
pub fn apply_cluster(manifests: &str) {
    kubectl_with(&["apply", "-f", "-"], manifests)
        .unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifests}"));
}

/// GETs a path of the API server: status and body.
pub fn raw(path: &str) -> std::io::Result<(u16, String)> {
    http(FIXTURE.proxy, path)
}

/// GETs over plain HTTP: status and body.
pub fn http(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, seconds(3))?;
    stream.set_read_timeout(Some(seconds(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Ok((
        status,
        answer
            .split_once("\r\n\r\n")
            .map_or(String::new(), |(_, body)| body.to_owned()),
    ))
}

/// An object; null if there is none.
pub fn get(namespace: &str, kind: &str, name: &str) -> Value {
    let prefix = match kind {
        "pod" | "secret" | "service" | "configmap" => "/api/v1",
        "deployment" => "/apis/apps/v1",
        "lease" => "/apis/coordination.k8s.io/v1",
        _ => "/apis/ringwire.dev/v1alpha1",
    };
    match raw(&format!("{prefix}/namespaces/{namespace}/{kind}s/{name}")) {
        Ok((200, body)) => serde_json::from_str(&body).unwrap(),
        _ => Value::Null,
    }
}

/// The pods of a component of a gateway that are not about to end.
pub fn pods(namespace: &str, component: &str) -> Vec<Value> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D{component}"
    );
    let (_, body) = raw(&path).unwrap_or_default();
    let list: Value = serde_json::from_str(&body).unwrap_or_default();
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect()
}

/// The name of the only pod of a component of the default gateway.
#[track_caller]
pub fn pod(component: &str) -> String {
    wait::until(seconds(30), &format!("a ready {component} pod"), || {
        let pods = pods(SYSTEM, component);
        let ready = |pod: &&Value| {
            pod["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        };
        pods.iter()
            .find(ready)
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
    })
}

/// The pods of a component of the default gateway that are ready, or the operator's.
pub fn ready_pods(component: &str) -> Vec<String> {
    ready_pods_in(SYSTEM, component)
}

/// The pods of a component of the gateways of a namespace that are ready, and stay.
pub fn ready_pods_in(namespace: &str, component: &str) -> Vec<String> {
    let ready = |pod: &Value| {
        condition(pod, "Ready")["status"] == "True"
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    pods(namespace, component)
        .iter()
        .filter(|pod| ready(pod))
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}

/// A process in a pod, seen from this machine, which is all nodes. Continued when dropped, if it was stopped and still is there.
pub struct PodProcess {
    pid: String,
}

impl PodProcess {
    /// The process of a program in a pod.
    #[track_caller]
    pub fn find(pod: &str, program: &str) -> Self {
        let name = format!("POD_NAME={pod}");
        let is_it = |folder: &Path| {
            let runs =
                std::fs::read_link(folder.join("exe")).is_ok_and(|exe| exe.ends_with(program));
            runs && std::fs::read(folder.join("environ")).is_ok_and(|all| {
                all.split(|byte| *byte == 0)
                    .any(|variable| variable == name.as_bytes())
            })
        };
        let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
        let found = processes.find(|entry| is_it(&entry.path()));
        let found = found.unwrap_or_else(|| panic!("no {program} in pod {pod}"));
        Self {
            pid: found.file_name().into_string().unwrap(),
        }
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.pid]).status();
    }
}

impl Drop for PodProcess {
    fn drop(&mut self) {
        // Another process that has its number by now is not stopped, and does not notice.
        let _ = Command::new("kill")
            .args(["-s", "CONT", &self.pid])
            .stderr(Stdio::null())
            .status();
    }
}

/// What of the cluster itself watches the API server.
const CLIENTS: [&str; 6] = [
    "controller-manager",
    "scheduler",
    "kubelet-node1",
    "kubelet-node2",
    "kube-proxy-node1",
    "kube-proxy-node2",
];

/// The API server is away as long as this lives; it is started again however a test ends.
pub struct ApiServerAway;

impl ApiServerAway {
    /// Stops it.
    pub fn begin() -> Self {
        hack("cluster.sh", &["stop", "apiserver"]).unwrap();
        Self
    }
}

impl Drop for ApiServerAway {
    fn drop(&mut self) {
        let _ = hack("cluster.sh", &["start", "apiserver"]);
        let end = Instant::now() + seconds(60);
        while !raw("/readyz").is_ok_and(|(status, _)| status == 200) && Instant::now() < end {
            std::thread::sleep(seconds(1) / 5);
        }
        // Those of the cluster's own that have given up for a while start anew, or tests would wait for them.
        for process in CLIENTS {
            for action in ["stop", "start"] {
                let _ = hack("cluster.sh", &[action, process]);
            }
        }
        // A leader that could not renew its Lease has stopped; another one waits until it has lapsed.
        let renewed = || get(SYSTEM, "lease", "ringwire-operator")["spec"]["renewTime"].clone();
        let last = renewed();
        while renewed() == last && Instant::now() < end {
            std::thread::sleep(seconds(1) / 5);
        }
    }
}

/// A condition of an object: status, reason and message; null if there is none.
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    all.into_iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or_default()
}

/// The records of calls in the pods of a namespace.
pub fn records(namespace: &str) -> Vec<Value> {
    let pods = pods(namespace, "media");
    let lines = pods
        .iter()
        .flat_map(|pod| log(namespace, pod["metadata"]["name"].as_str().unwrap()));
    lines
        .filter(|line| line["target"] == "ringwire::call")
        .collect()
}

/// Waits for `Ready` of that status; gives the object.
#[track_caller]
pub fn wait_ready(namespace: &str, kind: &str, name: &str, status: &str, limit: Duration) -> Value {
    wait_object(
        namespace,
        kind,
        name,
        limit,
        &format!("Ready={status}"),
        |object| condition(object, "Ready")["status"] == status,
    )
}

/// Waits until an object is as wanted; gives it.
#[track_caller]
pub fn wait_object(
    namespace: &str,
    kind: &str,
    name: &str,
    limit: Duration,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    wait::until_ok(limit, &format!("{kind} {namespace}/{name}: {what}"), || {
        let object = get(namespace, kind, name);
        if wanted(&object) {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
}

/// What a gateway's pod has logged, a JSON object a line.
pub fn log(namespace: &str, pod: &str) -> Vec<Value> {
    let (_, text) =
        raw(&format!("/api/v1/namespaces/{namespace}/pods/{pod}/log")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Runs a command of `hack/carrier.sh`.
#[track_caller]
pub fn carrier(arguments: &[&str]) -> String {
    let options = FIXTURE.options.lock().unwrap().clone();
    carrier_with(&options, arguments)
}

#[track_caller]
fn carrier_with(options: &[String], arguments: &[&str]) -> String {
    let mut all = vec!["--dir", FIXTURE.carrier.to_str().unwrap()];
    all.extend(options.iter().map(String::as_str));
    all.extend(arguments);
    hack("carrier.sh", &all).unwrap_or_else(|error| panic!("carrier.sh {arguments:?}: {error}"))
}

/// Starts the carrier with these further options, or again if it had others; [`ready`] takes them back.
#[track_caller]
pub fn carrier_up(more: &[&str]) {
    let mut users = String::new();
    for account in 1..=ACCOUNTS {
        let _ = write!(users, "trunk{account}:secret{account} ");
    }
    let mut options = vec![
        "--tls-port".to_owned(),
        "none".to_owned(),
        "--users".to_owned(),
        users.trim().to_owned(),
    ];
    options.extend(more.iter().map(|option| (*option).to_owned()));
    carrier_with(&options, &["up"]);
    *FIXTURE.options.lock().unwrap() = options;
}

/// The Contacts that a user is registered with at the carrier.
pub fn contacts(user: &str) -> Vec<String> {
    let bindings = carrier(&["bindings"]);
    let prefix = format!("{user} ");
    bindings
        .lines()
        .filter_map(|line| {
            line.strip_prefix(&prefix)?
                .split(' ')
                .next()
                .map(str::to_owned)
        })
        .collect()
}

/// Waits until a user has so many Contacts.
#[track_caller]
pub fn wait_contacts(user: &str, count: usize, limit: Duration) -> Vec<String> {
    wait::until_ok(
        limit,
        &format!("{count} bindings of {user} at the carrier"),
        || {
            let found = contacts(user);
            if found.len() == count {
                Ok(found)
            } else {
                Err(format!("{found:?}"))
            }
        },
    )
}

/// A namespace of one test, with an account and numbers that no other has.
pub struct Space {
    /// Its name.
    pub name: String,
    /// User at the carrier; the password is `secretN` to its `trunkN`.
    pub user: String,
    number: u32,
}

impl Space {
    /// Makes one; the fixture is ready afterwards.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        ready();
        Self::unready(name, "")
    }

    /// Makes one with these labels (`name: value`, flow style).
    #[track_caller]
    pub fn unready(name: &str, labels: &str) -> Self {
        LazyLock::force(&FIXTURE);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(
            number <= ACCOUNTS,
            "more namespaces than accounts at the carrier"
        );
        let space = Self {
            name: format!("e2e-{name}-{number}"),
            user: format!("trunk{number}"),
            number,
        };
        apply_cluster(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}, labels: {{{labels}}}}}\n",
            space.name
        ));
        space
    }

    /// The right password.
    pub fn password(&self) -> String {
        format!("secret{}", self.number)
    }

    /// A number that only this namespace has; `digit` below 10.
    pub fn phone_number(&self, digit: u32) -> String {
        format!("+3491100{:03}{digit}", self.number)
    }

    /// The Secret `account` with the right password.
    pub fn account(&self) -> String {
        crate::manifests::account(&self.user, &self.password())
    }

    /// The provider `trunk`, which registers; `more` are further fields of the spec.
    pub fn trunk(&self, more: &str) -> String {
        crate::manifests::registering_trunk(
            "trunk",
            "sip.carrier.test",
            &format!("registration: {{fromDomain: trunk.test}}, {more}"),
        )
    }

    /// Everything for calls: account, trunk, number `main` and the echo agent `bot`.
    pub fn complete(&self) -> String {
        [
            self.account(),
            self.trunk(""),
            self.main("bot"),
            crate::manifests::echo("bot", ""),
        ]
        .join("---\n")
    }

    /// The number `main`, answered by `agent`.
    pub fn main(&self, agent: &str) -> String {
        crate::manifests::number("main", &self.phone_number(0), "trunk", agent)
    }

    /// `kubectl apply` here.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        let done = kubectl_with(&["--namespace", &self.name, "apply", "-f", "-"], manifests);
        done.unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifests}"));
    }

    /// `kubectl patch --type merge` here.
    #[track_caller]
    pub fn patch(&self, kind: &str, name: &str, patch: &str) {
        self.kubectl(&["patch", kind, name, "--type", "merge", "--patch", patch]);
    }

    /// `kubectl` here, which must succeed.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        kubectl(&all).unwrap_or_else(|error| panic!("kubectl {all:?}: {error}"))
    }

    /// An object.
    pub fn get(&self, kind: &str, name: &str) -> Value {
        get(&self.name, kind, name)
    }

    /// Waits for an object's condition with this status and reason: the condition.
    #[track_caller]
    pub fn wait_condition(
        &self,
        kind: &str,
        name: &str,
        wanted: (&str, &str, &str),
        limit: Duration,
    ) -> Value {
        let (kind_of, status, reason) = wanted;
        let fits = |object: &Value| {
            let found = condition(object, kind_of);
            found["status"] == status && found["reason"] == reason
        };
        condition(
            &wait_object(
                &self.name,
                kind,
                name,
                limit,
                &format!("{kind_of}={status} {reason}"),
                fits,
            ),
            kind_of,
        )
    }

    /// Waits until the provider `trunk` has this registration; gives `.status.registration`.
    #[track_caller]
    pub fn wait_registration(&self, state: &str, reason: &str, limit: Duration) -> Value {
        self.wait_registration_of("trunk", state, reason, limit)
    }

    /// As [`Self::wait_registration`], of a provider of another name.
    #[track_caller]
    pub fn wait_registration_of(
        &self,
        name: &str,
        state: &str,
        reason: &str,
        limit: Duration,
    ) -> Value {
        let fits = |object: &Value| {
            let found = &object["status"]["registration"];
            found["state"] == state && found["reason"] == reason
        };
        wait_object(
            &self.name,
            "sipprovider",
            name,
            limit,
            &format!("{state} {reason}"),
            fits,
        )["status"]["registration"]
            .clone()
    }

    /// Waits until the provider `trunk` is registered.
    #[track_caller]
    pub fn wait_registered(&self, limit: Duration) -> Value {
        self.wait_registration("Registered", "Registered", limit)
    }

    /// Waits until the provider `trunk` is registered and calls to the number `main` are answered.
    #[track_caller]
    pub fn wait_answering(&self) {
        self.wait_registered(seconds(5));
        self.wait_condition(
            "phonenumber",
            "main",
            ("Ready", "True", "Ready"),
            seconds(5),
        );
    }

    /// Calls the number `main` from the telephone network.
    pub fn call(&self, arguments: &[&str]) -> Call {
        self.call_number(&self.phone_number(0), arguments)
    }

    /// Calls any number by this namespace's trunk.
    pub fn call_number(&self, number: &str, arguments: &[&str]) -> Call {
        let trunk = format!("X-Trunk: {}", self.user);
        let mut all = vec!["--header", "X-Provider: pstn", "--header", &trunk];
        all.extend(arguments);
        call(&format!("sip:{number}@{CARRIER}"), &all)
    }

    /// The record of the latest call to the number `main`.
    #[track_caller]
    pub fn record(&self) -> Value {
        wait::until(
            seconds(5),
            &format!("the record of a call to {}", self.phone_number(0)),
            || {
                let pods = pods(SYSTEM, "media");
                let mut all = pods
                    .iter()
                    .flat_map(|pod| log(SYSTEM, pod["metadata"]["name"].as_str().unwrap()));
                all.rfind(|line| {
                    line["target"] == "ringwire::call"
                        && line["to"] == self.phone_number(0).as_str()
                })
            },
        )
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_state(&self.name);
        }
        let _ = kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ]);
    }
}

/// What helps to understand a failure. No Secrets.
pub fn print_state(namespace: &str) {
    let show = |arguments: &[&str]| {
        let text = kubectl(arguments).unwrap_or_else(|error| error);
        eprintln!(
            "---- kubectl {}\n{}",
            arguments.join(" "),
            text.lines()
                .map(|line| line.get(..600).unwrap_or(line))
                .collect::<Vec<_>>()
                .join("\n")
        );
    };
    let kinds = "sipproviders,phonenumbers,voiceagents,mediagateways";
    show(&[
        "--namespace",
        namespace,
        "get",
        &format!("{kinds},pods"),
        "-o",
        "wide",
    ]);
    show(&["--namespace", namespace, "describe", kinds]);
    show(&[
        "--namespace",
        SYSTEM,
        "get",
        "mediagateways,pods",
        "-o",
        "wide",
    ]);
    for selector in [
        "app.kubernetes.io/name=ringwire",
        "app.kubernetes.io/component=registrar",
        "app.kubernetes.io/component=media",
    ] {
        show(&[
            "--namespace",
            SYSTEM,
            "logs",
            "--selector",
            selector,
            "--tail=15",
            "--prefix",
        ]);
    }
}

/// A command of the program under test, with the administrator's kubeconfig.
pub fn ringwire() -> Command {
    let mut command = process::command(process::ringwire());
    with_environment(&mut command);
    command
}

/// A call from the carrier's host.
pub struct Call {
    process: Process,
    scratch: Scratch,
}

/// Places a call with `ringwire call` in the carrier's network.
pub fn call(target: &str, arguments: &[&str]) -> Call {
    call_in("rw-carrier", target, arguments)
}

/// Places a call from a network namespace; from this machine's own without a name.
pub fn call_in(netns: &str, target: &str, arguments: &[&str]) -> Call {
    let scratch = Scratch::new("call");
    let mut command = process::command("sh");
    let enter = if netns.is_empty() {
        String::new()
    } else {
        format!("nsenter --net=/run/netns/{netns} ")
    };
    command
        .args([
            "-c",
            &format!("out=$1; shift; exec {enter}\"$@\" >\"$out\""),
            "sh",
        ])
        .arg(scratch.path().join("result"));
    command
        .arg(process::ringwire())
        .args(["call", target, "--json"])
        .args(arguments);
    Call {
        process: Process::start("call", command, scratch.path()),
        scratch,
    }
}

impl Call {
    /// Waits until it is answered.
    #[track_caller]
    pub fn wait_answered(&mut self) {
        wait::until_ok(seconds(10), "an answer to the call", || {
            let log = self.process.log();
            if log.contains("answered after") {
                return Ok(());
            }
            assert!(!self.ended(), "the call failed: {log}{}", self.result());
            Err(log)
        });
    }

    fn result(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("result")).unwrap()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Hangs up; gives its result.
    #[track_caller]
    pub fn hang_up(self) -> Value {
        self.process.signal("INT");
        self.end()
    }

    /// Waits for its end; gives its result.
    #[track_caller]
    pub fn end(mut self) -> Value {
        self.process.wait(seconds(90));
        let text = self.result();
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "ringwire call printed no JSON ({error}): {text}{}",
                self.process.log()
            )
        })
    }
}

/// Calls, and asserts that the audio came back whole; prints how late. Gives the call's result.
///
/// A caller that could not send in time, for this machine was busy, has nothing to judge by: such a call is placed again.
#[track_caller]
pub fn assert_echoed(what: &str, call: impl Fn() -> Call) -> Value {
    let mut result = call().end();
    for _ in 0..3 {
        let due = result["durationMillis"].as_f64().unwrap_or(0.0) / 20.0;
        let sent = result["packetsSent"].as_f64().unwrap_or(0.0);
        if sent >= due - 1.5 {
            break;
        }
        println!("    {what}: {sent} packets of {due:.0} were sent, once more");
        result = call().end();
    }
    let (correlation, delay) = (
        result["echo"]["correlation"].as_f64().unwrap_or(0.0),
        &result["echo"]["delayMillis"],
    );
    println!(
        "    {what}: correlation {correlation}, delay {delay} ms, set-up {} ms, lost {}",
        result["setupMillis"], result["packetsLost"]
    );
    assert!(correlation > IS_ECHO, "{result}");
    result
}

/// The middle one, and the greatest.
pub fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// The address of an agent on this machine.
pub fn here() -> IpAddr {
    HERE.parse().unwrap()
}

/// Reads a file of the repository.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// Makes sure that the cluster is clean and the proxy runs; the chart may have been uninstalled since.
pub fn with_fixture() {
    LazyLock::force(&FIXTURE);
}
