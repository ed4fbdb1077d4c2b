//! What must not leave the process in a span: signatures and credentials in queries, by the conventions' own list. The key
//! stays, so that one sees that it was there.

use std::borrow::Cow;

/// Values of the keys that carry signatures become `REDACTED`. Keys are compared as they are written.
pub fn query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(|pair| is_secret(key(pair))) {
        return Cow::Borrowed(query);
    }
    let mut redacted = String::with_capacity(query.len());
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            redacted.push('&');
        }
        match is_secret(key(pair)) {
            true => {
                redacted.push_str(key(pair));
                redacted.push_str("=REDACTED");
            }
            false => redacted.push_str(pair),
        }
    }
    Cow::Owned(redacted)
}

fn key(pair: &str) -> &str {
    pair.split_once('=').map_or("", |(key, _)| key)
}

fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

const SECRETS: [&str; 7] = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_go_and_their_keys_stay() {
        assert_eq!(query("a=1&sig=abc=d&b&Signature=&sig"), "a=1&sig=REDACTED&b&Signature=REDACTED&sig");
        assert_eq!(query("Sig=x&signature=y"), "Sig=x&signature=y");
        assert!(matches!(query("a=1"), Cow::Borrowed(_)));
    }
}
