//! From bytes to frames. Knows no socket: bytes and descriptors are put in, frames come out.
//!
//! No length that a peer claims makes this side allocate: the buffer and the attachments grow as
//! bytes arrive. Only where an arena takes the attachments is memory reserved at once, and the
//! arena has a limit of its own.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rasker_store::{Checksum, Region, RegionId, Slab, checksum};

use crate::TransportError;
use crate::frame::{Attachment, Frame};
use crate::link::Link;
use crate::wire::{self, Entry, Kind};

const BUFFER_NBYTES: usize = 64 << 10;
/// At most this much is read into an attachment at a time, so that it is still in the cache when it
/// is hashed.
const STEP_NBYTES: usize = 256 << 10;
/// Below this rest, an attachment is read through the buffer, together with what follows it.
const DIRECT_NBYTES_MIN: usize = 32 << 10;
/// Attachments from this size on land in the arena.
const ARENA_NBYTES_MIN: u64 = 64 << 10;
const DESCRIPTORS_MAX: usize = 256;

pub(crate) struct Decoder {
    link: Arc<Link>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub(crate) descriptors: VecDeque<OwnedFd>,
    regions: HashMap<u64, Arc<Region>>,
    next_lease: u64,
    pending: Option<Pending>,
    has_ended: bool,
}

/// A frame whose attachments are arriving.
struct Pending {
    head: Bytes,
    entries: std::vec::IntoIter<Entry>,
    attachments: Vec<Attachment>,
    content: Option<Content>,
}

/// An attachment that is arriving.
struct Content {
    len: usize,
    filled: usize,
    target: Target,
    sum: Option<Checksum>,
}

enum Target {
    Heap(Vec<u8>),
    Slab(Slab),
}

impl Content {
    /// Where the next bytes go.
    fn space(&mut self) -> &mut [u8] {
        let end = self.len.min(self.filled + STEP_NBYTES);
        match &mut self.target {
            Target::Heap(bytes) => {
                if bytes.len() < end {
                    let grown = (2 * bytes.len()).max(end).min(self.len);
                    bytes.reserve_exact(grown - bytes.len());
                    bytes.resize(end, 0);
                }
                &mut bytes[self.filled..end]
            }
            Target::Slab(slab) => &mut slab[self.filled..end],
        }
    }

    fn advance(&mut self, nbytes: usize) {
        let arrived = match &self.target {
            Target::Heap(bytes) => &bytes[self.filled..self.filled + nbytes],
            Target::Slab(slab) => &slab[self.filled..self.filled + nbytes],
        };
        if let Some(sum) = &mut self.sum {
            sum.update(arrived);
        }
        self.filled += nbytes;
    }
}

impl Decoder {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            buffer: vec![0; BUFFER_NBYTES],
            start: 0,
            end: 0,
            descriptors: VecDeque::new(),
            regions: HashMap::new(),
            next_lease: 0,
            pending: None,
            has_ended: false,
        }
    }

    /// Whether the peer has said that no user frame follows.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Where the next bytes from the socket go, and the descriptors that come with them.
    pub(crate) fn space(&mut self) -> (&mut [u8], &mut VecDeque<OwnedFd>) {
        let is_direct = self.start == self.end && self.direct_content().is_some();
        if is_direct {
            let content = self.pending.as_mut().and_then(|pending| pending.content.as_mut());
            return (content.expect("just seen").space(), &mut self.descriptors);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < BUFFER_NBYTES / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            // More than half full of one frame: it grows as bytes arrive, at most twofold.
            if self.end > self.buffer.len() / 2 {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
        }
        (&mut self.buffer[self.end..], &mut self.descriptors)
    }

    fn direct_content(&mut self) -> Option<&mut Content> {
        let content = self.pending.as_mut()?.content.as_mut()?;
        (content.len - content.filled >= DIRECT_NBYTES_MIN).then_some(content)
    }

    /// Takes note that `nbytes` have been put into the space.
    pub(crate) fn advance(&mut self, nbytes: usize) {
        self.link.received_nbytes.fetch_add(nbytes as u64, Ordering::Relaxed);
        if self.start == self.end
            && let Some(content) = self.direct_content()
        {
            content.advance(nbytes);
        } else {
            self.end += nbytes;
        }
    }

    /// What the end of the connection means at this point.
    pub(crate) fn on_end(&self) -> Result<(), TransportError> {
        if self.start == self.end && self.pending.is_none() {
            return Ok(());
        }
        Err(TransportError::Truncated { peer: self.link.peer.clone() })
    }

    /// The next frame that has arrived whole.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, TransportError> {
        loop {
            if self.pending.is_some() {
                if !self.fill_pending()? {
                    return Ok(None);
                }
                let Some(pending) = self.pending.take() else {
                    continue;
                };
                return Ok(Some(Frame { head: pending.head, attachments: pending.attachments }));
            }
            if !self.parse_head()? {
                return Ok(None);
            }
        }
    }

    fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Parses the fixed part, the table and the head, if they are all there.
    fn parse_head(&mut self) -> Result<bool, TransportError> {
        let bytes = self.available();
        if bytes.len() < wire::FIXED_NBYTES {
            return Ok(false);
        }
        let (kind, head_nbytes, n_attachments) = self.check_fixed_part(bytes)?;
        let head_start = wire::FIXED_NBYTES + n_attachments * wire::ENTRY_NBYTES;
        let head_end = head_start + head_nbytes;
        let total = head_end + if self.link.is_local { 0 } else { wire::CHECKSUM_NBYTES };
        if bytes.len() < total {
            return Ok(false);
        }
        if !self.link.is_local {
            let expected = wire::u64_at(bytes, head_end);
            let found = checksum(&bytes[..head_end]);
            self.check("the head of a frame", expected, found)?;
        }
        let entries: Option<Vec<Entry>> = bytes[wire::FIXED_NBYTES..head_start]
            .chunks(wire::ENTRY_NBYTES)
            .map(Entry::from_bytes)
            .collect();
        let entries = entries.ok_or_else(|| self.broken("an attachment of unknown form"))?;
        // A copy of its own, so that a small head that is kept does not keep a large buffer.
        let head = Bytes::copy_from_slice(&bytes[head_start..head_end]);
        self.start += total;
        self.shrink_buffer();
        if kind != Kind::User {
            self.on_control(kind, &head)?;
            return Ok(true);
        }
        if self.has_ended {
            return Err(self.broken("a frame after the last one"));
        }
        let attachments = Vec::with_capacity(entries.len());
        self.pending =
            Some(Pending { head, entries: entries.into_iter(), attachments, content: None });
        Ok(true)
    }

    fn check_fixed_part(&self, bytes: &[u8]) -> Result<(Kind, usize, usize), TransportError> {
        if bytes[0] != wire::MAGIC {
            return Err(self.broken(format!("a frame that begins with {:#04x}", bytes[0])));
        }
        if bytes[1] != wire::VERSION || bytes[3] != 0 {
            return Err(self.broken(format!("a frame of version {}.{}", bytes[1], bytes[3])));
        }
        let kind = Kind::from_byte(bytes[2]);
        let kind =
            kind.ok_or_else(|| self.broken(format!("a frame of unknown kind {}", bytes[2])))?;
        let limits = self.link.options.limits;
        let head_nbytes = wire::u32_at(bytes, 4) as usize;
        let n_attachments = wire::u32_at(bytes, 8) as usize;
        if head_nbytes > limits.head_nbytes {
            return Err(self.limit("a head", head_nbytes as u64, limits.head_nbytes as u64));
        }
        if n_attachments > limits.n_attachments || (kind != Kind::User && n_attachments > 0) {
            let limit = limits.n_attachments as u64;
            return Err(self.limit("a number of attachments", n_attachments as u64, limit));
        }
        Ok((kind, head_nbytes, n_attachments))
    }

    /// A buffer that has grown for one large head goes back to its usual size.
    fn shrink_buffer(&mut self) {
        if self.buffer.len() > BUFFER_NBYTES && self.end - self.start <= BUFFER_NBYTES / 2 {
            let mut buffer = vec![0; BUFFER_NBYTES];
            buffer[..self.end - self.start].copy_from_slice(self.available());
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer = buffer;
        }
    }

    fn on_control(&mut self, kind: Kind, head: &[u8]) -> Result<(), TransportError> {
        if !head.len().is_multiple_of(8) {
            return Err(self.broken("a control frame that is no list of numbers"));
        }
        let mut numbers = head.chunks(8).map(|bytes| wire::u64_at(bytes, 0));
        match (kind, numbers.len()) {
            (Kind::End, 0) => self.has_ended = true,
            (Kind::Region, 1) if self.link.is_local => {
                let number = numbers.next().expect("one number");
                let fd = self.descriptors.pop_front();
                let fd = fd.ok_or_else(|| self.broken("a region without a descriptor"))?;
                let region = Region::import(RegionId::random()?, fd)?;
                if self.regions.insert(number, region).is_some() {
                    return Err(self.broken(format!("region {number} twice")));
                }
            }
            (Kind::RegionEnd, 1) if self.link.is_local => {
                self.regions.remove(&numbers.next().expect("one number"));
            }
            (Kind::Leases, _) if self.link.is_local => {
                let result = self.link.on_leases_back(numbers);
                result.map_err(|number| {
                    self.broken(format!("lease {number}, which it does not hold"))
                })?;
            }
            _ => {
                return Err(
                    self.broken(format!("a control frame {kind:?} that makes no sense here"))
                );
            }
        }
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(self.broken("descriptors that nobody asked for"));
        }
        Ok(())
    }

    /// Moves what has arrived into the attachments of the pending frame; says whether it is whole.
    fn fill_pending(&mut self) -> Result<bool, TransportError> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(false);
        };
        loop {
            if let Some(content) = &mut pending.content {
                if !self.fill_content(content, pending.attachments.len())? {
                    self.pending = Some(pending);
                    return Ok(false);
                }
                let content = pending.content.take().expect("just filled");
                pending.attachments.push(match content.target {
                    Target::Heap(bytes) => Attachment::Bytes(bytes.into()),
                    Target::Slab(slab) => Attachment::Segment(slab.seal()),
                });
                continue;
            }
            match pending.entries.next() {
                None => {
                    self.pending = Some(pending);
                    return Ok(true);
                }
                Some(Entry::Content { len }) => pending.content = Some(self.start_content(len)?),
                Some(Entry::Place { len, region, offset }) => {
                    let segment = self.borrow_segment(region, offset, len)?;
                    pending.attachments.push(segment);
                }
            }
        }
    }

    fn fill_content(
        &mut self,
        content: &mut Content,
        index: usize,
    ) -> Result<bool, TransportError> {
        while content.filled < content.len && self.start < self.end {
            let space = content.space();
            let n = space.len().min(self.end - self.start);
            space[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
            self.start += n;
            content.advance(n);
        }
        if content.filled < content.len {
            return Ok(false);
        }
        let Some(sum) = &content.sum else {
            return Ok(true);
        };
        if self.end - self.start < wire::CHECKSUM_NBYTES {
            return Ok(false);
        }
        let expected = wire::u64_at(self.available(), 0);
        self.check(&format!("attachment {index}"), expected, sum.value())?;
        self.start += wire::CHECKSUM_NBYTES;
        Ok(true)
    }

    fn start_content(&self, len: u64) -> Result<Content, TransportError> {
        let limit = self.link.options.limits.attachment_nbytes.min(isize::MAX as u64);
        if len > limit {
            return Err(self.limit("an attachment", len, limit));
        }
        let arena = self.link.options.arena.as_ref().filter(|_| len >= ARENA_NBYTES_MIN);
        // An arena that has no room is no reason to lose the value: it goes to the heap then.
        let slab = arena.and_then(|arena| arena.allocate(len as usize).ok());
        let target = slab.map_or(Target::Heap(Vec::new()), Target::Slab);
        let sum = (!self.link.is_local).then(Checksum::default);
        Ok(Content { len: len as usize, filled: 0, target, sum })
    }

    fn borrow_segment(
        &mut self,
        region: u64,
        offset: u64,
        len: u64,
    ) -> Result<Attachment, TransportError> {
        let limit = self.link.options.limits.attachment_nbytes;
        if len > limit {
            return Err(self.limit("an attachment", len, limit));
        }
        let found = self.regions.get(&region).filter(|_| self.link.is_local);
        let found =
            found.ok_or_else(|| self.broken(format!("a segment of an unknown region {region}")))?;
        let on_release = self.link.lease_return(self.next_lease);
        self.next_lease += 1;
        Ok(Attachment::Segment(found.segment(offset, len, on_release)?))
    }

    fn check(&self, what: &str, expected: u64, found: u64) -> Result<(), TransportError> {
        if expected == found {
            return Ok(());
        }
        Err(TransportError::Damaged {
            peer: self.link.peer.clone(),
            what: what.into(),
            expected,
            found,
        })
    }

    fn broken(&self, reason: impl Into<String>) -> TransportError {
        TransportError::Protocol { peer: self.link.peer.clone(), reason: reason.into() }
    }

    fn limit(&self, what: &'static str, n: u64, limit: u64) -> TransportError {
        TransportError::Limit { peer: self.link.peer.clone(), what, n, limit }
    }
}
