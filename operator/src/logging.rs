//! Log lines, and what happens at a panic.

use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// What is logged unless `RUST_LOG` says otherwise. Failing watches are told by ourselves, once each.
const DEFAULT_FILTER: &str = "info,kube_runtime::watcher=error";

/// Starts logging; `RUST_LOG` chooses what is logged.
pub fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
        LogFormat::Text => builder.init(),
    }
}

/// Ends the process at a panic of any task or thread: half an operator would look alive and do nothing.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic");
        tracing::error!(place, "the operator ends: {message}");
        std::process::exit(101);
    }));
}
