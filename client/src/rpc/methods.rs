//! JSON-RPC 2.0 (jsonrpc.org/specification), a JSON value a line: what other programs ask of a client.
//!
//! Methods do what commands do: one table of rules for both, and the results are the lines
//! that the command prints with `--json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chatcore::engine::{EngineError, Event, ProgramName};
use chatcore::net::{ClientError, Proxy};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::json_rpc::{
    Failure, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, Request, answer_line,
    failed, notification, params, skip_line,
};
use super::{Phase, Session, room_methods};
use crate::cli::{self, Parsed};
use crate::command;
use crate::context::{Asker, Context};
use crate::error::{CommandError, ExitCode};
use crate::output::json::of_value;
use crate::output::names::Names;
use crate::output::show;
use crate::output::{Output, OutputMode, Said};
use crate::prompt::Prompt;

/// Most bytes of a request.
const MAX_REQUEST: usize = 512 * 1024;
/// Most requests in one batch.
const MAX_BATCH: usize = 100;
/// Lines that wait for a slow reader before its requests wait.
const MAX_WAITING: usize = 64;
/// Most events that a program is told before it says that it has them.
const WINDOW: usize = 256;
/// Time after which what a program does not say that it has is told again.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendParams {
    to: String,
    text: String,
    #[serde(default)]
    verified_only: bool,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    wait: Option<String>,
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(default)]
    no_queue: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendFileParams {
    to: String,
    path: String,
    #[serde(default)]
    verified_only: bool,
    #[serde(default)]
    wait: Option<String>,
    #[serde(default)]
    timeout: Option<u64>,
    #[serde(default)]
    no_queue: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaveParams {
    id: String,
    folder: PathBuf,
    #[serde(default)]
    retry: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryParams {
    with: String,
    #[serde(default = "fifty")]
    limit: usize,
}

const fn fifty() -> usize {
    50
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomParams {
    room: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoParams {
    who: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyParams {
    who: String,
    /// Digits that the other side read out.
    #[serde(default)]
    number: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramParams {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsParams {
    name: String,
    /// Whether each event comes with the words that a person would read.
    #[serde(default)]
    words: bool,
}

/// How much a program is told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    Data,
    /// Also the words that a person would read.
    DataAndWords,
}

impl EventsParams {
    const fn wording(&self) -> Wording {
        if self.words { Wording::DataAndWords } else { Wording::Data }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeParams {
    number: u64,
    /// The program; by default the one that subscribed.
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandParams {
    args: Vec<String>,
    /// Where relative paths begin, in hex: a name need not be text.
    #[serde(default)]
    folder: Option<String>,
    #[serde(default)]
    input: Option<String>,
}

/// Returns where relative paths of another process begin: never in our own folder.
fn folder_of(hex: Option<&str>) -> Option<PathBuf> {
    let Some(hex) = hex else { return Some(PathBuf::from("/")) };
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
    #[cfg(unix)]
    let name = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes);
    #[cfg(not(unix))]
    let name = String::from_utf8(bytes).ok()?;
    Some(PathBuf::from(name))
}

/// Serves one program until it hangs up.
pub(crate) async fn serve(
    context: &Context,
    session: &Session,
    mut reader: impl AsyncBufRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut ending: watch::Receiver<Phase>,
) {
    let (out, mut lines) = mpsc::channel::<String>(MAX_WAITING);
    let write = async {
        while let Some(line) = lines.recv().await {
            let line = line + "\n";
            if writer.write_all(line.as_bytes()).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    let read = async move {
        let mut connection =
            Connection { context: context.clone(), session: session.clone(), out, following: None };
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut reader).take(MAX_REQUEST as u64 + 1);
            let read = tokio::select! {
                read = limited.read_until(b'\n', &mut line) => read,
                _ = ending.wait_for(|phase| *phase == Phase::Ends) => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) if line.len() > MAX_REQUEST && !line.ends_with(b"\n") => {
                    let what = format!("a request has at most {MAX_REQUEST} bytes");
                    let told = connection.tell(failed(RawValue::NULL, INVALID_REQUEST, what)).await;
                    // The next line is another request.
                    if told.is_err() || skip_line(&mut reader).await.is_err() {
                        return;
                    }
                }
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => {
                    if connection.take(&line).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    // Whoever hangs up still gets what was answered before.
    tokio::pin!(write);
    tokio::select! {
        () = &mut write => return,
        () = read => {}
    }
    write.await;
}

/// Returns what a program is told that finds no place.
pub(crate) fn too_many() -> String {
    let what = "too many programs use this profile at a time";
    let failure = Failure::from(CommandError::new(ExitCode::Limit, what));
    answer_line(RawValue::NULL, Err(failure)) + "\n"
}

/// The other side hung up.
struct HungUp;

struct Connection {
    context: Context,
    session: Session,
    out: mpsc::Sender<String>,
    following: Option<Following>,
}

/// Subscription of a program that follows.
struct Following {
    program: ProgramName,
    /// Wakes who tells it.
    acknowledged: Arc<Notify>,
    telling: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

impl Connection {
    async fn tell(&self, line: String) -> Result<(), HungUp> {
        self.out.send(line).await.map_err(|_| HungUp)
    }

    /// Answers a line: a request, or several.
    async fn take(&mut self, line: &[u8]) -> Result<(), HungUp> {
        let request = match serde_json::from_slice::<&RawValue>(line) {
            Ok(request) => request,
            Err(error) => return self.tell(failed(RawValue::NULL, PARSE_ERROR, error)).await,
        };
        let Ok(requests) = serde_json::from_str::<Vec<&RawValue>>(request.get()) else {
            return match self.answer(request).await? {
                Some(answer) => self.tell(answer).await,
                None => Ok(()),
            };
        };
        if requests.is_empty() || requests.len() > MAX_BATCH {
            let what = format!("a batch has 1 to {MAX_BATCH} requests");
            return self.tell(failed(RawValue::NULL, INVALID_REQUEST, what)).await;
        }
        let mut answers = Vec::new();
        for request in requests {
            answers.extend(self.answer(request).await?);
        }
        if answers.is_empty() {
            Ok(())
        } else {
            self.tell(format!("[{}]", answers.join(","))).await
        }
    }

    /// Answers a request; `None` for one that wants no answer.
    async fn answer(&mut self, request: &RawValue) -> Result<Option<String>, HungUp> {
        let invalid = |id, what: &str| Ok(Some(failed(id, INVALID_REQUEST, what)));
        let Ok(Request { jsonrpc, id, method, params }) = serde_json::from_str(request.get())
        else {
            return invalid(RawValue::NULL, "a request is an object");
        };
        let begins_wrong = |id: &RawValue| id.get().starts_with(['{', '[', 't', 'f']);
        if id.is_some_and(begins_wrong) {
            return invalid(RawValue::NULL, "an id is a string or a number");
        }
        let (true, Value::String(method)) = (jsonrpc == "2.0", method) else {
            let what = "a request has jsonrpc 2.0 and a method";
            return invalid(id.unwrap_or(RawValue::NULL), what);
        };
        if !matches!(params, Value::Null | Value::Object(_)) {
            return Ok(id.map(|id| failed(id, INVALID_PARAMS, "parameters are an object")));
        }
        let result = self.call(&method, params).await?;
        Ok(id.map(|id| answer_line(id, result)))
    }

    async fn call(&mut self, method: &str, given: Value) -> Result<Result<Value, Failure>, HungUp> {
        if method == "command" {
            return match params::<CommandParams>(given) {
                Ok(params) => self.command(params).await,
                Err(failure) => Ok(Err(failure)),
            };
        }
        Ok(self.method(method, given).await)
    }

    async fn method(&mut self, method: &str, given: Value) -> Result<Value, Failure> {
        match method {
            "send" => {
                let SendParams { to, text, verified_only, id, wait, timeout, no_queue } =
                    params(given)?;
                let mut flags = sending_flags(verified_only, wait, timeout, no_queue);
                flags.extend(id.into_iter().map(|id| format!("--id={id}")));
                let args = ["send"].into_iter().chain(flags.iter().map(String::as_str));
                let asker = Asker { folder: None, input: Some(text) };
                last(self.lines(args.chain(["--", to.as_str(), "-"]), asker).await?)
            }
            "send_file" => {
                let SendFileParams { to, path, verified_only, wait, timeout, no_queue } =
                    params(given)?;
                if Path::new(&path).is_relative() {
                    return Err(Failure::new(INVALID_PARAMS, "the path must begin at the root"));
                }
                let flags = sending_flags(verified_only, wait, timeout, no_queue);
                let args = ["send-file"].into_iter().chain(flags.iter().map(String::as_str));
                last(self.lines(args.chain(["--", &to, &path]), Asker::default()).await?)
            }
            "history" => {
                let HistoryParams { with, limit } = params(given)?;
                let args = ["history", "--limit", &limit.to_string(), "--", &with];
                self.lines(args, Asker::default()).await.map(Value::Array)
            }
            "files" => self.lines(["files"], Asker::default()).await.map(Value::Array),
            "save" => {
                let SaveParams { id, folder, retry } = params(given)?;
                if folder.is_relative() {
                    return Err(Failure::new(INVALID_PARAMS, "the folder must begin at the root"));
                }
                let folder = folder.to_string_lossy();
                let flag = retry.then_some("--retry");
                let args = ["save"].into_iter().chain(flag).chain(["--to", &folder, "--", &id]);
                one(self.lines(args, Asker::default()).await?)
            }
            "requests" => self.lines(["requests"], Asker::default()).await.map(Value::Array),
            "accept_request" | "decline_request" => {
                let WhoParams { who } = params(given)?;
                let act = if method == "accept_request" { "accept" } else { "decline" };
                self.lines(["requests", act, "--", &who], Asker::default()).await?;
                Ok(json!({}))
            }
            "contacts" => self.lines(["contacts"], Asker::default()).await.map(Value::Array),
            "rooms" => self.lines(["room", "list"], Asker::default()).await.map(Value::Array),
            "room" => {
                let RoomParams { room } = params(given)?;
                one(self.lines(["room", "show", "--", &room], Asker::default()).await?)
            }
            "verify" => {
                let VerifyParams { who, number } = params(given)?;
                let number = number.map(|number| format!("--number={number}"));
                let args = ["verify"].into_iter().chain(number.as_deref()).chain(["--", &who]);
                one(self.lines(args, Asker::default()).await?)
            }
            "proxy" => {
                let proxy = self.context.proxy.as_ref();
                Ok(json!({"fingerprint": proxy.map(Proxy::fingerprint)}))
            }
            "version" => Ok(json!({"version": env!("CARGO_PKG_VERSION")})),
            "whoami" => one(self.lines(["whoami"], Asker::default()).await?),
            "subscribe" => self.subscribe(params(given)?).await,
            "unsubscribe" => {
                let ProgramParams { name } = params(given)?;
                let program = program(&name)?;
                if self.following.as_ref().is_some_and(|f| f.program == program) {
                    self.following = None;
                }
                self.session.client.unfollow(program).await?;
                Ok(json!({}))
            }
            "acknowledge" => {
                let AcknowledgeParams { number, name } = params(given)?;
                let named = name.as_deref().map(program).transpose()?;
                let following = self.following.as_ref();
                let Some(program) = named.or_else(|| following.map(|f| f.program.clone())) else {
                    let what = "subscribe first, or give the name of the program";
                    return Err(Failure::new(INVALID_REQUEST, what));
                };
                let is_followed = following.is_some_and(|f| f.program == program);
                self.session.client.acknowledge(program, number).await?;
                if let Some(following) = following.filter(|_| is_followed) {
                    following.acknowledged.notify_one();
                }
                Ok(json!({}))
            }
            "events" => {
                let given: EventsParams = params(given)?;
                let program = program(&given.name)?;
                self.session.client.follow(program.clone()).await?;
                let teller = self.teller(given.wording());
                let events = waiting(&self.session, &program, &teller).await?;
                Ok(events.into_iter().map(|(_, event)| event).collect())
            }
            _ => match room_methods::command_line(method, given) {
                Some(line) => {
                    let line = line?;
                    let words = line.iter().map(String::as_str);
                    one(self.lines(words, Asker::default()).await?)
                }
                None => Err(Failure::new(METHOD_NOT_FOUND, "there is no such method")),
            },
        }
    }

    /// Returns how events are told on this connection.
    fn teller(&self, wording: Wording) -> Teller {
        let (said, _nobody) = mpsc::unbounded_channel();
        let output = Output::to_process(OutputMode::People, said);
        Teller { context: Context { output, ..self.context.clone() }, wording }
    }

    async fn subscribe(&mut self, given: EventsParams) -> Result<Value, Failure> {
        let program = program(&given.name)?;
        self.session.client.follow(program.clone()).await?;
        let acknowledged = Arc::new(Notify::new());
        let (session, out) = (self.session.clone(), self.out.clone());
        let has = acknowledged.clone();
        let teller = self.teller(given.wording());
        let telling = tokio::spawn(tell_events(session, program.clone(), teller, out, has));
        self.following = Some(Following { program, acknowledged, telling });
        Ok(json!({}))
    }

    /// Runs a command for another process, which shows what it says as it comes.
    async fn command(&self, params: CommandParams) -> Result<Result<Value, Failure>, HungUp> {
        let CommandParams { args, folder, input } = params;
        let Some(folder) = folder_of(folder.as_deref()) else {
            return Ok(Err(Failure::new(INVALID_PARAMS, "the folder is not hex")));
        };
        let folder = Some(folder);
        let (said, mut heard) = mpsc::unbounded_channel();
        let work = run(&self.context, args, None, Asker { folder, input }, said);
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                Some(said) = heard.recv() => self.tell(of_value(&output(said))).await?,
                result = &mut work => break result,
            }
        };
        while let Ok(said) = heard.try_recv() {
            self.tell(of_value(&output(said))).await?;
        }
        Ok(result.map(|()| json!({})).map_err(Failure::from))
    }

    /// Runs a command and returns its JSON lines.
    async fn lines<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
        asker: Asker,
    ) -> Result<Vec<Value>, Failure> {
        let args = args.into_iter().map(str::to_owned).collect();
        let (said, mut heard) = mpsc::unbounded_channel();
        let done = run(&self.context, args, Some(OutputMode::Json), asker, said).await;
        let mut lines = Vec::new();
        while let Ok(said) = heard.try_recv() {
            if let Said::Out(line) = said {
                lines.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        }
        match done {
            Ok(()) => Ok(lines),
            // How far it came all the same.
            Err(error) => Err(Failure::from(error).after(lines.pop())),
        }
    }
}

fn program(name: &str) -> Result<ProgramName, Failure> {
    name.parse().map_err(|error| Failure::new(INVALID_PARAMS, error))
}

/// Returns the flags that parameters of the same names stand for.
fn sending_flags(
    verified_only: bool,
    wait: Option<String>,
    timeout: Option<u64>,
    no_queue: bool,
) -> Vec<String> {
    let verified_only = verified_only.then(|| "--verified-only".to_owned());
    let wait = wait.map(|wait| format!("--wait={wait}"));
    let timeout = timeout.map(|timeout| format!("--timeout={timeout}"));
    let no_queue = no_queue.then(|| "--no-queue".to_owned());
    [verified_only, wait, timeout, no_queue].into_iter().flatten().collect()
}

/// Returns how far something came: the last that was said of it.
fn last(mut lines: Vec<Value>) -> Result<Value, Failure> {
    let last = lines.pop();
    one(last.into_iter().collect())
}

fn one(lines: Vec<Value>) -> Result<Value, Failure> {
    let none = || Failure::new(i64::from(ExitCode::Other as u8), "the command said nothing");
    lines.into_iter().next().ok_or_else(none)
}

fn output(said: Said) -> Value {
    let (stream, text) = match said {
        Said::Out(text) => ("out", text),
        Said::Err(text) => ("err", text),
    };
    notification("output", &json!({"stream": stream, "text": text}))
}

/// Says what happened, as a program asked to hear it.
struct Teller {
    context: Context,
    wording: Wording,
}

impl Teller {
    /// Returns what a program is told of an event; `None`: nothing.
    fn told(&self, names: &Names, number: u64, event: &Event) -> Option<Value> {
        let line = serde_json::to_value(show::json(names, event)?).ok()?;
        Some(match self.wording {
            Wording::Data => json!({"number": number, "event": line}),
            Wording::DataAndWords => {
                let words = show::words(&self.context, names, event);
                json!({"number": number, "event": line, "words": words})
            }
        })
    }
}

/// Runs a command line on the client that is open.
async fn run(
    context: &Context,
    args: Vec<String>,
    mode: Option<OutputMode>,
    asker: Asker,
    said: mpsc::UnboundedSender<Said>,
) -> Result<(), CommandError> {
    let args = std::iter::once("chat".to_owned()).chain(args).map(Into::into);
    let cli = match cli::parse(args)? {
        Parsed::Run(cli) => cli,
        Parsed::Show(_) | Parsed::Incomplete(_) => {
            return Err(CommandError::new(ExitCode::Usage, "a command is missing"));
        }
    };
    let Some(command) = cli.command else {
        return Err(CommandError::new(ExitCode::Usage, "a command is missing"));
    };
    let chosen = if cli.global.json { OutputMode::Json } else { OutputMode::People };
    let output = Output::to_process(mode.unwrap_or(chosen), said);
    // Our own standard input is nobody's here.
    let asker = Asker { input: Some(asker.input.unwrap_or_default()), ..asker };
    let context = Context { output, prompt: Prompt::Unattended, asker, ..context.clone() };
    command::shared(&context, &command).await
}

/// Events that a program that follows does not have yet, as JSON; those without JSON it has by itself.
async fn waiting(
    session: &Session,
    program: &ProgramName,
    teller: &Teller,
) -> Result<Vec<(u64, Value)>, ClientError> {
    let client = &session.client;
    loop {
        let entries = client.journal_of(program.clone(), WINDOW).await?;
        let names = Names::load(client).await.map_err(|_| ClientError::Closed)?;
        let mut shown = Vec::new();
        let mut silent = None;
        for (number, event) in entries {
            match event.as_ref().and_then(|event| teller.told(&names, number, event)) {
                Some(told) => shown.push((number, told)),
                None if shown.is_empty() => silent = Some(number),
                None => {}
            }
        }
        if let Some(up_to) = silent {
            let program = program.clone();
            client.acknowledge(program, up_to).await?;
            if shown.is_empty() {
                continue;
            }
        }
        return Ok(shown);
    }
}

/// Tells a program what happens, again and again until it says that it has it.
async fn tell_events(
    session: Session,
    program: ProgramName,
    teller: Teller,
    out: mpsc::Sender<String>,
    acknowledged: Arc<Notify>,
) {
    let mut told_of = session.listen();
    let (mut sent, mut oldest, mut since) = (0, None, Instant::now());
    loop {
        let events = match waiting(&session, &program, &teller).await {
            Ok(events) => events,
            Err(ClientError::Engine(EngineError::NotFollowing)) => {
                let gone = notification("forgotten", &json!({"name": program.as_str()}));
                let _gone = out.send(of_value(&gone)).await;
                return;
            }
            Err(_) => return,
        };
        let first = events.first().map(|(number, _)| *number);
        if first != oldest {
            (oldest, since) = (first, Instant::now());
        } else if since.elapsed() >= REPEAT_AFTER {
            (sent, since) = (0, Instant::now());
        }
        let before = sent;
        for (number, event) in events.iter().filter(|(number, _)| *number > before) {
            let line = notification("event", event);
            if out.send(of_value(&line)).await.is_err() {
                return;
            }
            sent = *number;
        }
        tokio::select! {
            heard = told_of.recv() => {
                if let Err(RecvError::Closed) = heard {
                    return;
                }
                // Many things happen at a time.
                while told_of.try_recv().is_ok() {}
            }
            () = acknowledged.notified() => {}
            () = sleep_until(since + REPEAT_AFTER), if first.is_some() => {}
        }
    }
}
