//! A file that is read and written in whole blocks, around the page cache where it can be: what is
//! spilled to make room in memory must not take that room again as cached pages.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// What direct transfers must begin at and be a multiple of.
pub(crate) const BLOCK_NBYTES: usize = 4096;
/// Content is hashed and moved in steps of this size: large enough for a disk to run at full speed,
/// small enough that memory for values at odd addresses stays small.
const STEP_NBYTES: usize = 4 << 20;
/// Smaller content is not worth the detour.
const DIRECT_NBYTES_MIN: u64 = 256 << 10;

/// The flag to open a file with for content of this length.
pub(crate) fn open_flags(len: u64) -> OFlags {
    if len >= DIRECT_NBYTES_MIN { OFlags::DIRECT } else { OFlags::empty() }
}

/// Whether opening failed because the file system knows no direct transfers.
pub(crate) fn is_refused(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::OPNOTSUPP)
}

/// Memory that begins at a multiple of the block size.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK_NBYTES];
        let start = memory.as_ptr().align_offset(BLOCK_NBYTES).min(BLOCK_NBYTES);
        Self { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(BLOCK_NBYTES) == 0
}

/// See the module.
pub(crate) struct BlockFile(File);

impl BlockFile {
    pub fn new(fd: OwnedFd) -> Self {
        Self(File::from(fd))
    }

    pub fn file(&self) -> &File {
        &self.0
    }

    /// Does `f`, and once more through the page cache if the file system refuses it without.
    fn try_direct<T>(&self, mut f: impl FnMut(&File) -> io::Result<T>) -> io::Result<T> {
        match f(&self.0) {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                let flags = rustix::fs::fcntl_getfl(&self.0)?;
                if !flags.contains(OFlags::DIRECT) {
                    return Err(error);
                }
                rustix::fs::fcntl_setfl(&self.0, flags - OFlags::DIRECT)?;
                f(&self.0)
            }
            result => result,
        }
    }

    /// Writes one block.
    pub fn write_block(&self, block: &[u8], at: u64) -> io::Result<()> {
        let mut aligned = Aligned::new(BLOCK_NBYTES);
        aligned.bytes()[..block.len()].copy_from_slice(block);
        self.try_direct(|file| file.write_all_at(aligned.bytes(), at))
    }

    /// Reads one block.
    pub fn read_block(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut aligned = Aligned::new(BLOCK_NBYTES);
        self.try_direct(|file| file.read_exact_at(aligned.bytes(), at))?;
        Ok(aligned.bytes().to_vec())
    }

    /// Writes `parts` one after the other from `at` on and cuts the file after them; `see` is shown
    /// all bytes in order.
    pub fn write_from(
        &self,
        mut at: u64,
        parts: &[&[u8]],
        mut see: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let end = at + len as u64;
        let mut rest: Vec<&[u8]> = parts.to_vec();
        if let [whole] = parts
            && is_aligned(whole)
        {
            let (body, tail) = whole.split_at(whole.len() / BLOCK_NBYTES * BLOCK_NBYTES);
            for piece in body.chunks(STEP_NBYTES) {
                see(piece);
                self.try_direct(|file| file.write_all_at(piece, at))?;
                at += piece.len() as u64;
            }
            rest = vec![tail];
        }
        let left = (end - at) as usize;
        let mut bounce = Aligned::new(left.next_multiple_of(BLOCK_NBYTES).min(STEP_NBYTES));
        let mut filled = 0;
        for mut part in rest {
            while !part.is_empty() {
                let n = part.len().min(bounce.len - filled);
                bounce.bytes()[filled..filled + n].copy_from_slice(&part[..n]);
                see(&part[..n]);
                part = &part[n..];
                filled += n;
                if filled == bounce.len {
                    self.try_direct(|file| file.write_all_at(bounce.bytes(), at))?;
                    at += filled as u64;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            let whole = filled.next_multiple_of(BLOCK_NBYTES);
            bounce.bytes()[filled..whole].fill(0);
            self.try_direct(|file| file.write_all_at(&bounce.bytes()[..whole], at))?;
        }
        self.0.set_len(end)
    }

    /// Fills `content` with the bytes from `at` to the end of the file; `see` is shown them.
    pub fn read_from(
        &self,
        mut at: u64,
        content: &mut [u8],
        mut see: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut rest = &mut content[..];
        if is_aligned(rest) {
            let (body, tail) = rest.split_at_mut(rest.len() / BLOCK_NBYTES * BLOCK_NBYTES);
            for piece in body.chunks_mut(STEP_NBYTES) {
                self.try_direct(|file| file.read_exact_at(piece, at))?;
                see(piece);
                at += piece.len() as u64;
            }
            rest = tail;
        }
        let mut bounce = Aligned::new(rest.len().next_multiple_of(BLOCK_NBYTES).min(STEP_NBYTES));
        for piece in rest.chunks_mut(STEP_NBYTES) {
            let whole = piece.len().next_multiple_of(BLOCK_NBYTES);
            // The last block of a file is read as far as it goes.
            let mut n = 0;
            while n < piece.len() {
                let target = &mut bounce.bytes()[n..whole];
                let read = self.try_direct(|file| file.read_at(target, at + n as u64))?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                n += read;
            }
            piece.copy_from_slice(&bounce.bytes()[..piece.len()]);
            see(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }
}
