//! Each thing that can be shared, planted alone: it is found by its name, and nothing else is.

use super::*;

const KEY: &str = "ssh-ed25519 AAAAown verify";

fn facts(number: u32, extra: &str) -> Facts {
    let second = number == 2;
    let own = if second {
        "decided=agent verify-7f3a-2\ntold_url=https://10.0.0.5:6443\ntold_token=T\nunit k3s-agent=active\n"
    } else {
        "decided=server verify-7f3a-1\nunit k3s=active\ntoken /var/lib/rancher/k3s/server/token=t1\n\
         file /var/lib/rancher/k3s/server/tls/server-ca.crt=c1\n"
    };
    let all = format!(
        "hostname=verify-7f3a-{number}\nmachine_id={}\nboot_id=b{number}\nselinux=Enforcing\ncloud_init=done\nfailed=\n\
         unit qemu-guest-agent=active\nunit k3simage-firstboot=active\nhost_key=ssh-ed25519 AAAA{number}\n\
         authorized /root={KEY}\nfile /etc/rancher/node/password=p{number}\nimage_role=server\n{own}{extra}",
        number.to_string().repeat(32)
    );
    // A planted line stands above the clone's own of the same name.
    let (planted, rest): (Vec<&str>, Vec<&str>) = all.lines().partition(|line| extra.lines().any(|e| e == *line));
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let multiple = ["host_key", "password"];
    let kept = rest.iter().filter(|line| {
        let name = name(line);
        multiple.contains(&name.as_str())
            || name.contains("authorized")
            || !planted.iter().any(|p| self::name_of(p) == name)
    });
    Facts::parse(&planted.iter().chain(kept).copied().collect::<Vec<_>>().join("\n"))
}

fn name_of(line: &str) -> String {
    line.split('=').next().unwrap_or_default().to_owned()
}

fn seen(number: u32, extra: &str) -> Seen {
    Seen {
        name: format!("verify-7f3a-{number}"),
        mac: Some(format!("BC:24:11:00:00:0{number}")),
        shown_keys: vec![format!("ssh-ed25519 AAAA{number}"); 2],
        address: format!("10.0.0.{number}"),
        open_commands: Some(Vec::new()),
        facts: facts(number, extra),
        journal: Vec::new(),
    }
}

fn told() -> Told {
    Told {
        url: "https://10.0.0.5:6443".to_owned(),
        token: "T".to_owned(),
    }
}

fn bad(first: &Seen, second: &Seen, joined: &Joined) -> Vec<(String, Outcome)> {
    checks(first, second, &told(), joined, KEY)
        .into_iter()
        .filter(|check| !matches!(check.outcome, Outcome::Ok | Outcome::NotChecked))
        .map(|check| (check.name, check.outcome))
        .collect()
}

#[test]
fn two_good_clones_pass_every_check() {
    let all = checks(&seen(1, ""), &seen(2, ""), &told(), &Joined::Yes, KEY);
    let not_ok: Vec<&Check> = all.iter().filter(|check| check.outcome != Outcome::Ok).collect();
    assert!(not_ok.is_empty(), "{not_ok:#?}");
    assert_eq!(all.len(), 17);
}

#[test]
fn what_is_planted_is_found_by_its_name_alone() {
    let id = format!("machine_id={}", "a".repeat(32));
    for (line, name) in [
        (id.as_str(), "machine id"),
        ("host_key=ssh-rsa AAAAplanted", "ssh host keys"),
        ("hostname=verify-7f3a-1", "hostname"),
        ("boot_id=x", "boot id"),
        ("authorized /home/alma=ssh-ed25519 AAAAother build", "authorized keys"),
        ("password=root", "passwords"),
        ("file /var/lib/NetworkManager/secret_key=s", "system secrets"),
        ("file /var/lib/systemd/credential.secret=s", "system secrets"),
        ("token /etc/rancher/k3s/config.yaml=s", "k3s token"),
        ("token /var/lib/rancher/k3s/server/token=s", "k3s token"),
        ("file /var/lib/rancher/k3s/server/tls/server-ca.crt=s", "k3s ca"),
        ("file /etc/rancher/node/password=s", "k3s node password"),
    ] {
        let found = bad(&seen(1, line), &seen(2, line), &Joined::Yes);
        assert_eq!(found, [(name.to_owned(), Outcome::Shared)], "{line}");
    }
}

#[test]
fn what_is_not_well_is_found_by_its_name_alone() {
    for (line, name) in [
        ("machine_id=uninitialized", "machine id"),
        ("failed=chronyd.service k3s-agent.service", "services"),
        ("cloud_init=running", "services"),
        ("selinux=Permissive", "selinux"),
        ("decided=", "k3s join"),
        ("told_url=https://10.0.0.6:6443", "k3s join"),
        ("told_token=U", "k3s join"),
    ] {
        let found = bad(&seen(1, ""), &seen(2, line), &Joined::Yes);
        assert_eq!(found, [(name.to_owned(), Outcome::Failed)], "{line}");
    }
    for (line, name) in [
        ("decided=agent verify-7f3a-1", "k3s role"),
        ("decided=server other", "k3s role"),
        ("unit k3s=activating", "k3s role"),
    ] {
        let found = bad(&seen(1, line), &seen(2, ""), &Joined::Yes);
        assert_eq!(found, [(name.to_owned(), Outcome::Failed)], "{line}");
    }
    let mut second = seen(2, "");
    second.open_commands = Some(vec!["guest-exec".to_owned()]);
    assert_eq!(
        bad(&seen(1, ""), &second, &Joined::Yes),
        [("agent lock".to_owned(), Outcome::Failed)]
    );
    let mut changed = seen(2, "");
    changed.shown_keys.push("ssh-ed25519 AAAAother".to_owned());
    assert_eq!(
        bad(&seen(1, ""), &changed, &Joined::Yes),
        [("ssh host keys".to_owned(), Outcome::Failed)]
    );
    let no = Joined::No("not listed".to_owned());
    assert_eq!(
        bad(&seen(1, ""), &seen(2, ""), &no),
        [("k3s joined".to_owned(), Outcome::Failed)]
    );
}

#[test]
fn an_image_without_k3s_or_selinux_is_no_failure() {
    let without = |number| {
        let mut seen = seen(number, "selinux=");
        let text = format!(
            "hostname=verify-7f3a-{number}\nmachine_id={}\nboot_id={number}\ncloud_init=done\nhost_key=ssh-ed25519 AAAA{number}\n\
             unit qemu-guest-agent=active",
            number.to_string().repeat(32)
        );
        seen.facts = Facts::parse(&text);
        seen
    };
    let all = checks(&without(1), &without(2), &told(), &Joined::Yes, KEY);
    let skipped: Vec<&str> = all
        .iter()
        .filter(|check| check.outcome == Outcome::NotChecked)
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(skipped.len(), 7, "{skipped:?}");
    assert!(
        all.iter()
            .all(|check| matches!(check.outcome, Outcome::Ok | Outcome::NotChecked)),
        "{all:#?}"
    );
}

#[test]
fn an_image_for_agents_or_for_nothing_keeps_its_word() {
    let image = "image_role=none\ndecided=none verify-7f3a-1\nunit k3s=inactive";
    assert!(bad(&seen(1, image), &seen(2, ""), &Joined::Yes).is_empty());
    let image = "image_role=agent\ndecided=\nunit k3simage-firstboot=failed\nunit k3s=inactive";
    assert!(bad(&seen(1, image), &seen(2, ""), &Joined::Yes).is_empty());
}
