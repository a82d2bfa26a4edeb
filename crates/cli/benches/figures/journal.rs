//! Figures of what a build owes to others: the price of its journal, and memory that does not grow from build to build.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxmox_client::{ConfigView, DeleteVm, NodeName, VmConfigUpdate, Vmid, Wait};
use pve_emulator::RequestRecord;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    build::spec,
    process::{Served, memory_kib, number, run_role},
    serve::{client, emulator, given_target, target},
    table::{Table, plain},
};

/// Builds one after another, for the growth of memory.
const BUILDS: &str = "1000";
/// With the first ones the process reaches its size: buffers, caches, threads.
const WARM: u32 = 50;
/// How often the journal's pair of calls is timed.
const PAIRS: u32 = 200;
/// Limit of a template's deletion between two builds.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let price = run_role(&["role-journal"], None)?;
    table.at_most(
        "journal: API calls that a step adds",
        number(&price, "calls_a_step")?,
        2.0,
        "",
    );
    plain(
        "journal: API calls that it adds to a build",
        number(&price, "calls")?,
        "",
    );
    plain("journal: one entry", number(&price, "entry_ms")?, "ms");
    plain(
        "journal: share of a build whose guest takes no time",
        number(&price, "share_percent")?,
        "%",
    );

    let served = Served::start()?;
    let many = run_role(&["role-builds", BUILDS], Some(&served.target))?;
    plain(
        "memory of the builder after 50 builds",
        number(&many, "warm_kib")? / 1024.0,
        "MiB",
    );
    table.at_most(
        "growth of it over 950 builds more",
        number(&many, "growth_percent")?,
        10.0,
        "%",
    );
    Ok(())
}

/// One build on an emulator within reach: its requests tell which of them were for the journal.
pub(crate) async fn price() -> Result<()> {
    let pve = emulator().await?;
    let target = target(&pve);
    let client = client(&target)?;
    let (events, mut seen) = unbounded_channel();
    let begun = Instant::now();
    let artifact = image_build::build(&client, spec(&target, 1)?).events(events).await?;
    let wall = begun.elapsed();
    let calls = calls_of_entries(&pve.requests());
    let mut steps = 0_u32;
    while let Ok(event) = seen.try_recv() {
        steps += u32::from(matches!(event.kind, image_build::EventKind::StepStarted { .. }));
    }
    ensure!(
        calls > 0 && steps > 0,
        "the build wrote no journal: {calls} calls, {steps} steps"
    );

    // The same pair of calls, with as much to read and to write, on the template.
    let vm = client.node(&NodeName::new("pve")?).qemu(Vmid::new(artifact.vmid)?);
    let begun = Instant::now();
    for number in 0..PAIRS {
        let config = vm.config(ConfigView::Pending).await?;
        let text = format!("{number:03}{}", "x".repeat(1500));
        let update = VmConfigUpdate::new()
            .description(text)
            .digest(config.digest().context("no digest")?);
        vm.update_config(&update).await?;
    }
    let entry = begun.elapsed() / PAIRS;
    let share = entry.as_secs_f64() * f64::from(calls / 2) / wall.as_secs_f64();
    println!(
        "{}",
        json!({
            "calls": calls, "calls_a_step": f64::from(calls) / f64::from(steps),
            "entry_ms": entry.as_secs_f64() * 1e3, "share_percent": share * 100.0,
        })
    );
    pve.shutdown().await;
    Ok(())
}

/// How many calls set the VM's configuration, or read it as the last thing before that. At most those are the journal's: three of the changes
/// would be made without it too.
fn calls_of_entries(requests: &[RequestRecord]) -> u32 {
    let methods: Vec<&str> = requests
        .iter()
        .filter(|request| request.path.ends_with("/config"))
        .map(|request| request.method.as_str())
        .collect();
    let sets = methods.iter().filter(|method| **method == "PUT").count();
    let reads = methods.windows(2).filter(|pair| *pair == ["GET", "PUT"]).count();
    u32::try_from(sets + reads).unwrap_or(u32::MAX)
}

/// Builds one after another in one process, each on a cluster as empty as the first found it.
pub(crate) async fn builds(count: &str) -> Result<()> {
    let count: u32 = count.parse()?;
    let target = given_target()?;
    let client = client(&target)?;
    let mut warm = 0;
    for iteration in 1..=count {
        let artifact = image_build::build(&client, spec(&target, iteration)?)
            .await
            .with_context(|| format!("build {iteration} failed"))?;
        let vm = client.node(&NodeName::new("pve")?).qemu(Vmid::new(artifact.vmid)?);
        let upid = vm.delete(&DeleteVm::new().purge(true)).await?;
        let _warnings = client.wait_task(&upid, Wait::at_most(DELETED_WITHIN)).await?;
        if iteration == WARM {
            warm = memory_kib("VmRSS")?;
        }
    }
    ensure!(warm > 0, "fewer builds than {WARM} tell nothing");
    let now = memory_kib("VmRSS")?;
    let kib = |kib: u64| u32::try_from(kib).map(f64::from);
    let growth: Value = json!((kib(now)? / kib(warm)? - 1.0) * 100.0);
    println!("{}", json!({ "warm_kib": warm, "kib": now, "growth_percent": growth }));
    Ok(())
}
