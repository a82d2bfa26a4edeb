//! `k3simage plan`: what a build would find on the cluster. Changes nothing.

use std::time::Instant;

use image_build::PlanReport;
use image_build::plan::Level;
use serde_json::json;

use super::replace;
use crate::args::PlanArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem, duration};

pub(super) async fn run(args: &PlanArgs, console: &Console) -> Result<Exit, Box<Problem>> {
    let replace = replace::asked(&args.replace)?;
    let args = &args.folder;
    let loaded = folder::load(&args.dir, &args.variables, console).await?;
    let client = folder::client(&loaded).await?;
    let begun = Instant::now();
    let report = match &replace {
        Some(replace) => image_build::plan::plan_replacing(&client, &loaded.spec, replace).await,
        None => image_build::plan(&client, &loaded.spec).await,
    };
    let report = report.map_err(|error| Problem::before(&error))?;
    show(&report, console);
    let took = duration(begun.elapsed());
    let requests = client.request_count();
    if report.is_ok() {
        let vmid = report.vmid.map(|vmid| format!(", vmid {vmid}")).unwrap_or_default();
        console.note(format_args!(
            "a build can begin: {}{vmid}  ({took}, {requests} API requests, nothing changed)",
            report.image
        ));
        Ok(Exit::Ok)
    } else {
        let errors = report.at(Level::Error).count();
        let found = if errors == 1 {
            "1 finding stands".to_owned()
        } else {
            format!("{errors} findings stand")
        };
        console.error_line(format_args!("{found} against a build; nothing was changed"));
        Ok(Exit::BadInput)
    }
}

fn show(report: &PlanReport, console: &Console) {
    for finding in &report.findings {
        let mut object = json!({ "event": "finding" });
        if let (Some(object), Ok(serde_json::Value::Object(fields))) =
            (object.as_object_mut(), serde_json::to_value(finding))
        {
            object.extend(fields);
        }
        console.object(&object);
    }
    console.object(&json!({
        "event": "planned",
        "ok": report.is_ok(),
        "image": report.image,
        "node": report.node,
        "pve_version": report.pve_version,
        "vmid": report.vmid,
        "replaces": report.replaces,
    }));
    let palette = console.out();
    console.note(format_args!(
        "{} on {} (PVE {})",
        palette.strong(&report.image),
        report.node,
        report.pve_version
    ));
    for finding in &report.findings {
        let tag = match finding.level {
            Level::Ok => palette.good("ok "),
            Level::Warning => palette.warning("!! "),
            Level::Error => palette.bad("ERR"),
        };
        let line = format!(" {tag} {:<11} {}", finding.check, finding.message);
        // With --quiet only what stands in the way is told.
        if finding.level == Level::Error {
            console.line(&line);
        } else {
            console.note(&line);
        }
        for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
            if finding.level == Level::Error {
                console.line(format_args!("                 {line}"));
            } else {
                console.note(format_args!("                 {line}"));
            }
        }
    }
}
