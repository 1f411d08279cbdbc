//! A client of a scheduler elsewhere: its session goes on when its connection was cut off.

use crate::cluster::Core;
use crate::ledger::Ledger;
use crate::node::{Trust, greet};
use crate::process;
use crate::readers::{Access, Directory, Readers};
use crate::session::Session;
use crate::wire::pump_frames;
use parking_lot::Mutex;
use rasker_graph::ClientId;
use rasker_protocol::{FromClient, Hello, Resumes, ToClient, Tracked, Welcome};
use rasker_store::{Arena, ArenaOptions};
use rasker_transport::{LinkOptions, Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A scheduler that was lost is looked for so long: it keeps what the client holds as long.
const SEARCH_MAX: Duration = Duration::from_secs(300);
/// It is tried again after so long, and ever longer.
const TRY_AGAIN: Duration = Duration::from_millis(20);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Time for one attempt.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// A client's connection to a scheduler elsewhere.
pub struct RemoteSession {
    pub session: Session,
    pub arena: Arena,
    core: Arc<Core>,
    ledger: Arc<Mutex<Ledger>>,
}

impl RemoteSession {
    pub fn connect(
        address: &str,
        trust: &Trust,
        name: &str,
        python: &str,
        timeout: Duration,
    ) -> Result<RemoteSession, String> {
        let core = Core::start("rasker-client").map_err(|error| error.to_string())?;
        let arena = Arena::new(ArenaOptions::default());
        let link = LinkOptions { arena: Some(arena.clone()), ..LinkOptions::default() };
        let way = Way {
            address: address.to_owned(),
            trust: trust.clone(),
            name: name.to_owned(),
            python: python.to_owned(),
            link: link.clone(),
        };
        let greeting = way.greet(None, timeout);
        let (sender, receiver, welcome) = core.handle.block_on(greeting)?;
        let access = Access {
            credentials: Some(trust.credentials.clone()),
            tls: trust.client.clone(),
            link,
        };
        let readers = Readers::new(Directory::default(), access);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let number = ledger.lock().attach(sender, 0);
        let (to, counting) = (ledger.clone(), ledger.clone());
        let outlet = Box::new(move |message: FromClient| to.lock().send(&message));
        let sent = Box::new(move || counting.lock().nbytes_sent());
        let handle = core.handle.clone();
        let id = ClientId(welcome.id);
        let session = Session::new(id, outlet, readers, handle.clone(), sent);
        let secret = welcome.session;
        handle.spawn(way.keep(session.clone(), ledger.clone(), receiver, (number, secret)));
        Ok(RemoteSession { session, arena, core: Arc::new(core), ledger })
    }

    /// What ends the session; it may be called more than once.
    pub fn ender(&self) -> impl Fn() + Send + Sync + 'static {
        let (session, core, ledger) =
            (self.session.clone(), self.core.clone(), self.ledger.clone());
        move || {
            session.flush();
            ledger.lock().end();
            // What is queued is written before the connection is closed.
            for _ in 0..100 {
                if ledger.lock().queued_nbytes() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            ledger.lock().close();
            session.end("the client was closed");
            core.stop();
        }
    }
}

/// How the scheduler is reached.
struct Way {
    address: String,
    trust: Trust,
    name: String,
    python: String,
    link: LinkOptions,
}

impl Way {
    async fn greet(
        &self,
        resumes: Option<Resumes>,
        timeout: Duration,
    ) -> Result<(Sender, Receiver, Welcome), String> {
        let (name, python) = (self.name.clone(), self.python.clone());
        let process = process::own();
        let hello = Hello::Client { name, python, resumes, process };
        greet(&self.address, &self.trust, &hello, timeout, self.link.clone()).await
    }

    /// Brings messages of the scheduler to the session, over one connection after the other.
    async fn keep(
        self,
        session: Session,
        ledger: Arc<Mutex<Ledger>>,
        mut receiver: Receiver,
        (mut number, secret): (u64, u128),
    ) {
        loop {
            let reason = pump_frames(receiver, |message: Tracked<ToClient>, nbytes| {
                match message {
                    Tracked::Message(message) => {
                        ledger.lock().receive(nbytes);
                        session.receive(message);
                    }
                    Tracked::Received(n) => ledger.lock().acknowledge(n),
                    Tracked::Goodbye => {
                        ledger.lock().end();
                        return false;
                    }
                }
                true
            })
            .await;
            ledger.lock().part(number);
            let ended = format!("the connection to the scheduler ended: {reason}");
            if ledger.lock().is_over() {
                return session.end(&ended);
            }
            match self.search(&ledger, secret).await {
                Ok((sender, again, welcome)) => {
                    number = ledger.lock().attach(sender, welcome.n_received);
                    receiver = again;
                }
                Err(what) => {
                    ledger.lock().end();
                    return session.end(&format!("{ended}; {what}"));
                }
            }
        }
    }

    /// Looks for the scheduler until it goes on with this session.
    async fn search(
        &self,
        ledger: &Mutex<Ledger>,
        session: u128,
    ) -> Result<(Sender, Receiver, Welcome), String> {
        let until = Instant::now() + SEARCH_MAX;
        let mut pause = TRY_AGAIN;
        while Instant::now() < until && !ledger.lock().is_over() {
            let n_received = ledger.lock().n_received();
            let resumes = Some(Resumes { session, n_received });
            match self.greet(resumes, GREETING_MAX).await {
                Ok(joined) if joined.2.session == session => return Ok(joined),
                Ok(_) => {
                    let text = "the scheduler does not know this client any more: it was away for \
                                too long, or the scheduler was started anew";
                    return Err(text.to_owned());
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(TRY_AGAIN_MAX);
        }
        Err(format!("it was not found again within {} s", SEARCH_MAX.as_secs()))
    }
}
