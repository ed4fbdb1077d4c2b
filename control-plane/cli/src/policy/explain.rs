//! `spanmesh policy explain`: what becomes of one request's trace at each proxy that it passes, and why.

mod live;
mod report;

use std::path::Path;
use std::process::ExitCode;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lexopt::{Arg, Parser};
use spanmesh_control_plane::offline::{Found, Policies, SIDECAR, Seat};
use spanmesh_proxy::config::{Mode, ParentDecision};
use spanmesh_proxy::discovery::plan;
use spanmesh_proxy::rules::sampling::explain::{Explanation, explain};
use spanmesh_proxy::rules::sampling::{Request, Service};

use super::{PARENTS, SIDES, seat, text, usage, wrong};
use crate::control;
use crate::failure::Failure;
use crate::output::{Form, counted};
use crate::terminal::{Colours, Terminal, tame};

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let mut asked = Asked::parse(parser)?;
    let mut terminal = Terminal::new(asked.colours, None);
    let policies = match (&asked.source, &asked.address) {
        (Some(folder), _) => {
            let mut found = Found::default();
            found.add(Path::new(folder), true).map_err(Failure::failed)?;
            Policies::read(found)
        }
        (None, Some(address)) => live::policies(address, &mut terminal)?,
        (None, None) => return Err(usage(WHENCE)),
    };
    let refused = policies.verdicts().iter().filter(|verdict| !verdict.accepted).count();
    if refused > 0 {
        let count = counted(refused, "resource is", "resources are");
        match &asked.source {
            Some(folder) => eprintln!(
                "spanmesh: {count} refused and does not count here; `spanmesh policy lint {}` says why",
                tame(folder)
            ),
            None => eprintln!("spanmesh: {count} not understood and does not count here: the control plane is newer"),
        }
    }
    let proxies = asked.address.as_deref().map(|address| live::proxies(address, &mut terminal)).transpose()?;
    if let (None, Some(from), Some(proxies)) = (asked.side, &asked.from, &proxies) {
        asked.is_gateway = proxies.are_gateways(from);
    }
    let hops = hops(&asked, &policies)?;
    let live = proxies.map(|proxies| proxies.shares(&hops));
    let value = report::value(&hops, live.as_deref());
    let text = asked.form.write(&value, || report::table(&hops, live.as_deref(), &terminal))?;
    terminal.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// One request, as it was described.
struct Asked {
    source: Option<String>,
    from: Option<(String, String)>,
    to: Option<(String, String)>,
    method: Method,
    path: String,
    host: Option<String>,
    headers: HeaderMap,
    route: Option<String>,
    workload: String,
    account: String,
    side: Option<Mode>,
    /// As the control plane knows who asks.
    is_gateway: bool,
    parent: Arrived,
    address: Option<String>,
    form: Form,
    colours: Colours,
}

/// What a request brings to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrived {
    Nothing,
    Kept,
    Dropped,
    /// What the proxy before has decided.
    FromBefore,
}

/// What becomes of it at one proxy.
struct Hop {
    side: Mode,
    /// `service.namespace`.
    at: String,
    arrived: Arrived,
    fate: Fate,
    explanation: Explanation,
}

/// Who decides at a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The decision that it came with holds.
    Obeyed,
    /// It is made here.
    Decided,
    /// What it came with does not count, because policy says so.
    Ignored,
    /// What it came with does not count, because strangers are not believed at an edge.
    Disbelieved,
}

impl Asked {
    fn parse(parser: &mut Parser) -> Result<Self, Failure> {
        let mut source = None;
        let mut asked = Self {
            source: None,
            from: None,
            to: None,
            method: Method::GET,
            path: "/".into(),
            host: None,
            headers: HeaderMap::new(),
            route: None,
            workload: String::new(),
            account: String::new(),
            side: None,
            is_gateway: false,
            parent: Arrived::Nothing,
            address: None,
            form: Form::Table,
            colours: Colours::Auto,
        };
        while let Some(argument) = parser.next().map_err(wrong)? {
            match argument {
                Arg::Long("source") => source = Some(text(parser)?),
                Arg::Long("from") => asked.from = Some(service(parser, "--from")?),
                Arg::Long("to") => asked.to = Some(service(parser, "--to")?),
                Arg::Long("method") => {
                    let word = text(parser)?;
                    asked.method = word.parse().map_err(|_| usage(format!("--method: `{word}` is no method")))?;
                }
                // Rules see it as it is sent, without its query.
                Arg::Long("path") => asked.path = text(parser)?.split('?').next().unwrap_or_default().to_owned(),
                Arg::Long("host") => asked.host = Some(text(parser)?),
                Arg::Long("header") => {
                    let field = text(parser)?;
                    let (name, value) = header(&field).ok_or_else(|| {
                        usage(format!("--header takes a name and a value, x-tier=gold, not `{field}`"))
                    })?;
                    asked.headers.append(name, value);
                }
                Arg::Long("route") => asked.route = Some(text(parser)?),
                Arg::Long("workload") => asked.workload = text(parser)?,
                Arg::Long("account") => asked.account = text(parser)?,
                Arg::Long("side") => asked.side = Some(Failure::word("policy", parser, "--side", side, &SIDES)?),
                Arg::Long("parent") => asked.parent = Failure::word("policy", parser, "--parent", arrived, &PARENTS)?,
                Arg::Long("address") => asked.address = Some(control::address("policy", parser)?),
                Arg::Short('o') | Arg::Long("output") => {
                    asked.form = Failure::word("policy", parser, "--output", Form::parse, &Form::WORDS)?;
                }
                Arg::Long("colour" | "color") => {
                    asked.colours = Failure::word("policy", parser, "--colour", Colours::parse, &Colours::WORDS)?;
                }
                other => return Err(wrong(other.unexpected())),
            }
        }
        if let Some(source) = source {
            let folder = source.strip_prefix("dir:").filter(|folder| !folder.is_empty());
            let folder =
                folder.ok_or_else(|| usage(format!("--source: `{source}` is not known; write dir:/path/to/folder")))?;
            asked.source = Some(folder.to_owned());
        } else if asked.address.is_none() {
            return Err(usage(WHENCE));
        }
        if !asked.path.starts_with('/') && asked.path != "*" {
            return Err(usage(format!("--path: `{}` does not begin with /", asked.path)));
        }
        match (asked.side, &asked.from, &asked.to) {
            (None, None, None) => Err(usage("say who asks or is asked: --from cart.shop --to payment.shop")),
            (Some(Mode::Inbound), _, None) => Err(usage("--to is missing: the inbound side is at who is asked")),
            (Some(Mode::Outbound | Mode::Gateway), None, _) => {
                Err(usage("--from is missing: this side is at who asks"))
            }
            _ => Ok(asked),
        }
    }
}

fn service(parser: &mut Parser, option: &str) -> Result<(String, String), Failure> {
    let word = text(parser)?;
    let (service, namespace) = parse(&word)
        .ok_or_else(|| usage(format!("{option}: `{word}` is no service; write cart.shop, service and namespace")))?;
    Ok((service.to_owned(), namespace.to_owned()))
}

/// `cart.shop`.
fn parse(text: &str) -> Option<(&str, &str)> {
    let (service, namespace) = text.split_once('.')?;
    let is_label = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    (is_label(service) && is_label(namespace)).then_some((service, namespace))
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim().parse().ok()?, value.parse().ok()?))
}

fn side(word: &str) -> Option<Mode> {
    match word {
        "outbound" => Some(Mode::Outbound),
        "inbound" => Some(Mode::Inbound),
        "gateway" => Some(Mode::Gateway),
        _ => None,
    }
}

fn arrived(word: &str) -> Option<Arrived> {
    match word {
        "none" => Some(Arrived::Nothing),
        "kept" => Some(Arrived::Kept),
        "dropped" => Some(Arrived::Dropped),
        _ => None,
    }
}

/// The proxies that it passes, in order.
fn hops(asked: &Asked, policies: &Policies) -> Result<Vec<Hop>, Failure> {
    let mut hops = Vec::new();
    if let Some(from) = asked.from.as_ref().filter(|_| asked.side != Some(Mode::Inbound)) {
        let side = asked.side.unwrap_or(if asked.is_gateway { Mode::Gateway } else { Mode::Outbound });
        hops.push(hop(asked, policies, side, from, asked.parent)?);
    }
    if let Some(to) = asked.to.as_ref().filter(|_| asked.side.is_none_or(|side| side == Mode::Inbound)) {
        let arrived = if hops.is_empty() { asked.parent } else { Arrived::FromBefore };
        hops.push(hop(asked, policies, Mode::Inbound, to, arrived)?);
    }
    Ok(hops)
}

fn hop(
    asked: &Asked,
    policies: &Policies,
    side: Mode,
    (service, namespace): &(String, String),
    arrived: Arrived,
) -> Result<Hop, Failure> {
    // A workload and an account that nobody names are called as the service, as they mostly are.
    let is_first = arrived != Arrived::FromBefore;
    let or_service = |text: &String| if text.is_empty() || !is_first { service.clone() } else { text.clone() };
    let seat = Seat {
        namespace: namespace.clone(),
        service: service.clone(),
        workload: or_service(&asked.workload),
        service_account: or_service(&asked.account),
        role: if side == Mode::Gateway { seat::GATEWAY.into() } else { SIDECAR.into() },
        ..Seat::default()
    };
    let host =
        asked.host.clone().or_else(|| asked.to.as_ref().map(|(service, namespace)| format!("{service}.{namespace}")));
    let host = host.unwrap_or_default();
    let own = Service { name: service, namespace };
    let called = match &asked.to {
        Some((name, namespace)) => Some(Service { name, namespace }),
        None => Service::of_host(&host, namespace),
    };
    let (source, destination) = match side {
        Mode::Inbound => (None, Some(own)),
        Mode::Outbound | Mode::Gateway => (Some(own), called),
    };
    let policy = policies.policy(&seat);
    let chain = destination.filter(|_| side != Mode::Inbound).and_then(|to| {
        let name = format!("{}.{}", to.name, to.namespace).to_ascii_lowercase();
        policies.destination(&name).map(|chain| (name, chain))
    });
    let plan = plan(&policy, chain.as_slice(), &policies.captures(&seat)).map_err(Failure::failed)?;
    let kind = asked.headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let request = Request {
        side,
        method: Some(&asked.method),
        host: &host,
        path: &asked.path,
        route: asked.route.as_deref(),
        grpc: kind.is_some_and(|kind| kind.starts_with(b"application/grpc")),
        source,
        destination,
        template: None,
        now: 0,
    };
    let trust = policy.edge.as_ref().map_or("Restart", |edge| edge.trust.as_str());
    let believed = side != Mode::Gateway || trust == "Continue";
    let explanation = explain(&plan, &request, &asked.headers, believed).map_err(Failure::failed)?;
    let fate = match (arrived, explanation.parent) {
        (Arrived::Nothing, _) => Fate::Decided,
        _ if !believed => Fate::Disbelieved,
        (_, ParentDecision::Respect) => Fate::Obeyed,
        (_, ParentDecision::Ignore) => Fate::Ignored,
    };
    Ok(Hop { side, at: format!("{service}.{namespace}"), arrived, fate, explanation })
}

const WHENCE: &str = "say where the policies are: --source dir:/path/to/folder, or --address of a control plane";
