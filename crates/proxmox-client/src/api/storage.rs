//! `Storage`: `/nodes/{node}/storage/{storage}`.

use std::time::Duration;

use super::upload::{self, Upload};
use crate::{
    client::Client,
    error::Error,
    request::storage::{self, DownloadUrl},
    types::{
        content::Content,
        name::{NodeName, StorageId},
        reply::storage::{StorageStatus, Volume},
        upid::Upid,
        volid::VolId,
    },
};

/// A handle on a storage as one node sees it.
#[derive(Clone, Debug)]
pub struct Storage {
    client: Client,
    node: NodeName,
    name: StorageId,
}

impl Storage {
    pub(crate) fn new(client: Client, node: NodeName, name: StorageId) -> Self {
        Self { client, node, name }
    }

    /// The storage's name.
    pub fn name(&self) -> &StorageId {
        &self.name
    }

    /// Size, state and what it may hold.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none of this name.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `Datastore.Audit` or `Datastore.AllocateSpace` on `/storage/{storage}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/storage/{storage}/status`.
    pub async fn status(&self) -> Result<StorageStatus, Error> {
        self.client.typed(&storage::status(&self.node, &self.name)).await
    }

    /// What it holds: all, or of one content type. Sorted by volume, PVE's order means nothing (`FACTS` 81).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none of this name.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `Datastore.Audit` or `Datastore.AllocateSpace` on `/storage/{storage}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/storage/{storage}/content`.
    pub async fn content(&self, only: Option<Content>) -> Result<Vec<Volume>, Error> {
        let mut list: Vec<Volume> = self
            .client
            .typed(&storage::content(&self.node, &self.name, only.as_ref()))
            .await?;
        list.sort_by(|a, b| a.volid.cmp(&b.volid));
        Ok(list)
    }

    /// Uploads a file, streamed; memory does not grow with its size. The file of the same name is overwritten without a word
    /// (`FACTS` 56). The task behind it copies the file into its place and checks the digest there.
    ///
    /// # Errors
    /// [`Error::Transport`] also stands for a missing right on a large file, which PVE drops without an answer (`FACTS` 22);
    /// [`Error::Timeout`] when nothing moves for two minutes; [`Error::File`] for an unreadable file.
    ///
    /// # Cancel safety
    /// Dropped before its end, nothing is left on the storage.
    ///
    /// # Privileges
    /// `Datastore.AllocateTemplate` on `/storage/{storage}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/storage/{storage}/upload`; `FACTS` 10, 17, 54 to 57.
    pub async fn upload(&self, upload: &Upload) -> Result<Upid, Error> {
        upload::send(&self.client, &self.node, &self.name, upload).await
    }

    /// Has the node fetch a file by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or URL that cannot be; what goes wrong with the download fails in the task.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `Datastore.AllocateTemplate` on `/storage/{storage}` and (`Sys.Audit` and `Sys.Modify` on `/` or `Sys.AccessNetwork` on
    /// `/nodes/{node}`).
    ///
    /// # Source
    /// `POST /nodes/{node}/storage/{storage}/download-url`.
    pub async fn download_url(&self, download: &DownloadUrl) -> Result<Upid, Error> {
        self.client
            .typed(&storage::download_url(&self.node, &self.name, download)?)
            .await
    }

    /// Deletes a volume; `None` when it was done within five seconds, else its task. A missing one is fine, and one in use by a VM is
    /// deleted all the same (`FACTS` 58).
    ///
    /// # Errors
    /// [`Error::Invalid`] when the volume is on another storage. An ISO needs `Datastore.Allocate`.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `Datastore.Allocate` on `/storage/{storage}`; for a backup `Datastore.AllocateSpace` there and `VM.Backup` on its VM.
    ///
    /// # Source
    /// `DELETE /nodes/{node}/storage/{storage}/content/{volume}`.
    pub async fn delete(&self, volume: &VolId) -> Result<Option<Upid>, Error> {
        if volume.storage() != self.name {
            return Err(Error::invalid(
                "volid",
                format!("{volume} is not on storage {}", self.name),
            ));
        }
        // One request instead of two or more: most deletions end at once.
        self.client
            .typed(&storage::delete(&self.node, volume, Some(Duration::from_secs(5))))
            .await
    }
}
