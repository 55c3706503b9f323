//! `chat room …`.

use std::collections::BTreeSet;

use chatcore::engine::{EngineError, NewRoom, RoomStanding, RoomView};
use chatcore::ids::{RoomId, UserId};
use chatcore::membership::{Act, Policy, Role, RoomKind, RoomName, RoomNameError, Topic};
use chatcore::net::{Client, ClientError, Reconnect};
use chatcore::wire::relay::RoomSummary;

use super::proof;
use crate::cli::{
    RebuildArgs, RoleArg, RoomArgs, RoomCommand, RoomCreateArgs, RoomInviteArgs, RoomPolicyArgs,
    RoomRoleArgs, RoomShowArgs, RoomTextArgs, RoomWhoArgs, Verbose,
};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::OutputMode;
use crate::output::json::Line;
use crate::output::names::Names;
use crate::output::render;

const fn role(role: RoleArg) -> Role {
    match role {
        RoleArg::Member => Role::Member,
        RoleArg::Moderator => Role::Moderator,
        RoleArg::Admin => Role::Admin,
    }
}

fn usage(error: RoomNameError) -> CommandError {
    CommandError::new(ExitCode::Usage, error)
}

/// Does what the command line says, with everything that waited taken in before.
///
/// # Errors
/// Names, rules of the room, or the relay.
pub(super) async fn run(context: &Context, command: &RoomCommand) -> Result<(), CommandError> {
    match command {
        RoomCommand::Proof(args) => return proof::show(context, args).await,
        RoomCommand::CheckProof(args) => return proof::check(context, args).await,
        _ => {}
    }
    let online = Online::connect(context, Reconnect::Never).await?;
    // Events that wait may decide what is possible now.
    online.client.settle().await?;
    act(context, &online.client, command).await?;
    online.finish().await
}

/// Does something in or about a room.
///
/// # Errors
/// As [`run`].
pub(crate) async fn act(
    context: &Context,
    client: &Client,
    command: &RoomCommand,
) -> Result<(), CommandError> {
    match command {
        RoomCommand::Create(args) => create(context, client, args).await,
        RoomCommand::List(verbose) => list(context, client, *verbose).await,
        RoomCommand::Show(args) => show(context, client, args).await,
        RoomCommand::Join(args) => join(context, client, args).await,
        RoomCommand::Leave(args) => leave(context, client, args).await,
        RoomCommand::Invite(args) => invite(context, client, args).await,
        RoomCommand::Kick(args) => {
            let act = |user| Act::Kick { user, counter: 0 };
            to_somebody(context, client, args, act, "is out of").await
        }
        RoomCommand::Ban(args) => {
            let act = |user| Act::Ban { user, counter: 0 };
            to_somebody(context, client, args, act, "is banned from").await
        }
        RoomCommand::Unban(args) => {
            to_somebody(context, client, args, Act::Unban, "is not banned any more from").await
        }
        RoomCommand::Silence(args) => {
            to_somebody(context, client, args, Act::Mute, "is silenced in").await
        }
        RoomCommand::Unsilence(args) => {
            to_somebody(context, client, args, Act::Unmute, "may speak again in").await
        }
        RoomCommand::Role(args) => give_role(context, client, args).await,
        RoomCommand::Topic(args) => topic(context, client, args).await,
        RoomCommand::Rename(args) => rename(context, client, args).await,
        RoomCommand::Policy(args) => policy(context, client, args).await,
        RoomCommand::Transfer(args) => {
            to_somebody(context, client, args, Act::Transfer, "is now the owner of").await
        }
        RoomCommand::Close(args) => close(context, client, args).await,
        RoomCommand::Resume(args) => resume(context, client, args).await,
        RoomCommand::Succeed(args) => succeed(context, client, args).await,
        RoomCommand::Rebuild(args) => rebuild(context, client, args).await,
        RoomCommand::Proof(args) => proof::show(context, args).await,
        RoomCommand::CheckProof(args) => proof::check(context, args).await,
    }
}

/// Says what was done: a line for a person, an object for a program.
fn said(
    context: &Context,
    (room, name): (RoomId, &str),
    act: &str,
    words: &str,
) -> Result<(), CommandError> {
    match context.output.mode() {
        OutputMode::Json => context.output.json(&Line::RoomDone { room: name, room_id: room, act }),
        OutputMode::People => context.output.say(words),
    }
}

async fn find(client: &Client, name: &str) -> Result<(RoomId, String), CommandError> {
    let id = client.find_room(name).await?;
    let view = client.room(id).await?;
    Ok((id, view.name))
}

async fn create(
    context: &Context,
    client: &Client,
    args: &RoomCreateArgs,
) -> Result<(), CommandError> {
    let name = RoomName::from_input(&args.name).map_err(usage)?;
    let topic = Topic::from_input(&args.topic).map_err(usage)?;
    let kind = if args.open { RoomKind::Open } else { RoomKind::Private };
    let shown = name.as_str().to_owned();
    // Else neither could be named any more.
    if !matches!(super::contacts::find_room(&client.rooms().await?, &shown), Err(e) if e.code() == ExitCode::UnknownRecipient)
    {
        let what = format_args!("you know a room #{} already", render::name(&shown));
        return Err(CommandError::new(ExitCode::Usage, what).hint("choose another name"));
    }
    let id = client.create_room(NewRoom { name, topic, kind }).await?;
    let next = match kind {
        RoomKind::Private => {
            let room = render::quoted(&shown);
            let shell = format!("chat room invite {room} NAME");
            format!("Invite somebody: {}", context.output.how(&shell, "!invite NAME"))
        }
        RoomKind::Open => {
            let how = context.output.how("chat room join", "!join");
            format!("Others join with: {how} {}", render::quoted(&shown))
        }
    };
    said(context, (id, &shown), "create", &format!("#{shown} is ready; you own it. {next}"))
}

async fn join(context: &Context, client: &Client, args: &RoomArgs) -> Result<(), CommandError> {
    let id = client.find_room_to_join(&args.room).await?;
    client.join_room(id).await?;
    let name = client.room(id).await?.name;
    let shown = render::name(&name);
    let target = render::quoted(&format!("#{shown}"));
    let write = format!(" Write to it: chat send {target} 'hello'");
    let words = format!("You are in #{shown}.{}", context.output.how(&write, ""));
    said(context, (id, &name), "join", &words)
}

async fn leave(context: &Context, client: &Client, args: &RoomArgs) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    client.leave_room(id).await?;
    said(context, (id, &name), "leave", &format!("You are out of #{}.", render::name(&name)))
}

async fn invite(
    context: &Context,
    client: &Client,
    args: &RoomInviteArgs,
) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    let user = client.lookup(&args.who).await?;
    client.act_in_room(id, Act::Invite { user, role: role(args.role) }).await?;
    let (who, shown) = (render::name(&args.who), render::name(&name));
    let join = render::quoted(&shown);
    let how = context.output.how("chat room join", "!join");
    let words = format!("{who} is invited to #{shown}; they join with: {how} {join}");
    said(context, (id, &name), "invite", &words)
}

async fn to_somebody(
    context: &Context,
    client: &Client,
    args: &RoomWhoArgs,
    act: impl FnOnce(UserId) -> Act,
    words: &str,
) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    let user = client.find_member(id, &args.who).await?;
    let act = act(user);
    let kind = act.kind();
    client.act_in_room(id, act).await?;
    let words = format!("{} {words} #{}.", render::name(&args.who), render::name(&name));
    said(context, (id, &name), &kind.map_or_else(String::new, word), &words)
}

async fn give_role(
    context: &Context,
    client: &Client,
    args: &RoomRoleArgs,
) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    let user = client.find_member(id, &args.who).await?;
    let role = role(args.role);
    client.act_in_room(id, Act::SetRole { user, role }).await?;
    let who = render::name(&args.who);
    let words = format!("{who} is now {} in #{}.", role.as_str(), render::name(&name));
    said(context, (id, &name), "set_role", &words)
}

async fn topic(
    context: &Context,
    client: &Client,
    args: &RoomTextArgs,
) -> Result<(), CommandError> {
    let topic = Topic::from_input(&args.text).map_err(usage)?;
    let (id, name) = find(client, &args.room).await?;
    client.act_in_room(id, Act::SetTopic(topic)).await?;
    said(context, (id, &name), "set_topic", &format!("#{}: the topic is set.", render::name(&name)))
}

async fn rename(
    context: &Context,
    client: &Client,
    args: &RoomTextArgs,
) -> Result<(), CommandError> {
    let new = RoomName::from_input(&args.text).map_err(usage)?;
    let (id, name) = find(client, &args.room).await?;
    client.act_in_room(id, Act::Rename(new.clone())).await?;
    let words = format!("#{} is now called #{new}.", render::name(&name));
    said(context, (id, new.as_str()), "rename", &words)
}

async fn policy(
    context: &Context,
    client: &Client,
    args: &RoomPolicyArgs,
) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    let invite = role(args.invite);
    client.act_in_room(id, Act::SetPolicy(Policy { invite })).await?;
    let words = format!("In #{} every {} may invite.", render::name(&name), invite.as_str());
    said(context, (id, &name), "set_policy", &words)
}

async fn close(context: &Context, client: &Client, args: &RoomArgs) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    client.act_in_room(id, Act::Close).await?;
    said(context, (id, &name), "close", &format!("#{} is closed.", render::name(&name)))
}

async fn succeed(context: &Context, client: &Client, args: &RoomArgs) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    client.succeed_in_room(id).await?;
    said(context, (id, &name), "succeed", &format!("#{} is yours now.", render::name(&name)))
}

async fn rebuild(
    context: &Context,
    client: &Client,
    args: &RebuildArgs,
) -> Result<(), CommandError> {
    let (old, old_name) = find(client, &args.room).await?;
    let name = args.name.as_deref().map(RoomName::from_input).transpose().map_err(usage)?;
    client.refresh_roster(old).await?;
    let id = client.rebuild_room(old, name).await?;
    let room = client.room(id).await?;
    let asked = match room.kind {
        RoomKind::Private => "Everybody of the old one is asked in.",
        RoomKind::Open => "Others find it with: chat room list",
    };
    let words = format!(
        "#{} is there in the place of #{}, and yours. {asked}",
        render::name(&room.name),
        render::name(&old_name)
    );
    said(context, (id, &room.name), "rebuild", &words)
}

async fn resume(context: &Context, client: &Client, args: &RoomArgs) -> Result<(), CommandError> {
    let (id, name) = find(client, &args.room).await?;
    client.resume_room(id).await?;
    let words = format!("#{} goes on with what the relay has.", render::name(&name));
    said(context, (id, &name), "resume", &words)
}

/// Returns the stable word for an act.
pub(crate) fn word(kind: chatcore::membership::ActKind) -> String {
    let mut out = String::new();
    for (n, c) in format!("{kind:?}").chars().enumerate() {
        if c.is_uppercase() && n > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

const fn standing(room: &RoomView) -> &'static str {
    match room.standing {
        RoomStanding::Invited => "invited",
        RoomStanding::Member => "member",
        RoomStanding::Outside => "outside",
        RoomStanding::Closed => "closed",
    }
}

const fn kind(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Private => "private",
        RoomKind::Open => "open",
    }
}

/// Members of a room who are here, ourselves included.
async fn here(
    client: &Client,
    room: &RoomView,
    own: UserId,
) -> Result<BTreeSet<UserId>, CommandError> {
    let mut here: BTreeSet<UserId> = match room.kind {
        RoomKind::Open => client.room_presence(room.room).await?.into_iter().collect(),
        RoomKind::Private => {
            let seen = client.online_contacts().await?;
            let members: BTreeSet<UserId> = room.roster.iter().map(|m| m.user).collect();
            seen.into_iter().filter(|user| members.contains(user)).collect()
        }
    };
    here.insert(own);
    Ok(here)
}

const fn is_offline(error: &ClientError) -> bool {
    matches!(error, ClientError::Engine(EngineError::Offline))
}

async fn list(context: &Context, client: &Client, verbose: Verbose) -> Result<(), CommandError> {
    let own = client.profile().await?.user;
    // Without the relay one's own rooms are known all the same.
    let open = match client.open_rooms().await {
        Err(error) if is_offline(&error) => None,
        open => Some(open?),
    };
    let rooms = client.rooms().await?;
    let mut rows = Vec::new();
    for room in &rooms {
        if matches!(room.standing, RoomStanding::Outside | RoomStanding::Closed) {
            continue;
        }
        let count = match room.standing {
            RoomStanding::Member => {
                let detail = client.room(room.room).await?;
                match &open {
                    Some(_) => Some(here(client, &detail, own).await?.len()),
                    None => None,
                }
            }
            _ => None,
        };
        let role = room.role.map_or("", Role::as_str);
        rows.push(Row {
            room: room.room,
            name: &room.name,
            kind: kind(room.kind),
            standing: standing(room),
            role,
            members: room.members,
            online: count,
        });
    }
    let joined: BTreeSet<RoomId> = rooms
        .iter()
        .filter(|room| matches!(room.standing, RoomStanding::Member | RoomStanding::Invited))
        .map(|room| room.room)
        .collect();
    for room in open.iter().flatten().filter(|room: &&RoomSummary| !joined.contains(&room.room)) {
        let (members, online) = (room.members as usize, Some(room.online as usize));
        let (name, role) = (room.name.as_str(), "");
        let (kind, standing) = ("open", "outside");
        rows.push(Row { room: room.room, name, kind, standing, role, members, online });
    }
    match context.output.mode() {
        OutputMode::Json => {
            rows.iter().try_for_each(|row| context.output.json(&row.for_a_program()))
        }
        OutputMode::People if rows.is_empty() => {
            let how = context.output.how("chat room create NAME", "!makeroom NAME");
            context.output.say(&format!("No rooms yet. Make one: {how}"))
        }
        OutputMode::People => {
            let heading =
                columns("ROOM", "WHO", "KIND", "YOU ARE", verbose.verbose.then_some("ID"));
            context.output.say(&context.output.paint().dim(&heading))?;
            rows.iter().try_for_each(|row| context.output.say(&row.for_a_person(context, verbose)))
        }
    }
}

/// A room in a list.
struct Row<'a> {
    room: RoomId,
    name: &'a str,
    kind: &'a str,
    standing: &'a str,
    role: &'a str,
    members: usize,
    online: Option<usize>,
}

impl<'a> Row<'a> {
    const fn for_a_program(&self) -> Line<'a> {
        Line::Room {
            room: self.name,
            room_id: self.room,
            kind: self.kind,
            standing: self.standing,
            role: self.role,
            members: self.members,
            online: self.online,
        }
    }

    fn for_a_person(&self, context: &Context, verbose: Verbose) -> String {
        let you_are = match (self.standing, self.role) {
            ("member", role) => role,
            ("invited", _) => context.output.how("invited: chat room join", "invited: !join"),
            _ => "not in it",
        };
        let id = verbose.verbose.then(|| self.room.to_hex());
        let who = counted(self.members, self.online);
        columns(&render::name(self.name), &who, self.kind, you_are, id.as_deref())
    }
}

fn columns(name: &str, who: &str, kind: &str, you_are: &str, id: Option<&str>) -> String {
    let name = render::padded(name, 24);
    let row = format!("{name} {who:<22} {kind:<8} {you_are:<10} {}", id.unwrap_or_default());
    row.trim_end().to_owned()
}

/// `3 members, 2 online`.
fn counted(members: usize, online: Option<usize>) -> String {
    let plural = if members == 1 { "member" } else { "members" };
    match online {
        // Of an invitation: the room is read when the person comes in.
        None if members == 0 => String::new(),
        Some(online) => format!("{members} {plural}, {online} online"),
        None => format!("{members} {plural}"),
    }
}

async fn show(context: &Context, client: &Client, args: &RoomShowArgs) -> Result<(), CommandError> {
    let (id, _) = find(client, &args.room).await?;
    client.refresh_roster(id).await?;
    let room = client.room(id).await?;
    let own = client.profile().await?.user;
    let is_inside = room.standing == RoomStanding::Member;
    let here = if is_inside { here(client, &room, own).await? } else { BTreeSet::new() };
    let names = Names::load(client).await?;
    match context.output.mode() {
        OutputMode::Json => context.output.json(&Line::RoomDetail {
            room: &room.name,
            room_id: id,
            kind: kind(room.kind),
            standing: standing(&room),
            role: room.role.map_or("", Role::as_str),
            topic: &room.topic,
            may_invite: room.may_invite.map_or("", Role::as_str),
            seq: room.head.map_or(0, |(seq, _)| seq),
            head: room.head.map_or_else(String::new, |(_, hash)| hash.to_hex()),
            forked: room.forked,
            gone: room.gone,
            locked: room.locked,
            outdated: room.outdated,
            members: room.roster.iter().map(|m| names.member(m, here.contains(&m.user))).collect(),
            invited: room.invited.iter().map(|m| names.member(m, false)).collect(),
            banned: room.banned.iter().map(|user| names.person(user)).collect(),
        }),
        OutputMode::People => show_to_a_person(context, &room, &here, &names, args.verbose),
    }
}

/// Returns the advice about a fork.
fn forked_hint(context: &Context, room: &RoomView) -> String {
    let shell = format!("chat room resume {}", render::quoted(&render::name(&room.name)));
    match room.role {
        Some(Role::Owner) => format!(
            "You are its owner. If the relay lost a part, go on with what it has: {}",
            context.output.how(&shell, "!resume")
        ),
        _ => {
            let shell = format!("chat room rebuild {}", render::quoted(&render::name(&room.name)));
            format!(
                "What you saw first is kept. Its owner can go on with what the relay has; else make a new \
                 room in its place: {}",
                context.output.how(&shell, "!rebuild")
            )
        }
    }
}

fn show_to_a_person(
    context: &Context,
    room: &RoomView,
    here: &BTreeSet<UserId>,
    names: &Names,
    Verbose { verbose }: Verbose,
) -> Result<(), CommandError> {
    let say = |line: String| context.output.say(&line);
    let id = |user: &UserId| if verbose { format!("  {}", user.to_hex()) } else { String::new() };
    let is_inside = room.standing == RoomStanding::Member;
    let counted = counted(room.members, is_inside.then_some(here.len()));
    let you = match (room.standing, room.role) {
        (RoomStanding::Member, Some(role)) => format!("you are {}", role.as_str()),
        (RoomStanding::Invited, _) => "you are invited".to_owned(),
        (RoomStanding::Closed, _) => "it is closed".to_owned(),
        _ => "you are not in it".to_owned(),
    };
    let kind = kind(room.kind);
    say(format!("#{}, {kind}: {counted}; {you}.", render::name(&room.name)))?;
    if verbose {
        say(format!("Id: {}", room.room.to_hex()))?;
    }
    if !room.topic.is_empty() {
        say(format!("Topic: {}", render::line(&room.topic)))?;
    }
    let heading = |words: &str| context.output.say(&context.output.paint().dim(words));
    if !room.roster.is_empty() {
        heading("Members")?;
    }
    for member in &room.roster {
        let mut marks = vec![member.role.as_str()];
        marks.extend(member.muted.then_some("silenced"));
        marks.extend(here.contains(&member.user).then_some("online"));
        let id = id(&member.user);
        say(format!("  {} {}{id}", render::padded(&names.of(&member.user), 20), marks.join(", ")))?;
    }
    if !room.invited.is_empty() {
        heading("Invited, and not in it yet")?;
    }
    for member in &room.invited {
        let id = id(&member.user);
        say(format!(
            "  {} as {}{id}",
            render::padded(&names.of(&member.user), 20),
            member.role.as_str()
        ))?;
    }
    if !room.banned.is_empty() {
        heading("Banned")?;
    }
    for user in &room.banned {
        say(format!("  {}{}", render::padded(&names.of(user), 20), id(user))
            .trim_end()
            .to_owned())?;
    }
    if let Some((seq, head)) = room.head.filter(|_| verbose) {
        say(format!(
            "event {seq}, head {}: the same for every member who has read that far",
            head.fmt_short()
        ))?;
    }
    if room.forked {
        let words = "WARNING: the relay took back what it had signed here, or signed something else for others.";
        say(context.output.paint().warning(words))?;
        say(forked_hint(context, room))?;
    }
    if room.gone {
        say("The relay does not keep this room any more. It may come back; chat room leave takes it off \
             your list.".to_owned())?;
    }
    if room.locked {
        say("New keys of the room have not come yet: a member who has them brings them. If nobody does, \
             make a new room in its place: chat room rebuild"
            .to_owned())?;
    }
    if room.outdated {
        say("The room has acts that this version does not know: update to write and to change anything. \
             Leaving works."
            .to_owned())?;
    }
    Ok(())
}
