//! Every question to the person. Without a terminal none is asked, and the error names the flag
//! that answers it.
//!
//! Questions block: async callers ask them on a thread of their own.

use std::io::{self, IsTerminal, Write};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use dialoguer::{Confirm, Input, Select};
use zeroize::Zeroizing;

use crate::error::{CommandError, ExitCode};
use crate::output::render::is_dumb;
use chatcore::profile::Passphrase;

/// Whether there is somebody to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// A person sits at a terminal.
    Attended,
    /// A program runs this one.
    Unattended,
}

impl Prompt {
    /// Looks whether questions can be shown and answered.
    #[must_use]
    pub fn new() -> Self {
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            Self::Attended
        } else {
            Self::Unattended
        }
    }

    /// Asks for yes or no; there is no default.
    ///
    /// # Errors
    /// [`ExitCode::Usage`] without a terminal, naming `flag`; [`ExitCode::Interrupted`].
    pub fn confirm(self, question: &str, flag: &str) -> Result<bool, CommandError> {
        self.attended(question, flag)?;
        if is_dumb() {
            return plain_yes_or_no(question);
        }
        let asked = Confirm::new().with_prompt(question);
        asked.wait_for_newline(true).interact().map_err(failed)
    }

    /// Asks for a line of text.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn text(self, question: &str, flag: &str) -> Result<String, CommandError> {
        self.attended(question, flag)?;
        if is_dumb() {
            return plain_line(question).map(|line| line.trim().to_owned());
        }
        let asked = Input::<String>::new().with_prompt(question);
        asked.interact_text().map_err(failed)
    }

    /// Asks for a passphrase that was chosen before, without showing it.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn passphrase(self, question: &str, flag: &str) -> Result<Passphrase, CommandError> {
        self.attended(question, flag)?;
        loop {
            if let Some(passphrase) = Passphrase::new(secret(question)?) {
                return Ok(passphrase);
            }
        }
    }

    /// Asks for a new passphrase, twice; `question` says for what.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn new_passphrase(self, question: &str, flag: &str) -> Result<Passphrase, CommandError> {
        self.attended("a passphrase is to be chosen", flag)?;
        loop {
            let first = secret(question)?;
            if first.is_empty() {
                crate::error::tell(format_args!("it can't be empty"));
            } else if secret("The same again")? == first {
                return passphrase_of(first);
            } else {
                crate::error::tell(format_args!("they differ, please repeat"));
            }
        }
    }

    /// Asks to choose one of several; returns its place.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn choose(
        self,
        question: &str,
        choices: &[&str],
        flag: &str,
    ) -> Result<usize, CommandError> {
        self.attended(question, flag)?;
        let asked = Select::new().with_prompt(question).items(choices).default(0);
        asked.interact().map_err(failed)
    }

    /// Asks for a line of text until it is one that is wanted.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn text_that<T>(
        self,
        question: &str,
        suggestion: Option<&str>,
        flag: &str,
        read: impl Fn(&str) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        self.attended(question, flag)?;
        loop {
            let answer = match suggestion {
                Some(suggestion) => {
                    let asked = Input::<String>::new().with_prompt(question);
                    asked.default(suggestion.to_owned()).interact_text().map_err(failed)?
                }
                None => plain_line(question)?,
            };
            match read(answer.trim()) {
                Ok(text) => return Ok(text),
                Err(error) => {
                    let _told = error.report_to_be_answered(&mut io::stderr());
                }
            }
        }
    }

    /// Asks for a new passphrase, twice; the person may want none, after a warning.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn passphrase_or_none(self, flag: &str) -> Result<Option<Passphrase>, CommandError> {
        self.attended("a passphrase is to be chosen", flag)?;
        loop {
            let first = secret("Passphrase (Enter for none)")?;
            if first.is_empty() {
                crate::error::tell(format_args!(
                    "Without one, anyone who can read your files can read your messages."
                ));
                let warning = "Continue without a passphrase?";
                if self.confirm(warning, flag)? {
                    return Ok(None);
                }
                continue;
            }
            if secret("The same again")? == first {
                return Ok(Passphrase::new(first));
            }
            crate::error::tell(format_args!("they differ, please repeat"));
        }
    }

    fn attended(self, question: &str, flag: &str) -> Result<(), CommandError> {
        match self {
            Self::Attended => Ok(()),
            Self::Unattended => Err(CommandError::new(
                ExitCode::Usage,
                format_args!("there is no terminal to ask on: {question}"),
            )
            .hint(format_args!("answer with {flag}"))),
        }
    }
}

impl Default for Prompt {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a line as the terminal edits it: a pasted link is longer than a row, which dialoguer would
/// paint twice.
fn plain_line(question: &str) -> Result<String, CommandError> {
    let _gone = write!(io::stderr(), "{question}: ");
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    match read.map_err(|error| failed(error.into()))? {
        0 => Err(CommandError::interrupted()),
        _ => Ok(line),
    }
}

fn plain_yes_or_no(question: &str) -> Result<bool, CommandError> {
    loop {
        match plain_line(&format!("{question} [y/n]"))?.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}

fn passphrase_of(text: Zeroizing<String>) -> Result<Passphrase, CommandError> {
    Passphrase::new(text)
        .ok_or_else(|| CommandError::new(ExitCode::Usage, "the passphrase is empty"))
}

/// Most bytes of a passphrase that is typed.
const LONGEST: usize = 4096;

/// The terminal hands over each key, and shows none.
struct Hidden(());

impl Hidden {
    fn new() -> io::Result<Self> {
        let hidden = Self(());
        enable_raw_mode()?;
        Ok(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _gone = disable_raw_mode();
        let _gone = writeln!(io::stderr());
    }
}

/// Reads a line that is not shown. Ctrl-C comes as a key: who already listens for signals does not hear it while a
/// question blocks.
fn secret(question: &str) -> Result<Zeroizing<String>, CommandError> {
    let failed = |error: io::Error| failed(error.into());
    let _gone = write!(io::stderr(), "{question}: ").and_then(|()| io::stderr().flush());
    let _hidden = Hidden::new().map_err(failed)?;
    // Reserved at once, so that no copy stays behind in a buffer that grew.
    let mut line = Zeroizing::new(String::with_capacity(LONGEST));
    loop {
        let Event::Key(key) = read().map_err(failed)? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
            (KeyCode::Enter, _) | (KeyCode::Char('j' | 'm'), true) => return Ok(line),
            (KeyCode::Char('c' | 'd'), true) => return Err(CommandError::interrupted()),
            (KeyCode::Char('u'), true) => line.clear(),
            (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) => drop(line.pop()),
            (KeyCode::Char(c), false) if line.len() + c.len_utf8() <= LONGEST => line.push(c),
            _ => {}
        }
    }
}

fn failed(error: dialoguer::Error) -> CommandError {
    // A choice hides it, and does not show it again when it is interrupted.
    let _shown = dialoguer::console::Term::stderr().show_cursor();
    match io::Error::from(error).kind() {
        // Ctrl-C, or the terminal went away.
        io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof => CommandError::interrupted(),
        kind => {
            CommandError::new(ExitCode::Other, format_args!("the terminal does not answer: {kind}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_the_flag_is_named() {
        let prompt = Prompt::Unattended;
        let errors = [
            (prompt.confirm("really?", "--yes").unwrap_err(), "--yes"),
            (prompt.text("name?", "--nick NAME").unwrap_err(), "--nick NAME"),
            (
                prompt.passphrase("Passphrase", "--passphrase-file FILE").unwrap_err(),
                "--passphrase-file FILE",
            ),
            (
                prompt.new_passphrase("New passphrase", "--no-passphrase").unwrap_err(),
                "--no-passphrase",
            ),
        ];
        for (error, flag) in errors {
            assert_eq!(error.code(), ExitCode::Usage);
            let mut out = Vec::new();
            error.report(&mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert!(out.ends_with(&format!("\n  answer with {flag}\n")), "{out}");
        }
    }
}
