//! What the demo consists of: five services, a sidecar beside each, the gateway, and the control plane. Each proxy has a file
//! of its own, in the form that any proxy has, and is pushed its policy. They start from the last one called to the first,
//! so that each knows whom it calls.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::child::Child;
use super::configuration::{self, POLICIES, PROXIES};
use super::control::{self, ControlPlane};
use super::folder::Folder;
use super::options::Options;
use super::receiver::listen;
use super::said::{listening, ready, worth_telling};
use crate::failure::Failure;
use crate::terminal::Terminal;

pub struct Service {
    pub name: &'static str,
    pub what: &'static str,
    pub calls: &'static [&'static str],
}

pub const EDGE: &str = "edge";
pub const NAMES: [&str; 5] = ["shop", "prices", "orders", "stock", "payment"];

/// Those that are called stand before those that call them.
pub const SERVICES: [Service; 5] = [
    Service { name: "stock", what: "HTTP/1.1, slow", calls: &[] },
    Service { name: "payment", what: "HTTP/1.1, fails now and then", calls: &[] },
    Service { name: "prices", what: "gRPC", calls: &[] },
    Service { name: "orders", what: "HTTP/1.1, forwards only B3", calls: &["stock", "payment"] },
    Service { name: "shop", what: "HTTP/1.1", calls: &["prices", "orders"] },
];

/// A sidecar for each service, and the gateway.
pub const PROXY_COUNT: u64 = SERVICES.len() as u64 + 1;

#[derive(Default)]
pub struct Mesh {
    pub members: Vec<Member>,
    gateway: Option<Child>,
    pub edge: Option<SocketAddr>,
    pub control_plane: Option<ControlPlane>,
    /// Says which traces are kept.
    pub sampling_file: PathBuf,
    folder: PathBuf,
    /// When what ended is started again.
    due: Vec<(Instant, Back)>,
    /// How long the control plane stays away when it has ended.
    away: Duration,
    /// Held as long as the gateway's port is this demo's.
    _port: Option<UnixListener>,
}

/// A service and its sidecar.
pub struct Member {
    pub service: &'static Service,
    pub app: Child,
    pub address: SocketAddr,
    pub sidecar: Option<Child>,
    pub inbound: Option<SocketAddr>,
    pub outbound: Option<SocketAddr>,
    app_gone: bool,
    sidecar_gone: bool,
}

pub enum Event {
    Said(String, String),
    AppEnded(usize),
    SidecarEnded(usize),
    GatewayEnded,
    ControlPlaneEnded,
    Due(Back),
}

/// What comes back when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    App(usize),
    ControlPlane,
}

impl Mesh {
    pub async fn start(
        &mut self,
        options: &Options,
        folder: &Folder,
        receiver: SocketAddr,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        self.folder = folder.path().to_owned();
        // A test has no time to look at its absence for long.
        self.away = if options.headless { SHORT_PAUSE } else { PAUSE };
        let port = self.take_port(options.port).await?;
        terminal.status("starting the services …")?;
        for service in &SERVICES {
            let app = start_app(service.name, &self.folder, "127.0.0.1:0")?;
            self.members.push(Member {
                service,
                app,
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                sidecar: None,
                inbound: None,
                outbound: None,
                app_gone: false,
                sidecar_gone: false,
            });
        }
        folder.write(POLICIES, "mesh.yaml", &configuration::mesh(receiver))?;
        folder.write(POLICIES, "orders.yaml", configuration::ORDERS)?;
        self.sampling_file = folder.write(POLICIES, "sampling.yaml", configuration::SAMPLING)?;
        terminal.status("starting the control plane …")?;
        let services = async {
            for member in &mut self.members {
                member.address = listening(&mut member.app).await?;
            }
            Ok::<(), Failure>(())
        };
        let (control_plane, services) = tokio::join!(ControlPlane::start(folder, options.admin_port), services);
        let push = self.control_plane.insert(control_plane?).push;
        services?;
        let mut begun = 0;
        while begun < SERVICES.len() {
            // As many at once as know whom they call.
            let startable = self
                .members
                .iter()
                .skip(begun)
                .take_while(|member| member.service.calls.iter().all(|name| self.inbound(name).is_some()));
            let until = begun + startable.count().max(1);
            for place in begun..until {
                terminal
                    .status(&format!("starting the sidecar of {} …", SERVICES.get(place).map_or("", |s| s.name)))?;
                self.start_sidecar(place, folder, push)?;
            }
            for member in self.members.iter_mut().skip(begun).take(until - begun) {
                let Some(sidecar) = &mut member.sidecar else { continue };
                let listeners = ready(sidecar).await?;
                member.inbound = listeners.get("in").copied();
                member.outbound = listeners.get("out").copied();
                if let Some(out) = member.outbound {
                    member.app.tell(&out.to_string()).await;
                }
            }
            begun = until;
        }
        terminal.status("starting the gateway …")?;
        let shop = self.inbound("shop").ok_or_else(|| Failure::failed("the shop's sidecar does not listen"))?;
        let file = folder.write(PROXIES, "edge.yaml", &configuration::edge(port, shop, push))?;
        let gateway = self.gateway.insert(start_proxy(EDGE, &file, &self.folder)?);
        let listeners = ready(gateway).await?;
        self.edge = listeners.get("edge").copied();
        terminal.status("waiting for the proxies to have the policies …")?;
        // Traffic flows without it too, but then nobody has said yet where spans go.
        let told = async {
            while !self.in_step() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(TOLD, told).await;
        terminal.status("")?;
        Ok(())
    }

    /// All proxies have the present policies in force.
    pub fn in_step(&self) -> bool {
        let step = self.control_plane.as_ref().and_then(ControlPlane::step);
        step.is_some_and(|step| step.converged == PROXY_COUNT)
    }

    fn start_sidecar(&mut self, place: usize, folder: &Folder, push: SocketAddr) -> Result<(), Failure> {
        let Some(member) = self.members.get(place) else { return Ok(()) };
        let calls = member.service.calls.iter().filter_map(|name| Some((*name, self.inbound(name)?)));
        let text = configuration::sidecar(member.service, member.address, &calls.collect::<Vec<_>>(), push);
        let file = folder.write(PROXIES, &format!("{}.yaml", member.service.name), &text)?;
        let child = start_proxy(member.service.name, &file, &self.folder)?;
        if let Some(member) = self.members.get_mut(place) {
            member.sidecar = Some(child);
        }
        Ok(())
    }

    /// Several proxies may share a port on purpose, so that the kernel would not mind another demo's gateway there.
    async fn take_port(&mut self, asked: Option<u16>) -> Result<u16, Failure> {
        let port = asked.unwrap_or(USUAL);
        if port == 0 {
            return Ok(0);
        }
        let taken = async {
            let name = UnixAddress::from_abstract_name(format!("spanmesh-demo-{port}"))?;
            let held = UnixListener::bind_addr(&name)?;
            // Nobody listens there now.
            drop(listen(Some(port), port).await?);
            Ok::<_, std::io::Error>(held)
        };
        match (taken.await, asked) {
            (Ok(held), _) => {
                self._port = Some(held);
                Ok(port)
            }
            (Err(_), None) => Ok(0),
            (Err(error), Some(port)) => Err(Failure::failed(format!(
                "cannot listen on 127.0.0.1:{port}: {error}; `--port 0` takes a free port, `ss -ltnp` shows who has this one"
            ))),
        }
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.service.name == name)
    }

    fn inbound(&self, name: &str) -> Option<SocketAddr> {
        self.member(name)?.inbound
    }

    pub fn gateway_id(&self) -> u32 {
        self.gateway.as_ref().map_or(0, |gateway| gateway.id)
    }

    pub fn kill_control_plane(&mut self) {
        if let Some(process) = self.control_plane.as_mut().and_then(|it| it.process.as_mut()) {
            process.kill();
        }
    }

    pub fn kill(&mut self, name: &str) {
        if let Some(member) = self.members.iter_mut().find(|member| member.service.name == name) {
            member.app.kill();
        }
    }

    /// The next thing that happens to one of the processes. Cancel safe.
    pub async fn event(&mut self) -> Event {
        let due = self.due.iter().map(|(at, _)| *at).min();
        let happens = std::future::poll_fn(|context| {
            for (place, member) in self.members.iter_mut().enumerate() {
                if !member.app_gone {
                    match member.app.poll_line(context) {
                        Poll::Ready(Some(line)) => return Poll::Ready(Event::Said(member.app.name.clone(), line)),
                        Poll::Ready(None) => {
                            member.app_gone = true;
                            return Poll::Ready(Event::AppEnded(place));
                        }
                        Poll::Pending => {}
                    }
                }
                if let Some(sidecar) = member.sidecar.as_mut().filter(|_| !member.sidecar_gone) {
                    match sidecar.poll_line(context) {
                        Poll::Ready(Some(line)) => {
                            return Poll::Ready(Event::Said(format!("the sidecar of {}", sidecar.name), line));
                        }
                        Poll::Ready(None) => {
                            member.sidecar_gone = true;
                            return Poll::Ready(Event::SidecarEnded(place));
                        }
                        Poll::Pending => {}
                    }
                }
            }
            match self.gateway.as_mut().map(|gateway| gateway.poll_line(context)) {
                Some(Poll::Ready(Some(line))) => return Poll::Ready(Event::Said(EDGE.to_owned(), line)),
                Some(Poll::Ready(None)) => {
                    self.gateway = None;
                    return Poll::Ready(Event::GatewayEnded);
                }
                Some(Poll::Pending) | None => {}
            }
            let process = self.control_plane.as_mut().and_then(|control_plane| control_plane.process.as_mut());
            match process.map(|process| process.poll_line(context)) {
                Some(Poll::Ready(Some(line))) => Poll::Ready(Event::Said(control::NAME.to_owned(), line)),
                Some(Poll::Ready(None)) => Poll::Ready(Event::ControlPlaneEnded),
                Some(Poll::Pending) | None => Poll::Pending,
            }
        });
        match due {
            None => happens.await,
            Some(at) => match tokio::time::timeout_at(at, happens).await {
                Ok(event) => event,
                Err(_) => {
                    let place = self.due.iter().position(|(time, _)| *time <= at).unwrap_or_default();
                    Event::Due(self.due.remove(place).1)
                }
            },
        }
    }

    /// What of it a person should know. A service that ended comes back; a proxy does not.
    pub async fn handle(&mut self, event: Event) -> Result<Option<String>, Failure> {
        Ok(match event {
            Event::Said(who, line) => worth_telling(&who, &line),
            Event::AppEnded(place) => {
                self.due.push((Instant::now() + PAUSE, Back::App(place)));
                let Some(member) = self.members.get_mut(place) else { return Ok(None) };
                let how = member.app.ended().await.map(|status| format!(" ({status})")).unwrap_or_default();
                let name = member.service.name;
                Some(format!("{name} has ended{how}: calls to it fail now. It comes back in {} s.", PAUSE.as_secs()))
            }
            Event::ControlPlaneEnded => {
                self.due.push((Instant::now() + self.away, Back::ControlPlane));
                let Some(mut process) = self.control_plane.as_mut().and_then(|it| it.process.take()) else {
                    return Ok(None);
                };
                let how = process.ended().await.map(|status| format!(" ({status})")).unwrap_or_default();
                Some(format!(
                    "the control plane has ended{how}: the proxies go on with the policies that they have. It comes back in {} s.",
                    self.away.as_secs_f64()
                ))
            }
            Event::Due(Back::ControlPlane) => {
                let Some(control_plane) = &mut self.control_plane else { return Ok(None) };
                Some(match control_plane.again(&self.folder).await {
                    Ok(id) => format!("the control plane is back as process {id}."),
                    Err(failure) => {
                        self.due.push((Instant::now() + self.away, Back::ControlPlane));
                        failure.text().unwrap_or_default()
                    }
                })
            }
            Event::Due(Back::App(place)) => {
                let Some(member) = self.members.get_mut(place) else { return Ok(None) };
                let name = member.service.name;
                member.app = start_app(name, &self.folder, &member.address.to_string())?;
                member.app_gone = false;
                match listening(&mut member.app).await {
                    Ok(_) => {
                        if let Some(out) = member.outbound {
                            member.app.tell(&out.to_string()).await;
                        }
                        Some(format!("{name} is back as process {}.", member.app.id))
                    }
                    Err(_) => Some(format!("{name} does not start again.")),
                }
            }
            Event::SidecarEnded(place) => {
                let name = self.members.get(place).map_or("", |member| member.service.name);
                Some(format!("the sidecar of {name} has ended: {name} can no longer be called. It stays away."))
            }
            Event::GatewayEnded => return Err(Failure::failed("the gateway has ended, and with it the demo")),
        })
    }

    /// Lets go of all processes and waits for their end.
    pub async fn end(self, terminal: &mut Terminal) {
        // Whether anybody reads this is no reason to leave processes behind.
        let _ = terminal.status("");
        let mut children: Vec<Child> = self.gateway.into_iter().collect();
        children.extend(self.control_plane.and_then(|mut control_plane| control_plane.process.take()));
        for member in self.members {
            children.extend(member.sidecar);
            children.push(member.app);
        }
        children.iter_mut().for_each(Child::release);
        for child in children {
            child.end().await;
        }
    }
}

fn start_app(name: &str, folder: &Path, address: &str) -> Result<Child, Failure> {
    let arguments = ["service", name].map(OsStr::new);
    let rest = [folder.as_os_str(), OsStr::new(address)];
    Child::start(name, &[arguments, rest].concat())
}

fn start_proxy(name: &str, file: &Path, folder: &Path) -> Result<Child, Failure> {
    Child::start(name, &[OsStr::new("proxy"), file.as_os_str(), folder.as_os_str()])
}

const USUAL: u16 = 8080;
/// A service that ended stays away so long, for its callers' errors to be seen.
const PAUSE: Duration = Duration::from_secs(8);
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// Proxies that are not told anything so long begin without it.
const TOLD: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);
