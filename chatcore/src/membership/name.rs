//! Names and topics of rooms: printable, and safe to show.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use crate::keys::nickname::{check, fold};
use crate::keys::{NicknameError, is_printable};

/// Most characters of a room's name.
pub const MAX_ROOM_NAME_CHARS: usize = 64;
/// Most characters of a topic.
pub const MAX_TOPIC_CHARS: usize = 256;

/// Why a room's name or topic can't be used. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// No characters, or too many.
    #[error("a room's name has 1 to {MAX_ROOM_NAME_CHARS} characters")]
    Length,
    /// Control, invisible or stray white-space characters, or a leading `#` or `!`.
    #[error("a room's name can't begin with # or !, or hold control or invisible characters")]
    BadCharacter,
    /// Too long a topic.
    #[error("a topic has at most {MAX_TOPIC_CHARS} characters")]
    TopicTooLong,
    /// A topic with control or invisible characters.
    #[error("a topic can't hold control or invisible characters")]
    BadTopic,
}

/// A checked name of a room (PROTOCOL.md section 11).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(String);

impl RoomName {
    /// Checks a name from the wire. Its normal form is the sender's matter: members whose tables of Unicode differ
    /// have to agree on what counts.
    ///
    /// # Errors
    /// [`RoomNameError`].
    pub fn new(text: &str) -> Result<Self, RoomNameError> {
        match check(text, MAX_ROOM_NAME_CHARS) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(NicknameError::Empty | NicknameError::TooLong) => Err(RoomNameError::Length),
            Err(_) => Err(RoomNameError::BadCharacter),
        }
    }

    /// Checks what a person typed, with or without its `#`, after normalizing it.
    ///
    /// # Errors
    /// [`RoomNameError`].
    pub fn from_input(text: &str) -> Result<Self, RoomNameError> {
        let text = text.trim();
        let text = text.strip_prefix('#').unwrap_or(text);
        Self::new(&text.nfc().collect::<String>())
    }

    /// Returns the text, without `#`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the form in which two names are the same.
    #[must_use]
    pub fn fold(&self) -> String {
        fold(&self.0)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        write!(f, "RoomName({} characters)", name.chars().count())
    }
}

/// A checked topic; may be empty.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Topic(String);

impl Topic {
    /// Checks a topic from the wire.
    ///
    /// # Errors
    /// [`RoomNameError`].
    pub fn new(text: &str) -> Result<Self, RoomNameError> {
        if text.chars().nth(MAX_TOPIC_CHARS).is_some() {
            return Err(RoomNameError::TopicTooLong);
        }
        if text.chars().any(|c| c != ' ' && !is_printable(c)) {
            return Err(RoomNameError::BadTopic);
        }
        Ok(Self(text.to_owned()))
    }

    /// Checks what a person typed, after normalizing it.
    ///
    /// # Errors
    /// [`RoomNameError`].
    pub fn from_input(text: &str) -> Result<Self, RoomNameError> {
        Self::new(&text.trim().nfc().collect::<String>())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(topic) = self;
        write!(f, "Topic({} characters)", topic.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rules_at_the_limits() {
        assert!(RoomName::new(&"n".repeat(64)).is_ok());
        assert_eq!(RoomName::new(&"n".repeat(65)), Err(RoomNameError::Length));
        assert_eq!(RoomName::new(""), Err(RoomNameError::Length));
        for bad in ["#a", "!a", "a\u{202e}", " a", "a\n"] {
            assert_eq!(RoomName::new(bad), Err(RoomNameError::BadCharacter), "{bad:?}");
        }
        assert_eq!(RoomName::from_input(" #Tea time ").unwrap().as_str(), "Tea time");
        assert_eq!(RoomName::from_input("ＴＥＡ").unwrap().fold(), "tea");
        assert_eq!(RoomName::new("Te\u{301}").unwrap().fold(), RoomName::new("Té").unwrap().fold());
        assert_eq!(RoomName::from_input("Te\u{301}").unwrap().as_str(), "Té");
    }

    #[test]
    fn topics_may_be_empty_but_not_long_or_odd() {
        assert!(Topic::new("").is_ok());
        assert!(Topic::new(&"t".repeat(256)).is_ok());
        assert_eq!(Topic::new(&"t".repeat(257)), Err(RoomNameError::TopicTooLong));
        assert_eq!(Topic::new("a\u{1b}[2J"), Err(RoomNameError::BadTopic));
        assert_eq!(Topic::from_input(" Te\u{301} at 5 ").unwrap().as_str(), "Té at 5");
    }
}
