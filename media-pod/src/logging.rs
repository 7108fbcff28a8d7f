//! Where the log goes: one event a line, to standard error.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with the format, if no flag gives it.
pub const FORMAT_VARIABLE: &str = "RINGWIRE_LOG_FORMAT";

/// Environment variable with the filter, such as `debug` or `info,ringwire=debug`. It wins over the level of a flag.
pub const FILTER_VARIABLE: &str = "RINGWIRE_LOG";

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For machines: a JSON object.
    Json,
    /// For people; coloured on a terminal.
    #[default]
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as clap::ValueEnum>::from_str(text, true)
    }
}

/// Starts logging; to be called once, first. `format` and `level` are those of the flags: without a format, [`FORMAT_VARIABLE`] decides,
/// else it is text; without a level, `info`. A variable that cannot be read is reported and ignored: a typo in it must not stop a pod.
pub fn init(format: Option<Format>, level: Option<LevelFilter>) {
    let mut complaints = Vec::new();
    let format =
        format.unwrap_or_else(
            || match std::env::var(FORMAT_VARIABLE).map(|text| text.parse()) {
                Ok(Ok(format)) => format,
                Ok(Err(error)) => {
                    complaints.push((FORMAT_VARIABLE, error));
                    Format::default()
                }
                Err(_) => Format::default(),
            },
        );
    let base = level.unwrap_or(LevelFilter::INFO);
    let filter = match std::env::var(FILTER_VARIABLE).map(|text| filter(&text, base)) {
        Ok(Ok(filter)) => filter,
        Ok(Err(error)) => {
            complaints.push((FILTER_VARIABLE, error));
            quiet(base)
        }
        Err(_) => quiet(base),
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

/// Limits for libraries whose lines drown ours. A filter that names the same library overrules them. The client of the API server
/// reports as an error each attempt of ours that fails, and returns it too.
const LIMITS: &str =
    "kube_client=off,kube_runtime=info,hyper=info,hyper_util=info,rustls=info,tower=info,h2=info";

fn filter(text: &str, base: LevelFilter) -> Result<EnvFilter, String> {
    let builder = EnvFilter::builder().with_default_directive(base.into());
    // A filter without a level for all keeps the flag's.
    builder
        .parse(format!("{base},{LIMITS},{text}"))
        .map_err(|error| error.to_string())
}

fn quiet(base: LevelFilter) -> EnvFilter {
    filter("", base).unwrap_or_else(|_| EnvFilter::default().add_directive(base.into()))
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
        assert!(filter("info,ringwire=loud", LevelFilter::INFO).is_err());
        assert_eq!(
            filter("debug", LevelFilter::INFO).unwrap().max_level_hint(),
            Some(LevelFilter::DEBUG)
        );
    }

    #[test]
    fn debug_is_ours_and_not_the_libraries() {
        let filter = quiet(LevelFilter::DEBUG).to_string();
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
        let filter = filter("kube_client=debug", LevelFilter::INFO)
            .unwrap()
            .to_string();
        assert!(
            filter.contains("kube_client=debug") && !filter.contains("kube_client=off"),
            "{filter}"
        );
        assert!(
            filter.split(',').any(|directive| directive == "info"),
            "{filter}"
        );
    }
}
