//! Nicknames: short, printable, and safe to show.

use std::fmt;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Most characters of a nickname.
pub(super) const MAX_NICKNAME_CHARS: usize = 32;

/// Why a nickname can't be used. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NicknameError {
    /// No characters.
    #[error("a nickname needs at least one character")]
    Empty,
    /// More than 32 characters.
    #[error("a nickname has at most {MAX_NICKNAME_CHARS} characters")]
    TooLong,
    /// Begins with `#` (rooms), `!` (commands) or `@` (people), or names a room behind a space.
    #[error("a nickname can't begin with #, ! or @, nor hold a # behind a space")]
    ReservedStart,
    /// Holds a control, formatting or invisible character, or stray white space.
    #[error("a nickname can't hold control, invisible or stray white-space characters")]
    BadCharacter,
    /// Not in Unicode normal form C.
    #[error("a nickname must be in Unicode normal form C")]
    NotNormalized,
}

/// A checked nickname (PROTOCOL.md section 11).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nickname(String);

impl Nickname {
    /// Checks a nickname from the wire.
    ///
    /// # Errors
    /// [`NicknameError`] says which rule is broken.
    pub fn new(text: &str) -> Result<Self, NicknameError> {
        check(text, MAX_NICKNAME_CHARS)?;
        if !is_nfc(text) {
            return Err(NicknameError::NotNormalized);
        }
        // Where a person is named in a line, a room may follow: `@bob #tea`.
        if text.starts_with('@') || text.contains(" #") {
            return Err(NicknameError::ReservedStart);
        }
        Ok(Self(text.to_owned()))
    }

    /// Checks what a person typed, after normalizing it.
    ///
    /// # Errors
    /// [`NicknameError`] says which rule is broken.
    pub fn from_input(text: &str) -> Result<Self, NicknameError> {
        Self::new(&text.trim().nfc().collect::<String>())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the form in which two nicknames are the same: NFKC, lower case.
    #[must_use]
    pub fn fold(&self) -> String {
        fold(&self.0)
    }
}

/// Checks a name of at most `max` characters that others will be shown, by nothing that differs between versions of Unicode.
pub(crate) fn check(text: &str, max: usize) -> Result<(), NicknameError> {
    if text.is_empty() {
        return Err(NicknameError::Empty);
    }
    if text.chars().nth(max).is_some() {
        return Err(NicknameError::TooLong);
    }
    if text.starts_with(['#', '!']) {
        return Err(NicknameError::ReservedStart);
    }
    let stray_space = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    if stray_space || text.chars().any(|c| c != ' ' && !is_printable(c)) {
        return Err(NicknameError::BadCharacter);
    }
    Ok(())
}

/// Returns the form in which two names are the same: NFKC, lower case.
pub(crate) fn fold(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase()
}

/// Tells whether a character shows as itself: no control, format, private-use or white-space one. The list is fixed,
/// whatever Unicode adds.
#[must_use]
pub fn is_printable(c: char) -> bool {
    !matches!(c,
        '\0'..=' ' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
        | '\u{1680}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fe00}'..='\u{fe0f}' | '\u{e000}'..='\u{f8ff}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("Nickname(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_by_display_alone() {
        let name = Nickname::new("bob").unwrap();
        assert_eq!((format!("{name}"), format!("{name:?}")), ("bob".into(), "Nickname(..)".into()));
    }

    #[test]
    fn the_rules_hold_at_the_limit_and_one_above() {
        assert!(Nickname::new(&"é".repeat(32)).is_ok());
        assert_eq!(Nickname::new(&"é".repeat(33)), Err(NicknameError::TooLong));
        assert_eq!(Nickname::new(""), Err(NicknameError::Empty));
        assert_eq!(Nickname::new("#a"), Err(NicknameError::ReservedStart));
        assert_eq!(Nickname::new("e\u{301}"), Err(NicknameError::NotNormalized));
        for bad in
            ["a\u{202e}b", "a\nb", " a", "a  b", "a\u{1b}[2J", "\u{200d}", "a\u{a0}b", "\u{e0041}"]
        {
            assert_eq!(Nickname::new(bad), Err(NicknameError::BadCharacter), "{bad:?}");
        }
        assert_eq!(Nickname::from_input(" e\u{301}lan vital ").unwrap().as_str(), "élan vital");
        assert_eq!(Nickname::new("élan").unwrap().to_string(), "élan");
        assert_eq!(Nickname::new("ＢＯＢ").unwrap().fold(), "bob");
    }

    /// Every character, against the table of PROTOCOL.md section 11, read from there.
    #[test]
    fn what_does_not_show_as_itself_is_refused() {
        let text = include_str!("../../../docs/PROTOCOL.md");
        let row = text.lines().find(|line| line.starts_with("| nickname |")).unwrap();
        let list = row.split_once("and exactly ").unwrap().1.split_once(". Folded").unwrap().0;
        let code = |text: &str| u32::from_str_radix(text.trim_start_matches("U+"), 16).unwrap();
        let listed: Vec<_> = list
            .split(", ")
            .map(|range| range.split_once('–').unwrap_or((range, range)))
            .map(|(first, last)| code(first)..=code(last))
            .collect();
        assert!(listed.len() > 20, "{list}");
        for c in '\0'..=char::MAX {
            let is_listed = listed.iter().any(|range| range.contains(&u32::from(c)));
            assert_eq!(is_printable(c), !is_listed && c != ' ', "U+{:04X}", u32::from(c));
            assert!(!is_printable(c) || !c.is_control() && !c.is_whitespace());
        }
    }

    #[test]
    fn names_are_compared_in_full_lower_case_and_not_normalized_again() {
        for (name, fold) in
            [("ZOË", "zoë"), ("ΌΣΟΣ", "όσος"), ("İ", "i\u{307}"), ("J\u{30c}", "j\u{30c}")]
        {
            assert_eq!(Nickname::new(name).unwrap().fold(), fold);
        }
    }
}
