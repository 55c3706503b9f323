//! Attacks on a relay, and the time that messages of an honest pair take meanwhile.
//!
//! The attackers are a process of their own, run with the lowest priority where that can be had: in earnest they have
//! machines of their own.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatcore::ids::{DeliveryTag, DeviceAddress, IdempotencyKey, RegisterId};
use chatcore::noise::transport::split_record;
use chatcore::room::RegisterSecret;
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use chatcore::wire::limits::{MAX_CLAIMS, MAX_TTL};
use chatcore::wire::relay::{Answer, DeviceFrame, RelayFrame, Request, Who};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{Connected, Crowd, Target, connect};
use super::line::{Line, Pace, Tally};
use super::process::{Process, Role, memory, peak_memory};
use super::protocol::{Relayed, Shape};
use crate::error::BenchError;
use crate::figure::{Figure, as_f64, percentile};
use crate::fixtures::User;

/// Time before a measurement counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time between two messages of the honest pair.
const BETWEEN: Duration = Duration::from_millis(5);
/// Time that a request of an attacker may hang before it counts as stuck.
const STUCK: Duration = Duration::from_millis(200);
/// Silent sockets that each attacker holds.
const SOCKETS: usize = 20;
/// Entries of the register that is asked for again and again, and their bytes.
const ENTRIES: (u64, usize) = (8, 120_000);

/// Kinds of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// They ask for what is large and read nothing.
    Unread,
    /// They send large envelopes to people who are away.
    Envelopes,
    /// They ask for what is dear: the list of rooms, whole rooms, whole logs.
    Questions,
    /// They claim the prekeys of all others, as whoever begins a conversation does.
    Claims,
    /// They log in again and again.
    Logins,
    /// They open sockets and say nothing.
    Sockets,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unread, Self::Envelopes, Self::Questions, Self::Claims, Self::Logins, Self::Sockets];

    const fn name(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Envelopes => "envelopes",
            Self::Questions => "questions",
            Self::Claims => "claims",
            Self::Logins => "logins",
            Self::Sockets => "sockets",
        }
    }

    const fn latency(self) -> &'static str {
        match self {
            Self::Unread => "p99, answers unread",
            Self::Envelopes => "p99, flood of envelopes",
            Self::Questions => "p99, dear questions",
            Self::Claims => "p99, claims of prekeys",
            Self::Logins => "p99, flood of logins",
            Self::Sockets => "p99, silent sockets",
        }
    }
}

/// Runs each attack against a relay of its own, as it is shipped. Prints the highest memory, and the latency of an
/// honest pair under the attack and after it, beside the latency before.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_attack(
    attack: Attack,
    attackers: usize,
    time: Duration,
    folder: &std::path::Path,
) -> Result<Vec<Figure>, BenchError> {
    let relay = Process::start(&Role::Shipped(folder.join(attack.name())))?;
    let (link, pid) = (relay.link()?, relay.pid());
    let honest = Crowd::register(&link, 2).await?;
    let quiet = latency(&link, &honest, time).await?;
    let fighters = Attackers::start(attack, attackers, &link)?;
    let under = latency(&link, &honest, time).await?;
    drop(fighters);
    tokio::time::sleep(WARM_UP).await;
    let after = latency(&link, &honest, time).await?;
    let mib = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| as_f64(bytes) / 1_048_576.0);
    let figures = vec![
        Figure::new(attack.latency(), under, "us").beside(Some(quiet)),
        Figure::new("  p99 afterwards", after, "us").beside(Some(quiet)),
        Figure::new("  memory at most", mib(peak_memory(pid)), "MiB")
            .beside(Some(mib(memory(pid)))),
    ];
    relay.stop()?;
    Ok(figures)
}

/// Returns the 99th percentile of the time from sending to arrival between two users, in microseconds.
async fn latency(link: &Target, pair: &Crowd, time: Duration) -> Result<f64, BenchError> {
    let shape = Shape { size: 512, batch: 1, is_stamped: true };
    let tally = Arc::new(Tally::new());
    let mut lines = JoinSet::new();
    let start = Instant::now() + WARM_UP;
    for (user, connected) in pair.log_in(link).await?.into_iter().enumerate() {
        let Some(partner) = pair.users().get(user ^ 1) else { continue };
        let protocol = Relayed::new(connected.transport, vec![partner.address()], shape);
        let line = Line::new(connected.stream, protocol, connected.rest);
        let pace = match user {
            0 => Pace::Every { first: start, period: BETWEEN },
            _ => Pace::Listen,
        };
        let tally = Arc::clone(&tally);
        lines.spawn(async move { line.run(pace, &tally).await });
    }
    let ended = tokio::time::timeout(WARM_UP + time, lines.join_next()).await;
    if let Ok(Some(ended)) = ended {
        ended.map_err(super::connect::stopped)??;
    }
    lines.shutdown().await;
    percentile(&mut tally.take_latencies(), 0.99)
        .map(|nanos| as_f64(nanos) / 1_000.0)
        .ok_or_else(|| BenchError::Unexpected("nothing arrived".to_owned()))
}

/// The attackers' process; it ends when it is dropped.
struct Attackers(Child);

impl Attackers {
    fn start(attack: Attack, count: usize, link: &Target) -> Result<Self, BenchError> {
        let failed = BenchError::system("starting the attackers");
        let start = |program: &str, before: &[&str]| {
            let this = std::env::current_exe()?;
            let mut command = Command::new(program);
            command.args(before);
            if !before.is_empty() {
                command.arg(&this);
            }
            command
                .args(["--only", attack.name(), "--attackers", &count.to_string()])
                .args(["--attack", &link.to_string()])
                .stdin(Stdio::piped())
                .spawn()
        };
        let here = std::env::current_exe().map_err(BenchError::system("starting the attackers"))?;
        let child = start("nice", &["-n", "19"]).or_else(|_| start(&here.to_string_lossy(), &[]));
        child.map(Self).map_err(failed)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Attacks for ever.
///
/// # Errors
/// [`BenchError`] when not even the accounts can be made.
pub async fn attack(attack: Attack, attackers: usize, link: &Target) -> Result<(), BenchError> {
    let crowd = Crowd::register(link, attackers.max(8)).await?;
    let away: Vec<_> = crowd.users().iter().map(|user| user.address()).collect();
    let mut first = crowd.log_in(link).await?.into_iter().next().ok_or_else(nobody)?;
    let register = fill_register(&mut first).await?;
    let (lobby, user) = (first.lobby, crowd.users().first().ok_or_else(nobody)?.address().user);
    drop(first);
    let mut dear = vec![
        Request::ListRooms { after: None },
        Request::ReadRegister { register, from: 0 },
        Request::GetRecords { who: Who::User(user), after_version: 0 },
    ];
    dear.extend(lobby.map(|room| Request::GetRoom { room, from_seq: 0, after_statement: 0 }));
    let mut tasks = JoinSet::new();
    for user in crowd.users() {
        let (user, link, away, dear) = (Arc::clone(user), link.clone(), away.clone(), dear.clone());
        tasks.spawn(async move {
            loop {
                // Whatever the relay does about it: the attacker comes again.
                let _ended = match attack {
                    Attack::Unread => ask_without_reading(&link, &user, register).await,
                    Attack::Envelopes => send_envelopes(&link, &user, &away).await,
                    Attack::Questions => ask(&link, &user, &dear).await,
                    Attack::Claims => {
                        let of_all =
                            Request::ClaimPrekeys(away.iter().take(MAX_CLAIMS).copied().collect());
                        ask(&link, &user, &[of_all]).await
                    }
                    Attack::Logins => {
                        let login = Request::Login { newest_head: None };
                        connect(&link, &user, login).await.map(drop)
                    }
                    Attack::Sockets => say_nothing(&link).await,
                };
                tokio::task::yield_now().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

fn nobody() -> BenchError {
    BenchError::Unexpected("there is nobody".to_owned())
}

async fn fill_register(connected: &mut Connected) -> Result<RegisterId, BenchError> {
    let secret = RegisterSecret::generate(&mut rand::rng());
    let (entries, bytes) = ENTRIES;
    for position in 0..entries {
        let sealed = secret.seal(position, &vec![7; bytes], &mut rand::rng());
        let (write_key, entry, proof) =
            sealed.map_err(|error| BenchError::Unexpected(error.to_string()))?;
        let append = Request::AppendRegister { write_key, position, entry: entry.into(), proof };
        match connected.request(append).await? {
            Answer::Appended(_) => {}
            other => return Err(BenchError::Unexpected(format!("{other:?}"))),
        }
    }
    Ok(secret.id())
}

async fn log_in(link: &Target, user: &User) -> Result<Connected, BenchError> {
    connect(link, user, Request::Login { newest_head: None }).await
}

async fn ask_without_reading(
    link: &Target,
    user: &User,
    register: RegisterId,
) -> Result<(), BenchError> {
    let mut connected = log_in(link, user).await?;
    loop {
        let asked = connected.send(Request::ReadRegister { register, from: 0 });
        match tokio::time::timeout(STUCK, asked).await {
            Ok(sent) => sent?,
            Err(_) => break,
        }
    }
    // Until the relay has enough of it.
    let mut rest = [0; 1];
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if connected.stream.try_write(&[]).is_err()
            || connected.stream.peek(&mut rest).await.is_err()
        {
            return Ok(());
        }
    }
}

async fn send_envelopes(
    link: &Target,
    user: &User,
    away: &[DeviceAddress],
) -> Result<(), BenchError> {
    let mut connected = log_in(link, user).await?;
    loop {
        let many = (0..30).map(|_| envelope(away)).collect::<Option<Vec<_>>>();
        connected.request(Request::SendMany(many.ok_or_else(nobody)?)).await?;
    }
}

fn envelope(away: &[DeviceAddress]) -> Option<Envelope> {
    let mut rng = rand::rng();
    Some(Envelope {
        to: *away.get(rng.random_range(0..away.len()))?,
        tag: DeliveryTag::from_bytes([9; 16]),
        kind: EnvelopeKind::Session,
        blob: Bytes::from(vec![7; 32_768]),
        ttl: MAX_TTL,
        idempotency_key: IdempotencyKey::from_bytes(rng.random()),
    })
}

async fn ask(link: &Target, user: &User, dear: &[Request]) -> Result<(), BenchError> {
    let mut connected = log_in(link, user).await?;
    loop {
        for request in dear {
            connected.request(request.clone()).await?;
        }
    }
}

async fn say_nothing(link: &Target) -> Result<(), BenchError> {
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let connected = TcpStream::connect((link.host.as_str(), link.port)).await;
        sockets.push(connected.map_err(BenchError::system("connecting to the relay"))?);
    }
    for mut socket in sockets {
        let mut rest = Vec::new();
        // It ends when the relay pushes it out.
        let _ended = socket.read_to_end(&mut rest).await;
    }
    Ok(())
}

impl Connected {
    async fn send(&mut self, request: Request) -> Result<(), BenchError> {
        let (mut message, mut out) = (Vec::new(), Vec::new());
        DeviceFrame { request_id: 2, request }.encode(&mut message);
        self.transport.seal(&message, &mut out)?;
        let sent = self.stream.write_all(&out).await;
        sent.map_err(BenchError::system("writing to the relay"))
    }

    /// Asks, and waits for the answer.
    async fn request(&mut self, request: Request) -> Result<Answer, BenchError> {
        self.send(request).await?;
        loop {
            while let Some((record, end)) = split_record(&self.rest) {
                let opened = self.transport.open(record)?;
                self.rest.drain(..end);
                let Some(message) = opened else { continue };
                let frame = RelayFrame::decode(Bytes::from(message))?;
                if frame.request_id == 2 {
                    return Ok(frame.answer);
                }
            }
            let read = self.stream.read_buf(&mut self.rest).await;
            if read.map_err(BenchError::system("reading from the relay"))? == 0 {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(BenchError::System { what: "reading from the relay", source });
            }
        }
    }
}
