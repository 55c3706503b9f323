//! Disk use by user, and taking it back.

use std::collections::HashMap;

use chatcore::ids::UserId;
use serde_json::{Value, json};

use super::{Said, Task};
use crate::error::RelayError;
use crate::size::Size;

/// Users listed.
const MAX_SHOWN: usize = 50;

/// Bytes that one user takes.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    files: u64,
    private_rooms: u64,
    open_rooms: u64,
    /// Envelopes that wait for the user, and their bytes.
    waiting: (u64, u64),
}

impl Usage {
    const fn total(&self) -> u64 {
        self.files + self.private_rooms + self.open_rooms + self.waiting.1
    }

    fn words(&self) -> String {
        format!(
            "{}: files {}, private rooms {}, open rooms {}, waiting {} ({} messages)",
            mib(self.total()),
            mib(self.files),
            mib(self.private_rooms),
            mib(self.open_rooms),
            mib(self.waiting.1),
            self.waiting.0,
        )
    }

    fn json(&self, user: &UserId, nickname: &str) -> Value {
        json!({
            "nickname": nickname, "user_id": user.to_hex(), "bytes": self.total(),
            "file_bytes": self.files, "private_room_bytes": self.private_rooms,
            "open_room_bytes": self.open_rooms, "waiting": self.waiting.0,
            "waiting_bytes": self.waiting.1,
        })
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl Task<'_> {
    fn usages(&self) -> Result<HashMap<UserId, Usage>, RelayError> {
        let shared = self.shared;
        let mut all: HashMap<UserId, Usage> = HashMap::new();
        for (user, blobs) in shared.stores.blobs.usage_of_all() {
            all.entry(user).or_default().files = blobs.uploaded;
        }
        for (user, registers) in self.stored(shared.stores.registers.usage_of_all())? {
            all.entry(user).or_default().private_rooms = registers.bytes;
        }
        for (user, bytes) in shared.rooms.bytes_of_all() {
            all.entry(user).or_default().open_rooms = bytes;
        }
        for (user, waiting) in shared.mailboxes.waiting_for_all() {
            all.entry(user).or_default().waiting = waiting;
        }
        Ok(all)
    }

    /// Says who takes most.
    pub(super) fn usage(&self) -> Result<Said, RelayError> {
        let mut all: Vec<_> = self.usages()?.into_iter().collect();
        all.retain(|(_, usage)| usage.total() > 0);
        all.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.total()));
        let left_out = all.len().saturating_sub(MAX_SHOWN);
        let (mut lines, mut list) = (Vec::new(), Vec::new());
        for (user, usage) in all.iter().take(MAX_SHOWN) {
            let nickname = self.nickname(user)?;
            lines.push(format!("{nickname}  {}", usage.words()));
            list.push(usage.json(user, &nickname));
        }
        if left_out > 0 {
            lines.push(format!("{left_out} more have less"));
        }
        let text = if lines.is_empty() { "nothing is stored".to_owned() } else { lines.join("\n") };
        Ok(Said::new(text, json!({"users": list, "left_out": left_out})))
    }

    /// Says what one user takes.
    pub(super) fn usage_of(&self, name: &str) -> Result<Said, RelayError> {
        let user = self.find(name)?;
        let usage = self.usages()?.get(&user).copied().unwrap_or_default();
        let mut text = usage.words();
        let limits = self.shared.limits();
        let mut mailboxes = Vec::new();
        for (device, count, bytes) in self.shared.mailboxes.mailboxes_of(&user) {
            let share = bytes * 100 / limits.mailbox_bytes.max(1);
            text += &format!(
                "\nmailbox of device {}: {count} messages, {} ({share} % of what it may hold)",
                device.get(),
                mib(bytes)
            );
            mailboxes.push(json!({"device_id": device.get(), "waiting": count, "bytes": bytes}));
        }
        let files = usage.files * 100 / limits.stored_per_user.max(1);
        text += &format!("\nfiles: {files} % of {}", Size(limits.stored_per_user));
        let mut json = usage.json(&user, &self.nickname(&user)?);
        if let Value::Object(fields) = &mut json {
            fields.insert("mailboxes".to_owned(), mailboxes.into());
        }
        Ok(Said::new(text, json))
    }

    /// Deletes what a user has stored: files, and registers begun. Of a register length and hash stay: those who
    /// know its entries may bring them back, and nothing else ever stands in their places. Messages of others that
    /// wait for the user go only when the user can't come for them.
    pub(super) fn purge(&self, name: &str) -> Result<Said, RelayError> {
        let user = self.find(name)?;
        let stores = &self.shared.stores;
        let (before, is_banned) = (self.usages()?, self.shared.rights.of(&user).is_banned);
        self.stored(stores.blobs.remove_owned(&user))?;
        self.stored(stores.registers.set_aside_of(&user))?;
        let dropped = if is_banned { self.shared.mailboxes.drop_for(&user) } else { 0 };
        let total = |usages: &HashMap<UserId, Usage>| usages.get(&user).map_or(0, Usage::total);
        let freed = total(&before).saturating_sub(total(&self.usages()?));
        let mut text = format!("{} deleted", mib(freed));
        if !is_banned {
            text += "; what waits for them stays, unless they are banned first: !ban";
        }
        let json = json!({"user_id": user.to_hex(), "freed": freed, "dropped": dropped});
        Ok(Said::new(text, json))
    }
}
