//! The state of a room: what its events, in their order, come to.

use std::collections::{BTreeMap, BTreeSet};

use super::role::may_by;
use super::share::Shares;
use super::{
    Absence, Act, ActKind, Actor, Creation, Event, MAX_MEMBERS, OWNER_ABSENT, Refusal, Role,
    RoomError, RoomKind, RoomName, RoomVersion, Rule, Statements, Topic, rule_of,
};
use crate::crypto::kdf::{LABEL_ROOM_STATE, sha256};
use crate::ids::{LogId, RegisterId, RoomId, UserId};

/// A member of a private room; in open rooms somebody with a role above member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The rank.
    pub role: Role,
    /// Number of the event that made them a member.
    pub since: u64,
}

/// Policy of a room, set by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Lowest role that may invite.
    pub invite: Role,
}

/// The state after some event. Nothing here is secret; who reads the room is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomState {
    room: RoomId,
    kind: RoomKind,
    /// Whether the relay created it, and acts in it as owner.
    of_relay: bool,
    name: RoomName,
    topic: Topic,
    policy: Policy,
    members: BTreeMap<UserId, Member>,
    invited: BTreeMap<UserId, Role>,
    banned: BTreeSet<UserId>,
    muted: BTreeSet<UserId>,
    /// Open rooms: joins up to this counter do not count.
    barred: BTreeMap<UserId, u64>,
    register: Option<RegisterId>,
    /// Somebody with the keys is out, or below where he was: new ones are due.
    move_due: bool,
    seq: u64,
    shares: Shares,
    /// Number of the last event by whoever owned the room then.
    owner_acted: u64,
    closed: bool,
    version: RoomVersion,
}

impl RoomState {
    /// Begins with the event that creates a room.
    ///
    /// # Errors
    /// [`RoomError::Inconsistent`] for any other event, or a private room of the relay.
    pub fn create(event: &Event) -> Result<Self, RoomError> {
        let Act::Create(Creation { kind, name, topic, register, version, .. }) = event.act() else {
            return Err(RoomError::Inconsistent);
        };
        if register.is_some() != (*kind == RoomKind::Private) {
            return Err(RoomError::Inconsistent);
        }
        let mut members = BTreeMap::new();
        match (event.actor().user(), kind) {
            (Some(user), _) => {
                members.insert(user, Member { role: Role::Owner, since: 0 });
            }
            (None, RoomKind::Open) => {}
            (None, RoomKind::Private) => return Err(RoomError::Inconsistent),
        }
        Ok(Self {
            room: event.room(),
            kind: *kind,
            of_relay: event.actor() == &Actor::Relay,
            name: name.clone(),
            topic: topic.clone(),
            policy: Policy { invite: Role::Moderator },
            members,
            invited: BTreeMap::new(),
            banned: BTreeSet::new(),
            muted: BTreeSet::new(),
            barred: BTreeMap::new(),
            register: *register,
            move_due: false,
            seq: 0,
            shares: Shares::default(),
            owner_acted: 0,
            closed: false,
            version: *version,
        })
    }

    /// Returns the number of the last event by whoever owned the room then.
    #[must_use]
    pub const fn owner_acted(&self) -> u64 {
        self.owner_acted
    }

    /// Returns whether it is private or open.
    #[must_use]
    pub const fn kind(&self) -> RoomKind {
        self.kind
    }

    /// Tells whether the relay created the room.
    #[must_use]
    pub const fn is_of_relay(&self) -> bool {
        self.of_relay
    }

    /// Returns the name.
    #[must_use]
    pub const fn name(&self) -> &RoomName {
        &self.name
    }

    /// Returns the topic.
    #[must_use]
    pub const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns what the owner settled.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the members of a private room; of an open one those with a role above member.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<UserId, Member> {
        &self.members
    }

    /// Returns who is invited, and as what.
    #[must_use]
    pub const fn invited(&self) -> &BTreeMap<UserId, Role> {
        &self.invited
    }

    /// Tells whether a user is banned.
    #[must_use]
    pub fn is_banned(&self, user: &UserId) -> bool {
        self.banned.contains(user)
    }

    /// Returns who is banned.
    #[must_use]
    pub const fn banned(&self) -> &BTreeSet<UserId> {
        &self.banned
    }

    /// Tells whether a user's messages are refused.
    #[must_use]
    pub fn is_muted(&self, user: &UserId) -> bool {
        self.muted.contains(user)
    }

    /// Returns the register in which a private room goes on; `None` for an open one.
    #[must_use]
    pub const fn register(&self) -> Option<RegisterId> {
        self.register
    }

    /// Tells whether the room is to go on in another register.
    #[must_use]
    pub const fn is_move_due(&self) -> bool {
        self.move_due
    }

    /// Returns the number of the newest event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns how many events that count follow the newest checkpoint.
    #[must_use]
    pub const fn since_checkpoint(&self) -> u64 {
        self.shares.since_checkpoint()
    }

    /// Returns how many events count, of [`MAX_EVENTS`](super::MAX_EVENTS).
    #[must_use]
    pub const fn counted(&self) -> u64 {
        self.shares.counted()
    }

    /// Tells whether the room has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns which acts the room has.
    #[must_use]
    pub const fn version(&self) -> RoomVersion {
        self.version
    }

    /// Returns a user's rank as an actor. In open rooms everybody is a member here: who has joined
    /// stands beside the chain.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Option<Role> {
        match self.kind {
            RoomKind::Private => self.members.get(user).map(|m| m.role),
            RoomKind::Open if self.banned.contains(user) => None,
            RoomKind::Open => Some(self.members.get(user).map_or(Role::Member, |m| m.role)),
        }
    }

    /// Returns the rank of an actor: the relay is the owner where it created the room.
    #[must_use]
    pub fn rank(&self, actor: &Actor) -> Option<Role> {
        match actor {
            Actor::Relay => self.of_relay.then_some(Role::Owner),
            Actor::Device { cert, .. } => self.role(&cert.user_id()),
        }
    }

    /// Tells whether a user belongs to the room; `statements` counts in open rooms.
    #[must_use]
    pub fn is_member(&self, user: &UserId, statements: &Statements) -> bool {
        match self.kind {
            RoomKind::Private => self.members.contains_key(user),
            RoomKind::Open => {
                statements.join_of(user).is_some_and(|counter| self.admits(user, counter))
            }
        }
    }

    /// Tells whether a join with this counter counts.
    #[must_use]
    pub fn admits(&self, user: &UserId, counter: u64) -> bool {
        !self.banned.contains(user) && counter > self.barred(user)
    }

    /// Returns the counter up to which joins of a user do not count, 0 for none.
    #[must_use]
    pub fn barred(&self, user: &UserId) -> u64 {
        self.barred.get(user).copied().unwrap_or(0)
    }

    /// Returns everybody who belongs to the room, with the role, by user id.
    #[must_use]
    pub fn roster(&self, statements: &Statements) -> Vec<(UserId, Role)> {
        match self.kind {
            RoomKind::Private => self.members.iter().map(|(user, m)| (*user, m.role)).collect(),
            RoomKind::Open => {
                let joined = statements.joined().filter(|(user, n)| self.admits(user, *n));
                let role = |user| self.role(user).unwrap_or(Role::Member);
                joined.map(|(user, _)| (*user, role(user))).collect()
            }
        }
    }

    /// Returns the line of the table for an act, as this room's policy has it.
    #[must_use]
    pub const fn rule(&self, act: ActKind) -> Rule {
        let mut rule = rule_of(act);
        if matches!(act, ActKind::Invite) {
            rule.from = Some(self.policy.invite);
        }
        rule
    }

    /// Tells whether an actor has the rank for an act, whatever else speaks against it.
    #[must_use]
    pub fn may_ever(&self, actor: &Actor, act: &Act) -> bool {
        let needed = act.kind().map(|kind| self.rule(kind).from);
        match needed {
            Some(Some(needed)) => self.rank(actor) >= Some(needed),
            Some(None) => true,
            None => false,
        }
    }

    /// Tells whether an actor may do something now.
    ///
    /// # Errors
    /// [`RoomError`] says why not.
    pub fn check(&self, actor: &Actor, act: &Act) -> Result<(), RoomError> {
        let Some(kind) = act.kind() else {
            let is_unknown = *act == Act::Unknown;
            let error = if is_unknown { RoomError::UnknownAct } else { RoomError::Inconsistent };
            return Err(error);
        };
        if self.closed {
            return Err(RoomError::Closed);
        }
        let is_of_every_version =
            matches!(kind, ActKind::Leave | ActKind::Close | ActKind::SetVersion | ActKind::Move);
        if !self.version.is_known() && !is_of_every_version {
            return Err(RoomError::NewerVersion);
        }
        let is_of_private =
            matches!(kind, ActKind::Invite | ActKind::Join | ActKind::Leave | ActKind::Move);
        if is_of_private && self.kind == RoomKind::Open {
            return Err(RoomError::Inconsistent);
        }
        let target = act.target();
        if target.is_some() && target == actor.user() {
            return Err(Refusal::TargetTooHigh.into());
        }
        let target_rank = target.and_then(|user| match kind {
            ActKind::Kick => self.role(&user).or_else(|| self.invited.get(&user).copied()),
            _ => self.role(&user),
        });
        let rank = self.rank(actor);
        may_by(self.rule(kind), rank, target_rank, act.grant())?;
        self.check_details(actor, act)?;
        self.shares.check(actor.user(), rank.unwrap_or(Role::Member), kind)
    }

    fn check_details(&self, actor: &Actor, act: &Act) -> Result<(), RoomError> {
        let is_fit = match act {
            Act::Invite { user, .. } => {
                if self.members.len() + self.invited.len() >= MAX_MEMBERS {
                    return Err(RoomError::Full { max: MAX_MEMBERS });
                }
                !self.banned.contains(user) && !self.invited.contains_key(user)
            }
            Act::Join => {
                let user = actor.user();
                if !user.is_some_and(|user| self.invited.contains_key(&user)) {
                    return Err(Refusal::NotAMember.into());
                }
                true
            }
            // In an open room everybody can be kicked, but not for nothing.
            Act::Kick { user, counter } if self.kind == RoomKind::Open => {
                self.members.contains_key(user) || *counter > self.barred(user)
            }
            Act::Ban { user, .. } => !self.banned.contains(user),
            Act::Unban(user) => self.banned.contains(user),
            Act::Mute(user) => !self.muted.contains(user),
            Act::Unmute(user) => self.muted.contains(user),
            Act::SetRole { user, role } => self.role(user) != Some(*role),
            Act::SetVersion(version) => *version > self.version,
            // The relay stays the owner of what it created.
            Act::Transfer(_) => !self.of_relay,
            Act::Retire(users) => {
                if *actor != Actor::Relay {
                    return Err(Refusal::NotAMember.into());
                }
                !users.is_empty() && users.is_sorted_by(|a, b| a.0 < b.0)
            }
            Act::Succeed(absence) => {
                self.check_succession(actor, absence)?;
                true
            }
            Act::Checkpoint(hash) => {
                if *hash != self.hash() {
                    return Err(RoomError::BadCheckpoint);
                }
                true
            }
            _ => true,
        };
        if is_fit { Ok(()) } else { Err(RoomError::WrongTarget) }
    }

    /// Tells whether somebody may take over an open room: as the relay's heads have it 180 days after the
    /// owner's last act the first of those with a role, by rank and then by the time they have it, and 180
    /// days later the next. That the heads are of this chain is for the chain to say.
    fn check_succession(&self, actor: &Actor, absence: &Absence) -> Result<(), RoomError> {
        if self.kind == RoomKind::Private || self.of_relay {
            return Err(RoomError::Inconsistent);
        }
        let heirs = self.members.iter().filter(|(_, member)| member.role < Role::Owner);
        let order = |(user, m): (&UserId, &Member)| (std::cmp::Reverse(m.role), m.since, *user);
        let mut heirs: Vec<_> = heirs.map(order).collect();
        heirs.sort_unstable();
        let place = heirs.iter().position(|(.., user)| Some(*user) == actor.user());
        // Who is next waits as long again: the first may be gone as well.
        let turns = 1 + place.ok_or(RoomError::OwnerPresent)? as u64;
        let (acted, now) = (absence.acted.head(), absence.now.head());
        let log = LogId::from(self.room);
        let covers = acted.log == log && now.log == log && acted.length > self.owner_acted;
        if covers && now.at.since(acted.at) >= OWNER_ABSENT.saturating_mul(turns) {
            Ok(())
        } else {
            Err(RoomError::OwnerPresent)
        }
    }

    /// Takes the next event in.
    ///
    /// # Errors
    /// [`RoomError`]; the state is unchanged then.
    pub fn apply(&mut self, event: &Event) -> Result<(), RoomError> {
        let result = self.check(event.actor(), event.act());
        if self.version.is_known() || result == Err(RoomError::Closed) {
            result?;
        }
        self.seq = event.seq();
        // In a version that we do not know, only a newer program can tell whether an act counts: the chain
        // goes on, so that one may leave, and is folded again from its logs by that program.
        if result.is_ok() {
            self.take_place(event);
            self.change(event);
        }
        Ok(())
    }

    /// As [`Self::check`], for what is to be ordered now: nobody takes a room to a version that they do
    /// not know themselves, nor does anything but leave in one.
    ///
    /// # Errors
    /// [`RoomError`] says why not.
    pub fn check_new(&self, actor: &Actor, act: &Act) -> Result<(), RoomError> {
        match act {
            Act::SetVersion(version) if !version.is_known() => Err(RoomError::NewerVersion),
            act if !self.version.is_known() && *act != Act::Leave => Err(RoomError::NewerVersion),
            _ => self.check(actor, act),
        }
    }

    fn take_place(&mut self, event: &Event) {
        let Some(kind) = event.act().kind() else { return };
        let rank = self.rank(event.actor()).unwrap_or(Role::Member);
        if rank == Role::Owner || kind == ActKind::Succeed {
            self.owner_acted = event.seq();
        }
        let mut shares = std::mem::take(&mut self.shares);
        shares.take(event.actor().user(), rank, kind, |user| self.role(user));
        self.shares = shares;
    }

    fn change(&mut self, event: &Event) {
        let actor = event.actor().user();
        match event.act() {
            Act::Create(_) | Act::Resume { .. } | Act::Checkpoint(_) | Act::Unknown => {}
            Act::Invite { user, role } => {
                self.invited.insert(*user, *role);
            }
            Act::Join => {
                if let Some(user) = actor
                    && let Some(role) = self.invited.remove(&user)
                {
                    self.members.insert(user, Member { role, since: event.seq() });
                }
            }
            Act::Leave => {
                if let Some(user) = actor {
                    self.remove(&user);
                    self.succeed();
                }
            }
            Act::Kick { user, counter } => self.bar(user, *counter),
            Act::Ban { user, counter } => {
                self.bar(user, *counter);
                self.banned.insert(*user);
            }
            Act::Unban(user) => {
                self.banned.remove(user);
            }
            Act::Mute(user) => {
                self.muted.insert(*user);
            }
            Act::Unmute(user) => {
                self.muted.remove(user);
            }
            Act::SetRole { user, role } => self.set_role(user, *role, event.seq()),
            Act::Rename(name) => self.name = name.clone(),
            Act::SetTopic(topic) => self.topic = topic.clone(),
            Act::SetPolicy(policy) => self.policy = *policy,
            // Who comes back has the role of before.
            Act::Retire(users) => {
                for (user, counter) in users {
                    let barred = self.barred.entry(*user).or_insert(0);
                    *barred = (*barred).max(*counter);
                }
            }
            Act::Succeed(_) => {
                let owners = self.members.iter().filter(|(_, m)| m.role == Role::Owner);
                let former: Vec<UserId> = owners.map(|(user, _)| *user).collect();
                former.iter().for_each(|user| self.set_role(user, Role::Admin, event.seq()));
                if let Some(user) = actor {
                    self.set_role(&user, Role::Owner, event.seq());
                }
            }
            Act::Transfer(user) => {
                let was_due = self.move_due;
                self.set_role(user, Role::Owner, event.seq());
                if let Some(former) = actor {
                    self.set_role(&former, Role::Admin, event.seq());
                }
                // Whoever hands the room over of his own will is not locked out of anything.
                self.move_due = was_due;
            }
            Act::Move(register) => {
                self.register = Some(*register);
                self.move_due = false;
            }
            Act::Close => self.closed = true,
            Act::SetVersion(version) => self.version = *version,
        }
    }

    fn remove(&mut self, user: &UserId) {
        let was_inside = self.members.remove(user).is_some();
        let was_invited = self.invited.remove(user).is_some();
        self.move_due |= (was_inside || was_invited) && self.kind == RoomKind::Private;
    }

    fn bar(&mut self, user: &UserId, counter: u64) {
        self.remove(user);
        if self.kind == RoomKind::Open {
            let barred = self.barred.entry(*user).or_insert(0);
            *barred = counter.max(*barred);
        }
    }

    fn set_role(&mut self, user: &UserId, role: Role, seq: u64) {
        match self.kind {
            RoomKind::Private => {
                if let Some(member) = self.members.get_mut(user) {
                    self.move_due |= role < member.role;
                    member.role = role;
                }
            }
            RoomKind::Open if role == Role::Member => {
                self.members.remove(user);
            }
            RoomKind::Open => {
                self.members.insert(*user, Member { role, since: seq });
            }
        }
    }

    /// When the owner has gone, the one of highest rank who came first takes over; without anybody the
    /// room ends.
    fn succeed(&mut self) {
        if self.members.values().any(|m| m.role == Role::Owner) {
            return;
        }
        let first =
            |(user, m): &(&UserId, &mut Member)| (std::cmp::Reverse(m.role), m.since, **user);
        match self.members.iter_mut().min_by_key(first) {
            Some((_, member)) => member.role = Role::Owner,
            None => self.closed = true,
        }
    }

    /// Returns the hash that a checkpoint of this state names (PROTOCOL.md section 15).
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut out = LABEL_ROOM_STATE.to_vec();
        out.push(match self.kind {
            RoomKind::Private => 1,
            RoomKind::Open => 2,
        });
        out.extend_from_slice(&self.version.get().to_be_bytes());
        text(&mut out, self.name.as_str());
        text(&mut out, self.topic.as_str());
        out.push(number(self.policy.invite));
        out.push(u8::from(self.move_due));
        out.push(u8::from(self.register.is_some()));
        out.extend(self.register.iter().flat_map(|r| *r.as_bytes()));
        count(&mut out, self.members.len());
        for (user, member) in &self.members {
            out.extend_from_slice(user.as_bytes());
            out.push(number(member.role));
            out.extend_from_slice(&member.since.to_be_bytes());
        }
        count(&mut out, self.invited.len());
        for (user, role) in &self.invited {
            out.extend_from_slice(user.as_bytes());
            out.push(number(*role));
        }
        for users in [&self.banned, &self.muted] {
            count(&mut out, users.len());
            out.extend(users.iter().flat_map(|user| *user.as_bytes()));
        }
        count(&mut out, self.barred.len());
        for (user, counter) in &self.barred {
            out.extend_from_slice(user.as_bytes());
            out.extend_from_slice(&counter.to_be_bytes());
        }
        sha256(&[&out])
    }
}

const fn number(role: Role) -> u8 {
    match role {
        Role::Member => 1,
        Role::Moderator => 2,
        Role::Admin => 3,
        Role::Owner => 4,
    }
}

fn count(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}
