//! Where a redirected connection was going before iptables or nftables sent it here, and whether that is this pod.
//!
//! The listener asks both for every connection; what is refused because of the answer is the data path's decision.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::{io::Errno, net::sockopt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::canonical;

/// The destination that the client dialled, from the kernel's connection tracking. `None`: it dialled this listener
/// itself, or nothing here redirects connections.
pub fn original_dst(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = canonical(stream.local_addr()?);
    let dialled = match local {
        SocketAddr::V4(_) => sockopt::ip_original_dst(stream).map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(stream).map(SocketAddr::V6),
    };
    match dialled.map(canonical) {
        Ok(dialled) if dialled.ip() == local.ip() && dialled.port() == local.port() => Ok(None),
        Ok(dialled) => Ok(Some(dialled)),
        // Not tracked; tracking not in this kernel; this family not in this kernel.
        Err(Errno::NOENT | Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The addresses under which the network reaches this pod.
///
/// An inbound proxy connects to what the client dialled, from inside the pod, so whoever can put a packet on the pod's
/// wire chooses the target: a packet to 127.0.0.1 is redirected before the kernel would have refused it as coming from
/// outside. Therefore an address must stand on an interface, and those that reach what was never open to the network
/// are no address of the pod even though they do: loopback (the application's and this proxy's private ports),
/// link-local of both families (metadata services, node-local resolvers), unspecified, multicast and broadcast.
///
/// The kernel's tables are read rather than probed by binding a socket: `ip_nonlocal_bind` makes every address bind,
/// and a broadcast address always does. A table is one read for all addresses, so nothing grows with what clients dial.
///
/// The worker reads them itself, at most once a second: /proc is memory, and a pod has a handful of addresses. On a host
/// with very many, `TABLE_MAX` bounds what one read takes from the worker's connections.
#[derive(Debug)]
pub struct LocalAddresses {
    known: HashSet<IpAddr>,
    read_at: Instant,
}

impl LocalAddresses {
    /// Fails when the kernel shows no table, in which case no connection could ever be let in.
    pub fn read(now: Instant) -> io::Result<Self> {
        Ok(Self { known: from_kernel()?, read_at: now })
    }

    /// Whether `ip` is this pod. A new address counts after a second at the latest, one that is gone no longer after
    /// five; while the tables cannot be read (no descriptors left, say) the last answer stands.
    pub fn contains(&mut self, ip: IpAddr, now: Instant) -> bool {
        self.look_up(ip, now, from_kernel)
    }

    fn look_up(&mut self, ip: IpAddr, now: Instant, read: impl FnOnce() -> io::Result<HashSet<IpAddr>>) -> bool {
        let ip = ip.to_canonical();
        if !is_routable(ip) {
            return false;
        }
        let age = now.saturating_duration_since(self.read_at);
        let limit = if self.known.contains(&ip) { KNOWN_FOR } else { UNKNOWN_FOR };
        if age >= limit {
            self.read_at = now;
            if let Ok(known) = read() {
                self.known = known;
            }
        }
        self.known.contains(&ip)
    }
}

/// Whether an address can be that of a pod as others see it.
fn is_routable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.octets().starts_with(&[0])
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast()),
    }
}

fn from_kernel() -> io::Result<HashSet<IpAddr>> {
    let mut known = ipv4_addresses(&table("/proc/net/fib_trie")?);
    match table("/proc/net/if_inet6") {
        Ok(text) => known.extend(ipv6_addresses(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(known)
}

fn table(path: &str) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(TABLE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// In fib_trie an own address is a leaf, `|-- 10.1.2.3`, followed by `/32 host LOCAL`. Wider local routes, as 127/8 and
/// what administrators add, are no addresses.
fn ipv4_addresses(text: &str) -> HashSet<IpAddr> {
    let mut found = HashSet::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && is_routable(address.into())
            && found.len() < ADDRESSES_MAX
        {
            found.insert(address.into());
        }
    }
    found
}

/// In if_inet6 each line is an own address, as 32 hexadecimal digits and further columns.
fn ipv6_addresses(text: &str) -> HashSet<IpAddr> {
    text.lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|digits| digits.len() == 32)
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        .filter(|ip| is_routable(*ip))
        .take(ADDRESSES_MAX)
        .collect()
}

/// How long an address may still be taken for this pod's after it was removed.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// How long a new address may be refused; also what keeps strangers from making this read all the time.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// A pod's tables are a kilobyte; a node with ten thousand routes has one megabyte.
const TABLE_MAX: u64 = 8 << 20;
/// Addresses that are kept of each family: far beyond what a pod or a node has.
const ADDRESSES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.0\n           /8 host LOCAL\n        |-- 127.0.0.1\n           /32 host LOCAL\n     +-- 10.1.2.0/24 2 0 2\n        |-- 10.1.2.0\n           /24 link UNICAST\n        |-- 10.1.2.3\n           /32 host LOCAL\n        |-- 10.1.2.255\n           /32 link BROADCAST\n     |-- 169.254.20.10\n        /32 host LOCAL\n     |-- 10.9.0.0\n        /16 host LOCAL\n";
    const INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\nfe8000000000000000fc00fffe000001 04 40 20 80     eth0\nfd000000000000000000000000000002 04 40 00 82     eth0\nshort 04\n";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn own_addresses_are_those_of_interfaces_that_the_network_reaches() {
        assert_eq!(ipv4_addresses(TRIE), HashSet::from([ip("10.1.2.3")]));
        assert_eq!(ipv6_addresses(INET6), HashSet::from([ip("fd00::2")]));
    }

    #[test]
    fn nothing_that_was_private_is_reached_through_the_proxy() {
        let mut addresses = LocalAddresses::read(Instant::now()).unwrap();
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:169.254.169.254",
        ] {
            assert!(!addresses.contains(ip(private), Instant::now()), "{private}");
        }
    }

    #[test]
    fn the_address_of_this_host_is_known() {
        // The address that the kernel would send from, when it has a route at all.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.77:9").is_err() {
            return;
        }
        let own = socket.local_addr().unwrap().ip();
        let mut addresses = LocalAddresses::read(Instant::now()).unwrap();
        assert_eq!(addresses.contains(own, Instant::now()), is_routable(own));
        assert!(!addresses.contains(ip("192.0.2.78"), Instant::now()));
    }

    #[test]
    fn the_tables_are_read_again_soon_but_never_at_a_strangers_pace() {
        let start = Instant::now();
        let mut addresses = LocalAddresses { known: HashSet::from([ip("10.0.0.1")]), read_at: start };
        let unread = || -> io::Result<HashSet<IpAddr>> { panic!("read too early") };
        assert!(addresses.look_up(ip("10.0.0.1"), start + KNOWN_FOR / 2, unread));
        assert!(!addresses.look_up(ip("10.0.0.2"), start + UNKNOWN_FOR / 2, unread));

        let moved = || Ok(HashSet::from([ip("10.0.0.2")]));
        let later = start + UNKNOWN_FOR;
        assert!(addresses.look_up(ip("10.0.0.2"), later, moved), "a new address is found");
        assert!(!addresses.look_up(ip("10.0.0.1"), later, unread), "the old one is gone");

        let failed = || Err(io::ErrorKind::Other.into());
        assert!(addresses.look_up(ip("10.0.0.2"), later + KNOWN_FOR, failed), "the last answer stands");
    }

    #[tokio::test(flavor = "local")]
    async fn a_connection_that_was_not_redirected_has_no_original_destination() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(original_dst(&stream).unwrap(), None);
        }
    }
}
