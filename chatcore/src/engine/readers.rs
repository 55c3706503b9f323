//! Readers of the journal: the person, and programs that follow it under a name of their own. Each
//! is told everything until it says that it has it; an entry goes when all have it.

use super::error::EngineError;
use super::transaction::Transaction;
use crate::store::rows::{JournalEntry, ProgramName, Readers};

/// Most programs that follow one profile.
const MAX_PROGRAMS: usize = 32;
/// Entries by which a reader may be behind; a program further behind is forgotten.
const MAX_BEHIND: u64 = 100_000;

/// A reader of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// Whoever sits before the screen.
    Person,
    /// A program that follows.
    Program(ProgramName),
}

impl Readers {
    /// Returns up to where a reader has everything; `None`: the program does not follow.
    pub(crate) fn done(&self, reader: &Reader) -> Option<u64> {
        match reader {
            Reader::Person => Some(self.person),
            Reader::Program(name) => self.programs.get(name).copied(),
        }
    }

    /// Forgets programs that lack entries which are not kept any more.
    fn forget_those_behind(&mut self, oldest: u64) {
        self.programs.retain(|_, done| *done >= oldest);
        self.person = self.person.max(oldest);
    }

    fn all_have(&self) -> u64 {
        self.programs.values().copied().fold(self.person, u64::min)
    }
}

/// A program follows from now on; one that follows already goes on where it was.
pub(super) fn follow(tx: &mut Transaction<'_, '_>, name: ProgramName) -> Result<(), EngineError> {
    let mut readers = tx.readers()?;
    let newest = tx.newest_number::<JournalEntry>(&())?.max(readers.last);
    if readers.programs.contains_key(&name) {
        return Ok(());
    }
    if readers.programs.len() >= MAX_PROGRAMS {
        return Err(EngineError::TooManyPrograms { max: MAX_PROGRAMS });
    }
    readers.last = newest;
    readers.programs.insert(name, newest);
    tx.put(&readers);
    Ok(())
}

/// A program follows no more.
pub(super) fn unfollow(
    tx: &mut Transaction<'_, '_>,
    name: &ProgramName,
) -> Result<(), EngineError> {
    let mut readers = tx.readers()?;
    readers.programs.remove(name);
    settle(tx, readers)
}

/// A reader has everything up to a number.
pub(super) fn acknowledge(
    tx: &mut Transaction<'_, '_>,
    reader: &Reader,
    up_to: u64,
) -> Result<(), EngineError> {
    let mut readers = tx.readers()?;
    let newest = tx.newest_number::<JournalEntry>(&())?.max(readers.last);
    readers.last = newest;
    // Nobody can have what has not happened.
    let up_to = up_to.min(newest);
    match reader {
        Reader::Person => readers.person = readers.person.max(up_to),
        Reader::Program(name) => {
            let done = readers.programs.get_mut(name).ok_or(EngineError::NotFollowing)?;
            *done = up_to.max(*done);
        }
    }
    let oldest = newest.saturating_sub(MAX_BEHIND);
    readers.forget_those_behind(oldest);
    settle(tx, readers)
}

/// So many entries are kept, whoever reads them or not: each new one takes the place of the one that far behind it.
pub(super) fn make_room(tx: &mut Transaction<'_, '_>, newest: u64) -> Result<(), EngineError> {
    let Some(oldest) = newest.checked_sub(MAX_BEHIND) else { return Ok(()) };
    tx.delete::<JournalEntry>(&((), oldest));
    let mut readers = tx.readers()?;
    if readers.programs.values().any(|done| *done < oldest) {
        readers.forget_those_behind(oldest);
        tx.put(&readers);
    }
    Ok(())
}

/// Removes what all have.
fn settle(tx: &mut Transaction<'_, '_>, readers: Readers) -> Result<(), EngineError> {
    let all_have = readers.all_have();
    tx.delete_up_to::<JournalEntry>(&(), all_have)?;
    if readers.programs.is_empty() && readers.person >= tx.newest_number::<JournalEntry>(&())? {
        // Nobody counts any more.
        tx.delete::<Readers>(&());
    } else {
        tx.put(&readers);
    }
    Ok(())
}
