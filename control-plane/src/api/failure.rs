//! Ways in which the API server says no, by what is to be done next.

use std::fmt;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 410: the version that was asked for is no longer kept. List again.
    Expired,
    /// 409: somebody was faster, or it is there already. Look again.
    Conflict,
    /// 404: neither this object nor, of a list, the definition of its kind.
    Missing,
    /// Too many requests, or whatever says when to come again: not before then.
    Busy(Option<Duration>),
    /// 401 and 403. Whoever runs this program has to do something.
    Forbidden(String),
    /// The request itself is wrong; to repeat it is no use.
    Refused(String),
    /// No server, no answer, none that can be read, or its own fault.
    Away(String),
}

impl Failure {
    pub fn of(status: StatusCode, after: Option<&HeaderValue>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).chars().take(WORDS).collect()));
        let header = after.and_then(|after| after.to_str().ok()).and_then(|after| after.trim().parse().ok());
        let after = header.or_else(|| body["details"]["retryAfterSeconds"].as_u64().filter(|seconds| *seconds > 0));
        let after = after.map(|seconds| Duration::from_secs(seconds).min(LONGEST));
        let words = body["message"].as_str().or(body.as_str()).unwrap_or_default().trim();
        let words = format!("{}: {words}", status.as_u16());
        match status {
            StatusCode::GONE => Self::Expired,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::NOT_FOUND => Self::Missing,
            StatusCode::TOO_MANY_REQUESTS => Self::Busy(after),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Forbidden(words),
            _ if after.is_some() => Self::Busy(after),
            _ if status.is_client_error() => Self::Refused(words),
            _ => Self::Away(words),
        }
    }

    /// As an event of a watch says it.
    pub fn of_event(object: &Value) -> Self {
        let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of(status, None, object.to_string().as_bytes())
    }

    /// For how long at least nothing is to be asked.
    pub fn rest(&self) -> Duration {
        match self {
            Self::Busy(after) => after.unwrap_or(Duration::from_secs(1)),
            Self::Expired | Self::Conflict | Self::Missing | Self::Forbidden(_) | Self::Refused(_) | Self::Away(_) => {
                Duration::ZERO
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("410: what was read is too old to go on from"),
            Self::Conflict => f.write_str("409: somebody else has written it"),
            Self::Missing => f.write_str("404: there is none"),
            Self::Busy(Some(after)) => write!(f, "the API server is busy; again in {} s", after.as_secs()),
            Self::Busy(None) => f.write_str("429: the API server is busy"),
            Self::Forbidden(words) => {
                write!(f, "{words}; `kubectl apply -f control-plane/rbac.yaml` allows what is needed")
            }
            Self::Refused(words) | Self::Away(words) => f.write_str(words),
        }
    }
}

const WORDS: usize = 512;
/// No server means more than this.
const LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://kubernetes.io/docs/reference/using-api/api-concepts/> and, of 429,
    /// <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>
    #[test]
    fn answers_are_told_apart_by_what_is_to_be_done() {
        let of = |status: u16, after: Option<&'static str>, body: &str| {
            let after = after.map(HeaderValue::from_static);
            Failure::of(StatusCode::from_u16(status).unwrap(), after.as_ref(), body.as_bytes())
        };
        assert_eq!(of(410, None, "{}"), Failure::Expired);
        assert_eq!(of(409, None, "{}"), Failure::Conflict);
        assert_eq!(of(404, None, "404 page not found"), Failure::Missing);
        // The server's own limit answers in plain text.
        assert_eq!(of(429, Some("7"), "Too many requests, please try again later."), Failure::Busy(Some(secs(7))));
        assert_eq!(of(429, None, r#"{"details": {"retryAfterSeconds": 3}}"#), Failure::Busy(Some(secs(3))));
        assert_eq!(of(503, Some("2"), ""), Failure::Busy(Some(secs(2))));
        assert_eq!(of(429, Some("86400"), ""), Failure::Busy(Some(LONGEST)));
        assert_eq!(of(429, Some("soon"), ""), Failure::Busy(None));
        assert_eq!(of(422, None, r#"{"message": "no"}"#), Failure::Refused("422: no".into()));
        assert_eq!(of(503, None, "down"), Failure::Away("503: down".into()));
        assert!(of(403, None, r#"{"message": "pods is forbidden"}"#).to_string().contains("rbac.yaml"));
        let event = serde_json::json!({"kind": "Status", "code": 410, "reason": "Expired"});
        assert_eq!(Failure::of_event(&event), Failure::Expired);
        assert_eq!(Failure::Busy(Some(secs(7))).rest(), secs(7));
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }
}
