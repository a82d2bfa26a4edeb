//! The block that a build appends to every kickstart: its login key, its host key, and the agent's doors.

use std::fmt::Write as _;

use secrecy::{ExposeSecret as _, SecretString};

use super::facts::facts;
use super::quote::{KickstartError, name, section_body};
use super::render::ssh_key;
use super::text::KickstartText;

/// First line of the block, so that people and checks can tell it from the user's own text.
pub(super) const BLOCK_MARK: &str = "# ---- added by k3simage for this build; sealing takes it out again ----";

/// What a build adds to a kickstart, whichever it is.
#[derive(Clone, Debug)]
pub struct BuildBlock {
    /// The user that the build logs in as.
    pub username: String,
    /// The build's public key in OpenSSH's one-line form.
    pub login_key: String,
    /// The host key that the guest is to show.
    pub host_key: HostKey,
    /// Let the guest agent run commands and write files, which EL9 forbids twice.
    pub open_agent: bool,
    /// Copy what the installer says to the first serial port, where the kernel line does not have it do so by itself.
    pub serial: bool,
}

/// A host key for the guest, known to the build before the first connection.
#[derive(Clone, Debug)]
pub struct HostKey {
    /// The private key as `ssh_host_ed25519_key` holds it.
    pub private: SecretString,
    /// The public key as `ssh_host_ed25519_key.pub` holds it.
    pub public: String,
}

/// Opens the agent for commands and files.
///
/// Originals are kept beside, so that sealing can put them back. `FILTER_RPC_ARGS` is EL 9.2's and later form, before it
/// was `BLACKLIST_RPC`. The policy is written without reloading it: the installer's kernel runs another one.
const OPEN_AGENT: &str = r"cp -p /etc/sysconfig/qemu-ga /etc/sysconfig/qemu-ga.k3simage
sed -i -e 's/^FILTER_RPC_ARGS=.*/FILTER_RPC_ARGS=/' -e 's/^BLACKLIST_RPC=.*/BLACKLIST_RPC=/' /etc/sysconfig/qemu-ga
setsebool -P -N virt_qemu_ga_run_unconfined on
";

/// Copies the installer's log, and its text screen, to the first serial port. In the background and without an own say: it must not
/// hold up or end an installation.
///
/// # Source
/// Anaconda's `data/tmux.conf`: session `anaconda`, window `main`, and a `tail -F` of the same log.
const SPEAK: &str = r"%pre
if [ -c /dev/ttyS0 ] && ! grep -q console=ttyS0 /proc/cmdline; then
    tmux pipe-pane -t anaconda:main 'exec cat > /dev/ttyS0' > /dev/null 2>&1 < /dev/null
    setsid tail -q -n +1 -F /tmp/anaconda.log > /dev/ttyS0 2> /dev/null < /dev/null &
fi
:
%end
";

impl KickstartText {
    /// The text with the build's own block behind it.
    ///
    /// # Errors
    /// [`KickstartError`] when a key or the user name could not stand there as data.
    pub fn with_build_block(&self, block: &BuildBlock) -> Result<Self, KickstartError> {
        let BuildBlock {
            username,
            login_key,
            host_key,
            open_agent,
            serial,
        } = block;
        let user = name("ssh_username", username, "-_.")?;
        let mut text = self.expose().to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let key_line = ssh_key("login_key", user, login_key)?;
        // pykickstart warns of a second sshkey for one user, which inst.ksstrict turns into an end of the installation.
        let taken = facts(&text).ssh_key_users().iter().any(|fact| fact.value == user);
        let (command, append) = if taken {
            (String::new(), authorise(user, login_key)?)
        } else {
            (format!("{key_line}\n"), String::new())
        };
        let private = heredoc("host_key", host_key.private.expose_secret())?;
        let public = heredoc("host_key", &host_key.public)?;
        let speak = if *serial { SPEAK } else { "" };
        write!(
            text,
            "\n{BLOCK_MARK}\n{command}{speak}%post --erroronfail\nset -euo pipefail\numask 077\nmkdir -p /etc/ssh\n\
             cat > /etc/ssh/ssh_host_ed25519_key <<'K3SIMAGE_KEY'\n{private}K3SIMAGE_KEY\n\
             cat > /etc/ssh/ssh_host_ed25519_key.pub <<'K3SIMAGE_KEY'\n{public}K3SIMAGE_KEY\n\
             chmod 0600 /etc/ssh/ssh_host_ed25519_key\nchmod 0644 /etc/ssh/ssh_host_ed25519_key.pub\n"
        )
        .expect("writing to a String does not fail");
        text.push_str(&append);
        if *open_agent {
            text.push_str(OPEN_AGENT);
        }
        // What %post writes inherits the label of its folder, and sshd may not read keys under another label than theirs.
        writeln!(text, "restorecon -R /etc/ssh {}/.ssh || :\n%end", home(user))
            .expect("writing to a String does not fail");
        Ok(self.with_text(text))
    }
}

fn home(user: &str) -> String {
    if user == "root" {
        "/root".to_owned()
    } else {
        format!("/home/{user}")
    }
}

/// Lines of `%post` that add the key behind those that the user has already.
fn authorise(user: &str, key: &str) -> Result<String, KickstartError> {
    let home = home(user);
    let key = heredoc("login_key", key)?;
    Ok(format!(
        "mkdir -p {home}/.ssh\ncat >> {home}/.ssh/authorized_keys <<'K3SIMAGE_KEY'\n{key}K3SIMAGE_KEY\n\
         chmod 0700 {home}/.ssh\nchmod 0600 {home}/.ssh/authorized_keys\nchown -R {user}: {home}/.ssh\n"
    ))
}

fn heredoc(field: &str, body: &str) -> Result<String, KickstartError> {
    let body = section_body(field, body)?;
    if body.lines().any(|line| line == "K3SIMAGE_KEY") {
        return Err(KickstartError::new(field, "it holds the line that would end it"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kickstart::{Kickstart, facts};

    fn block() -> BuildBlock {
        BuildBlock {
            username: "root".into(),
            login_key: "ssh-ed25519 AAAALOGIN build".into(),
            host_key: HostKey {
                private: SecretString::from(
                    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
                ),
                public: "ssh-ed25519 AAAAHOST".into(),
            },
            open_agent: false,
            serial: false,
        }
    }

    #[test]
    fn the_block_comes_behind_the_text() {
        let text = KickstartText::new("text\nreboot").with_build_block(&block()).unwrap();
        insta::assert_snapshot!(text.expose(), @r#"
        text
        reboot

        # ---- added by k3simage for this build; sealing takes it out again ----
        sshkey --username=root "ssh-ed25519 AAAALOGIN build"
        %post --erroronfail
        set -euo pipefail
        umask 077
        mkdir -p /etc/ssh
        cat > /etc/ssh/ssh_host_ed25519_key <<'K3SIMAGE_KEY'
        -----BEGIN OPENSSH PRIVATE KEY-----
        AAAA
        -----END OPENSSH PRIVATE KEY-----
        K3SIMAGE_KEY
        cat > /etc/ssh/ssh_host_ed25519_key.pub <<'K3SIMAGE_KEY'
        ssh-ed25519 AAAAHOST
        K3SIMAGE_KEY
        chmod 0600 /etc/ssh/ssh_host_ed25519_key
        chmod 0644 /etc/ssh/ssh_host_ed25519_key.pub
        restorecon -R /etc/ssh /root/.ssh || :
        %end
        "#);
    }

    #[test]
    fn a_second_key_of_one_user_comes_by_post() {
        let text = KickstartText::new("sshkey --username=root \"ssh-rsa AAAA own\"\n")
            .with_build_block(&block())
            .unwrap();
        assert_eq!(facts(text.expose()).ssh_key_users().len(), 1);
        let append = "cat >> /root/.ssh/authorized_keys <<'K3SIMAGE_KEY'\nssh-ed25519 AAAALOGIN build\nK3SIMAGE_KEY\n";
        assert!(text.expose().contains(append), "{}", text.expose());
    }

    #[test]
    fn the_agent_is_opened_only_when_asked() {
        let base = Kickstart::default().render().unwrap();
        let closed = base.with_build_block(&block()).unwrap();
        assert!(!closed.expose().contains("virt_qemu_ga"));
        let open = base
            .with_build_block(&BuildBlock {
                open_agent: true,
                ..block()
            })
            .unwrap();
        assert!(open.expose().contains("setsebool -P -N virt_qemu_ga_run_unconfined on"));
        let facts = facts(open.expose());
        assert!(facts.sections.iter().all(|section| section.value.closed) && facts.open_quotes.is_empty());
        assert_eq!(facts.ssh_key_users().len(), 1);
    }

    #[test]
    fn the_installer_is_copied_to_the_serial_port_only_when_there_is_one() {
        let base = Kickstart::default().render().unwrap();
        let silent = base.with_build_block(&block()).unwrap();
        assert!(!silent.expose().contains("ttyS0 2>"));
        let speaking = base
            .with_build_block(&BuildBlock {
                serial: true,
                ..block()
            })
            .unwrap();
        let text = speaking.expose();
        assert!(
            text.contains("-F /tmp/anaconda.log > /dev/ttyS0 2> /dev/null < /dev/null &\nfi\n:\n%end\n%post"),
            "{text}"
        );
        let facts = facts(text);
        assert!(facts.sections.iter().all(|section| section.value.closed) && facts.open_quotes.is_empty());
    }

    #[test]
    fn what_could_command_is_refused_and_not_shown() {
        let secret = "GEHEIM";
        for (change, field) in [
            (
                BuildBlock {
                    username: "a b".into(),
                    ..block()
                },
                "ssh_username",
            ),
            (
                BuildBlock {
                    username: "--lock".into(),
                    ..block()
                },
                "ssh_username",
            ),
            (
                BuildBlock {
                    login_key: "ssh-ed25519 A\nrootpw x".into(),
                    ..block()
                },
                "login_key",
            ),
            (
                BuildBlock {
                    login_key: "no key".into(),
                    ..block()
                },
                "login_key",
            ),
        ] {
            assert_eq!(
                KickstartText::new("").with_build_block(&change).unwrap_err().field(),
                field
            );
        }
        for bad in ["\nK3SIMAGE_KEY\nrm -rf /\n", "\n%end\n", "\r"] {
            let host_key = HostKey {
                private: SecretString::from(format!("{secret}{bad}")),
                public: "x".into(),
            };
            let error = KickstartText::new("")
                .with_build_block(&BuildBlock { host_key, ..block() })
                .unwrap_err();
            assert!(
                error.field() == "host_key" && !error.to_string().contains(secret),
                "{error}"
            );
        }
        assert!(!format!("{:?}", block()).contains("BEGIN OPENSSH"));
    }
}
