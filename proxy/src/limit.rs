//! Every limit that something outside can reach, as one closed list: its name in the metrics, where it is set, the flag of
//! what ran into it, and why it is there. What a limit does stands where it does it; `LIMITS.md` is written from here.

#[cfg(test)]
mod reference;

use crate::error::Flag;

/// Closed: every variant stands in [`Limit::meaning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Connections,
    ConnectionsPerClient,
    Descriptors,
    Memory,
    Handshakes,
    HandshakeTime,
    HeaderBytes,
    HeaderCount,
    TargetBytes,
    HeaderTime,
    IdleTime,
    BodyRate,
    ChunkExtensions,
    Trailers,
    BufferedBytes,
    Pipelined,
    Streams,
    Frames,
    Resets,
    UnreadPieces,
    Engine,
}

/// One row of the table.
pub struct Meaning {
    /// The label `limit` of `spanmesh_proxy_limits_reached_total`.
    pub name: &'static str,
    /// The field that sets it, or the number where it is fixed.
    pub set_by: &'static str,
    /// How what ran into it ends; none where it only waits or goes without.
    pub flag: Option<Flag>,
    /// What happens.
    pub then: &'static str,
    /// Why there is a limit, and why this one.
    pub reason: &'static str,
}

impl Limit {
    pub const ALL: [Limit; 21] = [
        Limit::Connections,
        Limit::ConnectionsPerClient,
        Limit::Descriptors,
        Limit::Memory,
        Limit::Handshakes,
        Limit::HandshakeTime,
        Limit::HeaderBytes,
        Limit::HeaderCount,
        Limit::TargetBytes,
        Limit::HeaderTime,
        Limit::IdleTime,
        Limit::BodyRate,
        Limit::ChunkExtensions,
        Limit::Trailers,
        Limit::BufferedBytes,
        Limit::Pipelined,
        Limit::Streams,
        Limit::Frames,
        Limit::Resets,
        Limit::UnreadPieces,
        Limit::Engine,
    ];

    pub fn name(self) -> &'static str {
        self.meaning().name
    }

    pub fn flag(self) -> Option<Flag> {
        self.meaning().flag
    }

    pub fn meaning(self) -> Meaning {
        let row = |name, set_by, flag, then, reason| Meaning { name, set_by, flag, then, reason };
        match self {
            Limit::Connections => row(
                "connections",
                "`limits.connections`",
                Some(Flag::Overload),
                "a new connection is closed before a byte is read",
                "each costs about 100 KiB with what hangs on it: 20,000 fit into 2 GiB",
            ),
            Limit::ConnectionsPerClient => row(
                "connections_per_client",
                "`limits.connectionsPerClient`",
                Some(Flag::RateLimited),
                "a new connection is closed before a byte is read",
                "one stranger must not take all connections; a load balancer that hides its clients behind a few addresses must still get enough",
            ),
            Limit::Descriptors => row(
                "descriptors",
                "three quarters of the limit of open files",
                Some(Flag::Overload),
                "a new connection is closed before a byte is read",
                "who is connected already needs the rest to reach upstreams, and the proxy its files",
            ),
            Limit::Memory => row(
                "memory",
                "`limits.memoryPercent`",
                Some(Flag::Overload),
                "new connections are closed, new requests answered with 503",
                "the kernel kills at 100 %, with all that is in flight",
            ),
            Limit::Handshakes => row(
                "handshakes",
                "`limits.handshakes`",
                Some(Flag::Overload),
                "a handshake waits for its turn, and gives up when a head's time is over",
                "a handshake costs a thousand times what a request costs",
            ),
            Limit::HandshakeTime => row(
                "handshake_time",
                "`limits.headerTimeout`",
                Some(Flag::IdleTimeout),
                "the connection is closed",
                "a handshake that trickles holds a connection for nothing",
            ),
            Limit::HeaderBytes => row(
                "header_bytes",
                "`limits.headerBytes`",
                Some(Flag::TooLarge),
                "431",
                "a head is held whole; beyond 64 KiB no common server takes it",
            ),
            Limit::HeaderCount => row(
                "header_count",
                "`limits.headerCount`",
                Some(Flag::TooLarge),
                "431",
                "each costs more than its bytes; HTTP/2 names many by one byte each",
            ),
            Limit::TargetBytes => row(
                "target_bytes",
                "65,534 bytes",
                Some(Flag::TooLarge),
                "414; over HTTP/2 it is no target at all, and the stream is reset",
                "the engine measures the parts of a target in 16 bits",
            ),
            Limit::HeaderTime => row(
                "header_time",
                "`limits.headerTimeout`",
                Some(Flag::IdleTimeout),
                "the connection is closed",
                "a head that trickles (slowloris) holds a connection for nothing",
            ),
            Limit::IdleTime => row(
                "idle_time",
                "`limits.idleTimeout`",
                None,
                "the connection is closed between requests, as either side may at any time",
                "a client that is gone without a word leaves its connection behind",
            ),
            Limit::BodyRate => row(
                "body_rate",
                "`limits.bodyRate`, `limits.bodyTimeout`",
                Some(Flag::IdleTimeout),
                "408, or the stream is reset",
                "a body that trickles holds a request, and one of the upstream's, for nothing",
            ),
            Limit::ChunkExtensions => row(
                "chunk_extensions",
                "1 KiB for each chunk, 4 KiB for each body",
                Some(Flag::TooLarge),
                "431",
                "nobody uses them, and a body may consist of nothing else",
            ),
            Limit::Trailers => row(
                "trailers",
                "`limits.headerBytes`, `limits.headerCount`",
                Some(Flag::TooLarge),
                "431, or the stream is reset",
                "trailers are held whole like a head",
            ),
            Limit::BufferedBytes => row(
                "buffered_bytes",
                "`limits.bufferedBytes`; `retry.bodyLimit` for each request",
                None,
                "the body is sent on and no longer kept, so the request is tried once",
                "what is kept for another try must not fill the memory when an upstream is slow",
            ),
            Limit::Pipelined => row(
                "pipelined",
                "`limits.pipelined`",
                Some(Flag::RateLimited),
                "429, and the connection is closed",
                "requests sent ahead are served one after the other; no client sends a hundred without waiting for an answer",
            ),
            Limit::Streams => row(
                "streams",
                "`limits.streams`",
                None,
                "the stream is refused with REFUSED_STREAM, which is fair to send again",
                "each stream costs up to its window; the client is told the number beforehand",
            ),
            Limit::Frames => row(
                "http2_frames",
                "`limits.frames`",
                Some(Flag::RateLimited),
                "the connection is closed",
                "PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty frames and streams beyond the limit cost time and carry nothing",
            ),
            Limit::Resets => row(
                "http2_resets",
                "`limits.resets`",
                Some(Flag::RateLimited),
                "the connection is closed",
                "a request that is given up at once costs the client nothing and the upstream a request (rapid reset)",
            ),
            Limit::UnreadPieces => row(
                "unread_pieces",
                "a quarter of what the HTTP/2 engine bears, which is half of the connection's window",
                Some(Flag::Overload),
                "of the connection's bodies those are cut that took nothing between two looks, and from three quarters on those that lag behind",
                "each piece below 256 bytes that lies unread costs the engine as much; it would end the connection for all",
            ),
            Limit::Engine => row(
                "http2_engine",
                "128 streams reset unseen, 1,024 broken streams, CONTINUATION frames for four heads, empty or tiny DATA",
                Some(Flag::RateLimited),
                "GOAWAY with ENHANCE_YOUR_CALM, and the connection is closed",
                "the HTTP/2 engine's own bounds against floods",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_snake_case_words() {
        let mut names: Vec<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'2')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Limit::ALL.len());
    }
}
