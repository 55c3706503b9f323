//! Newcomers who all come into the Lobby at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatcore::ids::RoomId;
use chatcore::membership::{Joined, Statement, StatementFields};
use chatcore::noise::transport::split_record;
use chatcore::wire::relay::{Answer, DeviceFrame, More, RelayFrame, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Sides;
use super::connect::{Connected, Crowd, connect, stopped};
use super::process::{check_open_files, cpu_time};
use crate::error::BenchError;
use crate::figure::{Figure, as_f64};
use crate::fixtures::User;

/// Newcomers who register at the same time.
const AT_ONCE: usize = 64;
/// Time in which a client gathers what is new in an open room before it reads.
const GATHER: Duration = Duration::from_secs(2);
/// Files a process has open beside its connections, generously.
const OTHER_FILES: u64 = 200;

/// Measures how long it takes until `count` newcomers have registered, joined the Lobby and read of
/// each other, all of them connected the whole time. Their own work, which is to verify what they
/// read, is left out. Beside it as many registrations alone.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_lobby(sides: &Sides<'_>, count: usize) -> Result<Vec<Figure>, BenchError> {
    check_open_files(2 * count as u64 + OTHER_FILES)?;
    let start = Instant::now();
    Crowd::register(sides.relay, count).await?;
    let alone = start.elapsed();

    let cpu = sides.relay_pid.and_then(cpu_time);
    let (at_once, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    let start = Instant::now();
    for n in 0..count {
        let (target, at_once) = (sides.relay.clone(), Arc::clone(&at_once));
        tasks.spawn(async move {
            let user = User::new(&format!("newcomer {n}"));
            let place = at_once.acquire().await;
            let token = target.token.clone();
            let record = user.record.signed().clone();
            let connected = connect(&target, &user, Request::Register { token, record }).await?;
            drop(place);
            let lobby = connected.lobby;
            let lobby = lobby.ok_or_else(|| BenchError::Unexpected("no Lobby".to_owned()))?;
            Newcomer { connected, lobby, next_id: 2, known: 0, cursor: 0 }.stay(&user, count).await
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.map_err(stopped)??;
    }
    let all = start.elapsed();
    let used = sides.relay_pid.and_then(cpu_time).zip(cpu).map(|(after, before)| after - before);
    let mut figures = vec![
        Figure::new("newcomers all in the Lobby", all.as_secs_f64(), "s")
            .beside(Some(alone.as_secs_f64())),
    ];
    if let Some(used) = used {
        let each = used.as_secs_f64() * 1e3 / as_f64(count as u64);
        figures.push(Figure::new("relay CPU per newcomer", each, "ms"));
    }
    Ok(figures)
}

struct Newcomer {
    connected: Connected,
    lobby: RoomId,
    next_id: u64,
    known: usize,
    cursor: u64,
}

impl Newcomer {
    /// Joins, and reads until everybody is known.
    async fn stay(mut self, user: &User, count: usize) -> Result<Connected, BenchError> {
        let fields = StatementFields { room: self.lobby, counter: 1, joined: Joined::Yes };
        let identity = user.record.identity_key();
        let statement = Statement::sign(fields, identity, &user.cert, &user.keys);
        self.ask(Request::PutStatement(statement.signed().clone())).await?;
        self.read_room().await?;
        let mut due = None;
        while self.known < count {
            let answer = match due {
                None => self.answer().await?,
                Some(at) => tokio::select! {
                    answer = self.answer() => answer?,
                    () = sleep_until(at) => {
                        due = None;
                        self.read_room().await?;
                        continue;
                    }
                },
            };
            match answer {
                Answer::RoomChanged(_) => {
                    due.get_or_insert(Instant::now() + GATHER);
                }
                Answer::RoomData { statements, more, .. } => {
                    self.known += statements.len();
                    self.cursor = statements.last().map_or(self.cursor, |(n, _)| *n);
                    if more == More::Yes {
                        self.read_room().await?;
                    }
                }
                Answer::Done => {}
                Answer::Failure(failure) => return Err(BenchError::Refused(failure.code)),
                other => return Err(BenchError::Unexpected(format!("{other:?}"))),
            }
        }
        Ok(self.connected)
    }

    async fn read_room(&mut self) -> Result<(), BenchError> {
        let (room, after_statement) = (self.lobby, self.cursor);
        self.ask(Request::GetRoom { room, from_seq: 1, after_statement }).await
    }

    async fn ask(&mut self, request: Request) -> Result<(), BenchError> {
        let (mut message, mut out) = (Vec::new(), Vec::new());
        DeviceFrame { request_id: self.next_id, request }.encode(&mut message);
        self.next_id += 1;
        self.connected.transport.seal(&message, &mut out)?;
        let sent = self.connected.stream.write_all(&out).await;
        sent.map_err(BenchError::system("writing to the relay"))
    }

    /// Waits for what the relay says next; nothing is lost if the wait is cut off.
    async fn answer(&mut self) -> Result<Answer, BenchError> {
        let Connected { stream, transport, rest, .. } = &mut self.connected;
        loop {
            if let Some((record, end)) = split_record(rest) {
                let message = transport.open(record)?;
                rest.drain(..end);
                let Some(message) = message else { continue };
                return Ok(RelayFrame::decode(Bytes::from(message))?.answer);
            }
            let reading = "reading from the relay";
            if stream.read_buf(rest).await.map_err(BenchError::system(reading))? == 0 {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(BenchError::System { what: reading, source });
            }
        }
    }
}
