//! Values on disk: one file for each spilled value, in a folder that only its owner can look into.
//!
//! A record is a block with a header and, from the next block on, the content: so large contents
//! can go to the disk and back without passing the page cache. The header is written last, so that
//! a file whose writing was cut short has none. The handle remembers what the header must say, so
//! that a file that was swapped for another whole and valid record is noticed too.
//!
//! ```text
//!  0  magic "RSKRSPIL"        24  key hash
//!  8  format version (u32)     32  content length
//! 12  reserved (u32)           40  content checksum
//! 16  record id (random)       48  reserved
//!                              56  checksum of bytes 0 to 56
//!                              64  zeros up to 4096
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};

use crate::direct::{BLOCK_NBYTES, BlockFile, is_refused, open_flags};
use crate::{Checksum, StoreError, checksum, random_bytes};

const MAGIC: [u8; 8] = *b"RSKRSPIL";
const FORMAT_VERSION: u32 = 2;
const HEADER_NBYTES: usize = 64;
const FOLDER_PREFIX: &str = "rasker-spill-";

/// A folder for spilled values. It is removed when the handle and all values in it are dropped.
#[derive(Clone)]
pub struct SpillFolder {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Open for as long as the folder is ours, and locked: by this others know that it is not left
    /// over.
    descriptor: OwnedFd,
}

impl SpillFolder {
    /// Makes a new folder with an unpredictable name in `parent`, which is made too if it is
    /// missing.
    pub fn new(parent: &Path) -> Result<Self, StoreError> {
        let failed = |source: io::Error| {
            StoreError::system(
                format!("cannot make a spill folder in {}", parent.display()),
                source,
            )
        };
        fs::create_dir_all(parent).map_err(failed)?;
        let name = random_name()?;
        // It gets its final name only when it is locked, so that nobody takes it for left over in
        // between.
        let unlocked = parent.join(format!(".{FOLDER_PREFIX}{name}"));
        let path = parent.join(format!("{FOLDER_PREFIX}{name}"));
        rustix::fs::mkdir(&unlocked, Mode::RWXU).map_err(|errno| failed(errno.into()))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let descriptor = rustix::fs::open(&unlocked, flags, Mode::empty())
            .and_then(|fd| {
                rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).map(|()| fd)
            })
            .and_then(|fd| rustix::fs::rename(&unlocked, &path).map(|()| fd))
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self { shared: Arc::new(Shared { path, descriptor }) })
    }

    /// Removes the spill folders in `parent` whose owners have died. Says how many there were.
    pub fn remove_leftovers(parent: &Path) -> Result<usize, StoreError> {
        let failed = |source: io::Error| {
            StoreError::system(
                format!("cannot look for old spill folders in {}", parent.display()),
                source,
            )
        };
        let entries = match fs::read_dir(parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let mut n_removed = 0;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX)
                && remove_if_left(&entry.path())
            {
                n_removed += 1;
            }
        }
        Ok(n_removed)
    }

    /// Writes one value, given in parts. `key_hash` says whose value it is.
    pub fn write(&self, key_hash: u64, parts: &[&[u8]]) -> Result<SpilledValue, StoreError> {
        let len = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let failed =
            |error: io::Error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)
            {
                Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    StoreError::DiskFull { nbytes: len }
                }
                _ => StoreError::system("cannot write a spilled value", error),
            };
        let name = random_name()?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let fd = self
            .shared
            .open(&name, flags, len, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed(errno.into()))?;
        // From here on the file is removed on every way out: by dropping the value.
        let mut value = SpilledValue {
            folder: self.shared.clone(),
            name,
            header: Header {
                record_id: u64::from_ne_bytes(random_bytes()?),
                key_hash,
                len,
                checksum: 0,
            },
        };
        reserve(&fd, BLOCK_NBYTES as u64 + len).map_err(failed)?;
        let file = BlockFile::new(fd);
        let mut sum = Checksum::default();
        file.write_from(BLOCK_NBYTES as u64, parts, |piece| sum.update_cold(piece))
            .map_err(failed)?;
        value.header.checksum = sum.value();
        file.write_block(&value.header.to_bytes(), 0).map_err(failed)?;
        Ok(value)
    }
}

impl Shared {
    /// Opens a file of the folder for content of `len` bytes, around the page cache if that can be.
    fn open(&self, name: &str, flags: OFlags, len: u64, mode: Mode) -> rustix::io::Result<OwnedFd> {
        match rustix::fs::openat(&self.descriptor, name, flags | open_flags(len), mode) {
            // A file that is to be new may exist now, made by the call that was refused.
            Err(errno) if is_refused(errno) => {
                rustix::fs::openat(&self.descriptor, name, flags - OFlags::EXCL, mode)
            }
            result => result,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whatever cannot be removed now is left over, and the next owner removes it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A value in a spill folder. The file is removed when this handle is dropped.
pub struct SpilledValue {
    folder: Arc<Shared>,
    name: String,
    header: Header,
}

impl SpilledValue {
    pub fn key_hash(&self) -> u64 {
        self.header.key_hash
    }

    pub fn len(&self) -> u64 {
        self.header.len
    }

    pub fn is_empty(&self) -> bool {
        self.header.len == 0
    }

    /// The checksum of the content.
    pub fn checksum(&self) -> u64 {
        self.header.checksum
    }

    /// Reads the value back into memory of its own.
    pub fn read(&self) -> Result<Vec<u8>, StoreError> {
        let file = self.open_checked()?;
        // The length is the one that was written, and the file has it: no damage can make this
        // allocation large.
        let mut content = vec![0; self.header.len as usize];
        self.read_content(&file, &mut content)?;
        Ok(content)
    }

    /// Reads the value back into `content`, which must be as long as the value: a slab, for
    /// instance. If the value is damaged, what `content` holds afterwards must not be used.
    pub fn read_into(&self, content: &mut [u8]) -> Result<(), StoreError> {
        assert_eq!(
            content.len() as u64,
            self.header.len,
            "the place for a spilled value has its length"
        );
        let file = self.open_checked()?;
        self.read_content(&file, content)
    }

    /// Ranges are read from a multiple of so many bytes on.
    pub const BLOCK_NBYTES: u64 = BLOCK_NBYTES as u64;

    /// Fills `content` with the bytes of the value from `start` on, a multiple of `BLOCK_NBYTES`.
    /// There is a checksum of the whole only, so whoever reads ranges keeps one of each.
    pub fn read_range(&self, start: u64, content: &mut [u8]) -> Result<(), StoreError> {
        assert!(start.is_multiple_of(Self::BLOCK_NBYTES), "a range begins with a block");
        let end = start + content.len() as u64;
        assert!(end <= self.header.len, "a range within the value");
        let file = self.open_checked()?;
        let at = Self::BLOCK_NBYTES + start;
        file.read_from(at, content, |_| {}).map_err(|error| self.unreadable(error))
    }

    /// Opens the file and compares its size and header with what was written.
    fn open_checked(&self) -> Result<BlockFile, StoreError> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let file = match self.folder.open(&self.name, flags, self.header.len, Mode::empty()) {
            Ok(fd) => BlockFile::new(fd),
            Err(rustix::io::Errno::NOENT) => return Err(self.damaged("its file is gone")),
            Err(rustix::io::Errno::LOOP) => return Err(self.damaged("its file is a link")),
            Err(errno) => return Err(StoreError::system("cannot open a spilled value", errno)),
        };
        let metadata = file
            .file()
            .metadata()
            .map_err(|error| StoreError::system("cannot read a spilled value", error))?;
        let expected = BLOCK_NBYTES as u64 + self.header.len;
        if !metadata.is_file() || metadata.len() != expected {
            return Err(self
                .damaged(format!("its file has {} bytes instead of {expected}", metadata.len())));
        }
        let block = file.read_block(0).map_err(|error| self.unreadable(error))?;
        let (header, padding) = block.split_at(HEADER_NBYTES);
        let header = header.try_into().expect("the length of a header");
        let found = Header::from_bytes(header).map_err(|what| self.damaged(what))?;
        if found != self.header {
            return Err(self.damaged("its file holds another value"));
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("its header is followed by something else than zeros"));
        }
        Ok(file)
    }

    fn read_content(&self, file: &BlockFile, content: &mut [u8]) -> Result<(), StoreError> {
        let mut sum = Checksum::default();
        file.read_from(BLOCK_NBYTES as u64, content, |piece| sum.update_cold(piece))
            .map_err(|error| self.unreadable(error))?;
        if sum.value() != self.header.checksum {
            return Err(self.damaged("its content does not match its checksum"));
        }
        Ok(())
    }

    fn unreadable(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("its file ends too early"),
            _ => StoreError::system("cannot read a spilled value", error),
        }
    }

    fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { key_hash: self.header.key_hash, what: what.into() }
    }
}

impl Drop for SpilledValue {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.folder.descriptor, &self.name, AtFlags::empty());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    record_id: u64,
    key_hash: u64,
    len: u64,
    checksum: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_NBYTES] {
        let mut bytes = [0; HEADER_NBYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        for (i, word) in
            [self.record_id, self.key_hash, self.len, self.checksum].into_iter().enumerate()
        {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        let own = checksum(&bytes[..HEADER_NBYTES - 8]);
        bytes[HEADER_NBYTES - 8..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_NBYTES]) -> Result<Self, String> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[0..8] != MAGIC {
            return Err("its file is not a spill record".into());
        }
        if checksum(&bytes[..HEADER_NBYTES - 8]) != word(HEADER_NBYTES - 8) {
            return Err("its header does not match its checksum".into());
        }
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("4 bytes"));
        if version != FORMAT_VERSION {
            return Err(format!("its format version is {version} instead of {FORMAT_VERSION}"));
        }
        Ok(Self { record_id: word(16), key_hash: word(24), len: word(32), checksum: word(40) })
    }
}

fn random_name() -> Result<String, StoreError> {
    Ok(format!("{:032x}", u128::from_ne_bytes(random_bytes()?)))
}

/// Asks for the disk space at once: a full disk is noticed before the work of writing.
fn reserve(fd: impl AsFd, nbytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, nbytes) {
        // Some file systems cannot, and interruptions are no reason to give up: writing will tell.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INTR) => {
            Ok(())
        }
        result => Ok(result?),
    }
}

fn remove_if_left(path: &Path) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else {
        return false;
    };
    let is_ours =
        rustix::fs::fstat(&fd).is_ok_and(|s| s.st_uid == rustix::process::geteuid().as_raw());
    let is_left = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok();
    is_ours && is_left && fs::remove_dir_all(path).is_ok()
}
