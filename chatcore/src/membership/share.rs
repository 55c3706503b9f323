//! How much of a room each member may fill, so that nobody fills it alone and the higher ranks always have
//! a say (PROTOCOL.md section 15).

use std::collections::BTreeMap;

use super::{
    ActKind, MAX_EVENTS, MAX_EVENTS_SINCE_CHECKPOINT, MAX_OF_ONE, MAX_SHARE, Role, RoomError,
};
use crate::ids::UserId;

/// Counted events of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shares {
    /// By each user since their share was renewed.
    spent: BTreeMap<UserId, u64>,
    /// By each user since the beginning.
    all_of: BTreeMap<UserId, u64>,
    /// Since the last checkpoint.
    since_checkpoint: u64,
    /// In all.
    counted: u64,
    /// Removals by the owner, leaves, the end.
    uncounted: u64,
}

/// Tells whether an act takes a place: whoever goes, and the owner's removals, always find one.
const fn is_counted(rank: Role, act: ActKind) -> bool {
    match act {
        ActKind::Leave | ActKind::Close => false,
        ActKind::Kick | ActKind::Ban => !matches!(rank, Role::Owner),
        _ => true,
    }
}

/// Last places, of those before a checkpoint and of all, that are kept for higher ranks: of 64 the owner
/// has 32 alone, admins 24 with the owner, moderators 8 with those.
const fn kept_from(rank: Role) -> u64 {
    match rank {
        Role::Member => 64,
        Role::Moderator => 56,
        Role::Admin => 32,
        Role::Owner => 0,
    }
}

impl Shares {
    pub(super) const fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    pub(super) const fn counted(&self) -> u64 {
        self.counted
    }

    /// Tells whether there is a place for an act; the relay, `None`, has all places of its rooms.
    pub(super) fn check(
        &self,
        user: Option<UserId>,
        rank: Role,
        act: ActKind,
    ) -> Result<(), RoomError> {
        if !is_counted(rank, act) {
            // Each leave needs somebody who joined; of removals there is an end, too.
            let is_removal = matches!(act, ActKind::Kick | ActKind::Ban);
            let is_over = self.uncounted >= MAX_EVENTS && is_removal;
            return if is_over {
                Err(RoomError::TooManyEvents { max: MAX_EVENTS })
            } else {
                Ok(())
            };
        }
        let (is_checkpoint, kept) = (act == ActKind::Checkpoint, kept_from(rank));
        if self.counted >= MAX_EVENTS - kept {
            return Err(RoomError::TooManyEvents { max: MAX_EVENTS });
        }
        if !is_checkpoint && self.since_checkpoint >= MAX_EVENTS_SINCE_CHECKPOINT - kept {
            return Err(RoomError::TooManyEvents { max: MAX_EVENTS_SINCE_CHECKPOINT });
        }
        let spent = user.and_then(|user| self.spent.get(&user)).copied().unwrap_or(0);
        let renews_own = is_checkpoint && rank == Role::Owner;
        if spent >= MAX_SHARE && !renews_own {
            return Err(RoomError::ShareSpent { max: MAX_SHARE });
        }
        let all = user.and_then(|user| self.all_of.get(&user)).copied().unwrap_or(0);
        if all >= MAX_OF_ONE && rank < Role::Owner {
            return Err(RoomError::ShareSpent { max: MAX_OF_ONE });
        }
        Ok(())
    }

    /// Takes a place; `rank_of` tells the rank of others. A checkpoint renews the shares of lower ranks,
    /// and the owner's own.
    pub(super) fn take(
        &mut self,
        user: Option<UserId>,
        rank: Role,
        act: ActKind,
        rank_of: impl Fn(&UserId) -> Option<Role>,
    ) {
        if !is_counted(rank, act) {
            self.uncounted += 1;
            return;
        }
        self.counted += 1;
        self.since_checkpoint += 1;
        if let Some(user) = user {
            *self.spent.entry(user).or_default() += 1;
            *self.all_of.entry(user).or_default() += 1;
        }
        if act == ActKind::Checkpoint {
            self.since_checkpoint = 0;
            let is_owners = rank == Role::Owner;
            self.spent.retain(|user, _| !is_owners && rank_of(user) >= Some(rank));
        }
    }
}
