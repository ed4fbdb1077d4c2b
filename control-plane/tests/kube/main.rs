//! The control plane with Kubernetes as its source, against an API server that is not always well. The program is the real
//! one, on ports of the kernel's; `tests/kube` in the workspace has the same against a real API server.

mod stand_in;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spanmesh_control_plane::{Options, Running, Source, start};
use stand_in::{StandIn, Wrong};
use tokio::task::JoinHandle;

const POLICIES: &str = "samplingpolicies";

/// An API server, and a control plane that follows it.
struct Scene {
    server: StandIn,
    address: SocketAddr,
    listening: JoinHandle<()>,
    plane: Running,
    folder: PathBuf,
}

impl Scene {
    async fn new(name: &str, prepare: impl FnOnce(&StandIn)) -> Self {
        let server = StandIn::default();
        prepare(&server);
        let (address, listening) = server.listen(([127, 0, 0, 1], 0).into()).await;
        let folder = std::env::temp_dir().join(format!("spanmesh-kube-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let plane = plane(&folder, address).await;
        Self { server, address, listening, plane, folder }
    }

    /// Generation and whether it is in force, of the policy as it was read.
    fn read(&self, name: &str) -> Option<(u64, bool)> {
        let page = page(self.plane.bound.admin, "/resources");
        let of = |resource: &&Value| resource["name"] == name;
        let resource = page["resources"].as_array()?.iter().find(of)?;
        Some((resource["generation"].as_u64()?, resource["accepted"].as_bool()?))
    }

    async fn reads(&self, name: &str, generation: u64) {
        until(&format!("{name} is read in generation {generation}"), || self.read(name) == Some((generation, true)))
            .await;
    }

    /// Status and reason of a condition.
    fn condition(&self, name: &str, kind: &str) -> (String, u64) {
        let policy = self.server.get(POLICIES, &format!("shop/{name}"));
        let conditions = policy["status"]["ancestors"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
        let words = format!("{} {}", found["status"].as_str().unwrap_or("-"), found["reason"].as_str().unwrap_or("-"));
        (words, found["observedGeneration"].as_u64().unwrap_or(0))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.listening.abort();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn plane(folder: &std::path::Path, address: SocketAddr) -> Running {
    let file = folder.join("kubeconfig");
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: a, user: {{token: x}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a, namespace: here}}}}]\n\
         current-context: a\n"
    );
    std::fs::write(&file, config).expect("a file");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        source: Source::Kube(Some(file)),
        listen: any,
        admin: any,
        certificate: None,
        interval: Duration::from_secs(1),
    };
    start(options).await.expect("the control plane starts")
}

fn policy(name: &str, rate: &str) -> Value {
    json!({
        "apiVersion": "spanmesh.io/v1alpha1",
        "kind": "SamplingPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Namespace", "name": "shop"}],
            "defaults": {"head": {"rules": [{"name": "all", "action": {"probability": rate}}]}},
        },
    })
}

fn text(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    text.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

fn page(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&text(address, path)).expect("a page")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_in_force_within_a_second_and_its_status_says_so() {
    let scene = Scene::new("applied", |server| server.put(POLICIES, policy("a", "0.1"))).await;
    scene.reads("a", 1).await;
    let began = Instant::now();
    scene.server.put(POLICIES, policy("a", "0.5"));
    scene.reads("a", 2).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 2)).await;
    assert_eq!(scene.condition("a", "Accepted"), ("True Accepted".into(), 2));
    assert_eq!(scene.condition("a", "Converged"), ("Unknown NoProxies".into(), 2));
    // It is there, so nothing more is written.
    let before = scene.server.asked(&["PATCH"]).len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.server.asked(&["PATCH"]).len(), before);
    assert!(before <= 3, "{before} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_goes_on_as_before_and_says_so_in_status_and_event() {
    let scene = Scene::new("refused", |server| server.put(POLICIES, policy("a", "0.1"))).await;
    scene.reads("a", 1).await;
    let mut bad = policy("a", "0.1");
    bad["spec"]["targetRefs"][0]["name"] = json!("payments");
    scene.server.put(POLICIES, bad);
    until("its status is written", || scene.condition("a", "Accepted") == ("False Invalid".into(), 2)).await;
    let page = page(scene.plane.bound.admin, "/resources");
    assert_eq!(page["resources"][0]["goesOnAsBefore"], true);
    until("an event is there", || !scene.server.all("events").is_empty()).await;
    let event = scene.server.all("events").remove(0);
    assert!(event["note"].as_str().unwrap().contains("a policy is for its own namespace only"), "{event}");
    assert_eq!((&event["type"], &event["regarding"]["name"]), (&json!("Warning"), &json!("a")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.server.asked(&["POST", "/events"]).len(), 1);
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses>
#[tokio::test(flavor = "multi_thread")]
async fn after_a_watch_that_is_too_old_everything_is_listed_once() {
    let scene = Scene::new("expired", |server| server.put(POLICIES, policy("a", "0.1"))).await;
    scene.reads("a", 1).await;
    scene.server.forget();
    scene.server.put(POLICIES, policy("a", "0.2"));
    scene.server.put(POLICIES, policy("b", "0.2"));
    scene.reads("a", 2).await;
    scene.reads("b", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.server.asked(&["GET", POLICIES, "limit="]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_finds_everything_too_old_is_not_asked_for_lists_without_end() {
    let scene = Scene::new("storm", |server| {
        server.put(POLICIES, policy("a", "0.1"));
        server.fault(&[POLICIES, "watch=true"], usize::MAX, Wrong::ErrorEvent);
    })
    .await;
    scene.reads("a", 1).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let lists = scene.server.asked(&["GET", POLICIES, "limit="]);
    assert!((2..=6).contains(&lists.len()), "{} lists in 8 s", lists.len());
    let gap = |two: &[stand_in::Asked]| two[1].at - two[0].at;
    assert!(lists.windows(2).all(|two| gap(two) > Duration::from_millis(500)));
    scene.server.well();
    scene.server.put(POLICIES, policy("a", "0.2"));
    scene.reads("a", 2).await;
}

/// <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>: 429, and Retry-After in seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_left_alone_for_as_long_as_it_says() {
    let scene = Scene::new("busy", |server| {
        server.put(POLICIES, policy("a", "0.1"));
        server.fault(&[POLICIES, "limit="], 1, Wrong::Answer(429, Some(3)));
    })
    .await;
    scene.reads("a", 1).await;
    let lists = scene.server.asked(&["GET", POLICIES, "limit="]);
    assert_eq!(lists.iter().map(|asked| asked.status).collect::<Vec<_>>(), [429, 200]);
    assert!(lists[1].at - lists[0].at >= Duration::from_secs(3));
}

/// A server ends watches after their time, and sooner when it restarts:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_goes_on_where_it_was_and_not_in_a_loop() {
    let scene = Scene::new("closed", |server| {
        server.put(POLICIES, policy("a", "0.1"));
        server.fault(&[POLICIES, "watch=true"], usize::MAX, Wrong::Ends);
    })
    .await;
    scene.reads("a", 1).await;
    scene.server.put(POLICIES, policy("a", "0.2"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let watches = scene.server.asked(&[POLICIES, "watch=true"]);
    assert!((3..=9).contains(&watches.len()), "{} watches in 4 s", watches.len());
    scene.server.well();
    scene.reads("a", 2).await;
    assert_eq!(scene.server.asked(&["GET", POLICIES, "limit="]).len(), 1, "nothing was listed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for() {
    let scene = Scene::new("slow", |server| {
        server.put(POLICIES, policy("a", "0.1"));
        server.fault(&["GET"], 12, Wrong::Slow(Duration::from_secs(2)));
    })
    .await;
    scene.reads("a", 1).await;
    assert_eq!(scene.server.asked(&["GET", POLICIES, "limit="]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_everything_goes_on_and_after_it_what_has_changed_is_in_force() {
    let mut scene = Scene::new("away", |server| server.put(POLICIES, policy("a", "0.1"))).await;
    scene.reads("a", 1).await;
    scene.listening.abort();
    let _ = (&mut scene.listening).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.read("a"), Some((1, true)));
    scene.server.put(POLICIES, policy("a", "0.2"));
    let (_, listening) = scene.server.listen(scene.address).await;
    scene.listening = listening;
    scene.reads("a", 2).await;
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 2)).await;
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply>: a version in a patch is a condition.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_else_has_written_meanwhile_is_put_right() {
    let scene = Scene::new("conflict", |server| {
        server.put(POLICIES, policy("a", "0.1"));
        server.fault(&["PATCH", POLICIES], 2, Wrong::Answer(409, None));
    })
    .await;
    until("a write has met a conflict", || !scene.server.asked(&["PATCH", POLICIES]).is_empty()).await;
    scene.server.edit(POLICIES, "shop/a", |object| {
        object["status"] = json!({"ancestors": [{"ancestorRef": {"kind": "Namespace", "name": "shop"},
            "controllerName": "spanmesh.io/controller", "conditions": [{"type": "Accepted", "status": "False",
            "reason": "Nonsense", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]});
    });
    until("its status is right", || scene.condition("a", "Accepted") == ("True Accepted".into(), 1)).await;
}

/// <https://kubernetes.io/docs/concepts/architecture/leases/>
#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_of_the_lease_writes_and_the_next_one_puts_right_what_is_left() {
    let lease = |holder: &str| {
        json!({
            "metadata": {"name": "spanmesh-control-plane", "namespace": "here"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"},
        })
    };
    let scene = Scene::new("lease", |server| {
        server.put("leases", lease("another"));
        server.put(POLICIES, policy("a", "0.1"));
    })
    .await;
    scene.reads("a", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(scene.server.asked(&["PATCH"]).is_empty(), "another one leads");
    // It ends, and says so.
    scene.server.edit("leases", "here/spanmesh-control-plane", |lease| lease["spec"]["holderIdentity"] = json!(""));
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 1)).await;
    // The lease is taken away, as from one that was held up for long.
    scene.server.edit("leases", "here/spanmesh-control-plane", |lease| {
        lease["spec"]["holderIdentity"] = json!("another");
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = scene.server.asked(&["PATCH"]).len();
    scene.server.put(POLICIES, policy("a", "0.2"));
    scene.reads("a", 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.server.asked(&["PATCH"]).len(), before, "it does not write any more, and serves");
    // Whoever holds it has died in the middle of its work: nothing renews it.
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_leaves_the_lease_to_the_next() {
    let mut scene = Scene::new("leaves", |server| server.put(POLICIES, policy("a", "0.1"))).await;
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 1)).await;
    scene.plane.leave().await;
    let lease = scene.server.get("leases", "here/spanmesh-control-plane");
    assert_eq!(lease["spec"]["holderIdentity"], "", "{lease}");
    let second = plane(&scene.folder, scene.address).await;
    scene.server.put(POLICIES, policy("a", "0.2"));
    let began = Instant::now();
    until("its status is written", || scene.condition("a", "Programmed") == ("True Programmed".into(), 2)).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    drop(second);
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
#[tokio::test(flavor = "multi_thread")]
async fn a_large_cluster_is_read_soon_and_pods_that_only_live_are_no_news() {
    let pod = |number: usize, ready: bool| {
        let app = format!("app-{}", number % 500);
        json!({
            "metadata": {"name": format!("pod-{number}"), "namespace": "shop", "labels": {"app": app}},
            "status": {"ready": ready},
        })
    };
    let began = Instant::now();
    let scene = Scene::new("large", |server| {
        (0..5_000).for_each(|number| server.put("pods", pod(number, false)));
        for number in 0..500 {
            let app = format!("app-{number}");
            let metadata = json!({"name": app, "namespace": "shop"});
            server.put("services", json!({"metadata": metadata, "spec": {"selector": {"app": app}}}));
        }
        (0..1_000).for_each(|number| server.put(POLICIES, policy(&format!("p-{number}"), "0.1")));
    })
    .await;
    scene.reads("p-999", 1).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let asked = scene.server.asked(&["GET", "/pods?limit="]);
    assert_eq!(asked.len(), 1);
    let version = || page(scene.plane.bound.admin, "/proxies")["version"].as_u64();
    let before = version();
    for number in 0..100 {
        scene.server.put("pods", pod(number, true));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(version(), before);
    scene.server.edit("pods", "shop/pod-0", |pod| pod["metadata"]["labels"]["app"] = json!("app-1"));
    until("another label is news", || version() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_what_came_of_them() {
    let scene = Scene::new("counted", |server| {
        server.fault(&[POLICIES, "limit="], 1, Wrong::Answer(429, Some(1)));
    })
    .await;
    let text = || text(scene.plane.bound.admin, "/metrics");
    let line = "spanmesh_control_plane_kubernetes_requests_total{verb=\"list\",outcome=\"busy\"} 1";
    until("it is counted", || text().contains(line)).await;
    until("the others, too", || text().contains("verb=\"list\",outcome=\"done\"} 6")).await;
}
