//! Single calls that once went wrong, each with what it left behind.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::subject::Subject;

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

impl Subject {
    async fn put(&self, path: &str, form: &str) -> Reply {
        self.form("PUT", path, form).await
    }

    async fn get(&self, path: &str) -> Reply {
        let path = format!("/api2/json{path}");
        self.client
            .send("GET", &path, std::slice::from_ref(&self.auth), None)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn figures_without_an_end_can_be_shown() {
    let subject = Subject::start().await;
    let vm = "/nodes/pve/qemu/100";
    let huge = format!("cores={0}&sockets={0}&vcpus={0}", u64::MAX);
    let reply = subject.put(&format!("{vm}/config"), &huge).await;
    assert_eq!(reply.status, 200, "{}", reply.reason);
    for path in ["/nodes/pve/qemu", "/cluster/resources", &format!("{vm}/status/current")] {
        let reply = subject.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.reason);
    }
    assert_eq!(subject.pve.panics(), 0);
}

#[tokio::test]
async fn a_time_of_the_callers_own_proves_nothing() {
    let subject = Subject::start().await;
    for (cookie, csrf) in [
        ("PVE:root@pam:FFFFFFFFFFFFFFFF::x", "FFFFFFFFFFFFFFFF:x"),
        ("PVE:root@pam:::x", ":"),
    ] {
        let headers = [
            ("Cookie".to_owned(), format!("PVEAuthCookie={cookie}")),
            ("CSRFPreventionToken".to_owned(), csrf.to_owned()),
        ];
        let reply = subject
            .client
            .send("POST", "/api2/json/pools", &headers, Some(b"poolid=x"))
            .await;
        assert_eq!(reply.unwrap().status, 401);
    }
    assert_eq!(subject.pve.panics(), 0);
}

#[tokio::test]
async fn what_root_alone_may_say_is_refused_and_never_left_out() {
    let subject = Subject::start().await;
    let vm = "/nodes/pve/qemu/100/status";
    for (call, option) in [
        ("start", "stateuri=tcp"),
        ("start", "migratedfrom=pve"),
        ("start", "force-cpu=host"),
        ("start", "migration_type=secure"),
        ("stop", "keepActive=1"),
        ("stop", "migratedfrom=pve"),
        ("shutdown", "keepActive=1"),
    ] {
        let reply = subject.form("POST", &format!("{vm}/{call}"), option).await;
        assert_eq!(reply.status, 400, "{call} {option}: {}", reply.reason);
        let name = option.split('=').next().unwrap();
        assert_eq!(
            body(&reply)["errors"],
            json!({ name: "Only root may use this option." }),
            "{call} {option}"
        );
    }
    let reply = subject
        .form("POST", &format!("{vm}/start"), "with-conntrack-state=1")
        .await;
    assert_eq!(reply.status, 501, "{}", reply.reason);
}

#[tokio::test]
async fn a_refused_change_makes_no_disk() {
    let subject = Subject::start().await;
    let before = subject.get("/nodes/pve/storage/local-lvm/content").await;
    let form = "scsi1=local-lvm:1&scsi2=local-lvm:99999999";
    let reply = subject.put("/nodes/pve/qemu/100/config", form).await;
    assert_eq!(reply.status, 500, "{}", reply.reason);
    let after = subject.get("/nodes/pve/storage/local-lvm/content").await;
    assert_eq!(body(&after), body(&before));
}

#[tokio::test]
async fn a_login_that_only_verifies_looks_at_the_rights() {
    let builder = pve_emulator::Emulator::builder().user("weak@pve", "long-enough-1");
    let pve = builder.start().await.unwrap();
    let client = crate::client::Client::new(pve.address(), pve.ca_pem()).unwrap();
    let login = "username=weak@pve&password=long-enough-1";
    let verify = format!("{login}&path=/vms&privs=VM.Allocate");
    for (form, status) in [(login, 200), (verify.as_str(), 401)] {
        let headers = [(
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        )];
        let reply = client
            .send("POST", "/api2/json/access/ticket", &headers, Some(form.as_bytes()))
            .await;
        assert_eq!(reply.unwrap().status, status, "{form}");
    }
}
