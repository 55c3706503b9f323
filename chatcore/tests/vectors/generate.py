#!/usr/bin/env python3
"""Test vectors for protocol version 1, written from docs/PROTOCOL.md and proto/schema alone.

    pip install -r requirements.txt
    python3 generate.py            rewrites the JSON files beside this one
    python3 generate.py --check    exits 1 when one of them differs
    python3 generate.py --verbose  also tells why each refused variant was refused

It, protocol.py and delivery.py share no code with the Rust sources, so that a fault has to be made twice to go unseen. Every secret
comes from a label (see `rnd`), so the files are the same on each run. Whatever is sealed here is opened again from the
other side, and every refused variant was refused by the checks in protocol.py.
"""
import base64, copy, hashlib, json, struct, sys
from pathlib import Path

import blake3

sys.dont_write_bytecode = True  # leave no __pycache__ among the vectors
from protocol import *
from delivery import *

T0 = 1_750_000_000_000  # the "now" the stories start at


def rnd(label, length=32):
    blocks = (sha256(b"chatcore test vector/" + label.encode() + u32(i)) for i in range((length + 31) // 32))
    return b"".join(blocks)[:length]


def source(label):
    """The randomness of one ratchet message."""
    return lambda what, length: rnd(f"{label}/{what}", length)


# ---- variants that have to be refused ----

def flip(message, at): return message[:at] + u8(message[at] ^ 1) + message[at + 1:] if at >= 0 else flip(message, at + len(message))


def refused(name, check, message, *args, **extra):
    try:
        check(message, *args)
    except (ValueError, UnicodeError) as reason:
        if VERBOSE: print(f"  refused: {name}: {reason}")
        return {"name": name, **extra, "bytes": message}
    raise AssertionError("was accepted: " + name)


# ---- section 2: signed objects ----

class User:
    def __init__(self, name, nickname):
        self.seed, self.nickname = rnd(f"{name}/identity"), nickname.encode()
        self.key = ed_public(self.seed)
        self.id = user_id(self.key)
        self.signing, self.agreement, self.link = (rnd(f"{name}/device 1/{k}") for k in ("signing", "agreement", "link"))
        self.cert_body = self.certify(1)
        self.cert = signed(self.seed, CERT, self.cert_body)
        self.cert_hash = sha256(self.cert_body)
        self.body = self.change()
        self.record = self.signed(self.body)

    def certify(self, device):
        return cert_body(self.id, device, ed_public(self.signing), Key(self.agreement).public, Key(self.link).public, T0)

    def change(self, **changes):
        return record_body(**dict(identity=self.key, nickname=self.nickname, version=1, prev=bytes(32), devices=[self.cert]) | changes)

    def signed(self, body, label=USER): return signed(self.seed, label, body)

    def fields(self):
        return {"nickname": self.nickname.decode(), "identity_seed": self.seed, "identity_key": self.key, "user_id": self.id,
                "device_id": 1, "signing_seed": self.signing, "signing_key": ed_public(self.signing),
                "agreement_secret": self.agreement, "agreement_key": Key(self.agreement).public,
                "link_secret": self.link, "link_key": Key(self.link).public, "cert_body": self.cert_body,
                "cert_signature": sign(self.seed, CERT, self.cert_body), "cert": self.cert, "cert_hash": self.cert_hash}


ALICE, BOB = User("alice", "Zoë Müller"), User("bob", "bob")


def user_record():
    a = ALICE
    v1 = a.record
    body2 = a.change(nickname="Zoë Maier".encode(), version=2, prev=sha256(a.body))
    v2 = a.signed(body2)
    closing_body = a.change(version=3, prev=sha256(body2), devices=[])
    closing = a.signed(closing_body)
    check_record(v1, a.id), check_record(v2, a.id, v1), check_record(closing, a.id, v2)
    parts = sorted((safety_digits(u.key), u.key) for u in (a, BOB))
    certs = [signed(a.seed, CERT, a.certify(i)) for i in range(1, 10)]
    def of_length(length):
        return next(m for m in (a.signed(a.body + sub(15, bytes(n))) for n in range(length)) if len(m) == length)
    accepted = [
        ("eight devices", a.signed(a.change(devices=certs[:8]))),
        ("nickname of 32 characters", a.signed(a.change(nickname=("ü" * 32).encode()))),
        ("unknown field 15 in the body", a.signed(a.body + sub(15, b"later"))),
        ("of 4,000 bytes", of_length(4000)),
    ]
    for _, message in accepted:
        check_record(message, a.id)

    bad = []
    def refuse(name, message, expected=a.id): bad.append(refused(name, check_record, message, expected, user_id=expected))
    def changed(name, **changes): refuse(name, a.signed(a.change(**changes)))
    refuse("empty", b"")
    refuse("truncated", v1[:-1])
    refuse("trailing byte", v1 + b"\0")
    refuse("flipped bit in the body", flip(v1, 40))
    refuse("flipped bit in the signature", flip(v1, -1))
    refuse("signature of 63 bytes", sub(1, a.body) + sub(2, sign(a.seed, USER, a.body)[:63]))
    s = sign(a.seed, USER, a.body)  # S + L verifies too unless S is checked to be reduced
    order = 2**252 + 27742317777372353535851937790883648493
    refuse("signature not canonical", sub(1, a.body) + sub(2, s[:32] + (int.from_bytes(s[32:], "little") + order).to_bytes(32, "little")))
    refuse("wrong label", a.signed(a.body, CERT))
    refuse("signed by another identity", BOB.signed(a.body))
    refuse("another user's record", BOB.record)
    # With the neutral element as key, (R = neutral element, S = 0) verifies for every body unless small orders are refused.
    weak_signature = sub(2, u8(1) + bytes(63))
    for name, key in ("small-order identity key", u8(1) + bytes(31)), ("identity key not canonical", b"\xee" + b"\xff" * 30 + b"\x7f"):
        cert = sub(1, cert_body(user_id(key), 1, ed_public(a.signing), Key(a.agreement).public, Key(a.link).public, T0)) + weak_signature
        refuse(name, sub(1, a.change(identity=key, devices=[cert])) + weak_signature, user_id(key))
    refuse("identity key of 31 bytes", a.signed(a.change(identity=a.key[:31])), user_id(a.key[:31]))
    for name, nick in {"empty": "", "of 33 characters": "n" * 33, "not NFC": "Zoe\u0308", "bidi override": "evil\u202etxt",
                       "leading #": "#zoe", "leading !": "!zoe", "leading @": "@zoe", "# behind a space": "zoe #m", "control character": "zo\u0007e", "zero-width joiner": "zo\u200de",
                       "private use": "zo\ue000e", "no-break space": "zoe\u00a0m", "two spaces": "zoe  m", "leading space": " zoe",
                       "trailing space": "zoe ", "line separator": "zoe\u2028m"}.items():
        changed("nickname: " + name, nickname=nick.encode())
    changed("nickname: not UTF-8", nickname=b"zo\xff")
    changed("version 0", version=0)
    changed("version 0 with a prev_hash", version=0, prev=rnd("any hash"))
    changed("version 1 with a prev_hash", prev=rnd("any hash"))
    changed("version 2 without a prev_hash", version=2)
    changed("prev_hash of 31 bytes", version=2, prev=sha256(a.body)[:31])
    changed("prev_hash missing", prev=b"")
    changed("nine devices", devices=certs)
    changed("device id twice", devices=[a.cert, a.cert])
    def with_cert(name, body, seed=a.seed, label=CERT): changed("certificate: " + name, devices=[signed(seed, label, body)])
    with_cert("wrong label", a.cert_body, label=USER)
    with_cert("signed by another identity", a.cert_body, BOB.seed)
    with_cert("of another user", BOB.certify(1))
    with_cert("device id 0", a.certify(0))
    with_cert("signing key of 31 bytes", cert_body(a.id, 1, ed_public(a.signing)[:31], Key(a.agreement).public, Key(a.link).public, T0))
    with_cert("agreement key of 33 bytes", cert_body(a.id, 1, ed_public(a.signing), Key(a.agreement).public + b"\0", Key(a.link).public, T0))
    with_cert("link key missing", cert_body(a.id, 1, ed_public(a.signing), Key(a.agreement).public, b"", T0))
    changed("certificate: flipped bit", devices=[flip(a.cert, 60)])
    refuse("of 4,001 bytes", of_length(4001))
    # An honest key, and R = neutral element: S = k * secret scalar verifies unless R of small order is refused.
    digest = bytearray(hashlib.sha512(a.seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    neutral = u8(1) + bytes(31)
    k = int.from_bytes(hashlib.sha512(neutral + a.key + USER + b"\0" + a.body).digest(), "little")
    weak_r = neutral + (k * int.from_bytes(digest, "little") % order).to_bytes(32, "little")
    refuse("R of small order under an honest key", sub(1, a.body) + sub(2, weak_r))

    not_extending = []
    def stray(name, message, before):
        check_record(message, user_id(one(parse(split_signed(message)[0]), 1)))  # it is valid by itself
        not_extending.append(refused(name, check_record, message, a.id, before, previous=before))
    stray("version 3 on version 1", a.signed(a.change(version=3, prev=sha256(a.body))), v1)
    stray("wrong prev_hash", a.signed(a.change(version=2, prev=flip(sha256(a.body), 0))), v1)
    stray("prev_hash is of the encoded Signed", a.signed(a.change(version=2, prev=sha256(v1))), v1)
    stray("another identity", BOB.signed(BOB.change(version=2, prev=sha256(a.body))), v1)
    stray("after the closing record", a.signed(a.change(version=4, prev=sha256(closing_body))), closing)
    stray("the same version again", v1, v1)

    def version(number, nick, body, message):
        return {"version": number, "nickname": nick, "body": body, "signature": split_signed(message)[1], "hash": sha256(body), "bytes": message}
    return {"user": a.fields(), "issued_at": T0, "not_after": T0 + 180 * DAY,
            "v1": version(1, "Zoë Müller", a.body, v1), "v2": version(2, "Zoë Maier", body2, v2),
            "closing": version(3, "Zoë Müller", closing_body, closing),
            "accepted": [{"name": n, "user_id": a.id, "bytes": m} for n, m in accepted],
            "second_user": {"identity_seed": BOB.seed, "identity_key": BOB.key, "user_id": BOB.id},
            "safety_digits": safety_digits(a.key), "second_safety_digits": safety_digits(BOB.key),
            "safety_number": parts[0][0] + parts[1][0],
            "qr": "CHATSAFE1" + base64.b32encode(parts[0][1] + parts[1][1]).decode().rstrip("="),
            "refused": bad, "not_extending": not_extending}


# ---- section 3: link ----

def link():
    relay, relay_seed, device = Key(rnd("relay/x25519")), rnd("relay/ed25519"), Key(ALICE.link)
    relay_key = ed_public(relay_seed) + relay.public
    def prologue(version): return b"chatcore/1/link" + relay_key + u16(version)
    def link_psk(ss, ek, ct): return hkdf(b"", ss, b"chatcore/1/link-psk" + sha256(ek) + sha256(ct), 32)
    seed, m = rnd("link/ml-kem seed", 64), rnd("link/encapsulation")
    e, re = Key(rnd("link/device ephemeral")), Key(rnd("link/relay ephemeral"))
    ek, dk = kem_key(seed)
    frame = num(1, 1) + sub(2, b"")  # DeviceFrame{request_id: 1, login: {}}

    def as_device(version=1): return Noise("XKpsk2", True, prologue(version), device, relay.public)
    def as_relay(): return Noise("XKpsk2", False, prologue(1), relay)
    def framed(record): return u16(len(record)) + record

    def read1(record, noise=None):
        need(len(record) == 1232, "record 1 length")
        offered = (noise or as_relay()).read(record)
        check_ek(offered)
        return offered

    dev, rel = as_device(), as_relay()
    record1 = dev.write(ek, e)
    assert read1(record1, rel) == ek
    ss, ct = encaps(ek, m)
    psk = link_psk(ss, ek, ct)
    before2, after1 = copy.deepcopy(dev), copy.deepcopy(rel)
    def answer(payload=b"", ephemeral=re, key=psk): return ct + copy.deepcopy(after1).write(payload, ephemeral, key)

    def read2(record, noise=None):
        need(len(record) == 1136, "record 2 length")
        noise = noise or copy.deepcopy(before2)
        noise.read(record[1088:], link_psk(decaps(dk, record[:1088]), ek, record[:1088]))

    record2 = ct + rel.write(b"", re, psk)
    read2(record2, dev)
    before3 = copy.deepcopy(rel)
    forger = copy.deepcopy(dev)
    record3 = dev.write(frame)
    assert rel.read(record3) == frame and rel.rs == device.public and rel.h == dev.h
    k1, k2 = dev.split()
    assert (k1, k2) == rel.split()

    def record3_by(static):
        noise = copy.deepcopy(forger)
        noise.s = static
        return noise.write(frame)
    def read3(record): copy.deepcopy(before3).read(record)
    def read_transport(record):
        plaintext = Cipher(k1).unseal(b"", record)
        need(plaintext and plaintext[0] in (0, 1), "flags")

    transport, ciphers = [], {"device": Cipher(k1), "relay": Cipher(k2)}
    for sender, flags, fragment in (("device", 0, b"hello relay"), ("relay", 0, b"hello device"),
                                    ("device", 1, b"in two "), ("device", 0, b"fragments")):
        sealed = ciphers[sender].seal(b"", u8(flags) + fragment)
        transport.append({"from": sender, "flags": flags, "fragment": fragment, "bytes": framed(sealed)})
    rekeyed = [seal(k, bytes(4) + b"\xff" * 8, b"", bytes(32))[:32] for k in (k1, k2)]  # Noise REKEY
    late = Cipher(rekeyed[0])
    late.n = 65536

    bad = []
    def refuse(which, name, check, record): bad.append(refused(name, check, record, record=which) | {"bytes": framed(record)})
    def first(payload=ek, ephemeral=e, version=1): return as_device(version).write(payload, ephemeral)
    refuse(1, "truncated", read1, record1[:-1])
    refuse(1, "trailing byte", read1, record1 + b"\0")
    refuse(1, "flipped bit in the ephemeral key", read1, flip(record1, 0))
    refuse(1, "flipped bit in the payload", read1, flip(record1, 500))
    refuse(1, "low-order ephemeral key", read1, first(ephemeral=LowOrder()))
    refuse(1, "another low-order ephemeral key", read1, first(ephemeral=LowOrder(u8(1) + bytes(31))))
    refuse(1, "encapsulation key of 1,183 bytes", read1, first(ek[:-1]))
    refuse(1, "encapsulation key not reduced", read1, first(not_reduced(ek)))
    refuse(1, "wrong version", read1, first(version=2))
    refuse(2, "truncated", read2, record2[:-1])
    refuse(2, "trailing byte", read2, record2 + b"\0")
    refuse(2, "flipped bit in the ciphertext", read2, flip(record2, 7))
    refuse(2, "flipped bit in the ephemeral key", read2, flip(record2, 1088))
    refuse(2, "flipped bit in the tag", read2, flip(record2, -1))
    refuse(2, "low-order ephemeral key", read2, answer(ephemeral=LowOrder()))
    refuse(2, "payload not empty", read2, answer(b"x"))
    refuse(2, "psk of zeros", read2, answer(key=bytes(32)))
    refuse(3, "truncated", read3, record3[:-1])
    refuse(3, "flipped bit in the static key", read3, flip(record3, 0))
    refuse(3, "flipped bit in the payload", read3, flip(record3, 49))
    refuse(3, "low-order static key", read3, record3_by(LowOrder()))
    first_record = transport[0]["bytes"][2:]
    refuse("transport", "flipped bit", read_transport, flip(first_record, 3))
    refuse("transport", "truncated", read_transport, first_record[:-1])
    refuse("transport", "flags 2", read_transport, Cipher(k1).seal(b"", b"\x02hello relay"))
    refuse("transport", "no flags", read_transport, Cipher(k1).seal(b"", b""))
    refuse("transport", "the other direction's key", read_transport, Cipher(k2).seal(b"", b"\0hello relay"))

    token = rnd("link/token", 16)
    def b64(raw): return base64.urlsafe_b64encode(raw).decode().rstrip("=")
    return {"relay_x25519_secret": relay.secret, "relay_ed25519_seed": relay_seed, "relay_key": relay_key,
            "invite_link": {"host": "relay.example", "port": 4433, "token": token,
                            "without_token": f"chat://relay.example:4433/{b64(relay_key)}",
                            "with_token": f"chat://relay.example:4433/{b64(relay_key)}#{b64(token)}"},
            "device_link_secret": device.secret, "device_link_key": device.public, "version": 1, "prologue": prologue(1),
            "kem_seed": seed, "device_ephemeral_secret": e.secret, "device_random": seed + e.secret,
            "encapsulation_randomness": m, "relay_ephemeral_secret": re.secret, "relay_random": m + re.secret,
            "ek": ek, "ct": ct, "ss": ss, "psk": psk, "record1": framed(record1), "record2": framed(record2),
            "record3_payload": frame, "record3": framed(record3), "handshake_hash": dev.h, "k1": k1, "k2": k2,
            "transport": transport, "rekeyed": {"k1": rekeyed[0], "k2": rekeyed[1],
                                                "record_65536": framed(late.seal(b"", b"\0after the rekey"))},
            "refused": bad}


# ---- section 7: content and padding ----

def make_content(name, body, seq=0, previous=b"", sent_at=T0, receipts=(), next_tag=b""):
    return {"message_id": rnd("message id/" + name, 16), "sender_seq": seq, "previous_own_hash": previous or (bytes(32) if seq else b""),
            "sent_at": sent_at, "receipts": list(receipts), "next_tag": next_tag, "body": body}


def text(t): return {"kind": "text", "text": t}


def envelope():
    digest, tag = rnd("a content's hash"), rnd("a tag", 16)
    receipts = [{"message_id": rnd(f"receipt {i}", 16), "kind": 1} for i in range(64)]
    a_manifest = {"file_key": rnd("manifest/key"), "file_id": rnd("manifest/file id", 16), "blob_id": rnd("manifest/blob id", 16),
                  "size": 65537, "chunk_size": 65536, "chunk_count": 2, "root": rnd("manifest/root"), "name": "Foto.jpg", "media_type": "image/jpeg"}
    long_manifest = a_manifest | {"name": "", "media_type": "", "size": 65536, "chunk_count": 1}
    profile = {"kind": "profile", "record_body": ALICE.body, "record_signature": split_signed(ALICE.record)[1]}
    positive = {
        "text": make_content("text", text("Grüße 👋"), 1),
        "text with a hash, receipts and a tag": make_content("second text", text("more"), 2, digest, receipts=receipts[:2], next_tag=tag),
        "sequence number of three bytes": make_content("third text", text("x"), 70_000, digest),
        "empty with receipts": make_content("empty", {"kind": "empty"}, receipts=receipts[:3]),
        "each kind of receipt": make_content("kinds", {"kind": "empty"}, receipts=[
            receipts[0], receipts[1] | {"kind": 2}, receipts[2] | {"kind": 4},
            *(receipts[3 + reason] | {"kind": 3, "reason": reason} for reason in range(5)),
            receipts[8] | {"kind": 3, "reason": 99}]),
        "receipts of kinds that are not known among others": make_content("newer kinds", text("all the same"), 6, digest, receipts=[
            receipts[0], receipts[1] | {"kind": 5}, receipts[2] | {"kind": 0}, receipts[3] | {"kind": 99, "reason": 1}, receipts[4] | {"kind": 2}]),
        "64 receipts": make_content("receipts", {"kind": "empty"}, receipts=receipts),
        "file": make_content("file", {"kind": "file", "manifest": a_manifest}, 3, digest),
        "long text": make_content("long", {"kind": "long_text", "manifest": long_manifest}, 4, digest),
        "file cut as a text is": make_content("small file", {"kind": "file", "manifest": a_manifest | {"size": 3000, "chunk_size": 4096, "chunk_count": 1}}, 7, digest),
        "long text cut as a file is": make_content("odd text", {"kind": "long_text", "manifest": long_manifest | {"size": 3000}}, 8, digest),
        "long text with a name": make_content("named text", {"kind": "long_text", "manifest": long_manifest | {"name": "a.txt", "media_type": "text/plain"}}, 9, digest),
        "profile": make_content("profile", profile),
        "reset": make_content("reset", {"kind": "reset"}),
        "unknown body": make_content("unknown", {"kind": "unknown", "field": 99, "bytes": b"\x0a\x03new"}, 5, digest),
    }
    for c in positive.values():
        check_content(content(c))
        assert unpad(pad(content(c), 99)) == content(c)

    base, no_body = positive["text"], content(positive["text"])[:-len(sub(20, data(1, "Grüße 👋".encode())))]
    bad, encoded = [], content(positive["text"])
    a_text, an_empty, newer, unreadable = sub(20, data(1, b"said")), sub(22, b""), sub(99, b"\x0a\x03new"), sub(20, data(1, b"\xff"))
    front = no_body
    same = [{"name": name, "bytes": front + more, "same_as": front + rest} for name, more, rest in [
        ("two bodies: the last counts", an_empty + a_text, a_text), ("two bodies, the other way", a_text + an_empty, an_empty),
        ("an unknown body behind one", a_text + newer, a_text), ("an unknown body before one", newer + a_text, a_text),
        ("only an unknown body", newer, b""), ("a receipt of an unknown kind", sub(9, receipt(receipts[0] | {"kind": 9})) + a_text, a_text),
        ("receipts behind the body", a_text + sub(9, receipt(receipts[0])), sub(9, receipt(receipts[0])) + a_text)]]
    for case in same:
        check_content(case["bytes"]), check_content(case["same_as"])
    def refuse(name, message): bad.append(refused(name, check_content, message))
    def changed(name, **changes): refuse(name, content(base | changes))
    refuse("empty", b"")
    refuse("truncated", encoded[:-1])
    refuse("trailing byte", encoded + b"\0")
    refuse("text not UTF-8", no_body + sub(20, data(1, b"\xff\xfe")))
    changed("message_id of 15 bytes", message_id=bytes(15))
    changed("message_id of 17 bytes", message_id=bytes(17))
    changed("message_id missing", message_id=b"")
    changed("previous_own_hash of 31 bytes", previous_own_hash=bytes(31))
    changed("previous_own_hash missing", previous_own_hash=b"")
    changed("previous_own_hash without a sequence number", sender_seq=0)
    changed("next_tag of 15 bytes", next_tag=tag[:15])
    changed("65 receipts", receipts=receipts + receipts[:1])
    changed("receipt with a message_id of 15 bytes", receipts=[{"message_id": bytes(15), "kind": 1}])
    changed("receipt of an unknown kind with a message_id of 15 bytes", receipts=[{"message_id": bytes(15), "kind": 5}])

    def with_manifest(name, kind="file", **changes):
        of = a_manifest if kind == "file" else long_manifest
        changed(name, body={"kind": kind, "manifest": of | changes})
    with_manifest("file with a chunk more than its size has", chunk_count=3)
    with_manifest("file with chunks of 65,537 bytes", chunk_size=65537)
    with_manifest("file with chunks of 0 bytes", chunk_size=0)
    with_manifest("file of more than 16 GiB", size=(16 << 30) + 1)
    with_manifest("file without a root", root=b"")
    with_manifest("file with a key of 31 bytes", file_key=bytes(31))
    with_manifest("long text of 65,537 bytes", "long_text", size=65537, chunk_count=2)
    changed("next_tag of zeros", next_tag=bytes(16))
    changed("profile with a signature of 63 bytes", body=profile | {"record_signature": profile["record_signature"][:63]})

    # Blobs of kind 2 for the longest content of each size and for one byte more, which takes the next size or none.
    key, session, mk, nonce = rnd("edge/header key"), rnd("edge/session", 16), rnd("edge/mk"), rnd("edge/nonce", 24)
    header = u8(0) + Key(rnd("edge/ratchet")).public + u32(0) + u32(0)
    overhead, edges = ratchet_overhead(header), []
    for length in [0, 1] + [b - overhead - 1 + more for b in BUCKETS for more in (0, 1)]:
        message = bytes(i % 251 for i in range(length))
        entry = {"content_length": length, "content_sha256": sha256(message)}
        if length + overhead < BUCKETS[-1]:
            padded = pad(message, overhead)
            blob = seal_message(session, key, mk, nonce, header, padded)
            assert unpad(padded) == message and len(blob) in BUCKETS
            entry |= {"padded_length": len(padded), "padded_sha256": sha256(padded), "blob_length": len(blob), "blob_sha256": sha256(blob)}
        edges.append(entry | {"fits": "blob_length" in entry})
    lengths = [{"overhead": o, "content_length": b - o - 1 + more, "blob_length": next((x for x in BUCKETS if b + more <= x), None)}
               for o in (overhead, overhead + 1184, overhead + 1096, overhead + 2280) for b in BUCKETS if b > o for more in (0, 1)]
    padding_bad = [refused(n, unpad, p) for n, p in (("empty", b""), ("only zeros", bytes(413)), ("no 0x80", b"text" + bytes(9)),
                                                     ("another byte after the zeros", b"text\x80\0\0\x01"), ("0x81 for 0x80", b"text\x81\0"))]
    ends = [b"\x80", b"x\x80\0\0", b"\0\0", b""]  # contents that look like padding themselves
    return {"same": same, "contents": [{"name": n, **c, "bytes": content(c), "sha256": sha256(content(c))} for n, c in positive.items()],
            "blobs": {"content": "byte i is i mod 251", "session_id": session, "header_key": key, "header": header, "mk": mk,
                      "nonce": nonce, "overhead": overhead, "edges": edges},
            "padding": lengths, "padding_round_trip": [{"content": e, "padded": pad(e, 99)} for e in ends],
            "refused": bad, "padding_refused": padding_bad}


# ---- section 6: ratchet ----

def script():
    """(sender or "deliver", name, hours since the start)"""
    yield from (("A", "a0", 0.1), ("A", "a1", 0.2), ("A", "a2", 0.3), ("A", "a3", 0.4))
    yield from (("deliver", "a0", 0.5), ("deliver", "a2", 0.5))  # a1 skipped, a3 on the way
    yield from (("B", "b0", 1), ("deliver", "b0", 1.1))
    # 24 hours have passed: A offers a key in her second chain; it rides in n = 0, 1, 2 and 16.
    yield "A", "a4", 25
    yield "deliver", "a4", 25.01  # its PN stores a3
    yield from (("deliver", "a3", 25.02), ("deliver", "a1", 25.03))
    yield from (("A", f"a{i}", 25 + i / 100) for i in range(5, 21))
    yield from (("deliver", "a6", 25.3), ("deliver", "a7", 25.3), ("deliver", "a20", 25.4))
    # B answers in her second chain; every message of it carries the ciphertext. The second arrives first.
    yield from (("B", "b1", 26), ("B", "b2", 26.1), ("deliver", "b2", 26.2), ("deliver", "b1", 26.3))
    yield "deliver", "a5", 26.4  # the offer once more, of a key already answered: not answered again
    # 24 hours after the step B offers in the same chain: both flags.
    yield from (("B", "b3", 51), ("deliver", "b3", 51.1))
    # A's 24 hours have passed as well, but she holds B's key: she answers instead of offering.
    yield from (("A", "a21", 51.5), ("A", "a22", 51.6), ("deliver", "a21", 51.7), ("deliver", "a22", 51.8))
    yield from (("B", "b4", 52), ("deliver", "b4", 52.1), ("A", "a23", 53), ("deliver", "a23", 53.1))
    # B offers again, in n = 0, 1 and 2, of which one comes late and none in order: A does not take it, and offers herself.
    yield from (("B", f"b{i}", 80 + i / 100) for i in range(5, 9))
    yield from (("deliver", "b8", 80.5), ("deliver", "b5", 80.6), ("A", "a24", 81), ("deliver", "a24", 81.1))


def ratchet():
    names = "session_id root_key first_chain_key first_header_key next_header_key_a next_header_key_b".split()
    derived = [rnd("ratchet/" + n, 16 if n == "session_id" else 32) for n in names]
    a0, start = rnd("ratchet/a0"), T0
    sides = {"A": Ratchet(True, *derived, a0, start), "B": Ratchet(False, *derived, Key(a0).public, start)}
    events, messages, seq, previous, bad, snapshots = [], {}, {"A": 0, "B": 0}, {"A": b"", "B": b""}, [], {}
    for kind, name, hours in script():
        now = start + round(hours * HOUR)
        assert not events or now >= events[-1]["now"]
        if kind == "deliver":
            other = "B" if name[0] == "a" else "A"
            assert sides[other].open(messages[name]["bytes"], now) == messages[name]["content"]
            events.append({"event": "deliver", "name": name, "to": other, "now": now})
        else:
            seq[kind] += 1
            tag = rnd("ratchet/tag", 16) if name == "b0" else b""
            message = content(make_content("ratchet/" + name, text("message " + name), seq[kind], previous[kind], now, next_tag=tag))
            previous[kind] = sha256(message)
            messages[name] = {"sender": kind, "now": now} | sides[kind].send(source("ratchet/" + name), now, message)
            events.append({"event": "send", "name": name, "now": now})
        snapshots[name, kind == "deliver"] = len(events), copy.deepcopy(sides)

    def at(name, delivered=True):
        count, both = snapshots[name, delivered]
        return count, copy.deepcopy(both)

    def refuse(name, moment, to, message):
        count, both = moment
        state = copy.deepcopy(both[to].__dict__)
        bad.append(refused(name, both[to].open, message, events[count - 1]["now"], to=to, after_event=count - 1))
        assert both[to].__dict__ == state

    def forge(side, header=None, skip=0, session=None, hk=None, padded=None, **parts):
        """What `side` would send next, with parts of it changed and everything authentic."""
        ck, n = side.cks, side.ns + skip
        for _ in range(skip):
            ck = hmac256(ck, b"\2")
        f = dict(flags=u8(2 if side.answer else 0), key=Key(side.own).public, pn=u32(side.pn), n=u32(n), rest=side.answer) | parts
        return seal_message(session or side.session, hk or side.hks, hmac256(ck, b"\1"), rnd("ratchet/forged", 24),
                            b"".join(f.values()) if header is None else header, padded or pad(b"forged", 99))

    def forge_chain(side, own, pq=b"", answer=b""):
        """A new chain of `side` with a ratchet key or an answer of the forger's choice."""
        side = copy.deepcopy(side)
        side.rk, ck, _ = root_step(side.rk, own.dh(side.peer), pq, answer[8:])
        header = u8(2 if answer else 0) + own.public + u32(side.ns) + u32(0) + answer
        return seal_message(side.session, side.nhks, hmac256(ck, b"\1"), rnd("ratchet/forged", 24), header, pad(b"forged", 99 + len(answer)))

    moment, good = at("a3", False), messages["a0"]["bytes"]
    for name, message in {"empty": b"", "truncated": good[:-1], "trailing byte": good + b"\0", "only a nonce": good[:24],
                          "flipped bit in the nonce": flip(good, 0), "flipped bit in the sealed header": flip(good, 30),
                          "flipped bit in the body": flip(good, 100), "flipped bit in the tag": flip(good, -1),
                          "header length one less": good[:24] + u16(56) + good[26:], "header length past the end": good[:24] + u16(600) + good[26:],
                          "the nonce of another message": messages["a1"]["bytes"][:24] + good[24:],
                          "sent back to its sender": good}.items():
        refuse(name, moment, "A" if "back" in name else "B", message)
    moment = at("a2")
    alice = moment[1]["A"]
    refuse("opened before", moment, "B", good)
    refuse("unknown flag", moment, "B", forge(alice, flags=u8(4)))
    refuse("flag 1 without a key", moment, "B", forge(alice, flags=u8(1)))
    refuse("flag 1 with a key of 1,183 bytes", moment, "B", forge(alice, flags=u8(1), rest=bytes(1183)))
    refuse("flag 2 without a ciphertext", moment, "B", forge(alice, flags=u8(2)))
    refuse("header with a trailing byte", moment, "B", forge(alice, rest=b"\0"))
    refuse("header of 40 bytes", moment, "B", forge(alice, header=bytes(40)))
    refuse("another session", moment, "B", forge(alice, session=rnd("ratchet/other session", 16)))
    refuse("another header key", moment, "B", forge(alice, hk=rnd("ratchet/other key")))
    refuse("a jump over 2,001 messages", moment, "B", forge(alice, skip=2000))  # a3 is missing there too
    moment = at("b0")
    refuse("new chain with a low-order ratchet key", moment, "B", forge_chain(moment[1]["A"], LowOrder()))
    moment = at("a20")  # A's offer is outstanding, B is about to answer
    bob, own = moment[1]["B"], Key(rnd("ratchet/forged own"))
    pq, ct = encaps(bob.held, rnd("ratchet/forged m"))
    refuse("ciphertext that names another key", moment, "A", forge_chain(bob, own, pq, bytes(8) + ct))
    refuse("ciphertext with a flipped bit", moment, "A", forge_chain(bob, own, pq, sha256(bob.held)[:8] + flip(ct, 5)))
    moment = at("a5")
    refuse("skipped message opened before", moment, "B", messages["a1"]["bytes"])
    refuse("message of a chain long past", moment, "B", messages["a0"]["bytes"])
    moment = at("b4")  # nothing outstanding
    pq, ct = encaps(messages["a4"]["offer_ek"], rnd("ratchet/forged m"))
    refuse("ciphertext for a key long answered", moment, "B", forge_chain(moment[1]["A"], own, pq, sha256(messages["a4"]["offer_ek"])[:8] + ct))
    return {"started_at": start, "a0_secret": a0, "a0": Key(a0).public, **dict(zip(names, derived)),
            "events": events, "messages": [{"name": n, **m} for n, m in messages.items()], "refused": bad}


# ---- section 5: first message ----

def check_prekey(message, now=T0):
    body, signature = split_signed(message)
    verify(ed_public(BOB.signing), PREKEY, body, signature)
    f = parse(body)
    need(one(f, 1, 0) == 1 and one(f, 2) == BOB.id and one(f, 3, 0) == 1 and one(f, 4) == BOB.cert_hash, "prekey of another")
    need(one(f, 5, 0) >= 1 and one(f, 6, 0) in (1, 2) and len(one(f, 7)) == 48 and now <= one(f, 9, 0), "prekey field")
    check_ek(one(f, 8))
    return one(f, 7), one(f, 8)


def first_message():
    a, b, relay_key = ALICE, BOB, ed_public(rnd("relay/ed25519")) + Key(rnd("relay/x25519")).public
    prekey_id, secret, seed, not_after = 7, Key(rnd("first/prekey")), rnd("first/ml-kem seed", 64), T0 + 30 * DAY
    ek, dk = kem_key(seed)
    agreement_a, agreement_b = Key(a.agreement), Key(b.agreement)

    def prologue(number=prekey_id, kind=1, cert=b.cert_hash):
        return (b"chatcore/1/e2e" + u16(1) + relay_key + b.id + u32(1) + cert + u64(number) + u8(kind) + sha256(ek))

    def publish(e=secret, **named): return Noise("KXpsk2", True, prologue(**named), agreement_b).write(b"", e)
    msg1 = publish()

    def prekey(seed=b.signing, label=PREKEY, **changes):
        f = dict(suite=1, user=b.id, device=1, cert=b.cert_hash, number=prekey_id, kind=1, msg1=msg1, ek=ek, not_after=not_after) | changes
        body = (num(1, f["suite"]) + data(2, f["user"]) + num(3, f["device"]) + data(4, f["cert"]) + num(5, f["number"]) + num(6, f["kind"])
                + data(7, f["msg1"]) + data(8, f["ek"]) + num(9, f["not_after"]))
        return signed(seed, label, body)

    last_resort_msg1 = publish(kind=2)
    last_resort = prekey(kind=2, msg1=last_resort_msg1, not_after=T0)  # good for this very millisecond
    check_prekey(last_resort)

    m, tag, a0, e = rnd("first/encapsulation"), rnd("first/delivery tag", 16), Key(rnd("first/a0")), Key(rnd("first/ephemeral"))
    ss, ct = encaps(ek, m)
    psk = hkdf(b"", ss, b"chatcore/1/psk" + sha256(ek) + sha256(ct) + sha256(msg1), 32)
    hello = make_content("first", text("hello bob"), 1, sent_at=T0)

    def payload(record=a.record, device=1, ratchet_key=a0.public, low=1, high=1, generation=0, delivery_tag=tag):
        return (sub(1, record) + num(2, device) + data(3, ratchet_key) + num(4, low) + num(5, high) + num(6, generation) + data(7, delivery_tag))

    def start(sent=None, static=agreement_a, ephemeral=e, pro=None, to=msg1, key=psk, ct_sent=ct):
        """A's side; the arguments are what a forger would change."""
        sent = payload() if sent is None else sent
        noise = Noise("KXpsk2", False, prologue() if pro is None else pro, static, agreement_b.public)
        noise.read(to)
        msg2 = noise.write(sent, ephemeral, key)
        k1, k2 = noise.split()
        prk = extract(noise.h, k1 + k2)
        okm = expand(prk, b"chatcore/1/session", 176)
        derived = [okm[:16]] + [okm[i:i + 32] for i in range(16, 176, 32)]
        before = u64(prekey_id) + ct_sent + u16(len(msg2)) + msg2
        log = Ratchet(True, *derived, a0.secret, T0).send(source("first"), T0, content(hello), before)
        return msg2, noise.h, k1, k2, prk, derived, before, log

    def receive(blob):
        need(len(blob) >= 1098 and blob[:8] == u64(prekey_id), "unknown prekey")
        ct_seen, length = blob[8:1096], struct.unpack(">H", blob[1096:1098])[0]
        msg2, rest = blob[1098:1098 + length], blob[1098 + length:]
        need(len(msg2) == length, "length of msg2")
        noise = Noise("KXpsk2", True, prologue(), agreement_b)
        assert noise.write(b"", secret) == msg1
        key = hkdf(b"", decaps(dk, ct_seen), b"chatcore/1/psk" + sha256(ek) + sha256(ct_seen) + sha256(msg1), 32)
        p = parse(noise.read(msg2, key))
        record = one(p, 1)
        identity = one(parse(split_signed(record)[0]), 1)
        devices = check_record(record, user_id(identity))
        need(one(p, 2, 0) in devices and one(devices[one(p, 2, 0)], 4) == noise.rs, "agreement key")
        need(one(p, 4, 0) <= 1 <= one(p, 5, 0) and len(one(p, 3)) == 32 and len(one(p, 7)) == 16, "payload")
        k1, k2 = noise.split()
        okm = expand(extract(noise.h, k1 + k2), b"chatcore/1/session", 176)
        side = Ratchet(False, okm[:16], *(okm[i:i + 32] for i in range(16, 176, 32)), one(p, 3), T0)
        message = side.open(rest, T0)
        check_content(message)
        return message

    msg2, h, k1, k2, prk, derived, before, log = start()
    blob = log["bytes"]
    check_prekey(prekey())
    assert receive(blob) == content(hello) and len(blob) in BUCKETS

    bad_prekeys, bad = [], []
    def refuse_prekey(name, **changes): bad_prekeys.append(refused(name, check_prekey, prekey(**changes)))
    good = prekey()
    for name, message in {"empty": b"", "truncated": good[:-1], "trailing byte": good + b"\0", "flipped bit in the body": flip(good, 100),
                          "flipped bit in the signature": flip(good, -1)}.items():
        bad_prekeys.append(refused(name, check_prekey, message))
    refuse_prekey("wrong label", label=CERT)
    refuse_prekey("signed by the identity key", seed=b.seed)
    refuse_prekey("suite 2", suite=2)
    refuse_prekey("of another user", user=a.id)
    refuse_prekey("of another device", device=2)
    # With the first Noise message to match, so that only the field is wrong.
    refuse_prekey("of another certificate", cert=a.cert_hash, msg1=publish(cert=a.cert_hash))
    refuse_prekey("prekey id 0", number=0, msg1=publish(number=0))
    refuse_prekey("kind 0", kind=0)
    refuse_prekey("kind 3", kind=3)
    refuse_prekey("msg1 of 47 bytes", msg1=msg1[:47])
    refuse_prekey("encapsulation key of 1,183 bytes", ek=ek[:-1])
    refuse_prekey("encapsulation key not reduced", ek=not_reduced(ek))
    refuse_prekey("expired", not_after=T0 - 1)

    # Well signed, but the Noise responder must not go on.
    def answer(message): start(to=check_prekey(message)[0])
    for name, message in {"msg1 with a flipped bit in the key": prekey(msg1=flip(msg1, 0)), "msg1 with a flipped bit in the tag": prekey(msg1=flip(msg1, 47)),
                          "msg1 with a low-order key": prekey(msg1=publish(LowOrder()))}.items():
        bad_prekeys.append(refused(name, answer, message))

    def refuse(name, message): bad.append(refused(name, receive, message))
    def forged(name, **changes): refuse(name, start(**changes)[-1]["bytes"])
    refuse("empty", b"")
    refuse("truncated", blob[:-1])
    refuse("trailing byte", blob + b"\0")
    refuse("truncated in msg2", blob[:1200])
    refuse("unknown prekey id", u64(8) + blob[8:])
    for name, where in {"the ciphertext": 8, "the length of msg2": 1097, "the ephemeral key": 1098, "the static key": 1130, "the payload": 1200,
                        "the ratchet header": len(before) + 30, "the ratchet body": -1}.items():
        refuse("flipped bit in " + name, flip(blob, where))
    forged("low-order ephemeral key", ephemeral=LowOrder())
    forged("low-order static key", static=LowOrder())
    forged("static key that is not in the record", static=Key(rnd("first/other static")))
    forged("psk of zeros", key=bytes(32))
    forged("device id that is not in the record", sent=payload(device=2))
    forged("record of another user", sent=payload(record=b.record))
    forged("record with a bad signature", sent=payload(record=flip(a.record, -1)))
    forged("record without devices", sent=payload(record=a.signed(a.change(version=2, prev=sha256(a.body), devices=[]))))
    forged("min_version 2", sent=payload(low=2, high=2))
    forged("max_version 0", sent=payload(low=0, high=0))
    forged("ratchet key of 31 bytes", sent=payload(ratchet_key=a0.public[:31]))
    forged("delivery tag of 15 bytes", sent=payload(delivery_tag=tag[:15]))
    forged("payload truncated", sent=payload()[:-1])
    forged("payload empty", sent=b"")

    names = "session_id root_key first_chain_key first_header_key next_header_key_a next_header_key_b".split()
    def person(u): return u.fields() | {"record_body": u.body, "record": u.record}
    return {"relay_key": relay_key, "now": T0, "a": person(a), "b": person(b), "suite": 1, "prekey_id": prekey_id, "kind": 1, "not_after": not_after,
            "prekey_secret": secret.secret, "kem_seed": seed, "b_random": secret.secret + seed, "kem_ek": ek, "prologue": prologue(), "msg1": msg1,
            "prekey_body": split_signed(good)[0], "prekey_signature": split_signed(good)[1], "prekey": good,
            "encapsulation_randomness": m, "delivery_tag": tag, "a0_secret": a0.secret, "a0": a0.public, "a_ephemeral_secret": e.secret,
            "last_resort": {"kind": 2, "not_after": T0, "msg1": last_resort_msg1, "prekey": last_resort}, "kem_ct": ct, "ss": ss, "psk": psk, "min_version": 1, "max_version": 1, "generation": 0,
            "payload": payload(), "msg2": msg2, "msg2_hash": sha256(msg2), "h": h, "k1": k1, "k2": k2, "prk": prk, **dict(zip(names, derived)),
            "content_fields": hello, "content": content(hello), "before_ratchet_message": before,
            "ratchet_message": {k: log[k] for k in ("n", "pn", "nonce", "header", "header_key", "mk", "body_key", "body_nonce", "sealed_header", "padded")}
            | {"bytes": blob[len(before):]}, "blob": blob, "prekeys_refused": bad_prekeys, "refused": bad}


# ---- section 9: files ----

def file_chunk():
    key, file_id, size = rnd("file/key"), rnd("file/id", 16), 65537
    plain = bytes(i % 251 for i in range(size)).ljust(2 * 65536, b"\0")

    def nonce(i): return u64(i) + bytes(3) + u8(i == 1)
    def chunk_key(salt): return hkdf(b"", key, b"chatcore/1/chunk" + salt, 32)
    def open_chunk(stored, i, ad=file_id):
        need(len(stored) == 65568, "chunk length")
        return unseal(chunk_key(stored[:16]), nonce(i), ad, stored[16:])

    chunks, stored = [], []
    for i in range(2):
        salt, part = rnd(f"file/salt {i}", 16), plain[i * 65536:(i + 1) * 65536]
        stored.append(salt + seal(chunk_key(salt), nonce(i), file_id, part))
        assert open_chunk(stored[i], i) == part
        chunks.append({"index": i, "last": i == 1, "salt": salt, "key": chunk_key(salt), "nonce": nonce(i), "plaintext_sha256": sha256(part),
                       "stored_length": len(stored[i]), "stored_sha256": sha256(stored[i]), "stored_first_64": stored[i][:64], "stored_last_64": stored[i][-64:]})
    root = blake3.blake3(b"".join(stored)).digest()
    fields = {"file_key": key, "file_id": file_id, "blob_id": rnd("file/blob id", 16), "size": size, "chunk_size": 65536, "chunk_count": 2,
              "root": root, "name": "bytes.bin", "media_type": "application/octet-stream"}
    check_manifest(manifest(fields))

    # A stored chunk is too long to print: each entry says what to do with which stored chunk, and as which index it is opened.
    bad = []
    def refuse(name, i, change, what, as_index=None, ad=file_id):
        as_index = i if as_index is None else as_index
        refused(name, open_chunk, change(stored[i]), as_index, ad)
        bad.append({"name": name, "chunk": i, **what, "open_as_index": as_index, "file_id": ad})
    for name, where in ("salt", 3), ("ciphertext", 30000), ("tag", 65567):
        refuse("flipped bit in the " + name, 0, lambda s: flip(s, where), {"flip_lowest_bit_of_byte": where})
    refuse("truncated", 0, lambda s: s[:-1], {"truncate_to": 65567})
    refuse("empty", 0, lambda s: b"", {"truncate_to": 0})
    refuse("trailing byte", 1, lambda s: s + b"\0", {"append": b"\0"})
    refuse("first chunk as the last", 0, lambda s: s, {}, 1)
    refuse("last chunk as the first", 1, lambda s: s, {}, 0)
    refuse("another file", 0, lambda s: s, {}, ad=rnd("file/other id", 16))
    bad_manifests = [refused(name, check_manifest, manifest(fields | change)) for name, change in {
        "file_key of 31 bytes": {"file_key": key[:31]}, "file_id of 17 bytes": {"file_id": file_id + b"\0"}, "blob_id missing": {"blob_id": b""},
        "root of 31 bytes": {"root": root[:31]}, "chunk size of another file size": {"chunk_size": 262144}, "chunk size of no file": {"chunk_size": 65535},
        "count too low": {"chunk_count": 1}, "count too high": {"chunk_count": 3}, "count 0": {"chunk_count": 0},
        "more than 16 GiB": {"size": (16 << 30) + 1, "chunk_size": 1048576, "chunk_count": padme(16385)},
        "name of 256 bytes": {"name": "n" * 256}, "media type of 128 bytes": {"media_type": "m" * 128}}.items()]
    sizes = [0, 1, 65535, 65536, 65537, 3 * 65536, 9 * 65536, 17 * 65536 - 1, 33 * 65536, 100 * 65536, 129 * 65536, 16 << 20, (16 << 20) + 1,
             100_000_000, 1 << 30, (1 << 30) + 1, 1_500_000_000, 10_000_000_000, (16 << 30) - 1, 16 << 30]
    return {"sizes": [dict(zip(("size", "chunk_size", "count", "padded_count"), (s, chunk_size(s), *counts(s)))) for s in sizes],
            "padme": [{"count": c, "padded_count": padme(c)} for c in (1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 33, 63, 65, 127, 129, 255, 257, 1000, 4097, 16383, 16384)],
            "file": {"plaintext": "byte i is i mod 251", **fields, "write_key": rnd("file/write key"), "write_key_sha256": sha256(rnd("file/write key")),
                     "manifest": manifest(fields)},
            "chunks": chunks, "root": root, "refused": bad, "manifests_refused": bad_manifests}


# ---- sections 15 to 17: rooms ----

def room():
    people = alice, bob, carol, dave = [User("room/" + n, n) for n in ("alice", "bob", "carol", "dave")]
    erin, frank = rnd("room/erin"), rnd("room/frank")  # nothing but user ids
    relay_seed, relay_x = rnd("relay/ed25519"), Key(rnd("relay/x25519"))
    relay_key = ed_public(relay_seed) + relay_x.public

    def as_device(u, cert=None): return device_actor(u.key, cert or u.cert)
    def actor_field(u): return sub(6, b"") if u is RELAY else sub(5, as_device(u))
    def seed_of(u): return relay_seed if u is RELAY else u.signing
    def index(u): return RELAY if u is RELAY else people.index(u)
    def checked(message): return check_event(message, relay_key)

    class Chain:
        """Events that follow one another, as `events` of the file and as the fold has them."""
        def __init__(self, begin=T0): self.room, self.events, self.folded, self.begin = Room(), [], [], begin

        def make(self, actor, act, encoded=b"", **changes):
            room, head = self.room, self.room.head
            f = dict(room=room.id if head else b"", seq=room.seq + 1 if head else 0, prev=head, at=self.begin + 1000 * len(self.folded)) | changes
            body = event_body(f["room"], f["seq"], f["prev"], f["at"], actor_field(actor), act, encoded)
            return signed(seed_of(actor), EVENT, body), f["at"]

        def add(self, actor, act, encoded=b""):
            message, at = self.make(actor, act, encoded)
            e = checked(message)
            self.room.apply(e)
            self.folded.append(e)
            self.events.append({"actor": index(actor), "at": at, "act": act, "bytes": message, "body": split_signed(message)[0], "hash": e["hash"],
                                "state_hash": self.room.state_hash()})
            return self

        def until(self, n):
            chain = Chain(self.begin)
            chain.events, chain.folded, chain.room = self.events[:n], self.folded[:n], Room(self.folded[:n])
            return chain

        def encoded(self): return [e["bytes"] for e in self.events]

    def text_field(t): return data(1, t.encode())
    def resume(log, length, chain_hash): return data(1, log) + num(2, length) + data(3, chain_hash)

    # A private room with everything that can be done there.
    private, register = Chain(), [rnd(f"room/register {i}") for i in range(3)]
    next_ids = [register_id(ed_public(register_keys(s)[1])) for s in register]
    private.add(alice, "create", create("Küche 🍳", "wer kocht was im Februa\u0308r?", rnd("room/nonce", 16), next_ids[0]))
    private.add(alice, "invite", grant(bob.id, ADMIN)).add(bob, "join")
    private.add(bob, "invite", grant(carol.id, MODERATOR)).add(carol, "join")
    private.add(carol, "invite", grant(dave.id, MEMBER)).add(dave, "join")
    private.add(alice, "set_policy", num(1, MEMBER))
    private.add(dave, "invite", grant(erin, MEMBER))
    private.add(carol, "mute", target(dave.id))
    private.add(carol, "unmute", target(dave.id))
    private.add(bob, "set_topic", text_field(""))
    private.add(alice, "set_role", grant(carol.id, ADMIN))
    private.add(carol, "kick", target(erin))
    private.add(carol, "move", data(1, next_ids[1]))
    private.add(bob, "mute", target(dave.id))
    private.add(carol, "ban", target(dave.id))
    private.add(alice, "checkpoint", data(1, private.room.state_hash()))
    private.add(bob, "unban", target(dave.id))
    private.add(alice, "resume", resume(next_ids[1], 5, rnd("room/abandoned head")))
    private.add(alice, "rename", text_field("Ku\u0308che 2"))
    private.add(alice, "transfer", target(bob.id))
    private.add(alice, "move", data(1, next_ids[2]))
    private.add(bob, "set_role", grant(carol.id, MEMBER))
    private.add(bob, "invite", grant(dave.id, MODERATOR)).add(dave, "join")
    private.add(alice, "kick", target(carol.id))
    private.add(bob, "ban", target(frank))  # who was never there
    private.add(bob, "transfer", target(alice.id))
    private.add(bob, "leave")
    private.add(alice, "close")

    # The heir is the moderator who joined first, not the member who came before him, nor the one with the smaller user id.
    second, first = sorted((bob, carol), key=lambda u: u.id)
    succession = Chain(T0 + HOUR).add(alice, "create", create("succession", "", rnd("room/nonce of succession", 16), next_ids[0]))
    for u, role in (dave, MEMBER), (first, MODERATOR), (second, MODERATOR):
        succession.add(alice, "invite", grant(u.id, role)).add(u, "join")
    succession.add(alice, "leave")
    assert succession.room.members[first.id] == (OWNER, 4)
    succession.add(first, "leave").add(second, "leave")
    assert succession.room.role(dave.id) == OWNER and not succession.room.closed
    succession.add(dave, "leave")
    assert succession.room.closed

    # A version that nobody knows yet: what follows is kept and comes to nothing, but for leaving, closing and versions.
    versions = Chain(T0 + HOUR * 3 // 2).add(alice, "create", create("versions", "", rnd("room/nonce of versions", 16), next_ids[0], replaces=private.room.id))
    versions.add(alice, "invite", grant(bob.id, MEMBER)).add(bob, "join").add(alice, "invite", grant(carol.id, MEMBER)).add(carol, "join")
    versions.add(alice, "set_version", num(1, 2)).add(alice, "set_topic", text_field("unseen")).add(dave, "set_topic", text_field("of a stranger"))
    versions.add(alice, "move", data(1, next_ids[1])).add(bob, "leave").add(bob, "leave").add(alice, "set_version", num(1, 9)).add(carol, "close")
    # Roles and lengths of tomorrow are kept there as well.
    versions.add(alice, "set_role", grant(carol.id, 9)).add(alice, "rename", text_field("n" * 65)).add(alice, "move", data(1, bytes(31)))
    assert versions.room.register == next_ids[1] and bob.id not in versions.room.members and not versions.room.closed
    versions.add(alice, "close")

    # A share of 128 is renewed by a checkpoint of a higher rank, or the owner's own; the last places are the higher ranks'.
    shares = Chain(T0 + HOUR * 5 // 3).add(alice, "create", create("shares", "", rnd("room/nonce of shares", 16), next_ids[0]))
    for u, role in (bob, ADMIN), (carol, ADMIN), (dave, MODERATOR):
        shares.add(alice, "invite", grant(u.id, role)).add(u, "join")
    full = []
    def over(name, actor, act, encoded=b""):
        message = shares.make(actor, act, encoded)[0]
        full.append(refused(name, shares.room.apply, checked(message), after=len(shares.events)) | {"bytes": message})
    def topics(u, many):
        for i in range(many): shares.add(u, "set_topic", text_field(str(i)))
    def checkpoint(u): shares.add(u, "checkpoint", data(1, shares.room.state_hash()))
    topics(bob, 127)
    over("an admin's 129th", bob, "set_topic", text_field("x"))
    over("the kick of an admin whose share is spent", bob, "kick", target(dave.id))
    over("the checkpoint of an admin whose share is spent", bob, "checkpoint", data(1, shares.room.state_hash()))
    shares.add(dave, "checkpoint", data(1, shares.room.state_hash()))
    over("after a moderator's checkpoint", bob, "set_topic", text_field("x"))
    checkpoint(carol)
    over("after another admin's checkpoint", bob, "set_topic", text_field("x"))
    checkpoint(alice)
    topics(bob, 1)
    topics(alice, 128)
    over("the owner's 129th", alice, "set_topic", text_field("x"))
    shares.add(alice, "ban", target(erin)).add(alice, "kick", target(bob.id))  # which count for nothing
    over("an unban of the owner", alice, "unban", target(erin))
    checkpoint(alice)
    shares.add(alice, "unban", target(erin))

    # The owner of an open room is gone: who has the highest role, and has it longest, takes the room over.
    vanished = Chain(T0 + HOUR * 7 // 4).add(alice, "create", create_open("tea", "", rnd("room/nonce of tea", 16)))
    vanished.add(alice, "set_role", grant(dave.id, MODERATOR)).add(alice, "set_role", grant(carol.id, ADMIN))
    vanished.add(alice, "set_role", grant(bob.id, ADMIN)).add(bob, "set_topic", text_field("without alice"))
    def signed_head(length, at, log=None, seed=relay_seed):
        log = vanished.room.id if log is None else log
        return signed(seed, HEAD, head_body(log, 1, length, log_hash(log, vanished.encoded()[:length]), at))
    def absence(acted, now): return data(1, acted) + data(2, now)
    away = absence(signed_head(4, T0 + DAY), signed_head(5, T0 + 181 * DAY))
    early = []
    for name, actor, encoded in (
            ("a millisecond too early", carol, absence(signed_head(4, T0 + DAY), signed_head(5, T0 + 181 * DAY - 1))),
            ("a head from before the owner's last act", carol, absence(signed_head(3, T0), signed_head(5, T0 + 190 * DAY))),
            ("the head of another log", carol, absence(signed_head(4, T0 + DAY), signed_head(5, T0 + 190 * DAY, next_ids[0]))),
            ("the other head of another log", carol, absence(signed_head(4, T0 + DAY, next_ids[0]), signed_head(5, T0 + 190 * DAY))),
            ("heads in the wrong order", carol, absence(signed_head(5, T0 + 181 * DAY), signed_head(4, T0 + DAY))),
            ("a head of another branch", carol, absence(signed(relay_seed, HEAD, head_body(vanished.room.id, 1, 5, bytes(32), T0 + DAY)), signed_head(5, T0 + 190 * DAY))),
            ("a later head of another branch", carol, absence(signed_head(4, T0 + DAY), signed(relay_seed, HEAD, head_body(vanished.room.id, 1, 5, bytes(32), T0 + 190 * DAY)))),
            ("a head of a longer log", carol, absence(signed_head(4, T0 + DAY), signed(relay_seed, HEAD, head_body(vanished.room.id, 1, 6, bytes(32), T0 + 190 * DAY)))),
            ("the next, a millisecond too early", bob, absence(signed_head(4, T0 + DAY), signed_head(5, T0 + 361 * DAY - 1))),
            ("an admin who has the role less long", bob, away), ("a moderator", dave, away), ("the owner", alice, away)):
        message = vanished.make(actor, "succeed", encoded)[0]
        early.append(refused(name, vanished.room.apply, checked(message), after=len(vanished.events)) | {"bytes": message})
    vanished.add(carol, "succeed", away)
    assert vanished.room.role(alice.id) == ADMIN and vanished.room.role(carol.id) == OWNER
    # The second, a year later, and in a chain of its own.
    later = vanished.until(5).add(bob, "succeed", absence(signed_head(4, T0 + DAY), signed_head(5, T0 + 361 * DAY)))
    assert later.room.role(bob.id) == OWNER
    vanished.add(alice, "set_topic", text_field("back")).add(carol, "kick", target(alice.id))

    # An open room of the relay.
    lobby = Chain(T0 + 2 * HOUR).add(RELAY, "create", create_open("Lobby", "hello", rnd("room/nonce of the Lobby", 16)))
    lobby.add(RELAY, "set_role", grant(alice.id, ADMIN))
    lobby.add(alice, "set_role", grant(bob.id, MODERATOR))
    lobby.add(RELAY, "set_role", grant(carol.id, MODERATOR))
    lobby.add(bob, "mute", target(dave.id))
    lobby.add(alice, "kick", target(carol.id, 1))  # who is no moderator any more
    lobby.add(alice, "ban", target(dave.id, 3))
    lobby.add(alice, "set_topic", text_field("  hello  again "))
    lobby.add(alice, "unban", target(dave.id))
    lobby.add(bob, "unmute", target(dave.id))
    lobby.add(RELAY, "set_role", grant(bob.id, ADMIN))
    lobby.add(RELAY, "kick", target(bob.id, 1))
    lobby.add(RELAY, "ban", target(frank, 2**64 - 2))
    lobby.add(RELAY, "set_role", grant(bob.id, MODERATOR))
    lobby.add(RELAY, "rename", text_field("Lobby 2"))
    lobby.add(RELAY, "set_role", grant(bob.id, MEMBER))
    lobby.add(alice, "mute", target(bob.id))
    def retire(*users): return b"".join(sub(1, target(u, n)) for u, n in users)
    low, high = sorted((frank, erin))
    lobby.add(RELAY, "retire", retire((low, 4), (high, 2**64 - 2)))
    lobby.add(RELAY, "checkpoint", data(1, lobby.room.state_hash()))
    unfit = []
    for name, actor, encoded in (("retire by an admin", alice, retire((low, 4))), ("retire of nobody", RELAY, b""),
                                 ("retire out of order", RELAY, retire((high, 1), (low, 1))), ("retire of somebody twice", RELAY, retire((low, 1), (low, 2)))):
        message = lobby.make(actor, "retire", encoded)[0]
        unfit.append(refused(name, lobby.room.apply, checked(message), after=len(lobby.events)) | {"bytes": message})

    def statement(u, counter, joined=True, label=STATEMENT, actor=None):
        body = statement_body(lobby.room.id, counter, joined, sub(4, as_device(u)) if actor is None else actor)
        return signed(u.signing, label, body)
    said = [(alice, 1, True), (bob, 1, True), (alice, 2, False), (alice, 5, True), (bob, 2, False), (carol, 3, True), (carol, 1, True), (dave, 3, True)]
    statements = [{"actor": index(u), "counter": n, "joined": j, "bytes": statement(u, n, j)} for u, n, j in said]
    members = lobby.room.joined([check_statement(s["bytes"]) for s in statements])
    assert members == sorted((alice.id, carol.id))

    # Events that verification alone refuses.
    bad_events, after = [], private.until(7)
    def known(message): need(checked(message)["act"], "act that can't be read")
    def refuse(name, message): bad_events.append(refused(name, known, message))
    def bad(name, actor, act, encoded=b"", chain=after, **changes): refuse(name, chain.make(actor, act, encoded, **changes)[0])
    def body_of(act="set_topic", encoded=text_field("x"), actor=actor_field(alice), seq=7):
        return event_body(after.room.id, seq, after.room.head, T0, actor, act, encoded)
    good = signed(alice.signing, EVENT, body_of())
    checked(good)
    refuse("empty", b"")
    refuse("truncated", good[:-1])
    refuse("trailing byte", good + b"\0")
    refuse("flipped bit in the body", flip(good, 10))
    refuse("flipped bit in the signature", flip(good, -1))
    refuse("signature of 63 bytes", good[:-66] + sub(2, good[-64:-1]))
    refuse("wrong label", signed(alice.signing, STATEMENT, body_of()))
    refuse("signed by the identity key", signed(alice.seed, EVENT, body_of()))
    refuse("signed by another device", signed(bob.signing, EVENT, body_of()))
    for name, cert in {"certificate of another identity": bob.cert, "certificate of another user": signed(alice.seed, CERT, bob.cert_body),
                       "certificate with the wrong label": signed(alice.seed, USER, alice.cert_body),
                       "certificate of device 0": signed(alice.seed, CERT, alice.certify(0)),
                       "certificate with an agreement key of 31 bytes": signed(alice.seed, CERT, data(1, alice.id) + num(2, 1) + data(3, ed_public(alice.signing))
                                                                                + data(4, bytes(31)) + data(5, bytes(32)) + num(6, T0) + num(7, T0)),
                       "certificate without a link key": signed(alice.seed, CERT, data(1, alice.id) + num(2, 1) + data(3, ed_public(alice.signing))
                                                                 + data(4, bytes(32)) + num(6, T0) + num(7, T0)),
                       "certificate with a flipped bit": flip(alice.cert, 60)}.items():
        refuse(name, signed((bob if cert == bob.cert else alice).signing, EVENT, body_of(actor=sub(5, as_device(alice, cert)))))
    refuse("identity key of 31 bytes", signed(alice.signing, EVENT, body_of(actor=sub(5, device_actor(alice.key[:31], alice.cert)))))
    refuse("certificate missing", signed(alice.signing, EVENT, body_of(actor=sub(5, data(1, alice.key)))))
    refuse("actor missing", signed(alice.signing, EVENT, body_of(actor=b"")))
    refuse("relay actor signed by a device key", signed(alice.signing, EVENT, body_of(actor=sub(6, b""))))
    refuse("relay actor signed by another relay", signed(rnd("room/other relay"), EVENT, body_of(actor=sub(6, b""))))
    def deep(n, inside=b""): return group(99, deep(n - 1, inside)) if n else inside
    set_topic = sub(ACTS["set_topic"], text_field("x") + deep(100))  # one more than stand beside the act
    refuse("an empty group inside of 100 others", signed(alice.signing, EVENT, body_of() + deep(101)))
    refuse("a field inside of 100 groups", signed(alice.signing, EVENT, body_of() + deep(100, num(9, 1))))
    refuse("a group inside of the act and 99 others", signed(alice.signing, EVENT, body_of("none", b"") + set_topic))
    refuse("an end of another group", signed(alice.signing, EVENT, body_of() + varint(99 << 3 | 3) + varint(98 << 3 | 4)))
    refuse("an end of a group without one", signed(alice.signing, EVENT, body_of() + varint(99 << 3 | 4)))
    refuse("wire type 6", signed(alice.signing, EVENT, body_of() + varint(99 << 3 | 6)))
    odd_events = []
    for name, message in {"100 groups": body_of() + deep(100), "a field inside of 99 groups": body_of() + deep(99, num(9, 1)),
                          "99 groups in the act": body_of("none", b"") + sub(ACTS["set_topic"], text_field("x") + deep(99)),
                          "unknown fields of 4 and 8 bytes": body_of() + varint(99 << 3 | 5) + bytes(4) + varint(98 << 3 | 1) + bytes(8),
                          "a mute with a counter": body_of("mute", target(carol.id, 5))}.items():
        odd_events.append({"name": name, "bytes": signed(alice.signing, EVENT, message)})
        known(odd_events[-1]["bytes"])
    refuse("tag above 32 bits", signed(alice.signing, EVENT, body_of() + num(2**29, 1)))
    refuse("three acts, the last an empty one", signed(alice.signing, EVENT, body_of("rename", text_field("x")) + sub(ACTS["close"], b"") + sub(ACTS["rename"], b"")))
    refuse("body over 4,096 bytes", signed(alice.signing, EVENT, body_of() + sub(99, bytes(4096))))
    bad("prev of 31 bytes", alice, "set_topic", text_field("x"), prev=after.room.head[:31])
    bad("prev missing", alice, "set_topic", text_field("x"), prev=b"")
    bad("room id of 31 bytes", alice, "set_topic", text_field("x"), room=after.room.id[:31])
    bad("room id missing", alice, "set_topic", text_field("x"), room=b"")
    nonce = rnd("room/another nonce", 16)
    register_one = next_ids[0]
    checked(Chain().make(alice, "create", create("n" * 64, "t" * 256, nonce, register_one))[0])
    for name, encoded in {"nonce of 15 bytes": create("name", "", nonce[:15], register_one), "nonce missing": create("name", "", b"", register_one),
                          "kind 0": create_fields(0, b"name", b"", nonce, register_one), "kind 3": create_fields(3, b"name", b"", nonce, register_one),
                          "name empty": create("", "", nonce, register_one), "name of 65 characters": create("n" * 65, "", nonce, register_one),
                          "name with a control character": create("na\u0007me", "", nonce, register_one),
                          "name with a leading #": create("#name", "", nonce, register_one), "name with a space at the end": create("name ", "", nonce, register_one),
                          "name with a bidi override": create("na\u202eme", "", nonce, register_one), "name not UTF-8": create_fields(PRIVATE, b"\xff", b"", nonce, register_one),
                          "register of 31 bytes": create("name", "", nonce, register_one[:31]), "topic of 257 characters": create("name", "t" * 257, nonce, register_one),
                          "topic with a control character": create("name", "to\u0007pic", nonce, register_one),
                          "version 0": create("name", "", nonce, register_one, version=0), "id of 31 bytes": create("name", "", nonce, register_one, replaces=bytes(31))}.items():
        bad("create: " + name, alice, "create", encoded, Chain())
    encoded = create("name", "", nonce, register_one)
    bad("create with a room id", alice, "create", encoded, Chain(), room=after.room.id)
    bad("create with a prev", alice, "create", encoded, Chain(), prev=after.room.head)
    bad("create with seq 1", alice, "create", encoded, Chain(), seq=1)
    for act in "invite", "set_role":
        bad(act + ": unknown role 9", alice, act, grant(dave.id, 9))
        bad(act + ": role missing", alice, act, grant(dave.id, 0))
        bad(act + ": user id of 31 bytes", alice, act, grant(dave.id[:31], MODERATOR))
    for act in "kick", "ban", "unban", "mute", "unmute", "transfer":
        bad(act + ": user id of 33 bytes", alice, act, target(dave.id + b"\0"))
        bad(act + ": user id missing", alice, act, target(b""))
    bad("set_policy: unknown role 9", alice, "set_policy", num(1, 9))
    bad("set_policy: role missing", alice, "set_policy")
    bad("rename: name empty", alice, "rename")
    bad("rename: name of 65 characters", alice, "rename", text_field("n" * 65))
    bad("set_topic: topic of 257 characters", alice, "set_topic", text_field("t" * 257))
    bad("checkpoint: state hash of 31 bytes", alice, "checkpoint", data(1, bytes(31)))
    bad("move: register id of 31 bytes", alice, "move", data(1, bytes(31)))
    relays, other = head_body(bytes(32), 1, 4, bytes(32), T0), rnd("room/other relay")
    for name, heads in {"first head of another relay": (other, relay_seed), "second head of another relay": (relay_seed, other)}.items():
        bad("succeed: " + name, alice, "succeed", b"".join(data(n, signed(seed, HEAD, relays)) for n, seed in enumerate(heads, 1)))
    bad("succeed: head missing", alice, "succeed", data(1, signed(relay_seed, HEAD, relays)))
    bad("retire: user id of 31 bytes", alice, "retire", sub(1, target(bytes(31), 1)))
    bad("set_version: version missing", alice, "set_version")
    bad("resume: log id of 31 bytes", alice, "resume", resume(bytes(31), 5, bytes(32)))
    bad("resume: chain hash missing", alice, "resume", resume(register_one, 5, b""))

    # Well signed, but not allowed where they stand.
    not_allowed = []
    def forbid(n, name, actor, act, encoded=b"", **changes):
        chain = private.until(n)
        message = chain.make(actor, act, encoded, **changes)[0]
        not_allowed.append(refused(name, chain.room.apply, checked(message), after=n) | {"bytes": message})
    x = text_field("x")
    forbid(5, "join without an invitation", dave, "join")
    forbid(3, "join of a member", bob, "join")
    forbid(7, "member kicks", dave, "kick", target(carol.id))
    forbid(9, "member takes back his invitation", dave, "kick", target(erin))
    forbid(7, "member mutes", dave, "mute", target(carol.id))
    forbid(7, "member moves", dave, "move", data(1, next_ids[1]))
    forbid(7, "member invites before the policy allows it", dave, "invite", grant(erin, MEMBER))
    forbid(8, "member invites a moderator", dave, "invite", grant(erin, MODERATOR))
    forbid(7, "moderator bans", carol, "ban", target(dave.id))
    forbid(7, "moderator sets the topic", carol, "set_topic", x)
    forbid(7, "moderator sets a role", carol, "set_role", grant(dave.id, MODERATOR))
    forbid(7, "moderator invites a moderator", carol, "invite", grant(erin, MODERATOR))
    forbid(7, "moderator kicks an admin", carol, "kick", target(bob.id))
    forbid(7, "admin demotes the owner", bob, "set_role", grant(alice.id, MEMBER))
    forbid(7, "admin kicks the owner", bob, "kick", target(alice.id))
    forbid(13, "admin mutes an admin", bob, "mute", target(carol.id))
    forbid(13, "admin demotes an admin", bob, "set_role", grant(carol.id, MEMBER))
    forbid(7, "admin invites an admin", bob, "invite", grant(erin, ADMIN))
    forbid(7, "admin makes an admin", bob, "set_role", grant(dave.id, ADMIN))
    forbid(7, "admin renames", bob, "rename", x)
    forbid(7, "admin sets the policy", bob, "set_policy", num(1, MEMBER))
    forbid(7, "admin transfers", bob, "transfer", target(carol.id))
    forbid(7, "member writes a checkpoint", dave, "checkpoint", data(1, private.until(7).room.state_hash()))
    forbid(7, "admin closes", bob, "close")
    forbid(7, "move to the current register", alice, "move", data(1, next_ids[0]))
    forbid(len(private.events) - 1, "move to a register of before", alice, "move", data(1, next_ids[1]))
    forbid(7, "admin resumes", bob, "resume", resume(register_one, 5, bytes(32)))
    forbid(7, "admin sets the version", bob, "set_version", num(1, 2))
    forbid(7, "version that the room has", alice, "set_version", num(1, 1))
    forbid(7, "unknown act", alice, "unknown")
    forbid(7, "owner invites an owner", alice, "invite", grant(erin, OWNER))
    forbid(7, "owner makes a second owner", alice, "set_role", grant(bob.id, OWNER))
    forbid(7, "owner kicks himself", alice, "kick", target(alice.id))
    forbid(7, "owner bans himself", alice, "ban", target(alice.id))
    forbid(7, "owner transfers to himself", alice, "transfer", target(alice.id))
    forbid(9, "invite of somebody invited", alice, "invite", grant(erin, MEMBER))
    forbid(7, "invite of a member", alice, "invite", grant(dave.id, MEMBER))
    forbid(17, "invite of somebody banned", alice, "invite", grant(dave.id, MEMBER))
    forbid(17, "ban of somebody banned", alice, "ban", target(dave.id))
    forbid(7, "unban of somebody not banned", alice, "unban", target(erin))
    forbid(10, "mute of somebody muted", alice, "mute", target(dave.id))
    forbid(7, "unmute of somebody not muted", alice, "unmute", target(dave.id))
    forbid(17, "unmute of somebody who is no member", alice, "unmute", target(dave.id))
    forbid(7, "kick of somebody unknown", alice, "kick", target(erin))
    forbid(7, "role that somebody has", alice, "set_role", grant(carol.id, MODERATOR))
    forbid(9, "role for somebody invited", alice, "set_role", grant(erin, MODERATOR))
    forbid(9, "transfer to somebody invited", alice, "transfer", target(erin))
    forbid(17, "act of somebody banned", dave, "leave")
    forbid(17, "checkpoint with a wrong hash", alice, "checkpoint", data(1, rnd("room/wrong state")))
    forbid(17, "checkpoint of an older state", alice, "checkpoint", data(1, private.events[6]["state_hash"]))
    forbid(7, "relay in a room that it did not create", RELAY, "set_topic", x)
    forbid(7, "seq too high", alice, "set_topic", x, seq=8)
    forbid(7, "seq too low", alice, "set_topic", x, seq=6)
    forbid(7, "prev is no event", alice, "set_topic", x, prev=rnd("room/wrong prev"))
    forbid(7, "prev is the event before the newest", alice, "set_topic", x, prev=private.events[5]["hash"])
    forbid(7, "another room", alice, "set_topic", x, room=lobby.room.id)
    forbid(len(private.events), "anything after close", alice, "set_topic", x)

    bad_statements, good = [], statement(dave, 4)
    check_statement(good), check_statement(statement(dave, 2**64 - 2))
    for name, message in {"empty": b"", "truncated": good[:-1], "wrong label": statement(dave, 4, label=EVENT), "counter 0": statement(dave, 0),
                          "counter 2^64-1": statement(dave, 2**64 - 1), "flipped bit in the body": flip(good, 20),
                          "flipped bit in the signature": flip(good, -1), "actor missing": statement(dave, 4, actor=b""),
                          "certificate of another identity": statement(dave, 4, actor=sub(4, as_device(alice, dave.cert))),
                          "signed by another device": statement(alice, 4, actor=sub(4, as_device(dave))),
                          "room id of 31 bytes": signed(dave.signing, STATEMENT, statement_body(bytes(31), 4, True, sub(4, as_device(dave)))),
                          "body over 4,096 bytes": signed(dave.signing, STATEMENT, split_signed(good)[0] + sub(99, bytes(4096)))}.items():
        bad_statements.append(refused(name, check_statement, message))

    # Heads and forks, over entries of any bytes.
    log, entries = next_ids[0], [b"one", b"", bytes(range(256)) * 4, b"four"]
    def head(entries, at=T0, log=log, epoch=1, seed=relay_seed, label=HEAD, length=None, chain_hash=None):
        length = len(entries) if length is None else length
        chain_hash = log_hash(log, entries) if chain_hash is None else chain_hash
        return signed(seed, label, head_body(log, epoch, length, chain_hash, at))
    heads = []
    for n, epoch, at in (0, 1, T0), (1, 1, T0 + 1), (4, 2**32, T0 + DAY), (2, 0, 0):
        message = head(entries[:n], at, epoch=epoch)
        check_head(message, relay_key)
        heads.append({"bytes": message, "log_id": log, "epoch": epoch, "length": n, "chain_hash": log_hash(log, entries[:n]), "at": at, "entries": entries[:n]})
    good, bad_heads = head(entries), []
    for name, message in {"empty": b"", "truncated": good[:-1], "wrong label": head(entries, label=REGISTER), "signed by another relay": head(entries, seed=rnd("room/other relay")),
                          "flipped bit in the body": flip(good, 10), "flipped bit in the signature": flip(good, -1), "log id of 31 bytes": head(entries, log=log[:31]),
                          "chain hash missing": head(entries, chain_hash=b"")}.items():
        bad_heads.append(refused(name, check_head, message, relay_key))
    forks, longer, other = [], (good, entries), entries[:2] + [b"three"]
    theirs = head(other), other
    for name, shared, *branches in (
            ("the third entry is another", 2, longer, theirs), ("the other way round", 2, theirs, longer),
            ("the first entry is another", 0, longer, (head([b"other"]), [b"other"])),
            ("one side goes on where the other ends", None, longer, (head(entries[:2]), entries[:2])), ("one side is empty", None, longer, (head([]), [])),
            ("twice the same", None, longer, longer), ("an entry is missing", None, longer, (theirs[0], other[:2])),
            ("an entry is not what was signed", None, longer, (theirs[0], entries[:2] + [b"four"])),
            ("length is not the number of entries", None, longer, (head(other, length=4), other)),
            ("heads of two logs", None, longer, (head(other, log=next_ids[1]), other)),
            ("one head is another relay's", None, longer, (head(other, seed=rnd("room/other relay")), other))):
        proof = fork_proof(relay_key, *branches)
        if shared is None: refused(name, check_fork, proof)
        else: assert check_fork(proof) == shared, name
        forks.append({"name": name, "bytes": proof, "shared": shared})

    # The register: the entry behind a first one, with the first three events of the private room.
    secret, position, nonce24 = register[0], 1, rnd("room/entry nonce", 24)
    events = register_events(private.encoded()[:3])
    sealing, write_seed = register_keys(secret)
    write_key = ed_public(write_seed)
    entry, proof = seal_entry(secret, position, nonce24, events)
    assert open_entry(entry, secret, position) == events
    check_proof(write_key, position, entry, proof)
    bad_entries = []
    for name, message, at in (("flipped bit in the nonce", flip(entry, 0), 1), ("flipped bit", flip(entry, 500), 1), ("flipped bit in the tag", flip(entry, -1), 1),
                              ("position 0", entry, 0), ("position 2", entry, 2), ("truncated", entry[:-1], 1), ("truncated to 24 bytes", entry[:24], 1),
                              ("truncated to 23 bytes", entry[:23], 1), ("empty", b"", 1)):
        refused(name, open_entry, message, secret, at)
        bad_entries.append({"name": name, "entry": message, "position": at})
    odd, at = seal_entry(secret, 1, nonce24, events, [len(events) + 100])[1], 1
    refused("a length that no entry has", open_entry, odd, secret, at)
    bad_entries.append({"name": "a length that no entry has", "entry": odd, "position": at})

    news = {"room": lobby.room.id, "seq": T0 + 3 * HOUR, "text": "Am Sonntag wird neu gestartet.", "at": T0 + 3 * HOUR}
    def announce(seed=relay_seed, label=ANNOUNCEMENT, **changes): return signed(seed, label, announcement_body(**news | changes))
    announced, bad_announcements = announce(), []
    moving = {"address": "[2001:db8::7]:7667", "address_from": T0 + 5 * HOUR}
    moving |= {"bytes": announce(room=b"", **moving)}
    check_announcement(moving["bytes"], relay_key), check_announcement(announce(room=b"", address="new.example.org:1"), relay_key)
    check_announcement(announced, relay_key), check_announcement(announce(text="n" * 4096), relay_key), check_announcement(announce(room=b""), relay_key)
    for name, message in {"empty": b"", "truncated": announced[:-1], "wrong label": announce(label=EVENT), "flipped bit in the body": flip(announced, 50),
                          "flipped bit in the signature": flip(announced, -1), "signed by another relay": announce(rnd("room/other relay")),
                          "text over 4,096 bytes": announce(text="n" * 4097), "room id of 31 bytes": announce(room=bytes(31)),
                          "an address in a room": announce(address="new.example:7667"), "an address without a port": announce(room=b"", address="new.example"),
                          "a port that is none": announce(room=b"", address="new.example:70000"), "IPv6 without brackets": announce(room=b"", address="::1:7667"),
                          "a space in the address": announce(room=b"", address="new example:7667")}.items():
        bad_announcements.append(refused(name, check_announcement, message, relay_key))

    fields = {"message_id": rnd("room/message id", 16), "room_id": private.room.id, "room_seq": 8, "room_head": private.events[8]["hash"],
              "sender_seq": 2, "previous_own_hash": b"", "sent_at": T0 + HOUR, "log_id": next_ids[0], "log_length": 4, "log_hash": rnd("room/log hash"),
              "text": "Grüße an alle 👋"}
    fields["previous_own_hash"] = sha256(room_content(fields | {"message_id": rnd("room/first message id", 16), "sender_seq": 1, "previous_own_hash": bytes(32)}))
    inside, tag = room_content(fields), rnd("room/next tag", 16)
    answered = {"message_id": rnd("room/receipted message", 16), "kind": 1}
    outer = data(1, fields["message_id"]) + num(7, fields["sent_at"]) + sub(26, data(1, inside)) + sub(9, receipt(answered)) + data(10, tag)
    check_room_content(inside), check_content(outer), check_room_content(room_content(fields | {"text": "t" * 65536}))
    bad_messages = [refused(name, check_room_content, room_content(fields | change)) for name, change in {
        "sender_seq 0": {"sender_seq": 0}, "message_id of 15 bytes": {"message_id": bytes(15)}, "message_id missing": {"message_id": b""},
        "room_id of 31 bytes": {"room_id": fields["room_id"][:31]}, "room_id missing": {"room_id": b""},
        "room_head of 33 bytes": {"room_head": fields["room_head"] + b"\0"}, "room_head missing": {"room_head": b""},
        "log_id of 31 bytes": {"log_id": bytes(31)}, "log_id missing": {"log_id": b""}, "log_hash of 33 bytes": {"log_hash": bytes(33)},
        "log_hash missing": {"log_hash": b""},
        "previous_own_hash of 31 bytes": {"previous_own_hash": bytes(31)}, "previous_own_hash missing": {"previous_own_hash": b""},
        "text over 65,536 bytes": {"text": "t" * 65537}}.items()]
    bad_messages += [refused("truncated", check_room_content, inside[:-1]),
                     refused("text not UTF-8", check_room_content, room_content(fields | {"text": ""})[:-3] + sub(20, data(1, b"\xff")))]

    def person(u):
        return {k: u.fields()[k] for k in "nickname identity_seed identity_key user_id device_id signing_seed agreement_secret link_secret cert".split()}
    return {"users": [person(u) for u in people], "relay": {"secret": relay_seed + relay_x.secret, "key": relay_key}, "issued_at": T0,
            "private": {"events": private.events}, "succession": {"events": succession.events}, "versions": {"events": versions.events},
            "shares": {"events": shares.events}, "over_shares": full,
            "vanished": {"events": vanished.events}, "vanished_later": {"events": later.events}, "too_early": early,
            "open": {"events": lobby.events}, "unfit_in_open": unfit, "statements": statements, "members_after": members,
            "refused_events": bad_events, "unusual_events": odd_events, "not_allowed": not_allowed, "refused_statements": bad_statements,
            "heads": heads, "refused_heads": bad_heads, "forks": forks,
            "register": {"secret": secret, "sealing_key": sealing, "write_key": write_key, "id": register_id(write_key), "position": position,
                         "events": events, "nonce": nonce24, "entry": entry, "proof": proof}, "refused_entries": bad_entries,
            "announcement": {"bytes": announced} | news, "moving": moving, "refused_announcements": bad_announcements,
            "message": {"content": inside} | fields | {"hash": sha256(inside), "outer": outer, "receipt_id": answered["message_id"],
                                                       "receipt_kind": 1, "next_tag": tag}, "refused_messages": bad_messages}


# ---- sections 4, 7, 8 and 16: what two devices decide ----

def dice(label):
    """Numbers below a bound, the same on each run."""
    drawn = 0
    def roll(bound):
        nonlocal drawn
        drawn += 1
        return int.from_bytes(rnd(f"dice/{label}/{drawn}", 8), "big") % bound
    return roll


def sender_numbers():
    def story(name, numbers, in_room=False, wrong=()):
        sender, hashes, steps = Sender(in_room), {}, []
        for at, number in enumerate(numbers):
            digest = rnd(f"sender/{name}/{at}")
            previous = rnd("sender/wrong") if at in wrong else hashes.get(number - 1, bytes(32))
            hashes.setdefault(number, digest)
            steps.append({"sender_seq": number, "previous_own_hash": previous, "hash": digest, "verdict": sender.take(number, previous, digest)})
        return {"name": name, "in_room": in_room, "contents": steps}
    roll = dice("sender numbers")
    return [story("in order", [1, 2, 3, 4]), story("the first one is missing", [2, 1, 3]), story("one is late, and comes twice", [1, 3, 2, 2, 4]),
            story("a number twice", [1, 2, 2, 3]), story("without a number", [1, 0, 2]), story("another hash", [1, 2, 3], wrong=(1,)),
            story("another hash behind a gap is not looked at", [1, 3, 4], wrong=(1,)), story("another hash in what is late is not looked at", [1, 3, 2], wrong=(2,)),
            story("the oldest of more than 2,000 are forgotten", [1, 502, 2303, 301, 302, 501, 503, 2302, 2304]),
            story("a gap of more than 2,000", [1, 5000, 2, 2999, 3000, 4999]), story("the highest number", [1, 2**64 - 1, 2**64 - 2, 2]),
            story("in a room the first one begins", [7, 8, 6, 10, 9], True), story("in a room a hash", [7, 8, 9], True, wrong=(2,)),
            story("any", [1 + roll(12) for _ in range(60)]), story("any in a room", [1 + roll(12) for _ in range(60)], True)]


def copies():
    def story(name, steps):
        copy, out = Copy(), []
        for step in steps:
            now, what = step[:2]
            done = {"login": lambda: copy.look(now, True), "login, all taken in": lambda: copy.look(now, False), "10 minutes": lambda: copy.look(now, False),
                    "sealed": lambda: copy.sealed(now), "accepted": lambda: copy.accepted(now), "not queued": lambda: copy.not_queued(now),
                    "session lost": lambda: copy.session_lost(now), "receipt": lambda: copy.receipt(now, step[2])}[what]()
            out.append({"at": T0 + now, "what": what, **({"kind": step[2]} if step[2:] else {}), "then": done})
            if done in ("done", "not delivered"): break
        return {"name": name, "steps": out}
    S, M = 1000, 60_000
    sent = [(1, "10 minutes"), (1, "sealed"), (2, "accepted")]
    stories = [
        ("receipted", sent + [(3, "receipt", 1)]), ("read", sent + [(3, "receipt", 2)]), ("refused", sent + [(3, "receipt", 3)]),
        ("the answer of the relay is lost", [(1, "10 minutes"), (1, "sealed"), (50, "login"), (51, "login"), (52, "accepted"), (53, "receipt", 1)]),
        ("a receipt comes before the relay's answer", [(1, "10 minutes"), (1, "sealed"), (2, "receipt", 1)]),
        ("it waits at the relay", sent + [(3 * S, "login"), (61_001, "login"), (20 * M, "10 minutes"), (30 * M, "receipt", 1)]),
        ("lost at the relay: once more, then a new session", sent + [(60_001, "10 minutes"), (60_002, "10 minutes"), (60_003, "not queued"), (60_004, "accepted"), (60_005, "not queued"),
            (12 * M, "10 minutes"), (12 * M, "not queued"), (12 * M + 1, "session lost"), (12 * M + 2, "sealed"), (12 * M + 3, "accepted"), (12 * M + 4, "receipt", 1)]),
        ("held: asked for a day later", sent + [(3, "receipt", 4), (20 * M, "10 minutes"), (DAY + 2, "login"), (DAY + 3, "login"), (DAY + 3, "not queued"), (DAY + 4, "accepted"),
            (DAY + 5, "receipt", 4), (DAY + 61_000, "10 minutes"), (2 * DAY + 5, "10 minutes"), (2 * DAY + 5, "not queued"), (2 * DAY + 6, "accepted"), (2 * DAY + 7, "receipt", 2)]),
        ("held, and lost twice", sent + [(3, "receipt", 4), (DAY + 3, "not queued"), (DAY + 4, "accepted"), (DAY + 60_003, "not queued"), (DAY + 60_004, "not queued")]),
        ("no session for a month", [(1, "login"), (10 * M, "10 minutes"), (30 * DAY, "10 minutes"), (30 * DAY + 1, "login"), (30 * DAY + 2, "login, all taken in")]),
        ("a month, and a receipt among what waits", sent + [(30 * DAY + 1, "login"), (30 * DAY + 2, "receipt", 1)]),
        ("a month, held", sent + [(3, "receipt", 4), (30 * DAY, "10 minutes"), (30 * DAY + 1, "10 minutes")]),
        ("a receipt before it went out", [(1, "10 minutes"), (2, "receipt", 1), (2, "receipt", 4), (3, "sealed"), (4, "accepted"), (5, "receipt", 1)]),
    ]
    for number in range(12):
        roll, now, steps = dice(f"copies {number}"), 0, []
        for _ in range(40):
            now += [1, S, 61 * S, 10 * M, 13 * HOUR, 3 * DAY][roll(6)]
            kinds = ["login", "10 minutes", "accepted", "not queued", "sealed", "login", "10 minutes", "accepted", "not queued", "receipt", "session lost"]
            what = kinds[roll(len(kinds))]
            steps.append((now, what) + ((4,) if what == "receipt" else ()))
        stories.append((f"any {number}", steps))
    return [story(*s) for s in stories]


def reset_stories():
    def story(name, steps):
        resets, out = Resets(), []
        for now, what, *more in steps:
            then = resets.begin(now) if what == "begin" else resets.opened(now, *more)
            out.append({"at": T0 + now, "what": what, **(dict(zip(("generation", "is_first"), more))), "then": then})
        return {"name": name, "steps": out}
    return [story("one an hour", [(0, "begin"), (1, "begin"), (HOUR - 1, "begin"), (HOUR, "begin"), (HOUR + 1, "begin")]),
            story("theirs", [(0, "opened", 0, True), (1, "opened", 1, False), (2, "opened", 1, True), (3, "opened", 2, True), (HOUR + 1, "opened", 3, True), (HOUR + 2, "opened", 4, True)]),
            story("both at once", [(0, "begin"), (1, "opened", 1, True), (HOUR, "begin")]),
            story("the highest generation stays", [(0, "opened", 2**32 - 1, True), (1, "begin"), (HOUR + 1, "begin")])]


def session_choices():
    roll, out = dice("sessions"), []
    for _ in range(60):
        now = T0 + 100 * DAY
        sessions = [{"id": rnd(f"session {len(out)} {i}", 16), "generation": roll(3), "confirmed": bool(roll(2)),
                     "used_at": now - [1, 6 * DAY, 7 * DAY, 29 * DAY, 30 * DAY, 31 * DAY, HOUR][roll(7)] - roll(2)} for i in range(1 + roll(8))]
        generation = max([s["generation"] for s in sessions] + [roll(4)])
        knows_tag = bool(roll(3))
        out.append({"now": now, "generation": generation, "knows_tag": knows_tag, "sessions": sessions,
                    "speaks": speaking(sessions, generation, knows_tag, now) or b"", "leave_when_the_last_is_new": leaving(sessions, generation, now)})
    return out


def room_verdicts():
    return {f"{own}, read {read}, event {event}, {kind}, author {author}": room_message(own, read, event, kind, author)
            for own in ("member", "coming", "outside") for read in ("not yet", "with news", "to its end") for event in ("settled", "unknown")
            for kind in ("private", "open") for author in ("member", "muted", "banned", "unheard", "left", "barred")
            if kind == "open" or author not in ("left", "barred")}


def own_records():
    user = User("alice", "alice")
    def keys(name, number):
        seed, agreement, link = (rnd(f"own/{name}/{k}") for k in ("signing", "agreement", "link"))
        return {"device_id": number, "signing_seed": seed, "agreement_secret": agreement, "link_secret": link}
    def public(d): return d["device_id"], ed_public(d["signing_seed"]), Key(d["agreement_secret"]).public, Key(d["link_secret"]).public
    def record(version, before, *devices, nickname="alice"):
        prev = sha256(split_signed(before)[0]) if before else bytes(32)
        certs = [signed(user.seed, CERT, cert_body(user.id, *public(d), T0)) for d in devices]
        return user.signed(record_body(user.key, nickname.encode(), version, prev, certs))
    a, b, c = keys("a", 1), keys("b", 77), keys("c", 88)
    same_id = keys("d", 77)
    v1 = record(1, None, a)
    v2 = record(2, v1, a, nickname="alicia")
    v2_other = record(2, v1, a, nickname="alina")
    b2, b3 = record(2, v1, b), record(3, v2, b, nickname="alicia")
    c3, c4, taken, closed = record(3, v2, c), record(4, b3, c), record(3, v2, same_id), record(3, v2)
    stranger = User("bob", "bob")
    cases = []
    def case(name, own, device, let_in, shown):
        for at, r in enumerate(shown):
            check_record(r, stranger.id if r == stranger.record else user.id, shown[at - 1] if at else None) if at else None
        cases.append({"name": name, "record": own, "device": device, "was_let_in": let_in, "shown": shown,
                      "then": own_place(user.key, own, public(device), let_in, shown)})
    case("the answer to a change was lost", v1, a, True, [v1, v2])
    case("the same record", v2, a, True, [v1, v2])
    case("the relay has less", v2, a, True, [v1])
    case("another record of the own version", v2, a, True, [v1, v2_other])
    case("another one, and more", v2, a, True, [v1, v2_other, record(3, v2_other, a)])
    case("another device took its place", v2, a, True, [v1, v2, b3])
    case("the account was closed", v2, a, True, [v1, v2, closed])
    case("only the newest are shown", v2, a, True, [b3, c4])
    case("restored, and the backup is the newest", b2, b, False, [v1])
    case("restored, and more happened since", b2, b, False, [v1, v2])
    case("restored, and the answer was lost", b3, b, False, [v1, v2, b3])
    case("restored, let in, and another one took its place", b3, b, False, [v1, v2, b3, c4])
    case("restored, and another device was before it", b2, b, False, [v1, v2, c3])
    case("restored, and its id is another device's", b2, b, False, [v1, v2, taken])
    case("restored, and the account was closed", b2, b, False, [v1, v2, closed])
    case("nothing is shown", v2, a, True, [])
    case("somebody else's", v2, a, True, [stranger.record])
    return cases


def device_changes():
    out = []
    for copies, former, named in [([1], [1], [7]), ([1], [1], [7, 8, 9]), ([1, 2], [1, 2], [7]), ([1, 2], [1, 2], [7, 8, 9]), ([1, 2, 3], [1, 2, 3], [2, 7]),
                                  ([1, 2], [1, 2], [1, 2, 7]), ([1, 2], [1, 2], [1, 7, 8]), ([1, 7], [1], [7, 8]), ([1, 2], [1, 2], []), ([1, 2, 3], [1, 2, 3], [7, 8])]:
        out.append({"copies": copies, "former": former, "named": named, "then": heirs(copies, former, named)})
    return out


def delivery():
    now = T0
    return {"senders": sender_numbers(), "copies": copies(), "resets": reset_stories(), "sessions": session_choices(), "room_messages": room_verdicts(),
            "own_records": own_records(), "device_changes": device_changes(),
            "times": [{"sent_at": s, "now": now, "shown": shown_time(s, now)} for s in (0, now - DAY, now, now + 299_999, now + 300_000, now + 300_001, 2**63)]}


VERBOSE = "--verbose" in sys.argv


def main():
    stale = []
    for make in (user_record, link, first_message, ratchet, envelope, file_chunk, room, delivery):
        path = Path(__file__).parent / f"{make.__name__}.json"
        if VERBOSE: print(path.name)
        made = json.dumps(make(), indent=2, ensure_ascii=False, default=bytes.hex) + "\n"
        if "--check" not in sys.argv:
            path.write_text(made, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != made:
            stale.append(path.name)
    for name in stale:
        print(f"{name} differs from what generate.py makes")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
