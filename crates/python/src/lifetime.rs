//! How long workers of a program live: each retires when its time has come, and may begin anew.

use pyo3::prelude::*;
use rasker_runtime::WorkerNode;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A worker whose time has come ends what it runs and hands over what only it holds; after so long
/// it ends all the same, and its calls run elsewhere.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a user says of a worker's life, s.
#[derive(Clone, Copy, Default, FromPyObject)]
pub struct Lifetime {
    #[pyo3(item)]
    pub duration: Option<f64>,
    /// The duration differs from worker to worker by so much, so that not all end at once.
    #[pyo3(item)]
    pub stagger: f64,
    /// A worker begins anew when its time is over.
    #[pyo3(item)]
    pub restart: bool,
}

struct Post {
    index: u32,
    node: WorkerNode,
    ends: Option<Instant>,
    is_over: bool,
}

/// The workers of a program.
pub struct Posts<'a> {
    posts: Vec<Post>,
    lifetime: Lifetime,
    start: &'a dyn Fn(Python<'_>, u32) -> PyResult<WorkerNode>,
}

impl Posts<'_> {
    pub fn begin<'a>(
        py: Python<'_>,
        n: u32,
        lifetime: Lifetime,
        start: &'a dyn Fn(Python<'_>, u32) -> PyResult<WorkerNode>,
    ) -> PyResult<Posts<'a>> {
        let mut posts = Posts { posts: Vec::new(), lifetime, start };
        for index in 0..n {
            posts.fill(py, index)?;
        }
        Ok(posts)
    }

    fn fill(&mut self, py: Python<'_>, index: u32) -> PyResult<()> {
        let node = (self.start)(py, index)?;
        let ends = match self.lifetime.duration {
            None => None,
            Some(seconds) => {
                let random: f64 = py.import("random")?.call_method0("random")?.extract()?;
                let seconds = seconds + (random * 2.0 - 1.0) * self.lifetime.stagger;
                Some(Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
            }
        };
        self.posts.push(Post { index, node, ends, is_over: false });
        Ok(())
    }

    /// Serves until a worker ends by itself, all lives are over, or a signal comes; why it was, if
    /// it was no signal.
    pub fn serve(&mut self, py: Python<'_>) -> PyResult<Option<String>> {
        while py.check_signals().is_ok() {
            py.detach(|| std::thread::sleep(LOOK_EVERY));
            let mut at = 0;
            while at < self.posts.len() {
                if let Some(reason) = self.look(py, at)? {
                    return Ok(Some(reason));
                }
                at += 1;
            }
            self.posts.sort_by_key(|post| post.index);
            if self.posts.is_empty() {
                return Ok(Some("its lifetime was over".to_owned()));
            }
        }
        Ok(None)
    }

    /// Looks after one worker; why it ended, if it was not its time.
    fn look(&mut self, py: Python<'_>, at: usize) -> PyResult<Option<String>> {
        let post = &mut self.posts[at];
        let ended = py.detach(|| post.node.wait(Duration::ZERO));
        let is_due = post.ends.is_some_and(|ends| Instant::now() >= ends);
        if !post.is_over {
            if ended.is_none() && is_due {
                println!("worker at {} retires: its lifetime is over", post.node.address);
                post.node.retire();
                post.is_over = true;
                post.ends = Some(Instant::now() + PATIENCE);
            }
            return Ok(ended);
        }
        if ended.is_some() || is_due {
            let post = self.posts.remove(at);
            py.detach(|| post.node.close());
            println!("worker at {} ended: its lifetime was over", post.node.address);
            if self.lifetime.restart {
                self.fill(py, post.index)?;
            }
        }
        Ok(None)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &WorkerNode> {
        self.posts.iter().map(|post| &post.node)
    }
}
