//! Everything that can happen to the scheduler, and everything it can ask for.

use rasker_graph::ClientId;
use rasker_protocol::{FromClient, FromWorker, ToClient, ToWorker, WorkerHello, WorkerId};

#[derive(Clone, Debug)]
pub enum Event {
    /// A connection was accepted under a new id.
    ClientJoined {
        client: ClientId,
        name: String,
    },
    ClientLeft {
        client: ClientId,
    },
    FromClient {
        client: ClientId,
        message: FromClient,
    },
    WorkerJoined {
        worker: WorkerId,
        hello: WorkerHello,
    },
    /// The connection ended.
    WorkerLeft {
        worker: WorkerId,
        reason: String,
    },
    FromWorker {
        worker: WorkerId,
        message: FromWorker,
    },
    /// About a second has gone by since the last of these.
    Tick,
    /// The end of a batch of events: decide, and say what is to be said.
    Turn,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    ToClient(ClientId, ToClient),
    ToWorker(WorkerId, ToWorker),
}
