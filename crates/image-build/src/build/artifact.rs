//! What a build leaves behind, and the manifest that says so in Packer's shape.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, whole_file};

/// A finished template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Name of the template.
    pub name: String,
    /// Its VM id.
    pub vmid: u32,
    /// Node that holds it.
    pub node: String,
    /// Short id of the build.
    pub build_id: String,
    /// UUID of the run, as Packer's manifest has one.
    pub run_uuid: String,
    /// SHA-256 over what the image was asked to be; equal inputs give equal hashes.
    pub spec_hash: String,
    /// k3s version inside, when the image carries one.
    pub k3s_version: Option<String>,
    /// Version of the Proxmox VE that built it.
    pub pve_version: String,
    /// When it was finished.
    pub finished: Timestamp,
    /// Tags on the template.
    pub tags: Vec<String>,
    /// Each step with its seconds.
    pub timings: Vec<StepTiming>,
    /// How many API requests the build sent.
    pub api_requests: u64,
    /// The template that it took the place of, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// What the caller added by [`Build::custom_data`](super::Build::custom_data).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_data: BTreeMap<String, String>,
}

/// A template that another one has taken the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its VM id: the one that it has now, when it was moved because the new one has its own.
    pub vmid: u32,
    /// The name under which it is kept; `None` when it is gone.
    pub kept_as: Option<String>,
}

/// How long a step took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// Name of the step.
    pub step: String,
    /// Seconds that it took.
    pub seconds: f64,
}

/// `builder_type` of our entries: what Packer's builder for the same job calls itself, since tools filter by it.
const BUILDER_TYPE: &str = "proxmox-iso";

impl Artifact {
    /// The entry of the manifest's `builds`: Packer's fields first, ours under `k3simage`.
    pub fn manifest_entry(&self) -> Value {
        // Our own fields stand above the caller's of the same name: tools rely on what they mean.
        let mut custom: BTreeMap<&str, String> = self
            .custom_data
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        custom.extend([
            ("build_id", self.build_id.clone()),
            ("image", self.name.clone()),
            ("node", self.node.clone()),
            ("spec_hash", self.spec_hash.clone()),
            ("vmid", self.vmid.to_string()),
        ]);
        if let Some(k3s_version) = &self.k3s_version {
            custom.insert("k3s_version", k3s_version.clone());
        }
        json!({
            "name": self.name,
            "builder_type": BUILDER_TYPE,
            "build_time": self.finished.as_second(),
            "files": null,
            "artifact_id": self.vmid.to_string(),
            "packer_run_uuid": self.run_uuid,
            "custom_data": custom,
            "k3simage": self,
        })
    }

    /// Adds the build to the manifest at `path`, as Packer does: entries of former runs stay, `last_run_uuid` is ours.
    ///
    /// The file is replaced in one step, so that a reader sees the old or the new one. Of several who write at once, in whatever process,
    /// each waits for the one before it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written, [`Error::Invalid`] when the file that is there is no manifest.
    pub fn write_manifest(&self, path: &Path) -> Result<(), Error> {
        let failed = |attempt: &'static str| {
            move |source: std::io::Error| Error::Io {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        let folder = whole_file::folder_of(path);
        std::fs::create_dir_all(folder).map_err(failed("creating the folder of"))?;
        // The file gives way to another one, so its folder is what is locked; until this is dropped.
        let _lock = whole_file::lock(folder).map_err(failed("locking the folder of"))?;
        let mut manifest = read_manifest(path)?;
        manifest.builds.push(self.manifest_entry());
        manifest.last_run_uuid.clone_from(&self.run_uuid);
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(std::io::Error::other)
            .map_err(failed("encoding"))?;
        text.push('\n');
        // It holds no secret, and other tools read it.
        whole_file::write(path, text.as_bytes(), 0o644).map_err(failed("writing"))
    }
}

/// The manifest file: what we know of it, and the rest untouched.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    builds: Vec<Value>,
    last_run_uuid: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Whether a manifest could be added to at `path`: asked before a build, so that half an hour later nothing fails on it.
pub(crate) fn check_manifest(path: &Path) -> Result<(), Error> {
    read_manifest(path)?;
    whole_file::check(path).map_err(unwritable(path))
}

fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io {
        attempt: "writing",
        path: path.to_owned(),
        source,
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, Error> {
    // Before it is read: a device may have no end.
    whole_file::replaceable(path).map_err(unwritable(path))?;
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(Manifest::default()),
        Ok(text) => serde_json::from_str(&text).map_err(|error| {
            Error::unusable(
                "manifest",
                &format!("{} is no manifest: {error}", path.display()),
                "move it away or name another file",
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(source) => Err(Error::Io {
            attempt: "reading",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(vmid: u32, uuid: &str) -> Artifact {
        Artifact {
            name: "alma9-k3-node-amd64-v1.29.0-v1".to_owned(),
            vmid,
            node: "pve".to_owned(),
            build_id: "7f3a".to_owned(),
            run_uuid: uuid.to_owned(),
            spec_hash: "ab".repeat(32),
            k3s_version: Some("v1.29.0+k3s1".to_owned()),
            pve_version: "9.2.11".to_owned(),
            finished: Timestamp::from_second(1_700_000_000).unwrap(),
            tags: vec!["k3simage".to_owned()],
            timings: vec![StepTiming {
                step: "install".to_owned(),
                seconds: 1.5,
            }],
            api_requests: 42,
            replaced: None,
            custom_data: BTreeMap::from([
                ("simulated".to_owned(), "true".to_owned()),
                ("vmid".to_owned(), "not this one".to_owned()),
            ]),
        }
    }

    #[test]
    fn manifest_has_packers_shape_and_keeps_former_builds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/manifest.json");
        check_manifest(&path).unwrap();
        artifact(9000, "first").write_manifest(&path).unwrap();
        artifact(9001, "second").write_manifest(&path).unwrap();
        let manifest: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(manifest["last_run_uuid"], "second");
        let ids: Vec<&str> = manifest["builds"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["artifact_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["9000", "9001"]);
        let first = &manifest["builds"][0];
        assert_eq!(first["name"], "alma9-k3-node-amd64-v1.29.0-v1");
        assert_eq!(first["builder_type"], "proxmox-iso");
        assert_eq!(first["build_time"], 1_700_000_000);
        assert_eq!(first["files"], Value::Null);
        assert_eq!(first["packer_run_uuid"], "first");
        assert_eq!(first["custom_data"]["k3s_version"], "v1.29.0+k3s1");
        assert_eq!(first["custom_data"]["simulated"], "true");
        assert_eq!(first["custom_data"]["vmid"], "9000", "a caller cannot overwrite ours");
        assert_eq!(first["k3simage"]["timings"][0]["step"], "install");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn of_many_that_write_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for turn in 0..8 {
                        artifact(9000 + writer * 8 + turn, "x").write_manifest(path).unwrap();
                    }
                });
            }
        });
        let manifest: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(manifest["builds"].as_array().unwrap().len(), 64);
    }

    #[test]
    fn what_others_wrote_into_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        std::fs::write(
            &path,
            r#"{"builds":[{"name":"x","odd":1}],"last_run_uuid":"a","extra":true}"#,
        )
        .unwrap();
        artifact(9000, "b").write_manifest(&path).unwrap();
        let manifest: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            (&manifest["builds"][0]["odd"], &manifest["extra"]),
            (&1.into(), &true.into())
        );
    }

    #[test]
    fn another_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not json").unwrap();
        let error = check_manifest(&path).unwrap_err();
        assert!(error.to_string().contains("notes.txt is no manifest"), "{error}");
        artifact(1, "x").write_manifest(&path).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not json");
    }
}
