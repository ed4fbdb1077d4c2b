//! The demo as a test: what a person would see, asked one after the other. Everything that is missing is told, not only
//! the first. Bounded by `--for`, and over as soon as all was seen.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::load::{Load, Sample};
use super::mesh::{EDGE, Mesh, NAMES};
use super::store::Store;
use super::story::Story;
use crate::failure::Failure;
use crate::terminal::Terminal;
use crate::trace::span::{Kind, Span};

/// One thing that was asked.
pub struct Finding {
    pub what: &'static str,
    /// What was seen, or what was not.
    pub outcome: Result<String, String>,
}

pub async fn run(
    mesh: &mut Mesh,
    load: &Load,
    store: &RefCell<Store>,
    story: &mut Story,
    terminal: &mut Terminal,
    deadline: Option<Instant>,
) -> Result<Vec<Finding>, Failure> {
    let deadline = deadline.unwrap_or_else(|| Instant::now() + USUAL);
    let mut test = Test { mesh, load, store, deadline, terminal };
    let mut findings = Vec::new();
    let mut found = |what, outcome| findings.push(Finding { what, outcome });
    test.wait("for spans of every service", |test| test.lacking().is_empty()).await?;
    let lacking = test.lacking();
    found(
        "spans of every service",
        match lacking.is_empty() {
            true => Ok(format!("{} spans", store.borrow().spans)),
            false => Err(format!("none from {}", lacking.join(", "))),
        },
    );
    test.wait("for a whole trace", |test| test.store.borrow().whole().is_some()).await?;
    found(
        "one trace through the gateway and all services",
        match store.borrow().whole() {
            Some(spans) => Ok(format!("{} spans", spans.len())),
            None => Err(format!("none of {} is whole", store.borrow().all().count())),
        },
    );
    story.first_trace(store, test.terminal)?;
    found("B3 and W3C agree", test.agreement());
    found("an edited policy changes the rate within 2 s", test.edit().await?);
    found("a killed service shows in its callers' spans", test.kill().await?);
    Ok(findings)
}

struct Test<'a> {
    mesh: &'a mut Mesh,
    load: &'a Load,
    store: &'a RefCell<Store>,
    deadline: Instant,
    terminal: &'a mut Terminal,
}

impl Test<'_> {
    /// Waits until something holds or the time is up.
    async fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<bool, Failure> {
        let mut look = tokio::time::interval(LOOK);
        self.terminal.status(&format!("waiting {what} …"))?;
        loop {
            tokio::select! {
                _ = look.tick() => {
                    let over = Instant::now() >= self.deadline;
                    if holds(self) || over {
                        self.terminal.status("")?;
                        return Ok(!over);
                    }
                }
                event = self.mesh.event() => {
                    if let Some(text) = self.mesh.handle(event).await? {
                        self.terminal.print(&text)?;
                    }
                }
            }
        }
    }

    fn lacking(&self) -> Vec<&'static str> {
        let store = self.store.borrow();
        let services = store.services();
        NAMES.iter().chain([&EDGE]).filter(|name| !services.contains(*name)).copied().collect()
    }

    fn samples(&self) -> Vec<Sample> {
        let now = Instant::now();
        self.load.since(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now))
    }

    fn agreement(&self) -> Result<String, String> {
        let samples = self.samples();
        let answered = samples.iter().filter(|sample| sample.status == Some(200)).count();
        let apart = samples.iter().filter(|sample| !sample.agrees).count();
        match (answered, apart) {
            (0, _) => Err("no request was answered well".to_owned()),
            (_, 0) => Ok(format!("in {answered} requests")),
            _ => Err(format!("{apart} of {} requests came with two different traces", samples.len())),
        }
    }

    /// Keeps none, and all again: the gateway's answers tell at once what is kept.
    async fn edit(&mut self) -> Result<Result<String, String>, Failure> {
        let file = self.mesh.edge_file.clone();
        let written = std::fs::read_to_string(&file).map_err(Failure::failed)?;
        let mut slowest = Duration::ZERO;
        for (text, kept) in [(written.replace("{probability: \"1\"}", "{never: {}}"), false), (written.clone(), true)] {
            std::fs::write(&file, text).map_err(Failure::failed)?;
            let edited = Instant::now();
            let fits = |sample: &Sample| sample.trace.is_some_and(|(_, sampled)| sampled == kept);
            self.wait("for the edited policy to hold", |test| {
                test.load.since(edited).iter().any(fits) || edited.elapsed() > 3 * WITHIN
            })
            .await?;
            let first = self.load.since(edited).iter().filter(|sample| fits(sample)).map(|sample| sample.begun).min();
            let Some(first) = first else {
                let wanted = if kept { "kept" } else { "left out" };
                return Ok(Err(format!(
                    "no trace was {wanted} within {:.1} s of the edit",
                    edited.elapsed().as_secs_f64()
                )));
            };
            let took = first - edited;
            if took > WITHIN {
                return Ok(Err(format!("it took {:.1} s", took.as_secs_f64())));
            }
            slowest = slowest.max(took);
        }
        Ok(Ok(format!("{:.1} s", slowest.as_secs_f64())))
    }

    async fn kill(&mut self) -> Result<Result<String, String>, Failure> {
        self.mesh.kill("stock");
        self.wait("for the errors of the killed service's callers", |test| test.broken().is_some()).await?;
        Ok(self.broken().ok_or_else(|| "no call to it is marked as failed".to_owned()))
    }

    /// A call of `orders` to `stock` that failed, as the caller's sidecar tells.
    fn broken(&self) -> Option<String> {
        let is = |span: &&Span| {
            let to_stock = span.text("url.full").is_some_and(|url| url.contains("stock"));
            span.kind == Kind::Client && span.service == "orders" && to_stock && span.failed.is_some()
        };
        let store = self.store.borrow();
        let span = store.all().flatten().find(is)?;
        Some(format!("{} → stock: {}", span.service, span.reason()?))
    }
}

const LOOK: Duration = Duration::from_millis(25);
const WITHIN: Duration = Duration::from_secs(2);
/// Where no time is given.
const USUAL: Duration = Duration::from_secs(60);
