//! Signed room events: what was done, by whom, and after which event.

use super::{ActKind, Policy, Role, RoomError, RoomName, SignedHead, Topic};
use crate::crypto::kdf::LABEL_ROOM_EVENT;
use crate::ids::{EventHash, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use crate::keys::{DeviceCert, DeviceKeys, IdentityKey, RelayKey, RelayKeyPair, Signed};
use crate::wire;

/// Kinds of rooms: who may come in, and who keeps the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// By invitation; the relay knows neither name nor members.
    Private,
    /// Listed by the relay; everybody may join.
    Open,
}

/// Author of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A device of a user, by its certificate.
    Device {
        /// Signed the certificate; gives the user id.
        identity: IdentityKey,
        /// The certificate; its expiry does not count inside a chain.
        cert: Box<DeviceCert>,
    },
    /// The relay, in a room that it created.
    Relay,
}

impl Actor {
    /// Returns the user; `None` for the relay.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Device { cert, .. } => Some(cert.user_id()),
            Self::Relay => None,
        }
    }
}

/// An actor as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ActorFields {
    Device { identity: IdentityKey, cert: Signed },
    Relay,
}

impl ActorFields {
    pub(crate) fn of(actor: &Actor) -> Self {
        match actor {
            Actor::Device { identity, cert } => {
                Self::Device { identity: *identity, cert: cert.signed().clone() }
            }
            Actor::Relay => Self::Relay,
        }
    }

    /// Checks the certificate, unless it was checked when it came.
    pub(super) fn verified(self, trust: Trust) -> Result<Actor, RoomError> {
        Ok(match self {
            Self::Relay => Actor::Relay,
            Self::Device { identity, cert } => {
                let cert = match trust {
                    Trust::Nothing => DeviceCert::verify(cert, &identity)?,
                    Trust::OwnStore => DeviceCert::restore(cert, &identity)?,
                };
                Actor::Device { identity, cert: Box::new(cert) }
            }
        })
    }
}

/// Origin of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// They came from outside.
    Nothing,
    /// We verified them before we stored them.
    OwnStore,
}

/// Heads that the relay signed over the time since an owner did anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// A head of the room that covers the owner's last act.
    pub acted: SignedHead,
    /// A later one.
    pub now: SignedHead,
}

/// Names the acts that a room has, and what they come to; only its owner raises it.
///
/// `Leave`, `Close`, `Move` and `SetVersion` are the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomVersion(u32);

impl RoomVersion {
    /// The newest one that this program knows.
    pub const NEWEST: Self = Self(1);

    /// Takes a number; there is no version 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Tells whether this program knows what the acts of this version come to.
    #[must_use]
    pub fn is_known(self) -> bool {
        self <= Self::NEWEST
    }
}

/// First properties of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// Private or open.
    pub kind: RoomKind,
    /// Its name.
    pub name: RoomName,
    /// Its topic.
    pub topic: Topic,
    /// Makes the room's id unique.
    pub nonce: [u8; 16],
    /// The first register; of private rooms only.
    pub register: Option<RegisterId>,
    /// Which acts it has.
    pub version: RoomVersion,
    /// A room that can't go on, in whose place this one is. That its maker says so proves nothing.
    pub replaces: Option<RoomId>,
}

impl Creation {
    /// Describes a room of the newest version that stands in no other's place.
    #[must_use]
    pub const fn new(
        kind: RoomKind,
        name: RoomName,
        topic: Topic,
        nonce: [u8; 16],
        register: Option<RegisterId>,
    ) -> Self {
        Self { kind, name, topic, nonce, register, version: RoomVersion::NEWEST, replaces: None }
    }
}

/// The act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The room begins; the actor is its owner.
    Create(Creation),
    /// A user may join, with this role.
    Invite {
        /// Whom.
        user: UserId,
        /// As what.
        role: Role,
    },
    /// The actor takes the invitation up.
    Join,
    /// The actor goes.
    Leave,
    /// A user is out.
    Kick {
        /// Whom.
        user: UserId,
        /// In open rooms: joins up to this counter do not count any more.
        counter: u64,
    },
    /// A user is out and can't come back.
    Ban {
        /// Whom.
        user: UserId,
        /// As for a kick.
        counter: u64,
    },
    /// A user may come back.
    Unban(UserId),
    /// A user's messages are refused.
    Mute(UserId),
    /// They are not any more.
    Unmute(UserId),
    /// A member gets another role.
    SetRole {
        /// Whom.
        user: UserId,
        /// Which.
        role: Role,
    },
    /// Another name.
    Rename(RoomName),
    /// Another topic.
    SetTopic(Topic),
    /// Other rules for inviting.
    SetPolicy(Policy),
    /// A member becomes the owner, the owner an admin.
    Transfer(UserId),
    /// The state has this hash.
    Checkpoint([u8; 32]),
    /// The room goes on in this register.
    Move(RegisterId),
    /// The room ends.
    Close,
    /// The room goes on here, and what this head of a log says beyond it is abandoned.
    Resume {
        /// Which log.
        log: LogId,
        /// Entries.
        length: u64,
        /// The hash over them.
        hash: LogHash,
    },
    /// These users did not connect for long: their joins up to these counters do not count any more. By the
    /// relay, in its own rooms.
    Retire(Vec<(UserId, u64)>),
    /// The actor owns the open room from here on: its owner was not heard of for long.
    Succeed(Box<Absence>),
    /// From here on the room has the acts of this version.
    SetVersion(RoomVersion),
    /// An act that no version up to ours has.
    Unknown,
}

impl Act {
    /// Returns the register that a room goes on in from this act on.
    #[must_use]
    pub const fn register(&self) -> Option<RegisterId> {
        match self {
            Self::Create(creation) => creation.register,
            Self::Move(register) => Some(*register),
            _ => None,
        }
    }

    /// Returns what kind of act it is; `None` for the beginning of a room, and for an unknown act.
    #[must_use]
    pub const fn kind(&self) -> Option<ActKind> {
        Some(match self {
            Self::Create(_) | Self::Unknown => return None,
            Self::Invite { .. } => ActKind::Invite,
            Self::Join => ActKind::Join,
            Self::Leave => ActKind::Leave,
            Self::Kick { .. } => ActKind::Kick,
            Self::Ban { .. } => ActKind::Ban,
            Self::Unban(_) => ActKind::Unban,
            Self::Mute(_) => ActKind::Mute,
            Self::Unmute(_) => ActKind::Unmute,
            Self::SetRole { .. } => ActKind::SetRole,
            Self::Rename(_) => ActKind::Rename,
            Self::SetTopic(_) => ActKind::SetTopic,
            Self::SetPolicy(_) => ActKind::SetPolicy,
            Self::Transfer(_) => ActKind::Transfer,
            Self::Checkpoint(_) => ActKind::Checkpoint,
            Self::Move(_) => ActKind::Move,
            Self::Close => ActKind::Close,
            Self::Resume { .. } => ActKind::Resume,
            Self::Retire(_) => ActKind::Retire,
            Self::Succeed(_) => ActKind::Succeed,
            Self::SetVersion(_) => ActKind::SetVersion,
        })
    }

    /// Returns whom it is done to.
    #[must_use]
    pub const fn target(&self) -> Option<UserId> {
        match self {
            Self::Invite { user, .. }
            | Self::Kick { user, .. }
            | Self::Ban { user, .. }
            | Self::SetRole { user, .. }
            | Self::Unban(user)
            | Self::Mute(user)
            | Self::Unmute(user)
            | Self::Transfer(user) => Some(*user),
            _ => None,
        }
    }

    /// Returns the role it gives.
    #[must_use]
    pub const fn grant(&self) -> Option<Role> {
        match self {
            Self::Invite { role, .. } | Self::SetRole { role, .. } => Some(*role),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventFields {
    pub(crate) room: Option<RoomId>,
    pub(crate) seq: u64,
    pub(crate) prev: Option<EventHash>,
    pub(crate) at: Timestamp,
    pub(crate) actor: ActorFields,
    pub(crate) act: Act,
}

/// A verified event: the actor's signature and certificate hold. Whether the act is allowed is the
/// chain's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    signed: Signed,
    hash: EventHash,
    room: RoomId,
    seq: u64,
    prev: Option<EventHash>,
    at: Timestamp,
    actor: Actor,
    act: Act,
}

impl Event {
    /// Verifies an event; `relay` is the pinned relay key, for events of the relay.
    ///
    /// # Errors
    /// [`RoomError`].
    pub fn verify(signed: Signed, relay: &RelayKey) -> Result<Self, RoomError> {
        let event = Self::checked(signed, Trust::Nothing)?;
        let key = match &event.actor {
            Actor::Device { cert, .. } => *cert.signing_key().as_bytes(),
            Actor::Relay => relay.signing_key(),
        };
        event.signed.verify(&key, LABEL_ROOM_EVENT)?;
        if let Act::Succeed(absence) = &event.act {
            absence.acted.verify(relay)?;
            absence.now.verify(relay)?;
        }
        Ok(event)
    }

    /// Takes an event that was verified before it was stored.
    pub(crate) fn restore(signed: Signed) -> Result<Self, RoomError> {
        Self::checked(signed, Trust::OwnStore)
    }

    /// Takes an event that the relay verified before it stored it. For relays only: a device trusts
    /// nothing that comes from one.
    ///
    /// # Errors
    /// [`RoomError`] when the bytes are no event.
    pub fn from_own_store(signed: Signed) -> Result<Self, RoomError> {
        Self::restore(signed)
    }

    fn checked(signed: Signed, trust: Trust) -> Result<Self, RoomError> {
        let fields = wire::room::decode_event(&signed)?;
        let hash = EventHash::from_bytes(signed.hash());
        let is_first = matches!(fields.act, Act::Create(_));
        let room = match fields.room {
            Some(room) => room,
            None => RoomId::from_bytes(*hash.as_bytes()),
        };
        let parts = [fields.room.is_none(), fields.prev.is_none(), fields.seq == 0];
        if parts.iter().any(|part| *part != is_first) {
            return Err(RoomError::Inconsistent);
        }
        let (seq, prev, at, act) = (fields.seq, fields.prev, fields.at, fields.act);
        let actor = fields.actor.verified(trust)?;
        Ok(Self { signed, hash, room, seq, prev, at, actor, act })
    }

    /// Returns the bytes and signature it was verified from.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns SHA-256 of the body: its name in the chain.
    #[must_use]
    pub const fn hash(&self) -> EventHash {
        self.hash
    }

    /// Returns the room it belongs to.
    #[must_use]
    pub const fn room(&self) -> RoomId {
        self.room
    }

    /// Returns its number, 0 for the first.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns the event before it; `None` for the first.
    #[must_use]
    pub const fn prev(&self) -> Option<EventHash> {
        self.prev
    }

    /// Returns the time by the actor's clock.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns who did it.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Returns what was done.
    #[must_use]
    pub const fn act(&self) -> &Act {
        &self.act
    }
}

/// Signer of an event.
#[derive(Debug, Clone, Copy)]
pub enum Signer<'a> {
    /// A device, with its user's identity key and its certificate.
    Device {
        /// The user's identity key.
        identity: &'a IdentityKey,
        /// The newest certificate of the device.
        cert: &'a DeviceCert,
        /// The device's keys.
        keys: &'a DeviceKeys,
    },
    /// The relay.
    Relay(&'a RelayKeyPair),
}

impl Signer<'_> {
    fn actor(&self) -> Actor {
        match self {
            Self::Device { identity, cert, .. } => {
                Actor::Device { identity: **identity, cert: Box::new((*cert).clone()) }
            }
            Self::Relay(_) => Actor::Relay,
        }
    }

    fn sign(&self, label: &[u8], body: Vec<u8>) -> Signed {
        match self {
            Self::Device { keys, .. } => keys.signing.sign(label, body),
            Self::Relay(keys) => keys.sign(label, body),
        }
    }
}

/// An event to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// The event it follows; `None` creates a room.
    pub after: Option<(RoomId, u64, EventHash)>,
    /// The time.
    pub at: Timestamp,
    /// The act.
    pub act: Act,
}

impl EventDraft {
    /// Signs the event.
    #[must_use]
    pub fn sign(self, signer: Signer<'_>) -> Event {
        let actor = signer.actor();
        let fields = EventFields {
            room: self.after.map(|(room, ..)| room),
            seq: self.after.map_or(0, |(_, seq, _)| seq + 1),
            prev: self.after.map(|(_, _, hash)| hash),
            at: self.at,
            actor: ActorFields::of(&actor),
            act: self.act,
        };
        let signed = signer.sign(LABEL_ROOM_EVENT, wire::room::encode_event(&fields));
        let hash = EventHash::from_bytes(signed.hash());
        let EventFields { room, seq, prev, at, act, .. } = fields;
        let room = room.unwrap_or_else(|| RoomId::from_bytes(*hash.as_bytes()));
        Event { signed, hash, room, seq, prev, at, actor, act }
    }
}
