//! What comes of the protocol's golden messages, and of what a version to come may send.

use std::fs;
use std::path::Path;

use prost::Message;
use spanmesh_proto::v1;

use super::held::Held;
use crate::config::{ParentDecision, Trust};

#[test]
fn the_golden_snapshot_is_in_force_whole_and_a_delta_changes_what_it_names() {
    let mut held = Held::default();
    assert_eq!(held.apply(&golden("snapshot"), &[]), []);
    assert_eq!((held.unknown(), held.version, held.told().len()), (Vec::new(), 41, 4));
    let snapshot = held.snapshot();
    let rules: Vec<&str> = snapshot.plan.own.rules.iter().map(|rule| &*rule.id.rule).collect();
    assert_eq!(rules, ["health", "vip", "users", "limit", "rest"]);
    assert_eq!(snapshot.plan.own.keeps[0].on.len(), 6, "all that a keep rule may ask");
    assert_eq!(snapshot.plan.destinations["pay.shop"].parent, ParentDecision::Ignore);
    assert_eq!((snapshot.plan.guard, snapshot.plan.captures.len(), snapshot.thresholds.len()), (Some(250.0), 1, 2));
    let pushed = snapshot.pushed.unwrap();
    assert_eq!((pushed.trust, pushed.policy.destinations.len()), (Some(Trust::Downgrade), 5));
    for (name, count) in [("delta", 4), ("thresholds", 4), ("captures", 4)] {
        assert_eq!(held.apply(&golden(name), &[]), [], "{name}");
        assert_eq!((held.told().len(), held.version), (count, 42), "{name}");
    }
    // What is kept on disk is a whole snapshot.
    assert_eq!(Held::from_bytes(&held.to_bytes(), &[]).unwrap(), held);
}

#[test]
fn what_a_version_to_come_adds_to_a_resource_is_ignored_and_told() {
    let plain = golden("snapshot");
    let mut known = Held::default();
    known.apply(&plain, &[]);
    // Field 1000: a number, 64 bits, bytes, 32 bits.
    for more in
        [&[0xc0, 0x3e, 0][..], &[0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8], &[0xc2, 0x3e, 0], &[0xc5, 0x3e, 1, 2, 3, 4]]
    {
        let mut push = plain.clone();
        for resource in &mut push.changed {
            resource.body = [&resource.body, more].concat().into();
        }
        let mut held = Held::default();
        assert_eq!(held.apply(&push, &[]), []);
        assert_eq!(held.snapshot(), known.snapshot());
        let told = ["capture/shop/next", "destination/pay.shop", "policy/own", "thresholds/mesh"];
        assert_eq!(held.unknown(), told.map(|name| format!("{name}: has fields that this version does not know")));
    }
}

#[test]
fn what_a_version_to_come_adds_within_a_rule_is_ignored_and_told() {
    // A rule `r` of policy `p`, always, with field 1000 in its match; and behind it a chain's parent that is not known.
    let rule: &[u8] = &[0x12, 13, 0x0a, 1, b'p', 0x1a, 1, b'r', 0x22, 3, 0xc0, 0x3e, 7, 0x2a, 0];
    for body in [rule.to_vec(), vec![0x08, 9]] {
        let mut held = Held::default();
        assert_eq!(held.apply(&pushed("destination", "a.b", &body), &[]), []);
        assert_eq!(held.unknown(), ["destination/a.b: has fields that this version does not know"]);
        assert_eq!(held.snapshot().plan.destinations["a.b"].parent, ParentDecision::Respect);
    }
    // An action that is not known is no rule; what was there before goes on.
    let mut held = Held::default();
    held.apply(&pushed("destination", "a.b", &[0x12, 8, 0x0a, 1, b'p', 0x1a, 1, b'r', 0x2a, 0]), &[]);
    let before = held.snapshot();
    let refused = held.apply(&pushed("destination", "a.b", &[0x12, 9, 0x0a, 1, b'p', 0x1a, 1, b'r', 0xa2, 6, 0]), &[]);
    assert_eq!(refused[0].reason, "r of p: has an action that this version does not know");
    assert_eq!(held.snapshot(), at(before, held.version));
}

#[test]
fn a_kind_that_is_not_known_is_ignored_and_told_for_as_long_as_it_is_there() {
    let mut held = Held::default();
    held.apply(&golden("snapshot"), &[]);
    let before = held.snapshot();
    assert_eq!(held.apply(&pushed("mood", "own", b"\xff\xff"), &[]), []);
    let told = ["mood/own: the kind is not known to this version"];
    assert_eq!(held.unknown(), told);
    assert_eq!(held.snapshot(), at(before, held.version));
    // Other pushes come and go.
    held.apply(&golden("thresholds"), &[]);
    assert_eq!(held.unknown(), told);
    let removed = vec![v1::Name { kind: "mood".into(), name: "own".into() }];
    held.apply(&v1::Push { removed, ..v1::Push::default() }, &[]);
    assert!(held.unknown().is_empty());
    held.apply(&pushed("mood", "own", b""), &[]);
    held.apply(&golden("snapshot"), &[]);
    assert!(held.unknown().is_empty(), "a whole one does not have it");
    // However many there are.
    for number in 0..100 {
        held.apply(&pushed("mood", &number.to_string(), b""), &[]);
    }
    assert_eq!(held.unknown().len(), 32);
}

fn at(snapshot: super::Snapshot, version: u64) -> super::Snapshot {
    let plan = crate::rules::sampling::Plan { version, ..snapshot.plan };
    super::Snapshot { plan, ..snapshot }
}

fn pushed(kind: &str, name: &str, body: &[u8]) -> v1::Push {
    let resource = v1::Resource { kind: kind.into(), name: name.into(), digest: 1, body: body.to_vec().into() };
    v1::Push { nonce: 3, version: 43, changed: vec![resource], ..v1::Push::default() }
}

fn golden(name: &str) -> v1::Push {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../proto/golden/0.1/{name}.bin"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match v1::ToProxy::decode(&*bytes).unwrap().message {
        Some(v1::to_proxy::Message::Push(push)) => push,
        other => panic!("{name} is {other:?}"),
    }
}
