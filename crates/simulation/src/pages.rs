//! Graphs of listed tasks, in all shapes that a page can have.

use crate::acts::any_template;
use crate::oracle::NodeId;
use crate::user::{Scene, User};
use rasker_graph::{TaskId, TemplateId};

type Entered = (TaskId, NodeId);

/// A call that others make too, in `pure` percent of cases; else one of its own.
fn any_call(scene: &mut Scene<'_>, pure: u64) -> (TemplateId, i64) {
    let arg =
        if scene.random.chance(pure) { scene.random.below(6) } else { scene.random.next() >> 1 };
    (any_template(scene), arg as i64)
}

impl User {
    /// Enters a graph of some shape, over tasks that are held already.
    pub(crate) fn page(&mut self, scene: &mut Scene<'_>) {
        let n_held = scene.random.below(3) as usize;
        let pool = self.any_tasks(scene, n_held);
        let shape = scene.random.below(6);
        let n = scene.random.between(1, scene.swarm.size) as usize;
        scene.book.count("a page was submitted");
        match shape {
            0 => self.single_tasks(scene, n.min(20)),
            1 => self.chain(scene, pool, n * 2),
            2 => self.merge(scene, pool, n),
            3 => self.tree(scene, pool, n),
            4 => self.diamond(scene, &pool),
            _ => self.tangle(scene, pool),
        }
    }

    fn add(
        &mut self,
        scene: &mut Scene<'_>,
        pure: u64,
        inputs: &[Entered],
        wanted: bool,
    ) -> Entered {
        let call = any_call(scene, pure);
        self.enter(scene, None, call, inputs, wanted)
    }

    fn single_tasks(&mut self, scene: &mut Scene<'_>, n: usize) {
        for _ in 0..n {
            self.add(scene, 100, &[], true);
        }
    }

    fn chain(&mut self, scene: &mut Scene<'_>, mut pool: Vec<Entered>, length: usize) {
        let length = if scene.random.chance(1) { 1000 } else { length };
        let mut last: Vec<_> = pool.pop().into_iter().collect();
        for i in 0..length {
            last = vec![self.add(scene, 30, &last, i + 1 == length)];
        }
    }

    fn merge(&mut self, scene: &mut Scene<'_>, mut pool: Vec<Entered>, width: usize) {
        let width = if scene.random.chance(2) { 500 } else { width };
        for _ in 0..width {
            pool.push(self.add(scene, 0, &[], false));
        }
        self.add(scene, 0, &pool, true);
    }

    fn tree(&mut self, scene: &mut Scene<'_>, mut level: Vec<Entered>, n: usize) {
        for _ in 0..n.max(2) {
            level.push(self.add(scene, 100, &[], false));
        }
        while level.len() > 1 {
            let is_root = level.len() <= 2;
            let pairs = level.chunks(2);
            level = pairs.map(|pair| self.add(scene, 100, pair, is_root)).collect();
        }
    }

    fn diamond(&mut self, scene: &mut Scene<'_>, pool: &[Entered]) {
        let top = self.add(scene, 100, pool, false);
        let n = scene.random.between(2, 5);
        let sides: Vec<_> = (0..n).map(|_| self.add(scene, 0, &[top], false)).collect();
        self.add(scene, 100, &sides, true);
    }

    fn tangle(&mut self, scene: &mut Scene<'_>, mut pool: Vec<Entered>) {
        let size = (scene.swarm.size as usize).min(60);
        for i in 0..size {
            let call = any_call(scene, 30);
            let n = scene.random.below(4) as usize;
            let mut inputs = Vec::new();
            for _ in 0..n.min(pool.len()) {
                inputs.push(*scene.random.pick(&pool));
            }
            let wanted = i + 1 == size || scene.random.chance(30);
            pool.push(self.enter(scene, None, call, &inputs, wanted));
        }
    }
}
