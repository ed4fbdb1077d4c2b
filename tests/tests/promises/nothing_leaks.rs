//! After every kind of storm nothing is left in a proxy that is a process of its own: no connection, no request in flight,
//! no task, no descriptor, and no memory that grows from one storm to the next.

use std::time::Duration;

use spanmesh_tests::storm::{self, Gust, Scene, Sharing};
use spanmesh_tests::{Dir, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");

#[test]
fn a_few_seconds_of_everything_at_once_harm_no_good_traffic_and_leave_nothing() {
    run(async {
        assert!(storm::run(PROGRAM, Duration::from_secs(8), Sharing::Apart).await, "see above");
    });
}

/// In two tests, because most of it is waiting.
#[test]
fn each_of_the_clients_storms_leaves_nothing_and_takes_no_more_memory_each_time() {
    let clients = |gust: &Gust| !matches!(gust, Gust::BrokenHttp1 | Gust::BrokenHttp2 | Gust::Flood | Gust::Handshake);
    Gust::ALL.into_iter().filter(clients).for_each(blow);
}

#[test]
fn floods_handshakes_and_the_origins_storms_leave_nothing_and_take_no_more_memory_each_time() {
    [Gust::BrokenHttp1, Gust::BrokenHttp2, Gust::Flood, Gust::Handshake].into_iter().for_each(blow);
}

fn blow(gust: Gust) {
    run(async move {
        let dir = Dir::new();
        let scene = Scene::start(PROGRAM, &dir, Sharing::Together).await;
        let mut memory: Vec<f64> = Vec::new();
        for round in 0..ROUNDS {
            scene.gust(gust, 100, round).await;
            let rest = scene.at_rest(Duration::from_secs(20)).await;
            assert!(rest.is_back_at(&scene.idle), "{gust:?}: {rest:?}, before: {:?}", scene.idle);
            memory.push(rest.resident);
            if let [.., before, _, now] = memory[..]
                && now < before + FLAT
            {
                return;
            }
        }
        panic!("{gust:?}: {memory:?} MiB");
    });
}

/// The first fill what the allocator keeps for the most that there was at once, which no two of them have alike.
const ROUNDS: u64 = 10;
/// MiB that two rounds may add: 10 KiB for each attack, where a connection that is left behind has a hundred.
const FLAT: f64 = 2.0;
