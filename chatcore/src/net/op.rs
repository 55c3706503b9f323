//! What the handle asks of the driver.

use tokio::sync::oneshot;

use super::client::ClientError;
use crate::engine::{Command, Event};
use crate::store::Store;
use crate::wire::relay::{Answer, Request};

/// What the handle asks of the driver.
pub(super) enum Op {
    Command {
        command: Command,
        reply: Reply<()>,
    },
    /// A command that an event with its ticket answers.
    Ask {
        command: Ask,
        reply: Reply<Event>,
    },
    /// Waits for a connection.
    Online {
        reply: Reply<()>,
    },
    Settle {
        reply: Reply<()>,
    },
    /// A request of a file transfer.
    Request {
        request: Request,
        reply: Reply<Answer>,
    },
    Look(Look),
    Close,
}

/// Makes the command once its ticket is known.
pub(super) type Ask = Box<dyn FnOnce(u64) -> Command + Send>;
pub(super) type Look = Box<dyn FnOnce(&dyn Store) + Send>;
pub(super) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Op")
    }
}

impl Op {
    /// Answers an operation of a client that has stopped.
    pub(super) fn refuse(self, error: ClientError) {
        match self {
            Self::Command { reply, .. } | Self::Online { reply } | Self::Settle { reply } => {
                let _gone = reply.send(Err(error));
            }
            Self::Ask { reply, .. } => {
                let _gone = reply.send(Err(error));
            }
            Self::Request { reply, .. } => {
                let _gone = reply.send(Err(error));
            }
            // Its reply is dropped with it.
            Self::Look(_) | Self::Close => {}
        }
    }
}
