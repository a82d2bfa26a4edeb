//! What people read on the VM and on the template, in Markdown as PVE shows it.

use jiff::Timestamp;
use proxmox_client::DESCRIPTION_MAX;

use super::context::Context;
use crate::Error;

/// Prefix of the tag that marks a VM as a build's own while it runs; the build's id follows.
pub const BUILD_TAG_PREFIX: &str = "k3simage-build-";
/// Tag of every finished template, by which `list` finds them.
pub const IMAGE_TAG: &str = "k3simage";

/// Whether this can be the id of a build or of a verification: eight hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// While the build runs: whose VM this is, and how to get rid of it if its builder died.
pub(super) fn while_building(context: &Context) -> Result<String, Error> {
    let name = &context.resolved()?.name;
    let place = match &context.replacing {
        Some(replacing) => format!(" in place of template {}", replacing.vmid),
        None => String::new(),
    };
    Ok(format!(
        "**{name}** is being built by k3simage{place}, build `{}`.\n\nA build removes this VM when it fails. If its builder died, \
         `k3simage resume` goes on with it and `k3simage gc --yes` removes it.\n",
        context.build_id
    ))
}

/// On the template: what is inside and where it comes from.
pub(super) fn of_template(context: &Context, finished: Timestamp) -> Result<String, Error> {
    let spec = &context.spec;
    let resolved = context.resolved()?;
    let extra = spec
        .description
        .as_deref()
        .map(|extra| format!("{}\n\n", extra.trim_end()))
        .unwrap_or_default();
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(k3s) = &spec.k3s {
        rows.push(("k3s", k3s.version.to_string()));
        rows.push(("k3s role of a clone that is told nothing", k3s.role.to_string()));
    }
    rows.push(("installer", spec.installer.iso.file_name().to_owned()));
    rows.push(("firmware", spec.hardware.bios.to_string()));
    rows.push(("built", finished.to_string()));
    rows.push(("build", context.build_tag()));
    rows.push(("inputs", format!("sha256:{}", spec.content_hash())));
    rows.push((
        "by",
        format!(
            "k3simage {} on Proxmox VE {}",
            env!("CARGO_PKG_VERSION"),
            resolved.pve_version
        ),
    ));
    // A pipe would begin another column.
    let rows: Vec<String> = rows
        .iter()
        .map(|(what, value)| format!("| {what} | {} |\n", value.replace('|', "\\|")))
        .collect();
    let text = format!("{extra}**{}**\n\n| | |\n|---|---|\n{}", resolved.name, rows.concat());
    if text.chars().count() > DESCRIPTION_MAX {
        return Err(Error::unusable(
            "description",
            &format!(
                "is too long: with the build's own lines it has {} characters",
                text.chars().count()
            ),
            "shorten it; PVE takes 8192",
        ));
    }
    Ok(text)
}
