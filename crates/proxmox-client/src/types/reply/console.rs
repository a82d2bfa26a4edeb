//! Where a console can be reached, and with what.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::types::{lenient, upid::Upid};

/// Length of a VNC password, which is also the beginning of its ticket (`FACTS` 60).
const PASSWORD: usize = 8;

/// What `vncproxy` and `termproxy` answer: one connection within 10 s, by the same caller, is what it is good for (`FACTS` 63, 68).
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ConsoleTicket {
    /// The port that `vncwebsocket` is to connect to.
    #[serde(deserialize_with = "lenient::u16")]
    pub port: u16,
    /// What lets in; secret.
    pub ticket: SecretString,
    /// The caller as PVE names it: the user, or the full token id.
    pub user: String,
    /// The task that waits for the connection; ends with it.
    pub upid: Upid,
    #[serde(default)]
    password: Option<SecretString>,
}

impl ConsoleTicket {
    /// The password of the VNC session: sent beside the ticket since PVE 8, and its beginning in all versions. It may hold a colon.
    pub fn vnc_password(&self) -> SecretString {
        self.password.clone().unwrap_or_else(|| {
            let ticket = self.ticket.expose_secret();
            ticket.chars().take(PASSWORD).collect::<String>().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_answers() {
        let read = |text: &str| serde_json::from_str::<ConsoleTicket>(text).expect(text);
        let term = read(
            r#"{"port":"5900","ticket":"PVEVNC:6B0459B6::s3pO==","user":"root@pam!build","upid":"UPID:pve:00003E94:0006FB3B:6B0459B6:vncproxy:900:root@pam!build:"}"#,
        );
        assert_eq!((term.port, term.user.as_str()), (5900, "root@pam!build"));
        let vnc = read(
            r#"{"port":"5901","ticket":"8G:C63E8:PVEVNC:6B045B5B::x","user":"root@pam","upid":"UPID:pve:00003B70:000651ED:6B045805:vncproxy:900:root@pam:"}"#,
        );
        assert_eq!(vnc.vnc_password().expose_secret(), "8G:C63E8");
        assert!(!format!("{vnc:?}").contains("C63E8"));
    }
}
