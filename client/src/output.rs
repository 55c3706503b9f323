//! Standard output: for a person, or JSON lines for a program.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::error::{CommandError, ExitCode};
use crate::render::Paint;

/// Who reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// A person; [`Output::json`] prints nothing.
    People,
    /// A program: JSON lines on standard output, words on standard error.
    Json,
}

/// Prints results; warnings and errors go to standard error elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    mode: OutputMode,
    paint: Paint,
}

impl Output {
    /// Looks where standard output goes.
    #[must_use]
    pub fn new(mode: OutputMode) -> Self {
        let paint = match mode {
            OutputMode::People => Paint::new(&io::stdout()),
            OutputMode::Json => Paint::new(&io::stderr()),
        };
        Self { mode, paint }
    }

    /// Returns who reads.
    #[must_use]
    pub const fn mode(self) -> OutputMode {
        self.mode
    }

    /// Returns the colours that fit [`say`](Self::say).
    #[must_use]
    pub const fn paint(self) -> Paint {
        self.paint
    }

    /// Prints a line for a person; what came from others was stripped by `render`.
    ///
    /// # Errors
    /// A silent one when the reader went away.
    pub fn say(self, line: &str) -> Result<(), CommandError> {
        match self.mode {
            OutputMode::People => written(writeln!(io::stdout().lock(), "{line}")),
            OutputMode::Json => written(writeln!(io::stderr().lock(), "{line}")),
        }
    }

    /// Prints a JSON line, in JSON mode only.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub fn json(self, value: &impl Serialize) -> Result<(), CommandError> {
        if self.mode == OutputMode::People {
            return Ok(());
        }
        let mut line = serde_json::to_vec(value).map_err(|error| {
            CommandError::new(ExitCode::Other, format_args!("no JSON for it: {error}"))
        })?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        written(out.write_all(&line).and_then(|()| out.flush()))
    }

    /// Prints bytes as they are, in both modes.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub fn raw(self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }
}

fn written(result: io::Result<()>) -> Result<(), CommandError> {
    result.map_err(|error| match error.kind() {
        // `chat history bob | head` is no failure to talk about.
        ErrorKind::BrokenPipe => CommandError::silent(),
        kind => CommandError::new(
            ExitCode::File,
            format_args!("standard output cannot be written: {kind}"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_leaves_is_no_failure_to_talk_about() {
        let gone = written(Err(ErrorKind::BrokenPipe.into()));
        assert_eq!(gone, Err(CommandError::silent()));
        let full = written(Err(ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(full.code(), ExitCode::File);
    }
}
