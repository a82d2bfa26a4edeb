//! Reads a connection from texts as people write them, and says what is wrong with them all at once.

use proxmox_client::Fingerprint;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Connection, Credentials, TlsTrust};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// A connection as it is written down; empty means not set.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionInput {
    /// `https://10.23.45.10:8006/api2/json`; the path may be left out.
    pub url: String,
    /// `packer@pve!packer-token` or `root@pam`.
    pub username: String,
    /// Secret of the token; also `name=secret` or `user@realm!name=secret`.
    pub token: Option<SecretString>,
    /// Password of the user.
    pub password: Option<SecretString>,
    /// PEM file of an authority.
    pub ca_file: String,
    /// SHA-256 fingerprint of the certificate.
    pub fingerprint: String,
    /// Take any certificate.
    pub skip_tls_verify: bool,
}

/// What came out of reading a [`ConnectionInput`].
#[derive(Debug)]
pub struct ConnectionOutcome {
    /// The connection, if nothing is missing or wrong.
    pub connection: Option<Connection>,
    /// What is wrong with what was given.
    pub found: Diagnostics,
    /// What was not given and is needed.
    pub missing: Diagnostics,
}

impl ConnectionInput {
    /// Reads it.
    pub fn read(&self) -> ConnectionOutcome {
        let (mut found, mut missing) = (Diagnostics::new(), Diagnostics::new());
        let url = read_url(&self.url, &mut found, &mut missing);
        let credentials = self.credentials(&mut found, &mut missing);
        let tls = self.tls(&mut found);
        let connection = match (url, credentials, tls) {
            (Some(url), Some(credentials), Some(tls)) => Some(Connection { url, credentials, tls }),
            _ => None,
        };
        ConnectionOutcome {
            connection,
            found,
            missing,
        }
    }

    fn tls(&self, found: &mut Diagnostics) -> Option<TlsTrust> {
        let skip = |found: &mut Diagnostics, instead: &str| {
            if self.skip_tls_verify {
                found.push(Diagnostic::warning(
                    "proxmox_skip_tls_verify",
                    format!("it has no effect beside {instead}"),
                ));
            }
        };
        if !self.fingerprint.is_empty() {
            return match self.fingerprint.parse::<Fingerprint>() {
                Ok(fingerprint) => {
                    skip(found, "proxmox_fingerprint, which alone decides");
                    Some(TlsTrust::Pinned(fingerprint))
                }
                Err(error) => {
                    found.push(Diagnostic::error("proxmox_fingerprint", error.to_string()));
                    None
                }
            };
        }
        if !self.ca_file.is_empty() {
            skip(found, "proxmox_ca_file");
            return Some(TlsTrust::CaFile(self.ca_file.clone().into()));
        }
        if self.skip_tls_verify {
            found.push(
                Diagnostic::warning(
                    "proxmox_skip_tls_verify",
                    "whoever answers at proxmox_url gets the credentials",
                )
                .help("set proxmox_fingerprint instead: `pvenode cert info` on the node prints it"),
            );
            return Some(TlsTrust::Insecure);
        }
        Some(TlsTrust::Verify)
    }

    fn credentials(&self, found: &mut Diagnostics, missing: &mut Diagnostics) -> Option<Credentials> {
        if self.username.is_empty() {
            missing.push(
                Diagnostic::error("proxmox_username", "it is not set")
                    .help("an API token id such as packer@pve!packer-token, or a user such as root@pam"),
            );
            return None;
        }
        let (user, token_name) = match self.username.split_once('!') {
            Some((user, name)) => (user, Some(name)),
            None => (self.username.as_str(), None),
        };
        if let Err(reason) = check_user(user) {
            found.push(
                Diagnostic::error("proxmox_username", format!("`{}` is no user: {reason}", self.username))
                    .help("write user@realm!name for an API token (packer@pve!packer-token), user@realm for a user (root@pam)"),
            );
            return None;
        }
        match (&self.token, &self.password, token_name) {
            (Some(_), Some(_), None) => {
                found.push(
                    Diagnostic::error(
                        "proxmox_username",
                        "proxmox_token and proxmox_password are both set, and this could be either",
                    )
                    .help("leave one of the two out"),
                );
                None
            }
            (Some(token), _, name) => Self::token(user, name, token, found),
            (None, Some(password), None) => Some(Credentials::Password {
                username: user.to_owned(),
                password: password.clone(),
            }),
            (None, Some(_), Some(_)) => {
                found.push(
                    Diagnostic::error(
                        "proxmox_password",
                        format!("`{}` is an API token, which has no password", self.username),
                    )
                    .help("set proxmox_token, or leave the part from `!` out of proxmox_username"),
                );
                None
            }
            (None, None, name) => {
                let (subject, help) = match name {
                    Some(_) => (
                        "proxmox_token",
                        "export PKR_VAR_proxmox_token with the secret of that token",
                    ),
                    None => (
                        "proxmox_password",
                        "export PKR_VAR_proxmox_password, or PKR_VAR_proxmox_token as name=secret",
                    ),
                };
                missing.push(
                    Diagnostic::error(subject, format!("it is not set, and `{}` needs it", self.username)).help(help),
                );
                None
            }
        }
    }

    /// A token whose name may stand in the user name, in the token, or in both alike.
    fn token(user: &str, name: Option<&str>, token: &SecretString, found: &mut Diagnostics) -> Option<Credentials> {
        let mut fault = |message: &str, help: &str| {
            found.push(Diagnostic::error("proxmox_token", message).help(help.to_owned()));
            None
        };
        let text = token.expose_secret().trim();
        let text = text.strip_prefix("PVEAPIToken=").unwrap_or(text);
        let (id, secret) = match text.split_once('=') {
            Some((id, secret)) => (Some(id), secret),
            None => (None, text),
        };
        let given = match id.map(|id| {
            id.rsplit_once('!')
                .map_or((None, id), |(user, name)| (Some(user), name))
        }) {
            Some((Some(other), _)) if other != user => {
                return fault(
                    "it is the token of another user than proxmox_username",
                    "both must name the same user",
                );
            }
            Some((_, given)) => Some(given),
            None => None,
        };
        let name = match (name, given) {
            (Some(name), Some(given)) if name != given => {
                return fault(
                    "it has another name than the token in proxmox_username",
                    "both must name the same token",
                );
            }
            (Some(name), _) => name,
            (None, Some(given)) => given,
            (None, None) => {
                let help = format!("write proxmox_username = \"{user}!NAME\" with the token's name");
                return fault("it is a secret without the name of its token", &help);
            }
        };
        if !is_token_name(name) {
            found.push(
                Diagnostic::error("proxmox_username", format!("`{name}` is no name of a token"))
                    .help("letters, digits, `-`, `_` and `.`, beginning with a letter: packer@pve!packer-token"),
            );
            return None;
        }
        // Not checked for the form of a UUID: proxies in front of PVE may hand out others. A header must hold it, though.
        if secret.is_empty() || secret.chars().any(|c| !c.is_ascii_graphic()) {
            return fault(
                "it holds a blank or a character that no token has",
                "copy the secret as PVE showed it, a UUID",
            );
        }
        Some(Credentials::Token {
            id: format!("{user}!{name}"),
            secret: SecretString::from(secret.to_owned()),
        })
    }
}

/// # Source
/// `PVE::AccessControl`, `verify_username` (`[^\s:/]+@realm`) and `$token_subid_regex`.
fn check_user(user: &str) -> Result<(), &'static str> {
    let Some((name, realm)) = user.rsplit_once('@') else {
        return Err("it lacks the realm, as in @pam or @pve");
    };
    if name.is_empty()
        || name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == ':' || c == '/')
    {
        return Err("the part before `@` is empty or holds a blank, a colon or a slash");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !realm.starts_with(|c: char| c.is_ascii_alphabetic()) || !realm.chars().all(fits) {
        return Err("the realm behind `@` is none");
    }
    Ok(())
}

fn is_token_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn read_url(text: &str, found: &mut Diagnostics, missing: &mut Diagnostics) -> Option<Url> {
    const HELP: &str = "write https://10.23.45.10:8006/api2/json with the address of a node";
    if text.is_empty() {
        missing.push(Diagnostic::error("proxmox_url", "it is not set").help(HELP));
        return None;
    }
    let mut fault = |message: String, help: &str| {
        found.push(Diagnostic::error("proxmox_url", message).help(help.to_owned()));
        None
    };
    if !text.contains("://") {
        return fault(format!("`{text}` has no scheme"), &format!("write https://{text}"));
    }
    let mut url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return fault(format!("this is no address: {error}"), HELP),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return fault(
            "it holds a user or password, which would show up in logs".to_owned(),
            "proxmox_username and proxmox_token have their own place",
        );
    }
    if url.scheme() != "https" {
        let scheme = url.scheme().to_owned();
        return fault(
            format!("{scheme} would send the credentials in the clear, and PVE does not answer to it"),
            HELP,
        );
    }
    let path = url.path().trim_end_matches('/');
    if !matches!(path, "" | "/api2" | "/api2/json") || url.query().is_some() || url.fragment().is_some() {
        return fault(
            format!("`{}` is not the API's path", url.path()),
            "end it with /api2/json, or with the port",
        );
    }
    url.set_path("");
    if url.port().is_none() {
        found.push(
            Diagnostic::warning("proxmox_url", "it has no port, so 443 is used")
                .help("Proxmox VE itself listens on 8006"),
        );
    }
    Some(url)
}

#[cfg(test)]
mod tests;
