//! The secret that two peers share and never send.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroize;

use crate::TransportError;

const TOKEN_NBYTES: usize = 32;

/// 32 random bytes. Shown by nothing but `to_hex`, and overwritten when dropped.
#[derive(Clone)]
pub struct Token {
    bytes: Box<[u8; TOKEN_NBYTES]>,
}

impl Token {
    /// A new token from the kernel's random numbers.
    pub fn generate() -> Result<Self, TransportError> {
        let mut bytes = Box::new([0; TOKEN_NBYTES]);
        random_fill(&mut *bytes)?;
        Ok(Self { bytes })
    }

    pub fn from_bytes(bytes: [u8; TOKEN_NBYTES]) -> Self {
        Self { bytes: Box::new(bytes) }
    }

    pub fn from_hex(text: &str) -> Result<Self, TransportError> {
        let wrong = || TransportError::Handshake {
            peer: "this side".into(),
            reason: format!("a token is {} hexadecimal digits", 2 * TOKEN_NBYTES),
        };
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * TOKEN_NBYTES {
            return Err(wrong());
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or_else(wrong);
        let mut token = Self { bytes: Box::new([0; TOKEN_NBYTES]) };
        for (byte, pair) in token.bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = (value(pair[0])? * 16 + value(pair[1])?) as u8;
        }
        Ok(token)
    }

    /// The token as text, for a file that only its owner can read.
    pub fn to_hex(&self) -> String {
        self.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a token from a file that nobody else can read.
    pub fn from_file(path: &Path) -> Result<Self, TransportError> {
        let wrong =
            |reason: String| TransportError::TokenFile { path: path.display().to_string(), reason };
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(wrong(format!("others may read it (mode {mode:o}); run chmod 600 on it")));
        }
        let mut text = String::new();
        file.take(1024).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let token = Self::from_hex(&text);
        text.zeroize();
        token
            .map_err(|_| wrong(format!("it does not hold {} hexadecimal digits", 2 * TOKEN_NBYTES)))
    }

    /// Writes the token to a new file that nobody else can read.
    pub fn to_file(&self, path: &Path) -> Result<(), TransportError> {
        let wrong =
            |reason: String| TransportError::TokenFile { path: path.display().to_string(), reason };
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| wrong(std::io::Error::from(errno).to_string()))?;
        let mut text = self.to_hex();
        let result = File::from(fd).write_all(text.as_bytes());
        text.zeroize();
        result.map_err(|error| wrong(error.to_string()))
    }

    /// A proof that this side knows the token: a keyed hash of what both sides have said.
    pub(crate) fn proof(&self, label: &str, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.bytes);
        for part in [label.as_bytes()].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// What a side proves who it is with.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub token: Token,
}

/// Fills `bytes` from the kernel's random numbers.
pub(crate) fn random_fill(bytes: &mut [u8]) -> Result<(), TransportError> {
    let mut n_filled = 0;
    while n_filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[n_filled..], flags) {
            Ok(n) => n_filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(TransportError::Io { peer: "the kernel".into(), source: errno.into() });
            }
        }
    }
    Ok(())
}
