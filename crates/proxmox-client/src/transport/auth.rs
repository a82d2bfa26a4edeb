//! `Auth`: who the caller is; and the session that a password buys.

use std::{sync::Arc, time::Duration};

use hkdf::Hkdf;
use http::{HeaderName, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use tokio::{sync::Mutex, time::Instant};

use crate::{error::Error, request::path::encode, types::lenient};

/// A ticket lives two hours (pve-access-control, `$ticket_lifetime`); renewed early, so that no request meets its end.
const RENEW_AFTER: Duration = Duration::from_secs(90 * 60);
/// Hexadecimal digits of 128 bits; a UUID has four dashes more.
const TOKEN_SECRET_MIN: usize = 32;
const TICKET_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// Who the caller is.
#[derive(Clone)]
pub struct Auth(Kind);

#[derive(Clone)]
enum Kind {
    Token { id: String, secret: SecretString },
    Password { username: String, password: SecretString },
}

impl Auth {
    /// An API token: its full name `user@realm!token` and its secret. Checked when the client is built.
    ///
    /// Tokens made with privilege separation hold no rights of their own until an access control list gives them some.
    pub fn token(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self(Kind::Token {
            id: id.into(),
            secret: secret.into(),
        })
    }

    /// A user `user@realm` with a password. A valid ticket in place of the password works too (`FACTS` 9).
    ///
    /// The client logs in at its first request and renews its ticket before the two hours end.
    pub fn password(username: impl Into<String>, password: impl Into<SecretString>) -> Self {
        Self(Kind::Password {
            username: username.into(),
            password: password.into(),
        })
    }

    /// The full token name or the user.
    pub fn identity(&self) -> &str {
        match &self.0 {
            Kind::Token { id, .. } => id,
            Kind::Password { username, .. } => username,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let user_ok = |user: &str| {
            user.rsplit_once('@')
                .is_some_and(|(name, realm)| plain(name) && plain(realm) && !user.contains(['/', ':', '=']))
        };
        match &self.0 {
            Kind::Token { id, secret } => {
                match id.split_once('!') {
                    Some((user, token)) if user_ok(user) && plain(token) && !token.contains(['!', '=', ':', '/']) => {}
                    _ => {
                        return Err(Error::invalid(
                            "token",
                            format!("{id:?} must have the form user@realm!token, as in packer@pve!build"),
                        ));
                    }
                }
                if !plain(secret.expose_secret()) {
                    return Err(Error::invalid(
                        "token secret",
                        "it is empty or holds spaces or line breaks; PVE's are UUIDs",
                    ));
                }
            }
            Kind::Password { username, password } => {
                if !user_ok(username) || username.contains('!') {
                    return Err(Error::invalid(
                        "username",
                        format!("{username:?} must have the form user@realm, as in root@pam"),
                    ));
                }
                if password.expose_secret().is_empty() {
                    return Err(Error::invalid("password", "it is empty"));
                }
            }
        }
        Ok(())
    }

    /// The header of a token; `None` for a password, which needs a session.
    pub(crate) fn token_header(&self) -> Option<Result<HeaderValue, Error>> {
        let Kind::Token { id, secret } = &self.0 else {
            return None;
        };
        // The scheme's name is case-sensitive (FACTS 7).
        let value = sensitive(&format!("PVEAPIToken={id}={}", secret.expose_secret()));
        Some(value.ok_or_else(|| Error::invalid("token secret", "it cannot stand in a header")))
    }

    /// See [`Client::derived_key`](crate::Client::derived_key).
    ///
    /// # Source
    /// A token's secret is a random UUID (`UUID::uuid` in pve-access-control, PVE/API2/User.pm): 122 bits that no one guesses, in 36 characters.
    pub(crate) fn derived_key(&self, purpose: &[u8]) -> Option<SecretSlice<u8>> {
        let Kind::Token { id, secret } = &self.0 else {
            return None;
        };
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < TOKEN_SECRET_MIN {
            return None;
        }
        let mut key = vec![0; 32];
        // The name is the salt, so that two tokens with one secret, which only a mistake could make, differ.
        let expanded = Hkdf::<Sha256>::new(Some(id.as_bytes()), secret).expand(purpose, &mut key);
        expanded.is_ok().then(|| key.into())
    }

    pub(crate) fn credentials(&self) -> Option<(&str, &SecretString)> {
        match &self.0 {
            Kind::Token { .. } => None,
            Kind::Password { username, password } => Some((username, password)),
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::Token { id: _, secret: _ } => "Token",
            Kind::Password {
                username: _,
                password: _,
            } => "Password",
        };
        f.debug_struct(kind)
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A ticket with the token that writes need beside it.
pub(crate) struct Session {
    pub(crate) ticket: SecretString,
    cookie: HeaderValue,
    csrf: HeaderValue,
    made: Instant,
}

impl Session {
    pub(crate) fn headers(&self, method: &Method) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![(header::COOKIE, self.cookie.clone())];
        if *method != Method::GET {
            headers.push((HeaderName::from_static("csrfpreventiontoken"), self.csrf.clone()));
        }
        headers
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.made.elapsed() < RENEW_AFTER
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.made.elapsed() < TICKET_LIFETIME
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            ticket: _,
            cookie: _,
            csrf: _,
            made,
        } = self;
        f.debug_struct("Session").field("made", made).finish_non_exhaustive()
    }
}

/// The one session of a client; the lock makes sure that only one request logs in at a time.
pub(crate) type SessionSlot = Mutex<Option<Arc<Session>>>;

/// What `POST /access/ticket` answers. No `Debug`: it is a secret.
#[derive(Deserialize)]
pub(crate) struct TicketReply {
    #[serde(default)]
    ticket: Option<SecretString>,
    #[serde(rename = "CSRFPreventionToken", default)]
    csrf: Option<SecretString>,
    #[serde(rename = "NeedTFA", default, deserialize_with = "lenient::flag")]
    need_tfa: bool,
}

impl TicketReply {
    pub(crate) fn into_session(self, username: &str) -> Result<Session, Error> {
        let decode = |reason: &str| Error::Decode {
            method: Method::POST,
            path: "/access/ticket".to_owned(),
            reason: reason.to_owned(),
            source: None,
        };
        let ticket = self.ticket.ok_or_else(|| decode("it holds no ticket"))?;
        // Half a ticket: PVE marks it so until the second factor is given (pve-access-control, PVE/API2/AccessControl.pm).
        if self.need_tfa || ticket.expose_secret().starts_with("PVE:!tfa!") {
            return Err(Error::SecondFactor {
                username: username.to_owned(),
            });
        }
        let csrf = self.csrf.ok_or_else(|| decode("it holds no CSRFPreventionToken"))?;
        let cookie = sensitive(&format!("PVEAuthCookie={}", encode(ticket.expose_secret())));
        let csrf = sensitive(csrf.expose_secret());
        match (cookie, csrf) {
            (Some(cookie), Some(csrf)) => Ok(Session {
                ticket,
                cookie,
                csrf,
                made: Instant::now(),
            }),
            _ => Err(decode("its ticket or token cannot stand in a header")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (id, secret, good) in [
            ("packer@pve!build", "675d9d94-34af-448f-883b-06ee8ce4e6d3", true),
            ("root@pam!a-b.c", "s", true),
            ("packer@pve", "s", false),
            ("packer!build", "s", false),
            ("packer@pve!", "s", false),
            ("packer@pve!a=b", "s", false),
            ("packer@pve!build", "", false),
            ("packer@pve!build", "a\r\nX: y", false),
        ] {
            assert_eq!(Auth::token(id, secret).validate().is_ok(), good, "{id}");
        }
        for (username, good) in [
            ("root@pam", true),
            ("a.b@ldap-1", true),
            ("root", false),
            ("@pam", false),
            ("root@", false),
            ("packer@pve!build", false),
        ] {
            assert_eq!(Auth::password(username, "p").validate().is_ok(), good, "{username}");
        }
        assert!(Auth::password("root@pam", "").validate().is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        for auth in [
            Auth::token("packer@pve!build", "geheim"),
            Auth::password("root@pam", "geheim"),
        ] {
            let text = format!("{auth:?} {:?}", auth.token_header());
            assert!(!text.contains("geheim"), "{text}");
            assert!(text.contains(auth.identity()));
        }
        let error = Auth::token("packer@pve!build", "geheim\n")
            .validate()
            .expect_err("a line break")
            .to_string();
        assert!(!error.contains("geheim"), "{error}");
    }

    #[test]
    fn a_key_is_made_again_by_the_same_token_only() {
        let secret = "675d9d94-34af-448f-883b-06ee8ce4e6d3";
        let key = |auth: &Auth, purpose: &str| {
            let key = auth.derived_key(purpose.as_bytes());
            key.map(|key| hex::encode(key.expose_secret()))
        };
        let first = key(&Auth::token("packer@pve!build", secret), "login 7f3a").expect("a key");
        assert_eq!(first.len(), 64);
        for (id, purpose, same) in [
            ("packer@pve!build", "login 7f3a", true),
            ("packer@pve!build", "login 7f3b", false),
            ("packer@pve!other", "login 7f3a", false),
        ] {
            assert_eq!(
                key(&Auth::token(id, secret), purpose).as_deref() == Some(&first),
                same,
                "{id} {purpose}"
            );
        }
        assert_eq!(key(&Auth::token("packer@pve!build", "too-short"), "x"), None);
        assert_eq!(key(&Auth::password("root@pam", secret), "x"), None);
    }

    #[test]
    fn tickets_are_read() {
        let read = |json: &str| {
            serde_json::from_str::<TicketReply>(json)
                .expect(json)
                .into_session("root@pam")
        };
        let session = read(r#"{"ticket":"PVE:root@pam:6B044E80::O+E5/azY=","CSRFPreventionToken":"6B044E80:abc"}"#)
            .expect("good");
        let headers = session.headers(&Method::POST);
        assert_eq!(
            headers[0].1.to_str().expect("ascii"),
            "PVEAuthCookie=PVE%3Aroot%40pam%3A6B044E80%3A%3AO%2BE5%2FazY%3D"
        );
        assert_eq!((headers.len(), session.headers(&Method::GET).len()), (2, 1));
        assert!(!format!("{session:?}").contains("O+E5"));
        assert!(matches!(
            read(r#"{"ticket":"PVE:!tfa!x","NeedTFA":1,"CSRFPreventionToken":"x"}"#),
            Err(Error::SecondFactor { .. })
        ));
        assert!(matches!(read(r#"{"ticket":"PVE:x"}"#), Err(Error::Decode { .. })));
        assert!(matches!(read("{}"), Err(Error::Decode { .. })));
    }
}
