//! Requests to the relay, and what their answers belong to.

use super::rooms::RoomAsk;
use crate::ids::{DeviceAddress, RoomId, UserId};
use crate::keys::Signed;

/// What an answer of the relay belongs to.
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

/// What an envelope on its way carries.
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
