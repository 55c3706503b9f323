//! The terminal itself: keys one by one while we have it, as it was when we give it back.

use std::io::{self, stdin, stdout};
#[cfg(unix)]
use std::time::Duration;

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use crate::error::{CommandError, ExitCode};
use crate::output::write_whole;

/// While it lives, the terminal hands over keys; dropped, it is as before.
#[derive(Debug)]
pub(super) struct Terminal(());

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It refuses.
    pub(super) fn enter() -> Result<Self, CommandError> {
        let terminal = Self(());
        take()?;
        Ok(terminal)
    }

    /// Stops this process as Ctrl-Z does elsewhere, and takes the terminal again when it goes on.
    ///
    /// # Errors
    /// The terminal refuses; where there are no such signals nothing happens.
    pub(super) fn lend() -> Result<(), CommandError> {
        #[cfg(unix)]
        {
            use rustix::process::{Signal, kill_current_process_group};
            give_back();
            // The whole job, whatever started us included: it ends when the job goes on.
            let stopped = kill_current_process_group(Signal::TSTP);
            take()?;
            stopped.map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Returns its size in columns and rows.
    pub(super) fn size() -> Option<(u16, u16)> {
        crossterm::terminal::size().ok()
    }

    pub(super) fn write(text: &str) -> Result<(), CommandError> {
        write_whole(stdout().lock(), text.as_bytes()).map_err(failed)
    }
}

/// Time after which it is looked again whether the terminal is there.
#[cfg(unix)]
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Ends when the terminal is gone: also for who is told to outlive hangups, and would read its end for ever.
pub(super) async fn gone() {
    #[cfg(unix)]
    loop {
        use rustix::event::{PollFd, PollFlags, poll};
        tokio::time::sleep(LOOK_AGAIN).await;
        let input = stdin();
        let mut asked = [PollFd::new(&input, PollFlags::IN)];
        let answered = poll(&mut asked, Some(&rustix::event::Timespec::default()));
        let [asked] = asked;
        if answered == Ok(1) && asked.revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            return;
        }
    }
    #[cfg(not(unix))]
    std::future::pending::<()>().await
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> Result<(), CommandError> {
    enable_raw_mode().map_err(failed)?;
    execute!(stdout(), EnableBracketedPaste).map_err(failed)
}

fn give_back() {
    // A terminal that is gone needs no restoring.
    let _gone = execute!(stdout(), DisableBracketedPaste);
    let _gone = disable_raw_mode();
}

fn failed(error: io::Error) -> CommandError {
    CommandError::new(ExitCode::Other, format_args!("the terminal does not answer: {error}"))
}
