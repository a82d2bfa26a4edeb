//! Tests of rendering: the text itself, and that no value becomes a command.

use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::kickstart::{PostScript, Repo, facts};

#[test]
fn the_presets_text() {
    insta::assert_snapshot!(Kickstart::default().render().unwrap().expose(), @r#"
    # AlmaLinux 9, unattended, for one disk that boots with BIOS and with UEFI.
    text
    url --mirrorlist=https://mirrors.almalinux.org/mirrorlist/9/baseos
    repo --name=AppStream --mirrorlist=https://mirrors.almalinux.org/mirrorlist/9/appstream
    lang en_US.UTF-8
    keyboard --xlayouts=us
    timezone UTC --utc
    eula --agreed
    firstboot --disable
    selinux --enforcing
    firewall --disabled
    network --bootproto=dhcp --device=link --activate --onboot=on

    ignoredisk --only-use=sda
    bootloader --location=mbr --boot-drive=sda --timeout=1 --append="console=tty0 console=ttyS0,115200n8"
    part biosboot --fstype=biosboot --onpart=sda1
    part /boot/efi --fstype=efi --onpart=sda2
    part /boot --fstype=xfs --onpart=sda3
    part / --fstype=xfs --onpart=sda4

    rootpw --lock
    services --enabled=qemu-guest-agent,sshd,chronyd
    reboot --eject

    %pre --erroronfail
    parted -s -a optimal /dev/sda -- mklabel gpt \
      mkpart biosboot 1MiB 2MiB set 1 bios_grub on \
      mkpart esp fat32 2MiB 202MiB set 2 esp on \
      mkpart boot xfs 202MiB 1226MiB \
      mkpart root xfs 1226MiB 100%
    udevadm settle
    %end

    %packages --exclude-weakdeps
    @^minimal-environment
    qemu-guest-agent
    openssh-server
    cloud-init
    cloud-utils-growpart
    chrony
    tar
    grub2-pc
    grub2-pc-modules
    grub2-efi-x64
    shim-x64
    efibootmgr
    -iwl*firmware
    -plymouth
    -dracut-config-rescue
    %end

    %post --erroronfail --log=/var/log/k3simage-post.log
    set -euo pipefail
    boot_uuid=$(findmnt -no UUID /boot)
    if [ -d /sys/firmware/efi ]; then
      grub2-install --target=i386-pc /dev/sda
    else
      cat > /boot/efi/EFI/almalinux/grub.cfg <<STUB
    search --no-floppy --fs-uuid --set=dev $boot_uuid
    set prefix=(\$dev)/grub2
    export \$prefix
    configfile \$prefix/grub.cfg
    STUB
      chmod 0700 /boot/efi/EFI/almalinux/grub.cfg
    fi
    %end
    "#);
}

#[test]
fn a_fixed_address_and_users() {
    let kickstart = Kickstart {
        source: InstallSource::Cdrom,
        repos: Vec::new(),
        network: Network::Static {
            address: [192, 0, 2, 9].into(),
            netmask: [255, 255, 255, 0].into(),
            gateway: [192, 0, 2, 1].into(),
            nameservers: vec![[192, 0, 2, 2].into(), [192, 0, 2, 3].into()],
        },
        users: vec![User {
            name: "ops".into(),
            groups: vec!["wheel".into()],
            password_hash: Some(SecretString::from("$6$salt$hash")),
            keys: vec!["ssh-ed25519 AAAA ops".into()],
        }],
        post: vec![PostScript {
            name: "motd".into(),
            body: "echo hello >/etc/motd".into(),
        }],
        ..Kickstart::default()
    };
    let text = kickstart.render().unwrap();
    for line in [
        "cdrom",
        "network --bootproto=static --device=link --activate --onboot=on --ip=192.0.2.9 --netmask=255.255.255.0 \
         --gateway=192.0.2.1 --nameserver=192.0.2.2,192.0.2.3",
        "user --name=ops --groups=wheel --iscrypted --password=\"$6$salt$hash\"",
        "sshkey --username=ops \"ssh-ed25519 AAAA ops\"",
        "# motd",
        "echo hello >/etc/motd",
    ] {
        assert!(
            text.expose().lines().any(|found| found == line),
            "{line} is not in:\n{}",
            text.expose()
        );
    }
    assert!(!format!("{kickstart:?}").contains("hash$") && !format!("{kickstart:?}").contains("$6$salt"));
}

#[test]
fn values_that_could_command_are_refused_by_name() {
    let base = Kickstart::default;
    let cases: Vec<(Kickstart, &str)> = vec![
        (
            Kickstart {
                lang: "en_US.UTF-8\nrootpw x".into(),
                ..base()
            },
            "lang",
        ),
        (
            Kickstart {
                keyboard: "us' ".into(),
                ..base()
            },
            "keyboard",
        ),
        (
            Kickstart {
                timezone: String::new(),
                ..base()
            },
            "timezone",
        ),
        (
            Kickstart {
                disk: "sda; rm -rf /".into(),
                ..base()
            },
            "disk",
        ),
        (
            Kickstart {
                disk: "../sda".into(),
                ..base()
            },
            "disk",
        ),
        (
            Kickstart {
                source: InstallSource::Url("http://x\n%pre".into()),
                ..base()
            },
            "source",
        ),
        (
            Kickstart {
                kernel_append: vec!["a\"b".into()],
                ..base()
            },
            "kernel_append",
        ),
        (
            Kickstart {
                root_keys: vec!["ssh-ed25519 AAAA\nrootpw x".into()],
                ..base()
            },
            "root_keys",
        ),
        (
            Kickstart {
                root_keys: vec!["command=\"x\" ssh-rsa".into()],
                ..base()
            },
            "root_keys",
        ),
        (
            Kickstart {
                packages: vec!["%end".into()],
                ..base()
            },
            "packages",
        ),
        (
            Kickstart {
                packages: vec!["-kernel".into()],
                ..base()
            },
            "packages",
        ),
        (
            Kickstart {
                excluded_packages: vec!["a b".into()],
                ..base()
            },
            "excluded_packages",
        ),
        (
            Kickstart {
                services_enabled: vec!["a,b".into()],
                ..base()
            },
            "services_enabled",
        ),
        (
            Kickstart {
                services_disabled: vec!["--enabled".into()],
                ..base()
            },
            "services_disabled",
        ),
        (
            Kickstart {
                repos: vec![Repo {
                    name: "a b".into(),
                    source: InstallSource::Url("http://x".into()),
                }],
                ..base()
            },
            "repos",
        ),
        (
            Kickstart {
                repos: vec![Repo {
                    name: "a".into(),
                    source: InstallSource::Cdrom,
                }],
                ..base()
            },
            "repos",
        ),
        (
            Kickstart {
                post: vec![PostScript {
                    name: "x\n%end".into(),
                    body: String::new(),
                }],
                ..base()
            },
            "post",
        ),
        (
            Kickstart {
                post: vec![PostScript {
                    name: "x".into(),
                    body: "a\n  %end\nrootpw x".into(),
                }],
                ..base()
            },
            "post",
        ),
        (
            Kickstart {
                post: vec![PostScript {
                    name: "x".into(),
                    body: "a\r\nb".into(),
                }],
                ..base()
            },
            "post",
        ),
    ];
    for (kickstart, field) in cases {
        let error = kickstart.render().expect_err(field);
        assert_eq!(error.field(), field, "{error}");
    }
    let plain = User {
        name: "a".into(),
        groups: vec![],
        password_hash: Some("geheim".to_owned().into()),
        keys: vec![],
    };
    let error = Kickstart {
        users: vec![plain],
        ..base()
    }
    .render()
    .unwrap_err()
    .to_string();
    assert!(error.contains("crypt(3)") && !error.contains("geheim"), "{error}");
}

/// What the reader sees beside the value that was put in.
fn skeleton(text: &str) -> (Vec<String>, Vec<String>) {
    let facts = facts(text);
    let commands = facts.commands.iter().map(|fact| fact.value.name.clone()).collect();
    let sections = facts.sections.iter().map(|fact| fact.value.name.clone()).collect();
    (commands, sections)
}

proptest! {
    #[test]
    fn any_text_arrives_as_data_or_is_refused(value in "(\\PC|[\n\r\t\\\\\"'#%$`;& -]|%end|%include ){0,12}", field in 0_usize..9) {
        let mut kickstart = Kickstart { services_disabled: vec!["kdump".into()], ..Kickstart::default() };
        let plain = skeleton(kickstart.render().unwrap().expose());
        match field {
            0 => kickstart.lang.clone_from(&value),
            1 => kickstart.source = InstallSource::Mirrorlist(value.clone()),
            2 => kickstart.kernel_append = vec![value.clone()],
            3 => kickstart.packages[1].clone_from(&value),
            4 => kickstart.services_enabled[0].clone_from(&value),
            5 => kickstart.repos[0].source = InstallSource::Url(value.clone()),
            6 => kickstart.repos[0].name.clone_from(&value),
            7 => kickstart.timezone.clone_from(&value),
            _ => kickstart.disk.clone_from(&value),
        }
        if let Ok(text) = kickstart.render() {
            prop_assert_eq!(skeleton(text.expose()), plain);
            let facts = facts(text.expose());
            let arrived = match field {
                1 => facts.command("url").unwrap().value.option("--mirrorlist").map(str::to_owned),
                2 => facts.command("bootloader").unwrap().value.option("--append").map(str::to_owned),
                5 => facts.command("repo").unwrap().value.option("--baseurl").map(str::to_owned),
                _ => Some(value.clone()),
            };
            prop_assert_eq!(arrived, Some(value));
        }
    }

    #[test]
    fn a_script_stays_within_its_section(body in "(\\PC|\n|\t|%end|%post|%include /x| ){0,20}") {
        let mut kickstart = Kickstart::default();
        let (commands, _) = skeleton(kickstart.render().unwrap().expose());
        kickstart.post = vec![PostScript { name: "x".into(), body: body.clone() }];
        if let Ok(text) = kickstart.render() {
            let facts = facts(text.expose());
            let sections: Vec<&str> = facts.sections.iter().map(|fact| fact.value.name.as_str()).collect();
            prop_assert_eq!(sections, ["pre", "packages", "post", "post"]);
            prop_assert_eq!(skeleton(text.expose()).0, commands);
            prop_assert!(facts.includes.is_empty());
        }
    }
}
