//! Tables of the user's process that workers hold.
//!
//! A table in memory is brought to the workers by the first statement that needs it there, and
//! stays until it is dropped or replaced. Its rows are still here: what workers lose is brought
//! again.

use crate::fragments::parted;
use crate::handle::Handle;
use crate::scatter::bring;
use crate::session::Session;
use parking_lot::Mutex;
use pyo3::prelude::*;
use rasker_client::Ending;
use rasker_engine::{EngineError, Given, Kind};
use rasker_graph::{Blob, TaskId};
use rasker_protocol::Value;
use std::sync::Arc;

/// Of the parts of a table; one is fetched from whoever has it, and both may be lost.
const N_COPIES: usize = 2;

#[derive(Default)]
pub struct Tables(Mutex<Vec<Brought>>);

struct Brought {
    session: Session,
    /// Keeps the rows, so that no others can lie in their place.
    given: Given,
    values: Vec<Handle>,
}

impl Brought {
    fn is_of(&self, session: &Session) -> bool {
        self.session.same(session)
    }

    fn is_of_use(&self) -> bool {
        let is_there = |value: &Handle| {
            matches!(value.session.inner().ending(value.task), Some(Ending::Finished { .. }))
        };
        self.given.table.strong_count() > 0
            && self.session.check_open().is_ok()
            && self.values.iter().all(is_there)
    }
}

impl Tables {
    /// The values that workers hold of a table, one for each partition.
    pub fn brought(
        &self,
        py: Python<'_>,
        session: &Session,
        given: &Given,
    ) -> PyResult<Vec<TaskId>> {
        if let Some(known) = self.known(session, given) {
            return Ok(known);
        }
        // Nothing is locked meanwhile: other threads may need the interpreter to go on.
        let values =
            py.detach(|| values(session, given)).map_err(|e| crate::sql::raised(py, &e))?;
        let values = bring(session, py, values, N_COPIES)?;
        let tasks = values.iter().map(|value| value.task).collect();
        let brought = Brought { session: session.clone(), given: given.clone(), values };
        self.0.lock().push(brought);
        Ok(tasks)
    }

    fn known(&self, session: &Session, given: &Given) -> Option<Vec<TaskId>> {
        let identity = given.identity();
        let mut all = self.0.lock();
        all.retain(Brought::is_of_use);
        let is_it = |one: &&Brought| one.is_of(session) && one.given.identity() == identity;
        let known = all.iter().find(is_it)?;
        Some(known.values.iter().map(|value| value.task).collect())
    }

    /// Lets go of all of them: the next statement brings anew what it needs.
    pub fn forget(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}

fn values(session: &Session, given: &Given) -> Result<Vec<Value>, EngineError> {
    let of_partition = |parts: rasker_engine::Parts| {
        let slab = parted(&parts.0, |nbytes| {
            session.arena().allocate(nbytes).map_err(|error| {
                let text = format!("no room for {nbytes} bytes of a table: {error}");
                EngineError::new(Kind::Memory, text)
            })
        })?;
        let segment = slab.seal();
        let nbytes = segment.len() as u64;
        Ok(Value::Encoded { blob: Blob::Local(Arc::new(segment)), nbytes })
    };
    given.written()?.into_iter().map(of_partition).collect()
}
