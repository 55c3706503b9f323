//! One suite for both engines: registers, open rooms, announcements, rights.

use bytes::Bytes;
use chatcore::ids::{InviteToken, RegisterId, RoomId, Timestamp, UserId};

use super::conformance::{NOW, User, on_both};
use super::*;

const QUOTA: RegisterQuota = RegisterQuota { entries: 3, registers: 1 };
const ALICE: UserId = UserId::from_bytes([1; 32]);
const BOB: UserId = UserId::from_bytes([2; 32]);
const ROOM: RoomId = RoomId::from_bytes([3; 32]);
const OTHER: RoomId = RoomId::from_bytes([4; 32]);

#[test]
fn a_register_grows_at_its_end_only_and_ends_unused() {
    on_both(|stores| {
        let registers = &stores.registers;
        let (one, two) = (RegisterId::from_bytes([5; 32]), RegisterId::from_bytes([6; 32]));
        let put = |id, who, n: u64, byte, now| {
            registers.append(id, (&who, QUOTA), (n, Bytes::from(vec![byte; 10])), now).unwrap()
        };
        assert_eq!(registers.read(&one, 0, 100, NOW), Ok(None));
        assert_eq!(put(&one, ALICE, 1, 1, NOW), Appended::Conflict(0), "a gap");
        assert_eq!(put(&one, ALICE, 0, 1, NOW), Appended::Stored);
        assert_eq!(put(&one, BOB, 0, 1, NOW), Appended::Stored, "the same again");
        assert_eq!(put(&one, BOB, 0, 9, NOW), Appended::Conflict(1));
        assert_eq!(put(&two, ALICE, 0, 1, NOW), Appended::OverQuota);
        assert_eq!(put(&one, BOB, 1, 2, NOW), Appended::Stored);
        assert_eq!(put(&one, BOB, 2, 3, NOW), Appended::Stored);
        assert_eq!(put(&one, BOB, 3, 4, NOW), Appended::Full);
        let entry = |byte| Bytes::from(vec![byte; 10]);
        let read = |from, bytes| registers.read(&one, from, bytes, NOW).unwrap().unwrap();
        assert_eq!(read(0, 100), (3, vec![entry(1), entry(2), entry(3)]));
        assert_eq!(read(1, 5), (3, vec![entry(2)]), "at least one");
        assert_eq!(read(3, 100), (3, vec![]));
        assert_eq!(read(u64::MAX, 100), (3, vec![]));
        registers.sweep(NOW).unwrap();
        assert!(registers.read(&one, 0, 100, NOW).unwrap().is_some(), "touched just now");
        registers.sweep(NOW.plus(40 * chatcore::ids::DAY)).unwrap();
        assert_eq!(registers.read(&one, 0, 100, NOW), Ok(None));
        assert_eq!(put(&two, ALICE, 0, 1, NOW), Appended::Stored, "its place is free again");
    });
}

#[test]
fn an_open_room_keeps_its_events_and_the_newest_statement_of_each() {
    on_both(|stores| {
        let rooms = &stores.open_rooms;
        let signed = |nick| User::new().first(nick).signed().clone();
        let (a, b, c) = (signed("a"), signed("b"), signed("c"));
        assert_eq!((rooms.lobby(), rooms.load()), (Ok(None), Ok(vec![])));
        rooms.begin_lobby(&ROOM, &a).unwrap();
        assert_eq!(rooms.lobby(), Ok(Some(ROOM)));
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
        rooms.forget(&[ROOM], &ALICE).unwrap();
        assert_eq!(lobby(rooms.load().unwrap()).statements, [(BOB, statement(2, &b))]);
        rooms.remove(&OTHER).unwrap();
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
        all.iter().try_for_each(|one| said.append(one)).unwrap();
        assert_eq!(said.after(0, 2), Ok(all[..2].to_vec()));
        assert_eq!(said.after(5, 64), Ok(all[1..].to_vec()));
        assert_eq!(said.after(u64::MAX, 64), Ok(vec![]));
        said.sweep(NOW.plus(2)).unwrap();
        assert_eq!(said.after(0, 64), Ok(all[2..].to_vec()));
        said.sweep(Timestamp(u64::MAX)).unwrap();
        assert_eq!((said.after(0, 64), said.newest()), (Ok(vec![]), Ok(9)));
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
