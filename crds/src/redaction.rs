//! What is added to spans, and what is taken out of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, cel};
use crate::words::words;

/// What is taken out of spans and of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redaction {
    /// More query parameters whose values go, besides the signatures and credentials that OpenTelemetry's conventions
    /// list. Upper case is not lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub query: Vec<String>,
    /// What goes wherever it stands: in paths, queries, user agents, request ids and captured headers.
    #[serde(default = "usual_patterns")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub patterns: Vec<Pattern>,
    /// A file of the proxy with a key. With it, `hmac-` and sixteen digits of the secret's HMAC-SHA256 stand in place of
    /// `REDACTED`, so that one sees which secrets are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub hash_key_file: Option<String>,
}

words! {
    /// What goes wherever it stands.
    pub enum Pattern {
        /// numbers of cards.
        Cards = "cards",
        /// e-mail addresses.
        Emails = "emails",
        /// what follows the word `Bearer`.
        Bearers = "bearers",
        /// JSON Web Tokens.
        Jwts = "jwts",
    }
}

/// An attribute that spans have besides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_SOURCE, says::NAMED_ATTRIBUTE])))]
pub struct Attribute {
    /// What it is called, in small letters. That of a header may be left out: it is called
    /// `http.request.header.<header>` or `http.response.header.<header>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = cel(&[says::ATTRIBUTE, says::OWN_ATTRIBUTE])))]
    pub name: Option<String>,
    /// Its value is that of a header of the request, as the proxy passes it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = cel(&[says::HEADER])))]
    pub request_header: Option<String>,
    /// Its value is that of a header of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = cel(&[says::HEADER])))]
    pub response_header: Option<String>,
    /// Its value is a member of the request's W3C baggage, where its caller is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = cel(&[says::BAGGAGE])))]
    pub baggage: Option<String>,
    /// Its value is that of a variable of the proxy's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub variable: Option<String>,
    /// Its value, on all spans the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub value: Option<String>,
}

impl Default for Redaction {
    fn default() -> Redaction {
        Redaction { query: Vec::new(), patterns: usual_patterns(), hash_key_file: None }
    }
}

fn usual_patterns() -> Vec<Pattern> {
    Pattern::ALL.to_vec()
}
