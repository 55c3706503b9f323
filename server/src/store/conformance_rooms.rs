//! One suite for both engines: registers, open rooms, announcements, rights.

use bytes::Bytes;
use chatcore::ids::{InviteToken, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};

use chatcore::wire::limits::MAX_CANDIDATE;

use super::conformance::{NOW, User, on_both};
use super::*;

const QUOTA: RegisterQuota = RegisterQuota {
    entries: 3,
    entries_of_one: 2,
    candidates: 2,
    candidate_every: 100,
    registers: 1,
    bytes: 1 << 20,
};
/// A relay that was never set back.
const STEADY: Recovering = Recovering { set_back: None, healing: HEALING };
const HEALING: u64 = 1_000;
const ALICE: UserId = UserId::from_bytes([1; 32]);
const BOB: UserId = UserId::from_bytes([2; 32]);
const ROOM: RoomId = RoomId::from_bytes([3; 32]);
const OTHER: RoomId = RoomId::from_bytes([4; 32]);

#[test]
fn a_register_grows_at_its_end_only_and_ends_unused() {
    on_both(|stores| {
        let registers = &stores.registers;
        let (one, two) = (RegisterId::from_bytes([5; 32]), RegisterId::from_bytes([6; 32]));
        let put_at = |id, who, n: u64, byte, times| {
            let entry = (n, Bytes::from(vec![byte; 10]));
            registers.append(id, (&who, QUOTA), entry, times).unwrap()
        };
        let put = |id, who, n, byte| put_at(id, who, n, byte, (STEADY, NOW));
        let entry = |byte| Bytes::from(vec![byte; 10]);
        let hash = |bytes: &[u8]| {
            let entries: Vec<_> = bytes.iter().map(|byte| entry(*byte)).collect();
            LogHash::begin(&LogId::from(one)).then_all(&entries)
        };
        assert_eq!(registers.read(&one, 0, 100, NOW), Ok(None));
        assert_eq!(put(&one, ALICE, 1, 1), Appended::Conflict(0), "a gap");
        assert_eq!(put(&one, ALICE, 0, 1), Appended::Stored(hash(&[1])));
        assert_eq!(put(&one, BOB, 0, 1), Appended::Stored(hash(&[1])), "the same again");
        assert_eq!(put(&one, BOB, 0, 9), Appended::Conflict(1));
        assert_eq!(put(&two, ALICE, 0, 1), Appended::OverQuota(1));
        assert_eq!(put(&one, BOB, 1, 2), Appended::Stored(hash(&[1, 2])));
        let set_back = Recovering { set_back: Some(7), ..STEADY };
        let waits = put_at(&one, BOB, 2, 3, (set_back, NOW));
        assert_eq!(waits, Appended::Recovering(7), "there may be more of it");
        let begins = put_at(&two, BOB, 0, 1, (set_back, NOW));
        assert_eq!(begins, Appended::Recovering(7), "it may be one that is lost");
        let stored = put(&one, BOB, 2, 3);
        assert_eq!(stored, Appended::Stored(hash(&[1, 2, 3])));
        let large = Bytes::from(vec![4; MAX_CANDIDATE + 1]);
        let full = registers.append(&one, (&BOB, QUOTA), (3, large), (STEADY, NOW));
        assert_eq!(full, Ok(Appended::Full(None)), "all its entries are there");
        let read = |from, bytes| registers.read(&one, from, bytes, NOW).unwrap().unwrap();
        let page = |end: u64, all: &[u8], before: &[u8]| {
            let entries = all.iter().map(|byte| entry(*byte)).collect();
            RegisterPage { length: 3, entries, end, hash: hash(before) }
        };
        assert_eq!(read(0, 100), page(3, &[1, 2, 3], &[1, 2, 3]));
        assert_eq!(read(1, 5), page(2, &[2], &[1, 2]), "at least one");
        assert_eq!(read(3, 100), page(3, &[], &[1, 2, 3]));
        assert_eq!(read(u64::MAX, 100), page(3, &[], &[1, 2, 3]));
        registers.sweep(NOW).unwrap();
        assert!(registers.read(&one, 0, 100, NOW).unwrap().is_some(), "touched just now");
        registers.sweep(NOW.plus(40 * chatcore::ids::DAY)).unwrap();
        assert_eq!(registers.read(&one, 0, 100, NOW), Ok(None));
        let stored = put(&two, ALICE, 0, 1);
        assert!(matches!(stored, Appended::Stored(_)), "its place is free again");
    });
}

#[test]
fn nobody_fills_a_register_alone_and_behind_its_end_stand_candidates() {
    on_both(|stores| {
        let registers = &stores.registers;
        let id = RegisterId::from_bytes([5; 32]);
        let put_at = |who: UserId, n: u64, now| {
            let entry = (n, Bytes::from(vec![1; MAX_CANDIDATE]));
            registers.append(&id, (&who, QUOTA), entry, (STEADY, now)).unwrap()
        };
        let is_stored = |appended| matches!(appended, Appended::Stored(_));
        assert!(is_stored(put_at(ALICE, 0, NOW)) && is_stored(put_at(ALICE, 1, NOW)));
        assert!(is_stored(put_at(ALICE, 1, NOW)), "the same again takes no other place");
        assert_eq!(put_at(ALICE, 2, NOW), Appended::ShareSpent);
        assert!(is_stored(put_at(BOB, 2, NOW)));
        assert!(is_stored(put_at(ALICE, 3, NOW)), "a candidate, whatever was spent before");
        assert_eq!(put_at(ALICE, 4, NOW.plus(99)), Appended::Full(Some(1)));
        assert!(is_stored(put_at(BOB, 4, NOW.plus(99))), "each account in its own time");
        assert_eq!(put_at(ALICE, 5, NOW.plus(100)), Appended::Full(None), "no more of them");
        // Set aside, and brought back, it is judged again.
        let entries = registers.read(&id, 0, 1 << 20, NOW).unwrap().unwrap();
        registers.sweep(NOW.plus(9_999)).unwrap();
        let end = (5, entries.hash);
        assert!(registers.recover(&id, (&BOB, QUOTA), entries.entries, end, NOW).unwrap());
    });
}

#[test]
fn what_a_user_has_in_registers_is_counted_has_a_bound_and_can_be_set_aside() {
    on_both(|stores| {
        let registers = &stores.registers;
        let quota = RegisterQuota { bytes: 25, registers: 9, entries_of_one: 9, ..QUOTA };
        let put = |register: u8, who: UserId, n: u64| {
            let entry = (n, Bytes::from(vec![register; 10]));
            let id = RegisterId::from_bytes([register; 32]);
            registers.append(&id, (&who, quota), entry, (STEADY, NOW)).unwrap()
        };
        let is_stored = |appended| matches!(appended, Appended::Stored(_));
        let usage = |who| {
            let RegisterUsage { registers, bytes } = registers.usage(&who).unwrap();
            (registers, bytes)
        };
        assert!(is_stored(put(1, ALICE, 0)) && is_stored(put(1, BOB, 1)));
        assert!(is_stored(put(2, BOB, 0)) && is_stored(put(2, BOB, 0)));
        assert_eq!((usage(ALICE), usage(BOB)), ((1, 10), (1, 20)));
        assert_eq!(put(2, BOB, 1), Appended::OverQuota(25), "of whomever the register is");
        assert_eq!(put(3, BOB, 0), Appended::OverQuota(25));
        assert_eq!((usage(ALICE), usage(BOB)), ((1, 10), (1, 20)), "nothing is paid for that");
        let mut all = registers.usage_of_all().unwrap();
        all.sort();
        let both = [(ALICE, usage(ALICE)), (BOB, usage(BOB))];
        let counted = all.into_iter().map(|(user, u)| (user, (u.registers, u.bytes)));
        assert_eq!(counted.collect::<Vec<_>>(), both);
        // What others appended to it is theirs again; what stood there is known.
        registers.set_aside_of(&ALICE).unwrap();
        assert_eq!((usage(ALICE), usage(BOB)), ((0, 0), (1, 10)));
        assert_eq!(put(1, ALICE, 0), Appended::Recovering(0));
        assert!(is_stored(put(2, BOB, 1)), "there is place again");
        // Who brings it back pays, and what was set aside comes back only within the bound.
        let given: Vec<_> = (0..2).map(|_| Bytes::from(vec![1; 10])).collect();
        let id = RegisterId::from_bytes([1; 32]);
        let end = (2, LogHash::begin(&LogId::from(id)).then_all(&given));
        let recover = |who| registers.recover(&id, (&who, quota), given.clone(), end, NOW).unwrap();
        assert!(!recover(BOB) && usage(BOB) == (1, 20));
        assert!(recover(ALICE));
        assert_eq!(usage(ALICE), (1, 20));
        registers.sweep(NOW.plus(1)).unwrap();
        assert_eq!(usage(BOB), (0, 0));
        assert_eq!(registers.usage_of_all(), Ok(Vec::new()));
    });
}

#[test]
fn a_register_takes_back_only_what_leads_to_the_hash() {
    on_both(|stores| {
        let registers = &stores.registers;
        let id = RegisterId::from_bytes([5; 32]);
        let entries: Vec<_> = (1..=4).map(|byte| Bytes::from(vec![byte; 10])).collect();
        let hash = |n: usize| LogHash::begin(&LogId::from(id)).then_all(&entries[..n]);
        let recover = |from: usize, to: usize, end| {
            let given = entries[from..to].to_vec();
            registers.recover(&id, (&ALICE, QUOTA), given, end, NOW).unwrap()
        };
        assert!(!recover(0, 2, (2, hash(3))));
        assert!(!recover(0, 2, (3, hash(2))));
        assert_eq!(registers.read(&id, 0, 100, NOW), Ok(None), "nothing is left of it");
        assert!(recover(0, 2, (2, hash(2))));
        assert!(!recover(1, 4, (4, hash(4))), "behind what is there, not over it");
        assert!(!recover(3, 4, (4, hash(4))), "without a gap");
        assert!(!recover(2, 2, (2, hash(2))), "nothing is no reason to wait");
        assert!(recover(2, 4, (4, hash(4))));
        let page = registers.read(&id, 0, 100, NOW).unwrap().unwrap();
        assert_eq!((page.entries, page.hash), (entries.clone(), hash(4)));
        let one = RegisterQuota { entries: 9, ..QUOTA };
        let late = NOW.plus(HEALING);
        let next = |recovering, now| {
            registers.append(&id, (&BOB, one), (4, entries[0].clone()), (recovering, now)).unwrap()
        };
        let waits = next(STEADY, NOW.plus(HEALING - 1));
        assert_eq!(waits, Appended::Recovering(1), "there may be more of it");
        // Set aside, it takes nothing until it is what it was.
        registers.sweep(NOW.plus(1)).unwrap();
        assert_eq!(registers.read(&id, 0, 100, NOW), Ok(None));
        let payer = (&BOB, RegisterQuota { entries: 9, registers: 9, ..QUOTA });
        let append = |position| {
            let entry = (position, entries[3].clone());
            registers.append(&id, payer, entry, (STEADY, late)).unwrap()
        };
        assert_eq!(append(0), Appended::Recovering(0));
        let other: Vec<_> = [9, 2, 3, 4].map(|byte| Bytes::from(vec![byte; 10])).to_vec();
        let end = (4, LogHash::begin(&LogId::from(id)).then_all(&other));
        assert!(
            !registers.recover(&id, (&ALICE, QUOTA), other, end, NOW).unwrap(),
            "another branch"
        );
        assert!(recover(0, 2, (2, hash(2))));
        assert_eq!(append(2), Appended::Recovering(0), "not whole yet");
        assert!(recover(2, 4, (4, hash(4))));
        assert!(matches!(append(4), Appended::Stored(_)));
        assert_eq!(registers.epoch(), Ok(Epoch { number: 1, began: Timestamp(0) }));
        let next = Epoch { number: 2, began: NOW };
        registers.set_epoch(next).unwrap();
        assert_eq!(registers.epoch(), Ok(next));
    });
}

#[test]
fn an_open_room_keeps_its_events_and_the_newest_statement_of_each() {
    on_both(|stores| {
        let rooms = &stores.open_rooms;
        let signed = |nick| User::new().first(nick).signed().clone();
        let (a, b, c) = (signed("a"), signed("b"), signed("c"));
        assert_eq!((rooms.lobbies(), rooms.load()), (Ok(vec![]), Ok(vec![])));
        rooms.append(&ROOM, 0, &a).unwrap();
        rooms.set_lobbies(&[OTHER, ROOM]).unwrap();
        assert_eq!(rooms.lobbies(), Ok(vec![OTHER, ROOM]));
        rooms.set_lobbies(&[ROOM]).unwrap();
        assert_eq!(rooms.lobbies(), Ok(vec![ROOM]));
        rooms.append(&ROOM, 1, &b).unwrap();
        rooms.append(&OTHER, 0, &c).unwrap();
        let statement = |n, signed: &Signed| StoredStatement { n, signed: signed.clone() };
        rooms.put_statement(&ROOM, &ALICE, &statement(1, &a)).unwrap();
        rooms.put_statement(&ROOM, &BOB, &statement(2, &b)).unwrap();
        rooms.put_statement(&ROOM, &ALICE, &statement(3, &c)).unwrap();
        let lobby = |rooms: Vec<StoredRoom>| {
            let mut room = rooms.into_iter().find(|room| room.events.first() == Some(&a)).unwrap();
            room.statements.sort_by_key(|(user, _)| *user);
            room
        };
        let loaded = lobby(rooms.load().unwrap());
        assert_eq!(loaded.events, [a.clone(), b.clone()]);
        assert_eq!(loaded.statements, [(ALICE, statement(3, &c)), (BOB, statement(2, &b))]);
        assert_eq!(loaded.healed, Timestamp(0));
        rooms.recover(&ROOM, &[(2, c.clone()), (3, a.clone())], NOW).unwrap();
        let healed = lobby(rooms.load().unwrap());
        assert_eq!((healed.events.len(), healed.healed), (4, NOW));
        rooms.forget(&[ROOM], &ALICE).unwrap();
        assert_eq!(lobby(rooms.load().unwrap()).statements, [(BOB, statement(2, &b))]);
        assert_eq!(rooms.is_removed(&OTHER), Ok(false));
        rooms.remove(&OTHER).unwrap();
        assert_eq!(rooms.is_removed(&OTHER), Ok(true));
        assert_eq!(rooms.load().unwrap().len(), 1);
    });
}

#[test]
fn announcements_are_kept_in_order_and_their_numbers_for_ever() {
    on_both(|stores| {
        let said = &stores.announcements;
        let signed = User::new().first("relay").signed().clone();
        let make = |seq, room, at| StoredAnnouncement { seq, room, at, signed: signed.clone() };
        assert_eq!(said.newest(), Ok(0));
        let all =
            [make(5, None, NOW), make(7, Some(ROOM), NOW.plus(1)), make(9, None, NOW.plus(2))];
        all.iter().try_for_each(|one| said.append(one, Tells::Text)).unwrap();
        assert_eq!(said.after(0, 2), Ok(all[..2].to_vec()));
        assert_eq!(said.after(5, 64), Ok(all[1..].to_vec()));
        assert_eq!(said.after(u64::MAX, 64), Ok(vec![]));
        said.sweep(NOW.plus(2)).unwrap();
        assert_eq!(said.after(0, 64), Ok(all[2..].to_vec()));
        said.sweep(Timestamp(u64::MAX)).unwrap();
        assert_eq!((said.after(0, 64), said.newest()), (Ok(vec![]), Ok(9)));
        // Where the relay is has to be told for ever; of several the newest.
        assert_eq!(said.newest_move(), Ok(0));
        let moves = [make(11, None, NOW), make(12, None, NOW)];
        moves.iter().try_for_each(|one| said.append(one, Tells::Address)).unwrap();
        said.append(&make(13, None, NOW), Tells::Text).unwrap();
        said.sweep(Timestamp(u64::MAX)).unwrap();
        assert_eq!(said.after(0, 64), Ok(moves[1..].to_vec()));
        assert_eq!(said.newest_move(), Ok(12));
    });
}

#[test]
fn rights_invitations_and_the_audit_are_as_they_were_written() {
    on_both(|stores| {
        let privileges = &stores.privileges;
        assert_eq!(privileges.rights(), Ok(vec![]));
        let banned = Rights { is_banned: true, is_admin: false };
        privileges.set_rights(&ALICE, banned).unwrap();
        privileges.set_rights(&BOB, Rights { is_admin: true, ..banned }).unwrap();
        privileges.set_rights(&BOB, Rights::default()).unwrap();
        let rights = privileges.rights().unwrap();
        let who_stands_out: Vec<_> =
            rights.into_iter().filter(|(_, rights)| *rights != Rights::default()).collect();
        assert_eq!(who_stands_out, [(ALICE, banned)]);
        let token = InviteToken::from_slice(&[8; 16]).unwrap();
        let invite = |uses| Invite { token: token.clone(), uses, until: Some(NOW) };
        privileges.put_invite(&invite(Some(2))).unwrap();
        privileges.put_invite(&invite(Some(1))).unwrap();
        assert_eq!(privileges.invites(), Ok(vec![invite(Some(1))]));
        privileges.put_invite(&invite(Some(0))).unwrap();
        assert_eq!(privileges.invites(), Ok(vec![]));
        let line = |n: u64| AuditLine { at: Timestamp(n), by: Some(BOB), act: format!("ban {n}") };
        (0..5).try_for_each(|n| privileges.audit(&line(n))).unwrap();
        assert_eq!(privileges.audit_lines(2), Ok(vec![line(3), line(4)]));
    });
}
