//! A request goes through, its answer comes back whole, and one span tells of it.

use http::StatusCode;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, run};

#[test]
fn a_request_passes_and_leaves_one_span_and_one_line() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut client = Client::connect(client, proxy.address("in")).await;
            let answer = client.get("/greeting?x=1").await;
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]));

            let line = proxy.logged(1).await.remove(0);
            assert_eq!(
                (&line["flag"], &line["status"], &line["path"]),
                (&"ok".into(), &200.into(), &"/greeting".into())
            );
            let spans = proxy.spanned(1).await;
            assert_eq!(spans.len(), 1);
            assert_eq!(spans[0].name, "GET /greeting");
            assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &["flag=\"ok\""]), 1.0);
        });
    }
}
