//! All settings, with their defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use chatcore::ids::{DAY, HOUR};
use chatcore::invite::{DEFAULT_PORT, complete_address, split_address};
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::AtStart;
use crate::error::RelayError;
use crate::identity::KEY_FILE;
use crate::limits::{Limits, Rate};
use crate::size::Size;

/// Where a relay listens unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:7667";
/// The default log level.
pub const DEFAULT_LOG_LEVEL: &str = "info";
/// Port of metrics whose address has none.
const METRICS_PORT: u16 = 9_667;
/// The data folder in the user's folder for data.
const FOLDER: &str = "chat-server";

/// The users who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Users with the token of the invite link.
    #[default]
    Invite,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
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
    /// Tells whether a relay begins here.
    #[must_use]
    pub fn is_new(&self) -> bool {
        match self {
            Self::Memory => true,
            Self::Folder(folder) => !folder.join(KEY_FILE).exists(),
        }
    }

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
    /// The users who may register.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on, as often as wanted; port 0 takes a free one [default: 127.0.0.1:7667]
    #[arg(long, value_name = "ADDR", env = "CHAT_SERVER_LISTEN", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// Data folder [default: $XDG_DATA_HOME/chat-server or ~/.local/share/chat-server]
    #[arg(long, value_name = "DIR", env = "CHAT_SERVER_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Users who may register [default: invite]
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
    /// Address, or port on this computer alone, at which Prometheus finds /metrics and /health, such as 9667; who
    /// reaches it sees how much goes on here
    #[arg(long, value_name = "ADDR", env = "CHAT_SERVER_METRICS")]
    pub metrics: Option<String>,
    /// Log level: error, warn, info, debug, trace, also for parts of the program: info,server=debug
    /// [default: info]
    #[arg(long, value_name = "LEVEL", env = "CHAT_SERVER_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, value_enum, env = "CHAT_SERVER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
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
    /// Files that one user may have stored, such as 500M or 4G [default: 32G]
    #[arg(long, value_name = "SIZE", env = "CHAT_SERVER_MAX_USER_FILES")]
    pub max_user_files: Option<Size>,
    /// Logs of private rooms that one user may have begun [default: 256M]
    #[arg(long, value_name = "SIZE", env = "CHAT_SERVER_MAX_USER_ROOMS")]
    pub max_user_rooms: Option<Size>,
    /// Most that may wait for one device [default: 64M]
    #[arg(long, value_name = "SIZE", env = "CHAT_SERVER_MAX_MAILBOX")]
    pub max_mailbox: Option<Size>,
    /// Messages that may wait for one device [default: 10000]
    #[arg(long, value_name = "N", env = "CHAT_SERVER_MAX_MAILBOX_MESSAGES")]
    pub max_mailbox_messages: Option<u32>,
    /// Believe the machine's clock, though it jumped by more than a day since the relay last ran
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    #[arg(require_equals = true, value_parser = BoolishValueParser::new())]
    pub accept_clock: Option<bool>,
}

/// Least that one mailbox may be allowed: the largest envelopes of a few people.
const MIN_MAILBOX: Size = Size(1 << 20);

impl Settings {
    /// Names of settings that a running relay takes over when it reads its settings again; the others hold until it is
    /// started again.
    pub const CHANGEABLE: [&str; 14] = [
        "registration",
        "public-address",
        "log-level",
        "max-connections",
        "handshake-burst",
        "handshake-rate",
        "send-burst",
        "send-rate",
        "invite-rate",
        "inactive-days",
        "max-user-files",
        "max-user-rooms",
        "max-mailbox",
        "max-mailbox-messages",
    ];

    /// Returns the names of all settings, as files have them.
    #[must_use]
    pub fn names() -> Vec<String> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new(""));
        command.get_arguments().map(|arg| arg.get_id().as_str().replace('_', "-")).collect()
    }

    /// Returns what holds where nothing is set; what has no default is missing.
    #[must_use]
    pub fn defaults(home_data: Option<PathBuf>) -> Self {
        let limits = Limits::default();
        let per_second = |rate: Rate| u32::try_from(1_000_000 / rate.interval_us.max(1)).ok();
        Self {
            listen: vec![DEFAULT_LISTEN.to_owned()],
            data: home_data.map(|data| data.join(FOLDER)),
            registration: Some(Registration::default()),
            ephemeral: Some(false),
            public_address: None,
            link_file: None,
            metrics: None,
            log_level: Some(DEFAULT_LOG_LEVEL.to_owned()),
            log_format: Some(LogFormat::default()),
            max_connections: Some(limits.connections),
            handshake_burst: Some(limits.handshakes.burst),
            handshake_rate: per_second(limits.handshakes),
            send_burst: Some(limits.sends.burst),
            send_rate: per_second(limits.sends),
            invite_rate: None,
            inactive_days: u32::try_from(limits.member_life / DAY).ok(),
            max_user_files: Some(Size(limits.stored_per_user)),
            max_user_rooms: Some(Size(limits.registers.bytes)),
            max_mailbox: Some(Size(limits.mailbox_bytes)),
            max_mailbox_messages: u32::try_from(limits.mailbox_envelopes).ok(),
            accept_clock: Some(false),
        }
    }

    /// Reads a TOML file whose names are those of the flags.
    ///
    /// # Errors
    /// [`RelayError::File`], [`RelayError::ConfigFile`] or [`RelayError::UnknownSetting`].
    pub fn from_file(path: &Path) -> Result<Self, RelayError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RelayError::File { path: path.to_owned(), source })?;
        // Some editors put a sign before the text that says how it is encoded.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let bad = |source| RelayError::ConfigFile { path: path.to_owned(), source };
        let table: toml::Table = toml::from_str(text).map_err(|e| bad(Box::new(e)))?;
        let names = Self::names();
        if let Some(name) = table.keys().find(|key| !names.contains(key)) {
            // As a flag is written, or nearly so.
            let bare = name.trim_start_matches('-').replace('_', "-").to_lowercase();
            let near =
                names.into_iter().min_by_key(|known| strsim::damerau_levenshtein(&bare, known));
            return Err(RelayError::UnknownSetting {
                path: path.to_owned(),
                name: name.clone(),
                near: near.unwrap_or_default(),
            });
        }
        // From the text, so that an error says where it is.
        toml::from_str(text).map_err(|e| bad(Box::new(e)))
    }

    /// Takes from `other` what is missing here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: if self.listen.is_empty() { other.listen } else { self.listen },
            data: self.data.or(other.data),
            registration: self.registration.or(other.registration),
            ephemeral: self.ephemeral.or(other.ephemeral),
            public_address: self.public_address.or(other.public_address),
            link_file: self.link_file.or(other.link_file),
            metrics: self.metrics.or(other.metrics),
            log_level: self.log_level.or(other.log_level),
            log_format: self.log_format.or(other.log_format),
            max_connections: self.max_connections.or(other.max_connections),
            handshake_burst: self.handshake_burst.or(other.handshake_burst),
            handshake_rate: self.handshake_rate.or(other.handshake_rate),
            send_burst: self.send_burst.or(other.send_burst),
            send_rate: self.send_rate.or(other.send_rate),
            invite_rate: self.invite_rate.or(other.invite_rate),
            inactive_days: self.inactive_days.or(other.inactive_days),
            max_user_files: self.max_user_files.or(other.max_user_files),
            max_user_rooms: self.max_user_rooms.or(other.max_user_rooms),
            max_mailbox: self.max_mailbox.or(other.max_mailbox),
            max_mailbox_messages: self.max_mailbox_messages.or(other.max_mailbox_messages),
            accept_clock: self.accept_clock.or(other.accept_clock),
        }
    }

    /// Returns what is set, by name, as files have it.
    #[must_use]
    pub fn table(&self) -> toml::Table {
        // Texts, numbers and lists of texts can be written.
        toml::Table::try_from(self).unwrap_or_default()
    }

    /// Returns the data folder; `home_data` is the user's folder for data.
    ///
    /// # Errors
    /// [`RelayError::Setting`] when none is given and the user has no home.
    pub fn data_folder(&self, home_data: Option<PathBuf>) -> Result<PathBuf, RelayError> {
        let default = home_data.map(|data| data.join(FOLDER));
        let folder = self.data.clone().or(default);
        folder.ok_or(RelayError::Setting {
            setting: "data",
            hint: "there is no home folder; say where to keep data with --data DIR",
        })
    }

    /// Returns the addresses to listen on.
    ///
    /// # Errors
    /// [`RelayError::Setting`].
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, RelayError> {
        if self.listen.is_empty() {
            return Ok(vec![socket_address(DEFAULT_LISTEN, "listen")?]);
        }
        self.listen.iter().map(|text| socket_address(text, "listen")).collect()
    }

    /// Returns the address at which metrics are served.
    ///
    /// # Errors
    /// [`RelayError::Setting`].
    pub fn metrics_address(&self) -> Result<Option<SocketAddr>, RelayError> {
        let address = |text: &String| match text.parse::<u16>() {
            // A port alone: on this computer.
            Ok(port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            Err(_) => socket_address(text, "metrics"),
        };
        self.metrics.as_ref().map(address).transpose()
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
        if self.max_mailbox.is_some_and(|size| size < MIN_MAILBOX) {
            return Err(RelayError::Setting {
                setting: "max-mailbox",
                hint: "with less than 1M hardly anybody could be written to",
            });
        }
        self.apply(&mut config.limits);
        if self.accept_clock == Some(true) {
            config.clock = AtStart::Accept;
        }
        Ok(config)
    }

    fn apply(&self, limits: &mut Limits) {
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
        limits.connections = self.max_connections.unwrap_or(limits.connections);
        let bytes = |size: Option<Size>, default| size.map_or(default, |size| size.0);
        limits.stored_per_user = bytes(self.max_user_files, limits.stored_per_user);
        limits.registers.bytes = bytes(self.max_user_rooms, limits.registers.bytes);
        limits.mailbox_bytes = bytes(self.max_mailbox, limits.mailbox_bytes);
        if let Some(messages) = self.max_mailbox_messages {
            limits.mailbox_envelopes = messages as usize;
        }
    }
}

/// Reads `IP:PORT`, `IP` or `localhost` with or without a port. Other names are none: what they mean may change.
fn socket_address(text: &str, setting: &'static str) -> Result<SocketAddr, RelayError> {
    let default = if setting == "metrics" { METRICS_PORT } else { DEFAULT_PORT };
    let address = complete_address(text, default).unwrap_or_else(|_| text.to_owned());
    let address = match address.strip_prefix("localhost:") {
        Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        None => address,
    };
    address.parse().map_err(|_| RelayError::Setting {
        setting,
        hint: "expected an IP address of this computer, perhaps with a port: 0.0.0.0:7667, [::]:7667",
    })
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an address, or a list of them")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_flags_say() {
        let file: Settings = toml::from_str(
            "listen = '[::1]:0'\nregistration = 'closed'\nephemeral = true\n\
             public-address = 'a.example:7'\nsend-burst = 5\nsend-rate = 10\n\
             invite-rate = 60\ninactive-days = 0\nmax-mailbox = '2M'\nmax-user-files = 4096",
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
        assert_eq!((config.limits.mailbox_bytes, config.limits.stored_per_user), (2 << 20, 4_096));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-server.toml");
        std::fs::write(&path, "\u{feff}listen = '[::1]:0'\r\nephemeral = true\r\n").unwrap();
        assert_eq!(Settings::from_file(&path).unwrap().ephemeral, Some(true));
    }

    #[test]
    fn a_setting_that_is_none_names_the_nearest_that_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-server.toml");
        for (given, near) in [
            ("lisen = 'x'", "listen"),
            ("max_connections = 3", "max-connections"),
            ("--send-rate = 3", "send-rate"),
            ("maxmailbox = '1G'", "max-mailbox"),
        ] {
            std::fs::write(&path, given).unwrap();
            let error = Settings::from_file(&path).unwrap_err();
            assert!(error.to_string().contains(&format!("did you mean {near}?")), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        std::fs::write(&path, "send-rate = 'fast'").unwrap();
        assert!(Settings::from_file(&path).unwrap_err().to_string().contains("send-rate"));
    }

    #[test]
    fn defaults_are_those_of_the_relay_and_all_settings_have_a_name() {
        let defaults = Settings::defaults(Some("/d".into()));
        let config = defaults.config(None).unwrap();
        assert_eq!(config, Settings::default().config(Some("/d".into())).unwrap());
        let names = Settings::names();
        let without = ["public-address", "link-file", "metrics", "invite-rate"];
        let named: Vec<_> = defaults.table().into_iter().map(|(name, _)| name).collect();
        assert_eq!(named.len() + without.len(), names.len());
        assert!(named.iter().all(|name| names.contains(name)));
        assert!(Settings::CHANGEABLE.iter().all(|name| names.contains(&(*name).to_owned())));
    }

    #[test]
    fn several_addresses_are_listened_on_and_names_are_none() {
        let listening = |texts: &[&str]| {
            let listen = texts.iter().map(|text| (*text).to_owned()).collect();
            Settings { listen, ..Settings::default() }.addresses()
        };
        let found = listening(&["0.0.0.0", "[::1]:7", "localhost:0"]).unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["0.0.0.0:7667", "[::1]:7", "127.0.0.1:0"]);
        assert_eq!(listening(&[]).unwrap(), ["127.0.0.1:7667".parse().unwrap()]);
        for bad in ["", "chat.example.org:7667", "1.2.3.4:x", ":7"] {
            assert!(listening(&[bad]).is_err(), "{bad}");
        }
        let metrics = |text: &str| {
            let metrics = Some(text.to_owned());
            Settings { metrics, ..Settings::default() }.metrics_address()
        };
        for (text, address) in
            [("9", "127.0.0.1:9"), ("0.0.0.0", "0.0.0.0:9667"), ("[::1]:8", "[::1]:8")]
        {
            assert_eq!(metrics(text).unwrap().unwrap().to_string(), address);
        }
        let file: Settings = toml::from_str("listen = ['[::1]:0', '127.0.0.1:0']").unwrap();
        assert_eq!(file.addresses().unwrap().len(), 2);
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
