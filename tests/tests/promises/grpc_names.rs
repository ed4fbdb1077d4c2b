//! Spans of gRPC are named by the method, of which a service has few: what nobody implements makes no names, and there is
//! a cap that all workers share. Which statuses are an error of which side can be chosen.

use std::collections::HashSet;

use http::Response;
use spanmesh_tests::origin::empty;
use spanmesh_tests::proxy::text;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, run};

/// Answers with the status that its path ends with.
async fn service() -> Origin {
    Origin::start(Protocol::Http2, |request| async move {
        let status = request.uri().path().rsplit('_').next().unwrap_or("0").to_owned();
        let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
        answer.body(empty()).expect("answer")
    })
    .await
}

fn proxy(origin: &Origin, mode: &str, workers: usize, policy: &str) -> Proxy {
    Proxy::start(&format!(
        "workers: {workers}\nlisteners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http2}}\n\
         policy: {{{policy}}}\n",
        origin.address
    ))
}

async fn call(client: &mut Client, path: &str) {
    let request = client.request("POST", path).header("content-type", "application/grpc").header("te", "trailers");
    assert_eq!(client.whole(request.body(empty()).expect("request")).await.status, 200);
}

const FILE: &str = "destinations: [{name: file, file: {path: DIR/spans.jsonl}}]";

#[test]
fn what_nobody_implements_makes_no_names_unless_the_application_calls_it() {
    run(async {
        for (mode, named) in [("inbound", false), ("outbound", true)] {
            let origin = service().await;
            let proxy = proxy(&origin, mode, 1, FILE);
            let mut client = Client::connect(Protocol::Http2, proxy.address("side")).await;
            for path in ["/shop.Cart/Add_0", "/shop.Cart/Bad_5", "/shop.Cart/None_12", "/no/such/form_0"] {
                call(&mut client, path).await;
            }
            let spans = proxy.spanned(4).await;
            let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
            let third = if named { "shop.Cart/None_12" } else { "grpc" };
            assert_eq!(names, ["shop.Cart/Add_0", "shop.Cart/Bad_5", third, "grpc"]);
            assert_eq!(text(&spans[3], "rpc.method_original"), "/no/such/form_0");
        }
    });
}

#[test]
fn a_service_has_few_names_whichever_worker_and_connection_they_come_by() {
    run(async {
        let origin = service().await;
        let proxy = proxy(&origin, "inbound", 2, FILE);
        for part in 0..8 {
            let mut client = Client::connect(Protocol::Http2, proxy.address("side")).await;
            for number in 0..60 {
                call(&mut client, &format!("/shop.Cart/M{}_0", part * 60 + number)).await;
                let request = client.request("GET", &format!("/x/v{part}")).body(empty()).expect("request");
                client.whole(request).await;
            }
        }
        let spans = proxy.spanned(960).await;
        let names: HashSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
        let own: HashSet<_> = names.iter().filter(|name| !["grpc", "GET"].contains(*name)).collect();
        assert_eq!(own.len(), 200, "as many as a service may have");
        assert!(names.contains("grpc"));
        for span in spans.iter().filter(|span| span.name == "grpc") {
            assert_eq!(text(span, "rpc.method"), "_OTHER");
            assert!(text(span, "rpc.method_original").starts_with("/shop.Cart/M"));
        }
    });
}

/// Read as they are: the conventions have other lists.
fn errors(proxy: &Proxy) -> Vec<bool> {
    let text = std::fs::read_to_string(proxy.dir.path("chosen.jsonl")).unwrap_or_default();
    let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let spans = lines.iter().flat_map(|line| line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array());
    spans.flatten().map(|span| span["status"]["code"] == 2).collect()
}

#[test]
fn which_statuses_are_errors_can_be_chosen_for_each_side() {
    run(async {
        let lists = "grpcErrors: {client: [NOT_FOUND], server: [CANCELLED]}, \
                     destinations: [{name: file, file: {path: DIR/chosen.jsonl}}]";
        for (mode, expected) in [("inbound", [false, true, false]), ("outbound", [false, false, true])] {
            let origin = service().await;
            let proxy = proxy(&origin, mode, 1, lists);
            let mut client = Client::connect(Protocol::Http2, proxy.address("side")).await;
            for path in ["/shop.Cart/A_14", "/shop.Cart/A_1", "/shop.Cart/A_5"] {
                call(&mut client, path).await;
            }
            spanmesh_tests::eventually("three spans", || errors(&proxy).len() == 3).await;
            assert_eq!(errors(&proxy), expected, "{mode}");
        }
    });
}
