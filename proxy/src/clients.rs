//! How many connections each client has, over all workers. Asked by `admission` where a listener has such a limit; a lock,
//! taken twice in the life of a connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Clones share. No larger than the number of connections: a client without one is forgotten.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of a client, counted until this is dropped.
pub struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// `None` when the client has as many as it may.
    pub fn admit(&self, address: IpAddr, most: usize) -> Option<Place> {
        let client = client(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= most {
            if *count == 0 {
                counts.remove(&client);
            }
            return None;
        }
        *count += 1;
        Some(Place { clients: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.client) {
            match entry.get().checked_sub(1) {
                Some(left @ 1..) => *entry.get_mut() = left,
                Some(0) | None => drop(entry.remove()),
            }
        }
    }
}

/// RFC 6177: whoever has IPv6 has a /64 at least, and may use every address of it.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_each_64_of_ipv6_has_its_own_and_gives_them_back() {
        let clients = Clients::default();
        let admit = |address: &str| clients.admit(address.parse().unwrap(), 2);
        let held = [admit("192.0.2.1"), admit("::ffff:192.0.2.1"), admit("2001:db8::1"), admit("2001:db8::2:3:4:5")];
        assert!(held.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none() && admit("2001:db8::9").is_none());
        assert!(admit("192.0.2.2").is_some() && admit("2001:db8:0:1::9").is_some());
        drop(held);
        assert!(clients.0.lock().unwrap().is_empty());
        assert!(admit("192.0.2.1").is_some());
    }
}
