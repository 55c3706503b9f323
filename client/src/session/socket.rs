//! The socket in the profile's folder: for this user's processes only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::{Session, rpc};
use crate::context::Context;

/// The socket's name.
const NAME: &str = "rpc.sock";
/// Most programs at a time.
const MAX_PROGRAMS: usize = 64;

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    path: PathBuf,
    accepting: JoinHandle<()>,
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
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let context = Context { session: Some(session.clone()), ..context.clone() };
    let session = session.clone();
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_PROGRAMS));
    let accepting = tokio::spawn(async move {
        let mut programs = tokio::task::JoinSet::new();
        loop {
            while programs.try_join_next().is_some() {}
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (context, session) = (context.clone(), session.clone());
            programs.spawn(async move {
                let _place = place;
                let (reader, writer) = stream.into_split();
                rpc::serve(&context, &session, BufReader::new(reader), writer).await;
            });
        }
    });
    Ok(Listening { path, accepting })
}

/// Connects to the process that has a profile open, if one serves it.
pub(crate) fn connect(folder: &Path) -> Option<BlockingStream> {
    BlockingStream::connect(path(folder)).ok()
}
