//! A relay within this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use server::config::Settings;
use server::error::cannot_listen;
use server::operator::Operator;
use server::{Relay, RelayError};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{CommandError, ExitCode};
use crate::output::render;
use crate::output::{Output, Without};
use crate::paths::data_root;

pub(crate) fn relay_error(error: RelayError) -> CommandError {
    let code = if error.exit_code() == 7 { ExitCode::Store } else { ExitCode::Other };
    let refused = error.refused();
    let error = CommandError::new(code, error);
    match refused {
        Some(what) => error.hint(what),
        None => error,
    }
}

/// A relay that has its port, and does not serve yet.
pub(crate) struct Bound {
    pub(crate) relay: Relay,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    /// To hand to friends.
    pub(crate) link: InviteLink,
}

impl Bound {
    /// Opens a relay and takes a port.
    ///
    /// # Errors
    /// The address, or the relay's store.
    pub(crate) async fn new(listen: SocketAddr, settings: Settings) -> Result<Self, CommandError> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            CommandError::new(ExitCode::Other, cannot_listen(&listen.to_string(), &error))
                .hint("choose another port: --listen ADDR:PORT")
        })?;
        let config = settings.config(data_root()).map_err(relay_error)?;
        let relay = Relay::open(config).map_err(relay_error)?;
        let address = listener.local_addr().map_err(|e| CommandError::new(ExitCode::Other, e))?;
        let link = relay.invite_link(address);
        Ok(Self { relay, listener, address, link })
    }

    /// Serves in the background.
    pub(crate) fn start(self) -> Hosting {
        let (stop, stopped) = oneshot::channel::<()>();
        let (operator, newcomers) = (self.relay.operator(), self.relay.newcomers());
        let serving = tokio::spawn(self.relay.serve(vec![self.listener], async move {
            let _stopped = stopped.await;
        }));
        let own = match self.address.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let own = SocketAddr::new(own, self.address.port());
        Hosting { link: self.link, own, operator, newcomers, stop, serving }
    }
}

/// News for whoever hosts.
pub(crate) enum HostNews {
    /// Somebody registered.
    Newcomer(Nickname),
    /// The relay ended without being told to, and why.
    Ended(Option<RelayError>),
}

/// Returns who comes next; for ever pending when the relay has gone.
pub(crate) async fn next(newcomers: &mut broadcast::Receiver<Nickname>) -> Nickname {
    loop {
        match newcomers.recv().await {
            Ok(nickname) => return nickname,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Says that somebody is new.
pub(crate) fn welcome(nickname: &Nickname) -> String {
    format!("{} is new on your relay.", render::name(nickname.as_str()))
}

/// A relay that serves until it is stopped.
pub(crate) struct Hosting {
    pub(crate) link: InviteLink,
    /// Where this computer reaches it.
    pub(crate) own: SocketAddr,
    pub(crate) operator: Operator,
    newcomers: broadcast::Receiver<Nickname>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), RelayError>>,
}

impl Hosting {
    /// Returns what happens next to it.
    pub(crate) async fn news(&mut self) -> HostNews {
        tokio::select! {
            nickname = next(&mut self.newcomers) => HostNews::Newcomer(nickname),
            served = &mut self.serving => HostNews::Ended(match served {
                Ok(served) => served.err(),
                Err(error) => Some(RelayError::System(error.into())),
            }),
        }
    }

    /// Stops it; nothing that it accepted is lost.
    ///
    /// # Errors
    /// The relay's.
    pub(crate) async fn stop(self) -> Result<(), CommandError> {
        let _gone = self.stop.send(());
        let served = self.serving.await.map_err(|e| CommandError::new(ExitCode::Other, e))?;
        served.map_err(relay_error)
    }
}

/// Tells a host how to use the link.
pub(crate) const HAND_ON: &str =
    "Send this link, and the program, to your friends; they join with: chat --link 'LINK'";

/// Shows a link, and the code that a telephone scans where there is room for it.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn show_link(
    output: &Output,
    link: &InviteLink,
    without: Without,
) -> Result<(), CommandError> {
    let link = link.to_string();
    output.code(&link, without)?;
    output.say(&link)
}

/// Returns the address by which others in the network reach a relay that listens here.
pub(crate) fn address_for_others(listen: SocketAddr) -> Option<String> {
    let found = match listen.ip() {
        ip if ip.is_unspecified() => address_in_network(),
        ip => Some(ip),
    };
    found.map(|ip| SocketAddr::new(ip, listen.port()).to_string())
}

/// Returns the address that this computer has in its network, if it has one; nothing is sent.
fn address_in_network() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Asks the system for its route there: an address set aside for documentation (RFC 5737).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relay_serves_until_it_is_stopped() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let ephemeral = Settings { ephemeral: Some(true), ..Settings::default() };
        let bound = Bound::new(listen, ephemeral).await.unwrap();
        let taken = bound.address;
        let ephemeral = Settings { ephemeral: Some(true), ..Settings::default() };
        let error = Bound::new(taken, ephemeral).await.map(|_| ()).unwrap_err();
        assert_eq!(error.code(), ExitCode::Other);
        let hosting = bound.start();
        assert_eq!(hosting.own, taken);
        assert!(tokio::net::TcpStream::connect(hosting.own).await.is_ok());
        hosting.stop().await.unwrap();
        assert!(tokio::net::TcpStream::connect(taken).await.is_err());
    }
}
