//! The socket in the profile's folder: for this user's processes only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use server::control::with_socket;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Phase, Session, methods};
use crate::context::Context;

/// The socket's name.
const NAME: &str = "rpc.sock";
/// Most programs at a time.
const MAX_PROGRAMS: usize = 64;
/// How long requests that are being answered may take when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Time until a connection is taken again after that failed.
const PAUSE: Duration = Duration::from_millis(100);

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Listens until it is closed or dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    path: PathBuf,
    stop: watch::Sender<Phase>,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Takes no more requests, and waits a little for those that are being answered.
    pub(crate) async fn close(mut self) {
        let _gone = fs::remove_file(&self.path);
        let _ended = self.stop.send(Phase::Ends);
        let _late = timeout(LAST_ANSWERS, &mut self.accepting).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
        // One that stays behind is removed by the next process.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Lets other processes use a client. Whoever calls this holds the profile's lock.
///
/// # Errors
/// The system has no such socket here, for example because the path is too long.
pub(crate) fn listen(context: &Context, session: &Session) -> io::Result<Listening> {
    let path = path(&context.paths.profile_folder());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder keeps others out from the first moment on.
    let folder = context.paths.profile_folder();
    let listener = with_socket(&folder, NAME, |path| UnixListener::bind(path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let context = Context { session: Some(session.clone()), ..context.clone() };
    let (stop, ending) = watch::channel(Phase::Serves);
    let accepting = tokio::spawn(accept(listener, context, session.clone(), ending));
    Ok(Listening { path, stop, accepting })
}

async fn accept(
    listener: UnixListener,
    context: Context,
    session: Session,
    mut ending: watch::Receiver<Phase>,
) {
    let mut programs = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = programs.join_next() => continue,
            _ = ending.wait_for(|phase| *phase == Phase::Ends) => break,
        };
        let Ok((mut stream, _)) = accepted else {
            // Too many files are open; it is not asked again at once.
            sleep(PAUSE).await;
            continue;
        };
        if programs.len() >= MAX_PROGRAMS {
            // It may be gone already.
            let _unread = stream.write_all(methods::too_many().as_bytes()).await;
            continue;
        }
        let (context, session, ending) = (context.clone(), session.clone(), ending.clone());
        programs.spawn(async move {
            let (reader, writer) = stream.into_split();
            methods::serve(&context, &session, BufReader::new(reader), writer, ending).await;
        });
    }
    while programs.join_next().await.is_some() {}
}

/// Connects to the process that has a profile open, if one serves it.
pub(crate) fn connect(folder: &Path) -> Option<BlockingStream> {
    with_socket(folder, NAME, |path| BlockingStream::connect(path)).ok()
}
