//! A node that shares its store with others.

use std::sync::Arc;
use std::time::Duration;

use kapell_model::{Error, NodeId};
use kapell_node::drive::{self, Join, Prepared};
use kapell_store::{Cluster, NodeAbout, Store};

use super::seed;
use crate::options::NodeOptions;
use crate::peers::Nodes;
use crate::relaying::{Jobs, Relaying};
use crate::workers::Workers;

/// What a node has that shares its store with others.
pub(super) struct Shared {
    nodes: Arc<Nodes>,
    pub(super) relaying: Arc<Relaying>,
    jobs: Jobs,
    join: Join,
}

/// What a node says of itself when it joins others, and what connects it to them. `lease` is that of workers.
pub(super) fn joins(
    prepared: &Prepared,
    store: &Arc<dyn Store>,
    (cluster, options): (Arc<dyn Cluster>, NodeOptions),
    lease: Duration,
) -> Result<Shared, Error> {
    let id = NodeId(seed());
    let nodes = Nodes::start(id, Arc::clone(store), prepared.node(), options.ca)?;
    let hears = Arc::downgrade(&nodes);
    let join = Join {
        cluster,
        about: NodeAbout {
            id,
            address: options.address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leaving: false,
        },
        lease: options.lease,
        heard: Box::new(move |rows| {
            if let Some(nodes) = hears.upgrade() {
                nodes.heard(rows);
            }
        }),
    };
    let (relaying, jobs) = Relaying::new(prepared.node(), &nodes, Arc::clone(store), lease);
    Ok(Shared {
        nodes,
        relaying,
        jobs,
        join,
    })
}

/// A node, and what it hands attempts to.
type Started = (Prepared, Arc<dyn drive::Workers>);

/// The other nodes, and what goes to their workers.
pub(super) type Others = (Arc<Nodes>, Arc<Relaying>);

/// What a node hands attempts to: its workers, or those of all nodes.
pub(super) fn begins(
    prepared: Prepared,
    shared: Option<Shared>,
    workers: &Arc<Workers>,
) -> Result<(Started, Option<Others>), Error> {
    let Some(shared) = shared else {
        return Ok(((prepared, Arc::clone(workers) as _), None));
    };
    shared.relaying.start(shared.jobs, workers)?;
    let handed_to = Arc::clone(&shared.relaying);
    let started = (prepared.among(shared.join), handed_to as _);
    Ok((started, Some((shared.nodes, shared.relaying))))
}
