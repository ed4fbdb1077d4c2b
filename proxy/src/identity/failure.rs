//! Says in words why a TLS handshake failed: what happened, the likely cause, the next step.
//!
//! Made from the error of tokio-rustls or of a read soon after the handshake, since in TLS 1.3 a peer refuses a client
//! certificate only then. [`TlsFailure::kind`] is for decisions, [`TlsFailure::word`] for labels, `Display` for logs.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

#[derive(Clone, Debug)]
pub struct TlsFailure {
    pub peer: Peer,
    pub kind: Kind,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Client,
    Upstream,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// The first bytes are no TLS record.
    NotTls,
    /// The connection ended in the handshake.
    Closed,
    /// The network, not TLS.
    Network(io::ErrorKind),
    UnknownIssuer,
    /// Signed by a CA that has the name of a trusted one, and another key.
    OtherIssuerKey,
    WrongName {
        expected: String,
        names: Vec<String>,
    },
    Expired {
        ago: Option<Duration>,
    },
    NotYetValid {
        wait: Option<Duration>,
    },
    /// A certificate authority's own certificate where a server's belongs.
    Authority,
    /// Any other fault of the peer's certificate.
    BadCertificate(CertificateError),
    /// The peer wants a certificate of ours and got none.
    CertificateWanted,
    /// The peer refuses the certificate that we show.
    CertificateRefused(AlertDescription),
    /// The peer has no such name.
    NameRefused,
    NoCommonProtocol,
    /// No version, cipher or signature in common.
    NothingInCommon,
    Alert(AlertDescription),
    /// One end does not keep to TLS.
    Protocol(rustls::Error),
}

impl TlsFailure {
    pub fn of(peer: Peer, error: &io::Error) -> TlsFailure {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let kind = match tls {
            Some(error) => Kind::of(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof => Kind::Closed,
                other => Kind::Network(other),
            },
        };
        TlsFailure { peer, kind }
    }

    /// A short word, one of a closed list, for labels.
    pub fn word(&self) -> &'static str {
        match &self.kind {
            Kind::NotTls => "not_tls",
            Kind::Closed => "closed",
            Kind::Network(_) => "network",
            Kind::UnknownIssuer => "unknown_issuer",
            Kind::OtherIssuerKey => "other_issuer_key",
            Kind::WrongName { .. } => "wrong_name",
            Kind::Expired { .. } => "expired",
            Kind::NotYetValid { .. } => "not_yet_valid",
            Kind::Authority => "authority",
            Kind::BadCertificate(_) => "bad_certificate",
            Kind::CertificateWanted => "certificate_wanted",
            Kind::CertificateRefused(_) => "certificate_refused",
            Kind::NameRefused => "name_refused",
            Kind::NoCommonProtocol => "no_common_protocol",
            Kind::NothingInCommon => "nothing_in_common",
            Kind::Alert(_) => "alert",
            Kind::Protocol(_) => "protocol",
        }
    }
}

impl Kind {
    /// rustls may add errors; those, and all that only a broken peer causes, are [`Kind::Protocol`].
    fn of(error: &rustls::Error) -> Kind {
        match error {
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Kind::NotTls,
            rustls::Error::InvalidCertificate(error) => Kind::of_certificate(error),
            rustls::Error::AlertReceived(alert) => Kind::of_alert(*alert),
            rustls::Error::NoApplicationProtocol => Kind::NoCommonProtocol,
            rustls::Error::NoCertificatesPresented => Kind::CertificateWanted,
            rustls::Error::PeerIncompatible(_) => Kind::NothingInCommon,
            other => Kind::Protocol(other.clone()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Kind {
        match error {
            CertificateError::UnknownIssuer => Kind::UnknownIssuer,
            CertificateError::BadSignature => Kind::OtherIssuerKey,
            CertificateError::NotValidForNameContext { expected, presented } => Kind::WrongName {
                expected: expected.to_str().into_owned(),
                names: presented.iter().map(|name| plain(name)).collect(),
            },
            CertificateError::NotValidForName => Kind::WrongName { expected: String::new(), names: Vec::new() },
            CertificateError::Expired => Kind::Expired { ago: None },
            CertificateError::ExpiredContext { time, not_after } => {
                Kind::Expired { ago: time.as_secs().checked_sub(not_after.as_secs()).map(Duration::from_secs) }
            }
            CertificateError::NotValidYet => Kind::NotYetValid { wait: None },
            CertificateError::NotValidYetContext { time, not_before } => {
                Kind::NotYetValid { wait: not_before.as_secs().checked_sub(time.as_secs()).map(Duration::from_secs) }
            }
            CertificateError::Other(other)
                if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
            {
                Kind::Authority
            }
            other => Kind::BadCertificate(other.clone()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Kind {
        match alert {
            AlertDescription::CertificateRequired => Kind::CertificateWanted,
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            // A signature that does not verify: most often that of a CA made anew under its old name.
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => Kind::CertificateRefused(alert),
            AlertDescription::UnrecognisedName => Kind::NameRefused,
            AlertDescription::NoApplicationProtocol => Kind::NoCommonProtocol,
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => Kind::NothingInCommon,
            other => Kind::Alert(other),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = match self.peer {
            Peer::Client => "the client",
            Peer::Upstream => "the upstream",
        };
        match (&self.kind, self.peer) {
            (Kind::NotTls, Peer::Upstream) => {
                write!(f, "the upstream does not answer in TLS; is it plain HTTP? then remove tls from it")
            }
            (Kind::NotTls, Peer::Client) => {
                write!(f, "the client does not speak TLS on a TLS port; does it use http:// where https:// is meant?")
            }
            (Kind::Closed, Peer::Upstream) => write!(
                f,
                "the upstream closed the connection during the TLS handshake; is it plain HTTP (then remove tls), or \
                 does it not know the name asked for (then set serverName)?"
            ),
            (Kind::Closed, Peer::Client) => write!(
                f,
                "the client closed the connection during the TLS handshake; it gave up, or it is a health check that \
                 only connects"
            ),
            (Kind::Network(kind), _) => write!(f, "the connection to {peer} broke during the TLS handshake ({kind})"),
            (Kind::UnknownIssuer, _) => write!(
                f,
                "{peer}'s certificate is signed by nobody that is trusted here; is rootFile the CA that signed it, and \
                 does the peer send its intermediate certificates?"
            ),
            (Kind::OtherIssuerKey, _) => write!(
                f,
                "{peer}'s certificate names a trusted CA but is not signed by its key; was the CA made anew? then set \
                 rootFile to the new one, or issue the certificate again"
            ),
            (Kind::WrongName { expected, names }, _) => {
                write!(f, "{peer}'s certificate is not for {expected:?} but ")?;
                match names.is_empty() {
                    true => write!(f, "for no name at all (its subjectAltName counts, not its common name)")?,
                    false => write!(f, "for {}", shown(names))?,
                }
                write!(f, "; set serverName to a name that it has, or issue a certificate with this one")
            }
            (Kind::Expired { ago }, _) => {
                write!(f, "{peer}'s certificate has expired{}; renew it", span(*ago, " ", " ago"))
            }
            (Kind::NotYetValid { wait }, _) => write!(
                f,
                "{peer}'s certificate is not valid yet{}; are the clocks of both machines right?",
                span(*wait, ", for another ", "")
            ),
            (Kind::Authority, _) => write!(
                f,
                "{peer} shows a CA certificate as its own; issue it one that is no CA (basicConstraints CA:FALSE)"
            ),
            (Kind::BadCertificate(cause), _) => {
                write!(f, "{peer}'s certificate cannot be accepted ({cause}); issue it again")
            }
            (Kind::CertificateWanted, Peer::Upstream) => {
                write!(f, "the upstream demands a client certificate; set cert and key in its tls")
            }
            (Kind::CertificateWanted, Peer::Client) => write!(f, "the client shows no certificate, and must"),
            (Kind::CertificateRefused(alert), Peer::Upstream) => write!(
                f,
                "the upstream refuses our client certificate ({alert:?}); does it trust the CA that signed it, and is \
                 it still valid?"
            ),
            (Kind::CertificateRefused(alert), Peer::Client) => write!(
                f,
                "the client refuses our certificate ({alert:?}); does it trust the CA, is it still valid, and does the \
                 file hold the intermediate certificates too?"
            ),
            (Kind::NameRefused, Peer::Upstream) => {
                write!(f, "the upstream does not know the name asked for; set serverName to one that it has")
            }
            (Kind::NameRefused, Peer::Client) => write!(f, "the client refuses the name that it asked for"),
            (Kind::NoCommonProtocol, Peer::Upstream) => write!(
                f,
                "the upstream speaks none of the protocols offered by ALPN; set its protocol to http1 or http2, or auto"
            ),
            (Kind::NoCommonProtocol, Peer::Client) => {
                write!(f, "the client offers by ALPN no protocol that is spoken here (h2, http/1.1)")
            }
            (Kind::NothingInCommon, _) => write!(
                f,
                "{peer} and this proxy have no TLS version, cipher or key kind in common; TLS 1.2 or 1.3 is needed"
            ),
            (Kind::Alert(alert), _) => {
                write!(f, "{peer} ended the TLS handshake ({alert:?}); its own log says more")
            }
            (Kind::Protocol(error), _) => {
                write!(f, "{peer} does not keep to TLS ({error}); is something between us that changes bytes?")
            }
        }
    }
}

impl std::error::Error for TlsFailure {}

/// webpki spells a name `DnsName("a.example")`, and people want `a.example`. It is the peer's text: what could break
/// a line of the log is escaped.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').chars().take(MAX_NAME).flat_map(char::escape_debug).collect()
}

fn shown(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMES));
    }
    text
}

fn span(time: Option<Duration>, before: &str, after: &str) -> String {
    let Some(seconds) = time.map(|time| time.as_secs()) else { return String::new() };
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{before}{count} {unit}{after}")
}

/// A certificate may have hundreds of names; a log line should not.
const MAX_NAMES: usize = 10;
/// The longest DNS name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    use super::super::certs::CertificateSet;
    use super::super::files::PairFiles;
    use super::super::fixture::{Authority, Failed, Folder, Leaf, handshake};
    use super::super::tls::{client_config, provider, server_config};
    use super::*;

    fn client(authority: &Authority) -> Arc<ClientConfig> {
        let folder = Folder::new();
        client_config(Some(&folder.write("ca.crt", &authority.pem())), None, &[b"h2"]).unwrap()
    }

    fn server(leaf: &Leaf, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let set = CertificateSet::load(&[Folder::new().pair("tls", leaf)]).unwrap();
        server_config(Arc::new(set), alpn).unwrap()
    }

    fn said(peer: Peer, error: rustls::Error) -> (&'static str, String) {
        let failure = TlsFailure::of(peer, &io::Error::new(io::ErrorKind::InvalidData, error));
        (failure.word(), failure.to_string())
    }

    fn upstream_with(authority: &Authority, leaf: &Leaf) -> (&'static str, String) {
        match handshake(client(authority), server(leaf, &[]), "a.example") {
            Err(Failed::Client(error)) => said(Peer::Upstream, error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn faults_of_an_upstreams_certificate() {
        let (authority, stranger, namesake) = (Authority::new(), Authority::named("stranger"), Authority::new());
        let many: Vec<String> = (0..12).map(|n| format!("n{n}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (leaf, word, words) in [
            (stranger.leaf(&["a.example"]), "unknown_issuer", "is rootFile the CA that signed it"),
            (namesake.leaf(&["a.example"]), "other_issuer_key", "was the CA made anew?"),
            (
                authority.leaf(&["b.example", "*.c.example"]),
                "wrong_name",
                "not for \"a.example\" but for b.example, *.c.example; set serverName",
            ),
            (authority.leaf(&many), "wrong_name", "n9.example and 2 more"),
            (authority.leaf(&[]), "wrong_name", "for no name at all"),
            (authority.leaf_until(&["a.example"], 2020), "expired", "days ago; renew it"),
            (authority.leaf_from(&["a.example"], 3000), "not_yet_valid", "for another "),
        ] {
            let (said_word, message) = upstream_with(&authority, &leaf);
            assert!(said_word == word && message.contains(words), "{said_word} {message}");
        }
    }

    #[test]
    fn a_self_signed_authority_as_a_servers_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let leaf = Leaf { cert: cert.pem(), key: key.serialize_pem(), der: Vec::new(), key_der: Vec::new() };
        let folder = Folder::new();
        let client = client_config(Some(&folder.write("ca.crt", &leaf.cert)), None, &[]).unwrap();
        let Err(Failed::Client(error)) = handshake(client, server(&leaf, &[]), "a.example") else { panic!() };
        let (word, message) = said(Peer::Upstream, error);
        assert!(word == "authority" && message.contains("CA:FALSE"), "{word} {message}");
    }

    #[test]
    fn a_client_that_shares_no_protocol_or_version() {
        let authority = Authority::new();
        let leaf = authority.leaf(&["a.example"]);
        let Err(Failed::Server(error)) = handshake(client(&authority), server(&leaf, &[b"http/1.1"]), "a.example")
        else {
            panic!()
        };
        assert_eq!(said(Peer::Client, error).0, "no_common_protocol");
        let ed25519 = authority.leaf_with(&["a.example"], &rcgen::PKCS_ED25519);
        let mut config = provider().as_ref().clone();
        config.cipher_suites.retain(|suite| suite.tls13().is_none());
        let old = ClientConfig::builder_with_provider(Arc::new(config))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let new = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(CertificateSet::load(&[Folder::new().pair("tls", &ed25519)]).unwrap()));
        let Err(Failed::Server(error)) = handshake(Arc::new(old), Arc::new(new), "a.example") else { panic!() };
        assert_eq!(said(Peer::Client, error).0, "nothing_in_common");
    }

    /// What a client of ours says when the other end does `answer` on a real socket.
    fn upstream_that(config: Arc<ClientConfig>, answer: impl FnOnce(TcpStream) + Send + 'static) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || answer(listener.accept().unwrap().0));
        let mut tls = ClientConnection::new(config, ServerName::try_from("a.example").unwrap()).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        let error = tls
            .complete_io(&mut socket)
            .and_then(|_| rustls::Stream::new(&mut tls, &mut socket).read(&mut [0; 1]))
            .unwrap_err();
        drop(socket);
        peer.join().unwrap();
        let failure = TlsFailure::of(Peer::Upstream, &error);
        (failure.word().to_owned(), failure.to_string())
    }

    #[test]
    fn an_upstream_that_speaks_plain_http() {
        let config = client(&Authority::new());
        let (word, message) = upstream_that(config.clone(), |mut socket| {
            drop(socket.read(&mut [0; 16]));
            drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
        });
        assert!(word == "not_tls" && message.contains("is it plain HTTP? then remove tls"), "{word} {message}");
        let (word, message) = upstream_that(config, |mut socket| drop(socket.read(&mut [0; 4096])));
        assert!(word == "closed" && message.contains("plain HTTP (then remove tls)"), "{word} {message}");
    }

    #[test]
    fn an_upstream_that_demands_a_certificate() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let root = folder.write("ca.crt", &authority.pem());
        let own = |name: &str, authority: &Authority| {
            let (cert, key) = folder.pair(name, &authority.leaf(&["proxy.example"]));
            PairFiles { cert, key }
        };
        let stranger = own("stranger", &Authority::named("stranger"));
        let namesake = own("namesake", &Authority::new());
        let files = folder.pair("tls", &authority.leaf(&["a.example"]));
        for (own, expected, words) in [
            (None, "certificate_wanted", "set cert and key in its tls"),
            (Some(&stranger), "certificate_refused", "UnknownCA"),
            (Some(&namesake), "certificate_refused", "does it trust the CA"),
        ] {
            let set = CertificateSet::load(std::slice::from_ref(&files)).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(
                super::super::files::certificates(&root, authority.pem().as_bytes()).unwrap(),
            );
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let server = rustls::ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(verifier.build().unwrap())
                .with_cert_resolver(Arc::new(set));
            let config = client_config(Some(&root), own, &[]).unwrap();
            let (word, message) = upstream_that(config, move |mut socket| {
                let mut tls = ServerConnection::new(Arc::new(server)).unwrap();
                drop(tls.complete_io(&mut socket));
                drop(socket.shutdown(std::net::Shutdown::Write));
                drop(socket.read_to_end(&mut Vec::new()));
            });
            assert!(word == expected && message.contains(words), "{word} {message}");
        }
    }

    #[test]
    fn a_client_that_does_not_trust_us_or_speaks_http() {
        let error = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let (word, message) = said(Peer::Client, error);
        assert!(word == "certificate_refused" && message.contains("does it trust the CA"), "{message}");
        let mut tls = ServerConnection::new(server(&Authority::new().leaf(&["a.example"]), &[])).unwrap();
        tls.read_tls(&mut &b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"[..]).unwrap();
        let (word, message) = said(Peer::Client, tls.process_new_packets().unwrap_err());
        assert!(word == "not_tls" && message.contains("http:// where https://"), "{word} {message}");
    }

    #[test]
    fn names_are_told_as_people_write_them() {
        for (name, expected) in [
            ("DnsName(\"*.a.example\")", "*.a.example"),
            ("IpAddress(10.0.0.1)", "10.0.0.1"),
            ("UniformResourceIdentifier(\"spiffe://c/ns/n/sa/s\")", "spiffe://c/ns/n/sa/s"),
            ("DirectoryName", "DirectoryName"),
            ("DnsName(\"a\nlevel=error\")", "a\\nlevel=error"),
        ] {
            assert_eq!(plain(name), expected);
        }
        assert_eq!(plain(&"x".repeat(9_999)).len(), 255);
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        for (seconds, expected) in
            [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7_200, "2 hours"), (172_800, "2 days")]
        {
            assert_eq!(span(Some(Duration::from_secs(seconds)), "", ""), expected);
        }
        assert_eq!(span(None, "x", "y"), "");
    }
}
