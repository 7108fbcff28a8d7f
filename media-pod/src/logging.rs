//! Where the log goes: one event a line, to standard error.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with the format, if no flag gives it.
pub const FORMAT_VARIABLE: &str = "RINGWIRE_LOG_FORMAT";

/// Environment variable with the filter, such as `debug` or `info,ringwire=debug`.
pub const FILTER_VARIABLE: &str = "RINGWIRE_LOG";

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For machines: a JSON object.
    Json,
    /// For people; coloured on a terminal.
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as clap::ValueEnum>::from_str(text, true)
    }
}

/// How a role logs where nobody says otherwise.
pub struct Defaults {
    format: Format,
    /// Limits for libraries whose lines drown ours. A filter that names the same library overrules them.
    limits: &'static str,
}

/// Of the roles that carry calls. The client of the API server reports as an error each attempt of ours that fails, and returns it too.
pub const PODS: Defaults = Defaults {
    format: Format::Text,
    limits: "kube_client=off,kube_runtime=info,hyper=info,hyper_util=info,rustls=info,tower=info,h2=info,rtc_dtls=error",
};

/// Of the operator. Failing watches are told by ourselves, once each.
pub const OPERATOR: Defaults = Defaults {
    format: Format::Json,
    limits: "kube_client=info,kube_runtime=info,kube_runtime::watcher=error,hyper=info,hyper_util=info,rustls=info,tower=info,h2=info",
};

/// Starts logging; to be called once, first. `format` is that of the flag: without it [`FORMAT_VARIABLE`] decides, else the role. A
/// variable that cannot be read is reported and ignored: a typo in it must not stop a pod.
pub fn init(format: Option<Format>, role: &Defaults) {
    let mut complaints = Vec::new();
    let format =
        format.unwrap_or_else(
            || match std::env::var(FORMAT_VARIABLE).map(|text| text.parse()) {
                Ok(Ok(format)) => format,
                Ok(Err(error)) => {
                    complaints.push((FORMAT_VARIABLE, error));
                    role.format
                }
                Err(_) => role.format,
            },
        );
    let filter = match std::env::var(FILTER_VARIABLE).map(|text| filter(&text, role)) {
        Ok(Ok(filter)) => filter,
        Ok(Err(error)) => {
            complaints.push((FILTER_VARIABLE, error));
            quiet(role)
        }
        Err(_) => quiet(role),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) leaves the first in place.
    let _ = match format {
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .finish()
            .try_init(),
        Format::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .finish()
            .try_init(),
    };
    for (variable, error) in complaints {
        tracing::warn!(
            variable,
            error,
            "the environment variable cannot be read; it is ignored"
        );
    }
}

fn filter(text: &str, role: &Defaults) -> Result<EnvFilter, String> {
    let level = LevelFilter::INFO;
    let builder = EnvFilter::builder().with_default_directive(level.into());
    // A filter without a level for all keeps ours.
    builder
        .parse(format!("{level},{},{text}", role.limits))
        .map_err(|error| error.to_string())
}

fn quiet(role: &Defaults) -> EnvFilter {
    filter("", role)
        .unwrap_or_else(|_| EnvFilter::default().add_directive(LevelFilter::INFO.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_in_any_case() {
        assert_eq!("JSON".parse(), Ok(Format::Json));
        assert_eq!("text".parse(), Ok(Format::Text));
        assert!("yaml".parse::<Format>().is_err());
    }

    #[test]
    fn a_filter_with_a_mistake_is_an_error_and_not_a_panic() {
        assert!(filter("info,ringwire=loud", &PODS).is_err());
        assert_eq!(
            filter("debug", &PODS).unwrap().max_level_hint(),
            Some(LevelFilter::DEBUG)
        );
    }

    #[test]
    fn debug_is_ours_and_not_the_libraries() {
        let filter = filter("debug", &PODS).unwrap().to_string();
        assert!(
            filter.contains("rustls=info") && filter.contains("kube_client=off"),
            "{filter}"
        );
        assert!(
            filter.split(',').any(|directive| directive == "debug"),
            "{filter}"
        );
    }

    #[test]
    fn a_library_can_be_listened_to_by_name() {
        let filter = filter("kube_client=debug", &PODS).unwrap().to_string();
        assert!(
            filter.contains("kube_client=debug") && !filter.contains("kube_client=off"),
            "{filter}"
        );
        assert!(
            filter.split(',').any(|directive| directive == "info"),
            "{filter}"
        );
    }

    #[test]
    fn each_role_has_limits_that_can_be_read() {
        let operators = filter("", &OPERATOR).unwrap().to_string();
        assert!(
            operators.contains("kube_client=info")
                && operators.contains("kube_runtime::watcher=error"),
            "{operators}"
        );
        assert!(filter("", &PODS).is_ok());
    }
}
