//! Requests as they leave, by table: what the schema cannot know.

use std::time::Duration;

use super::{local, pve, upid, vmid};
use crate::{
    request::{
        Request, access, agent,
        clone::CloneVm,
        cluster,
        config::{CreateVm, VmConfigUpdate},
        node,
        power::{DeleteVm, Shutdown},
        qemu::{self, ConfigView},
        storage::{self, DownloadUrl},
        task::{self, TaskFilter},
    },
    types::{property::drive::Drive, reply::cluster::ResourceKind, unit::MiB, vmid::Vmid, volid::VolId},
};

#[test]
fn requests_on_the_wire() {
    let line = |request: &Request| match request.form() {
        Some(form) => format!("{} {} {form}", request.method, request.path_and_query()),
        None => format!("{} {}", request.method, request.path_and_query()),
    };
    let good = "each is well formed";
    let iso = VolId::new("local:iso/a b.iso".replace(' ', "-")).expect(good);
    let vm = CreateVm::new()
        .name("x")
        .memory(MiB(512))
        .disk("scsi0", &Drive::allocate(&local(), 8).ssd(true));
    let update = VmConfigUpdate::new()
        .set("description", "a=b&c\nd +%")
        .delete("ide2")
        .digest("abc");
    for (request, want) in [
        (cluster::version(), "GET /version"),
        (cluster::next_id(None), "GET /cluster/nextid"),
        (cluster::next_id(Some(vmid())), "GET /cluster/nextid?vmid=9000"),
        (cluster::cluster_resources(None), "GET /cluster/resources"),
        (
            cluster::cluster_resources(Some(ResourceKind::Vm)),
            "GET /cluster/resources?type=vm",
        ),
        (access::permissions(None), "GET /access/permissions"),
        (
            access::permissions(Some("/vms/100")),
            "GET /access/permissions?path=%2Fvms%2F100",
        ),
        (
            access::ticket("root@pam", &"p&=ä".into()),
            "POST /access/ticket username=root%40pam&password=p%26%3D%C3%A4",
        ),
        (node::node_status(&pve()), "GET /nodes/pve/status"),
        (
            storage::content(&pve(), &local(), None),
            "GET /nodes/pve/storage/local-lvm/content",
        ),
        (
            storage::delete(&pve(), &iso, None),
            "DELETE /nodes/pve/storage/local/content/local%3Aiso%2Fa-b.iso",
        ),
        (
            storage::delete(&pve(), &iso, Some(Duration::from_secs(99))),
            "DELETE /nodes/pve/storage/local/content/local%3Aiso%2Fa-b.iso?delay=30",
        ),
        (
            storage::download_url(&pve(), &local(), &DownloadUrl::iso("https://x/a.iso", "a.iso")).expect(good),
            "POST /nodes/pve/storage/local-lvm/download-url content=iso&filename=a.iso&url=https%3A%2F%2Fx%2Fa.iso",
        ),
        (
            qemu::create(&pve(), vmid(), &vm).expect(good),
            "POST /nodes/pve/qemu vmid=9000&memory=512&name=x&scsi0=local-lvm%3A8%2Cssd%3D1",
        ),
        (
            qemu::config(&pve(), vmid(), ConfigView::Pending),
            "GET /nodes/pve/qemu/9000/config",
        ),
        (
            qemu::config(&pve(), vmid(), ConfigView::Current),
            "GET /nodes/pve/qemu/9000/config?current=1",
        ),
        (
            qemu::update_config(&pve(), vmid(), &update).expect(good),
            "PUT /nodes/pve/qemu/9000/config description=a%3Db%26c%0Ad%20%2B%25&delete=ide2&digest=abc",
        ),
        (
            qemu::set_config_task(&pve(), vmid(), &VmConfigUpdate::new().cores(1), None).expect(good),
            "POST /nodes/pve/qemu/9000/config cores=1",
        ),
        (qemu::start(&pve(), vmid()), "POST /nodes/pve/qemu/9000/status/start "),
        (
            qemu::shutdown(&pve(), vmid(), &Shutdown::new().timeout(Duration::from_millis(10))),
            "POST /nodes/pve/qemu/9000/status/shutdown timeout=1",
        ),
        (
            qemu::delete(&pve(), vmid(), &DeleteVm::new()),
            "DELETE /nodes/pve/qemu/9000?destroy-unreferenced-disks=0",
        ),
        (
            qemu::clone_vm(&pve(), vmid(), &CloneVm::new(Vmid::MIN).name("c")).expect(good),
            "POST /nodes/pve/qemu/9000/clone newid=100&name=c",
        ),
        (qemu::template(&pve(), vmid()), "POST /nodes/pve/qemu/9000/template "),
        (
            qemu::resize(&pve(), vmid(), "scsi0", "40G").expect(good),
            "PUT /nodes/pve/qemu/9000/resize disk=scsi0&size=40G",
        ),
        (
            qemu::send_key(&pve(), vmid(), "shift-a").expect(good),
            "PUT /nodes/pve/qemu/9000/sendkey key=shift-a",
        ),
        (
            agent::exec(&pve(), vmid(), &["/bin/sh", "-c", "echo ä"], None).expect(good),
            "POST /nodes/pve/qemu/9000/agent/exec command=%2Fbin%2Fsh&command=-c&command=echo%20%C3%A4",
        ),
        (
            agent::exec(&pve(), vmid(), &["cat"], Some(&[0xE4, 0x0A])).expect(good),
            "POST /nodes/pve/qemu/9000/agent/exec command=cat&input-data=%C3%A4%0A",
        ),
        (
            agent::exec_status(&pve(), vmid(), 7),
            "GET /nodes/pve/qemu/9000/agent/exec-status?pid=7",
        ),
        (
            agent::file_write(&pve(), vmid(), "/tmp/x", b"\xff").expect(good),
            "POST /nodes/pve/qemu/9000/agent/file-write file=%2Ftmp%2Fx&content=%2Fw%3D%3D&encode=0",
        ),
        (
            task::task_log(&upid(), 50, 10),
            "GET /nodes/pve/tasks/UPID%3Apve%3A0000778E%3A000B3A73%3A6B046495%3Aqmcreate%3A9000%3Aroot%40pam%21build%3A/log?start=50&limit=10",
        ),
        (task::tasks(&pve(), &TaskFilter::default()), "GET /nodes/pve/tasks"),
    ] {
        assert_eq!(line(&request), want);
    }
}

#[test]
fn what_cannot_be_is_refused_before_it_is_sent() {
    assert!(qemu::clone_vm(&pve(), vmid(), &CloneVm::new(Vmid::MIN).storage(local())).is_err());
    for (slot, size) in [
        ("scsihw", "1G"),
        ("unused0", "1G"),
        ("scsi0", ""),
        ("scsi0", "-1G"),
        ("scsi0", "1Q"),
        ("scsi0", "1.G"),
        ("scsi0", "1.2.3"),
    ] {
        assert!(qemu::resize(&pve(), vmid(), slot, size).is_err(), "{slot} {size}");
    }
    for key in ["", "a-", "A", "ctrl--a", "a b", "ä", "\r"] {
        assert!(qemu::send_key(&pve(), vmid(), key).is_err(), "{key:?}");
    }
    assert!(agent::exec(&pve(), vmid(), &[], None).is_err() && agent::exec(&pve(), vmid(), &[""], None).is_err());
    assert!(
        agent::exec(
            &pve(),
            vmid(),
            &["cat"],
            Some(&vec![0; agent::EXEC_INPUT_MAX_BYTES + 1])
        )
        .is_err()
    );
    assert!(agent::file_write(&pve(), vmid(), "/x", &vec![0; agent::FILE_WRITE_MAX_BYTES + 1]).is_err());
    assert!(agent::file_read(&pve(), vmid(), "").is_err() && agent::file_read(&pve(), vmid(), "/a\n").is_err());
}
