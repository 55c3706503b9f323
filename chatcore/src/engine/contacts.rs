//! People: names, records, trust.

use super::event::{Acquaintance, LookupError, Sender};
use super::tx::Tx;
use super::{Engine, EngineError, Event, Link, Pending};
use crate::ids::{HOUR, UserId};
use crate::keys::{Nickname, Signed, Standing, UserRecord};
use crate::store::rows::{Contact, ContactStanding};
use crate::trust::Trust;
use crate::wire::relay::{Answer, ErrorCode, Request, Who};

pub(super) fn sender(contact: &Contact) -> Sender {
    Sender {
        user: contact.user(),
        nickname: contact.nickname().clone(),
        trust: contact.trust,
        acquaintance: match contact.standing {
            ContactStanding::Request => Acquaintance::Stranger,
            ContactStanding::Contact | ContactStanding::Blocked => Acquaintance::Contact,
        },
    }
}

fn known(tx: &Tx<'_, '_>, user: &UserId) -> Result<Contact, EngineError> {
    tx.contact(user)?.ok_or(EngineError::UnknownContact)
}

pub(super) fn verify(tx: &mut Tx<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.trust == Trust::Changed {
        return Err(EngineError::IdentityChanged);
    }
    contact.trust = Trust::Verified;
    if contact.standing == ContactStanding::Request {
        contact.standing = ContactStanding::Contact;
    }
    tx.save_contact(&contact);
    Ok(())
}

/// The person decided: the new holder of the name is who is meant from now on.
pub(super) fn accept_identity(tx: &mut Tx<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    let new = contact.replaced_by.ok_or(EngineError::UnknownContact)?;
    let mut successor = known(tx, &new)?;
    successor.standing = ContactStanding::Contact;
    tx.save_contact(&successor);
    contact.standing = ContactStanding::Request;
    tx.save_contact(&contact);
    Ok(())
}

pub(super) fn unblock(tx: &mut Tx<'_, '_>, user: &UserId) -> Result<(), EngineError> {
    let mut contact = known(tx, user)?;
    if contact.standing == ContactStanding::Blocked {
        contact.standing = ContactStanding::Contact;
        tx.save_contact(&contact);
    }
    Ok(())
}

/// Takes a newer record of a known user in; tells of a new name.
pub(super) fn take_record(
    tx: &mut Tx<'_, '_>,
    contact: &mut Contact,
    record: UserRecord,
) -> Result<Standing, LookupError> {
    let before = contact.nickname().clone();
    let user = contact.user();
    match contact.records.accept(record) {
        Ok(standing) => {
            if *contact.nickname() != before {
                tx.event(Event::NicknameChanged {
                    who: sender(contact),
                    before,
                });
            }
            Ok(standing)
        }
        Err(_) => {
            tx.event(Event::RecordRefused { user });
            Err(LookupError::BadAnswer)
        }
    }
}

/// Checks an answer of the directory: a chain without gaps, of one user.
fn verify_chain(records: Vec<Signed>) -> Result<Vec<UserRecord>, LookupError> {
    let mut chain: Vec<UserRecord> = Vec::with_capacity(records.len());
    for signed in records {
        let record = UserRecord::verify(signed).map_err(|_| LookupError::BadAnswer)?;
        if chain.last().is_some_and(|last| !record.extends(last)) {
            return Err(LookupError::BadAnswer);
        }
        chain.push(record);
    }
    Ok(chain)
}

/// Takes what is new of a chain in; a chain that goes back or branches off is refused and shown.
fn take_chain(
    tx: &mut Tx<'_, '_>,
    contact: &mut Contact,
    chain: Vec<UserRecord>,
) -> Result<(), LookupError> {
    let known = contact.records.newest().version();
    let goes_back = chain.last().is_none_or(|last| last.version() < known);
    let foreign = chain.iter().any(|r| r.user_id() != contact.user());
    if goes_back || foreign || chain.iter().any(|r| contact.records.contradicts(r)) {
        tx.event(Event::RecordRefused {
            user: contact.user(),
        });
        return Err(LookupError::BadAnswer);
    }
    for record in chain.into_iter().filter(|r| r.version() > known) {
        take_record(tx, contact, record)?;
    }
    Ok(())
}

/// Finds who is meant by a name among the people we know; contacts before strangers.
fn find(contacts: &[Contact], name: &str) -> Option<UserId> {
    let fold = Nickname::from_input(name).ok()?.fold();
    let rank = |c: &&Contact| match c.standing {
        ContactStanding::Contact => 0,
        ContactStanding::Blocked => 1,
        ContactStanding::Request => 2,
    };
    let named = contacts.iter().filter(|c| c.nickname().fold() == fold);
    named.min_by_key(rank).map(Contact::user)
}

impl Engine {
    pub(super) fn block(&mut self, tx: &mut Tx<'_, '_>, user: &UserId) -> Result<(), EngineError> {
        let mut contact = known(tx, user)?;
        contact.standing = ContactStanding::Blocked;
        for device in &mut contact.devices {
            device.due_receipts.clear();
        }
        self.receipts_due.retain(|address, _| address.user != *user);
        tx.save_contact(&contact);
        Ok(())
    }

    pub(super) fn look_up(
        &mut self,
        tx: &mut Tx<'_, '_>,
        ticket: u64,
        name: String,
    ) -> Result<(), EngineError> {
        let expected = find(&tx.contacts()?, &name);
        let checked = expected.and_then(|user| self.looked_up.get(&user));
        let recent = checked.is_some_and(|at| tx.now.since(*at) < HOUR);
        match expected {
            Some(user) if recent || self.link == Link::Offline => {
                let contact = known(tx, &user)?;
                let result = if contact.trust == Trust::Changed {
                    Err(LookupError::IdentityChanged)
                } else {
                    Ok(user)
                };
                tx.event(Event::LookupDone { ticket, result });
                Ok(())
            }
            None if self.link == Link::Offline => Err(EngineError::Offline),
            expected => {
                let Ok(nickname) = Nickname::from_input(&name) else {
                    let result = Err(LookupError::Unknown);
                    tx.event(Event::LookupDone { ticket, result });
                    return Ok(());
                };
                let who = Who::Nickname(nickname.as_str().to_owned());
                let request = Request::GetRecords {
                    who,
                    after_version: 0,
                };
                let name = nickname.as_str().to_owned();
                self.ask(
                    tx,
                    request,
                    Pending::Lookup {
                        ticket,
                        name,
                        expected,
                    },
                );
                Ok(())
            }
        }
    }

    pub(super) fn looked_up(
        &mut self,
        tx: &mut Tx<'_, '_>,
        ticket: u64,
        name: &str,
        expected: Option<UserId>,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let result = match (answer, expected) {
            (Answer::Records(records), expected) => {
                self.name_answered(tx, name, expected, records)?
            }
            (Answer::Failure(f), Some(user)) if f.code == ErrorCode::UnknownUser => {
                // The contact has another name now; the pinned key is what counts.
                self.refresh(tx, user);
                Ok(user)
            }
            (Answer::Failure(f), None) if f.code == ErrorCode::UnknownUser => {
                Err(LookupError::Unknown)
            }
            (Answer::Failure(f), _) => Err(LookupError::Refused(f.code)),
            _ => return Err(EngineError::RelayMisbehaved),
        };
        tx.event(Event::LookupDone { ticket, result });
        Ok(())
    }

    fn name_answered(
        &mut self,
        tx: &mut Tx<'_, '_>,
        name: &str,
        expected: Option<UserId>,
        records: Vec<Signed>,
    ) -> Result<Result<UserId, LookupError>, EngineError> {
        let chain = match verify_chain(records) {
            Ok(chain) => chain,
            Err(error) => return Ok(Err(error)),
        };
        let asked = Nickname::from_input(name).map(|n| n.fold()).ok();
        let Some(newest) = chain.last() else {
            return Ok(Err(LookupError::BadAnswer));
        };
        if Some(newest.nickname().fold()) != asked {
            return Ok(Err(LookupError::BadAnswer));
        }
        let user = newest.user_id();
        if user == tx.profile()?.user() {
            return Ok(Ok(user));
        }
        let mut contact = match tx.contact(&user)? {
            Some(contact) => contact,
            None => Contact::new(newest.clone(), ContactStanding::Request),
        };
        if let Err(error) = take_chain(tx, &mut contact, chain) {
            return Ok(Err(error));
        }
        self.looked_up.insert(user, tx.now);
        let was_changed = contact.trust == Trust::Changed;
        tx.save_contact(&contact);
        match expected {
            Some(expected) if expected != user => {
                self.identity_changed(tx, &expected, user)?;
                Ok(Err(LookupError::IdentityChanged))
            }
            _ if was_changed => Ok(Err(LookupError::IdentityChanged)),
            _ => Ok(Ok(user)),
        }
    }

    /// A contact's name leads to another key: sending waits for the person.
    pub(super) fn identity_changed(
        &mut self,
        tx: &mut Tx<'_, '_>,
        contact: &UserId,
        new_user: UserId,
    ) -> Result<(), EngineError> {
        let mut contact = known(tx, contact)?;
        let first_time = contact.replaced_by != Some(new_user);
        contact.trust = Trust::Changed;
        contact.replaced_by = Some(new_user);
        tx.save_contact(&contact);
        if first_time {
            tx.event(Event::IdentityChanged {
                contact: sender(&contact),
                new_user,
            });
        }
        Ok(())
    }

    /// Asks for newer records of a user we know.
    pub(super) fn refresh(&mut self, tx: &mut Tx<'_, '_>, user: UserId) {
        let request = Request::GetRecords {
            who: Who::User(user),
            after_version: 0,
        };
        self.ask(tx, request, Pending::Refresh { user });
    }

    pub(super) fn refreshed(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let (Answer::Records(records), Some(mut contact)) = (answer, tx.contact(user)?) else {
            return Ok(());
        };
        let Ok(chain) = verify_chain(records) else {
            tx.event(Event::RecordRefused { user: *user });
            return Ok(());
        };
        if take_chain(tx, &mut contact, chain).is_err() {
            return Ok(());
        }
        self.looked_up.insert(*user, tx.now);
        tx.save_contact(&contact);
        self.drive_user(tx, user)
    }
}
