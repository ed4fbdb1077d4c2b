//! Reads certificate chains and private keys from PEM files.
//!
//! Keys may be PKCS#8, PKCS#1 or SEC1. Every error names the file and what to do about it. Called by `certs`, `reload`
//! and `tls`, at start and on the background runtime; never on the road.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;

/// A certificate chain's file and its key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The contents of [`PairFiles`] at one moment.
pub(super) struct PairBytes {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

#[derive(Debug)]
pub enum CertificateError {
    Unreadable {
        file: PathBuf,
        cause: io::Error,
    },
    TooLong {
        file: PathBuf,
    },
    NotPem {
        file: PathBuf,
        cause: pem::Error,
    },
    NoCertificate {
        file: PathBuf,
    },
    BadCertificate {
        file: PathBuf,
        cause: webpki::Error,
    },
    NoKey {
        file: PathBuf,
    },
    EncryptedKey {
        file: PathBuf,
    },
    BadKey {
        file: PathBuf,
        cause: rustls::Error,
    },
    KeyMismatch {
        cert: PathBuf,
        key: PathBuf,
    },
    NoneGiven,
    NoSystemRoots,
    /// rustls refuses its own defaults.
    Provider(rustls::Error),
}

impl PairFiles {
    pub(super) fn read(&self) -> Result<PairBytes, CertificateError> {
        Ok(PairBytes { cert: read(&self.cert)?, key: read(&self.key)? })
    }

    pub(super) fn parse(
        &self,
        bytes: &PairBytes,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let chain = certificates(&self.cert, &bytes.cert)?;
        let key = private_key(&self.key, &bytes.key)?;
        let bad_key = |cause| CertificateError::BadKey { file: self.key.clone(), cause };
        let key = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).map_err(bad_key)?);
        match key.keys_match() {
            Ok(()) => Ok(Arc::new(key)),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(CertificateError::KeyMismatch { cert: self.cert.clone(), key: self.key.clone() })
            }
            Err(cause) => Err(bad_key(cause)),
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|cause| CertificateError::Unreadable { file: path.to_owned(), cause })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(CertificateError::TooLong { file: path.to_owned() });
    }
    Ok(bytes)
}

/// At least one, each of a form that can be read.
pub(super) fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| CertificateError::NotPem { file: file.to_owned(), cause })?;
    for certificate in &certificates {
        webpki::EndEntityCert::try_from(certificate)
            .map_err(|cause| CertificateError::BadCertificate { file: file.to_owned(), cause })?;
    }
    match certificates.is_empty() {
        true => Err(CertificateError::NoCertificate { file: file.to_owned() }),
        false => Ok(certificates),
    }
}

fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let file = file.to_owned();
    let encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    PrivateKeyDer::from_pem_slice(pem).map_err(|cause| match cause {
        _ if encrypted.iter().any(|mark| pem.windows(mark.len()).any(|window| window == *mark)) => {
            CertificateError::EncryptedKey { file }
        }
        pem::Error::NoItemsFound => CertificateError::NoKey { file },
        cause => CertificateError::NotPem { file, cause },
    })
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable { file, cause } => write!(
                f,
                "{}: cannot be read ({cause}); does it exist, and may the proxy's user read it?",
                file.display()
            ),
            CertificateError::TooLong { file } => write!(
                f,
                "{}: longer than {} KiB; a chain or a bundle of roots in PEM is shorter, is this another file?",
                file.display(),
                MAX_FILE / 1024
            ),
            CertificateError::NotPem { file, cause } => {
                write!(f, "{}: broken PEM ({cause}); was it cut off while being copied?", file.display())
            }
            CertificateError::NoCertificate { file } => write!(
                f,
                "{}: holds no certificate; it should have `-----BEGIN CERTIFICATE-----` \
                 (a DER file is turned into PEM by `openssl x509 -inform der`)",
                file.display()
            ),
            CertificateError::BadCertificate { file, cause: webpki::Error::UnsupportedCertVersion } => write!(
                f,
                "{}: a certificate of X.509 version 1, which TLS peers refuse; sign it again with a subjectAltName \
                 extension, which makes it version 3",
                file.display()
            ),
            CertificateError::BadCertificate { file, cause } => {
                write!(f, "{}: holds a certificate that cannot be read ({cause}); issue it again", file.display())
            }
            CertificateError::NoKey { file } => write!(
                f,
                "{}: holds no private key; it should have `-----BEGIN PRIVATE KEY-----` (or RSA or EC PRIVATE KEY)",
                file.display()
            ),
            CertificateError::EncryptedKey { file } => write!(
                f,
                "{}: the private key is encrypted and nobody is there to type its passphrase; \
                 decrypt it with `openssl pkey` and protect it by file permissions",
                file.display()
            ),
            CertificateError::BadKey { file, cause } => write!(
                f,
                "{}: the private key cannot be used ({cause}); use ECDSA P-256 or P-384, Ed25519, or RSA of at least \
                 2048 bits",
                file.display()
            ),
            CertificateError::KeyMismatch { cert, key } => write!(
                f,
                "{}: this key does not belong to the first certificate of {}; give the key that certificate was made \
                 from, and put the server's own certificate first",
                key.display(),
                cert.display()
            ),
            CertificateError::NoneGiven => write!(f, "no certificate is given; name at least one pair of cert and key"),
            CertificateError::NoSystemRoots => write!(
                f,
                "this system has no root certificates; install them (package ca-certificates) or set rootFile"
            ),
            CertificateError::Provider(cause) => write!(f, "TLS cannot be set up ({cause})"),
        }
    }
}

impl std::error::Error for CertificateError {}

/// The largest bundles of public roots are about 300 KiB.
const MAX_FILE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::super::fixture::{Authority, Folder, Leaf, key_in_old_form};
    use super::super::tls::provider;
    use super::*;

    fn parse(cert: &str, key: &str) -> Result<Arc<CertifiedKey>, CertificateError> {
        let files = PairFiles { cert: "tls.crt".into(), key: "tls.key".into() };
        files.parse(&PairBytes { cert: cert.into(), key: key.into() }, &provider())
    }

    #[test]
    fn keys_of_every_form_are_read() {
        let authority = Authority::new();
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let leaf = authority.leaf_with(&["a.example"], algorithm);
            parse(&leaf.cert, &leaf.key).unwrap();
        }
        let ecdsa = authority.leaf(&["a.example"]);
        parse(&ecdsa.cert, &key_in_old_form(&ecdsa, "EC PRIVATE KEY")).unwrap();
        let rsa = authority.leaf_with(&["a.example"], &rcgen::PKCS_RSA_SHA256);
        parse(&rsa.cert, &rsa.key).unwrap();
        parse(&rsa.cert, &key_in_old_form(&rsa, "RSA PRIVATE KEY")).unwrap();
    }

    #[test]
    fn what_stands_around_the_key_does_not_matter() {
        let leaf = Authority::new().leaf(&["a.example"]);
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let both = format!("a comment\n{parameters}{}{}", leaf.key, leaf.cert).replace('\n', "\r\n");
        parse(&both, &both).unwrap();
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let authority = Authority::new();
        let (leaf, other): (Leaf, Leaf) = (authority.leaf(&["a.example"]), authority.leaf(&["a.example"]));
        let chain_upside_down = format!("{}{}", authority.pem(), leaf.cert);
        let encrypted = leaf.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (cert, key, words) in [
            (leaf.cert.as_str(), other.key.as_str(), ["tls.key: this key does not belong", "of tls.crt"]),
            (&chain_upside_down, &leaf.key, ["does not belong", "own certificate first"]),
            ("", &leaf.key, ["tls.crt: holds no certificate", "BEGIN CERTIFICATE"]),
            (&leaf.key, &leaf.key, ["tls.crt: holds no certificate", "BEGIN CERTIFICATE"]),
            (&leaf.cert, &leaf.cert, ["tls.key: holds no private key", "BEGIN PRIVATE KEY"]),
            (&leaf.cert, &encrypted, ["tls.key: the private key is encrypted", "openssl pkey"]),
            (&leaf.cert, &leaf.key[..80], ["tls.key: broken PEM", "cut off"]),
            (&leaf.cert[..80], &leaf.key, ["tls.crt: broken PEM", "cut off"]),
            (garbage, &leaf.key, ["tls.crt: holds a certificate that cannot be read", "issue it again"]),
        ] {
            let message = parse(cert, key).unwrap_err().to_string();
            assert!(words.iter().all(|words| message.contains(words)), "{message}");
        }
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let folder = Folder::new();
        let (missing, long) = (folder.path("missing"), folder.path("long"));
        std::fs::write(&long, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(read(&missing).unwrap_err().to_string().contains("missing: cannot be read (No such file"));
        assert!(read(&long).unwrap_err().to_string().contains("longer than 1024 KiB"));
        std::fs::write(&long, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(read(&long).unwrap().len(), 1024 * 1024);
    }
}
