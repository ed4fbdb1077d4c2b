//! Follows all objects of one kind: lists them once, and then watches from there on.
//!
//! ```text
//!   list ──► watch ──► ended, broken, 429: a pause, and on from the last version that was told, by bookmarks too
//!    ▲         │
//!    └─ pause ◄┴── 410, expired: the versions in between are gone
//! ```
//! As <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes> has it. A list costs the
//! server most, so pauses between lists are of their own and grow until a watch has lived for a while.

use std::time::Duration;

use rand::RngExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::object::{Name, Named};
use super::pause::Pause;
use crate::api::{Api, Failure, Resource};

#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// These and no others.
    All(Vec<T>),
    Set(T),
    Gone(Name),
}

/// Goes on until nobody listens.
pub async fn follow<T, News>(api: Api, resource: &'static Resource, out: Sender<News>, tell: impl Fn(Change<T>) -> News)
where
    T: DeserializeOwned + Named,
{
    let (mut watches, mut lists) = (Pause::new(WATCH), Pause::new(LIST));
    let mut version: Option<String> = None;
    let mut said = String::new();
    while !out.is_closed() {
        let began = Instant::now();
        let outcome = match &mut version {
            None => match list(&api, resource).await {
                Ok((items, fresh)) => {
                    version = Some(fresh);
                    let _ = out.send(tell(Change::All(items))).await;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            Some(version) => {
                let out = &out;
                let outcome = watch(&api, resource, version, |change| {
                    let news = change.map(&tell);
                    async move {
                        if let Some(news) = news {
                            let _ = out.send(news).await;
                        }
                    }
                })
                .await;
                let is_steady = began.elapsed() >= STEADY;
                if is_steady {
                    watches.over();
                    lists.over();
                }
                // One that ends at once would come again at once, forever.
                outcome.and(if is_steady { Ok(()) } else { Err(Failure::Away(SHORT.into())) })
            }
        };
        let Err(failure) = outcome else {
            if !said.is_empty() {
                tracing::info!(kind = resource.kind, "the API server is followed again");
                said.clear();
            }
            continue;
        };
        if failure == Failure::Expired {
            version = None;
        }
        let pause = if version.is_none() { &mut lists } else { &mut watches };
        let wait = pause.next(failure.rest(), &mut rand::rng());
        report(resource, &failure, &mut said, pause.times());
        tokio::time::sleep(wait).await;
    }
}

/// Once for each that is another than the one before.
fn report(resource: &Resource, failure: &Failure, said: &mut String, times: u32) {
    let words = match failure {
        Failure::Missing => "404: Kubernetes does not know this kind; `kubectl apply -f crds/generated`".to_owned(),
        failure => failure.to_string(),
    };
    // That a watch ends is usual; that it cannot be had again is not.
    let is_usual = matches!(failure, Failure::Expired | Failure::Away(_)) && times <= 1;
    if is_usual || *said == words {
        tracing::debug!(kind = resource.kind, "{words}");
        return;
    }
    tracing::warn!(kind = resource.kind, "cannot follow: {words}; what was read goes on");
    *said = words;
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    metadata: At,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct At {
    resource_version: String,
    r#continue: String,
}

/// All pages, and the version that they are of.
async fn list<T: DeserializeOwned>(api: &Api, resource: &Resource) -> Result<(Vec<T>, String), Failure> {
    let (mut items, mut from) = (Vec::new(), String::new());
    loop {
        let page = api.list(resource, Some(from.as_str()).filter(|from| !from.is_empty())).await?;
        let page: Page<T> = serde_json::from_slice(&page)
            .map_err(|error| Failure::Away(format!("the list of {} cannot be read: {error}", resource.plural)))?;
        items.extend(page.items);
        from = page.metadata.r#continue;
        if from.is_empty() {
            return Ok((items, page.metadata.resource_version));
        }
        if items.len() > OBJECTS {
            return Err(Failure::Refused(format!("there are more than {OBJECTS} {}", resource.plural)));
        }
    }
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Value,
}

/// `heard` is told each change, and nothing of each bookmark. `version` goes along.
async fn watch<T, Told>(
    api: &Api,
    resource: &Resource,
    version: &mut String,
    mut heard: impl FnMut(Option<Change<T>>) -> Told,
) -> Result<(), Failure>
where
    T: DeserializeOwned + Named,
    Told: Future<Output = ()>,
{
    let time = Duration::from_secs(rand::rng().random_range(SHORTEST..LONGEST));
    let mut lines = api.watch(resource, version, time).await?;
    while let Some(line) = lines.next().await? {
        let event: Event = serde_json::from_slice(&line)
            .map_err(|error| Failure::Away(format!("an event of {} cannot be read: {error}", resource.plural)))?;
        if event.r#type == "ERROR" {
            return Err(Failure::of_event(&event.object));
        }
        let at = event.object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let change = match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => parsed(event.object).map(Change::Set),
            "DELETED" => parsed(event.object).map(|object: T| Change::Gone(object.name())),
            // Bookmarks, and what is still to be invented.
            _ => None,
        };
        heard(change).await;
        if !at.is_empty() {
            *version = at;
        }
    }
    Ok(())
}

/// The server has checked it; what has no shape all the same is nothing that could be followed.
fn parsed<T: DeserializeOwned>(object: Value) -> Option<T> {
    serde_json::from_value(object).inspect_err(|error| tracing::debug!("an object cannot be read: {error}")).ok()
}

const SHORT: &str = "a watch ended as soon as it began";
const WATCH: Duration = Duration::from_millis(200);
const LIST: Duration = Duration::from_secs(1);
/// A watch that has lived so long has worked.
const STEADY: Duration = Duration::from_secs(5);
/// Seconds that a watch lives: all of a server's do not end together.
const SHORTEST: u64 = 240;
const LONGEST: u64 = 360;
/// The largest clusters have 150,000 pods.
const OBJECTS: usize = 500_000;
