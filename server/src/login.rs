//! From an accepted socket to a device that is logged in.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatcore::noise::HandshakeError;
use chatcore::noise::RelayHandshake;
use chatcore::noise::handshake::{MAX_FIRST_REQUEST, RECORD_1_LEN};
use chatcore::noise::transport::{frame_record, split_record};
use chatcore::wire::limits::MAX_LINK_MESSAGE;
use chatcore::wire::relay::{Answer, DeviceFrame, ErrorCode, Failure, RelayFrame, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connection::{Link, LinkError, Reading};
use crate::half_open::HalfOpen;
use crate::handler;
use crate::limits::address_key;
use crate::peer::Peer;
use crate::registry::Seat;
use crate::server::Shared;

/// Time for telling a client to come again.
const BUSY_TIME: Duration = Duration::from_secs(2);
/// Requests a device may try before it is logged in.
const MAX_ATTEMPTS: usize = 8;

/// Why a connection did not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("a request that is not understood")]
    Malformed,
    #[error("too many attempts")]
    TooManyAttempts,
    #[error("it took too long")]
    TimedOut,
    #[error("the relay stops")]
    Stopping,
    #[error("it made place for another one")]
    PushedOut,
}

impl LoginError {
    /// Every word for whoever counts; the first is for those who did not even begin.
    pub(crate) const REASONS: [&str; 8] = [
        "busy",
        "gone",
        "handshake",
        "malformed",
        "too_many_attempts",
        "timed_out",
        "stopping",
        "pushed_out",
    ];

    /// Returns the word for it.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Link(_) => "gone",
            Self::Handshake(_) => "handshake",
            Self::Malformed => "malformed",
            Self::TooManyAttempts => "too_many_attempts",
            Self::TimedOut => "timed_out",
            Self::Stopping => "stopping",
            Self::PushedOut => "pushed_out",
        }
    }
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Link(error.into())
    }
}

/// Result of a registration.
pub(crate) enum Registered {
    /// The record is the newest one.
    Welcome(Welcome),
    /// It is not: these are.
    Superseded(Answer),
}

/// A device whose login or registration succeeded.
pub(crate) struct Welcome {
    pub(crate) seat: Seat,
    pub(crate) answer: Answer,
}

/// A connection ready for its loop.
pub(crate) struct Entered {
    pub(crate) seat: Seat,
    pub(crate) link: Link,
    pub(crate) link_key: [u8; 32],
    /// Requests that came early.
    pub(crate) messages: Vec<Bytes>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    from: IpAddr,
    half_open: HalfOpen,
) {
    // Boxed: the handshake's state is gone once the device is logged in.
    let logging_in = Box::pin(log_in(&shared, stream, from));
    let result = tokio::select! {
        result = logging_in => result,
        () = half_open.pushed_out() => Err(LoginError::PushedOut),
    };
    drop(half_open);
    match result {
        Ok(entered) => Peer::new(shared, entered).run().await,
        Err(error) => {
            tracing::debug!(%error, "a connection ended before its login");
            shared.metrics.refused_connection(error.reason());
        }
    }
}

/// Tells a client to come again, by a record without anything where message 2 would come.
pub(crate) async fn say_busy(mut stream: TcpStream) {
    let say = async {
        stream.write_all(&frame_record(&[])).await?;
        stream.shutdown().await?;
        // What the client said is taken off the line: else the system would throw our word away as well.
        let mut rest = [0; RECORD_1_LEN + 2];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _in_time = tokio::time::timeout(BUSY_TIME, say).await;
}

async fn log_in(
    shared: &Arc<Shared>,
    stream: TcpStream,
    from: IpAddr,
) -> Result<Entered, LoginError> {
    let mut stopping = shared.stopping.subscribe();
    let attempt = async {
        let (link, link_key, request) = handshake(shared, stream, from).await?;
        first_requests(shared, link, link_key, request, from).await
    };
    let result = tokio::select! {
        result = tokio::time::timeout(shared.limits().handshake_time, attempt) => {
            result.unwrap_or(Err(LoginError::TimedOut))
        }
        _ = stopping.wait_for(|is_stopping| *is_stopping) => Err(LoginError::Stopping),
    };
    result
}

/// Counts a connection against its address unless it comes to something. A local of whoever owns
/// the socket: it is counted before the other side sees the end.
struct Penalty<'a> {
    shared: &'a Shared,
    from: IpAddr,
    is_due: bool,
}

impl<'a> Penalty<'a> {
    const fn new(shared: &'a Shared, from: IpAddr) -> Self {
        let is_due = true;
        Self { shared, from, is_due }
    }

    fn waive(mut self) {
        self.is_due = false;
    }
}

impl Drop for Penalty<'_> {
    fn drop(&mut self) {
        if self.is_due {
            let now = self.shared.clock.uptime();
            self.shared.handshakes.take(address_key(self.from), 1, now);
        }
    }
}

async fn handshake(
    shared: &Shared,
    mut stream: TcpStream,
    from: IpAddr,
) -> Result<(Link, [u8; 32], Vec<u8>), LoginError> {
    let mut buffer = Vec::with_capacity(RECORD_1_LEN + 2);
    let one = read_record(&mut stream, &mut buffer, RECORD_1_LEN).await?;
    // Who says nothing costs nothing, and makes place when others come.
    let penalty = Penalty::new(shared, from);
    let keys = &shared.identity.keys;
    let (two, state) = RelayHandshake::respond(keys, &one, &mut rand::rng())?;
    stream.write_all(&frame_record(&two)).await?;
    let three = read_record(&mut stream, &mut buffer, MAX_FIRST_REQUEST + 64).await?;
    let (link_key, request, transport) = state.finish(&three)?;
    let mut link = Link::new(stream, transport, buffer);
    link.limit_messages(MAX_FIRST_REQUEST);
    penalty.waive();
    Ok((link, *link_key.as_bytes(), request))
}

/// Takes one record of at most `max` bytes off `buffer`, reading as needed.
async fn read_record(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    max: usize,
) -> Result<Vec<u8>, LoginError> {
    loop {
        if let Some((record, end)) = split_record(buffer) {
            let record = record.to_vec();
            buffer.drain(..end);
            return Ok(record);
        }
        if let Some((length, _)) = buffer.split_first_chunk::<2>()
            && usize::from(u16::from_be_bytes(*length)) > max
        {
            return Err(HandshakeError::BadLength.into());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Serves `Login` and `Register`, and nothing else, until one succeeds.
async fn first_requests(
    shared: &Arc<Shared>,
    mut link: Link,
    link_key: [u8; 32],
    first: Vec<u8>,
    from: IpAddr,
) -> Result<Entered, LoginError> {
    let penalty = Penalty::new(shared, from);
    let mut messages = vec![Bytes::from(first)];
    for _ in 0..MAX_ATTEMPTS {
        while messages.is_empty() {
            link.exchange(Reading::On, &mut messages).await?;
        }
        // A device says nothing more before it is answered.
        let message = messages.remove(0);
        let Ok(frame) = DeviceFrame::decode(message.clone()) else {
            refuse(link, &message).await?;
            return Err(LoginError::Malformed);
        };
        let request_id = frame.request_id;
        let answer = match enter(shared, link_key, frame.request, from).await {
            Ok(Registered::Welcome(Welcome { seat, answer })) => {
                link.push(&RelayFrame { request_id, answer })?;
                penalty.waive();
                shared.metrics.logins.inc();
                link.limit_messages(MAX_LINK_MESSAGE);
                return Ok(Entered { seat, link, link_key, messages });
            }
            Ok(Registered::Superseded(records)) => records,
            Err(failure) => Answer::Failure(failure),
        };
        shared.metrics.answered(&answer);
        if request_id != 0 {
            link.push(&RelayFrame { request_id, answer })?;
            link.write_some().await?;
        }
    }
    link.close().await;
    Err(LoginError::TooManyAttempts)
}

async fn enter(
    shared: &Arc<Shared>,
    link_key: [u8; 32],
    request: Request,
    from: IpAddr,
) -> Result<Registered, Failure> {
    let shared = Arc::clone(shared);
    let work = move || match request {
        Request::Login { newest_head } => {
            // Also of a device that the relay does not know: it may have come after the backup.
            newest_head.iter().for_each(|head| shared.shown_head(head));
            handler::login(&shared, &link_key).map(Registered::Welcome)
        }
        Request::Register { token, record } => {
            let address = address_key(from);
            handler::register(&shared, &link_key, token.as_ref(), record, address)
        }
        _ => Err(ErrorCode::NotRegistered.into()),
    };
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or(Err(ErrorCode::Internal.into()))
}

/// Answers a frame that is not understood and ends the connection.
pub(crate) async fn refuse(mut link: Link, message: &[u8]) -> Result<(), LinkError> {
    let request_id = DeviceFrame::peek_request_id(message);
    if request_id != 0 {
        let answer = Answer::Failure(ErrorCode::Malformed.into());
        link.push(&RelayFrame { request_id, answer })?;
    }
    link.close().await;
    Ok(())
}
