//! How a relay's address is reached: directly, or through a SOCKS5 proxy such as Tor (RFC 1928, RFC 1929).

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

use super::ClientError;
use super::resolve::resolve;
use crate::addresses::{RelayAddress, Source, is_elsewhere};
use crate::crypto::kdf::sha256;
use crate::invite::{complete_address, is_here, split_address};

/// How long connecting and the handshake may take, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same through a proxy, which may lead around the world.
const PATIENCE_OF_PROXIES: Duration = Duration::from_secs(60);
/// Time after which the next address of a name is tried beside those before it (RFC 8305 section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Port of a proxy whose address has none.
const PROXY_PORT: u16 = 1080;
/// Most bytes of a proxy's user name or password.
const MAX_CREDENTIAL: usize = 255;

/// A SOCKS5 proxy: `socks5://[USER:PASSWORD@]HOST[:PORT]`; `socks5h` means the same. Relays on this computer
/// (`localhost`, 127.0.0.1, `::1`) are reached without it; all other names are resolved by the proxy alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `HOST:PORT`.
    address: String,
    credentials: Option<(String, Zeroizing<String>)>,
}

impl Proxy {
    /// Returns a text by which two programs find out whether they mean the same proxy; it gives no password away.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let (user, password) = match &self.credentials {
            Some((user, password)) => (user.as_str(), password.as_str()),
            None => ("", ""),
        };
        let parts = [self.address.as_str(), "\n", user, "\n", password];
        HEXLOWER.encode(&sha256(&parts.map(str::as_bytes)))
    }
}

/// A text names no proxy that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Another scheme than `socks5`, or none.
    #[error("only SOCKS5 proxies can be used: socks5://HOST:PORT")]
    Scheme,
    /// The address is none.
    #[error("the proxy's address is not HOST:PORT")]
    Address,
    /// User name or password is missing, or longer than 255 bytes.
    #[error("the proxy's user and password are not USER:PASSWORD of at most 255 bytes each")]
    Credentials,
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let rest = text.strip_prefix("socks5://").or_else(|| text.strip_prefix("socks5h://"));
        let rest = rest.ok_or(ProxyError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        let credentials = credentials.map(|text| {
            let is_short = |part: &str| (1..=MAX_CREDENTIAL).contains(&part.len());
            let (user, password) = text.split_once(':').ok_or(ProxyError::Credentials)?;
            let user = decoded(user).ok_or(ProxyError::Credentials)?;
            let password = decoded(password).ok_or(ProxyError::Credentials)?;
            match is_short(&user) && is_short(&password) {
                true => Ok((user.as_str().to_owned(), password)),
                false => Err(ProxyError::Credentials),
            }
        });
        let address = complete_address(address, PROXY_PORT).map_err(|_| ProxyError::Address)?;
        Ok(Self { address, credentials: credentials.transpose()? })
    }
}

/// Reads `%40` and the like as the characters for which they stand (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    // It never grows: no copy of a password is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.extend(HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Returns how long to wait for each step.
pub(super) fn patience(address: &str, proxy: Option<&Proxy>) -> Duration {
    match proxy.filter(|_| !is_here(address)) {
        Some(_) => PATIENCE_OF_PROXIES,
        None => PATIENCE,
    }
}

/// Opens a TCP connection to `HOST:PORT`.
///
/// # Errors
/// [`ClientError::Unreachable`] with `NotFound` when no host has the name, `ConnectionRefused` when the proxy does not
/// answer.
pub(super) async fn dial(
    known: &RelayAddress,
    proxy: Option<&Proxy>,
) -> Result<TcpStream, ClientError> {
    let address = known.address.as_str();
    let connecting = async {
        match proxy.filter(|_| !is_here(address)) {
            Some(proxy) => through(proxy, address).await,
            None if is_onion(address) => Err(ClientError::OnionNeedsProxy),
            None => direct(address, known.by).await,
        }
    };
    timeout(patience(address, proxy), connecting)
        .await
        .map_err(|_| ClientError::Unreachable(io::ErrorKind::TimedOut))?
}

/// Tells whether only Tor knows the way: no resolver is to hear such a name (RFC 7686 section 2).
fn is_onion(address: &str) -> bool {
    split_address(address).is_ok_and(|(host, _)| {
        let host = host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase();
        host.ends_with(".onion")
    })
}

async fn direct(address: &str, by: Source) -> Result<TcpStream, ClientError> {
    let unreachable = |e: io::Error| ClientError::Unreachable(e.kind());
    let mut found = resolve(address).await.map_err(unreachable)?;
    if by == Source::Relay && !is_here(address) {
        // A name may lead home.
        found.retain(|address| is_elsewhere(address.ip()));
    }
    found.truncate(MAX_ADDRESSES);
    first_of(found).await.map_err(unreachable)
}

/// Connects to whichever of the addresses of a name answers first. One that is silent keeps nobody from the next.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let (mut waiting, mut attempts) = (addresses.into_iter(), JoinSet::new());
    let mut failed = io::ErrorKind::NotFound.into();
    loop {
        let next = waiting.next();
        let has_more = next.is_some();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            attempt = attempts.join_next() => match attempt {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failed = error,
                Some(Err(_)) => {}
                None if !has_more => return Err(failed),
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
}

async fn through(proxy: &Proxy, address: &str) -> Result<TcpStream, ClientError> {
    let unreachable = |kind| ClientError::Unreachable(kind);
    let (host, port) =
        split_address(address).map_err(|_| unreachable(io::ErrorKind::InvalidInput))?;
    let proxied = async |socket| match &proxy.credentials {
        Some((user, password)) => {
            let to = (host.as_str(), port);
            Socks5Stream::connect_with_password_and_socket(socket, to, user, password).await
        }
        None => Socks5Stream::connect_with_socket(socket, (host.as_str(), port)).await,
    };
    let socket = direct(&proxy.address, Source::Person).await.map_err(|_| ClientError::Proxy)?;
    match proxied(socket).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(tokio_socks::Error::HostUnreachable) => {
            Err(unreachable(io::ErrorKind::HostUnreachable))
        }
        Err(tokio_socks::Error::NetworkUnreachable) => {
            Err(unreachable(io::ErrorKind::NetworkUnreachable))
        }
        Err(tokio_socks::Error::ConnectionRefused) => {
            Err(unreachable(io::ErrorKind::ConnectionRefused))
        }
        Err(
            tokio_socks::Error::PasswordAuthFailure(_)
            | tokio_socks::Error::NoAcceptableAuthMethods
            | tokio_socks::Error::InvalidAuthValues(_),
        ) => Err(ClientError::ProxyLogin),
        Err(tokio_socks::Error::TtlExpired) => Err(unreachable(io::ErrorKind::TimedOut)),
        Err(_) => Err(ClientError::Proxy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_its_password_never_shown() {
        let read = |text: &str| text.parse::<Proxy>();
        let plain = read("socks5://127.0.0.1:9050").unwrap();
        assert_eq!((plain.address.as_str(), plain.credentials.is_none()), ("127.0.0.1:9050", true));
        assert_eq!(read("socks5h://127.0.0.1:9050/"), Ok(plain));
        assert_eq!(read("socks5://proxy.example").unwrap().address, "proxy.example:1080");
        let with = read("socks5://ann:p@ss:w@[::1]:1").unwrap();
        assert_eq!(with.address, "[::1]:1");
        let (user, password) = with.credentials.clone().unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("ann", "p@ss:w"));
        assert!(!format!("{with:?}").contains("p@ss"), "{with:?}");
        let coded = read("socks5://an%3An:p%40ss%25@[::1]:1").unwrap();
        let (user, password) = coded.credentials.unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("an:n", "p@ss%"));
        for broken in ["%", "%4", "%zz", "%ff"] {
            let text = format!("socks5://ann:p{broken}@[::1]:1");
            assert_eq!(read(&text), Err(ProxyError::Credentials), "{broken}");
        }
        let other = read("socks5://ann:p@ss@[::1]:1").unwrap();
        assert_ne!(with.fingerprint(), other.fingerprint());
        assert_eq!(with.fingerprint(), with.clone().fingerprint());
        for (wrong, error) in [
            ("http://127.0.0.1:3128", ProxyError::Scheme),
            ("127.0.0.1:9050", ProxyError::Scheme),
            ("socks5://", ProxyError::Address),
            ("socks5://a b:1", ProxyError::Address),
            ("socks5://ann@127.0.0.1", ProxyError::Credentials),
            ("socks5://:p@127.0.0.1", ProxyError::Credentials),
        ] {
            assert_eq!(read(wrong), Err(error), "{wrong}");
        }
        assert_eq!(
            read(&format!("socks5://a:{}@h", "p".repeat(256))),
            Err(ProxyError::Credentials)
        );
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_keeps_nobody_from_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        // One for documentation (RFC 5737): it leads nowhere, or is refused.
        let nowhere = "192.0.2.1:9".parse().unwrap();
        let found = timeout(PATIENCE, first_of(vec![nowhere, here])).await.unwrap().unwrap();
        assert_eq!(found.peer_addr().unwrap(), here);
        drop(listener);
        let refused = first_of(vec![here]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_computer_is_reached_without_a_proxy() {
        for here in ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "LOCALHOST:1"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["example.org:1", "192.168.0.1:1", "localhost.example:1", "[::2]:1"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
