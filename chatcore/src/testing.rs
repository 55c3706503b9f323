//! Randomness for unit tests: different at every call, the same in every run of one test.

use std::cell::Cell;

use rand::{SeedableRng, rngs::StdRng};

thread_local! {
    static NEXT: Cell<u64> = const { Cell::new(1) };
}

pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(NEXT.replace(NEXT.get() + 1))
}
