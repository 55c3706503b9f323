//! redb: queued envelopes, nicknames, blob records.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chatcore::ids::{
    BlobId, DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, Timestamp, UserId,
};
use chatcore::wire::envelope::EnvelopeKind;
use chatcore::wire::relay::{BlobShape, MailQueue};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, WriteTransaction,
};

use super::super::rules::{NicknameRow, Rename};
use super::super::{Arrival, BlobRecord, Body, Mailbox, MailboxBatch, Queued, SCHEMA, StoreError};
use super::group::Group;
use super::seal::Seal;
use super::{MAIN, failed, is_no_space, registers, rooms};
use crate::clock::{Doubted, TimeNote};
use crate::lock::lock;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const QUEUE: TableDefinition<u64, &[u8; QUEUE_ROW]> = TableDefinition::new("queue");
const BODIES: TableDefinition<u64, &[u8]> = TableDefinition::new("bodies");
const NICKNAMES: TableDefinition<&str, &[u8; NICKNAME_ROW]> = TableDefinition::new("nicknames");
const BLOBS: TableDefinition<&[u8; 16], &[u8; BLOB_ROW]> = TableDefinition::new("blobs");

const SCHEMA_KEY: &str = "schema";
const QUEUE_ROW: usize = 32 + 4 + 16 + 8 + 4 + 1;
const NICKNAME_ROW: usize = 32 + 8;
const BLOB_ROW: usize = 32 + 4 + 4 + 32 + 8 + 1;
const BODY_HEAD: usize = 16 + 1;
const LAST_TIME: &str = "last_time";
const DOUBTED_TIME: &str = "doubted_time";
const DOUBTED_STAYED: &str = "doubted_stayed";
const CACHE: usize = 24 << 20;

type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send>;

/// The redb file; writes of all threads share transactions.
pub(super) struct MainDb {
    db: Database,
    group: Group<Job>,
    /// A write found no space; the engine says no more than that since.
    is_full: AtomicBool,
    /// Dropped last.
    _seal: Arc<Seal>,
}

impl MainDb {
    pub(super) fn open(path: &Path, seal: &Arc<Seal>) -> Result<Self, StoreError> {
        let is_new = std::fs::metadata(path).map_or(true, |m| m.len() == 0);
        let open = || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
            if is_new { builder.create(path) } else { builder.open(path) }
        };
        let db = match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(_) => return Err(StoreError::Damaged(MAIN)),
        };
        let (group, is_full) = (Group::new(), AtomicBool::new(false));
        let main = Self { db, group, is_full, _seal: Arc::clone(seal) };
        match main.schema() {
            Ok(Some(found)) if found > SCHEMA => Err(StoreError::Newer { found, known: SCHEMA }),
            Ok(Some(SCHEMA)) => Ok(main),
            // A crash between creating the file and its first transaction.
            Ok(None) if main.is_empty().unwrap_or(false) => Ok(main),
            _ => Err(StoreError::Damaged(MAIN)),
        }
    }

    /// Tells whether nothing was ever written: the store is new.
    pub(super) fn is_empty(&self) -> Result<bool, redb::Error> {
        Ok(self.db.begin_read()?.list_tables()?.next().is_none())
    }

    fn schema(&self) -> Result<Option<u64>, redb::Error> {
        let tx = self.db.begin_read()?;
        let table = match tx.open_table(META) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        Ok(table.get(SCHEMA_KEY)?.map(|v| v.value()))
    }

    /// Creates the tables of a new store.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.open_table(QUEUE)?;
            tx.open_table(BODIES)?;
            tx.open_table(NICKNAMES)?;
            tx.open_table(BLOBS)?;
            registers::prepare(tx)?;
            rooms::prepare(tx)?;
            tx.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
            Ok(())
        })
    }

    /// Returns everything as it is now, whatever is written meanwhile.
    pub(super) fn moment(&self) -> Result<Moment, StoreError> {
        self.db.begin_read().map(Moment).map_err(|e| failed(&e))
    }

    /// Runs `job` in a write transaction, which it may share; durable on return.
    pub(super) fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = Arc::new(Mutex::new(None));
        let result = Arc::clone(&slot);
        let job: Job = Box::new(move |tx| {
            *lock(&result) = Some(job(tx)?);
            Ok(())
        });
        self.group.run(job, |jobs| self.commit_all(jobs).map_err(|e| self.failed(&e)))?;
        let result = lock(&slot).take();
        result.ok_or(StoreError::Failed)
    }

    fn commit_all(&self, jobs: Vec<Job>) -> Result<(), redb::Error> {
        // Noted before the transaction ends: who reads meanwhile hears no more than that something failed.
        let note = |error: &redb::Error| {
            if is_no_space(error) {
                self.is_full.store(true, Ordering::Release);
            }
        };
        let tx = self.db.begin_write().map_err(redb::Error::from).inspect_err(note)?;
        for job in jobs {
            job(&tx).inspect_err(note)?;
        }
        tx.commit().map_err(redb::Error::from).inspect_err(note)
    }

    pub(super) fn read_with<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || read(&self.db.begin_read()?);
        run().map_err(|e: redb::Error| self.failed(&e))
    }

    fn failed(&self, error: &redb::Error) -> StoreError {
        if matches!(error, redb::Error::PreviousIo) && self.is_full.load(Ordering::Acquire) {
            return StoreError::NoSpace;
        }
        let class = failed(error);
        if class == StoreError::NoSpace {
            self.is_full.store(true, Ordering::Release);
        }
        class
    }

    /// Returns everybody who has a nickname, not only had one.
    pub(super) fn named(&self) -> Result<Vec<UserId>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(NICKNAMES)?.iter()? {
                let (_, row) = row?;
                let row = decode_nickname(row.value());
                if row.until.is_none() {
                    all.push(row.owner);
                }
            }
            Ok(all)
        })
    }

    /// Applies a nickname change; tells whether the new one is the user's now.
    pub(super) fn rename(&self, rename: Rename) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(NICKNAMES)?;
            if let Some(new) = &rename.new {
                let row = table.get(new.as_str())?.map(|v| decode_nickname(v.value()));
                if row.is_some_and(|r| r.refuses(&rename.user, rename.now)) {
                    return Ok(false);
                }
                let row = encode_nickname(&NicknameRow::live(rename.user));
                table.insert(new.as_str(), &row)?;
            }
            let former = rename.former.as_deref();
            let has_it = |name: &str| -> Result<bool, redb::Error> {
                let row = table.get(name)?.map(|v| decode_nickname(v.value()));
                Ok(row.is_some_and(|row| row.is_of(&rename.user)))
            };
            if let Some(former) = former
                && has_it(former)?
            {
                let row = encode_nickname(&NicknameRow::given_up(rename.user, rename.now));
                table.insert(former, &row)?;
            }
            Ok(true)
        })
    }

    pub(super) fn nickname(&self, folded: &str) -> Result<Option<NicknameRow>, StoreError> {
        self.read_with(|tx| {
            let row = tx.open_table(NICKNAMES)?.get(folded)?;
            Ok(row.map(|v| decode_nickname(v.value())))
        })
    }

    /// Frees a nickname, whoever has it.
    pub(super) fn release(&self, folded: &str) -> Result<bool, StoreError> {
        let folded = folded.to_owned();
        self.write(move |tx| Ok(tx.open_table(NICKNAMES)?.remove(folded.as_str())?.is_some()))
    }

    /// Returns at most `max` nicknames in use, with whose they are.
    pub(super) fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        self.read_with(|tx| {
            let mut names = Vec::new();
            for row in tx.open_table(NICKNAMES)?.iter()? {
                let (name, row) = row?;
                let row = decode_nickname(row.value());
                if row.until.is_none() && names.len() < max {
                    names.push((name.value().to_owned(), row.owner));
                }
            }
            Ok(names)
        })
    }

    pub(super) fn last_time(&self) -> Result<Option<TimeNote>, StoreError> {
        self.read_with(|tx| {
            let table = tx.open_table(rooms::NUMBERS)?;
            let number = |key| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value()));
            let Some(believed) = number(LAST_TIME)?.map(Timestamp) else { return Ok(None) };
            let (shown, stayed) = (number(DOUBTED_TIME)?, number(DOUBTED_STAYED)?);
            let doubted = shown.zip(stayed);
            let doubted =
                doubted.map(|(shown, stayed)| Doubted { shown: Timestamp(shown), stayed });
            Ok(Some(TimeNote { believed, doubted }))
        })
    }

    pub(super) fn note_time(self: &Arc<Self>, note: TimeNote) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(rooms::NUMBERS)?;
            table.insert(LAST_TIME, note.believed.0)?;
            table.remove(DOUBTED_TIME)?;
            table.remove(DOUBTED_STAYED)?;
            if let Some(doubted) = note.doubted {
                table.insert(DOUBTED_TIME, doubted.shown.0)?;
                table.insert(DOUBTED_STAYED, doubted.stayed)?;
            }
            Ok(())
        })
    }

    pub(super) fn sweep_nicknames(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(NICKNAMES)?;
            table.retain(|_, row| !decode_nickname(row).is_over(now))?;
            Ok(())
        })
    }

    pub(super) fn blobs(&self) -> Result<Vec<(BlobId, BlobRecord, bool)>, StoreError> {
        self.read_with(|tx| {
            let mut rows = Vec::new();
            for row in tx.open_table(BLOBS)?.iter()? {
                let (id, row) = row?;
                let (record, complete) = decode_blob(row.value());
                rows.push((BlobId::from_bytes(*id.value()), record, complete));
            }
            Ok(rows)
        })
    }

    pub(super) fn put_blobs(
        &self,
        rows: Vec<(BlobId, BlobRecord, bool)>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(BLOBS)?;
            for (id, record, complete) in &rows {
                table.insert(id.as_bytes(), &encode_blob(record, *complete))?;
            }
            Ok(())
        })
    }

    pub(super) fn remove_blobs(&self, ids: Vec<BlobId>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(BLOBS)?;
            for id in &ids {
                table.remove(id.as_bytes())?;
            }
            Ok(())
        })
    }
}

/// The database at one moment.
pub(super) struct Moment(ReadTransaction);

impl Moment {
    /// Copies everything into a new database.
    pub(super) fn copy_to(&self, to: &MainDb) -> Result<(), StoreError> {
        let copy = || -> Result<(), redb::Error> {
            let tx = to.db.begin_write()?;
            copy_table(&self.0, &tx, QUEUE)?;
            copy_table(&self.0, &tx, BODIES)?;
            copy_table(&self.0, &tx, NICKNAMES)?;
            copy_table(&self.0, &tx, BLOBS)?;
            copy_table(&self.0, &tx, registers::REGISTERS)?;
            copy_table(&self.0, &tx, registers::ENTRIES)?;
            copy_table(&self.0, &tx, registers::ASIDE)?;
            copy_table(&self.0, &tx, registers::PAYERS)?;
            copy_table(&self.0, &tx, registers::SHARES)?;
            copy_table(&self.0, &tx, rooms::EVENTS)?;
            copy_table(&self.0, &tx, rooms::STATEMENTS)?;
            copy_table(&self.0, &tx, rooms::HEALED)?;
            copy_table(&self.0, &tx, rooms::SEEN)?;
            copy_table(&self.0, &tx, rooms::LOBBIES)?;
            copy_table(&self.0, &tx, rooms::SAID)?;
            copy_table(&self.0, &tx, rooms::NUMBERS)?;
            copy_table(&self.0, &tx, rooms::REMOVED)?;
            copy_table(&self.0, &tx, rooms::RIGHTS)?;
            copy_table(&self.0, &tx, rooms::INVITES)?;
            copy_table(&self.0, &tx, rooms::AUDIT)?;
            Ok(tx.commit()?)
        };
        copy().map_err(|e| failed(&e))
    }
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let mut target = to.open_table(table)?;
    for row in from.open_table(table)?.iter()? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

impl Mailbox for Arc<MainDb> {
    fn index(&self) -> Result<Vec<Queued>, StoreError> {
        self.read_with(|tx| {
            let mut rows = Vec::new();
            for row in tx.open_table(QUEUE)?.iter()? {
                let (arrival, row) = row?;
                match decode_queued(arrival.value(), row.value()) {
                    Some(queued) => rows.push(queued),
                    None => tracing::error!("a queue row is not readable and was left out"),
                }
            }
            Ok(rows)
        })
    }

    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError> {
        self.read_with(|tx| {
            let table = tx.open_table(BODIES)?;
            let mut bodies = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let row = table.get(arrival)?;
                bodies.push(row.and_then(|v| decode_body(v.value())));
            }
            Ok(bodies)
        })
    }

    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut queue = tx.open_table(QUEUE)?;
            let mut bodies = tx.open_table(BODIES)?;
            for (queued, body) in &batch.appended {
                queue.insert(queued.arrival, &encode_queued(queued))?;
                let len = BODY_HEAD + body.blob.len();
                let mut row = bodies.insert_reserve(queued.arrival, len)?;
                encode_body(body, row.as_mut());
            }
            for arrival in &batch.removed {
                queue.remove(arrival)?;
                bodies.remove(arrival)?;
            }
            Ok(())
        })
    }
}

fn refusal(error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
        // The error inside says whether there was space.
        DatabaseError::Storage(StorageError::Io(io))
            if !matches!(
                io.kind(),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
            ) =>
        {
            failed(io)
        }
        _ => StoreError::Damaged(MAIN),
    }
}

/// Copies `from` over the next bytes of a row and moves on.
pub(super) fn put<'a>(row: &'a mut [u8], from: &[u8]) -> &'a mut [u8] {
    let (head, rest) = row.split_at_mut(from.len().min(row.len()));
    head.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
    rest
}

/// Takes the next `N` bytes of a row, zeros when it is too short.
pub(super) fn take<const N: usize>(row: &mut &[u8]) -> [u8; N] {
    match row.split_first_chunk::<N>() {
        Some((head, rest)) => {
            *row = rest;
            *head
        }
        None => [0; N],
    }
}

fn encode_queued(queued: &Queued) -> [u8; QUEUE_ROW] {
    let mut row = [0; QUEUE_ROW];
    let rest = put(&mut row, queued.to.user.as_bytes());
    let rest = put(rest, &queued.to.device.get().to_be_bytes());
    let rest = put(rest, queued.key.as_bytes());
    let rest = put(rest, &queued.expires.0.to_be_bytes());
    let rest = put(rest, &queued.size.to_be_bytes());
    put(rest, &[u8::from(queued.queue == MailQueue::Untagged)]);
    row
}

fn decode_queued(arrival: Arrival, row: &[u8; QUEUE_ROW]) -> Option<Queued> {
    let mut row = row.as_slice();
    Some(Queued {
        arrival,
        to: DeviceAddress {
            user: UserId::from_bytes(take(&mut row)),
            device: DeviceId::new(u32::from_be_bytes(take(&mut row)))?,
        },
        key: IdempotencyKey::from_bytes(take(&mut row)),
        expires: Timestamp(u64::from_be_bytes(take(&mut row))),
        size: u32::from_be_bytes(take(&mut row)),
        queue: match take(&mut row) {
            [0] => MailQueue::Tagged,
            [1] => MailQueue::Untagged,
            _ => return None,
        },
    })
}

fn encode_body(body: &Body, row: &mut [u8]) {
    let kind = match body.kind {
        EnvelopeKind::First => 1,
        EnvelopeKind::Session => 2,
    };
    let rest = put(row, body.tag.as_bytes());
    let rest = put(rest, &[kind]);
    if rest.len() == body.blob.len() {
        rest.copy_from_slice(&body.blob);
    }
}

fn decode_body(row: &[u8]) -> Option<Body> {
    let (head, blob) = row.split_at_checked(BODY_HEAD)?;
    let (tag, kind) = head.split_first_chunk::<16>()?;
    Some(Body {
        tag: DeliveryTag::from_bytes(*tag),
        kind: match kind {
            [1] => EnvelopeKind::First,
            [2] => EnvelopeKind::Session,
            _ => return None,
        },
        blob: Bytes::copy_from_slice(blob),
    })
}

fn encode_nickname(nickname: &NicknameRow) -> [u8; NICKNAME_ROW] {
    let mut row = [0; NICKNAME_ROW];
    let rest = put(&mut row, nickname.owner.as_bytes());
    put(rest, &nickname.until.map_or(0, |t| t.0).to_be_bytes());
    row
}

fn decode_nickname(row: &[u8; NICKNAME_ROW]) -> NicknameRow {
    let mut row = row.as_slice();
    let owner = UserId::from_bytes(take(&mut row));
    let until = Some(u64::from_be_bytes(take(&mut row))).filter(|until| *until != 0);
    NicknameRow { owner, until: until.map(Timestamp) }
}

fn encode_blob(record: &BlobRecord, complete: bool) -> [u8; BLOB_ROW] {
    let mut row = [0; BLOB_ROW];
    let rest = put(&mut row, record.owner.as_bytes());
    let rest = put(rest, &record.shape.chunk_size.to_be_bytes());
    let rest = put(rest, &record.shape.chunk_count.to_be_bytes());
    let rest = put(rest, &record.write_hash);
    let rest = put(rest, &record.since.0.to_be_bytes());
    put(rest, &[complete.into()]);
    row
}

fn decode_blob(row: &[u8; BLOB_ROW]) -> (BlobRecord, bool) {
    let mut row = row.as_slice();
    let owner = UserId::from_bytes(take(&mut row));
    let record = BlobRecord {
        owner,
        shape: BlobShape {
            chunk_size: u32::from_be_bytes(take(&mut row)),
            chunk_count: u32::from_be_bytes(take(&mut row)),
        },
        write_hash: take(&mut row),
        since: Timestamp(u64::from_be_bytes(take(&mut row))),
    };
    (record, take::<1>(&mut row) == [1])
}

#[cfg(test)]
pub(super) fn set_schema_for_testing_only(path: &Path, version: u64) {
    let tx = Database::open(path).unwrap().begin_write().unwrap();
    tx.open_table(META).unwrap().insert(SCHEMA_KEY, version).unwrap();
    tx.commit().unwrap();
}
