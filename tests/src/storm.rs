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

use self::good::{Kind, Places};
use self::measure::{Sample, Tally};
use crate::{Authority, Dir, Origin, Process, Protocol};

/// Runs it for so long against this program, prints what it sees, and tells whether all was well.
pub async fn run(program: &str, length: Duration) -> bool {
    let (authority, dir) = (Authority::new(), Dir::new());
    let leaf = authority.leaf(&["storm.example"]);
    leaf.write(&dir, "edge");
    dir.write("root.pem", authority.pem());
    let acceptor = || leaf.server(&["h2", "http/1.1"]);
    let app1 = Origin::start(Protocol::Http1, origins::serve).await;
    let app2 = Origin::start(Protocol::Http2, origins::serve).await;
    let secure = Origin::secure(acceptor(), origins::serve).await;
    let yaml = configuration()
        .replace("APP1", &app1.address.to_string())
        .replace("APP2", &app2.address.to_string())
        .replace("SECURE", &secure.address.to_string())
        .replace("ECHO", &origins::echo().await.to_string())
        .replace("BAD1", &origins::bad_http1().await.to_string())
        .replace("BAD2", &origins::bad_http2().await.to_string())
        .replace("WORSE", &origins::bad_tls(acceptor()).await.to_string());
    let mut proxy = Process::start(program, dir.as_ref(), &yaml).await;
    // The gauge of tasks is looked at once a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let began = Instant::now();
    let idle = Sample::take(proxy.id(), proxy.status, began).await;
    let (tally, end) = (Rc::new(Tally::default()), began + length);
    let places = Places::new(proxy.address("in"), proxy.address("edge"), proxy.address("tcp"), &authority);
    let mut weather = Weather { places: Rc::new(places), tally: tally.clone(), end, dice: Dice::new(1) };
    let mut all = tokio::task::JoinSet::new();
    for kind in Kind::ALL.into_iter().chain(Kind::ALL) {
        all.spawn_local(weather.split().good(kind));
    }
    for _ in 0..ATTACKERS {
        all.spawn_local(weather.split().hostile());
    }
    let mut samples = Vec::new();
    let mut due = Duration::ZERO;
    measure::heading();
    while began.elapsed() < length && !proxy.has_ended() {
        tokio::time::sleep(LOOK.min(length / 20)).await;
        let sample = Sample::take(proxy.id(), proxy.status, began).await;
        if sample.at >= due {
            measure::line(&tally, &sample);
            due = sample.at + Duration::from_secs(60);
        }
        samples.push(sample);
    }
    while all.join_next().await.is_some() {}
    if proxy.has_ended() {
        println!("FAILED: the proxy ended\n{}", proxy.said());
        return false;
    }
    let rest = at_rest(&proxy, &idle, began).await;
    measure::line(&tally, &rest);
    let back = format!("idle again: {rest:?}; before: {idle:?}");
    let said = proxy.said();
    let panicked = said.lines().find(|line| line.contains("panicked")).map(str::to_owned);
    let verdicts = [
        ("good traffic unharmed", measure::unharmed(&tally)),
        ("memory flat", measure::memory(&samples, length)),
        ("nothing left", if rest.is_back_at(&idle) { Ok(back) } else { Err(back) }),
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

/// Waits until the proxy holds no more than it did when idle, for as long as its own times may take.
async fn at_rest(proxy: &Process, idle: &Sample, began: Instant) -> Sample {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let sample = Sample::take(proxy.id(), proxy.status, began).await;
        if sample.is_back_at(idle) || Instant::now() > until {
            return sample;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
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
            hostile::attack(self.places.clone(), self.dice.split()).await;
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
/// Between two looks at the proxy.
const LOOK: Duration = Duration::from_secs(5);
/// A round of good traffic that takes longer hangs.
const ROUND: Duration = Duration::from_secs(60);

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
         - {name: app1, addresses: ['APP1'], protocol: http1, idleTimeout: 2s}\n\
         - {name: app2, addresses: ['APP2'], protocol: http2, http2IdleTimeout: 2s}\n\
         - {name: secure, addresses: ['SECURE'], idleTimeout: 2s, http2IdleTimeout: 2s, \
            tls: {rootFile: DIR/root.pem, serverName: storm.example}}\n\
         - {name: echo, addresses: ['ECHO']}\n\
         - {name: bad1, addresses: ['BAD1'], protocol: http1, idleTimeout: 2s}\n\
         - {name: bad2, addresses: ['BAD2'], protocol: http2, http2IdleTimeout: 2s}\n\
         - {name: badtls, addresses: ['WORSE'], idleTimeout: 2s, http2IdleTimeout: 2s, \
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
        "  - {name: two, match: {pathPrefix: /two}, upstream: app2}\n\
         \x20 - {name: secure, match: {pathPrefix: /secure}, upstream: secure}\n\
         \x20 - {name: all, upstream: app1}\n",
    ]
    .concat()
}
