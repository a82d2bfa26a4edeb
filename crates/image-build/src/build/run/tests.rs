//! Whole builds whose steps panic.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use async_trait::async_trait;
use proxmox_client::{Auth, Tls};
use pve_emulator::Emulator;

use super::*;
use crate::build::step::StepName;
use crate::kickstart::KickstartText;
use crate::spec::{KickstartSource, ProvisionerSpec, ShellSpec};

#[derive(Clone, Copy, Debug)]
enum When {
    /// Before the step has done anything.
    Before,
    /// When all is done that it does.
    After,
}

/// A step with a panic in it, which holds a secret.
#[derive(Debug)]
struct Planted {
    step: Box<dyn Step<Context>>,
    when: When,
}

/// What a panic of a step would tell.
const CANARY: &str = "canary-0123456789-of-a-panic";

fn planted() -> ! {
    let number: Result<u8, _> = CANARY.parse::<u8>().map_err(|error| format!("{CANARY}: {error}"));
    number.expect("planted");
    unreachable!("it is no number")
}

#[async_trait]
impl Step<Context> for Planted {
    fn name(&self) -> StepName {
        self.step.name()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        if matches!(self.when, When::Before) {
            planted();
        }
        self.step.run(context).await?;
        planted()
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        self.step.undo(context).await
    }

    fn is_noted(&self) -> bool {
        self.step.is_noted()
    }

    fn commits(&self) -> bool {
        self.step.commits()
    }
}

fn spec(pve: &Emulator) -> ImageSpec {
    let text = KickstartText::new(include_str!("../../../../../kickstart/alma9.ks.cfg"));
    let seal = include_str!("../../../../../scripts/seal.sh");
    ImageSpec::builder()
        .node("pve")
        .ssh_port(pve.guest_ssh_port())
        .kickstart(KickstartSource::Text {
            text,
            origin: "http/ks.cfg".into(),
        })
        .provisioners(vec![ProvisionerSpec::Shell(ShellSpec::new("a.sh", "true"))])
        .seal(Some(ShellSpec::new("seal.sh", seal)))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_panic_in_any_step_leaves_the_cluster_as_it_was() {
    let pve = Emulator::builder().delays(false).start().await.unwrap();
    pve.add_installer_iso("local", "AlmaLinux-9.3-x86_64-minimal.iso")
        .unwrap();
    let client = Client::builder(pve.url())
        .auth(Auth::token(pve.token_id(), pve.token_secret().to_owned()))
        .tls(Tls::Pinned(pve.fingerprint().parse().unwrap()))
        .build()
        .unwrap();
    let inventory = || (pve.vmids(), pve.volids("pve").into_iter().collect::<BTreeSet<_>>());
    let before = inventory();
    let folder = tempfile::tempdir().unwrap();
    let manifest = || Some(folder.path().join("manifest.json"));
    for index in 0..steps::from_iso(manifest(), None).len() {
        for when in [When::Before, When::After] {
            let mut steps = steps::from_iso(manifest(), None);
            let step = steps.remove(index);
            let name = step.name();
            // From here on there is a template, and what goes wrong later cannot take it away.
            let complete = matches!((name.as_ref(), when), ("publish", When::After) | ("manifest", _));
            steps.insert(index, Box::new(Planted { step, when }));
            let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
            let build = build(&client, spec(&pve)).events(to);
            let error = run_steps(build, CancellationToken::new(), |_| steps).await.unwrap_err();
            let mut told = format!("{} {error:?}", error.chain());
            while let Ok(event) = events.try_recv() {
                let _ = write!(told, "{event:?}");
            }
            assert!(!told.contains("canary"), "{name} {when:?}: {told}");
            assert!(
                matches!(&error, Error::Step { step, source, cleanup, .. }
                    if *step == name && matches!(**source, Error::Panic { .. }) && cleanup.is_empty()),
                "{name} {when:?}: {}",
                error.chain()
            );
            if complete {
                let config = pve.vm_config(pve.vmids()[0]).unwrap();
                assert_eq!(config["template"], "1", "{name} {when:?}");
                let vm = client.node(&"pve".parse().unwrap()).qemu("100".parse().unwrap());
                crate::build::destroy(&client, &vm, crate::build::TASK_LIMIT, &CancellationToken::new())
                    .await
                    .unwrap();
            }
            assert_eq!(inventory(), before, "{name} {when:?}: {}", error.chain());
        }
    }
}

/// A process whose panics are told by our hook: it is this program once more, with the test above alone.
#[test]
fn a_panic_tells_its_place_and_no_secret() {
    const HIDES: &str = "K3SIMAGE_TEST_HIDES_TEXTS";
    if std::env::var_os(HIDES).is_some() {
        crate::panics::hide_texts();
        return a_panic_in_any_step_leaves_the_cluster_as_it_was();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "build::run::tests::a_panic_tells_its_place_and_no_secret",
            "--nocapture",
        ])
        .env(HIDES, "1")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("panicked at crates/image-build/src/build/run/tests.rs:"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
}
