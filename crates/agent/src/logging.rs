//! Logs: to stderr, for people or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogConfig, LogFormat};

/// The environment variable that overrules the configured level.
pub const VARIABLE: &str = "DNSBROKER_LOG";

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Neither a level nor directives.
    #[error("the log level {level:?} is neither error, warn, info, debug or trace, nor directives by module")]
    Level {
        /// What was given.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("logging cannot be set up")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts to log.
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let base = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => base.json().flatten_event(true).boxed(),
    };
    Ok(tracing_subscriber::registry().with(filter(config)?).with(lines).try_init()?)
}

/// Checks a level without using it.
pub fn check(config: &LogConfig) -> Result<(), LoggingError> {
    filter(config).map(drop)
}

fn filter(config: &LogConfig) -> Result<EnvFilter, LoggingError> {
    let level = std::env::var(VARIABLE).unwrap_or_else(|_| config.level.clone());
    // hickory-server logs a line for each refused datagram: anybody could fill the disk.
    let directives =
        format!("{level},hickory_server=error,hickory_net=error,hickory_proto=error,h2=error,tokio_postgres=warn");
    EnvFilter::try_new(directives).map_err(|source| LoggingError::Level { level, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused_by_name() {
        let config = LogConfig { level: "dnsbroker=loud".to_owned(), format: LogFormat::Text };
        assert!(check(&config).expect_err("is refused").to_string().contains("loud"));
        assert!(check(&LogConfig { level: "info,dnsbroker_agent::upstream=debug".to_owned(), ..config }).is_ok());
    }
}
