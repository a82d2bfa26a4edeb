//! Lists the templates that k3simage made and deletes old iterations of each image; shows what it would do unless --yes is given.
//!
//! `cargo run -p k3simage-cli --example prune_templates -- --emulator`, or with PROXMOX_URL, PROXMOX_TOKEN_ID and PROXMOX_TOKEN set.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "cluster/mod.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use image_build::ImageName;
use image_build::build::IMAGE_TAG;
use proxmox_client::{Client, CreateVm, DeleteVm, MiB, NodeName, Qemu, ResourceKind, TaskOutcome, Upid, Vmid, Wait};

/// Deletes old templates of k3simage.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
    /// How many iterations of each image stay
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// Delete; without it nothing is changed
    #[arg(long)]
    yes: bool,
}

/// A template and its place.
#[derive(Debug)]
struct Template {
    name: ImageName,
    node: NodeName,
    vmid: Vmid,
}

const TASK_LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let cluster = options.cluster.cluster().await?;
    let pve = &cluster.pve;
    if options.cluster.emulator {
        make_templates(pve, &options.cluster.node).await?;
    }

    // The release before the iteration is what makes two templates the same image.
    let mut images: BTreeMap<String, Vec<Template>> = BTreeMap::new();
    for template in templates(pve).await? {
        let image = template.name.to_string();
        let image = image
            .rsplit_once("-v")
            .map_or(image.as_str(), |(image, _)| image)
            .to_owned();
        images.entry(image).or_default().push(template);
    }
    for (image, mut templates) in images {
        templates.sort_by_key(|template| std::cmp::Reverse(template.name.iteration()));
        println!("{image}");
        for (index, template) in templates.iter().enumerate() {
            let old = index >= usize::try_from(options.keep)?;
            let what = match (old, options.yes) {
                (false, _) => "stays",
                (true, false) => "would be deleted (--yes deletes it)",
                (true, true) => {
                    delete(pve, template).await?;
                    "deleted"
                }
            };
            println!(
                "  v{:<3} vmid {:<6} {} {what}",
                template.name.iteration(),
                template.vmid,
                template.node
            );
        }
    }

    if options.cluster.emulator {
        let left = templates(pve).await?.len();
        let wanted = if options.yes {
            usize::try_from(options.keep)?.min(TRIALS.len())
        } else {
            TRIALS.len()
        };
        ensure!(left == wanted, "{left} templates are left, not {wanted}");
    }
    cluster.close().await;
    Ok(())
}

/// The templates with our tag and a name of our form.
async fn templates(pve: &Client) -> Result<Vec<Template>> {
    let mut found = Vec::new();
    for guest in pve.cluster_resources(Some(ResourceKind::Vm)).await? {
        let ours = guest.is_qemu() && guest.template && guest.tags().iter().any(|tag| tag == IMAGE_TAG);
        if let (true, Some(name), Some(node), Some(vmid)) = (ours, &guest.name, &guest.node, guest.vmid)
            && let Ok(name) = name.parse()
        {
            found.push(Template {
                name,
                node: NodeName::new(node)?,
                vmid,
            });
        }
    }
    Ok(found)
}

/// Proxmox VE refuses while a linked clone needs the template's disk, so nothing in use is lost.
async fn delete(pve: &Client, template: &Template) -> Result<()> {
    let vm: Qemu = pve.node(&template.node).qemu(template.vmid);
    let upid = vm.delete(&DeleteVm::new().purge(true)).await?;
    finish(pve, &upid).await?;
    Ok(())
}

/// Waits for a task; its warnings are worth a look, though it did its work.
async fn finish(pve: &Client, upid: &Upid) -> Result<()> {
    if let TaskOutcome::Warnings(lines) = pve.wait_task(upid, Wait::at_most(TASK_LIMIT)).await? {
        println!("  warning: {}", lines.join(" | "));
    }
    Ok(())
}

/// Iterations to try it out with; as texts they would sort wrongly.
const TRIALS: [u32; 4] = [1, 2, 9, 10];

/// Empty templates with names as builds give them.
async fn make_templates(pve: &Client, node: &NodeName) -> Result<()> {
    for iteration in TRIALS {
        let vm = pve.node(node).qemu(pve.next_id(None).await?);
        let create = CreateVm::new()
            .name(format!("alma9-k3-node-amd64-v1.31.3-v{iteration}"))
            .memory(MiB(512))
            .tags([IMAGE_TAG]);
        let upid = vm.create(&create).await?;
        finish(pve, &upid).await?;
        let upid = vm.convert_to_template().await?;
        finish(pve, &upid).await?;
    }
    Ok(())
}
