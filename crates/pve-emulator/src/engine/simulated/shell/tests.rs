//! The shell against what bash does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::io::{Input, Io, Output};
use super::*;
use crate::engine::simulated::clock::Clock;
use crate::engine::simulated::host::{Faults, Peers, Power, lock};
use crate::engine::simulated::options::TimeScale;
use crate::engine::simulated::record::GuestRecord;
use crate::engine::simulated::system::System;

fn host() -> (Arc<Host>, tokio::sync::mpsc::UnboundedReceiver<Power>) {
    let mut system = System::base(9, "9.4");
    system.install("@core");
    system.add_user("packer", &["wheel"], "/bin/bash");
    system.start_enabled();
    let (power, powered) = tokio::sync::mpsc::unbounded_channel();
    let (sender, paused) = watch::channel(false);
    // Kept for the whole test run: the clock would otherwise have nobody to be paused by.
    std::mem::forget(sender);
    let host = Host {
        vmid: 100,
        system: Mutex::new(system),
        clock: Clock::new(TimeScale::Instant, paused),
        record: Arc::new(Mutex::new(GuestRecord::default())),
        faults: Arc::new(Faults::default()),
        script_time: Duration::from_secs(1),
        keep_file_bytes: 1 << 20,
        power: Some(power),
        services: Notify::new(),
        booted: Instant::now(),
        address: None,
        media: Mutex::default(),
        k3s_time: Duration::ZERO,
        peers: Peers(Arc::new(|_| None)),
        journal: Mutex::default(),
        connections: Mutex::default(),
    };
    (Arc::new(host), powered)
}

async fn run_as(host: &Arc<Host>, user: &str, text: &str, stdin: &str) -> (i32, String, String) {
    let (stdout, out) = Output::buffer();
    let (stderr, err) = Output::buffer();
    let io = Io {
        stdin: Input::bytes(stdin.to_owned()),
        stdout,
        stderr,
    };
    let code = Shell::login(host, user).unwrap().run(text, &io).await;
    let take = |buffer: &Arc<Mutex<Vec<u8>>>| String::from_utf8(lock(buffer).clone()).unwrap();
    (code, take(&out), take(&err))
}

async fn run(text: &str) -> (i32, String, String) {
    run_as(&host().0, "root", text, "").await
}

#[tokio::test]
async fn text_in_text_out() {
    for (script, output) in [
        ("echo hello   world", "hello world\n"),
        ("echo 'a  b' \"c  d\" e\\ f", "a  b c  d e f\n"),
        (
            "x='a b'; echo $x \"$x\"; printf '<%s>' $x \"$x\"",
            "a b a b\n<a><b><a b>",
        ),
        ("echo ${x:-d} ${x:=set} $x ${x:+alt} ${#x}", "d set set alt 3\n"),
        (
            "f=/a/b.tar.gz; echo ${f##*/} ${f%.*} ${f%%.*} ${f#*/} ${f/b/c}",
            "b.tar.gz /a/b.tar /a/b a/b.tar.gz /a/c.tar.gz\n",
        ),
        ("echo $((2 + 3 * (4 - 1))) $((7 / 2)) $((1 < 2 && 3 != 3))", "11 3 0\n"),
        ("i=0; while [ $i -lt 3 ]; do i=$((i + 1)); echo -n $i; done", "123"),
        (
            "for x in a 'b c' d; do [ \"$x\" = d ] && break; echo \"$x\"; done",
            "a\nb c\n",
        ),
        ("if false; then echo a; elif true; then echo b; else echo c; fi", "b\n"),
        (
            "case foo.sh in *.txt) echo t;; *.sh|*.bash) echo s;; *) echo o;; esac",
            "s\n",
        ),
        ("f() { echo \"$1-$#\"; return 3; }; f x y; echo $?", "x-2\n3\n"),
        ("echo $(echo a; echo b) `echo c`", "a b c\n"),
        ("echo one | tr a-z A-Z | sed 's/O/0/'", "0NE\n"),
        ("cat <<EOF\nv=$((1+1)) \\$x\nEOF\ncat <<'EOF'\n$x\nEOF", "v=2 $x\n$x\n"),
        (
            "cat <<-A; cat <<B\n\ttab\n\tA\nsecond\nB\necho after",
            "tab\nsecond\nafter\n",
        ),
        (
            "false || echo or; true && echo and; ! true || echo not",
            "or\nand\nnot\n",
        ),
        ("(cd /tmp; X=1; pwd); pwd; echo \"[$X]\"", "/tmp\n/root\n[]\n"),
        (
            "{ echo a; echo b; } > /tmp/f; wc -l < /tmp/f; echo c >> /tmp/f; tail -n 1 /tmp/f",
            "2\nc\n",
        ),
        (
            "set -- a 'b c'; for x; do echo \"<$x>\"; done; echo \"$*\" $#; shift; echo $1",
            "<a>\n<b c>\na b c 2\nb c\n",
        ),
        ("set --; printf '[%s]' \"$@\" end", "[end]"),
        (
            "export A=1; B=2; bash -c 'echo [$A][$B]'; B=3 bash -c 'echo $B'",
            "[1][]\n3\n",
        ),
        (
            "sh -c 'echo $0 $1 \"$2\"' zero one 'two  three'",
            "zero one two  three\n",
        ),
        ("env -i X=1 env; env A=b bash -c 'echo $A'", "PWD=/root\nX=1\nb\n"),
        (
            "printf '%s\\n' 'K=v w' > /tmp/e; set -a; . /tmp/e 2>/dev/null; set +a; echo done",
            "done\n",
        ),
        (
            "printf 'K=\"v w\"\\n' > /tmp/e; set -a; . /tmp/e; bash -c 'echo $K'",
            "v w\n",
        ),
        (
            "printf 'a b\\nc d\\n' | while read -r x y; do echo $y-$x; done",
            "b-a\nd-c\n",
        ),
        (
            "[[ foo == f* && ! -e /nope ]] && echo yes; [[ a =~ ^b ]] || echo no",
            "yes\nno\n",
        ),
        (
            "touch /tmp/a1 /tmp/a2; echo /tmp/a? /tmp/nomatch*; echo '/tmp/a?'",
            "/tmp/a1 /tmp/a2 /tmp/nomatch*\n/tmp/a?\n",
        ),
        ("command -v bash; command -v nope || echo none", "/usr/bin/bash\nnone\n"),
        (
            "printf '%05d|%-4s|%x\\n' 42 ab 255; echo -e 'a\\tb'",
            "00042|ab  |ff\na\tb\n",
        ),
        (
            "mkdir -p /opt/x/y && echo t > /opt/x/y/f && mv /opt/x /opt/z && find /opt/z -type f",
            "/opt/z/y/f\n",
        ),
        (
            "echo k > /tmp/k; install -D -m 0600 /tmp/k /etc/new/k; stat -c '%a %U' /etc/new/k",
            "600 root\n",
        ),
        (
            "echo abc | sha256sum | cut -d' ' -f1",
            "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb\n",
        ),
        (
            "id -u; id -un packer; id -nG packer; whoami",
            "0\npacker\npacker wheel\nroot\n",
        ),
        (
            "systemctl is-active sshd firewalld; systemctl is-enabled nope",
            "active\nactive\nFailed to get unit file state: No such file or directory\n",
        ),
        (
            "uname -s; uname -m; . /etc/os-release; echo $ID $VERSION_ID",
            "Linux\nx86_64\nalmalinux 9.4\n",
        ),
        (
            "echo a > /tmp/x; echo b 1>&2 2>/dev/null; cat /tmp/x /nope 2>/dev/null",
            "a\n",
        ),
        ("x=1; unset x; echo ${x-unset}; echo \"a${y}b\"", "unset\nab\n"),
        ("true & wait; echo $?", "0\n"),
        ("timeout 5 echo in time", "in time\n"),
        (
            "echo '  spaced  ' | xargs; ls /etc/ssh | head -n 1",
            "spaced\nsshd_config\n",
        ),
        ("base64 <<< hi | base64 -d", "hi\n"),
    ] {
        let (code, out, err) = run(script).await;
        assert_eq!(out, output, "{script}\n{err}");
        assert!(code < 4, "{script}");
    }
}

#[tokio::test]
async fn exit_codes() {
    for (script, expected, complaint) in [
        ("exit 7", 7, ""),
        ("false", 1, ""),
        ("nope", 127, "nope: command not found"),
        ("/no/such/file", 127, "No such file or directory"),
        ("echo > /tmp/plain; /tmp/plain", 126, "Permission denied"),
        ("set -e; false; echo unreachable", 1, ""),
        ("set -e; false || true; if false; then :; fi; ! true; exit 5", 5, ""),
        ("set -e; f() { false; echo in; }; if f; then exit 4; fi", 4, ""),
        (
            "set -u; echo $undefined; echo unreachable",
            1,
            "undefined: unbound variable",
        ),
        ("set -o pipefail; false | true", 1, ""),
        ("false | true", 0, ""),
        ("x=$(false); echo -n; exit $?", 0, ""),
        ("x=$(exit 3)", 3, ""),
        ("cat /nope", 1, "cat: /nope: No such file or directory"),
        ("test 1 -eq 2", 1, ""),
        ("[ a = b", 2, "missing `]'"),
        ("echo 'open", 2, "unexpected EOF"),
        ("if true; then", 2, "syntax error"),
        ("echo ${", 2, ""),
        ("cd /nope", 1, "No such file or directory"),
        ("env nope", 127, "No such file or directory"),
        ("echo x > /no/dir/f", 1, "/no/dir/f: No such file or directory"),
        ("echo wrong /tmp/f | sha256sum -c", 1, ""),
        ("awk '{print}' /etc/passwd", 127, "awk: command not found"),
        ("f() { f; }; f", 1, "maximum nesting level exceeded"),
        ("while true; do :; done", 124, "stopped after"),
        ("a=(1 2)", 2, "arrays are not supported"),
    ] {
        let (code, _, err) = run(script).await;
        assert_eq!(code, expected, "{script}: {err}");
        assert!(err.contains(complaint), "{script}: {err}");
    }
}

#[tokio::test]
async fn users_have_their_rights() {
    let (host, _powered) = host();
    for (script, code) in [
        ("cat /etc/shadow", 1),
        ("echo x > /etc/x", 1),
        ("rm -f /etc/passwd", 1),
        ("echo x > ~/x && cat ~/x", 0),
        ("echo x > /tmp/mine && rm /tmp/mine", 0),
        ("sudo -n true", 1),
        ("reboot", 1),
        ("systemctl stop sshd", 1),
        ("dnf -y install git", 1),
    ] {
        let (got, _, err) = run_as(&host, "packer", script, "").await;
        assert_eq!(got, code, "{script}: {err}");
    }
    host.system()
        .set_password_hash("packer", &crate::engine::simulated::crypt::hash("pw"));
    let (code, out, _) = run_as(&host, "packer", "sudo -S id -un", "pw\n").await;
    assert_eq!((code, out.as_str()), (0, "root\n"));
    let (code, ..) = run_as(&host, "packer", "sudo -S id -un", "no\n").await;
    assert_eq!(code, 1);
    host.system()
        .files
        .put("/etc/sudoers.d/packer", "packer ALL=(ALL) NOPASSWD: ALL\n", 0o440);
    let (code, out, _) = run_as(&host, "packer", "K=v sudo env X=1 bash -c 'echo $X$K $USER'", "").await;
    assert_eq!((code, out.as_str()), (0, "1 root\n"));
}

#[tokio::test]
async fn accounts_change() {
    let (host, _powered) = host();
    let (code, _, err) = run_as(
        &host,
        "root",
        "useradd -m -G wheel new && echo new:secret | chpasswd && passwd -l packer && usermod -aG wheel packer",
        "",
    )
    .await;
    assert_eq!(code, 0, "{err}");
    let hash = host.system().password_hash("new").unwrap();
    assert!(crate::engine::simulated::crypt::verify("secret", &hash));
    assert!(host.system().password_hash("packer").unwrap().starts_with('!'));
    let (code, _, err) = run_as(&host, "root", "useradd new", "").await;
    assert_eq!(code, 9, "{err}");
    run_as(&host, "root", "userdel -r new", "").await;
    assert!(host.system().user("new").is_none());
    assert!(!host.system().files.exists("/home/new"));
}

#[tokio::test]
async fn power_is_asked_of_init() {
    let (host, mut powered) = host();
    for (script, power) in [
        ("reboot", Power::Reboot),
        ("systemctl reboot", Power::Reboot),
        ("shutdown -r now", Power::Reboot),
        ("shutdown -h now", Power::Off),
        ("poweroff", Power::Off),
        ("halt", Power::Halt),
    ] {
        assert_eq!(run_as(&host, "root", script, "").await.0, 0);
        assert_eq!(powered.recv().await, Some(power), "{script}");
    }
}

#[tokio::test]
async fn hostile_texts_end_in_errors() {
    let deep = "(".repeat(5000);
    let braces = "${a:-".repeat(5000);
    let dollars = "$(".repeat(5000);
    let tests = format!("[[ {} ]]", "! ".repeat(5000));
    let sums = format!("echo $(({}1))", "-".repeat(5000));
    for text in [
        deep.as_str(),
        &braces,
        &dollars,
        &tests,
        &sums,
        "\0",
        "<<",
        "cat <<E",
        "`",
        "$((",
        "${x//",
        "case x in",
        "a() ",
        "| |",
        "&&",
        ";;",
        "\"$(",
        "'",
    ] {
        let (code, ..) = run(text).await;
        assert_ne!(code, 0, "{:?}", &text[..text.len().min(20)]);
    }
}

#[test]
fn a_complaint_of_a_document_without_end_is_one_line() {
    for text in ["cat <<'a\nb'\nx", "cat <<'a\nb"] {
        let complaint = parse::parse(text).err().unwrap_or_default();
        assert!(!complaint.contains('\n') && !complaint.is_empty(), "{complaint:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z$(){}\\[\\]<>|&;'\"`\\\\ \n=*?!#/0-9-]{0,60}") {
        // Errors are fine, panics are not.
        let _ = parse::parse(&text);
    }

    #[test]
    fn quoted_words_arrive_unchanged(word in "[^\u{0}]{0,40}") {
        let text = format!("printf %s {}", shell_words::quote(&word));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (code, out, err) = runtime.block_on(run(&text));
        proptest::prop_assert_eq!((code, out, err), (0, word, String::new()));
    }
}

#[tokio::test]
async fn expressions_are_posix() {
    for (test, wanted) in [
        ("[[ https://[fd00::1]:6443 =~ ^https://[][A-Za-z0-9.:-]+/?$ ]]", 0),
        ("[[ server =~ ^(server|agent|none)$ && a == a ]]", 0),
        ("[[ servers =~ ^(server|agent|none)$ ]]", 1),
        ("[[ '--a=b --c' =~ ^--[A-Za-z0-9=.,:/@_%+\\ -]+$ ]]", 0),
        ("[[ '--a=$(x)' =~ ^--[A-Za-z0-9=.,:/@_%+\\ -]+$ ]]", 1),
        ("[[ v1.2 =~ ^v[0-9]+\\.[0-9]$ ]]", 0),
        ("x=Ab; [[ ${x,,} == ab && ${x^^} == AB ]]", 0),
    ] {
        let (code, _, err) = run(test).await;
        assert_eq!((code, err.as_str()), (wanted, ""), "{test}");
    }
}

/// The first boot of a clone, as `k3s-install.sh` lays it down.
#[tokio::test]
async fn the_first_boot_of_the_install_script_runs() {
    let (host, _powered) = host();
    let mut shell = Shell::login(&host, "root").unwrap();
    shell.export(BTreeMap::from([
        ("K3S_VERSION".to_owned(), "v1.29.0+k3s1".to_owned()),
        ("K3SIMAGE_NAME".to_owned(), "alma9-k3-node".to_owned()),
    ]));
    shell
        .lay_down(include_str!("../../../../../../scripts/k3s-install.sh"))
        .await;
    let text = |path: &str| host.system().files.text(path);
    assert_eq!(
        text("/etc/k3simage/image.env"),
        "IMAGE_NAME=alma9-k3-node\nBUILD_ID=\nK3S_VERSION=v1.29.0+k3s1\nK3S_ROLE=server\n"
    );
    assert!(text("/etc/systemd/system/k3s-agent.service").contains("ExecStart=/usr/local/bin/k3s agent $K3S_ARGS"));
    assert!(text("/etc/systemd/system/k3s.service").contains("Type=notify"));
    assert_eq!(
        host.system()
            .files
            .get("/usr/local/libexec/k3simage/firstboot")
            .unwrap()
            .mode,
        0o755
    );

    let id = "0123456789abcdef".repeat(2);
    host.system().files.put("/etc/machine-id", format!("{id}\n"), 0o444);
    host.system().files.put("/etc/hostname", "Node-7\n", 0o644);
    let boot = text("/usr/local/libexec/k3simage/firstboot");
    let (code, out, err) = run_as(&host, "root", &boot, "").await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(text("/var/lib/k3simage/firstboot.done"), "server node-7\n");
    assert_eq!(
        text("/etc/k3simage/k3s.env"),
        "K3S_NODE_NAME=\"node-7\"\nK3S_ARGS=\"\"\n"
    );
    assert_eq!(host.system().unit_state("k3s.service"), "activating");

    let role = "K3S_ROLE='agent'\n# a comment\nK3S_URL=https://10.0.0.5:6443\nK3S_TOKEN=\"K10ab::server:cd\"\nK3S_ARGS=--node-label=a=b --x\n";
    host.system().files.put("/etc/k3simage/role.env", role, 0o600);
    let (code, out, err) = run_as(&host, "root", &boot, "").await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("firstboot: node node-7, role agent joining https://10.0.0.5:6443, from /etc/k3simage/role.env"),
        "{out}"
    );
    assert_eq!(
        text("/etc/k3simage/k3s.env"),
        "K3S_NODE_NAME=\"node-7\"\nK3S_URL=\"https://10.0.0.5:6443\"\nK3S_TOKEN=\"K10ab::server:cd\"\nK3S_ARGS=\"--node-label=a=b --x\"\n"
    );

    for (lines, complaint) in [
        ("K3S_ROLL=agent\n", "\"K3S_ROLL\" is no setting"),
        ("K3S_ROLE=boss\n", "K3S_ROLE is \"boss\""),
        ("K3S_ROLE=agent\n", "an agent joins a server, but there is no K3S_URL"),
        ("K3S_NODE_NAME=localhost\n", "cannot be unique"),
    ] {
        host.system().files.put("/etc/k3simage/role.env", lines, 0o600);
        let (code, _, err) = run_as(&host, "root", &boot, "").await;
        assert!(code == 1 && err.contains(complaint), "{lines}{err}");
    }
}
