//! Each request that a handle can send, checked against the schema that PVE 9.2 dumps of itself.

mod privileges;
#[path = "../../../tests/support/schema.rs"]
mod schema;
mod setters;
#[path = "../../../tests/support/sources.rs"]
mod sources;
mod whatever;
mod wire;

use std::{collections::BTreeSet, time::Duration};

use super::{
    Request, access, agent,
    clone::CloneVm,
    cluster,
    config::{CreateVm, VmConfigUpdate},
    console,
    multipart::Frame,
    node,
    power::{DeleteVm, Shutdown},
    qemu::{self, ConfigView},
    storage::{self, Checksum, DownloadUrl},
    task::{self, TaskFilter},
};
use crate::{
    api::upload,
    types::{
        content::Content,
        name::{NodeName, PoolId, StorageId},
        property::{agent::Agent, boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1},
        reply::cluster::ResourceKind,
        unit::MiB,
        upid::Upid,
        vmid::Vmid,
        volid::VolId,
    },
};
use http::Method;

use schema::{Schema, schema};

fn faults(schema: &Schema, request: &Request) -> Vec<String> {
    schema::faults(schema, request.method.as_str(), &request.path, &request.params)
}

fn pve() -> NodeName {
    NodeName::new("pve").expect("a name")
}

fn local() -> StorageId {
    StorageId::new("local-lvm").expect("a name")
}

fn vmid() -> Vmid {
    Vmid::new(9000).expect("in range")
}

fn upid() -> Upid {
    Upid::new("UPID:pve:0000778E:000B3A73:6B046495:qmcreate:9000:root@pam!build:").expect("recorded")
}

/// Each option that has a setter, and each drive and device that has a constructor.
fn whole_vm() -> CreateVm {
    let iso = VolId::new("local:iso/a.iso").expect("a volume");
    let disk = Drive::allocate(&local(), 32)
        .discard(true)
        .ssd(true)
        .iothread(true)
        .format("raw")
        .expect("a word");
    let net = Net::virtio("vmbr0")
        .expect("a bridge")
        .firewall(true)
        .vlan_tag(12)
        .expect("a tag");
    CreateVm::new()
        .name("alma9-k3-node-amd64-v1.29.0-v1")
        .description("built\nby k3simage")
        .tags(["K3simage", "alma9"])
        .memory(MiB(4096))
        .cores(2)
        .sockets(1)
        .cpu(&Cpu::of_type("x86-64-v2-AES").expect("a type"))
        .disk("scsi0", &disk)
        .disk("virtio1", &Drive::allocate(&local(), 1).discard(false))
        .disk("sata0", &Drive::cdrom(&iso))
        .disk("ide2", &Drive::cloud_init(&local()))
        .disk("ide0", &Drive::empty_cdrom())
        .disk("scsi1", &Drive::import(&local(), &iso))
        .disk("efidisk0", &Drive::efi_disk(&local()).pre_enrolled_keys(false))
        .net(0, &net.with_mac("BC:24:11:00:00:02").expect("an address"))
        .boot(&Boot::order(["scsi0", "sata0"]).expect("devices"))
        .agent(&Agent::enabled(true).fstrim_cloned_disks(true))
        .smbios1(&Smbios1::default().with_text("serial", "k3s").expect("short"))
        .bios("ovmf")
        .machine("q35")
        .ostype("l26")
        .scsihw("virtio-scsi-single")
        .reboot(false)
        .onboot(false)
        .flag("numa", false)
        .set("serial0", "socket")
        .set("balloon", 0)
}

/// Every function of `request` that makes a request, with all its parameters given.
pub(crate) fn all() -> Vec<(&'static str, Request)> {
    let good = "each is well formed";
    let clone = CloneVm::new(Vmid::MAX)
        .name("c1")
        .description("d")
        .full(true)
        .storage(local())
        .pool(PoolId::new("p1").expect("a name"))
        .target(pve());
    let update = VmConfigUpdate::new()
        .cores(4)
        .delete("ide2")
        .revert("memory")
        .digest("b8c71ea31ace2d3f")
        .force(true);
    let filter = TaskFilter {
        vmid: Some(vmid()),
        kind: Some("qmcreate".into()),
        with_active: true,
        only_errors: true,
        limit: Some(5),
    };
    let checksum = Checksum::sha256(&"ab".repeat(32)).expect("a digest");
    let download = DownloadUrl::iso("https://repo.almalinux.org/a.iso", "a.iso")
        .checksum(checksum)
        .insecure();
    let delay = Some(Duration::from_secs(5));
    let shutdown = Shutdown::new().timeout(Duration::from_secs(60)).force_stop(true);
    let pool = PoolId::new("p1").expect("a name");
    let create = whole_vm().pool(&pool).storage(&local()).start(true);
    vec![
        ("cluster::version", cluster::version()),
        ("cluster::next_id", cluster::next_id(Some(vmid()))),
        (
            "cluster::cluster_resources",
            cluster::cluster_resources(Some(ResourceKind::Vm)),
        ),
        (
            "cluster::cluster_resources",
            cluster::cluster_resources(Some(ResourceKind::Storage)),
        ),
        (
            "cluster::cluster_resources",
            cluster::cluster_resources(Some(ResourceKind::Node)),
        ),
        (
            "cluster::cluster_resources",
            cluster::cluster_resources(Some(ResourceKind::Sdn)),
        ),
        ("cluster::pools", cluster::pools()),
        ("cluster::pool", cluster::pool(&pool)),
        ("access::permissions", access::permissions(Some("/vms/100"))),
        ("access::ticket", access::ticket("root@pam", &"secret".into())),
        ("node::nodes", node::nodes()),
        ("node::node_status", node::node_status(&pve())),
        ("node::node_storages", node::node_storages(&pve())),
        ("node::node_networks", node::node_networks(&pve())),
        ("node::node_vms", node::node_vms(&pve())),
        ("task::tasks", task::tasks(&pve(), &filter)),
        ("task::task_status", task::task_status(&upid())),
        ("task::task_log", task::task_log(&upid(), 0, 1000)),
        ("task::task_stop", task::task_stop(&upid())),
        ("storage::status", storage::status(&pve(), &local())),
        (
            "storage::content",
            storage::content(&pve(), &local(), Some(&Content::Iso)),
        ),
        (
            "storage::download_url",
            storage::download_url(&pve(), &local(), &download).expect(good),
        ),
        (
            "storage::delete",
            storage::delete(&pve(), &VolId::new("local:iso/a.iso").expect(good), delay),
        ),
        ("console::vnc_proxy", console::vnc_proxy(&pve(), vmid())),
        (
            "console::term_proxy",
            console::term_proxy(&pve(), vmid(), 3).expect(good),
        ),
        (
            "console::websocket",
            console::websocket(&pve(), vmid(), 5900, &"12345678:PVEVNC:6B0459B6::a+/=".into()),
        ),
        ("qemu::create", qemu::create(&pve(), vmid(), &create).expect(good)),
        ("qemu::config", qemu::config(&pve(), vmid(), ConfigView::Current)),
        (
            "qemu::update_config",
            qemu::update_config(&pve(), vmid(), &update).expect(good),
        ),
        (
            "qemu::set_config_task",
            qemu::set_config_task(&pve(), vmid(), &update, delay).expect(good),
        ),
        ("qemu::pending", qemu::pending(&pve(), vmid())),
        ("qemu::status", qemu::status(&pve(), vmid())),
        ("qemu::start", qemu::start(&pve(), vmid())),
        ("qemu::stop", qemu::stop(&pve(), vmid())),
        ("qemu::shutdown", qemu::shutdown(&pve(), vmid(), &shutdown)),
        (
            "qemu::delete",
            qemu::delete(&pve(), vmid(), &DeleteVm::new().purge(true).unreferenced_disks(true)),
        ),
        ("qemu::clone_vm", qemu::clone_vm(&pve(), vmid(), &clone).expect(good)),
        ("qemu::template", qemu::template(&pve(), vmid())),
        (
            "qemu::resize",
            qemu::resize(&pve(), vmid(), "scsi0", "+8G").expect(good),
        ),
        (
            "qemu::send_key",
            qemu::send_key(&pve(), vmid(), "ctrl-alt-delete").expect(good),
        ),
        ("agent::ping", agent::ping(&pve(), vmid())),
        ("agent::network_interfaces", agent::network_interfaces(&pve(), vmid())),
        (
            "agent::exec",
            agent::exec(&pve(), vmid(), &["/bin/sh", "-c", "id"], Some(b"in")).expect(good),
        ),
        ("agent::exec_status", agent::exec_status(&pve(), vmid(), 118)),
        (
            "agent::file_write",
            agent::file_write(&pve(), vmid(), "/tmp/x", &vec![0; agent::FILE_WRITE_MAX_BYTES]).expect(good),
        ),
        (
            "agent::file_read",
            agent::file_read(&pve(), vmid(), "/tmp/x").expect(good),
        ),
    ]
}

#[test]
fn all_requests_fit_the_schema() {
    let schema = schema();
    for (name, request) in all() {
        assert_eq!(
            faults(&schema, &request),
            Vec::<String>::new(),
            "{name}: {} {}",
            request.method,
            request.path
        );
    }
}

/// The list above cannot fall behind: the sources are read for functions that make requests.
#[test]
fn no_request_is_left_out() {
    let mut made = BTreeSet::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src/request");
    for entry in std::fs::read_dir(sources).expect("the sources are there") {
        let path = entry.expect("readable").path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name")
            .to_owned();
        if ["mod", "conformance"].contains(&stem.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let function =
            regex_lite::Regex::new(r"pub\(crate\) fn (\w+)\([^{;]*\) -> (?:Result<)?Request\b").expect("an expression");
        made.extend(
            function
                .captures_iter(&text)
                .map(|found| format!("{stem}::{}", &found[1])),
        );
    }
    let listed: BTreeSet<String> = all().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(made, listed);
}

#[test]
fn the_check_itself_finds_faults() {
    let schema = schema();
    let post = || Request::post("/nodes/pve/qemu".into()).param("vmid", 100);
    for (request, fault) in [
        (Request::get("/nosuch".into()), "not in the schema"),
        (Request::post("/version".into()), "not in the schema"),
        (Request::post("/nodes/pve/qemu".into()), "vmid is missing"),
        (
            Request::post("/nodes/pve/qemu".into()).param("vmid", 99),
            "out of range",
        ),
        (post().param("nosuch", 1), "not a parameter"),
        (post().param("onboot", "true"), "0 or 1"),
        (post().param("bios", "efi"), "not one of the words"),
        (post().param("scsi0", "local:32,sds=1"), "sds is not a key"),
        (post().param("scsi0", "local:32,ssd=yes"), "0 or 1"),
        (post().param("net0", "virtio,bridge=vmbr0,tag=5000"), "out of range"),
        (post().param("description", "x".repeat(8193)), "too long"),
        (post().param("name", "a_b"), "is no dns-name"),
        (Request::get("/nodes/a.b/status".into()), "is no pve-node"),
        (
            Request::get("/nodes/pve/qemu/100/agent/ping".into()),
            "not in the schema",
        ),
        (post().param("cores", 1).param("cores", 2), "cores is given twice"),
        (post().param("net0", "bridge=vmbr0"), "model is missing"),
        (post().param("scsi0", "ssd=1"), "file is missing"),
        (post().param("scsi0", "local:32,ssd=1,ssd=1"), "ssd is given twice"),
        (post().param("net0", "virtio,bridge=-vmbr+0"), "bridge"),
        (
            Request::post("/nodes/pve/storage/local/download-url".into())
                .param("content", "iso")
                .param("filename", "a.iso")
                .param("url", "https://x/a.iso")
                .param("checksum", "ab"),
            "needs checksum-algorithm",
        ),
    ] {
        let found = faults(&schema, &request).join("; ");
        assert!(found.contains(fault), "{} {:?}: {found}", request.path, request.params);
    }
}

#[test]
fn an_upload_fits_the_schema() {
    let schema = schema();
    let request = upload::request(&pve(), &local());
    let checksum = Checksum::sha256(&"ab".repeat(32)).expect("a digest");
    let frame = Frame::new("bnd", &Content::Iso, Some(&checksum), "a.iso");
    // Its parts are its parameters; that of the file has the name instead of a value.
    let field = regex_lite::Regex::new(r#"name="([^"]+)"(?:; filename="([^"]+)"|\r\n\r\n([^\r]*)\r\n)"#)
        .expect("an expression");
    let fields: Vec<(String, String)> = field
        .captures_iter(&frame.head)
        .map(|found| {
            (
                found[1].to_owned(),
                found
                    .get(2)
                    .or(found.get(3))
                    .map_or("", |text| text.as_str())
                    .to_owned(),
            )
        })
        .collect();
    assert_eq!(fields.len(), 4);
    assert_eq!(request.method, Method::POST);
    let request = Request {
        params: fields,
        ..request
    };
    assert_eq!(faults(&schema, &request), Vec::<String>::new());
}

/// Only what reads, and can be read twice, is repeated after a lost answer.
#[test]
fn writes_are_never_repeatable() {
    for (name, request) in all() {
        let once = [
            "agent::exec_status",
            "agent::network_interfaces",
            "agent::file_read",
            "console::websocket",
        ]
        .contains(&name);
        assert_eq!(request.repeatable, request.method == Method::GET && !once, "{name}");
    }
}
