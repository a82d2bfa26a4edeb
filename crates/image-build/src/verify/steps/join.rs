//! The second clone: told by a small volume to join the first one.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proxmox_client::{Drive, Upload, VmConfigUpdate, VolId, Wait};
use rand::RngExt as _;
use secrecy::SecretString;

use super::boot::{boot, settle};
use super::first;
use crate::Error;
use crate::build::{Step, StepName};
use crate::media::ConfigVolume;
use crate::verify::compare::Told;
use crate::verify::context::Context;
use crate::verify::facts::hash;

/// Port that k3s servers are joined at.
pub(super) const K3S_PORT: u16 = 6443;
/// Limit of the upload of some hundred KiB.
const UPLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Boots the second clone with a volume labelled `K3SIMAGE`.
#[derive(Debug)]
pub(super) struct Join;

#[async_trait]
impl Step<Context> for Join {
    fn name(&self) -> StepName {
        "join".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let address = context.clone_at(0)?.seen.address.clone();
        let url = format!("https://{}:{K3S_PORT}", host_of(&address));
        // Without a cluster to join, that what it is told arrives can be seen all the same.
        let token = match first::token(context).await? {
            Some(token) => token,
            None => made_up_token(),
        };
        context.told = Told {
            url: url.clone(),
            token: hash(&context.salt, &token),
        };
        attach(context, &ConfigVolume::agent(url, SecretString::from(token))).await?;
        let summary = boot(context, 1).await?;
        settle(context, 1, false).await?;
        Ok(summary)
    }
}

/// The address in a URL: IPv6 in brackets.
fn host_of(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{}]", Ipv6Addr::from(address.octets())),
        _ => address.to_owned(),
    }
}

/// A token in the long form that no server has.
fn made_up_token() -> String {
    let mut random = rand::rng();
    let (ca, secret): ([u8; 32], [u8; 16]) = (random.random(), random.random());
    format!("K10{}::server:{}", hex::encode(ca), hex::encode(secret))
}

/// Uploads the volume and puts it into a drive of the second clone.
async fn attach(context: &mut Context, volume: &ConfigVolume) -> Result<(), Error> {
    let template = context.template()?.clone();
    let image = volume.to_iso().map_err(|source| Error::ConfigVolume { source })?;
    let upload = Upload::iso_bytes(format!("{}.iso", context.tag()), Bytes::from(image))
        .map_err(Error::api("preparing the volume K3SIMAGE"))?;
    let volid = VolId::of(&context.spec.iso_storage, &format!("iso/{}", upload.file_name()))
        .map_err(Error::api("naming the volume K3SIMAGE"))?;
    // Written down before the call that makes it.
    context.volume = Some(volid.clone());
    let what = format!("uploading {volid}");
    let storage = context.client.node(&template.node).storage(&context.spec.iso_storage);
    // A torn upload leaves nothing on the storage, so this is one of the calls that may be dropped half-way.
    let upid = tokio::select! {
        biased;
        () = context.cancel.cancelled() => return Err(Error::Cancelled),
        sent = storage.upload(&upload) => sent.map_err(Error::api(what.as_str()))?,
    };
    context.upload = Some(upid.clone());
    let wait = Wait::at_most(UPLOAD_LIMIT).cancel(context.cancel.clone());
    match context.client.wait_task(&upid, wait).await {
        Ok(_) => context.upload = None,
        Err(_) if context.cancel.is_cancelled() => return Err(Error::Cancelled),
        Err(error) => return Err(Error::api(what)(error)),
    }
    let update = VmConfigUpdate::new().disk(template.volume_slot.as_str(), &Drive::cdrom(&volid));
    let clone = context.clone_at(1)?;
    clone.machine.update("attaching the volume K3SIMAGE", &update).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_urls() {
        assert_eq!(host_of("10.0.0.5"), "10.0.0.5");
        assert_eq!(host_of("fd00::5"), "[fd00::5]");
        assert!(made_up_token().len() == 3 + 64 + 9 + 32);
    }
}
