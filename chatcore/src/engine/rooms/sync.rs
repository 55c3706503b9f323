//! State of a room on this connection only: how far it was read, what is under way, what waits. Pure state: the
//! managers of a room decide by it, and it asks and tells nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::Reading;
use super::log::Evidence;
use super::types::RoomFailure;
use crate::engine::clock::Timer;
use crate::ids::{DAY, LogId, MINUTE, RegisterId, Timestamp, UserId};
use crate::wire::relay::Failure;

/// Least time in milliseconds until a room is read again that the relay could not show.
pub(super) const READ_AGAIN: u64 = MINUTE;
/// Most milliseconds after which something is tried again, whatever the relay says.
pub(super) const MAX_RETRY: u64 = DAY;

/// State of a room on one connection; nothing of it is stored.
#[derive(Debug, Default)]
pub(super) struct Sync {
    pub(super) reading: Reading,
    question: Question,
    /// The other branch of a room in which the relay contradicted what it had signed, while it is read.
    pub(super) search: Option<Evidence>,
    pub(super) ordering: Ordering,
    pub(super) statement: OwnStatement,
    pub(super) left: LeftRegisters,
    once: BTreeSet<Once>,
    /// Where the relay last had something else than it showed.
    last_conflict: Option<u64>,
    /// Records of members that were asked for.
    pub(super) records: BTreeSet<UserId>,
    /// Members whom the relay does not know.
    pub(super) unknown: BTreeSet<UserId>,
    /// From where the relay was given back what it lost of each log.
    pub(super) gave_back: BTreeMap<LogId, u64>,
    /// Ticket of the person who resumes the room in the relay's branch.
    pub(super) resumes: Option<u64>,
    /// Since when the room is to be moved.
    pub(super) move_due: Option<Timestamp>,
    /// When we are to move it, if nobody did before.
    pub(super) move_at: Option<Timer>,
    /// Until when what is new in an open room is gathered.
    pub(super) read_at: Option<Timer>,
    /// Until when nothing is read: the relay could not.
    pub(super) read_again: Option<Timer>,
    /// When members were last asked.
    pub(super) asked: BTreeMap<UserId, Timestamp>,
}

/// Question to the relay about the room; one at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Question {
    #[default]
    None,
    UnderWay,
    /// Under way, and the answer may lack what the relay has told of since.
    Outrun,
}

/// Whether the relay orders what we do in the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ordering {
    #[default]
    Open,
    /// Not before: it waits for what it lost, or has no room.
    Waits {
        until: Timer,
        /// Why, where that is longer than anybody is kept waiting.
        because: Option<RoomFailure>,
    },
    /// It refused; tried again with the next act, or on the next connection.
    Refused,
}

/// State of our join or leave of an open room that the relay has not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OwnStatement {
    /// One that is read at the relay was taken.
    #[default]
    AsRead,
    /// The relay was set back, and our join is put again with the counter that it has.
    PutAgain,
    /// Somebody was told that it was not taken, and it may have been.
    ToldFailed,
}

/// Registers that the room has left and that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct LeftRegisters {
    /// The next one last.
    pub(super) due: Vec<RegisterId>,
    pub(super) round: Round,
}

/// Whether all registers that the room has left are being looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Round {
    #[default]
    None,
    UnderWay,
}

/// Acts that are done at most once on a connection: else a relay that gives reason for them again and again would keep
/// us busy for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Once {
    /// Looking at the register before the current one, which the relay does not know.
    LookBefore,
    /// Noticing that the relay was set back.
    SetBack,
    /// Taking a newer counter of ours from the relay.
    Recount,
    /// Reading the other branch, unless a person asks for it.
    Search,
}

impl Reading {
    /// Returns the state once the relay has told of something.
    pub(super) const fn stale(self) -> Self {
        match self {
            Self::NotYet => Self::NotYet,
            Self::Stale | Self::Fresh => Self::Stale,
        }
    }

    /// Returns the state once the end was seen.
    pub(super) const fn seen_to_end(self) -> Self {
        match self {
            Self::NotYet | Self::Stale => Self::Stale,
            Self::Fresh => Self::Fresh,
        }
    }
}

impl Sync {
    /// Tells whether everything the relay has was read, and nothing new was told since.
    pub(super) fn is_fresh(&self) -> bool {
        self.reading == Reading::Fresh
    }

    /// Tells whether the room was read to its end on this connection.
    pub(super) fn was_read(&self) -> bool {
        self.reading != Reading::NotYet
    }

    /// There is more to read than was read.
    pub(super) const fn grow_stale(&mut self) {
        self.reading = self.reading.stale();
    }

    /// Tells whether an answer of the relay is awaited.
    pub(super) fn is_asking(&self) -> bool {
        self.question != Question::None
    }

    /// Notes a question.
    pub(super) const fn ask(&mut self) {
        self.question = Question::UnderWay;
    }

    /// Takes note of an answer; the result goes to [`Self::settle`] once it was dealt with.
    pub(super) const fn answered(&mut self) -> Answered {
        let question = self.question;
        self.question = Question::None;
        Answered(question)
    }

    /// Ends an answer: what the relay has told of since it was asked is still to be read.
    pub(super) fn settle(&mut self, answered: Answered) {
        if answered.0 == Question::Outrun || self.question == Question::Outrun {
            self.grow_stale();
        }
    }

    /// The relay has something new; an answer that is under way does not hold it yet.
    pub(super) fn told(&mut self) {
        self.grow_stale();
        if self.is_asking() {
            self.question = Question::Outrun;
        }
    }

    /// Tells whether something is done for the first time on this connection.
    pub(super) fn is_first(&mut self, what: Once) -> bool {
        self.once.insert(what)
    }

    /// The relay showed something that contradicts what it signed: all of it is read.
    pub(super) fn look_for_evidence(&mut self, log: LogId) {
        if self.resumes.is_some() || self.is_first(Once::Search) {
            self.search = Some(Evidence::of(log));
        }
        if self.was_read() {
            self.reading = Reading::Fresh;
        }
    }

    /// The room goes on in another log, of which nothing was read.
    pub(super) fn change_log(&mut self) {
        self.grow_stale();
        self.last_conflict = None;
        self.search = None;
    }

    /// The room goes on in another branch: what was refused in the former may be taken in this one.
    pub(super) fn change_branch(&mut self) {
        self.grow_stale();
        self.last_conflict = None;
        self.ordering = Ordering::Open;
        self.left.due.clear();
    }

    /// The relay could not show what it has: asked again later, and until then nothing is sent by what was known
    /// before.
    pub(super) fn read_failed(&mut self, failure: &Failure, now: Timestamp) {
        let wait = failure.retry_after_ms.clamp(READ_AGAIN, MAX_RETRY);
        self.read_again = Some(Timer::after(wait, now));
    }

    /// Somebody wrote at this place before us: read, judge again, sign again. A second time at the same
    /// place the relay contradicts itself, and would have us ask for ever.
    pub(super) fn conflict_at(&mut self, place: u64) {
        if self.last_conflict.is_some_and(|last| place <= last) {
            self.ordering = Ordering::Refused;
        } else {
            self.last_conflict = Some(place);
            self.grow_stale();
        }
    }

    /// Something else is to be ordered: what was refused before may be allowed now.
    pub(super) fn try_again(&mut self) {
        if self.ordering == Ordering::Refused {
            self.ordering = Ordering::Open;
        }
    }

    /// Returns what is to be done later.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        let ordering = match self.ordering {
            Ordering::Waits { until, .. } => Some(until),
            Ordering::Open | Ordering::Refused => None,
        };
        [self.move_at, ordering, self.read_at, self.read_again].into_iter().flatten()
    }

    /// Ends what has waited until now; tells whether there was anything.
    pub(super) fn timeout(&mut self, now: Timestamp) -> bool {
        let is_due = |timer: &mut Timer| timer.is_due(now);
        let is_move_due = self.move_at.take_if(is_due).is_some();
        let is_read_due = self.read_at.take_if(is_due).is_some();
        let is_due_again = self.read_again.take_if(is_due).is_some();
        let is_act_due =
            matches!(self.ordering, Ordering::Waits { until, .. } if until.is_due(now));
        if is_act_due {
            self.ordering = Ordering::Open;
        }
        if is_read_due {
            self.told();
        }
        is_move_due || is_act_due || is_read_due || is_due_again
    }
}

/// A question that was answered.
#[derive(Debug)]
#[must_use]
pub(super) struct Answered(Question);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn fresh() -> Sync {
        Sync { reading: Reading::Fresh, ..Sync::default() }
    }

    #[test]
    fn news_that_outrun_an_answer_are_read() {
        for news in [false, true] {
            let mut sync = Sync::default();
            sync.ask();
            if news {
                sync.told();
            }
            let answered = sync.answered();
            sync.reading = Reading::Fresh;
            sync.settle(answered);
            assert_eq!((sync.is_fresh(), sync.is_asking()), (!news, false));
        }
        // The answer led to another question, and that was outrun.
        let mut sync = fresh();
        sync.ask();
        let answered = sync.answered();
        sync.ask();
        sync.told();
        sync.settle(answered);
        assert_eq!((sync.reading, sync.is_asking()), (Reading::Stale, true));
    }

    #[test]
    fn unread_room_grows_no_fresher_by_news() {
        let mut sync = Sync::default();
        sync.told();
        assert!(!sync.was_read());
        sync.reading = sync.reading.seen_to_end();
        assert!(sync.was_read() && !sync.is_fresh());
    }

    #[test]
    fn second_conflict_at_one_place_ends_our_attempts() {
        let mut sync = fresh();
        sync.conflict_at(7);
        assert_eq!((sync.reading, sync.ordering), (Reading::Stale, Ordering::Open));
        sync.conflict_at(8);
        assert_eq!(sync.ordering, Ordering::Open);
        sync.conflict_at(8);
        assert_eq!(sync.ordering, Ordering::Refused);
        sync.change_branch();
        sync.conflict_at(8);
        assert_eq!(sync.ordering, Ordering::Open, "another branch");
    }

    #[test]
    fn other_branch_is_read_once_unless_somebody_asks() {
        let log = LogId::from_bytes([1; 32]);
        let mut sync = Sync::default();
        sync.look_for_evidence(log);
        assert!(sync.search.take().is_some());
        assert!(!sync.was_read(), "what was not read is not read by that");
        sync.look_for_evidence(log);
        assert!(sync.search.is_none());
        sync.resumes = Some(1);
        sync.look_for_evidence(log);
        assert!(sync.search.is_some());
    }

    #[test]
    fn what_waits_goes_on_when_its_time_has_come() {
        let mut sync = fresh();
        let because = Some(RoomFailure::Waits);
        sync.ordering = Ordering::Waits { until: Timer::after(10, NOW), because };
        assert_eq!(sync.timers().count(), 1);
        assert!(!sync.timeout(NOW.plus(9)) && sync.ordering != Ordering::Open);
        assert!(sync.timeout(NOW.plus(10)) && sync.ordering == Ordering::Open);
        sync.read_at = Some(Timer::after(10, NOW));
        assert!(sync.timeout(NOW.plus(10)) && !sync.is_fresh());
        assert_eq!(sync.timers().count(), 0);
    }

    #[test]
    fn some_things_are_done_once_on_a_connection() {
        let mut sync = Sync::default();
        assert!(sync.is_first(Once::SetBack) && !sync.is_first(Once::SetBack));
        assert!(sync.is_first(Once::LookBefore));
    }
}
