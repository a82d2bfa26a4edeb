//! `Task`: `/nodes/{node}/tasks/{upid}`.

use crate::{
    client::Client,
    error::Error,
    request,
    transport::reply,
    types::{
        reply::task::{LogLine, TaskLog, TaskStatus},
        upid::Upid,
    },
};

/// Lines of one request for a log. The server's own default is 50, with which the cause at the end is lost.
pub(crate) const LOG_PAGE: u64 = 1000;

/// A handle on a task.
#[derive(Clone, Debug)]
pub struct Task {
    client: Client,
    upid: Upid,
}

impl Task {
    pub(crate) fn new(client: Client, upid: Upid) -> Self {
        Self { client, upid }
    }

    /// The task.
    pub fn upid(&self) -> &Upid {
        &self.upid
    }

    /// Does it run, and how did it end?
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown task, which a new one can be for a moment.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Audit` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `GET /nodes/{node}/tasks/{upid}/status`; `FACTS` 51, 53.
    pub async fn status(&self) -> Result<TaskStatus, Error> {
        self.client.typed(&request::task::task_status(&self.upid)).await
    }

    /// The whole log, in as many requests as it takes.
    ///
    /// # Errors
    /// [`Error::Decode`] when it is larger than one answer may be ([`ClientBuilder::reply_max_bytes`](crate::ClientBuilder::reply_max_bytes));
    /// [`log_page`](Self::log_page) reads such a one in parts. Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Audit` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `GET /nodes/{node}/tasks/{upid}/log`; `FACTS` 52.
    pub async fn log(&self) -> Result<TaskLog, Error> {
        /// What a line costs beside its text.
        const LINE_BYTES: usize = size_of::<LogLine>();
        let mut log = TaskLog::default();
        let (mut bytes, limit) = (0, self.client.connection().reply_max_bytes);
        loop {
            let start = log.lines.len() as u64;
            let page = self.log_page(start, LOG_PAGE).await?;
            let full = page.lines.len() as u64 >= LOG_PAGE;
            bytes += page
                .lines
                .iter()
                .map(|line| LINE_BYTES + line.text().len())
                .sum::<usize>();
            if bytes > limit {
                let request = request::task::task_log(&self.upid, 0, 0);
                let reason = format!("the log is larger than {limit} bytes");
                return Err(reply::unreadable(&request.method, &request.path, &reason, None));
            }
            log.total = page.total;
            log.lines.extend(page.lines);
            if !full {
                return Ok(log);
            }
        }
    }

    /// A part of the log: `limit` lines from `start`, which counts from 0.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Audit` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `GET /nodes/{node}/tasks/{upid}/log`.
    pub async fn log_page(&self, start: u64, limit: u64) -> Result<TaskLog, Error> {
        let request = request::task::task_log(&self.upid, start, limit);
        let envelope = self.client.connection().send(&request).await?;
        let lines = reply::typed(&request.method, &request.path, envelope.data)?;
        Ok(TaskLog {
            lines,
            total: envelope.total.unwrap_or(0),
        })
    }

    /// Interrupts it; it then ends as `received interrupt` (`FACTS` 51). One of another user needs `Sys.Modify`.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Modify` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `DELETE /nodes/{node}/tasks/{upid}`.
    pub async fn stop(&self) -> Result<(), Error> {
        self.client.done(&request::task::task_stop(&self.upid)).await
    }
}
