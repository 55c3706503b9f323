//! Time, passed in wherever a rule depends on it.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chatcore::ids::{DAY, HOUR, MINUTE, Timestamp};

use crate::lock::lock;

/// Milliseconds of a clock that nobody sets: it only goes on. Rates and turns are measured by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub u64);

impl Uptime {
    /// Returns the time `millis` later.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the milliseconds from `earlier` to this.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time now.
    fn now(&self) -> Timestamp;

    /// Returns for how long the clock has run.
    fn uptime(&self) -> Uptime;

    /// Returns the time now, or a later one that may be right: by it begins what is kept for a while, and numbers
    /// that never come twice.
    fn latest(&self) -> Timestamp {
        self.now()
    }

    /// Returns what the next start has to know of it.
    fn note(&self) -> TimeNote {
        TimeNote { believed: self.now(), doubted: None }
    }
}

/// Note of a clock, stored while the relay does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeNote {
    /// The time that was believed.
    pub believed: Timestamp,
    /// Time that the machine's clock showed instead.
    pub doubted: Option<Doubted>,
}

/// A clock that jumped and has not stayed for long enough yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubted {
    /// Time that it showed last.
    pub shown: Timestamp,
    /// For how many milliseconds it has stayed, as far as the relay ran.
    pub stayed: u64,
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |d| d.as_millis());
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn uptime(&self) -> Uptime {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Uptime(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// How far the machine's clock may be from what it should show before it is doubted.
const MAX_JUMP: u64 = DAY;
/// For how long it has to stay where it jumped to before it is believed.
const CONFIRMED_AFTER: u64 = HOUR;
/// By how much it may be corrected meanwhile.
const STAYS_WITHIN: u64 = MINUTE;
/// By how much it may be later when the relay starts again: for so long it did not run.
const OFF_FOR: u64 = 30 * DAY;

/// Whether the machine's clock is believed at the start, wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtStart {
    /// Not if it jumped since the relay last ran.
    #[default]
    Doubt,
    /// It is.
    Accept,
}

/// A clock that doubts another one: when that jumps by more than a day it goes on from where it was, until the other
/// has stayed there for an hour. By a wrong clock everything would be over its time, or nothing ever.
pub struct CarefulClock {
    inner: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// The time that is believed, when it was last looked at, and the uptime then.
    known: (Timestamp, Uptime),
    jumped: Option<Jump>,
}

/// Where the other clock jumped to.
#[derive(Debug, Clone, Copy)]
struct Jump {
    /// Time that it showed, and the uptime then.
    at: (Timestamp, Uptime),
    /// For how long it had stayed by then.
    stayed: u64,
}

impl Jump {
    const fn stayed(&self, now: Uptime) -> u64 {
        self.stayed.saturating_add(now.since(self.at.1))
    }
}

impl CarefulClock {
    /// Makes a clock of which `last` was noted, if it ever ran.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, last: Option<TimeNote>, at_start: AtStart) -> Self {
        let last = last.filter(|_| at_start == AtStart::Doubt);
        let (shown, uptime) = (inner.now(), inner.uptime());
        let known = (last.map_or(shown, |last| last.believed), uptime);
        // Else a relay that never runs for an hour would doubt for ever.
        let goes_on = |d: &Doubted| (d.shown..=d.shown.plus(OFF_FOR)).contains(&shown);
        let doubted = last.and_then(|last| last.doubted).filter(goes_on);
        let jumped = doubted.map(|d| Jump { at: (shown, uptime), stayed: d.stayed });
        Self { inner, state: Mutex::new(State { known, jumped }) }
    }
}

/// Returns where a clock that showed `at` should stand by now.
const fn expected((at, then): (Timestamp, Uptime), now: Uptime) -> Timestamp {
    at.plus(now.since(then))
}

impl Clock for CarefulClock {
    fn now(&self) -> Timestamp {
        let (shown, uptime) = (self.inner.now(), self.inner.uptime());
        let mut state = lock(&self.state);
        let believed = expected(state.known, uptime);
        if shown.0.abs_diff(believed.0) <= MAX_JUMP {
            (state.known, state.jumped) = ((shown, uptime), None);
            return shown;
        }
        let stays = |jump: &Jump| shown.0.abs_diff(expected(jump.at, uptime).0) <= STAYS_WITHIN;
        match state.jumped.filter(stays) {
            Some(jump) if jump.stayed(uptime) >= CONFIRMED_AFTER => {
                tracing::warn!(
                    now = shown.0,
                    "the clock stayed where it jumped to: it is believed"
                );
                (state.known, state.jumped) = ((shown, uptime), None);
                return shown;
            }
            Some(_) => {}
            None => {
                tracing::warn!(
                    believed = believed.0,
                    shown = shown.0,
                    "the machine's clock jumped by more than a day: for an hour nothing is deleted or refused by \
                     it; if it is right, wait, or start with: chat-server --accept-clock"
                );
                state.jumped = Some(Jump { at: (shown, uptime), stayed: 0 });
            }
        }
        believed
    }

    fn uptime(&self) -> Uptime {
        self.inner.uptime()
    }

    fn latest(&self) -> Timestamp {
        self.now().max(self.inner.now())
    }

    fn note(&self) -> TimeNote {
        let believed = self.now();
        let (shown, uptime) = (self.inner.now(), self.inner.uptime());
        let jumped = lock(&self.state).jumped;
        let doubted = jumped.map(|jump| Doubted { shown, stayed: jump.stayed(uptime) });
        TimeNote { believed, doubted }
    }
}

impl std::fmt::Debug for CarefulClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CarefulClock({:?})", lock(&self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time that the machine shows, and its uptime.
    #[derive(Clone)]
    struct Machine(Arc<Mutex<(Timestamp, Uptime)>>);

    const START: Timestamp = Timestamp(1_000 * DAY);

    impl Machine {
        fn new() -> Self {
            Self(Arc::new(Mutex::new((START, Uptime(5)))))
        }

        fn runs(&self, millis: u64) {
            let mut machine = lock(&self.0);
            *machine = (machine.0.plus(millis), machine.1.plus(millis));
        }

        fn is_set(&self, to: Timestamp) {
            lock(&self.0).0 = to;
        }
    }

    impl Clock for Machine {
        fn now(&self) -> Timestamp {
            lock(&self.0).0
        }

        fn uptime(&self) -> Uptime {
            lock(&self.0).1
        }
    }

    fn careful(machine: &Machine, last: Option<Timestamp>, at_start: AtStart) -> CarefulClock {
        let last = last.map(|believed| TimeNote { believed, doubted: None });
        CarefulClock::new(Arc::new(machine.clone()), last, at_start)
    }

    #[test]
    fn a_jump_is_believed_when_the_clock_has_stayed_for_an_hour() {
        for to in [Timestamp(2_000 * DAY), Timestamp(0)] {
            let machine = Machine::new();
            let clock = careful(&machine, None, AtStart::Doubt);
            machine.runs(7);
            assert_eq!(clock.now(), START.plus(7));
            machine.is_set(to);
            assert_eq!(clock.now(), START.plus(7));
            machine.runs(HOUR - 1);
            assert_eq!(clock.now(), START.plus(7 + HOUR - 1), "it goes on");
            machine.runs(1);
            assert_eq!(clock.now(), to.plus(HOUR));
            machine.runs(1);
            assert_eq!(clock.now(), to.plus(HOUR + 1));
        }
    }

    #[test]
    fn a_clock_that_jumps_about_is_not_believed_and_one_that_comes_back_is_at_once() {
        let machine = Machine::new();
        let clock = careful(&machine, None, AtStart::Doubt);
        for n in 1..10 {
            machine.is_set(START.plus(n * 100 * DAY));
            assert_eq!(clock.now(), START.plus((n - 1) * HOUR * 9 / 10));
            machine.runs(HOUR * 9 / 10);
        }
        machine.is_set(START.plus(9 * HOUR + DAY / 2));
        assert_eq!(clock.now(), START.plus(9 * HOUR + DAY / 2), "less than a day");
    }

    #[test]
    fn what_it_last_showed_counts_at_the_start_unless_the_clock_is_accepted() {
        let machine = Machine::new();
        let last = Timestamp(START.0 - 3 * DAY);
        let clock = careful(&machine, Some(last), AtStart::Doubt);
        assert_eq!(clock.now(), last);
        machine.runs(HOUR);
        assert_eq!(clock.now(), START.plus(HOUR));
        let last = Timestamp(START.0 - DAY / 2);
        assert_eq!(careful(&machine, Some(last), AtStart::Doubt).now(), START.plus(HOUR));
        let last = Timestamp(START.0 + 300 * DAY);
        assert_eq!(careful(&machine, Some(last), AtStart::Accept).now(), START.plus(HOUR));
    }

    #[test]
    fn a_relay_that_never_runs_for_an_hour_believes_its_clock_in_the_end() {
        let machine = Machine::new();
        let start = |note| CarefulClock::new(Arc::new(machine.clone()), note, AtStart::Doubt);
        let mut note = TimeNote { believed: Timestamp(START.0 - 3 * DAY), doubted: None };
        for _ in 0..2 {
            let clock = start(Some(note));
            assert!(clock.now() < Timestamp(START.0 - 2 * DAY), "not yet");
            machine.runs(HOUR / 3);
            note = clock.note();
            let off = machine.now().plus(2 * DAY);
            machine.is_set(off);
        }
        let clock = start(Some(note));
        machine.runs(HOUR / 3);
        assert_eq!(clock.now(), machine.now());
        // Not if it shows something else at each start.
        for back in [Timestamp(machine.now().0 - 3 * DAY), machine.now().plus(OFF_FOR)] {
            machine.is_set(back);
            let clock = start(Some(note));
            machine.runs(HOUR / 3);
            assert_eq!(clock.now(), note.believed.plus(HOUR / 3));
        }
    }
}
