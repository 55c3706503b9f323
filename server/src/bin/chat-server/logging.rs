//! The log: text or JSON on standard error, at a level that may change while the relay runs. It names no user.

use std::io::IsTerminal;

use server::RelayError;
use server::config::{DEFAULT_LOG_LEVEL, LogFormat, Settings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Changes the level of a log.
pub(crate) struct Log(Handle<EnvFilter, Registry>);

impl Log {
    /// Begins to log.
    pub(crate) fn start(settings: &Settings) -> Result<Self, RelayError> {
        let (level, handle) = reload::Layer::new(filter(settings)?);
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = match settings.log_format.unwrap_or_default() {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(level).with(lines).init();
        Ok(Self(handle))
    }

    /// Has the level of other settings hold from now on.
    pub(crate) fn set_level(&self, settings: &Settings) -> Result<(), RelayError> {
        let filter = filter(settings)?;
        // It fails when the log is gone, and nobody could be told.
        let _gone = self.0.reload(filter);
        Ok(())
    }
}

/// A level alone is for what is ours: what others say in libraries is for who looks for it.
fn filter(settings: &Settings) -> Result<EnvFilter, RelayError> {
    let level = settings.log_level.as_deref().unwrap_or(DEFAULT_LOG_LEVEL);
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    let wrong = RelayError::Setting {
        setting: "log-level",
        hint: "expected error, warn, info, debug or trace, or parts: info,server=debug",
    };
    // A word alone would be a part of the program of which everything is logged, and nothing of the others.
    if level.split(',').any(|part| !part.contains('=') && !is_level(part.trim())) {
        return Err(wrong);
    }
    let directives = match is_level(level) {
        true => format!("warn,server={level},chat_server={level}"),
        false => level.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|_| wrong)
}
