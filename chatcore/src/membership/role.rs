//! Roles, and the one table of who may do what to whom (PROTOCOL.md section 15).

/// Rank of a member; each has all the rights of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Invites, kicks, mutes.
    Moderator,
    /// Bans, gives roles, sets the topic.
    Admin,
    /// Everything; there is one.
    Owner,
}

impl Role {
    /// Every role, ascending.
    pub const ALL: [Self; 4] = [Self::Member, Self::Moderator, Self::Admin, Self::Owner];

    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Names everybody who has the role or a higher one.
    const fn and_above(self) -> &'static str {
        match self {
            Self::Member => "members",
            Self::Moderator => "moderators, admins and the owner",
            Self::Admin => "admins and the owner",
            Self::Owner => "the owner",
        }
    }
}

/// Kinds of acts, without their details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActKind {
    /// Lets somebody join a private room.
    Invite,
    /// Takes up an invitation.
    Join,
    /// Goes away.
    Leave,
    /// Takes somebody out, or an invitation back.
    Kick,
    /// Takes somebody out for good.
    Ban,
    /// Takes a ban back.
    Unban,
    /// Refuses somebody's messages.
    Mute,
    /// Takes that back.
    Unmute,
    /// Gives another role.
    SetRole,
    /// Changes the name.
    Rename,
    /// Changes the topic.
    SetTopic,
    /// Changes who may invite.
    SetPolicy,
    /// Makes another member the owner.
    Transfer,
    /// Fixes the state.
    Checkpoint,
    /// Goes on in another register, with new keys.
    Move,
    /// Ends the room.
    Close,
    /// Goes on where the relay was set back to.
    Resume,
    /// Makes room in the place of those who do not come any more.
    Retire,
    /// Takes over an open room whose owner is gone.
    Succeed,
    /// Raises the room's version.
    SetVersion,
}

/// Users that an act may be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It has no target.
    Nobody,
    /// A member of lower rank.
    Lower,
    /// A member of lower rank, or somebody outside.
    LowerOrOutside,
    /// Somebody outside.
    Outside,
    /// Any other member.
    Other,
}

/// Which role an act may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It gives none.
    Nothing,
    /// One below the actor's own.
    Below,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The act.
    pub act: ActKind,
    /// Lowest role that may do it; `None`: somebody outside who was invited.
    pub from: Option<Role>,
    /// To whom.
    pub target: Target,
    /// Roles that it may give.
    pub grant: Grant,
}

const fn rule(act: ActKind, from: Role, target: Target, grant: Grant) -> Rule {
    Rule { act, from: Some(from), target, grant }
}

/// The table of roles: who may do what to whom.
pub const RULES: [Rule; 20] = [
    // The lowest role is the room's policy; this is its default.
    rule(ActKind::Invite, Role::Moderator, Target::Outside, Grant::Below),
    Rule { act: ActKind::Join, from: None, target: Target::Nobody, grant: Grant::Nothing },
    rule(ActKind::Leave, Role::Member, Target::Nobody, Grant::Nothing),
    rule(ActKind::Kick, Role::Moderator, Target::Lower, Grant::Nothing),
    rule(ActKind::Ban, Role::Admin, Target::LowerOrOutside, Grant::Nothing),
    rule(ActKind::Unban, Role::Admin, Target::Outside, Grant::Nothing),
    rule(ActKind::Mute, Role::Moderator, Target::Lower, Grant::Nothing),
    rule(ActKind::Unmute, Role::Moderator, Target::Lower, Grant::Nothing),
    rule(ActKind::SetRole, Role::Admin, Target::Lower, Grant::Below),
    rule(ActKind::Rename, Role::Owner, Target::Nobody, Grant::Nothing),
    rule(ActKind::SetTopic, Role::Admin, Target::Nobody, Grant::Nothing),
    rule(ActKind::SetPolicy, Role::Owner, Target::Nobody, Grant::Nothing),
    rule(ActKind::Transfer, Role::Owner, Target::Other, Grant::Nothing),
    rule(ActKind::Checkpoint, Role::Moderator, Target::Nobody, Grant::Nothing),
    rule(ActKind::Move, Role::Moderator, Target::Nobody, Grant::Nothing),
    rule(ActKind::Close, Role::Owner, Target::Nobody, Grant::Nothing),
    rule(ActKind::Resume, Role::Owner, Target::Nobody, Grant::Nothing),
    rule(ActKind::Retire, Role::Owner, Target::Nobody, Grant::Nothing),
    rule(ActKind::Succeed, Role::Moderator, Target::Nobody, Grant::Nothing),
    rule(ActKind::SetVersion, Role::Owner, Target::Nobody, Grant::Nothing),
];

/// Why somebody may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The actor is no member, or one already.
    #[error("only members may do that")]
    NotAMember,
    /// The actor's role is too low.
    #[error("only {} may do that", .needed.and_above())]
    RoleTooLow {
        /// The lowest role that may.
        needed: Role,
    },
    /// The target's rank is not below the actor's.
    #[error("that can only be done to members of lower rank")]
    TargetTooHigh,
    /// The role to be given is not below the actor's.
    #[error("only roles below one's own can be given")]
    GrantTooHigh,
}

/// Returns the line of an act.
#[must_use]
pub const fn rule_of(act: ActKind) -> Rule {
    #[allow(clippy::indexing_slicing, reason = "the lines stand in the order of the acts; tested")]
    RULES[act as usize]
}

/// Tells whether `actor` may do `act` to `target` and give `grant`; `None` is somebody outside, or no
/// target, or no role.
///
/// # Errors
/// [`Refusal`].
pub fn may(
    actor: Option<Role>,
    act: ActKind,
    target: Option<Role>,
    grant: Option<Role>,
) -> Result<(), Refusal> {
    may_by(rule_of(act), actor, target, grant)
}

/// As [`may`], by a line of which the room's policy may have changed the lowest role.
pub(super) fn may_by(
    rule: Rule,
    actor: Option<Role>,
    target: Option<Role>,
    grant: Option<Role>,
) -> Result<(), Refusal> {
    let Some(needed) = rule.from else {
        return if actor.is_none() { Ok(()) } else { Err(Refusal::NotAMember) };
    };
    let own = actor.ok_or(Refusal::NotAMember)?;
    if own < needed {
        return Err(Refusal::RoleTooLow { needed });
    }
    let reached = match rule.target {
        Target::Nobody => true,
        Target::Lower => target.is_some_and(|target| target < own),
        Target::LowerOrOutside => target.is_none_or(|target| target < own),
        Target::Outside => target.is_none(),
        Target::Other => target.is_some(),
    };
    if !reached {
        return Err(Refusal::TargetTooHigh);
    }
    // An ordinary member can always be brought in by those who may invite.
    let given = match rule.grant {
        Grant::Nothing => true,
        Grant::Below => grant.is_none_or(|role| role < own || role == Role::Member),
    };
    if given { Ok(()) } else { Err(Refusal::GrantTooHigh) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each act, each actor (rows: outside, member, moderator, admin, owner) and each target
    /// (columns: the same): y if it may be done. Written by hand from DESIGN's words, not from RULES.
    const EXPECTED: [(ActKind, [&str; 5]); 20] = [
        (ActKind::Invite, ["-----", "-----", "y----", "y----", "y----"]),
        (ActKind::Join, ["yyyyy", "-----", "-----", "-----", "-----"]),
        (ActKind::Leave, ["-----", "yyyyy", "yyyyy", "yyyyy", "yyyyy"]),
        (ActKind::Kick, ["-----", "-----", "-y---", "-yy--", "-yyy-"]),
        (ActKind::Ban, ["-----", "-----", "-----", "yyy--", "yyyy-"]),
        (ActKind::Unban, ["-----", "-----", "-----", "y----", "y----"]),
        (ActKind::Mute, ["-----", "-----", "-y---", "-yy--", "-yyy-"]),
        (ActKind::Unmute, ["-----", "-----", "-y---", "-yy--", "-yyy-"]),
        (ActKind::SetRole, ["-----", "-----", "-----", "-yy--", "-yyy-"]),
        (ActKind::Rename, ["-----", "-----", "-----", "-----", "yyyyy"]),
        (ActKind::SetTopic, ["-----", "-----", "-----", "yyyyy", "yyyyy"]),
        (ActKind::SetPolicy, ["-----", "-----", "-----", "-----", "yyyyy"]),
        (ActKind::Transfer, ["-----", "-----", "-----", "-----", "-yyyy"]),
        (ActKind::Checkpoint, ["-----", "-----", "yyyyy", "yyyyy", "yyyyy"]),
        (ActKind::Move, ["-----", "-----", "yyyyy", "yyyyy", "yyyyy"]),
        (ActKind::Close, ["-----", "-----", "-----", "-----", "yyyyy"]),
        (ActKind::Resume, ["-----", "-----", "-----", "-----", "yyyyy"]),
        (ActKind::Retire, ["-----", "-----", "-----", "-----", "yyyyy"]),
        (ActKind::Succeed, ["-----", "-----", "yyyyy", "yyyyy", "yyyyy"]),
        (ActKind::SetVersion, ["-----", "-----", "-----", "-----", "yyyyy"]),
    ];

    fn ranks() -> [Option<Role>; 5] {
        let [member, moderator, admin, owner] = Role::ALL.map(Some);
        [None, member, moderator, admin, owner]
    }

    #[test]
    fn every_actor_act_and_target_is_as_decided() {
        for (place, (act, rows)) in EXPECTED.iter().enumerate() {
            assert_eq!(RULES[place].act, *act, "the lines stand in the order of the acts");
            for (actor, row) in ranks().into_iter().zip(rows) {
                for (target, expected) in ranks().into_iter().zip(row.chars()) {
                    let allowed = may(actor, *act, target, None).is_ok();
                    assert_eq!(allowed, expected == 'y', "{actor:?} {act:?} {target:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_gives_a_role_that_is_not_below_his_own() {
        for actor in Role::ALL {
            for grant in Role::ALL {
                let invite = may(Some(actor), ActKind::Invite, None, Some(grant)).is_ok();
                assert_eq!(
                    invite,
                    actor >= Role::Moderator && grant < actor,
                    "{actor:?} {grant:?}"
                );
                let given = may(Some(actor), ActKind::SetRole, Some(Role::Member), Some(grant));
                assert_eq!(given.is_ok(), actor >= Role::Admin && grant < actor);
            }
        }
    }

    #[test]
    fn the_table_in_the_protocol_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
        let protocol = std::fs::read_to_string(path).unwrap();
        for rule in RULES {
            let from = rule.from.map_or("invited, no member", Role::as_str);
            let target = match rule.target {
                Target::Nobody => "–",
                Target::Lower => "member of lower rank",
                Target::LowerOrOutside => "member of lower rank, or no member",
                Target::Outside => "no member",
                Target::Other => "another member",
            };
            let grant = if rule.grant == Grant::Below { "below the actor's" } else { "–" };
            let act = format!("{:?}", rule.act);
            let line = format!("| {act} | {from} | {target} | {grant} |");
            assert!(protocol.contains(&line), "PROTOCOL.md lacks {line}");
        }
    }
}
