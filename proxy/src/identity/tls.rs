//! The two rustls configurations: what a gateway offers its clients, and what is demanded of an upstream.
//!
//! Both speak TLS 1.2 and 1.3 and are given the aws-lc-rs provider by name, so that no process-wide default can change
//! what they do. A configuration is made once, on start, and shared by all workers: tickets are good on each of them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::files::{self, CertificateError, PairFiles};

/// Clients are not asked for a certificate. Sessions resume by ticket, so nothing is kept per session; ticket keys
/// change every six hours and are not shared between proxies. `alpn` in order of preference.
pub fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Provider)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(CertificateError::Provider)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For one upstream: its certificate must come from `root_file`, or without one from the system's roots, which are
/// where the distribution puts them unless SSL_CERT_FILE or SSL_CERT_DIR say otherwise, as for every TLS client.
pub fn client_config(
    root_file: Option<&Path>,
    client_cert: Option<&PairFiles>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, CertificateError> {
    let provider = provider();
    let roots = match root_file {
        Some(file) => roots_of(file)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Provider)?
        .with_root_certificates(roots);
    let mut config = match client_cert {
        Some(pair) => {
            let key = pair.parse(&pair.read()?, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Every certificate of the file must be usable: a root that is silently left out shows only when its leaf comes.
fn roots_of(file: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(file, &files::read(file)?)? {
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|cause| CertificateError::BadCertificate { file: file.to_owned(), cause })?;
        roots.roots.push(anchor.to_owned());
    }
    Ok(roots)
}

/// Here an unusable one is left out: the system's list is not the operator's to mend.
fn system_roots() -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(CertificateError::NoSystemRoots),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{HandshakeKind, ProtocolVersion};

    use super::super::certs::CertificateSet;
    use super::super::fixture::{Authority, Failed, Folder, Leaf, handshake};
    use super::*;

    struct Setup {
        folder: Folder,
        authority: Authority,
    }

    impl Setup {
        fn new() -> Setup {
            let setup = Setup { folder: Folder::new(), authority: Authority::new() };
            setup.folder.write("ca.crt", &setup.authority.pem());
            setup
        }

        fn server(&self, leaf: &Leaf, alpn: &[&[u8]]) -> Arc<ServerConfig> {
            let set = CertificateSet::load(&[self.folder.pair("tls", leaf)]).unwrap();
            server_config(Arc::new(set), alpn).unwrap()
        }

        fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
            client_config(Some(&self.folder.path("ca.crt")), None, alpn).unwrap()
        }
    }

    #[test]
    fn a_handshake_settles_version_and_protocol() {
        let setup = Setup::new();
        let server = setup.server(&setup.authority.leaf(&["a.example"]), &[b"h2", b"http/1.1"]);
        for (offered, settled) in
            [(&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
        {
            let (client, _) = handshake(setup.client(offered), server.clone(), "a.example").unwrap();
            assert_eq!(client.alpn_protocol(), settled);
            assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        }
        let mut old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots_of(&setup.folder.path("ca.crt")).unwrap())
            .with_no_client_auth();
        old.alpn_protocols = vec![b"h2".to_vec()];
        let (client, _) = handshake(Arc::new(old), server, "a.example").unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    }

    #[test]
    fn sessions_resume_by_ticket_alone() {
        let setup = Setup::new();
        let mut server = (*setup.server(&setup.authority.leaf(&["a.example"]), &[])).clone();
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let (client, server) = (setup.client(&[]), Arc::new(server));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (client, _) = handshake(client.clone(), server.clone(), "a.example").unwrap();
            assert_eq!(client.handshake_kind(), Some(expected));
        }
    }

    #[test]
    fn a_client_certificate_is_shown_to_who_asks() {
        let setup = Setup::new();
        let leaf = setup.authority.leaf(&["a.example"]);
        let own = setup.authority.leaf(&["proxy.example"]);
        let (cert, key) = setup.folder.pair("own", &own);
        let roots = Arc::new(roots_of(&setup.folder.path("ca.crt")).unwrap());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let set = CertificateSet::load(&[setup.folder.pair("tls", &leaf)]).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(set));
        let root = setup.folder.path("ca.crt");
        let client = client_config(Some(&root), Some(&PairFiles { cert, key }), &[]).unwrap();
        let (_, server_side) = handshake(client, Arc::new(server.clone()), "a.example").unwrap();
        assert_eq!(server_side.peer_certificates().unwrap()[0].to_vec(), own.der);
        assert!(matches!(handshake(setup.client(&[]), Arc::new(server), "a.example"), Err(Failed::Server(_))));
    }

    #[test]
    fn roots_are_read_whole_or_refused_by_name() {
        let setup = Setup::new();
        let other = Authority::new();
        let both = setup.folder.write("both.crt", &format!("{}{}", other.pem(), setup.authority.pem()));
        let server = setup.server(&setup.authority.leaf(&["a.example"]), &[]);
        handshake(client_config(Some(&both), None, &[]).unwrap(), server, "a.example").unwrap();
        let empty = setup.folder.write("empty.crt", "");
        let error = client_config(Some(&empty), None, &[]).unwrap_err().to_string();
        assert!(error.contains("empty.crt: holds no certificate"), "{error}");
    }

    #[test]
    fn without_a_root_file_the_system_decides() {
        let setup = Setup::new();
        let server = setup.server(&setup.authority.leaf(&["a.example"]), &[]);
        // A machine may have no roots at all; either way our own authority is not among them.
        match client_config(None, None, &[]) {
            Ok(client) => assert!(matches!(handshake(client, server, "a.example"), Err(Failed::Client(_)))),
            Err(error) => assert!(matches!(error, CertificateError::NoSystemRoots)),
        }
    }
}
