//! Parts of Parquet files as ranges of rows.
//!
//! A file that several partitions read is shared out by bytes, and a row group goes to whoever has
//! its first byte: of two row groups of one size the same partition may get both, and a file of
//! one is read by one. Here bytes stand for rows, wherever in a row group they fall:
//!
//! ```text
//!   bytes   0 ────────── half ─────────── end      row groups  0 ──── start of 1 ─────── end
//!   rows    of 0: all, of 1: the first third │ of 1: the rest
//! ```
//!
//! What a range stands for hangs on the file alone, so that tasks of many processes read each row
//! once.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::ParquetMetaData;
use std::collections::HashMap;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// A cut so near to the border of a row group, as a share of it, is made there.
const NEAR: f64 = 0.02;
/// Row groups of fewer rows are not cut.
const FEW_ROWS: usize = 16_384;

/// The plan, its scans reading rows where they were to read bytes.
pub(crate) async fn by_rows(plan: Plan, resources: &RuntimeEnv) -> Result<Plan> {
    let mut files = HashMap::new();
    for scan in parted_scans(&plan)? {
        let store = resources.object_store(&scan.object_store_url)?;
        for file in scan.file_groups.iter().flat_map(FileGroup::iter).filter(|f| is_part(f)) {
            let path = &file.object_meta.location;
            if files.contains_key(&(scan.object_store_url.clone(), path.clone())) {
                continue;
            }
            let cache = resources.cache_manager.get_file_metadata_cache();
            let metadata = DFParquetMetadata::new(store.as_ref(), &file.object_meta)
                .with_file_metadata_cache(Some(cache))
                .with_metadata_size_hint(file.metadata_size_hint)
                .fetch_metadata()
                .await?;
            let key = (scan.object_store_url.clone(), path.clone());
            files.insert(key, RowGroups::of(&metadata, file.object_meta.size));
        }
    }
    if files.is_empty() {
        return Ok(plan);
    }
    plan.transform_down(|node| {
        let Some(scan) = parted_scan(&node) else { return Ok(Transformed::no(node)) };
        let by_rows = |file: &PartitionedFile| {
            let key = (scan.object_store_url.clone(), file.object_meta.location.clone());
            files.get(&key).and_then(Option::as_ref).map_or_else(|| file.clone(), |g| g.part(file))
        };
        let groups = scan.file_groups.iter().map(|group| group.iter().map(by_rows).collect());
        let groups: Vec<FileGroup> = groups.map(|files: Vec<_>| FileGroup::new(files)).collect();
        let scan = FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build();
        Ok(Transformed::yes(DataSourceExec::from_data_source(scan) as Plan))
    })
    .data()
}

fn is_part(file: &PartitionedFile) -> bool {
    let all = FileRange { start: 0, end: file.object_meta.size as i64 };
    file.range.as_ref().is_some_and(|range| *range != all)
        && file.extension::<ParquetAccessPlan>().is_none()
}

/// A scan of Parquet files of which some are read in parts.
fn parted_scan(plan: &Plan) -> Option<&FileScanConfig> {
    let scan = plan.downcast_ref::<DataSourceExec>()?;
    let (scan, _) = scan.downcast_to_file_source::<ParquetSource>()?;
    scan.file_groups.iter().flat_map(FileGroup::iter).any(is_part).then_some(scan)
}

fn parted_scans(plan: &Plan) -> Result<Vec<FileScanConfig>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        found.extend(parted_scan(node).cloned());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Where row groups lie in a file.
struct RowGroups {
    /// The first byte and the rows of each.
    starts: Vec<(u64, usize)>,
    end: u64,
}

impl RowGroups {
    /// None if they do not lie one after the other.
    fn of(metadata: &ParquetMetaData, end: u64) -> Option<RowGroups> {
        let start = |at: usize| {
            let group = metadata.row_group(at);
            let column = group.columns().first()?;
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            Some((u64::try_from(start).ok()?, usize::try_from(group.num_rows()).ok()?))
        };
        let mut starts = (0..metadata.num_row_groups()).map(start).collect::<Option<Vec<_>>>()?;
        // What is before the first row group goes with it.
        starts.first_mut()?.0 = 0;
        let last = starts.last()?.0;
        let in_order = starts.is_sorted_by(|one, next| one.0 < next.0) && last < end;
        in_order.then_some(RowGroups { starts, end })
    }

    /// The row group and the row in it at which a byte stands.
    fn cut(&self, byte: u64) -> (usize, usize) {
        let at = self.starts.partition_point(|(start, _)| *start <= byte).saturating_sub(1);
        let (start, n_rows) = self.starts[at];
        let end = self.starts.get(at + 1).map_or(self.end, |(start, _)| *start);
        let share = (byte.min(end) - start) as f64 / (end - start) as f64;
        let near = if n_rows < FEW_ROWS { 0.5 } else { NEAR };
        if share < near {
            (at, 0)
        } else if share >= 1.0 - near {
            (at + 1, 0)
        } else {
            (at, (share * n_rows as f64) as usize)
        }
    }

    /// The rows that the range of a file stands for.
    fn part(&self, file: &PartitionedFile) -> PartitionedFile {
        let Some(range) = file.range.as_ref().filter(|_| is_part(file)) else {
            return file.clone();
        };
        let cut = |byte: i64| self.cut(u64::try_from(byte).unwrap_or(0));
        let (start, end) = (cut(range.start), cut(range.end));
        let access = |(at, (_, n_rows)): (usize, &(u64, usize))| {
            let from = if at < start.0 {
                *n_rows
            } else if at == start.0 {
                start.1
            } else {
                0
            };
            let to = if at < end.0 {
                *n_rows
            } else if at == end.0 {
                end.1
            } else {
                0
            };
            match (from, to) {
                (0, to) if to == *n_rows => RowGroupAccess::Scan,
                (from, to) if from >= to => RowGroupAccess::Skip,
                (from, to) => {
                    let rows = std::iter::once(from..to);
                    let rows = RowSelection::from_consecutive_ranges(rows, *n_rows);
                    RowGroupAccess::Selection(rows)
                }
            }
        };
        let access = self.starts.iter().enumerate().map(access).collect();
        let mut file = file.clone().with_extension(ParquetAccessPlan::new(access));
        file.range = None;
        file
    }
}
