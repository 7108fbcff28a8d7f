//! As much of an API server as a registrar needs: objects that are listed, watches in which nothing happens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

/// Serves these objects, by path, until the runtime ends.
pub async fn serve(objects: BTreeMap<String, Value>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let objects: Objects = Arc::new(Mutex::new(objects));
    let router = axum::Router::new().fallback(answer).with_state(objects);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A kubeconfig that leads there.
pub fn kubeconfig(server: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    })
    .to_string()
}

async fn answer(
    State(objects): State<Objects>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if query.get("watch").is_some_and(|watch| watch != "false") {
        let seconds = query
            .get("timeoutSeconds")
            .and_then(|text| text.parse().ok());
        let end = async move {
            tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(60))).await;
            Ok::<_, Infallible>(Bytes::new())
        };
        return Body::from_stream(futures::stream::once(end)).into_response();
    }
    let mut objects = objects.lock().unwrap();
    match method {
        Method::GET => match objects.get(&path) {
            Some(object) => Json(object.clone()).into_response(),
            None => Json(list(&objects, &path, query.get("fieldSelector"))).into_response(),
        },
        Method::DELETE => {
            objects.remove(&path);
            Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response()
        }
        Method::PATCH | Method::PUT => match serde_json::from_slice::<Value>(&body) {
            Ok(mut object) => {
                object["metadata"]["resourceVersion"] = json!("2");
                objects.insert(path, object.clone());
                Json(object).into_response()
            }
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn list(objects: &BTreeMap<String, Value>, path: &str, selector: Option<&String>) -> Value {
    let name = selector.and_then(|text| text.strip_prefix("metadata.name="));
    let inside = objects.iter().filter_map(|(key, object)| {
        let own = key.strip_prefix(path)?.strip_prefix('/')?;
        name.is_none_or(|name| name == own).then_some(object)
    });
    let items: Vec<&Value> = inside.collect();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
}
