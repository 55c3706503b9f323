//! Requests to the relay, and what their answers belong to.

use std::collections::BTreeMap;

use super::rooms::RoomAsk;
use crate::ids::{DeviceAddress, RoomId, UserId};
use crate::keys::Signed;
use crate::wire::relay::{DeviceFrame, Request, RequestId};

/// Request ids from here on belong to the driver's own requests; the engine uses those from 1 on, and 0 is what needs
/// no answer.
pub const DRIVER_REQUESTS: RequestId = 1 << 32;

/// The request that an answer of the relay belongs to.
#[derive(Debug)]
pub(super) enum Pending {
    Login,
    Register,
    Lookup {
        name: String,
        asker: Asker,
    },
    /// A contact's name leads to another user: has the contact only taken another name?
    Mismatch {
        name: String,
        contact: UserId,
        other: UserId,
        ticket: Option<u64>,
    },
    Refresh {
        user: UserId,
        ticket: Option<u64>,
    },
    UpdateRecord {
        hash: [u8; 32],
    },
    OwnRecords,
    CloseAccount,
    UploadPrekeys(Vec<Signed>),
    Claim(Vec<DeviceAddress>),
    Send(Vec<Sent>),
    Query(Vec<(UserId, u64)>),
    DeleteBlob,
    RenewBlob,
    DeliverKept,
    ShowPresence,
    Presence {
        ticket: u64,
        users: Vec<UserId>,
    },
    Room {
        room: Option<RoomId>,
        ask: RoomAsk,
    },
}

/// On whose behalf the directory is asked for a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker {
    /// A person typed a name that nobody we know has.
    Stranger { ticket: u64 },
    /// A person typed the name of this contact.
    Contact { ticket: u64, expected: UserId },
    /// Somebody claims the name of this contact.
    Own(UserId),
}

impl Asker {
    pub(super) const fn ticket(self) -> Option<u64> {
        match self {
            Self::Stranger { ticket } | Self::Contact { ticket, .. } => Some(ticket),
            Self::Own(_) => None,
        }
    }

    pub(super) const fn expected(self) -> Option<UserId> {
        match self {
            Self::Stranger { .. } => None,
            Self::Contact { expected, .. } | Self::Own(expected) => Some(expected),
        }
    }
}

/// The load of an envelope on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// An entry of the outbox.
    Outbox(UserId, u64),
    /// Our record of this version, for a peer device.
    Profile(DeviceAddress, u64),
    /// Receipts or a reset: not kept.
    Unkept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Offline,
    Online,
}

/// Something for the relay.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// It is answered, or refused.
    Ask(Request, Pending),
    /// There is no answer.
    Tell(Request),
}

/// The requests that the relay has not answered on this connection.
#[derive(Debug)]
pub(super) struct Requests {
    pending: BTreeMap<RequestId, Pending>,
    next: RequestId,
}

impl Default for Requests {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), next: 1 }
    }
}

impl Requests {
    /// Numbers a request, and notes what its answer belongs to.
    pub(super) fn ask(&mut self, request: Request, pending: Pending) -> DeviceFrame {
        let request_id = self.next;
        // 0 is what needs no answer.
        self.next = if request_id + 1 == DRIVER_REQUESTS { 1 } else { request_id + 1 };
        self.pending.insert(request_id, pending);
        DeviceFrame { request_id, request }
    }

    /// Makes a frame of what is to be sent.
    pub(super) fn frame(&mut self, outgoing: Outgoing) -> DeviceFrame {
        match outgoing {
            Outgoing::Ask(request, pending) => self.ask(request, pending),
            Outgoing::Tell(request) => DeviceFrame { request_id: 0, request },
        }
    }

    /// Takes out what an answer belongs to.
    pub(super) fn answered(&mut self, id: RequestId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// Tells whether an answer of some kind is outstanding.
    pub(super) fn is_any(&self, is_it: impl Fn(&Pending) -> bool) -> bool {
        self.pending.values().any(is_it)
    }

    /// Tells whether everything was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets what belonged to a connection.
    pub(super) fn disconnected(&mut self) {
        self.pending.clear();
    }
}
