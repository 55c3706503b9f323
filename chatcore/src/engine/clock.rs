//! How far the machine's clock is believed when something is deleted or given up by it.
//!
//! ```text
//! believed ──it is 3 days from where it should be──▶ doubted ──stays an hour, or the relay agrees──▶ believed
//!                                                       └──comes back──▶ believed
//! ```
//! (PROTOCOL.md section 8, *Clocks*.)

use crate::ids::{DAY, HOUR, MINUTE, Timestamp};

/// How far the clock may go from one step to the next.
const MAX_JUMP: u64 = 3 * DAY;
/// For how long it stays where it jumped to before it is believed.
const STAYS_FOR: u64 = HOUR;
/// How far the relay's clock may be from one that it agrees with.
const AGREES_WITHIN: u64 = HOUR;
/// Milliseconds between two logins that confirm a clock.
const BETWEEN_LOGINS: u64 = 10 * MINUTE;
/// How much older what is stored may be than what is known.
const SAVE_EVERY: u64 = HOUR;

/// The machine's clock as far as it is known; stored with the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clock {
    /// The last time that was believed; 0: none was yet.
    pub(crate) believed: Timestamp,
    /// Where the clock jumped to, in its own time, or is by now where that is behind; 0: it did not.
    pub(crate) jumped_to: Timestamp,
    /// The last login at which the relay agreed with it, or the first one since it jumped; 0: there was none.
    pub(crate) agreed_at: Timestamp,
    /// Whether it agreed at the last login before the clock jumped.
    pub(crate) agreed_before: bool,
}

impl Clock {
    /// Takes a step's time in; returns the time by which things are over.
    pub(super) fn step(&mut self, now: Timestamp) -> Timestamp {
        if self.believed == Timestamp(0) || now.0.abs_diff(self.believed.0) <= MAX_JUMP {
            (self.believed, self.jumped_to) = (now, Timestamp(0));
            return now;
        }
        if self.jumped_to == Timestamp(0) {
            self.jumps(now, self.agreed_at != Timestamp(0));
        } else if now.0.abs_diff(self.jumped_to.0) > MAX_JUMP {
            self.jumps(now, self.is_behind(now));
        } else if self.is_behind(now) {
            self.jumped_to = now;
        } else if now.since(self.jumped_to) >= STAYS_FOR {
            self.confirm(now);
        }
        self.believed
    }

    /// Tells whether the clock went back behind a time with which the relay agreed: it is wrong however long it
    /// stays there, unless both were wrong before.
    const fn is_behind(&self, now: Timestamp) -> bool {
        self.agreed_before && now.0 < self.believed.0
    }

    /// The relay says at a login what time it is. That alone moves nothing: it only confirms what the clock shows.
    pub(super) fn logged_in(&mut self, now: Timestamp, relay: Timestamp) {
        if now.0.abs_diff(relay.0) > AGREES_WITHIN {
            self.agreed_at = Timestamp(0);
        } else if self.jumped_to == Timestamp(0) {
            self.agreed_at = now;
        } else if self.agreed_before
            || self.agreed_at != Timestamp(0) && now.since(self.agreed_at) >= BETWEEN_LOGINS
        {
            self.confirm(now);
            self.agreed_at = now;
        } else if self.agreed_at == Timestamp(0) {
            self.agreed_at = now;
        }
    }

    /// Tells whether `stored` says too little.
    pub(super) const fn is_worth_saving(&self, stored: &Self) -> bool {
        self.believed.0.abs_diff(stored.believed.0) >= SAVE_EVERY
            || self.jumped_to.0 != stored.jumped_to.0
    }

    const fn jumps(&mut self, now: Timestamp, agreed_before: bool) {
        (self.jumped_to, self.agreed_before, self.agreed_at) = (now, agreed_before, Timestamp(0));
    }

    const fn confirm(&mut self, now: Timestamp) {
        (self.believed, self.jumped_to, self.agreed_before) = (now, Timestamp(0), false);
    }
}

/// Tells whether something that is done every so many milliseconds is due. What was last done later than now, by a
/// clock that has been put right since, is.
pub(super) fn is_due(last: Timestamp, every: u64, now: Timestamp) -> bool {
    last == Timestamp(0) || last > now || now.since(last) >= every
}

/// Something to be done later. By a clock that was put back behind the moment at which it was set it is due at
/// once, and never later than was meant.
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
        // Both were ahead, and have been put right.
        clock.logged_in(past.plus(100 * HOUR), past.plus(100 * HOUR));
        assert!(at(&mut clock, past.plus(100 * HOUR)));
    }

    #[test]
    fn a_clock_that_comes_back_is_believed_at_once_and_one_that_jumps_on_is_not() {
        let mut clock = Clock::default();
        assert!(at(&mut clock, START));
        assert_eq!(clock.step(START.plus(100 * DAY)), START);
        assert_eq!(clock.step(START.plus(200 * DAY)), START, "not the hour of the first place");
        assert_eq!(clock.step(START.plus(200 * DAY + HOUR / 2)), START);
        assert!(at(&mut clock, START.plus(HOUR)));
        assert_eq!(clock.jumped_to, Timestamp(0));
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
