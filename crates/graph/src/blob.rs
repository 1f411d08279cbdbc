//! One opaque value: bytes that can go anywhere, or an object that cannot leave its process.

use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// An object of this process: a Python object, a mapped segment.
pub type LocalObject = Arc<dyn Any + Send + Sync>;

/// A value nobody here looks into.
#[derive(Clone)]
pub enum Blob {
    Bytes(Bytes),
    Local(LocalObject),
}

impl Blob {
    pub const EMPTY: Blob = Blob::Bytes(Bytes::new());

    pub fn len(&self) -> usize {
        match self {
            Blob::Bytes(bytes) => bytes.len(),
            Blob::Local(_) => 0,
        }
    }
    pub fn is_empty(&self) -> bool {
        matches!(self, Blob::Bytes(bytes) if bytes.is_empty())
    }
    /// The local object as a `T`, if it is one.
    pub fn local<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match self {
            Blob::Local(object) => object.clone().downcast::<T>().ok(),
            Blob::Bytes(_) => None,
        }
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        Blob::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob::Bytes(bytes.into())
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        match (self, other) {
            (Blob::Bytes(a), Blob::Bytes(b)) => a == b,
            (Blob::Local(a), Blob::Local(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blob::Bytes(bytes) => write!(f, "{}B", bytes.len()),
            Blob::Local(_) => write!(f, "local"),
        }
    }
}

/// Bytes up to this many are written in place; longer ones become attachments.
const IN_PLACE_NBYTES: usize = 1024;

thread_local! {
    /// Blobs that leave a message to travel beside it, while one is encoded or decoded here.
    static ATTACHMENTS: RefCell<Option<Vec<Blob>>> = const { RefCell::new(None) };
}

impl Blob {
    /// Runs `encode`; large and local blobs it meets are returned instead of being written.
    pub fn detach<T>(encode: impl FnOnce() -> T) -> (T, Vec<Blob>) {
        ATTACHMENTS.set(Some(Vec::new()));
        let result = encode();
        (result, ATTACHMENTS.take().unwrap_or_default())
    }

    /// Runs `decode`, which finds there what [`Blob::detach`] took away.
    pub fn attach<T>(attachments: Vec<Blob>, decode: impl FnOnce() -> T) -> T {
        ATTACHMENTS.set(Some(attachments));
        let result = decode();
        ATTACHMENTS.set(None);
        result
    }
}

#[derive(Serialize, Deserialize)]
enum Written {
    InPlace(Bytes),
    Attached(u32),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Blob::Bytes(bytes) = self
            && bytes.len() <= IN_PLACE_NBYTES
        {
            return Written::InPlace(bytes.clone()).serialize(serializer);
        }
        let position = ATTACHMENTS.with_borrow_mut(|attachments| {
            let attachments = attachments.as_mut()?;
            attachments.push(self.clone());
            Some(attachments.len() as u32 - 1)
        });
        match position {
            Some(position) => Written::Attached(position).serialize(serializer),
            None => Err(S::Error::custom("a large value outside a message")),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::InPlace(bytes) => Ok(Blob::Bytes(bytes)),
            Written::Attached(position) => ATTACHMENTS
                .with_borrow(|attachments| attachments.as_ref()?.get(position as usize).cloned())
                .ok_or_else(|| D::Error::custom("an attachment that did not arrive")),
        }
    }
}
