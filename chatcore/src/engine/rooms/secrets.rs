//! Secrets of a private room's registers: those that its chain names, and those that members handed on.

use std::collections::{BTreeMap, BTreeSet};

use super::loaded::Room;
use crate::ids::UserId;
use crate::membership::{Act, RoomKind};
use crate::room::RegisterSecret;
use crate::store::rows::{HandedOn, RoomStanding};

/// Most secrets that one member handed on and the chain does not name.
const MAX_SPARE_SECRETS: usize = 8;
/// Most secrets that one hands on of a room that was not read yet.
const MAX_HANDED_ON: usize = 2_048;
/// Most users who may have handed some on.
const MAX_SENDERS: usize = 64;
/// The same for a room that was not read yet.
const MAX_SENDERS_UNREAD: usize = 16;

impl Room {
    /// Returns what opens the current register, if it came.
    pub(super) fn current_secret(&self) -> Option<RegisterSecret> {
        let current = self.current_register()?;
        self.row.secret_of(&current).cloned()
    }

    /// Tells whether the room goes on where we can't read.
    pub(super) fn is_locked(&self) -> bool {
        self.row.kind == RoomKind::Private
            && self.current_register().is_some()
            && self.current_secret().is_none()
    }

    /// Keeps secrets that somebody handed on, each user in a place of their own. When there are too many users, those
    /// of the lowest rank give way, the newest first.
    pub(super) fn take_secrets(
        &mut self,
        from: UserId,
        secrets: Vec<RegisterSecret>,
        ranks: &BTreeMap<UserId, u8>,
    ) {
        let mut kept: BTreeSet<_> = self.row.secrets.iter().map(RegisterSecret::id).collect();
        let former = self.row.handed_on.iter().position(|handed_on| handed_on.from == from);
        let former = former.map(|at| self.row.handed_on.remove(at));
        let mut group = former.map_or_else(Vec::new, |former| former.secrets);
        kept.extend(group.iter().map(RegisterSecret::id));
        group.extend(secrets.into_iter().filter(|secret| kept.insert(secret.id())));
        group.truncate(MAX_HANDED_ON);
        self.row.handed_on.insert(0, HandedOn { from, secrets: group });
        self.settle_secrets();
        let is_read = self.chain.is_some() && self.row.standing != RoomStanding::Invited;
        let most = if is_read { MAX_SENDERS } else { MAX_SENDERS_UNREAD };
        if self.row.handed_on.len() > most {
            let ranks = self.row.handed_on.iter().map(|handed_on| ranks.get(&handed_on.from));
            if let Some((_, at)) = ranks.zip(0..).min() {
                self.row.handed_on.remove(at);
            }
        }
    }

    /// Keeps secrets of registers that the chain names for good: nobody skips one. Of others few are kept.
    pub(super) fn settle_secrets(&mut self) {
        if self.chain.is_none() {
            return;
        }
        let named: BTreeSet<_> = self.registers().into_iter().collect();
        let mut kept: BTreeSet<_> = self.row.secrets.iter().map(RegisterSecret::id).collect();
        for handed_on in &mut self.row.handed_on {
            let is_named = |secret: &mut RegisterSecret| named.contains(&secret.id());
            let settled = handed_on.secrets.extract_if(.., is_named);
            self.row.secrets.extend(settled.filter(|secret| kept.insert(secret.id())));
            // Who was asked in may not have read where the others are named.
            if self.row.standing != RoomStanding::Invited {
                let over = handed_on.secrets.len().saturating_sub(MAX_SPARE_SECRETS);
                handed_on.secrets.drain(..over);
            }
        }
        self.row.handed_on.retain(|handed_on| !handed_on.secrets.is_empty());
    }

    /// Returns what somebody needs to read the room from its beginning, in the order of the chain.
    pub(super) fn secrets_to_hand_on(&self) -> Vec<RegisterSecret> {
        let secret = |id| self.row.secret_of(&id).cloned();
        self.registers().into_iter().filter_map(secret).collect()
    }

    /// Returns the secrets of the registers that a user moved the room to last, in their order.
    pub(super) fn secrets_of_moves(&self, by: &UserId, last: usize) -> Vec<RegisterSecret> {
        let events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        let moves: Vec<_> = events
            .filter(|event| event.actor().user() == Some(*by))
            .filter_map(|event| match event.act() {
                Act::Move(register) => Some(*register),
                _ => None,
            })
            .collect();
        let last = moves.len().saturating_sub(last);
        moves.iter().skip(last).filter_map(|id| self.row.secret_of(id).cloned()).collect()
    }
}
