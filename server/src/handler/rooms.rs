//! Open rooms, registers, announcements, and commands of administrators.

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{LogId, RegisterId, RoomId};
use chatcore::keys::{Signed, SigningPublicKey, verify_append};
use chatcore::membership::{Event, LogHead, Statement};
use chatcore::wire::directory::decode_signed;
use chatcore::wire::limits::{ENTRY_SIZES, MAX_ADMIN_ANSWER, MAX_ANNOUNCEMENTS};
use chatcore::wire::relay::{Answer, AnswerForm, ErrorCode, Failure};

use super::{Caller, internal};
use crate::operator::{By, Command, Operator};
use crate::rooms::verify_of;
use crate::server::Shared;
use crate::store::{Appended, RegisterPage};

/// Most bytes of entries in one answer.
const MAX_READ: usize = 512 << 10;

fn take_act(shared: &Shared, caller: &Caller) -> Result<(), Failure> {
    shared.room_acts.pay(caller.address.user, shared.clock.uptime())
}

pub(super) fn create(shared: &Shared, caller: &Caller, event: Signed) -> Result<Answer, Failure> {
    take_act(shared, caller)?;
    let event = verify_of(event, &shared.identity.keys.public(), &caller.address.user)?;
    let store = &*shared.stores.open_rooms;
    let most = shared.limits().open_rooms_per_user;
    let id = event.room();
    let end = shared.rooms.create(store, event, most)?;
    Ok(Answer::Appended(shared.sign_head(id.into(), end)))
}

pub(super) fn list(
    shared: &Shared,
    caller: &Caller,
    after: Option<RoomId>,
) -> Result<Answer, Failure> {
    let asker = caller.address.user;
    shared.lists.pay(asker, shared.clock.uptime())?;
    let is_online = |user: &_| shared.registry.is_here(user, Some(&asker));
    let (rooms, more) = shared.rooms.list(after, is_online);
    Ok(Answer::RoomList { rooms, more })
}

pub(super) fn append(shared: &Shared, caller: &Caller, event: Signed) -> Result<Answer, Failure> {
    take_act(shared, caller)?;
    let event = verify_of(event, &shared.identity.keys.public(), &caller.address.user)?;
    let id = event.room();
    if let Some(rest) = shared.rooms.recovering(&id, shared.recovering(), shared.clock.now()) {
        return Err(waits(rest));
    }
    let (log, user, now) = (id.into(), caller.address.user, shared.clock.uptime());
    if !shared.rooms.may_ever(&event)? {
        // Who could never be faster waits for no turn, and holds up nobody.
        return Err(ErrorCode::Forbidden.into());
    }
    take_turn(shared, log, caller)?;
    let appended = shared.rooms.append(&*shared.stores.open_rooms, event);
    if appended.as_ref().err() == Some(&ErrorCode::Conflict) {
        shared.turns.lost(log, user, now);
    }
    let appended = appended?;
    shared.turns.appended(log, user, now);
    shared.registry.tell(id, &appended.told);
    Ok(Answer::Appended(shared.sign_head(id.into(), appended.end)))
}

/// Lets a caller append to a log if it is nobody else's turn there.
fn take_turn(shared: &Shared, log: LogId, caller: &Caller) -> Result<(), Failure> {
    let turn = shared.turns.check(log, caller.address.user, shared.clock.uptime());
    turn.map_err(|retry_after_ms| Failure {
        code: ErrorCode::RateLimited,
        limit: 0,
        retry_after_ms,
    })
}

fn waits(rest: u64) -> Failure {
    let retry_after_ms = u32::try_from(rest).unwrap_or(u32::MAX).into();
    Failure { code: ErrorCode::Recovering, limit: 0, retry_after_ms }
}

pub(super) fn read(
    shared: &Shared,
    room: &RoomId,
    from_seq: u64,
    after_statement: u64,
) -> Result<Answer, Failure> {
    let sign = |length, hash| shared.sign_head((*room).into(), (length, hash));
    Ok(shared.rooms.read(room, from_seq, after_statement, sign)?)
}

/// Takes back what the relay lost of a log: its own signature says that it had it.
pub(super) fn recover(
    shared: &Shared,
    caller: &Caller,
    head: &Signed,
    entries: Vec<Bytes>,
) -> Result<Answer, Failure> {
    let (user, now) = (caller.address.user, shared.clock.now());
    shared.register_appends.pay(user, shared.clock.uptime())?;
    shared.verifications.pay(user, shared.clock.uptime())?;
    if entries.is_empty() {
        return Err(ErrorCode::Forbidden.into());
    }
    let relay = shared.identity.keys.public();
    let head = LogHead::verify(head, &relay).map_err(|_| ErrorCode::Forbidden)?;
    let end = (head.length, head.hash);
    // A register, unless every entry is an event of the open room by that id.
    let room = RoomId::from_bytes(*head.log.as_bytes());
    let event = |entry: &Bytes| {
        let event = decode_signed(entry).ok().and_then(|signed| Event::verify(signed, &relay).ok());
        event.filter(|event| event.room() == room)
    };
    // Nothing is verified that can't lead to the head.
    let is_rest = shared.rooms.length(&room) + entries.len() as u64 == head.length;
    let events = is_rest.then(|| entries.iter().map(event).collect::<Option<Vec<Event>>>());
    match events.flatten() {
        Some(events) => {
            let store = &*shared.stores.open_rooms;
            let told = shared.rooms.recover(store, &room, events, end, now)?;
            shared.registry.tell(room, &told);
        }
        None => {
            if entries.iter().any(|entry| !ENTRY_SIZES.contains(&entry.len())) {
                return Err(ErrorCode::Forbidden.into());
            }
            let register = RegisterId::from_bytes(*head.log.as_bytes());
            let registers = &shared.stores.registers;
            let fits = registers
                .recover(&register, (&user, shared.limits().registers), entries, end, now)
                .map_err(internal)?;
            if !fits {
                return Err(ErrorCode::Forbidden.into());
            }
        }
    }
    Ok(Answer::Appended(shared.sign_head(head.log, end)))
}

pub(super) fn put_statement(
    shared: &Shared,
    caller: &Caller,
    statement: Signed,
) -> Result<Answer, Failure> {
    take_act(shared, caller)?;
    let statement = Statement::verify(statement).map_err(|_| ErrorCode::Forbidden)?;
    if statement.user() != caller.address.user {
        return Err(ErrorCode::Forbidden.into());
    }
    if shared.rights.of(&statement.user()).is_banned {
        // Its connection is about to be cut.
        return Err(ErrorCode::Banned.into());
    }
    let most = shared.limits().joined_per_user;
    let (store, now) = (&*shared.stores.open_rooms, shared.clock.latest());
    let told = shared.rooms.put_statement(store, &statement, most, now)?;
    shared.registry.tell(statement.room(), &told);
    Ok(Answer::Done)
}

pub(super) fn presence(shared: &Shared, caller: &Caller, room: &RoomId) -> Result<Answer, Failure> {
    let asker = caller.address.user;
    let members = shared.rooms.members_for(room, &asker)?;
    let is_here = |user: &_| shared.registry.is_here(user, Some(&asker));
    let users = members.into_iter().filter(is_here).collect();
    Ok(Answer::RoomPresence(users))
}

pub(super) fn append_register(
    shared: &Shared,
    caller: &Caller,
    write_key: &SigningPublicKey,
    (position, entry): (u64, Bytes),
    proof: [u8; 64],
) -> Result<Answer, Failure> {
    let now = shared.clock.now();
    let user = caller.address.user;
    shared.register_appends.pay(user, shared.clock.uptime())?;
    let register =
        verify_append(write_key, position, &entry, proof).map_err(|_| ErrorCode::Forbidden)?;
    take_turn(shared, register.into(), caller)?;
    let quota = shared.limits().registers;
    let registers = &shared.stores.registers;
    let times = (shared.recovering(), now);
    let appended = registers.append(&register, (&user, quota), (position, entry), times);
    match appended.map_err(internal)? {
        Appended::Stored(hash) => {
            shared.turns.appended(register.into(), user, shared.clock.uptime());
            Ok(Answer::Appended(shared.sign_head(register.into(), (position + 1, hash))))
        }
        Appended::Recovering(rest) => Err(waits(rest)),
        Appended::Conflict(limit) => {
            shared.turns.lost(register.into(), user, shared.clock.uptime());
            Err(Failure { limit, ..ErrorCode::Conflict.into() })
        }
        Appended::ShareSpent => {
            let limit = quota.entries_of_one.into();
            Err(Failure { limit, ..ErrorCode::RoomQuota.into() })
        }
        Appended::Full(None) => {
            Err(Failure { limit: quota.entries, ..ErrorCode::StorageQuota.into() })
        }
        Appended::Full(Some(retry_after_ms)) => {
            Err(Failure { code: ErrorCode::RateLimited, limit: 0, retry_after_ms })
        }
        Appended::OverQuota(limit) => Err(Failure { limit, ..ErrorCode::RoomQuota.into() }),
    }
}

pub(super) fn read_register(
    shared: &Shared,
    register: &RegisterId,
    from: u64,
) -> Result<Answer, Failure> {
    let now = shared.clock.now();
    let read = shared.stores.registers.read(register, from, MAX_READ, now).map_err(internal)?;
    let RegisterPage { length, entries, end, hash } = read.ok_or(ErrorCode::UnknownRegister)?;
    let head = shared.sign_head((*register).into(), (end, hash));
    Ok(Answer::RegisterEntries { length, entries, head })
}

pub(super) fn announcements(
    shared: &Shared,
    caller: &Caller,
    after: u64,
) -> Result<Answer, Failure> {
    let user = caller.address.user;
    let is_for = |room: &Option<RoomId>| {
        room.as_ref().is_none_or(|room| shared.rooms.is_member(room, &user))
    };
    let (mut mine, mut after) = (Vec::new(), after);
    loop {
        let page = shared.stores.announcements.after(after, MAX_ANNOUNCEMENTS).map_err(internal)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        mine.extend(page.into_iter().filter(|said| is_for(&said.room)).map(|said| said.signed));
        if mine.len() >= MAX_ANNOUNCEMENTS {
            mine.truncate(MAX_ANNOUNCEMENTS);
            break;
        }
    }
    Ok(Answer::Announcements(mine))
}

pub(super) fn admin(
    shared: &Arc<Shared>,
    caller: &Caller,
    line: &str,
    form: AnswerForm,
) -> Result<Answer, Failure> {
    let user = caller.address.user;
    if !shared.rights.of(&user).is_admin {
        return Err(ErrorCode::Forbidden.into());
    }
    take_act(shared, caller)?;
    let (code, mut text) = match Command::parse(line) {
        Err(error) => (2, error.to_string()),
        Ok(command) => match Operator::run_in(shared, &command, By::Admin(user)) {
            Ok(said) => (0, said.form(form)),
            Err(error) => (error.exit_code(), error.to_string()),
        },
    };
    if text.len() > MAX_ADMIN_ANSWER && form == AnswerForm::Json {
        // Half an object is of no use to a program.
        let text = "that is too much to send; ask where the relay runs: chat-server ctl";
        return Ok(Answer::AdminAnswer { code: 1, text: text.to_owned() });
    }
    let cut = (0..=MAX_ADMIN_ANSWER.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(cut.unwrap_or(0));
    Ok(Answer::AdminAnswer { code, text })
}
