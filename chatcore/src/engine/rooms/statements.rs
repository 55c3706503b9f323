//! Joins and leaves of an open room: those that the relay showed, and those that somebody showed of themselves.

use super::super::error::EngineError;
use super::super::transaction::Transaction;
use super::loaded::{Room, StatementPlace};
use crate::ids::UserId;
use crate::membership::{Joined, Statement};
use crate::store::row::ReadRows;
use crate::store::rows::StatementRow;

/// Most statements kept of one open room: a relay that invents users fills no disk.
const MAX_STATEMENTS: usize = 16_384;
/// By how much the counter of a join that somebody shows of themselves may be above what the relay showed.
const MAX_HINTED: u64 = 16;

impl Room {
    pub(super) fn restore_statement(&mut self, number: u64, row: StatementRow) {
        let shown = row.shown.and_then(|signed| Statement::from_own_store(signed).ok());
        let hinted = row.hinted.and_then(|signed| Statement::from_own_store(signed).ok());
        let place = StatementPlace { number, shown: shown.as_ref().map_or(0, Statement::counter) };
        for statement in [shown, hinted].into_iter().flatten() {
            self.statements.take(&statement);
            self.statement_places.insert(statement.user(), place);
        }
    }

    /// Takes a verified statement in that the relay showed; tells whether it is news. Our own always finds a
    /// place.
    pub(super) fn take_statement(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        statement: &Statement,
        own: &UserId,
    ) -> Result<bool, EngineError> {
        let (user, counter) = (statement.user(), statement.counter());
        let shown = self.shown_counter(&user);
        if statement.room() != self.id() || counter <= shown || !self.has_place(tx, &user, own) {
            return Ok(false);
        }
        let is_news = self.statements.take(statement);
        // What they have said themselves may be newer.
        let is_newest = self.statements.counter(&user) == counter;
        let row = self.stored_statement(tx, &user)?;
        let hinted = row.hinted.filter(|_| !is_newest);
        let row = StatementRow { shown: Some(statement.signed().clone()), hinted };
        self.store_statement(tx, user, counter, &row);
        Ok(is_news)
    }

    /// Takes a statement in that somebody has shown of themselves. Who was taken out comes in by what the relay
    /// shows; and a counter that no relay shows for long would be one that nobody can take out.
    pub(super) fn take_hint(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        statement: &Statement,
        own: &UserId,
    ) -> Result<(), EngineError> {
        let (user, shown) = (statement.user(), self.shown_counter(&statement.user()));
        let barred = self.state().map_or(0, |state| state.barred(&user));
        let is_near = statement.counter() <= shown.saturating_add(MAX_HINTED);
        let is_barred = statement.joined() == Joined::Yes && barred > 0 && shown <= barred;
        if statement.room() != self.id()
            || !is_near
            || is_barred
            || !self.has_place(tx, &user, own)
            || !self.statements.take(statement)
        {
            return Ok(());
        }
        let row = self.stored_statement(tx, &user)?;
        let row = StatementRow { hinted: Some(statement.signed().clone()), ..row };
        self.store_statement(tx, user, shown, &row);
        Ok(())
    }

    /// Forgets what somebody has shown of themselves and the relay has not; tells whether there was any.
    pub(super) fn drop_hint(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<bool, EngineError> {
        let shown = self.shown_counter(user);
        if self.statements.counter(user) <= shown {
            return Ok(false);
        }
        let row = StatementRow { hinted: None, ..self.stored_statement(tx, user)? };
        self.statements.forget(user);
        if row.shown.is_some() {
            self.store_statement(tx, *user, shown, &row);
            let number = self.statement_places.get(user).map_or(0, |place| place.number);
            self.restore_statement(number, row);
        } else if let Some(place) = self.statement_places.remove(user) {
            tx.delete::<StatementRow>(&(self.id(), place.number));
        }
        Ok(true)
    }

    /// Returns the highest counter of a user that the relay showed, 0 for none.
    pub(super) fn shown_counter(&self, user: &UserId) -> u64 {
        self.statement_places.get(user).map_or(0, |place| place.shown)
    }

    /// Returns the join of a user that the relay showed, if that is the newest of them.
    pub(super) fn shown_join(
        &self,
        tx: &Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<Option<Statement>, EngineError> {
        let shown = self.stored_statement(tx, user)?.shown;
        let shown = shown.and_then(|signed| Statement::from_own_store(signed).ok());
        Ok(shown.filter(|statement| statement.joined() == Joined::Yes))
    }

    fn has_place(&mut self, tx: &mut Transaction<'_, '_>, user: &UserId, own: &UserId) -> bool {
        if self.statement_places.contains_key(user) || user == own {
            return true;
        }
        let is_full = |room: &Self| {
            let of_others = room.statement_places.len();
            of_others - usize::from(room.statement_places.contains_key(own)) >= MAX_STATEMENTS
        };
        if is_full(self) {
            self.forget_leaves(tx, own);
        }
        !is_full(self)
    }

    fn stored_statement(
        &self,
        tx: &Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<StatementRow, EngineError> {
        let Some(place) = self.statement_places.get(user) else {
            return Ok(StatementRow::default());
        };
        Ok(tx.get::<StatementRow>(&(self.id(), place.number))?.unwrap_or_default())
    }

    fn store_statement(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: UserId,
        shown: u64,
        row: &StatementRow,
    ) {
        let next = &mut self.row.next_statement_row;
        let place = self.statement_places.entry(user).or_insert_with(|| {
            *next += 1;
            StatementPlace { number: *next - 1, shown }
        });
        place.shown = shown;
        tx.put_at(&(self.row.id, place.number), row);
    }

    /// Makes place for who joins: who has left is forgotten first.
    fn forget_leaves(&mut self, tx: &mut Transaction<'_, '_>, own: &UserId) {
        let id = self.id();
        let is_gone = |user: &UserId| self.statements.join_of(user).is_none() && user != own;
        let gone: Vec<UserId> = self.statement_places.keys().copied().filter(is_gone).collect();
        for user in gone {
            self.statements.forget(&user);
            if let Some(place) = self.statement_places.remove(&user) {
                tx.delete::<StatementRow>(&(id, place.number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Context;
    use crate::ids::{DeviceId, RoomId, Timestamp};
    use crate::keys::{DeviceKeys, IdentityKeyPair};
    use crate::membership::{RoomKind, StatementFields};
    use crate::store::MemoryStore;
    use crate::store::rows::RoomStanding;

    /// Whoever has more accounts than there are places keeps nobody out for good: who has left makes room,
    /// and our own statement needs none.
    #[test]
    fn statements_of_an_open_room_have_a_limit() {
        let (id, now) = (RoomId::from_bytes([1; 32]), Timestamp(1_800_000_000_000));
        let keys = DeviceKeys::generate(DeviceId::FIRST, &mut crate::testing::rng());
        let says = |n: u64, counter, joined| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&n.to_be_bytes());
            let identity = IdentityKeyPair::from_seed(&seed);
            let cert = keys.certify(&identity, now);
            let fields = StatementFields { room: id, counter, joined };
            Statement::sign(fields, &identity.public(), &cert, &keys)
        };
        let own = says(99_999, 1, Joined::Yes);
        let (store, mut rng) = (MemoryStore::default(), crate::testing::rng());
        let mut context = Context { store: &store, now, rng: &mut rng };
        let tx = &mut Transaction::new(&mut context);
        let mut room = Room::unread(id, RoomKind::Open, RoomStanding::Member);
        let mut take = |room: &mut Room, n, counter, joined| {
            room.take_statement(tx, &says(n, counter, joined), &own.user()).unwrap()
        };
        for n in 0..16_384 {
            assert!(take(&mut room, n, 1, Joined::Yes), "{n}");
        }
        assert!(!take(&mut room, 20_000, 1, Joined::Yes), "full");
        assert!(take(&mut room, 99_999, 1, Joined::Yes), "our own");
        assert!(take(&mut room, 7, 2, Joined::No), "of who is known already");
        assert!(take(&mut room, 20_000, 1, Joined::Yes), "in the place of who has left");
        assert!(!take(&mut room, 20_001, 1, Joined::Yes));
        assert_eq!(room.statements.joined().count(), 16_385);
    }
}
