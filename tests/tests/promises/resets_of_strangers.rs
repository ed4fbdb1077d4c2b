//! Clients that give up as fast as they can share upstream connections with others. What a peer sees of their resets must
//! not make it end the connection under the others.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use h2::Reason;
use http::{Request, Response};
use hyper::body::Incoming;
use spanmesh_tests::frames::*;
use spanmesh_tests::origin::{Body, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const STORM: Duration = Duration::from_secs(3);
const GOOD: usize = 4;
const HOSTILE: usize = 8;
/// All of them live in one thread with the origin, which must have its turn.
const PAUSE: Duration = Duration::from_millis(3);
/// As many streams as one attacker has at once.
const STREAMS: u32 = 40;

/// Asks for what takes long, and takes it back: at once, or when it is under way.
async fn attack(address: SocketAddr, wait: Duration, until: Instant) {
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let _ = stream.write_all(&hello()).await;
        let (mut reader, mut writer) = stream.into_split();
        let drain = tokio::task::spawn_local(async move {
            let mut bytes = [0; 4096];
            while reader.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
        });
        for wave in 0..5 {
            let ids = || (0..STREAMS).map(|turn| 2 * (wave * STREAMS + turn) + 1);
            let heads = ids().flat_map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/slow"))).collect();
            let resets: Vec<u8> = ids().flat_map(|id| reset(id, Reason::CANCEL)).collect();
            let parts: Vec<Vec<u8>> = if wait.is_zero() { vec![[heads, resets].concat()] } else { vec![heads, resets] };
            for part in parts {
                if writer.write_all(&part).await.is_err() {
                    break;
                }
                tokio::time::sleep(wait.max(PAUSE)).await;
            }
        }
        drop(writer);
        drain.abort();
    }
}

/// Good clients of each protocol, who were there before; how often they were answered.
async fn good(proxy: &Proxy, until: Instant) -> usize {
    let (mut all, answered) = (JoinSet::new(), Rc::new(Cell::new(0)));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for _ in 0..GOOD / 2 {
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            assert_eq!(client.get("/").await.body, "hello");
            let answered = answered.clone();
            all.spawn_local(async move {
                while Instant::now() < until {
                    assert_eq!(client.get("/").await.body, "hello");
                    answered.set(answered.get() + 1);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
    }
    while let Some(ended) = all.join_next().await {
        ended.expect("a good client");
    }
    answered.get()
}

async fn storm(address: SocketAddr, connections: Rc<Cell<usize>>, what: &str) {
    let proxy = Proxy::between(address, Protocol::Http2);
    let until = Instant::now() + STORM;
    let mut attackers = JoinSet::new();
    let delayed = [0, 1, 5, 50].map(Duration::from_millis);
    let listener = proxy.address("in");
    let began = good(&proxy, Instant::now()).await;
    for number in 0..HOSTILE {
        attackers.spawn_local(attack(listener, delayed[number % delayed.len()], until));
    }
    let answered = good(&proxy, until).await;
    while attackers.join_next().await.is_some() {}
    let resets = proxy.metric("spanmesh_proxy_requests_total", &["flag=\"client_reset\""]);
    eprintln!("{what}: {answered} good answers, {resets} given up, {} connections", connections.get());
    assert!(began + answered > 8 && resets > 1000.0, "{answered} {resets}");
    // As many as the attackers' streams fill.
    assert!(connections.get() <= HOSTILE * STREAMS as usize / 20, "{} connections", connections.get());
    proxy.at_rest().await;
    assert_eq!(Client::connect(Protocol::Http1, listener).await.get("/").await.body, "hello");
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Response::new(full("hello"))
}

#[test]
fn good_requests_are_answered_by_an_origin_that_minds_resets_it_has_not_looked_at() {
    run(async {
        let origin = Origin::start(Protocol::Http2, answer).await;
        storm(origin.address, origin.connections.clone(), "the engine's own limits").await;
    });
}
