//! Reading local Parquet files without a detour.
//!
//! The object store reads a local file on another thread into a fresh buffer. For a file in the
//! page cache that costs more than the read: two thread switches, and the kernel zeroes each page
//! of the buffer before it is written. Here the thread that decodes reads, into buffers that are
//! used again.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

/// So many bytes of idle buffers are kept for the next reads, in the whole process.
const KEPT: usize = 64 << 20;
/// A buffer larger than this is given back at once.
const LARGEST_KEPT: usize = 16 << 20;

#[derive(Default)]
struct Buffers {
    idle: Vec<Vec<u8>>,
    bytes: usize,
}

static BUFFERS: LazyLock<Mutex<Buffers>> = LazyLock::new(Mutex::default);

/// A buffer that goes back to the idle ones when the last slice of it is dropped.
struct Lent(Vec<u8>);

impl Lent {
    fn of(size: usize) -> Self {
        let mut buffers = BUFFERS.lock();
        let found = buffers.idle.iter().rposition(|buffer| buffer.len() >= size);
        if let Some(index) = found {
            let buffer = buffers.idle.swap_remove(index);
            buffers.bytes -= buffer.len();
            return Self(buffer);
        }
        drop(buffers);
        Self(vec![0; size.next_multiple_of(1 << 20)])
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffers = BUFFERS.lock();
        let size = self.0.len();
        if size <= LARGEST_KEPT && buffers.bytes + size <= KEPT {
            buffers.bytes += size;
            buffers.idle.push(std::mem::take(&mut self.0));
        }
    }
}

/// Makes readers that read local files directly and leave all else to `inner`.
#[derive(Debug)]
struct LocalReaderFactory {
    inner: Arc<dyn ParquetFileReaderFactory>,
}

impl ParquetFileReaderFactory for LocalReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        partitioned_file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = format!("/{}", partitioned_file.object_meta.location);
        let size = partitioned_file.object_meta.size;
        let inner = self.inner.create_reader(
            partition_index,
            partitioned_file,
            metadata_size_hint,
            metrics,
        )?;
        Ok(Box::new(LocalReader { inner, path: path.into(), size, file: None }))
    }
}

struct LocalReader {
    inner: Box<dyn AsyncFileReader + Send>,
    path: PathBuf,
    size: u64,
    file: Option<File>,
}

impl LocalReader {
    /// The file, if it is there and still as long as when it was listed.
    fn file(&mut self) -> Option<&File> {
        if self.file.is_none() {
            let file = File::open(&self.path).ok()?;
            if file.metadata().ok()?.len() != self.size {
                return None;
            }
            self.file = Some(file);
        }
        self.file.as_ref()
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Option<std::io::Result<Vec<Bytes>>> {
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let file = self.file()?;
        let mut lent = Lent::of(total as usize);
        let mut at = 0;
        for range in ranges {
            let length = (range.end - range.start) as usize;
            if let Err(error) = file.read_exact_at(&mut lent.0[at..at + length], range.start) {
                return Some(Err(error));
            }
            at += length;
        }
        let whole = Bytes::from_owner(lent);
        let mut start = 0;
        let slice = |range: &Range<u64>| {
            let end = start + (range.end - range.start) as usize;
            let slice = whole.slice(start..end);
            start = end;
            slice
        };
        Some(Ok(ranges.iter().map(slice).collect()))
    }
}

impl AsyncFileReader for LocalReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let mut all = self.get_byte_ranges(vec![range]).await?;
            Ok(all.remove(0))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            match self.read(&ranges) {
                Some(Ok(read)) => Ok(read),
                Some(Err(error)) => Err(ParquetError::External(Box::new(error))),
                None => self.inner.get_byte_ranges(ranges).await,
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.inner.get_metadata(options)
    }
}

/// Lets scans of local Parquet files read directly.
#[derive(Debug, Default)]
pub(crate) struct LocalRead;

impl PhysicalOptimizerRule for LocalRead {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match local_scan(&node) {
            Some(scan) => Ok(Transformed::yes(scan)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "local_read"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn local_scan(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = node.downcast_ref::<DataSourceExec>()?;
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
    if config.object_store_url != ObjectStoreUrl::local_filesystem() {
        return None;
    }
    let inner = Arc::clone(source.parquet_file_reader_factory()?);
    let factory = Arc::new(LocalReaderFactory { inner });
    let source = source.clone().with_parquet_file_reader_factory(factory);
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
    Some(DataSourceExec::from_data_source(config))
}
