//! A client of HTTP/2 has as long for its preface and for each head as one of HTTP/1.1 has for a head; one that is idle
//! between requests is left alone.

use std::time::Duration;

use spanmesh_tests::{Origin, Protocol, Proxy, Wire, run};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const HALF_HEAD: &[u8] = &[0, 0, 20, 1, 5, 0, 0, 0, 1, 0x82];

async fn impatient(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\nlimits: {{headerTimeout: 500ms}}\n",
        origin.address
    ))
}

#[test]
fn a_preface_or_a_head_that_never_ends_is_given_up() {
    for bytes in [PREFACE.to_vec(), [PREFACE, SETTINGS, HALF_HEAD].concat(), [PREFACE, SETTINGS, &PING[..4]].concat()] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = impatient(&origin).await;
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(bytes).await;
            wire.rest().await;
            let line = proxy.logged(1).await.remove(0);
            assert_eq!((&line["flag"], &line["protocol"]), (&"idle_timeout".into(), &"HTTP/2".into()));
            proxy.at_rest().await;
        });
    }
}

#[test]
fn a_client_that_only_says_ping_stays() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = impatient(&origin).await;
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write([PREFACE, SETTINGS].concat()).await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            wire.write(PING).await;
            wire.until("\x01\x02\x03\x04\x05\x06\x07\x08").await;
        }
        assert!(proxy.log().is_empty());
    });
}
