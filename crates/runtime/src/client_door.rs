//! Clients of other processes at the scheduler: their sessions outlast their connections.

use crate::ledger::Ledger;
use crate::scheduler_loop::{Input, SchedulerHandle};
use crate::wire::{pump_frames, to_frame};
use parking_lot::Mutex;
use rasker_graph::ClientId;
use rasker_protocol::{FromClient, PROTOCOL, Resumes, ToClient, Tracked, Welcome};
use rasker_transport::{Connection, Receiver, Sender, Token};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A client that is away for longer is counted as gone.
const AWAY_MAX: Duration = Duration::from_secs(300);

struct Guest {
    id: ClientId,
    secret: u128,
    ledger: Mutex<Ledger>,
}

/// The sessions of a scheduler, by their secrets.
#[derive(Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<HashMap<u128, Arc<Guest>>>>);

/// A number that nobody can guess.
fn new_secret() -> Option<u128> {
    u128::from_str_radix(&Token::generate().ok()?.to_hex()[..32], 16).ok()
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
        name: String,
        resumes: Option<Resumes>,
    ) {
        let (sender, receiver) = connection.split();
        let (guest, n_received) = match resumes {
            None => match self.enter(scheduler, name) {
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

    fn enter(&self, scheduler: &SchedulerHandle, name: String) -> Option<Arc<Guest>> {
        let (id, secret) = (ClientId(scheduler.new_id()), new_secret()?);
        let guest = Arc::new(Guest { id, secret, ledger: Mutex::default() });
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
        if !is_leaving {
            tokio::time::sleep(AWAY_MAX).await;
            if !guest.ledger.lock().is_away_since(number) {
                return;
            }
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
