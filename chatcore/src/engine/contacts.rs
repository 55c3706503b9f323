//! People: names, records, trust.

use std::collections::BTreeMap;

use super::clock::is_due;
use super::devices::follow_devices;
use super::error::EngineError;
use super::event::{Event, LookupError};
use super::follow_ups::Tell;
use super::message::Sender;
use super::requests::{Asker, Pending};
use super::transaction::Transaction;
use crate::ids::{DeviceAddress, HOUR, MINUTE, Timestamp, UserId};
use crate::keys::{Nickname, RecordHistory, RecordSource, Signed, Standing, UserRecord};
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding};
use crate::trust::Trust;
use crate::wire::relay::{Answer, ErrorCode, Request, Who};

fn known(tx: &Transaction<'_, '_>, user: &UserId) -> Result<Contact, EngineError> {
    tx.contact(user)?.ok_or(EngineError::UnknownContact)
}

/// Makes a contact of somebody. What was left out of what they sent is to be asked for.
pub(super) fn make_contact(tx: &mut Transaction<'_, '_>, contact: &mut Contact) {
    if contact.standing == ContactStanding::Contact {
        return;
    }
    let is_full = contact.standing == ContactStanding::Request && contact.sent_more();
    contact.standing = ContactStanding::Contact;
    (contact.kept, contact.wrote_at) = (0, Timestamp(0));
    tx.has_tags_to_tell();
    let user = contact.user();
    let devices = if is_full { contact.named_devices() } else { Vec::new() };
    let devices = devices.into_iter().map(|device| DeviceAddress { user, device });
    tx.follow.renew.extend(devices);
}

pub(super) fn verify(tx: &mut Transaction<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.trust == Trust::Changed {
        return Err(EngineError::IdentityChanged);
    }
    contact.trust = Trust::Verified;
    // A block stays one: it says nothing about who somebody is.
    let is_blocked = contact.standing == ContactStanding::Blocked;
    if !is_blocked {
        make_contact(tx, &mut contact);
    }
    tx.put(&contact);
    Ok(())
}

/// The person decided: the new holder of the name is who is meant from now on.
pub(super) fn accept_identity(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    new: &UserId,
) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    match contact.replaced_by {
        Some(now) if now == *new => {}
        // Not the one whose digits were compared.
        Some(_) => return Err(EngineError::IdentityChanged),
        None => return Err(EngineError::UnknownContact),
    }
    let mut successor = known(tx, new)?;
    make_contact(tx, &mut successor);
    tx.put(&successor);
    contact.standing = ContactStanding::Request;
    tx.put(&contact);
    Ok(())
}

/// The person decided: the contact is who was always meant.
pub(super) fn keep_identity(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.trust == Trust::Changed {
        // Who has the name now stays noted: that one raises no second alarm.
        contact.trust = contact.trust_before;
        tx.has_tags_to_tell();
        tx.put(&contact);
    }
    Ok(())
}

pub(super) fn unblock(tx: &mut Transaction<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.standing == ContactStanding::Blocked {
        // A stranger stays one: a block says nothing about who somebody is.
        contact.standing = contact.standing_before;
        tx.has_tags_to_tell();
        tx.put(&contact);
    }
    Ok(())
}

/// Takes a newer record of a known user in; tells of a new name.
pub(super) fn accept_record(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    record: UserRecord,
    source: RecordSource,
) -> Result<(), LookupError> {
    let before = contact.nickname().clone();
    if contact.records.accept(record, source).is_err() {
        tx.event(Event::RecordRefused { user: contact.user(), source });
        return Err(LookupError::BadAnswer);
    }
    if *contact.nickname() != before {
        tx.event(Event::NicknameChanged { who: Sender::from(&*contact), before });
    }
    Ok(())
}

/// Finds who is meant by a name among contacts, then among those blocked. Strangers are found
/// only through the directory: anybody may claim any name in a first message.
fn find(contacts: &[Contact], name: &str) -> Result<Option<UserId>, LookupError> {
    let Ok(fold) = Nickname::from_input(name).map(|n| n.fold()) else { return Ok(None) };
    for standing in [ContactStanding::Contact, ContactStanding::Blocked] {
        let mut named =
            contacts.iter().filter(|c| c.standing == standing && c.nickname().fold() == fold);
        match (named.next(), named.next()) {
            (Some(_), Some(_)) => return Err(LookupError::Ambiguous),
            (Some(contact), None) => return Ok(Some(contact.user())),
            (None, _) => {}
        }
    }
    Ok(None)
}

/// Finds whom an id means: of anybody a whole one, of contacts and those blocked also its beginning. A stranger can draw
/// keys until their id begins as somebody wants, and take any name: what could be the one or the other is neither.
fn by_id(contacts: &[Contact], text: &str) -> Result<Option<UserId>, LookupError> {
    if let Some(user) = UserId::from_hex(text) {
        return Ok(Some(user));
    }
    let begun = contacts.iter().filter(|contact| contact.user().begins_as(text));
    let (known, others): (Vec<_>, Vec<_>) = begun.partition(|contact| {
        matches!(contact.standing, ContactStanding::Contact | ContactStanding::Blocked)
    });
    match known.as_slice() {
        // Of somebody else whom we have met: nobody who took it for a name.
        [] if others.is_empty() => Ok(None),
        [contact] if find(contacts, text)?.is_none_or(|named| named == contact.user()) => {
            Ok(Some(contact.user()))
        }
        [] => Err(LookupError::WholeIdNeeded),
        _ => Err(LookupError::Ambiguous),
    }
}

/// Why records of somebody were not taken in.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// They are not what they should be; the person hears of it.
    Refused(LookupError),
    /// The step can't go on.
    Failed(EngineError),
}

impl From<LookupError> for NotTaken {
    fn from(error: LookupError) -> Self {
        Self::Refused(error)
    }
}

impl From<EngineError> for NotTaken {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl NotTaken {
    /// Returns why they were refused.
    ///
    /// # Errors
    /// The step can't go on.
    pub(super) fn refusal(self) -> Result<LookupError, EngineError> {
        match self {
            Self::Refused(error) => Ok(error),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Takes a newer record of a known user in; tells of a new name, and follows to new devices.
pub(super) fn take_record(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    record: UserRecord,
) -> Result<(), NotTaken> {
    let former = contact.named_devices();
    accept_record(tx, contact, record, RecordSource::Owner)?;
    Ok(follow_devices(tx, contact, &former)?)
}

/// Takes what is new of a chain of the directory in; one that goes back behind what the directory showed before,
/// or branches off from it, is refused and shown. What the user alone has told us is no reason to blame the relay.
fn take_chain(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    chain: Vec<UserRecord>,
) -> Result<(), NotTaken> {
    let known = contact.records.newest().version();
    let listed = contact.records.listed_version();
    let goes_back = chain.last().is_none_or(|last| last.version() < listed);
    let foreign = chain.iter().any(|r| r.user_id() != contact.user());
    // Also what the chain takes away in one record and names again in the next.
    let newest = contact.records.newest();
    let changes_keys = |r: &UserRecord| r.version() > known && r.changes_keys(newest);
    let contradicted: Vec<_> =
        chain.iter().filter_map(|r| contact.records.contradicts(r)).collect();
    let changes_keys = chain.iter().any(changes_keys);
    let is_relays = contradicted.contains(&RecordSource::Directory)
        || changes_keys && contact.records.is_listed();
    if goes_back || foreign || is_relays {
        let source = RecordSource::Directory;
        tx.event(Event::RecordRefused { user: contact.user(), source });
        return Err(LookupError::BadAnswer.into());
    }
    if changes_keys || !contradicted.is_empty() {
        // What they told us counts for what they send us; that it is not what all others see is told once.
        if !std::mem::replace(&mut contact.is_unlisted, true) {
            tx.event(Event::RecordUnlisted { who: Sender::from(&*contact) });
            tx.put(contact);
        }
        return Ok(());
    }
    let former = contact.named_devices();
    for record in chain {
        if record.version() <= known && contact.records.standing(&record) != Ok(Standing::Known) {
            continue;
        }
        accept_record(tx, contact, record, RecordSource::Directory)?;
    }
    Ok(follow_devices(tx, contact, &former)?)
}

pub(super) fn block(tx: &mut Transaction<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.standing != ContactStanding::Blocked {
        contact.standing_before = contact.standing;
    }
    contact.standing = ContactStanding::Blocked;
    for device in &mut contact.devices {
        device.due_receipts.clear();
        tx.follow.receipts.insert(DeviceAddress { user: *user, device: device.id }, None);
    }
    tx.put(&contact);
    Ok(())
}

/// When users' records were last asked for.
#[derive(Debug, Default)]
pub(super) struct Directory {
    looked_up: BTreeMap<UserId, Timestamp>,
}

impl Directory {
    pub(super) fn look_up(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        name: String,
    ) -> Result<(), EngineError> {
        let contacts = tx.all::<Contact>()?;
        match by_id(&contacts, &name) {
            Ok(Some(user)) => return self.look_up_id(tx, ticket, user),
            Ok(None) => {}
            Err(error) => {
                tx.event(Event::LookupDone { ticket, result: Err(error) });
                return Ok(());
            }
        }
        let expected = match find(&contacts, &name) {
            Ok(expected) => expected,
            Err(error) => {
                tx.event(Event::LookupDone { ticket, result: Err(error) });
                return Ok(());
            }
        };
        let checked = expected.and_then(|user| self.looked_up.get(&user));
        let recent = checked.is_some_and(|at| !is_due(*at, HOUR, tx.now));
        match expected {
            Some(user) if recent || !tx.is_online() => {
                let contact = known(tx, &user)?;
                let result = if contact.trust == Trust::Changed {
                    Err(LookupError::IdentityChanged)
                } else {
                    Ok(user)
                };
                tx.event(Event::LookupDone { ticket, result });
                Ok(())
            }
            None if !tx.is_online() => Err(EngineError::Offline),
            expected => {
                let Ok(nickname) = Nickname::from_input(&name) else {
                    let result = Err(LookupError::Unknown);
                    tx.event(Event::LookupDone { ticket, result });
                    return Ok(());
                };
                let asker = match expected {
                    Some(expected) => Asker::Contact { ticket, expected },
                    None => Asker::Stranger { ticket },
                };
                self.ask(tx, nickname.as_str(), asker);
                Ok(())
            }
        }
    }

    /// Whose id it is needs no directory to be known; what devices they have does.
    fn look_up_id(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        user: UserId,
    ) -> Result<(), EngineError> {
        let is_own = user == tx.profile()?.user();
        let contact = tx.contact(&user)?;
        let checked = self.looked_up.get(&user);
        let is_recent = checked.is_some_and(|at| !is_due(*at, HOUR, tx.now));
        let result = match &contact {
            Some(contact) if contact.trust == Trust::Changed => Err(LookupError::IdentityChanged),
            Some(_) if is_recent || !tx.is_online() => Ok(user),
            None if is_own => Ok(user),
            None if !tx.is_online() => return Err(EngineError::Offline),
            _ => {
                self.refresh(tx, user, Some(ticket));
                return Ok(());
            }
        };
        tx.event(Event::LookupDone { ticket, result });
        Ok(())
    }

    pub(super) fn ask(&mut self, tx: &mut Transaction<'_, '_>, name: &str, asker: Asker) {
        let who = Who::Nickname(name.to_owned());
        let request = Request::GetRecords { who, after_version: 0 };
        tx.ask(request, Pending::Lookup { name: name.to_owned(), asker });
    }

    pub(super) fn looked_up(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        name: &str,
        asker: Asker,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let result = match (answer, asker.expected()) {
            (Answer::Records(records), _) => match self.name_answered(tx, name, records) {
                Ok(user) if asker.expected().is_some_and(|expected| expected != user) => {
                    self.mismatch(tx, name, asker, user);
                    return Ok(());
                }
                Ok(user) => Ok(user),
                Err(not_taken) => Err(not_taken.refusal()?),
            },
            (Answer::Failure(f), Some(user)) if f.code == ErrorCode::UnknownUser => {
                // The contact has another name now; the pinned key is what counts.
                self.refresh(tx, user, asker.ticket());
                return Ok(());
            }
            (Answer::Failure(f), None) if f.code == ErrorCode::UnknownUser => {
                Err(LookupError::Unknown)
            }
            (Answer::Failure(f), _) => Err(LookupError::Refused(f.code)),
            _ => return Err(EngineError::RelayMisbehaved),
        };
        finish_lookup(tx, asker.ticket(), result);
        Ok(())
    }

    /// A contact's name leads to another user: asks what became of the contact.
    fn mismatch(&mut self, tx: &mut Transaction<'_, '_>, name: &str, asker: Asker, other: UserId) {
        let Some(contact) = asker.expected() else { return };
        let request = Request::GetRecords { who: Who::User(contact), after_version: 0 };
        let name = name.to_owned();
        let ticket = asker.ticket();
        tx.ask(request, Pending::Mismatch { name, contact, other, ticket });
    }

    /// The contact's own, signed record says whether the name was given up; else it is an alarm.
    pub(super) fn mismatch_answered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        name: &str,
        contact: UserId,
        other: UserId,
        ticket: Option<u64>,
        answer: Answer,
    ) -> Result<(), EngineError> {
        if matches!(answer, Answer::Records(_))
            && let Err(not_taken) = self.take_refreshed(tx, &contact, answer, Stranger::IsNobody)
        {
            // A refused record has been shown; the name is judged by what is known then.
            let _shown = not_taken.refusal()?;
        }
        let fold = Nickname::from_input(name).map(|n| n.fold()).ok();
        let row = known(tx, &contact)?;
        let decided = row.replaced_by == Some(other) && row.trust != Trust::Changed;
        let result = if Some(row.nickname().fold()) == fold && !decided {
            identity_changed(tx, &contact, other)?;
            Err(LookupError::IdentityChanged)
        } else {
            // The new name was told; whoever asked meant the person as they knew them.
            Ok(contact)
        };
        finish_lookup(tx, ticket, result);
        Ok(())
    }

    fn name_answered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        name: &str,
        records: Vec<Signed>,
    ) -> Result<UserId, NotTaken> {
        let Ok(chain) = UserRecord::verify_chain(records) else {
            return Err(LookupError::BadAnswer.into());
        };
        let asked = Nickname::from_input(name).map(|n| n.fold()).ok();
        let Some(newest) = chain.last() else { return Err(LookupError::BadAnswer.into()) };
        if Some(newest.nickname().fold()) != asked {
            return Err(LookupError::BadAnswer.into());
        }
        let user = newest.user_id();
        if user == tx.profile()?.user() {
            return Ok(user);
        }
        let mut contact = match tx.contact(&user)? {
            Some(contact) => contact,
            None => match RecordHistory::of_chain(&chain) {
                Some(records) => Contact::new(records, ContactStanding::Request),
                None => return Err(LookupError::BadAnswer.into()),
            },
        };
        take_chain(tx, &mut contact, chain)?;
        self.looked_up.insert(user, tx.now);
        tx.put(&contact);
        tx.follow.seal.insert(user);
        match contact.trust {
            Trust::Changed => Err(LookupError::IdentityChanged.into()),
            Trust::Pinned | Trust::Verified => Ok(user),
        }
    }

    /// Asks for newer records unless we just did: an answer must not lead to the same question.
    pub(super) fn refresh_if_old(&mut self, tx: &mut Transaction<'_, '_>, user: UserId) {
        let recent = self.looked_up.get(&user).is_some_and(|at| !is_due(*at, MINUTE, tx.now));
        if !recent {
            self.looked_up.insert(user, tx.now);
            self.refresh(tx, user, None);
        }
    }

    /// Asks for newer records of a user we know.
    pub(super) fn refresh(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: UserId,
        ticket: Option<u64>,
    ) {
        let request = Request::GetRecords { who: Who::User(user), after_version: 0 };
        tx.ask(request, Pending::Refresh { user, ticket });
    }

    pub(super) fn refreshed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
        ticket: Option<u64>,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let version = |tx: &Transaction<'_, '_>| -> Result<_, EngineError> {
            Ok(tx.contact(user)?.map(|contact| contact.records.newest().version()))
        };
        let before = version(tx)?;
        let stranger = if ticket.is_some() { Stranger::IsAskedFor } else { Stranger::IsNobody };
        let result = match self.take_refreshed(tx, user, answer, stranger) {
            Ok(()) => Ok(*user),
            Err(not_taken) => Err(not_taken.refusal()?),
        };
        let is_news = version(tx)? != before;
        finish_lookup(tx, ticket, result);
        if is_news {
            tx.follow.seal.insert(*user);
            tx.follow.tell(Tell::Untried);
        }
        Ok(())
    }

    fn take_refreshed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
        answer: Answer,
        stranger: Stranger,
    ) -> Result<(), NotTaken> {
        let known = tx.contact(user)?;
        if known.is_none() && stranger == Stranger::IsNobody {
            return Err(LookupError::Unknown.into());
        }
        let records = match answer {
            Answer::Records(records) => records,
            Answer::Failure(f) if known.is_none() && f.code == ErrorCode::UnknownUser => {
                return Err(LookupError::Unknown.into());
            }
            Answer::Failure(failure) => return Err(LookupError::Refused(failure.code).into()),
            _ => return Err(EngineError::RelayMisbehaved.into()),
        };
        let chain = UserRecord::verify_chain(records);
        let is_theirs = |chain: &&Vec<UserRecord>| chain.iter().all(|r| r.user_id() == *user);
        let met = || {
            let records = RecordHistory::of_chain(chain.as_ref().ok().filter(is_theirs)?)?;
            Some(Contact::new(records, ContactStanding::Request))
        };
        let Some(mut contact) = known.or_else(met) else {
            return Err(LookupError::BadAnswer.into());
        };
        let taken = match chain {
            Ok(chain) => take_chain(tx, &mut contact, chain),
            Err(_) => Err(LookupError::BadAnswer.into()),
        };
        match taken {
            Ok(()) => {
                self.looked_up.insert(*user, tx.now);
                tx.put(&contact);
            }
            Err(NotTaken::Failed(error)) => return Err(error.into()),
            Err(NotTaken::Refused(_)) => {}
        }
        if contact.trust == Trust::Changed {
            return Err(LookupError::IdentityChanged.into());
        }
        taken
    }
}

/// Verdict on records of a user whom we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stranger {
    /// The person named them by their id.
    IsAskedFor,
    /// They were forgotten meanwhile.
    IsNobody,
}

fn finish_lookup(
    tx: &mut Transaction<'_, '_>,
    ticket: Option<u64>,
    result: Result<UserId, LookupError>,
) {
    if let Some(ticket) = ticket {
        tx.event(Event::LookupDone { ticket, result });
    }
}

/// A contact's name leads to another key: sending waits for the person.
fn identity_changed(
    tx: &mut Transaction<'_, '_>,
    contact: &UserId,
    new_user: UserId,
) -> Result<(), EngineError> {
    let mut contact = known(tx, contact)?;
    if contact.standing != ContactStanding::Contact {
        return Ok(());
    }
    let first_time = contact.replaced_by != Some(new_user);
    if contact.trust != Trust::Changed {
        contact.trust_before = contact.trust;
    }
    contact.trust = Trust::Changed;
    contact.replaced_by = Some(new_user);
    tx.put(&contact);
    if first_time {
        tx.event(Event::IdentityChanged { contact: Sender::from(&contact), new_user });
    }
    Ok(())
}
