//! Tests of the boot command language.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn values() -> BootValues {
    BootValues {
        http_ip: Some("10.0.0.1".into()),
        http_port: Some("8080/x7".into()),
        name: Some("vm-1".into()),
    }
}

fn typed(text: &str) -> Vec<String> {
    let command: BootCommand = text.parse().expect(text);
    assert_eq!(command.to_string(), text);
    command
        .expand(&values())
        .expect(text)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn words_and_characters() {
    for (text, want) in [
        ("<up><enter>", &["up", "ret"][..]),
        (
            "<ENTER><Return><spaceBar><bs><del><pageUp>",
            &["ret", "ret", "spc", "backspace", "delete", "pgup"],
        ),
        (
            "<f1><f10><f12><home><insert><menu>",
            &["f1", "f10", "f12", "home", "insert", "menu"],
        ),
        ("aZ1", &["a", "shift-z", "1"]),
        ("-_ /~", &["minus", "shift-minus", "spc", "slash", "shift-grave_accent"]),
        (
            "<wait><wait5><wait1m30s><wait500ms>",
            &["wait 1s", "wait 5s", "wait 90s", "wait 500ms"],
        ),
        ("<leftCtrlOn>x<leftCtrlOff>y", &["ctrl-x", "y"]),
        (
            "<leftCtrlOn><leftAltOn><del><leftAltOff><leftCtrlOff>",
            &["ctrl-alt-delete"],
        ),
        ("<leftShiftOn>aB<leftShiftOff>", &["shift-a", "shift-b"]),
        ("<leftShiftOn><leftShiftOff><leftAlt>", &["shift", "alt"]),
        ("<rightCtrlOn>c<wait2><rightCtrlOff>", &["ctrl_r-c", "wait 2s"]),
        ("{{ .Name }}", &["v", "m", "minus", "1"]),
        ("{{.HTTPIP}}", &["1", "0", "dot", "0", "dot", "0", "dot", "1"]),
        ("{{- .HTTPPort -}}", &["8", "0", "8", "0", "slash", "x", "7"]),
        ("a<b", &["a", "shift-comma", "b"]),
        ("<a b>", &["shift-comma", "a", "spc", "b", "shift-dot"]),
        ("<>{", &["shift-comma", "shift-dot", "shift-bracket_left"]),
        ("", &[]),
    ] {
        assert_eq!(typed(text), want, "{text}");
    }
}

#[test]
fn lines_are_joined_without_a_break() {
    let command = BootCommand::from_lines(&["<t", "ab>x"]).unwrap();
    assert_eq!(command.as_str(), "<tab>x");
    assert!(BootCommand::from_lines::<&str>(&[]).unwrap().is_empty());
}

#[test]
fn what_cannot_be_typed_says_where() {
    for (text, range, reason, help) in [
        ("<up><wiat5>", 4..11, "`<wiat5>` is no key", "<wait>"),
        ("<entr>", 0..6, "is no key", "<enter>"),
        ("<xyzzy>", 0..7, "is no key", "keys are"),
        ("ab<aOn>", 2..7, "only modifiers can be held", "presses and releases"),
        ("<tabOn>", 0..7, "only modifiers can be held", "presses and releases"),
        ("<wait5x>", 0..8, "is no wait", "<wait1m30s>"),
        ("<wait2h>", 0..8, "longer than an hour", "<wait5>"),
        ("<wait99999999999999999999>", 0..26, "too large", "<wait5>"),
        ("x{{ .HTTPIP", 1..11, "not closed", ""),
        ("{{ .SSHPublicKey }}", 0..19, "no value of boot commands", ".HTTPPort"),
        ("caf\u{e9}", 0..5, "US keyboard", "ASCII"),
        ("a\nb", 0..3, "US keyboard", "<enter>"),
    ] {
        let error = text.parse::<BootCommand>().expect_err(text);
        assert_eq!(error.range(), range, "{text}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert!(error.help().unwrap_or_default().contains(help), "{text}: {error:?}");
    }
}

#[test]
fn a_value_that_is_missing_is_an_error() {
    let command: BootCommand = "<tab>{{ .HTTPIP }}".parse().unwrap();
    assert!(command.uses(BootVariable::HttpIp) && !command.uses(BootVariable::Name));
    let error = command.expand(&BootValues::default()).unwrap_err();
    assert!(error.to_string().contains("{{ .HTTPIP }}") && error.help().unwrap().contains("kickstart_delivery"));
    let odd = BootValues {
        http_ip: Some("\u{e9}".into()),
        ..values()
    };
    assert!(command.expand(&odd).is_err());
}

/// Key codes that QEMU's monitor knows, of those that a US keyboard needs.
///
/// # Source
/// `QKeyCode` of QEMU, lower case; `traces/sendkey.json` shows what it refuses: upper case, `-`, unknown words.
fn known_codes() -> BTreeSet<&'static str> {
    let words = "shift shift_r alt alt_r ctrl ctrl_r meta_l meta_r menu esc minus equal backspace tab bracket_left \
         bracket_right ret semicolon apostrophe grave_accent backslash comma dot slash spc home pgup pgdn end left up \
         down right insert delete f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 a b c d e f g h i j k l m n o p q r s t u v w x y z \
         0 1 2 3 4 5 6 7 8 9";
    words.split_whitespace().collect()
}

#[test]
fn every_ascii_character_and_every_word_has_a_code_that_qemu_knows() {
    let known = known_codes();
    let printable: String = (' '..='~').filter(|c| *c != '{').collect();
    let mut keys = typed(&printable.replace('<', "< "));
    for (name, _) in keys::SPECIALS.iter().chain(keys::MODIFIERS) {
        keys.extend(typed(&format!("<{name}>")));
    }
    assert!(keys.len() > 120);
    for key in keys {
        assert!(key.split('-').all(|code| known.contains(code)), "{key}");
    }
}

proptest! {
    #[test]
    fn any_text_is_typed_or_refused(text in "(<[a-zA-Z0-9]{0,9}>|[ -~]{0,6}|\\{\\{ ?\\.?[A-Za-z]{0,8} ?\\}\\}|\\PC){0,6}") {
        match text.parse::<BootCommand>() {
            Ok(command) => {
                prop_assert_eq!(command.as_str(), &text);
                let known = known_codes();
                for action in command.expand(&values()).unwrap() {
                    if let BootAction::Key(key) = action {
                        prop_assert!(key.as_str().split('-').all(|code| known.contains(code)), "{}", key);
                    }
                }
            }
            Err(error) => prop_assert!(text.get(error.range()).is_some(), "{:?}", error.range()),
        }
    }
}
