//! `Gate`: a call that waits until a test has done something.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Holds one call: the test learns that it has arrived, changes what it wants, and lets it go.
///
/// ```
/// # async fn example(pve: &pve_emulator::Emulator) {
/// use pve_emulator::{FaultAction, Gate};
/// let gate = Gate::default();
/// pve.fail_next("POST", "/nodes/*/qemu/*/status/start", FaultAction::Hold(gate.clone()));
/// gate.reached().await;
/// // ... the VM is deleted by someone else ...
/// gate.open();
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Gate(Arc<Tokens>);

#[derive(Default)]
struct Tokens {
    reached: CancellationToken,
    open: CancellationToken,
}

impl Gate {
    /// Waits until a call stands before it.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn reached(&self) {
        self.0.reached.cancelled().await;
    }

    /// Lets the call go on, and whichever comes later.
    pub fn open(&self) {
        self.0.open.cancel();
    }

    /// A call stands before it.
    pub(crate) async fn pass(&self) {
        self.0.reached.cancel();
        self.0.open.cancelled().await;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tokens { reached, open } = &*self.0;
        f.debug_struct("Gate")
            .field("reached", &reached.is_cancelled())
            .field("open", &open.is_cancelled())
            .finish()
    }
}

/// Two are the same when they hold the same call.
impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}
