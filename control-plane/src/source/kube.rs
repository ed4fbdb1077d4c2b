//! Kubernetes as the source: its resources are followed, and what one says holds as soon as the API server has taken it. It
//! is judged as a document of a folder is; one that is wrong is refused, and what it said before goes on. The API server
//! away is no change: what was read stays.

mod follow;
mod held;
pub mod object;
mod pause;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Reading;
use crate::api::{Api, Resource, resource};
use follow::{Change, follow as followed};
use held::Held;
use object::Object;
use pods::{PodObject, ServiceObject};

/// The resources as they are there, with their statuses.
pub type Objects = Arc<Vec<(Kind, Arc<Object>)>>;

/// Kinds of resources that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    MeshTracing,
    SamplingPolicy,
    SpanPolicy,
    TraceCapture,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::MeshTracing, Self::SamplingPolicy, Self::SpanPolicy, Self::TraceCapture];

    pub fn resource(self) -> &'static Resource {
        match self {
            Self::MeshTracing => &resource::MESH_TRACING,
            Self::SamplingPolicy => &resource::SAMPLING_POLICY,
            Self::SpanPolicy => &resource::SPAN_POLICY,
            Self::TraceCapture => &resource::TRACE_CAPTURE,
        }
    }
}

/// What the watches tell.
enum News {
    Ours(Kind, Change<Object>),
    Pods(Change<PodObject>),
    Services(Change<ServiceObject>),
}

/// Goes on until dropped.
pub async fn follow(api: Api, readings: watch::Sender<Reading>, objects: watch::Sender<Objects>) {
    let (out, mut news) = mpsc::channel(NEWS);
    let mut watches = JoinSet::new();
    for kind in Kind::ALL {
        let tell = move |change| News::Ours(kind, change);
        watches.spawn(followed(api.clone(), kind.resource(), out.clone(), tell));
    }
    watches.spawn(followed(api.clone(), &resource::POD, out.clone(), News::Pods));
    watches.spawn(followed(api.clone(), &resource::SERVICE, out.clone(), News::Services));
    drop(out);
    let mut held = Held::default();
    // When pods that have come and gone are told.
    let mut due: Option<Instant> = None;
    loop {
        let first = tokio::select! {
            first = news.recv() => match first {
                Some(first) => first,
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                tell(&mut held, &readings, &objects);
                continue;
            }
        };
        let mut is_urgent = held.take(first);
        // Who applies a folder sends one after the other.
        tokio::time::sleep(SETTLE).await;
        while let Ok(next) = news.try_recv() {
            is_urgent |= held.take(next);
        }
        if !held.is_whole() {
            continue;
        }
        if is_urgent {
            due = None;
            tell(&mut held, &readings, &objects);
        } else if held.is_changed() {
            due = due.or_else(|| Some(Instant::now() + CHURN));
        }
    }
}

fn tell(held: &mut Held, readings: &watch::Sender<Reading>, objects: &watch::Sender<Objects>) {
    if let Some(reading) = held.reading() {
        readings.send_replace(reading);
    }
    objects.send_replace(held.objects());
}

/// A list is one of them, however long.
const NEWS: usize = 1024;
const SETTLE: Duration = Duration::from_millis(10);
/// Pods come and go by the dozen while something is rolled out, and live a while before their proxies connect.
const CHURN: Duration = Duration::from_secs(1);
