//! The nodes as machines: on or off, fast or slow.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

/// How a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) offline: bool,
    /// How much longer everything takes there.
    pub(crate) slow: Duration,
}

/// All nodes of the cluster.
#[derive(Debug)]
pub(crate) struct Nodes(BTreeMap<String, watch::Sender<NodeState>>);

impl Nodes {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|n| (n.clone(), watch::Sender::default())).collect())
    }

    /// How a node is; one that there is not is fine.
    pub(crate) fn state(&self, node: &str) -> NodeState {
        self.0.get(node).map(|s| *s.borrow()).unwrap_or_default()
    }

    pub(crate) fn online(&self, node: &str) -> bool {
        !self.state(node).offline
    }

    /// Tells of changes; `None` for a node that there is not.
    pub(crate) fn watch(&self, node: &str) -> Option<watch::Receiver<NodeState>> {
        self.0.get(node).map(watch::Sender::subscribe)
    }

    pub(crate) fn change(&self, node: &str, change: impl FnOnce(&mut NodeState)) {
        if let Some(state) = self.0.get(node) {
            state.send_modify(change);
        }
    }

    /// Whether more than half of the nodes are there: without them nothing may be changed.
    pub(crate) fn quorate(&self) -> bool {
        let online = self.0.values().filter(|s| !s.borrow().offline).count();
        online * 2 > self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_nodes_are_no_quorum() {
        for (count, offline, quorate) in [(1, 0, true), (2, 1, false), (3, 1, true), (3, 2, false), (4, 2, false)] {
            let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
            let nodes = Nodes::new(&names);
            for name in &names[..offline] {
                nodes.change(name, |s| s.offline = true);
            }
            assert_eq!(nodes.quorate(), quorate, "{offline} of {count}");
        }
    }
}
