//! What a build hears and sees of its guest.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use common::{Lab, client, story};
use image_build::spec::{Delivery, EnvValue, ImageSpecBuilder, ProvisionerSpec, ShellSpec, Timeouts};
use image_build::{Error, Event, EventKind};
use pve_emulator::Emulator;
use pve_emulator::engine::simulated::{Fault, FaultKind, SimulatedOptions};

fn heard(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Log { source, line, .. } if source == "console" => Some(line.as_str()),
            _ => None,
        })
        .collect()
}

fn requests(lab: &Lab, end: &str) -> usize {
    lab.pve
        .requests()
        .iter()
        .filter(|request| request.path.ends_with(end))
        .count()
}

fn warnings(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Warning { message, .. } => Some(message.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn the_installed_system_is_heard() {
    // Slow enough that the stream is there before the login prompt.
    let mut options = scaled(30.0);
    options.durations.boot = Duration::from_secs(180);
    let lab = Lab::of(Emulator::builder(), options).await;
    let before = lab.client.request_count();
    let (ended, seen) = lab.build(patient(lab.spec()).build().expect("a spec")).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let lines = heard(&seen);
    assert!(lines.iter().any(|line| line.ends_with("login:")), "{lines:?}");
    assert!(
        !warnings(&seen).iter().any(|warning| warning.contains("console")),
        "{}",
        story(&seen)
    );
    // One for each start.
    assert_eq!(
        requests(&lab, "/vncwebsocket"),
        2,
        "of {} requests",
        lab.client.request_count() - before
    );
}

/// A spec whose kernel line names the serial port, so that the simulated installer is heard.
fn speaking(lab: &Lab) -> ImageSpecBuilder {
    lab.spec()
        .delivery(Delivery::Http {
            announce: None,
            bind: Some("127.0.0.1".parse().expect("an address")),
            ports: 20000..=60000,
        })
        .boot_command(
            "<up><tab> console=ttyS0 inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter>"
                .parse()
                .expect("a command"),
        )
}

#[tokio::test]
async fn a_panic_is_named_at_once_with_a_picture() {
    let lab = Lab::start().await;
    lab.guests.inject(Fault::always(FaultKind::KernelPanic));
    let spec = speaking(&lab).build().expect("a spec");
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = folder.path().join("manifest.json");
    let begun = Instant::now();
    let error = image_build::build(&lab.client, spec)
        .manifest(&manifest)
        .await
        .expect_err("it panics");
    let chain = error.chain();
    let screen = folder.path().join("console.png");
    for part in [
        "install failed (screen: ",
        "console.png",
        "the guest's kernel panicked",
        "Kernel panic - not syncing: Fatal exception in interrupt",
    ] {
        assert!(chain.contains(part), "{part}: {chain}");
    }
    // Its own limit is 120 s, and nothing here waits for it.
    assert!(begun.elapsed() < Duration::from_secs(110), "{:?}", begun.elapsed());
    let Error::Step { sight, .. } = &error else {
        panic!("{chain}")
    };
    assert_eq!(sight.screen.as_deref(), Some(screen.as_path()));
    assert!(
        sight.console.last().is_some_and(|line| line.contains("Kernel panic")),
        "{:?}",
        sight.console
    );
    let bytes = std::fs::read(&screen).expect("a picture");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let mode = std::fs::metadata(&screen).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn without_the_privilege_it_is_said_once() {
    let builder = Emulator::builder()
        .role(
            "NoConsole",
            [
                "Datastore.Allocate",
                "Datastore.AllocateSpace",
                "Datastore.AllocateTemplate",
                "Datastore.Audit",
                "Pool.Audit",
                "SDN.Use",
                "Sys.Audit",
                "Sys.Modify",
                "Sys.AccessNetwork",
                "VM.Allocate",
                "VM.Audit",
                "VM.Clone",
                "VM.Config.CDROM",
                "VM.Config.CPU",
                "VM.Config.Cloudinit",
                "VM.Config.Disk",
                "VM.Config.HWType",
                "VM.Config.Memory",
                "VM.Config.Network",
                "VM.Config.Options",
                "VM.GuestAgent.Audit",
                "VM.GuestAgent.Unrestricted",
                "VM.PowerMgmt",
            ],
        )
        .user("deaf@pve", "secret")
        .token("deaf@pve", "build", "secret", false)
        .acl("/", "deaf@pve", "NoConsole");
    let mut lab = Lab::of(builder, SimulatedOptions::default()).await;
    lab.client = client(&lab.pve, "deaf@pve!build", "secret");
    // Nothing is typed, so that nothing else needs the privilege.
    let spec = lab
        .spec()
        .boot_command("".parse().expect("nothing"))
        .build()
        .expect("a spec");
    let (ended, seen) = lab.build(spec).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let told: Vec<&str> = warnings(&seen)
        .into_iter()
        .filter(|warning| warning.contains("serial console"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("`deaf@pve!build` lacks VM.Console on /vms") && told[0].contains("pveum role add"),
        "{told:?}"
    );
    let asked: Vec<String> = lab
        .pve
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("proxy") || request.status == 403)
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    assert!(asked.is_empty(), "what is known to be refused is not asked: {asked:?}");
}

#[tokio::test]
async fn a_failed_script_comes_with_the_screen_and_without_secrets() {
    let lab = Lab::start().await;
    let script =
        ShellSpec::new("check.sh", "#!/bin/bash\nexit 7\n").env("TOKEN", EnvValue::Secret("login".to_owned().into()));
    lab.guests.inject(Fault::always(FaultKind::ScriptExits {
        script: "check.sh".to_owned(),
        code: 7,
    }));
    let spec = lab
        .spec()
        .provisioners(vec![ProvisionerSpec::Shell(script)])
        .build()
        .expect("a spec");
    let folder = tempfile::tempdir().expect("a folder");
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let error = image_build::build(&lab.client, spec)
        .screen(folder.path().join("seen.png"))
        .events(to)
        .await
        .expect_err("the script fails");
    assert!(
        error.chain().contains("seen.png): check.sh ended with exit code 7"),
        "{}",
        error.chain()
    );
    assert!(folder.path().join("seen.png").exists());
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    // The prompt's own word stands for a secret that the guest prints.
    assert!(
        !heard(&seen).iter().any(|line| line.contains("login")),
        "{}",
        story(&seen)
    );
}

/// Limits that none of these tests waits for.
const LIMIT: Duration = Duration::from_secs(300);

fn patient(spec: ImageSpecBuilder) -> ImageSpecBuilder {
    spec.ssh_timeout(LIMIT).timeouts(Timeouts {
        install: LIMIT,
        task: LIMIT,
        shutdown: LIMIT,
        undo: LIMIT,
    })
}

#[tokio::test]
async fn an_installer_that_will_not_end_is_named() {
    let failing = Fault::once(FaultKind::InstallFails {
        message: "There is no space".to_owned(),
    });
    // It is not told where its kickstart is.
    let lost = "<up><tab> console=ttyS0<enter>".parse().expect("a command");
    let cases = [
        (
            Some(lost),
            None,
            "the installer asks a question",
            "Please make a selection",
        ),
        (None, Some(failing), "the installer crashed", "There is no space"),
    ];
    for (command, fault, story, line) in cases {
        let lab = Lab::start().await;
        if let Some(fault) = fault {
            lab.guests.inject(fault);
        }
        let spec = match command {
            Some(command) => speaking(&lab).boot_command(command),
            None => speaking(&lab),
        };
        let begun = Instant::now();
        let (ended, seen) = lab.build(patient(spec).build().expect("a spec")).await;
        let error = ended
            .err()
            .unwrap_or_else(|| panic!("it built\n{}", common::story(&seen)));
        assert!(error.chain().contains(story), "{story}: {}", error.chain());
        let Error::Step { sight, .. } = &error else {
            panic!("{}", error.chain())
        };
        assert!(
            sight.console.iter().any(|said| said.contains(line)),
            "{line}: {:?}",
            sight.console
        );
        assert!(begun.elapsed() < LIMIT, "{story}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_panic_of_the_installed_system_ends_the_wait_for_it() {
    let mut options = scaled(30.0);
    // There for a minute of this machine's; a key ends it.
    options.durations.menu_timeout = Duration::from_secs(1800);
    let lab = Lab::of(Emulator::builder(), options).await;
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let spec = patient(speaking(&lab)).boot_wait(Duration::from_secs(1));
    let build = image_build::build(&lab.client, spec.build().expect("a spec")).events(to);
    let running = tokio::spawn(async move { build.await });
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        if matches!(&event.kind, EventKind::Log { line, .. } if line.contains("Installation complete")) {
            lab.guests.inject(Fault::always(FaultKind::KernelPanic));
        }
        seen.push(event);
    }
    let error = running.await.expect("no panic of ours").expect_err("it panics");
    let chain = error.chain();
    assert!(chain.starts_with("connect failed"), "{chain}\n{}", story(&seen));
    assert!(
        chain.contains("the guest's kernel panicked (on its console: "),
        "{chain}"
    );
    // The lines of the run before are not told as those of this one.
    let Error::Step { sight, .. } = &error else {
        panic!("{chain}")
    };
    assert!(
        !sight.console.iter().any(|line| line.contains("Installation complete")),
        "{:?}",
        sight.console
    );
}

fn scaled(times: f64) -> SimulatedOptions {
    SimulatedOptions {
        time: pve_emulator::engine::simulated::TimeScale::Scaled(times),
        ..SimulatedOptions::default()
    }
}

/// Passes connections on, and drops those that are open when told.
struct Line {
    address: std::net::SocketAddr,
    drop_all: tokio::sync::broadcast::Sender<()>,
}

impl Line {
    async fn to(url: &str) -> Self {
        let target = url.trim_start_matches("https://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (drop_all, _) = tokio::sync::broadcast::channel(1);
        let drops = drop_all.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut dropped) = (target.clone(), drops.subscribe());
                tokio::spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = dropped.recv() => {}
                    }
                });
            }
        });
        Self { address, drop_all }
    }
}

/// As when a node's services restart.
#[tokio::test]
async fn a_stream_that_breaks_is_opened_again() {
    let mut options = scaled(30.0);
    options.durations.boot = Duration::from_secs(180);
    let lab = Lab::of(Emulator::builder(), options).await;
    let line = Line::to(&lab.pve.url()).await;
    let client = proxmox_client::Client::builder(format!("https://{}", line.address))
        .auth(proxmox_client::Auth::token(lab.pve.token_id(), lab.pve.token_secret()))
        .tls(proxmox_client::Tls::Pinned(
            lab.pve.fingerprint().parse().expect("a fingerprint"),
        ))
        .build()
        .expect("a client");
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let build = image_build::build(&client, patient(lab.spec()).build().expect("a spec")).events(to);
    let running = tokio::spawn(async move { build.await });
    let mut seen = Vec::new();
    // Once the second start has its stream; the system takes seconds to boot behind it.
    while requests(&lab, "/vncwebsocket") < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!running.is_finished(), "it ended without a second stream");
    }
    line.drop_all.send(()).expect("connections are open");
    while let Some(event) = events.recv().await {
        seen.push(event);
    }
    running
        .await
        .expect("no panic of ours")
        .unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let lines = heard(&seen);
    assert!(lines.iter().any(|line| line.ends_with("login:")), "{lines:?}");
    assert_eq!(requests(&lab, "/termproxy"), 3, "one for each start, one for the break");
}
