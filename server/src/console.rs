//! The operator's terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::operator::{Command, Operator};

/// Carries out the commands typed on standard input, on a thread of its own; its end is not `!quit`.
pub fn start(operator: Operator) {
    // Reading a terminal that belongs to another job would stop the process.
    if io::stdin().is_terminal() && is_in_background() {
        return;
    }
    let read = move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if line.trim().is_empty() {
                continue;
            }
            let said = match Command::parse(&line) {
                Ok(command) => {
                    operator.run(&command).map_or_else(|error| error.to_string(), |said| said.text)
                }
                Err(error) => error.to_string(),
            };
            // Names of users are printable by rule; nothing else of theirs is shown here.
            // A terminal that is gone is told nothing.
            let _gone = writeln!(io::stderr(), "{said}");
        }
    };
    let thread = std::thread::Builder::new().name("console".to_owned());
    if let Err(error) = thread.spawn(read) {
        tracing::warn!(%error, "commands can't be typed here");
    }
}

/// Tells whether the terminal belongs to another job, as after `chat-server &`.
#[cfg(target_os = "linux")]
fn is_in_background() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // pid (name) state ppid pgrp session tty_nr tpgid …
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_ascii_whitespace();
    let own = fields.nth(2);
    own.is_some() && own != fields.nth(2)
}

#[cfg(not(target_os = "linux"))]
const fn is_in_background() -> bool {
    false
}
