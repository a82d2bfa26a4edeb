//! A model of k3s: the files of its identity, and who has joined whom. No Kubernetes is behind it.
//!
//! # Source
//! The layout of `/var/lib/rancher/k3s` and `/etc/rancher/node`, and the form `K10<SHA-256 of the CA>::<user>:<password>` of tokens, as
//! `docs.k3s.io` ("k3s token") describes them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt as _;
use sha2::{Digest, Sha256};

use super::host::Host;
use super::system::System;

const SERVER: &str = "/var/lib/rancher/k3s/server";
const NODE_PASSWORD: &str = "/etc/rancher/node/password";
/// Stands for the datastore: a line a node with its password.
const NODES: &str = "/var/lib/rancher/k3s/server/db/nodes";

/// What it is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Agent,
}

/// Whether the image carries it.
pub(super) fn is_installed(system: &System) -> bool {
    ["k3s", "k3s-agent"]
        .iter()
        .any(|unit| system.files.exists(&format!("/etc/systemd/system/{unit}.service")))
}

/// The version that the image was given.
pub(super) fn version(system: &System) -> String {
    let text = system.files.text("/etc/k3simage/image.env");
    let version = text.lines().find_map(|line| line.strip_prefix("K3S_VERSION="));
    version.unwrap_or("v0.0.0+k3s0").to_owned()
}

/// The nodes that a server knows.
pub(super) fn nodes(system: &System) -> Vec<String> {
    let text = system.files.text(NODES);
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn random(bytes: usize) -> String {
    let mut random = rand::rng();
    let bytes: Vec<u8> = (0..bytes).map(|_| random.random()).collect();
    hex::encode(bytes)
}

/// Bytes in the clothes of a certificate: only that they are one machine's own matters here.
fn certificate() -> String {
    let mut random = rand::rng();
    let bytes: [u8; 48] = random.random();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(bytes)
    )
}

/// Starts it with what identity is there; makes what is not. The line that it logs.
pub(super) fn start(host: &Arc<Host>, role: Role, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let get = |name: &str| {
        environment
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let (node, password) = {
        let mut system = host.system();
        let node = get("K3S_NODE_NAME").map_or_else(|| system.hostname(), str::to_owned);
        if !system.files.exists(NODE_PASSWORD) {
            system.files.put(NODE_PASSWORD, format!("{}\n", random(16)), 0o600);
        }
        (node, system.files.text(NODE_PASSWORD).trim().to_owned())
    };
    match (role, get("K3S_URL")) {
        (Role::Agent, None) => Err("level=fatal msg=\"--server is required\"".to_owned()),
        (_, Some(url)) => {
            let token = get("K3S_TOKEN").ok_or("level=fatal msg=\"--token is required\"")?;
            // The unit is up before the node has joined (`Type=exec`), and stays so while the server cannot be reached.
            Ok(match join(host, url, token, &node, &password) {
                Ok(()) => format!("level=info msg=\"node {node} has joined {url}\""),
                Err(why) => format!("level=error msg=\"{why}\""),
            })
        }
        (Role::Server, None) => {
            let mut system = host.system();
            identity(&mut system, get("K3S_TOKEN"));
            admit(&mut system, &node, &password)?;
            Ok("level=info msg=\"k3s is up and running (simulated)\"".to_owned())
        }
    }
}

/// The server's own identity: what is there stays.
fn identity(system: &mut System, given: Option<&str>) {
    let ca = format!("{SERVER}/tls/server-ca.crt");
    if !system.files.exists(&ca) {
        system.files.put(&ca, certificate(), 0o644);
    }
    let file = format!("{SERVER}/token");
    let kept = system.files.text(&file);
    let configured = system.files.text("/etc/rancher/k3s/config.yaml");
    let configured = configured.lines().find_map(|line| line.strip_prefix("token:"));
    let password = configured
        .map(|token| token.trim().trim_matches(['"', '\'']))
        .or(given)
        .or_else(|| Some(kept.trim()).filter(|kept| !kept.is_empty()))
        .map_or_else(|| random(16), |token| secret(token).to_owned());
    let hash = ca_hash(system);
    let token = format!("K10{hash}::server:{password}\n");
    system.files.put(&file, token.clone(), 0o600);
    system.files.put(&format!("{SERVER}/node-token"), token, 0o600);
}

/// The secret part of a token.
fn secret(token: &str) -> &str {
    token.trim().rsplit(':').next().unwrap_or_default()
}

fn ca_hash(system: &System) -> String {
    let ca = system
        .files
        .bytes(&format!("{SERVER}/tls/server-ca.crt"))
        .unwrap_or_default();
    hex::encode(Sha256::digest(&ca))
}

/// Lists a node; one that is known must come with the password that it came with first.
fn admit(system: &mut System, node: &str, password: &str) -> Result<(), String> {
    let text = system.files.text(NODES);
    let known = text.lines().find_map(|line| line.strip_prefix(node)?.strip_prefix(' '));
    match known {
        Some(known) if known != password => Err(format!(
            "level=fatal msg=\"Node password rejected, duplicate hostname or contents of '{NODE_PASSWORD}' may not match: {node}\""
        )),
        Some(_) => Ok(()),
        None => {
            system.files.put(NODES, format!("{text}{node} {password}\n"), 0o600);
            Ok(())
        }
    }
}

/// Joins the server at the guest that has the URL's address.
fn join(host: &Arc<Host>, url: &str, token: &str, node: &str, password: &str) -> Result<(), String> {
    let name = url.trim_start_matches("https://").trim_end_matches('/');
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    let unreachable = || format!("failed to reach {url}: connection refused");
    let address: Ipv4Addr = name.parse().map_err(|_| unreachable())?;
    let server = (host.peers.0)(address).ok_or_else(unreachable)?;
    if Arc::ptr_eq(&server, host) {
        return Err("this is the server itself".to_owned());
    }
    let mut system = server.system();
    if system.unit_state("k3s.service") != "active" {
        return Err(unreachable());
    }
    if let Some((pinned, _)) = token.strip_prefix("K10").and_then(|token| token.split_once("::"))
        && pinned != ca_hash(&system)
    {
        return Err("token CA hash does not match the Cluster CA certificate hash".to_owned());
    }
    if secret(token) != secret(&system.files.text(&format!("{SERVER}/token"))) {
        return Err("401 Unauthorized: the token is not this server's".to_owned());
    }
    admit(&mut system, node, password)
}
