//! Tests of reading facts.

use super::*;
use proptest::prelude::*;

const TEXT: &str = "# a comment
text
rootpw --plaintext packer
rootpw --iscrypted $6$x
user --name=ops --groups=wheel,adm --password=x --iscrypted
user --name \"locked one\" --lock --password=x
sshkey --username=root \"ssh-ed25519 AAAA me\"
services --enabled=sshd.service,chronyd --disabled kdump
reboot --eject   # and done
%packages --excludeWeakdeps
@^minimal-environment
qemu-guest-agent.x86_64 # wanted
-iwl*firmware
%end
%include /tmp/part
%post
# dnf -y install not-this
dnf -y install this-one
%end
lang \"open
%post
never closed
";

#[test]
fn facts_have_lines() {
    let facts = facts(TEXT);
    assert_eq!(
        facts.root_password(),
        Some(Fact {
            line: 4,
            value: RootPassword::Crypted
        })
    );
    let users = facts.users();
    assert_eq!(users.len(), 2);
    assert_eq!((users[0].value.password, users[0].value.groups.len()), (true, 2));
    assert_eq!(
        (users[1].value.name.as_str(), users[1].value.password),
        ("locked one", false)
    );
    assert_eq!(
        facts.ssh_key_users(),
        [Fact {
            line: 7,
            value: "root".into()
        }]
    );
    assert_eq!(
        facts
            .services("--enabled")
            .iter()
            .map(|unit| unit.value.as_str())
            .collect::<Vec<_>>(),
        ["sshd", "chronyd"]
    );
    assert_eq!(facts.services("--disabled")[0].value, "kdump");
    assert_eq!(
        facts.finish(),
        Some(Fact {
            line: 9,
            value: Finish::Reboot
        })
    );
    let packages = facts.packages().unwrap();
    assert_eq!((packages.line, packages.includes("qemu-guest-agent")), (10, Some(12)));
    assert_eq!(packages.excludes("iwl7260-firmware"), Some(13));
    assert_eq!(packages.excludes("iwl"), None);
    assert_eq!(
        facts.includes,
        [Fact {
            line: 15,
            value: "/tmp/part".into()
        }]
    );
    assert_eq!(
        (facts.post_mentions("this-one"), facts.post_mentions("not-this")),
        (Some(18), None)
    );
    assert_eq!(facts.open_quotes, [20]);
    assert!(!facts.sections.last().unwrap().value.closed);
}

#[test]
fn ends() {
    for (text, want) in [
        ("reboot --eject\n", Some(Finish::Reboot)),
        ("reboot --kexec\n", Some(Finish::Kexec)),
        ("poweroff\n", Some(Finish::Poweroff)),
        ("shutdown\n", Some(Finish::Poweroff)),
        ("halt\n", Some(Finish::Halt)),
        ("reboot\npoweroff\n", Some(Finish::Poweroff)),
        ("# reboot\n%post\nreboot\n%end\n", None),
        ("", None),
    ] {
        assert_eq!(facts(text).finish().map(|fact| fact.value), want, "{text:?}");
    }
}

#[test]
fn patterns() {
    for (pattern, text, want) in [
        ("*", "", true),
        ("qemu-*", "qemu-guest-agent", true),
        ("*agent", "qemu-guest-agent", true),
        ("q*g*t", "qemu-guest-agent", true),
        ("qemu-guest-agen?", "qemu-guest-agent", true),
        ("qemu-guest", "qemu-guest-agent", false),
        ("*x", "qemu", false),
    ] {
        assert_eq!(glob(pattern, text), want, "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn any_text_has_facts(text in "(%?[a-z \"'#\\\\-]{0,12}\n){0,12}") {
        let facts = facts(&text);
        let lines = text.lines().count();
        prop_assert!(facts.commands.iter().all(|fact| fact.line <= lines));
        let _ = (facts.packages(), facts.users(), facts.finish(), facts.services("--enabled"));
    }
}
