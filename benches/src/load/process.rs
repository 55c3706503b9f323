//! Child processes: this program again, as a relay or as a forwarder.
//!
//! A child ends when its standard input does: it can't outlive who started it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chatcore::invite::InviteLink;

use crate::error::BenchError;

/// Role of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A relay with its stores in a folder.
    Relay(PathBuf),
    /// The same with the limits that it is shipped with.
    Shipped(PathBuf),
    /// A relay that keeps nothing.
    EphemeralRelay,
    /// Plain TCP, nothing understood.
    Forwarder,
}

/// Name of the hidden flag that makes a process a child; its value is the role.
const FLAG: &str = "--serve";

impl Role {
    fn argument(&self) -> String {
        match self {
            Self::Relay(folder) => format!("relay={}", folder.display()),
            Self::Shipped(folder) => format!("shipped={}", folder.display()),
            Self::EphemeralRelay => "ephemeral".to_owned(),
            Self::Forwarder => "forwarder".to_owned(),
        }
    }

    /// Reads the value of the hidden flag.
    #[must_use]
    pub fn parse(argument: &str) -> Option<Self> {
        match argument {
            "ephemeral" => Some(Self::EphemeralRelay),
            "forwarder" => Some(Self::Forwarder),
            _ => match argument.split_once('=')? {
                ("relay", folder) => Some(Self::Relay(folder.into())),
                ("shipped", folder) => Some(Self::Shipped(folder.into())),
                _ => None,
            },
        }
    }
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    said: String,
}

impl Process {
    /// Starts a child and waits for the line that says where it listens.
    ///
    /// # Errors
    /// [`BenchError::System`].
    pub fn start(role: &Role) -> Result<Self, BenchError> {
        let failed = BenchError::system("starting the process under load");
        let start = || -> std::io::Result<Self> {
            let mut child = Command::new(std::env::current_exe()?)
                .args([FLAG, &role.argument()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut said = String::new();
            if let Some(stdout) = child.stdout.take() {
                BufReader::new(stdout).read_line(&mut said)?;
            }
            Ok(Self { child, said: said.trim().to_owned() })
        };
        start().map_err(failed)
    }

    /// Returns the link that a relay said.
    ///
    /// # Errors
    /// [`BenchError::Unexpected`] when it said something else.
    pub fn link(&self) -> Result<InviteLink, BenchError> {
        self.said.parse().map_err(|_| BenchError::Unexpected(self.said.clone()))
    }

    /// Returns the address that a forwarder said.
    ///
    /// # Errors
    /// [`BenchError::Unexpected`] when it said something else.
    pub fn address(&self) -> Result<SocketAddr, BenchError> {
        self.said.parse().map_err(|_| BenchError::Unexpected(self.said.clone()))
    }

    /// Returns its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it end in good order, and waits for that.
    ///
    /// # Errors
    /// [`BenchError::System`].
    pub fn stop(mut self) -> Result<(), BenchError> {
        drop(self.child.stdin.take());
        let ended = self.child.wait();
        ended.map(drop).map_err(BenchError::system("stopping the process under load"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` it has ended already.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

/// Ticks a second of `/proc/PID/stat`: the same on every Linux, whatever the kernel's own.
const TICKS: u64 = 100;

/// Returns the CPU time a process has used, in steps of 10 ms; `None` where there is no `/proc`.
#[must_use]
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; user and system time are 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * (1_000 / TICKS)))
}

/// Returns the bytes of memory a process holds; `None` where there is no `/proc`.
#[must_use]
pub(super) fn memory(pid: u32) -> Option<u64> {
    memory_line(pid, "VmRSS:")
}

/// Returns the most bytes of memory that a process ever held; `None` where there is no `/proc`.
#[must_use]
pub(super) fn peak_memory(pid: u32) -> Option<u64> {
    memory_line(pid, "VmHWM:")
}

fn memory_line(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// Makes sure that `needed` files can be open at once.
///
/// # Errors
/// [`BenchError::OpenFiles`].
pub(super) fn check_open_files(needed: u64) -> Result<(), BenchError> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let allowed = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    match allowed {
        Some(allowed) if allowed < needed => Err(BenchError::OpenFiles { needed, allowed }),
        _ => Ok(()),
    }
}

/// Returns the bytes of all files in a folder, as the disk counts them.
///
/// # Errors
/// [`BenchError::System`].
pub fn disk_usage(folder: &Path) -> Result<u64, BenchError> {
    fn walk(folder: &Path) -> std::io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += if metadata.is_dir() { walk(&entry.path())? } else { on_disk(&metadata) };
        }
        Ok(bytes)
    }
    walk(folder).map_err(BenchError::system("measuring a folder"))
}

#[cfg(unix)]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_survive_the_command_line() {
        for role in [
            Role::Relay("/a b/c=d".into()),
            Role::Shipped("/a=b".into()),
            Role::EphemeralRelay,
            Role::Forwarder,
        ] {
            assert_eq!(Role::parse(&role.argument()), Some(role));
        }
        assert_eq!(Role::parse("else"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_time_and_memory() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(memory(std::process::id()).unwrap() > 1 << 20);
        assert!(check_open_files(1).is_ok());
        assert!(check_open_files(u64::MAX).is_err());
    }
}
