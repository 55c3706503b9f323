//! Storage for rooms and for the operator: registers, open rooms, announcements, rights.

use bytes::Bytes;
use chatcore::ids::{InviteToken, LogHash, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::Signed;
use chatcore::wire::limits::MAX_CANDIDATE;

use super::StoreError;

/// Result of appending an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It stands at its position, and the register comes to this with it.
    Stored(LogHash),
    /// Another one stands there, or there is a gap before it; this many entries are stored.
    Conflict(u64),
    /// The user has appended as many entries as one may.
    ShareSpent,
    /// The register has all its entries: only a small candidate for the move is taken, from this user after
    /// so many milliseconds; `None`: it is none.
    Full(Option<u64>),
    /// The user has begun, or has appended bytes to, as many registers as allowed; this is the limit.
    OverQuota(u64),
    /// The register waits for what it had, for so many milliseconds more; 0: until it has it.
    Recovering(u64),
}

/// A part of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterPage {
    /// Entries of the register.
    pub length: u64,
    /// Those of the page.
    pub entries: Vec<Bytes>,
    /// Entries up to the end of the page.
    pub end: u64,
    /// Chain hash of the register there.
    pub hash: LogHash,
}

/// How often the relay was set back to a backup, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epoch {
    /// Counts.
    pub number: u64,
    /// When it was last set back; 0: never.
    pub began: Timestamp,
}

/// Reason for which a relay that lost entries takes no new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovering {
    /// Milliseconds for which every log waits, since the relay was set back.
    pub set_back: Option<u64>,
    /// Milliseconds for which a log waits that was given something back.
    pub healing: u64,
}

impl Recovering {
    /// Returns for how many milliseconds more a log waits that was last given something back at `healed`
    /// (0: never); `None` if it takes entries.
    #[must_use]
    pub fn rest(&self, healed: Timestamp, now: Timestamp) -> Option<u64> {
        // Later than now is by a clock that was wrong: else it would last until then.
        let is_so = healed != Timestamp(0) && healed <= now;
        let healing = self.healing.checked_sub(now.since(healed));
        self.set_back.max(healing.filter(|rest| is_so && *rest > 0))
    }
}

/// Limits of storage in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterQuota {
    /// Entries of one register.
    pub entries: u64,
    /// Of them, of one user.
    pub entries_of_one: u32,
    /// Candidates behind them.
    pub candidates: u64,
    /// Milliseconds between two candidates of one user.
    pub candidate_every: u64,
    /// Registers that one user began.
    pub registers: u32,
    /// Bytes that one user appended to registers, of whomever.
    pub bytes: u64,
}

/// Storage of one user in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RegisterUsage {
    /// Registers begun.
    pub registers: u32,
    /// Bytes appended, to registers of whomever.
    pub bytes: u64,
}

/// Entries of one user in one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    pub(super) entries: u32,
    /// When the last candidate came; 0: none did.
    pub(super) candidate_at: Timestamp,
    /// Bytes of all of them.
    pub(super) bytes: u64,
}

impl Share {
    /// Takes a place for an entry of `size` bytes behind `length` others, or says why there is none.
    pub(super) fn take(
        mut self,
        quota: &RegisterQuota,
        length: u64,
        size: usize,
        now: Timestamp,
    ) -> Result<Self, Appended> {
        self.bytes += size as u64;
        if length < quota.entries {
            if self.entries >= quota.entries_of_one {
                return Err(Appended::ShareSpent);
            }
            self.entries += 1;
            return Ok(self);
        }
        if size > MAX_CANDIDATE || length >= quota.entries.saturating_add(quota.candidates) {
            return Err(Appended::Full(None));
        }
        let since = now.since(self.candidate_at);
        let is_so = self.candidate_at != Timestamp(0) && self.candidate_at <= now;
        if is_so && since < quota.candidate_every {
            return Err(Appended::Full(Some(quota.candidate_every - since)));
        }
        self.candidate_at = now;
        Ok(self)
    }
}

/// Append-only logs of sealed entries.
pub trait Registers: Send + Sync {
    /// Appends an entry at a position, which is the number of entries before it. The same bytes at
    /// the same position again are the same success. `payer` pays for a register that begins. While
    /// the relay waits for what it lost, none begins: it may be one of those.
    ///
    /// # Errors
    /// [`StoreError`].
    fn append(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entry: (u64, Bytes),
        recovering_and_now: (Recovering, Timestamp),
    ) -> Result<Appended, StoreError>;

    /// Puts entries behind those that are there, if the register comes to `hash` at `length` with them,
    /// and to what it came to before it was set aside; tells whether it does. Nothing is stored otherwise. `payer` pays
    /// for their bytes, and must have some left for what was set aside.
    ///
    /// # Errors
    /// [`StoreError`].
    fn recover(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entries: Vec<Bytes>,
        end: (u64, LogHash),
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Returns how often the relay was set back.
    ///
    /// # Errors
    /// [`StoreError`].
    fn epoch(&self) -> Result<Epoch, StoreError>;

    /// The relay is set back to a backup.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError>;

    /// Returns the entries from `from` on, at most `max_bytes` of them but at least one; `None` for an
    /// unknown register.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(
        &self,
        register: &RegisterId,
        from: u64,
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Option<RegisterPage>, StoreError>;

    /// Sets registers aside that nobody read or wrote since `oldest`: of them only length and hash stay,
    /// so that nothing else is ever ordered in their places.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError>;

    /// Sets the registers aside that a user began, in the same way.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_aside_of(&self, user: &UserId) -> Result<(), StoreError>;

    /// Returns what a user has in registers.
    ///
    /// # Errors
    /// [`StoreError`].
    fn usage(&self, user: &UserId) -> Result<RegisterUsage, StoreError>;

    /// Returns the same of everybody who has anything there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn usage_of_all(&self) -> Result<Vec<(UserId, RegisterUsage)>, StoreError>;
}

/// A stored join or leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStatement {
    /// Ascending per room.
    pub n: u64,
    /// The statement.
    pub signed: Signed,
}

/// Everything stored of one open room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredRoom {
    /// Its events in their order.
    pub events: Vec<Signed>,
    /// The newest statement of each user.
    pub statements: Vec<(UserId, StoredStatement)>,
    /// When it was last given events back; 0: never.
    pub healed: Timestamp,
}

/// Open rooms: events and statements, public by nature.
pub trait OpenRooms: Send + Sync {
    /// Returns everything; asked once, at the start.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError>;

    /// Returns the rooms that newcomers come into, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError>;

    /// Replaces them.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError>;

    /// Appends an event; the first one of a room begins it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError>;

    /// Appends events that the relay lost, all or none, and notes when.
    ///
    /// # Errors
    /// [`StoreError`].
    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Returns when users were last here.
    ///
    /// # Errors
    /// [`StoreError`].
    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError>;

    /// Notes when users were last here.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError>;

    /// Replaces a user's statement.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError>;

    /// Forgets the statements of a user who is gone for good, and when they were here.
    ///
    /// # Errors
    /// [`StoreError`].
    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError>;

    /// Deletes a room. It is not taken back from anybody.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, room: &RoomId) -> Result<(), StoreError>;

    /// Tells whether a room was deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError>;
}

/// An announcement as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnnouncement {
    /// Its number.
    pub seq: u64,
    /// To the members of this room only.
    pub room: Option<RoomId>,
    /// When it was made.
    pub at: Timestamp,
    /// As signed.
    pub signed: Signed,
}

/// The announcement of the relay.
pub trait Announcements: Send + Sync {
    /// Keeps an announcement.
    ///
    /// # Errors
    /// [`StoreError`].
    fn append(&self, announcement: &StoredAnnouncement, tells: Tells) -> Result<(), StoreError>;

    /// Returns the number of the newest one that tells an address, 0 for none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn newest_move(&self) -> Result<u64, StoreError>;

    /// Returns at most `max` with a higher number than `after`, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    fn after(&self, after: u64, max: usize) -> Result<Vec<StoredAnnouncement>, StoreError>;

    /// Returns the highest number ever given, 0 for none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn newest(&self) -> Result<u64, StoreError>;

    /// Deletes those made before `oldest`, but not the newest one that tells an address: who comes after a year has to
    /// hear it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError>;
}

/// The subject of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// A text of the operator's.
    Text,
    /// Where the relay will be.
    Address,
}

/// How a user stands to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// May not connect.
    pub is_banned: bool,
    /// May use the operator's commands.
    pub is_admin: bool,
}

/// An invitation with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Lets a newcomer in.
    pub token: InviteToken,
    /// How often it still does; `None`: without limit.
    pub uses: Option<u32>,
    /// Until when; `None`: without limit.
    pub until: Option<Timestamp>,
}

/// One privileged act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// When.
    pub at: Timestamp,
    /// Who; `None`: the operator.
    pub by: Option<UserId>,
    /// What, without the text of announcements.
    pub act: String,
}

/// Bans, administrators, invitations, and who used a right.
pub trait Privileges: Send + Sync {
    /// Returns how everybody stands who stands out; asked once, at the start.
    ///
    /// # Errors
    /// [`StoreError`].
    fn rights(&self) -> Result<Vec<(UserId, Rights)>, StoreError>;

    /// Changes how a user stands.
    ///
    /// # Errors
    /// [`StoreError`].
    fn set_rights(&self, user: &UserId, rights: Rights) -> Result<(), StoreError>;

    /// Returns the invitations; asked once, at the start.
    ///
    /// # Errors
    /// [`StoreError`].
    fn invites(&self) -> Result<Vec<Invite>, StoreError>;

    /// Writes an invitation; one without uses left is deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put_invite(&self, invite: &Invite) -> Result<(), StoreError>;

    /// Notes a privileged act.
    ///
    /// # Errors
    /// [`StoreError`].
    fn audit(&self, line: &AuditLine) -> Result<(), StoreError>;

    /// Returns the newest acts, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn audit_lines(&self, max: usize) -> Result<Vec<AuditLine>, StoreError>;
}
