//! One target for each parser of outside bytes, and with the feature `fuzzing` one for whole connections in each
//! direction: a plain function that panics when an invariant breaks. A fuzzer calls them by name; the test below throws
//! a bounded number of made-up inputs at each.

#[cfg(feature = "fuzzing")]
mod client;
#[cfg(feature = "fuzzing")]
mod connection;
#[cfg(feature = "fuzzing")]
mod frames;
#[cfg(feature = "fuzzing")]
mod memory;
#[cfg(feature = "fuzzing")]
mod origin;
#[cfg(feature = "fuzzing")]
pub mod seen;
#[cfg(feature = "fuzzing")]
mod strict;

use crate::{admin, config, handover, http, identity, net, redirect, rules, system, telemetry, trace};

/// A target's name and the function.
pub type Target = (&'static str, fn(&[u8]));

pub static TARGETS: &[Target] = &[
    ("admin_guard", admin::fuzz_guard),
    ("admin_query", admin::fuzz_query),
    ("cgroup_files", system::cgroup::fuzz_files),
    ("cgroup_paths", system::cgroup::fuzz_paths),
    #[cfg(feature = "fuzzing")]
    ("client_http1", connection::fuzz_client_http1),
    #[cfg(feature = "fuzzing")]
    ("client_http2", connection::fuzz_client_http2),
    ("client_hello", net::client_hello::fuzz_client_hello),
    ("config", config::fuzz_config),
    ("der", identity::der::fuzz_der),
    ("detect", net::detect::fuzz_detect),
    ("forwarded", rules::forwarded::fuzz_forwarded),
    ("frames", net::frames::fuzz_frames),
    ("framing", http::framing::fuzz_requests),
    ("handover", handover::fuzz_handover),
    ("json", telemetry::json::fuzz_json),
    ("log_level", telemetry::log::fuzz_level),
    ("matcher", rules::matcher::fuzz_matcher),
    #[cfg(feature = "fuzzing")]
    ("origin_http1", connection::fuzz_origin_http1),
    #[cfg(feature = "fuzzing")]
    ("origin_http2", connection::fuzz_origin_http2),
    ("otlp_answer", trace::export::answer::fuzz_answer),
    ("pieces", http::counted::pieces::fuzz_pieces),
    ("redact", trace::redact::fuzz_redact),
    ("redirect", redirect::fuzz_redirect),
    ("spill", trace::export::spill::record::fuzz_segment),
    #[cfg(feature = "fuzzing")]
    ("strict", strict::fuzz_strict),
    ("templates", rules::template::fuzz_templates),
    ("traceparent", trace::propagate::w3c::fuzz_traceparent),
    ("propagate", trace::propagate::fuzz_formats),
];

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Pieces that the grammars are made of, so that inputs get past the first byte.
    const PIECES: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"Content-Length: 3\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"2;a=\"b\"\r\nxx\r\n0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        b"version: 1\nlisteners: [{name: a, mode: inbound}]\n",
        b"127.0.0.1:80, [::1]:8080, unknown",
        b"/users/{id}/{rest=**}",
        b"0::/kubepods/pod1\n",
        b"level=info,h2=warn&x=%41",
        b"localhost:14000",
        b"10.0.0.0/8,fe80::/10,1-65535",
        b"\x30\x82\x01\x0a",
        b"{\"partialSuccess\":{\"rejectedSpans\":\"1\"}}",
        b"\x0a\x05\x08\x01\x12\x01x",
        b"\r\n",
        b"\0\0\0\0",
    ];

    #[test]
    fn no_target_breaks_on_made_up_inputs() {
        for (number, (name, target)) in TARGETS.iter().enumerate() {
            let mut rng = SmallRng::seed_from_u64(number as u64);
            for _ in 0..300 {
                let mut input = Vec::new();
                for _ in 0..rng.random_range(0..4) {
                    input.extend_from_slice(PIECES[rng.random_range(0..PIECES.len())]);
                }
                for _ in 0..rng.random_range(0..6) {
                    let place = rng.random_range(0..=input.len());
                    match rng.random_range(0..3) {
                        0 => input.insert(place, rng.random()),
                        1 if place < input.len() => input[place] = rng.random(),
                        _ => input.truncate(place.max(1)),
                    }
                }
                let outcome = std::panic::catch_unwind(|| target(&input));
                assert!(outcome.is_ok(), "{name} broke on {input:?}");
            }
        }
    }
}
