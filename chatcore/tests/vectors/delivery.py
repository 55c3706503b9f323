"""What two devices decide, in Python, from docs/PROTOCOL.md alone: sections 4 (another device), 7, 8 and 16.

Like protocol.py it exists to disagree with the Rust sources where the text can be read in two ways.
"""
from protocol import DAY, HOUR, every, one, parse, sha256

MINUTE = 60_000


class Sender:
    """Section 7: the numbers and hashes of one sending device. In a room the first message seen begins them."""
    def __init__(self, in_room):
        self.last, self.digest, self.missing = (None if in_room else 0), bytes(32), set()

    def take(self, number, previous, digest):
        if number == 0:
            return "alarm"
        if self.last is None:
            self.last, self.digest = number, digest
            return "in order"
        if number <= self.last:
            if number not in self.missing:
                return "alarm"
            self.missing.discard(number)
            return "late"
        gap = number - self.last - 1
        verdict = f"gap of {gap}" if gap else "in order" if previous == self.digest else "alarm"
        self.missing.update(range(max(self.last + 1, number - 2000), number))
        self.missing = set(sorted(self.missing)[-2000:])
        self.last, self.digest = number, digest
        return verdict


class Copy:
    """Section 8: one copy of a message, to one device. Every method returns what is done."""
    def __init__(self):
        self.state, self.since, self.first_try = "unsealed", 0, None
        self.repeated = self.held = False

    def look(self, now, receipts_may_wait):
        """On connecting, and every 10 minutes."""
        self.first_try = now if self.first_try is None else self.first_try
        if now - self.first_try >= 30 * DAY and not receipts_may_wait:
            return "not delivered"
        if self.state == "at the relay":
            return "ask" if self.is_late(now) else "wait"
        return {"unsealed": "seal", "sent": "send"}[self.state]

    def is_late(self, now):
        return now - self.since >= (DAY if self.held else MINUTE)

    def sealed(self, now):
        self.state, self.repeated, self.held = "sent", False, False
        return "send"

    def accepted(self, now):
        if self.state == "sent":
            self.state, self.since = "at the relay", now
        return "wait"

    def not_queued(self, now):
        if self.state != "at the relay" or not self.is_late(now):
            return "wait"
        if self.repeated:
            return "new session"
        self.state, self.since, self.repeated, self.held = "sent", now, True, False
        return "send"

    def session_lost(self, now):
        self.state = "unsealed"
        return "seal"

    def receipt(self, now, kind):
        if self.state == "unsealed":
            return "stays"
        if kind != 4:
            return "done"
        self.since, self.held, self.repeated = now, True, False
        return "stays"


class Resets:
    """Section 8: new sessions in the place of broken ones, with one device."""
    def __init__(self):
        self.generation, self.ours, self.theirs = 0, None, None

    def begin(self, now):
        if self.ours is not None and now - self.ours < HOUR:
            return "not yet"
        self.ours, self.generation = now, min(self.generation + 1, 2**32 - 1)
        return f"generation {self.generation}"

    def opened(self, now, generation, is_first):
        self.generation = max(self.generation, generation)
        if not is_first or generation == 0 or self.theirs is not None and now - self.theirs < HOUR:
            return "nothing"
        self.theirs = now
        return "send all again"


def speaking(sessions, generation, knows_tag, now):
    fit = [s for s in sessions if s["generation"] == max([generation] + [t["generation"] for t in sessions])
           and now - s["used_at"] < 30 * DAY and (knows_tag or not s["confirmed"])]
    fit.sort(key=lambda s: (not s["confirmed"], s["id"]))
    return fit[0]["id"] if fit else None


def leaving(sessions, generation, now):
    """The last of them was added or confirmed just now."""
    *others, new = sessions
    over = [s for s in others if new["confirmed"] and now - s["used_at"] >= (7 if s["generation"] < generation else 30) * DAY]
    left = sorted((s for s in others if s not in over), key=lambda s: (s["generation"], s["used_at"], s["id"]))
    return sorted(s["id"] for s in over + left[:max(0, len(left) + 1 - 5)])


def room_message(own, read, event, kind, author):
    """Section 16, the table: the first row that fits."""
    if own == "outside": return "refuse unknown_room"
    if own == "coming": return "hold"
    if read == "not yet" or event == "unknown": return "hold"
    if author == "member": return "show"
    if author == "muted": return "refuse muted"
    if kind == "open" and author == "unheard": return "hold"
    if kind == "open" and author in ("left", "barred") and read == "with news": return "hold"
    return "refuse not_a_member"


def heirs(copies, former, named):
    """For whom each copy of a message is once a record names `named`; those of `former` that stay keep theirs."""
    new = [d for d in named if d not in former and d not in copies]
    gone = [d for d in copies if d not in named]
    out = []
    for at, device in enumerate(copies):
        if device in named:
            out.append([device])
        elif device == gone[-1]:
            out.append(new)
        else:
            out.append(new[:1])
            new = new[1:]
    return out


def certified(record):
    """The devices of an encoded record: id, then signing, agreement and link key."""
    certs = [parse(one(parse(c), 1)) for c in every(parse(one(parse(record), 1)), 5)]
    return [(one(c, 2), one(c, 3), one(c, 4), one(c, 5)) for c in certs]


def own_place(user_key, record, device, was_let_in, shown):
    """Section 4, *Another device*: what `Records` in answer to a registration mean. The chain was verified."""
    bodies = [parse(one(parse(r), 1)) for r in shown]
    if not bodies or any(one(b, 1) != user_key for b in bodies):
        return "misbehaves"
    version = one(parse(one(parse(record), 1)), 3)
    if one(bodies[-1], 3) < version:
        return "refused"
    if was_let_in and any(one(b, 3) == version and r != record for b, r in zip(bodies, shown)):
        return "refused"
    if device in certified(shown[-1]):
        return "login"
    if was_let_in or not certified(shown[-1]) or any(d[3] == device[3] for r in shown for d in certified(r)):
        return "revoked"
    return "sign the next"


def shown_time(sent_at, now):
    return min(sent_at, now + 5 * MINUTE)
