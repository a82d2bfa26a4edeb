//! Writes kickstarts as the library renders them into a folder, for `ksvalidator`: the preset's, one with every field
//! set to something hostile or unusual, and the seed folder's own; each with the block that a build appends.
//!
//! With a file of texts, a JSON list, also a kickstart for each of them and each place: `template-N.ks.cfg` from a folder's
//! template, `model-N.ks.cfg` from the library's model. One that refuses its text is not written.
//!
//! `cargo run -p k3simage-image-build --example render_kickstart -- FOLDER [TEXTS.json]`

use std::path::PathBuf;

use anyhow::Context as _;
use image_build::kickstart::{
    BuildBlock, HostKey, InstallSource, Kickstart, KickstartText, Network, PostScript, Repo, User,
};
use image_build::spec::KickstartSource;
use image_build::{Inputs, TemplateFolder};
use secrecy::SecretString;

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("give a folder to write to")?.into();
    std::fs::create_dir_all(&folder)?;
    let block = BuildBlock {
        username: "root".to_owned(),
        login_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample one-build".to_owned(),
        host_key: HostKey {
            private: SecretString::from(
                "-----BEGIN OPENSSH PRIVATE KEY-----\nnot a key\n-----END OPENSSH PRIVATE KEY-----\n",
            ),
            public: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample host".to_owned(),
        },
        open_agent: true,
        serial: true,
    };
    for (name, text) in [
        ("preset.ks.cfg", Kickstart::default().render()?),
        ("unusual.ks.cfg", unusual().render()?),
        ("folder.ks.cfg", folder_kickstart()?),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text.with_build_block(&block)?.expose()).with_context(|| path.display().to_string())?;
    }
    let Some(texts) = std::env::args_os().nth(2) else {
        return Ok(());
    };
    let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(texts)?)?;
    for (number, text) in texts.iter().enumerate() {
        let rendered = [
            ("template", folder_with(text)?),
            ("model", model_with(text).render().ok()),
        ];
        for (kind, kickstart) in rendered {
            if let Some(kickstart) = kickstart {
                let path = folder.join(format!("{kind}-{number}.ks.cfg"));
                std::fs::write(&path, kickstart.expose()).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// The library's kickstart template in a folder, with this text as two of its values; `None` when the folder refuses it.
fn folder_with(text: &str) -> anyhow::Result<Option<KickstartText>> {
    let folder = std::env::temp_dir().join(format!("render-kickstart-text-{}", std::process::id()));
    image_build::assets::init(&folder)?;
    let template = image_build::assets::KICKSTART_TEMPLATE;
    std::fs::write(folder.join(template.path), template.text)?;
    std::fs::write(
        folder.join("ks.pkr.hcl"),
        "variable \"ks_timezone\" {\n  type = string\n}\n",
    )?;
    let inputs = Inputs::new().var("ks_timezone", text).var("alma_mirror_url", text);
    let loaded = TemplateFolder::load(&folder, &inputs);
    std::fs::remove_dir_all(&folder)?;
    Ok(match loaded {
        Ok(loaded) => match loaded.spec.installer.kickstart {
            KickstartSource::Text { text, .. } => Some(text),
            _ => anyhow::bail!("the folder's kickstart is no text"),
        },
        Err(image_build::Error::Invalid(_)) => None,
        Err(error) => return Err(error.into()),
    })
}

fn model_with(text: &str) -> Kickstart {
    Kickstart {
        source: InstallSource::Url(text.to_owned()),
        kernel_append: vec![text.to_owned()],
        root_keys: vec![format!("ssh-ed25519 AAAA {text}")],
        ..Kickstart::default()
    }
}

/// What a folder's own kickstart becomes, as a build reads it.
fn folder_kickstart() -> anyhow::Result<KickstartText> {
    let folder = std::env::temp_dir().join(format!("render-kickstart-{}", std::process::id()));
    image_build::assets::init(&folder)?;
    let loaded = TemplateFolder::load(&folder, &Inputs::new());
    std::fs::remove_dir_all(&folder)?;
    match loaded?.spec.installer.kickstart {
        KickstartSource::Text { text, .. } => Ok(text),
        _ => anyhow::bail!("the folder's kickstart is no text"),
    }
}

fn unusual() -> Kickstart {
    Kickstart {
        source: InstallSource::Url("https://mirror.example.com/alma linux/9/?a=b&c=\"d\"".to_owned()),
        repos: vec![Repo {
            name: "AppStream".to_owned(),
            source: InstallSource::Mirrorlist("https://example.com/%20".to_owned()),
        }],
        network: Network::Static {
            address: [192, 0, 2, 9].into(),
            netmask: [255, 255, 255, 0].into(),
            gateway: [192, 0, 2, 1].into(),
            nameservers: vec![[192, 0, 2, 2].into(), [192, 0, 2, 3].into()],
        },
        disk: "vda".to_owned(),
        kernel_append: vec!["quiet".to_owned(), "it's=#1\\".to_owned()],
        root_keys: vec!["ssh-ed25519 AAAA it's \"me\" #1 $(id) \\".to_owned()],
        users: vec![User {
            name: "ops".to_owned(),
            groups: vec!["wheel".to_owned(), "adm".to_owned()],
            password_hash: Some(SecretString::from("$6$salt$hash")),
            keys: vec!["ssh-rsa AAAA ops@example".to_owned()],
        }],
        services_disabled: vec!["kdump".to_owned()],
        firewall: true,
        post: vec![PostScript {
            name: "note; it's \"mine\"".to_owned(),
            body: "echo '100%' \"$HOME\" | cat\n".to_owned(),
        }],
        ..Kickstart::default()
    }
}
