//! What became of sent envelopes: accepted, still queued, or to be sent again.

use super::clock::Timer;
use super::contacts::sender;
use super::copy::Due;
use super::outbound::{envelope, give_up_entry, seal_unkept, set_status};
use super::rooms::shared_answered;
use super::sessions::begin_reset;
use super::transaction::Transaction;
use super::{Engine, EngineError, Event, Pending, QUERY_EVERY, Sent};
use crate::ids::{DeviceAddress, MessageId, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{MessageStatus, OutboxContent, OutboxEntry, OutboxState};
use crate::wire::content::Body;
use crate::wire::limits::MAX_QUERY;
use crate::wire::relay::{ErrorCode, Request};

/// When the outbox is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    AtLogin,
    Later,
}

impl Engine {
    pub(super) fn sent(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        results: impl Iterator<Item = (Sent, Result<(), ErrorCode>)>,
    ) -> Result<(), EngineError> {
        for (sent, result) in results {
            let (user, number) = match sent {
                Sent::Outbox(user, number) => (user, number),
                Sent::Profile(address, version) => {
                    if result.is_ok() {
                        self.told(tx, address, version)?;
                    }
                    continue;
                }
                Sent::Unkept => continue,
            };
            let Some(mut entry) = tx.get::<OutboxEntry>(&(user, number))? else {
                continue;
            };
            let message = entry.message;
            match result {
                Ok(()) => {
                    if !entry.accept(tx.now) {
                        continue;
                    }
                    tx.put_at(&(entry.to.user, number), &entry);
                    if matches!(entry.content, OutboxContent::Shared { .. }) {
                        shared_answered(tx, number, &mut entry)?;
                        continue;
                    }
                    set_status(tx, &user, &message, MessageStatus::AtRelay)?;
                    tx.event(Event::AtRelay { message });
                }
                Err(code) => {
                    if code == ErrorCode::UnknownDevice {
                        self.refresh_if_old(tx, user);
                    }
                    if matches!(entry.content, OutboxContent::Shared { .. }) {
                        shared_answered(tx, number, &mut entry)?;
                        continue;
                    }
                    tx.event(Event::Delayed { message, code });
                }
            }
        }
        Ok(())
    }

    /// Goes through the whole outbox: sends, sends again, asks what still waits.
    pub(super) fn drive_outbox(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        when: Round,
    ) -> Result<(), EngineError> {
        self.next_query = Timer::after(QUERY_EVERY, tx.now);
        if when == Round::Later || self.undelivered == 0 {
            // What waits at the relay is not believed for ever.
            self.forget_left(tx)?;
        }
        let (mut again, mut ask) = (Vec::new(), Vec::new());
        let users = tx.users_owed()?;
        for user in &users {
            for (number, mut entry) in tx.group::<OutboxEntry>(user)? {
                if entry.try_from(tx.begins()) {
                    tx.put_at(&(entry.to.user, number), &entry);
                }
                // What waits at the relay may hold its receipt; for that it is not believed for ever.
                let may_come = when == Round::AtLogin && self.undelivered > 0;
                if !may_come && entry.is_over(tx.settled) {
                    give_up_entry(tx, user, number, &entry)?;
                    continue;
                }
                match (entry.due(tx.now), &entry.state) {
                    (Due::Send, OutboxState::Sealed(sealed)) => {
                        again.push((Sent::Outbox(*user, number), envelope(entry.to, sealed)));
                        self.renew_blob(tx, &entry)?;
                    }
                    (Due::Ask, OutboxState::Accepted(sealed)) => {
                        ask.push(((*user, number), sealed.key));
                    }
                    (Due::Seal, _) => {
                        self.waiting.insert(*user);
                    }
                    _ => {}
                }
            }
        }
        self.send(tx, again);
        for user in &users {
            self.drive_user(tx, user)?;
        }
        for batch in ask.chunks(MAX_QUERY) {
            let (asked, keys) = batch.iter().copied().unzip();
            tx.ask(Request::QueryQueued(keys), Pending::Query(asked));
        }
        Ok(())
    }

    /// Gives up what was tried for long enough, now that everything that waited at the relay was taken in.
    pub(super) fn give_up_overdue(
        &mut self,
        tx: &mut Transaction<'_, '_>,
    ) -> Result<(), EngineError> {
        for user in tx.users_owed()? {
            for (number, entry) in tx.group::<OutboxEntry>(&user)? {
                if entry.is_over(tx.settled) {
                    give_up_entry(tx, &user, number, &entry)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn queried(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        answers: impl Iterator<Item = ((UserId, u64), bool)>,
    ) -> Result<(), EngineError> {
        let mut again = Vec::new();
        let mut broken: Vec<DeviceAddress> = Vec::new();
        for ((user, number), queued) in answers {
            if queued {
                continue;
            }
            let Some(mut entry) = tx.get::<OutboxEntry>(&(user, number))? else {
                continue;
            };
            match (entry.miss(tx.now), &entry.state) {
                (Due::Send, OutboxState::Sealed(sealed)) => {
                    again.push((Sent::Outbox(user, number), envelope(entry.to, sealed)));
                    tx.put_at(&(entry.to.user, number), &entry);
                    self.renew_blob(tx, &entry)?;
                }
                (Due::NewSession, _) if !broken.contains(&entry.to) => broken.push(entry.to),
                _ => {}
            }
        }
        self.send(tx, again);
        for device in broken {
            self.reset(tx, device)?;
        }
        Ok(())
    }

    /// The peer device lost our session: everything unreceipted goes out again in a new one.
    pub(super) fn reset(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        address: DeviceAddress,
    ) -> Result<(), EngineError> {
        let Some(mut contact) = tx.contact(&address.user)? else {
            return Ok(());
        };
        if !begin_reset(contact.device_mut(address.device), tx.now) {
            return Ok(());
        }
        tx.put(&contact);
        self.send_again(tx, address)?;
        self.claim(tx, vec![address]);
        Ok(())
    }

    /// Everything to a device that has no receipt waits for a new ciphertext.
    pub(super) fn send_again(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        address: DeviceAddress,
    ) -> Result<(), EngineError> {
        for (number, mut entry) in tx.group::<OutboxEntry>(&address.user)? {
            if entry.to == address {
                entry.state = OutboxState::Waiting;
                tx.put_at(&(entry.to.user, number), &entry);
                self.waiting.insert(address.user);
            }
        }
        Ok(())
    }

    /// Sends the first content of a session that replaces a broken one.
    pub(super) fn announce_reset(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        address: DeviceAddress,
    ) -> Result<(), EngineError> {
        let Some(mut contact) = tx.contact(&address.user)? else {
            return Ok(());
        };
        // Whoever has the device's keys reads what goes out again: the person is told.
        tx.event(Event::NewSession { with: sender(&contact) });
        let message = MessageId::generate(tx.rng);
        let device = contact.device_mut(address.device);
        if let Some(sealed) = seal_unkept(tx, &address, device, message, Body::Reset)? {
            let sent = vec![(Sent::Unkept, envelope(address, &sealed))];
            tx.put(&contact);
            self.send(tx, sent);
        }
        Ok(())
    }
}
