//! The other side: a process that finds the profile open in another one, and asks that.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Command, SendArgs, SendFileArgs};
use crate::command::send::read_stdin;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::output::render;

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 64 << 20;
/// Least time within which the other process says that it is there.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the process that has the profile open.
pub(crate) struct Remote<S> {
    stream: BufReader<S>,
    next_id: u64,
}

/// A line of it.
#[derive(Debug, Deserialize)]
struct Message {
    method: Option<String>,
    #[serde(default)]
    params: Value,
    error: Option<Failure>,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: i64,
    message: String,
    data: Option<Advice>,
}

#[derive(Debug, Deserialize)]
struct Advice {
    hint: String,
}

/// Its contents.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The answer to the last request.
    Answer(Result<Value, CommandError>),
    /// Something else: its method and what belongs to it.
    Notification(String, Value),
}

#[cfg(unix)]
impl Remote<std::os::unix::net::UnixStream> {
    /// Connects, if a process serves the profile.
    ///
    /// # Errors
    /// [`ExitCode::Store`]: it does not answer, as one that Ctrl-Z has stopped. [`ExitCode::Usage`]: it does not go
    /// through the proxy that is wanted.
    pub(crate) fn connect(context: &Context) -> Result<Option<Self>, CommandError> {
        let Some(stream) = super::socket::connect(&context.paths.profile_folder()) else {
            return Ok(None);
        };
        let patience = context.lock_timeout.max(LEAST_PATIENCE);
        let limit = |of| stream.set_read_timeout(of).map_err(|_| gone());
        limit(Some(patience))?;
        let mut remote =
            Self { stream: BufReader::new(stream.try_clone().map_err(|_| gone())?), next_id: 1 };
        let answer = match remote.call("proxy", &json!({}), |_, _| Ok(())) {
            // Gone since: as if there had been none.
            Err(error) if error == gone() => return Ok(None),
            answer => answer?,
        };
        let theirs = answer.get("fingerprint").and_then(Value::as_str);
        if context.proxy.as_ref().is_some_and(|wanted| theirs != Some(&*wanted.fingerprint())) {
            // It would show where the person is.
            let what = "another `chat` has the profile open, and does not use that proxy";
            let hint = "close that one, or start it with the same --proxy or ALL_PROXY";
            return Err(CommandError::new(ExitCode::Usage, what).hint(hint));
        }
        // What it is asked for may take long.
        limit(None)?;
        Ok(Some(remote))
    }

    /// Returns what answers come from, and what requests go to.
    pub(crate) fn into_parts(
        self,
    ) -> std::io::Result<(BufReader<std::os::unix::net::UnixStream>, std::os::unix::net::UnixStream)>
    {
        let requests = self.stream.get_ref().try_clone()?;
        Ok((self.stream, requests))
    }
}

impl<S: Read> Remote<S>
where
    for<'a> &'a S: Write,
{
    /// Asks something; the answer is heard later.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Result<(), CommandError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut stream = self.stream.get_ref();
        stream.write_all(format!("{request}\n").as_bytes()).map_err(|_| gone())
    }

    /// Waits for what comes next.
    pub(crate) fn hear(&mut self) -> Result<Heard, CommandError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_ANSWER).read_until(b'\n', &mut line);
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => silent(),
            _ => gone(),
        });
        if read? == 0 {
            return Err(gone());
        }
        let heard: Message = serde_json::from_slice(&line).map_err(|_| gone())?;
        Ok(match heard {
            Message { method: Some(method), params, .. } => Heard::Notification(method, params),
            Message { error: Some(error), .. } => Heard::Answer(Err(failure(error))),
            Message { result, .. } => Heard::Answer(Ok(result)),
        })
    }

    /// Asks something and waits for the answer; what comes in between goes to `other`.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: &Value,
        mut other: impl FnMut(&str, &Value) -> Result<(), CommandError>,
    ) -> Result<Value, CommandError> {
        self.ask(method, params)?;
        loop {
            match self.hear()? {
                Heard::Answer(answer) => return answer,
                Heard::Notification(method, params) => other(&method, &params)?,
            }
        }
    }
}

fn silent() -> CommandError {
    let what = "another `chat` has the profile open, and does not answer";
    CommandError::new(ExitCode::Store, what)
        .hint("it may be stopped (Ctrl-Z): fg in its terminal lets it go on; else end it")
}

fn gone() -> CommandError {
    let what = "the other `chat` that has the profile open ended";
    CommandError::new(ExitCode::Store, what).hint("repeat the command")
}

fn failure(error: Failure) -> CommandError {
    let code = u8::try_from(error.code).map_or(ExitCode::Other, ExitCode::from_number);
    let failure = CommandError::new(code, error.message);
    match error.data {
        Some(data) => failure.hint(data.hint),
        None => failure,
    }
}

/// Has the process that has the profile open do what this one was asked; `None`: there is none.
#[cfg(unix)]
pub(crate) fn forward(context: &Context, command: &Command) -> Option<Result<(), CommandError>> {
    match Remote::connect(context) {
        Ok(remote) => remote.map(|mut remote| ask_for(context, command, &mut remote)),
        Err(error) => Some(Err(error)),
    }
}

#[cfg(unix)]
fn ask_for(
    context: &Context,
    command: &Command,
    remote: &mut Remote<std::os::unix::net::UnixStream>,
) -> Result<(), CommandError> {
    let input = match command {
        Command::Send(SendArgs { who, text, all, .. }) => {
            let text = if *all { who } else { text };
            (text.as_deref() == Some("-")).then(read_stdin).transpose()?
        }
        Command::SendFile(SendFileArgs { paths, .. }) => {
            paths.iter().try_for_each(|path| is_seen_by_others(path))?;
            None
        }
        _ => None,
    };
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.into_string().map_err(|_| not_text()))
        .collect::<Result<_, _>>()?;
    use std::os::unix::ffi::OsStrExt;
    // A relative path means something else to the other process. A name need not be text: it goes as hex.
    let folder = match std::env::current_dir() {
        Ok(folder) => Some(HEXLOWER.encode(folder.as_os_str().as_bytes())),
        Err(error) if matches!(command, Command::SendFile(_) | Command::Save(_)) => {
            return Err(CommandError::file(Path::new("."), &error));
        }
        Err(_) => None,
    };
    let params = json!({"args": args, "folder": folder, "input": input});
    let is_sent = matches!(command, Command::Send(_) | Command::SendFile(_));
    let done = remote.call("command", &params, |method, params| {
        let text = params["text"].as_str().unwrap_or_default();
        match (method, params["stream"].as_str()) {
            ("output", Some("out")) => {
                let printed = context.output.raw(format!("{text}\n").as_bytes());
                // What can't be printed is on its way all the same.
                if is_sent { Ok(()) } else { printed }
            }
            ("output", _) => {
                crate::error::tell(format_args!("{}", render::text(text)));
                Ok(())
            }
            _ => Ok(()),
        }
    });
    match done {
        Err(error) if is_sent && error == gone() => Err(gone().hint(
            "what was sent may be on its way: look before you repeat the command, chat history WHO",
        )),
        done => done.map(|_| ()),
    }
}

/// Refuses what means something else to another process, or nothing: standard input, pipes.
#[cfg(unix)]
fn is_seen_by_others(path: &Path) -> Result<(), CommandError> {
    let is_own = path.as_os_str() == "-"
        || path.starts_with("/dev")
        || path.starts_with("/proc")
        || std::fs::metadata(path).is_ok_and(|file| !file.is_file() && !file.is_dir());
    if !is_own {
        return Ok(());
    }
    let what =
        format_args!("another `chat` has the profile open, and can't read {}", path.display());
    Err(CommandError::new(ExitCode::Usage, what).hint("put it into a file, and send that"))
}

#[cfg(unix)]
fn not_text() -> CommandError {
    CommandError::new(ExitCode::Usage, "an argument is not UTF-8 text")
        .hint("close the other `chat`, then repeat the command")
}

/// Where there are no such sockets, a profile belongs to one process at a time.
#[cfg(not(unix))]
pub(crate) fn forward(_context: &Context, _command: &Command) -> Option<Result<(), CommandError>> {
    None
}
