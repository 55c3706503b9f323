//! How the prompt behaves; kept in the profile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::output::render;
use crate::wanted::{Accept, Wanted, size};

/// Names that [`Settings::set`] knows.
pub(super) const NAMES: [&str; 7] =
    ["accept", "autosave", "focus", "folder", "keep", "notify", "receipts"];

/// The person's choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Whose files are saved at once.
    pub(super) accept: Accept,
    /// Bytes up to which they are; 0: none are.
    pub(super) autosave: u64,
    /// Where files are saved; `None`: the current folder.
    pub(super) folder: Option<PathBuf>,
    /// Signal that a message came.
    pub(super) notify: Notify,
    /// Whether contacts are told that their messages were seen.
    pub(super) receipts: Toggle,
    /// Whether nothing of other conversations is shown.
    pub(super) focus: Toggle,
    /// Whether what was shown stays on the screen at the end.
    pub(super) keep: Toggle,
    /// Conversations that are quiet, by the hexadecimal id of user or room, and until when; none: for good.
    pub(super) muted: BTreeMap<String, Option<u64>>,
    /// Where the person talked last: a room's or user's id, in hex.
    pub(super) last: Option<String>,
    /// The relay that this profile hosts.
    pub(super) host: Option<Host>,
}

/// A relay in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Host {
    pub(super) listen: SocketAddr,
    pub(super) public_address: Option<String>,
    pub(super) data: Option<PathBuf>,
}

/// Notice of messages elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Notify {
    #[default]
    Off,
    /// The terminal's bell.
    Bell,
    /// A notification of the desktop, by OSC 9.
    Desktop,
}

/// Something that is done, or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Toggle {
    On,
    #[default]
    Off,
}

impl Toggle {
    const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accept: Accept::default(),
            autosave: 0,
            folder: None,
            notify: Notify::Off,
            receipts: Toggle::On,
            focus: Toggle::Off,
            keep: Toggle::Off,
            muted: BTreeMap::new(),
            last: None,
            host: None,
        }
    }
}

impl Settings {
    /// Reads what was kept; what a newer version wrote is left out.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns which files are saved at once.
    pub(super) const fn wanted(&self) -> Wanted {
        Wanted { accept: self.accept, max_size: self.autosave }
    }

    /// Shows all, a line each.
    pub(super) fn shown(&self) -> String {
        let autosave = match self.autosave {
            0 => "off".to_owned(),
            bytes => render::size(bytes),
        };
        let accept = match self.accept {
            Accept::Verified => "verified",
            Accept::Contacts => "contacts",
            Accept::All => "all",
        };
        let folder = match &self.folder {
            Some(folder) => render::line(&folder.to_string_lossy()),
            None => "the current one".to_owned(),
        };
        let notify = match self.notify {
            Notify::Off => "off",
            Notify::Bell => "bell",
            Notify::Desktop => "desktop",
        };
        let [receipts, focus, keep] = [self.receipts, self.focus, self.keep].map(Toggle::as_str);
        format!(
            "autosave {autosave:<16} files up to this size are saved at once: off, 500k, 20M\n\
             accept   {accept:<16} whose: verified, contacts, all\n\
             folder   {folder:<16} where files are saved\n\
             focus    {focus:<16} whether other conversations are only counted: on, off\n\
             keep     {keep:<16} whether what was shown stays when you leave: on, off\n\
             notify   {notify:<16} when a message comes: off, bell, desktop\n\
             receipts {receipts:<16} whether contacts see that you read: on, off"
        )
    }

    /// Changes one of them.
    ///
    /// # Errors
    /// The error, for the person.
    pub(super) fn set(&mut self, what: &str, value: &str) -> Result<(), String> {
        let wrong = |values: &str| format!("{what} is one of: {values}");
        match what {
            "accept" => {
                self.accept = match value {
                    "verified" => Accept::Verified,
                    "contacts" => Accept::Contacts,
                    "all" => Accept::All,
                    _ => return Err(wrong("verified, contacts, all")),
                }
            }
            "autosave" => self.autosave = size(value).ok_or_else(|| wrong("off, 500k, 20M"))?,
            "folder" => {
                let folder = std::fs::canonicalize(value)
                    .map_err(|error| format!("{}: {error}", render::line(value)))?;
                if !folder.is_dir() {
                    return Err(format!("{} is no folder", render::line(value)));
                }
                self.folder = Some(folder);
            }
            "notify" => {
                self.notify = match value {
                    "off" => Notify::Off,
                    "bell" => Notify::Bell,
                    "desktop" => Notify::Desktop,
                    _ => return Err(wrong("off, bell, desktop")),
                }
            }
            "receipts" => {
                self.receipts = toggle(value).ok_or_else(|| wrong("on, off"))?;
            }
            "focus" => self.focus = toggle(value).ok_or_else(|| wrong("on, off"))?,
            "keep" => self.keep = toggle(value).ok_or_else(|| wrong("on, off"))?,
            _ => return Err(format!("there is no such setting; there are {}", NAMES.join(", "))),
        }
        Ok(())
    }
}

fn toggle(value: &str) -> Option<Toggle> {
    match value {
        "on" => Some(Toggle::On),
        "off" => Some(Toggle::Off),
        _ => None,
    }
}

/// Reads a length of time, such as `30m`, `8h` or `2d`; in milliseconds.
pub(super) fn duration(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let minutes = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        "w" => 7 * 24 * 60,
        _ => return None,
    };
    let minutes = number.parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(minutes)?;
    minutes.checked_mul(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_being_kept() {
        let mut settings = Settings::default();
        settings.set("autosave", "20M").unwrap();
        settings.set("accept", "verified").unwrap();
        settings.set("notify", "bell").unwrap();
        settings.set("receipts", "off").unwrap();
        settings.set("folder", "/").unwrap();
        settings.set("focus", "on").unwrap();
        settings.set("keep", "on").unwrap();
        settings.muted.insert("ab".to_owned(), Some(5));
        settings.muted.insert("cd".to_owned(), None);
        assert_eq!(Settings::decode(&settings.encode()), settings);
        assert_eq!(Settings::decode(b"{\"autosave\":5,\"new\":1}").autosave, 5);
        assert_eq!(Settings::decode(b"not json"), Settings::default());
    }

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("30m"), Some(1_800_000));
        assert_eq!((duration("8h"), duration("1w")), (Some(28_800_000), Some(604_800_000)));
        for wrong in ["", "h", "8", "0h", "-1h", "8 h", "8é", "99999999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut settings = Settings::default();
        assert!(settings.set("notify", "loud").unwrap_err().contains("bell"));
        assert!(settings.set("folder", "/nowhere/at/all").is_err());
        assert!(settings.set("colour", "red").unwrap_err().contains("autosave"));
        assert_eq!(settings, Settings::default());
    }
}
