//! Which files are saved without being asked for: one rule for `receive`, `rpc` and the prompt.

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{Acquaintance, FileKind};
use chatcore::trust::Trust;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes up to which a file is saved at once, unless a person says otherwise.
pub(crate) const MAX_SIZE: u64 = 1 << 30;

/// Whose files are saved at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Those of people whose safety number you compared
    Verified,
    /// Those of people you wrote to
    #[default]
    Contacts,
    /// Everybody's
    All,
}

/// Files that are saved at once; the others wait until a person asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) accept: Accept,
    /// Bytes.
    pub(crate) max_size: u64,
}

impl Wanted {
    /// Tells whether a file of somebody is saved at once.
    pub(crate) fn takes(self, from: Acquaintance, trust: Trust, size: u64) -> bool {
        let is_accepted = match self.accept {
            Accept::All => true,
            Accept::Contacts => from == Acquaintance::Contact && trust != Trust::Changed,
            Accept::Verified => trust == Trust::Verified,
        };
        // Also no empty one, if none are wanted.
        is_accepted && self.max_size > 0 && size <= self.max_size
    }

    /// Tells whether what waits is fetched at once. A long text is no file, but what somebody says.
    pub(crate) fn takes_waiting(self, file: &WaitingFile) -> bool {
        let from = &file.message.from;
        file.kind == FileKind::LongText
            || self.takes(from.acquaintance, from.trust, file.manifest.size)
    }
}

/// Reads `off`, bytes, or a number with k, M or G.
pub(crate) fn size(text: &str) -> Option<u64> {
    if text == "off" {
        return Some(0);
    }
    let lower = text.to_lowercase();
    let (digits, unit) = match lower.trim_end_matches('b').trim_end_matches('i') {
        number if number.ends_with('k') => (number.trim_end_matches('k'), 1 << 10),
        number if number.ends_with('m') => (number.trim_end_matches('m'), 1 << 20),
        number if number.ends_with('g') => (number.trim_end_matches('g'), 1 << 30),
        number => (number, 1),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// As [`size`], for a flag.
///
/// # Errors
/// How a size is written, for the person.
pub(crate) fn size_flag(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "a size is written as 500k, 20M or 2G; off: none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_contacts_are_saved_up_to_a_size_and_no_others() {
        use Acquaintance::{Contact, Member, Stranger};
        use Trust::{Changed, Pinned, Verified};
        let takes =
            |accept, from, trust, size| Wanted { accept, max_size: 10 }.takes(from, trust, size);
        for from in [Contact, Member, Stranger] {
            assert_eq!(takes(Accept::Contacts, from, Pinned, 10), from == Contact);
            assert!(takes(Accept::All, from, Pinned, 10));
            assert!(!takes(Accept::All, from, Verified, 11));
            assert!(takes(Accept::Verified, from, Verified, 10));
            assert!(!takes(Accept::Verified, from, Pinned, 10));
        }
        assert!(!takes(Accept::Contacts, Contact, Changed, 1), "somebody else may be behind it");
        let off = Wanted { accept: Accept::All, max_size: 0 };
        assert!(!off.takes(Contact, Verified, 0));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("off", Some(0)),
            ("0", Some(0)),
            ("500", Some(500)),
            ("500k", Some(500 << 10)),
            ("20MiB", Some(20 << 20)),
            ("2 G", Some(2 << 30)),
            ("much", None),
            ("-1", None),
            ("99999999999999999999G", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
