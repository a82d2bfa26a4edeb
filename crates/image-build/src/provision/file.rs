//! Puts a file into the guest.

use async_trait::async_trait;

use super::{Provisioner, Workplace};
use crate::Error;
use crate::communicator::{Command, Source, Upload};

/// A file and where it goes.
#[derive(Clone, Debug)]
pub struct FileProvisioner {
    /// Name for people.
    pub name: String,
    /// Its bytes.
    pub source: Source,
    /// Absolute path in the guest; its folder must exist.
    pub destination: String,
    /// Permission bits.
    pub mode: u32,
}

#[async_trait]
impl Provisioner for FileProvisioner {
    fn name(&self) -> &str {
        &self.name
    }

    async fn provision(&self, at: &Workplace<'_>) -> Result<String, Error> {
        let doing = || Error::guest(format!("uploading {} to {}", self.name, self.destination));
        if at.is_root {
            let upload = Upload {
                source: self.source.clone(),
                destination: self.destination.clone(),
                mode: self.mode,
            };
            at.or_cancel(at.communicator.upload(&upload)).await?.map_err(doing())?;
        } else {
            // The login user may not write there: the file goes to the build's own folder first and root moves it.
            let staged = format!("{}/staged", at.folder);
            let upload = Upload {
                source: self.source.clone(),
                destination: staged.clone(),
                mode: self.mode,
            };
            at.or_cancel(at.communicator.upload(&upload)).await?.map_err(doing())?;
            let mode = format!("{:04o}", self.mode & 0o7777);
            let install = Command::new([
                "sudo",
                "-n",
                "install",
                "-m",
                &mode,
                "-o",
                "root",
                "-g",
                "root",
                &staged,
                &self.destination,
            ]);
            let status = at
                .or_cancel(at.communicator.exec(&install, at.on_line))
                .await?
                .map_err(doing())?;
            if !status.success() {
                return Err(Error::Script {
                    script: format!("sudo install of {}", self.destination),
                    status,
                    tail: Vec::new(),
                });
            }
        }
        Ok(format!("{} to {}", self.name, self.destination))
    }
}
