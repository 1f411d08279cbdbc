//! What makes the engine fast: settings, and rules that improve DataFusion's plans.

use std::sync::Arc;

use datafusion::execution::context::SessionConfig;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use crate::distribute::BringTogether;
use crate::gather_groups::GatherGroups;
use crate::join::SpillJoin;
use crate::join_order::JoinOrder;
use crate::local_reader::LocalRead;
use crate::row_filter::RowFilter;

/// A rule of the physical optimizer.
pub type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// All physical rules of a session: DataFusion's own with ours between and after them.
pub fn physical_rules() -> Vec<Rule> {
    let mut all = datafusions(None);
    all.extend(rules());
    all
}

/// The same for a plan that is to be cut into fragments: [`rules`] run where each of them runs.
pub fn planning_rules() -> Vec<Rule> {
    datafusions(Some(Arc::new(BringTogether)))
}

/// DataFusion's rules, and after its choice of join sides the order of joins and what is `next`.
fn datafusions(mut next: Option<Rule>) -> Vec<Rule> {
    let mut all = vec![Arc::new(GatherGroups) as Rule];
    for rule in PhysicalOptimizer::new().rules {
        let selects_sides = rule.name() == "join_selection";
        all.push(rule);
        if selects_sides {
            all.push(Arc::new(JoinOrder) as Rule);
            all.extend(next.take());
        }
    }
    all
}

/// The rules that run after all others.
pub fn rules() -> Vec<Rule> {
    vec![Arc::new(RowFilter), Arc::new(LocalRead), Arc::new(SpillJoin)]
}

/// Settings that were measured to pay, over the 22 queries of TPC-H.
pub fn tune(config: &mut SessionConfig) {
    let options = config.options_mut();
    // One hash table is built and shared by all threads; our join spills if it does not fit, so
    // no size asks for partitioning both sides first (Q18: half the time).
    options.optimizer.hash_join_single_partition_threshold = usize::MAX;
    options.optimizer.hash_join_single_partition_threshold_rows = usize::MAX;
}
