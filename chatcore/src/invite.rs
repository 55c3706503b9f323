//! Invite links: a relay's address with its pinned key (PROTOCOL.md section 3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::ids::InviteToken;
use crate::keys::RelayKey;

const SCHEME: &str = "chat://";

/// Why a text is no invite link. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Does not begin with `chat://`.
    #[error("an invite link begins with chat://")]
    Scheme,
    /// Host or port is missing or wrong.
    #[error("the invite link's address is not HOST:PORT")]
    Address,
    /// The relay key is missing, cut off or mistyped.
    #[error("the invite link's key is not complete")]
    RelayKey,
    /// The token is cut off or mistyped.
    #[error("the invite link's token, after #, is not complete")]
    Token,
    /// More than one stands there.
    #[error("there are several invite links in that")]
    Several,
}

/// A parsed invite link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteLink {
    /// Name or address of the relay; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The relay's key, pinned.
    pub relay: RelayKey,
    /// Allows registration.
    pub token: Option<InviteToken>,
}

impl InviteLink {
    /// Returns `HOST:PORT`, with brackets around IPv6.
    #[must_use]
    pub fn address(&self) -> String {
        join_address(&self.host, self.port)
    }
}

/// Returns `HOST:PORT`, with brackets around IPv6.
#[must_use]
pub fn join_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `HOST:PORT`; IPv6 is in brackets.
///
/// # Errors
/// [`InviteError::Address`].
pub fn split_address(text: &str) -> Result<(String, u16), InviteError> {
    let (host, port) = text.rsplit_once(':').ok_or(InviteError::Address)?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().map_err(|_| InviteError::Address)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(InviteError::Address),
        None => host,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    let is_v6 = host.contains(':');
    let bare_v6 = is_v6 && !text.starts_with('[');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) || bare_v6 || !digits {
        return Err(InviteError::Address);
    }
    Ok((host.to_owned(), port))
}

/// Tells whether an address is one of this computer itself.
#[must_use]
pub fn is_here(address: &str) -> bool {
    let Ok((host, _)) = split_address(address) else { return false };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Port of a relay, where nobody says another.
pub const DEFAULT_PORT: u16 = 7667;

/// Returns an address that may lack its port with `port` in its place: `HOST` as `HOST:PORT`. IPv6 stands in brackets, with
/// and without a port: what is behind its last colon could be one.
///
/// # Errors
/// [`InviteError::Address`].
pub fn complete_address(text: &str, port: u16) -> Result<String, InviteError> {
    if split_address(text).is_ok() {
        return Ok(text.to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A port that lacks its host.
        return Err(InviteError::Address);
    }
    let completed = format!("{text}:{port}");
    split_address(&completed).map(|_| completed)
}

impl InviteLink {
    /// Reads a link as people pass it on: with words around it, in quotes or brackets, broken into rows, with a full
    /// stop behind it, with its scheme in capitals or `%23` for `#`.
    ///
    /// # Errors
    /// There is none in it, or it is not complete; [`InviteError::Several`].
    pub fn pasted(text: &str) -> Result<Self, InviteError> {
        // Web pages put signs into long words that nobody sees.
        let text: String = text.chars().filter(|c| !is_unseen(*c)).collect();
        let lower = text.to_ascii_lowercase();
        let begins = lower.match_indices(SCHEME).map(|(at, _)| at + SCHEME.len());
        let begins: Vec<_> = begins.chain([text.len() + SCHEME.len()]).collect();
        let rests = begins.iter().zip(begins.iter().skip(1));
        let rests = rests.filter_map(|(at, next)| text.get(*at..next - SCHEME.len()));
        let mut found = rests.map(first_in);
        let first = found.next().ok_or(InviteError::Scheme)?;
        // Which of two relays is meant is not ours to say.
        if found.any(|other| other != first) { Err(InviteError::Several) } else { first }
    }
}

const fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Reads what stands behind a scheme, broken into rows or in one piece, up to what is no part of a link.
fn first_in(rest: &str) -> Result<InviteLink, InviteError> {
    let joined = rest.replace(char::is_whitespace, "");
    let word = rest.split_whitespace().next().unwrap_or_default();
    let whole = in_one_piece(&joined);
    whole.or_else(|error| in_one_piece(word).map_err(|_| error))
}

fn in_one_piece(rest: &str) -> Result<InviteLink, InviteError> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:/[]#%".contains(c);
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let (rest, behind) = rest.split_at_checked(end).unwrap_or_default();
    if behind.starts_with(char::is_alphanumeric) {
        // A letter that only looks like one of a link.
        return Err(InviteError::Address);
    }
    let rest = rest.trim_end_matches(['.', ':', '/', '-', ']']);
    format!("{SCHEME}{}", rest.replace("%23", "#")).parse()
}

impl FromStr for InviteLink {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(InviteError::Scheme)?;
        let (address, rest) = rest.split_once('/').ok_or(InviteError::RelayKey)?;
        let (host, port) = split_address(address)?;
        let (key, token) = match rest.split_once('#') {
            Some((key, token)) => (key, Some(token)),
            None => (rest, None),
        };
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let relay = decode(key).and_then(|bytes| RelayKey::from_slice(&bytes));
        let token = match token {
            None => None,
            Some(token) => {
                let token = decode(token).and_then(|bytes| InviteToken::from_slice(&bytes));
                Some(token.ok_or(InviteError::Token)?)
            }
        };
        Ok(Self { host, port, relay: relay.ok_or(InviteError::RelayKey)?, token })
    }
}

impl fmt::Display for InviteLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64URL_NOPAD.encode(self.relay.as_bytes());
        write!(f, "{SCHEME}{}/{key}", self.address())?;
        match &self.token {
            Some(token) => write!(f, "#{}", BASE64URL_NOPAD.encode(token.as_bytes())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(host: &str, token: Option<&[u8]>) -> InviteLink {
        InviteLink {
            host: host.to_owned(),
            port: 7667,
            relay: RelayKey::from_slice(&[0xab; 64]).unwrap(),
            token: token.and_then(InviteToken::from_slice),
        }
    }

    #[test]
    fn an_address_may_lack_its_port() {
        for (text, completed) in [
            ("example.org", "example.org:7667"),
            ("example.org:1", "example.org:1"),
            ("192.0.2.1", "192.0.2.1:7667"),
            ("[::1]", "[::1]:7667"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(complete_address(text, DEFAULT_PORT).as_deref(), Ok(completed));
        }
        for wrong in [
            "",
            "7667",
            ":1",
            "example.org:",
            "::1",
            "2001:db8::1:7667",
            "example.org:x",
            "a b",
            "example.org:70000",
        ] {
            assert_eq!(complete_address(wrong, DEFAULT_PORT), Err(InviteError::Address), "{wrong}");
        }
    }

    #[test]
    fn links_survive_being_written_and_read() {
        for host in ["example.org", "10.0.0.1", "::1"] {
            for token in [None, Some(&[7; 16][..])] {
                let link = link(host, token);
                assert_eq!(link.to_string().parse(), Ok(link.clone()));
                assert_eq!(format!("  {link}\n").parse(), Ok(link));
            }
        }
    }

    #[test]
    fn links_are_found_in_what_people_paste() {
        let link = link("example.org", Some(&[7; 16]));
        let text = link.to_string();
        let (before, after) = text.split_at(60);
        for pasted in [
            text.clone(),
            format!(" '{text}'\n"),
            format!("Join me: <{text}>, please."),
            format!("({text})."),
            format!("\u{201c}{text}\u{201d}!"),
            format!("{before}\n    {after}"),
            format!("{before}\u{200b}{after}\u{feff}"),
            text.replace("chat://", "CHAT://").replace('#', "%23"),
            format!("{text} {text}"),
            text.replace('#', "\n#"),
        ] {
            assert_eq!(InviteLink::pasted(&pasted), Ok(link.clone()), "{pasted}");
        }
        assert_eq!(InviteLink::pasted("hello"), Err(InviteError::Scheme));
        let other = text.replace("example.org", "example.com");
        assert_eq!(InviteLink::pasted(&format!("{other} {text}")), Err(InviteError::Several));
        // One of its letters is Cyrillic.
        let odd = text.replace("example", "ex\u{430}mple");
        assert_eq!(InviteLink::pasted(&odd), Err(InviteError::Address));
        let cut = text.get(..text.len() - 1).unwrap();
        assert_eq!(InviteLink::pasted(cut), Err(InviteError::Token));
        assert_eq!(InviteLink::pasted(&format!("{text}x")), Err(InviteError::Token));
    }

    #[test]
    fn mistyped_links_say_what_is_wrong() {
        let good = link("example.org", Some(&[7; 16])).to_string();
        let bad = |text: &str| text.parse::<InviteLink>().unwrap_err();
        assert_eq!(bad(good.strip_prefix('c').unwrap()), InviteError::Scheme);
        assert_eq!(bad(good.get(..good.len() - 1).unwrap()), InviteError::Token);
        assert_eq!(bad(&good.replace("q6ur", "q6u")), InviteError::RelayKey);
        for port in ["", "70000", "+7", "x"] {
            assert_eq!(bad(&good.replace("7667", port)), InviteError::Address);
        }
        assert_eq!(bad(&good.replace("example.org", "")), InviteError::Address);
        assert_eq!(bad(&good.replace("example.org", "a b")), InviteError::Address);
        assert_eq!(bad(&good.replace("example.org", "::1")), InviteError::Address);
        assert_eq!(bad(&good.replace("example.org", "[x]")), InviteError::Address);
        assert_eq!(bad("chat://example.org:7667"), InviteError::RelayKey);
    }
}
