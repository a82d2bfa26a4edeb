//! Whole builds whose steps panic.

use std::collections::BTreeSet;

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

/// A step with a panic in it.
#[derive(Debug)]
struct Planted {
    step: Box<dyn Step<Context>>,
    when: When,
}

#[async_trait]
impl Step<Context> for Planted {
    fn name(&self) -> StepName {
        self.step.name()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        assert!(!matches!(self.when, When::Before), "planted");
        self.step.run(context).await?;
        panic!("planted")
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
            let build = build(&client, spec(&pve));
            let error = run_steps(build, CancellationToken::new(), |_| steps).await.unwrap_err();
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
                crate::build::destroy(&client, &vm, &CancellationToken::new())
                    .await
                    .unwrap();
            }
            assert_eq!(inventory(), before, "{name} {when:?}: {}", error.chain());
        }
    }
}
