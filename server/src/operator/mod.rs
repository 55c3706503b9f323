//! Commands of the operator to a running relay: at its terminal, through a socket in its data folder
//! that only its own user can open, or as a user whom the operator made an administrator.

mod command;
mod usage;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chatcore::addresses::{RelayAddress, Source};
use chatcore::ids::{DAY, HOUR, InviteToken, RoomId, Timestamp, UserId};
use chatcore::invite::InviteLink;
use chatcore::keys::{Nickname, Signed, UserRecord};
use chatcore::membership::{Act, Announcement, RoomName};
use chatcore::wire::limits::MAX_ANNOUNCEMENT;
use chatcore::wire::relay::{AnswerForm, CloseReason, ErrorCode, More, RoomSummary};
use serde_json::{Value, json};

pub use command::{Command, CommandError, InviteArgs, NewAddress, Whom};

use crate::backup;
use crate::config::Config;
use crate::error::RelayError;
use crate::health;
use crate::open_files;
use crate::rooms;
use crate::server::{Shared, store_error};
use crate::store::{AuditLine, Invite, StoreError, StoredAnnouncement, Tells};

/// Most users listed.
const MAX_LISTED: usize = 2_000;

/// The user of a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever runs the relay.
    Operator,
    /// A user whom the operator made an administrator.
    Admin(UserId),
}

/// Result of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// For a person.
    pub text: String,
    /// The same for a program.
    pub json: Value,
}

impl Said {
    fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }

    pub(crate) fn stopping() -> Self {
        Self::new("stopping", json!({"stopping": true}))
    }

    pub(crate) fn form(self, form: AnswerForm) -> String {
        match form {
            AnswerForm::Words => self.text,
            AnswerForm::Json => self.json.to_string(),
        }
    }
}

/// The bounds of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once, as far as the system allows them.
    pub connections: u32,
    /// Files and sockets that the process may have open; `None` where nobody counts.
    pub open_files: Option<u64>,
    /// Bytes of files of one user.
    pub user_files: u64,
    /// Bytes that wait for one device.
    pub mailbox: u64,
}

/// Carries out the operator's commands; outlives the relay without keeping it.
#[derive(Debug, Clone)]
pub struct Operator {
    shared: Weak<Shared>,
}

impl Operator {
    pub(crate) const fn new(shared: Weak<Shared>) -> Self {
        Self { shared }
    }

    /// Carries out a command; returns what to print. Blocks.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn run(&self, command: &Command) -> Result<Said, RelayError> {
        match self.shared.upgrade() {
            Some(shared) => Self::run_in(&shared, command, By::Operator),
            None if *command == Command::Quit => Ok(Said::stopping()),
            None => Err(RelayError::Operator { code: 3, said: "the relay has stopped".to_owned() }),
        }
    }

    /// Returns once the relay has looked at what its connections share, and into its store: one that is stuck does not.
    /// Blocks.
    pub fn ping(&self) {
        if let Some(shared) = self.shared.upgrade() {
            let _looked_at = (shared.registry.count(), shared.mailboxes.totals());
            // While stores are closed or opened for want of space, which may take minutes, nobody is stuck.
            if !shared.health.is_changing() {
                let _read = shared.stores.retention.last_time();
            }
        }
    }

    /// Streams a backup as a tar archive. Blocks.
    ///
    /// # Errors
    /// [`RelayError`]; what was written then is of no use.
    pub fn stream_backup(&self, out: &mut impl std::io::Write) -> Result<(), RelayError> {
        let stopped = || RelayError::Operator { code: 3, said: "the relay has stopped".to_owned() };
        let shared = self.shared.upgrade().ok_or_else(stopped)?;
        backup::stream_of(shared.folder(), &shared.stores, out)?;
        tracing::info!("a backup was streamed");
        audit(&shared, &Command::Backup(PathBuf::new()), By::Operator)
    }

    /// Tells whether the relay does its work, in a line, or why not; looks no more often than so. Blocks.
    ///
    /// # Errors
    /// The line that says why not.
    pub fn health(&self, often: Duration) -> Result<String, String> {
        match self.shared.upgrade() {
            Some(shared) => shared.last_look.check(&shared, often).map_err(|why| why.to_string()),
            None => Err("the relay has stopped".to_owned()),
        }
    }

    /// Returns what the relay counts, as Prometheus reads it; `None` once it has stopped. Blocks.
    #[must_use]
    pub fn metrics(&self) -> Option<String> {
        self.shared.upgrade().map(|shared| shared.metrics.text())
    }

    /// Returns the standing invite link, as people are given it now; `None` before the relay listens, and once it has
    /// stopped.
    #[must_use]
    pub fn link(&self) -> Option<InviteLink> {
        let shared = self.shared.upgrade()?;
        shared.link(Some(shared.identity.token()))
    }

    /// Has other settings hold from now on, as far as a running relay takes them over: who may register, limits, the
    /// address in links.
    pub fn reconfigure(&self, config: Config) {
        if let Some(shared) = self.shared.upgrade() {
            shared.reconfigure(config);
        }
    }

    /// Returns what the relay is bound by; `None` once it has stopped.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        let limits = self.shared.upgrade()?.limits();
        Some(Bounds {
            connections: limits.connections,
            open_files: open_files::limit(),
            user_files: limits.stored_per_user,
            mailbox: limits.mailbox_bytes,
        })
    }

    /// Carries out a command of the operator or of an administrator.
    ///
    /// # Errors
    /// [`RelayError`].
    pub(crate) fn run_in(
        shared: &Arc<Shared>,
        command: &Command,
        by: By,
    ) -> Result<Said, RelayError> {
        if matches!(by, By::Admin(_)) && !command.is_for_admins() {
            return Err(refused("only whoever runs the relay may do that"));
        }
        let said = Task { shared, by }.run(command)?;
        audit(shared, command, by)?;
        Ok(said)
    }
}

/// Notes what was done, if it is of that kind.
fn audit(shared: &Shared, command: &Command, by: By) -> Result<(), RelayError> {
    let Some(act) = command.audited() else { return Ok(()) };
    let by = match by {
        By::Operator => None,
        By::Admin(user) => Some(user),
    };
    let line = AuditLine { at: shared.clock.now(), by, act };
    let audited = shared.stores.privileges.audit(&line);
    audited.map_err(|source| store_error(shared.folder(), source))
}

/// One command in one relay.
struct Task<'a> {
    shared: &'a Arc<Shared>,
    by: By,
}

impl Task<'_> {
    fn run(&self, command: &Command) -> Result<Said, RelayError> {
        match command {
            Command::Help(about) => help(about.as_deref(), self.by),
            Command::Users => self.users(),
            Command::Rooms => Ok(self.rooms()),
            Command::Room(name) => self.room(name),
            Command::MakeRoom(name) => self.make_room(name),
            Command::CloseRoom(name) => self.close_room(name),
            Command::Announce(text) => self.announce(text),
            Command::Address(Some(new)) => self.move_to(new),
            Command::Address(None) => self.moved(),
            Command::Kick(whom) => self.kick(whom),
            Command::Ban(whom) => self.ban(whom),
            Command::Unban(whom) => self.unban(whom),
            Command::Silence(whom) => self.in_room(whom, |user, _| Act::Mute(user)),
            Command::Unsilence(whom) => self.in_room(whom, |user, _| Act::Unmute(user)),
            Command::Lobby(name) => self.name_lobby(name),
            Command::Grant(user) => self.grant(user, Role::Admin),
            Command::Revoke(user) => self.grant(user, Role::User),
            Command::Release(nick) => self.release(nick),
            Command::Invite(args) => self.invite(*args),
            Command::Audit(max) => self.audit(*max),
            Command::Stats => self.stats(),
            Command::Health => self.health(),
            Command::Usage(Some(user)) => self.usage_of(user),
            Command::Usage(None) => self.usage(),
            Command::Purge(user) => self.purge(user),
            Command::Backup(to) if to.as_os_str() == "-" => {
                Err(usage("a stream goes to standard output: chat-server backup - > FILE"))
            }
            Command::Backup(to) => {
                backup::backup_of(self.shared.folder(), &self.shared.stores, to)?;
                tracing::info!("a backup was made");
                let shown = to.display().to_string();
                Ok(Said::new(format!("backed up to {shown}"), json!({"backup": shown})))
            }
            Command::Quit => {
                self.shared.quit.notify_one();
                Ok(Said::stopping())
            }
        }
    }

    fn stored<T>(&self, result: Result<T, StoreError>) -> Result<T, RelayError> {
        result.map_err(|source| store_error(self.shared.folder(), source))
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Finds a user by nickname, or by the whole id.
    fn find(&self, name: &str) -> Result<UserId, RelayError> {
        let name = bare(name);
        let owner = match Nickname::from_input(name) {
            Ok(nickname) => self.stored(self.shared.stores.directory.owner(&nickname.fold()))?,
            Err(_) => None,
        };
        // By id also those whose name was released.
        let user = match (owner, UserId::from_hex(name)) {
            (Some(user), _) => Some(user),
            (None, Some(user)) => {
                let version = self.stored(self.shared.stores.directory.version(&user))?;
                version.map(|_| user)
            }
            (None, None) => None,
        };
        user.ok_or_else(|| not_found(format!("nobody here is called {name}; !users lists them")))
    }

    /// An administrator has no power over another one.
    fn find_below(&self, name: &str) -> Result<UserId, RelayError> {
        let user = self.find(name)?;
        let is_admin = self.shared.rights.of(&user).is_admin;
        if is_admin && self.by != By::Operator {
            return Err(refused("administrators have no power over each other"));
        }
        Ok(user)
    }

    fn nickname(&self, user: &UserId) -> Result<String, RelayError> {
        let newest = self.stored(self.shared.stores.directory.newest(user))?;
        let record = newest.and_then(|signed| UserRecord::verify(signed).ok());
        Ok(record.map_or_else(|| user.fmt_short(), |r| r.nickname().as_str().to_owned()))
    }

    fn cut(&self, user: &UserId) -> usize {
        let connections = self.shared.registry.connections(user);
        connections.iter().for_each(|connection| connection.close(CloseReason::Kicked));
        connections.len()
    }

    fn users(&self) -> Result<Said, RelayError> {
        let names = self.stored(self.shared.stores.directory.names(MAX_LISTED + 1))?;
        let is_cut = names.len() > MAX_LISTED;
        let (mut lines, mut list) = (Vec::new(), Vec::new());
        for (_, user) in names.iter().take(MAX_LISTED) {
            let nickname = self.nickname(user)?;
            let (rights, online) =
                (self.shared.rights.of(user), !self.shared.registry.connections(user).is_empty());
            let mut marks = Vec::new();
            marks.extend(online.then_some("connected"));
            marks.extend(rights.is_admin.then_some("admin"));
            marks.extend(rights.is_banned.then_some("banned"));
            lines.push(format!("{nickname}  {}  {}", user.fmt_short(), marks.join(" ")));
            list.push(json!({
                "nickname": nickname, "user_id": user.to_hex(), "connected": online,
                "admin": rights.is_admin, "banned": rights.is_banned,
            }));
        }
        if is_cut {
            lines.push(format!("only the first {MAX_LISTED} are shown"));
        }
        let text = if lines.is_empty() { "nobody yet".to_owned() } else { lines.join("\n") };
        Ok(Said::new(text, json!({"users": list})))
    }

    fn here(&self, user: &UserId) -> bool {
        self.shared.registry.is_here(user, None)
    }

    fn rooms(&self) -> Said {
        let (mut lines, mut list) = (Vec::new(), Vec::new());
        let (mut rooms, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = self.shared.rooms.list(after, |user| self.here(user));
            rooms.extend(page);
            after = rooms.last().map(|room: &RoomSummary| room.room);
            if more == More::No {
                break;
            }
        }
        for room in rooms {
            let (name, members, online) = (room.name.as_str(), room.members, room.online);
            lines.push(counted(name, members as usize, online as usize));
            list.push(json!({
                "room": name, "room_id": room.room.to_hex(), "topic": room.topic.as_str(),
                "members": members, "online": online,
            }));
        }
        let text = if lines.is_empty() { "no open rooms".to_owned() } else { lines.join("\n") };
        Said::new(text, json!({"rooms": list}))
    }

    fn find_room(&self, name: &str) -> Result<RoomId, RelayError> {
        let found = self.shared.rooms.find(name);
        found.ok_or_else(|| not_found(format!("no open room is called {name}; !rooms lists them")))
    }

    fn room(&self, name: &str) -> Result<Said, RelayError> {
        let id = self.find_room(name)?;
        let detail = self.shared.rooms.detail(&id);
        let detail = detail.ok_or_else(|| not_found("the room has gone"))?;
        let online = detail.members.iter().filter(|(user, _)| self.here(user)).count();
        let mut lines = vec![counted(&detail.name, detail.members.len(), online)];
        let mut list = Vec::new();
        for (user, role) in &detail.members {
            let (nickname, here) = (self.nickname(user)?, self.here(user));
            let mark = if here { "  online" } else { "" };
            lines.push(format!("  {nickname}  {}{mark}", role.as_str()));
            list.push(json!({
                "nickname": nickname, "user_id": user.to_hex(), "role": role.as_str(),
                "online": here,
            }));
        }
        let json = json!({
            "room": detail.name, "room_id": detail.room.to_hex(), "topic": detail.topic,
            "of_relay": detail.is_of_relay, "lobby": detail.is_lobby, "members": list,
        });
        Ok(Said::new(lines.join("\n"), json))
    }

    fn make_room(&self, name: &str) -> Result<Said, RelayError> {
        let checked = RoomName::from_input(name).map_err(|error| usage(error.to_string()))?;
        let now = self.now();
        let event = rooms::create(&self.shared.identity.keys, checked.as_str(), now);
        let event = event.ok_or_else(|| usage("a room's name can't be like that"))?;
        let id = event.room();
        let store = &*self.shared.stores.open_rooms;
        self.shared.rooms.create(store, event, usize::MAX).map_err(room_error)?;
        let text = format!("#{checked} is open; users find it with: chat room list");
        Ok(Said::new(text, json!({"room": checked.as_str(), "room_id": id.to_hex()})))
    }

    fn close_room(&self, name: &str) -> Result<Said, RelayError> {
        let id = self.find_room(name)?;
        let detail = self.shared.rooms.detail(&id);
        if detail.as_ref().is_some_and(|detail| detail.is_lobby) {
            return Err(refused("newcomers come into it: name another one first, !lobby ROOM"));
        }
        let told = if detail.is_some_and(|detail| detail.is_of_relay) {
            self.act_in(&id, Act::Close)?
        } else {
            // Not ours to sign: it is not kept here any more.
            let told =
                self.stored(self.shared.rooms.remove(&*self.shared.stores.open_rooms, &id))?;
            self.shared.registry.tell(id, &told);
            told.len()
        };
        let name = name.strip_prefix('#').unwrap_or(name);
        let text = format!("#{name} is closed; {told} members are told");
        Ok(Said::new(text, json!({"room_id": id.to_hex(), "told": told})))
    }

    /// Acts as the relay in a room that it created; returns how many are told.
    fn act_in(&self, id: &RoomId, act: Act) -> Result<usize, RelayError> {
        let (recovering, now) = (self.shared.recovering(), self.now());
        if self.shared.rooms.recovering(id, recovering, now).is_some() {
            // Signed now it would contradict what was lost and may come back.
            return Err(room_error(ErrorCode::Recovering));
        }
        let (store, keys) = (&*self.shared.stores.open_rooms, &self.shared.identity.keys);
        let told = self.shared.rooms.act(store, keys, id, act, now).map_err(room_error)?;
        self.shared.registry.tell(*id, &told);
        Ok(told.len())
    }

    /// Does something to a user in a room of the relay.
    fn in_room(
        &self,
        whom: &Whom,
        act: impl FnOnce(UserId, u64) -> Act,
    ) -> Result<Said, RelayError> {
        let user = self.find_below(&whom.user)?;
        let name = whom.room.as_deref().unwrap_or_default();
        let id = self.find_room(name)?;
        if !self.shared.rooms.detail(&id).is_some_and(|detail| detail.is_of_relay) {
            return Err(refused("its owner keeps the order there; !closeroom ends it"));
        }
        let counter = self.shared.rooms.counter(&id, &user);
        let told = self.act_in(&id, act(user, counter))?;
        let json = json!({"user_id": user.to_hex(), "room_id": id.to_hex(), "told": told});
        Ok(Said::new(format!("done; {told} members are told"), json))
    }

    fn name_lobby(&self, name: &str) -> Result<Said, RelayError> {
        let id = self.find_room(name)?;
        let store = &*self.shared.stores.open_rooms;
        if !self.stored(self.shared.rooms.name_lobby(store, &id))? {
            return Err(refused("only a room of this relay can be the lobby: !makeroom NAME"));
        }
        let name = name.strip_prefix('#').unwrap_or(name);
        let text = format!("newcomers come into #{name} from now on");
        Ok(Said::new(text, json!({"room_id": id.to_hex()})))
    }

    /// Takes `#ROOM` off the beginning of a text: the longest name of a room that fits.
    fn scope<'t>(&self, text: &'t str) -> Result<(Option<RoomId>, &'t str), RelayError> {
        let Some(rest) = text.strip_prefix('#') else { return Ok((None, text)) };
        let mut ends: Vec<usize> = rest.match_indices(' ').map(|(at, _)| at).collect();
        ends.reverse();
        for end in ends {
            let (name, text) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if let Some(id) = self.shared.rooms.find(name) {
                return Ok((Some(id), text.trim()));
            }
        }
        Err(not_found("no open room is called like that; !rooms lists them"))
    }

    fn announce(&self, text: &str) -> Result<Said, RelayError> {
        let (room, text) = self.scope(text)?;
        if text.is_empty() || text.len() > MAX_ANNOUNCEMENT {
            return Err(usage(format!("an announcement has 1 to {MAX_ANNOUNCEMENT} bytes")));
        }
        let (seq, signed) = self.say(room, text, None)?;
        let told = match room {
            None => {
                self.shared.registry.announce(&signed);
                self.shared.registry.count()
            }
            Some(id) => {
                let detail = self.shared.rooms.detail(&id);
                let members = detail.map(|d| d.members).unwrap_or_default();
                let connections: Vec<_> = members
                    .iter()
                    .flat_map(|(user, _)| self.shared.registry.connections(user))
                    .collect();
                connections.iter().for_each(|c| c.push_announcement(signed.clone()));
                connections.len()
            }
        };
        let to = room.and_then(|id| self.shared.rooms.detail(&id));
        let to = to.map(|room| format!(" in #{}", room.name)).unwrap_or_default();
        let text = format!("announced{to}; {told} connected now, the others see it when they come");
        Ok(Said::new(text, json!({"seq": seq, "told": told})))
    }

    /// Signs and stores an announcement.
    fn say(
        &self,
        room: Option<RoomId>,
        text: &str,
        moved: Option<RelayAddress>,
    ) -> Result<(u64, Signed), RelayError> {
        let at = self.shared.clock.latest();
        let store = &self.shared.stores.announcements;
        // One at a time: numbers ascend.
        let _turn = crate::lock::lock(&self.shared.announcing);
        let seq = self.stored(store.newest())?.saturating_add(1).max(at.0);
        let tells = if moved.is_some() { Tells::Address } else { Tells::Text };
        let announcement = Announcement { room, seq, text: text.to_owned(), at, moved };
        let signed = announcement.sign(&self.shared.identity.keys);
        let stored = StoredAnnouncement { seq, room, at, signed: signed.clone() };
        self.stored(store.append(&stored, tells))?;
        Ok((seq, signed))
    }

    /// Tells everybody where the relay will be.
    fn move_to(&self, new: &NewAddress) -> Result<Said, RelayError> {
        let address = new.address.clone();
        let from = match new.hours {
            0 => Timestamp(0),
            hours => self.now().plus(u64::from(hours) * HOUR),
        };
        let text = match new.hours {
            0 => format!("This relay moves to {address}."),
            _ => format!("This relay moves to {address}, on {}.", utc(from)),
        };
        let text = text
            + " Your program goes there by itself, and comes here as long as nobody answers there.";
        let moved = RelayAddress { address: address.clone(), from, by: Source::Relay };
        let (seq, signed) = self.say(None, &text, Some(moved))?;
        self.shared.registry.announce(&signed);
        let told = self.shared.registry.count();
        let text = format!("told; {told} connected now, the others hear of it when they come");
        Ok(Said::new(text, json!({"address": address, "from": from.0, "seq": seq, "told": told})))
    }

    /// Says what was told last of where the relay will be.
    fn moved(&self) -> Result<Said, RelayError> {
        let store = &self.shared.stores.announcements;
        let newest = self.stored(store.newest_move())?;
        let stored = match newest.checked_sub(1) {
            Some(before) => self.stored(store.after(before, 1))?.pop(),
            None => None,
        };
        let key = self.shared.identity.keys.public();
        let announced = stored.and_then(|stored| Announcement::verify(&stored.signed, &key).ok());
        let Some(moved) = announced.and_then(|announced| announced.moved) else {
            return Ok(Said::new("nobody was told of another address", json!({"address": null})));
        };
        let from = if moved.from == Timestamp(0) {
            String::new()
        } else {
            format!(", on {}", utc(moved.from))
        };
        let json = json!({"address": moved.address, "from": moved.from.0});
        Ok(Said::new(format!("everybody is told to go to {}{from}", moved.address), json))
    }

    fn kick(&self, whom: &Whom) -> Result<Said, RelayError> {
        if whom.room.is_some() {
            return self.in_room(whom, |user, counter| Act::Kick { user, counter });
        }
        let user = self.find_below(&whom.user)?;
        let cut = self.cut(&user);
        let text = if cut == 0 { "not connected" } else { "cut" };
        Ok(Said::new(text, json!({"user_id": user.to_hex(), "cut": cut})))
    }

    fn ban(&self, whom: &Whom) -> Result<Said, RelayError> {
        if whom.room.is_some() {
            return self.in_room(whom, |user, counter| Act::Ban { user, counter });
        }
        let user = self.find_below(&whom.user)?;
        let store = &*self.shared.stores.privileges;
        let banned = self.shared.rights.set(store, &user, |rights| {
            rights.is_banned = true;
            rights.is_admin = false;
        });
        self.stored(banned)?;
        let cut = self.cut(&user);
        // Who can't come any more holds no place in the relay's own rooms.
        let mut out_of = 0;
        for id in self.shared.rooms.of_relay_with(&user) {
            let counter = self.shared.rooms.counter(&id, &user);
            match self.act_in(&id, Act::Kick { user, counter }) {
                Ok(_) => out_of += 1,
                Err(error) => tracing::warn!(%error, "a banned user stays in a room"),
            }
        }
        let text = "banned; the name stays theirs, !unban lets them in again";
        Ok(Said::new(text, json!({"user_id": user.to_hex(), "cut": cut, "out_of": out_of})))
    }

    fn unban(&self, whom: &Whom) -> Result<Said, RelayError> {
        if whom.room.is_some() {
            return self.in_room(whom, |user, _| Act::Unban(user));
        }
        let user = self.find(&whom.user)?;
        let store = &*self.shared.stores.privileges;
        self.stored(self.shared.rights.set(store, &user, |rights| rights.is_banned = false))?;
        Ok(Said::new("not banned any more", json!({"user_id": user.to_hex()})))
    }

    fn grant(&self, name: &str, role: Role) -> Result<Said, RelayError> {
        let user = self.find(name)?;
        let store = &*self.shared.stores.privileges;
        let is_admin = role == Role::Admin;
        self.stored(self.shared.rights.set(store, &user, |rights| rights.is_admin = is_admin))?;
        let text = if is_admin {
            "an administrator now; they use: chat admin COMMAND"
        } else {
            "an ordinary user again"
        };
        Ok(Said::new(text, json!({"user_id": user.to_hex(), "admin": is_admin})))
    }

    fn release(&self, nick: &str) -> Result<Said, RelayError> {
        let user = self.find_below(nick)?;
        let nickname =
            Nickname::from_input(bare(nick)).map_err(|error| usage(error.to_string()))?;
        self.stored(self.shared.stores.directory.release(&nickname.fold()))?;
        let text = "free; whoever registers it next is somebody else, and contacts are warned";
        Ok(Said::new(text, json!({"nickname": nickname.as_str(), "was": user.to_hex()})))
    }

    fn invite(&self, args: InviteArgs) -> Result<Said, RelayError> {
        let token = if args.reset {
            self.shared.identity.reset_token(self.shared.folder_on_disk())?
        } else if args.uses.is_some() || args.days.is_some() {
            let token = InviteToken::generate(&mut rand::rng());
            let now = self.now();
            let until = args.days.map(|days| now.plus(u64::from(days) * DAY));
            let invite = Invite { token: token.clone(), uses: args.uses, until };
            let rights = &self.shared.rights;
            let added = rights.add_invite(&*self.shared.stores.privileges, invite, now);
            if !self.stored(added)? {
                return Err(refused("too many invitations are open"));
            }
            token
        } else {
            self.shared.identity.token()
        };
        let link = self.shared.link(Some(token));
        let link = link.ok_or_else(|| refused("the relay does not listen yet"))?.to_string();
        Ok(Said::new(link.clone(), json!({"link": link})))
    }

    fn audit(&self, max: usize) -> Result<Said, RelayError> {
        let lines = self.stored(self.shared.stores.privileges.audit_lines(max.min(MAX_LISTED)))?;
        let (mut texts, mut list) = (Vec::new(), Vec::new());
        for line in lines {
            let by = match &line.by {
                None => "operator".to_owned(),
                Some(user) => self.nickname(user)?,
            };
            texts.push(format!("{}  {by}: {}", utc(line.at), line.act));
            list.push(json!({"at": utc(line.at), "by": by, "act": line.act}));
        }
        let text = if texts.is_empty() { "nothing yet".to_owned() } else { texts.join("\n") };
        Ok(Said::new(text, json!({"audit": list})))
    }

    fn health(&self) -> Result<Said, RelayError> {
        match health::check(self.shared) {
            Ok(said) => Ok(Said::new(said, json!({"healthy": true}))),
            Err(why) => Err(RelayError::Operator { code: 1, said: why.to_string() }),
        }
    }

    fn stats(&self) -> Result<Said, RelayError> {
        let shared = self.shared;
        let users = self.stored(shared.stores.directory.names(usize::MAX))?.len();
        let connected = shared.registry.count();
        let (queued, bytes) = shared.mailboxes.totals();
        let rooms = shared.rooms.count();
        let banned = shared.rights.count(|rights| rights.is_banned);
        let admins = shared.rights.count(|rights| rights.is_admin);
        let (disk, free, refused) = match shared.health.space() {
            None => (String::new(), None, Vec::new()),
            Some((free, refused)) => {
                let state = match refused.as_slice() {
                    [] => String::new(),
                    refused => format!("; make room, these are refused: {}", refused.join(", ")),
                };
                (format!("\nfree disk {} MiB{state}", free >> 20), Some(free), refused)
            }
        };
        let text = format!(
            "users {users} (connected {connected}, admins {admins}, banned {banned})\n\
             open rooms {rooms}\nenvelopes waiting {queued} ({bytes} bytes){disk}"
        );
        let json = json!({
            "users": users, "connected": connected, "admins": admins, "banned": banned,
            "open_rooms": rooms, "queued": queued, "queued_bytes": bytes,
            "free_bytes": free, "refused": refused,
        });
        Ok(Said::new(text, json))
    }
}

/// New standing of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Admin,
    User,
}

fn help(about: Option<&str>, by: By) -> Result<Said, RelayError> {
    let about = about.map(|name| name.strip_prefix('!').unwrap_or(name));
    let is_for = |name: &str| {
        by == By::Operator
            || !matches!(name, "quit" | "backup" | "grant" | "revoke" | "purge" | "address")
    };
    let wanted = command::HELP
        .iter()
        .filter(|(name, ..)| is_for(name) && about.is_none_or(|about| about == *name));
    let lines: Vec<_> =
        wanted.clone().map(|(_, usage, does)| format!("{usage:<42} {does}")).collect();
    let list: Vec<_> = wanted
        .map(|(name, usage, does)| json!({"command": name, "usage": usage, "does": does}))
        .collect();
    if lines.is_empty() {
        return Err(not_found("there is no such command; help lists them".to_owned()));
    }
    Ok(Said::new(lines.join("\n"), json!({"commands": list})))
}

/// Returns a name as people have it: `@bob` is bob.
fn bare(name: &str) -> &str {
    name.strip_prefix('@').unwrap_or(name)
}

/// `Lobby (3 members, 2 online)`.
fn counted(name: &str, members: usize, online: usize) -> String {
    let plural = if members == 1 { "member" } else { "members" };
    format!("{name} ({members} {plural}, {online} online)")
}

/// Returns a time in UTC to the second.
fn utc(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.0}")
}

fn usage(said: impl Into<String>) -> RelayError {
    RelayError::Operator { code: 2, said: said.into() }
}

fn refused(said: impl Into<String>) -> RelayError {
    RelayError::Operator { code: 4, said: said.into() }
}

fn not_found(said: impl Into<String>) -> RelayError {
    RelayError::Operator { code: 5, said: said.into() }
}

fn room_error(code: ErrorCode) -> RelayError {
    refused(code.to_string())
}
