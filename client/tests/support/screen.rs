//! A terminal of tmux with a real process in it: keys go in, the screen comes out.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs, reason = "test support")]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long something may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// Tells whether screens can be driven here; where they must be, says so loudly if not.
pub(crate) fn has_tmux() -> bool {
    let has = Command::new("tmux").arg("-V").output().is_ok_and(|out| out.status.success());
    let must = std::env::var_os("CHAT_TESTS_NEED_TMUX").is_some();
    assert!(has || !must, "tmux is not installed");
    if !has {
        eprintln!("tmux is not installed: the prompt is not tested");
    }
    has
}

pub(crate) struct Screen {
    socket: String,
}

impl Screen {
    pub(crate) fn start(command: &Command, width: u16, height: u16) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let screen = Self { socket: format!("chat-test-{}-{number}", std::process::id()) };
        let (width, height) = (width.to_string(), height.to_string());
        let mut args: Vec<String> = ["-f", "/dev/null", "new-session", "-d", "-x"]
            .iter()
            .map(|arg| (*arg).to_owned())
            .collect();
        args.extend([width, "-y".to_owned(), height]);
        // The shell outlives the process and tells how it ended.
        let script = r#""$@"; echo "[exit $?]"; exec sleep 600"#;
        args.extend(["sh", "-c", script, "sh", "env"].map(str::to_owned));
        let (mut removed, mut set) = (Vec::new(), Vec::new());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => set.push(format!("{}={}", text(name), text(value))),
                None => removed.extend(["-u".to_owned(), text(name)]),
            }
        }
        args.extend(removed.into_iter().chain(set));
        args.push(text(command.get_program()));
        args.extend(command.get_args().map(text));
        args.extend([";", "set", "-g", "status", "off"].map(str::to_owned));
        args.extend([";", "set", "-g", "history-limit", "5000"].map(str::to_owned));
        screen.tmux(&args);
        screen
    }

    fn tmux(&self, args: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        Command::new("tmux").arg("-u").args(["-L", &self.socket]).args(args).output().unwrap()
    }

    /// Types letters.
    pub(crate) fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", "-l", "--", keys]);
    }

    /// Presses a key by its name.
    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line.
    pub(crate) fn line(&self, line: &str) {
        self.keys(line);
        self.press("Enter");
    }

    /// Types a line that is not shown, once the terminal hides it: what comes before is thrown away.
    pub(crate) fn line_hidden(&self, line: &str) {
        let out = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        let tty = String::from_utf8(out.stdout).unwrap();
        let begun = Instant::now();
        loop {
            let out = Command::new("stty").args(["-F", tty.trim(), "-a"]).output().unwrap();
            if String::from_utf8_lossy(&out.stdout).contains(" -echo ") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "it is never hidden\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(15));
        }
        self.line(line);
    }

    /// Pastes a text, as a terminal does.
    pub(crate) fn paste(&self, text: &str) {
        self.tmux(&["set-buffer", "--", text]);
        self.tmux(&["paste-buffer", "-p"]);
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Contents of the screen, without the empty end.
    pub(crate) fn shown(&self) -> String {
        let out = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    /// All that was ever printed, with broken lines joined.
    pub(crate) fn all(&self) -> String {
        let out = self.tmux(&["capture-pane", "-p", "-J", "-S", "-"]);
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    /// Tells whether the cursor can be seen.
    pub(crate) fn shows_cursor(&self) -> bool {
        let out = self.tmux(&["display-message", "-p", "#{cursor_flag}"]);
        out.stdout.starts_with(b"1")
    }

    /// Waits until the screen is as wanted; returns it.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if is_so(&shown) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}\n{shown}");
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Waits until a text stands on the screen; returns the screen.
    pub(crate) fn sees(&self, text: &str) -> String {
        self.until(text, |shown| shown.contains(text))
    }

    /// Waits until the process ended; returns its exit code.
    pub(crate) fn exit_code(&self) -> i32 {
        let shown = self.sees("[exit ");
        let (_, code) = shown.rsplit_once("[exit ").unwrap();
        code.split_once(']').unwrap().0.parse().unwrap()
    }

    /// Kills the process: no chance to finish anything.
    pub(crate) fn kill(&self) {
        let out = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = String::from_utf8(out.stdout).unwrap();
        let killed = Command::new("pkill").args(["-9", "-P", shell.trim()]).status().unwrap();
        assert!(killed.success());
        self.sees("[exit 137]");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn text(text: &std::ffi::OsStr) -> String {
    text.to_str().unwrap().to_owned()
}

/// Replaces the times of day, so that screens can be compared.
pub(crate) fn timeless(shown: &str) -> String {
    let mut out = String::new();
    let mut rest = shown;
    while let Some(at) = rest.find('[') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let is_time =
            from.as_bytes().get(3) == Some(&b':') && from.as_bytes().get(6) == Some(&b']');
        if is_time {
            out.push_str("[TIME]");
        } else {
            out.push('[');
        }
        rest = from.get(if is_time { 7 } else { 1 }..).unwrap_or_default();
    }
    out + rest
}
