//! Who stands out: the banned, administrators, and those who hold an invitation with a limit.

use std::collections::BTreeMap;
use std::sync::Mutex;

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
    /// Held by who changes either, also while it is stored; nobody else waits for it.
    changing: Mutex<()>,
}

impl RightsTable {
    pub(crate) fn load(store: &dyn Privileges) -> Result<Self, StoreError> {
        let users = store.rights()?.into_iter().collect();
        let invites = Mutex::new(store.invites()?);
        Ok(Self { users: Mutex::new(users), invites, changing: Mutex::new(()) })
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
        let is_over = |invite: &Invite| {
            invite.until.is_some_and(|until| until <= now) || invite.uses == Some(0)
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

    /// Finds the invitation of a token and takes one use of it, which comes back unless somebody comes in by it.
    pub(crate) fn invited(&self, token: &InviteToken, now: Timestamp) -> Option<Invited<'_>> {
        let mut invites = lock(&self.invites);
        // `InviteToken` compares in constant time; which one it is, is no secret to its holder.
        let invite = invites.iter_mut().find(|invite| invite.token == *token)?;
        if invite.until.is_some_and(|until| until <= now) || invite.uses == Some(0) {
            return None;
        }
        invite.uses = invite.uses.map(|uses| uses.saturating_sub(1));
        Some(Invited { table: self, token: token.clone(), is_used: false })
    }
}

/// An invitation that somebody is about to use.
#[derive(Debug)]
pub(crate) struct Invited<'a> {
    table: &'a RightsTable,
    token: InviteToken,
    is_used: bool,
}

impl Invited<'_> {
    /// Somebody came in by it.
    pub(crate) fn used(mut self, store: &dyn Privileges) -> Result<(), StoreError> {
        self.is_used = true;
        let _changing = lock(&self.table.changing);
        let invites = lock(&self.table.invites);
        let invite = invites.iter().find(|invite| invite.token == self.token).cloned();
        drop(invites);
        match invite.filter(|invite| invite.uses.is_some()) {
            Some(invite) => store.put_invite(&invite),
            None => Ok(()),
        }
    }
}

impl Drop for Invited<'_> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut invites = lock(&self.table.invites);
        if let Some(invite) = invites.iter_mut().find(|invite| invite.token == self.token) {
            invite.uses = invite.uses.map(|uses| uses.saturating_add(1));
        }
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
        drop(second);
        rights.invited(&token, now).unwrap().used(store).unwrap();
        first.unwrap().used(store).unwrap();
        assert!(rights.invited(&token, now).is_none());
        assert_eq!(store.invites().unwrap(), Vec::new());
    }
}
