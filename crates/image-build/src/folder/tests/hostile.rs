//! Values and folders that somebody else wrote: a value arrives as it is or is refused by name, and no file outside is reached.

use std::os::unix::fs::symlink;
use std::sync::OnceLock;

use proptest::prelude::*;
use proxmox_client::{Cpu, Net};

use super::*;
use crate::kickstart::facts;
use crate::spec::{IsoChecksum, ShellSpec};
use crate::variables::{VARIABLES, VariableKind};

const TEMPLATE: &str = "\
variable \"mine\" {
  type    = string
  default = \"plain\"
}
";

/// A folder whose kickstart has the variable `mine` at each kind of place, quoted and as it is.
fn places(kickstart: &str) -> Folder {
    let template = assets::TEMPLATE_FOLDER
        .iter()
        .find(|asset| asset.path == KICKSTART)
        .map(|asset| asset.text)
        .unwrap();
    Folder::new()
        .write("mine.pkr.hcl", TEMPLATE)
        .write(KICKSTART, &format!("{kickstart}\n{template}"))
}

fn kickstart(loaded: &Loaded) -> String {
    match &loaded.spec.installer.kickstart {
        KickstartSource::Text { text, .. } => text.expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_that_would_become_a_command_is_refused_by_name_and_place() {
    let mut shown = String::new();
    for (line, value) in [
        ("url --url={{ mine }}", "https://m/\nrootpw --plaintext x"),
        ("url --url={{ mine ~ \"/os\" }}", "https://m --noverifyssl"),
        ("url --url=\"{{ mine | word }}\"", "https://m/a b"),
        ("url --url={{ mine | tojson }}", "https://m/?a&b"),
        ("url --url={{ mine | word }}", "https://m/\u{7}"),
        ("# {{ mine }}", "x\u{fdd0}y"),
        ("{% set it %}--url={{ mine }}{% endset %}url {{ it }}", "a b"),
    ] {
        shown.push_str(&places(line).refused(&Inputs::new().var("mine", value)));
        shown.push_str("\n----\n");
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_secret_is_named_and_not_shown() {
    let folder = Folder::new()
        .write(
            "mine.pkr.hcl",
            "variable \"mine\" {\n  type      = string\n  sensitive = true\n  default   = \"canary secret\"\n}\n",
        )
        .write(KICKSTART, "rootpw --plaintext {{ mine }}\n");
    let told = folder.refused(&Inputs::new());
    assert!(
        told.contains("`mine` would not arrive as it is") && !told.contains("canary"),
        "{told}"
    );
}

#[test]
fn the_filter_makes_one_word_of_anything_else() {
    for (value, written) in [
        ("https://m/?a=b&c", "\"https://m/?a=b&c\""),
        ("a \"b\" \\ #", "\"a \\\"b\\\" \\\\ #\""),
        ("it's", "\"it's\""),
        ("", "\"\""),
    ] {
        let loaded = places("url --url={{ mine | word }}")
            .load(&Inputs::new().var("mine", value))
            .unwrap();
        assert!(
            kickstart(&loaded).starts_with(&format!("url --url={written}\n")),
            "{value}"
        );
        if !value.is_empty() {
            let text = kickstart(&loaded);
            assert_eq!(facts(&text).command("url").unwrap().value.option("--url"), Some(value));
        }
    }
}

/// The folder that the property below loads again and again.
fn shared() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| places("# {{ mine }}\nurl --url={{ mine | word }}\nlang {{ mine }}\nkeyboard \"{{ mine }}\""))
}

/// What it becomes without a hostile value.
fn plain() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| shared().load(&token()).unwrap())
}

/// What a value could change that is not its own.
#[derive(Debug, PartialEq)]
struct Skeleton {
    commands: Vec<String>,
    sections: Vec<String>,
    /// Each script with the names of its variables.
    scripts: Vec<(String, Vec<String>)>,
}

fn skeleton(loaded: &Loaded) -> Skeleton {
    let text = kickstart(loaded);
    let read = facts(&text);
    let scripts = loaded
        .spec
        .provisioners
        .iter()
        .filter_map(|provisioner| match provisioner {
            ProvisionerSpec::Shell(ShellSpec { name, env, .. }) => {
                Some((name.clone(), env.iter().map(|(name, _)| name.clone()).collect()))
            }
            ProvisionerSpec::File(_) => None,
        });
    Skeleton {
        commands: read.commands.iter().map(|command| command.value.name.clone()).collect(),
        sections: read.sections.iter().map(|section| section.value.name.clone()).collect(),
        scripts: scripts.collect(),
    }
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "(\\PC|[\n\r\t\\\\\"'#%$`;&=,: -]){0,12}",
        // Near to what is taken, so that it gets past the first look.
        "(vmbr0|host|local|q35|virtio|https://m/|v1\\.29\\.0\\+k3s1|sha256:|32G|5m)[\n,=; '\"\\\\%#a-z0-9]{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Each variable that is a text, and one of the folder's own that its kickstart uses, with any text as its value.
    #[test]
    fn any_text_as_any_variable(value in hostile(), pick in any::<prop::sample::Index>()) {
        let mut names: Vec<&str> = VARIABLES
            .iter()
            .filter(|info| info.kind == VariableKind::Text)
            .map(|info| info.name)
            .collect();
        names.extend(["mine"; 12]);
        let name = names[pick.index(names.len())];
        let plain = plain();
        let loaded = match shared().load(&token().var(name, value.clone())) {
            Ok(loaded) => loaded,
            Err(Error::Invalid(found)) => {
                // By name: the variable's, or that of what uses it.
                prop_assert!(found.iter().count() > 0, "{name}: {value:?}");
                return Ok(());
            }
            // Nothing else may happen, a panic least of all.
            Err(other) => return Err(TestCaseError::fail(format!("{name}: {value:?}: {other}"))),
        };
        let (spec, trimmed) = (&loaded.spec, value.trim());
        if name == "mine" {
            prop_assert_eq!(skeleton(&loaded), skeleton(plain));
            let text = kickstart(&loaded);
            prop_assert_eq!(text.lines().count(), kickstart(plain).lines().count());
            let comment = format!("# {value}");
            prop_assert_eq!(text.lines().next(), Some(comment.as_str()));
            let read = facts(&text);
            if !value.is_empty() {
                prop_assert_eq!(read.command("url").unwrap().value.option("--url"), Some(value.as_str()));
            }
            return Ok(());
        }
        // What the cluster is told is one field of one option, or it is refused here and not half-way through a build.
        for nic in &spec.nics {
            let net = Net::virtio(&nic.bridge);
            let bridge = net.as_ref().ok().and_then(Net::bridge);
            prop_assert_eq!(bridge, Some(nic.bridge.as_str()), "{}: {:?}", name, value);
        }
        let cpu = Cpu::of_type(&spec.hardware.cpu_type);
        prop_assert!(cpu.is_ok(), "{name}: {value:?}");
        let hardware = &spec.hardware;
        for text in [Some(&hardware.scsi_controller), hardware.machine.as_ref(), hardware.vga.as_ref()].into_iter().flatten() {
            prop_assert!(text.chars().all(|c| c.is_ascii_graphic()), "{name}: {value:?}");
        }
        match name {
            "vm_bridge" if !trimmed.is_empty() => prop_assert_eq!(&spec.nics[0].bridge, trimmed),
            "vm_cpu_type" if !trimmed.is_empty() => prop_assert_eq!(&hardware.cpu_type, trimmed),
            "description" if !trimmed.is_empty() => prop_assert_eq!(spec.description.as_deref(), Some(trimmed)),
            "hardening_profile" | "k3s_version" | "k3s_mirror_url" => {
                let env = |loaded: &Loaded| skeleton(loaded).scripts.into_iter().map(|(_, env)| env.len()).max();
                prop_assert!(env(&loaded) >= env(plain));
            }
            "alma_iso_checksum" => prop_assert!(!matches!(
                spec.installer.iso.checksum(),
                Some(IsoChecksum::Listed(list)) if list.scheme() != "https"
            )),
            _ => {}
        }
        prop_assert_eq!(skeleton(&loaded).sections, skeleton(plain).sections);
    }
}

/// Every file that a folder's files can name, each tried with a link and with `..`.
#[test]
fn no_file_outside_is_read() {
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary.txt");
    fs::write(&canary, "canary of another folder\n").unwrap();
    let refused = |folder: &Folder, inputs: &Inputs| {
        let told = match folder.load(inputs) {
            Err(error) => format!("{error} {:?}", error.diagnostics().map(ToString::to_string)),
            Ok(loaded) => panic!("taken: {:?}", loaded.spec),
        };
        assert!(!told.contains("canary of another"), "{told}");
        told
    };
    for file in [
        "http/ks.cfg.j2",
        "scripts/os-update.sh",
        "scripts/seal.sh",
        "variables.pkr.hcl",
        "x.auto.pkrvars.hcl",
    ] {
        let folder = Folder::new();
        let path = folder.0.path().join(file);
        let _ = fs::remove_file(&path);
        symlink(&canary, &path).unwrap();
        let told = refused(&folder, &Inputs::new());
        assert!(told.contains("leads out of the template folder"), "{file}: {told}");
    }
    // A link to the whole of `http/` or `scripts/` is the same.
    for part in ["http", "scripts"] {
        let folder = Folder::new();
        let elsewhere = outside.path().join(part);
        fs::rename(folder.0.path().join(part), &elsewhere).unwrap();
        symlink(&elsewhere, folder.0.path().join(part)).unwrap();
        assert!(
            refused(&folder, &Inputs::new()).contains("leads out of the template folder"),
            "{part}"
        );
    }
    for name in ["../canary.txt", "a/../../canary.txt"] {
        let told = refused(&Folder::new(), &Inputs::new().var("scripts", format!("[\"{name}\"]")));
        assert!(told.contains("leads out of the template folder"), "{name}: {told}");
    }
    // An ISO may lie anywhere, but a link that is called one must lead to one.
    let folder = Folder::new();
    symlink(&canary, folder.0.path().join("x.iso")).unwrap();
    assert!(refused(&folder, &Inputs::new().var("alma_iso_url", "x.iso")).contains("is not named .iso"));
    fs::write(outside.path().join("real.iso"), "iso").unwrap();
    let folder = Folder::new();
    symlink(outside.path().join("real.iso"), folder.0.path().join("y.iso")).unwrap();
    folder
        .load(&token().var("alma_iso_url", "y.iso").var("image_version", ""))
        .unwrap();
}

/// A link within the folder is as good as the file.
#[test]
fn a_link_within_the_folder_is_followed() {
    let folder = Folder::new();
    let scripts = folder.0.path().join("scripts");
    fs::rename(scripts.join("os-update.sh"), scripts.join("update.txt")).unwrap();
    symlink("update.txt", scripts.join("os-update.sh")).unwrap();
    folder.load(&token()).unwrap();
}
