//! One node of a running emulator: where it answers, and its power.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Emulator;

/// Names for so many nodes: `pve`, as after an installation, then `pve2`, `pve3`, ...
pub fn node_names(count: usize) -> Vec<String> {
    let name = |n| if n == 1 { "pve".to_owned() } else { format!("pve{n}") };
    (1..=count).map(name).collect()
}

/// A node of an [`Emulator`].
#[derive(Clone, Copy)]
pub struct NodeHandle<'a> {
    emulator: &'a Emulator,
    index: usize,
}

impl fmt::Debug for NodeHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle")
            .field("name", &self.name())
            .field("url", &self.url())
            .field("online", &self.is_online())
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<NodeHandle<'_>> {
        self.nodes().find(|n| n.name() == name)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeHandle<'_>> {
        (0..self.addresses.len()).map(|index| NodeHandle { emulator: self, index })
    }
}

impl<'a> NodeHandle<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.emulator.world().settings.nodes[self.index]
    }

    /// Where it listens while it is online.
    pub fn address(&self) -> SocketAddr {
        self.emulator.addresses[self.index]
    }

    /// Its URL, `https://127.0.0.2:8006`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Whether it has power.
    pub fn is_online(&self) -> bool {
        self.emulator.world().nodes.online(self.name())
    }

    /// Takes its power away: its guests and tasks end, nobody listens at its address, and the other nodes answer 595 to
    /// what is asked of it. Without more than half of the nodes the cluster refuses all changes.
    ///
    /// # Cancel safety
    /// Not begun until it is awaited. Dropped, the node is offline but some of its guests may go on.
    pub fn offline(&self) -> impl Future<Output = ()> + Send + use<> {
        let (world, name) = (Arc::clone(self.emulator.world()), self.name().to_owned());
        async move { world.take_offline(&name).await }
    }

    /// Gives it power again. Its guests stay stopped. That it listens takes a moment.
    pub fn online(&self) {
        self.emulator.world().nodes.change(self.name(), |s| s.offline = false);
    }

    /// From now on all that it does takes so much longer; zero makes it fast again.
    pub fn slow(&self, by: Duration) {
        self.emulator.world().nodes.change(self.name(), |s| s.slow = by);
    }
}
