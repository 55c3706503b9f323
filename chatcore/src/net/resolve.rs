//! How the addresses of a host's name are found.
//!
//! The system knows best: hosts file, DNS, names of the local network. A program that is linked statically with glibc
//! can't ask it safely: its plugins are shared libraries of another glibc (with that of systemd-resolved the process ends
//! by a signal). There hosts file and DNS are asked directly.

use std::io;
use std::net::SocketAddr;

/// Finds the addresses of `HOST:PORT`.
///
/// # Errors
/// `NotFound` when the host is not known, or nobody can be asked: what the reason is called differs between systems.
pub(super) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    // No question for anybody.
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let found = look_up(address).await.ok_or(io::ErrorKind::NotFound)?;
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
async fn look_up(address: &str) -> Option<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(address).await.ok()?;
    Some(found.collect())
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
async fn look_up(address: &str) -> Option<Vec<SocketAddr>> {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

    let (host, port) = crate::invite::split_address(address).ok()?;
    // Also where there is no hosts file (RFC 6761 section 6.3).
    if host.eq_ignore_ascii_case("localhost") {
        let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Some(here.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    // Without a server, or with a file that can't be read, the hosts file counts all the same.
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        )
    });
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let found = builder.build().ok()?.lookup_ip(host).await.ok()?;
    Some(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_computer_are_found_and_made_up_ones_are_not() {
        assert_eq!(resolve("[::1]:7").await.unwrap(), ["[::1]:7".parse().unwrap()]);
        let found = resolve("localhost:7").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        let unknown = resolve("no-such-host.invalid:7").await.unwrap_err();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    }
}
