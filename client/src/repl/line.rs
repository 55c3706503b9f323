//! The line being typed: keys in, text out. No terminal, no clock.

use std::collections::VecDeque;

use chatcore::wire::limits::MAX_TEXT;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use rustyline::line_buffer::{ChangeListener, DeleteListener, Direction, LineBuffer};
use rustyline::{At, Movement, Word};

/// Lines kept to be called back.
pub(super) const MAX_TYPED: usize = 1_000;
/// Steps that can be taken back.
const MAX_UNDO: usize = 200;

/// Request of a key to the program around the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing but to show the line as it is now.
    Nothing,
    /// The line is done; it is empty now.
    Submit(String),
    /// Enter, and letters had found no place: what would go is not what was typed.
    Refuse(TooLong),
    /// The word before the cursor is to be completed.
    Complete,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D on an empty line.
    Leave,
    /// Ctrl-L.
    Redraw,
    /// Ctrl-Z.
    Suspend,
}

/// A search in what was typed before.
#[derive(Debug)]
struct Search {
    /// The text that is looked for.
    term: String,
    /// Place in what was typed, from the newest; `None`: nothing found.
    found: Option<usize>,
    /// The line before the search.
    before: (String, usize),
}

/// The line and what was typed before it.
pub(super) struct Line {
    buffer: LineBuffer,
    /// Something that was typed since it is full is not in it.
    is_cut: bool,
    undo: Vec<(String, usize)>,
    killed: Killed,
    /// Oldest first.
    typed: VecDeque<String>,
    /// Place in `typed` from the newest, and the line that was left for it.
    recalled: Option<(usize, String)>,
    search: Option<Search>,
}

/// Text that was cut last.
#[derive(Debug, Default)]
struct Killed(String);

impl DeleteListener for Killed {
    fn delete(&mut self, _at: usize, text: &str, _direction: Direction) {
        text.clone_into(&mut self.0);
    }
}

impl ChangeListener for Killed {
    fn insert_char(&mut self, _at: usize, _c: char) {}
    fn insert_str(&mut self, _at: usize, _text: &str) {}
    fn replace(&mut self, _at: usize, _old: &str, _new: &str) {}
}

/// More was pasted or typed than a text can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Changes that are not to be pasted again.
struct Uncut;

impl DeleteListener for Uncut {
    fn delete(&mut self, _at: usize, _text: &str, _direction: Direction) {}
}

impl ChangeListener for Uncut {
    fn insert_char(&mut self, _at: usize, _c: char) {}
    fn insert_str(&mut self, _at: usize, _text: &str) {}
    fn replace(&mut self, _at: usize, _old: &str, _new: &str) {}
}

impl Line {
    pub(super) fn new(typed: impl IntoIterator<Item = String>) -> Self {
        Self {
            buffer: LineBuffer::with_capacity(MAX_TEXT),
            is_cut: false,
            undo: Vec::new(),
            killed: Killed::default(),
            typed: typed.into_iter().collect(),
            recalled: None,
            search: None,
        }
    }

    pub(super) fn text(&self) -> &str {
        self.buffer.as_str()
    }

    /// Returns the place of the cursor in bytes.
    pub(super) fn cursor(&self) -> usize {
        self.buffer.pos()
    }

    /// Returns what is looked for, while something is.
    pub(super) fn search(&self) -> Option<(&str, IsFound)> {
        let search = self.search.as_ref()?;
        let found = if search.found.is_some() { IsFound::Yes } else { IsFound::No };
        Some((&search.term, found))
    }

    /// Replaces a part of the line, as a completion does, and puts the cursor behind it.
    pub(super) fn complete(&mut self, from: usize, text: &str) {
        self.remember();
        let cursor = self.cursor();
        if self.text().is_char_boundary(from) && from <= cursor {
            self.buffer.replace(from..cursor, text, &mut Uncut);
            self.buffer.set_pos(from + text.len());
        }
    }

    /// Takes pasted text in, with its line breaks and without what a terminal would obey.
    ///
    /// # Errors
    /// [`TooLong`]: it does not fit, and the line is as before. A part of it would be something else.
    pub(super) fn paste(&mut self, text: &str) -> Result<(), TooLong> {
        self.accept_found();
        self.remember();
        let text = crate::output::render::text(&text.replace("\r\n", "\n").replace('\r', "\n"));
        if text.len() > MAX_TEXT.saturating_sub(self.buffer.len()) {
            return Err(TooLong);
        }
        // It says no to what does not fit, and this does.
        let _fits = self.buffer.yank(&text, 1, &mut Uncut);
        Ok(())
    }

    /// Throws the line away.
    pub(super) fn clear(&mut self) {
        self.remember();
        self.is_cut = false;
        self.set(String::new(), 0);
        self.recalled = None;
        self.search = None;
    }

    /// Sets what is typed; the cursor stands at its end.
    pub(super) fn put(&mut self, text: String) {
        self.remember();
        let end = text.len();
        self.set(text, end);
    }

    /// Remembers a line to be called back; returns whether it is another than the last.
    pub(super) fn add_typed(&mut self, text: &str) -> bool {
        if text.trim().is_empty() || self.typed.back().is_some_and(|last| last == text) {
            return false;
        }
        self.typed.push_back(text.to_owned());
        if self.typed.len() > MAX_TYPED {
            self.typed.pop_front();
        }
        true
    }

    fn set(&mut self, text: String, cursor: usize) {
        let text = if text.len() > MAX_TEXT { String::new() } else { text };
        self.buffer.update(&text, cursor.min(text.len()), &mut Uncut);
    }

    fn remember(&mut self) {
        let now = (self.text().to_owned(), self.cursor());
        if self.undo.last().is_none_or(|last| last.0 != now.0) {
            self.undo.push(now);
            if self.undo.len() > MAX_UNDO {
                self.undo.remove(0);
            }
        }
    }

    /// Takes a key in.
    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if self.search.is_some()
            && let Some(asked) = self.search_key(key)
        {
            return asked;
        }
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Enter if alt => self.insert('\n'),
            KeyCode::Enter => return self.submit(),
            KeyCode::Tab => return Asked::Complete,
            KeyCode::Char(c) if ctrl => return self.control(c),
            KeyCode::Char(c) if alt => self.meta(c),
            KeyCode::Char(c) => self.insert(c),
            KeyCode::Backspace if ctrl || alt => self.cut(|buffer, killed| {
                buffer.delete_prev_word(Word::Emacs, 1, killed);
            }),
            KeyCode::Backspace => self.change(|buffer| {
                buffer.backspace(1, &mut Uncut);
            }),
            KeyCode::Delete => self.change(|buffer| {
                buffer.delete(1, &mut Uncut);
            }),
            KeyCode::Left if ctrl || alt => {
                self.buffer.move_to_prev_word(Word::Emacs, 1);
            }
            KeyCode::Right if ctrl || alt => {
                self.buffer.move_to_next_word(At::AfterEnd, Word::Emacs, 1);
            }
            KeyCode::Left => {
                self.buffer.move_backward(1);
            }
            KeyCode::Right => {
                self.buffer.move_forward(1);
            }
            KeyCode::Home => {
                self.buffer.move_home();
            }
            KeyCode::End => {
                self.buffer.move_end();
            }
            KeyCode::Up => self.recall(Older::Yes),
            KeyCode::Down => self.recall(Older::No),
            _ => {}
        }
        Asked::Nothing
    }

    fn control(&mut self, c: char) -> Asked {
        match c.to_ascii_lowercase() {
            'a' => {
                self.buffer.move_home();
            }
            'e' => {
                self.buffer.move_end();
            }
            'b' => {
                self.buffer.move_backward(1);
            }
            'f' => {
                self.buffer.move_forward(1);
            }
            'h' => self.change(|buffer| {
                buffer.backspace(1, &mut Uncut);
            }),
            'd' if self.buffer.is_empty() => return Asked::Leave,
            'd' => self.change(|buffer| {
                buffer.delete(1, &mut Uncut);
            }),
            'j' | 'm' => return self.submit(),
            'i' => return Asked::Complete,
            'k' => self.cut(|buffer, killed| {
                buffer.kill_line(killed);
            }),
            'u' => self.cut(|buffer, killed| {
                buffer.discard_line(killed);
            }),
            'w' => self.cut(|buffer, killed| {
                buffer.delete_prev_word(Word::Big, 1, killed);
            }),
            'y' => {
                let text = self.killed.0.clone();
                self.change(|buffer| {
                    let _fits = buffer.yank(&text, 1, &mut Uncut);
                });
            }
            't' => self.change(|buffer| {
                buffer.transpose_chars(&mut Uncut);
            }),
            '_' | '/' | '7' => {
                if let Some((text, cursor)) = self.undo.pop() {
                    self.set(text, cursor);
                }
            }
            'p' => self.recall(Older::Yes),
            'n' => self.recall(Older::No),
            'r' => {
                let before = (self.text().to_owned(), self.cursor());
                self.search = Some(Search { term: String::new(), found: None, before });
            }
            'c' => return Asked::Interrupt,
            'l' => return Asked::Redraw,
            'z' => return Asked::Suspend,
            _ => {}
        }
        Asked::Nothing
    }

    fn meta(&mut self, c: char) {
        match c {
            'b' => {
                self.buffer.move_to_prev_word(Word::Emacs, 1);
            }
            'f' => {
                self.buffer.move_to_next_word(At::AfterEnd, Word::Emacs, 1);
            }
            'd' => self.cut(|buffer, killed| {
                buffer.kill(&Movement::ForwardWord(1, At::AfterEnd, Word::Emacs), killed);
            }),
            '\r' | '\n' => self.insert('\n'),
            _ => {}
        }
    }

    fn insert(&mut self, c: char) {
        // A word can be taken back at a time, not a letter.
        if c.is_whitespace() || self.undo.is_empty() {
            self.remember();
        }
        self.recalled = None;
        self.is_cut |= self.buffer.insert(c, 1, &mut Uncut).is_none();
    }

    fn change(&mut self, change: impl FnOnce(&mut LineBuffer)) {
        self.remember();
        // Whoever changes it has seen it.
        (self.recalled, self.is_cut) = (None, false);
        change(&mut self.buffer);
    }

    fn cut(&mut self, cut: impl FnOnce(&mut LineBuffer, &mut Killed)) {
        self.remember();
        (self.recalled, self.is_cut) = (None, false);
        cut(&mut self.buffer, &mut self.killed);
    }

    fn submit(&mut self) -> Asked {
        if self.is_cut {
            return Asked::Refuse(TooLong);
        }
        let text = self.text().to_owned();
        self.set(String::new(), 0);
        self.undo.clear();
        (self.recalled, self.search) = (None, None);
        Asked::Submit(text)
    }

    fn newest_but(&self, place: usize) -> Option<&String> {
        self.typed.iter().rev().nth(place)
    }

    fn recall(&mut self, older: Older) {
        let place = self.recalled.as_ref().map(|(place, _)| *place);
        let next = match (older, place) {
            (Older::Yes, None) => Some(0),
            (Older::Yes, Some(place)) => Some(place + 1),
            (Older::No, None) => return,
            (Older::No, Some(place)) => place.checked_sub(1),
        };
        let Some(place) = next else {
            if let Some((_, left)) = self.recalled.take() {
                self.put(left);
            }
            return;
        };
        let Some(text) = self.newest_but(place).cloned() else { return };
        let left = match self.recalled.take() {
            Some((_, left)) => left,
            None => self.text().to_owned(),
        };
        self.put(text);
        self.recalled = Some((place, left));
    }

    /// A key while something is looked for; `None`: the search is over and the key counts.
    fn search_key(&mut self, key: KeyEvent) -> Option<Asked> {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let search = self.search.as_mut()?;
        match key.code {
            KeyCode::Char('r' | 'p') if ctrl => {
                let from = search.found.map_or(0, |place| place + 1);
                self.look(from);
            }
            KeyCode::Char('c' | 'g') if ctrl => self.give_search_up(),
            KeyCode::Esc => self.give_search_up(),
            KeyCode::Char(c) if !ctrl => {
                search.term.push(c);
                let from = search.found.unwrap_or(0);
                self.look(from);
            }
            KeyCode::Backspace => {
                search.term.pop();
                self.look(0);
            }
            _ => {
                self.accept_found();
                return None;
            }
        }
        Some(Asked::Nothing)
    }

    fn look(&mut self, from: usize) {
        let Some(search) = &mut self.search else { return };
        if search.term.is_empty() {
            return;
        }
        let mut lines = self.typed.iter().rev().enumerate().skip(from);
        let found = lines.find(|(_, line)| line.contains(&search.term));
        search.found = found.map(|(place, _)| place);
        if let Some((_, text)) = found {
            let (text, cursor) = (text.clone(), text.find(&search.term).unwrap_or(0));
            self.set(text, cursor);
        }
    }

    fn give_search_up(&mut self) {
        if let Some(search) = self.search.take() {
            self.set(search.before.0, search.before.1);
        }
    }

    fn accept_found(&mut self) {
        self.search = None;
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is typed is the person's.
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

/// Whether what is looked for was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsFound {
    Yes,
    No,
}

/// Which way to go through what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Older {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(typed: &[&str]) -> Line {
        Line::new(typed.iter().map(|text| (*text).to_owned()))
    }

    fn keys(line: &mut Line, text: &str) {
        for c in text.chars() {
            line.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        }
    }

    fn ctrl(line: &mut Line, c: char) -> Asked {
        line.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    fn press(line: &mut Line, code: KeyCode) -> Asked {
        line.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn enter_hands_the_line_over_and_empties_it() {
        let mut line = line(&[]);
        keys(&mut line, "hello");
        assert_eq!(press(&mut line, KeyCode::Enter), Asked::Submit("hello".to_owned()));
        assert_eq!((line.text(), line.cursor()), ("", 0));
    }

    #[test]
    fn a_combined_character_is_one() {
        let mut line = line(&[]);
        line.paste("ae\u{301}👩\u{200d}👩\u{200d}👧").unwrap();
        press(&mut line, KeyCode::Backspace);
        assert_eq!(line.text(), "ae\u{301}");
        press(&mut line, KeyCode::Left);
        assert_eq!(line.cursor(), 1);
        press(&mut line, KeyCode::Delete);
        assert_eq!(line.text(), "a");
    }

    #[test]
    fn what_is_pasted_keeps_its_lines_and_loses_what_a_terminal_obeys() {
        let mut line = line(&[]);
        line.paste("one\r\ntwo\rthree\x1b[2J\u{202e}").unwrap();
        assert_eq!(line.text(), "one\ntwo\nthree[2J");
        assert_eq!(
            press(&mut line, KeyCode::Enter),
            Asked::Submit("one\ntwo\nthree[2J".to_owned())
        );
        keys(&mut line, "x");
        assert_eq!(line.paste(&"é".repeat(MAX_TEXT / 2)), Err(TooLong));
        assert_eq!(line.text(), "x", "not a part of it");
        press(&mut line, KeyCode::Backspace);
        line.paste(&"é".repeat(MAX_TEXT / 2)).unwrap();
        assert_eq!(line.text().len(), MAX_TEXT);
        keys(&mut line, "more");
        assert_eq!(press(&mut line, KeyCode::Enter), Asked::Refuse(TooLong), "without its end");
        assert_eq!(press(&mut line, KeyCode::Enter), Asked::Refuse(TooLong), "nor the second time");
        assert_eq!(line.text().len(), MAX_TEXT);
        ctrl(&mut line, 'u');
        keys(&mut line, "short");
        assert_eq!(press(&mut line, KeyCode::Enter), Asked::Submit("short".to_owned()));
    }

    #[test]
    fn words_are_cut_and_put_back() {
        let mut line = line(&[]);
        keys(&mut line, "send bob ./my file");
        ctrl(&mut line, 'w');
        assert_eq!(line.text(), "send bob ./my ");
        ctrl(&mut line, 'a');
        ctrl(&mut line, 'y');
        assert_eq!(line.text(), "filesend bob ./my ");
        ctrl(&mut line, 'k');
        assert_eq!(line.text(), "file");
        ctrl(&mut line, 'u');
        assert_eq!(line.text(), "");
        ctrl(&mut line, '_');
        assert_eq!(line.text(), "file");
    }

    #[test]
    fn what_was_typed_comes_back_and_the_line_left_for_it_too() {
        let mut line = line(&["first", "second"]);
        keys(&mut line, "draft");
        press(&mut line, KeyCode::Up);
        assert_eq!(line.text(), "second");
        press(&mut line, KeyCode::Up);
        press(&mut line, KeyCode::Up);
        assert_eq!(line.text(), "first");
        press(&mut line, KeyCode::Down);
        press(&mut line, KeyCode::Down);
        assert_eq!(line.text(), "draft");
        assert!(line.add_typed("third"));
        assert!(!line.add_typed("third") && !line.add_typed("  "));
        press(&mut line, KeyCode::Up);
        assert_eq!(line.text(), "third");
    }

    #[test]
    fn a_search_finds_older_and_older_and_can_be_given_up() {
        let mut line = line(&["tea at four", "coffee", "more tea"]);
        keys(&mut line, "draft");
        ctrl(&mut line, 'r');
        keys(&mut line, "tea");
        assert_eq!(line.text(), "more tea");
        ctrl(&mut line, 'r');
        assert_eq!(line.text(), "tea at four");
        assert_eq!(line.search(), Some(("tea", IsFound::Yes)));
        ctrl(&mut line, 'r');
        assert_eq!(line.search(), Some(("tea", IsFound::No)));
        ctrl(&mut line, 'c');
        assert_eq!((line.text(), line.search()), ("draft", None));
        ctrl(&mut line, 'r');
        keys(&mut line, "cof");
        assert_eq!(press(&mut line, KeyCode::Enter), Asked::Submit("coffee".to_owned()));
    }

    #[test]
    fn leaving_is_asked_on_an_empty_line_only() {
        let mut line = line(&[]);
        keys(&mut line, "a");
        ctrl(&mut line, 'a');
        assert_eq!(ctrl(&mut line, 'd'), Asked::Nothing);
        assert_eq!(line.text(), "");
        assert_eq!(ctrl(&mut line, 'd'), Asked::Leave);
        assert_eq!(ctrl(&mut line, 'c'), Asked::Interrupt);
    }

    #[test]
    fn a_completion_replaces_the_word_before_the_cursor() {
        let mut line = line(&[]);
        keys(&mut line, "!msg bo hello");
        for _ in 0..6 {
            press(&mut line, KeyCode::Left);
        }
        assert_eq!(press(&mut line, KeyCode::Tab), Asked::Complete);
        line.complete(5, "bob");
        assert_eq!((line.text(), line.cursor()), ("!msg bob hello", 8));
        line.complete(90, "x");
        assert_eq!(line.text(), "!msg bob hello");
    }
}
