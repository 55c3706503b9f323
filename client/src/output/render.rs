//! How things look to a person: names, texts, times and sizes.
//!
//! Whatever came from others passes through [`name()`], [`text()`] or [`line()`] before it is shown.
//! JSON output does not use this module: programs get what was sent.

use chatcore::ids::Timestamp;
use chatcore::keys::is_printable;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

/// Returns a name of another's choosing, on one line, never empty.
#[must_use]
pub fn name(name: &str) -> String {
    let mut shown = line(name);
    shown.retain(|c| !is_frame(c));
    if shown.trim().is_empty() { "?".to_owned() } else { shown }
}

/// Tells whether a character is one with which this program marks and frames: no name has any.
const fn is_frame(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{259f}' | '\u{2705}' | '\u{2713}' | '\u{2714}')
}

/// Returns one line without what could move the cursor, hide or reorder anything.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some(' '),
            c if is_printable(c) => Some(c),
            // An unusual space is a space; a line break or tab would leave the line.
            c if c.is_whitespace() && !c.is_control() && !is_line_break(c) => Some(' '),
            _ => None,
        })
        .collect()
}

/// Returns a text of another's writing: as [`line()`], but with its line breaks and tabs, and with
/// the joiners that emoji and some scripts need.
#[must_use]
pub fn text(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' | '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' => Some(c),
            '\u{2028}' | '\u{2029}' => Some('\n'),
            c if c == ' ' || is_printable(c) => Some(c),
            c if c.is_whitespace() && !c.is_control() => Some(' '),
            _ => None,
        })
        .collect()
}

const fn is_line_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// A message as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Spoken<'a> {
    /// When, as [`time()`] gave it.
    pub time: &'a str,
    /// Who, as [`name()`] gave it, with what belongs to the name.
    pub who: &'a str,
    /// How the name is painted.
    pub tone: Tone,
    /// What; not cleaned.
    pub text: &'a str,
    /// Nickname of who reads: where it is mentioned stands out. Empty: nowhere.
    pub reader: &'a str,
}

/// Beginning of a text that says what its author does.
const ME: &str = "/me ";

/// Returns `[14:03] bob: text`, or `[14:03] * bob waves` for `/me waves`; further lines are indented, so that none looks
/// like a message of its own.
#[must_use]
pub fn message(paint: Paint, spoken: &Spoken<'_>) -> String {
    let who = paint.tone(&line(spoken.who), spoken.tone);
    let body = text(spoken.text);
    let (mark, colon, body) = match body.strip_prefix(ME) {
        Some(does) => ("* ", "", does),
        None => ("", ":", body.as_str()),
    };
    let mut out = format!("{} {mark}{who}{colon} ", paint.dim(&format!("[{}]", spoken.time)));
    for (n, part) in body.trim_end().split('\n').enumerate() {
        if n > 0 {
            out.push_str("\n    ");
        }
        let mut rest = part;
        for at in mentions(part, spoken.reader) {
            let (before, named) = rest.split_at(at.start - (part.len() - rest.len()));
            let (named, after) = named.split_at(at.len());
            out.push_str(before);
            out.push_str(&paint.mention(named));
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

/// Returns where `@nickname` stands in a text, in bytes: in any case, and no part of a longer word.
#[must_use]
pub fn mentions(text: &str, nickname: &str) -> Vec<std::ops::Range<usize>> {
    let nickname: String = nickname.chars().flat_map(char::to_lowercase).collect();
    let mut all = Vec::new();
    if nickname.is_empty() {
        return all;
    }
    for (at, _) in text.match_indices('@') {
        let behind = text.get(at + 1..).unwrap_or_default();
        let end = end_of(&nickname, behind);
        let Some(end) = end else { continue };
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = behind.get(end..).and_then(|after| after.chars().next());
        if !is_word(before) && !is_word(after) {
            all.push(at..at + 1 + end);
        }
    }
    all
}

/// Returns where a name in lower case ends that a text begins with, in any case. It looks no further than they agree.
fn end_of(name: &str, text: &str) -> Option<usize> {
    let mut rest = name;
    for (at, c) in text.char_indices() {
        if rest.is_empty() {
            return Some(at);
        }
        for lower in c.to_lowercase() {
            rest = rest.strip_prefix(lower)?;
        }
    }
    rest.is_empty().then_some(text.len())
}

/// Returns what the relay says, framed by bars: no text of a user begins a line with one, because its
/// lines are indented and its first one follows a time and a name.
#[must_use]
pub fn announcement(paint: Paint, time: &str, scope: &str, body: &str) -> String {
    let mut out = paint.bold(&format!("═══ the relay announces{scope} ({time}) ═══"));
    for part in text(body).trim_end().split('\n') {
        out.push('\n');
        out.push_str(&paint.bold("║ "));
        out.push_str(part);
    }
    out
}

/// Returns the local time of day, with the date unless it is today's.
#[must_use]
pub fn time(at: Timestamp, now: Timestamp) -> String {
    time_in(at, now, TimeZone::system())
}

fn time_in(at: Timestamp, now: Timestamp, zone: TimeZone) -> String {
    let (at, now) = (instant(at), instant(now));
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let pattern = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(pattern).to_string()
}

/// Returns the local date, in words.
#[must_use]
pub fn date(at: Timestamp) -> String {
    instant(at).to_zoned(TimeZone::system()).strftime("%A, %-d %B %Y").to_string()
}

/// Returns a time in UTC to the millisecond, as RFC 3339 writes it.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    format!("{:.3}", instant(at))
}

/// Times come from others: one beyond the calendar is shown as its end.
fn instant(at: Timestamp) -> jiff::Timestamp {
    i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

/// Returns a size in the largest unit that keeps it above 1.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // Rounded up into the next unit rather than to "1024.0".
        if tenths < 10 * 1024 - 1 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Tells whether the terminal obeys nothing but letters and line breaks.
#[must_use]
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// The terminal shows colours.
    Colour,
    /// A file, a pipe, or a person who wants none.
    Plain,
}

impl Paint {
    /// Colours what goes to a terminal unless `NO_COLOR` is set (no-color.org).
    #[must_use]
    pub fn new(stream: &impl std::io::IsTerminal) -> Self {
        let unwanted =
            std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb();
        if stream.is_terminal() && !unwanted { Self::Colour } else { Self::Plain }
    }

    /// Paints a person's name.
    #[must_use]
    pub fn tone(self, name: &str, tone: Tone) -> String {
        match tone {
            Tone::Own => self.bold(name),
            Tone::Of(colour) => {
                let colour = SENDERS.get(colour).unwrap_or(&"36");
                self.with(&format!("1;{colour}"), name)
            }
        }
    }

    /// Paints the name of who reads, where somebody mentions it.
    #[must_use]
    pub fn mention(self, name: &str) -> String {
        self.with("1;7", name)
    }

    /// Paints what matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Paints what matters more.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Paints what went wrong; no name has this colour.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// How a name is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// The person's own, in no colour of another.
    Own,
    /// The colour of another person, by its number.
    Of(usize),
}

/// Readable on dark and light grounds; red is for warnings.
pub(crate) const SENDERS: [&str; 10] =
    ["32", "33", "34", "35", "36", "92", "94", "95", "38;5;172", "38;5;37"];

/// Fills a text with spaces, up to as many columns of a terminal: some characters take two.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// Quotes a name for a line that a person copies into a shell: whatever it holds, it is one word.
pub(crate) fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(who: &str, text: &str) -> String {
        message(Paint::Plain, &Spoken { time: "14:03", who, tone: Tone::Own, text, reader: "" })
    }

    #[test]
    fn names_keep_to_their_line() {
        assert_eq!(name("bob"), "bob");
        assert_eq!(name("bob\nalice: hi\t\u{2028}x"), "bobalice: hix");
        assert_eq!(name("\x1b]0;title\x07bob\u{202e}"), "]0;titlebob");
        assert_eq!(name("a\u{a0}b"), "a b");
        assert_eq!(name("\u{200b}"), "?");
        assert_eq!(name(""), "?");
    }

    #[test]
    fn a_quoted_name_is_one_word_of_a_shell() {
        assert_eq!(quoted("tea time"), "'tea time'");
        assert_eq!(quoted("x'; rm -rf ~; '"), r"'x'\''; rm -rf ~; '\'''");
    }

    #[test]
    fn texts_keep_breaks_tabs_and_emoji_but_no_control() {
        assert_eq!(text("one\n\ttwo"), "one\n\ttwo");
        assert_eq!(text("👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}"), "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}");
        assert_eq!(text("a\r\x08\x1b[31mred\u{9b}0m\u{7f}"), "a[31mred0m");
        assert_eq!(text("\u{202e}\u{2066}\u{200f}x\u{e0041}"), "x");
        assert_eq!(text("a\u{2029}b\u{3000}c"), "a\nb c");
    }

    #[test]
    fn a_line_of_a_text_does_not_look_like_a_message() {
        let shown = said("bob", "hi\n[14:04] alice: yes\n");
        assert_eq!(shown, "[14:03] bob: hi\n    [14:04] alice: yes");
        assert_eq!(said("bob", "/me waves\nand goes"), "[14:03] * bob waves\n    and goes");
        assert_eq!(said("bob", "/menu"), "[14:03] bob: /menu");
    }

    #[test]
    fn no_text_of_a_user_looks_like_an_announcement() {
        let said = announcement(Paint::Plain, "14:03", "", "tea\nis ready");
        assert_eq!(said, "═══ the relay announces (14:03) ═══\n║ tea\n║ is ready");
        let copy = self::said("bob", &said);
        assert!(copy.lines().all(|line| !line.starts_with(['═', '║'])), "{copy}");
        // Nor does a name: it stands behind the time.
        let named = self::said("═══ the relay announces", "x");
        assert!(named.starts_with('['));
    }

    #[test]
    fn names_have_colours_and_ones_own_has_none() {
        let painted = |tone| Paint::Colour.tone("bob", tone);
        assert_eq!(painted(Tone::Of(0)), "\x1b[1;32mbob\x1b[0m");
        assert_ne!(painted(Tone::Of(0)), painted(Tone::Of(1)));
        assert_eq!(painted(Tone::Own), "\x1b[1mbob\x1b[0m");
        assert_eq!(Paint::Plain.tone("bob", Tone::Of(0)), "bob");
        assert!(SENDERS.iter().all(|colour| !colour.ends_with('1')));
    }

    #[test]
    fn a_mention_is_a_whole_word_in_any_case() {
        let found = |text| mentions(text, "Ann Lee").len();
        assert_eq!(found("hi @ann lee, and @ANN LEE!"), 2);
        assert_eq!(found("mail x@ann lee, @ann leesa, ann lee, @ann"), 0);
        assert_eq!(mentions("ÄÖ @İx", "i\u{307}x"), vec![5..9]);
        assert!(mentions("@ @@", "").is_empty());
        let spoken =
            Spoken { time: "14:03", who: "bob", tone: Tone::Own, text: "a\n@ann b", reader: "ann" };
        let shown = message(Paint::Colour, &spoken);
        assert!(shown.ends_with("a\n    \x1b[1;7m@ann\x1b[0m b"), "{shown:?}");
    }

    #[test]
    fn times_are_local_and_dated_unless_today() {
        let zone = || TimeZone::fixed(jiff::tz::offset(2));
        let at = Timestamp(1_790_000_000_123);
        let later = |hours: u64| Timestamp(at.0 + hours * 3_600_000);
        assert_eq!(rfc3339(at), "2026-09-21T14:13:20.123Z");
        assert_eq!(time_in(at, later(7), zone()), "16:13");
        assert_eq!(time_in(at, later(8), zone()), "2026-09-21 16:13");
    }

    #[test]
    fn a_time_beyond_the_calendar_does_not_fail() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert!(rfc3339(Timestamp(u64::MAX)).starts_with("9999-12-3"));
        assert!(!time(Timestamp(u64::MAX), Timestamp(0)).is_empty());
    }

    #[test]
    fn sizes_have_one_decimal() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (200 * 1024 * 1024, "200.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, shown) in sizes {
            assert_eq!(size(bytes), shown);
        }
    }
}
