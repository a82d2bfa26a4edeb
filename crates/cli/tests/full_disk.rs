//! Output and files that cannot be written: /dev/full says that no space is left, and a limit on the size of files breaks a write half-way,
//! which is what a full disk does to files; both without any rights.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Cluster, Ended, Folder, IMAGE, k3simage, names, run};
use pve_emulator::{Emulator, FaultAction, Gate, Timing};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

const NO_SPACE: &str = "No space left on device";
/// What a write over the limit is answered.
const TOO_LARGE: &str = "File too large";

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn cluster() -> Cluster {
    Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)))
}

/// From now on files of this process cannot grow beyond so many bytes.
fn limit(process: u32, bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let pid = Pid::from_raw(process.try_into().unwrap());
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

/// The command with that limit from the start.
fn limited(command: &Command, blocks: u64) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// Runs a command with `--json` and takes all room away from it while this call of it waits.
fn without_room_from(cluster: &Cluster, method: &str, path: &str, command: &mut Command) -> Ended {
    let gate = Gate::default();
    cluster
        .emulator
        .fail_next(method, path, FaultAction::Hold(gate.clone()));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| child.wait_with_output().unwrap());
        let reached = async { tokio::time::timeout(Duration::from_secs(120), gate.reached()).await };
        cluster.block_on(reached).expect("the call comes");
        limit(process, 0);
        gate.open();
        Ended::of(&reading.join().unwrap())
    })
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn output_that_is_lost_changes_nothing_of_a_build() {
    let folder = Folder::new();
    let manifest = folder.temp.path().join("manifest.json");
    let args = [
        "build",
        folder.path(),
        "--emulator",
        "--manifest",
        manifest.to_str().unwrap(),
    ];
    let output = k3simage(&args).stdout(full()).output().unwrap();
    let ended = Ended::of(&output).expect(0, &["error: writing standard output", NO_SPACE]);
    assert_eq!(count(&ended.err, NO_SPACE), 1, "{}", ended.err);
    assert!(manifest.exists());

    // One that fails is undone, with nowhere to say so.
    folder.edit("scripts/os-update.sh", "set -euo pipefail", "set -euo pipefail\nexit 7");
    let cluster = cluster();
    let before = cluster.inventory();
    for more in [&["-vvv"][..], &["--json"]] {
        let mut command = k3simage(&["build", folder.path()]);
        cluster.lead(&mut command);
        let status = command.args(more).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(
            (status.code(), cluster.inventory()),
            (Some(1), before.clone()),
            "{more:?}"
        );
    }
}

#[test]
fn output_that_is_lost_is_a_failure_of_what_is_run_for_it() {
    let (folder, cluster) = (Folder::new(), cluster());
    let into_nothing = |args: &[&str], leads: bool| {
        let mut command = k3simage(args);
        if leads {
            cluster.lead(&mut command);
        }
        let ended = Ended::of(&command.stdout(full()).output().unwrap());
        ended.expect(1, &["error: writing standard output", NO_SPACE]);
    };
    into_nothing(&["--help"], false);
    into_nothing(&["validate", folder.path()], false);
    into_nothing(&["validate", folder.path(), "--json"], false);
    into_nothing(&["plan", folder.path()], true);
    into_nothing(&["gc"], true);
    // So that there is something to list.
    cluster.run(&["build", folder.path()], &[]).expect(0, &[]);
    into_nothing(&["list"], true);
    into_nothing(&["list", "--json"], true);
}

#[test]
fn a_log_that_is_full_is_told_once_and_the_build_goes_on() {
    let folder = Folder::new();
    for more in [&[][..], &["--json"], &["-vvv"]] {
        let mut command = k3simage(&["build", folder.path(), "--emulator", "--log-file", "/dev/full"]);
        let ended = Ended::of(&command.args(more).output().unwrap());
        let ended = ended.expect(0, &["writing the log file /dev/full: No space left on device"]);
        assert_eq!(count(&ended.all(), NO_SPACE), 1, "{}", ended.all());
    }
}

#[test]
fn a_manifest_that_will_not_fit_is_refused_before_anything_is_made() {
    let (folder, cluster) = (Folder::new(), cluster());
    let before = cluster.inventory();
    let out = folder.temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let manifest = out.join("manifest.json");
    let manifest = manifest.to_str().unwrap();
    let build = |file: &str| {
        let mut command = k3simage(&["build", folder.path(), "--manifest", file]);
        cluster.lead(&mut command);
        command
    };
    let ended = Ended::of(&limited(&build(manifest), 0).output().unwrap());
    ended.expect(2, &["preflight", manifest, TOO_LARGE]);
    // It would take the device's place, and reading that has no end.
    for device in ["/dev/full", "/dev/zero", "/dev/stdout"] {
        let ended = Ended::of(&build(device).output().unwrap());
        ended.expect(2, &["preflight", device, "name a file"]);
    }
    assert_eq!(cluster.inventory(), before);
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_manifest_that_does_not_fit_at_the_end_leaves_the_old_one_and_the_template() {
    let (folder, cluster) = (Folder::new(), cluster());
    let out = folder.temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let manifest = out.join("manifest.json");
    let old = r#"{"builds":[{"name":"x"}],"last_run_uuid":"a"}"#;
    std::fs::write(&manifest, old).unwrap();
    let mut command = k3simage(&[
        "build",
        folder.path(),
        "--json",
        "--manifest",
        manifest.to_str().unwrap(),
    ]);
    cluster.lead(&mut command);
    let ended = without_room_from(&cluster, "POST", "/nodes/*/qemu/*/status/shutdown", &mut command);
    let ended = ended.expect(1, &[manifest.to_str().unwrap(), TOO_LARGE, "manifest failed"]);
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["exit_code"]),
        (&"error".into(), &1.into()),
        "{last}"
    );
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), old);
    assert_eq!(names(&out), ["manifest.json"]);
    // It is complete, and half an hour's work.
    let config = cluster.emulator.vm_config(9000).unwrap();
    assert_eq!((config["template"].as_str(), config["name"].as_str()), ("1", IMAGE));
    assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
}

#[test]
fn a_picture_that_does_not_fit_leaves_the_old_one() {
    let (folder, cluster) = (Folder::new(), cluster());
    folder.edit("scripts/os-update.sh", "set -euo pipefail", "set -euo pipefail\nexit 7");
    let before = cluster.inventory();
    let here = folder.temp.path().join("here");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("console.png"), "the old one").unwrap();
    let mut command = k3simage(&["build", folder.path(), "--json"]);
    cluster.lead(&mut command);
    let ended = without_room_from(
        &cluster,
        "GET",
        "/nodes/*/qemu/*/agent/network-get-interfaces",
        command.current_dir(&here),
    );
    ended.expect(
        1,
        &[
            "no picture of the guest's screen: writing console.png: ",
            TOO_LARGE,
            "os-update.sh",
        ],
    );
    assert_eq!(
        std::fs::read_to_string(here.join("console.png")).unwrap(),
        "the old one"
    );
    assert_eq!(names(&here), ["console.png"]);
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn a_report_that_does_not_fit_is_shown_all_the_same() {
    let (folder, cluster) = (Folder::new(), cluster());
    cluster.run(&["build", folder.path()], &[]).expect(0, &[]);
    let before = cluster.inventory();
    let report = folder.temp.path().join("verify.json");
    std::fs::write(&report, "the old one").unwrap();
    let verify = |file: &Path| {
        let mut command = k3simage(&["verify", IMAGE, "--report", file.to_str().unwrap()]);
        cluster.lead(&mut command);
        command
    };
    let ended = Ended::of(&limited(&verify(&report), 0).output().unwrap());
    ended.expect(2, &[report.to_str().unwrap(), TOO_LARGE]);
    let ended = Ended::of(&verify(Path::new("/dev/full")).output().unwrap());
    ended.expect(2, &["/dev/full", "name a file"]);

    // The first thing that is done once the clones have been compared.
    let stop = "/nodes/*/qemu/*/status/stop";
    let ended = without_room_from(&cluster, "POST", stop, verify(&report).arg("--json"));
    let ended = ended.expect(1, &[report.to_str().unwrap(), TOO_LARGE]);
    let finished = ended
        .objects()
        .into_iter()
        .find(|event| event["event"] == "verify_finished")
        .unwrap();
    assert_eq!(finished["report"]["ok"], true, "{finished}");
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "the old one");
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn half_a_template_folder_does_not_stay() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("my-image");
    let init = || k3simage(&["init", dir.to_str().unwrap()]);
    // Blocks of 512 bytes: the first files fit, a later one does not.
    let ended = Ended::of(&limited(&init(), 8).output().unwrap());
    ended.expect(2, &["writing ", dir.to_str().unwrap(), TOO_LARGE]);
    let left = Command::new("find").arg(&dir).args(["-type", "f"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    Ended::of(&init().output().unwrap()).expect(0, &["wrote"]);
    run(&["validate", dir.to_str().unwrap()]).expect(0, &[]);
}

#[test]
fn a_medium_that_does_not_fit_goes_in_pieces() {
    let (folder, cluster) = (Folder::new(), cluster());
    std::fs::write(folder.dir.join("images.tar"), vec![7; 5 << 20]).unwrap();
    let temporary = folder.temp.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let files = "files=[\"images.tar=/root/images.tar\"]";
    let mut command = k3simage(&["build", folder.path(), "-var", files, "-var", "communicator=agent"]);
    cluster.lead(&mut command);
    // A megabyte: what else is written is smaller.
    let mut command = limited(&command, 2048);
    let ended = Ended::of(&command.env("TMPDIR", &temporary).output().unwrap());
    ended.expect(
        0,
        &[
            "images.tar does not go by a medium: ",
            &format!("writing to {}, which TMPDIR can name: ", temporary.display()),
            TOO_LARGE,
        ],
    );
    assert_eq!(names(&temporary), [""; 0]);
    assert_eq!(cluster.emulator.vmids(), [9000]);
}
