//! Calls that have all they need, in the order in which they are to run.

use rasker_protocol::{Calls, Priority};
use std::collections::VecDeque;

/// What comes first runs first.
pub(crate) type Rank = (Priority, u64, u32);

fn rank_of(calls: &Calls) -> Rank {
    (calls.priority, calls.run.layer.0, calls.run.start)
}

/// A line of calls. They are large and lie still, in places that are used again; what moves as
/// calls come and go is their ranks. Mostly they come at the end and go from the front.
#[derive(Default)]
pub(crate) struct Ready {
    line: VecDeque<(Rank, u32)>,
    places: Vec<Option<Calls>>,
    free: Vec<u32>,
}

impl Ready {
    /// Puts calls in line. Those that have the same rank already make way for them.
    pub fn insert(&mut self, calls: Calls) {
        let rank = rank_of(&calls);
        let at = match (self.line.front(), self.line.back()) {
            (None, _) | (_, None) => 0,
            (_, Some((last, _))) if *last < rank => self.line.len(),
            (Some((first, _)), _) if rank < *first => 0,
            _ => match self.line.binary_search_by(|(other, _)| other.cmp(&rank)) {
                Ok(at) => {
                    let (_, place) = self.line[at];
                    self.places[place as usize] = Some(calls);
                    return;
                }
                Err(at) => at,
            },
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        self.places[place as usize] = Some(calls);
        self.line.insert(at, (rank, place));
    }

    /// Takes out the calls that stand at `at`, or the first so many of them.
    pub fn take(&mut self, at: usize, count: u32) -> Calls {
        let (_, place) = self.line[at];
        let calls = self.places[place as usize].as_mut().expect("calls in line have a place");
        if calls.run.count <= count {
            return self.remove(at);
        }
        let front = calls.split_front(count);
        let rank = rank_of(calls);
        let is_next = self.line.get(at + 1).is_none_or(|(next, _)| rank < *next);
        if is_next {
            self.line[at].0 = rank;
        } else {
            // Runs that overlap come from nobody who is in his senses, and are kept in order too.
            let rest = self.remove(at);
            self.insert(rest);
        }
        front
    }

    fn remove(&mut self, at: usize) -> Calls {
        let (_, place) = match at {
            0 => self.line.pop_front(),
            _ => self.line.remove(at),
        }
        .expect("a position in line");
        self.free.push(place);
        self.places[place as usize].take().expect("calls in line have a place")
    }

    /// Takes out all calls that are not to stay, in order.
    pub fn extract(&mut self, is_to_go: impl Fn(&Calls) -> bool) -> Vec<Calls> {
        let mut gone = Vec::new();
        self.line.retain(|(_, place)| {
            let calls = &mut self.places[*place as usize];
            let goes = calls.as_ref().is_some_and(&is_to_go);
            if goes {
                gone.extend(calls.take());
                self.free.push(*place);
            }
            !goes
        });
        gone
    }

    /// The calls, the first in line first.
    pub fn iter(&self) -> impl Iterator<Item = &Calls> {
        self.line.iter().filter_map(|(_, place)| self.places[*place as usize].as_ref())
    }

    pub fn len(&self) -> usize {
        self.line.len()
    }

    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Ready::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rasker_graph::*;
    use rasker_protocol::{CallWork, Label};
    use smallvec::smallvec;

    fn calls(user: i64, start: u32, count: u32) -> Calls {
        let inputs = vec![Input::Values(Column::range(start.into(), 1, count))];
        Calls {
            run: Run::new(LayerId(1), start, count),
            attempt: 0,
            priority: Priority { user, ..Priority::default() },
            template: TemplateId(1),
            fused: smallvec![],
            label: Label { name: "inc".into(), key: Key(1), layer: true, text: None },
            work: CallWork::Map { inputs, constants: Blob::EMPTY },
            sources: smallvec![],
            alone: false,
            reads: smallvec![],
        }
    }

    fn line(ready: &Ready) -> Vec<(i64, u32, u32)> {
        ready.iter().map(|calls| (calls.priority.user, calls.run.start, calls.run.count)).collect()
    }

    #[test]
    fn calls_stand_in_line_however_they_come() {
        let mut ready = Ready::default();
        for (user, start) in [(0, 5), (0, 9), (-1, 7), (0, 6), (3, 0), (-1, 2)] {
            ready.insert(calls(user, start, 1));
        }
        assert_eq!(
            line(&ready),
            [(-1, 2, 1), (-1, 7, 1), (0, 5, 1), (0, 6, 1), (0, 9, 1), (3, 0, 1)]
        );
        // A place that was left is used again, and its calls stand where their rank is.
        assert_eq!(ready.take(1, 1).run.start, 7);
        assert_eq!(ready.take(0, 1).run.start, 2);
        ready.insert(calls(0, 7, 1));
        ready.insert(calls(-2, 1, 1));
        let gone = ready.extract(|calls| calls.run.start == 6);
        assert_eq!(gone.iter().map(|calls| calls.run.start).collect::<Vec<_>>(), [6]);
        assert_eq!(line(&ready), [(-2, 1, 1), (0, 5, 1), (0, 7, 1), (0, 9, 1), (3, 0, 1)]);
        assert_eq!(ready.places.len(), 6);
        // What has the same rank makes way.
        ready.insert(calls(0, 7, 2));
        assert_eq!(line(&ready)[2], (0, 7, 2));
        assert_eq!(ready.len(), 5);
    }

    #[test]
    fn what_is_left_of_a_run_keeps_its_rank() {
        let mut ready = Ready::default();
        ready.insert(calls(0, 0, 10));
        ready.insert(calls(0, 10, 2));
        assert_eq!(ready.take(0, 4).run, Run::new(LayerId(1), 0, 4));
        assert_eq!(line(&ready), [(0, 4, 6), (0, 10, 2)]);
        assert_eq!(ready.take(1, 9).run, Run::new(LayerId(1), 10, 2));
        // Runs that overlap are kept in order as well.
        ready.insert(calls(0, 5, 1));
        assert_eq!(ready.take(0, 3).run, Run::new(LayerId(1), 4, 3));
        assert_eq!(line(&ready), [(0, 5, 1), (0, 7, 3)]);
    }
}
