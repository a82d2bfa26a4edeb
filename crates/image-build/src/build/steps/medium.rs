//! Brings a large file into the guest on a medium, where the guest agent would carry it in pieces of 60 KiB.

use std::time::{Duration, Instant};

use proxmox_client::{Content, Drive, Upload, VmConfigUpdate, VolId};

use super::media::{remove_volumes, send};
use crate::build::context::{Context, Resource};
use crate::build::slots;
use crate::communicator::{Command, ExitStatus, OutputStream, Source, goes_by_agent};
use crate::media::{DataVolume, TAKE_FROM_VOLUME};
use crate::spec::{FileContent, FileSpec, ImageSpec, ProvisionerSpec};
use crate::text::{human_bytes, human_duration};
use crate::{Error, panics};

/// Files from this size on go by a medium. What a medium costs beside the file's own bytes, its upload's task, two changes of the
/// VM and the guest's look at its drive, is some seconds; in that time pieces carry less than this, on a slow guest far less.
const FROM_BYTES: u64 = 4 << 20;
/// Limit of the copy in the guest.
const COPY_LIMIT: Duration = Duration::from_secs(1800);

/// Whether this one goes by a medium: a large file that would else go through the agent.
pub(crate) fn goes_by_medium(spec: &ImageSpec, provisioner: &ProvisionerSpec) -> bool {
    let ProvisionerSpec::File(file) = provisioner else {
        return false;
    };
    let size = match &file.content {
        FileContent::Bytes(bytes) => bytes.len() as u64,
        // One that cannot be read is named when it is sent.
        FileContent::Local(local) => std::fs::metadata(local.path()).map_or(0, |metadata| metadata.len()),
    };
    goes_by_agent(spec) && size >= FROM_BYTES
}

/// Whether any of the image's files does, so that the VM needs a drive for it.
pub(crate) fn needs_medium(spec: &ImageSpec) -> bool {
    spec.provisioners
        .iter()
        .any(|provisioner| goes_by_medium(spec, provisioner))
}

/// Brings a file in by a medium. `None` when that did not work, which is told, and pieces remain.
pub(super) async fn bring(context: &mut Context, file: &FileSpec) -> Result<Option<String>, Error> {
    let begun = Instant::now();
    let brought = carry(context, file).await;
    if let Err(error @ (Error::Cancelled | Error::Impossible { .. })) = brought {
        return Err(error);
    }
    let emptied = empty(context).await;
    match (brought, emptied) {
        (Ok(size), Ok(())) => Ok(Some(format!(
            "{} to {}, {} on a medium in {}",
            file.name,
            file.destination,
            human_bytes(size),
            human_duration(begun.elapsed())
        ))),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), _) => {
            context.emitter.warning(format!(
                "{} does not go by a medium: {}; it is sent in pieces, which takes longer",
                file.name,
                error.chain()
            ));
            Ok(None)
        }
    }
}

/// Bytes that were sent, the volume's own among them, once the file is at its place in the guest.
async fn carry(context: &mut Context, file: &FileSpec) -> Result<u64, Error> {
    let source = match &file.content {
        FileContent::Bytes(bytes) => Source::Bytes(bytes.clone().into()),
        FileContent::Local(local) => Source::File(local.path().to_owned()),
    };
    let unwritten = |source| Error::Io {
        attempt: "laying out a medium with",
        path: (&file.name).into(),
        source,
    };
    let laid_out = tokio::task::spawn_blocking(move || DataVolume::of(&source)).await;
    let volume = match laid_out {
        Ok(volume) => volume.map_err(unwritten)?,
        Err(error) => {
            return Err(Error::Panic {
                message: panics::told_of_task(error),
            });
        }
    };
    let path = volume.image.path();
    let size = std::fs::metadata(path).map_err(unwritten)?.len();
    // The kickstart's volume had this name, and is gone: whoever looks for what a build has left looks for it.
    let upload = Upload::file(Content::Iso, format!("{}.iso", context.build_tag()), path)
        .map_err(Error::api("preparing the medium"))?;
    let storage = context.spec.installer.iso_storage.clone();
    let volid = VolId::of(&storage, &format!("iso/{}", upload.file_name())).map_err(Error::api("naming the medium"))?;
    let resource = Resource::Volume {
        node: context.spec.node.clone(),
        volid: volid.clone(),
    };
    context.created(resource);
    send(context, &volid, &upload).await?;
    let slot = slots::behind_disks(context.spec.disks.len());
    let update = VmConfigUpdate::new().disk(slot, &Drive::cdrom(&volid));
    context.update_vm("putting a medium into a drive", &update).await?;
    take(context, file, &volume).await?;
    Ok(size)
}

/// Has the guest copy the file.
async fn take(context: &Context, file: &FileSpec, volume: &DataVolume) -> Result<(), Error> {
    let what = format!("copying {} from its medium", file.name);
    let mode = format!("{:04o}", file.mode & 0o7777);
    let args = [volume.label.as_str(), &volume.sha256, &mode, &file.destination];
    let command = Command::sh(TAKE_FROM_VOLUME, args).timeout(COPY_LIMIT);
    let said = std::sync::Mutex::new(Vec::new());
    let on_line = |_: OutputStream, line: &str| {
        if let Ok(mut said) = said.lock() {
            said.push(line.to_owned());
        }
    };
    let communicator = context.communicator()?;
    let status: ExitStatus = context
        .in_guest(&what, communicator.exec(&command, &on_line))
        .await?
        .map_err(Error::guest(what.as_str()))?;
    if status.success() {
        return Ok(());
    }
    let tail = said.lock().map(|said| said.clone()).unwrap_or_default();
    Err(Error::Script {
        script: what,
        status,
        tail,
    })
}

/// Takes the medium out of its drive and removes it, as far as it was brought.
async fn empty(context: &mut Context) -> Result<(), Error> {
    let slot = slots::behind_disks(context.spec.disks.len());
    let update = VmConfigUpdate::new().disk(slot, &Drive::empty_cdrom());
    context.update_vm("taking a medium out of its drive", &update).await?;
    context.settle_task().await;
    remove_volumes(context, |_| true).await.map(drop)
}
