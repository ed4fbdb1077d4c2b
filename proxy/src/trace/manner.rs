//! How spans are told, as far as the policy has a say: what is taken out, what is added, which calls count as failed. It
//! belongs to the policy, and goes with each batch of spans to the encoder.

use std::borrow::Cow;

use super::custom::Custom;
use super::redact::Redactor;
use super::span::{Batch, Kind, Part};
use crate::config;

#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub redactor: Redactor,
    pub custom: Custom,
    pub failures: Failures,
}

/// Statuses of gRPC that are an error of each side, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    client: u32,
    server: u32,
}

impl Manner {
    pub fn new(policy: &config::Policy, redactor: Redactor) -> Self {
        Self { redactor, custom: Custom::new(&policy.attributes), failures: Failures::new(&policy.grpc_errors) }
    }

    /// Takes secrets out of a batch, whose text is whole then.
    pub fn prepare(batch: &mut Batch) {
        if let Some(manner) = batch.manner.clone() {
            let Self { redactor, custom, .. } = &*manner;
            batch.rewrite(|part, word, end| match part {
                Part::Query => changed(redactor.query(word, end)),
                Part::Host => changed(redactor.authority(word, end)),
                Part::Text => changed(redactor.text(word, end)),
                Part::Custom => Some(custom.redact(word, redactor)),
            });
        }
        batch.seal();
    }
}

fn changed(told: Cow<'_, [u8]>) -> Option<Vec<u8>> {
    match told {
        Cow::Borrowed(_) => None,
        Cow::Owned(told) => Some(told),
    }
}

impl Failures {
    fn new(errors: &config::GrpcErrors) -> Self {
        let bits = |codes: &[config::GrpcCode]| codes.iter().fold(0, |bits, code| bits | 1 << code.number());
        Self { client: bits(&errors.client), server: bits(&errors.server) }
    }

    /// A number without a name has no place in any list: it is the server's invention, and an error to whoever asked.
    pub fn has(self, kind: Kind, status: u32) -> bool {
        let bits = if kind == Kind::Client { self.client } else { self.server };
        match status {
            0..NAMED => bits >> status & 1 == 1,
            _ => kind == Kind::Client,
        }
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self::new(&config::GrpcErrors::default())
    }
}

const NAMED: u32 = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GrpcCode;

    #[test]
    fn what_is_not_said_is_as_the_conventions_have_it() {
        let usual = Failures::default();
        assert!((1..20).all(|status| usual.has(Kind::Client, status)) && !usual.has(Kind::Client, 0));
        let server: Vec<_> = (0..20).filter(|status| usual.has(Kind::Server, *status)).collect();
        assert_eq!(server, [2, 4, 12, 13, 14, 15]);
    }

    #[test]
    fn each_side_has_its_own() {
        let errors = config::GrpcErrors { client: vec![GrpcCode::Unavailable], server: vec![GrpcCode::Cancelled] };
        let failures = Failures::new(&errors);
        let of = |kind| (0..17).filter(move |status| failures.has(kind, *status)).collect::<Vec<_>>();
        assert_eq!((of(Kind::Client), of(Kind::Server)), (vec![14], vec![1]));
    }
}
