"""Protocol version 1 in Python, from docs/PROTOCOL.md and proto/schema alone: what generate.py makes the vectors with.

It exists to disagree with the Rust sources where the text can be read in two ways. Not for use with real secrets:
nothing here runs in constant time, and ML-KEM comes from a package written for study.
"""
import copy, hashlib, hmac, ipaddress, struct, unicodedata

from Crypto.Cipher import ChaCha20_Poly1305
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from kyber_py.ml_kem import ML_KEM_768

HOUR, DAY = 3_600_000, 86_400_000
BUCKETS = [512 << i for i in range(7)]


class Refused(ValueError):
    pass


def need(condition, why):
    if not condition:
        raise Refused(why)


# ---- primitives ----
def u8(v): return struct.pack(">B", v)
def u16(v): return struct.pack(">H", v)
def u32(v): return struct.pack(">I", v)
def u64(v): return struct.pack(">Q", v)
def sha256(data): return hashlib.sha256(data).digest()
def hmac256(key, data): return hmac.digest(key, data, "sha256")
def extract(salt, ikm): return hmac256(salt, ikm)
def hkdf(salt, ikm, info, length): return expand(extract(salt, ikm), info, length)


def expand(prk, info, length):
    out = block = b""
    while len(out) < length:
        block = hmac256(prk, block + info + u8(len(out) // 32 + 1))
        out += block
    return out[:length]


def seal(key, nonce, ad, plaintext):  # a nonce of 24 bytes makes it XChaCha20-Poly1305
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    return b"".join(cipher.encrypt_and_digest(plaintext))


def unseal(key, nonce, ad, data):
    need(len(data) >= 16, "shorter than a tag")
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    return cipher.decrypt_and_verify(data[:-16], data[-16:])


class Key:
    """An X25519 secret. The library raises ValueError when the result is zero."""
    def __init__(self, secret):
        self.secret, self.public = secret, X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()

    def dh(self, public):
        need(len(public) == 32, "X25519 key length")
        return X25519PrivateKey.from_private_bytes(self.secret).exchange(X25519PublicKey.from_public_bytes(public))


class LowOrder:
    """What a forger sends to make the other side compute zeros; he then knows the result as well."""
    def __init__(self, public=bytes(32)): self.public = public
    def dh(self, _public): return bytes(32)


def kem_key(seed): return ML_KEM_768.key_derive(seed)  # seed = d || z; gives (ek, dk)
def encaps(ek, randomness): return ML_KEM_768._encaps_internal(ek, randomness)  # gives (ss, ct)
def decaps(dk, ct): return ML_KEM_768.decaps(dk, ct)


def check_ek(ek):
    """Input check of FIPS 203 7.2: length, and every 12-bit coefficient below q."""
    need(len(ek) == 1184, "ek length")
    for a, b, c in zip(ek[0:1152:3], ek[1:1152:3], ek[2:1152:3]):
        need(a | (b & 15) << 8 < 3329 and b >> 4 | c << 4 < 3329, "ek modulus")


def not_reduced(ek): return b"\xff\xff" + ek[2:]  # the first coefficient becomes 4095


def ed_public(seed): return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
def sign(seed, label, body): return Ed25519PrivateKey.from_private_bytes(seed).sign(label + b"\0" + body)


def verify(key, label, body, signature):
    p = 2**255 - 19
    y = int.from_bytes(key, "little") % 2**255
    need(len(key) == 32 and y < p and y not in (0, 1, p - 1), "Ed25519 key")  # enough for the variants below
    need(int.from_bytes(signature[:32], "little") % 2**255 not in (0, 1, p - 1), "R of small order")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, label + b"\0" + body)
    except InvalidSignature:
        raise Refused("signature")


# ---- proto3, by hand ----

def varint(v): return u8(v) if v < 128 else u8(v & 127 | 128) + varint(v >> 7)
def num(n, v): return varint(n << 3) + varint(v) if v else b""  # proto3 leaves defaults out
def sub(n, v): return varint(n << 3 | 2) + varint(len(v)) + v  # messages and repeated fields are always written
def data(n, v): return sub(n, v) if v else b""


def group(n, inside=b""): return varint(n << 3 | 3) + inside + varint(n << 3 | 4)


def parse(message, inside_of=0):
    """The fields with varints, bytes and submessages; others are skipped. `inside_of`: how many submessages this one stands in."""
    fields, at = [], 0
    def read():
        nonlocal at
        value = shift = 0
        while True:
            need(at < len(message) and shift < 64, "protobuf: varint")
            byte, at = message[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                need(value < 2**64, "protobuf: varint")
                return value
    def tag():
        tag = read()
        need(0 < tag >> 3 and tag < 2**32 and tag & 7 < 6, "protobuf: tag")
        return tag >> 3, tag & 7
    def field(n, wire, depth):
        nonlocal at
        need(wire != 4, "protobuf: end of a group that was not begun")
        if wire == 3:
            need(depth < 100, "protobuf: depth")
            while (inner := tag()) != (n, 4):
                field(*inner, depth + 1)
            return None
        # Known fields stand nowhere as deep.
        need(depth < 100, "protobuf: depth")
        value = {1: 8, 5: 4}.get(wire) or read()
        if wire:
            need(at + value <= len(message), "protobuf: length")
            value, at = message[at:at + value], at + value
        return value
    while at < len(message):
        n, wire = tag()
        value = field(n, wire, inside_of)
        if wire in (0, 2): fields.append((n, value))
    return fields


def every(fields, n): return [v for k, v in fields if k == n]
def one(fields, n, default=b""): return (every(fields, n) or [default])[-1]


# ---- section 2: signed objects ----

USER, CERT, PREKEY = b"chatcore/1/user-record", b"chatcore/1/device-cert", b"chatcore/1/prekey"


def signed(seed, label, body): return sub(1, body) + sub(2, sign(seed, label, body))
def user_id(identity_key): return sha256(b"chatcore/1/user" + identity_key)


def split_signed(message, inside_of=0):
    fields = parse(message, inside_of)
    body, signature = one(fields, 1), one(fields, 2)
    need(len(signature) == 64, "signature length")
    return body, signature


def cert_body(user, device, signing, agreement, link, issued):
    return (data(1, user) + num(2, device) + data(3, signing) + data(4, agreement) + data(5, link)
            + num(6, issued) + num(7, issued + 180 * DAY))


def record_body(identity, nickname, version, prev, devices):
    return data(1, identity) + data(2, nickname) + num(3, version) + data(4, prev) + b"".join(sub(5, d) for d in devices)


UNSEEN = [(int(r.split("-")[0], 16), int(r.split("-")[-1], 16)) for r in (
    "0-20 7F-A0 AD 34F 61C 115F 1160 1680 17B4 17B5 180B-180F 2000-200F 2028-202F 205F-206F 3000 3164 E000-F8FF FE00-FE0F FEFF FFA0 FFF0-FFFB "
    "110BD 110CD 13430-1343F 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF F0000-10FFFF").split()]


def shows(c): return not any(low <= ord(c) <= high for low, high in UNSEEN)


def check_nickname(nick):
    need(1 <= len(nick) <= 32 and unicodedata.is_normalized("NFC", nick) and nick[0] not in "#!@" and " #" not in nick, "nickname")
    for before, c in zip(" " + nick, nick):
        need(shows(c) or c == " " and before != " ", "nickname: character")
    need(nick[-1] != " ", "nickname: space at the end")


def check_record(message, expected, before=None):
    need(len(message) <= 4000, "record too long")
    body, signature = split_signed(message)
    f = parse(body)
    identity, version, prev, certs = one(f, 1), one(f, 3, 0), one(f, 4), every(f, 5)
    verify(identity, USER, body, signature)
    need(user_id(identity) == expected, "user id")
    check_nickname(one(f, 2).decode())
    need(version >= 1 and len(prev) == 32 and (prev == bytes(32)) == (version == 1) and len(certs) <= 8, "version or prev_hash or devices")
    devices = {}
    for cert in certs:
        cert_bytes, cert_signature = split_signed(cert)
        verify(identity, CERT, cert_bytes, cert_signature)
        c = parse(cert_bytes)
        need(one(c, 1) == expected and one(c, 2, 0) >= 1 and one(c, 2, 0) not in devices, "certificate")
        need(all(len(one(c, n)) == 32 for n in (3, 4, 5)), "certificate keys")
        devices[one(c, 2, 0)] = c
    if before is not None:
        old = parse(split_signed(before)[0])
        need(every(old, 5), "closed")
        need(one(old, 1) == identity and one(old, 3, 0) + 1 == version and prev == sha256(split_signed(before)[0]), "does not extend")
    return devices


def safety_digits(key):
    d = key
    for _ in range(5200):
        d = hashlib.sha512(b"chatcore/1/safety-number" + d + key).digest()
    return "".join(f"{int.from_bytes(d[i:i + 5], 'big') % 100000:05}" for i in range(0, 30, 5))


# ---- Noise, revision 34 ----

class Cipher:
    def __init__(self, key): self.key, self.n = key, 0

    def next(self):
        self.n += 1
        return bytes(4) + struct.pack("<Q", self.n - 1)  # little-endian, as Noise has it for ChaChaPoly

    def seal(self, ad, plaintext): return seal(self.key, self.next(), ad, plaintext)
    def unseal(self, ad, message): return unseal(self.key, self.next(), ad, message)


class Noise:
    """XKpsk2: the responder's static key is known before. KXpsk2: the initiator's."""
    PATTERNS = {"XKpsk2": [["e", "es"], ["e", "ee", "psk"], ["s", "se"]],
                "KXpsk2": [["e"], ["e", "ee", "se", "s", "es", "psk"]]}

    def __init__(self, pattern, initiator, prologue, s, rs=None):
        self.h = self.ck = f"Noise_{pattern}_25519_ChaChaPoly_SHA256".encode().ljust(32, b"\0")
        if len(self.h) > 32:
            self.h = self.ck = sha256(self.h)
        self.cipher, self.initiator, self.s, self.rs, self.e, self.re = None, initiator, s, rs, None, None
        self.todo = list(self.PATTERNS[pattern])
        self.mix_hash(prologue)
        self.mix_hash(s.public if (pattern == "KXpsk2") == initiator else rs)

    def mix_hash(self, value): self.h = sha256(self.h + value)

    def mix_key(self, ikm, hashed=False):
        okm = hkdf(self.ck, ikm, b"", 96 if hashed else 64)
        self.ck, self.cipher = okm[:32], Cipher(okm[-32:])
        if hashed:  # MixKeyAndHash, for the psk
            self.mix_hash(okm[32:64])

    def seal(self, plaintext):
        sealed = self.cipher.seal(self.h, plaintext)
        self.mix_hash(sealed)
        return sealed

    def unseal(self, sealed):
        plaintext = self.cipher.unseal(self.h, sealed)
        self.mix_hash(sealed)
        return plaintext

    def token(self, t, psk):
        if t == "psk":
            self.mix_key(psk, hashed=True)
        else:  # "se" is the initiator's static key with the responder's ephemeral one
            mine, theirs = t if self.initiator else t[::-1]
            self.mix_key({"e": self.e, "s": self.s}[mine].dh({"e": self.re, "s": self.rs}[theirs]))

    def write(self, payload, e=None, psk=None):
        out = b""
        for t in self.todo.pop(0):
            if t == "e":
                self.e = e
                out += e.public
                self.mix_hash(e.public)
                self.mix_key(e.public)  # because the pattern has a psk
            elif t == "s":
                out += self.seal(self.s.public)
            else:
                self.token(t, psk)
        return out + self.seal(payload)

    def read(self, message, psk=None):
        for t in self.todo.pop(0):
            if t == "e":
                need(len(message) >= 32, "Noise message too short")
                self.re, message = message[:32], message[32:]
                self.mix_hash(self.re)
                self.mix_key(self.re)
            elif t == "s":
                need(len(message) >= 48, "Noise message too short")
                self.rs, message = self.unseal(message[:48]), message[48:]
            else:
                self.token(t, psk)
        return self.unseal(message)

    def split(self):
        okm = hkdf(self.ck, b"", b"", 64)
        return okm[:32], okm[32:]


# ---- section 7: content and padding ----

def receipt(r): return data(1, r["message_id"]) + num(2, r["kind"]) + num(3, r.get("reason", 0))


def manifest(m):
    return (data(1, m["file_key"]) + data(2, m["file_id"]) + data(3, m["blob_id"]) + num(4, m["size"]) + num(5, m["chunk_size"])
            + num(6, m["chunk_count"]) + data(7, m["root"]) + data(8, m["name"].encode()) + data(9, m["media_type"].encode()))


BODIES = {"text": (20, lambda b: data(1, b["text"].encode())), "file": (21, lambda b: manifest(b["manifest"])),
          "empty": (22, lambda b: b""), "reset": (24, lambda b: b""),
          "profile": (23, lambda b: data(1, b["record_body"]) + data(2, b["record_signature"])),
          "long_text": (25, lambda b: sub(1, manifest(b["manifest"]))), "unknown": (99, lambda b: b["bytes"])}


def content(c):
    number, encode = BODIES[c["body"]["kind"]]
    return (data(1, c["message_id"]) + num(5, c["sender_seq"]) + data(6, c["previous_own_hash"]) + num(7, c["sent_at"])
            + b"".join(sub(9, receipt(r)) for r in c["receipts"]) + data(10, c["next_tag"]) + sub(number, encode(c["body"])))


KNOWN_BODIES = {*range(20, 29)}  # the last of these counts


def check_content(message):
    f = parse(message)
    need(len(one(f, 1)) == 16 and len(one(f, 6)) == (32 if one(f, 5, 0) else 0) and len(one(f, 10)) in (0, 16), "a length")
    receipts, bodies = [parse(r) for r in every(f, 9)], [(n, v) for n, v in f if n in KNOWN_BODIES]
    need(len(receipts) <= 64 and all(len(one(r, 1)) == 16 for r in receipts), "receipts")
    number, body = bodies[-1] if bodies else (0, b"")
    need(not one(f, 10) or any(one(f, 10)), "a tag of zeros")
    if number == 20:
        one(parse(body), 1).decode()
    elif number == 21:
        check_manifest(body)
    elif number == 23:
        need(len(one(parse(body), 2)) == 64, "length of a signature")
    elif number == 25:
        check_manifest(one(parse(body), 1))
        need(one(parse(one(parse(body), 1)), 4, 0) <= 65536, "long text")


def pad(message, overhead, sizes=BUCKETS):
    size = next((b for b in sizes if overhead + len(message) + 1 <= b), None)
    need(size, "does not fit")
    return (message + b"\x80").ljust(size - overhead, b"\0")


def unpad(padded):
    stripped = padded.rstrip(b"\0")
    need(stripped.endswith(b"\x80"), "padding")
    return stripped[:-1]


# ---- section 6: ratchet ----

def ratchet_overhead(header): return 24 + 2 + len(header) + 16 + 16


def body_key(mk, nonce):
    okm = hkdf(nonce, mk, b"chatcore/1/body", 44)
    return okm[:32], okm[32:]


def seal_message(session, header_key, mk, nonce, header, padded):
    sealed_header = seal(header_key, nonce, session, header)
    bk, bn = body_key(mk, nonce)
    return nonce + u16(len(sealed_header)) + sealed_header + seal(bk, bn, session + nonce + sealed_header, padded)


def root_step(rk, shared, pq, ct):
    okm = hkdf(rk, shared + pq, b"chatcore/1/rk" + u8(1 if ct else 0) + sha256(ct), 96)
    return okm[:32], okm[32:64], okm[64:]


def parse_header(header):
    need(len(header) >= 41 and header[0] < 4, "header")
    flags, rest = header[0], header[41:]
    need(len(rest) == (1184 if flags & 1 else 0) + (1096 if flags & 2 else 0), "header length")
    ek, answer = (rest[:1184], rest[1184:]) if flags & 1 else (b"", rest)
    pn, n = struct.unpack(">II", header[33:41])
    return header[1:33], pn, n, ek, answer[:8], answer[8:]


class Ratchet:
    def __init__(self, starter, session, rk, first_ck, first_hk, next_a, next_b, a0, now):
        self.session, self.rk, self.since, self.count = session, rk, now, 0
        self.own, self.peer = (a0, None) if starter else (None, a0)  # A knows the secret of A0, B its public key
        self.step_due = not starter  # a chain was received since the own last one was made
        self.ns = self.pn = self.nr = 0
        self.cks, self.hks, self.nhks = (first_ck, first_hk, next_a) if starter else (None, None, next_b)
        self.ckr, self.hkr, self.nhkr = (None, None, next_b) if starter else (first_ck, first_hk, next_a)
        self.skipped = {}  # header key -> {n: mk}
        self.offer = self.offer_dk = b""  # own key not answered yet
        self.held = self.answered = b""  # the peer's key to answer; hash of the last one answered
        self.answer = b""  # what the sending chain carries behind flag 2

    def send(self, source, now, message, before=b""):
        """`source(what, length)` gives the randomness. `before`: what precedes the ratchet message in a blob of kind 1.
        Returns every value on the way."""
        log, random = {}, []

        def draw(what, length):
            log[what] = source(what, length)
            random.append(log[what])
            return log[what]

        if self.step_due:
            self.own, pq, ct, self.answer = draw("ratchet_secret", 32), b"", b"", b""
            if self.held:
                pq, ct = encaps(self.held, draw("encapsulation_randomness", 32))
                self.answered, self.held = sha256(self.held), b""
                self.answer, self.count, self.since = self.answered[:8] + ct, 0, now
                log |= {"pq": pq, "pq_ct": ct}
            self.pn, self.ns, self.hks, self.step_due = self.ns, 0, self.nhks, False
            self.rk, self.cks, self.nhks = root_step(self.rk, Key(self.own).dh(self.peer), pq, ct)
            log |= {"root_key": self.rk, "chain_key": self.cks, "next_header_key": self.nhks}
        if not self.offer and not self.held and (self.count >= 50 or now - self.since >= DAY):
            self.offer, self.offer_dk = kem_key(draw("offer_seed", 64))
            log["offer_ek"] = self.offer
        ek = self.offer if self.ns < 3 or self.ns % 16 == 0 else b""
        header = u8((1 if ek else 0) | (2 if self.answer else 0)) + Key(self.own).public + u32(self.pn) + u32(self.ns) + ek + self.answer
        nonce, mk = draw("nonce", 24), hmac256(self.cks, b"\1")
        self.cks, self.ns, self.count = hmac256(self.cks, b"\2"), self.ns + 1, self.count + 1
        padded = pad(message, len(before) + ratchet_overhead(header))
        blob = seal_message(self.session, self.hks, mk, nonce, header, padded)
        bk, bn = body_key(mk, nonce)
        return log | {"random": b"".join(random), "offers": bool(ek), "answers": bool(self.answer), "pn": self.pn, "n": self.ns - 1,
                      "header": header, "header_key": self.hks, "mk": mk, "body_key": bk, "body_nonce": bn,
                      "sealed_header": seal(self.hks, nonce, self.session, header), "content": message, "padded": padded, "bytes": before + blob}

    def open(self, message, now):
        work = copy.deepcopy(self)  # a message that does not authenticate changes nothing
        result = work.open_here(message, now)
        self.__dict__.update(work.__dict__)
        return result

    def open_here(self, message, now):
        need(len(message) >= 26, "too short")
        nonce, length = message[:24], struct.unpack(">H", message[24:26])[0]
        sealed, body = message[26:26 + length], message[26 + length:]
        need(len(sealed) == length, "header length")

        def header_under(key):
            try:
                return key and parse_header(unseal(key, nonce, self.session, sealed))
            except ValueError:
                return None

        for key, stored in self.skipped.items():
            header = header_under(key)
            if header and (header[2] in stored or key != self.hkr):
                need(header[2] in stored, "message key used or dropped")
                return self.finish(header, stored.pop(header[2]), nonce, sealed, body, in_order=False)
        header = header_under(self.hkr)
        if not header:
            header = header_under(self.nhkr)
            need(header, "no header key")
            self.receive_chain(header, now)
        n = header[2]
        need(n >= self.nr, "message key used or dropped")
        self.skip_to(n)
        mk, self.ckr, self.nr = hmac256(self.ckr, b"\1"), hmac256(self.ckr, b"\2"), n + 1
        return self.finish(header, mk, nonce, sealed, body)

    def skip_to(self, n):
        need(n - self.nr <= 2000, "jump")
        while self.nr < n:
            self.skipped.setdefault(self.hkr, {})[self.nr] = hmac256(self.ckr, b"\1")
            self.ckr, self.nr = hmac256(self.ckr, b"\2"), self.nr + 1

    def receive_chain(self, header, now):
        key, pn, _, _, name, ct = header
        if self.ckr:
            self.skip_to(max(pn, self.nr))
        need(not ct or self.offer and name == sha256(self.offer)[:8], "ciphertext for another key")
        pq = decaps(self.offer_dk, ct) if ct else b""
        self.peer, self.hkr, self.nr, self.step_due = key, self.nhkr, 0, True
        self.rk, self.ckr, self.nhkr = root_step(self.rk, Key(self.own).dh(key), pq, ct)
        if ct:
            self.offer, self.offer_dk, self.count, self.since = b"", b"", 0, now

    def finish(self, header, mk, nonce, sealed, body, in_order=True):
        bk, bn = body_key(mk, nonce)
        padded = unseal(bk, bn, self.session + nonce + sealed, body)
        if header[3] and sha256(header[3]) != self.answered:
            check_ek(header[3])
            if in_order:
                self.held = header[3]
        self.count += 1
        return unpad(padded)


# ---- section 9: files ----

def chunk_size(size): return 65536 if size <= 16 << 20 else 262144 if size <= 1 << 30 else 1048576


def padme(c):
    if c == 1:
        return 1
    e = c.bit_length() - 1
    zero_bits = e - e.bit_length()  # S = floor(log2 E) + 1 is the bit length of E
    return (c + (1 << zero_bits) - 1) >> zero_bits << zero_bits


def counts(size):
    count = max(1, -(-size // chunk_size(size)))
    return count, padme(count)


def text_cut(size): return next(((chunk, 1) for chunk in (4096, 8192, 16384, 32768, 65536) if size <= chunk), None)


def check_manifest(message):
    f = parse(message)
    lengths = {1: 32, 2: 16, 3: 16, 7: 32}
    need(all(len(one(f, n)) == length for n, length in lengths.items()), "a length")
    size = one(f, 4, 0)
    cut = one(f, 5, 0), one(f, 6, 0)
    need(size <= 16 << 30 and cut in ((chunk_size(size), counts(size)[1]), text_cut(size)), "sizes")
    need(len(one(f, 8)) <= 255 and len(one(f, 9)) <= 127, "a name")
    one(f, 8).decode(), one(f, 9).decode()


# ---- section 15: events of rooms ----

EVENT, STATEMENT, ANNOUNCEMENT = b"chatcore/1/room-event", b"chatcore/1/room-statement", b"chatcore/1/announcement"
REGISTER, ROOM_STATE = b"chatcore/1/register", b"chatcore/1/room-state"
REGISTER_KEYS, REGISTER_ENTRY, REGISTER_APPEND = b"chatcore/1/register-keys", b"chatcore/1/register-entry", b"chatcore/1/register-append"
MEMBER, MODERATOR, ADMIN, OWNER = 1, 2, 3, 4
PRIVATE, OPEN = 1, 2
RELAY = "relay"  # an actor that is no user

def check_room_text(raw, topic=False):
    """The table of section 11, for names and topics of rooms."""
    t = raw.decode()
    need(len(t) <= (256 if topic else 64), "name or topic")
    need(topic or t and t[0] not in "#! " and t[-1] != " " and "  " not in t, "name")
    need(all(c == " " or shows(c) for c in t), "name or topic: character")


def device_actor(identity_key, cert): return data(1, identity_key) + sub(2, cert)
def create(name, topic, nonce, register, **more): return create_fields(PRIVATE, name.encode(), topic.encode(), nonce, register, **more)
def create_open(name, topic, nonce): return create_fields(OPEN, name.encode(), topic.encode(), nonce, b"")
def create_fields(kind, name, topic, nonce, register, version=1, replaces=b""):
    return num(1, kind) + data(2, name) + data(3, topic) + data(4, nonce) + data(5, register) + num(6, version) + data(7, replaces)
def grant(user, role): return data(1, user) + num(2, role)
def target(user, counter=0): return data(1, user) + num(2, counter)


ACTS = {name: 10 + i for i, name in enumerate("create invite join leave kick ban unban mute unmute set_role rename set_topic set_policy transfer "
                                              "checkpoint move close resume set_version succeed retire".split())}
KNOWN_VERSION = 1


def event_body(room, seq, prev, at, actor, act, encoded):  # `actor` is the written field 5 or 6
    return data(1, room) + num(2, seq) + data(3, prev) + num(4, at) + actor + sub(ACTS.get(act, 99), encoded)


def check_device_actor(message):
    f = parse(message, 1)
    identity, (cert, signature) = one(f, 1), split_signed(one(f, 2), 2)
    verify(identity, CERT, cert, signature)
    c = parse(cert)
    need(one(c, 1) == user_id(identity) and one(c, 2, 0) >= 1 and all(len(one(c, n)) == 32 for n in (3, 4, 5)), "certificate")
    return one(c, 1), one(c, 3)


def read_act(e, a, relay_key):
    act = e["act"]
    if act in ("invite", "set_role", "kick", "ban", "unban", "mute", "unmute", "transfer"):
        e |= {"target": one(a, 1), "counter": one(a, 2, 0), "role": one(a, 2, 0)}
        need(len(e["target"]) == 32, "user id")
    if act == "create":
        e |= {"kind": one(a, 1, 0), "name": one(a, 2), "topic": one(a, 3), "register": one(a, 5), "version": one(a, 6, 0)}
        need(e["kind"] in (PRIVATE, OPEN) and len(one(a, 4)) == 16 and len(e["register"]) in (0, 32) and len(one(a, 7)) in (0, 32), "create")
    if act == "set_version": e["version"] = one(a, 1, 0)
    if act in ("create", "set_version"): need(0 < e["version"] < 2**32, "version")
    if act == "set_policy": e["role"] = one(a, 1, 0)
    if act in ("invite", "set_role", "set_policy"): need(MEMBER <= e["role"] <= OWNER, "unknown role")
    if act in ("rename", "set_topic"): e[{"rename": "name"}.get(act, "topic")] = one(a, 1)
    if act in ("create", "rename"): check_room_text(e["name"])
    if act in ("create", "set_topic"): check_room_text(e["topic"], topic=True)
    if act in ("checkpoint", "move"):
        e["value"] = one(a, 1)
        need(len(e["value"]) == 32, "state hash or register id")
    if act == "retire":
        e["users"] = [(one(parse(u, 2), 1), one(parse(u, 2), 2, 0)) for n, u in a if n == 1]
        need(all(len(u) == 32 for u, _ in e["users"]), "user id")
    if act == "succeed": e["acted"], e["now"] = check_head(one(a, 1), relay_key), check_head(one(a, 2), relay_key)
    if act == "resume": need(len(one(a, 1)) == len(one(a, 3)) == 32, "log id or chain hash")


def check_event(message, relay_key):
    """What can be said of an event without the room; gives its fields."""
    body, signature = split_signed(message)
    need(len(body) <= 4096, "body too long")
    f = parse(body)
    actors, acts = [(n, v) for n, v in f if n in (5, 6)], [(n, v) for n, v in f if n in ACTS.values()]
    need(actors, "no actor")
    user, key = (RELAY, relay_key[:32]) if actors[-1][0] == 6 else check_device_actor(actors[-1][1])
    verify(key, EVENT, body, signature)
    room, seq, prev = one(f, 1), one(f, 2, 0), one(f, 3)
    e = {"message": message, "hash": sha256(body), "room": room, "seq": seq, "prev": prev, "actor": user, "act": None, "target": None}
    if acts:
        e["act"], a = {n: name for name, n in ACTS.items()}[acts[-1][0]], parse(acts[-1][1], 1)
        try:
            read_act(e, a, relay_key)
        except Refused:
            if e["act"] in ("create", "succeed"): raise
            e["act"], e["target"] = None, None  # as one that is not known
    need((not room and not prev and seq == 0) if e["act"] == "create" else len(room) == len(prev) == 32, "room, seq or prev")
    return e


class Room:
    """The fold over a chain of events that passed `check_event`."""
    FROM = dict(join=0, leave=MEMBER, kick=MODERATOR, ban=ADMIN, unban=ADMIN, mute=MODERATOR, unmute=MODERATOR, set_role=ADMIN, rename=OWNER,
                set_topic=ADMIN, set_policy=OWNER, transfer=OWNER, checkpoint=MODERATOR, move=MODERATOR, close=OWNER, resume=OWNER, set_version=OWNER, succeed=MODERATOR, retire=OWNER)

    def __init__(self, events=()):
        self.head, self.policy, self.move_due, self.closed = b"", MODERATOR, False, False
        self.spent, self.all_of, self.since_checkpoint, self.counted, self.uncounted = {}, {}, 0, 0, 0
        self.log = []
        self.members, self.invited, self.banned, self.muted, self.counters = {}, {}, set(), set(), {}  # members: role, seq
        for e in events:
            self.apply(e)

    def role(self, user):  # also the rank of an actor; 0: no member
        if user == RELAY:
            return OWNER if self.by_relay else 0
        if self.kind == OPEN:
            return 0 if user in self.banned else self.members.get(user, (MEMBER,))[0]
        return self.members.get(user, (0,))[0]

    def apply(self, e):
        if not self.head:
            need(e["act"] == "create", "does not begin with create")
            self.by_relay, self.kind, self.name, self.topic, self.id = e["actor"] == RELAY, e["kind"], e["name"], e["topic"], e["hash"]
            self.owner_acted = 0
            self.register, self.registers, self.version = e["register"], {e["register"]}, e["version"]
            need(not self.by_relay or self.kind == OPEN, "private room of the relay")
            need(bool(self.register) == (self.kind == PRIVATE), "register")
            if not self.by_relay:
                self.members[e["actor"]] = OWNER, 0
        else:
            need(e["act"] != "create" and e["room"] == self.id and e["prev"] == self.head and e["seq"] == self.seq + 1, "does not follow")
            need(not self.closed, "closed")
            try:
                need(self.version <= KNOWN_VERSION or e["act"] in ("leave", "close", "set_version", "move"), "version not known")
                self.judge(e)
            except Refused:
                if self.version <= KNOWN_VERSION: raise  # else it is kept, and comes to nothing here
            else:
                self.take_place(e)
                getattr(self, "do_" + e["act"], self.do_nothing)(e)
        self.head, self.seq = e["hash"], e["seq"]
        self.log.append(e["message"])

    def judge(self, e):
        act, actor, who = e["act"], e["actor"], e["target"]
        need(act, "unknown act")
        need(actor != RELAY or self.by_relay and act != "transfer", "relay")
        need(self.kind == PRIVATE or act not in ("invite", "join", "leave", "move"), "open room")
        rank, theirs, invited = self.role(actor), self.role(who), self.invited.get(who, 0)
        need(rank >= (self.policy if act == "invite" else self.FROM[act]), "rank")
        need(who != actor, "himself")
        lower = 0 < theirs < rank
        if act == "invite":
            need(not theirs and not invited and who not in self.banned and len(self.members) + len(self.invited) < 1000, "target")
            need(e["role"] < rank or e["role"] == MEMBER, "role")
        elif act == "join": need(not rank and actor in self.invited, "not invited")
        elif act == "kick":
            need(lower or not theirs and 0 < invited < rank, "target")
            need(self.kind == PRIVATE or who in self.members or e["counter"] > self.counters.get(who, 0), "kick of nobody")
        elif act == "ban": need(theirs < rank and who not in self.banned, "target")
        elif act == "unban": need(who in self.banned and not theirs, "target")
        elif act == "mute": need(lower and who not in self.muted, "target")
        elif act == "unmute": need(lower and who in self.muted, "target")
        elif act == "set_role": need(lower and e["role"] < rank and e["role"] != theirs, "target or role")
        elif act == "transfer": need(theirs, "target")
        elif act == "retire":
            need(actor == RELAY, "not the relay")
            users = [u for u, _ in e["users"]]
            need(users and users == sorted(set(users)), "users")
        elif act == "succeed":
            need(self.kind == OPEN and not self.by_relay, "not for private rooms, nor the relay's")
            heirs = [(-role, seq, u) for u, (role, seq) in self.members.items() if role < OWNER]
            turn = 1 + [u for _, _, u in sorted(heirs)].index(actor) if actor in self.members and rank < OWNER else need(False, "no heir")
            for head in e["acted"], e["now"]: need(head["length"] <= len(self.log) and head["hash"] == log_hash(self.id, self.log[:head["length"]]), "head of another branch")
            need(e["acted"]["log"] == e["now"]["log"] == self.id and e["acted"]["length"] > self.owner_acted, "heads")
            need(e["now"]["at"] - e["acted"]["at"] >= turn * 180 * 86_400_000, "too early")
        elif act == "set_version": need(e["version"] > self.version, "not above")
        elif act == "move": need(e["value"] not in self.registers, "register used before")
        elif act == "checkpoint": need(e["value"] == self.state_hash(), "state hash")

        kept = {MODERATOR: 56, ADMIN: 32, OWNER: 0}.get(rank, 64)
        if not self.counts(e):
            need(act not in ("kick", "ban") or self.uncounted < 16384, "places")
        else:
            need(self.counted < 16384 - kept, "places")
            need(act == "checkpoint" or self.since_checkpoint < 1024 - kept, "places since the checkpoint")
            need(self.spent.get(actor, 0) < 128 or (act, rank) == ("checkpoint", OWNER), "share")
            need(self.all_of.get(actor, 0) < 4096 or rank == OWNER, "share of a life")

    def counts(self, e): return e["act"] not in ("leave", "close") and (e["act"] not in ("kick", "ban") or self.role(e["actor"]) != OWNER)

    def take_place(self, e):
        actor, rank = e["actor"], self.role(e["actor"])
        if rank == OWNER or e["act"] == "succeed": self.owner_acted = e["seq"]
        if not self.counts(e):
            self.uncounted += 1
            return
        self.counted, self.since_checkpoint = self.counted + 1, self.since_checkpoint + 1
        if actor != RELAY:
            for counts in self.spent, self.all_of: counts[actor] = counts.get(actor, 0) + 1
        if e["act"] == "checkpoint":
            self.since_checkpoint = 0
            self.spent = {} if rank == OWNER else {u: n for u, n in self.spent.items() if self.role(u) >= rank}

    def do_nothing(self, e): pass
    def do_invite(self, e): self.invited[e["target"]] = e["role"]
    def do_join(self, e): self.members[e["actor"]] = self.invited.pop(e["actor"]), e["seq"]
    def do_unban(self, e): self.banned.remove(e["target"])
    def do_mute(self, e): self.muted.add(e["target"])
    def do_unmute(self, e): self.muted.remove(e["target"])
    def do_rename(self, e): self.name = e["name"]
    def do_set_topic(self, e): self.topic = e["topic"]
    def do_set_policy(self, e): self.policy = e["role"]
    def do_move(self, e):
        self.register, self.move_due = e["value"], False
        self.registers.add(e["value"])
    def do_close(self, e): self.closed = True
    def do_retire(self, e):
        for u, counter in e["users"]: self.counters[u] = max(self.counters.get(u, 0), counter)
    def do_succeed(self, e):
        for u in [u for u, (role, _) in self.members.items() if role == OWNER]: self.give(u, ADMIN, e)
        self.give(e["actor"], OWNER, e)
    def do_set_version(self, e): self.version = e["version"]

    def remove(self, user):
        gone = self.members.pop(user, None), self.invited.pop(user, None)
        self.move_due |= self.kind == PRIVATE and gone != (None, None)

    def do_kick(self, e):
        self.remove(e["target"])
        if self.kind == OPEN:
            self.counters[e["target"]] = max(self.counters.get(e["target"], 0), e["counter"])

    def do_ban(self, e):
        self.do_kick(e)
        self.banned.add(e["target"])

    def do_leave(self, e):
        was_owner = self.role(e["actor"]) == OWNER
        self.remove(e["actor"])
        if was_owner and self.members:
            heir = min(self.members, key=lambda u: (-self.members[u][0], self.members[u][1], u))
            self.members[heir] = OWNER, self.members[heir][1]
        self.closed |= not self.members

    def give(self, user, role, e):
        self.members[user] = role, e["seq"] if self.kind == OPEN else self.members[user][1]
        if self.kind == OPEN and role == MEMBER:
            del self.members[user]

    def do_set_role(self, e):
        self.move_due |= self.kind == PRIVATE and e["role"] < self.role(e["target"])
        self.give(e["target"], e["role"], e)

    def do_transfer(self, e):
        self.give(e["actor"], ADMIN, e)
        self.give(e["target"], OWNER, e)

    def state(self):
        def listed(entries): return u32(len(entries)) + b"".join(sorted(entries))
        return (u8(self.kind) + u32(self.version) + u32(len(self.name)) + self.name + u32(len(self.topic)) + self.topic + u8(self.policy) + u8(self.move_due)
                + u8(bool(self.register)) + self.register + listed([u + u8(role) + u64(seq) for u, (role, seq) in self.members.items()])
                + listed([u + u8(role) for u, role in self.invited.items()]) + listed(self.banned) + listed(self.muted)
                + listed([u + u64(counter) for u, counter in self.counters.items()]))

    def state_hash(self): return sha256(ROOM_STATE + self.state())

    def joined(self, statements):
        """Members of an open room, given what `check_statement` gave."""
        newest = {}
        for s in statements:
            if s["room"] == self.id and s["counter"] > newest.get(s["user"], {"counter": 0})["counter"]:
                newest[s["user"]] = s
        return sorted(u for u, s in newest.items() if s["joined"] and u not in self.banned and self.counters.get(u, 0) < s["counter"])


def statement_body(room, counter, joined, actor): return data(1, room) + num(2, counter) + num(3, joined) + actor  # field 4, or nothing


def check_statement(message):
    body, signature = split_signed(message)
    f = parse(body)
    need(len(body) <= 4096 and len(one(f, 1)) == 32 and 1 <= one(f, 2, 0) <= 2**64 - 2 and every(f, 4), "a field")
    user, key = check_device_actor(one(f, 4))
    verify(key, STATEMENT, body, signature)
    return {"user": user, "room": one(f, 1), "counter": one(f, 2, 0), "joined": bool(one(f, 3, 0))}


# ---- section 15: logs ----

HEAD, LOG = b"chatcore/1/register-head", b"chatcore/1/register-chain"


def log_hash(log, entries):
    h = sha256(LOG + log)
    for entry in entries:
        h = sha256(h + sha256(entry))
    return h


def head_body(log, epoch, length, chain_hash, at): return data(1, log) + num(2, epoch) + num(3, length) + data(4, chain_hash) + num(5, at)


def check_head(message, relay_key):
    body, signature = split_signed(message)
    verify(relay_key[:32], HEAD, body, signature)
    f = parse(body)
    need(len(one(f, 1)) == len(one(f, 4)) == 32, "log id or chain hash")
    return {"log": one(f, 1), "length": one(f, 3, 0), "hash": one(f, 4), "at": one(f, 5, 0)}


def fork_proof(relay_key, *branches):  # ours and theirs, each a head and its entries
    return data(1, relay_key) + b"".join(sub(2 + i, sub(1, head) + b"".join(sub(2, e) for e in entries)) for i, (head, entries) in enumerate(branches))


def check_fork(proof):
    """How many entries the two sides share."""
    f = parse(proof)
    need(len(one(f, 1)) == 64, "relay key")
    sides = []
    for n in 2, 3:
        side = parse(one(f, n))
        head, entries = check_head(one(side, 1), one(f, 1)), every(side, 2)
        need(head["length"] == len(entries) and head["hash"] == log_hash(head["log"], entries), "entries do not lead to the head")
        sides.append((head["log"], entries))
    (ours, a), (theirs, b) = sides
    shared = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
    need(ours == theirs and shared is not None, "no fork")
    return shared


# ---- section 15: register ----

ENTRY_SIZES = [1024 << i for i in range(8)]


def register_keys(secret):
    okm = hkdf(b"", secret, REGISTER_KEYS, 64)
    return okm[:32], okm[32:]  # sealing key, seed of the write key


def register_id(write_key): return sha256(REGISTER + write_key)
def register_events(events): return b"".join(sub(1, e) for e in events)


def seal_entry(secret, position, nonce, events, sizes=None):
    key, seed = register_keys(secret)
    name = register_id(ed_public(seed))
    entry = nonce + seal(key, nonce, REGISTER_ENTRY + name + u64(position), pad(events, 40, sizes or ENTRY_SIZES))
    return entry, sign(seed, REGISTER_APPEND, name + u64(position) + sha256(entry))


def open_entry(entry, secret, position):
    key, seed = register_keys(secret)
    need(len(entry) in ENTRY_SIZES, "length of an entry")
    events = unpad(unseal(key, entry[:24], REGISTER_ENTRY + register_id(ed_public(seed)) + u64(position), entry[24:]))
    need(len(every(parse(events), 1)) <= 256, "events in an entry")
    return events


def check_proof(write_key, position, entry, proof): verify(write_key, REGISTER_APPEND, register_id(write_key) + u64(position) + sha256(entry), proof)


# ---- sections 16 and 17: room messages, announcements ----

def room_content(c):
    return (data(1, c["message_id"]) + data(2, c["room_id"]) + num(3, c["room_seq"]) + data(4, c["room_head"]) + num(5, c["sender_seq"])
            + data(6, c["previous_own_hash"]) + num(7, c["sent_at"]) + data(8, c["log_id"]) + num(9, c["log_length"]) + data(10, c["log_hash"])
            + sub(20, data(1, c["text"].encode())))


def check_room_content(message):
    f = parse(message)
    need(len(one(f, 1)) == 16 and all(len(one(f, n)) == 32 for n in (2, 4, 6, 8, 10)) and one(f, 5, 0) >= 1, "a length or sender_seq")
    for t in every(f, 20):
        need(len(one(parse(t), 1)) <= 65536, "text too long")
        one(parse(t), 1).decode()


def announcement_body(room, seq, text, at, address="", address_from=0):
    return data(1, room) + num(2, seq) + data(3, text.encode()) + num(4, at) + data(5, address.encode()) + num(6, address_from)


def check_address(text):
    need(text.isascii(), "address")
    host, port = text.rsplit(":", 1) if ":" in text else ("", "")
    need(port.isdigit() and int(port) < 65536, "port")
    if host.startswith("["):
        need(host.endswith("]"), "host")
        try: ipaddress.IPv6Address(host[1:-1])
        except ValueError: raise Refused("host")
    else: need(0 < len(host) <= 253 and all(c.isalnum() or c in ".-_" for c in host), "host")


def check_announcement(message, relay_key):
    body, signature = split_signed(message)
    verify(relay_key[:32], ANNOUNCEMENT, body, signature)
    f = parse(body)
    need(len(one(f, 1)) in (0, 32) and len(one(f, 3)) <= 4096, "a length")
    one(f, 3).decode()
    if one(f, 5):
        need(not one(f, 1), "an address in a room")
        check_address(one(f, 5).decode())
