//! Bans, administrators, and invitations with a limit.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chatcore::ids::{InviteToken, Timestamp, UserId};

use crate::lock::lock;
use crate::store::{Invite, Privileges, Rights, StoreError};

/// Most invitations with a limit that are open at a time.
const MAX_INVITES: usize = 10_000;

/// Copy of the store, in memory.
#[derive(Debug)]
pub(crate) struct RightsTable {
    users: Mutex<BTreeMap<UserId, Rights>>,
    invites: Mutex<Vec<Invite>>,
    /// Held by who changes either, also while it is stored; nobody else waits for it.
    changing: Mutex<()>,
    /// Invitations that somebody is about to use.
    under_way: AtomicUsize,
}

impl RightsTable {
    pub(crate) fn load(store: &dyn Privileges) -> Result<Self, StoreError> {
        let users = store.rights()?.into_iter().collect();
        let invites = Mutex::new(store.invites()?);
        Ok(Self {
            users: Mutex::new(users),
            invites,
            changing: Mutex::new(()),
            under_way: AtomicUsize::new(0),
        })
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
        let _changing = lock(&self.changing);
        let mut rights = self.of(user);
        change(&mut rights);
        store.set_rights(user, rights)?;
        lock(&self.users).insert(*user, rights);
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
        let _changing = lock(&self.changing);
        // One whose last use is under way may get it back.
        let is_idle = self.under_way.load(Ordering::SeqCst) == 0;
        let is_over = |invite: &Invite| {
            invite.until.is_some_and(|until| until <= now) || is_idle && invite.uses == Some(0)
        };
        let over: Vec<_> = lock(&self.invites).iter().filter(|i| is_over(i)).cloned().collect();
        for over in over {
            store.put_invite(&Invite { uses: Some(0), ..over })?;
        }
        {
            let mut invites = lock(&self.invites);
            invites.retain(|invite| !is_over(invite));
            if invites.len() >= MAX_INVITES {
                return Ok(false);
            }
        }
        store.put_invite(&invite)?;
        lock(&self.invites).push(invite);
        Ok(true)
    }

    /// Tells whether a token is that of an invitation.
    pub(crate) fn has_invite(&self, token: &InviteToken) -> bool {
        lock(&self.invites).iter().any(|invite| invite.token == *token)
    }

    /// Finds the invitation of a token and takes one use of it, which comes back unless somebody comes in by it.
    pub(crate) fn invited(&self, token: &InviteToken, now: Timestamp) -> Option<Invited<'_>> {
        // Before it is taken, so that nobody finds it over.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let found = self.take_use(token, now);
        if found.is_none() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        found
    }

    fn take_use(&self, token: &InviteToken, now: Timestamp) -> Option<Invited<'_>> {
        let mut invites = lock(&self.invites);
        // `InviteToken` compares in constant time; which one it is, is no secret to its holder.
        let invite = invites.iter_mut().find(|invite| invite.token == *token)?;
        if invite.until.is_some_and(|until| until <= now) || invite.uses == Some(0) {
            return None;
        }
        invite.uses = invite.uses.map(|uses| uses.saturating_sub(1));
        Some(Invited { table: self, token: token.clone(), state: Use::Taken })
    }
}

/// An invitation that somebody is about to use.
#[derive(Debug)]
pub(crate) struct Invited<'a> {
    table: &'a RightsTable,
    token: InviteToken,
    state: Use,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// In memory only.
    Taken,
    /// Also where it is kept.
    Stored,
    /// For good.
    Spent,
}

impl Invited<'_> {
    /// Stores that there is one use less; before the newcomer is, so that a crash in between gives no second one.
    pub(crate) fn store(&mut self, store: &dyn Privileges) -> Result<(), StoreError> {
        self.write(store)?;
        self.state = Use::Stored;
        Ok(())
    }

    /// Somebody came in by it.
    pub(crate) const fn used(&mut self) {
        self.state = Use::Spent;
    }

    /// Nobody came in by it.
    pub(crate) fn give_back(mut self, store: &dyn Privileges) {
        let was_stored = self.state == Use::Stored;
        self.untake();
        self.state = Use::Spent;
        if was_stored {
            // Else there is one use less after a restart.
            let _ = self.write(store);
        }
    }

    fn write(&self, store: &dyn Privileges) -> Result<(), StoreError> {
        let _changing = lock(&self.table.changing);
        let invites = lock(&self.table.invites);
        let invite = invites.iter().find(|invite| invite.token == self.token).cloned();
        drop(invites);
        match invite.filter(|invite| invite.uses.is_some()) {
            Some(invite) => store.put_invite(&invite),
            None => Ok(()),
        }
    }

    fn untake(&self) {
        let mut invites = lock(&self.table.invites);
        if let Some(invite) = invites.iter_mut().find(|invite| invite.token == self.token) {
            invite.uses = invite.uses.map(|uses| uses.saturating_add(1));
        }
    }
}

impl Drop for Invited<'_> {
    fn drop(&mut self) {
        if self.state != Use::Spent {
            self.untake();
        }
        self.table.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stores;

    #[test]
    fn an_invitation_lets_in_as_many_as_it_says_also_at_once() {
        let stores = Stores::in_memory();
        let store = &*stores.privileges;
        let rights = RightsTable::load(store).unwrap();
        let (token, now) = (InviteToken::generate(&mut rand::rng()), Timestamp(5));
        let invite = Invite { token: token.clone(), uses: Some(2), until: None };
        assert!(rights.add_invite(store, invite, now).unwrap());
        let (first, second) = (rights.invited(&token, now), rights.invited(&token, now));
        assert!(first.is_some() && second.is_some() && rights.invited(&token, now).is_none());
        let uses = || {
            let all = store.invites().unwrap();
            all.iter().find(|invite| invite.token == token).and_then(|invite| invite.uses)
        };
        let mut second = second.unwrap();
        second.store(store).unwrap();
        // Another one is made meanwhile: what is under way is not over.
        let other = InviteToken::generate(&mut rand::rng());
        let other = Invite { token: other, uses: None, until: Some(Timestamp(4)) };
        assert!(rights.add_invite(store, other, now).unwrap());
        second.give_back(store);
        assert_eq!(uses(), Some(1), "it came back");
        for mut invited in [rights.invited(&token, now).unwrap(), first.unwrap()] {
            invited.store(store).unwrap();
            invited.used();
        }
        assert!(rights.invited(&token, now).is_none());
        let left = store.invites().unwrap();
        assert!(left.iter().all(|invite| invite.token != token), "also after a restart");
    }
}
