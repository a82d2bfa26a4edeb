//! `k3simage validate`: everything that can be known about a template folder without a network.

use serde_json::json;

use crate::args::FolderArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};

pub(super) async fn run(args: &FolderArgs, console: &Console) -> Result<Exit, Box<Problem>> {
    let loaded = folder::load(&args.dir, &args.variables, console).await?;
    let spec = &loaded.spec;
    console.object(&json!({
        "event": "validated",
        "image": spec.name.to_string(),
        "node": spec.node.to_string(),
        "spec_hash": spec.content_hash(),
        "warnings": loaded.warnings.len(),
        "missing": loaded.missing(),
    }));
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", with 1 warning".to_owned(),
        many => format!(", with {many} warnings"),
    };
    console.line(format_args!(
        "{} {}: {} for node {} is sound{warnings}",
        console.out().good("ok"),
        args.dir.display(),
        spec.name,
        spec.node,
    ));
    for missing in loaded.missing().iter() {
        console.note(format_args!("     before plan and build: {}", missing.headline()));
        for help in missing.help.iter().flat_map(|help| help.lines()) {
            console.note(format_args!("       {help}"));
        }
    }
    Ok(Exit::Ok)
}
