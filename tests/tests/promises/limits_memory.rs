//! The container's memory at its limit: new work is refused by name, what is there goes on, and it recovers. In a real
//! cgroup, of either version, which takes root and a cgroup file system that can be written; without, this says so. (What
//! is decided is proven without them by the unit tests of `system::memory`.)

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use spanmesh_tests::origin::{channel, empty, full};
use spanmesh_tests::process::{self, Start};
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Wire, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const LIMIT: usize = 256 * 1024 * 1024;

#[test]
fn at_the_limit_of_memory_it_refuses_new_work_and_takes_it_again() {
    let Some(cgroup) = Cgroup::make() else {
        eprintln!("skipped: needs root and a writable cgroup with memory.max or memory.limit_in_bytes");
        return;
    };
    run(async {
        let release = std::rc::Rc::new(tokio::sync::Notify::new());
        let released = release.clone();
        let origin = Origin::start(Protocol::Http1, move |request| {
            let released = released.clone();
            async move {
                if request.uri().path() != "/long" {
                    return Response::new(full("hello"));
                }
                let (feed, body) = channel();
                tokio::task::spawn_local(async move {
                    let _ = feed.send(Frame::data(Bytes::from_static(b"first "))).await;
                    released.notified().await;
                    let _ = feed.send(Frame::data(Bytes::from_static(b"last"))).await;
                });
                Response::new(body)
            }
        })
        .await;
        let dir = Dir::new();
        let yaml = format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        );
        let start =
            Start { program: PROGRAM, dir: dir.as_ref(), yaml: &yaml, open_files: None, cgroup: Some(&cgroup.0) };
        let proxy = Process::spawn(start).await;
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.status, 200);
        let mut long = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let request = long.request("GET", "/long").body(empty()).expect("request");
        let mut answer = long.send(request).await.expect("an answer").into_body();
        answer.frame().await.expect("a frame").expect("data");

        let overloaded = || proxy.metric("spanmesh_proxy_overloaded", &[]);
        assert_eq!(overloaded(), 0.0);
        let filler = Filler::start(&cgroup.0, LIMIT * 93 / 100);
        eventually("it is overloaded", || overloaded() == 1.0).await;
        assert_eq!(client.get("/").await.status, 503, "a new request on a connection that is there");
        let mut newcomer = Wire::connect(proxy.address("in")).await;
        assert!(newcomer.rest().await.is_empty(), "a new connection");
        let reached = proxy.metric("spanmesh_proxy_limits_reached_total", &["limit=\"memory\""]);
        assert_eq!(reached, 2.0);
        eventually("both are logged", || {
            process::log(dir.as_ref()).iter().filter(|line| line["flag"] == "overload").count() == 2
        })
        .await;
        // What began before goes on.
        release.notify_one();
        assert_eq!(answer.collect().await.expect("whole").to_bytes(), "last");

        drop(filler);
        eventually("there is memory again", || overloaded() == 0.0).await;
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.status, 200);
        drop(proxy);
    });
}

/// A cgroup below this process's own; removed when dropped, when nothing runs in it any more.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |controller: &str| {
            let line = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next()?, parts.next()?);
                names.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
            });
            line.map(|path| {
                Path::new("/sys/fs/cgroup").join(if controller.is_empty() { "" } else { controller }).join(path)
            })
        };
        let name = format!("spanmesh-promise-{}", std::process::id());
        for (controller, file) in [("", "memory.max"), ("memory", "memory.limit_in_bytes")] {
            let Some(folder) = path(controller).map(|folder| folder.join(&name)) else { continue };
            if std::fs::create_dir(&folder).is_err() {
                continue;
            }
            let cgroup = Self(folder);
            // Without the controller the file is not there, and would be made in vain.
            if cgroup.0.join(file).exists() && std::fs::write(cgroup.0.join(file), LIMIT.to_string()).is_ok() {
                return Some(cgroup);
            }
        }
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// So many bytes of shared memory, written by a process in the cgroup and so counted there, until this is dropped.
struct Filler(PathBuf);

impl Filler {
    fn start(cgroup: &Path, bytes: usize) -> Self {
        let file = PathBuf::from(format!("/dev/shm/spanmesh-promise-{}", std::process::id()));
        let (group, path) = (cgroup.display(), file.display());
        let script = format!("echo 0 > '{group}/cgroup.procs' && exec head -c {bytes} /dev/zero > '{path}'");
        let filler = Self(file);
        let done = Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell");
        assert!(done.success(), "{done}");
        filler
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
