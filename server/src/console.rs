//! The operator's terminal: `!quit`.

use std::io::{self, BufRead, IsTerminal};

use tokio::sync::oneshot;

/// Waits for `!quit` on standard input; its end is not `!quit`.
pub async fn quit() {
    let (quit, has_quit) = oneshot::channel();
    let read = move || {
        for line in io::stdin().lock().lines() {
            match line.as_deref().map(str::trim) {
                Ok("!quit") => {
                    let _ = quit.send(());
                    return;
                }
                Ok("") => {}
                Ok(_) => eprintln!("the command here is !quit"),
                Err(_) => return,
            }
        }
    };
    // Reading a terminal that belongs to another job would stop the process.
    let is_readable = !(io::stdin().is_terminal() && is_in_background());
    let thread = std::thread::Builder::new().name("console".to_owned());
    if !is_readable || thread.spawn(read).is_err() || has_quit.await.is_err() {
        std::future::pending().await
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
