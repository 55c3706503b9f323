//! From the rows of a backup to the store of a new device.

use std::collections::BTreeSet;

use super::super::devices::address_anew;
use super::super::error::EngineError;
use super::super::registration::new_device_id;
use super::super::requests::Requests;
use super::super::rooms::load;
use super::super::step::{Context, Step};
use super::super::transaction::Transaction;
use crate::addresses::{RelayAddress, RelayAddresses};
use crate::ids::{Conversation, Timestamp, UserId};
use crate::keys::{DeviceKeys, Nickname};
use crate::membership::RoomKind;
use crate::store::row::{ReadRows, Row};
use crate::store::rows::{
    Admission, Clock, Contact, ContactStanding, MessageIndex, OutboxContent, OutboxEntry, Profile,
    RoomStanding, SavedProfile, Transfer, UploadSource,
};
use crate::store::{Changes, Key, SCHEMA_VERSION, StoreError, Table, Value, codec};
use crate::trust::Trust;
use crate::wire::WireError;

/// Summary of a restored backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Our nickname.
    pub nickname: Nickname,
    /// When the backup was made.
    pub saved_at: Timestamp,
    /// People known.
    pub contacts: u64,
    /// Rooms known.
    pub rooms: u64,
    /// Messages of all conversations.
    pub messages: u64,
}

/// Changes to a profile since its backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Where the relay is now: `HOST:PORT`.
    pub address: Option<String>,
    /// Another nickname, if the former one belongs to somebody else now. Not used if the relay has a
    /// newer record: that one's counts.
    pub nickname: Option<Nickname>,
}

/// A backup that is being read into an empty store: every row is [taken](Self::take), the changes
/// written, then it is [finished](Self::finish).
#[derive(Debug, Default)]
pub struct Restore {
    profile: Option<SavedProfile>,
    contacts: u64,
    rooms: u64,
    messages: u64,
}

impl Restore {
    /// Takes one row in; `changes` then hold it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for what no backup holds, [`StoreError::NewerSchema`].
    pub fn take(&mut self, row: &[u8], changes: &mut Changes) -> Result<(), StoreError> {
        let (key, value) = codec::decode_saved_row(row).map_err(|_| StoreError::Damaged)?;
        if (key.table == Table::Profile) != self.profile.is_none() {
            return Err(StoreError::Damaged);
        }
        if key.table == Table::Profile {
            match codec::saved_schema(&value).map_err(|_| StoreError::Damaged)? {
                SCHEMA_VERSION => {}
                found if found > SCHEMA_VERSION => {
                    return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
                }
                _ => return Err(StoreError::Damaged),
            }
        }
        self.take_row(key, value, changes).map_err(|_| StoreError::Damaged)
    }

    fn take_row(&mut self, key: Key, value: Value, changes: &mut Changes) -> Result<(), WireError> {
        match key.table {
            Table::Profile => {
                self.profile = Some(codec::decode_saved_profile(&value)?);
                return Ok(());
            }
            Table::Contacts => {
                let contact = codec::decode_contact(&value)?;
                stands_at(&key, contact.user().as_bytes())?;
                self.contacts += 1;
            }
            Table::Rooms => {
                stands_at(&key, codec::decode_room(&value)?.id.as_bytes())?;
                self.rooms += 1;
            }
            Table::History => {
                let entry = codec::decode_history(&value)?;
                stands_at(&key, entry.conversation().as_bytes())?;
                let (history, room) = (key.number, entry.room);
                let index = MessageIndex { history, outbox: Vec::new(), room, blob: None };
                let place = MessageIndex::key(&(entry.peer, entry.message));
                changes.put(place, codec::encode_message_index(&index));
                self.messages += 1;
            }
            Table::RoomEvents => drop(codec::decode_room_event(&value)?),
            Table::RoomLogs => drop(codec::decode_log_entry(&value)?),
            Table::RoomForks => drop(crate::wire::room::decode_fork_proof(&value)?),
            Table::RoomStatements => drop(codec::decode_room_statement(&value)?),
            Table::RoomSenders => drop(codec::decode_room_sender(&value)?),
            Table::Held => drop(codec::decode_held(&value)?),
            Table::Outbox => {
                stands_at(&key, codec::decode_outbox(&value)?.to.user.as_bytes())?;
            }
            Table::Payloads if key.number == 0 => drop(codec::decode_payload(&value)?),
            Table::Payloads => drop(codec::decode_counts(&value)?),
            Table::Transfers => match codec::decode_transfer(&value)? {
                // Goes on with a file of another machine.
                Transfer::Upload { .. } => return Err(WireError::BadValue("transfer")),
                Transfer::Queued { upload, .. } if upload.source == UploadSource::Spooled => {
                    return Err(WireError::BadValue("transfer"));
                }
                transfer => stands_at(&key, &transfer.key())?,
            },
            Table::Journal if key.group.is_empty() => drop(codec::decode_journal(&value)?),
            Table::Journal => drop(codec::decode_readers(&value)?),
            Table::Prekeys
            | Table::Sessions
            | Table::Tags
            | Table::Seen
            | Table::Messages
            | Table::Kept => {
                return Err(WireError::BadValue("table"));
            }
        }
        changes.put(key, value);
        Ok(())
    }

    /// Makes the new device; the step's changes make the store a profile.
    ///
    /// # Errors
    /// [`EngineError::Store`], also for a backup without a profile.
    pub fn finish(
        self,
        context: &mut Context<'_>,
        changed: Changed,
    ) -> Result<(Restored, Step), EngineError> {
        let saved = self.profile.ok_or(EngineError::Store(StoreError::Damaged))?;
        let mut tx = Transaction::new(context);
        let nickname = changed.nickname.unwrap_or(saved.nickname);
        let device = DeviceKeys::generate(new_device_id(&saved.record, tx.rng), tx.rng);
        let cert = device.certify(&saved.identity, tx.now);
        let record = saved.record.next(&saved.identity, nickname.clone(), vec![cert]);
        let own = record.user_id();
        tx.put(&Profile {
            identity: saved.identity,
            device,
            record,
            pending_record: None,
            relay: saved.relay,
            addresses: learned(saved.addresses, changed.address),
            token: saved.token,
            refused_record: None,
            admission: Admission::Restoring,
            next_prekey_id: 1,
            last_resort: None,
            swept_at: tx.now,
            clock: Clock { believed: tx.now, ..Clock::default() },
            visibility: saved.visibility,
            announced: saved.announced,
            // Told again, and learned already.
            moved: 0,
            lobby: saved.lobby,
            unplaced: Vec::new(),
            unplaced_told: 0,
        });
        for id in tx.room_ids()? {
            let Some(mut room) = load(&tx, &id)? else { continue };
            if room.row.standing == RoomStanding::Invited && room.row.kind == RoomKind::Private {
                room.row.invitations.iter_mut().for_each(|asked| asked.is_restored = true);
                tx.put(&room.row);
            }
        }
        let companions = companions(&tx, &own)?;
        for mut contact in tx.all::<Contact>()? {
            let waits = send_anew(&mut tx, &mut contact)?;
            let greets = greets(&contact) || companions.contains(&contact.user());
            if greets && contact.trust != Trust::Changed {
                for device in contact.named_devices() {
                    contact.device_mut(device).profile_owed = true;
                }
            }
            if waits || greets {
                tx.put(&contact);
            }
        }
        for transfer in tx.all::<Transfer>()? {
            let (to, message, blob) = match transfer {
                Transfer::Offered { to, message, blob, .. } => (to, message, blob),
                Transfer::Queued { to, message, manifest, .. } => (to, message, manifest.blob_id),
                Transfer::Upload { .. } | Transfer::Download(_) => continue,
            };
            let user = match to {
                Conversation::User(user) => user,
                Conversation::Room(_) => own,
            };
            if let Some(mut index) = tx.get::<MessageIndex>(&(user, message))? {
                index.blob = Some(blob);
                tx.put_at(&(user, message), &index);
            }
        }
        let Self { contacts, rooms, messages, .. } = self;
        let restored = Restored { nickname, saved_at: saved.saved_at, contacts, rooms, messages };
        Ok((restored, tx.finish(&mut Requests::default())))
    }
}

/// Whoever we write with hears of the new device at once: with it comes a session, and what they
/// have for us.
fn greets(contact: &Contact) -> bool {
    contact.standing == ContactStanding::Contact
}

/// Returns who belongs to a private room of ours: they may have keys for us.
fn companions(tx: &Transaction<'_, '_>, own: &UserId) -> Result<BTreeSet<UserId>, EngineError> {
    let mut found = BTreeSet::new();
    for id in tx.room_ids()? {
        let Some(room) = load(tx, &id)? else { continue };
        if room.row.kind == RoomKind::Private
            && room.row.standing == RoomStanding::Member
            && let Some(state) = room.state()
        {
            found.extend(state.members().keys().filter(|user| *user != own));
        }
    }
    Ok(found)
}

fn stands_at(key: &Key, group: &[u8]) -> Result<(), WireError> {
    if key.group == group { Ok(()) } else { Err(WireError::BadValue("group")) }
}

/// Messages that wait for a person begin the chain of the new device; tells whether there are any.
fn send_anew(tx: &mut Transaction<'_, '_>, contact: &mut Contact) -> Result<bool, EngineError> {
    let user = contact.user();
    let entries = tx.group::<OutboxEntry>(&user)?;
    for (number, mut entry) in entries.iter().cloned() {
        let OutboxContent::Own(bytes) = &entry.content else { continue };
        // However old: here nobody gave it up, and who has it shows it once.
        (entry.created_at, entry.tried_at) = (tx.begins(), Timestamp(0));
        entry.content = OutboxContent::Own(address_anew(tx, contact, entry.to, bytes));
        if let Some(mut index) = tx.get::<MessageIndex>(&(user, entry.message))? {
            index.outbox.push(number);
            tx.put_at(&(user, entry.message), &index);
        }
        tx.put_at(&(entry.to.user, number), &entry);
    }
    Ok(!entries.is_empty())
}

/// The person's settings come before those of the backup.
fn learned(mut addresses: RelayAddresses, said: Option<String>) -> RelayAddresses {
    if let Some(address) = said {
        addresses.learn(RelayAddress::given(address));
    }
    addresses
}
