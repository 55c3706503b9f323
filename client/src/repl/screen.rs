//! The rows at the bottom of the terminal: what is going on, and the line being typed. What arrives
//! is printed above them. Makes what is to be written; writes nothing itself.

use std::fmt::Write;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::output::render::Paint;

/// Columns that a further line of the text is moved in.
const INDENT: usize = 2;
/// Beginning of a row that goes on with a line.
const HANGING: &str = "    ";
/// The same for what the relay announces.
const FRAME: &str = "║ ";
/// Beginnings of links.
const LINKS: [&str; 3] = ["https://", "http://", "chat://"];
/// Begins a link, up to the same without an address (OSC 8).
const OPEN: &str = "\x1b]8;;";
/// Ends the address.
const END_OF: &str = "\x1b\\";
/// Columns that a tab takes in the line.
const TAB: usize = 2;

/// Rows at the bottom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bottom {
    /// A row each, cut where the terminal ends.
    pub(super) status: Vec<String>,
    /// Stands before the text.
    pub(super) prompt: String,
    /// The text being typed.
    pub(super) text: String,
    /// The cursor's place in the text, in bytes.
    pub(super) cursor: usize,
}

/// Whether rows of ours are where only the terminal reaches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MovedOut {
    Yes,
    No,
}

/// Rows as they stand on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rows {
    rows: Vec<String>,
    /// Columns of each.
    widths: Vec<usize>,
    /// Row and column.
    cursor: (usize, usize),
}

/// Contents of the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    width: usize,
    height: usize,
    paint: Paint,
    painted: Option<Rows>,
    /// Rows that were printed above; at most as many as the terminal has.
    above: usize,
    /// Whether some of them were moved above the first row of the terminal.
    moved_out: MovedOut,
    first_row: FirstRow,
}

/// Contents of the first row of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstRow {
    /// The bottom begins there, since everything was cleared.
    Bottom,
    Anything,
}

impl Screen {
    pub(super) fn new((width, height): (u16, u16), paint: Paint) -> Self {
        let mut screen = Self {
            width: 0,
            height: 0,
            paint,
            painted: None,
            above: 0,
            moved_out: MovedOut::No,
            first_row: FirstRow::Anything,
        };
        screen.set_size((width, height));
        screen
    }

    fn set_size(&mut self, (width, height): (u16, u16)) {
        // A terminal that does not know its size says 0.
        self.width = if width == 0 { 80 } else { usize::from(width).max(8) };
        self.height = if height == 0 { 24 } else { usize::from(height).max(2) };
    }

    /// Prints lines above, and the bottom again.
    pub(super) fn print(&mut self, lines: &[String], bottom: &Bottom) -> String {
        let mut out = String::new();
        self.begin(&mut out);
        if !lines.is_empty() {
            self.first_row = FirstRow::Anything;
        }
        for line in lines {
            for part in line.split('\n') {
                let rows = self.fold(&mut out, part);
                self.above = (self.above + rows).min(self.height);
                out.push_str("\r\n");
            }
        }
        self.show(&mut out, bottom);
        out
    }

    /// Writes a line so that no row but the first begins at the edge: what a row begins with there,
    /// nobody else has written, except a link, of which only the terminal breaks what is wider than a row: so it can be
    /// copied. Returns how many rows it takes.
    fn fold(&self, out: &mut String, line: &str) -> usize {
        // Only at the very beginning, where no text of a user stands.
        let is_framed = line.starts_with(FRAME) || line.starts_with(&self.paint.bold(FRAME));
        let hanging = if is_framed { FRAME } else { HANGING };
        let (mut rest, mut column, mut rows) = (line, 0, 1);
        let mut is_word_start = true;
        // Behind the last space: its place in what is written, and the column.
        let mut gap = None;
        while !rest.is_empty() {
            // Our own colours take no room.
            if let Some((colour, after)) =
                rest.strip_prefix("\x1b[").and_then(|colour| colour.split_once('m'))
            {
                put(out, format_args!("\x1b[{colour}m"));
                rest = after;
                continue;
            }
            if is_word_start && let Some(link) = link(rest) {
                if column > 0 && column + link.len() > self.width {
                    put(out, format_args!("\r\n{hanging}"));
                    (column, rows) = (hanging.width(), rows + 1);
                }
                match self.paint {
                    Paint::Colour => {
                        put(out, format_args!("{OPEN}{link}{END_OF}{link}{OPEN}{END_OF}"))
                    }
                    Paint::Plain => out.push_str(link),
                }
                column += link.len();
                if column > self.width {
                    rows += (column - 1) / self.width;
                    column = (column - 1) % self.width + 1;
                }
                rest = rest.strip_prefix(link).unwrap_or_default();
                (gap, is_word_start) = (None, false);
                continue;
            }
            let part = rest.graphemes(true).next().unwrap_or_default();
            is_word_start = !part.chars().any(char::is_alphanumeric);
            let columns = if part == "\t" { 8 - column % 8 } else { part.width() };
            if column + columns > self.width {
                let (place, behind) = gap.take().unwrap_or((out.len(), column));
                out.insert_str(place, &format!("\r\n{hanging}"));
                rows += 1;
                column = hanging.width() + column - behind;
            }
            out.push_str(part);
            column += columns;
            if part == " " && column > self.width / 2 {
                gap = Some((out.len(), column));
            }
            rest = rest.strip_prefix(part).unwrap_or_default();
        }
        rows
    }

    /// Returns as many lines as fit above what stands at the bottom.
    pub(super) fn page(&self) -> usize {
        self.height.saturating_sub(4).max(1)
    }

    /// Cuts a text to a row.
    pub(super) fn row_of(&self, text: &str) -> String {
        cut(text, self.width).0
    }

    /// Paints the bottom as it is now.
    pub(super) fn paint(&mut self, bottom: &Bottom) -> String {
        self.print(&[], bottom)
    }

    /// The terminal has another size now; it moved what was painted as it likes.
    pub(super) fn resize(&mut self, size: (u16, u16), bottom: &Bottom) -> String {
        let before = (self.width, self.height);
        self.set_size(size);
        if self.above > 0 && (self.width < before.0 || self.height < before.1) {
            self.moved_out = MovedOut::Yes;
        }
        // What was printed may stand in any row.
        self.above = self.above.saturating_mul(self.height);
        self.paint(bottom)
    }

    /// Begins an empty screen.
    pub(super) fn clear(&mut self, bottom: &Bottom) -> String {
        self.painted = None;
        // Row by row, as at the end.
        let mut out = "\x1b[H".to_owned();
        for _ in 0..self.height {
            out.push_str("\x1b[2K\x1b[1B");
        }
        out.push_str("\x1b[H");
        (self.above, self.first_row) = (0, FirstRow::Bottom);
        out.push_str(&self.paint(bottom));
        out
    }

    /// Takes the bottom away: the terminal is another's now.
    pub(super) fn leave(&mut self) -> String {
        let mut out = String::new();
        self.begin(&mut out);
        out.push_str(END);
        self.painted = None;
        // What others print in between moves what was shown away.
        self.above = self.above.saturating_mul(self.height);
        out
    }

    /// Takes away what was shown as well: of what the terminal keeps above its first row all, if any of it is ours.
    pub(super) fn wipe(&mut self) -> String {
        let mut out = String::new();
        self.begin(&mut out);
        // Row by row: what is cleared as a whole, some terminals keep above their first row.
        for _ in 0..self.above.min(self.height) {
            out.push_str("\x1b[1A\x1b[2K");
        }
        if self.moved_out == MovedOut::Yes {
            out.push_str("\x1b[H\x1b[3J");
        }
        out.push_str(END);
        (self.painted, self.above, self.moved_out) = (None, 0, MovedOut::No);
        out
    }

    /// Goes to the first row of what is painted and removes it.
    fn begin(&self, out: &mut String) {
        out.push_str(BEGIN);
        let Some(painted) = &self.painted else { return };
        // A terminal that became narrower has broken long rows.
        let broken = |columns: &usize| columns.saturating_sub(1) / self.width + 1;
        let (row, column) = painted.cursor;
        let above: usize = painted.widths.iter().take(row).map(broken).sum();
        let up = (above + column / self.width).min(self.height - 1);
        out.push('\r');
        if up > 0 {
            put(out, format_args!("\x1b[{up}A"));
        }
        match self.first_row {
            FirstRow::Anything => out.push_str("\x1b[J"),
            // From there some terminals take it for a page that scrolls away, and keep each.
            FirstRow::Bottom => out.push_str("\x1b[2K \x1b[J\r"),
        }
    }

    fn show(&mut self, out: &mut String, bottom: &Bottom) {
        let rows = self.arrange(bottom);
        out.push_str(&rows.rows.join("\r\n"));
        let (row, column) = rows.cursor;
        let up = rows.rows.len() - 1 - row;
        out.push('\r');
        if up > 0 {
            put(out, format_args!("\x1b[{up}A"));
        }
        if column > 0 {
            put(out, format_args!("\x1b[{column}C"));
        }
        out.push_str(END);
        if self.above > 0 && self.above + rows.rows.len() > self.height {
            self.moved_out = MovedOut::Yes;
        }
        self.painted = Some(rows);
    }

    /// Breaks everything into rows that fit.
    fn arrange(&self, bottom: &Bottom) -> Rows {
        let (mut rows, mut widths) = (Vec::new(), Vec::new());
        for status in &bottom.status {
            let (status, columns) = cut(status, self.width);
            rows.push(self.paint.dim(&status));
            widths.push(columns);
        }
        let (prompt, columns) = cut(&bottom.prompt, self.width / 2);
        let mut row = self.paint.bold(&prompt);
        let mut column = columns;
        let mut cursor = None;
        for (at, part) in bottom.text.grapheme_indices(true) {
            if at >= bottom.cursor && cursor.is_none() {
                cursor = Some((rows.len(), column));
            }
            if part == "\n" || part == "\r\n" {
                rows.push(std::mem::replace(&mut row, " ".repeat(INDENT)));
                widths.push(std::mem::replace(&mut column, INDENT));
                continue;
            }
            // A file's name may hold what a terminal obeys.
            let part = if part != "\t" && part.chars().any(char::is_control) { "?" } else { part };
            let columns = if part == "\t" { TAB } else { part.width() };
            if column + columns > self.width {
                rows.push(std::mem::take(&mut row));
                widths.push(std::mem::take(&mut column));
                if cursor == Some((rows.len() - 1, self.width)) {
                    cursor = Some((rows.len(), 0));
                }
            }
            match part {
                "\t" => row.push_str(&" ".repeat(TAB)),
                part => row.push_str(part),
            }
            column += columns;
        }
        let mut cursor = cursor.unwrap_or((rows.len(), column));
        rows.push(row);
        widths.push(column);
        if cursor.1 >= self.width {
            // Behind a full row there is no column to stand in.
            cursor = (cursor.0 + 1, 0);
            if cursor.0 == rows.len() {
                rows.push(String::new());
                widths.push(0);
            }
        }
        self.window(Rows { rows, widths, cursor })
    }

    /// Keeps what the terminal has room for, with the cursor in it.
    fn window(&self, rows: Rows) -> Rows {
        let Rows { mut rows, mut widths, cursor } = rows;
        let over = rows.len().saturating_sub(self.height);
        let first = over.min(cursor.0);
        rows.drain(..first);
        widths.drain(..first);
        rows.truncate(self.height);
        widths.truncate(self.height);
        Rows { rows, widths, cursor: (cursor.0 - first, cursor.1) }
    }
}

/// Shows nothing in between, where the terminal can wait; the cursor does not jump about.
const BEGIN: &str = "\x1b[?2026h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?2026l";

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _written = out.write_fmt(what);
}

/// Returns the link that a text begins with. It has no character but those of RFC 3986, and no bracket: wherever a
/// terminal breaks it, no row looks like one of ours.
fn link(text: &str) -> Option<&str> {
    let scheme = LINKS.iter().find(|scheme| text.starts_with(**scheme))?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#@!$&'()*+,;=%".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (mut link, behind) = text.split_at_checked(end)?;
    if behind.starts_with(char::is_alphanumeric) {
        // A part of an address leads to another page.
        return None;
    }
    // What ends a sentence ends no link.
    loop {
        link = link.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'']);
        match link.strip_suffix(')') {
            Some(rest) if link.matches(')').count() > link.matches('(').count() => link = rest,
            _ => break,
        }
    }
    (link.len() > scheme.len()).then_some(link)
}

/// Cuts a text at a number of columns; returns its own.
fn cut(text: &str, most: usize) -> (String, usize) {
    let columns = text.width();
    if columns <= most {
        return (text.to_owned(), columns);
    }
    let (mut kept, mut columns) = (String::new(), 0);
    for part in text.graphemes(true) {
        if columns + part.width() > most.saturating_sub(1) {
            break;
        }
        kept.push_str(part);
        columns += part.width();
    }
    kept.push('…');
    (kept, columns + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bottom(text: &str, cursor: usize) -> Bottom {
        Bottom { status: Vec::new(), prompt: "a> ".to_owned(), text: text.to_owned(), cursor }
    }

    fn arranged(width: u16, height: u16, bottom: &Bottom) -> (Vec<String>, (usize, usize)) {
        let rows = Screen::new((width, height), Paint::Plain).arrange(bottom);
        for (row, columns) in rows.rows.iter().zip(&rows.widths) {
            assert_eq!(row.width(), *columns);
            assert!(*columns <= usize::from(width));
        }
        (rows.rows, rows.cursor)
    }

    #[test]
    fn a_long_line_is_broken_and_the_cursor_stands_where_the_text_is() {
        assert_eq!(arranged(10, 9, &bottom("hello", 5)), (vec!["a> hello".to_owned()], (0, 8)));
        let (rows, cursor) = arranged(10, 9, &bottom("hello world", 11));
        assert_eq!((rows, cursor), (vec!["a> hello w".to_owned(), "orld".to_owned()], (1, 4)));
        assert_eq!(arranged(10, 9, &bottom("hello world", 2)).1, (0, 5));
        // Exactly full: the cursor goes on below.
        let (rows, cursor) = arranged(10, 9, &bottom("1234567", 7));
        assert_eq!((rows, cursor), (vec!["a> 1234567".to_owned(), String::new()], (1, 0)));
        assert_eq!(arranged(10, 9, &bottom("12345678", 7)).1, (1, 0));
    }

    #[test]
    fn wide_and_combined_characters_take_the_columns_they_take() {
        let (rows, cursor) = arranged(10, 9, &bottom("漢字漢字", 12));
        assert_eq!((rows.len(), cursor), (2, (1, 2)));
        let (rows, cursor) = arranged(10, 9, &bottom("e\u{301}e\u{301}", 6));
        assert_eq!((rows.len(), cursor), (1, (0, 5)));
    }

    #[test]
    fn pasted_lines_are_rows_of_their_own() {
        let (rows, cursor) = arranged(20, 9, &bottom("one\n\ttwo", 3));
        assert_eq!(rows, ["a> one", "    two"]);
        assert_eq!(cursor, (0, 6));
        assert_eq!(arranged(20, 9, &bottom("one\n", 4)).1, (1, 2));
    }

    #[test]
    fn status_and_prompt_are_cut_to_fit() {
        let status = vec!["a status that is much too long".to_owned()];
        let prompt = "[a room with a very long name] alice> ".to_owned();
        let (rows, _) = arranged(20, 9, &Bottom { status, prompt, text: "x".into(), cursor: 1 });
        assert_eq!(rows, ["a status that is mu…", "[a room w…x"]);
    }

    #[test]
    fn more_than_the_terminal_holds_is_shown_around_the_cursor() {
        let text = (0..20).map(|n| format!("{n}\n")).collect::<String>();
        let (rows, cursor) = arranged(20, 5, &bottom(&text, text.len()));
        assert_eq!((rows.len(), cursor), (5, (4, 2)));
        let (rows, cursor) = arranged(20, 5, &bottom(&text, 0));
        assert_eq!((rows.first().map(String::as_str), cursor), (Some("a> 0"), (0, 3)));
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_painted() {
        assert_eq!(arranged(20, 9, &bottom("a\x1b[2Jb\x07", 1)).0, ["a> a?[2Jb?"]);
    }

    #[test]
    fn a_long_line_goes_on_within_its_margin() {
        let mut screen = Screen::new((20, 9), Paint::Plain);
        let printed =
            screen.print(&["[12:00] bob: 1234567890 ═══ 漢字".to_owned()], &bottom("", 0));
        assert!(
            printed.contains("[12:00] bob: \r\n    1234567890 ═══ \r\n    漢字\r\n"),
            "{printed:?}"
        );
        let printed = screen.print(&["║ 123456789012345678901234".to_owned()], &bottom("", 0));
        assert!(printed.contains("║ 123456789012345678\r\n║ 901234\r\n"), "{printed:?}");
        // A text of a user's that holds one makes no row that begins so.
        let faked = format!("[12:00] bob: x ║ {}", "y".repeat(40));
        let printed = screen.print(&[faked], &bottom("", 0));
        assert!(!printed.contains("\r\n║"), "{printed:?}");
        let link = format!("chat://{}", "x".repeat(40));
        assert!(screen.print(std::slice::from_ref(&link), &bottom("", 0)).contains(&link));
        let said = format!("[12:00] bob: see {link}, there");
        let printed = screen.print(&[said], &bottom("", 0));
        assert!(printed.contains(&format!("bob: see \r\n    {link}, there\r\n")), "{printed:?}");
        let coloured = "\x1b[1;32m12345678901234567890\x1b[0m".to_owned();
        assert!(screen.print(std::slice::from_ref(&coloured), &bottom("", 0)).contains(&coloured));
    }

    #[test]
    fn links_are_whole_and_lead_where_they_say() {
        for (text, expected) in [
            ("https://example.org/a?b=(c)&d#e, and", Some("https://example.org/a?b=(c)&d#e")),
            ("http://example.org.", Some("http://example.org")),
            ("https://", None),
            ("ftp://example.org", None),
            ("https://a.b/[12:00]bob:x", Some("https://a.b/")),
            ("https://a.b/\u{202e}x", Some("https://a.b/")),
            ("https://a.b/Rust_(fungus)", Some("https://a.b/Rust_(fungus)")),
            ("https://a.b/x)", Some("https://a.b/x")),
            ("https://a.b/x).", Some("https://a.b/x")),
            ("https://a.b/(y)!)", Some("https://a.b/(y)")),
            // A part of it would lead to another page.
            ("https://a.b/wiki/\u{427}\u{435}", None),
            ("https://b\u{fc}cher.example/a", None),
        ] {
            assert_eq!(link(text), expected, "{text}");
        }
        let mut screen = Screen::new((30, 9), Paint::Colour);
        let printed = screen.print(&["see https://a.b/c xhttps://d".to_owned()], &bottom("", 0));
        let shown = "see \x1b]8;;https://a.b/c\x1b\\https://a.b/c\x1b]8;;\x1b\\ xhttps://d";
        assert!(printed.contains(shown), "{printed:?}");
    }

    #[test]
    fn what_was_shown_is_wiped_and_what_stood_before_stays_if_it_can() {
        let mut screen = Screen::new((20, 5), Paint::Plain);
        screen.paint(&bottom("", 0));
        assert!(!screen.wipe().contains("[3J"), "nothing was printed");
        screen.print(&["one".to_owned(), "1234567890123456789012345".to_owned()], &bottom("", 0));
        let wiped = screen.wipe();
        assert_eq!(wiped.matches("\x1b[1A\x1b[2K").count(), 3, "{wiped:?}");
        assert!(!wiped.contains("\x1b[H"), "{wiped:?}");
        screen.print(&["one\ntwo\nthree\nfour\nfive\nsix".to_owned()], &bottom("", 0));
        let wiped = screen.wipe();
        assert_eq!(wiped.matches("\x1b[1A\x1b[2K").count(), 5, "it fills the window: {wiped:?}");
        assert!(wiped.contains("\x1b[H\x1b[3J"), "{wiped:?}");
        screen.print(&["one".to_owned()], &bottom("", 0));
        screen.clear(&bottom("", 0));
        assert!(screen.paint(&bottom("h", 1)).contains("\x1b[2K \x1b[J\r"), "not at the edge");
        assert!(!screen.wipe().contains("[3J"), "it is gone already");
    }

    #[test]
    fn what_was_painted_is_taken_away_before_anything_is_printed() {
        let mut screen = Screen::new((10, 9), Paint::Plain);
        let first = screen.paint(&bottom("hello world", 11));
        assert!(first.contains("a> hello w\r\norld") && !first.contains("\x1b[J"));
        let printed = screen.print(&["news\nmore".to_owned()], &bottom("hello world", 11));
        let expected = "\r\x1b[1A\x1b[Jnews\r\nmore\r\na> hello w\r\norld";
        assert!(printed.contains(expected), "{printed:?}");
        // Half as wide: the terminal has broken the full row into two.
        let narrow = screen.resize((8, 9), &bottom("", 0));
        assert!(narrow.contains("\r\x1b[2A\x1b[J"), "{narrow:?}");
    }
}
