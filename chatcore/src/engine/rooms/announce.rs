//! Announcements: signed by the relay's pinned key, shown once, never again.

use super::super::error::EngineError;
use super::super::event::Event;
use super::super::requests::Pending;
use super::super::transaction::Transaction;
use super::{Room, RoomAsk, Rooms};
use crate::keys::Signed;
use crate::membership::Announcement;
use crate::store::rows::RoomStanding;
use crate::wire::limits::MAX_ANNOUNCEMENTS;
use crate::wire::relay::{Answer, Request};

/// Whether announcements are asked for; while they are, a push only makes us ask again, for an older
/// one may still be on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    No,
    Yes,
    AndPushed,
}

impl Rooms {
    /// Asks for what was announced while we were away, and for where the relay is if we did not hear it: of that also
    /// who was not here yet.
    pub(in crate::engine) fn catch_up(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        announced: u64,
        moved: u64,
    ) -> Result<(), EngineError> {
        let profile = tx.profile()?;
        let known = (announced > profile.announced).then_some(profile.announced);
        let before = (moved > profile.moved).then(|| moved - 1);
        if let Some(after) = known.into_iter().chain(before).min() {
            let pending = Pending::Room { room: None, ask: RoomAsk::Announcements };
            tx.ask(Request::GetAnnouncements { after }, pending);
            self.announcements = Asked::Yes;
        }
        Ok(())
    }

    pub(super) fn announcements_came(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let was = std::mem::take(&mut self.announcements);
        let all = match answer {
            Answer::Announcements(all) => all,
            Answer::Failure(_) => return Ok(()),
            _ => return Err(EngineError::RelayMisbehaved),
        };
        let (known, is_full) = (tx.profile()?.announced, all.len() >= MAX_ANNOUNCEMENTS);
        all.into_iter().try_for_each(|signed| self.take_announcement(tx, signed))?;
        let is_progress = tx.profile()?.announced > known;
        if was == Asked::AndPushed || (is_full && is_progress) {
            self.catch_up(tx, u64::MAX, 0)?;
        }
        Ok(())
    }

    /// An announcement was pushed to us.
    pub(in crate::engine) fn announced(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        signed: Signed,
    ) -> Result<(), EngineError> {
        if self.announcements == Asked::No {
            return self.take_announcement(tx, signed);
        }
        self.announcements = Asked::AndPushed;
        Ok(())
    }

    /// Shows an announcement that is newer than all before; anything else is no news or no
    /// announcement.
    fn take_announcement(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        signed: Signed,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        let Ok(announcement) = Announcement::verify(&signed, &profile.relay) else {
            if !std::mem::replace(&mut self.announcement_refused, true) {
                tx.event(Event::AnnouncementRefused);
            }
            return Ok(());
        };
        if let Some(moved) = &announcement.moved
            && announcement.seq > profile.moved
        {
            profile.moved = announcement.seq;
            if profile.addresses.may_lead_to(&moved.address) {
                profile.addresses.learn(moved.clone());
            }
            tx.put(&profile);
        } else if announcement.seq <= profile.announced {
            return Ok(());
        }
        let mut room = None;
        if let Some(id) = announcement.room {
            let ours =
                |room: &Room| (room.row.standing == RoomStanding::Member).then(|| room.reference());
            room = self.look_room(tx, &id, ours)?.flatten();
            if room.is_none() {
                // For a room that we do not belong to, or not yet: a later one must still come.
                return Ok(());
            }
        }
        profile.announced = profile.announced.max(announcement.seq);
        tx.put(&profile);
        let Announcement { seq, text, at, .. } = announcement;
        tx.event(Event::Announcement { room, seq, text, at, signed: Box::new(signed) });
        Ok(())
    }
}
