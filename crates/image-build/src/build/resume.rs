//! Goes on with a build whose builder died: finds it, takes it over, and says with which step to begin.

use proxmox_client::{Boot, Client, ConfigView, Drive, NodeName, Qemu, Shutdown, VmConfig, VmConfigUpdate, Vmid};

use super::context::{Context, Media, Resource};
use super::description::BUILD_TAG_PREFIX;
use super::reservation::Reservation;
use super::slots;
use super::steps::{DELETE_OLD, FINALISE, MOVE_OLD, RENUMBER, RETIRE, SHUT_DOWN, TEMPLATE, is_complete};
use super::vm::boots;
use crate::Error;
use crate::communicator::{BuildKeys, goes_by_agent};
use crate::journal::{self, Inputs, Journal, Keeper};
use crate::plan::{GUESTS, InstallerIso, Own, survey_of};
use crate::replace::{tags_of_image, work_on};
use crate::spec::{Delivery, ImageSpec, TemplateName};

/// What a build that is gone on with was found to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// Where it is gone on with.
    pub(super) point: Point,
    /// How many provisioners had ended well.
    pub(super) provisioned: usize,
}

/// Where to begin with a build that is gone on with. Ordered as the steps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The kickstart is made and sent anew, and the system installed again, on the VM that is there.
    Media,
    /// The installer is begun anew, or waited for where it runs.
    Install,
    /// The installed system is there: provisioners that have not ended are run.
    Connect,
    /// The guest is sealed.
    ShutDown,
    /// The VM is made what its clones are to be.
    Finalise,
    /// The VM is a template.
    Template,
    /// The template is verified before it takes another one's place.
    Verify,
    /// It takes that place.
    Retire,
    /// It has taken that place, and the old one is to make room for it at its number.
    MoveOld,
    /// It has taken that place, and the old one is to be deleted.
    DeleteOld,
    /// It is to have the number of the old one, which is free.
    Renumber,
}

impl Point {
    /// Name of the step to begin with.
    pub(super) fn step(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Install => "install",
            Self::Connect => "connect",
            Self::ShutDown => SHUT_DOWN,
            Self::Finalise => FINALISE,
            Self::Template => TEMPLATE,
            Self::Verify => "verify",
            Self::Retire => RETIRE,
            Self::MoveOld => MOVE_OLD,
            Self::DeleteOld => DELETE_OLD,
            Self::Renumber => RENUMBER,
        }
    }
}

/// What the VM itself tells of how far it is.
#[derive(Clone, Copy, Debug)]
struct VmState {
    /// The installer is through.
    installed: bool,
    /// It is a template.
    converted: bool,
}

/// Where to begin, from what is known.
///
/// - Without the login key of the dead builder nothing inside the guest can be reached, except by its agent, which asks for none:
///   only an installation with another key helps.
/// - Sealing closes the way in behind it. One that was begun may have got any far, and a half-sealed image must not pass for a
///   good one: the system is installed again.
/// - What finalises the VM notes the conversion in the same call. PVE applies the settings of a call one by one, so a VM that is no template
///   yet is finalised again.
fn point(step: &str, has_way_in: bool, oemdrv_is_there: bool, delivery: &Delivery, vm: VmState) -> Option<Point> {
    let VmState { installed, converted } = vm;
    Some(match step {
        "create" | "install" if installed && has_way_in => Point::Install,
        "create" | "install" if has_way_in && oemdrv_is_there && *delivery == Delivery::Oemdrv => Point::Install,
        "provision" if has_way_in => Point::Connect,
        "create" | "install" | "provision" | "seal" => Point::Media,
        SHUT_DOWN => Point::ShutDown,
        FINALISE | TEMPLATE if !converted => Point::Finalise,
        FINALISE | TEMPLATE => Point::Template,
        "verify" => Point::Verify,
        RETIRE => Point::Retire,
        MOVE_OLD => Point::MoveOld,
        DELETE_OLD => Point::DeleteOld,
        RENUMBER => Point::Renumber,
        _ => return None,
    })
}

/// Takes build `context.build_id` over. Nothing is changed before it is clear that it can be gone on with.
pub(super) async fn take_over(context: &mut Context) -> Result<Point, Error> {
    let build = context.build_id.clone();
    let refuse = |reason: String| Error::NotResumable {
        build: build.clone(),
        reason,
    };
    let (vm, config) = find(&context.client, &build).await?;
    let found = journal::read(config.description().unwrap_or_default())
        .map_err(|error| refuse(format!("the journal on vm {} is no help: {error}", vm.vmid())))?
        .filter(|journal| journal.build == build && journal.vmid == vm.vmid())
        .ok_or_else(|| {
            refuse(format!(
                "vm {} bears its tag, but no journal of it: delete that VM and build anew",
                vm.vmid()
            ))
        })?;
    if found.is_held(journal::now(&context.client)) {
        return Err(refuse(format!(
            "its builder gave a sign of life and counts as living until {}: wait for it, or until then",
            found.lease
        )));
    }
    if let Some(work) = work_on(&context.client, found.vmid, found.replacing.as_ref(), &context.cancel).await? {
        let then = if work.ends() {
            ": wait for that"
        } else {
            "; then resume again"
        };
        return Err(refuse(format!("{work}{then}")));
    }
    if *vm.node() != context.spec.node {
        return Err(refuse(format!(
            "its vm {} is on node {node}, and this folder says {}: set proxmox_node to {node}",
            vm.vmid(),
            context.spec.node,
            node = vm.node()
        )));
    }
    let mut changed = if is_complete(&found.step) {
        changed_of_image(&context.spec, &found, &config)
    } else {
        Inputs::of(&context.spec).changed(&found.inputs)
    };
    if let Some(number) = other_number(&context.spec, &found) {
        changed.push(number);
    }
    if !changed.is_empty() {
        return Err(refuse(format!(
            "what it was asked for has changed since it began: {}; give the same variables and files as then (also each `-var`), or remove the build (`k3simage gc --yes`) and build anew",
            changed.join(", ")
        )));
    }
    let (report, resolved) = context
        .or_cancel(survey_of(
            &context.client,
            &context.spec,
            Some(Own {
                name: &found.image,
                vmid: vm.vmid(),
                replaces: found.replacing.as_ref().map(|replacing| replacing.vmid),
            }),
            None,
        ))
        .await??;
    let Some(resolved) = resolved else {
        return Err(Error::Preflight {
            report: Box::new(report),
        });
    };
    let keys = BuildKeys::of_build(&context.client, &context.build_tag()).map_err(Error::keys)?;
    let has_way_in =
        goes_by_agent(&context.spec) || (found.login.is_some() && found.login == keys.lasting_fingerprint());
    let oemdrv_is_there = match &found.oemdrv {
        None => false,
        Some(volid) => {
            let storage = context.client.node(vm.node()).storage(&volid.storage());
            let volumes = storage
                .content(Some(proxmox_client::Content::Iso))
                .await
                .map_err(Error::api(format!("looking for {volid}")))?;
            volumes.iter().any(|volume| volume.volid == *volid)
        }
    };
    let vm_is = VmState {
        installed: config.flag("reboot") != Some(false),
        converted: config.is_template(),
    };
    let point = point(
        &found.step,
        has_way_in,
        oemdrv_is_there,
        &context.spec.installer.delivery,
        vm_is,
    )
    .ok_or_else(|| {
        refuse(format!(
            "its last step `{}` is none that this k3simage knows",
            found.step
        ))
    })?;

    let point = match point {
        Point::ShutDown | Point::Finalise if !config.is_template() => {
            let now = boots(&context.client, &vm, &context.cancel).await?;
            if found.boots.is_some_and(|before| now > before) {
                context.emitter.warning(format!(
                    "vm {} was started after it had been sealed, and made then what each clone would share: the system is installed again",
                    vm.vmid()
                ));
                Point::Media
            } else {
                context.boots = found.boots;
                point
            }
        }
        point => point,
    };

    let reservation = Reservation::exactly(context.client.endpoint(), &found.image, vm.vmid())?;
    context.replacing.clone_from(&found.replacing);
    context.claim_number()?;
    let ours = Journal {
        holder: context.holder.clone(),
        ..found.clone()
    };
    let keeper = Keeper::take_over(&context.client, vm.clone(), context.lease, &config, ours).await?;

    // From here on it is ours, to finish or to remove.
    context.reservation = Some(reservation);
    context.run_uuid.clone_from(&found.run);
    context.report = Some(report);
    context.created(Resource::Vm {
        node: vm.node().clone(),
        vmid: vm.vmid(),
    });
    if let Some(volid) = found.oemdrv.clone().filter(|_| oemdrv_is_there) {
        context.created(Resource::Volume {
            node: vm.node().clone(),
            volid,
        });
    }
    context.media = match &resolved.iso {
        InstallerIso::Present(iso) => Some(Media {
            installer: iso.clone(),
            oemdrv: found.oemdrv.clone().filter(|_| oemdrv_is_there),
            http: None,
        }),
        _ => None,
    };
    context.resolved = Some(resolved);
    context.image_tags = is_complete(&found.step).then(|| tags_of_image(&config));
    context.keys = Some(keys);
    context.resumed = Some(Resumed {
        point,
        provisioned: found.provisioned,
    });
    context.keep(keeper);
    Ok(point)
}

/// A vmid that is asked for and that the build does not lead to. One that is not asked for may have been chosen by the build, but the
/// exchange with the old template's is made for who asked for it.
fn other_number(spec: &ImageSpec, found: &Journal) -> Option<String> {
    match found.replacing.as_ref().filter(|replacing| replacing.renumber) {
        Some(replacing) => {
            (spec.vmid != Some(replacing.vmid)).then(|| format!("vm_id (the template gets {})", replacing.vmid))
        }
        None => spec
            .vmid
            .is_some_and(|wanted| wanted != found.vmid)
            .then(|| format!("vm_id (its vm has {})", found.vmid)),
    }
}

/// What is different from the finished image: its journal does not hold what it was made of, so its name and its k3s have to tell whether
/// this is its folder. Its tags and its pool are taken from itself.
fn changed_of_image(spec: &ImageSpec, found: &Journal, config: &VmConfig) -> Vec<String> {
    let mut changed = Vec::new();
    if let TemplateName::Fixed(name) = &spec.name
        && *name != found.image
    {
        changed.push(format!("name (the image is {})", found.image));
    }
    // As the template's tags have it, and its copies'.
    let tags = config.tags();
    if let Some(k3s) = &spec.k3s
        && !tags.contains(&k3s.version.to_string().to_lowercase())
    {
        changed.push(format!("k3s ({} is none of the image's tags)", k3s.version));
    }
    changed
}

/// The VM that bears the build's tag, and its configuration.
async fn find(client: &Client, build: &str) -> Result<(Qemu, VmConfig), Error> {
    let tag = format!("{BUILD_TAG_PREFIX}{build}");
    let guests = client
        .cluster_resources(Some(GUESTS))
        .await
        .map_err(Error::api("listing the cluster's guests"))?;
    let (mut seen, mut bare) = (Vec::new(), None);
    for guest in guests.iter().filter(|guest| guest.is_qemu()) {
        let (Some(vmid), Some(node)) = (guest.vmid, guest.node.as_deref()) else {
            continue;
        };
        if !guest.tags().contains(&tag) {
            continue;
        }
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        let vm = client.node(&node).qemu(vmid);
        let config = match vm.config(ConfigView::Pending).await {
            Ok(config) => config,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(Error::api(format!("reading the configuration of vm {vmid}"))(error)),
        };
        // A clone of a build's VM has its tag and text, and another number; one of a verification has for a moment the tag alone.
        match journal::read(config.description().unwrap_or_default()) {
            Ok(Some(journal)) if journal.vmid == vmid && journal.build == build => return Ok((vm, config)),
            Ok(Some(_)) => seen.push(vmid),
            // Its own, whose journal somebody took out or spoiled, or a clone of it: one with the journal may come after it.
            Ok(None) | Err(_) => bare = bare.or(Some((vm, config))),
        }
    }
    bare.ok_or_else(|| Error::NotResumable {
        build: build.to_owned(),
        reason: nowhere(client, &seen),
    })
}

fn nowhere(client: &Client, clones: &[Vmid]) -> String {
    let clones: Vec<String> = clones.iter().map(ToString::to_string).collect();
    let clones = if clones.is_empty() {
        String::new()
    } else {
        format!(" (vm {} is a clone of one)", clones.join(" and "))
    };
    format!(
        "no VM on {} bears its tag{clones}: it has ended, was removed, or died before its VM was there, and then there is \
         nothing to go on with; `k3simage gc` shows what is left",
        client.endpoint()
    )
}

impl Context {
    /// Brings the VM of a build that is gone on with back to where an installation begins, as far as it is not there.
    pub(super) async fn ready_to_install(&mut self) -> Result<(), Error> {
        self.stop_vm().await?;
        let media = self.media()?;
        // What an earlier installation left on the disk would boot before the installer does.
        let order =
            Boot::order([slots::INSTALLER, slots::SYSTEM_DISK]).map_err(Error::api("describing the boot order"))?;
        let mut update = VmConfigUpdate::new()
            .reboot(false)
            .boot(&order)
            .disk(slots::INSTALLER, &Drive::cdrom(&media.installer));
        if let Some(oemdrv) = &media.oemdrv {
            update = update.disk(slots::OEMDRV, &Drive::cdrom(oemdrv));
        }
        self.update_vm("putting the installation media back in", &update).await
    }

    /// Pulls the plug, if it is in.
    pub(super) async fn stop_vm(&mut self) -> Result<(), Error> {
        if self.vm_status().await?.is_stopped() {
            return Ok(());
        }
        let attempt = format!("stopping vm {}", self.vmid()?);
        let (vm, limit) = (self.vm()?, self.task_limit());
        self.power_off(&attempt, "qmstop", limit, || vm.stop()).await
    }

    /// Starts the guest anew, or at all: a script that the dead builder began may still run in it.
    pub(super) async fn restart_guest(&mut self) -> Result<(), Error> {
        if self.vm_status().await?.is_running() {
            let attempt = format!("shutting vm {} down to start it anew", self.vmid()?);
            let limit = self.spec.timeouts.shutdown;
            let how = Shutdown::new().timeout(limit).force_stop(true);
            let (vm, limit) = (self.vm()?, limit + self.task_limit());
            self.power_off(&attempt, "qmshutdown", limit, || vm.shutdown(&how))
                .await?;
        }
        self.start_vm().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_goes_on_where_nothing_is_lost_or_assumed() {
        let http = Delivery::Http {
            bind: None,
            announce: None,
            ports: 8000..=9000,
        };
        for (step, has_key, oemdrv, delivery, installed, wanted) in [
            ("create", true, true, &Delivery::Oemdrv, false, Some(Point::Install)),
            ("install", true, true, &Delivery::Oemdrv, false, Some(Point::Install)),
            // The volume is gone once the installation is through, and not needed then.
            ("install", true, false, &Delivery::Oemdrv, true, Some(Point::Install)),
            ("install", true, false, &Delivery::Oemdrv, false, Some(Point::Media)),
            ("install", false, true, &Delivery::Oemdrv, false, Some(Point::Media)),
            // The server that the guest was to ask died with its builder.
            ("install", true, false, &http, false, Some(Point::Media)),
            ("install", true, false, &http, true, Some(Point::Install)),
            ("provision", true, false, &Delivery::Oemdrv, true, Some(Point::Connect)),
            ("provision", false, false, &Delivery::Oemdrv, true, Some(Point::Media)),
            ("seal", true, false, &Delivery::Oemdrv, true, Some(Point::Media)),
            (
                "shut_down",
                false,
                false,
                &Delivery::Oemdrv,
                true,
                Some(Point::ShutDown),
            ),
            ("template", false, false, &Delivery::Oemdrv, true, Some(Point::Finalise)),
            ("verify", false, false, &Delivery::Oemdrv, true, Some(Point::Verify)),
            ("retire", false, false, &Delivery::Oemdrv, true, Some(Point::Retire)),
            (
                "delete_old",
                false,
                false,
                &Delivery::Oemdrv,
                true,
                Some(Point::DeleteOld),
            ),
            ("move_old", false, false, &Delivery::Oemdrv, true, Some(Point::MoveOld)),
            ("renumber", false, false, &Delivery::Oemdrv, true, Some(Point::Renumber)),
            ("dance", true, true, &Delivery::Oemdrv, true, None),
        ] {
            let vm_is = VmState {
                installed,
                converted: false,
            };
            assert_eq!(
                point(step, has_key, oemdrv, delivery, vm_is),
                wanted,
                "{step} {has_key} {oemdrv} {installed}"
            );
        }
        let template = VmState {
            installed: true,
            converted: true,
        };
        for step in ["finalise", "template"] {
            assert_eq!(
                point(step, false, false, &Delivery::Oemdrv, template),
                Some(Point::Template)
            );
        }
    }
}
