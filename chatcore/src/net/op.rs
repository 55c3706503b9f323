//! Operations that the handle asks of the driver.

use tokio::sync::oneshot;

use super::error::ClientError;
use crate::engine::{Command, EngineError, Event};
use crate::ids::{RoomId, UserId};
use crate::store::Store;
use crate::wire::relay::{Answer, Request, RoomSummary};

/// Operations that the handle asks of the driver.
pub(super) enum Op {
    Command {
        command: Command,
        reply: Reply<()>,
    },
    /// A command that an event with its ticket answers.
    Ask {
        command: Ask,
        asked: Asked,
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

/// Callers that wait for the answer to a command, each for its own kind.
pub(super) enum Asked {
    Lookup(Reply<UserId>),
    Presence(Reply<Vec<UserId>>),
    Room(Reply<RoomId>),
    Rooms(Reply<Vec<RoomSummary>>),
    /// Exit code and text.
    Admin(Reply<(u8, String)>),
}

impl Asked {
    /// Hands an answer on. Whoever asked may have gone.
    pub(super) fn answer(self, event: Event) {
        let _gone = match (self, event) {
            (Self::Lookup(reply), Event::LookupDone { result, .. }) => {
                reply.send(result.map_err(ClientError::from)).is_err()
            }
            (Self::Presence(reply), Event::Presence { online, .. }) => {
                reply.send(Ok(online)).is_err()
            }
            (Self::Room(reply), Event::RoomDone { result, .. }) => {
                let result = result.map_err(|failure| EngineError::Room(failure).into());
                reply.send(result).is_err()
            }
            (Self::Rooms(reply), Event::RoomsListed { result, .. }) => {
                reply.send(result.map_err(|code| ClientError::Refused(code.into()))).is_err()
            }
            (Self::Admin(reply), Event::AdminAnswered { result, .. }) => {
                reply.send(result.map_err(|code| ClientError::Refused(code.into()))).is_err()
            }
            // The engine answers each command with its own event.
            (_, _) => false,
        };
    }

    pub(super) fn refuse(self, error: ClientError) {
        let _gone = match self {
            Self::Lookup(reply) => reply.send(Err(error)).is_err(),
            Self::Presence(reply) => reply.send(Err(error)).is_err(),
            Self::Room(reply) => reply.send(Err(error)).is_err(),
            Self::Rooms(reply) => reply.send(Err(error)).is_err(),
            Self::Admin(reply) => reply.send(Err(error)).is_err(),
        };
    }
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
            Self::Ask { asked, .. } => asked.refuse(error),
            Self::Request { reply, .. } => {
                let _gone = reply.send(Err(error));
            }
            // Its reply is dropped with it.
            Self::Look(_) | Self::Close => {}
        }
    }
}
