//! One copy of a message on its way to a device: what is done with it, and when (PROTOCOL.md section 8).

use super::clock::is_due;
use crate::ids::{DAY, MINUTE, SECOND, Timestamp};
use crate::store::rows::{OutboxEntry, OutboxState};
use crate::wire::content::ReceiptKind;

/// Milliseconds between looks at what the relay still holds of ours.
pub(super) const QUERY_EVERY: u64 = 10 * MINUTE;
/// Milliseconds after which a message is given up.
pub(crate) const GIVE_UP_AFTER: u64 = 30 * DAY;
/// Milliseconds that an envelope which the relay does not have is given to be receipted.
const UNKNOWN_FOR: u64 = 60 * SECOND;
/// Milliseconds that the recipient of one that is held is given.
const HELD_FOR: u64 = DAY;

/// The next step of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing for now.
    Wait,
    /// To be sealed in a session, for which a prekey may have to be claimed.
    Seal,
    /// The sealed bytes go to the relay, with the same key each time.
    Send,
    /// The relay is asked whether it still has it.
    Ask,
    /// Its session is lost: everything without a receipt goes out in a new one.
    NewSession,
}

impl OutboxEntry {
    /// Notes at a connection that the copy is tried, and puts times right that a clock which was ahead has written.
    /// Tells whether something was changed.
    pub(crate) fn try_from(&mut self, now: Timestamp) -> bool {
        let before = (self.created_at, self.tried_at);
        self.created_at = self.created_at.min(now);
        self.tried_at = match self.tried_at {
            Timestamp(0) => now,
            tried_at => tried_at.min(now),
        };
        before != (self.created_at, self.tried_at)
    }

    /// Tells whether the copy was tried for so long that it is given up. Time that we were away before it was first
    /// tried does not count.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.tried_at != Timestamp(0) && now.since(self.tried_at) >= GIVE_UP_AFTER
    }

    /// Tells what is due on connecting, and every 10 minutes.
    pub(crate) fn due(&self, now: Timestamp) -> Due {
        match &self.state {
            OutboxState::Waiting => Due::Seal,
            OutboxState::Sealed(_) => Due::Send,
            OutboxState::Accepted(_) if self.is_young(now) => Due::Wait,
            OutboxState::Accepted(_) => Due::Ask,
        }
    }

    /// The relay has accepted it. Tells whether that is news.
    pub(crate) fn accept(&mut self, now: Timestamp) -> bool {
        let OutboxState::Sealed(sealed) = &self.state else { return false };
        let mut sealed = sealed.clone();
        sealed.sent_at = now;
        self.state = OutboxState::Accepted(sealed);
        true
    }

    /// The relay was asked, and has it no more.
    pub(crate) fn miss(&mut self, now: Timestamp) -> Due {
        if self.is_young(now) {
            return Due::Wait;
        }
        let OutboxState::Accepted(sealed) = &self.state else { return Due::Wait };
        if sealed.resent {
            return Due::NewSession;
        }
        let mut sealed = sealed.clone();
        (sealed.resent, sealed.held, sealed.sent_at) = (true, false, now);
        self.state = OutboxState::Sealed(sealed);
        Due::Send
    }

    /// The recipient's device has it, and tells later whether the person can have it. Tells whether that is news.
    pub(crate) fn hold(&mut self, now: Timestamp) -> bool {
        let (OutboxState::Sealed(sealed) | OutboxState::Accepted(sealed)) = &mut self.state else {
            return false;
        };
        (sealed.held, sealed.resent, sealed.sent_at) = (true, false, now);
        true
    }

    /// Tells whether a receipt of its device ends the copy. One that has yet to go out, to a device that has the
    /// message from another one of ours, has its place in the chain: what follows would seem to miss it.
    pub(crate) fn is_ended_by(&self, kind: ReceiptKind) -> bool {
        kind != ReceiptKind::Held && self.state != OutboxState::Waiting
    }

    /// Tells whether an envelope is given more time to be receipted.
    fn is_young(&self, now: Timestamp) -> bool {
        let OutboxState::Accepted(sealed) = &self.state else { return false };
        !is_due(sealed.sent_at, if sealed.held { HELD_FOR } else { UNKNOWN_FOR }, now)
    }
}
