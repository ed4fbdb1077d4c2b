//! Services that a worker has called: each is told to the control plane once, which then pushes what its callers decide by.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::mpsc;

use crate::rules::sampling::Service;

/// By their names' hashes: two that are the same cost a policy for one of them, and no request.
#[derive(Debug, Default)]
pub struct Callees(HashSet<u64>);

impl Callees {
    pub fn called(&mut self, service: Service<'_>, calls: &mpsc::Sender<String>) {
        let mut hasher = DefaultHasher::new();
        for part in [service.name, service.namespace] {
            part.bytes().for_each(|byte| byte.to_ascii_lowercase().hash(&mut hasher));
            hasher.write_u8(b'.');
        }
        let hash = hasher.finish();
        if self.0.contains(&hash) || self.0.len() >= MOST {
            return;
        }
        let name = format!("{}.{}", service.name, service.namespace).to_ascii_lowercase();
        // Where there is no room the next request tells it.
        if calls.try_send(name).is_ok() {
            self.0.insert(hash);
        }
    }
}

/// As many as a control plane takes of one proxy.
const MOST: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_once_and_again_where_there_was_no_room() {
        let (calls, mut told) = mpsc::channel(1);
        let mut callees = Callees::default();
        for name in ["cart", "Cart", "pay", "cart"] {
            callees.called(Service { name, namespace: "shop" }, &calls);
        }
        assert_eq!(told.try_recv().unwrap(), "cart.shop");
        assert!(told.try_recv().is_err(), "there was no room for the other");
        callees.called(Service { name: "pay", namespace: "shop" }, &calls);
        assert_eq!(told.try_recv().unwrap(), "pay.shop");
    }
}
