//! Group commit: whoever comes while a commit runs shares the next one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use super::super::StoreError;
use crate::lock::lock;

/// Collects jobs of many threads into few commits.
pub(super) struct Group<J> {
    state: Mutex<State<J>>,
    done: Condvar,
}

struct State<J> {
    waiting: Vec<J>,
    /// Number of the commit that takes what waits now.
    next: u64,
    /// Commits before this one are done.
    finished: u64,
    failed: VecDeque<(u64, StoreError)>,
    /// The last failure that is not kept any more: what is as old counts as failed.
    forgotten: Option<u64>,
    is_busy: bool,
}

/// Failures remembered for threads that have not woken yet.
const FAILURES_KEPT: usize = 64;

impl<J> Group<J> {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: Vec::new(),
            next: 0,
            finished: 0,
            failed: VecDeque::new(),
            forgotten: None,
            is_busy: false,
        };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }

    /// Returns when `job` is committed, alone or with others, by this thread or another.
    pub(super) fn run(
        &self,
        job: J,
        commit: impl Fn(Vec<J>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        state.waiting.push(job);
        let mine = state.next;
        loop {
            if state.finished > mine {
                if state.forgotten.is_some_and(|last| mine <= last) {
                    return Err(StoreError::Failed);
                }
                let failure = state.failed.iter().find(|(commit, _)| *commit == mine);
                return failure.map_or(Ok(()), |(_, error)| Err(*error));
            }
            if state.is_busy {
                let woken = self.done.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_busy = true;
            state.next += 1;
            let (number, jobs) = (state.next - 1, std::mem::take(&mut state.waiting));
            drop(state);
            // Those who wait are told also if the engine panics.
            let result = catch_unwind(AssertUnwindSafe(|| commit(jobs)));
            let result = result.unwrap_or(Err(StoreError::Failed));
            state = lock(&self.state);
            state.is_busy = false;
            state.finished = number + 1;
            if let Err(error) = result {
                state.failed.push_back((number, error));
                if state.failed.len() > FAILURES_KEPT {
                    let forgotten = state.failed.pop_front();
                    state.forgotten = forgotten.map(|(commit, _)| commit).or(state.forgotten);
                }
            }
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_that_wait_share_a_commit_and_its_failure() {
        let group = Arc::new(Group::new());
        let commits = Arc::new(AtomicUsize::new(0));
        let (started, has_started) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let first = std::thread::spawn({
            let group = Arc::clone(&group);
            move || {
                group.run(0, |jobs| {
                    assert_eq!(jobs, [0]);
                    started.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok(())
                })
            }
        });
        has_started.recv().unwrap();
        let others: Vec<_> = (1..=3)
            .map(|job| {
                let (group, commits) = (Arc::clone(&group), Arc::clone(&commits));
                std::thread::spawn(move || {
                    group.run(job, |_| {
                        commits.fetch_add(1, Ordering::Relaxed);
                        Err(StoreError::Failed)
                    })
                })
            })
            .collect();
        while lock(&group.state).waiting.len() < 3 {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Ok(()));
        for other in others {
            assert_eq!(other.join().unwrap(), Err(StoreError::Failed));
        }
        assert_eq!(commits.load(Ordering::Relaxed), 1);
    }
}
