//! Shows, holds or refuses a message to a room, by what is known when it is looked at (PROTOCOL.md section 16).

use super::RefusedBecause;
use crate::membership::RoomKind;

/// The fate of a message to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Show,
    Hold,
    Refuse(RefusedBecause),
}

/// How this device stands in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to the room.
    Member,
    /// It has taken an invitation up, or joins: it may be in by now.
    Coming,
    /// Neither, or the room is not known.
    Outside,
}

/// How much of a room was read on this connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    #[default]
    NotYet,
    /// To its end, and the relay has told of something since.
    Stale,
    /// To its end.
    Fresh,
}

/// Whether the event that a message names is one of the settled chain, in a room of a version that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Settled,
    Unknown,
}

/// The sender, by the newest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    Member,
    Muted,
    Banned,
    /// No member, and no join or leave of theirs was seen; in a private room whoever is no member.
    Unheard,
    /// The last that was seen of them is a leave.
    Left,
    /// The last that was seen of them is a join that a kick or retire bars.
    Barred,
}

/// All that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) standing: Standing,
    pub(crate) reading: Reading,
    pub(crate) named: Named,
    pub(crate) kind: RoomKind,
    pub(crate) author: Author,
}

/// Decides. Nothing is decided before the room was read to its end on this connection: who was taken out while we
/// were away has no say.
pub(crate) fn judge(facts: &Facts) -> Verdict {
    let is_read = facts.reading != Reading::NotYet;
    match facts.standing {
        Standing::Member => {}
        // Our own join may be there already, and its answer be on its way, or lost.
        Standing::Coming => return Verdict::Hold,
        Standing::Outside => return Verdict::Refuse(RefusedBecause::UnknownRoom),
    }
    if !is_read || facts.named == Named::Unknown {
        return Verdict::Hold;
    }
    // Who joins an open room may speak before we hear of the join; who had left, or was taken out, may have come back,
    // if there is news.
    let is_open = facts.kind == RoomKind::Open;
    match facts.author {
        Author::Member => Verdict::Show,
        Author::Muted => Verdict::Refuse(RefusedBecause::Muted),
        Author::Unheard if is_open => Verdict::Hold,
        Author::Left | Author::Barred if is_open && facts.reading == Reading::Stale => {
            Verdict::Hold
        }
        _ => Verdict::Refuse(RefusedBecause::NotAMember),
    }
}
