//! The volumes of builds and verifications: told by their names, alive or dead with their VM, or by their age when that is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proxmox_client::{Client, Content, ErrorKind, NodeName, Resource, VolId};

use super::{Origin, State, mark_of};
use crate::Error;
use crate::journal;

/// A volume with an id of ours in its name.
pub(super) struct OurVolume {
    pub(super) of: Origin,
    pub(super) id: String,
    pub(super) node: NodeName,
    pub(super) volid: VolId,
    pub(super) made: Option<i64>,
}

/// The volumes of builds and verifications, each once.
pub(super) async fn volumes(client: &Client, resources: &[Resource]) -> Result<Vec<OurVolume>, Error> {
    let mut found = Vec::new();
    let mut shared: BTreeSet<&str> = BTreeSet::new();
    let storages = resources
        .iter()
        .filter(|resource| resource.kind == "storage" && resource.content().contains(&Content::Iso));
    for resource in storages {
        let (Some(storage), Some(node)) = (resource.storage.as_deref(), resource.node.as_deref()) else {
            continue;
        };
        if resource.status.as_deref() != Some("available") || (resource.shared && !shared.insert(storage)) {
            continue;
        }
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's storages"))?;
        let id = storage.parse().map_err(Error::api("reading the cluster's storages"))?;
        let content = match client.node(&node).storage(&id).content(Some(Content::Iso)).await {
            Ok(content) => content,
            Err(error) if matches!(error.kind(), ErrorKind::Proxy | ErrorKind::Permission) => {
                tracing::debug!(%error, storage, %node, "a storage that cannot be listed is passed over");
                continue;
            }
            Err(error) => {
                return Err(Error::api(format!("listing the ISOs of storage {storage} on {node}"))(
                    error,
                ));
            }
        };
        for volume in content {
            let mark = volume.volid.file_name().strip_suffix(".iso").and_then(mark_of);
            if let Some((of, id)) = mark {
                found.push(OurVolume {
                    of,
                    id,
                    node: node.clone(),
                    volid: volume.volid,
                    made: volume.ctime,
                });
            }
        }
    }
    Ok(found)
}

/// A volume whose VM is not there: it counts as living until it is old enough; as long as a node is away whose VMs cannot be seen, nothing
/// can be said.
pub(super) fn of_lone_volume(
    client: &Client,
    resources: &[Resource],
    made: Option<i64>,
    age: Duration,
) -> (State, String) {
    let away = resources
        .iter()
        .find(|resource| resource.kind == "node" && resource.status.as_deref() == Some("offline"));
    if let Some(node) = away.and_then(|node| node.node.as_deref()) {
        return (
            State::Unclear,
            format!("its VM may be on node {node}, which is offline"),
        );
    }
    let Some(made) = made.and_then(|made| Timestamp::from_second(made).ok()) else {
        return (
            State::Unclear,
            "it has no VM, and PVE does not tell how old it is".to_owned(),
        );
    };
    let limit = SignedDuration::try_from(age)
        .ok()
        .and_then(|age| made.checked_add(age).ok())
        .unwrap_or(Timestamp::MAX);
    if limit > journal::now(client) {
        (State::Alive, format!("it has no VM, but was made only at {made}"))
    } else {
        (State::Dead, format!("it has no VM and was made at {made}"))
    }
}
