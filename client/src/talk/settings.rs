//! How the prompt behaves; kept in the profile.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::render;
use crate::wanted::{Accept, Wanted, size};

/// What [`Settings::set`] knows.
pub(super) const NAMES: [&str; 5] = ["accept", "autosave", "folder", "notify", "receipts"];

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
    /// What tells that a message came.
    pub(super) notify: Notify,
    /// Whether contacts are told that their messages were seen.
    pub(super) receipts: Receipts,
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

/// What a person notices from elsewhere.
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

/// Whether writers are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Receipts {
    #[default]
    On,
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accept: Accept::default(),
            autosave: 0,
            folder: None,
            notify: Notify::Off,
            receipts: Receipts::On,
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
        let receipts = match self.receipts {
            Receipts::On => "on",
            Receipts::Off => "off",
        };
        format!(
            "autosave {autosave:<16} files up to this size are saved at once: off, 500k, 20M\n\
             accept   {accept:<16} whose: verified, contacts, all\n\
             folder   {folder:<16} where files are saved\n\
             notify   {notify:<16} when a message comes: off, bell, desktop\n\
             receipts {receipts:<16} whether contacts see that you read: on, off"
        )
    }

    /// Changes one of them.
    ///
    /// # Errors
    /// What is wrong, for the person.
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
                self.receipts = match value {
                    "on" => Receipts::On,
                    "off" => Receipts::Off,
                    _ => return Err(wrong("on, off")),
                }
            }
            _ => return Err(format!("there is no such setting; there are {}", NAMES.join(", "))),
        }
        Ok(())
    }
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
        assert_eq!(Settings::decode(&settings.encode()), settings);
        assert_eq!(Settings::decode(b"{\"autosave\":5,\"new\":1}").autosave, 5);
        assert_eq!(Settings::decode(b"not json"), Settings::default());
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
