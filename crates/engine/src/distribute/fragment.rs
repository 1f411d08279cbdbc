//! A stage as bytes: sent to each worker once, run by many tasks.

use super::{Stage, codec};
use crate::{EngineError, Kind, OwnFunction, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use rasker_io::StoreOptions;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A plan that travels, and what a process needs to run it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fragment {
    /// The engine's build: plans are understood by equal builds only.
    build: String,
    plan: Vec<u8>,
    pub n_parts: u32,
    /// Stores to be opened, with what opens them.
    pub(super) stores: Vec<(String, StoreOptions)>,
    /// Rows of a batch.
    pub(super) batch_size: u32,
    /// Functions of the caller that the plan calls. They do not travel with it, only their names.
    #[serde(skip)]
    pub functions: Vec<OwnFunction>,
}

fn build() -> String {
    format!("{} {}", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
}

impl Fragment {
    pub fn new(stage: &Stage, stores: Vec<(String, StoreOptions)>) -> Result<Fragment> {
        let (plan, functions) = codec::encode(stage.plan.clone())?;
        let n_parts = stage.n_parts;
        Ok(Fragment { build: build(), plan, n_parts, stores, batch_size: 8192, functions })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data can be written")
    }

    /// # Errors
    ///
    /// If the bytes are damaged, or of another build.
    pub fn from_bytes(bytes: &[u8]) -> Result<Fragment> {
        let fragment: Fragment = postcard::from_bytes(bytes)
            .map_err(|error| EngineError::new(Kind::Internal, error.to_string()))?;
        if fragment.build != build() {
            let text = format!(
                "a fragment of build {} came to build {}; install the same version everywhere",
                fragment.build,
                build()
            );
            return Err(EngineError::new(Kind::Unsupported, text));
        }
        Ok(fragment)
    }

    /// A plan of its own for one task: operators keep what they are doing in their nodes.
    pub(super) fn plan(&self, context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        codec::decode(&self.plan, context)
    }
}
