//! Turns at the end of a log: whoever lost a place to somebody faster has the next one alone for a moment,
//! so that nobody wins every place.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use chatcore::ids::{LogId, SECOND, UserId};

use crate::clock::Uptime;
use crate::lock::lock;

/// Milliseconds that a turn lasts.
const TURN: u64 = 3 * SECOND;
/// The same when many wait.
const SHORT_TURN: u64 = SECOND;
/// Users that are many.
const MANY: usize = 8;
/// Milliseconds after which somebody whose turn it is not asks again, at least and at most: turns end early, and
/// nobody is to miss their own.
const ASK_AGAIN: (u64, u64) = (500, 2_000);
/// Most users that wait for one log.
const MAX_WAITING: usize = 256;
/// Most logs that one user waits for: nobody's waiting takes the memory of all.
const MAX_WAITS: u32 = 16;
/// Logs after which those are looked for that nobody waits for any more.
const SWEEP_AT: usize = 1_024;

/// Connections that wait, by log.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    logs: HashMap<LogId, Line>,
    sweep_at: usize,
    waits: HashMap<UserId, u32>,
}

#[derive(Debug)]
struct Line {
    users: VecDeque<UserId>,
    /// When the turn of the first began.
    began: Uptime,
}

impl Table {
    fn leaves(&mut self, user: &UserId) {
        if let Some(waits) = self.waits.get_mut(user) {
            *waits -= 1;
            if *waits == 0 {
                self.waits.remove(user);
            }
        }
    }

    /// Ends the turns of one log that are over.
    fn pass(&mut self, log: &LogId, now: Uptime) {
        let Some(line) = self.logs.get_mut(log) else { return };
        let mut over = Vec::new();
        loop {
            let turn = if line.users.len() > MANY { SHORT_TURN } else { TURN };
            if now.since(line.began) < turn {
                break;
            }
            let Some(user) = line.users.pop_front() else { break };
            line.began = line.began.plus(turn);
            over.push(user);
        }
        if line.users.is_empty() {
            self.logs.remove(log);
        }
        over.iter().for_each(|user| self.leaves(user));
    }

    /// Returns when somebody in line is to ask again.
    fn rest(&self, log: &LogId, user: &UserId, now: Uptime) -> u64 {
        let Some(line) = self.logs.get(log) else { return ASK_AGAIN.0 };
        let before = line.users.iter().take_while(|other| *other != user).count() as u64;
        let turn = if line.users.len() > MANY { SHORT_TURN } else { TURN };
        let rest = (before * turn).saturating_sub(now.since(line.began));
        rest.clamp(ASK_AGAIN.0, ASK_AGAIN.1.min(turn * 4 / 5))
    }

    fn enters(&mut self, log: LogId, user: UserId, now: Uptime) {
        if self.logs.len() >= self.sweep_at.max(SWEEP_AT) {
            let all: Vec<LogId> = self.logs.keys().copied().collect();
            all.iter().for_each(|log| self.pass(log, now));
            self.sweep_at = self.logs.len() * 2;
        }
        let waits = self.waits.get(&user).copied().unwrap_or(0);
        let known = self.logs.get(&log).map_or(0, |line| line.users.len());
        if waits >= MAX_WAITS || known >= MAX_WAITING {
            return;
        }
        let fresh = || Line { users: VecDeque::new(), began: now };
        let line = self.logs.entry(log).or_insert_with(fresh);
        if !line.users.contains(&user) {
            line.users.push_back(user);
            *self.waits.entry(user).or_default() += 1;
        }
    }
}

impl Turns {
    /// Lets a user append if it is nobody else's turn.
    ///
    /// # Errors
    /// Milliseconds after which to ask again; the user waits in line meanwhile.
    pub(crate) fn check(&self, log: LogId, user: UserId, now: Uptime) -> Result<(), u64> {
        let mut table = lock(&self.0);
        table.pass(&log, now);
        if table.logs.get(&log).is_none_or(|line| line.users.front() == Some(&user)) {
            return Ok(());
        }
        table.enters(log, user, now);
        Err(table.rest(&log, &user, now))
    }

    /// The place that a user wanted was another's.
    pub(crate) fn lost(&self, log: LogId, user: UserId, now: Uptime) {
        let mut table = lock(&self.0);
        table.pass(&log, now);
        table.enters(log, user, now);
    }

    /// A user has appended: the turn of the next one begins.
    pub(crate) fn appended(&self, log: LogId, user: UserId, now: Uptime) {
        let mut table = lock(&self.0);
        let Some(line) = table.logs.get_mut(&log) else { return };
        if line.users.front() != Some(&user) {
            return;
        }
        line.users.pop_front();
        line.began = now;
        if line.users.is_empty() {
            table.logs.remove(&log);
        }
        table.leaves(&user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Uptime = Uptime(1_000_000);
    const LOG: LogId = LogId::from_bytes([1; 32]);

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    #[test]
    fn who_lost_a_place_has_the_next_one_in_turn() {
        let turns = Turns::default();
        let (fast, slow, third) = (user(1), user(2), user(3));
        assert_eq!(turns.check(LOG, fast, NOW), Ok(()));
        turns.appended(LOG, fast, NOW);
        turns.lost(LOG, slow, NOW);
        turns.lost(LOG, third, NOW);
        assert_eq!(turns.check(LOG, fast, NOW), Err(2_000));
        assert_eq!(turns.check(LOG, third, NOW.plus(2_700)), Err(500), "nearly");
        assert_eq!(turns.check(LOG, slow, NOW), Ok(()));
        turns.appended(LOG, slow, NOW.plus(5));
        assert!(turns.check(LOG, fast, NOW.plus(5)).is_err(), "the third is next");
        // Who does not come in three seconds loses the turn to who waits behind.
        assert!(turns.check(LOG, fast, NOW.plus(5 + TURN - 1)).is_err());
        assert_eq!(turns.check(LOG, fast, NOW.plus(5 + TURN)), Ok(()));
        assert!(turns.check(LOG, third, NOW.plus(5 + TURN)).is_err());
        assert_eq!(turns.check(LOG, user(9), NOW.plus(5 + 9 * TURN)), Ok(()), "nobody waits");
        assert!(lock(&turns.0).logs.is_empty() && lock(&turns.0).waits.is_empty());
        // Turns are short when many wait, and everybody asks again in time for theirs.
        (10..30).for_each(|n| turns.lost(LOG, user(n), NOW));
        for n in 10..20_u8 {
            let at = NOW.plus(u64::from(n - 10) * SHORT_TURN);
            assert_eq!(turns.check(LOG, user(n), at), Ok(()), "{n}");
            assert!(turns.check(LOG, user(29), at).is_err_and(|rest| rest < SHORT_TURN));
        }
    }

    #[test]
    fn nobody_waits_everywhere_and_what_is_over_is_forgotten() {
        let turns = Turns::default();
        let log = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            LogId::from_bytes(id)
        };
        (0..100).for_each(|n| turns.lost(log(n), user(1), NOW));
        assert_eq!(lock(&turns.0).logs.len(), 16);
        turns.lost(log(99), user(2), NOW);
        assert_eq!(turns.check(log(99), user(2), NOW), Ok(()), "others find their place");
        for n in 0..=u8::MAX {
            (0..100).for_each(|log_n| turns.lost(log(log_n), user(n), NOW));
        }
        turns.lost(log(1), user(3), NOW.plus(100 * TURN));
        assert!(lock(&turns.0).logs.values().all(|line| line.users.len() <= MAX_WAITING));
        (1_000..3_000).for_each(|n| {
            let who = user(u8::try_from(n % 200).unwrap());
            turns.lost(log(n), who, NOW.plus(u64::from(n) * 100 * TURN));
        });
        assert!(lock(&turns.0).logs.len() <= SWEEP_AT);
    }
}
