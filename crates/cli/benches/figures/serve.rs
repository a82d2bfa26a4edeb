//! The emulator's role, and clients of it.

use anyhow::{Context as _, Result};
use proxmox_client::{Auth, Client, Tls};
use pve_emulator::{Emulator, Timing};
use serde_json::{Value, json};

pub(crate) const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";

pub(crate) async fn emulator() -> Result<Emulator> {
    let pve = Emulator::builder()
        .timing(Timing::Instant)
        .delays(false)
        .start()
        .await?;
    pve.add_installer_iso("local", ISO)?;
    Ok(pve)
}

pub(crate) fn target(pve: &Emulator) -> Value {
    json!({
        "url": pve.url(), "fingerprint": pve.fingerprint(), "token_id": pve.token_id(),
        "token_secret": pve.token_secret(), "ssh_port": pve.guest_ssh_port(), "ca_pem": pve.ca_pem(),
    })
}

pub(crate) async fn serve() -> Result<()> {
    let pve = emulator().await?;
    println!("{}", target(&pve));
    // The driver holds our standard input open for as long as it needs us.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await?;
    pve.shutdown().await;
    Ok(())
}

pub(crate) fn client(target: &Value) -> Result<Client> {
    let text = |key: &str| {
        target
            .get(key)
            .and_then(Value::as_str)
            .with_context(|| format!("no {key} in the target"))
    };
    Ok(Client::builder(text("url")?)
        .auth(Auth::token(text("token_id")?, text("token_secret")?))
        // As curl verifies, so that both do the same.
        .tls(Tls::CaPem(text("ca_pem")?.into()))
        .build()?)
}

pub(crate) fn given_target() -> Result<Value> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
