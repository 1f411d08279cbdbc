//! Rows of statements that are run at once, made here or elsewhere.

use crate::Result;
use crate::query::Query;
use datafusion::arrow::array::RecordBatch;

/// Who makes the rows of statements that are run at once.
pub struct Rows<'a> {
    /// Asked now and then whether to go on.
    pub check: &'a dyn Fn() -> bool,
    /// Makes them elsewhere; gives nothing for what only this process can run.
    #[allow(clippy::type_complexity)] // It is one function, and named once.
    pub elsewhere: Option<&'a dyn Fn(&Query) -> Result<Option<Vec<RecordBatch>>>>,
}

impl<'a> Rows<'a> {
    /// They are made here.
    pub fn here(check: &'a dyn Fn() -> bool) -> Rows<'a> {
        Rows { check, elsewhere: None }
    }

    pub(crate) fn are_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    pub(crate) fn of(&self, query: &Query) -> Result<Vec<RecordBatch>> {
        if let Some(elsewhere) = self.elsewhere
            && let Some(rows) = elsewhere(query)?
        {
            return Ok(rows);
        }
        query.collect(self.check)
    }
}
