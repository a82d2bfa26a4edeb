//! Users, groups, API tokens, roles and the access control list; logging in.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::now;
use crate::schema::Edition;

/// A ticket is good for two hours.
///
/// # Source
/// `$ticket_lifetime` in PVE::AccessControl.
const TICKET_LIFETIME_S: u64 = 2 * 3600;

/// A password or token secret, kept as its SHA-256 so that no file and no debug output can give it away.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(plain: &str) -> Self {
        Self(hex::encode(Sha256::digest(plain)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What tickets are signed with.
#[derive(Clone, Serialize, Deserialize)]
struct SigningKey(String);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// An API token of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    pub(crate) privsep: bool,
    /// Epoch seconds, 0 for never.
    pub(crate) expire: u64,
    pub(crate) comment: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) password: Option<Secret>,
    pub(crate) enable: bool,
    /// Epoch seconds, 0 for never.
    pub(crate) expire: u64,
    /// `comment`, `email`, `firstname`, `lastname`, as far as they were given.
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) tokens: BTreeMap<String, Token>,
}

/// One line of the access control list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acl {
    pub(crate) path: String,
    /// A user, a full token id, or `@` and a group.
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) propagate: bool,
}

/// A group of users.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) comment: Option<String>,
    pub(crate) users: BTreeSet<String>,
}

/// A resource pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) comment: Option<String>,
    pub(crate) vms: BTreeSet<u32>,
    pub(crate) storages: BTreeSet<String>,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `root@pam`.
    pub(crate) user: String,
    /// The token's name when the call came with an API token.
    pub(crate) token: Option<String>,
}

impl Identity {
    /// `root@pam` or `root@pam!build`.
    pub(crate) fn full(&self) -> String {
        match &self.token {
            Some(token) => format!("{}!{token}", self.user),
            None => self.user.clone(),
        }
    }

    /// A token of root is not root (`FACTS` 14).
    pub(crate) fn is_root(&self) -> bool {
        self.user == "root@pam" && self.token.is_none()
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) users: BTreeMap<String, User>,
    #[serde(default)]
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
    pub(crate) acl: Vec<Acl>,
    pub(crate) pools: BTreeMap<String, Pool>,
    ticket_key: SigningKey,
}

impl Access {
    /// Only root@pam, without a password.
    pub(crate) fn new(edition: Edition) -> Self {
        let key: [u8; 32] = rand::rng().random();
        let root = User {
            enable: true,
            ..User::default()
        };
        Self {
            users: BTreeMap::from([("root@pam".to_owned(), root)]),
            groups: BTreeMap::new(),
            roles: edition.roles(),
            acl: Vec::new(),
            pools: BTreeMap::new(),
            ticket_key: SigningKey(hex::encode(key)),
        }
    }

    /// Gives the built-in roles what they hold in an edition; privileges that it does not know leave the other roles, as
    /// when PVE reads a `user.cfg` of another version.
    pub(crate) fn play(&mut self, edition: Edition) {
        let built_in = edition.roles();
        let known = built_in.get("Administrator").cloned().unwrap_or_default();
        for privileges in self.roles.values_mut() {
            privileges.retain(|p| known.contains(p));
        }
        self.roles.extend(built_in);
    }

    /// Built-in roles have the same names in all editions.
    pub(crate) fn is_built_in(role: &str) -> bool {
        Edition::V9_2.roles().contains_key(role)
    }

    /// Every privilege there is.
    pub(crate) fn all_privileges(&self) -> BTreeSet<String> {
        self.roles.get("Administrator").cloned().unwrap_or_default()
    }

    /// Whether a user can log in at all.
    fn active(&self, userid: &str) -> Option<&User> {
        self.users
            .get(userid)
            .filter(|u| u.enable && (u.expire == 0 || u.expire > now()))
    }

    /// Checks an API token as it stands in the header, `USER@REALM!TOKEN=SECRET`.
    pub(crate) fn check_token(&self, text: &str) -> Option<Identity> {
        let (id, secret) = text.split_once('=')?;
        let (userid, name) = id.split_once('!')?;
        let token = self.active(userid)?.tokens.get(name)?;
        let good = token.secret == Secret::new(secret) && (token.expire == 0 || token.expire > now());
        good.then(|| Identity {
            user: userid.to_owned(),
            token: Some(name.to_owned()),
        })
    }

    /// Checks a password, or a ticket given in its place (`FACTS` 9).
    pub(crate) fn check_password(&self, userid: &str, password: &str) -> bool {
        let Some(user) = self.active(userid) else { return false };
        if password.starts_with("PVE:") {
            return self.check_ticket(password).as_deref() == Some(userid);
        }
        user.password.as_ref() == Some(&Secret::new(password))
    }

    pub(crate) fn make_ticket(&self, userid: &str) -> String {
        let plain = format!("PVE:{userid}:{:08X}", now());
        format!("{plain}::{}", self.sign(&plain))
    }

    /// The user of a valid ticket.
    pub(crate) fn check_ticket(&self, ticket: &str) -> Option<String> {
        let (plain, signature) = ticket.split_once("::")?;
        let rest = plain.strip_prefix("PVE:")?;
        let (userid, time) = rest.rsplit_once(':')?;
        if self.sign(plain) != signature {
            return None;
        }
        let made = u64::from_str_radix(time, 16).ok()?;
        // A clock that was set back a little must not end a session: PVE allows five minutes.
        let age_fits = made <= now() + 300 && is_fresh(made);
        (age_fits && self.active(userid).is_some()).then(|| userid.to_owned())
    }

    pub(crate) fn make_csrf(&self, userid: &str) -> String {
        let time = format!("{:08X}", now());
        let signature = self.sign_short(&format!("{time}:{userid}"));
        format!("{time}:{signature}")
    }

    pub(crate) fn check_csrf(&self, userid: &str, token: &str) -> bool {
        let Some((time, signature)) = token.split_once(':') else {
            return false;
        };
        let Ok(made) = u64::from_str_radix(time, 16) else {
            return false;
        };
        self.sign_short(&format!("{time}:{userid}")) == signature && is_fresh(made)
    }

    fn sign(&self, text: &str) -> String {
        // As long as PVE's RSA signatures are, so that clients with short buffers notice here.
        (0..8u8)
            .map(|i| hex::encode(Sha256::digest(format!("{}{i}{text}", self.ticket_key.0))))
            .collect::<String>()
    }

    fn sign_short(&self, text: &str) -> String {
        STANDARD_NO_PAD.encode(Sha256::digest(format!("{}csrf{text}", self.ticket_key.0)))
    }
}

/// Whether something that was made at this time still counts. The time is the caller's own until its signature was checked.
fn is_fresh(made: u64) -> bool {
    made.checked_add(TICKET_LIFETIME_S).is_some_and(|end| now() < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn access() -> Access {
        let mut access = Access::new(Edition::V9_2);
        let token = |privsep| Token {
            secret: Secret::new("s"),
            privsep,
            expire: 0,
            comment: None,
        };
        access.users.insert(
            "a@pve".into(),
            User {
                password: Some(Secret::new("pw")),
                enable: true,
                tokens: BTreeMap::from([("full".into(), token(false)), ("sep".into(), token(true))]),
                ..User::default()
            },
        );
        access.acl = vec![
            acl("/", "a@pve", "PVEAuditor", true),
            acl("/vms/100", "a@pve", "PVEVMUser", true),
            acl("/nodes", "a@pve", "PVESysAdmin", false),
            acl("/vms", "a@pve!sep", "PVEAdmin", true),
            acl("/storage/x", "a@pve", "NoAccess", true),
        ];
        access
    }

    pub(super) fn acl(path: &str, who: &str, role: &str, propagate: bool) -> Acl {
        Acl {
            path: path.into(),
            who: who.into(),
            role: role.into(),
            propagate,
        }
    }

    #[test]
    fn another_edition_takes_over_what_it_knows() {
        let mut access = Access::new(Edition::V9_2);
        let held = ["VM.Audit", "VM.GuestAgent.Audit"].map(str::to_owned);
        access.roles.insert("Mine".into(), held.into());
        access.play(Edition::V8_4);
        assert_eq!(access.roles["Mine"], BTreeSet::from(["VM.Audit".to_owned()]));
        assert!(access.all_privileges().contains("VM.Monitor"));
        access.play(Edition::V9_2);
        assert_eq!(access.roles["PVEVMAdmin"], Edition::V9_2.roles()["PVEVMAdmin"]);
    }

    #[test]
    fn tickets_and_tokens_are_checked() {
        let access = access();
        let ticket = access.make_ticket("a@pve");
        assert_eq!(access.check_ticket(&ticket).as_deref(), Some("a@pve"));
        assert_eq!(access.check_ticket(&ticket.replace("a@pve", "root@pam")), None);
        assert!(access.check_password("a@pve", &ticket), "a ticket renews itself");
        assert!(!access.check_password("root@pam", &ticket));
        assert!(access.check_password("a@pve", "pw"));
        assert!(!access.check_password("a@pve", "x"));
        let csrf = access.make_csrf("a@pve");
        assert!(access.check_csrf("a@pve", &csrf));
        assert!(!access.check_csrf("root@pam", &csrf));
        assert!(access.check_token("a@pve!full=s").is_some());
        for bad in ["a@pve!full=t", "a@pve!none=s", "a@pve", "b@pve!full=s"] {
            assert!(access.check_token(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(..)");
    }
}
