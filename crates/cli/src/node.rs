//! `kapell nodes`: which nodes share the store.

use kapell_api::http::NodeView;
use kapell_model::Time;
use kapell_node::clock;

use crate::args::Nodes;
use crate::config::Config;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, list, words};

pub(crate) fn nodes(nodes: &Nodes, config: &Config, printer: &mut Printer) -> Ended {
    let session = session::open(config, Need::Look)?;
    let found = session.api().nodes();
    session.close();
    let found = found?;
    if nodes.json {
        printer.json(&found)?;
        return Ok(Exit::Success);
    }
    let now = clock::now();
    for node in &found.nodes {
        printer.line(line(node, now))?;
    }
    Ok(Exit::Success)
}

fn line(node: &NodeView, now: Time) -> Line {
    let (style, state) = if node.leaving {
        (YELLOW, "leaves")
    } else if node.answers {
        (GREEN, "answers")
    } else {
        (GREEN, "here")
    };
    let address = node.address.as_deref().unwrap_or("no address");
    Line::default()
        .with(BOLD, node.id.clone())
        .with(style, format!("  {state}"))
        .with(PLAIN, format!("  {address}"))
        .with(
            DIM,
            format!(
                "  {}  version {}  came {}",
                words::count(u64::try_from(node.shards).unwrap_or(u64::MAX), "shard"),
                node.version,
                list::ago(node.joined_at, now)
            ),
        )
}
