//! `k3simage init`: writes a template folder.

use serde_json::json;

use crate::args::InitArgs;
use crate::exit::Exit;
use crate::folder::off_thread;
use crate::output::{Console, Problem};

pub(super) async fn run(args: &InitArgs, console: &Console) -> Result<Exit, Box<Problem>> {
    let dir = args.dir.clone();
    let written = off_thread(move || image_build::assets::init(&dir))
        .await
        .map_err(|error| Problem::before(&error))?;
    let dir = args.dir.display();
    for path in &written {
        console.object(&json!({ "event": "written", "path": path }));
        console.note(format_args!("  {}", path.display()));
    }
    console.line(format_args!(
        "{} wrote {} files to {dir}",
        console.out().good("ok"),
        written.len()
    ));
    console.note(format_args!(
        "\nNext:\n  edit {dir}/variables.auto.pkrvars.hcl: your cluster, node, ISO and storages\n  \
         export PKR_VAR_proxmox_token=... : the token's secret, never in a file under version control\n  \
         k3simage validate {dir} : seconds, no network\n  \
         k3simage plan {dir} : seconds, looks at the cluster, changes nothing\n  \
         k3simage build {dir}\n\nWithout a cluster: k3simage build {dir} --emulator"
    ));
    Ok(Exit::Ok)
}
