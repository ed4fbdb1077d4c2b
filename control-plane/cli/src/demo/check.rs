//! The demo as a test: what a person would see, asked one after the other. Everything that is missing is told, not only
//! the first. Bounded by `--for`, and over as soon as all was seen.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::control::Step;
use super::load::{Load, Sample};
use super::mesh::{EDGE, Mesh, NAMES, PROXY_COUNT};
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
    test.wait("for all proxies to have the policies", |test| test.mesh.in_step()).await?;
    found("every proxy has the policies in force", test.in_step());
    let usual = std::fs::read_to_string(&test.mesh.sampling_file).map_err(Failure::failed)?;
    let none = usual.replace("{probability: \"1\"}", "{never: {}}");
    found("an edited policy changes the rate within 2 s", test.edit(&none, false).await?);
    found("nothing is lost while the control plane is away", test.outage().await?);
    found("an edit after its return changes the rate, too", test.edit(&usual, true).await?);
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

    fn version(&self) -> u64 {
        self.step().map_or(0, |step| step.version)
    }

    fn step(&self) -> Option<Step> {
        self.mesh.control_plane.as_ref()?.step()
    }

    fn in_step(&self) -> Result<String, String> {
        match self.step() {
            Some(step) if step.converged == PROXY_COUNT => Ok(format!("{PROXY_COUNT} at version {}", step.version)),
            Some(step) => Err(format!("{} of {PROXY_COUNT} at version {}", step.converged, step.version)),
            None => Err("the control plane does not answer".to_owned()),
        }
    }

    /// The gateway's answers tell at once what is kept, the control plane who has it in force.
    async fn edit(&mut self, text: &str, kept: bool) -> Result<Result<String, String>, Failure> {
        let file = self.mesh.sampling_file.clone();
        let before = self.version();
        // As editors do: whoever reads meanwhile sees all of one text.
        let beside = file.with_extension("new");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &file)).map_err(Failure::failed)?;
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
        self.wait("for all proxies to have the edited policy", |test| {
            test.version() > before && test.mesh.in_step() || edited.elapsed() > 3 * WITHIN
        })
        .await?;
        let all = self.in_step().map_err(|few| format!("only {few} have it"));
        Ok(all.map(|all| format!("{:.1} s, {all}", took.as_secs_f64())))
    }

    /// Kills the control plane under load, while the policy says what no proxy does without one: to keep nothing.
    async fn outage(&mut self) -> Result<Result<String, String>, Failure> {
        let killed = Instant::now();
        self.mesh.kill_control_plane();
        self.wait("for the control plane to be away", |test| test.step().is_none()).await?;
        self.wait("for the proxies to follow the control plane again", |test| test.mesh.in_step()).await?;
        let back = Instant::now();
        // What was under way is judged too.
        self.wait("for the last answers", |test| !test.load.since(back).is_empty()).await?;
        let all = match self.in_step() {
            Ok(_) => self.load.since(killed),
            Err(few) => return Ok(Err(format!("after its return only {few} follow it"))),
        };
        let lost = all.iter().filter(|sample| !sample.carried).count();
        let kept = all.iter().filter(|sample| sample.trace.is_none_or(|(_, sampled)| sampled)).count();
        Ok(match (all.len(), lost, kept) {
            (0, ..) => Err("no request was made".to_owned()),
            (count, 0, 0) => Ok(format!(
                "{count} requests, all proxies follow it again after {:.1} s",
                (back - killed).as_secs_f64()
            )),
            (count, lost, kept) => Err(format!("of {count} requests {lost} failed, {kept} were decided otherwise")),
        })
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
