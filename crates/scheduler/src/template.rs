//! Templates, how long their calls take and how large the results are.

use crate::table::Map;
use rasker_graph::{ClientId, Template, TemplateId};

pub(crate) type TemplateIx = u32;

/// What a call is taken to last before one has been seen, ns: a thread gets one and no more.
const UNKNOWN_NS: f64 = 5e6;
/// No call is taken to be shorter: the cost of handing it over.
const LEAST_NS: f64 = 50.0;

pub(crate) struct TemplateState {
    pub template: Template,
    /// Clients that believe this scheduler has it.
    pub clients: Vec<ClientId>,
    pub n_layers: u32,
    duration_ns: Option<f64>,
    result_nbytes: f64,
}

#[derive(Default)]
pub(crate) struct Templates {
    slots: Vec<Option<TemplateState>>,
    free: Vec<TemplateIx>,
    by_id: Map<TemplateId, TemplateIx>,
}

impl Templates {
    pub fn get(&self, ix: TemplateIx) -> &TemplateState {
        self.slots[ix as usize].as_ref().expect("a template in use")
    }

    pub fn find(&self, id: TemplateId) -> Option<TemplateIx> {
        self.by_id.get(&id).copied()
    }

    pub fn add(&mut self, template: Template, client: ClientId) {
        if let Some(ix) = self.find(template.id) {
            let state = self.slots[ix as usize].as_mut().expect("a template in use");
            if !state.clients.contains(&client) {
                state.clients.push(client);
            }
            return;
        }
        let id = template.id;
        let state = TemplateState {
            template,
            clients: vec![client],
            n_layers: 0,
            duration_ns: None,
            result_nbytes: 0.0,
        };
        let ix = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[ix as usize] = Some(state);
        self.by_id.insert(id, ix);
    }

    pub fn layer_added(&mut self, ix: TemplateIx) {
        self.slots[ix as usize].as_mut().expect("a template in use").n_layers += 1;
    }

    pub fn layer_removed(&mut self, ix: TemplateIx) {
        self.slots[ix as usize].as_mut().expect("a template in use").n_layers -= 1;
        self.sweep(ix);
    }

    pub fn client_left(&mut self, client: ClientId) {
        for ix in 0..self.slots.len() as u32 {
            if let Some(state) = &mut self.slots[ix as usize] {
                state.clients.retain(|c| *c != client);
                self.sweep(ix);
            }
        }
    }

    fn sweep(&mut self, ix: TemplateIx) {
        let state = self.get(ix);
        if state.n_layers == 0 && state.clients.is_empty() {
            let id = state.template.id;
            self.by_id.remove(&id);
            self.slots[ix as usize] = None;
            self.free.push(ix);
        }
    }

    pub fn duration_ns(&self, ix: TemplateIx) -> f64 {
        self.get(ix).duration_ns.unwrap_or(UNKNOWN_NS)
    }

    /// Bytes of a result, as far as is known.
    pub fn result_nbytes(&self, ix: TemplateIx) -> f64 {
        self.get(ix).result_nbytes
    }

    /// A run of `count` calls took `elapsed_ns`; their results take `nbytes`.
    pub fn observe(&mut self, ix: TemplateIx, count: u32, elapsed_ns: u64, nbytes: u64) {
        let state = self.slots[ix as usize].as_mut().expect("a template in use");
        let seen = (elapsed_ns as f64 / f64::from(count)).max(LEAST_NS);
        let each = nbytes as f64 / f64::from(count);
        let known = if state.duration_ns.is_some() { state.result_nbytes } else { each };
        state.result_nbytes = known + if each > known { 0.5 } else { 0.1 } * (each - known);
        state.duration_ns = Some(match state.duration_ns {
            None => seen,
            // The first calls pay for imports and cold caches: fall fast, rise slowly.
            Some(known) if seen < known => known + 0.6 * (seen - known),
            Some(known) => known + 0.2 * (seen - known),
        });
    }
}
