//! What is spoken on a connection, judged by its first bytes. Pure; the data path feeds it while it reads.
//!
//! A wrong "HTTP" breaks an application, a wrong "opaque" only costs its spans, so HTTP/1 needs a whole request line.
//! Envoy and linkerd judge by the line as well. A method alone is no proof: RTSP, SIP and ICAP share `OPTIONS`, NATS
//! shares `CONNECT`, Redis typed by hand is `GET key`. A line that is wrong but ends in a version of HTTP is HTTP all the
//! same, to be refused as such: carried as bytes, it would go past everything that is decided by request.

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sniffed {
    Http1,
    Http2,
    /// A TLS handshake; its ClientHello says more.
    Tls,
    /// Anything else: to be carried as it is.
    Opaque,
    /// A beginning of more than one of these. Never said of [`ENOUGH`] bytes.
    NeedMore,
}

/// Judges the bytes. Once it has decided, further bytes never change the answer.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    if bytes.starts_with(PREFACE) {
        Sniffed::Http2
    } else if PREFACE.starts_with(bytes) {
        Sniffed::NeedMore
    } else if bytes.starts_with(&[HANDSHAKE]) {
        tls(bytes)
    } else {
        match http1(bytes) {
            Sniffed::Opaque => spoilt(bytes),
            sniffed => sniffed,
        }
    }
}

/// The best guess when no further byte comes: the wait ran out, the client closed its side, or the buffer is full. A
/// client that types a request slowly speaks HTTP by its method and path alone.
pub fn settle(bytes: &[u8]) -> Sniffed {
    match sniff(bytes) {
        Sniffed::NeedMore if PREFACE.starts_with(bytes) && bytes.len() >= PREFACE_LINE => Sniffed::Http2,
        Sniffed::NeedMore => {
            match bytes.iter().position(|byte| *byte == b' ').and_then(|at| bytes.split_at_checked(at)) {
                Some((method, [b' ', b'/', ..])) if METHODS.contains(&method) => Sniffed::Http1,
                _ => Sniffed::Opaque,
            }
        }
        decided => decided,
    }
}

/// The head of a TLS record (RFC 8446 section 5.1) and the first byte in it: handshake, version 3.x, a length that a
/// record can have, ClientHello.
fn tls(bytes: &[u8]) -> Sniffed {
    let fits = |at: usize, byte: u8| match at {
        0 => byte == HANDSHAKE,
        1 => byte == 3,
        2 => byte <= 4,
        3 => byte <= 0x40,
        5 => byte == CLIENT_HELLO,
        _ => true,
    };
    match bytes.iter().take(TLS_HEAD).enumerate().all(|(at, byte)| fits(at, *byte)) {
        false => Sniffed::Opaque,
        true if bytes.len() < TLS_HEAD => Sniffed::NeedMore,
        true => Sniffed::Tls,
    }
}

/// A request line (RFC 9112 section 3), after an empty line or two as section 2.2 forgives them.
fn http1(mut line: &[u8]) -> Sniffed {
    for _ in 0..EMPTY_LINES {
        line = match line {
            [b'\r', b'\n', rest @ ..] => rest,
            [b'\r'] => return Sniffed::NeedMore,
            _ => break,
        };
    }
    let token = line.iter().take(METHOD_MAX + 1).take_while(|byte| is_token(**byte)).count();
    let Some((method, rest)) = line.split_at_checked(token) else { return Sniffed::Opaque };
    match rest {
        _ if token > METHOD_MAX => Sniffed::Opaque,
        [] => Sniffed::NeedMore,
        [b' ', rest @ ..] if token > 0 => target(method, rest),
        _ => Sniffed::Opaque,
    }
}

/// What follows the method: a target, a space, `HTTP/1.0` or `HTTP/1.1`, and the end of the line.
fn target(method: &[u8], rest: &[u8]) -> Sniffed {
    match rest.first() {
        None => return Sniffed::NeedMore,
        // A path, `*`, a host, an address or an absolute URL; NATS would go on with `{`.
        Some(b'/' | b'*' | b'[') => {}
        Some(byte) if byte.is_ascii_alphanumeric() => {}
        Some(_) => return Sniffed::Opaque,
    }
    let long = rest.len() >= LINE_MAX;
    let mut seen = rest.iter().take(LINE_MAX).enumerate();
    let end = seen.find(|(_, byte)| **byte < b' ' || **byte == 0x7f);
    let Some((end, byte)) = end else {
        // A target can be longer than anything that ought to be buffered here; no other protocol looks like this.
        let plausible = METHODS.contains(&method)
            && (rest.starts_with(b"/") || rest.starts_with(b"http://") || rest.starts_with(b"https://"));
        return match (long, plausible) {
            (false, _) => Sniffed::NeedMore,
            (true, true) => Sniffed::Http1,
            (true, false) => Sniffed::Opaque,
        };
    };
    let whole = match (byte, seen.next()) {
        (b'\n', _) | (b'\r', Some((_, b'\n'))) => true,
        (b'\r', None) if !long => return Sniffed::NeedMore,
        // The line ends where the judging ends.
        (b'\r', None) => true,
        _ => false,
    };
    let line = rest.get(..end).unwrap_or_default();
    match whole && VERSIONS.iter().any(|version| line.ends_with(version)) {
        true => Sniffed::Http1,
        false => Sniffed::Opaque,
    }
}

/// What is no request line, but begins with a method, after white space perhaps, and has a version of HTTP.
fn spoilt(bytes: &[u8]) -> Sniffed {
    let white = bytes.iter().take(2 * EMPTY_LINES).take_while(|byte| b" \t\r\n".contains(byte)).count();
    let line = bytes.get(white..).unwrap_or_default();
    let begins = |method: &&[u8]| match line.strip_prefix(*method) {
        Some(rest) => rest.first().is_none_or(|byte| b" \t".contains(byte)),
        None => method.starts_with(line),
    };
    if !METHODS.iter().any(begins) {
        return Sniffed::Opaque;
    }
    match line.iter().take(LINE_MAX).position(|byte| *byte == b'\n') {
        Some(end) => {
            let mut words = line.get(..end).unwrap_or_default().windows(VERSION.len());
            match words.any(|word| word.eq_ignore_ascii_case(VERSION)) {
                true => Sniffed::Http1,
                false => Sniffed::Opaque,
            }
        }
        None if line.len() < LINE_MAX => Sniffed::NeedMore,
        None => Sniffed::Opaque,
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// No more bytes than these are ever needed.
pub const ENOUGH: usize = 2 * EMPTY_LINES + METHOD_MAX + 1 + LINE_MAX;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The part of the preface that no one else would send.
const PREFACE_LINE: usize = b"PRI * HTTP/2.0\r\n".len();
const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const TLS_HEAD: usize = 6;
const EMPTY_LINES: usize = 2;
/// The longest registered method, `UPDATEREDIRECTREF`, has 17 characters.
const METHOD_MAX: usize = 32;
/// After the method: what is judged before a long target counts as one. Above what all but a few requests have.
const LINE_MAX: usize = 2048;
const VERSION: &[u8] = b"HTTP/";
const VERSIONS: [&[u8]; 2] = [b" HTTP/1.1", b" HTTP/1.0"];
/// Those whose targets are known to grow long, or that people type.
const METHODS: [&[u8]; 19] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"QUERY",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
];

/// Whatever the bytes: no panic, a decision by [`ENOUGH`], and one that stays as bytes arrive.
pub fn fuzz_detect(data: &[u8]) {
    let mut decided = None;
    // Short inputs in every prefix, long ones in steps.
    let step = 1 + data.len() / 4096;
    for end in (0..=data.len()).filter(|end| end % step == 0 || *end == data.len()) {
        let bytes = data.get(..end).unwrap_or_default();
        let now = sniff(bytes);
        match decided {
            Some(before) => assert_eq!(before, now, "changed its mind"),
            None if now != Sniffed::NeedMore => decided = Some(now),
            None => assert!(end < ENOUGH, "still undecided"),
        }
        let settled = settle(bytes);
        assert_ne!(settled, Sniffed::NeedMore);
        assert!(now == Sniffed::NeedMore || now == settled);
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    const HTTP1: [&[u8]; 16] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.0\n\n",
        b"\r\nPOST /cart?x=1 HTTP/1.1\r\n\r\n",
        b"\r\n\r\nPUT /a HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT shop.example:443 HTTP/1.1\r\n",
        b"CONNECT [::1]:443 HTTP/1.1\r\n",
        b"GET http://shop.example/ HTTP/1.1\r\n",
        b"brew /pot HTTP/1.1\r\n",
        "GET /caf\u{e9} HTTP/1.1\r\n".as_bytes(),
        b"GET / HTTP/2.0\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET /\r HTTP/1.1\r\n",
        b"GET /\tx HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET /\0 http/1.1\r\n",
    ];
    const OPAQUE: [&[u8]; 18] = [
        b"GET key\r\n",
        b"get key\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"OPTIONS rtsp://camera/1 RTSP/1.0\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n",
        b"CONNECT {\"verbose\":false}\r\n",
        b"CONNECT\naccept-version:1.2\n\n\0",
        b"GET /old\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"EHLO mail.example\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"AMQP\0\0\x09\x01",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n",
        b"\x16\x02\x01\0\x05",
        b"\x16\x03\x01\0\x05\x02",
    ];

    #[test]
    fn each_protocol_is_told_by_its_own_first_bytes() {
        for bytes in HTTP1 {
            assert_eq!(sniff(bytes), Sniffed::Http1, "{:?}", String::from_utf8_lossy(bytes));
        }
        for bytes in OPAQUE {
            assert_eq!(sniff(bytes), Sniffed::Opaque, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(sniff(PREFACE), Sniffed::Http2);
        assert_eq!(sniff(b"\x16\x03\x01\x02\x00\x01\x00"), Sniffed::Tls);
        assert_eq!(sniff(b""), Sniffed::NeedMore);
    }

    #[test]
    fn a_binary_protocol_is_known_by_its_first_bytes() {
        for first in (0..=u8::MAX).filter(|byte| !is_token(*byte) && !b"\r\n\t \x16".contains(byte)) {
            assert_eq!(sniff(&[first]), Sniffed::Opaque, "{first:#x}");
        }
    }

    #[test]
    fn a_long_target_is_http_by_a_known_method_alone() {
        let line = |method: &str, length: usize| [method.as_bytes(), b" /", &vec![b'a'; length]].concat();
        assert_eq!(sniff(&line("GET", LINE_MAX - 2)), Sniffed::NeedMore);
        assert_eq!(sniff(&line("GET", LINE_MAX)), Sniffed::Http1);
        assert_eq!(sniff(&line("HELLO", LINE_MAX)), Sniffed::Opaque);
        assert_eq!(sniff(&[b'A'; METHOD_MAX + 1]), Sniffed::Opaque);
    }

    #[test]
    fn a_slow_client_is_judged_by_what_it_typed() {
        assert_eq!(settle(b"GET /ind"), Sniffed::Http1);
        assert_eq!(settle(b"GET"), Sniffed::Opaque);
        assert_eq!(settle(b"get /"), Sniffed::Opaque);
        assert_eq!(settle(b""), Sniffed::Opaque);
        assert_eq!(settle(b"PRI * HTTP/2.0\r\n\r"), Sniffed::Http2);
        assert_eq!(settle(b"PRI"), Sniffed::Opaque);
        assert_eq!(settle(b"\x16\x03"), Sniffed::Opaque);
    }

    #[test]
    fn a_decision_stays_as_bytes_arrive() {
        let long = [b"GET /".as_slice(), &[b'x'; 2 * LINE_MAX]].concat();
        let edge = [b"GET /".as_slice(), &[b'x'; LINE_MAX - 2], b"\r\n"].concat();
        for bytes in HTTP1.into_iter().chain(OPAQUE).chain([PREFACE, &long, &edge]) {
            fuzz_detect(bytes);
        }
        let mut rng = StdRng::seed_from_u64(7);
        let samples: Vec<&[u8]> = HTTP1.into_iter().chain(OPAQUE).chain([PREFACE, b"\x16\x03\x01\x01\0\x01"]).collect();
        for _ in 0..50_000 {
            // A sample with a few bytes exchanged, then noise: close enough to be interesting.
            let mut bytes = samples[rng.random_range(0..samples.len())].to_vec();
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = if rng.random() { rng.random() } else { b" \r\n\0/H16"[rng.random_range(0..8)] };
            }
            bytes.extend((0..rng.random_range(0..8)).map(|_| rng.random::<u8>()));
            fuzz_detect(&bytes);
        }
    }
}
