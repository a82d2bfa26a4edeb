//! The two key pairs of one build: one to log in, one for the guest to show.

use std::fmt;
use std::sync::Arc;

use proxmox_client::Client;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use secrecy::{ExposeSecret as _, SecretString};

/// Key pairs made for one build and forgotten with it.
///
/// The login key's public half and the whole host key travel in the kickstart, so both sides know each other before the
/// first connection and nothing has to be trusted on first use. Sealing removes both from the image.
#[derive(Clone)]
pub struct BuildKeys {
    login: Arc<PrivateKey>,
    host: Arc<PrivateKey>,
    /// Whether another process can make the same pairs again.
    lasting: bool,
}

impl BuildKeys {
    /// Makes two fresh ed25519 pairs; `comment` ends up behind both public keys.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(comment: &str) -> Result<Self, russh::keys::ssh_key::Error> {
        let fresh = || {
            let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)?;
            key.set_comment(comment);
            Ok::<_, russh::keys::ssh_key::Error>(Arc::new(key))
        };
        Ok(Self {
            login: fresh()?,
            host: fresh()?,
            lasting: false,
        })
    }

    /// The ed25519 pairs that belong to a build and to the API token that `client` uses: any process with the same token makes
    /// the same ones, and so can go on with the build. With a password there is nothing to make lasting keys of, and these
    /// are fresh.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn of_build(client: &Client, comment: &str) -> Result<Self, russh::keys::ssh_key::Error> {
        let pair = |of: &str| {
            let seed = client.derived_key(format!("k3simage ssh {of} key of {comment}").as_bytes())?;
            let seed: [u8; 32] = seed.expose_secret().try_into().ok()?;
            let pair = Ed25519Keypair::from_seed(&seed);
            PrivateKey::new(pair.into(), comment).ok().map(Arc::new)
        };
        match (pair("login"), pair("host")) {
            (Some(login), Some(host)) => Ok(Self {
                login,
                host,
                lasting: true,
            }),
            _ => Self::generate(comment),
        }
    }

    /// Fingerprint of the login key, if another process can make that key again.
    pub(crate) fn lasting_fingerprint(&self) -> Option<String> {
        self.lasting
            .then(|| self.login.fingerprint(HashAlg::Sha256).to_string())
    }

    /// The line for `authorized_keys`.
    ///
    /// # Errors
    /// When the key cannot be encoded, which fresh ed25519 keys always can.
    pub fn login_public_line(&self) -> Result<String, russh::keys::ssh_key::Error> {
        self.login.public_key().to_openssh()
    }

    /// The host key as `ssh_host_ed25519_key` holds it, with its line end.
    ///
    /// # Errors
    /// When the key cannot be encoded, which fresh ed25519 keys always can.
    pub fn host_private_file(&self) -> Result<SecretString, russh::keys::ssh_key::Error> {
        Ok(SecretString::from(
            self.host.to_openssh(LineEnding::LF)?.as_str().to_owned(),
        ))
    }

    /// The host key as `ssh_host_ed25519_key.pub` holds it.
    ///
    /// # Errors
    /// When the key cannot be encoded, which fresh ed25519 keys always can.
    pub fn host_public_line(&self) -> Result<String, russh::keys::ssh_key::Error> {
        self.host.public_key().to_openssh()
    }

    /// The host key that the guest will show.
    pub fn host_public(&self) -> &PublicKey {
        self.host.public_key()
    }

    /// The key to log in with.
    pub(crate) fn login(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.login)
    }
}

impl fmt::Debug for BuildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { login, host, lasting } = self;
        f.debug_struct("BuildKeys")
            .field("login", &login.fingerprint(HashAlg::Sha256).to_string())
            .field("host", &host.fingerprint(HashAlg::Sha256).to_string())
            .field("lasting", lasting)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn keys_are_fresh_and_readable_by_openssh() {
        let keys = BuildKeys::generate("k3simage-7f3a").unwrap();
        let again = BuildKeys::generate("k3simage-7f3a").unwrap();
        assert_ne!(keys.login_public_line().unwrap(), again.login_public_line().unwrap());
        assert_ne!(keys.login_public_line().unwrap(), keys.host_public_line().unwrap());
        let line = keys.login_public_line().unwrap();
        assert!(
            line.starts_with("ssh-ed25519 AAAA") && line.ends_with(" k3simage-7f3a"),
            "{line}"
        );
        let file = keys.host_private_file().unwrap();
        let read = PrivateKey::from_openssh(file.expose_secret()).unwrap();
        assert_eq!(read.public_key().key_data(), keys.host_public().key_data());
    }

    #[test]
    fn debug_shows_fingerprints_only() {
        let keys = BuildKeys::generate("x").unwrap();
        let shown = format!("{keys:?}");
        assert!(
            shown.contains("SHA256:") && !shown.contains("PRIVATE") && !shown.contains("seed"),
            "{shown}"
        );
    }
}
