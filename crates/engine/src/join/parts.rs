//! Splitting rows into files by the hash of their keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::execution::SpillFile;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::SpillManager;

/// Into so many files each side of a join that does not fit is split.
pub(super) const PARTS: usize = 16;
/// Rows are written once so many wait for one file.
const WRITTEN_AT_ONCE: usize = 4096;
/// Each level of splitting hashes anew, or the rows of one part would all fall into one again.
const SEED: u64 = 0x7261_736b_6572_0001;

/// A file being written: given rows it appends them, given nothing it ends and names the file.
/// (The type behind it is not public.)
type FileWriter = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<Arc<dyn SpillFile>>> + Send>;

fn create(manager: &SpillManager) -> Result<FileWriter> {
    let mut file = manager.create_in_progress_file("hash join")?;
    Ok(Box::new(move |rows| match rows {
        Some(rows) => file.append_batch(rows).map(|_| None),
        None => file.finish(),
    }))
}

/// Writes rows into the files of their parts.
pub(super) struct PartWriter {
    manager: SpillManager,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    hasher: RandomState,
    hashes: Vec<u64>,
    waiting: Vec<Vec<RecordBatch>>,
    waiting_rows: Vec<usize>,
    files: Vec<Option<FileWriter>>,
}

impl PartWriter {
    pub(super) fn new(
        manager: SpillManager,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        level: usize,
    ) -> Self {
        Self {
            manager,
            keys,
            hasher: RandomState::with_seed(SEED + level as u64),
            hashes: vec![],
            waiting: vec![vec![]; PARTS],
            waiting_rows: vec![0; PARTS],
            files: (0..PARTS).map(|_| None).collect(),
        }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for (part, indices) in self.split(batch)?.into_iter().enumerate() {
            if indices.is_empty() {
                continue;
            }
            self.waiting_rows[part] += indices.len();
            let rows = take_record_batch(batch, &UInt32Array::from(indices))?;
            self.waiting[part].push(rows);
            if self.waiting_rows[part] >= WRITTEN_AT_ONCE {
                self.flush(part)?;
            }
        }
        Ok(())
    }

    /// For each part, the rows of `batch` that belong to it.
    fn split(&mut self, batch: &RecordBatch) -> Result<Vec<Vec<u32>>> {
        let rows = batch.num_rows();
        let keys = self
            .keys
            .iter()
            .map(|key| key.evaluate(batch)?.into_array(rows))
            .collect::<Result<Vec<ArrayRef>>>()?;
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(&keys, &self.hasher, &mut self.hashes)?;
        let mut parts = vec![Vec::new(); PARTS];
        for (row, hash) in self.hashes.iter().enumerate() {
            // The low bits choose partitions and the high ones slots of hash tables elsewhere.
            parts[(hash >> 32) as usize % PARTS].push(row as u32);
        }
        Ok(parts)
    }

    fn flush(&mut self, part: usize) -> Result<()> {
        let rows = std::mem::take(&mut self.waiting[part]);
        self.waiting_rows[part] = 0;
        let Some(first) = rows.first() else { return Ok(()) };
        let whole = concat_batches(&first.schema(), &rows)?;
        if self.files[part].is_none() {
            self.files[part] = Some(create(&self.manager)?);
        }
        if let Some(file) = &mut self.files[part] {
            file(Some(&whole))?;
        }
        Ok(())
    }

    /// The files of all parts; a part without rows has none.
    pub(super) fn finish(mut self) -> Result<Vec<Option<Arc<dyn SpillFile>>>> {
        for part in 0..PARTS {
            self.flush(part)?;
        }
        let finish = |file: Option<FileWriter>| match file {
            Some(mut file) => file(None),
            None => Ok(None),
        };
        self.files.into_iter().map(finish).collect()
    }
}
