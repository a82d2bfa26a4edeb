//! Keys in, kernel line out.

use super::*;
use crate::engine::simulated::keys;

fn medium() -> Medium {
    Medium::from_label("ide2", "AlmaLinux-9-4-x86_64-dvd").unwrap()
}

/// Types words: `<name>` is a key by name, everything else is typed character by character.
fn type_into(menu: &mut Menu, text: &str) -> Option<Choice> {
    let mut rest = text;
    while !rest.is_empty() {
        let key = if let Some(inner) = rest.strip_prefix('<') {
            let end = inner.find('>').unwrap();
            rest = &inner[end + 1..];
            keys::parse(&inner[..end]).unwrap()
        } else {
            let c = rest.chars().next().unwrap();
            rest = &rest[c.len_utf8()..];
            Key::Char(c)
        };
        if let Some(choice) = menu.key(key) {
            assert_eq!(rest, "", "keys left after the choice");
            return Some(choice);
        }
    }
    None
}

const STAGE2: &str = "inst.stage2=hd:LABEL=AlmaLinux-9-4-x86_64-dvd";

#[test]
fn typed_keys_make_the_kernel_line() {
    for (firmware, typed, arguments) in [
        (Firmware::SeaBios, "<up><ret>", format!("{STAGE2} quiet")),
        (Firmware::Ovmf, "<up><ret>", format!("{STAGE2} quiet")),
        (Firmware::SeaBios, "<ret>", format!("{STAGE2} rd.live.check quiet")),
        (
            Firmware::SeaBios,
            "<up><tab> inst.text inst.ks=http://h/k<ret>",
            format!("{STAGE2} quiet inst.text inst.ks=http://h/k"),
        ),
        (
            Firmware::SeaBios,
            "<tab> abd<left><backspace>bc<ret>",
            format!("{STAGE2} rd.live.check quiet abcd"),
        ),
        (
            Firmware::SeaBios,
            "<esc>linux inst.text<ret>",
            format!("{STAGE2} quiet inst.text"),
        ),
        (
            Firmware::SeaBios,
            "<esc>nope x<ret>linux<ret>",
            format!("{STAGE2} quiet"),
        ),
        (Firmware::SeaBios, "i<ret>", format!("{STAGE2} quiet")),
        (
            Firmware::SeaBios,
            "<down><ret><ret>",
            format!("{STAGE2} nomodeset quiet"),
        ),
        (
            Firmware::Ovmf,
            "<up>e<down><down><end> inst.ks=http://h/k<ctrl-x>",
            format!("{STAGE2} quiet inst.ks=http://h/k"),
        ),
        (
            Firmware::Ovmf,
            "e<down><down><end><ctrl-w>loud<f10>",
            format!("{STAGE2} rd.live.check loud"),
        ),
        (
            Firmware::Ovmf,
            "clinuxefi /images/pxeboot/vmlinuz a=b<ret>initrdefi /images/pxeboot/initrd.img<ret>boot<ret>",
            "a=b".to_owned(),
        ),
    ] {
        let mut menu = Menu::new(firmware, &medium());
        let choice = type_into(&mut menu, typed);
        assert_eq!(
            choice,
            Some(Choice::Kernel {
                arguments,
                initrd: true
            }),
            "{firmware:?} {typed}"
        );
    }
}

#[test]
fn keys_of_the_other_boot_loader_do_not_boot() {
    let mut menu = Menu::new(Firmware::Ovmf, &medium());
    assert_eq!(type_into(&mut menu, "<tab> inst.ks=http://h/k"), None);
    let mut menu = Menu::new(Firmware::SeaBios, &medium());
    assert_eq!(type_into(&mut menu, "e<down><down><end> quiet<ctrl-x>"), None);
}

#[test]
fn grub_complains() {
    let mut menu = Menu::new(Firmware::Ovmf, &medium());
    assert_eq!(type_into(&mut menu, "cboot<ret>foo<ret>linux /x<ret>"), None);
    let screen = menu.screen().join("\n");
    for complaint in [
        "you need to load the kernel first",
        "can't find command `foo'",
        "file `/x' not found",
    ] {
        assert!(screen.contains(complaint), "{screen}");
    }
    let mut menu = Menu::new(Firmware::Ovmf, &medium());
    assert_eq!(type_into(&mut menu, "e<down><down><ctrl-k><ctrl-x>"), None);
    assert!(menu.screen()[0].contains("you need to load the kernel first"));
}

#[test]
fn a_kernel_without_initrd_is_seen() {
    let mut menu = Menu::new(Firmware::Ovmf, &medium());
    let choice = type_into(&mut menu, "clinux /images/pxeboot/vmlinuz a<ret>boot<ret>");
    assert_eq!(
        choice,
        Some(Choice::Kernel {
            arguments: "a".into(),
            initrd: false
        })
    );
    let mut menu = Menu::new(Firmware::SeaBios, &medium());
    let choice = type_into(&mut menu, "<esc>vmlinuz a<ret>");
    assert_eq!(
        choice,
        Some(Choice::Kernel {
            arguments: "a".into(),
            initrd: false
        })
    );
}

#[test]
fn local_disk_and_reset() {
    let mut menu = Menu::new(Firmware::SeaBios, &medium());
    assert_eq!(type_into(&mut menu, "t<ret>l<ret>"), Some(Choice::LocalDisk));
    let mut menu = Menu::new(Firmware::Ovmf, &medium());
    assert_eq!(type_into(&mut menu, "<ctrl-alt-delete>"), Some(Choice::Reset));
    let Choice::Kernel { arguments, .. } = Menu::default_choice(&medium()) else {
        panic!()
    };
    assert_eq!(arguments, format!("{STAGE2} rd.live.check quiet"));
}

#[test]
fn editing_never_panics() {
    let pool = [
        Key::Char('x'),
        Key::Enter,
        Key::Backspace,
        Key::Delete,
        Key::Up,
        Key::Down,
        Key::Left,
        Key::Right,
        Key::Home,
        Key::End,
        Key::Ctrl('w'),
        Key::Ctrl('k'),
        Key::Ctrl('u'),
        Key::Escape,
        Key::Tab,
        Key::Char('e'),
        Key::Char('c'),
    ];
    let mut seed = 7_usize;
    for firmware in [Firmware::SeaBios, Firmware::Ovmf] {
        let mut menu = Menu::new(firmware, &medium());
        for _ in 0..5000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if menu.key(pool[(seed >> 33) % pool.len()]).is_some() {
                menu = Menu::new(firmware, &medium());
            }
            menu.screen();
        }
    }
}
