//! The loops: they feed the machines, perform their actions, and decide nothing.
//!
//! ```text
//!   user's threads ── Session ──► client machine ─┐          one thread, "rasker-core", runs all
//!                                                 ▼          loops of a process; values and calls
//!   scheduler loop ◄─────────────────────────► worker loop   cross to executors by socket or queue
//!                                                 ▼
//!                                     executors: Pool of threads, here or in a process
//! ```
//!
//! # Invariants
//!
//! - Nothing here names a language: what runs calls is a [`Runner`] installed from above
//!   (guarded by `a_cluster_of_threads_runs_a_map`).
//! - Results never wait for the call after them
//!   (guarded by `a_result_is_reported_while_the_next_call_runs`).
//! - Everything that was submitted before a wait is sent before it
//!   (guarded by `a_cluster_of_threads_runs_a_map`).
//! - A native call that panics fails its task and nothing else
//!   (guarded by `a_panic_fails_its_task_and_nothing_else`).
//! - Memory that native calls reserve makes values leave, and stays within the limit
//!   (guarded by `reservations_stay_within_the_limit_and_are_told`,
//!   `a_call_waits_until_values_have_made_room`).
//!
//! Reading order: `runner`, `collector`, `pool`, `executors`, `last_words`, `executor_process`,
//! `budget`, `native`, `memory`, `disk`, `worker_loop`, `scheduler_loop`, `readers`, `routes`,
//! `session`, `cluster`, `node`, `worker_node`, `ledger`, `client_door`, `remote_session`, `wire`.

mod budget;
mod client_door;
mod cluster;
mod collector;
mod disk;
mod executor_process;
mod executors;
mod last_words;
mod ledger;
mod memory;
mod native;
mod node;
mod pool;
mod process;
mod readers;
mod remote_session;
mod routes;
mod runner;
mod scheduler_loop;
mod session;
mod wire;
mod worker_loop;
mod worker_node;

pub use budget::Budget;
pub use cluster::{Cluster, ClusterOptions};
pub use executor_process::serve_executor;
pub use executors::ExecutorKind;
pub use memory::MemorySettings;
pub use native::{Cancellation, NativeCall, NativeContext, NativeInput, NativeRunner, bytes_of};
pub use node::{SchedulerNode, Trust};
pub use rasker_scheduler::SchedulerOptions;
pub use rasker_transport::{Credentials, Fingerprint, TlsClient, TlsServer, Token};
pub use rasker_worker::MemoryOptions;
pub use readers::Got;
pub use remote_session::RemoteSession;
pub use routes::host_toward;
pub use runner::{Runner, Sink};
pub use session::{Answers, Callback, Session, Waiter};
pub use worker_node::{WorkerNode, WorkerNodeOptions};
