//! The emulator's certificates: a CA of its own and a leaf for loopback, kept in the data directory.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::error::Error;
use crate::state::write_whole;

/// What the server and its clients need.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    /// SHA-256 of the leaf, `AA:BB:...`.
    pub(crate) fingerprint: String,
    pub(crate) ca_pem: String,
    /// The leaf.
    pub(crate) certificate_pem: String,
}

/// Loads the certificates of the data directory or makes them.
pub(crate) fn identity(dir: &Path, names: &[String]) -> Result<Identity, Error> {
    let [ca_file, leaf_file, key_file] = ["pve-root-ca.pem", "pve-ssl.pem", "pve-ssl.key"].map(|n| dir.join(n));
    let io = |source| Error::Data {
        path: dir.to_owned(),
        source,
    };
    if !(ca_file.exists() && leaf_file.exists() && key_file.exists()) {
        let (ca, leaf, key) = generate(names).map_err(|e| tls(&e))?;
        write_whole(&ca_file, ca.as_bytes()).map_err(io)?;
        write_whole(&leaf_file, leaf.as_bytes()).map_err(io)?;
        write_whole(&key_file, key.as_bytes()).map_err(io)?;
    }
    let ca_pem = std::fs::read_to_string(&ca_file).map_err(io)?;
    let certificate_pem = std::fs::read_to_string(&leaf_file).map_err(io)?;
    let leaf = CertificateDer::from_pem_file(&leaf_file).map_err(|e| tls(&e))?;
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|e| tls(&e))?;
    let hash = Sha256::digest(&leaf);
    let fingerprint: Vec<String> = hash.iter().map(|b| format!("{b:02X}")).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Only the leaf is sent, as PVE does (FACTS 21), and HTTP/1.1 is all there is, so no ALPN.
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .map_err(|e| tls(&e))?;
    Ok(Identity {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        fingerprint: fingerprint.join(":"),
        ca_pem,
        certificate_pem,
    })
}

fn tls(error: &dyn std::fmt::Display) -> Error {
    Error::Tls {
        reason: error.to_string(),
    }
}

/// A CA, a leaf signed by it and the leaf's key, all as PEM.
fn generate(names: &[String]) -> Result<(String, String, String), rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name = name("Proxmox Virtual Environment (emulated)");
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let mut alternatives = vec!["localhost".to_owned(), "::1".to_owned()];
    // One certificate serves all nodes, each at a loopback address of its own.
    alternatives.extend((1..=32).map(|n| format!("127.0.0.{n}")));
    alternatives.extend(names.iter().cloned());
    let mut leaf = CertificateParams::new(alternatives)?;
    leaf.distinguished_name = name(names.first().map_or("pve", String::as_str));
    let key = KeyPair::generate()?;
    let pem = leaf.signed_by(&key, &issuer)?.pem();
    Ok((ca_pem, pem, key.serialize_pem()))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// TLS for downloads by the node: the system's roots, or none at all with `verify-certificates=0`.
pub(crate) fn client_config(verify: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if !verify {
        let verifier = Arc::new(AnyCertificate(provider));
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes every certificate: the caller of `download-url` asked for it by name.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path(), &["pve".into()]).unwrap();
        let second = identity(dir.path(), &["pve".into()]).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), 95);
        assert!(first.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
