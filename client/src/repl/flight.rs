//! How far the messages came that were written here.

use std::collections::VecDeque;

use chatcore::ids::MessageId;
use chatcore::wire::relay::ErrorCode;

/// Messages that are followed; older ones stand in the history.
const MAX_FOLLOWED: usize = 200;

/// How far a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Safe here, on its way to the relay.
    Sent,
    /// The relay has it.
    Stored,
    /// The person's device has it, or everybody's in a room.
    Delivered,
    /// The person saw it.
    Read,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "kept, not at the relay yet",
            Self::Stored => "stored at the relay",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// The messages of this run, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flight {
    followed: VecDeque<(MessageId, Stage)>,
    /// Why the relay does not take one of them yet.
    delayed: Option<(MessageId, ErrorCode)>,
}

impl Flight {
    /// Follows a message.
    pub(super) fn began(&mut self, message: MessageId) {
        self.followed.push_back((message, Stage::Sent));
        if self.followed.len() > MAX_FOLLOWED {
            self.followed.pop_front();
        }
    }

    /// A message came further; what says less than is known changes nothing.
    pub(super) fn came(&mut self, message: MessageId, stage: Stage) {
        for (followed, known) in &mut self.followed {
            if *followed == message {
                *known = stage.max(*known);
            }
        }
        self.delayed = self.delayed.filter(|(delayed, _)| *delayed != message);
    }

    /// The relay does not take a message yet.
    pub(super) fn delayed(&mut self, message: MessageId, code: ErrorCode) {
        if self.followed.iter().any(|(followed, _)| *followed == message) {
            self.delayed = Some((message, code));
        }
    }

    /// A message is given up.
    pub(super) fn lost(&mut self, message: MessageId) {
        self.followed.retain(|(followed, _)| *followed != message);
    }

    /// Returns a line about the last one, with how many before it are not that far.
    pub(super) fn shown(&self) -> Option<String> {
        let (message, last) = self.followed.back()?;
        let behind = self.followed.iter().filter(|(_, stage)| *stage < Stage::Stored).count();
        let mut line = format!("your last message: {}", last.as_str());
        if *last == Stage::Sent && behind > 1 {
            line = format!("your last {behind} messages: {}", last.as_str());
        }
        if let Some((_, code)) = self.delayed.filter(|(delayed, _)| delayed == message) {
            line.push_str(&format!(" ({code})"));
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_forward_only() {
        let mut flight = Flight::default();
        assert_eq!(flight.shown(), None);
        let (first, second) = (MessageId::from_bytes([1; 16]), MessageId::from_bytes([2; 16]));
        flight.began(first);
        flight.began(second);
        assert_eq!(flight.shown().unwrap(), "your last 2 messages: kept, not at the relay yet");
        flight.came(second, Stage::Read);
        flight.came(second, Stage::Delivered);
        assert_eq!(flight.shown().unwrap(), "your last message: read");
        flight.lost(second);
        flight.delayed(first, ErrorCode::MailboxFull);
        assert!(flight.shown().unwrap().contains(&ErrorCode::MailboxFull.to_string()));
        flight.came(first, Stage::Stored);
        assert_eq!(flight.shown().unwrap(), "your last message: stored at the relay");
        flight.came(MessageId::from_bytes([3; 16]), Stage::Read);
        assert_eq!(flight.shown().unwrap(), "your last message: stored at the relay");
    }
}
