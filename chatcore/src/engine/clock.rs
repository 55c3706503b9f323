//! How far the machine's clock is believed when something is deleted or given up by it.
//!
//! ```text
//! believed ──3 days from where it should be──▶ doubted ──stays, or the relay agrees──▶ believed
//!                                                 └──comes back──▶ believed
//! ```
//! It has to stay for an hour, and for 30 days where it is behind a time that the relay confirmed: time does not go
//! back. (PROTOCOL.md section 8, *Clocks*.)

use crate::ids::{DAY, HOUR, MINUTE, Timestamp};
use crate::store::rows::Clock;

/// How far the clock may go from one step to the next.
const MAX_JUMP: u64 = 3 * DAY;
/// For how long it stays where it jumped to before it is believed.
const STAYS_FOR: u64 = HOUR;
/// For how long it stays behind a time that the relay confirmed.
const STAYS_BEHIND_FOR: u64 = 30 * DAY;
/// How far the relay's clock may be from one that it agrees with.
const AGREES_WITHIN: u64 = HOUR;
/// Milliseconds between two logins that confirm a clock.
const BETWEEN_LOGINS: u64 = 10 * MINUTE;
/// How much older what is stored may be than what is known.
const SAVE_EVERY: u64 = HOUR;

impl Clock {
    /// Takes a step's time in; returns the time by which things are over.
    pub(super) fn step(&mut self, now: Timestamp) -> Timestamp {
        if self.believed == Timestamp(0) || now.0.abs_diff(self.believed.0) <= MAX_JUMP {
            (self.believed, self.doubted) = (now, Timestamp(0));
            return now;
        }
        if self.doubted == Timestamp(0) || now.0.abs_diff(self.doubted.0) > MAX_JUMP {
            (self.doubted_since, self.agreed_at) = (now, Timestamp(0));
        }
        self.doubted = now;
        let stays_for = if self.is_behind(now) { STAYS_BEHIND_FOR } else { STAYS_FOR };
        if now.since(self.doubted_since) >= stays_for {
            self.believe(now);
            self.is_confirmed = false;
        }
        self.believed
    }

    /// Tells whether a clock that is doubted is behind a time that the relay confirmed: unless both were wrong
    /// then, it is.
    const fn is_behind(&self, now: Timestamp) -> bool {
        self.is_confirmed && now.0 < self.believed.0
    }

    /// The relay says at a login what time it is. That alone moves nothing: it only confirms what the clock shows,
    /// and takes no confirmation back.
    pub(super) fn logged_in(&mut self, now: Timestamp, relay: Timestamp) {
        let agrees = now.0.abs_diff(relay.0) <= AGREES_WITHIN;
        if self.doubted == Timestamp(0) {
            self.is_confirmed |= agrees;
        } else if !agrees {
            self.agreed_at = Timestamp(0);
        } else if self.is_confirmed && now > self.believed || self.agreed_long_before(now) {
            self.believe(now);
            self.is_confirmed = true;
        } else if self.agreed_at == Timestamp(0) {
            self.agreed_at = now;
        }
    }

    fn agreed_long_before(&self, now: Timestamp) -> bool {
        self.agreed_at != Timestamp(0) && now.since(self.agreed_at) >= BETWEEN_LOGINS
    }

    /// Tells whether `stored` says too little.
    pub(super) fn is_worth_saving(&self, stored: &Self) -> bool {
        let is_far = |a: Timestamp, b: Timestamp| a.0.abs_diff(b.0) >= SAVE_EVERY;
        is_far(self.believed, stored.believed)
            || is_far(self.doubted, stored.doubted)
            || self.doubted_since != stored.doubted_since
    }

    const fn believe(&mut self, now: Timestamp) {
        (self.believed, self.doubted) = (now, Timestamp(0));
    }
}

/// Tells whether something that is done every so many milliseconds is due. What was last done later than now, by a
/// clock that has been put right since, is.
pub(super) fn is_due(last: Timestamp, every: u64, now: Timestamp) -> bool {
    last == Timestamp(0) || last > now || now.since(last) >= every
}

/// Something to be done later. By a clock that was put back behind the moment at which it was set it is due at
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    set: Timestamp,
    at: Timestamp,
}

impl Timer {
    /// Sets one that is due so many milliseconds from now.
    pub(super) const fn after(wait: u64, now: Timestamp) -> Self {
        Self::at(now.plus(wait), now)
    }

    /// Sets one that is due then.
    pub(super) const fn at(at: Timestamp, now: Timestamp) -> Self {
        Self { set: now, at }
    }

    /// Tells whether it is due.
    pub(super) fn is_due(self, now: Timestamp) -> bool {
        now >= self.at || now < self.set
    }

    /// Returns when it is due.
    pub(super) fn when(self, now: Timestamp) -> Timestamp {
        if self.is_due(now) { now } else { self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000 * DAY);

    fn at(clock: &mut Clock, now: Timestamp) -> bool {
        clock.step(now) == now
    }

    #[test]
    fn a_jump_is_believed_after_an_hour_in_its_place() {
        for far in [START.plus(3_650 * DAY), Timestamp(0).plus(5)] {
            let mut clock = Clock::default();
            assert!(at(&mut clock, START) && at(&mut clock, START.plus(3 * DAY)));
            let known = START.plus(3 * DAY);
            assert_eq!(clock.step(far), known);
            assert_eq!(clock.step(far.plus(HOUR - 1)), known);
            assert!(at(&mut clock, far.plus(HOUR)));
            // And back: it is the same.
            assert_eq!(clock.step(known), far.plus(HOUR));
        }
    }

    #[test]
    fn a_clock_behind_a_time_that_the_relay_confirmed_is_not_believed_for_staying_there() {
        let mut clock = Clock::default();
        assert!(at(&mut clock, START));
        clock.logged_in(START, START);
        let past = Timestamp(START.0 - 400 * DAY);
        for hours in 0..100 {
            assert_eq!(clock.step(past.plus(hours * HOUR)), START, "after {hours} hours");
        }
        // Both were ahead, and have been put right: the relay says so twice.
        let (first, second) = (past.plus(100 * HOUR), past.plus(100 * HOUR + 10 * MINUTE));
        clock.logged_in(first, first);
        assert_eq!(clock.step(first), START);
        clock.logged_in(second, second);
        assert!(at(&mut clock, second));
        // Or the relay is still wrong, or lies: it takes a month.
        for hours in 0..30 * 24 {
            let now = Timestamp(START.0 - 800 * DAY).plus(hours * HOUR);
            assert_eq!(clock.step(now), second, "after {hours} hours");
            clock.logged_in(now, START);
        }
        assert!(at(&mut clock, Timestamp(START.0 - 770 * DAY)));
    }

    /// A machine without a battery for its clock begins in the same year at each start, until it is told better.
    #[test]
    fn what_the_relay_confirmed_is_not_forgotten_on_the_way() {
        let start = |clock: &mut Clock, believed| {
            for minutes in 0..90 {
                assert_eq!(clock.step(Timestamp(5).plus(minutes * MINUTE)), believed);
            }
        };
        let mut clock = Clock::default();
        assert!(at(&mut clock, START));
        clock.logged_in(START, START);
        // The relay disagrees for once.
        clock.logged_in(START, START.plus(DAY));
        start(&mut clock, START);
        // It is told the time, and that is where it was; then it begins again, without a login in between.
        assert!(at(&mut clock, START.plus(DAY)));
        start(&mut clock, START.plus(DAY));
        // It is told the time a week later: one login confirms that.
        let week = START.plus(7 * DAY);
        assert_eq!(clock.step(week), START.plus(DAY));
        clock.logged_in(week, week);
        assert!(at(&mut clock, week));
        // Ahead, further ahead, and behind.
        for days in [100, 200] {
            assert_eq!(clock.step(week.plus(days * DAY)), week);
        }
        start(&mut clock, week);
    }

    #[test]
    fn a_clock_that_comes_back_is_believed_at_once_and_one_that_jumps_on_is_not() {
        let mut clock = Clock::default();
        assert!(at(&mut clock, START));
        assert_eq!(clock.step(START.plus(100 * DAY)), START);
        assert_eq!(clock.step(START.plus(200 * DAY)), START, "not the hour of the first place");
        assert_eq!(clock.step(START.plus(200 * DAY + HOUR / 2)), START);
        assert!(at(&mut clock, START.plus(HOUR)));
        assert_eq!(clock.doubted, Timestamp(0));
    }

    #[test]
    fn the_relay_confirms_a_month_away_at_once_if_it_agreed_before_and_else_at_the_second_login() {
        let later = START.plus(30 * DAY);
        let mut clock = Clock::default();
        clock.step(START);
        clock.logged_in(START, START.plus(HOUR));
        assert_eq!(clock.step(later), START);
        clock.logged_in(later, Timestamp(later.0 - HOUR));
        assert!(at(&mut clock, later));
        let mut clock = Clock::default();
        clock.step(START);
        clock.logged_in(START, START.plus(2 * HOUR));
        assert_eq!(clock.step(later), START);
        clock.logged_in(later, later);
        clock.logged_in(later.plus(10 * MINUTE - 1), later);
        assert_eq!(clock.step(later.plus(1)), START);
        clock.logged_in(later.plus(10 * MINUTE), later);
        assert!(at(&mut clock, later.plus(10 * MINUTE)));
    }

    #[test]
    fn a_relay_that_does_not_agree_confirms_nothing() {
        let (mut clock, later) = (Clock::default(), START.plus(30 * DAY));
        clock.step(START);
        clock.logged_in(START, START);
        assert_eq!(clock.step(later), START);
        for login in 0..3 {
            clock.logged_in(later.plus(login * 10 * MINUTE), later.plus(40 * DAY));
            assert_eq!(clock.step(later.plus(login * 10 * MINUTE)), START);
        }
    }

    #[test]
    fn a_timer_is_due_in_its_time_and_by_a_clock_that_was_put_back() {
        let timer = Timer::after(MINUTE, START);
        let end = START.plus(MINUTE);
        assert!(!timer.is_due(START) && !timer.is_due(Timestamp(end.0 - 1)));
        assert!(timer.is_due(end) && timer.is_due(Timestamp(START.0 - 1)));
        assert_eq!(timer.when(START), end);
        assert_eq!(timer.when(Timestamp(START.0 - 1)), Timestamp(START.0 - 1));
    }
}
