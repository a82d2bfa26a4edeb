//! A serial port of a guest: what the guest writes reaches one reader at a time, and nothing is replayed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use super::host::lock;

/// Bytes on their way to a reader that does not read, as a socket's buffers would hold them.
const BUFFER: usize = 128 * 1024;
/// Further pieces kept for it. A real UART would make the guest wait; a simulated one loses the rest.
const PIECES: usize = 4096;

/// What happens to bytes that a reader types.
pub(super) type Input = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// One port. A character device of QEMU serves one client; others wait in the backlog of its socket (`FACTS` 71).
#[derive(Debug, Default)]
pub(super) struct SerialPort {
    readers: Mutex<VecDeque<mpsc::Sender<Bytes>>>,
}

impl SerialPort {
    /// What the guest puts out. Without a reader it is gone.
    pub(super) fn write(&self, bytes: &Bytes) {
        let mut readers = lock(&self.readers);
        while let Some(first) = readers.front() {
            match first.try_send(bytes.clone()) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::debug!("a serial reader does not read: output lost");
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => readers.pop_front(),
            };
        }
    }

    /// Connects a reader, or puts it in line.
    pub(super) fn connect(self: &Arc<Self>, input: Input) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (sender, receiver) = mpsc::channel(PIECES);
        lock(&self.readers).push_back(sender.clone());
        tokio::spawn(serve(Arc::downgrade(self), sender.downgrade(), receiver, ours, input));
        theirs
    }

    /// The guest's process is gone: readers get what was on its way, and the end.
    pub(super) fn close(&self) {
        lock(&self.readers).clear();
    }

    fn is_first(&self, reader: &mpsc::Sender<Bytes>) -> bool {
        let mut readers = lock(&self.readers);
        readers.retain(|other| !other.is_closed());
        readers.front().is_some_and(|first| first.same_channel(reader))
    }
}

async fn serve(
    port: std::sync::Weak<SerialPort>,
    own: mpsc::WeakSender<Bytes>,
    mut output: mpsc::Receiver<Bytes>,
    stream: DuplexStream,
    input: Input,
) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut typed = [0; 1024];
    loop {
        tokio::select! {
            bytes = output.recv() => match bytes {
                Some(bytes) => if write.write_all(&bytes).await.is_err() { return },
                None => return,
            },
            count = read.read(&mut typed) => match count {
                Ok(0) | Err(_) => return,
                // What one in line types waits in the backlog too; here it is not kept.
                Ok(count) => {
                    let first = port.upgrade().zip(own.upgrade()).is_some_and(|(port, own)| port.is_first(&own));
                    if first {
                        input(&typed[..count]);
                    }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Input {
        Arc::new(|_| {})
    }

    #[tokio::test]
    async fn one_reader_at_a_time_and_nothing_replayed() {
        let port = Arc::new(SerialPort::default());
        port.write(&Bytes::from_static(b"lost"));
        let mut first = port.connect(nothing());
        let mut second = port.connect(nothing());
        port.write(&Bytes::from_static(b"one"));
        let mut text = [0; 3];
        first.read_exact(&mut text).await.expect("first reads");
        assert_eq!(&text, b"one");
        drop(first);
        // The end of the first is noticed by its own task.
        while lock(&port.readers).iter().any(|r| !r.is_closed()) && lock(&port.readers).len() > 1 {
            lock(&port.readers).retain(|r| !r.is_closed());
            tokio::task::yield_now().await;
        }
        port.write(&Bytes::from_static(b"two"));
        second.read_exact(&mut text).await.expect("second reads");
        assert_eq!(&text, b"two");
        port.close();
        assert_eq!(second.read(&mut text).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn only_the_reader_served_can_type() {
        let (sender, mut typed) = mpsc::unbounded_channel();
        let input: Input = Arc::new(move |bytes| sender.send(bytes.to_vec()).expect("kept"));
        let port = Arc::new(SerialPort::default());
        let mut first = port.connect(Arc::clone(&input));
        let mut second = port.connect(input);
        second.write_all(b"no").await.expect("taken");
        first.write_all(b"yes").await.expect("taken");
        assert_eq!(typed.recv().await.as_deref(), Some(&b"yes"[..]));
    }
}
