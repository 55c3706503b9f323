//! Work that a step leaves to other parts of the engine. Nobody reaches up for it: it is noted in the transaction, and
//! the engine hands it on once the handler is done.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Timer;
use super::copy::QUERY_EVERY;
use crate::ids::{DeviceAddress, MessageId, RoomId, Timestamp, UserId};
use crate::keys::Nickname;
use crate::store::rows::{PeerDevice, Wanted};
use crate::wire::relay::ErrorCode;

/// A copy of a message in the outbox, for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutboxCopy {
    /// The recipient.
    pub(super) to: DeviceAddress,
    /// Its number among everything for that user.
    pub(super) number: u64,
    pub(super) message: MessageId,
    pub(super) kind: CopyKind,
    pub(super) stage: Stage,
}

/// Whose order a copy has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyKind {
    /// The order of one conversation.
    Own,
    /// The order of a room, which has many copies of one content.
    Shared,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has no ciphertext.
    Waiting,
    Sealed,
}

/// Whether a device is to be sent our newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProfileOwed {
    Yes,
    No,
}

/// Somebody who found no place.
#[derive(Debug)]
pub(super) struct Turned {
    pub(super) user: UserId,
    pub(super) name: Nickname,
    pub(super) wanted: Wanted,
}

/// Work for others.
#[derive(Debug, Default)]
pub(super) struct FollowUps {
    /// Copies that came into the outbox, wait again, or lost their device.
    pub(super) placed: Vec<OutboxCopy>,
    /// For whom everything that waits may go now.
    pub(super) seal: BTreeSet<UserId>,
    /// With which devices there may be a session that speaks.
    pub(super) paired: BTreeSet<DeviceAddress>,
    /// With which devices a new session takes the place of the others: what they sent can't be opened any more.
    pub(super) renew: Vec<DeviceAddress>,
    /// With which devices such a session was just begun.
    pub(super) renewed: Vec<DeviceAddress>,
    /// With which devices a session is needed.
    pub(super) claim: Vec<DeviceAddress>,
    /// Devices for which the relay gave no prekey.
    pub(super) delayed: Vec<(DeviceAddress, ErrorCode)>,
    /// Whose records are to be asked for, unless they just were.
    pub(super) refresh: BTreeSet<UserId>,
    /// When the receipts owed to a device are to go, if some are.
    pub(super) receipts: BTreeMap<DeviceAddress, Option<Timer>>,
    /// Devices that are to be sent our newest record, or not any more.
    pub(super) profiles: BTreeMap<DeviceAddress, ProfileOwed>,
    /// Our record of a version, which the relay has for a device.
    pub(super) told: Vec<(DeviceAddress, u64)>,
    /// Whether those who are owed our record are to be sent it.
    pub(super) tell: Option<Tell>,
    /// People who found no place.
    pub(super) turned_away: Vec<Turned>,
    /// Whose names somebody claims who is new.
    pub(super) claimed_names: Vec<(Nickname, UserId)>,
    /// Rooms in which something may go on.
    pub(super) rooms: BTreeSet<RoomId>,
    /// Messages to rooms that can't go out.
    pub(super) lost: Vec<(RoomId, MessageId)>,
    /// Rooms that were read, and whose members may have been turned away before.
    pub(super) read_rooms: BTreeSet<RoomId>,
}

/// Returns when the receipts owed to a device go alone, if some are; at the latest when the outbox is gone through,
/// though a clock that was ahead said otherwise.
pub(super) fn receipts_due(device: &PeerDevice, now: Timestamp) -> Option<Timer> {
    let at = device.receipts_due_at.min(now.plus(QUERY_EVERY));
    (!device.due_receipts.is_empty()).then(|| Timer::at(at, now))
}

/// The ones who are sent our record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tell {
    /// Whoever was not tried since the outbox was gone through.
    Untried,
    /// Everybody who is owed it.
    Everybody,
}

impl FollowUps {
    /// Tells whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            placed,
            seal,
            paired,
            claim,
            renew,
            renewed,
            delayed,
            refresh,
            receipts,
            profiles,
            told,
            tell,
            turned_away,
            claimed_names,
            rooms,
            lost,
            read_rooms,
        } = self;
        placed.is_empty()
            && seal.is_empty()
            && paired.is_empty()
            && claim.is_empty()
            && renew.is_empty()
            && renewed.is_empty()
            && delayed.is_empty()
            && refresh.is_empty()
            && receipts.is_empty()
            && profiles.is_empty()
            && told.is_empty()
            && tell.is_none()
            && turned_away.is_empty()
            && claimed_names.is_empty()
            && rooms.is_empty()
            && lost.is_empty()
            && read_rooms.is_empty()
    }

    /// Notes when what a device is owed is to go.
    pub(super) fn receipts_owed(&mut self, to: DeviceAddress, device: &PeerDevice, now: Timestamp) {
        self.receipts.insert(to, receipts_due(device, now));
    }

    /// Has those sent our record who are owed it.
    pub(super) fn tell(&mut self, whom: Tell) {
        self.tell = self.tell.max(Some(whom));
    }
}
