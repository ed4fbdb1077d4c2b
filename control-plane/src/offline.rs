//! Policies without a control plane that runs: folders and files are read once, and what proxies would be given of them is
//! made by the same code. The command line's `policy` commands ask here.

mod covers;
mod review;

use std::io::Read;
use std::path::Path;

use spanmesh_crds::TargetKind;
use spanmesh_proto::v1;

use crate::cluster::GATEWAY;
use crate::snapshot;
use crate::source::Reading;
use crate::source::dir::{self, Files};

pub use crate::picture::Seat;
pub use crate::source::Verdict;
pub use review::{Concern, review};

/// Resources that were read from folders and files.
#[derive(Default)]
pub struct Policies {
    folder: dir::Folder,
    reading: Reading,
}

/// Files by name with their texts, as they were found.
#[derive(Clone, Debug, Default)]
pub struct Found(Files);

impl Found {
    /// A folder, as `--source dir:` reads it, or one file. It blocks.
    pub fn add(&mut self, path: &Path, as_named: bool) -> Result<(), String> {
        let cannot = |error| format!("{} cannot be read: {error}", path.display());
        if std::fs::metadata(path).map_err(cannot)?.is_dir() {
            std::fs::read_dir(path).map_err(cannot)?;
            for (name, text) in dir::read(path) {
                let name = if as_named { path.join(name).display().to_string() } else { name };
                self.0.insert(name, text);
            }
        } else {
            self.0.insert(path.display().to_string(), dir::text(path));
        }
        Ok(())
    }

    /// What comes from elsewhere.
    pub fn stream(&mut self, name: &str, reader: impl Read) {
        self.0.insert(name.to_owned(), dir::bounded(Ok(reader)));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Policies {
    pub fn read(found: Found) -> Self {
        let mut folder = dir::Folder::default();
        let reading = folder.update(found.0).unwrap_or_default();
        Self { folder, reading }
    }

    /// As a running control plane has them in force, from its page `/sampling`.
    pub fn shown(page: &serde_json::Value) -> Option<Self> {
        Some(Self { folder: dir::Folder::default(), reading: Reading::shown(page)? })
    }

    /// As a running control plane has them once the folder is as was found: what is refused goes on as it was before.
    pub fn turned(mut self, found: Found) -> Self {
        if let Some(reading) = self.folder.update(found.0) {
            self.reading = reading;
        }
        self
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.reading.verdicts
    }

    /// What holds for a proxy itself.
    pub fn policy(&self, seat: &Seat) -> v1::Policy {
        snapshot::policy(&self.reading.cluster, seat)
    }

    /// What decides at the callers of a service, `service.namespace`.
    pub fn destination(&self, service: &str) -> Option<v1::Chain> {
        snapshot::destination(&self.reading.cluster, service)
    }

    /// Running captures by name.
    pub fn captures(&self, seat: &Seat) -> Vec<(String, v1::Capture)> {
        snapshot::captures(&self.reading.cluster, seat)
    }

    /// A proxy for each thing that policies name, and one of which nobody has said anything: without a namespace if some
    /// policy is for all of them.
    pub fn seats(&self) -> Vec<Seat> {
        let cluster = &self.reading.cluster;
        let of = |namespace: &str| Seat { namespace: namespace.into(), role: SIDECAR.into(), ..Seat::default() };
        let mut seats = Vec::new();
        if cluster.mesh.is_some() {
            seats.push(of(""));
        }
        let sampling = cluster.sampling.iter().map(|policy| (&policy.meta, policy.spec.target_refs.as_slice()));
        let spans = cluster.spans.iter().map(|policy| (&policy.meta, policy.spec.target_refs.as_slice()));
        let captures = cluster.captures.iter().map(|capture| (&capture.meta, capture.spec.target_ref.as_slice()));
        for (meta, targets) in sampling.chain(spans).chain(captures) {
            seats.push(of(&meta.namespace));
            for target in targets {
                let name = target.name.clone();
                let seat = of(&meta.namespace);
                seats.push(match target.kind {
                    TargetKind::Namespace | TargetKind::HttpRoute | TargetKind::GrpcRoute => continue,
                    TargetKind::Service => Seat { service: name, ..seat },
                    TargetKind::Deployment | TargetKind::StatefulSet => Seat { workload: name, ..seat },
                    TargetKind::ServiceAccount => Seat { service_account: name, ..seat },
                    TargetKind::Gateway => Seat { service: name, role: GATEWAY.into(), ..seat },
                });
            }
        }
        seats.sort();
        seats.dedup();
        seats
    }

    /// Services whose callers have rules for them, as `service.namespace`.
    pub fn services(&self) -> Vec<String> {
        let policies = self.reading.cluster.sampling.iter();
        let mut names: Vec<_> = policies
            .flat_map(|policy| {
                let services = policy.spec.target_refs.iter().filter(|target| target.kind == TargetKind::Service);
                services.map(|target| format!("{}.{}", target.name, policy.meta.namespace))
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

pub const SIDECAR: &str = "sidecar";
