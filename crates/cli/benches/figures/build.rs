//! Figures of a build: requests, time and memory of the builder.

use std::{future::IntoFuture as _, time::Instant};

use anyhow::{Context as _, Result};
use image_build::{ImageSpec, spec::IsoSource};
use serde_json::{Value, json};

use crate::{
    process::{Served, memory_kib, number, run_role},
    serve::{ISO, client, emulator, given_target, target},
    table::{Table, median, plain},
};

pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let mut walls = Vec::new();
    let mut one = Value::Null;
    for _ in 0..5 {
        // Each on an emulator of its own: the name is taken once it was built.
        let served = Served::start()?;
        one = run_role(&["role-build", "1"], Some(&served.target))?;
        walls.push(number(&one, "wall_s")?);
    }
    table.at_most("one build: API requests", number(&one, "requests")?, 60.0, "");
    table.at_most(
        "one build: wall, the guest taking no time (median of 5)",
        median(&mut walls),
        1.0,
        "s",
    );
    table.at_most(
        "one build: peak memory of the builder",
        number(&one, "peak_kib")? / 1024.0,
        64.0,
        "MiB",
    );
    let embedded = run_role(&["role-build-embedded", "1"], None)?;
    table.at_most(
        "one build: peak memory, emulator embedded",
        number(&embedded, "peak_kib")? / 1024.0,
        64.0,
        "MiB",
    );

    let many = run_role(&["role-build-embedded", "100"], None)?;
    table.at_most(
        "100 builds at once, emulator embedded: peak memory",
        number(&many, "peak_kib")? / 1024.0,
        256.0,
        "MiB",
    );
    plain(
        "100 builds at once, emulator embedded: wall",
        number(&many, "wall_s")?,
        "s",
    );
    Ok(())
}

pub(crate) async fn build_embedded(count: &str) -> Result<()> {
    let pve = emulator().await?;
    build_on(count, &target(&pve)).await?;
    pve.shutdown().await;
    Ok(())
}

pub(crate) async fn build(count: &str) -> Result<()> {
    build_on(count, &given_target()?).await
}

async fn build_on(count: &str, target: &Value) -> Result<()> {
    let count: u32 = count.parse()?;
    let client = client(target)?;
    let begun = Instant::now();
    let mut builds = tokio::task::JoinSet::new();
    for iteration in 1..=count {
        builds.spawn(image_build::build(&client, spec(target, iteration)?).into_future());
    }
    while let Some(ended) = builds.join_next().await {
        ended?.context("a build failed")?;
    }
    let wall_s = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "requests": client.request_count(), "wall_s": wall_s, "peak_kib": memory_kib("VmHWM")? })
    );
    Ok(())
}

/// What every figure of a build builds, under a name of its own.
pub(crate) fn spec(target: &Value, iteration: u32) -> Result<ImageSpec> {
    let ssh_port = u16::try_from(target["ssh_port"].as_u64().context("ssh_port")?)?;
    Ok(ImageSpec::builder()
        .k3s_version("v1.29.0+k3s1".parse()?)
        .name(format!("alma9-k3-node-amd64-v1.29.0-v{iteration}"))
        .node("pve")
        .iso(IsoSource::Volid(format!("local:iso/{ISO}").parse()?))
        .ssh_port(ssh_port)
        .build()?)
}
