//! An edit of the configuration's file changes the policy of the running proxy: between two requests, within two seconds,
//! and only if the file is right. What cannot change without a restart is named.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Wire, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");

struct Edited {
    proxy: Process,
    file: PathBuf,
    text: String,
    dir: Dir,
    _origin: Origin,
}

impl Edited {
    async fn start(protocol: Protocol) -> Self {
        // Its answers end with the requests, so that one can be held open.
        let origin = Origin::echo(protocol).await;
        let dir = Dir::new();
        let proxy = Process::start(PROGRAM, dir.as_ref(), &config(&dir, &origin, protocol)).await;
        let file = written(dir.as_ref());
        let text = std::fs::read_to_string(&file).expect("the proxy's file");
        Self { proxy, file, text, dir, _origin: origin }
    }

    fn write(&self, text: &str) -> Instant {
        std::fs::write(&self.file, text).expect("write");
        Instant::now()
    }

    fn reloads(&self, outcome: &str) -> f64 {
        self.proxy.metric("spanmesh_proxy_policy_reloads_total", &[&format!("outcome=\"{outcome}\"")])
    }

    fn spans(&self) -> usize {
        spanmesh_tests::proxy::spans(&self.dir).len()
    }
}

fn config(dir: &Dir, origin: &Origin, protocol: Protocol) -> String {
    let (address, folder, word) = (origin.address, dir.as_ref().display().to_string(), protocol.word());
    format!(
        "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app, answerTrace: serverTiming}}\n\
         upstreams:\n- {{name: app, addresses: ['{address}'], protocol: {word}}}\n\
         policy:\n  sampling: {{head: {{rules: [{{action: {{always: {{}}}}}}]}}}}\n  \
         destinations: [{{name: file, file: {{path: {folder}/spans.jsonl}}}}]\n"
    )
}

/// The configuration that the harness wrote for the only proxy of this folder.
fn written(dir: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(dir).expect("folder").map(|entry| entry.expect("entry").path());
    files.find(|path| path.extension().is_some_and(|end| end == "yaml")).expect("a configuration")
}

/// Whether the gateway says that it keeps the trace of a request.
async fn keeps(client: &mut Client) -> bool {
    let answer = client.get("/").await;
    let told = answer.headers["server-timing"].to_str().expect("text").to_owned();
    match told.trim_end_matches('"').rsplit('-').next() {
        Some(flags) => u8::from_str_radix(flags, 16).expect("flags") & 1 == 1,
        None => panic!("{told}"),
    }
}

#[test]
fn an_edited_policy_holds_within_two_seconds_on_connections_that_are_open() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let edited = Edited::start(upstream).await;
            let mut client = Client::connect(client, edited.proxy.address("in")).await;
            assert!(keeps(&mut client).await);
            for (text, kept) in [(edited.text.replace("always", "never"), false), (edited.text.clone(), true)] {
                let begun = edited.write(&text);
                while keeps(&mut client).await != kept {
                    assert!(begun.elapsed() < Duration::from_secs(10), "the edit is not seen");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(2), "{took:?}");
            }
            assert_eq!((edited.reloads("replaced"), edited.reloads("refused")), (2.0, 0.0));
            let shown = spanmesh_tests::proxy::plain(edited.proxy.admin, "GET", "/config");
            assert!(shown.contains("always"), "{shown}");
        });
    }
}

#[test]
fn a_file_with_mistakes_is_refused_by_name_and_line_and_the_old_policy_goes_on() {
    run(async {
        let edited = Edited::start(Protocol::Http1).await;
        let mut client = Client::connect(Protocol::Http1, edited.proxy.address("in")).await;
        for (text, said) in [
            (edited.text.replace("always: {}", "sometimes: {}"), "policy.sampling.head.rules[0].action.sometimes"),
            (edited.text.replace("version: 1", "version: ["), ": "),
            (String::new(), "version: is missing"),
        ] {
            let before = edited.reloads("refused");
            edited.write(&text);
            eventually("the file is refused", || edited.reloads("refused") == before + 1.0).await;
            assert!(keeps(&mut client).await);
            let file = edited.file.display().to_string();
            let words = ["is refused", said, &file];
            let is_told = || edited.proxy.said().lines().any(|line| words.iter().all(|word| line.contains(word)));
            eventually("it is said", is_told).await;
        }
        std::fs::remove_file(&edited.file).expect("remove");
        eventually("a file that is gone is refused", || edited.reloads("refused") == 4.0).await;
        assert!(keeps(&mut client).await);
        edited.write(&edited.text.replace("always", "never"));
        eventually("it is well again", || edited.reloads("replaced") == 1.0).await;
        assert!(!keeps(&mut client).await);
    });
}

#[test]
fn what_needs_a_restart_is_named_and_the_policy_beside_it_is_taken() {
    run(async {
        let edited = Edited::start(Protocol::Http1).await;
        let mut client = Client::connect(Protocol::Http1, edited.proxy.address("in")).await;
        edited.write(&format!("{}limits: {{streams: 7}}\n", edited.text.replace("always", "never")));
        eventually("the policy is taken", || edited.reloads("replaced") == 1.0).await;
        assert!(!keeps(&mut client).await);
        eventually("it is said", || edited.proxy.said().contains("limits changed; that holds from the next start on"))
            .await;
    });
}

#[test]
fn a_request_goes_by_the_policy_that_it_began_with() {
    run(async {
        let edited = Edited::start(Protocol::Http1).await;
        // Its body keeps it open over the edit.
        let mut slow = Wire::connect(edited.proxy.address("in")).await;
        slow.write(b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").await;
        eventually("the request is there", || edited.proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 1.0)
            .await;
        edited.write(&edited.text.replace("always", "never"));
        eventually("the policy is taken", || edited.reloads("replaced") == 1.0).await;
        slow.write(b"cd").await;
        eventually("the spans of the slow request", || edited.spans() == 2).await;
        let mut client = Client::connect(Protocol::Http1, edited.proxy.address("in")).await;
        client.get("/after").await;
        eventually("both ended", || edited.proxy.metric("spanmesh_proxy_requests_total", &[]) == 2.0).await;
        assert_eq!(edited.proxy.metric("spanmesh_proxy_spans_created_total", &[]), 2.0);
    });
}
