//! What every proxy is to have at one moment: made from the cluster whenever that changes, never changed itself. Proxies
//! that are to have the same share its bytes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use spanmesh_proto::v1;

use crate::cluster::Cluster;
use crate::snapshot;

/// Kinds of resources that travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Policy,
    Destination,
    Thresholds,
    Capture,
}

const KINDS: [Kind; 4] = [Kind::Policy, Kind::Destination, Kind::Thresholds, Kind::Capture];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Destination => "destination",
            Self::Thresholds => "thresholds",
            Self::Capture => "capture",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

impl Key {
    pub fn parse(kind: &str, name: &str) -> Option<Self> {
        Some(Self { kind: Kind::parse(kind)?, name: name.to_owned() })
    }

    pub fn wire(&self) -> v1::Name {
        v1::Name { kind: self.kind.name().into(), name: self.name.clone() }
    }
}

/// A resource's bytes. Clones share.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub digest: u64,
    pub body: Bytes,
}

impl Item {
    pub fn new(body: Bytes) -> Self {
        Self { digest: digest(&body), body }
    }

    pub fn of(message: &impl Message) -> Self {
        Self::new(message.encode_to_vec().into())
    }

    pub fn wire(&self, key: &Key) -> v1::Resource {
        v1::Resource {
            kind: key.kind.name().into(),
            name: key.name.clone(),
            digest: self.digest,
            body: self.body.clone(),
        }
    }
}

/// FNV-1a: told from each other are the versions of one resource, by parties that trust each other.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// What one proxy is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub items: Vec<(Key, Item)>,
    /// Kinds of which it keeps what it has.
    pub as_held: Option<Kind>,
}

#[derive(Debug)]
pub struct Picture {
    /// Grows with each change.
    pub version: u64,
    pub made: Instant,
    pub cluster: Arc<Cluster>,
    /// Adaptive rules and rate limits of the whole mesh, as they are now; nothing before enough was reported to say so.
    pub thresholds: Option<Arc<v1::Thresholds>>,
    /// Policies of proxies by what they hang on; made when the first proxy asks.
    policies: Mutex<HashMap<Seat, Item>>,
    destinations: Mutex<HashMap<String, Option<Item>>>,
}

/// What a proxy's policy hangs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    pub namespace: String,
    pub service: String,
    pub workload: String,
    pub service_account: String,
    pub role: String,
    /// The services that select its pod, where that is known.
    pub selected_by: Option<Arc<[String]>>,
}

impl Seat {
    pub fn of(node: &v1::Node) -> Self {
        Self {
            namespace: node.namespace.clone(),
            service: node.service.clone(),
            workload: node.workload.clone(),
            service_account: node.service_account.clone(),
            role: node.role.clone(),
            selected_by: None,
        }
    }

    /// A proxy's own word counts where nobody knows better.
    pub fn is_of(&self, service: &str) -> bool {
        match &self.selected_by {
            Some(services) => services.iter().any(|one| one == service),
            None => self.service == service,
        }
    }
}

impl Picture {
    pub fn new(version: u64, cluster: Arc<Cluster>, thresholds: Option<Arc<v1::Thresholds>>) -> Self {
        Self {
            version,
            made: Instant::now(),
            cluster,
            thresholds,
            policies: Mutex::default(),
            destinations: Mutex::default(),
        }
    }

    /// Where a proxy is that says this of itself.
    pub fn seat(&self, node: &v1::Node) -> Seat {
        self.cluster.workloads.seat(Seat::of(node), &node.pod)
    }

    pub fn wanted(&self, seat: &Seat, services: &BTreeSet<String>) -> Wanted {
        let mut items = vec![(Key { kind: Kind::Policy, name: OWN.into() }, self.policy(seat))];
        for service in services {
            if let Some(item) = self.destination(service) {
                items.push((Key { kind: Kind::Destination, name: service.clone() }, item));
            }
        }
        for (name, capture) in snapshot::captures(&self.cluster, seat) {
            items.push((Key { kind: Kind::Capture, name }, Item::of(&capture)));
        }
        let Some(thresholds) = &self.thresholds else { return Wanted { items, as_held: Some(Kind::Thresholds) } };
        let thresholds = snapshot::thresholds(&self.cluster, seat, services, thresholds);
        if !thresholds.thresholds.is_empty() {
            items.push((Key { kind: Kind::Thresholds, name: MESH.into() }, Item::of(&thresholds)));
        }
        Wanted { items, as_held: None }
    }

    fn policy(&self, seat: &Seat) -> Item {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = policies.get(seat) {
            return item.clone();
        }
        let item = Item::of(&snapshot::policy(&self.cluster, seat));
        if policies.len() < KEPT {
            policies.insert(seat.clone(), item.clone());
        }
        item
    }

    fn destination(&self, service: &str) -> Option<Item> {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = destinations.get(service) {
            return item.clone();
        }
        let item = snapshot::destination(&self.cluster, service).map(|chain| Item::of(&chain));
        if destinations.len() < KEPT {
            destinations.insert(service.to_owned(), item.clone());
        }
        item
    }
}

const OWN: &str = "own";
const MESH: &str = "mesh";
/// Names come from proxies; what is beyond this is made each time.
const KEPT: usize = 65_536;
