//! Faults on demand, and what holds a call or a task.

use super::*;

#[tokio::test]
async fn answers_and_requests_can_break_in_the_middle() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    pve.fail_next("GET", "/version", FaultAction::CutAnswer);
    let whole = api.call("GET", "/nodes", &[]).await.body.len();
    let reply = api.call("GET", "/version", &[]).await;
    let announced: usize = reply.header("content-length").unwrap().parse().unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body.len(), announced / 2);
    assert_eq!(api.call("GET", "/nodes", &[]).await.body.len(), whole, "only once");

    pve.fail_next("POST", "*/upload", FaultAction::CutRequest(1000));
    let head = "--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n--B\r\n\
                Content-Disposition: form-data; name=\"filename\"; filename=\"a.iso\"\r\n\r\n";
    let body = format!("{head}{}\r\n--B--\r\n", "x".repeat(5000));
    let kind = ("Content-Type".to_owned(), "multipart/form-data; boundary=B".to_owned());
    let headers = [api.token.clone(), kind];
    let target = "/api2/json/nodes/pve/storage/local/upload";
    let reply = api
        .client
        .send("POST", target, &headers, Some(body.as_bytes()))
        .await
        .unwrap();
    assert_eq!(reply.status, 0);
    assert!(pve.volids("pve").is_empty());
    assert_eq!(std::fs::read_dir(pve.data_dir().join("tmp")).unwrap().count(), 0);
    let reply = api
        .client
        .send("POST", target, &headers, Some(body.as_bytes()))
        .await
        .unwrap();
    assert_eq!(reply.status, 200);

    pve.fail_next("GET", "/version", FaultAction::Expired);
    let reply = api.call("GET", "/version", &[]).await;
    assert_eq!((reply.status, reply.reason.as_str()), (401, "Authentication failed!"));
}

#[tokio::test]
async fn tasks_fail_warn_and_hang_on_demand() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    let fault = |fault| FaultAction::Task(fault);
    pve.fail_next("POST", "/nodes/*/qemu", fault(TaskFault::Fails("no space".into())));
    assert_eq!(api.make_vm("pve", "100").await.0, "unable to create VM 100 - no space");
    assert!(pve.vmids().is_empty(), "a create that fails leaves nothing");
    assert!(pve.volids("pve").is_empty());
    pve.fail_next("POST", "/nodes/*/qemu", fault(TaskFault::Warns("it smells".into())));
    let (exit, log) = api.make_vm("pve", "100").await;
    assert_eq!(exit, "WARNINGS: 1");
    assert!(log.contains(&"WARN: it smells".to_owned()), "{log:?}");

    let every = |kind: &str, action| Fault {
        when: FaultMatch::Task {
            kind: kind.into(),
            id: "100".into(),
        },
        action: FaultAction::Task(action),
        times: 1,
    };
    pve.fault(every(
        "qmstart",
        TaskFault::Fails("start failed: QEMU exited with code 1".into()),
    ));
    let start = api.data("POST", "/nodes/pve/qemu/100/status/start", &[]).await;
    let (exit, log) = api.end_of(&start).await;
    assert_eq!(exit, "start failed: QEMU exited with code 1");
    assert_eq!(log, ["TASK ERROR: start failed: QEMU exited with code 1"]);
    let status = api.data("GET", "/nodes/pve/qemu/100/status/current", &[]).await;
    assert_eq!(status["status"], "stopped", "its work was not done");

    pve.fault(every("qmdestroy", TaskFault::Hangs));
    let delete = api.data("DELETE", "/nodes/pve/qemu/100", &[]).await;
    let task = utf8_percent_encode(delete.as_str().unwrap(), NON_ALPHANUMERIC).to_string();
    let running = api.data("GET", &format!("/nodes/pve/tasks/{task}/status"), &[]).await;
    assert_eq!(running["status"], "running");
    api.data("DELETE", &format!("/nodes/pve/tasks/{task}"), &[]).await;
    assert_eq!(api.end_of(&delete).await.0, "received interrupt");
    assert_eq!(pve.vmids(), [100]);

    let template = api.data("POST", "/nodes/pve/qemu/100/template", &[]).await;
    assert_eq!(api.end_of(&template).await.0, "OK");
    pve.fault(every("qmclone", TaskFault::Fails("disk full".into())));
    let clone = api.data("POST", "/nodes/pve/qemu/100/clone", &[("newid", "101")]).await;
    assert_eq!(api.end_of(&clone).await.0, "clone failed: disk full");
    assert_eq!(pve.vmids(), [100], "a clone that fails leaves nothing");
    pve.fault(every("qmclone", TaskFault::Delay(Duration::from_millis(300))));
    let began = Instant::now();
    let clone = api.data("POST", "/nodes/pve/qemu/100/clone", &[("newid", "101")]).await;
    assert_eq!(api.end_of(&clone).await.0, "OK");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn what_was_stopped_before_it_began_leaves_nothing() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    assert_eq!(api.make_vm("pve", "100").await.0, "OK");
    let before = pve.volids("pve");
    for (path, form, exit) in [
        (
            "/nodes/pve/qemu",
            ("vmid", "101"),
            "unable to create VM 101 - received interrupt",
        ),
        (
            "/nodes/pve/qemu/100/clone",
            ("newid", "101"),
            "clone failed: received interrupt",
        ),
    ] {
        pve.fail_next("POST", path, FaultAction::Task(TaskFault::Hangs));
        let upid = api.data("POST", path, &[form]).await;
        assert_eq!(pve.vmids(), [100, 101], "{path}");
        let task = utf8_percent_encode(upid.as_str().unwrap(), NON_ALPHANUMERIC).to_string();
        api.data("DELETE", &format!("/nodes/pve/tasks/{task}"), &[]).await;
        assert_eq!(api.end_of(&upid).await.0, exit);
        assert_eq!((pve.vmids(), pve.volids("pve")), (vec![100], before.clone()), "{path}");
    }
}

#[tokio::test]
async fn a_volume_deleted_with_a_warning_is_deleted() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    let volume = "/nodes/pve/storage/local/content/local:iso%2Fa.iso?delay=5";
    for (fault, status) in [
        (TaskFault::Warns("it smells".into()), 200),
        (TaskFault::Fails("read-only file system".into()), 500),
    ] {
        pve.add_file("local", "iso", "a.iso", b"bytes").unwrap();
        pve.fail_next("DELETE", "/nodes/pve/storage/local/content/*", FaultAction::Task(fault));
        assert_eq!(api.call("DELETE", volume, &[]).await.status, status);
        assert_eq!(pve.volids("pve").is_empty(), status == 200);
    }
}

#[tokio::test]
async fn the_clock_of_the_answers_goes_forward() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    let date = async || {
        let reply = api.call("GET", "/version", &[]).await;
        httpdate::parse_http_date(reply.header("date").unwrap()).unwrap()
    };
    let before = date().await;
    pve.advance_clock(Duration::from_secs(3600));
    let ahead = date().await.duration_since(before).unwrap();
    assert!(
        ahead >= Duration::from_secs(3600) && ahead < Duration::from_secs(3600) + PATIENCE,
        "{ahead:?}"
    );
}

#[tokio::test]
async fn a_call_waits_for_the_test_that_holds_it() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    for (action, there) in [
        (FaultAction::Hold as fn(Gate) -> FaultAction, false),
        (FaultAction::HoldAnswer, true),
    ] {
        let gate = Gate::default();
        pve.fail_next("PUT", "/nodes/pve/qemu/100/config", action(gate.clone()));
        assert_eq!(api.make_vm("pve", "100").await.0, "OK");
        let held = async { api.call("PUT", "/nodes/pve/qemu/100/config", &[("cores", "3")]).await };
        let test = async {
            gate.reached().await;
            let config = pve.vm_config(100).unwrap();
            assert_eq!(config.contains_key("cores"), there, "{config:?}");
            gate.open();
        };
        let (reply, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(held, test) })
            .await
            .unwrap();
        assert_eq!(reply.status, 200, "{}", reply.reason);
        assert_eq!(pve.vm_config(100).unwrap()["cores"], "3");
        let upid = api.data("DELETE", "/nodes/pve/qemu/100", &[]).await;
        assert_eq!(api.end_of(&upid).await.0, "OK");
    }
}

#[tokio::test]
async fn idle_waits_for_what_is_being_handled() {
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    assert_eq!(api.make_vm("pve", "100").await.0, "OK");
    let gate = Gate::default();
    pve.fail_next("PUT", "/nodes/pve/qemu/100/config", FaultAction::Hold(gate.clone()));
    let held = async { api.call("PUT", "/nodes/pve/qemu/100/config", &[("cores", "3")]).await };
    let gone = tokio::select! {
        reply = held => panic!("{reply:?}"),
        gone = async {
            gate.reached().await;
            tokio::time::timeout(Duration::from_millis(300), pve.idle()).await
        } => gone,
    };
    assert!(gone.is_err(), "a call was being handled");
    // Whoever asked is gone, and so is the call.
    tokio::time::timeout(PATIENCE, pve.idle()).await.unwrap();
    gate.open();
    assert_eq!(pve.vm_config(100).unwrap().get("cores"), None);
    assert_eq!(pve.running_tasks(), 0);
}
