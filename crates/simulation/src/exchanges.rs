//! Exchanges as users submit them: writers, one or two exchanges of them, and readers of ranges of
//! parts. Any value is taken to be parted: each of its parts is a number that follows from it.

use crate::acts::{any_options, any_template, key_of};
use crate::oracle::{Deed, NodeId, VARIANTS, deed, template};
use crate::random::mix;
use crate::user::{Scene, User};
use rasker_client::NewTask;
use rasker_graph::{Blob, PartRange, TaskId};
use rasker_protocol::{FromHolder, GotPiece, Piece, Value};
use rasker_worker::{HeldPart, PartReply};

type Entered = (TaskId, NodeId);

/// A part of a value.
pub fn part_of(value: i64, part: u32) -> i64 {
    mix(value as u64, u64::from(part) + 1000) as i64
}

/// Parts of a value, as a holder cuts them out.
pub fn cut(value: i64, parts: PartRange) -> Piece {
    let data: Vec<u8> =
        (parts.start..parts.end).flat_map(|part| part_of(value, part).to_le_bytes()).collect();
    let ends = (1..=u64::from(parts.end - parts.start)).map(|n| 8 * n).collect();
    Piece { ends, data: Blob::from(data) }
}

/// The numbers in a piece.
pub fn read_piece(piece: &Piece) -> Vec<i64> {
    let Blob::Bytes(bytes) = &piece.data else { unreachable!("pieces are bytes") };
    let numbers = bytes.chunks_exact(8);
    numbers.map(|number| i64::from_le_bytes(number.try_into().expect("eight bytes"))).collect()
}

/// What a holder answers.
pub fn answer(id: u64, parts: Vec<PartReply>, read: impl Fn(&Value) -> Option<i64>) -> FromHolder {
    let pieces = parts.into_iter().map(|PartReply { task, parts, part }| {
        let piece = part.map(|part| {
            part.and_then(|part| match part {
                HeldPart::Piece(piece) => Some(piece),
                HeldPart::Whole(value) => read(&value).map(|value| cut(value, parts)),
            })
        });
        GotPiece { task, parts, piece }
    });
    FromHolder::GotParts { id, pieces: pieces.collect() }
}

impl User {
    /// Enters writers, exchanges of them, and readers.
    pub(crate) fn exchange(&mut self, scene: &mut Scene<'_>) {
        scene.book.count("an exchange was submitted");
        let n_held = scene.random.below(2) as usize;
        let held = self.any_tasks(scene, n_held);
        let n_sides = scene.random.between(1, 2);
        let n_writers = scene.random.between(1, scene.swarm.size.min(12));
        let sides: Vec<(TaskId, Vec<Entered>)> =
            (0..n_sides).map(|_| self.one_exchange(scene, n_writers, &held)).collect();
        let n_readers = scene.random.between(1, scene.swarm.size.min(12)) as u32;
        let width = scene.random.between(1, 3) as u32;
        for at in 0..n_readers {
            let parts = PartRange { start: at * width, end: (at + 1) * width };
            self.reader(scene, &sides, parts, &held);
        }
    }

    fn one_exchange(
        &mut self,
        scene: &mut Scene<'_>,
        n_writers: u64,
        held: &[Entered],
    ) -> (TaskId, Vec<Entered>) {
        let mut writers = Vec::new();
        for _ in 0..n_writers {
            // Endless writers would keep their readers for ever.
            let template = match any_template(scene) {
                id if deed(id) == Deed::Endless => template(Deed::Small, 0),
                id => id,
            };
            let pure = scene.random.chance(40);
            let arg = if pure { scene.random.below(6) } else { scene.random.next() >> 1 };
            let inputs = if scene.random.chance(20) { held } else { &[] };
            let wanted = scene.random.chance(15);
            writers.push(self.enter(scene, None, (template, arg as i64), inputs, wanted));
        }
        let tasks: Vec<TaskId> = writers.iter().map(|(task, _)| *task).collect();
        let key = key_of(8, writers.iter().map(|(_, node)| u64::from(node.0)));
        (self.client.exchange(key, &tasks), writers)
    }

    fn reader(
        &mut self,
        scene: &mut Scene<'_>,
        sides: &[(TaskId, Vec<Entered>)],
        parts: PartRange,
        held: &[Entered],
    ) {
        // Natively or in an executor, whatever it comes to there.
        let template = match any_template(scene) {
            id if deed(id) == Deed::Endless || scene.random.chance(40) => {
                template(Deed::Native, scene.random.below(VARIANTS))
            }
            id => id,
        };
        self.teach(template);
        // Plain inputs stand between the exchanges.
        let plain: &[Entered] = if scene.random.chance(30) { held } else { &[] };
        let arg = scene.random.below(3) as i64;
        let (mut dependencies, mut reads, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for (exchange, writers) in sides {
            reads.push((dependencies.len() as u32, parts));
            dependencies.push(*exchange);
            read.extend(writers.iter().map(|(_, node)| (*node, Some(parts))));
            dependencies.extend(plain.iter().map(|(task, _)| *task));
            read.extend(plain.iter().map(|(_, node)| (*node, None)));
        }
        let ids = read.iter().map(|(node, _)| u64::from(node.0));
        let own = [template.0 as u64, arg as u64, u64::from(parts.start), u64::from(parts.end)];
        let content = key_of(9, own.into_iter().chain(ids));
        let oracle = &mut *scene.oracle;
        let entry = scene.book.tasks.entry(content);
        let node = *entry.or_insert_with(|| oracle.reader(template, arg, &read));
        let options = any_options(scene);
        let bytes = arg.to_le_bytes();
        let new = NewTask {
            key: content,
            name: None,
            template,
            args: &bytes,
            blob: None,
            dependencies: &dependencies,
            options: Some(options.clone()),
            fused: &[],
        };
        let task = self.client.submit_reader(new, &reads, true);
        let node = self.joined(task, node);
        self.add_handle(task, 1, false, vec![node]);
        scene.book.restricted_tasks.entry(task).or_insert(options);
    }
}
