//! Replays the recorded scenarios of the real PVE 9.2 against a fresh emulator each and counts what agrees.
//!
//! `SCENARIO=05` replays the files whose names begin so; `DIFFERENCES=1` prints each difference.

mod support;

use support::{Outcome, replay, scenario_files};

/// Exchanges that must agree, so that what once agreed goes on agreeing: all of them.
const EXPECTED: [(&str, usize); 14] = [
    ("01-auth.json", 66),
    ("02-read-only.json", 83),
    ("03-parameter-errors.json", 154),
    ("04-iso-upload.json", 138),
    ("05-create-and-config.json", 112),
    ("06-power-and-agent.json", 151),
    ("07-template-and-clone.json", 88),
    ("08-locks-and-conflicts.json", 92),
    ("09-tasks.json", 95),
    ("10-privileges-whole-build.json", 68),
    ("11-download-url.json", 120),
    ("12-cloud-init.json", 83),
    ("13-privileges-minus-one.json", 1025),
    ("14-snapshots.json", 47),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_agree() {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let show = std::env::var("DIFFERENCES").is_ok();
    let (mut agree, mut all) = (0, 0);
    let (mut worse, mut seen) = (Vec::new(), Vec::new());
    for file in scenario_files().unwrap() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with(&only) {
            continue;
        }
        let Outcome { steps, differences } = replay(&file).await.unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let good = steps - differences.len();
        println!("{name:40} {good:5} of {steps:5}");
        let expected = EXPECTED.iter().find(|(n, _)| *n == name).map_or(0, |(_, e)| *e);
        if show || good < expected {
            for difference in &differences {
                println!("  {difference}");
            }
        }
        if good < expected {
            worse.push(format!("{name}: {good}, was {expected}"));
        }
        agree += good;
        all += steps;
        seen.push(name);
    }
    println!("{agree} of {all} exchanges agree");
    assert!(all > 0, "no scenario was replayed");
    if only.is_empty() {
        assert_eq!(seen, EXPECTED.map(|(name, _)| name), "the scenarios that are there");
    }
    assert!(worse.is_empty(), "less agrees than before: {worse:?}");
}
