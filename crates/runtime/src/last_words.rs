//! What an executor wrote to its standard error: passed on as it comes, and the end of it kept for
//! the case that it was the last.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::process::ChildStderr;
use std::sync::Arc;
use std::time::Duration;

const KEPT_NBYTES: usize = 4 << 10;
const LINES_MAX: usize = 12;
/// Programs that an executor has started may keep its standard error open.
const WAIT_MAX: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Heard {
    tail: VecDeque<u8>,
    is_over: bool,
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Heard>>);

impl LastWords {
    /// Listens on a thread of its own: where the words go may block.
    pub fn hear(mut from: ChildStderr) -> LastWords {
        let words = LastWords::default();
        let heard = words.clone();
        let listen = move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = from.read(&mut bytes)
                && n > 0
            {
                {
                    let mut heard = heard.0.lock();
                    heard.tail.extend(&bytes[..n]);
                    let excess = heard.tail.len().saturating_sub(KEPT_NBYTES);
                    heard.tail.drain(..excess);
                }
                let _ = std::io::stderr().write_all(&bytes[..n]);
            }
            heard.0.lock().is_over = true;
        };
        let thread = std::thread::Builder::new().name("rasker-stderr".to_owned());
        if thread.stack_size(128 << 10).spawn(listen).is_err() {
            words.0.lock().is_over = true;
        }
        words
    }

    /// The last lines, once all is heard.
    pub async fn lines(&self) -> Vec<String> {
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while !self.0.lock().is_over && waited < WAIT_MAX {
            tokio::time::sleep(step).await;
            waited += step;
        }
        let tail: Vec<u8> = self.0.lock().tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].to_vec()
    }
}
