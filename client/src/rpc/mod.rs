//! A client that several share: the prompt or another program that stays, and what other processes
//! ask of it through its socket.

mod json_rpc;
pub(crate) mod methods;
pub(crate) mod remote;
mod room_methods;
#[cfg(unix)]
pub(crate) mod socket;
pub(crate) mod stdio;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::engine::Event;
use chatcore::net::{Client, ClientError, Notice};
use tokio::sync::broadcast;

use crate::context::Context;
use crate::online::Notices;

/// Notices that one who listens may be behind; it is woken long before.
const BEHIND: usize = 16_384;

/// A client, and everything it tells to whoever listens.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    teller: Teller,
}

/// Passes on what a client tells; does not keep the client.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    told: broadcast::Sender<Notice>,
    /// Whether the relay knows us.
    is_online: Arc<AtomicBool>,
}

impl Teller {
    /// Passes a notice on; whoever reads those of the client calls this with each.
    pub(crate) fn tell(&self, notice: &Notice) {
        match notice {
            Notice::Event(event) if matches!(**event, Event::Connected { .. }) => {
                self.is_online.store(true, Ordering::Relaxed);
            }
            Notice::Disconnected(_) | Notice::Stopped(_) => {
                self.is_online.store(false, Ordering::Relaxed);
            }
            _ => {}
        }
        // Nobody listens most of the time.
        let _unheard = self.told.send(notice.clone());
    }

    /// Passes everything on until the client is closed.
    pub(crate) async fn tell_all(self, mut notices: Notices) {
        while let Some(notice) = notices.next().await {
            self.tell(&notice);
        }
    }
}

impl Session {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let (told, _) = broadcast::channel(BEHIND);
        Self { client, teller: Teller { told, is_online: Arc::default() } }
    }

    /// Returns what passes notices on.
    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Notice> {
        self.teller.told.subscribe()
    }

    /// Tells whether the relay knows us.
    pub(crate) fn is_online(&self) -> bool {
        self.teller.is_online.load(Ordering::Relaxed)
    }

    /// Waits until the relay knows us; where it is away, it is tried once more.
    pub(crate) async fn online(&self) -> Result<(), ClientError> {
        if self.is_online() { Ok(()) } else { self.client.online().await }
    }
}

/// Tells whether a process that has the profile open takes requests.
#[cfg(unix)]
pub(crate) fn is_served(context: &Context) -> bool {
    socket::connect(&context.paths.profile_folder()).is_some()
}

/// Where there are no such sockets, none does.
#[cfg(not(unix))]
pub(crate) fn is_served(_context: &Context) -> bool {
    false
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serves,
    Ends,
}

/// Lets other processes of this user use a client, until it is closed or dropped.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    #[cfg(unix)]
    listening: Option<socket::Listening>,
}

impl Serving {
    /// Begins; says so where it is not possible.
    #[cfg(unix)]
    pub(crate) fn new(context: &Context, session: &Session) -> Self {
        match socket::listen(context, session) {
            Ok(listening) => Self { listening: Some(listening) },
            Err(error) => {
                crate::error::tell(format_args!(
                    "chat: other commands can't use this profile meanwhile: {error}"
                ));
                Self::default()
            }
        }
    }

    /// Where there are no such sockets, nobody else can.
    #[cfg(not(unix))]
    pub(crate) fn new(_context: &Context, _session: &Session) -> Self {
        Self::default()
    }

    /// Takes no more requests, and waits for those that are being answered.
    pub(crate) async fn close(self) {
        #[cfg(unix)]
        if let Some(listening) = self.listening {
            listening.close().await;
        }
    }
}
