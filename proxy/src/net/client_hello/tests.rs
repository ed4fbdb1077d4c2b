use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;

/// What a real client sends.
fn real(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn list16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), list16(content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &list16(&[&[0], list16(name).as_slice()].concat()))
}

/// A handshake message by hand.
fn made(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3], [7; 32].as_slice(), &[0, 0, 2, 0x13, 1, 1, 0], &list16(extensions)].concat();
    [&[CLIENT_HELLO], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// A message in records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![0x16, 3, 1], list16(part)].concat()).collect()
}

fn read(extensions: &[u8]) -> Result<Hello, HelloError> {
    server_name(&records(&made(extensions), RECORD_MAX))
}

#[test]
fn a_real_clients_name_and_protocols_are_read() {
    let hello = server_name(&real("Shop.Example", &["h2", "http/1.1"])).unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("shop.example"));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(server_name(&real("10.0.0.1", &[])).unwrap(), Hello::default(), "no name for an address");
}

#[test]
fn a_hello_that_arrives_byte_by_byte_is_read_when_it_is_whole() {
    let bytes = real("shop.example", &["h2"]);
    for end in 0..bytes.len() {
        assert_eq!(server_name(&bytes[..end]), Err(HelloError::Incomplete));
    }
    assert!(server_name(&bytes).is_ok());
}

#[test]
fn a_hello_may_be_cut_over_many_records() {
    let whole = real("shop.example", &["h2"]);
    let message = &whole[5..];
    for size in [1, 3, 4, 5, 64, 100] {
        let cut = records(message, size);
        let expected = match message.len().div_ceil(size) <= RECORDS_MAX {
            true => server_name(&whole),
            false => Err(HelloError::Invalid),
        };
        assert_eq!(server_name(&cut), expected, "records of {size}");
    }
}

#[test]
fn sixteen_kilobytes_are_read_and_no_more() {
    let padded = |padding: usize| made(&[sni(b"shop.example"), extension(21, &vec![0; padding])].concat());
    let room = HELLO_MAX - padded(0).len();
    let largest = records(&padded(room), RECORD_MAX);
    assert_eq!(server_name(&largest).unwrap().server_name.as_deref(), Some("shop.example"));
    assert_eq!(server_name(&largest[..largest.len() - 1]), Err(HelloError::Incomplete));
    assert_eq!(server_name(&records(&padded(room + 1), RECORD_MAX)), Err(HelloError::Invalid));
    assert_eq!(server_name(&records(&padded(room + 1), RECORD_MAX)[..9]), Err(HelloError::Incomplete));
}

#[test]
fn names_are_lower_cased_and_well_formed_or_refused() {
    let named = |name: &[u8]| read(&sni(name)).map(|hello| hello.server_name);
    assert_eq!(named(b"A_b-c.SHOP.example."), Ok(Some("a_b-c.shop.example".into())));
    assert_eq!(named(b"10.0.0.1"), Ok(None));
    assert_eq!(named(b"::1"), Ok(None));
    assert_eq!(named([b'a'; 63].as_slice()).map(|name| name.is_some()), Ok(true));
    let long = vec![b'a'; 64];
    let longer = ["a.".repeat(126), "aa".into()].concat();
    for bad in [
        b"".as_slice(),
        b".",
        b"a..b",
        b"-a.b",
        b"a-.b",
        b"a b",
        b"*.b",
        b"a\0b",
        b"a/b",
        "\u{e9}.b".as_bytes(),
        b"\xff",
        &long,
        longer.as_bytes(),
    ] {
        assert_eq!(named(bad), Err(HelloError::Invalid), "{bad:?}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let twice = [sni(b"a.example"), sni(b"b.example")].concat();
    let two_names = extension(
        SERVER_NAME,
        &list16(&[&[0], list16(b"a.example").as_slice(), &[0], list16(b"b.example").as_slice()].concat()),
    );
    let other_type = extension(SERVER_NAME, &list16(&[&[1], list16(b"a.example").as_slice()].concat()));
    let tail = extension(SERVER_NAME, &[list16(&[&[0], list16(b"a.example").as_slice()].concat()), vec![0]].concat());
    let empty_protocol = extension(ALPN, &list16(&[0]));
    let no_protocol = extension(ALPN, &list16(&[]));
    for bad in [twice, two_names, other_type, tail, empty_protocol, no_protocol, vec![0], vec![0, 0, 0, 9]] {
        assert_eq!(read(&bad), Err(HelloError::Invalid));
    }
}

#[test]
fn what_is_no_hello_is_known_at_once() {
    for bad in [b"GET / ".as_slice(), b"\x16\x02\x01", b"\x15\x03\x01", b"\x16\x03\x01\0\0", b"\x16\x03\x01\x40\x01"] {
        assert_eq!(server_name(bad), Err(HelloError::Invalid), "{bad:?}");
    }
    assert_eq!(server_name(&records(&[2, 0, 0, 0], 4)), Err(HelloError::Invalid), "a ServerHello");
}

#[test]
fn offered_protocols_are_bounded() {
    let many = [2, b'h', b'2'].repeat(200);
    assert_eq!(read(&extension(ALPN, &list16(&many))).unwrap().alpn.len(), ALPN_MAX);
}

#[test]
fn no_bytes_make_it_panic_or_change_its_mind() {
    let mut rng = StdRng::seed_from_u64(7);
    let samples = [
        real("shop.example", &["h2", "http/1.1"]),
        records(&made(&[sni(b"shop.example"), extension(ALPN, &list16(b"\x02h2"))].concat()), 40),
        records(&made(&[]), 7),
    ];
    for sample in &samples {
        fuzz_client_hello(sample);
    }
    for _ in 0..3000 {
        let mut bytes = samples[rng.random_range(0..samples.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(1..=bytes.len()));
        fuzz_client_hello(&bytes);
    }
}
