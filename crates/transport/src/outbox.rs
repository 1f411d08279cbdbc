//! What waits to be sent, and the leases that the peer holds. Knows no socket.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Weak;

use bytes::{BufMut, Bytes, BytesMut};
use rasker_store::{Checksum, RegionId, RegionWatcher, Segment, checksum};

use crate::frame::{Attachment, Frame};
use crate::wire::{self, Entry, Kind};

/// Bytes up to this size are copied behind what is queued already, which is cheaper than a piece of
/// their own.
const COPY_NBYTES_MAX: usize = 4096;
/// Content is hashed and offered to the socket in steps of this size, while it is in the cache.
const HASH_STEP_NBYTES: usize = 256 << 10;
const PIECES_PER_CALL: usize = 64;
/// The kernel takes no more than 253 descriptors in one call.
pub(crate) const DESCRIPTORS_PER_CALL: usize = 64;

/// Something to be sent.
pub(crate) enum Piece {
    Bytes(Bytes),
    /// Content whose checksum follows in the next piece.
    Hashed(Attachment),
    Checksum([u8; wire::CHECKSUM_NBYTES]),
    /// A frame that comes with the descriptor of a segment's region.
    Region(Bytes, Segment),
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::Region(bytes, _) => bytes,
            Self::Hashed(attachment) => attachment.as_slice(),
            Self::Checksum(bytes) => bytes,
        }
    }
}

/// The queue of a connection, and what the peer holds of ours.
pub(crate) struct Outbox {
    /// Within a host, segments travel as places, and nothing is hashed.
    is_local: bool,
    pieces: VecDeque<Piece>,
    tail: BytesMut,
    returns: Vec<u64>,
    leases: HashMap<u64, Segment>,
    next_lease: u64,
    regions: HashMap<RegionId, u64>,
    next_region: u64,
    pub(crate) has_ended: bool,
    pub(crate) is_closed: bool,
}

impl Outbox {
    pub(crate) fn new(is_local: bool) -> Self {
        Self {
            is_local,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            returns: Vec::new(),
            leases: HashMap::new(),
            next_lease: 0,
            regions: HashMap::new(),
            next_region: 0,
            has_ended: false,
            is_closed: false,
        }
    }

    /// Queues a frame and says how many bytes that makes. The sizes were checked before.
    pub(crate) fn push(&mut self, frame: Frame, watcher: &Weak<dyn RegionWatcher>) -> usize {
        let mut nbytes = 0;
        let mut entries = Vec::with_capacity(frame.attachments.len());
        for attachment in &frame.attachments {
            let len = attachment.len() as u64;
            entries.push(match attachment {
                Attachment::Segment(segment) if self.is_local => {
                    let region = self.announce(segment, watcher, &mut nbytes);
                    Entry::Place { len, region, offset: segment.descriptor().offset }
                }
                _ => Entry::Content { len },
            });
        }
        nbytes += self.push_head(Kind::User, frame.head, &entries);
        for (attachment, entry) in frame.attachments.into_iter().zip(entries) {
            match (attachment, entry) {
                (Attachment::Segment(segment), Entry::Place { .. }) => {
                    self.leases.insert(self.next_lease, segment);
                    self.next_lease += 1;
                }
                (attachment, _) => nbytes += self.push_content(attachment),
            }
        }
        nbytes
    }

    /// The number of a segment's region on this connection; new regions are sent first.
    fn announce(
        &mut self,
        segment: &Segment,
        watcher: &Weak<dyn RegionWatcher>,
        nbytes: &mut usize,
    ) -> u64 {
        let id = segment.descriptor().region;
        if let Some(&number) = self.regions.get(&id) {
            return number;
        }
        let number = self.next_region;
        self.next_region += 1;
        self.regions.insert(id, number);
        segment.watch_region(watcher.clone());
        self.end_tail();
        let mut frame = BytesMut::with_capacity(wire::FIXED_NBYTES + 8);
        frame.put_slice(&wire::fixed_part(Kind::Region, 8, 0));
        frame.put_u64_le(number);
        *nbytes += frame.len();
        self.pieces.push_back(Piece::Region(frame.freeze(), segment.clone()));
        number
    }

    fn push_head(&mut self, kind: Kind, head: Bytes, entries: &[Entry]) -> usize {
        let fixed = wire::fixed_part(kind, head.len() as u32, entries.len() as u32);
        let start = self.tail.len();
        self.tail.put_slice(&fixed);
        for entry in entries {
            self.tail.put_slice(&entry.to_bytes());
        }
        let mut nbytes = self.tail.len() - start + head.len();
        let is_copied = head.len() <= COPY_NBYTES_MAX;
        let mut head_sum = None;
        if !self.is_local {
            nbytes += wire::CHECKSUM_NBYTES;
            if !is_copied {
                let mut sum = Checksum::default();
                sum.update(&self.tail[start..]);
                sum.update(&head);
                head_sum = Some(sum.value());
            }
        }
        if is_copied {
            self.tail.put_slice(&head);
            head_sum = (!self.is_local).then(|| checksum(&self.tail[start..]));
        } else {
            self.end_tail();
            self.pieces.push_back(Piece::Bytes(head));
        }
        if let Some(sum) = head_sum {
            self.tail.put_u64_le(sum);
        }
        nbytes
    }

    fn push_content(&mut self, attachment: Attachment) -> usize {
        let len = attachment.len();
        if len <= COPY_NBYTES_MAX {
            self.tail.put_slice(attachment.as_slice());
            if !self.is_local {
                self.tail.put_u64_le(checksum(attachment.as_slice()));
            }
        } else {
            self.end_tail();
            self.pieces.push_back(match attachment {
                Attachment::Bytes(bytes) if self.is_local => Piece::Bytes(bytes),
                attachment => Piece::Hashed(attachment),
            });
            if !self.is_local {
                self.pieces.push_back(Piece::Checksum([0; wire::CHECKSUM_NBYTES]));
            }
        }
        len + if self.is_local { 0 } else { wire::CHECKSUM_NBYTES }
    }

    /// Queues a frame of this crate's own.
    pub(crate) fn push_control(&mut self, kind: Kind, numbers: &[u64]) -> usize {
        let head: Bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.push_head(kind, head, &[])
    }

    pub(crate) fn return_lease(&mut self, number: u64) {
        self.returns.push(number);
    }

    /// Forgets a region of ours that is gone; says whether the peer knew it.
    pub(crate) fn end_region(&mut self, id: RegionId) -> Option<u64> {
        self.regions.remove(&id)
    }

    /// Takes a lease off the list. To be dropped when this outbox is unlocked: dropping it can end
    /// a region, which comes back here.
    #[must_use]
    pub(crate) fn take_lease(&mut self, number: u64) -> Option<Segment> {
        self.leases.remove(&number)
    }

    #[must_use]
    pub(crate) fn take_all_leases(&mut self) -> HashMap<u64, Segment> {
        std::mem::take(&mut self.leases)
    }

    pub(crate) fn n_leases(&self) -> usize {
        self.leases.len()
    }

    /// Takes all that is queued. The second number is how many bytes of it `push` has not counted.
    pub(crate) fn take(&mut self) -> (VecDeque<Piece>, usize) {
        let mut uncounted = 0;
        if !self.returns.is_empty() {
            let returns = std::mem::take(&mut self.returns);
            for numbers in returns.chunks(4096) {
                uncounted += self.push_control(Kind::Leases, numbers);
            }
        }
        self.end_tail();
        (std::mem::take(&mut self.pieces), uncounted)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty() && self.returns.is_empty()
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Bytes(self.tail.split().freeze()));
        }
    }
}

/// What is on its way into the socket. Belongs to the one who writes.
#[derive(Default)]
pub(crate) struct InFlight {
    pieces: VecDeque<Piece>,
    /// How much of the first piece is sent.
    n_sent: usize,
    /// How many pieces from the front have had their descriptor sent, which goes ahead of their
    /// bytes.
    n_descriptors_sent: usize,
    sum: Checksum,
    /// How much of the piece that is being hashed is hashed, and whether the next checksum is
    /// known.
    n_hashed: usize,
}

impl InFlight {
    pub(crate) fn append(&mut self, mut pieces: VecDeque<Piece>) {
        self.pieces.append(&mut pieces);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Hashes what the next call will offer. Must come before `slices`.
    pub(crate) fn prepare(&mut self) {
        let Some(Piece::Hashed(attachment)) = self.pieces.front() else {
            return;
        };
        let content = attachment.as_slice();
        // Hashing runs ahead of sending by one step at most.
        if self.n_hashed <= self.n_sent && self.n_hashed < content.len() {
            let end = content.len().min(self.n_hashed + HASH_STEP_NBYTES);
            self.sum.update_cold(&content[self.n_hashed..end]);
            self.n_hashed = end;
        }
        if self.n_hashed == content.len() {
            let digest = self.sum.value().to_le_bytes();
            if let Some(Piece::Checksum(bytes)) = self.pieces.get_mut(1) {
                *bytes = digest;
            }
        }
    }

    /// The bytes and descriptors to offer next.
    pub(crate) fn slices(&self) -> (Vec<IoSlice<'_>>, Vec<BorrowedFd<'_>>) {
        let mut slices = Vec::with_capacity(self.pieces.len().min(PIECES_PER_CALL));
        let mut descriptors = Vec::new();
        for (i, piece) in self.pieces.iter().take(PIECES_PER_CALL).enumerate() {
            let mut bytes = piece.as_slice();
            if let Piece::Hashed(_) = piece {
                if i > 0 {
                    break;
                }
                bytes = &bytes[..self.n_hashed];
            }
            if let Piece::Region(_, segment) = piece
                && i >= self.n_descriptors_sent
            {
                if descriptors.len() == DESCRIPTORS_PER_CALL {
                    break;
                }
                descriptors.push(segment.region_fd());
            }
            slices.push(IoSlice::new(if i == 0 { &bytes[self.n_sent..] } else { bytes }));
            if let Piece::Hashed(attachment) = piece
                && self.n_hashed < attachment.len()
            {
                break;
            }
        }
        (slices, descriptors)
    }

    /// Takes note that the socket took `nbytes`, and all descriptors that went along with
    /// `n_pieces` pieces.
    pub(crate) fn advance(&mut self, mut nbytes: usize, n_pieces: usize) {
        self.n_descriptors_sent = self.n_descriptors_sent.max(n_pieces);
        while let Some(piece) = self.pieces.front() {
            let rest = piece.as_slice().len() - self.n_sent;
            if nbytes < rest {
                self.n_sent += nbytes;
                return;
            }
            nbytes -= rest;
            self.n_sent = 0;
            self.n_descriptors_sent = self.n_descriptors_sent.saturating_sub(1);
            if let Piece::Hashed(_) = piece {
                self.sum.reset();
                self.n_hashed = 0;
            }
            self.pieces.pop_front();
        }
    }
}
