//! Output of a command: for a person or as JSON lines for a program, on standard output or above the
//! line that is being typed.

pub(crate) mod colours;
pub mod json;
pub(crate) mod names;
pub mod progress;
pub mod render;
pub(crate) mod show;

use std::io::{self, ErrorKind, StdoutLock, Write};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::{CommandError, ExitCode};
use crate::output::colours::Colours;
use crate::output::json::to_line;
use crate::output::render::Paint;

/// Reader of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// A person; [`Output::json`] prints nothing.
    People,
    /// A program: JSON lines on standard output, words on standard error.
    Json,
}

/// Where it goes.
#[derive(Debug, Clone)]
enum Sink {
    Standard,
    /// To whoever paints the screen.
    Screen(UnboundedSender<String>),
    /// To another process.
    Process(UnboundedSender<Said>),
}

/// Output of a command to another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// For its standard output.
    Out(String),
    /// For its standard error.
    Err(String),
}

/// Stands in the place of a code that the terminal has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// A note that there is none: it was asked for.
    Words,
    /// Nothing.
    Nothing,
}

/// Prints results; warnings and errors go to standard error elsewhere.
#[derive(Debug, Clone)]
pub struct Output {
    mode: OutputMode,
    paint: Paint,
    sink: Sink,
    colours: Colours,
}

impl Output {
    /// Looks where standard output goes.
    #[must_use]
    pub fn new(mode: OutputMode) -> Self {
        let paint = match mode {
            OutputMode::People => Paint::new(&io::stdout()),
            OutputMode::Json => Paint::new(&io::stderr()),
        };
        Self { mode, paint, sink: Sink::Standard, colours: Colours::default() }
    }

    /// Hands everything to whoever paints the screen, in the colours of standard output.
    #[must_use]
    pub fn to_screen(lines: UnboundedSender<String>) -> Self {
        let paint = Paint::new(&io::stdout());
        let (mode, colours) = (OutputMode::People, Colours::default());
        Self { mode, paint, sink: Sink::Screen(lines), colours }
    }

    /// Returns who reads.
    #[must_use]
    pub const fn mode(&self) -> OutputMode {
        self.mode
    }

    /// Returns the colours that fit [`say`](Self::say).
    #[must_use]
    pub const fn paint(&self) -> Paint {
        self.paint
    }

    /// Returns who is painted in which colour.
    pub(crate) const fn colours(&self) -> &Colours {
        &self.colours
    }

    /// Hands everything to another process, which reads as `mode` says, without colours.
    #[must_use]
    pub fn to_process(mode: OutputMode, said: UnboundedSender<Said>) -> Self {
        let (paint, colours) = (Paint::Plain, Colours::default());
        Self { mode, paint, sink: Sink::Process(said), colours }
    }

    /// Returns where words for standard error go, if they don't go to ours.
    pub(crate) fn elsewhere(&self) -> Option<Box<dyn Write + Send>> {
        match &self.sink {
            Sink::Standard | Sink::Screen(_) => None,
            Sink::Process(said) => {
                Some(Box::new(ErrLines { said: said.clone(), line: Vec::new() }))
            }
        }
    }

    /// Returns how a person does something from here: as a command of the shell, or as one of the
    /// prompt.
    #[must_use]
    pub const fn how<'a>(&self, shell: &'a str, prompt: &'a str) -> &'a str {
        match self.sink {
            Sink::Standard | Sink::Process(_) => shell,
            Sink::Screen(_) => prompt,
        }
    }

    /// Prints a line for a person; what came from others was stripped by `render`.
    ///
    /// # Errors
    /// A silent one when the reader went away.
    pub fn say(&self, line: &str) -> Result<(), CommandError> {
        match &self.sink {
            Sink::Standard => {}
            Sink::Screen(lines) => {
                return lines.send(line.to_owned()).map_err(|_| CommandError::silent());
            }
            Sink::Process(said) => {
                let line = line.to_owned();
                let line = match self.mode {
                    OutputMode::People => Said::Out(line),
                    OutputMode::Json => Said::Err(line),
                };
                return said.send(line).map_err(|_| CommandError::silent());
            }
        }
        match self.mode {
            OutputMode::People => {
                written(write_whole(io::stdout().lock(), format!("{line}\n").as_bytes()))
            }
            OutputMode::Json => written(writeln!(io::stderr().lock(), "{line}")),
        }
    }

    /// Prints a code that a telephone scans, where the terminal is large enough.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub fn code(&self, text: &str, without: Without) -> Result<(), CommandError> {
        // Without a code the text is there to be typed.
        let Ok(code) = QrCode::new(text) else { return Ok(()) };
        let code = code.render::<Dense1x2>().build();
        let columns = code.lines().map(|row| row.chars().count()).max().unwrap_or_default();
        // What is said about it, and the line being typed.
        let rows = code.lines().count() + 3;
        let fits = crossterm::terminal::size().map_or(true, |(width, height)| {
            width == 0 || (usize::from(width) >= columns && usize::from(height) >= rows)
        });
        match (fits, without) {
            (true, _) => self.say(&code),
            (false, Without::Words) => self.say("(the window is too small for the QR code)"),
            (false, Without::Nothing) => Ok(()),
        }
    }

    /// Prints a JSON line, in JSON mode only.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub fn json(&self, value: &impl Serialize) -> Result<(), CommandError> {
        if self.mode == OutputMode::People {
            return Ok(());
        }
        let line = to_line(value).map_err(|error| {
            CommandError::new(ExitCode::Other, format_args!("no JSON for it: {error}"))
        })?;
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Prints bytes as they are, in both modes.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        if let Sink::Process(said) = &self.sink {
            let text = String::from_utf8_lossy(bytes);
            let line = Said::Out(text.trim_end_matches('\n').to_owned());
            return said.send(line).map_err(|_| CommandError::silent());
        }
        written(write_whole(io::stdout().lock(), bytes))
    }
}

/// Writes and flushes all of it, also to what another program has left in a mode in which nobody waits for a reader.
pub(crate) fn write_whole(mut out: StdoutLock<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    loop {
        let written = match rest {
            [] => out.flush().map(|()| None),
            _ => out.write(rest).map(Some),
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(ErrorKind::WriteZero.into()),
            Ok(Some(count)) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for_reader(&out)?,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
fn wait_for_reader(out: &StdoutLock<'_>) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(out, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(unix))]
fn wait_for_reader(_out: &StdoutLock<'_>) -> io::Result<()> {
    Err(ErrorKind::WouldBlock.into())
}

/// Passes whole lines on.
struct ErrLines {
    said: UnboundedSender<Said>,
    line: Vec<u8>,
}

impl Write for ErrLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend(part);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.said.send(Said::Err(line)).map_err(|_| ErrorKind::BrokenPipe)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
