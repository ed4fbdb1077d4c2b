//! What the policy adds to spans and says of them: attributes of its own, and which calls failed.

use std::path::PathBuf;

use super::grammar::{AttributeName, BaggageKey, HeaderName};
use super::policy::Found;
use super::schema::{section, words};

section! {
    /// What is taken out of spans and of the access log. In its place stands `REDACTED`. The values of query parameters that
    /// OpenTelemetry's conventions list (signatures and credentials of AWS, Azure and Google), and the user of a URL, go in any case.
    pub struct Redaction: Default {
        /// More query parameters whose values go. As they are meant: `%61` is `a`; upper case is not lower case.
        query: Vec<String> = Vec::new(),
        /// What goes wherever it stands: in paths, queries, user agents, request ids and captured headers.
        patterns: Vec<Pattern> = vec![Pattern::Cards, Pattern::Emails, Pattern::Bearers, Pattern::Jwts],
        /// A file with a key. With it, `hmac-` and sixteen digits of the secret's HMAC-SHA256 stand in place of `REDACTED`, so that one sees which secrets are the same. What goes in any case becomes `REDACTED` all the same.
        hash_key_file: Option<PathBuf>,
    }
}

words! {
    /// What goes wherever it stands.
    pub enum Pattern {
        /// Numbers of cards: 13 to 19 digits, in one or in groups, that hold by Luhn's sum.
        Cards = "cards",
        /// E-mail addresses.
        Emails = "emails",
        /// What follows the word `Bearer`.
        Bearers = "bearers",
        /// JSON Web Tokens.
        Jwts = "jwts",
    }
}

section! {
    /// An attribute that spans have besides, with one of `requestHeader`, `responseHeader`, `baggage`, `variable` and `value`.
    pub struct Attribute {
        /// What it is called. That of a header may be left out: it is called `http.request.header.<header>` (for gRPC `rpc.request.metadata.<header>`), or `response` in place of `request`, and is a list of the header's values.
        name: Option<String> as Option<AttributeName>,
        /// A header of the request, as the proxy passes it on: at most 8 values, 256 bytes of each. Of `authorization`, `cookie` and their like one sees only that they were there, or with `redaction.hashKeyFile` whether they were the same.
        request_header: Option<String> as Option<HeaderName>,
        /// A header of the answer that stayed.
        response_header: Option<String> as Option<HeaderName>,
        /// A member of the request's W3C baggage, where its caller is believed.
        baggage: Option<String> as Option<BaggageKey>,
        /// A variable of the proxy's environment, read at the start; at most 1,024 bytes of it.
        variable: Option<String>,
        /// What it says on all spans; at most 1,024 bytes of it.
        value: Option<String>,
    }
    beside {
        /// What `variable` held.
        found: Found,
    }
}

section! {
    /// Which statuses of gRPC make a span an error. What is left out is as OpenTelemetry's conventions have it.
    pub struct GrpcErrors: Default {
        /// For who asked.
        client: Vec<GrpcCode> = CODES.to_vec() => "all",
        /// For who was asked.
        server: Vec<GrpcCode> = vec![
            GrpcCode::Unknown,
            GrpcCode::DeadlineExceeded,
            GrpcCode::Unimplemented,
            GrpcCode::Internal,
            GrpcCode::Unavailable,
            GrpcCode::DataLoss,
        ],
    }
}

words! {
    /// A status of gRPC that is not `OK`.
    pub enum GrpcCode {
        /// 1.
        Cancelled = "CANCELLED",
        /// 2.
        Unknown = "UNKNOWN",
        /// 3.
        InvalidArgument = "INVALID_ARGUMENT",
        /// 4.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// 5.
        NotFound = "NOT_FOUND",
        /// 6.
        AlreadyExists = "ALREADY_EXISTS",
        /// 7.
        PermissionDenied = "PERMISSION_DENIED",
        /// 8.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// 9.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// 10.
        Aborted = "ABORTED",
        /// 11.
        OutOfRange = "OUT_OF_RANGE",
        /// 12.
        Unimplemented = "UNIMPLEMENTED",
        /// 13.
        Internal = "INTERNAL",
        /// 14.
        Unavailable = "UNAVAILABLE",
        /// 15.
        DataLoss = "DATA_LOSS",
        /// 16.
        Unauthenticated = "UNAUTHENTICATED",
    }
}

impl GrpcCode {
    pub fn number(self) -> u32 {
        self as u32 + 1
    }
}

const CODES: [GrpcCode; 16] = [
    GrpcCode::Cancelled,
    GrpcCode::Unknown,
    GrpcCode::InvalidArgument,
    GrpcCode::DeadlineExceeded,
    GrpcCode::NotFound,
    GrpcCode::AlreadyExists,
    GrpcCode::PermissionDenied,
    GrpcCode::ResourceExhausted,
    GrpcCode::FailedPrecondition,
    GrpcCode::Aborted,
    GrpcCode::OutOfRange,
    GrpcCode::Unimplemented,
    GrpcCode::Internal,
    GrpcCode::Unavailable,
    GrpcCode::DataLoss,
    GrpcCode::Unauthenticated,
];
