//! The loop of one client: commands, socket and timers go into the engine; each step is saved,
//! then sent, then shown.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Notice, Options, Reconnect};
use super::connection::{Activity, Connection};
use super::dial::Proxy;
use super::error::ClientError;
use super::op::{Asked, Op, Reply};
use super::silence::{Awaited, Silence};
use super::transfer::{Next, Unreadable, Uploading, remove_spooled, sweep_spool};
use super::{now, os_rng};
use crate::addresses::RelayAddress;
use crate::crypto::DhSecret;
use crate::engine::{
    Command, Context, DRIVER_REQUESTS, Engine, EngineError, Event, ProfileView, Step, query,
    spooled,
};
use crate::store::{ApplyChanges, Store, StoreError};
use crate::wire::relay::{Answer, CloseReason, DeviceFrame, RelayFrame, Request, RequestId};

/// Notices held for a slow reader before the socket is left alone.
const MAX_NOTICES: usize = 1_024;
/// Bytes waiting to be written before the handle's commands wait.
const MAX_OUTGOING: usize = 4 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs a client until it is closed.
pub(super) fn run(
    store: Box<dyn ApplyChanges + Send>,
    options: Options,
    ops: mpsc::Receiver<Op>,
    notices: mpsc::Sender<Notice>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let error = match runtime {
        Ok(runtime) => {
            let backlog = VecDeque::new();
            let driver = Driver {
                store,
                options,
                ops,
                notices,
                backlog,
                asked: BTreeMap::new(),
                next_ticket: 0,
                settling: Vec::new(),
                waiting_online: Vec::new(),
                requests: BTreeMap::new(),
                upload: None,
                uploads: 0,
                next_request: DRIVER_REQUESTS + 1,
                answered: Instant::now(),
                was_replaced: false,
            };
            runtime.block_on(driver.run());
            return;
        }
        Err(error) => ClientError::Engine(EngineError::Store(StoreError::Io(error.kind()))),
    };
    // A reader that is gone needs no farewell.
    let _gone = notices.blocking_send(Notice::Stopped(error));
}

struct Driver {
    store: Box<dyn ApplyChanges + Send>,
    options: Options,
    ops: mpsc::Receiver<Op>,
    notices: mpsc::Sender<Notice>,
    backlog: VecDeque<Notice>,
    /// Callers that wait for the event with a ticket.
    asked: BTreeMap<u64, Asked>,
    next_ticket: u64,
    settling: Vec<Reply<()>>,
    waiting_online: Vec<Reply<()>>,
    requests: BTreeMap<RequestId, Asker>,
    /// The blob that is brought to the relay while its message waits.
    upload: Option<(u64, Uploading)>,
    uploads: u64,
    next_request: RequestId,
    /// When the last of `requests` was answered, or the first was asked.
    answered: Instant,
    /// Another process with the same keys took our place on the last connection, or the operator
    /// cut it.
    was_replaced: bool,
}

/// The one who waits for an answer of the relay.
enum Asker {
    Handle(Reply<Answer>),
    /// An upload, by its number.
    Upload(u64),
}

/// Reason for which the loop woke.
enum Woke<'n> {
    Op(Box<Op>),
    Close,
    Socket(Result<Activity, ClientError>),
    Reader(Option<mpsc::Permit<'n, Notice>>),
    Timer,
}

impl Woke<'_> {
    fn op(op: Option<Op>) -> Self {
        match op {
            None | Some(Op::Close) => Self::Close,
            Some(op) => Self::Op(Box::new(op)),
        }
    }
}

/// Why a connection's loop ended.
enum End {
    Closed,
    Failed(ClientError),
}

impl Driver {
    async fn run(mut self) {
        let end = self.serve().await;
        let error = match end {
            End::Failed(error) => {
                self.fail_waiters(error);
                self.backlog.push_back(Notice::Stopped(error));
                error
            }
            End::Closed => {
                self.ops.close();
                ClientError::Closed
            }
        };
        // Whoever still asks is told why; whoever still reads gets what is left.
        let notices = self.notices.clone();
        let mut asked = true;
        while asked || !self.backlog.is_empty() {
            tokio::select! {
                op = self.ops.recv(), if asked => match op {
                    None => asked = false,
                    Some(Op::Close) => self.ops.close(),
                    // What came before the end can still be shown.
                    Some(Op::Look(look)) => look(&*self.store),
                    Some(op) => op.refuse(error),
                },
                permit = notices.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => self.show(permit),
                    Err(_) => self.backlog.clear(),
                },
            }
        }
    }

    async fn serve(&mut self) -> End {
        let mut rng = os_rng();
        let mut context = Context { store: &*self.store, now: now(), rng: &mut rng };
        let mut engine = match Engine::new(&mut context) {
            Ok(engine) => engine,
            Err(error) => return End::Failed(error.into()),
        };
        if self.options.reconnect == Reconnect::Always {
            engine.attend();
        }
        if let Some(folder) = &self.options.spool {
            match spooled(&*self.store) {
                Ok(waiting) => sweep_spool(folder, &waiting),
                Err(error) => return End::Failed(error.into()),
            }
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = match self.connect(&mut engine).await {
                Ok(opened) => opened,
                Err(end) => return end,
            };
            let error = match opened {
                Ok(connection) => {
                    let since = Instant::now();
                    let end = self.converse(&mut engine, connection).await;
                    // A relay that hangs up at once is not asked again at once.
                    if since.elapsed() >= LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                    match end {
                        End::Closed => return End::Closed,
                        End::Failed(error) => error,
                    }
                }
                Err(error) => error,
            };
            engine.disconnected();
            if self.options.reconnect == Reconnect::Never || error.is_final() {
                return End::Failed(error);
            }
            self.fail_waiters(error);
            self.backlog.push_back(Notice::Disconnected(error));
            if std::mem::take(&mut self.was_replaced) {
                // Two that push each other out would do nothing else.
                pause = LONGEST_PAUSE;
            }
            let jitter = rng.random_range(0.5..1.0);
            let until = Instant::now() + pause.mul_f64(jitter);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if let Err(end) = self.wait_offline(&mut engine, until).await {
                return end;
            }
        }
    }

    fn fail_waiters(&mut self, error: ClientError) {
        for asked in std::mem::take(&mut self.asked).into_values() {
            asked.refuse(error);
        }
        for reply in self.settling.drain(..).chain(self.waiting_online.drain(..)) {
            let _gone = reply.send(Err(error));
        }
        self.upload = None;
        for asker in std::mem::take(&mut self.requests).into_values() {
            if let Asker::Handle(reply) = asker {
                let _gone = reply.send(Err(error));
            }
        }
    }

    /// Connects, and serves the handle meanwhile: a relay that is silent holds nobody up.
    async fn connect(
        &mut self,
        engine: &mut Engine,
    ) -> Result<Result<Connection, ClientError>, End> {
        let (way, first) = match self.first_request(engine) {
            Ok(first) => first,
            Err(error) => return Ok(Err(error)),
        };
        let proxy = self.options.proxy.clone();
        let addresses = way.profile.addresses.in_order(now());
        let opening = open_first(&addresses, proxy.as_ref(), &way, &first);
        tokio::pin!(opening);
        let notices = self.notices.clone();
        loop {
            let woke = tokio::select! {
                opened = &mut opening => return Ok(opened),
                op = self.ops.recv() => Woke::op(op),
                permit = notices.reserve(), if !self.backlog.is_empty() => Woke::Reader(permit.ok()),
            };
            self.serve_offline(engine, woke)?;
        }
    }

    fn first_request(&mut self, engine: &mut Engine) -> Result<(Way, DeviceFrame), ClientError> {
        let store: &dyn Store = &*self.store;
        let way = Way { profile: query::profile(store)?, link: query::link_key(store)? };
        let mut rng = os_rng();
        let mut context = Context { store: &*self.store, now: now(), rng: &mut rng };
        let (first, step) = engine.first_request(&mut context)?;
        self.apply(None, step)?;
        Ok((way, first))
    }

    /// Serves the handle while there is no connection; who wants one does not wait out the pause.
    async fn wait_offline(&mut self, engine: &mut Engine, until: Instant) -> Result<(), End> {
        let notices = self.notices.clone();
        let (soonest, mut until) = (Instant::now() + FIRST_PAUSE, until);
        loop {
            let woke = tokio::select! {
                op = self.ops.recv() => Woke::op(op),
                permit = notices.reserve(), if !self.backlog.is_empty() => Woke::Reader(permit.ok()),
                () = sleep_until(until) => return Ok(()),
            };
            if let Woke::Op(op) = &woke
                && let Op::Online { .. } = **op
            {
                until = until.min(soonest);
            }
            self.serve_offline(engine, woke)?;
        }
    }

    fn serve_offline(&mut self, engine: &mut Engine, woke: Woke<'_>) -> Result<(), End> {
        match woke {
            Woke::Close | Woke::Reader(None) => return Err(End::Closed),
            Woke::Op(op) => self.handle_op(engine, None, *op).map_err(End::Failed)?,
            Woke::Reader(Some(permit)) => self.show(permit),
            Woke::Socket(_) | Woke::Timer => {}
        }
        Ok(())
    }

    fn show(&mut self, permit: mpsc::Permit<'_, Notice>) {
        if let Some(notice) = self.backlog.pop_front() {
            permit.send(notice);
        }
    }

    /// Serves one connection.
    async fn converse(&mut self, engine: &mut Engine, mut connection: Connection) -> End {
        let notices = self.notices.clone();
        let mut silence = Silence::new(Instant::now());
        loop {
            let wake = next_wake(engine, silence.next(self.awaited(&connection)));
            let reading = self.backlog.len() < MAX_NOTICES;
            let writable = connection.backlog() < MAX_OUTGOING;
            let woke = tokio::select! {
                op = self.ops.recv(), if writable => Woke::op(op),
                activity = connection.progress(reading) => Woke::Socket(activity),
                permit = notices.reserve(), if !self.backlog.is_empty() => Woke::Reader(permit.ok()),
                () = sleep_until(wake) => Woke::Timer,
            };
            let result = match woke {
                Woke::Close | Woke::Reader(None) => {
                    connection.shut_down().await;
                    return End::Closed;
                }
                Woke::Op(op) => self.handle_op(engine, Some(&mut connection), *op),
                Woke::Reader(Some(permit)) => {
                    self.show(permit);
                    Ok(())
                }
                Woke::Socket(Ok(Activity::Received)) => {
                    silence.heard = Instant::now();
                    self.handle_frames(engine, &mut connection)
                }
                Woke::Socket(Ok(Activity::Sent)) => {
                    silence.spoken = Instant::now();
                    Ok(())
                }
                Woke::Socket(Err(error)) => Err(error),
                Woke::Timer => self.handle_wake(engine, &mut connection, &silence),
            };
            let result = result
                .and_then(|()| self.go_on_uploading(engine, &mut connection))
                .and_then(|()| self.settle(engine, &mut connection));
            if let Err(error) = result {
                return End::Failed(error);
            }
        }
    }

    fn awaited(&self, connection: &Connection) -> Awaited {
        Awaited {
            answer: (!self.requests.is_empty()).then_some(self.answered),
            is_writing: connection.backlog() > 0,
            is_settling: !self.settling.is_empty(),
        }
    }

    fn handle_wake(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
        silence: &Silence,
    ) -> Result<(), ClientError> {
        let (at, awaited) = (Instant::now(), self.awaited(connection));
        if silence.is_over(at, awaited) {
            return Err(ClientError::Unreachable(io::ErrorKind::TimedOut));
        }
        if silence.wants_ping(at, awaited) {
            let request_id = DRIVER_REQUESTS;
            connection.push(&DeviceFrame { request_id, request: Request::Ping })?;
        }
        if silence.has_settled(at) {
            for reply in self.settling.drain(..) {
                let _gone = reply.send(Ok(()));
            }
        }
        let mut rng = os_rng();
        let mut context = Context { store: &*self.store, now: now(), rng: &mut rng };
        let step = engine.handle_timeout(&mut context)?;
        self.apply(Some(connection), step)
    }

    fn handle_frames(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
    ) -> Result<(), ClientError> {
        while let Some(frame) = connection.next_frame()? {
            self.handle_frame(engine, connection, frame)?;
        }
        Ok(())
    }

    fn handle_frame(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
        frame: RelayFrame,
    ) -> Result<(), ClientError> {
        if frame.request_id > DRIVER_REQUESTS {
            let Some(asker) = self.requests.remove(&frame.request_id) else { return Ok(()) };
            self.answered = Instant::now();
            match asker {
                Asker::Handle(reply) => {
                    let _gone = reply.send(Ok(frame.answer));
                }
                Asker::Upload(number) => {
                    self.upload_answered(engine, connection, number, frame.answer)?;
                }
            }
            return Ok(());
        }
        let mut rng = os_rng();
        let mut context = Context { store: &*self.store, now: now(), rng: &mut rng };
        let step = engine.handle_frame(&mut context, frame)?;
        self.apply(Some(connection), step)
    }

    fn handle_op(
        &mut self,
        engine: &mut Engine,
        connection: Option<&mut Connection>,
        op: Op,
    ) -> Result<(), ClientError> {
        match op {
            Op::Command { command, reply } => {
                let result = self.command(engine, connection, command);
                let fatal = result.err().filter(ClientError::is_final);
                let _gone = reply.send(result);
                fatal.map_or(Ok(()), Err)
            }
            Op::Ask { command, asked } => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.asked.insert(ticket, asked);
                let result = self.command(engine, connection, command(ticket));
                if let Err(error) = result
                    && let Some(asked) = self.asked.remove(&ticket)
                {
                    asked.refuse(error);
                }
                result.err().filter(ClientError::is_final).map_or(Ok(()), Err)
            }
            Op::Online { reply } => {
                self.waiting_online.push(reply);
                Ok(())
            }
            Op::Request { request, reply } => {
                let Some(connection) = connection.filter(|_| engine.is_online()) else {
                    let offline = ClientError::Unreachable(io::ErrorKind::NotConnected);
                    let _gone = reply.send(Err(offline));
                    return Ok(());
                };
                self.request(connection, request, Asker::Handle(reply))
            }
            Op::Settle { reply } => {
                self.settling.push(reply);
                Ok(())
            }
            Op::Look(look) => {
                look(&*self.store);
                Ok(())
            }
            Op::Close => Ok(()),
        }
    }

    fn request(
        &mut self,
        connection: &mut Connection,
        request: Request,
        asker: Asker,
    ) -> Result<(), ClientError> {
        let request_id = self.next_request;
        self.next_request += 1;
        if self.requests.is_empty() {
            self.answered = Instant::now();
        }
        self.requests.insert(request_id, asker);
        connection.push(&DeviceFrame { request_id, request })
    }

    /// Begins to bring a blob to the relay, if one waits and none is under way.
    fn go_on_uploading(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
    ) -> Result<(), ClientError> {
        while self.upload.is_none()
            && let Some(next) = engine.next_upload(&*self.store, now())?
        {
            let blob = next.manifest.blob_id;
            let upload = match Uploading::open(next, self.options.spool.as_deref()) {
                Ok(upload) => upload,
                Err(Unreadable::Gone) => {
                    self.command(engine, Some(connection), Command::UploadLost(blob))?;
                    continue;
                }
                Err(Unreadable::ForNow) => {
                    engine.skip_upload(&blob);
                    continue;
                }
            };
            let begin = upload.begin();
            self.uploads += 1;
            self.upload = Some((self.uploads, upload));
            self.request(connection, begin, Asker::Upload(self.uploads))?;
        }
        Ok(())
    }

    fn upload_answered(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
        number: u64,
        answer: Answer,
    ) -> Result<(), ClientError> {
        // Else of one that was refused meanwhile.
        let Some((_, mut upload)) = self.upload.take_if(|(current, _)| *current == number) else {
            return Ok(());
        };
        let blob = upload.blob();
        let command = match upload.answered(answer) {
            Next::Ask(requests) => {
                self.upload = Some((number, upload));
                for request in requests {
                    self.request(connection, request, Asker::Upload(number))?;
                }
                return Ok(());
            }
            Next::Done => Command::Uploaded(blob),
            Next::Refused(failure) => Command::UploadRefused { blob, failure },
            Next::Lost => Command::UploadLost(blob),
            Next::Unreadable => {
                engine.skip_upload(&blob);
                return Ok(());
            }
            Next::Misbehaved => return Err(EngineError::RelayMisbehaved.into()),
        };
        let is_over = matches!(command, Command::Uploaded(_) | Command::UploadLost(_));
        self.command(engine, Some(connection), command)?;
        if let Some(folder) = self.options.spool.as_deref().filter(|_| is_over) {
            remove_spooled(folder, &blob);
        }
        Ok(())
    }

    fn command(
        &mut self,
        engine: &mut Engine,
        connection: Option<&mut Connection>,
        command: Command,
    ) -> Result<(), ClientError> {
        let mut rng = os_rng();
        let mut context = Context { store: &*self.store, now: now(), rng: &mut rng };
        let step = engine.handle_command(&mut context, command)?;
        self.apply(connection, step)
    }

    /// Saves, then sends, then shows.
    fn apply(
        &mut self,
        connection: Option<&mut Connection>,
        step: Step,
    ) -> Result<(), ClientError> {
        if !step.changes.is_empty() {
            self.store.apply(&step.changes)?;
        }
        if let Some(connection) = connection {
            for frame in &step.frames {
                connection.push(frame)?;
            }
        }
        let mut ended = None;
        for event in step.events {
            if let Some(ticket) = event.ticket() {
                if let Some(asked) = self.asked.remove(&ticket) {
                    asked.answer(event);
                }
                continue;
            }
            match &event {
                Event::Refused(failure) => ended = Some(ClientError::Refused(*failure)),
                Event::Revoked => ended = Some(EngineError::Revoked.into()),
                Event::Closing(CloseReason::Replaced | CloseReason::Kicked) => {
                    self.was_replaced = true;
                }
                _ => {}
            }
            self.backlog.push_back(Notice::Event(Box::new(event)));
        }
        ended.map_or(Ok(()), Err)
    }

    /// Answers those who wait for everything to be done.
    fn settle(
        &mut self,
        engine: &mut Engine,
        connection: &mut Connection,
    ) -> Result<(), ClientError> {
        if engine.is_online() {
            for reply in self.waiting_online.drain(..) {
                let _gone = reply.send(Ok(()));
            }
        }
        if self.settling.is_empty() || !engine.is_settled() {
            return Ok(());
        }
        if engine.has_due_receipts() {
            self.command(engine, Some(connection), Command::FlushReceipts)?;
        }
        // A receipt that could not go now goes when there is a session: that may never be.
        if engine.is_settled() && connection.backlog() == 0 {
            for reply in self.settling.drain(..) {
                let _gone = reply.send(Ok(()));
            }
        }
        Ok(())
    }
}

/// When the loop must look again though nothing came.
fn next_wake(engine: &Engine, silence: Instant) -> Instant {
    let now = now();
    match engine.poll_timeout(now) {
        Some(at) => silence.min(Instant::now() + Duration::from_millis(at.since(now))),
        None => silence,
    }
}

/// Time after which the next address of a relay is tried beside those before it.
const NEXT_ADDRESS: Duration = Duration::from_secs(2);

/// Where the relay is, and how each side proves itself.
struct Way {
    profile: ProfileView,
    link: DhSecret,
}

/// Connects at the first address where the relay answers: one that is silent keeps nobody from the next for long. The
/// error is that of the first one.
async fn open_first(
    addresses: &[&RelayAddress],
    proxy: Option<&Proxy>,
    way: &Way,
    first: &DeviceFrame,
) -> Result<Connection, ClientError> {
    let open =
        |known| Box::pin(Connection::open((known, proxy), &way.profile.relay, &way.link, first));
    let mut waiting = addresses.iter().copied();
    let mut attempts = Vec::new();
    let mut failed = None;
    loop {
        let next = waiting.next();
        let has_more = next.is_some();
        attempts.extend(next.map(open));
        if attempts.is_empty() {
            return Err(failed.unwrap_or(ClientError::Unreachable(io::ErrorKind::NotFound)));
        }
        let ended = poll_fn(|context| {
            let ready = attempts.iter_mut().enumerate().find_map(|(i, attempt)| {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(ended) => Some((i, ended)),
                    Poll::Pending => None,
                }
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            (i, ended) = ended => {
                drop(attempts.remove(i));
                match ended {
                    Ok(connection) => return Ok(connection),
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
            () = sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
}
