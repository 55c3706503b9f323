//! The terminal itself: keys one by one while we have it, as it was when we give it back.

use std::io::{self, Write, stdout};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use crate::error::{CommandError, ExitCode};

/// While it lives, the terminal hands over keys; dropped, it is as before.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It refuses.
    pub(super) fn enter() -> Result<Self, CommandError> {
        enable_raw_mode().map_err(failed)?;
        let terminal = Self(());
        execute!(stdout(), EnableBracketedPaste).map_err(failed)?;
        Ok(terminal)
    }

    pub(super) fn write(text: &str) -> Result<(), CommandError> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _gone = execute!(stdout(), DisableBracketedPaste);
        let _gone = disable_raw_mode();
    }
}

fn failed(error: io::Error) -> CommandError {
    CommandError::new(ExitCode::Other, format_args!("the terminal does not answer: {error}"))
}
