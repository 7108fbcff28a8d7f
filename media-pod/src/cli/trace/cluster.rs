//! The registrar pods of a cluster. What may be seen is up to the API server: pods are listed, and `ringwire trace` is run in each by
//! `pods/exec`, as kubectl would do it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Told;
use crate::cli::chain;
use crate::trace::entry::Request;

/// What the operator labels registrar pods with.
const SELECTOR: &str = "app.kubernetes.io/name=ringwire,app.kubernetes.io/component=registrar";

/// How often new pods are looked for.
const POLL: Duration = Duration::from_secs(2);

/// A pod whose trace has ended is asked again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Longest complaint of a pod that is repeated to people, in bytes.
const MAX_COMPLAINT: u64 = 1_000;

/// The program in the image.
const PROGRAM: &str = "/ringwire";

/// Follows all registrar pods, those that come later too; ends only for good, with the reason.
pub async fn follow(
    namespace: Option<String>,
    context: Option<String>,
    request: Request,
    told: &mpsc::Sender<Told>,
) -> String {
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let mut config = match Config::from_kubeconfig(&options).await {
        Ok(config) => config,
        Err(error) => return format!("cannot use the kubeconfig: {}", chain(&error)),
    };
    // A trace is silent as long as nobody calls.
    config.read_timeout = None;
    let own = config.default_namespace.clone();
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return format!("cannot use the kubeconfig: {}", chain(&error)),
    };
    let (api, place) = if let Some(namespace) = namespace {
        (
            Api::<Pod>::namespaced(client.clone(), &namespace),
            format!("namespace {namespace}"),
        )
    } else {
        let all: Api<Pod> = Api::all(client.clone());
        match all
            .list(&ListParams::default().labels(SELECTOR).limit(1))
            .await
        {
            // Not allowed to look everywhere: then where the context points.
            Err(kube::Error::Api(status)) if status.code == 403 => (
                Api::namespaced(client.clone(), &own),
                format!(
                    "namespace {own} (not allowed to list pods of all namespaces; -n names another)"
                ),
            ),
            _ => (all, "the cluster".to_owned()),
        }
    };
    follow_pods(&client, &api, &place, &request, told).await
}

async fn follow_pods(
    client: &Client,
    api: &Api<Pod>,
    place: &str,
    request: &Request,
    told: &mpsc::Sender<Told>,
) -> String {
    let mut following: BTreeMap<(String, String), JoinHandle<()>> = BTreeMap::new();
    let (mut away, mut none) = (false, false);
    loop {
        // Nobody gets rights by waiting.
        if !following.is_empty() && following.values().all(JoinHandle::is_finished) {
            return format!(
                "no registrar pod of {place} can be followed without the right to create pods/exec"
            );
        }
        match api.list(&ListParams::default().labels(SELECTOR)).await {
            Ok(pods) => {
                away = false;
                let running: BTreeMap<(String, String), String> =
                    pods.iter().filter_map(running).collect();
                if running.is_empty() && !std::mem::replace(&mut none, true) {
                    let text = format!("there is no registrar pod in {place} yet; waiting for one");
                    if told.send(Told::Note(text)).await.is_err() {
                        break;
                    }
                }
                following.retain(|pod, task| {
                    if !running.contains_key(pod) {
                        task.abort();
                    }
                    running.contains_key(pod)
                });
                for (pod, container) in running {
                    following.entry(pod.clone()).or_insert_with(|| {
                        let (client, request, told) =
                            (client.clone(), request.clone(), told.clone());
                        tokio::spawn(async move {
                            follow_pod(&client, pod, &container, &request, &told).await;
                        })
                    });
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                return format!("not allowed to list pods in {place}: {}", status.message);
            }
            Err(error) => {
                if following.is_empty() && !away {
                    return format!("cannot list the pods of {place}: {}", chain(&error));
                }
                // Traces that run go on running.
                if !std::mem::replace(&mut away, true) {
                    let text = format!("cannot list the pods of {place}: {}", chain(&error));
                    let _ = told.send(Told::Note(text)).await;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = told.closed() => break,
        }
    }
    for task in following.values() {
        task.abort();
    }
    "stopped".to_owned()
}

/// Namespace, name and container of a pod that runs.
fn running(pod: &Pod) -> Option<((String, String), String)> {
    let status = pod.status.as_ref()?;
    // A stopping one too: it still relays.
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    let container = pod.spec.as_ref()?.containers.first()?.name.clone();
    Some(((pod.namespace()?, pod.name_any()), container))
}

/// Follows one pod for as long as it is there, unless that is not allowed.
async fn follow_pod(
    client: &Client,
    (namespace, name): (String, String),
    container: &str,
    request: &Request,
    told: &mpsc::Sender<Told>,
) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let mut complained = None;
    loop {
        let ended = exec(&api, &name, container, request, told).await;
        if told.is_closed() {
            return;
        }
        let (text, forbidden) = match ended {
            Ended::Forbidden(text) => (text, true),
            Ended::Else(text) => (text, false),
        };
        let text = format!("{namespace}/{name}: {text}");
        // The same once: it may go on for long.
        if complained.as_ref() != Some(&text) {
            let _ = told.send(Told::Note(text.clone())).await;
            complained = Some(text);
        }
        if forbidden {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Why the trace in a pod has ended.
enum Ended {
    /// It has not begun: the API server says that we may not.
    Forbidden(String),
    /// Whatever may be otherwise the next time.
    Else(String),
}

/// Runs the trace in a pod and tells its lines.
async fn exec(
    api: &Api<Pod>,
    pod: &str,
    container: &str,
    request: &Request,
    told: &mpsc::Sender<Told>,
) -> Ended {
    // Standard input stays open as long as we are here: the end of a connection does not end a program that writes nothing.
    let parameters = AttachParams::default()
        .container(container)
        .stdin(true)
        .stdout(true)
        .stderr(true);
    let mut process = match api.exec(pod, command(request), &parameters).await {
        Ok(process) => process,
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            return Ended::Forbidden(format!("not allowed to exec into it: {}", status.message));
        }
        Err(error) => return Ended::Else(format!("cannot exec into it: {}", chain(&error))),
    };
    let _stdin = process.stdin();
    let (Some(stdout), Some(stderr)) = (process.stdout(), process.stderr()) else {
        return Ended::Else("exec gave no output".to_owned());
    };
    let complaint = tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = stderr.take(MAX_COMPLAINT).read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return Ended::Else(format!("the connection broke: {error}")),
        };
        let Ok(line) = serde_json::from_str(&line) else {
            let text = "it says something that this version does not understand; is it of the same version?";
            return Ended::Else(text.to_owned());
        };
        if told.send(Told::Line(line)).await.is_err() {
            return Ended::Else(String::new());
        }
    }
    Ended::Else(match complaint.await {
        Ok(text) if !text.is_empty() => text,
        _ => "the trace has ended".to_owned(),
    })
}

fn command(request: &Request) -> Vec<String> {
    let mut command: Vec<String> = [PROGRAM, "trace", "--local", "--while-stdin", "-o", "json"]
        .map(str::to_owned)
        .into();
    let filter = &request.filter;
    // With `=`: a value that begins with a dash is no option.
    for (option, value) in [
        ("--call", &filter.call),
        ("--provider", &filter.provider),
        ("--number", &filter.number),
    ] {
        command.extend(value.as_ref().map(|value| format!("{option}={value}")));
    }
    command
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trace::filter::Filter;

    #[test]
    fn a_filter_goes_to_the_pod_and_cannot_become_an_option() {
        let filter = Filter {
            call: Some("--local".into()),
            provider: None,
            number: Some("+34911234567".into()),
        };
        let request = Request {
            filter,
            whole: true,
        };
        assert_eq!(
            command(&request)[5..],
            ["json", "--call=--local", "--number=+34911234567"]
        );
    }

    #[test]
    fn only_pods_that_run_are_followed() {
        let pod = |phase: &str| -> Pod {
            let pod = json!({
                "metadata": {"namespace": "voice", "name": "default-registrar-0"},
                "spec": {"containers": [{"name": "registrar"}]},
                "status": {"phase": phase},
            });
            serde_json::from_value(pod).unwrap()
        };
        let name = ("voice".to_owned(), "default-registrar-0".to_owned());
        assert_eq!(
            running(&pod("Running")),
            Some((name, "registrar".to_owned()))
        );
        assert_eq!(running(&pod("Pending")), None);
        assert_eq!(running(&Pod::default()), None);
    }
}
