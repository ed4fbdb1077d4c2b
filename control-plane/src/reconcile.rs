//! Writes to Kubernetes what became of each resource. What is there is compared with what is to be there, whoever has
//! written it: a replica that begins to lead puts right what another one has left half done. Only the leader writes, only
//! what differs, and never faster than the server should bear.

mod conditions;
mod event;
mod placed;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{Api, Failure, Resource, resource};
use crate::capturing::Shown;
use crate::leader::Lead;
use crate::picture::Picture;
use crate::push::registry::Registry;
use crate::source::Reading;
use crate::source::kube::object::{Name, Named, Object};
use crate::source::kube::{Kind, Objects};
use placed::Placed;
use status::{Scene, Stand, Status};

pub struct Reconciler {
    pub api: Api,
    pub me: String,
    pub lead: Lead,
    pub objects: watch::Receiver<Objects>,
    pub readings: watch::Receiver<Reading>,
    pub pictures: watch::Receiver<Option<Arc<Picture>>>,
    pub captures: watch::Receiver<Vec<Shown>>,
    pub registry: Arc<Registry>,
}

/// Goes on until dropped, or until the source ends.
pub async fn run(mut all: Reconciler) {
    let mut placed = Placed::default();
    let mut book = Book::default();
    loop {
        tokio::select! {
            changed = all.objects.changed() => if changed.is_err() { return },
            Ok(()) = all.pictures.changed() => {}
            Ok(()) = all.captures.changed() => {}
            Ok(()) = all.lead.changed() => {}
            () = sleep(LOOK) => {}
        }
        sleep(SETTLE).await;
        let objects = all.objects.borrow_and_update().clone();
        if let Some(picture) = all.pictures.borrow_and_update().as_deref() {
            placed.follow(picture);
        }
        all.captures.mark_unchanged();
        if !leads(&all.lead) {
            // What is to be written then is found out then.
            book = Book::default();
            continue;
        }
        if let Err(failure) = round(&all, &objects, &placed, &mut book).await {
            book.failures = book.failures.saturating_add(1);
            if book.failures == 1 || matches!(failure, Failure::Forbidden(_)) && book.failures.is_multiple_of(60) {
                tracing::warn!("a status could not be written: {failure}");
            }
            sleep(failure.rest().max(LOOK * book.failures.min(LONGEST))).await;
        } else {
            book.failures = 0;
        }
    }
}

/// What was written, so that it is not written again before it has come back.
struct Book {
    written: HashMap<(Kind, Name), (String, Instant)>,
    events: HashSet<(String, u64)>,
    /// When the next write may be made.
    next: Instant,
    failures: u32,
}

impl Default for Book {
    fn default() -> Self {
        Self { written: HashMap::new(), events: HashSet::new(), next: Instant::now(), failures: 0 }
    }
}

impl Book {
    /// So many at once after a quiet time, and then so many a second.
    async fn turn(&mut self) {
        let now = Instant::now();
        let start = self.next.max(now.checked_sub(GAP * BURST).unwrap_or(now));
        self.next = start + GAP;
        sleep_until(start).await;
    }

    /// Whether this is the time for it: the last one has come back, and is old enough.
    fn is_due(&self, key: &(Kind, Name), object: &Object, flips: bool) -> bool {
        let Some((version, at)) = self.written.get(key) else { return true };
        let age = at.elapsed();
        let has_come_back = *version != object.metadata.resource_version;
        if has_come_back { age >= if flips { APART } else { COUNTS } } else { age >= LOST }
    }
}

fn leads(lead: &Lead) -> bool {
    lead.borrow().is_some_and(|until| Instant::now() < until)
}

async fn round(all: &Reconciler, objects: &Objects, placed: &Placed, book: &mut Book) -> Result<(), Failure> {
    let names: HashSet<(Kind, Name)> = objects.iter().map(|(kind, object)| (*kind, object.name())).collect();
    book.written.retain(|key, _| names.contains(key));
    let uids: HashSet<&str> = objects.iter().map(|(_, object)| object.metadata.uid.as_str()).collect();
    book.events.retain(|(uid, _)| uids.contains(uid.as_str()));
    for (kind, object, status) in due(all, objects, placed, book) {
        book.turn().await;
        if !leads(&all.lead) {
            return Ok(());
        }
        let key = (kind, object.name());
        book.written.insert(key.clone(), (object.metadata.resource_version.clone(), Instant::now()));
        match all.api.apply(part(kind), &body(kind, &object, &status)).await {
            // Somebody was faster, or it has gone: it is looked at again when that has come here.
            Ok(()) | Err(Failure::Conflict | Failure::Missing) => {}
            Err(Failure::Refused(words)) => {
                tracing::warn!(kind = kind.resource().kind, "the API server does not take a status: {words}");
            }
            Err(failure) => {
                book.written.remove(&key);
                return Err(failure);
            }
        }
    }
    refusals(all, objects, book).await
}

fn due(all: &Reconciler, objects: &Objects, placed: &Placed, book: &Book) -> Vec<(Kind, Arc<Object>, Status)> {
    let readings = all.readings.borrow();
    let captures = all.captures.borrow();
    let scene = Scene {
        verdicts: &readings.verdicts,
        cluster: &readings.cluster,
        placed,
        stands: Stand::all(&all.registry, &readings.cluster),
        captures: &captures,
        now: Timestamp::now(),
    };
    let found = scene.statuses(objects).into_iter();
    let due = found.filter(|found| book.is_due(&(found.kind, found.object.name()), &found.object, found.flips));
    due.map(|found| (found.kind, found.object, found.status)).collect()
}

/// Each is told once for each generation; that another replica has told it is an answer, too.
async fn refusals(all: &Reconciler, objects: &Objects, book: &mut Book) -> Result<(), Failure> {
    let verdicts = all.readings.borrow().verdicts.clone();
    let refused: HashSet<(&str, &str, &str, u64)> = verdicts
        .iter()
        .filter(|verdict| !verdict.accepted)
        .map(|verdict| (verdict.kind.as_str(), verdict.namespace.as_str(), verdict.name.as_str(), verdict.generation))
        .collect();
    for (kind, object) in objects.iter() {
        let metadata = &object.metadata;
        let key = (kind.resource().kind, metadata.namespace.as_str(), metadata.name.as_str(), metadata.generation);
        let told = (metadata.uid.clone(), metadata.generation);
        if !refused.contains(&key) || book.events.contains(&told) {
            continue;
        }
        let of = |verdict: &&crate::source::Verdict| {
            (verdict.kind.as_str(), verdict.namespace.as_str(), verdict.name.as_str(), verdict.generation) == key
        };
        let Some(verdict) = verdicts.iter().find(of) else { continue };
        book.turn().await;
        if !leads(&all.lead) {
            return Ok(());
        }
        let (namespace, event) = event::refusal(*kind, object, verdict, &all.me, Timestamp::now());
        match all.api.create(&resource::EVENT, &namespace, &event).await {
            Ok(_) | Err(Failure::Conflict | Failure::Missing | Failure::Refused(_)) => book.events.insert(told),
            Err(failure) => return Err(failure),
        };
    }
    Ok(())
}

fn body(kind: Kind, object: &Object, status: &Status) -> serde_json::Value {
    let Object { metadata, .. } = object;
    let mut body = json!({
        "apiVersion": kind.resource().api_version(),
        "kind": kind.resource().kind,
        "metadata": {"name": metadata.name, "resourceVersion": metadata.resource_version},
        "status": status,
    });
    if !metadata.namespace.is_empty() {
        body["metadata"]["namespace"] = json!(metadata.namespace);
    }
    body
}

fn part(kind: Kind) -> &'static Resource {
    match kind {
        Kind::MeshTracing => &resource::MESH_TRACING_STATUS,
        Kind::SamplingPolicy => &resource::SAMPLING_POLICY_STATUS,
        Kind::SpanPolicy => &resource::SPAN_POLICY_STATUS,
        Kind::TraceCapture => &resource::TRACE_CAPTURE_STATUS,
    }
}

/// Proxies come, go and acknowledge without telling anybody here.
const LOOK: Duration = Duration::from_secs(1);
/// What was changed together is written together.
const SETTLE: Duration = Duration::from_millis(100);
/// Ten a second, as the server's own controllers are content with.
const GAP: Duration = Duration::from_millis(100);
const BURST: u32 = 20;
/// Between two writes of one status that says something else,
const APART: Duration = Duration::from_secs(1);
/// and that only counts differently.
const COUNTS: Duration = Duration::from_secs(10);
/// As many times the look while writes fail.
const LONGEST: u32 = 10;
/// A write that has not come back by now was lost.
const LOST: Duration = Duration::from_secs(10);
