//! Which node a pod runs on.
//!
//! `fit` and `score` are the pure core: a pod and the nodes in, a node or the reasons of refusal out. The shell keeps
//! the picture by watches, assumes its own placements until the watch shows them, and binds through the binding
//! subresource. A pod is placed when it appears; one that found no place is tried again when something changes that may
//! help it. There is no tick.

pub mod fit;
pub mod node;
pub mod resources;
pub mod score;
pub mod shell;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Pod;

pub use self::fit::{Refusal, Refusals};
pub use self::node::NodeInfo;
pub use self::shell::spawn;

/// The name pods choose this scheduler by; it is the API's default.
pub const NAME: &str = "default-scheduler";

/// The best node for a pod, or why each was refused. Among equals the seed chooses, so that a burst of pods is spread.
pub fn place<'a>(pod: &Pod, nodes: &'a [NodeInfo], seed: u64) -> Result<&'a NodeInfo, Refusals> {
    let question = fit::Question::new(pod);
    let mut refusals = Refusals { nodes: nodes.len(), ..Refusals::default() };
    let mut fitting = vec![];
    for node in nodes {
        let why = fit::refuse(&question, node, nodes);
        if why.is_empty() {
            fitting.push(node);
        }
        for refusal in why {
            *refusals.counts.entry(refusal).or_default() += 1;
        }
    }
    let scored: Vec<(i64, &NodeInfo)> = fitting.iter().map(|n| (score::score(&question, n, nodes), *n)).collect();
    let Some(best) = scored.iter().map(|(s, _)| *s).max() else { return Err(refusals) };
    let equal: Vec<&NodeInfo> = scored.into_iter().filter(|(s, _)| *s == best).map(|(_, n)| n).collect();
    Ok(equal[(seed % equal.len() as u64) as usize])
}
