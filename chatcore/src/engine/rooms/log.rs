//! The logs behind rooms: what the relay signed, what it lost, and what it took back.
//!
//! Registers and open rooms are read alike: a page of entries with a head over the log up to its end.
//!
//! ```text
//! page ─┬─ its head extends what we read ──▶ settled, for good
//!       ├─ its head is a beginning of it ──▶ loss: the relay is given back what it lost, verbatim
//!       └─ its head contradicts it ────────▶ fork: the other branch is evidence (`fork`)
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::error::{EngineError, damaged};
use crate::ids::{LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use crate::keys::{RelayKey, Signed};
use crate::membership::{Act, Chain, Event as RoomEvent, RoomError, RoomKind};
use crate::room::RegisterSecret;
use crate::store::row::ReadRows;
use crate::store::rows::{LogEntry, Profile, RoomRow};
use crate::store::{Direction, StoreError};
use crate::wire::content::LogPoint;
use crate::wire::directory::decode_signed;
use crate::wire::limits::MAX_ENTRIES;
use crate::wire::room::{decode_head, decode_register_entry};

/// A page of a log, as the relay answers.
pub(super) struct Page {
    pub(super) head: Signed,
    pub(super) entries: Vec<Bytes>,
    /// Entries in the whole log, as far as the relay says.
    pub(super) length: u64,
}

/// Relation of a page to what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// It goes on where we were; these entries are settled now.
    Extends,
    /// The relay has only a beginning of what we read.
    Loss { length: u64 },
    /// The relay has something else.
    Fork,
}

/// Returns what the first `length` entries of a log came to; `None` if they are not kept.
pub(super) fn hash_at<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
    length: u64,
) -> Result<Option<LogHash>, EngineError> {
    let Some(last) = length.checked_sub(1) else { return Ok(Some(LogHash::begin(log))) };
    Ok(store.get::<LogEntry>(&(*log, last))?.map(|entry| entry.hash))
}

pub(super) fn entries_from<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
    from: u64,
) -> Result<Vec<LogEntry>, EngineError> {
    let rows = store.range(log, from, Direction::Forward, usize::MAX)?;
    Ok(rows.into_iter().map(|(_, entry)| entry).collect())
}

/// Returns how far a log was read.
pub(super) fn end_of<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
) -> Result<LogPoint, EngineError> {
    let last = store.range::<LogEntry>(log, u64::MAX, Direction::Backward, 1)?.pop();
    Ok(match last {
        Some((number, entry)) => LogPoint { id: *log, length: number + 1, hash: entry.hash },
        None => LogPoint::begin(*log),
    })
}

/// Returns the newest head of the relay that we hold, of any log: by it a relay that was set back sees it.
///
/// # Errors
/// [`EngineError::Store`].
pub(in crate::engine) fn newest_head<S: ReadRows + ?Sized>(
    store: &S,
) -> Result<Option<Signed>, EngineError> {
    let mut newest: Option<((u64, Timestamp), Signed)> = None;
    for row in store.all::<RoomRow>()? {
        let Some(signed) = row.head else { continue };
        let head = decode_head(&signed.body).map_err(damaged)?;
        let rank = (head.epoch, head.at);
        if newest.as_ref().is_none_or(|(other, _)| rank > *other) {
            newest = Some((rank, signed));
        }
    }
    Ok(newest.map(|(_, signed)| signed))
}

/// Reader of one log of a room: opens its entries, and folds them.
pub(super) struct Reader {
    own: UserId,
    relay: RelayKey,
    room: RoomId,
    kind: RoomKind,
    log: LogId,
    /// Of a register.
    secret: Option<RegisterSecret>,
}

impl Reader {
    pub(super) fn new<S: ReadRows + ?Sized>(
        store: &S,
        room: &RoomRow,
        log: LogId,
    ) -> Result<Self, EngineError> {
        let secret = room.secret_of(&RegisterId::from_bytes(*log.as_bytes())).cloned();
        let profile = store.get::<Profile>(&())?.ok_or(StoreError::Damaged)?;
        let (own, relay) = (profile.user(), profile.relay);
        Ok(Self { own, relay, room: room.id, kind: room.kind, log, secret })
    }

    /// Opens an entry; what does not open or verify counts for nothing. Tells whether all of it is events.
    fn events(&self, position: u64, entry: &[u8]) -> (Vec<RoomEvent>, Whole) {
        let signed = match self.kind {
            RoomKind::Open => decode_signed(entry).into_iter().collect::<Vec<_>>(),
            RoomKind::Private => {
                let opened = self.secret.as_ref().and_then(|s| s.open(position, entry).ok());
                opened.and_then(|bytes| decode_register_entry(&bytes).ok()).unwrap_or_default()
            }
        };
        let all = signed.len();
        let verified = signed.into_iter().filter_map(|s| RoomEvent::verify(s, &self.relay).ok());
        let events: Vec<_> = verified.collect();
        let whole = if events.len() == all { Whole::Yes } else { Whole::No };
        (events, whole)
    }

    /// Tells whether a room goes on in this log.
    fn is_current(&self, chain: Option<&Chain>) -> bool {
        let register = chain.and_then(|chain| chain.state().register());
        register.is_none_or(|register| LogId::from(register) == self.log)
    }

    /// Takes entries into a chain, `None` before it begins. What is not allowed where it stands, and what
    /// stands behind a move, counts for nothing. Returns how many of our share in a register they took.
    pub(super) fn fold<'a>(
        &self,
        chain: &mut Option<Chain>,
        entries: impl IntoIterator<Item = (u64, &'a Bytes)>,
    ) -> u32 {
        let mut of_ours = 0;
        for (position, entry) in entries {
            if !self.is_current(chain.as_ref()) {
                break;
            }
            let (events, whole) = self.events(position, entry);
            if self.kind == RoomKind::Private && position >= MAX_ENTRIES {
                // Taken whole or not at all.
                let may_count = whole == Whole::Yes && is_candidate(&events);
                if let Some(chain) = chain.as_mut().filter(|_| may_count) {
                    let _counts = chain.append_all(events);
                }
                continue;
            }
            // Anybody can put acts of others into an entry: again they do not count.
            let mut is_ours = false;
            for event in events {
                let of_us = event.actor().user() == Some(self.own);
                is_ours |= self.append(chain, event).is_ok() && of_us;
                if !self.is_current(chain.as_ref()) {
                    break;
                }
            }
            of_ours += u32::from(is_ours);
        }
        of_ours
    }

    fn append(&self, chain: &mut Option<Chain>, event: RoomEvent) -> Result<(), RoomError> {
        match chain {
            Some(chain) => chain.append(event),
            None => {
                *chain = Some(begin(self.room, self.kind, event)?);
                Ok(())
            }
        }
    }
}

/// Whether everything in an entry is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// Tells whether events behind the end of a register are a candidate for the move: perhaps a checkpoint, for
/// want of places, then removals, and the move.
fn is_candidate(events: &[RoomEvent]) -> bool {
    let events = match events.split_first() {
        Some((first, rest)) if matches!(first.act(), Act::Checkpoint(_)) => rest,
        _ => events,
    };
    let is_removal = |event: &RoomEvent| matches!(event.act(), Act::Kick { .. } | Act::Ban { .. });
    let Some((last, before)) = events.split_last() else { return false };
    matches!(last.act(), Act::Move(_)) && before.iter().all(is_removal)
}

/// Begins the chain of a known room.
pub(super) fn begin(room: RoomId, kind: RoomKind, event: RoomEvent) -> Result<Chain, RoomError> {
    let chain = Chain::create(event)?;
    let is_it = chain.room() == room && chain.state().kind() == kind;
    if is_it { Ok(chain) } else { Err(RoomError::OtherRoom) }
}

/// Folds a room again from what its logs hold: the chain as this program understands it.
pub(super) fn fold_logs<S: ReadRows + ?Sized>(
    store: &S,
    room: &RoomRow,
    first: Option<LogId>,
) -> Result<Option<Chain>, EngineError> {
    let (mut chain, mut next) = (None, first);
    while let Some(log) = next {
        let reader = Reader::new(store, room, log)?;
        let entries = entries_from(store, &log, 0)?;
        reader.fold(&mut chain, (0..).zip(entries.iter().map(|entry| &entry.entry)));
        // Nobody goes on in a register of before: the chain refuses such a move.
        let register = chain.as_ref().and_then(|chain| chain.state().register());
        next = register.map(LogId::from).filter(|register| *register != log);
    }
    Ok(chain)
}

/// Another branch of a log, as far as it was read.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) log: LogId,
    pub(super) entries: Vec<Bytes>,
    /// Heads of the relay over the first so many of them.
    pub(super) heads: BTreeMap<usize, Signed>,
    /// Hash of the log with all of them.
    pub(super) hash: LogHash,
    pub(super) size: usize,
}

impl Evidence {
    pub(super) fn of(log: LogId) -> Self {
        let hash = LogHash::begin(&log);
        Self { log, entries: Vec::new(), heads: BTreeMap::new(), hash, size: 0 }
    }
}
