//! The socket through which other processes of the operator reach a running relay.
//!
//! One command a connection: a line of JSON, `{"line": …, "json": …}`, goes in; an empty line as soon as it is heard,
//! a line with the exit code and then text come out, until the end of the stream. Only the relay's own user can open
//! it: it lies in the data folder, mode 0600.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chatcore::wire::relay::AnswerForm;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::operator::{Command, Operator, Said};

/// Name of the socket in the data folder.
const SOCKET: &str = "control.sock";
/// Most bytes of a command: the longest announcement, each byte of which may be six in JSON.
const MAX_LINE: u64 = 32 * 1_024;
/// Time a command may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands at a time.
const MAX_AT_A_TIME: usize = 8;
/// Pause when the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Input of a command.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    line: String,
    json: bool,
}

/// A socket that is there as long as the relay serves it.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket of a folder that nobody else uses.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = with_socket(folder, SOCKET, |path| UnixListener::bind(path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Serves connections, a few at a time, for ever.
    pub(crate) async fn serve(&self, operator: &Operator) {
        let places = Arc::new(Semaphore::new(MAX_AT_A_TIME));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let operator = operator.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, operator).await {
                            tracing::warn!(%error, "a command could not be answered");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket failed; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Most bytes of a socket's path, with some to spare: there is place for 104 to 108.
const MAX_SOCKET_PATH: usize = 100;

/// Has somebody use a socket in a folder. Where its path is too long for one, the system is led there by the folder.
///
/// # Errors
/// The errors of `act`; the folder can't be opened.
pub fn with_socket<T>(
    folder: &Path,
    name: &str,
    act: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let path = folder.join(name);
    if cfg!(not(target_os = "linux")) || path.as_os_str().len() <= MAX_SOCKET_PATH {
        return act(&path);
    }
    let folder = std::fs::File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

async fn answer(mut stream: UnixStream, operator: Operator) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = BufReader::new(read).take(MAX_LINE);
    tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await??;
    let asked: Asked = serde_json::from_str(&line)?;
    // What is asked for may take long; that it was heard is said at once.
    tokio::time::timeout(PATIENCE, write.write_all(b"\n")).await??;
    let form = if asked.json { AnswerForm::Json } else { AnswerForm::Words };
    let command = Command::parse(&asked.line);
    if command == Ok(Command::Backup(STREAM.into())) {
        return tokio::task::spawn_blocking(move || pour(stream, &operator)).await?;
    }
    let is_last = command == Ok(Command::Quit);
    let stopping = operator.clone();
    let work = move || match command {
        // Carried out below: its answer must be out before the relay is gone.
        Ok(Command::Quit) => (0, Said::stopping().form(form)),
        Ok(command) => match operator.run(&command) {
            Ok(said) => (0, said.form(form)),
            Err(error) => (error.exit_code(), error.to_string()),
        },
        Err(error) => (2, error.to_string()),
    };
    let (code, text) = tokio::task::spawn_blocking(work).await?;
    let answer = format!("{code}\n{text}\n");
    let said = async {
        write.write_all(answer.as_bytes()).await?;
        write.shutdown().await
    };
    let said = tokio::time::timeout(PATIENCE, said).await;
    if !is_last {
        said??;
    }
    if is_last {
        let quit = move || stopping.run(&Command::Quit);
        if let Err(error) = tokio::task::spawn_blocking(quit).await? {
            tracing::warn!(%error, "stopping was not noted");
        }
    }
    Ok(())
}

/// The folder's name that stands for a stream.
pub const STREAM: &str = "-";
/// Longest piece of a stream.
const MAX_PIECE: usize = 64 << 10;
/// Marks, in place of a piece's length, that the stream broke off; the reason follows.
const BROKEN: u32 = u32::MAX;

/// Writes a stream in pieces, each behind its length: who reads it knows its end from a break.
struct Pieces<W: io::Write>(W);

impl<W: io::Write> io::Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(MAX_PIECE)).unwrap_or_default();
        if !piece.is_empty() {
            let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
            self.0.write_all(&length.to_be_bytes())?;
            self.0.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Streams a backup to whoever asked for it.
fn pour(stream: UnixStream, operator: &Operator) -> io::Result<()> {
    use io::Write;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    // Who does not read for so long has gone.
    stream.set_write_timeout(Some(6 * PATIENCE))?;
    let mut out = io::BufWriter::with_capacity(MAX_PIECE, Pieces(&stream));
    let poured = operator.stream_backup(&mut out);
    out.flush()?;
    let mut end = &stream;
    match poured {
        Ok(()) => end.write_all(&0_u32.to_be_bytes()),
        Err(error) => {
            end.write_all(&BROKEN.to_be_bytes())?;
            write!(end, "{}\n{error}", error.exit_code())
        }
    }
}

/// Has the relay that runs in a folder stream a backup to `out`; returns an exit code, and why it broke off.
///
/// # Errors
/// [`FetchError`].
pub fn fetch_backup(folder: &Path, out: &mut impl io::Write) -> Result<(u8, String), FetchError> {
    use io::Read;
    let line = format!("backup {STREAM}");
    let heard = hear(folder, &line, AnswerForm::Words, PATIENCE);
    let mut stream = heard.map_err(FetchError::Relay)?;
    stream.set_read_timeout(None)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        match u32::from_be_bytes(length) {
            0 => {
                out.flush()?;
                return Ok((0, String::new()));
            }
            BROKEN => {
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                return Ok(answer_of(&answer)?);
            }
            length => {
                let mut piece = Read::take(&mut stream, length.into());
                if io::copy(&mut piece, out)? < u64::from(length) {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No relay answers.
    #[error(transparent)]
    Relay(io::Error),
    /// The stream broke off, here or there.
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// How long somebody waits for what a command comes to, once the relay has heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is done: a backup may take hours.
    UntilDone,
    /// Ten seconds.
    Shortly,
}

/// Has the relay that runs in a folder carry out a command; returns its exit code and what it said.
///
/// # Errors
/// No relay answers there; `WouldBlock` or `TimedOut`: one is there, and does not answer.
pub fn ask(folder: &Path, command: &str, form: AnswerForm, wait: Wait) -> io::Result<(u8, String)> {
    ask_within(folder, command, form, wait, PATIENCE)
}

fn ask_within(
    folder: &Path,
    command: &str,
    form: AnswerForm,
    wait: Wait,
    patience: Duration,
) -> io::Result<(u8, String)> {
    use std::io::Read;
    if command.len() as u64 >= MAX_LINE / 2 {
        return Ok((2, format!("the command is too long: at most {} bytes", MAX_LINE / 2)));
    }
    let mut stream = hear(folder, command, form, patience)?;
    if wait == Wait::UntilDone {
        stream.set_read_timeout(None)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer_of(&answer)
}

fn answer_of(answer: &str) -> io::Result<(u8, String)> {
    let (code, text) = answer.split_once('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = code.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((code, text.trim_end().to_owned()))
}

/// Has a relay hear a command; its answer is what comes next.
fn hear(
    folder: &Path,
    command: &str,
    form: AnswerForm,
    patience: Duration,
) -> io::Result<StdStream> {
    use std::io::{Read, Write};
    let mut stream = with_socket(folder, SOCKET, |path| StdStream::connect(path))?;
    let asked = Asked { line: command.to_owned(), json: form == AnswerForm::Json };
    writeln!(stream, "{}", serde_json::to_string(&asked)?)?;
    stream.set_read_timeout(Some(patience))?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    /// Somebody opens the socket and says nothing: others are answered meanwhile.
    #[tokio::test]
    async fn a_silent_connection_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(folder.path()).unwrap();
        let operator = Operator::new(Weak::new());
        let serving = tokio::spawn(async move { control.serve(&operator).await });
        let silent: Vec<_> =
            (1..MAX_AT_A_TIME).map(|_| StdStream::connect(folder.path().join(SOCKET))).collect();
        let path = folder.path().to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            ask(&path, "stats", AnswerForm::Words, Wait::UntilDone)
        });
        let answered = tokio::time::timeout(PATIENCE / 2, asked).await.unwrap().unwrap().unwrap();
        assert_eq!(answered, (3, "the relay has stopped".to_owned()));
        assert_eq!(silent.len(), MAX_AT_A_TIME - 1);
        serving.abort();
    }

    #[tokio::test]
    async fn a_folder_may_lie_deep_and_a_relay_that_is_stopped_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("deep/".repeat(40));
        std::fs::create_dir_all(&deep).unwrap();
        let control = Control::open(&deep).unwrap();
        let path = deep.clone();
        let asked = tokio::task::spawn_blocking(move || ask_for(&path, Duration::from_millis(10)));
        let silent = asked.await.unwrap().unwrap_err();
        assert!(matches!(silent.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        let operator = Operator::new(Weak::new());
        let serving = tokio::spawn(async move { control.serve(&operator).await });
        let asked = tokio::task::spawn_blocking(move || ask_for(&deep, PATIENCE));
        assert_eq!(asked.await.unwrap().unwrap(), (3, "the relay has stopped".to_owned()));
        serving.abort();
    }

    fn ask_for(folder: &Path, patience: Duration) -> io::Result<(u8, String)> {
        ask_within(folder, "stats", AnswerForm::Words, Wait::UntilDone, patience)
    }
}
