//! Bad weather for one proxy: good traffic of every kind beside clients and origins that break every rule, on a real
//! process with a real configuration. The good traffic must not notice, and afterwards nothing may be left. The program
//! is `spanmesh-storm`; a promise runs a few seconds of it.

mod floods;
mod good;
mod hostile;
pub mod measure;
mod origins;

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

pub use self::hostile::Gust;

use self::good::{Kind, Places};
use self::measure::{Sample, Tally};
use self::origins::Origins;
use crate::{Authority, Client, Dir, Process, Protocol};

/// Whether good and hostile clients come to the same connections of the proxy to an HTTP/2 origin. An origin that sees one
/// client reset many streams may end the connection with the streams of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Together,
    Apart,
}

impl Sharing {
    /// Where a hostile client asks for an origin that works: over HTTP/1, HTTP/2, TLS.
    fn way(self, hop: usize) -> &'static str {
        match self {
            Sharing::Together => ["", "/two", "/secure"][hop],
            Sharing::Apart => ["", "/apart/two", "/apart/secure"][hop],
        }
    }
}

/// A proxy between good and bad origins, and what it holds while nothing happens.
pub struct Scene {
    pub proxy: Process,
    pub idle: Sample,
    places: Rc<Places>,
    _origins: Origins,
}

impl Scene {
    pub async fn start(program: &str, dir: &Dir, sharing: Sharing) -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf(&["storm.example"]);
        leaf.write(dir, "edge");
        dir.write("root.pem", authority.pem());
        let origins = Origins::start(|| leaf.server(&["h2", "http/1.1"])).await;
        let mut yaml = configuration();
        for (name, address) in origins.addresses {
            yaml = yaml.replace(name, &address.to_string());
        }
        let proxy = Process::start(program, dir.as_ref(), &yaml).await;
        // What the access log and the spans are written to is opened with the first line, and stays open.
        assert_eq!(Client::connect(Protocol::Http1, proxy.address("in")).await.get("/echo").await.status, 200);
        let idle = loop {
            tokio::time::sleep(SETTLING).await;
            let sample = Sample::take(proxy.id(), proxy.status, Instant::now()).await;
            if !sample.is_busy() {
                break sample;
            }
        };
        let places = Places::new(sharing, ["in", "edge", "tcp"].map(|name| proxy.address(name)), &authority);
        Self { proxy, idle, places: Rc::new(places), _origins: origins }
    }

    /// So many attacks of one kind, each of them short.
    pub async fn gust(&self, gust: Gust, count: usize, seed: u64) {
        let (mut all, mut dice) = (JoinSet::new(), Dice::new(seed));
        for _ in 0..count {
            all.spawn_local(gust.blow(self.places.clone(), dice.split(), GUST));
            if all.len() >= ATTACKERS {
                all.join_next().await;
            }
        }
        while all.join_next().await.is_some() {}
    }

    /// Waits until the proxy holds no more than it did when idle; what it holds then, or when the wait is over.
    pub async fn at_rest(&self, wait: Duration) -> Sample {
        let until = Instant::now() + wait;
        loop {
            let sample = Sample::take(self.proxy.id(), self.proxy.status, until - wait).await;
            if sample.is_back_at(&self.idle) || Instant::now() > until {
                return sample;
            }
            tokio::time::sleep(SETTLING).await;
        }
    }
}

/// Runs all of it for so long against this program, prints what it sees, and tells whether all was well.
pub async fn run(program: &str, length: Duration, sharing: Sharing) -> bool {
    let dir = Dir::new();
    let mut scene = Scene::start(program, &dir, sharing).await;
    let began = Instant::now();
    let (tally, end) = (Rc::new(Tally::default()), began + length);
    let mut weather = Weather { places: scene.places.clone(), tally: tally.clone(), end, dice: Dice::new(1) };
    let mut all = JoinSet::new();
    for kind in Kind::ALL.into_iter().chain(Kind::ALL) {
        all.spawn_local(weather.split().good(kind));
    }
    for _ in 0..ATTACKERS {
        all.spawn_local(weather.split().hostile());
    }
    let mut samples = Vec::new();
    let mut due = Duration::ZERO;
    measure::heading();
    while began.elapsed() < length && !scene.proxy.has_ended() {
        tokio::time::sleep(LOOK.min(length / 20)).await;
        let sample = Sample::take(scene.proxy.id(), scene.proxy.status, began).await;
        if sample.at >= due {
            measure::line(&tally, &sample);
            due = sample.at + Duration::from_secs(60);
        }
        samples.push(sample);
    }
    while all.join_next().await.is_some() {}
    let said = scene.proxy.said();
    if scene.proxy.has_ended() {
        println!("FAILED: the proxy ended\n{said}");
        return false;
    }
    let rest = scene.at_rest(REST).await;
    measure::line(&tally, &rest);
    let back = format!("idle again: {rest:?}; before: {:?}", scene.idle);
    let panicked = said.lines().find(|line| line.contains("panicked")).map(str::to_owned);
    let verdicts = [
        ("good traffic unharmed", measure::unharmed(&tally)),
        ("memory flat", measure::memory(&samples, length)),
        ("nothing left", if rest.is_back_at(&scene.idle) { Ok(back) } else { Err(back) }),
        ("no panic", panicked.map_or(Ok(String::new()), Err)),
    ];
    for (what, verdict) in &verdicts {
        match verdict {
            Ok(text) => println!("ok: {what}. {text}"),
            Err(text) => println!("FAILED: {what}. {text}"),
        }
    }
    verdicts.iter().all(|(_, verdict)| verdict.is_ok())
}

struct Weather {
    places: Rc<Places>,
    tally: Rc<Tally>,
    end: Instant,
    dice: Dice,
}

impl Weather {
    fn split(&mut self) -> Self {
        let dice = self.dice.split();
        Self { places: self.places.clone(), tally: self.tally.clone(), end: self.end, dice }
    }

    async fn good(mut self, kind: Kind) {
        while Instant::now() < self.end {
            let round = good::round(kind, self.places.clone(), self.tally.clone(), self.dice.split());
            let round = tokio::task::spawn_local(tokio::time::timeout(ROUND, round)).await;
            let failure = match round {
                Ok(Ok(())) => None,
                Ok(Err(_)) => Some(format!("{kind:?} hangs")),
                Err(panic) => Some(format!("{kind:?}: {panic}")),
            };
            self.tally.failed.borrow_mut().extend(failure);
            self.dice.pause(50).await;
        }
    }

    async fn hostile(mut self) {
        while Instant::now() < self.end {
            let gust = Gust::ALL[self.dice.below(Gust::ALL.len())];
            gust.blow(self.places.clone(), self.dice.split(), ATTACK).await;
            self.tally.attacks.set(self.tally.attacks.get() + 1);
            self.dice.pause(200).await;
        }
    }
}

/// Enough chance for a storm, the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 0 and up, below this.
    pub fn below(&mut self, top: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % top.max(1)
    }

    pub fn split(&mut self) -> Self {
        self.below(1);
        Self::new(self.0 >> 16)
    }

    pub async fn pause(&mut self, millis: usize) {
        tokio::time::sleep(Duration::from_micros(self.below(millis * 1000) as u64)).await;
    }
}

/// So many bytes from this place on, of which no two places look alike.
pub fn pattern(place: usize, length: usize) -> Bytes {
    static ALL: OnceLock<Bytes> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut dice = Dice::new(7);
        (0..2 * PATTERN).map(|_| dice.below(256) as u8).collect()
    });
    let place = place.min(PATTERN);
    all.slice(place..place + length.min(PATTERN))
}

/// The longest body.
const PATTERN: usize = 4 << 20;
const ATTACKERS: usize = 24;
/// Longer than any of the proxy's own times in the storm, so that these have their turn.
const ATTACK: Duration = Duration::from_secs(12);
/// As long as an attacker of one gust stays.
const GUST: Duration = Duration::from_millis(300);
/// Between two looks at the proxy.
const LOOK: Duration = Duration::from_secs(5);
/// A round of good traffic that takes longer hangs.
const ROUND: Duration = Duration::from_secs(25);
/// Longer than any of the proxy's own times in the storm.
const REST: Duration = Duration::from_secs(25);
/// Tasks are counted once a second, and each look at the proxy is a connection too, which lingers a little.
const SETTLING: Duration = Duration::from_millis(1500);

fn configuration() -> String {
    let bad = |path: &str, upstream: &str, more: &str| {
        format!("  - {{name: {path}, match: {{pathPrefix: /{path}}}, upstream: {upstream}, idleTimeout: 2s{more}}}\n")
    };
    let again = ", retry: {attempts: 2, on: [connectFailure, reset, refusedStream, timeout, 503], attemptTimeout: 1s}";
    [
        "telemetry: {log: info, accessLog: {to: /dev/null}}\n\
         policy: {destinations: [{name: nowhere, file: {path: /dev/null}}]}\n\
         workers: 2\n\
         limits: {headerTimeout: 2s, idleTimeout: 10s}\n\
         upstreams:\n\
         - {name: app1, addresses: ['APP1'], protocol: http1, idleTimeout: 1s}\n\
         - {name: app2, addresses: ['APP2'], protocol: http2, http2IdleTimeout: 1s}\n\
         - {name: secure, addresses: ['SECURE'], idleTimeout: 1s, http2IdleTimeout: 1s, \
            tls: {rootFile: DIR/root.pem, serverName: storm.example}}\n\
         - {name: apart2, addresses: ['APP2'], protocol: http2, http2IdleTimeout: 1s}\n\
         - {name: apartsecure, addresses: ['SECURE'], idleTimeout: 1s, http2IdleTimeout: 1s, \
            tls: {rootFile: DIR/root.pem, serverName: storm.example}}\n\
         - {name: echo, addresses: ['ECHO']}\n\
         - {name: bad1, addresses: ['BAD1'], protocol: http1, idleTimeout: 1s}\n\
         - {name: bad2, addresses: ['BAD2'], protocol: http2, http2IdleTimeout: 1s}\n\
         - {name: badtls, addresses: ['WORSE'], idleTimeout: 1s, http2IdleTimeout: 1s, \
            tls: {rootFile: DIR/root.pem, serverName: storm.example}}\n\
         listeners:\n\
         - {name: tcp, mode: inbound, address: '127.0.0.1:0', protocol: opaque, upstream: echo}\n\
         - name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app1\n  \
           tls: {certificates: [{cert: DIR/edge.crt, key: DIR/edge.key}]}\n\
         - name: in\n  mode: gateway\n  address: '127.0.0.1:0'\n  routes:\n",
        &bad("bad1", "bad1", ""),
        &bad("bad2", "bad2", ""),
        &bad("badtls", "badtls", ""),
        &bad("again1", "bad1", again),
        &bad("again2", "bad2", again),
        "  - {name: aparttwo, match: {pathPrefix: /apart/two}, upstream: apart2}\n\
         \x20 - {name: apartsecure, match: {pathPrefix: /apart/secure}, upstream: apartsecure}\n\
         \x20 - {name: two, match: {pathPrefix: /two}, upstream: app2}\n\
         \x20 - {name: secure, match: {pathPrefix: /secure}, upstream: secure}\n\
         \x20 - {name: all, upstream: app1}\n",
    ]
    .concat()
}
