//! Room events, statements of open rooms, entries of registers, announcements.

use prost::Message;
use proto::room as pb;

use super::directory::{signed_from, signed_into};
use super::limits::{MAX_ANNOUNCEMENT, MAX_EVENT, MAX_EVENTS_IN_ENTRY};
use super::{WireError, array, at_most};
use crate::addresses::{RelayAddress, Source};
use crate::ids::{EventHash, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use crate::invite::split_address;
use crate::keys::{IdentityKey, RelayKey, Signed};
use crate::membership::{
    Absence, Act, ActorFields, Announcement, Branch, Creation, EventFields, ForkProof, Joined,
    LogHead, Policy, Role, RoomKind, RoomName, RoomVersion, SignedHead, StatementFields, Topic,
};

fn user(bytes: &[u8]) -> Result<UserId, WireError> {
    Ok(UserId::from_bytes(array(bytes, "user_id")?))
}

fn role_from(role: pb::Role) -> Result<Role, WireError> {
    Ok(match role {
        pb::Role::Unspecified => return Err(WireError::BadValue("role")),
        pb::Role::Member => Role::Member,
        pb::Role::Moderator => Role::Moderator,
        pb::Role::Admin => Role::Admin,
        pb::Role::Owner => Role::Owner,
    })
}

fn role_number(role: i32) -> Result<Role, WireError> {
    role_from(pb::Role::try_from(role).map_err(|_| WireError::BadValue("role"))?)
}

fn role_into(role: Role) -> i32 {
    match role {
        Role::Member => pb::Role::Member,
        Role::Moderator => pb::Role::Moderator,
        Role::Admin => pb::Role::Admin,
        Role::Owner => pb::Role::Owner,
    }
    .into()
}

fn device_from(actor: pb::DeviceActor) -> Result<ActorFields, WireError> {
    Ok(ActorFields::Device {
        identity: IdentityKey::from_bytes(array(&actor.identity_key, "identity_key")?),
        cert: signed_from(actor.cert.ok_or(WireError::Missing("cert"))?)?,
    })
}

fn device_into(actor: &ActorFields) -> Option<pb::DeviceActor> {
    match actor {
        ActorFields::Relay => None,
        ActorFields::Device { identity, cert } => Some(pb::DeviceActor {
            identity_key: identity.as_bytes().to_vec(),
            cert: Some(signed_into(cert)),
        }),
    }
}

pub(crate) fn decode_event(signed: &Signed) -> Result<EventFields, WireError> {
    use pb::room_event_body::Actor as PbActor;
    at_most(signed.body.len(), MAX_EVENT, "event")?;
    let body = pb::RoomEventBody::decode(signed.body.as_slice())?;
    let id = |bytes: &[u8], field| -> Result<_, WireError> {
        if bytes.is_empty() { Ok(None) } else { array(bytes, field).map(Some) }
    };
    Ok(EventFields {
        room: id(&body.room_id, "room_id")?.map(RoomId::from_bytes),
        seq: body.seq,
        prev: id(&body.prev, "prev")?.map(EventHash::from_bytes),
        at: Timestamp(body.at),
        actor: match body.actor.ok_or(WireError::Missing("actor"))? {
            PbActor::Relay(pb::RelayActor {}) => ActorFields::Relay,
            PbActor::Device(device) => device_from(device)?,
        },
        act: readable(body.act)?,
    })
}

/// An act whose contents break the rules of today is as one that is not known: where a later version rules, which may
/// have more roles and longer names, the event is kept all the same. A room has to begin with what everybody reads, and
/// the signatures in `Succeed` are part of the event's own.
fn readable(act: Option<pb::room_event_body::Act>) -> Result<Act, WireError> {
    use pb::room_event_body::Act as Pb;
    let is_strict = matches!(act, Some(Pb::Create(_) | Pb::Succeed(_)));
    match act_from(act) {
        Err(_) if !is_strict => Ok(Act::Unknown),
        act => act,
    }
}

pub(crate) fn encode_event(event: &EventFields) -> Vec<u8> {
    use pb::room_event_body::Actor as PbActor;
    pb::RoomEventBody {
        room_id: event.room.map_or_else(Vec::new, |r| r.as_bytes().to_vec()),
        seq: event.seq,
        prev: event.prev.map_or_else(Vec::new, |h| h.as_bytes().to_vec()),
        at: event.at.0,
        actor: Some(match device_into(&event.actor) {
            Some(device) => PbActor::Device(device),
            None => PbActor::Relay(pb::RelayActor {}),
        }),
        act: act_into(&event.act),
    }
    .encode_to_vec()
}

fn act_from(act: Option<pb::room_event_body::Act>) -> Result<Act, WireError> {
    use pb::room_event_body::Act as Pb;
    let name = |name: &str| RoomName::new(name).map_err(|_| WireError::BadValue("name"));
    let topic = |topic: &str| Topic::new(topic).map_err(|_| WireError::BadValue("topic"));
    let id = |bytes: &[u8], field| -> Result<_, WireError> {
        if bytes.is_empty() { Ok(None) } else { array(bytes, field).map(Some) }
    };
    let version = |n| RoomVersion::new(n).ok_or(WireError::BadValue("version"));
    Ok(match act {
        None => Act::Unknown,
        Some(Pb::Create(c)) => Act::Create(Creation {
            kind: match c.kind() {
                pb::RoomKind::Private => RoomKind::Private,
                pb::RoomKind::Open => RoomKind::Open,
                pb::RoomKind::Unspecified => return Err(WireError::BadValue("kind")),
            },
            name: name(&c.name)?,
            topic: topic(&c.topic)?,
            nonce: array(&c.nonce, "nonce")?,
            register: id(&c.register_id, "register_id")?.map(RegisterId::from_bytes),
            version: version(c.version)?,
            replaces: id(&c.replaces, "replaces")?.map(RoomId::from_bytes),
        }),
        Some(Pb::Invite(g)) => Act::Invite { user: user(&g.user_id)?, role: role_number(g.role)? },
        Some(Pb::Join(pb::Join {})) => Act::Join,
        Some(Pb::Leave(pb::Leave {})) => Act::Leave,
        Some(Pb::Kick(t)) => Act::Kick { user: user(&t.user_id)?, counter: t.counter },
        Some(Pb::Ban(t)) => Act::Ban { user: user(&t.user_id)?, counter: t.counter },
        Some(Pb::Unban(t)) => Act::Unban(user(&t.user_id)?),
        Some(Pb::Mute(t)) => Act::Mute(user(&t.user_id)?),
        Some(Pb::Unmute(t)) => Act::Unmute(user(&t.user_id)?),
        Some(Pb::SetRole(g)) => {
            Act::SetRole { user: user(&g.user_id)?, role: role_number(g.role)? }
        }
        Some(Pb::Rename(r)) => Act::Rename(name(&r.name)?),
        Some(Pb::SetTopic(t)) => Act::SetTopic(topic(&t.topic)?),
        Some(Pb::SetPolicy(p)) => Act::SetPolicy(Policy { invite: role_number(p.invite)? }),
        Some(Pb::Transfer(t)) => Act::Transfer(user(&t.user_id)?),
        Some(Pb::Checkpoint(c)) => Act::Checkpoint(array(&c.state_hash, "state_hash")?),
        Some(Pb::Move(m)) => {
            Act::Move(RegisterId::from_bytes(array(&m.register_id, "register_id")?))
        }
        Some(Pb::Close(pb::Close {})) => Act::Close,
        Some(Pb::Retire(r)) => {
            let target = |t: pb::Target| Ok::<_, WireError>((user(&t.user_id)?, t.counter));
            Act::Retire(r.users.into_iter().map(target).collect::<Result<_, _>>()?)
        }
        Some(Pb::Succeed(s)) => {
            let head = |signed: Option<_>, field| {
                SignedHead::decode(signed_from(signed.ok_or(WireError::Missing(field))?)?)
            };
            Act::Succeed(Box::new(Absence {
                acted: head(s.acted, "acted")?,
                now: head(s.now, "now")?,
            }))
        }
        Some(Pb::SetVersion(v)) => Act::SetVersion(version(v.version)?),
        Some(Pb::Resume(r)) => Act::Resume {
            log: LogId::from_bytes(array(&r.log_id, "log_id")?),
            length: r.length,
            hash: LogHash::from_bytes(array(&r.chain_hash, "chain_hash")?),
        },
    })
}

fn act_into(act: &Act) -> Option<pb::room_event_body::Act> {
    use pb::room_event_body::Act as Pb;
    let target = |user: &UserId, counter| pb::Target { user_id: user.as_bytes().to_vec(), counter };
    let grant = |user: &UserId, role| pb::Grant {
        user_id: user.as_bytes().to_vec(),
        role: role_into(role),
    };
    Some(match act {
        Act::Unknown => return None,
        Act::Create(creation) => Pb::Create(pb::Create {
            register_id: creation.register.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            kind: match creation.kind {
                RoomKind::Private => pb::RoomKind::Private,
                RoomKind::Open => pb::RoomKind::Open,
            }
            .into(),
            name: creation.name.as_str().to_owned(),
            topic: creation.topic.as_str().to_owned(),
            nonce: creation.nonce.to_vec(),
            version: creation.version.get(),
            replaces: creation.replaces.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
        }),
        Act::Invite { user, role } => Pb::Invite(grant(user, *role)),
        Act::Join => Pb::Join(pb::Join {}),
        Act::Leave => Pb::Leave(pb::Leave {}),
        Act::Kick { user, counter } => Pb::Kick(target(user, *counter)),
        Act::Ban { user, counter } => Pb::Ban(target(user, *counter)),
        Act::Unban(user) => Pb::Unban(target(user, 0)),
        Act::Mute(user) => Pb::Mute(target(user, 0)),
        Act::Unmute(user) => Pb::Unmute(target(user, 0)),
        Act::SetRole { user, role } => Pb::SetRole(grant(user, *role)),
        Act::Rename(name) => Pb::Rename(pb::Rename { name: name.as_str().to_owned() }),
        Act::SetTopic(topic) => Pb::SetTopic(pb::SetTopic { topic: topic.as_str().to_owned() }),
        Act::SetPolicy(policy) => Pb::SetPolicy(pb::SetPolicy { invite: role_into(policy.invite) }),
        Act::Transfer(user) => Pb::Transfer(target(user, 0)),
        Act::Checkpoint(hash) => Pb::Checkpoint(pb::Checkpoint { state_hash: hash.to_vec() }),
        Act::Move(register) => Pb::Move(pb::Move { register_id: register.as_bytes().to_vec() }),
        Act::Close => Pb::Close(pb::Close {}),
        Act::Retire(users) => Pb::Retire(pb::Retire {
            users: users.iter().map(|(user, counter)| target(user, *counter)).collect(),
        }),
        Act::Succeed(absence) => Pb::Succeed(pb::Succeed {
            acted: Some(signed_into(absence.acted.signed())),
            now: Some(signed_into(absence.now.signed())),
        }),
        Act::SetVersion(version) => Pb::SetVersion(pb::SetVersion { version: version.get() }),
        Act::Resume { log, length, hash } => Pb::Resume(pb::Resume {
            log_id: log.as_bytes().to_vec(),
            length: *length,
            chain_hash: hash.as_bytes().to_vec(),
        }),
    })
}

/// Encodes an act alone, for one that waits to be signed.
pub(crate) fn encode_act(act: &Act) -> Vec<u8> {
    pb::RoomEventBody { act: act_into(act), ..pb::RoomEventBody::default() }.encode_to_vec()
}

/// Decodes what [`encode_act`] encoded.
pub(crate) fn decode_act(bytes: &[u8]) -> Result<Act, WireError> {
    act_from(pb::RoomEventBody::decode(bytes)?.act)
}

pub(crate) fn decode_statement(
    signed: &Signed,
) -> Result<(StatementFields, ActorFields), WireError> {
    at_most(signed.body.len(), MAX_EVENT, "statement")?;
    let body = pb::StatementBody::decode(signed.body.as_slice())?;
    let fields = StatementFields {
        room: RoomId::from_bytes(array(&body.room_id, "room_id")?),
        counter: body.counter,
        joined: if body.joined { Joined::Yes } else { Joined::No },
    };
    Ok((fields, device_from(body.actor.ok_or(WireError::Missing("actor"))?)?))
}

pub(crate) fn encode_statement(fields: &StatementFields, actor: &ActorFields) -> Vec<u8> {
    pb::StatementBody {
        room_id: fields.room.as_bytes().to_vec(),
        counter: fields.counter,
        joined: fields.joined == Joined::Yes,
        actor: device_into(actor),
    }
    .encode_to_vec()
}

/// Decodes an opened entry of a register.
///
/// # Errors
/// [`WireError`].
pub fn decode_register_entry(bytes: &[u8]) -> Result<Vec<Signed>, WireError> {
    let entry = pb::RegisterEntry::decode(bytes)?;
    at_most(entry.events.len(), MAX_EVENTS_IN_ENTRY, "events")?;
    entry.events.into_iter().map(signed_from).collect()
}

/// Encodes an entry of a register, before it is sealed.
#[must_use]
pub fn encode_register_entry(events: &[&Signed]) -> Vec<u8> {
    let events = events.iter().map(|event| signed_into(event)).collect();
    pb::RegisterEntry { events }.encode_to_vec()
}

pub(crate) fn decode_head(body: &[u8]) -> Result<LogHead, WireError> {
    let body = pb::RegisterHeadBody::decode(body)?;
    Ok(LogHead {
        log: LogId::from_bytes(array(&body.log_id, "log_id")?),
        epoch: body.relay_epoch,
        length: body.length,
        hash: LogHash::from_bytes(array(&body.chain_hash, "chain_hash")?),
        at: Timestamp(body.at),
    })
}

pub(crate) fn encode_head(head: &LogHead) -> Vec<u8> {
    pb::RegisterHeadBody {
        log_id: head.log.as_bytes().to_vec(),
        relay_epoch: head.epoch,
        length: head.length,
        chain_hash: head.hash.as_bytes().to_vec(),
        at: head.at.0,
    }
    .encode_to_vec()
}

fn branch_from(branch: Option<pb::LogBranch>) -> Result<Branch, WireError> {
    let branch = branch.ok_or(WireError::Missing("branch"))?;
    Ok(Branch {
        head: signed_from(branch.head.ok_or(WireError::Missing("head"))?)?,
        entries: branch.entries,
    })
}

/// Decodes a proof of a fork; nothing of it is checked.
///
/// # Errors
/// [`WireError`].
pub fn decode_fork_proof(bytes: &[u8]) -> Result<ForkProof, WireError> {
    let proof = pb::ForkProof::decode(bytes)?;
    Ok(ForkProof {
        relay: RelayKey::from_slice(&proof.relay_key).ok_or(WireError::BadLength("relay_key"))?,
        ours: branch_from(proof.ours)?,
        theirs: branch_from(proof.theirs)?,
    })
}

/// Encodes a proof of a fork, for a file.
#[must_use]
pub fn encode_fork_proof(proof: &ForkProof) -> Vec<u8> {
    let branch = |branch: &Branch| pb::LogBranch {
        head: Some(signed_into(&branch.head)),
        entries: branch.entries.clone(),
    };
    pb::ForkProof {
        relay_key: proof.relay.as_bytes().to_vec(),
        ours: Some(branch(&proof.ours)),
        theirs: Some(branch(&proof.theirs)),
    }
    .encode_to_vec()
}

pub(crate) fn decode_announcement(body: &[u8]) -> Result<Announcement, WireError> {
    let body = pb::AnnouncementBody::decode(body)?;
    at_most(body.text.len(), MAX_ANNOUNCEMENT, "text")?;
    let room = match body.room_id.as_slice() {
        [] => None,
        id => Some(RoomId::from_bytes(array(id, "room_id")?)),
    };
    let moved = match body.address {
        address if address.is_empty() => None,
        address => {
            split_address(&address).map_err(|_| WireError::BadValue("address"))?;
            if room.is_some() {
                return Err(WireError::BadValue("address"));
            }
            Some(RelayAddress { address, from: Timestamp(body.address_from), by: Source::Relay })
        }
    };
    Ok(Announcement { room, moved, seq: body.seq, text: body.text, at: Timestamp(body.at) })
}

pub(crate) fn encode_announcement(announcement: &Announcement) -> Vec<u8> {
    pb::AnnouncementBody {
        room_id: announcement.room.map_or_else(Vec::new, |r| r.as_bytes().to_vec()),
        seq: announcement.seq,
        text: announcement.text.clone(),
        at: announcement.at.0,
        address: announcement.moved.as_ref().map_or_else(String::new, |m| m.address.clone()),
        address_from: announcement.moved.as_ref().map_or(0, |moved| moved.from.0),
    }
    .encode_to_vec()
}
