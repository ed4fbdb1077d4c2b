//! One proxy's stream: its messages in, changes of the picture out.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanmesh_proto::v1;
use spanmesh_proto::v1::from_proxy::Message as From;
use spanmesh_proto::v1::to_proxy::Message as To;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::conversation::{Conversation, Misstep};
use super::registry::{Counts, Seen, Sums};
use super::{Hub, PATIENCE, Told};
use crate::picture::{Picture, Seat};

/// Where answers go.
pub type Out = mpsc::Sender<Result<v1::ToProxy, Status>>;

/// Runs until the proxy goes, or does what it must not.
pub async fn run(hub: Hub, mut messages: Streaming<v1::FromProxy>, out: Out, peer: String) {
    let who = peer.clone();
    let outcome = match greet(&mut messages).await {
        Ok(hello) => match hub.door.pass().await {
            Ok(()) => serve(&hub, messages, &out, hello, peer).await,
            Err(after) => send_away(&out, after).await,
        },
        Err(status) => Err(status),
    };
    if let Err(status) = outcome {
        if status.code() == Code::InvalidArgument {
            Counts::add(&hub.registry.counts.missteps, 1);
        }
        // That a proxy goes is no complaint.
        if !matches!(status.code(), Code::Cancelled | Code::Unknown | Code::Unavailable) {
            hub.registry.complaints.say(who, status.message());
        }
        // Who has gone does not hear it.
        let _ = out.try_send(Err(status));
    }
}

async fn greet(messages: &mut Streaming<v1::FromProxy>) -> Result<v1::Hello, Status> {
    match timeout(PATIENCE, messages.message()).await {
        Ok(Ok(Some(v1::FromProxy { message: Some(From::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(Some(_))) => Err(Status::invalid_argument("the first message must be a Hello")),
        Ok(Ok(None)) => Err(Status::cancelled("ended before it began")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no Hello came")),
    }
}

async fn serve(
    hub: &Hub,
    mut messages: Streaming<v1::FromProxy>,
    out: &Out,
    hello: v1::Hello,
    peer: String,
) -> Result<(), Status> {
    let mut talk = Conversation::new(&hello).map_err(misstep)?;
    let node = hello.node.unwrap_or_default();
    if [&node.service, &node.namespace, &node.pod, &node.workload].iter().any(|word| word.len() > WORD) {
        return Err(Status::invalid_argument("a name in Node is longer than Kubernetes allows"));
    }
    let said = node.clone();
    let seat = hub.pictures.borrow().as_ref().map_or_else(|| Seat::of(&said), |picture| picture.seat(&said));
    let (permits, mut permitted) = mpsc::channel(PERMITS);
    let seen = Seen {
        node,
        version: hello.version.chars().filter(|c| !c.is_control()).take(WORD).collect(),
        peer,
        since: Instant::now(),
        picture: 0,
        is_waiting: false,
        refusals: Vec::new(),
        unknown: Vec::new(),
        report: None,
        sums: Sums::default(),
    };
    let steady = steady(&seen);
    let entry = Entry { hub, id: hub.registry.enter(seen), steady };
    let _ = hub.told.send(Told::Connected { proxy: entry.id, seat, permits }).await;
    let mut pictures = hub.pictures.clone();
    pictures.mark_changed();
    // The picture of the latest push, and when an answer to it is overdue.
    let mut pushed: Option<Arc<Picture>> = None;
    let mut deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            message = messages.message() => {
                let Some(v1::FromProxy { message }) = message? else { return Ok(()) };
                match message {
                    Some(From::Ack(ack)) => {
                        talk.acknowledged(&ack).map_err(misstep)?;
                        Counts::add(&hub.registry.counts.acks, 1);
                        entry.answered(&talk, pushed.take());
                        pictures.mark_changed();
                    }
                    Some(From::Nack(nack)) => {
                        talk.refused(&nack).map_err(misstep)?;
                        Counts::add(&hub.registry.counts.nacks, 1);
                        entry.answered(&talk, pushed.take());
                        pictures.mark_changed();
                    }
                    Some(From::Interest(interest)) => {
                        talk.interested(&interest.services).map_err(misstep)?;
                        pictures.mark_changed();
                    }
                    Some(From::Report(report)) => entry.reported(report),
                    Some(From::Captured(captured)) => {
                        let _ = hub.told.send(Told::Captured { proxy: entry.id, captured }).await;
                    }
                    Some(From::Hello(_)) => return Err(Status::invalid_argument("a second Hello")),
                    // Of a version to come.
                    None => {}
                }
            }
            changed = pictures.changed(), if !talk.is_waiting() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the control plane ends"));
                }
                let Some(picture) = pictures.borrow_and_update().clone() else { continue };
                let wanted = picture.wanted(&picture.seat(&said), talk.services());
                match talk.offer(&wanted, picture.version) {
                    Some(push) => {
                        let bytes: usize = push.changed.iter().map(|resource| resource.body.len()).sum();
                        Counts::add(&hub.registry.counts.pushes, 1);
                        Counts::add(&hub.registry.counts.pushed_bytes, bytes as u64);
                        // Whoever has just come was not there for the change.
                        pushed = (!push.whole).then_some(picture);
                        deadline = tokio::time::Instant::now() + PATIENCE;
                        hub.registry.update(entry.id, |seen| seen.is_waiting = true);
                        send(out, To::Push(push)).await?;
                    }
                    None => entry.answered(&talk, None),
                }
            }
            Some(permit) = permitted.recv() => {
                if out.send(Ok(permit)).await.is_err() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(deadline), if talk.is_waiting() => {
                return Err(Status::deadline_exceeded("a push was not answered"));
            }
        }
    }
}

async fn send_away(out: &Out, after: Duration) -> Result<(), Status> {
    let after = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    send(out, To::Leave(v1::Leave { reason: "too many proxies come at once".into(), after })).await
}

async fn send(out: &Out, message: To) -> Result<(), Status> {
    // A proxy that does not read has its window full; its stream ends, and not the memory.
    let sent = timeout(PATIENCE, out.send(Ok(v1::ToProxy { message: Some(message) }))).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the proxy has gone")),
        Err(_) => Err(Status::deadline_exceeded("the proxy does not read")),
    }
}

fn steady(seen: &Seen) -> u64 {
    let mut hasher = DefaultHasher::new();
    let v1::Node { namespace, pod, service, cluster, .. } = &seen.node;
    (namespace, pod, service, cluster).hash(&mut hasher);
    if pod.is_empty() {
        seen.peer.hash(&mut hasher);
    }
    hasher.finish()
}

fn misstep(Misstep(what): Misstep) -> Status {
    Status::invalid_argument(format!("the proxy {what}"))
}

/// The proxy's place in the registry, as long as its stream lives.
struct Entry<'a> {
    hub: &'a Hub,
    id: u64,
    steady: u64,
}

impl Entry<'_> {
    fn answered(&self, talk: &Conversation, pushed: Option<Arc<Picture>>) {
        if let Some(picture) = pushed {
            self.hub.registry.counts.took(picture.made.elapsed());
        }
        self.hub.registry.update(self.id, |seen| {
            seen.picture = talk.version();
            seen.is_waiting = false;
            let name = |(key, reason): (&crate::picture::Key, &String)| {
                (format!("{}/{}", key.kind.name(), key.name), reason.clone())
            };
            seen.refusals = talk.refusals().iter().map(name).collect();
            seen.refusals.sort();
        });
    }

    fn reported(&self, mut report: v1::Report) {
        report.unknown.truncate(UNKNOWN);
        for unknown in &mut report.unknown {
            *unknown = unknown.chars().filter(|c| !c.is_control()).take(WORD).collect();
        }
        self.hub.registry.update(self.id, |seen| {
            seen.unknown.clone_from(&report.unknown);
            seen.sums.add(&report);
            let short = v1::Report { rules: Vec::new(), unknown: Vec::new(), ..report.clone() };
            seen.report = Some((Instant::now(), short));
        });
        if self.hub.told.try_send(Told::Report { steady: self.steady, report }).is_err() {
            Counts::add(&self.hub.registry.counts.reports_dropped, 1);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.hub.registry.leave(self.id);
        let (told, proxy) = (self.hub.told.clone(), self.id);
        if told.try_send(Told::Gone { proxy }).is_err() {
            tokio::spawn(async move { told.send(Told::Gone { proxy }).await });
        }
    }
}

/// Names of Kubernetes have at most 253 characters.
const WORD: usize = 253;
const PERMITS: usize = 16;
const UNKNOWN: usize = 32;
