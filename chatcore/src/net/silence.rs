//! How long a connection may be silent, and what is done then.

use std::time::Duration;

use tokio::time::Instant;

/// Silence after which a ping is sent.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Silence after which the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(90);
/// Silence on the requests of transfers after which the connection is made again; on a slow line a
/// chunk takes minutes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// Age at which a connection is made again.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Silence after which whoever waits for everything to be done waits no more.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// When things last happened on a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    began: Instant,
    pub(super) heard: Instant,
    pub(super) spoken: Instant,
}

/// Awaited frames of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Awaited {
    /// Since when answers to transfers' requests are awaited, and none came.
    pub(super) answer: Option<Instant>,
    /// There are bytes to be written: no ping helps.
    pub(super) is_writing: bool,
    /// Somebody waits for everything to be done.
    pub(super) is_settling: bool,
}

impl Silence {
    /// A connection that begins now.
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, heard: now, spoken: now }
    }

    /// Tells whether the connection is to be made again. Prekeys, certificates and old rows are looked after at login.
    pub(super) fn is_over(&self, now: Instant, awaited: Awaited) -> bool {
        now >= self.end(awaited)
    }

    /// Tells whether a ping is due.
    pub(super) fn wants_ping(&self, now: Instant, awaited: Awaited) -> bool {
        !awaited.is_writing && now >= self.spoken + PING_AFTER
    }

    /// Tells whether nobody is to wait any longer for everything to be done: some of what the relay counted has
    /// expired, or it does not keep its word.
    pub(super) fn has_settled(&self, now: Instant) -> bool {
        now >= self.settled()
    }

    /// Returns when the next of this is due.
    pub(super) fn next(&self, awaited: Awaited) -> Instant {
        let ping = (!awaited.is_writing).then(|| self.spoken + PING_AFTER);
        let settled = awaited.is_settling.then(|| self.settled());
        ping.into_iter().chain(settled).chain([self.end(awaited)]).min().unwrap_or(self.began)
    }

    fn end(&self, awaited: Awaited) -> Instant {
        let end = (self.heard + DEAD_AFTER).min(self.began + RENEW_AFTER);
        awaited.answer.map_or(end, |since| end.min(since + ANSWER_PATIENCE))
    }

    fn settled(&self) -> Instant {
        self.heard.max(self.spoken) + SETTLE_PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOTHING: Awaited = Awaited { answer: None, is_writing: false, is_settling: false };

    #[test]
    fn a_connection_ends_when_the_relay_is_silent_or_answers_nothing_or_after_a_day() {
        let now = Instant::now();
        let silence = Silence::new(now);
        assert!(!silence.is_over(now + 89 * SECOND, NOTHING));
        assert!(silence.is_over(now + 90 * SECOND, NOTHING));
        // It is heard of every minute, and does not answer.
        let heard = |at| Silence { heard: now + at * SECOND, ..silence };
        let asked = Awaited { answer: Some(now + 20 * SECOND), ..NOTHING };
        assert!(!heard(300).is_over(now + 319 * SECOND, asked));
        assert!(heard(300).is_over(now + 320 * SECOND, asked));
        assert!(!heard(300).is_over(now + 320 * SECOND, NOTHING));
        let day = 24 * 3_600;
        assert!(!heard(day - 1).is_over(now + (day - 1) * SECOND, NOTHING));
        assert!(heard(day).is_over(now + day * SECOND, NOTHING));
    }

    #[test]
    fn who_says_nothing_pings_unless_there_is_something_to_say() {
        let now = Instant::now();
        let silence = Silence { spoken: now + 10 * SECOND, ..Silence::new(now) };
        let writing = Awaited { is_writing: true, ..NOTHING };
        assert!(!silence.wants_ping(now + 39 * SECOND, NOTHING));
        assert!(silence.wants_ping(now + 40 * SECOND, NOTHING));
        assert!(!silence.wants_ping(now + 40 * SECOND, writing));
        assert_eq!(silence.next(NOTHING), now + 40 * SECOND);
        assert_eq!(silence.next(writing), now + 90 * SECOND);
    }

    #[test]
    fn nobody_waits_for_more_than_ten_seconds_of_silence() {
        let now = Instant::now();
        let settling = Awaited { is_settling: true, ..NOTHING };
        for silence in [
            Silence { heard: now + 5 * SECOND, ..Silence::new(now) },
            Silence { spoken: now + 5 * SECOND, ..Silence::new(now) },
        ] {
            assert!(!silence.has_settled(now + 14 * SECOND));
            assert!(silence.has_settled(now + 15 * SECOND));
            assert_eq!(silence.next(settling), now + 15 * SECOND);
            assert!(silence.next(NOTHING) > now + 15 * SECOND);
        }
        let asked = Awaited { answer: Some(now - 290 * SECOND), ..settling };
        assert_eq!(Silence::new(now).next(asked), now + 10 * SECOND);
        let asked = Awaited { answer: Some(now - 299 * SECOND), ..settling };
        assert_eq!(Silence::new(now).next(asked), now + SECOND);
    }
}
