//! How far a file is: a bar on a terminal, a few plain lines elsewhere, always on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;
use crate::output::render;

/// One file on its way.
pub struct Progress {
    label: String,
    total: u64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines {
        out: Box<dyn Write + Send>,
        /// Tenths said so far.
        tenths: u64,
    },
}

impl Progress {
    /// Starts at 0 of `total` bytes.
    #[must_use]
    pub fn new(output: &Output, label: &str, total: u64) -> Self {
        if let Some(out) = output.elsewhere() {
            return Self::lines(label, total, out);
        }
        let stderr = io::stderr();
        if !stderr.is_terminal() || render::is_dumb() {
            return Self::lines(label, total, Box::new(stderr));
        }
        let label = render::line(label);
        let bar =
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(label.clone());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { label, total, shown: Shown::Bar(bar) }
    }

    /// Writes plain lines to `out`.
    fn lines(label: &str, total: u64, out: Box<dyn Write + Send>) -> Self {
        Self { label: render::line(label), total, shown: Shown::Lines { out, tenths: 0 } }
    }

    /// Says that `to` bytes are done; a resumed file starts above 0.
    pub fn advance(&mut self, to: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(to),
            Shown::Lines { out, tenths } => {
                let now = u128::from(to) * 10 / u128::from(self.total.max(1));
                let now = u64::try_from(now.min(9)).unwrap_or(9);
                // A small one is there at once.
                if now > *tenths && self.total >= SMALL {
                    *tenths = now;
                    // Nobody may be reading, and the file matters more.
                    let _ =
                        writeln!(out, "{}: {now}0% of {}", self.label, render::size(self.total));
                }
            }
        }
    }

    /// Says that everything is done.
    pub fn finish(mut self) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.finish(),
            Shown::Lines { out, .. } => {
                let _ = writeln!(out, "{}: {}, done", self.label, render::size(self.total));
            }
        }
    }
}

impl Drop for Progress {
    /// Leaves the bar where it stopped, so that an error starts on a line of its own.
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown
            && !bar.is_finished()
        {
            bar.abandon();
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("total", &self.total).finish_non_exhaustive()
    }
}

/// Bytes of a file from which on it is said how far it is.
const SMALL: u64 = 256 << 10;

const TEMPLATE: &str =
    "{msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(label: &str, total: u64, steps: &[u64]) -> String {
        let out = Shared::default();
        let mut progress = Progress::lines(label, total, Box::new(out.clone()));
        for step in steps {
            progress.advance(*step);
        }
        progress.finish();
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_tenth_is_said_once() {
        let steps = [0, 99, 100, 199, 512, 513, 1000, 1000].map(|step| step << 10);
        assert_eq!(
            lines("photo.png", 1000 << 10, &steps),
            "photo.png: 10% of 1000.0 KiB\nphoto.png: 50% of 1000.0 KiB\n\
             photo.png: 90% of 1000.0 KiB\nphoto.png: 1000.0 KiB, done\n"
        );
        assert_eq!(lines("note.txt", 1_229, &[700, 1_229]), "note.txt: 1.2 KiB, done\n");
    }

    #[test]
    fn odd_totals_and_labels_do_no_harm() {
        assert_eq!(lines("a\n\x1b[2J", 0, &[0, 5]), "a[2J: 0 B, done\n");
        assert!(lines("x", u64::MAX, &[u64::MAX]).contains("90%"));
    }

    #[test]
    fn every_field_of_the_bar_is_known() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
