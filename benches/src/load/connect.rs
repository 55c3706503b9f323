//! Users who register and log in.

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::RoomId;
use chatcore::invite::InviteLink;
use chatcore::noise::transport::{frame_record, split_record};
use chatcore::noise::{ClientHandshake, Transport};
use chatcore::wire::relay::{Answer, DeviceFrame, RelayFrame, Request};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::error::BenchError;
use crate::fixtures::User;

/// A relay to connect to.
pub type Target = InviteLink;

/// Users who connect at the same time.
const AT_ONCE: usize = 64;

/// Users of a relay.
#[derive(Debug, Clone)]
pub struct Crowd(Vec<Arc<User>>);

impl Crowd {
    /// Registers `count` new users; none stays connected.
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn register(target: &Target, count: usize) -> Result<Self, BenchError> {
        // So that a relay that is used for several runs knows no name twice.
        let run: u32 = rand::rng().random();
        let mut users = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for n in 0..count {
            if tasks.len() >= AT_ONCE {
                users.extend(tasks.join_next().await.transpose().map_err(stopped)?);
            }
            let target = target.clone();
            tasks.spawn(async move {
                let user = User::new(&format!("{run:08x} {n}"));
                let token = target.token.clone();
                let record = user.record.signed().clone();
                connect(&target, &user, Request::Register { token, record }).await?;
                Ok::<_, BenchError>(Arc::new(user))
            });
        }
        while let Some(user) = tasks.join_next().await {
            users.push(user.map_err(stopped)?);
        }
        Ok(Self(users.into_iter().collect::<Result<_, _>>()?))
    }

    /// Returns the users.
    #[must_use]
    pub fn users(&self) -> &[Arc<User>] {
        &self.0
    }

    /// Logs everybody in, in the order of [`Self::users`].
    ///
    /// # Errors
    /// [`BenchError`].
    pub async fn log_in(&self, target: &Target) -> Result<Vec<Connected>, BenchError> {
        let mut connections = Vec::with_capacity(self.0.len());
        for group in self.0.chunks(AT_ONCE) {
            let tasks: Vec<_> = group
                .iter()
                .map(|user| {
                    let (target, user) = (target.clone(), Arc::clone(user));
                    tokio::spawn(async move {
                        connect(&target, &user, Request::Login { newest_head: None }).await
                    })
                })
                .collect();
            for task in tasks {
                connections.push(task.await.map_err(stopped)??);
            }
        }
        Ok(connections)
    }
}

/// Says that a task did not end by itself.
pub(super) fn stopped(error: tokio::task::JoinError) -> BenchError {
    BenchError::System { what: "running a task", source: error.into() }
}

/// A logged-in device.
#[derive(Debug)]
pub struct Connected {
    pub(super) stream: TcpStream,
    pub(super) transport: Transport,
    /// Bytes behind the answer.
    pub(super) rest: Vec<u8>,
    /// The room that newcomers come into.
    pub(super) lobby: Option<RoomId>,
}

/// Connects, shakes hands, and waits until the first request is answered.
pub(super) async fn connect(
    target: &Target,
    user: &User,
    first: Request,
) -> Result<Connected, BenchError> {
    let lost = BenchError::system;
    let address = (target.host.as_str(), target.port);
    let mut stream = TcpStream::connect(address).await.map_err(lost("connecting to the relay"))?;
    stream.set_nodelay(true).map_err(lost("connecting to the relay"))?;
    let (one, state) = ClientHandshake::start(&target.relay, &user.keys.link, &mut rand::rng())?;
    let mut buffer = Vec::new();
    send(&mut stream, &one).await?;
    let two = record(&mut stream, &mut buffer).await?;
    let mut request = Vec::new();
    DeviceFrame { request_id: 1, request: first }.encode(&mut request);
    let (three, mut transport) = state.finish(&two, &request)?;
    send(&mut stream, &three).await?;
    loop {
        let record = record(&mut stream, &mut buffer).await?;
        let Some(message) = transport.open(&record)? else { continue };
        match RelayFrame::decode(Bytes::from(message))?.answer {
            Answer::LoggedIn(login) => {
                let lobby = login.lobby;
                return Ok(Connected { stream, transport, rest: buffer, lobby });
            }
            Answer::Failure(failure) => return Err(BenchError::Refused(failure.code)),
            other => return Err(BenchError::Unexpected(format!("{other:?}"))),
        }
    }
}

async fn send(stream: &mut TcpStream, record: &[u8]) -> Result<(), BenchError> {
    let sent = stream.write_all(&frame_record(record)).await;
    sent.map_err(BenchError::system("writing to the relay"))
}

async fn record(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>, BenchError> {
    let reading = "reading from the relay";
    loop {
        if let Some((record, end)) = split_record(buffer) {
            let record = record.to_vec();
            buffer.drain(..end);
            return Ok(record);
        }
        let read = stream.read_buf(buffer).await.map_err(BenchError::system(reading))?;
        if read == 0 {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(BenchError::System { what: reading, source });
        }
    }
}
