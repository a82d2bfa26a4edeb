//! `k3simage list`: the templates on the cluster that k3simage made.

use image_build::RETIRED_TAG;
use image_build::build::{BUILD_TAG_PREFIX, IMAGE_TAG};
use proxmox_client::{Client, ConfigView, ErrorKind, NodeName, Resource, ResourceKind, Vmid};
use serde::Serialize;
use serde_json::json;

use crate::args::ListArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    vmid: u32,
    node: String,
    k3s_version: Option<String>,
    built: Option<String>,
    build_id: Option<String>,
    retired: bool,
    tags: Vec<String>,
}

pub(super) async fn run(args: &ListArgs, console: &Console) -> Result<Exit, Box<Problem>> {
    let client = folder::connected(args.dir.as_deref(), &args.variables, console).await?;
    let resources = client
        .cluster_resources(Some(ResourceKind::Vm))
        .await
        .map_err(|error| Problem::of_client("listing the cluster's templates", &error))?;
    let mut rows = Vec::new();
    for resource in resources.iter().filter(|resource| is_image(resource, args.retired)) {
        rows.extend(look(&client, resource).await?);
    }
    rows.sort_by(|a, b| (&a.name, a.vmid).cmp(&(&b.name, b.vmid)));
    for row in &rows {
        let mut object = json!(row);
        if let Some(object) = object.as_object_mut() {
            object.insert("event".to_owned(), "template".into());
        }
        console.object(&object);
    }
    if rows.is_empty() {
        console.note(format_args!("no templates of k3simage on {}", client.endpoint()));
    } else {
        for line in table(&rows) {
            console.line(line);
        }
    }
    Ok(Exit::Ok)
}

fn is_image(resource: &Resource, retired: bool) -> bool {
    let wanted = |tag: &String| tag == IMAGE_TAG || (retired && tag == RETIRED_TAG);
    resource.is_qemu() && resource.template && resource.tags().iter().any(wanted)
}

/// Asks the template itself: the cluster's list can show an older VM's name for some seconds (`FACTS` 80).
async fn look(client: &Client, resource: &Resource) -> Result<Option<Row>, Box<Problem>> {
    let (Some(node), Some(vmid)) = (&resource.node, resource.vmid) else {
        return Ok(None);
    };
    let asked =
        |error: &proxmox_client::Error| Problem::of_client(&format!("reading template {vmid} on {node}"), error);
    let name = NodeName::new(node)
        .map_err(|error| Problem::failed(format!("reading the cluster's list: node `{node}`")).because(&error))?;
    match client.node(&name).qemu(vmid).config(ConfigView::Current).await {
        Ok(config) => {
            let description = config.get("description").unwrap_or_default();
            Ok(Some(row(
                config.get("name").or(resource.name.as_deref()),
                vmid,
                node,
                resource.tags(),
                description,
            )))
        }
        // Deleted since, or its node is down or hidden from us: the list's own words are what there is.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::Proxy | ErrorKind::Permission) => {
            Ok(Some(row(resource.name.as_deref(), vmid, node, resource.tags(), "")))
        }
        Err(error) => Err(asked(&error)),
    }
}

fn row(name: Option<&str>, vmid: Vmid, node: &str, tags: Vec<String>, description: &str) -> Row {
    Row {
        name: name.unwrap_or("-").to_owned(),
        vmid: vmid.get(),
        node: node.to_owned(),
        k3s_version: field(description, "k3s"),
        built: field(description, "built"),
        retired: tags.iter().any(|tag| tag == RETIRED_TAG),
        build_id: field(description, "build").map(|id| id.trim_start_matches(BUILD_TAG_PREFIX).to_owned()),
        tags,
    }
}

/// A row of the table that a build writes into the template's description.
fn field(description: &str, name: &str) -> Option<String> {
    description.lines().find_map(|line| {
        let (key, value) = line.trim().strip_prefix('|')?.strip_suffix('|')?.split_once('|')?;
        (key.trim() == name && !value.trim().is_empty()).then(|| value.trim().replace("\\|", "|"))
    })
}

/// Columns as wide as their widest entry.
fn table(rows: &[Row]) -> Vec<String> {
    let dash = || "-".to_owned();
    let mut cells = vec![["NAME", "VMID", "NODE", "K3S", "BUILT (UTC)"].map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.name.clone(),
            row.vmid.to_string(),
            row.node.clone(),
            row.k3s_version.clone().unwrap_or_else(dash),
            // To the second is enough for people.
            row.built.as_deref().map_or_else(dash, |built| {
                built
                    .split('.')
                    .next()
                    .unwrap_or(built)
                    .trim_end_matches('Z')
                    .to_owned()
            }),
        ]
    }));
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    cells
        .iter()
        .map(|row| {
            let line: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = "**alma9**\n\n| | |\n|---|---|\n| k3s | v1.29.0+k3s1 |\n| k3s role | server |\n| built | 2026-11-23T20:41:07.5Z |\n| build | 7f3a |\n| by | a \\| b |\n";

    #[test]
    fn the_description_is_read_back() {
        for (name, wanted) in [
            ("k3s", Some("v1.29.0+k3s1")),
            ("built", Some("2026-11-23T20:41:07.5Z")),
            ("build", Some("7f3a")),
            ("by", Some("a | b")),
            ("", None),
            ("nothing", None),
        ] {
            assert_eq!(field(DESCRIPTION, name).as_deref(), wanted, "{name}");
        }
        assert_eq!(field("free text | k3s |", "k3s"), None);
    }

    #[test]
    fn columns_line_up_and_unknown_is_a_dash() {
        let known = row(
            Some("alma9-k3-node-amd64-v1.29.0-v1"),
            "9000".parse().unwrap(),
            "pve",
            Vec::new(),
            DESCRIPTION,
        );
        let unknown = row(None, "100".parse().unwrap(), "pve-long", Vec::new(), "");
        assert_eq!(
            table(&[known, unknown]),
            [
                "NAME                            VMID  NODE      K3S           BUILT (UTC)",
                "alma9-k3-node-amd64-v1.29.0-v1  9000  pve       v1.29.0+k3s1  2026-11-23T20:41:07",
                "-                               100   pve-long  -             -",
            ]
        );
    }
}
