//! The block that a build appends to every kickstart: its login key, its host key, and the agent's doors.

use std::fmt::Write as _;

use secrecy::{ExposeSecret as _, SecretString};

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
        } = block;
        let user = name("ssh_username", username, "-_.")?;
        let mut text = self.expose().to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let key_line = ssh_key("login_key", user, login_key)?;
        let private = heredoc("host_key", host_key.private.expose_secret())?;
        let public = heredoc("host_key", &host_key.public)?;
        write!(
            text,
            "\n{BLOCK_MARK}\n{key_line}\n%post --erroronfail\nset -euo pipefail\numask 077\nmkdir -p /etc/ssh\n\
             cat > /etc/ssh/ssh_host_ed25519_key <<'K3SIMAGE_KEY'\n{private}K3SIMAGE_KEY\n\
             cat > /etc/ssh/ssh_host_ed25519_key.pub <<'K3SIMAGE_KEY'\n{public}K3SIMAGE_KEY\n\
             chmod 0600 /etc/ssh/ssh_host_ed25519_key\nchmod 0644 /etc/ssh/ssh_host_ed25519_key.pub\n"
        )
        .expect("writing to a String does not fail");
        if *open_agent {
            text.push_str(OPEN_AGENT);
        }
        text.push_str("%end\n");
        Ok(Self::new(text))
    }
}

fn heredoc(field: &str, body: &str) -> Result<String, KickstartError> {
    let body = section_body(field, body)?;
    if body.lines().any(|line| line == "K3SIMAGE_KEY") {
        return Err(KickstartError::new(field, "it holds the line that would end it"));
    }
    Ok(body)
}
