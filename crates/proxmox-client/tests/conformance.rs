//! Each public call of each handle, sent to a server that judges what arrives by the schema of PVE 9.2.

#[path = "support/schema.rs"]
mod schema;
#[expect(dead_code, reason = "fields of parameters are looked at by the unit tests")]
#[path = "support/sources.rs"]
mod sources;
mod support;

use std::{collections::BTreeSet, time::Duration};

use percent_encoding::percent_decode_str;
use proxmox_client::{
    Client, CloneVm, ConfigView, CreateVm, DeleteVm, DownloadUrl, Method, NodeName, Shutdown, StorageId, TaskFilter,
    Upid, Upload, VmConfigUpdate, Vmid, VolId, Wait,
};
use support::{Received, TestServer, data};

const UPID: &str = "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:9000:root@pam!build:";

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().expect("UTF-8").into_owned()
}

/// `a=b&c=d` as it travels.
fn pairs(text: &str) -> Vec<(String, String)> {
    let words = text.split('&').filter(|word| !word.is_empty());
    words
        .map(|word| word.split_once('=').expect("a name and a value"))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// The parts of an upload are its parameters; that of the file has its name instead of a value.
fn parts(body: &str) -> Vec<(String, String)> {
    let field = regex_lite::Regex::new(r#"name="([^"]+)"(?:; filename="([^"]+)"|\r\n\r\n([^\r]*)\r\n)"#)
        .expect("an expression");
    let found = field.captures_iter(body).map(|found| {
        let value = found.get(2).or(found.get(3)).map_or("", |text| text.as_str());
        (found[1].to_owned(), value.to_owned())
    });
    found.collect()
}

fn faults(schema: &schema::Schema, request: &Received) -> Vec<String> {
    let target = request.target.strip_prefix("/api2/json").expect("below the API");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut params = pairs(query);
    let in_body = !matches!(request.method.as_str(), "GET" | "DELETE");
    if !in_body && !request.body.is_empty() {
        return vec!["a body where PVE takes none (FACTS 16)".to_owned()];
    }
    match request.header("content-type") {
        Some(kind) if kind.starts_with("multipart/form-data") => params.extend(parts(&request.text())),
        Some("application/x-www-form-urlencoded") => params.extend(pairs(&request.text())),
        None if !in_body => {}
        other => return vec![format!("content type {other:?}")],
    }
    schema::faults(schema, &request.method, path, &params)
}

/// Each call by its name in the sources; what it makes of the answer does not count here.
macro_rules! calls {
    ($server:ident, $listed:ident; $($name:literal => $call:expr,)+) => {{
        $(
            let before = $server.requests().len();
            let _ = $call.await;
            assert!($server.requests().len() > before, "{} sent nothing", $name);
            $listed.insert($name.to_owned());
        )+
    }};
}

#[tokio::test]
async fn every_call_of_every_handle_fits_the_schema() {
    let server = TestServer::start(|_, request| match request.line().as_str() {
        "GET /version" => data(r#"{"version":"9.2.11","release":"9.2","repoid":"x"}"#),
        "POST /access/ticket" => data(r#"{"ticket":"PVE:t","CSRFPreventionToken":"c"}"#),
        line if line.starts_with("POST ") && line.ends_with("proxy") => data(&format!(
            r#"{{"port":"5900","ticket":"8G:C63E8:PVEVNC:6B045B5B::x+/=","user":"root@pam!build","upid":"{UPID}"}}"#
        )),
        _ => data("null"),
    })
    .await;
    let client: Client = server.password_client();
    let good = "each is well formed";
    let node = client.node(&NodeName::new("pve").expect(good));
    let storage = node.storage(&StorageId::new("local").expect(good));
    let vm = node.qemu(Vmid::new(9000).expect(good));
    let agent = vm.agent();
    let upid = Upid::new(UPID).expect(good);
    let task = node.task(&upid);
    let wait = || Wait::at_most(Duration::from_secs(60)).on_log(|_| {});
    let create = CreateVm::new().set("allow-ksm", 0).set("virtiofs0", "share");
    let update = VmConfigUpdate::new().cores(2).delete("ide2").digest("ab12");
    let iso = VolId::new("local:iso/a b.iso".replace(' ', "-")).expect(good);
    let mut listed = BTreeSet::new();
    calls! { server, listed;
        "Client::version" => client.version(),
        "Client::next_id" => client.next_id(Some(Vmid::MAX)),
        "Client::cluster_resources" => client.cluster_resources(Some(proxmox_client::ResourceKind::Vm)),
        "Client::nodes" => client.nodes(),
        "Client::permissions" => client.permissions(Some("/vms/100")),
        "Client::pools" => client.pools(),
        "Client::pool" => client.pool(&"parent".parse().expect(good)),
        "Client::wait_task" => client.wait_task(&upid, wait()),
        "Client::request" => client.request(Method::PUT, "/nodes/pve/qemu/100/sendkey", &[("key", "ret".to_owned())]),
        "Node::status" => node.status(),
        "Node::storages" => node.storages(),
        "Node::networks" => node.networks(),
        "Node::vms" => node.vms(),
        "Node::tasks" => node.tasks(&TaskFilter { vmid: Some(Vmid::MIN), with_active: true, ..TaskFilter::default() }),
        "Task::status" => task.status(),
        "Task::log" => task.log(),
        "Task::log_page" => task.log_page(7, 50),
        "Task::stop" => task.stop(),
        "Storage::status" => storage.status(),
        "Storage::content" => storage.content(Some(proxmox_client::Content::Iso)),
        "Storage::upload" => storage.upload(&Upload::iso_bytes("a.iso", "bytes").expect(good)),
        "Storage::download_url" => storage.download_url(&DownloadUrl::iso("https://x/a.iso", "a.iso")),
        "Storage::delete" => storage.delete(&iso),
        "Qemu::create" => vm.create(&create),
        "Qemu::config" => vm.config(ConfigView::Current),
        "Qemu::update_config" => vm.update_config(&update),
        "Qemu::set_config_task" => vm.set_config_task(&update, Some(Duration::from_secs(99))),
        "Qemu::pending" => vm.pending(),
        "Qemu::status" => vm.status(),
        "Qemu::start" => vm.start(),
        "Qemu::shutdown" => vm.shutdown(&Shutdown::new().timeout(Duration::from_secs(9)).force_stop(true)),
        "Qemu::stop" => vm.stop(),
        "Qemu::delete" => vm.delete(&DeleteVm::new().purge(true)),
        "Qemu::clone_to" => vm.clone_to(&CloneVm::new(Vmid::MAX).name("c")),
        "Qemu::convert_to_template" => vm.convert_to_template(),
        "Qemu::resize" => vm.resize("scsi0", "+8G"),
        "Qemu::send_key" => vm.send_key("ret"),
        "Qemu::vncproxy" => vm.vncproxy(),
        "Qemu::termproxy" => vm.termproxy(3),
        "Qemu::serial_console" => vm.serial_console(0),
        "Qemu::screen" => vm.screen(),
        "QemuAgent::ping" => agent.ping(),
        "QemuAgent::network_interfaces" => agent.network_interfaces(),
        "QemuAgent::exec" => agent.exec(&["/bin/sh", "-c", "id; true"]),
        "QemuAgent::exec_with_input" => agent.exec_with_input(&["cat"], b"\xff\n"),
        "QemuAgent::exec_status" => agent.exec_status(118),
        "QemuAgent::file_write" => agent.file_write("/tmp/x", b"\x00\xff"),
        "QemuAgent::file_read" => agent.file_read("/tmp/x"),
    }
    let schema = schema::schema();
    for request in server.requests() {
        assert_eq!(faults(&schema, &request), Vec::<String>::new(), "{}", request.line());
    }
    let public: BTreeSet<String> = sources::public_functions(&["api", "client.rs"])
        .into_iter()
        .filter(|function| function.signature.contains("async fn"))
        .map(|function| function.name)
        .collect();
    assert_eq!(public, listed);
}
