//! Tests of the boot command language.

use super::*;

fn typed(text: &str) -> Vec<String> {
    let values = BootValues {
        http_ip: Some("10.0.0.1".into()),
        http_port: Some("8080".into()),
        name: Some("vm-1".into()),
    };
    let command: BootCommand = text.parse().expect(text);
    assert_eq!(command.to_string(), text);
    command
        .expand(&values)
        .expect(text)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn words_and_characters() {
    for (text, want) in [
        ("<up><enter>", &["up", "ret"][..]),
        ("aZ1", &["a", "shift-z", "1"]),
        ("-_ /~", &["minus", "shift-minus", "spc", "slash", "shift-grave_accent"]),
        (
            "<wait><wait5><wait1m30s><wait500ms>",
            &["wait 1s", "wait 5s", "wait 90s", "wait 500ms"],
        ),
    ] {
        assert_eq!(typed(text), want, "{text}");
    }
}
