//! All settings, with their defaults.

use std::path::{Path, PathBuf};

use chatcore::ids::{DAY, HOUR};
use chatcore::invite::{complete_address, split_address};
use clap::builder::BoolishValueParser;
use serde::Deserialize;

use crate::clock::AtStart;
use crate::error::RelayError;
use crate::limits::{Limits, Rate};

/// Where a relay listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7667";

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Who has the token of the invite link.
    #[default]
    Invite,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

/// Where a relay keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In memory: gone when the relay stops.
    Memory,
    /// In a folder.
    Folder(PathBuf),
}

impl Storage {
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Memory => Path::new("memory"),
            Self::Folder(folder) => folder,
        }
    }
}

/// Settings of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where its state is.
    pub storage: Storage,
    /// Who may register.
    pub registration: Registration,
    /// Host and port that the invite link says; port 0: the one listened on.
    pub public_address: Option<(String, u16)>,
    /// Every limit.
    pub limits: Limits,
    /// Whether the machine's clock is believed at the start.
    pub clock: AtStart,
}

impl Config {
    /// Returns the defaults for a relay in `folder`.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            storage: Storage::Folder(folder.into()),
            registration: Registration::default(),
            public_address: None,
            limits: Limits::default(),
            clock: AtStart::default(),
        }
    }

    /// Returns the defaults for a relay that keeps nothing.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { storage: Storage::Memory, ..Self::in_folder("") }
    }
}

/// Settings as people give them: in flags, the environment, or a file; all may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:7667]
    #[arg(long, value_name = "ADDR", env = "CHAT_SERVER_LISTEN")]
    pub listen: Option<String>,
    /// Data folder [default: $XDG_DATA_HOME/chat-server or ~/.local/share/chat-server]
    #[arg(long, value_name = "DIR", env = "CHAT_SERVER_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Who may register [default: invite]
    #[arg(long, value_enum, env = "CHAT_SERVER_REGISTRATION")]
    pub registration: Option<Registration>,
    /// Keep everything in memory; nothing survives a stop
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[arg(env = "CHAT_SERVER_EPHEMERAL", require_equals = true, value_parser = BoolishValueParser::new())]
    pub ephemeral: Option<bool>,
    /// Address that the invite link says
    #[arg(long, value_name = "HOST:PORT", env = "CHAT_SERVER_PUBLIC_ADDRESS")]
    pub public_address: Option<String>,
    /// File to write the invite link to, readable by its user only
    #[arg(long, value_name = "PATH", env = "CHAT_SERVER_LINK_FILE")]
    pub link_file: Option<PathBuf>,
    /// Connections at once [default: 100000]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_MAX_CONNECTIONS")]
    pub max_connections: Option<u32>,
    /// Failed or unregistered handshakes of one address at once [default: 200]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_HANDSHAKE_BURST")]
    pub handshake_burst: Option<u32>,
    /// The same a second, after that [default: 50]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_HANDSHAKE_RATE")]
    pub handshake_rate: Option<u32>,
    /// Envelopes of one user at once [default: 10000]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_SEND_BURST")]
    pub send_burst: Option<u32>,
    /// The same a second, after that [default: 1000]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_SEND_RATE")]
    pub send_rate: Option<u32>,
    /// New accounts an hour by one invite link [default: as fast as they come]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_INVITE_RATE")]
    pub invite_rate: Option<u32>,
    /// Days without a connection after which a member of the relay's own rooms makes place; 0: never
    /// [default: 90]
    #[arg(long, value_name = "DAYS", env = "CHAT_SERVER_INACTIVE_DAYS")]
    pub inactive_days: Option<u32>,
    /// Believe the machine's clock, though it jumped by more than a day since the relay last ran
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[arg(require_equals = true, value_parser = BoolishValueParser::new())]
    pub accept_clock: Option<bool>,
}

impl Settings {
    /// Reads a TOML file whose names are those of the flags.
    ///
    /// # Errors
    /// [`RelayError::File`] or [`RelayError::ConfigFile`].
    pub fn from_file(path: &Path) -> Result<Self, RelayError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RelayError::File { path: path.to_owned(), source })?;
        // Some editors put a sign before the text that says how it is encoded.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        toml::from_str(text).map_err(|source| RelayError::ConfigFile {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Takes from `other` what is missing here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            data: self.data.or(other.data),
            registration: self.registration.or(other.registration),
            ephemeral: self.ephemeral.or(other.ephemeral),
            public_address: self.public_address.or(other.public_address),
            link_file: self.link_file.or(other.link_file),
            max_connections: self.max_connections.or(other.max_connections),
            handshake_burst: self.handshake_burst.or(other.handshake_burst),
            handshake_rate: self.handshake_rate.or(other.handshake_rate),
            send_burst: self.send_burst.or(other.send_burst),
            send_rate: self.send_rate.or(other.send_rate),
            invite_rate: self.invite_rate.or(other.invite_rate),
            inactive_days: self.inactive_days.or(other.inactive_days),
            accept_clock: self.accept_clock.or(other.accept_clock),
        }
    }

    /// Returns the data folder; `home_data` is the user's folder for data.
    ///
    /// # Errors
    /// [`RelayError::Setting`] when none is given and the user has no home.
    pub fn data_folder(&self, home_data: Option<PathBuf>) -> Result<PathBuf, RelayError> {
        let default = home_data.map(|data| data.join("chat-server"));
        let folder = self.data.clone().or(default);
        folder.ok_or(RelayError::Setting {
            setting: "data",
            hint: "there is no home folder; say where to keep data with --data DIR",
        })
    }

    /// Returns the relay's configuration.
    ///
    /// # Errors
    /// [`RelayError::Setting`].
    pub fn config(&self, home_data: Option<PathBuf>) -> Result<Config, RelayError> {
        let mut config = if self.ephemeral == Some(true) {
            Config::ephemeral()
        } else {
            Config::in_folder(self.data_folder(home_data)?)
        };
        config.registration = self.registration.unwrap_or_default();
        if let Some(text) = &self.public_address {
            // 0: the port that it listens on.
            let address = complete_address(text, 0).and_then(|text| split_address(&text));
            let address = address.map_err(|_| RelayError::Setting {
                setting: "public-address",
                hint: "expected HOST or HOST:PORT, for example chat.example.org:7667",
            })?;
            config.public_address = Some(address);
        }
        let limits = &mut config.limits;
        let rate = |rate: &mut Rate, burst: Option<u32>, per_second: Option<u32>| {
            rate.burst = burst.unwrap_or(rate.burst);
            if let Some(per_second) = per_second {
                *rate = Rate::per_second(rate.burst, per_second);
            }
        };
        rate(&mut limits.handshakes, self.handshake_burst, self.handshake_rate);
        rate(&mut limits.sends, self.send_burst, self.send_rate);
        limits.invites = self.invite_rate.map(|an_hour| {
            let an_hour = an_hour.max(1);
            Rate { burst: an_hour, interval_us: HOUR * 1_000 / u64::from(an_hour) }
        });
        if let Some(days) = self.inactive_days {
            limits.member_life = u64::from(days) * DAY;
        }
        if self.accept_clock == Some(true) {
            config.clock = AtStart::Accept;
        }
        let limits = &mut config.limits;
        limits.connections = self.max_connections.unwrap_or(limits.connections);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_flags_say() {
        let file: Settings = toml::from_str(
            "listen = '[::1]:0'\nregistration = 'closed'\nephemeral = true\n\
             public-address = 'a.example:7'\nsend-burst = 5\nsend-rate = 10\n\
             invite-rate = 60\ninactive-days = 0",
        )
        .unwrap();
        let flags = Settings { registration: Some(Registration::Open), ..Settings::default() };
        let config = flags.or(file).config(None).unwrap();
        assert_eq!(config.storage, Storage::Memory);
        assert_eq!(config.registration, Registration::Open);
        assert_eq!(config.public_address, Some(("a.example".to_owned(), 7)));
        assert_eq!(config.limits.sends, Rate::per_second(5, 10));
        let a_minute = Rate { burst: 60, interval_us: 60_000_000 };
        assert_eq!((config.limits.invites, config.limits.member_life), (Some(a_minute), 0));
        assert!(toml::from_str::<Settings>("lisen = 'x'").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-server.toml");
        std::fs::write(&path, "\u{feff}listen = '[::1]:0'\r\nephemeral = true\r\n").unwrap();
        assert_eq!(Settings::from_file(&path).unwrap().ephemeral, Some(true));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let bad = Settings {
            public_address: Some("a.example:".to_owned()),
            data: Some("x".into()),
            ..Settings::default()
        };
        assert!(bad.config(None).is_err());
        assert!(Settings::default().config(None).is_err());
        let config = Settings::default().config(Some("/d".into())).unwrap();
        assert_eq!(config.storage, Storage::Folder("/d/chat-server".into()));
        let bare = Settings { public_address: Some("a.example".to_owned()), ..Settings::default() };
        let config = bare.config(Some("/d".into())).unwrap();
        assert_eq!(config.public_address, Some(("a.example".to_owned(), 0)));
    }
}
