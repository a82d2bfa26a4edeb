//! From an endpoint to the function that serves it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{access, cluster, download, nodes, pools, qemu, storage, tasks, upload};
use crate::schema::{Endpoint, join_lists, verify};
use crate::state::{Identity, Machine, World};
use crate::tasks::Worker;
use crate::wire::{Answer, Failure, Params, Shape, Upload};

/// One authenticated call with its parameters.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) world: Arc<World>,
    /// The node that the caller is connected to.
    pub(crate) local: Arc<str>,
    pub(crate) who: Identity,
    pub(crate) params: Params,
    pub(crate) upload: Option<Upload>,
}

/// What a handler returns.
pub(crate) type Outcome = Result<Answer, Failure>;

impl Call {
    pub(crate) fn node(&self) -> String {
        self.params.text("node").unwrap_or_default()
    }

    /// The vmid of the path, which the schema has checked.
    pub(crate) fn vmid(&self) -> u32 {
        self.params
            .text("vmid")
            .and_then(|v| v.parse().ok())
            .unwrap_or_default()
    }

    /// The VM of the path.
    ///
    /// # Errors
    /// PVE's text for a VM that this node does not have (`FACTS` 29).
    pub(crate) fn machine(&self) -> Result<Machine, Failure> {
        let (node, vmid) = (self.node(), self.vmid());
        self.world.machine(&node, vmid).ok_or_else(|| {
            Failure::die(format!(
                "Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"
            ))
        })
    }

    /// Starts a task on the call's node and returns its UPID.
    pub(crate) fn task<F, W>(&self, kind: &str, id: &str, work: W) -> String
    where
        W: FnOnce(Arc<World>, Worker) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let world = Arc::clone(&self.world);
        let task = self
            .world
            .tasks
            .spawn(&self.node(), kind, id, &self.who, |worker| work(world, worker));
        task.upid.to_string()
    }
}

type Handler = Box<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// All handlers by the schema's key, `POST /nodes/{node}/qemu`.
pub(crate) struct Routes(HashMap<&'static str, Handler>);

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Routes {
    pub(crate) fn new() -> Self {
        let mut routes = Self(HashMap::new());
        access::add(&mut routes);
        cluster::add(&mut routes);
        nodes::add(&mut routes);
        pools::add(&mut routes);
        storage::add(&mut routes);
        upload::add(&mut routes);
        download::add(&mut routes);
        tasks::add(&mut routes);
        qemu::add(&mut routes);
        routes
    }

    /// The keys of all handlers, in order.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self.0.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// Registers a handler under a key of the schema.
    pub(crate) fn add<F, H>(&mut self, key: &'static str, handler: H)
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.0.insert(key, Box::new(move |call| Box::pin(handler(call))));
    }
}

/// Checks the parameters and runs the handler.
///
/// A call of the real API that has no handler here is refused as PVE refuses unknown calls, loudly: success is never
/// invented.
pub(crate) async fn dispatch(routes: &Routes, endpoint: &Endpoint, mut call: Call) -> Outcome {
    let node = call.params.text("node");
    if let Some(node) = node.filter(|n| !call.world.settings.nodes.contains(n) && endpoint.key.contains("/{node}")) {
        return Err(Failure::die(format!(
            "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
        )));
    }
    reach(endpoint, &call).await?;
    join_lists(endpoint, &mut call.params.0);
    let errors = verify(call.world.settings.schema(), endpoint, &call.params.0);
    if !errors.is_empty() {
        return Err(Failure::params(errors));
    }
    let Some(handler) = routes.0.get(endpoint.key.as_str()) else {
        tracing::warn!(call = endpoint.key, "not emulated");
        let (method, path) = endpoint.key.split_once(' ').unwrap_or_default();
        return Err(Failure::not_implemented(method, path));
    };
    handler(call).await
}

/// Hands a call on to the node that is to do it, as far as the node is there and the cluster may change anything.
///
/// # Source
/// `PVE::HTTPServer::rest_handler` and `PVE::APIServer::AnyEvent::proxy_request`: status and reason are those of the
/// connection, without a body. That no route is what a node without power gives, and that it takes three seconds, is how
/// Linux answers for an address in its own network that nobody has; public reports name 595 for it.
async fn reach(endpoint: &Endpoint, call: &Call) -> Result<(), Failure> {
    let nodes = &call.world.nodes;
    let target = call.params.text("node").filter(|_| endpoint.proxied);
    let mut slow = nodes.state(&call.local).slow;
    if let Some(target) = target.filter(|t| **t != *call.local) {
        let state = nodes.state(&target);
        if state.offline {
            return Err(Failure::new(595, "No route to host").with_shape(Shape::Empty).delayed());
        }
        slow += state.slow;
    }
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    // A ticket needs no write to the cluster's file system, all else that changes something does.
    let reads = endpoint.key.starts_with("GET ") || endpoint.key == "POST /access/ticket";
    if !reads && !nodes.quorate() {
        return Err(Failure::die("cluster not ready - no quorum?"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    #[test]
    fn every_handler_is_a_call_of_the_schema() {
        let keys = Schema::get().keys();
        for key in Routes::new().0.keys() {
            assert!(keys.iter().any(|k| k == key), "{key} is not in the schema");
        }
    }
}
