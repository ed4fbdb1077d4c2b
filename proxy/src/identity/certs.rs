//! The certificates of a listener, chosen by the name that a client asks for.
//!
//! Names are those of the leaf's subjectAltName; an exact one comes before a wildcard, which stands for one label
//! (RFC 9525 §6.3). Two certificates for one name, say ECDSA and RSA, are told apart by what the client can verify.
//! A set never changes; `reload` makes a new one when the files do.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::der;
use super::files::PairBytes;
pub use super::files::{CertificateError, PairFiles};
use super::tls::provider;

/// At least one certificate. The first is the default.
#[derive(Debug)]
pub struct CertificateSet {
    pub(super) pairs: Vec<Arc<Pair>>,
    /// In lower case, wildcards as `*.suffix`; the pairs in their order.
    names: HashMap<String, Vec<Arc<Pair>>>,
}

/// One certificate chain with its key.
#[derive(Debug)]
pub struct Pair {
    pub files: PairFiles,
    /// Of the leaf.
    pub not_after: Option<SystemTime>,
    pub names: Vec<String>,
    key: Arc<CertifiedKey>,
    pub(super) fingerprint: Fingerprint,
}

/// Tells whether files have changed without keeping a second copy of the key. They are the operator's own files, so
/// nobody works on a collision, and a change of one by chance is not seen once in 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl CertificateSet {
    pub fn load(files: &[(PathBuf, PathBuf)]) -> Result<CertificateSet, CertificateError> {
        let provider = provider();
        let load = |(cert, key): &(PathBuf, PathBuf)| {
            let files = PairFiles { cert: cert.clone(), key: key.clone() };
            let bytes = files.read()?;
            Pair::parse(files, &bytes, &provider).map(Arc::new)
        };
        match files.is_empty() {
            true => Err(CertificateError::NoneGiven),
            false => Ok(CertificateSet::new(files.iter().map(load).collect::<Result<_, _>>()?)),
        }
    }

    pub(super) fn new(pairs: Vec<Arc<Pair>>) -> CertificateSet {
        let mut names: HashMap<String, Vec<Arc<Pair>>> = HashMap::new();
        for pair in &pairs {
            for name in &pair.names {
                names.entry(name.clone()).or_default().push(pair.clone());
            }
        }
        CertificateSet { pairs, names }
    }

    /// The certificate's file and the end of its life, for the metric.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, SystemTime)> {
        self.pairs.iter().filter_map(|pair| Some((pair.files.cert.as_path(), pair.not_after?)))
    }

    /// Without a fitting name, or without any name, the first: a client that is shown a wrong certificate says so in
    /// words that its user understands, one whose handshake is cut off cannot. It is also what clients get that
    /// connect by address, since SNI never carries one (RFC 6066 §3).
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            let wildcard = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
            self.names.get(&name).or_else(wildcard)
        });
        let pairs = named.unwrap_or(&self.pairs);
        let verifiable = || named?.iter().find(|pair| pair.key.key.choose_scheme(schemes).is_some());
        verifiable().or_else(|| pairs.first()).map(|pair| &pair.key)
    }
}

impl ResolvesServerCert for CertificateSet {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

impl Pair {
    pub(super) fn parse(
        files: PairFiles,
        bytes: &PairBytes,
        provider: &CryptoProvider,
    ) -> Result<Pair, CertificateError> {
        let key = files.parse(bytes, provider)?;
        let mut pair =
            Pair { not_after: None, names: Vec::new(), key: key.clone(), fingerprint: Fingerprint::of(bytes), files };
        if let Some(leaf) = key.cert.first() {
            let certificate = webpki::EndEntityCert::try_from(leaf)
                .map_err(|cause| CertificateError::BadCertificate { file: pair.files.cert.clone(), cause })?;
            pair.names = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
            pair.not_after = der::not_after(leaf);
        }
        Ok(pair)
    }
}

impl Fingerprint {
    pub(super) fn of(bytes: &PairBytes) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        (&bytes.cert, &bytes.key).hash(&mut hasher);
        Fingerprint(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::fixture::{Authority, Folder, shown_names};
    use super::*;

    #[test]
    fn the_name_chooses() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let set = CertificateSet::load(&[
            folder.pair("default", &authority.leaf(&["fallback.example"])),
            folder.pair("shop", &authority.leaf(&["Shop.example", "www.shop.example"])),
            folder.pair("wild", &authority.leaf(&["*.shop.example", "*.other.example"])),
        ]);
        let set = Arc::new(set.unwrap());
        for (name, expected) in [
            (Some("shop.example"), "shop.example"),
            (Some("SHOP.example"), "shop.example"),
            (Some("www.shop.example"), "shop.example"),
            (Some("cart.shop.example"), "*.shop.example"),
            (Some("a.b.shop.example"), "fallback.example"),
            (Some("other.example"), "fallback.example"),
            (Some("a.other.example"), "*.shop.example"),
            (Some("stranger.example"), "fallback.example"),
            (Some("localhost"), "fallback.example"),
            (None, "fallback.example"),
        ] {
            let names = shown_names(set.clone(), name);
            assert_eq!(names.first().map(|name| name.to_ascii_lowercase()).as_deref(), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn of_two_kinds_of_key_the_one_that_the_client_can_verify() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let ed25519 = authority.leaf_with(&["a.example"], &rcgen::PKCS_ED25519);
        let ecdsa = authority.leaf(&["a.example"]);
        let set = CertificateSet::load(&[folder.pair("ed25519", &ed25519), folder.pair("ecdsa", &ecdsa)]).unwrap();
        let chosen = |schemes: &[SignatureScheme]| set.choose(Some("a.example"), schemes).unwrap().cert[0].to_vec();
        assert_eq!(chosen(&[SignatureScheme::ECDSA_NISTP256_SHA256]), ecdsa.der);
        assert_eq!(chosen(&[SignatureScheme::ED25519]), ed25519.der);
        assert_eq!(chosen(&[SignatureScheme::RSA_PSS_SHA256]), ed25519.der, "the first, if none will do");
    }

    #[test]
    fn the_end_is_known_beforehand_and_an_expired_one_still_loads() {
        let (authority, folder) = (Authority::new(), Folder::new());
        let files = [
            folder.pair("new", &authority.leaf_until(&["a.example"], 2050)),
            folder.pair("old", &authority.leaf_until(&["b.example"], 2020)),
        ];
        let set = CertificateSet::load(&files).unwrap();
        let ends: Vec<_> = set.expiries().map(|(file, end)| (file.to_owned(), end)).collect();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(ends, [(files[0].0.clone(), at(2_524_608_000)), (files[1].0.clone(), at(1_577_836_800))]);
    }

    #[test]
    fn a_set_is_never_empty() {
        assert!(matches!(CertificateSet::load(&[]), Err(CertificateError::NoneGiven)));
    }
}
