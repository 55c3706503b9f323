//! The operator's terminal.

#[cfg(target_os = "linux")]
use std::io::IsTerminal;
use std::io::{self, BufRead, Write};
#[cfg(target_os = "linux")]
use std::time::Duration;

use crate::operator::{Command, Operator};

/// Carries out the commands typed on standard input, on a thread of its own; its end is not `!quit`.
pub fn start(operator: Operator) {
    let read = move || {
        let mut lines = io::stdin().lock().lines();
        loop {
            wait_for_line();
            let Some(Ok(line)) = lines.next() else { return };
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

/// Time after which it is looked again whose the terminal is.
#[cfg(target_os = "linux")]
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until there is something to read on a terminal, and it is ours to read: reading one that belongs to another
/// job, as after Ctrl-Z and `bg`, would stop the process.
#[cfg(target_os = "linux")]
fn wait_for_line() {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdin = io::stdin();
    let limit = LOOK_AGAIN.try_into().ok();
    while stdin.is_terminal() {
        let mut asked = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut asked, limit.as_ref()) {
            Ok(1..) if !is_in_background() => return,
            Ok(1..) => std::thread::sleep(LOOK_AGAIN),
            Ok(0) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(not(target_os = "linux"))]
const fn wait_for_line() {}

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
