//! Where the examples run: the cluster that options and environment name, or an emulated one.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Args;
use proxmox_client::{Auth, Client, NodeName, Tls};
use pve_emulator::Emulator;

/// The cluster. The token's secret comes from the environment alone: process lists show options.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Address of the API: https://10.23.45.10:8006
    #[arg(long, env = "PROXMOX_URL", required_unless_present = "emulator")]
    url: Option<String>,
    /// API token id: packer@pve!build; its secret is read from PROXMOX_TOKEN
    #[arg(long, env = "PROXMOX_TOKEN_ID", required_unless_present = "emulator")]
    token_id: Option<String>,
    /// SHA-256 fingerprint of the certificate; without it the certificate is verified
    #[arg(long, env = "PROXMOX_FINGERPRINT")]
    fingerprint: Option<String>,
    /// The node
    #[arg(long, env = "PROXMOX_NODE", default_value = "pve")]
    pub(crate) node: NodeName,
    /// Run on an emulated Proxmox VE, made for this run
    #[arg(long)]
    pub(crate) emulator: bool,
}

/// A cluster to work on.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The client.
    pub(crate) pve: Client,
    /// The emulator behind it, if it is one.
    pub(crate) emulator: Option<Emulator>,
}

impl ClusterArgs {
    /// Connects, or starts an emulator and connects to it.
    pub(crate) async fn cluster(&self) -> Result<Cluster> {
        if self.emulator {
            let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
            let emulator = Emulator::builder()
                .listen(listen)
                .nodes([self.node.to_string()])
                .start()
                .await?;
            let pve = Client::builder(emulator.url())
                .auth(Auth::token(emulator.token_id(), emulator.token_secret().to_owned()))
                .tls(Tls::Pinned(emulator.fingerprint().parse()?))
                .build()?;
            return Ok(Cluster {
                pve,
                emulator: Some(emulator),
            });
        }
        let url = self.url.as_deref().context("PROXMOX_URL is not set")?;
        let token_id = self.token_id.as_deref().context("PROXMOX_TOKEN_ID is not set")?;
        let secret = std::env::var("PROXMOX_TOKEN").context("PROXMOX_TOKEN, the token's secret, is not set")?;
        let tls = match &self.fingerprint {
            Some(fingerprint) => Tls::Pinned(fingerprint.parse()?),
            None => Tls::Verify,
        };
        let pve = Client::builder(url)
            .auth(Auth::token(token_id, secret))
            .tls(tls)
            .build()?;
        Ok(Cluster { pve, emulator: None })
    }
}

impl Cluster {
    /// Ends the emulator, if there is one.
    pub(crate) async fn close(self) {
        if let Some(emulator) = self.emulator {
            emulator.shutdown().await;
        }
    }
}
