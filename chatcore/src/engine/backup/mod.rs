//! Backup of a profile, row by row, for another machine.
//!
//! ```text
//! old store ─▶ save ─▶ rows: who we are, contacts, rooms, history, outbox ─▶ Restore ─▶ new store
//! ```
//! Nothing that a device needs goes along: no key of it, no session, no prekey, no tag's owner. The
//! device that comes out of [`Restore`] is a new one, in a record that names no other; when the relay
//! has it, the old device is out.

mod restore;
mod save;

pub use restore::{Changed, Restore, Restored};
pub use save::{Saved, save};

#[cfg(test)]
mod tests {
    use rand::CryptoRng;

    use super::*;
    use crate::engine::FileKind;
    use crate::engine::{Context, EngineError, Lobby, NewProfile};
    use crate::file::{FileKey, Manifest};
    use crate::ids::{
        BlobId, Conversation, DeliveryTag, DeviceAddress, FileId, MessageId, SessionId, Timestamp,
    };
    use crate::keys::{Nickname, RecordHistory, RelayKeyPair};
    use crate::store::codec;
    use crate::store::rows::TagOwner;
    use crate::store::rows::{Contact, ContactStanding, Download, Profile, Said, Transfer};
    use crate::store::{ApplyChanges, Changes, Key, MemoryStore, Store, StoreError, Table};

    fn profile(store: &MemoryStore) -> Profile {
        let row = store.load(&Key::new(Table::Profile, &[])).unwrap().unwrap();
        codec::decode_profile(&row).unwrap()
    }

    /// A profile with a contact with whom there is a session.
    fn store(rng: &mut dyn CryptoRng) -> MemoryStore {
        let mut store = MemoryStore::default();
        let relay = RelayKeyPair::generate(rng).public();
        for name in ["bob", "alice"] {
            let nickname = Nickname::new(name).unwrap();
            let address = "relay:1".to_owned();
            let new = NewProfile { nickname, relay, address, token: None, lobby: Lobby::Wanted };
            let mut context = Context { store: &store, now: Timestamp(1), rng };
            let mut changes = new.create(&mut context).unwrap().changes;
            if name == "alice" {
                let bob = profile(&store).record;
                let user = bob.user_id();
                let mut contact = Contact::new(RecordHistory::new(bob), ContactStanding::Contact);
                let device = contact.device_mut(crate::ids::DeviceId::FIRST);
                let tag = DeliveryTag::from_bytes([0xa1; 16]);
                device.incoming_tag = Some(tag);
                device.outgoing_tag = Some(DeliveryTag::from_bytes([0xa2; 16]));
                device.sessions.push(SessionId::from_bytes([0xa3; 16]));
                let address = DeviceAddress { user, device: device.id };
                let key = Key::new(Table::Tags, tag.as_bytes());
                changes.put(key, codec::encode_tag_owner(&TagOwner { tag, device: address }));
                let key = Key::new(Table::Contacts, user.as_bytes());
                changes.put(key, codec::encode_contact(&contact));
            }
            store.apply(&changes).unwrap();
        }
        store
    }

    fn rows(store: &MemoryStore) -> (Saved, Vec<Vec<u8>>) {
        let mut rows = Vec::new();
        let write = |row: &[u8]| {
            rows.push(row.to_vec());
            Ok::<_, EngineError>(())
        };
        (save(store, Timestamp(2), write).unwrap(), rows)
    }

    #[test]
    fn only_what_a_backup_holds_is_taken_and_only_where_it_belongs() {
        let mut rng = crate::testing::rng();
        let (_, rows) = rows(&store(&mut rng));
        let take = |key: Key, value: &crate::store::Value| {
            let (mut restore, mut changes) = (Restore::default(), Changes::default());
            restore.take(&rows[0], &mut changes).unwrap();
            restore.take(&codec::encode_saved_row(&key, value), &mut changes)
        };
        let (_, contact) = codec::decode_saved_row(&rows[1]).unwrap();
        let user = codec::decode_contact(&contact).unwrap().user();
        assert_eq!(take(Key::new(Table::Contacts, user.as_bytes()), &contact), Ok(()));
        let elsewhere = take(Key::new(Table::Contacts, &[7; 32]), &contact);
        assert_eq!(elsewhere, Err(StoreError::Damaged));
        let message = MessageId::from_bytes([1; 16]);
        let said = Said::new(crate::ids::DeviceId::new(1).unwrap(), None);
        let download = Transfer::Download(Download::new(user, message, FileKind::File, said));
        let value = codec::encode_transfer(&download);
        assert_eq!(take(Key::new(Table::Transfers, &download.key()), &value), Ok(()));
        let manifest = Manifest {
            key: FileKey::from_bytes([1; 32]),
            file_id: FileId::from_bytes([2; 16]),
            blob_id: BlobId::from_bytes([3; 16]),
            size: 1,
            chunk_size: 65_536,
            chunk_count: 1,
            root: [0; 32],
            name: "a".to_owned(),
            media_type: String::new(),
        };
        let upload = Transfer::Upload {
            to: Conversation::User(user),
            manifest,
            path: "/home/alice/a".to_owned(),
            modified: Timestamp(1),
            write_key: crate::wire::relay::WriteKey([2; 32]),
            runs: Vec::new(),
        };
        let value = codec::encode_transfer(&upload);
        let key = Key::new(Table::Transfers, &upload.key());
        assert_eq!(take(key, &value), Err(StoreError::Damaged), "of a file here");
    }

    #[test]
    fn no_secret_of_a_device_goes_along() {
        let mut rng = crate::testing::rng();
        let store = store(&mut rng);
        let (saved, rows) = rows(&store);
        assert_eq!(saved, Saved { contacts: 1, ..Saved::default() });
        let holds = |secret: &[u8]| {
            rows.iter().any(|row| row.windows(secret.len()).any(|bytes| bytes == secret))
        };
        let old = profile(&store);
        assert!(holds(&*old.identity.seed()), "who we are does");
        assert!(!holds(&*old.device.signing.seed()));
        assert!(!holds(&*old.device.agreement.to_bytes()));
        assert!(!holds(&*old.device.link.to_bytes()));
        for byte in [0xa1, 0xa2, 0xa3] {
            assert!(!holds(&[byte; 16]), "tags and sessions");
        }

        let (mut restore, mut changes) = (Restore::default(), Changes::default());
        rows.iter().for_each(|row| restore.take(row, &mut changes).unwrap());
        let mut store = MemoryStore::default();
        store.apply(&changes).unwrap();
        let mut context = Context { store: &store, now: Timestamp(3), rng: &mut rng };
        let moved = Changed { address: Some("relay:2".to_owned()), nickname: None };
        let (restored, step) = restore.finish(&mut context, moved).unwrap();
        store.apply(&step.changes).unwrap();
        assert_eq!((restored.contacts, restored.saved_at), (1, Timestamp(2)));
        let new = profile(&store);
        assert!(
            new.addresses.iter().map(|known| known.address.as_str()).eq(["relay:2", "relay:1"])
        );
        assert_eq!(new.user(), old.user());
        assert!(new.record.extends(&old.record));
        assert!(new.is_named_in(&new.record) && !old.is_named_in(&new.record));
        assert_eq!(new.record.devices().len(), 1);
        assert_ne!(new.device.id, old.device.id);
        assert_ne!(new.device.link.public(), old.device.link.public());
        assert_ne!(new.device.agreement.public(), old.device.agreement.public());
        assert_ne!(new.device.signing.public(), old.device.signing.public());
    }
}
