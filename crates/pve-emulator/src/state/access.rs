//! Users, API tokens, roles and the access control list, with PVE's rules for who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::now;
use crate::wire::Failure;

/// Roles that every PVE 9.2 has, with their privileges.
const BUILT_IN_ROLES: &str = include_str!("roles.json");

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
    /// A user or full token id.
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) propagate: bool,
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
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
    pub(crate) acl: Vec<Acl>,
    pub(crate) pools: BTreeMap<String, Pool>,
    ticket_key: String,
}

impl Access {
    /// Only root@pam, without a password.
    pub(crate) fn new() -> Self {
        let key: [u8; 32] = rand::rng().random();
        let root = User {
            enable: true,
            ..User::default()
        };
        Self {
            users: BTreeMap::from([("root@pam".to_owned(), root)]),
            roles: built_in_roles(),
            acl: Vec::new(),
            pools: BTreeMap::new(),
            ticket_key: hex::encode(key),
        }
    }

    pub(crate) fn is_built_in(role: &str) -> bool {
        built_in_roles().contains_key(role)
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
        let made = u64::from_str_radix(time, 16).ok()?;
        // A clock that was set back a little must not end a session: PVE allows five minutes.
        let age_fits = made <= now() + 300 && now() < made + TICKET_LIFETIME_S;
        (age_fits && self.sign(plain) == signature && self.active(userid).is_some()).then(|| userid.to_owned())
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
        now() < made + TICKET_LIFETIME_S && self.sign_short(&format!("{time}:{userid}")) == signature
    }

    fn sign(&self, text: &str) -> String {
        // As long as PVE's RSA signatures are, so that clients with short buffers notice here.
        (0..8u8)
            .map(|i| hex::encode(Sha256::digest(format!("{}{i}{text}", self.ticket_key))))
            .collect::<String>()
    }

    fn sign_short(&self, text: &str) -> String {
        STANDARD_NO_PAD.encode(Sha256::digest(format!("{}csrf{text}", self.ticket_key)))
    }

    /// The privileges of `who` on `path`, with whether each holds below the path too.
    pub(crate) fn privileges(&self, who: &Identity, path: &str) -> BTreeMap<String, bool> {
        let Some(name) = &who.token else {
            return self.user_privileges(&who.user, path);
        };
        let of_user = self.user_privileges(&who.user, path);
        let privsep = self
            .users
            .get(&who.user)
            .and_then(|u| u.tokens.get(name))
            .is_none_or(|t| t.privsep);
        if !privsep {
            return of_user;
        }
        let mut of_token = self.acl_privileges(&who.full(), path);
        of_token.retain(|privilege, _| of_user.contains_key(privilege));
        of_token
    }

    fn user_privileges(&self, user: &str, path: &str) -> BTreeMap<String, bool> {
        if user == "root@pam" {
            return self.all_privileges().into_iter().map(|p| (p, true)).collect();
        }
        self.acl_privileges(user, path)
    }

    fn acl_privileges(&self, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut found = self.roles_on(who, path);
        if let Some(vmid) = path.strip_prefix("/vms/").and_then(|v| v.parse::<u32>().ok()) {
            for (pool, _) in self.pools.iter().filter(|(_, p)| p.vms.contains(&vmid)) {
                found.extend(self.roles_on(who, &format!("/pool/{pool}")));
            }
        }
        if let Some(storage) = path.strip_prefix("/storage/") {
            for (pool, _) in self.pools.iter().filter(|(_, p)| p.storages.contains(storage)) {
                found.extend(self.roles_on(who, &format!("/pool/{pool}")));
            }
        }
        let mut privileges = BTreeMap::new();
        if found.contains_key("NoAccess") {
            return privileges;
        }
        for (role, propagate) in found {
            for privilege in self.roles.get(&role).into_iter().flatten() {
                *privileges.entry(privilege.clone()).or_insert(false) |= propagate;
            }
        }
        privileges
    }

    /// The roles in effect on a path: entries on a longer path replace those above it.
    fn roles_on(&self, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut roles = BTreeMap::new();
        let mut prefixes = vec!["/".to_owned()];
        let mut prefix = String::new();
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            prefix = format!("{prefix}/{segment}");
            prefixes.push(prefix.clone());
        }
        let last = prefixes.len() - 1;
        for (index, prefix) in prefixes.iter().enumerate() {
            let here: BTreeMap<String, bool> = self
                .acl
                .iter()
                .filter(|a| a.who == who && a.path == *prefix && (a.propagate || index == last))
                .map(|a| (a.role.clone(), a.propagate))
                .collect();
            if !here.is_empty() {
                roles = here;
            }
        }
        roles
    }

    pub(crate) fn has(&self, who: &Identity, path: &str, privilege: &str) -> bool {
        self.privileges(who, path).contains_key(privilege)
    }

    /// Whether `who` has any of `privileges` on `path`.
    pub(crate) fn has_any(&self, who: &Identity, path: &str, privileges: &[&str]) -> bool {
        let have = self.privileges(who, path);
        privileges.iter().any(|p| have.contains_key(*p))
    }

    /// # Errors
    /// 403 that names the first privilege missing.
    pub(crate) fn require(&self, who: &Identity, path: &str, privileges: &[&str]) -> Result<(), Failure> {
        let have = self.privileges(who, path);
        match privileges.iter().find(|p| !have.contains_key(**p)) {
            Some(missing) => Err(Failure::permission(&format!("{path}, {missing}"))),
            None => Ok(()),
        }
    }

    /// # Errors
    /// 403 that names all of `privileges`.
    pub(crate) fn require_any(&self, who: &Identity, path: &str, privileges: &[&str]) -> Result<(), Failure> {
        if self.has_any(who, path, privileges) {
            return Ok(());
        }
        Err(Failure::permission(&format!("{path}, {}", privileges.join("|"))))
    }
}

fn built_in_roles() -> BTreeMap<String, BTreeSet<String>> {
    serde_json::from_str(BUILT_IN_ROLES).expect("embedded file, parsed by the tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let mut access = Access::new();
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

    fn acl(path: &str, who: &str, role: &str, propagate: bool) -> Acl {
        Acl {
            path: path.into(),
            who: who.into(),
            role: role.into(),
            propagate,
        }
    }

    #[test]
    fn longer_paths_replace_shorter_ones() {
        let access = access();
        let user = Identity {
            user: "a@pve".into(),
            token: None,
        };
        let full = Identity {
            token: Some("full".into()),
            ..user.clone()
        };
        let sep = Identity {
            token: Some("sep".into()),
            ..user.clone()
        };
        let cases = [
            (&user, "/vms/101", "VM.Audit", true),
            (&user, "/vms/101", "VM.PowerMgmt", false),
            (&user, "/vms/100", "VM.PowerMgmt", true),
            (&user, "/vms/100", "VM.Audit", true),
            (&user, "/vms/100", "Datastore.Audit", false),
            (&user, "/nodes", "Sys.Console", true),
            (&user, "/nodes/pve", "Sys.Console", false),
            (&user, "/nodes/pve", "Sys.Audit", true),
            (&user, "/storage/x", "Datastore.Audit", false),
            (&full, "/vms/100", "VM.PowerMgmt", true),
            (&sep, "/vms/100", "VM.PowerMgmt", true),
            (&sep, "/vms/101", "VM.PowerMgmt", false),
            (&sep, "/vms/101", "VM.Audit", true),
            (&sep, "/nodes/pve", "Sys.Audit", false),
        ];
        for (who, path, privilege, expected) in cases {
            assert_eq!(
                access.has(who, path, privilege),
                expected,
                "{} {path} {privilege}",
                who.full()
            );
        }
    }

    #[test]
    fn pools_lend_rights_to_their_members() {
        let mut access = access();
        access.pools.insert(
            "p".into(),
            Pool {
                vms: BTreeSet::from([7]),
                ..Pool::default()
            },
        );
        access.acl.push(acl("/pool/p", "a@pve", "PVEVMAdmin", true));
        let user = Identity {
            user: "a@pve".into(),
            token: None,
        };
        assert!(access.has(&user, "/vms/7", "VM.Allocate"));
        assert!(!access.has(&user, "/vms/8", "VM.Allocate"));
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
