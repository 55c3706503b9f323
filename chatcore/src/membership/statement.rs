//! Joins and leaves of open rooms: signed statements beside the chain, kept as a set.
//!
//! They name no event before them, so a thousand newcomers do not collide; of each user the one with
//! the highest counter counts.

use std::collections::BTreeMap;

use super::event::{ActorFields, Trust};
use super::{Actor, RoomError};
use crate::crypto::kdf::LABEL_ROOM_STATEMENT;
use crate::ids::{DeviceAddress, RoomId, UserId};
use crate::keys::{DeviceCert, DeviceKeys, IdentityKey, Signed};
use crate::wire;

/// Contents of a statement; only [`Statement`] says that it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFields {
    /// Which open room.
    pub room: RoomId,
    /// From 1, ascending per user and room.
    pub counter: u64,
    /// Whether the user joined or left.
    pub joined: Joined,
}

/// In or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// In.
    Yes,
    /// Out.
    No,
}

/// A verified join or leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    signed: Signed,
    fields: StatementFields,
    from: DeviceAddress,
}

impl Statement {
    /// Verifies a statement.
    ///
    /// # Errors
    /// [`RoomError`].
    pub fn verify(signed: Signed) -> Result<Self, RoomError> {
        let (statement, cert) = Self::checked(signed, Trust::Nothing)?;
        statement.signed.verify(cert.signing_key().as_bytes(), LABEL_ROOM_STATEMENT)?;
        Ok(statement)
    }

    /// Takes a statement that was verified before it was stored by its own reader.
    ///
    /// # Errors
    /// [`RoomError`] when the bytes are no statement.
    pub fn from_own_store(signed: Signed) -> Result<Self, RoomError> {
        Ok(Self::checked(signed, Trust::OwnStore)?.0)
    }

    fn checked(signed: Signed, trust: Trust) -> Result<(Self, DeviceCert), RoomError> {
        let (fields, actor) = wire::room::decode_statement(&signed)?;
        let Actor::Device { cert, .. } = actor.verified(trust)? else {
            return Err(RoomError::Inconsistent);
        };
        if fields.counter == 0 || fields.counter == u64::MAX {
            return Err(RoomError::Inconsistent);
        }
        let from = DeviceAddress { user: cert.user_id(), device: cert.device_id() };
        Ok((Self { signed, fields, from }, *cert))
    }

    /// Signs a statement.
    #[must_use]
    pub fn sign(
        fields: StatementFields,
        identity: &IdentityKey,
        cert: &DeviceCert,
        keys: &DeviceKeys,
    ) -> Self {
        let actor = Actor::Device { identity: *identity, cert: Box::new(cert.clone()) };
        let body = wire::room::encode_statement(&fields, &ActorFields::of(&actor));
        let from = DeviceAddress { user: cert.user_id(), device: cert.device_id() };
        Self { signed: keys.signing.sign(LABEL_ROOM_STATEMENT, body), fields, from }
    }

    /// Returns the bytes and signature it was verified from.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns the room.
    #[must_use]
    pub const fn room(&self) -> RoomId {
        self.fields.room
    }

    /// Returns the counter.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.fields.counter
    }

    /// Tells whether the user joined or left.
    #[must_use]
    pub const fn joined(&self) -> Joined {
        self.fields.joined
    }

    /// Returns who said it.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.from.user
    }

    /// Returns the device that said it.
    #[must_use]
    pub const fn device(&self) -> DeviceAddress {
        self.from
    }
}

/// The statement of each user that counts: `(counter, in or out)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statements(BTreeMap<UserId, (u64, Joined)>);

impl Statements {
    /// Takes a statement in; tells whether it is newer than what was known of its user.
    pub fn take(&mut self, statement: &Statement) -> bool {
        let known = self.0.get(&statement.user()).map_or(0, |(counter, _)| *counter);
        let is_newer = statement.counter() > known;
        if is_newer {
            self.0.insert(statement.user(), (statement.counter(), statement.joined()));
        }
        is_newer
    }

    /// Returns of how many users something is known, who left included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nothing is known of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets a user who is gone for good.
    pub fn forget(&mut self, user: &UserId) {
        self.0.remove(user);
    }

    /// Returns the highest counter known of a user, 0 for none.
    #[must_use]
    pub fn counter(&self, user: &UserId) -> u64 {
        self.0.get(user).map_or(0, |(counter, _)| *counter)
    }

    /// Returns who says to be in, with the counter of it.
    pub fn joined(&self) -> impl Iterator<Item = (&UserId, u64)> {
        let inside = self.0.iter().filter(|(_, (_, joined))| *joined == Joined::Yes);
        inside.map(|(user, (counter, _))| (user, *counter))
    }

    /// Returns the counter of a user's join, if that is the last we know.
    #[must_use]
    pub fn join_of(&self, user: &UserId) -> Option<u64> {
        match self.0.get(user) {
            Some((counter, Joined::Yes)) => Some(*counter),
            _ => None,
        }
    }
}
