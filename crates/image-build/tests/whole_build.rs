//! Whole builds on the emulator: every way from an ISO to a template, and what each leaves there.

mod common;

use std::net::Ipv4Addr;

use common::{ISO, Lab, finished, story, without_polls};
use image_build::EventKind;
use image_build::spec::{Bios, CommunicatorKind, Delivery};
use pve_emulator::{Fault, FaultAction, FaultMatch};

const STEPS: [&str; 12] = [
    "preflight",
    "reserve",
    "media",
    "create",
    "install",
    "connect",
    "provision",
    "seal",
    "shut_down",
    "finalise",
    "template",
    "publish",
];

/// Requests that a build takes besides its looks whether something has ended (Packer 1.6.6 needs 160 with them, for less).
const REQUESTS: usize = 60;

#[tokio::test]
async fn oemdrv_and_ssh_make_a_template() {
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("manifest.json");
    let spec = lab
        .spec()
        .tags(["team-a"])
        .description("For the tests.")
        .build()
        .unwrap();
    let scripts: Vec<String> = spec.provisioners.iter().map(|p| p.name().to_owned()).collect();
    let hash = spec.content_hash();

    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let ended = image_build::build(&lab.client, spec)
        .events(to)
        .manifest(&manifest)
        .await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    let artifact = ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));

    assert_eq!(
        (artifact.vmid, artifact.name.as_str()),
        (9000, "alma9-k3-node-amd64-v1.29.0-v1")
    );
    assert_eq!(artifact.spec_hash, hash);
    assert_eq!(artifact.k3s_version.as_deref(), Some("v1.29.0+k3s1"));
    let mut steps = STEPS.to_vec();
    steps.push("manifest");
    assert_eq!(finished(&seen), steps);

    let requests = lab.pve.requests();
    // Whoever reads the console may ask once more while the build ends.
    let more = requests.len() as u64 - artifact.api_requests;
    assert!(more <= 1, "{more} requests are not counted: {requests:#?}");
    let calls = without_polls(&requests);
    assert!(calls.len() <= REQUESTS, "{} requests: {calls:#?}", calls.len());

    let config = lab.pve.vm_config(9000).expect("the template is there");
    let option = |name: &str| config.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(option("template"), "1");
    assert_eq!(option("name"), "alma9-k3-node-amd64-v1.29.0-v1");
    assert_eq!(option("tags"), "k3simage;team-a;v1.29.0+k3s1");
    assert_eq!(option("boot"), "order=scsi0");
    assert!(option("scsi1").contains("cloudinit"), "{config:#?}");
    assert!(option("scsi0").contains("base-9000-disk-"), "{config:#?}");
    for part in [
        "For the tests.",
        "v1.29.0+k3s1",
        &artifact.build_id,
        &hash,
        "PVE 9.2.11",
        ISO,
    ] {
        let part = part.replace("PVE", "Proxmox VE");
        assert!(
            option("description").contains(&part),
            "`{part}` is not in {}",
            option("description")
        );
    }
    assert!(
        !["reboot", "ide2", "ide3"]
            .iter()
            .any(|option| config.contains_key(*option)),
        "{config:#?}"
    );
    let (vms, volumes) = lab.inventory();
    assert_eq!(vms, [9000]);
    assert!(
        !volumes.iter().any(|volume| volume.contains("k3simage-build")),
        "the OEMDRV volume is gone: {volumes:?}"
    );

    let guest = lab.guests.guest(9000).expect("the guest has run");
    let ran: Vec<String> = guest
        .script_runs
        .iter()
        .map(|run| run.name.rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        ran,
        scripts.into_iter().chain(["seal.sh".to_owned()]).collect::<Vec<_>>()
    );
    let k3s = guest
        .script_runs
        .iter()
        .find(|run| run.name.ends_with("k3s-install.sh"))
        .expect("k3s was installed");
    assert_eq!(k3s.env["K3S_VERSION"], "v1.29.0+k3s1");
    assert_eq!(k3s.env["K3SIMAGE_NAME"], "alma9-k3-node-amd64-v1.29.0-v1");
    assert_eq!(k3s.env["K3SIMAGE_BUILD_ID"], artifact.build_id);
    assert_eq!(
        guest.typed_keys,
        Vec::<String>::new(),
        "the default entry of an instant menu boots by itself"
    );

    let manifest: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    assert_eq!(manifest["builds"][0]["artifact_id"], "9000");
    assert_eq!(manifest["builds"][0]["custom_data"]["k3s_version"], "v1.29.0+k3s1");
    assert_eq!(manifest["last_run_uuid"], artifact.run_uuid);
    match &seen.first().unwrap().kind {
        EventKind::BuildStarted {
            image,
            node,
            pve_version,
            steps: told,
        } => {
            assert_eq!(
                (image.as_str(), node.as_str()),
                ("alma9-k3-node-amd64-v1.29.0-v1", "pve")
            );
            assert_eq!(pve_version.as_deref(), Some("9.2.11"));
            assert_eq!(*told, steps);
        }
        other => panic!("{other:?}"),
    }
    match &seen.last().unwrap().kind {
        EventKind::BuildFinished {
            ok: true,
            artifact: Some(told),
            error: None,
            ..
        } => assert_eq!(told.vmid, 9000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn uefi_makes_a_template_too() {
    let lab = Lab::start().await;
    let (ended, seen) = lab.build(lab.spec().bios(Bios::Ovmf).build().unwrap()).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let config = lab.pve.vm_config(9000).unwrap();
    assert_eq!(config["bios"], "ovmf");
    assert!(config["efidisk0"].contains("base-9000-disk-"), "{config:#?}");
}

#[tokio::test]
async fn a_typed_boot_command_fetches_the_kickstart_over_http() {
    let lab = Lab::start().await;
    for (vmid, bios) in [(9000, Bios::SeaBios), (9001, Bios::Ovmf)] {
        let delivery = Delivery::Http {
            announce: None,
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            ports: 20_000..=60_000,
        };
        let name = format!("alma9-k3-node-amd64-v1.29.0-v{}", vmid - 8999);
        let spec = lab
            .spec()
            .name(name)
            .vmid(vmid)
            .bios(bios)
            .delivery(delivery)
            .build()
            .unwrap();
        let (ended, seen) = lab.build(spec).await;
        ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
        let sendkey = format!("/qemu/{vmid}/sendkey");
        let keys = lab
            .pve
            .requests()
            .iter()
            .filter(|request| request.path.ends_with(&sendkey))
            .count();
        assert!(keys > 40, "the address was typed: {keys} keys");
        let asked: Vec<&str> = seen
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Log { source, line, .. } if source == "http" => Some(line.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].ends_with("asked GET /***/ks.cfg: 200"), "{asked:?}");
    }
    let uploads = lab
        .pve
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/upload"))
        .count();
    assert_eq!(uploads, 0, "nothing is put on a storage");
}

#[tokio::test]
async fn the_guest_agent_alone_is_enough() {
    let lab = Lab::start().await;
    for (vmid, kind, nics) in [
        (9000, CommunicatorKind::Agent, true),
        (9001, CommunicatorKind::Auto, false),
    ] {
        let name = format!("alma9-k3-node-amd64-v1.29.0-v{}", vmid - 8999);
        let mut spec = lab.spec().name(name).vmid(vmid).communicator(kind);
        if !nics {
            spec = spec.nics(Vec::new());
        }
        let (ended, seen) = lab.build(spec.build().unwrap()).await;
        ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
        let connect = seen.iter().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, summary, .. } if step == "connect" => Some(summary.clone()),
            _ => None,
        });
        assert!(connect.unwrap().starts_with(&format!("guest agent of vm {vmid}")));
        let guest = lab.guests.guest(vmid).unwrap();
        assert!(
            guest
                .script_runs
                .iter()
                .any(|run| run.name.ends_with("seal.sh") && run.exit_code == Some(0))
        );
    }
}

/// The agent tells the end of a command once, so what is done about a lost answer must not be to ask for it again (`FACTS` 49).
#[tokio::test]
async fn any_answer_of_the_agent_may_be_lost() {
    let calls = [("POST", "exec"), ("GET", "exec-status"), ("POST", "file-write")];
    // Side by side: most of the time is waiting.
    futures_util::future::join_all(calls.map(|(method, call)| lose_answers(method, call))).await;
}

/// Builds again and again, and each time another answer of this call is lost.
async fn lose_answers(method: &str, call: &str) {
    let path = format!("/nodes/*/qemu/*/agent/{call}");
    let lab = Lab::start().await;
    let spec = |vmid: u32| {
        let name = format!("alma9-k3-node-amd64-v1.29.0-v{}", vmid - 8999);
        let spec = lab.spec().name(name).vmid(vmid).communicator(CommunicatorKind::Agent);
        spec.build().expect("a spec")
    };
    let (ended, seen) = lab.build(spec(9000)).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let end = format!("/agent/{call}");
    let requests = lab.pve.requests();
    let total = requests.iter().filter(|request| request.path.ends_with(&end)).count();
    assert!(total > 3, "{total} calls of {call}");
    for (vmid, skip) in (9001..).zip((0..u32::try_from(total).expect("some tens")).step_by(4)) {
        lab.pve.fault(Fault {
            when: FaultMatch::PathAfter {
                method: method.to_owned(),
                path: path.clone(),
                skip,
            },
            action: FaultAction::LoseAnswer,
            times: 1,
        });
        let (ended, seen) = lab.build(spec(vmid)).await;
        ended.unwrap_or_else(|error| panic!("{call} {skip}: {}\n{}", error.chain(), story(&seen)));
        let runs = lab.guests.guest(vmid).expect("a guest").script_runs;
        let seals = runs.iter().filter(|run| run.name.ends_with("seal.sh")).count();
        assert_eq!(seals, 1, "{call} {skip}: each script ran once");
    }
}

#[tokio::test]
async fn a_vmid_and_a_name_that_are_left_open_are_chosen() {
    let lab = Lab::start().await;
    let (first, seen) = lab.build(lab.spec().build().unwrap()).await;
    first.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let (second, seen) = lab.build(lab.open_spec().build().unwrap()).await;
    let second = second.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    assert_eq!(
        (second.vmid, second.name.as_str()),
        (100, "alma9-k3-node-amd64-v1.29.0-v2")
    );
}
