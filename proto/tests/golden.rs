//! The bytes of version 0.1 of the push protocol stay what they are: programs of that version are at work. Each message is in
//! `golden/0.1/NAME.bin`, and in `NAME.txt` as people read it; every field of the protocols is in one of them. Only a run
//! with `BLESS=1` writes them. A field that is new is added to `messages`; what was there may not change.

#[path = "golden/messages.rs"]
mod messages;
#[path = "golden/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use messages::{Sent, bodies, messages};
use prost::Message;
use schema::Schema;
use spanmesh_proto::v1;

#[test]
fn the_bytes_of_0_1_are_read_as_they_were_meant_and_written_as_they_were() {
    let schema = schema();
    for (name, message) in messages() {
        let bytes = match &message {
            Sent::Up(message) => message.encode_to_vec(),
            Sent::Down(message) => message.encode_to_vec(),
        };
        let read = schema.show(message.kind(), &bytes).expect("bytes that were just written");
        if env::var_os("BLESS").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(file(name, "bin"), &bytes).unwrap();
            fs::write(file(name, "txt"), &read).unwrap();
        }
        let (golden, shown) = (golden(name), fs::read_to_string(file(name, "txt")).unwrap());
        assert_eq!(schema.show(message.kind(), &golden).unwrap(), shown, "{name}: the description is another's");
        match &message {
            Sent::Up(message) => assert_eq!(v1::FromProxy::decode(&*golden).unwrap(), *message, "{name}"),
            Sent::Down(message) => assert_eq!(v1::ToProxy::decode(&*golden).unwrap(), *message, "{name}"),
        }
        assert_eq!(read, shown, "{name} is written in another way");
        assert_eq!(bytes, golden, "{name} is written in another way");
    }
}

#[test]
fn the_bodies_in_them_are_read_as_they_were_meant() {
    let v1::ToProxy { message: Some(v1::to_proxy::Message::Push(push)) } =
        v1::ToProxy::decode(&*golden("snapshot")).unwrap()
    else {
        panic!("is no push");
    };
    let bodies = bodies();
    assert_eq!(v1::Policy::decode(&*push.changed[0].body).unwrap(), bodies.policy);
    assert_eq!(v1::Chain::decode(&*push.changed[1].body).unwrap(), bodies.chain);
    assert_eq!(v1::Thresholds::decode(&*push.changed[2].body).unwrap(), bodies.thresholds);
    assert_eq!(v1::Capture::decode(&*push.changed[3].body).unwrap(), bodies.capture);
}

#[test]
fn every_field_of_the_protocols_is_in_one_of_them() {
    let schema = schema();
    let mut seen = BTreeSet::new();
    for (name, message) in messages() {
        schema.fields(message.kind(), &golden(name), &mut seen).unwrap();
    }
    let all: BTreeSet<String> = schema.all().collect();
    let missing: Vec<&String> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "no golden message has {missing:?}");
    assert!(all.len() > 150, "{} fields: the protocols are read wrong", all.len());
}

#[test]
fn what_a_version_to_come_adds_is_ignored() {
    // Field 1000 as a number, as 64 bits, as bytes and as 32 bits.
    let more: &[u8] =
        &[0xc0, 0x3e, 7, 0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, 0xc2, 0x3e, 2, b'h', b'i', 0xc5, 0x3e, 1, 2, 3, 4];
    for (name, message) in messages() {
        let bytes = [&golden(name), more].concat();
        match message {
            Sent::Up(message) => assert_eq!(v1::FromProxy::decode(&*bytes).unwrap(), message, "{name}"),
            Sent::Down(message) => assert_eq!(v1::ToProxy::decode(&*bytes).unwrap(), message, "{name}"),
        }
    }
    // A message of a kind that is not known, with nothing else.
    assert_eq!(v1::ToProxy::decode(&[0xa2, 0x06, 2, 8, 1][..]).unwrap().message, None);
    assert_eq!(v1::FromProxy::decode(&[0xa2, 0x06, 2, 8, 1][..]).unwrap().message, None);
    // A choice that is not known is none, and the rest of the message is there.
    let rule = v1::Rule::decode(&[0x1a, 1, b'r', 0xa2, 0x06, 0][..]).unwrap();
    assert_eq!((&*rule.name, rule.action), ("r", None));
}

#[test]
fn what_is_torn_is_refused_and_does_no_harm() {
    let schema = schema();
    for (name, message) in messages() {
        let bytes = golden(name);
        for length in 0..bytes.len() {
            let part = &bytes[..length];
            match message {
                Sent::Up(_) => drop(v1::FromProxy::decode(part)),
                Sent::Down(_) => drop(v1::ToProxy::decode(part)),
            }
            assert!(length == 0 || schema.show(message.kind(), part).is_err(), "{name} at {length}");
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    let path = file(name, "bin");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 writes it", path.display()))
}

fn file(name: &str, end: &str) -> PathBuf {
    folder().join(format!("{name}.{end}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/0.1")
}

fn schema() -> Schema {
    Schema::read(&["discovery", "policy"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("spanmesh/v1/{name}.proto"));
        fs::read_to_string(path).unwrap()
    }))
}
