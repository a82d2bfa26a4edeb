//! `Tls`: which certificate of the server is accepted.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{
    error::{Error, TlsProblem},
    types::fingerprint::Fingerprint,
};

/// Which certificate of the server is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// One that an authority of this machine vouches for.
    #[default]
    Verify,
    /// One that an authority in this PEM file vouches for, for example a copy of `/etc/pve/pve-root-ca.pem`; no other counts.
    CaFile(PathBuf),
    /// The same from PEM text.
    CaPem(Vec<u8>),
    /// The one with this fingerprint. It decides alone: names, dates and authorities are not looked at.
    Pinned(Fingerprint),
    /// Any. Whoever sits in between reads the token; for throw-away test machines only.
    Insecure,
}

impl Tls {
    /// # Errors
    /// [`Error::File`] for an unreadable CA file, [`Error::Invalid`] when there is no usable authority.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        // Given explicitly: a process-wide default may be another one, or missing, which panics.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let policy = match self {
            Self::Verify => Policy::Authorities(web_pki(native_roots()?, &provider)?),
            Self::CaFile(path) => {
                let pem = std::fs::read(path).map_err(|source| Error::File {
                    action: "read the CA file",
                    path: path.clone(),
                    source,
                })?;
                Policy::Authorities(web_pki(roots_of_pem(&pem, &path.display().to_string())?, &provider)?)
            }
            Self::CaPem(pem) => Policy::Authorities(web_pki(roots_of_pem(pem, "the given text")?, &provider)?),
            Self::Pinned(fingerprint) => Policy::Pinned(*fingerprint),
            Self::Insecure => Policy::Any,
        };
        let verifier = Arc::new(Verifier {
            policy,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("tls", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(config)
    }
}

fn native_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some machines carry certificates that rustls cannot use; the others still count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::invalid(
            "tls",
            "this machine has no trusted authorities (package ca-certificates): install it, give a CA file, or pin the fingerprint",
        ));
    }
    Ok(roots)
}

fn roots_of_pem(pem: &[u8], origin: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| Error::invalid("CA file", format!("{origin} is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| {
            Error::invalid(
                "CA file",
                format!("{origin} holds a certificate that cannot be an authority: {error}"),
            )
        })?;
    }
    if roots.is_empty() {
        return Err(Error::invalid(
            "CA file",
            format!("{origin} holds no certificate (BEGIN CERTIFICATE)"),
        ));
    }
    Ok(roots)
}

fn web_pki(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::invalid("tls", error.to_string()))
}

#[derive(Debug)]
enum Policy {
    Authorities(Arc<WebPkiServerVerifier>),
    Pinned(Fingerprint),
    Any,
}

/// Judges the leaf by the policy, and always checks that the server holds its key: a pin on a certificate that anyone can copy
/// from the wire would else be worth nothing.
#[derive(Debug)]
struct Verifier {
    policy: Policy,
    provider: Arc<CryptoProvider>,
}

/// Carries our own finding through rustls, hyper and reqwest; [`problem_in`] takes it out again.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("another certificate than the pinned one")]
    Mismatch {
        expected: Fingerprint,
        presented: Fingerprint,
    },
    #[error("{reason}")]
    Untrusted { presented: Fingerprint, reason: String },
}

fn refuse(refusal: Refusal) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(refusal))))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Fingerprint::of_der(end_entity);
        match &self.policy {
            Policy::Any => Ok(ServerCertVerified::assertion()),
            Policy::Pinned(expected) if *expected == presented => Ok(ServerCertVerified::assertion()),
            Policy::Pinned(expected) => Err(refuse(Refusal::Mismatch {
                expected: *expected,
                presented,
            })),
            Policy::Authorities(verifier) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| {
                    refuse(Refusal::Untrusted {
                        presented,
                        reason: reason_of(&error),
                    })
                }),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn reason_of(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no trusted authority has signed it (Proxmox VE signs its own by default)".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "it is for another host name".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "it has expired".to_owned()
        }
        other => other.to_string(),
    }
}

/// Looks for a TLS failure in a chain of errors.
pub(crate) fn problem_in(error: &(dyn std::error::Error + 'static)) -> Option<TlsProblem> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(problem_of(tls));
        }
        // An `io::Error` hands out the source of what it wraps, not what it wraps.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn problem_of(error: &rustls::Error) -> TlsProblem {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(inner))) = error {
        match inner.downcast_ref::<Refusal>() {
            Some(Refusal::Mismatch { expected, presented }) => {
                return TlsProblem::FingerprintMismatch {
                    expected: *expected,
                    presented: *presented,
                };
            }
            Some(Refusal::Untrusted { presented, reason }) => {
                return TlsProblem::Untrusted {
                    presented: *presented,
                    reason: reason.clone(),
                };
            }
            None => {}
        }
    }
    TlsProblem::Handshake {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_authorities_are_told() {
        assert!(matches!(
            Tls::CaFile("/nonexistent/ca.pem".into()).client_config(),
            Err(Error::File { .. })
        ));
        for pem in [
            &b""[..],
            b"no certificate",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(matches!(
                Tls::CaPem(pem.to_vec()).client_config(),
                Err(Error::Invalid { .. })
            ));
        }
    }

    #[test]
    fn the_finding_comes_out_of_nested_errors() {
        let (expected, presented) = (Fingerprint::from([1; 32]), Fingerprint::from([2; 32]));
        let wrapped = std::io::Error::other(std::io::Error::other(refuse(Refusal::Mismatch { expected, presented })));
        match problem_in(&wrapped) {
            Some(TlsProblem::FingerprintMismatch {
                expected: e,
                presented: p,
            }) => assert_eq!((e, p), (expected, presented)),
            other => panic!("{other:?}"),
        }
        assert!(problem_in(&std::io::Error::other("plain")).is_none());
    }
}
