//! The search for the cheapest order.
//!
//! Up to a dozen tables every bushy tree is looked at (dynamic programming over sets of tables);
//! beyond that the pair that costs least is joined again and again.

use std::collections::HashMap;

use super::graph::{Graph, GraphColumn, Role, Tables, classes};
use crate::estimate::Estimate;
use crate::selectivity::selectivity;

/// Sets of so many tables are searched completely.
const SEARCHED_COMPLETELY: usize = 12;
/// What a row costs that is put into a hash table, against one that is looked up in it.
const BUILD_ROW: f64 = 2.5;
/// What a row costs that comes out of a join.
const OUTPUT_ROW: f64 = 0.7;

/// In which order tables are joined.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Table(usize),
    /// The first is the build side.
    Join(Box<Order>, Box<Order>),
}

#[derive(Clone)]
struct Candidate {
    cost: f64,
    split: Option<(Tables, Tables)>,
}

/// The order that is likely to cost least.
pub(super) fn cheapest(graph: &Graph) -> Order {
    let search = Search::new(graph);
    match graph.tables.len() {
        0..=SEARCHED_COMPLETELY => search.complete(),
        _ => search.greedy(),
    }
}

/// The estimated rows of a join of exactly these tables, whatever the order they are joined in.
pub(super) struct Search<'a> {
    graph: &'a Graph,
    /// Columns that are equal to one another in the result.
    classes: Vec<Vec<GraphColumn>>,
    reducer_share: Vec<f64>,
}

impl<'a> Search<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        let mut search = Self { graph, classes: vec![], reducer_share: vec![] };
        search.classes = classes(graph.keys.clone(), graph.links.iter());
        search.reducer_share =
            (0..graph.tables.len()).map(|table| search.share_kept(table)).collect();
        search
    }

    fn domain(&self, column: GraphColumn) -> f64 {
        self.graph.tables[column.table].estimate.columns[column.column].domain
    }

    /// The share of rows a reducer lets through.
    fn share_kept(&self, reducer: usize) -> f64 {
        let table = &self.graph.tables[reducer];
        let Role::Reducer(keeps) = table.role else { return 1.0 };
        let mut share: f64 = 1.0;
        for link in self.graph.links.iter().filter(|link| link.right.table == reducer) {
            let domain = self.domain(link.left).min(self.domain(link.right)).max(1.0);
            let held = table.estimate.distinct(link.right.column);
            share = share.min((held / domain).min(1.0));
        }
        let filtered = self.graph.predicates.iter().any(|p| p.reducer == Some(reducer));
        match (keeps, filtered) {
            (true, false) => share,
            (true, true) => share * 0.7,
            (false, false) => (1.0 - share).max(0.1),
            (false, true) => 1.0 - share * 0.7,
        }
    }

    pub(super) fn rows(&self, tables: Tables) -> f64 {
        let mut rows = 1.0;
        for index in members(tables) {
            match self.graph.tables[index].role {
                Role::Joined => rows *= self.graph.tables[index].estimate.rows,
                Role::Reducer(_) => rows *= self.reducer_share[index],
            }
        }
        let joined = |column: &&GraphColumn| {
            tables & (1 << column.table) != 0
                && self.graph.tables[column.table].role == Role::Joined
        };
        let mut domains = vec![1.0; self.classes.len()];
        for (class, columns) in self.classes.iter().enumerate() {
            let inside: Vec<_> = columns.iter().filter(joined).collect();
            // Only keys in the range that all of them share can meet.
            let shared = |column: &GraphColumn| self.share_in_range(*column, &inside);
            let domain =
                columns.iter().map(|c| self.domain(*c) * shared(c)).fold(f64::MAX, f64::min);
            domains[class] = domain.max(1.0);
            if inside.len() > 1 {
                rows *= inside.iter().map(|column| shared(column)).product::<f64>();
            }
            for _ in 1..inside.len().max(1) {
                rows /= domains[class];
            }
        }
        rows *= self.correlated(tables, &domains);
        for predicate in self.graph.predicates.iter().filter(|p| p.reducer.is_none()) {
            if predicate.tables() & !tables == 0 {
                rows *= self.predicate_share(predicate);
            }
        }
        rows.max(1.0)
    }

    /// The share of a column's values that lie in the range common to all of `columns`.
    fn share_in_range(&self, column: GraphColumn, columns: &[&GraphColumn]) -> f64 {
        let range = |c: GraphColumn| self.graph.tables[c.table].estimate.columns[c.column].range;
        let Some((least, greatest)) = range(column) else { return 1.0 };
        let ranges = columns.iter().filter_map(|&&c| range(c));
        let (low, high) =
            ranges.fold((least, greatest), |(low, high), (l, h)| (low.max(l), high.min(h)));
        ((high - low + 1.0) / (greatest - least + 1.0)).clamp(1e-6, 1.0)
    }

    /// Two tables that share several keys share them as one key: there are not more pairs of
    /// values than the smaller table has rows.
    fn correlated(&self, tables: Tables, domains: &[f64]) -> f64 {
        let mut factor = 1.0;
        let inside: Vec<usize> = members(tables)
            .filter(|&index| self.graph.tables[index].role == Role::Joined)
            .collect();
        for (position, &a) in inside.iter().enumerate() {
            for &b in &inside[position + 1..] {
                let mut product = 1.0;
                let mut shared = 0;
                let mut table_rows = f64::MAX;
                for (class, columns) in self.classes.iter().enumerate() {
                    let of = |table| columns.iter().find(|c| c.table == table);
                    if let (Some(ca), Some(cb)) = (of(a), of(b)) {
                        shared += 1;
                        product *= domains[class];
                        table_rows = table_rows.min(self.table_rows(ca)).min(self.table_rows(cb));
                    }
                }
                if shared > 1 && product > table_rows {
                    factor *= product / table_rows;
                }
            }
        }
        factor
    }

    fn table_rows(&self, column: &GraphColumn) -> f64 {
        self.graph.tables[column.table].estimate.columns[column.column].table_rows
    }

    fn predicate_share(&self, predicate: &super::graph::Predicate) -> f64 {
        let column =
            |c: &GraphColumn| self.graph.tables[c.table].estimate.columns[c.column].clone();
        let columns = predicate.columns.iter().map(column).collect();
        selectivity(&predicate.expr, &Estimate { rows: 1.0, columns }).max(1e-6)
    }

    /// Whether the two sets can be joined: by an equality, and a reducer only on its own and to
    /// all it needs.
    fn joinable(&self, a: Tables, b: Tables) -> bool {
        let reducer =
            |tables: Tables| members(tables).find(|&t| self.graph.tables[t].role != Role::Joined);
        for (side, other) in [(a, b), (b, a)] {
            if side.count_ones() == 1
                && let Some(reducer) = reducer(side)
            {
                return self.graph.required(reducer) & !other == 0;
            }
        }
        let within = |key: &[GraphColumn], tables| Graph::key_within(key, tables).is_some();
        let share_key = self.graph.keys.iter().any(|key| within(key, a) && within(key, b));
        share_key
            || self.graph.links.iter().any(|link| {
                let (l, r) = (1u64 << link.left.table, 1u64 << link.right.table);
                self.graph.tables[link.right.table].role == Role::Joined
                    && ((a & l != 0 && b & r != 0) || (a & r != 0 && b & l != 0))
            })
    }

    fn cost(&self, a: Tables, b: Tables) -> f64 {
        let (rows_a, rows_b) = (self.standing(a), self.standing(b));
        let (build, probe) = (rows_a.min(rows_b), rows_a.max(rows_b));
        build * BUILD_ROW + probe + self.rows(a | b) * OUTPUT_ROW
    }

    /// The rows of a set as an input of a join: a reducer alone has its own rows.
    pub(super) fn standing(&self, tables: Tables) -> f64 {
        match members(tables).next() {
            Some(index) if tables.count_ones() == 1 => self.graph.tables[index].estimate.rows,
            _ => self.rows(tables),
        }
    }

    fn complete(&self) -> Order {
        let count = self.graph.tables.len();
        let all: Tables = (1 << count) - 1;
        let mut best: HashMap<Tables, Candidate> = HashMap::new();
        for index in 0..count {
            best.insert(1 << index, Candidate { cost: 0.0, split: None });
        }
        for tables in 1..=all {
            if tables.count_ones() < 2 {
                continue;
            }
            let lowest = tables & tables.wrapping_neg();
            let mut part = (tables - 1) & tables;
            while part != 0 {
                let rest = tables & !part;
                // Each split is seen from both sides; the one that holds the lowest bit counts.
                if part & lowest != 0
                    && let (Some(a), Some(b)) = (best.get(&part), best.get(&rest))
                    && self.joinable(part, rest)
                {
                    let cost = a.cost + b.cost + self.cost(part, rest);
                    if best.get(&tables).is_none_or(|known| cost < known.cost) {
                        best.insert(tables, Candidate { cost, split: Some((part, rest)) });
                    }
                }
                part = (part - 1) & tables;
            }
        }
        self.order(&best, all)
    }

    fn order(&self, best: &HashMap<Tables, Candidate>, tables: Tables) -> Order {
        match best[&tables].split {
            None => Order::Table(tables.trailing_zeros() as usize),
            Some((a, b)) => {
                let (build, probe) =
                    if self.standing(a) <= self.standing(b) { (a, b) } else { (b, a) };
                Order::Join(Box::new(self.order(best, build)), Box::new(self.order(best, probe)))
            }
        }
    }

    fn greedy(&self) -> Order {
        let mut parts: Vec<(Tables, Order)> =
            (0..self.graph.tables.len()).map(|t| (1 << t, Order::Table(t))).collect();
        while parts.len() > 1 {
            let mut best: Option<(f64, usize, usize)> = None;
            for a in 0..parts.len() {
                for b in a + 1..parts.len() {
                    if !self.joinable(parts[a].0, parts[b].0) {
                        continue;
                    }
                    let cost = self.cost(parts[a].0, parts[b].0);
                    if best.is_none_or(|(known, _, _)| cost < known) {
                        best = Some((cost, a, b));
                    }
                }
            }
            let (_, a, b) = best.expect("a tree of joins is connected");
            let (second, first) = (parts.swap_remove(b), parts.swap_remove(a));
            let tables = first.0 | second.0;
            let (build, probe) = match self.standing(first.0) <= self.standing(second.0) {
                true => (first.1, second.1),
                false => (second.1, first.1),
            };
            parts.push((tables, Order::Join(Box::new(build), Box::new(probe))));
        }
        parts.remove(0).1
    }
}

pub(super) fn members(tables: Tables) -> impl Iterator<Item = usize> {
    (0..64).filter(move |index| tables & (1 << index) != 0)
}
