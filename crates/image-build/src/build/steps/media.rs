//! Brings the installer and the kickstart to where the VM can read them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proxmox_client::{NodeName, Upload, VolId};

use crate::Error;
use crate::build::context::{Context, Media, Resource};
use crate::build::event::Unit;
use crate::build::step::{Step, StepName};
use crate::build::vm::destroy_volume;
use crate::communicator::{BuildKeys, OutputStream, goes_by_agent};
use crate::kickstart::{BuildBlock, HostKey, KickstartText};
use crate::media::{KickstartServer, OnRequest, oemdrv};
use crate::plan::InstallerIso;
use crate::spec::{Delivery, KickstartSource};
use crate::text::human_bytes;

/// Makes keys, kickstart and media.
#[derive(Debug)]
pub(super) struct PrepareMedia;

#[async_trait]
impl Step<Context> for PrepareMedia {
    fn name(&self) -> StepName {
        "media".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        context.keys = Some(BuildKeys::of_build(&context.client, &context.build_tag()).map_err(Error::keys)?);
        let mut summary = Vec::new();
        let installer = installer(context, &mut summary).await?;
        let kickstart = kickstart(context)?;
        let mut media = Media {
            installer,
            oemdrv: None,
            http: None,
        };
        match context.spec.installer.delivery.clone() {
            Delivery::Oemdrv => {
                let image = Bytes::from(oemdrv(&kickstart).map_err(|source| Error::Oemdrv { source })?);
                let size = human_bytes(image.len() as u64);
                let upload = Upload::iso_bytes(format!("{}.iso", context.build_tag()), image)
                    .map_err(Error::api("preparing the OEMDRV volume"))?;
                let storage = context.spec.installer.iso_storage.clone();
                let volid = VolId::of(&storage, &format!("iso/{}", upload.file_name()))
                    .map_err(Error::api("naming the OEMDRV volume"))?;
                let node = context.spec.node.clone();
                let resource = Resource::Volume {
                    node,
                    volid: volid.clone(),
                };
                context.created(resource);
                send(context, &volid, &upload).await?;
                summary.push(format!("OEMDRV, {size}, {volid}"));
                media.oemdrv = Some(volid);
            }
            Delivery::Http { bind, ports, .. } => {
                let address = context.resolved()?.http_address.ok_or(Error::Missing {
                    what: "the address to serve from",
                })?;
                let server = KickstartServer::start(
                    bind,
                    ports,
                    Bytes::copy_from_slice(kickstart.expose().as_bytes()),
                    told(context),
                )
                .await?;
                summary.push(format!("kickstart served on {address}:{}", server.port()));
                media.http = Some((address, server.port()));
                context.server = Some(server);
            }
        }
        context.media = Some(media);
        Ok(summary.join(", "))
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        context.server = None;
        context.settle_task().await;
        context.still_ours().await?;
        let removed = remove_volumes(context, |_| true).await?;
        Ok((!removed.is_empty()).then(|| format!("{} removed", removed.join(", "))))
    }
}

/// The kickstart with the build's own block behind it.
fn kickstart(context: &Context) -> Result<KickstartText, Error> {
    let keys = context.keys()?;
    let block = BuildBlock {
        username: context.spec.communicator.ssh.username.clone(),
        login_key: keys.login_public_line().map_err(Error::keys)?,
        host_key: HostKey {
            private: keys.host_private_file().map_err(Error::keys)?,
            public: keys.host_public_line().map_err(Error::keys)?,
        },
        open_agent: goes_by_agent(&context.spec),
        serial: context.spec.hardware.serial,
    };
    let text = match &context.spec.installer.kickstart {
        KickstartSource::Model(model) => model.render(),
        KickstartSource::Text { text, .. } => Ok(text.clone()),
    };
    text.and_then(|text| text.with_build_block(&block))
        .map_err(|error| Error::unusable(error.field(), &error.to_string(), "see the guide's page on kickstart"))
}

/// Tells of each request to the kickstart's server: a guest that asks is worth a line, another client a warning.
fn told(context: &Context) -> OnRequest {
    let emitter = Arc::clone(&context.emitter);
    Arc::new(move |seen| {
        let line = format!("{} asked {}: {}", seen.peer, seen.request, seen.status);
        if seen.status == 200 {
            emitter.log("http", OutputStream::Stdout, &line);
        } else {
            emitter.log("http", OutputStream::Stderr, &line);
        }
    })
}

async fn installer(context: &mut Context, summary: &mut Vec<String>) -> Result<VolId, Error> {
    match context.resolved()?.iso.clone() {
        InstallerIso::Present(volid) => Ok(volid),
        InstallerIso::Upload(volid, upload) => {
            // Not noted as created, like a download: its name is the file's own, and a build beside this one may install
            // from it by now. PVE would delete it under that build without complaint (FACTS 58).
            send(context, &volid, &upload).await?;
            summary.push(format!("{volid} sent"));
            Ok(volid)
        }
        InstallerIso::Download(volid, download) => {
            let what = format!("downloading {volid}");
            // Not noted as created: another build may use the same file by now, and PVE answers alike for a file that was
            // there and fits its checksum. A failed download leaves nothing (PVE writes to a temporary name).
            let storage = context.client.node(&context.spec.node).storage(&volid.storage());
            let upid = storage
                .download_url(&download)
                .await
                .map_err(Error::api(what.as_str()))?;
            let limit = context.spec.timeouts.task;
            context.finish(&upid, &what, limit).await?;
            summary.push(format!("{volid} downloaded by the node"));
            Ok(volid)
        }
    }
}

/// Uploads a file. What belongs to this build alone is to be noted as created before.
pub(super) async fn send(context: &mut Context, volid: &VolId, upload: &Upload) -> Result<(), Error> {
    let node: NodeName = context.spec.node.clone();
    let what = format!("uploading {volid}");
    let told_percent = AtomicU64::new(0);
    let emitter = Arc::clone(&context.emitter);
    let upload = upload.clone().on_progress(move |done, total| {
        // One event a percent: a callback comes for every chunk.
        let percent = done.saturating_mul(100) / total.max(1);
        if told_percent.swap(percent, Ordering::Relaxed) != percent {
            emitter.progress(done, Some(total), Unit::Bytes, "uploading");
        }
    });
    let storage = context.client.node(&node).storage(&volid.storage());
    // A torn upload leaves nothing on the storage, so this is one of the calls that may be dropped half-way.
    let upid = context
        .or_cancel(storage.upload(&upload))
        .await?
        .map_err(Error::api(what.as_str()))?;
    let limit = context.spec.timeouts.task;
    context.finish(&upid, &what, limit).await
}

/// Deletes the volumes that this build put on a storage, as far as `which` picks them.
pub(super) async fn remove_volumes(
    context: &mut Context,
    which: impl Fn(&VolId) -> bool + Send,
) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    let volumes: Vec<(NodeName, VolId)> = context
        .resources()
        .iter()
        .filter_map(|resource| match resource {
            Resource::Volume { node, volid } if which(volid) => Some((node.clone(), volid.clone())),
            _ => None,
        })
        .collect();
    for (node, volid) in volumes {
        destroy_volume(&context.client, &node, &volid, context.task_limit(), &context.cancel).await?;
        removed.push(volid.to_string());
        context.removed(&Resource::Volume { node, volid });
    }
    Ok(removed)
}

/// The address that boot commands are given.
pub(super) fn http_values(media: Option<&Media>, server: Option<&KickstartServer>) -> Option<(IpAddr, String)> {
    let (address, port) = media?.http?;
    Some((address, format!("{port}/{}", server?.secret())))
}
