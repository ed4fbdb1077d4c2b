//! The one table of all metric families: name, kind, unit, labels in order, help. `METRICS.md` is generated from it.
//!
//! A row makes a constant whose type knows the kind and the number of labels, so that a wrong handle or a missing label does
//! not compile. Label values come from closed lists or from the configuration, never from a request.

/// One row of the table.
pub struct Family {
    /// Without the `_total` that a counter's sample carries.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is always 1 and says something in its labels; its sample carries `_info`.
    Info,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Bytes,
    /// Kept in nanoseconds.
    Seconds,
}

#[derive(Clone, Copy)]
pub struct CounterFamily<const L: usize>(pub(super) usize);

#[derive(Clone, Copy)]
pub struct GaugeFamily<const L: usize>(pub(super) usize);

#[derive(Clone, Copy)]
pub struct HistogramFamily<const L: usize>(pub(super) usize);

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
        }
    }
}

macro_rules! families {
    ($($kind:ident $id:ident $name:literal $unit:ident [$($label:literal)*] $help:literal;)*) => {
        pub static FAMILIES: &[Family] = &[$(Family {
            name: concat!("spanmesh_proxy_", $name),
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        }),*];

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Row { $($id),* }

        $(#[doc = $help]
        pub const $id: of::$kind<{ <[&str]>::len(&[$($label),*]) }> = of::$kind { 0: Row::$id as usize };)*
    };
}

/// Which type of constant a kind makes.
mod of {
    pub type Counter<const L: usize> = super::CounterFamily<L>;
    pub type Gauge<const L: usize> = super::GaugeFamily<L>;
    pub type Histogram<const L: usize> = super::HistogramFamily<L>;
    pub type Info<const L: usize> = super::GaugeFamily<L>;
}

families! {
    // Sampling
    Counter SAMPLING_DECISIONS "sampling_decisions" None ["policy" "rule" "kept"]
        "Requests by the policy and the rule that decided on their trace, and whether that kept it. `default` has no rule, `caller` decided before.";
    Gauge SAMPLING_GUARD "sampling_guard_parts_per_billion" None []
        "How many of a thousand million traces that begin here the guard drops now, because of policy.sampling.guard.";

    // Requests
    Counter REQUESTS "requests" None ["listener" "side" "flag" "status_class" "protocol"]
        "Requests that ended, by response flag, class of the status that the client saw (1xx to 5xx, or none) and the client's protocol.";
    Counter GRPC_RESPONSES "grpc_responses" None ["listener" "grpc_status"]
        "gRPC calls that ended, by the status that the client saw: 0 to 16, or none when no status came.";
    Histogram REQUEST_DURATION_SECONDS "request_duration_seconds" Seconds ["listener" "side"]
        "From the request's head to the last byte of its answer.";
    Gauge REQUESTS_IN_FLIGHT "requests_in_flight" None ["listener"]
        "Requests that have begun and not ended.";
    Counter REQUEST_BYTES "request_bytes" Bytes ["listener"]
        "Bytes of request bodies carried.";
    Counter RESPONSE_BYTES "response_bytes" Bytes ["listener"]
        "Bytes of response bodies carried.";
    Counter TRAILERS_DROPPED "trailers_dropped" None ["direction"]
        "Trailers that the next hop could not take.";
    Counter INFORMATIONAL_DROPPED "informational_dropped" None ["status"]
        "Informational answers that were not forwarded.";

    // Connections from clients
    Counter CONNECTIONS_OPENED "connections_opened" None ["listener"]
        "Connections accepted.";
    Counter CONNECTIONS_CLOSED "connections_closed" None ["listener"]
        "Accepted connections that have ended.";
    Gauge CONNECTIONS_ACTIVE "connections_active" None ["listener"]
        "Connections open now.";
    Counter CONNECTIONS_REFUSED "connections_refused" None ["listener" "reason"]
        "Connections closed before a byte was served.";
    Counter LIMITS_REACHED "limits_reached" None ["limit"]
        "Times that a limit was reached, by its name in LIMITS.md.";
    Counter ACCEPT_ERRORS "accept_errors" None ["kind"]
        "Failures of accept itself, for instance no file descriptor left.";
    Counter DETECTIONS "detections" None ["listener" "outcome"]
        "What the first bytes of a connection turned out to be.";
    Counter TCP_CONNECTIONS "tcp_connections" None ["listener" "flag"]
        "Opaque connections that ended, by response flag.";
    Counter TCP_BYTES "tcp_bytes" Bytes ["listener" "direction"]
        "Bytes of opaque connections carried.";
    Gauge SPLICE_PIPE_BYTES "splice_pipe_bytes" Bytes []
        "Memory of the kernel's pipes that splicing holds now.";
    Gauge HTTP2_WINDOW_BYTES "http2_window_bytes" Bytes []
        "Memory that the wide windows of HTTP/2 connections promise to their peers now.";

    // TLS
    Counter TLS_HANDSHAKES "tls_handshakes" None ["listener" "outcome"]
        "TLS handshakes with clients.";
    Gauge CERTIFICATE_EXPIRY_SECONDS "certificate_expiry_seconds" Seconds ["listener" "name"]
        "When the certificate ends, in seconds since 1970.";
    Counter CERTIFICATE_RELOADS "certificate_reloads" None ["listener" "outcome"]
        "Certificate files that changed and were read again.";

    // Upstreams
    Counter UPSTREAM_CONNECTIONS_OPENED "upstream_connections_opened" None ["upstream" "protocol"]
        "Connections opened to upstreams.";
    Gauge UPSTREAM_CONNECTIONS_ACTIVE "upstream_connections_active" None ["upstream"]
        "Connections to upstreams that are open or being made, those that wait for their next request too.";
    Counter UPSTREAM_CONNECT_FAILURES "upstream_connect_failures" None ["upstream" "flag"]
        "Connections to upstreams that could not be opened.";
    Gauge UPSTREAM_REQUESTS_IN_FLIGHT "upstream_requests_in_flight" None ["upstream"]
        "Attempts that have begun and not ended.";
    Counter UPSTREAM_RESENDS "upstream_resends" None ["upstream"]
        "Requests sent again on a fresh connection because a reused one had closed before a byte was written.";
    Counter RETRIES "retries" None ["upstream" "cause"]
        "Attempts after the first.";
    Counter RETRIES_DENIED "retries_denied" None ["upstream" "reason"]
        "Retries that the route wanted and that did not happen.";
    Counter ENDPOINTS_EJECTED "endpoints_ejected" None ["upstream"]
        "Times that an endpoint was left out for a while.";
    Counter NAME_LOOKUPS "name_lookups" None ["upstream" "outcome"]
        "DNS look-ups of upstream addresses.";

    // Tracing
    Counter SPANS_CREATED "spans_created" None []
        "Spans made.";
    Counter SPANS_EXPORTED "spans_exported" None ["destination"]
        "Spans that a destination took.";
    Counter SPANS_REJECTED "spans_rejected" None ["destination"]
        "Spans that a destination's receiver refused while it took others of the same request.";
    Counter SPANS_DROPPED "spans_dropped" None ["destination" "reason"]
        "Spans given up here. Destination `*`: before they were given to any, so they are missing at each.";
    Gauge SPANS_IN_FLIGHT "spans_in_flight" None ["destination"]
        "Spans made and neither exported, rejected nor dropped yet. Destination `*`: not yet given to any. For each destination, with what stands under `*`: created + recovered = exported + rejected + dropped + filtered + in flight + spilled.";
    Gauge SPANS_SPILLED "spans_spilled" None ["destination"]
        "Spans that wait on the disk.";
    Counter SPANS_FILTERED "spans_filtered" None ["destination"]
        "Spans that a destination's `only` leaves out.";
    Counter SPANS_RECOVERED "spans_recovered" None ["destination"]
        "Spans that an earlier process left on the disk, those among them that cannot be read included.";
    Counter CONTEXT_MALFORMED "context_malformed" None ["format"]
        "Trace contexts that could not be read.";
    Counter CONTEXT_CONFLICTS "context_conflicts" None ["kept" "dropped"]
        "Requests whose formats said different things, by the format that was believed and one that was not.";
    Counter CONTEXT_NOT_PROPAGATED "context_not_propagated" None ["format"]
        "Attempts whose trace a configured format could not say.";
    Counter CONTEXT_INFERRED "context_inferred" None ["outcome"]
        "Requests without a context from a sidecar's application: linked to the only request that it worked on, or given it as parent, or neither because it worked on several or on nobody's.";
    Counter UNTRACED "requests_untraced" None ["kind"]
        "Requests that make no spans because they are nobody's call: probes, scrapes and applications' own exports.";
    Counter POLICY_RELOADS "policy_reloads" None ["outcome"]
        "Changes of the configuration's file: those whose policy is in use now (replaced), and those with mistakes (refused).";
    Gauge CONTROL_PLANE_CONNECTED "control_plane_connected" None []
        "Whether the stream to the control plane stands and has brought a policy: 1 or 0.";
    Counter POLICY_PUSHES "policy_pushes" None ["outcome"]
        "Pushes of the control plane: all of it good (taken), or some of it refused while the rest is in force (refused).";
    Counter BAGGAGE_CUT "baggage_cut" None []
        "Requests whose baggage had more members or bytes than must be carried, so that some went.";

    // The proxy itself
    Counter LOG_LINES_DROPPED "log_lines_dropped" None ["target" "reason"]
        "Lines lost because their queue was full, they were too long or the file could not be written.";
    Counter SERIES_OVERFLOWED "series_overflowed" None ["family"]
        "Times that a new series was counted as other because its family was full.";
    Counter ADMIN_REFUSED "admin_refused" None ["server" "reason"]
        "Requests and connections that the admin or status server turned away.";
    Counter HANDOVERS "handovers" None ["role" "outcome"]
        "Listening sockets given to a successor or taken from a predecessor.";
    Gauge WORKERS "workers" None []
        "Threads that carry traffic.";
    Gauge WORKER_TASKS "worker_tasks" None []
        "Tasks alive on the threads that carry traffic, looked at once a second: some for the proxy itself, the rest for connections and streams.";
    Counter WORKER_BUSY_SECONDS "worker_busy_seconds" Seconds ["worker"]
        "Time that a worker was not waiting.";
    Gauge MEMORY_LIMIT_BYTES "memory_limit_bytes" Bytes []
        "The memory limit of the container.";
    Gauge MEMORY_USED_BYTES "memory_used_bytes" Bytes []
        "Memory used in the container, without file cache that can be given back.";
    Gauge OVERLOADED "overloaded" None []
        "1 while new work is refused because memory runs out.";
    Info BUILD "build" None ["version"]
        "The program that runs.";
    Gauge PROCESS_START_TIME_SECONDS "process_start_time_seconds" Seconds []
        "When the process began, in seconds since 1970.";
    Gauge PROCESS_RESIDENT_MEMORY_BYTES "process_resident_memory_bytes" Bytes []
        "Resident memory of the process.";
    Counter PROCESS_CPU_SECONDS "process_cpu_seconds" Seconds []
        "CPU time of the process, user and system.";
    Gauge PROCESS_OPEN_FDS "process_open_fds" None []
        "File descriptors open now.";
    Gauge PROCESS_MAX_FDS "process_max_fds" None []
        "File descriptors that may be open.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_openmetrics() {
        for family in FAMILIES {
            let name = family.name;
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            for reserved in ["_total", "_count", "_sum", "_bucket", "_info"] {
                assert!(!name.ends_with(reserved), "{name} carries a suffix that samples carry");
            }
            let owner = name.strip_suffix("_created");
            assert!(!FAMILIES.iter().any(|other| Some(other.name) == owner), "{name} reads as a sample of {owner:?}");
            assert!(name.ends_with(family.unit.name()), "{name} must end with its unit");
            if matches!(family.unit, Unit::None) {
                assert!(!name.ends_with("_seconds") && !name.ends_with("_bytes"), "{name} has a unit");
            }
            assert!(family.kind != Kind::Histogram || family.unit == Unit::Seconds, "{name}: buckets are durations");
            for label in family.labels {
                assert!(
                    label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !label.starts_with("__"),
                    "{label}"
                );
                assert!(!["le", "quantile"].contains(label));
            }
            assert!(family.help.ends_with('.') && !family.help.contains('|'), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn a_constant_names_its_own_row() {
        assert_eq!(FAMILIES[REQUESTS.0].name, "spanmesh_proxy_requests");
        assert_eq!(FAMILIES[REQUEST_DURATION_SECONDS.0].kind, Kind::Histogram);
        assert_eq!(FAMILIES[PROCESS_MAX_FDS.0].name, "spanmesh_proxy_process_max_fds");
    }
}
