//! A relay as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chatcore::invite::InviteLink;
use chatcore::wire::relay::{Answer, Request};

use super::{Device, User};

/// A relay of its own process, as the system sees it.
pub struct Process {
    pub child: Child,
    pub link: InviteLink,
}

impl Process {
    pub fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chat-server"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let link = lines.find_map(|line| line.trim().parse().ok()).unwrap();
        Self { child, link }
    }

    pub fn address(&self) -> SocketAddr {
        self.link.address().parse().unwrap()
    }

    pub async fn join(&self, nick: &str) -> (User, Device) {
        let user = User::new(nick);
        let record = user.record.signed().clone();
        let register = Request::Register { token: self.link.token.clone(), record };
        let (device, answer) =
            Device::connect(self.address(), &self.link.relay, &user.keys.link, register).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        (user, device)
    }

    pub async fn login(&self, user: &User) -> Device {
        let login = Request::Login { newest_head: None };
        let (device, answer) =
            Device::connect(self.address(), &self.link.relay, &user.keys.link, login).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        device
    }

    fn status(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    }

    /// Returns the most memory that it ever had, in MiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:") / 1_024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
