//! Who stands out: the banned, administrators, and those who hold an invitation with a limit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use chatcore::ids::{InviteToken, Timestamp, UserId};

use crate::lock::lock;
use crate::store::{Invite, Privileges, Rights, StoreError};

/// Most invitations with a limit that are open at a time.
const MAX_INVITES: usize = 10_000;

/// What the store holds, in memory.
#[derive(Debug)]
pub(crate) struct RightsTable {
    users: Mutex<BTreeMap<UserId, Rights>>,
    invites: Mutex<Vec<Invite>>,
}

impl RightsTable {
    pub(crate) fn load(store: &dyn Privileges) -> Result<Self, StoreError> {
        let users = store.rights()?.into_iter().collect();
        Ok(Self { users: Mutex::new(users), invites: Mutex::new(store.invites()?) })
    }

    pub(crate) fn of(&self, user: &UserId) -> Rights {
        lock(&self.users).get(user).copied().unwrap_or_default()
    }

    /// Changes how a user stands.
    pub(crate) fn set(
        &self,
        store: &dyn Privileges,
        user: &UserId,
        change: impl FnOnce(&mut Rights),
    ) -> Result<(), StoreError> {
        let mut users = lock(&self.users);
        let mut rights = users.get(user).copied().unwrap_or_default();
        change(&mut rights);
        store.set_rights(user, rights)?;
        users.insert(*user, rights);
        Ok(())
    }

    pub(crate) fn count(&self, is: impl Fn(&Rights) -> bool) -> usize {
        lock(&self.users).values().filter(|rights| is(rights)).count()
    }

    /// Adds an invitation; those that are over go. `false`: there are too many.
    pub(crate) fn add_invite(
        &self,
        store: &dyn Privileges,
        invite: Invite,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut invites = lock(&self.invites);
        let is_over = |invite: &Invite| invite.until.is_some_and(|until| until <= now);
        for over in invites.iter().filter(|invite| is_over(invite)) {
            store.put_invite(&Invite { uses: Some(0), ..over.clone() })?;
        }
        invites.retain(|invite| !is_over(invite));
        if invites.len() >= MAX_INVITES {
            return Ok(false);
        }
        store.put_invite(&invite)?;
        invites.push(invite);
        Ok(true)
    }

    /// Finds the invitation of a token and keeps others from using it meanwhile.
    pub(crate) fn invited(&self, token: &InviteToken, now: Timestamp) -> Option<Invited<'_>> {
        let invites = lock(&self.invites);
        // `InviteToken` compares in constant time; which one it is, is no secret to its holder.
        let place = invites.iter().position(|invite| invite.token == *token)?;
        let invite = invites.get(place)?;
        let is_valid = invite.until.is_none_or(|until| now < until) && invite.uses != Some(0);
        is_valid.then_some(Invited { invites, place })
    }
}

/// An invitation that somebody is about to use.
#[derive(Debug)]
pub(crate) struct Invited<'a> {
    invites: MutexGuard<'a, Vec<Invite>>,
    place: usize,
}

impl Invited<'_> {
    /// Somebody came in by it.
    pub(crate) fn used(mut self, store: &dyn Privileges) -> Result<(), StoreError> {
        let Some(invite) = self.invites.get_mut(self.place) else { return Ok(()) };
        if let Some(uses) = &mut invite.uses {
            *uses = uses.saturating_sub(1);
            store.put_invite(invite)?;
            if invite.uses == Some(0) {
                self.invites.remove(self.place);
            }
        }
        Ok(())
    }
}
