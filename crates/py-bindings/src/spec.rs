//! `ImageSpec`: what to build, frozen; and the keyword arguments that describe it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use image_build::kickstart::KickstartText;
use image_build::spec::{IsoSource, KickstartSource};
use image_build::{Diagnostic, Diagnostics, Error as ImageError, ImageSpec as Spec, ImageSpecBuilder, K3sVersion};
use proxmox_client::MiB;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyType};
use serde_json::Value;

use crate::errors::{Failure, invalid_input};
use crate::folder::FolderInputs;
use crate::json::Json;
use crate::seconds::Seconds;

/// What to build: one template on one node. Made from keyword arguments or a template folder, checked as a whole.
///
/// What is not said is the preset's: a k3s image on AlmaLinux 9 with the embedded kickstart and scripts.
///
/// Args:
///     k3s_version: The k3s release inside, such as "v1.31.3+k3s1".
///     node: The node to build on.
///     k3s_role: What a clone becomes that is told nothing: "server", "agent" or "none".
///     k3s_mirror_url: Where the release files of k3s come from.
///     hardening_oscap: Run OpenSCAP in the guest and keep its report.
///     name: The template's name; without it the next free iteration of the image's name.
///     description: Text put in front of the description that the build writes.
///     tags: Tags beside the build's own.
///     vmid: The VM id; without it the next free one.
///     pool: The pool to put the VM into.
///     cores: Cores of the VM.
///     memory_mib: Memory of the VM.
///     cpu_type: CPU type; AlmaLinux 9 needs x86-64-v2.
///     bios: "seabios" or "ovmf".
///     storage: Storage of the system disk and the cloud-init drive.
///     disk_gib: Size of the system disk.
///     bridge: The bridge of the network device.
///     iso: The installer: a volid, an https URL or a local file.
///     iso_checksum: Its checksum, "sha256:...", or "file:" and the address or path of a list of them; without it, an https
///         URL is looked up in the CHECKSUM file beside it; "none" leaves it unchecked.
///     iso_storage: Storage for uploaded and downloaded ISOs.
///     kickstart: A kickstart file to use in place of the embedded one.
///     boot_command: Keys to type in the ISO's menu, in Packer's language.
///     boot_wait: A fixed time before typing.
///     boot_key_interval: The pause after each key, 0.1 s by default.
///     communicator: "auto", "ssh" or "agent".
///     ssh_username: The user for SSH.
///     ssh_password: A password for SSH, for a kickstart that sets one.
///     ssh_host: Address of the guest, instead of asking its agent.
///     ssh_port: The guest's SSH port.
///     ssh_timeout: How long SSH may take to answer after the first boot.
///     on_error: "cleanup" or "keep".
#[pyclass(frozen, module = "k3simage")]
#[derive(Debug)]
pub(crate) struct ImageSpec {
    spec: Spec,
    fields: Value,
}

impl ImageSpec {
    pub(crate) fn new(spec: Spec) -> PyResult<Self> {
        let fields = serde_json::to_value(&spec).map_err(|cause| invalid_input(&format!("internal error: {cause}")))?;
        Ok(Self { spec, fields })
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }
}

#[pymethods]
impl ImageSpec {
    #[new]
    #[pyo3(signature = (**fields))]
    fn py_new(fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Self::new(from_keywords(fields)?)
    }

    /// Reads a template folder. Variables are merged in Packer's order; `variables` and `var_files` stand last.
    #[classmethod]
    #[pyo3(
        signature = (folder, *, variables=None, var_files=Vec::new()),
        text_signature = "($cls, folder, *, variables=None, var_files=())"
    )]
    fn from_folder(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        folder: PathBuf,
        variables: Option<&Bound<'_, PyMapping>>,
        var_files: Vec<PathBuf>,
    ) -> PyResult<Self> {
        let inputs = FolderInputs::read(folder, variables, var_files)?;
        Self::new(py.detach(|| inputs.load())?.spec)
    }

    /// The template's name, or the first that will be tried.
    #[getter]
    fn name(&self) -> String {
        self.spec.name.to_string()
    }

    /// The node to build on.
    #[getter]
    fn node(&self) -> String {
        self.spec.node.to_string()
    }

    /// The VM id, if one is fixed.
    #[getter]
    fn vmid(&self) -> Option<u32> {
        self.spec.vmid.map(proxmox_client::Vmid::get)
    }

    /// The k3s release inside.
    #[getter]
    fn k3s_version(&self) -> Option<String> {
        self.spec.k3s.as_ref().map(|k3s| k3s.version.to_string())
    }

    /// The template's tags beside the build's own.
    #[getter]
    fn tags(&self) -> Vec<String> {
        self.spec.tags.clone()
    }

    /// SHA-256 over everything that decides what is built: equal inputs give equal hashes.
    #[getter]
    fn content_hash(&self) -> String {
        self.spec.content_hash()
    }

    /// All fields but the secrets.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Json(self.fields.clone()).into_pyobject(py)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Self>()
            .is_ok_and(|other| other.get().fields == self.fields)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.spec.content_hash().into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.ImageSpec {} on {}>", self.spec.name, self.spec.node)
    }
}

/// The spec that keyword arguments describe. All that is wrong with them is told at once.
pub(crate) fn from_keywords(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Spec> {
    let mut fields = Fields::default();
    let mut builder = Spec::builder();
    for (name, value) in keywords.into_iter().flatten() {
        let name: String = name.extract()?;
        if !value.is_none() {
            builder = fields
                .set(builder, &name, &value)
                .map_err(|error| named(&name, error, value.py()))?;
        }
    }
    if let Some(iso) = fields.iso() {
        builder = builder.iso(iso);
    }
    let mut problems = fields.problems;
    match builder.build() {
        Ok(spec) if problems.is_empty() => return Ok(spec),
        Ok(_) => {}
        Err(ImageError::Invalid(found)) => problems.append(found),
        Err(error) => return Err(Failure::from(error).into()),
    }
    Err(Failure::from(ImageError::Invalid(problems)).into())
}

/// A wrong type says which argument it was.
fn named(name: &str, error: PyErr, py: Python<'_>) -> PyErr {
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(format!("{name}: {}", error.value(py)))
    } else {
        error
    }
}

/// What the keyword arguments have said so far beside what the builder holds.
#[derive(Debug, Default)]
struct Fields {
    iso: Option<String>,
    iso_checksum: Option<String>,
    problems: Diagnostics,
}

impl Fields {
    /// Hands a text to `then` as the type that reads it; notes what is wrong with it otherwise.
    fn word<T: FromStr<Err: ToString>>(
        &mut self,
        builder: ImageSpecBuilder,
        name: &str,
        value: &Bound<'_, PyAny>,
        then: impl FnOnce(ImageSpecBuilder, T) -> ImageSpecBuilder,
    ) -> PyResult<ImageSpecBuilder> {
        let text: String = value.extract()?;
        match text.parse() {
            Ok(parsed) => Ok(then(builder, parsed)),
            Err(error) => {
                self.problems.push(Diagnostic::error(name, error.to_string()));
                Ok(builder)
            }
        }
    }

    fn k3s_version(&mut self, builder: ImageSpecBuilder, text: &str) -> ImageSpecBuilder {
        match text.parse::<K3sVersion>() {
            Ok(version) => builder.k3s_version(version),
            Err(error) => {
                let problem = Diagnostic::error("k3s_version", error.to_string());
                self.problems.push(match error.likely() {
                    Some(likely) => problem.help(format!("write {likely}")),
                    None => problem,
                });
                builder
            }
        }
    }

    fn set(&mut self, builder: ImageSpecBuilder, name: &str, value: &Bound<'_, PyAny>) -> PyResult<ImageSpecBuilder> {
        Ok(match name {
            "k3s_version" => self.k3s_version(builder, &value.extract::<String>()?),
            "k3s_role" => self.word(builder, name, value, ImageSpecBuilder::k3s_role)?,
            "k3s_mirror_url" => builder.k3s_mirror_url(value.extract::<String>()?),
            "hardening_oscap" => builder.hardening_oscap(value.extract()?),
            "name" => builder.name(value.extract::<String>()?),
            "description" => builder.description(value.extract::<String>()?),
            "tags" => builder.tags(value.extract::<Vec<String>>()?),
            "node" => builder.node(value.extract::<String>()?),
            "vmid" => builder.vmid(value.extract::<u32>()?),
            "pool" => builder.pool(value.extract::<String>()?),
            "cores" => builder.cores(value.extract()?),
            "memory_mib" => builder.memory(MiB(value.extract()?)),
            "cpu_type" => builder.cpu_type(value.extract::<String>()?),
            "bios" => self.word(builder, name, value, ImageSpecBuilder::bios)?,
            "storage" => builder.storage(value.extract::<String>()?),
            "disk_gib" => builder.disk_gib(value.extract()?),
            "bridge" => builder.bridge(value.extract::<String>()?),
            "iso" => {
                self.iso = Some(value.str()?.extract()?);
                builder
            }
            "iso_checksum" => {
                self.iso_checksum = Some(value.extract()?);
                builder
            }
            "iso_storage" => builder.iso_storage(value.extract::<String>()?),
            "kickstart" => builder.kickstart(kickstart(value.extract()?)?),
            "boot_command" => self.word(builder, name, value, ImageSpecBuilder::boot_command)?,
            "boot_wait" => builder.boot_wait(value.extract::<Seconds>()?.duration(name)?),
            "boot_key_interval" => builder.boot_key_interval(value.extract::<Seconds>()?.duration(name)?),
            "communicator" => self.word(builder, name, value, ImageSpecBuilder::communicator)?,
            "ssh_username" => builder.ssh_username(value.extract::<String>()?),
            "ssh_password" => builder.ssh_password(value.extract::<String>()?.into()),
            "ssh_host" => builder.ssh_host(value.extract::<String>()?),
            "ssh_port" => builder.ssh_port(value.extract()?),
            "ssh_timeout" => builder.ssh_timeout(value.extract::<Seconds>()?.duration(name)?),
            "on_error" => self.word(builder, name, value, ImageSpecBuilder::on_error)?,
            _ => {
                let text = format!("'{name}' is no field of an image: see help(k3simage.ImageSpec)");
                return Err(PyTypeError::new_err(text));
            }
        })
    }

    /// The installer's ISO and its checksum, which come as two arguments in any order.
    fn iso(&mut self) -> Option<IsoSource> {
        let checksum = self.iso_checksum.take();
        let Some(text) = self.iso.take() else {
            if checksum.is_some() {
                self.problems
                    .push(Diagnostic::error("iso_checksum", "there is no iso that it belongs to").help("give iso="));
            }
            return None;
        };
        match IsoSource::read(Path::new(""), &text, checksum.as_deref()) {
            Ok(IsoSource::Volid(volid)) => {
                if checksum.is_some() {
                    let message = format!("Proxmox VE cannot tell the checksum of {volid}");
                    self.problems
                        .push(Diagnostic::error("iso_checksum", message).help("leave it out"));
                }
                Some(IsoSource::Volid(volid))
            }
            Ok(source) => Some(source),
            Err(problem) => {
                self.problems.push(*problem);
                None
            }
        }
    }
}

fn kickstart(origin: PathBuf) -> PyResult<KickstartSource> {
    let text = std::fs::read_to_string(&origin).map_err(|source| {
        let error = ImageError::Io {
            attempt: "reading",
            path: origin.clone(),
            source,
        };
        PyErr::from(Failure::from(error))
    })?;
    Ok(KickstartSource::Text {
        text: KickstartText::new(text),
        origin,
    })
}
