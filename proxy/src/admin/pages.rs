//! Which paths each server has and what they answer. No sockets here: a request's head in, an answer out.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, request};
use http_body_util::Full;
use tokio::time::Instant;

use super::{AdminState, Command, Phase, guard};
use crate::telemetry::metrics;

pub(super) type Answer = Response<Full<Bytes>>;

/// One of the two servers.
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) name: &'static str,
    pages: &'static [Page],
    /// Ask [`guard`] first.
    guarded: bool,
}

pub(super) const ADMIN: Site = Site { name: "admin", pages: &ADMIN_PAGES, guarded: true };
/// Open to the pod's network and free of anything that needs guarding; the kubelet calls it by the pod's address.
pub(super) const STATUS: Site = Site { name: "status", pages: &STATUS_PAGES, guarded: false };

impl Site {
    pub(super) fn answer(self, state: &AdminState, head: &request::Parts) -> Answer {
        if self.guarded
            && let Some(why) = guard::refusal(&head.method, &head.uri, &head.headers)
        {
            return text(StatusCode::FORBIDDEN, format!("{why}\n"));
        }
        let path = head.uri.path();
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let pages = || self.pages.iter().filter(|page| page.path == path);
        if pages().next().is_none() {
            return text(StatusCode::NOT_FOUND, "no such page\n");
        }
        match pages().find(|page| page.method.name() == method) {
            Some(page) => (page.answer)(state, self, head.uri.query().unwrap_or_default()),
            None => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "another method is needed, see Allow\n");
                let allowed: Vec<_> = pages().map(|page| page.method.allow()).collect();
                // Made of the methods below.
                if let Ok(allow) = HeaderValue::from_str(&allowed.join(", ")) {
                    answer.headers_mut().insert(ALLOW, allow);
                }
                answer
            }
        }
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

#[derive(Clone, Copy)]
struct Page {
    method: Verb,
    path: &'static str,
    answer: fn(&AdminState, Site, &str) -> Answer,
    help: &'static str,
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
}

impl Verb {
    fn name(self) -> &'static Method {
        match self {
            Verb::Get => &Method::GET,
            Verb::Post => &Method::POST,
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Verb::Get => "GET, HEAD",
            Verb::Post => "POST",
        }
    }
}

static ADMIN_PAGES: [Page; 10] = [
    page(Verb::Get, "/", help, "this list"),
    page(Verb::Get, "/help", help, "this list"),
    page(Verb::Get, "/config", config, "the configuration that runs, as YAML"),
    page(Verb::Get, "/logging", logging, "what is logged"),
    page(Verb::Post, "/logging", set_logging, "change it: /logging?level=info,h2=warn"),
    page(Verb::Post, "/drain", drain, "finish what is in flight, then end"),
    page(Verb::Post, "/quitquitquit", quit, "end now"),
    LIVE,
    READY,
    METRICS,
];
static STATUS_PAGES: [Page; 3] = [LIVE, READY, METRICS];
const LIVE: Page = page(Verb::Get, "/live", live, "200 while the proxy lives and its workers move");
const READY: Page = page(Verb::Get, "/ready", ready, "200 while it wants traffic");
const METRICS: Page = page(Verb::Get, "/metrics", metrics, "numbers, as OpenMetrics text");

const fn page(
    method: Verb,
    path: &'static str,
    answer: fn(&AdminState, Site, &str) -> Answer,
    help: &'static str,
) -> Page {
    Page { method, path, answer, help }
}

fn help(_: &AdminState, site: Site, _: &str) -> Answer {
    let line = |page: &Page| format!("{:<5}{:<16}{}\n", page.method.name(), page.path, page.help);
    text(StatusCode::OK, site.pages.iter().map(line).collect::<String>())
}

fn config(state: &AdminState, _: Site, _: &str) -> Answer {
    typed(StatusCode::OK, "application/yaml", (state.config_yaml)())
}

fn logging(state: &AdminState, _: Site, _: &str) -> Answer {
    text(StatusCode::OK, format!("{}\n", state.log.current()))
}

fn set_logging(state: &AdminState, _: Site, query: &str) -> Answer {
    let Some(level) = parameter(query, "level") else {
        return text(StatusCode::BAD_REQUEST, "say what is to be logged: /logging?level=info,h2=warn\n");
    };
    match state.log.set(&level) {
        Ok(()) => text(StatusCode::OK, format!("{}\n", state.log.current())),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn drain(state: &AdminState, _: Site, _: &str) -> Answer {
    order(state, Command::Drain, "draining\n")
}

fn quit(state: &AdminState, _: Site, _: &str) -> Answer {
    order(state, Command::Quit, "quitting\n")
}

fn order(state: &AdminState, command: Command, done: &'static str) -> Answer {
    match state.commands.try_send(command) {
        Ok(()) => text(StatusCode::ACCEPTED, done),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "an earlier order is still being carried out\n"),
    }
}

fn live(state: &AdminState, _: Site, _: &str) -> Answer {
    match state.health.trouble(Instant::now()) {
        None => text(StatusCode::OK, "live\n"),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn ready(state: &AdminState, _: Site, _: &str) -> Answer {
    match state.health.phase() {
        Phase::Ready => text(StatusCode::OK, "ready\n"),
        Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn metrics(state: &AdminState, _: Site, _: &str) -> Answer {
    typed(StatusCode::OK, metrics::CONTENT_TYPE, state.registry.render())
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Answer {
    let body = match body.into() {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Nothing here is a script, a picture or a frame of someone's page.
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

/// The value of `name` in a query, percent-decoded. None if it is missing, comes twice or is not UTF-8.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut values = query.split('&').filter_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    let (Some((_, value)), None) = (values.next(), values.next()) else { return None };
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?,
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Decoding never makes a value longer, and leaves alone what needs none.
pub fn fuzz_query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    if let Some(value) = parameter(query, "level") {
        assert!(value.len() + "level=".len() <= query.len());
        assert!(query.contains(['%', '+']) || query.contains(&format!("level={value}")));
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use http::Request;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::admin::Health;
    use crate::telemetry::log::LogControl;
    use crate::telemetry::metrics::Registry;

    pub fn state() -> (AdminState, mpsc::Receiver<Command>) {
        let (commands, orders) = mpsc::channel(1);
        let state = AdminState {
            config_yaml: Arc::new(|| "version: 1\n".into()),
            log: LogControl::detached("info"),
            registry: Registry::new(),
            health: Health::new(),
            commands,
        };
        (state, orders)
    }

    fn ask(site: Site, state: &AdminState, method: Method, target: &str) -> (StatusCode, Answer) {
        let request = Request::builder().method(method).uri(target).header("host", "localhost").body(());
        let answer = site.answer(state, &request.expect("a request").into_parts().0);
        (answer.status(), answer)
    }

    fn body(answer: Answer) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bytes = runtime.block_on(answer.into_body().collect()).expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn admin_shows_and_changes_everything() {
        let (state, mut orders) = state();
        let get = |path| body(ask(ADMIN, &state, Method::GET, path).1);
        assert_eq!(get("/config"), "version: 1\n");
        assert_eq!(get("/logging"), "info\n");
        for page in &ADMIN_PAGES {
            assert!(get("/").contains(page.path) && get("/help").contains(page.help));
        }
        assert_eq!(body(ask(ADMIN, &state, Method::POST, "/logging?level=debug%2Ch2=warn").1), "debug,h2=warn\n");
        assert_eq!(get("/logging"), "debug,h2=warn\n");
        for wrong in [
            "/logging",
            "/logging?level=loud",
            "/logging?level=",
            "/logging?level=info&level=warn",
            "/logging?level=%f",
        ] {
            assert_eq!(ask(ADMIN, &state, Method::POST, wrong).0, StatusCode::BAD_REQUEST, "{wrong}");
        }
        assert_eq!(ask(ADMIN, &state, Method::POST, "/drain").0, StatusCode::ACCEPTED);
        assert_eq!(ask(ADMIN, &state, Method::POST, "/quitquitquit").0, StatusCode::SERVICE_UNAVAILABLE, "no room");
        assert_eq!(orders.try_recv(), Ok(Command::Drain));
        assert_eq!(ask(ADMIN, &state, Method::POST, "/quitquitquit").0, StatusCode::ACCEPTED);
        assert_eq!(orders.try_recv(), Ok(Command::Quit));
    }

    #[test]
    fn status_shows_three_pages_and_nothing_else() {
        let (state, mut orders) = state();
        for page in &ADMIN_PAGES {
            let known = ["/live", "/ready", "/metrics"].contains(&page.path);
            let status = ask(STATUS, &state, page.method.name().clone(), page.path).0;
            assert_eq!(status != StatusCode::NOT_FOUND, known, "{}", page.path);
        }
        assert!(orders.try_recv().is_err());
    }

    #[test]
    fn a_wrong_method_is_told_the_right_one() {
        let (state, mut orders) = state();
        for (method, path, allow) in [
            (Method::GET, "/drain", "POST"),
            (Method::HEAD, "/quitquitquit", "POST"),
            (Method::POST, "/config", "GET, HEAD"),
            (Method::DELETE, "/logging", "GET, HEAD, POST"),
            (Method::OPTIONS, "/metrics", "GET, HEAD"),
        ] {
            let (status, answer) = ask(ADMIN, &state, method, path);
            assert_eq!(
                (status, answer.headers()[ALLOW].to_str().expect("text")),
                (StatusCode::METHOD_NOT_ALLOWED, allow)
            );
        }
        assert_eq!(ask(STATUS, &state, Method::POST, "/ready").0, StatusCode::METHOD_NOT_ALLOWED);
        assert!(orders.try_recv().is_err());
    }

    #[test]
    fn readiness_follows_the_phase() {
        let (state, _orders) = state();
        let ready = || {
            let (status, answer) = ask(STATUS, &state, Method::GET, "/ready");
            (status.as_u16(), body(answer))
        };
        assert_eq!(ready(), (503, "starting\n".into()));
        state.health.ready();
        assert_eq!(ready(), (200, "ready\n".into()));
        state.health.drain();
        assert_eq!(ready(), (503, "draining\n".into()));
        assert_eq!(ask(STATUS, &state, Method::GET, "/live").0, StatusCode::OK, "draining is living");
    }

    #[test]
    fn a_dead_worker_is_no_life_and_is_named() {
        let (state, _orders) = state();
        let beat = state.health.heartbeat("worker-3");
        let end = std::thread::spawn(move || {
            let _beat = beat;
            panic!("on purpose");
        });
        assert!(end.join().is_err());
        let (status, answer) = ask(STATUS, &state, Method::GET, "/live");
        assert_eq!((status, body(answer)), (StatusCode::SERVICE_UNAVAILABLE, "worker-3 has panicked\n".into()));
    }

    #[test]
    fn other_hosts_reach_status_and_not_admin() {
        let (state, _orders) = state();
        let request = Request::builder().uri("/live").header("host", "10.1.2.3:14020").body(()).expect("a request");
        let head = request.into_parts().0;
        assert_eq!(STATUS.answer(&state, &head).status(), StatusCode::OK);
        assert_eq!(ADMIN.answer(&state, &head).status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn answers_are_not_kept_and_not_framed() {
        let (state, _orders) = state();
        let headers = ask(STATUS, &state, Method::GET, "/metrics").1.headers().clone();
        assert_eq!(headers[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    #[test]
    fn any_query_is_read_or_refused() {
        for query in ["level=a", "level=%", "level=%4", "level=%zz", "level=%ff", "x&level=a+b&y=", "=&=", "level"] {
            fuzz_query(query.as_bytes());
        }
        assert_eq!(parameter("a=1&level=x%20y+z", "level").as_deref(), Some("x y z"));
    }
}
