//! Clients of other processes at the scheduler: their sessions outlast their connections.

use crate::ledger::Ledger;
use crate::process;
use crate::scheduler_loop::{Input, SchedulerHandle};
use crate::wire::{pump_frames, to_frame};
use parking_lot::Mutex;
use rasker_graph::ClientId;
use rasker_protocol::{FromClient, PROTOCOL, Process, Resumes, ToClient, Tracked, Welcome};
use rasker_transport::{Connection, Receiver, Sender, Token};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that is away for longer is counted as gone.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// Whether its process is still there is looked at after so long, and ever less often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

struct Guest {
    id: ClientId,
    secret: u128,
    process: Option<Process>,
    ledger: Mutex<Ledger>,
}

/// The sessions of a scheduler, by their secrets.
#[derive(Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<HashMap<u128, Arc<Guest>>>>);

/// A number that nobody can guess.
fn new_secret() -> Option<u128> {
    u128::from_str_radix(&Token::generate().ok()?.to_hex()[..32], 16).ok()
}

/// Waits for a client to come back, until it has been away for too long or its process has ended.
/// Whether it stayed away.
async fn stays_away(guest: &Guest, number: u64) -> bool {
    let until = Instant::now() + AWAY_MAX;
    let mut pause = LOOK_AGAIN;
    while Instant::now() < until {
        tokio::time::sleep(pause).await;
        if !guest.ledger.lock().is_away_since(number) {
            return false;
        }
        if guest.process.as_ref().is_some_and(process::has_ended) {
            break;
        }
        pause = (pause * 2).min(LOOK_AGAIN_MAX);
    }
    guest.ledger.lock().is_away_since(number)
}

fn welcome(scheduler: &SchedulerHandle, to: &Sender, guest: Option<&Guest>, n: u64) -> bool {
    let (id, session) = guest.map_or((0, 0), |guest| (guest.id.0, guest.secret));
    let (epoch, protocol) = (scheduler.epoch, PROTOCOL);
    let welcome = Welcome { epoch, id, protocol, session, n_received: n };
    to_frame(&welcome).is_ok_and(|frame| to.send(frame).is_ok())
}

impl Guests {
    /// Lets a client in, to a session of its own or to one that was cut off.
    pub fn arrive(
        &self,
        scheduler: &SchedulerHandle,
        connection: Connection,
        who: (String, Option<Process>),
        resumes: Option<Resumes>,
    ) {
        let (sender, receiver) = connection.split();
        let (guest, n_received) = match resumes {
            None => match self.enter(scheduler, who) {
                Some(guest) => (guest, 0),
                None => return,
            },
            Some(resumes) => match self.find(resumes.session) {
                Some(guest) => (guest, resumes.n_received),
                // It was away for too long, or the scheduler is another one.
                None => {
                    welcome(scheduler, &sender, None, 0);
                    return;
                }
            },
        };
        let number = {
            let mut ledger = guest.ledger.lock();
            if !welcome(scheduler, &sender, Some(&guest), ledger.n_received()) {
                return;
            }
            ledger.attach(sender, n_received)
        };
        tokio::spawn(self.clone().attend(scheduler.clone(), guest, receiver, number));
    }

    fn find(&self, secret: u128) -> Option<Arc<Guest>> {
        self.0.lock().get(&secret).filter(|guest| !guest.ledger.lock().is_over()).cloned()
    }

    fn enter(
        &self,
        scheduler: &SchedulerHandle,
        (name, process): (String, Option<Process>),
    ) -> Option<Arc<Guest>> {
        let (id, secret) = (ClientId(scheduler.new_id()), new_secret()?);
        let guest = Arc::new(Guest { id, secret, process, ledger: Mutex::default() });
        self.0.lock().insert(secret, guest.clone());
        let to = guest.clone();
        let outlet = Box::new(move |message: ToClient| to.ledger.lock().send(&message));
        scheduler.send(Input::Client(id, name, outlet));
        Some(guest)
    }

    /// Serves one connection of a session, and waits for the next.
    async fn attend(
        self,
        scheduler: SchedulerHandle,
        guest: Arc<Guest>,
        receiver: Receiver,
        number: u64,
    ) {
        let mut is_leaving = false;
        let take = |message: Tracked<FromClient>, nbytes: usize| {
            let mut ledger = guest.ledger.lock();
            if !ledger.is_current(number) {
                return false;
            }
            match message {
                Tracked::Message(message) => {
                    ledger.receive(nbytes);
                    scheduler.send(Input::FromClient(guest.id, message))
                }
                Tracked::Received(n) => {
                    ledger.acknowledge(n);
                    true
                }
                Tracked::Goodbye => {
                    is_leaving = true;
                    false
                }
            }
        };
        pump_frames(receiver, take).await;
        if !guest.ledger.lock().part(number) {
            return;
        }
        if !is_leaving && !stays_away(&guest, number).await {
            return;
        }
        self.dismiss(&scheduler, &guest);
    }

    fn dismiss(&self, scheduler: &SchedulerHandle, guest: &Guest) {
        if self.0.lock().remove(&guest.secret).is_some() {
            guest.ledger.lock().end();
            scheduler.send(Input::ClientLeft(guest.id));
        }
    }

    /// The scheduler ends: clients need not look for it.
    pub fn say_goodbye(&self) {
        for (_, guest) in self.0.lock().drain() {
            guest.ledger.lock().end();
        }
    }
}
