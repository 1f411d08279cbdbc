//! Many small values side by side: the arguments of a run of tasks, or their results.
//!
//! Integers are stored as distances from the smallest one in as few bytes as they need, floats as
//! they are, everything else in the compact encoding of the room that makes and reads values.
//! A column can be cut anywhere without looking at a value.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Values by position.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    items: Items,
    start: u32,
    count: u32,
}

/// How the values of a column are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Items {
    /// `first + step * i`.
    Range { first: i64, step: i64 },
    /// `base + unsigned`, little-endian, `width` bytes each (0, 1, 2, 4 or 8).
    Ints { base: i64, width: u8, data: Bytes },
    /// Little-endian doubles.
    Floats { data: Bytes },
    /// Encoded values; `ends` are little-endian u32 offsets into `data`.
    Packed { ends: Bytes, data: Bytes },
    /// The same encoded value at every position.
    Same { value: Bytes },
}

impl Column {
    pub fn new(items: Items, count: u32) -> Column {
        Column { items, start: 0, count }
    }

    pub fn range(first: i64, step: i64, count: u32) -> Column {
        Column::new(Items::Range { first, step }, count)
    }

    pub fn ints(values: &[i64]) -> Column {
        let base = values.iter().copied().min().unwrap_or(0);
        let top = values.iter().copied().max().unwrap_or(0);
        let width = match top.wrapping_sub(base) as u64 {
            0 => 0u8,
            1..=0xFF => 1,
            0x100..=0xFFFF => 2,
            0x1_0000..=0xFFFF_FFFF => 4,
            _ => 8,
        };
        let mut data = Vec::with_capacity(values.len() * usize::from(width));
        for value in values {
            let bytes = (value.wrapping_sub(base) as u64).to_le_bytes();
            data.extend_from_slice(&bytes[..usize::from(width)]);
        }
        Column::new(Items::Ints { base, width, data: data.into() }, values.len() as u32)
    }

    pub fn floats(values: &[f64]) -> Column {
        let mut data = Vec::with_capacity(values.len() * 8);
        for value in values {
            data.extend_from_slice(&value.to_le_bytes());
        }
        Column::new(Items::Floats { data: data.into() }, values.len() as u32)
    }

    /// `ends[i]` is where value `i` ends in `data`.
    pub fn packed(ends: &[u32], data: Vec<u8>) -> Column {
        let mut bytes = Vec::with_capacity(ends.len() * 4);
        for end in ends {
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        let items = Items::Packed { ends: bytes.into(), data: data.into() };
        Column::new(items, ends.len() as u32)
    }

    pub fn same(value: Bytes, count: u32) -> Column {
        Column::new(Items::Same { value }, count)
    }

    pub fn len(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Positions `start..start + count`, sharing the bytes.
    pub fn slice(&self, start: u32, count: u32) -> Column {
        assert!(start + count <= self.count, "slice {start}+{count} of a column of {}", self.count);
        Column { items: self.items.clone(), start: self.start + start, count }
    }

    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Value `i` of an integer column.
    pub fn int(&self, i: u32) -> Option<i64> {
        let i = (self.start + i) as usize;
        match &self.items {
            Items::Range { first, step } => Some(first.wrapping_add(step.wrapping_mul(i as i64))),
            Items::Ints { base, width, data } => {
                let width = usize::from(*width);
                let mut bytes = [0u8; 8];
                bytes[..width].copy_from_slice(&data[i * width..(i + 1) * width]);
                Some(base.wrapping_add(u64::from_le_bytes(bytes) as i64))
            }
            _ => None,
        }
    }

    /// Value `i` of a float column.
    pub fn float(&self, i: u32) -> Option<f64> {
        let at = (self.start + i) as usize * 8;
        match &self.items {
            Items::Floats { data } => {
                Some(f64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes")))
            }
            _ => None,
        }
    }

    /// The encoded value `i` of a packed column.
    pub fn encoded(&self, i: u32) -> Option<&[u8]> {
        match &self.items {
            Items::Packed { ends, data } => {
                let i = (self.start + i) as usize;
                let end = |i: usize| {
                    let bytes = ends[i * 4..i * 4 + 4].try_into().expect("four bytes");
                    u32::from_le_bytes(bytes) as usize
                };
                let from = if i == 0 { 0 } else { end(i - 1) };
                Some(&data[from..end(i)])
            }
            Items::Same { value } => Some(value),
            _ => None,
        }
    }

    /// Bytes that this column's own positions need.
    pub fn nbytes(&self) -> usize {
        let count = self.count as usize;
        match &self.items {
            Items::Range { .. } => 16,
            Items::Ints { width, .. } => count * usize::from(*width),
            Items::Floats { .. } => count * 8,
            Items::Packed { .. } => {
                count * 4
                    + (0..self.count).map(|i| self.encoded(i).map_or(0, <[u8]>::len)).sum::<usize>()
            }
            Items::Same { value } => value.len(),
        }
    }

    /// Whether every offset lies inside the bytes: asked once of a column that came from elsewhere.
    pub fn is_sound(&self) -> bool {
        let n = self.start as usize + self.count as usize;
        match &self.items {
            Items::Range { .. } | Items::Same { .. } => true,
            Items::Ints { width, data, .. } => {
                matches!(width, 0 | 1 | 2 | 4 | 8) && data.len() >= n * usize::from(*width)
            }
            Items::Floats { data } => data.len() >= n * 8,
            Items::Packed { ends, data } => {
                ends.len() >= n * 4 && {
                    let ends =
                        ends.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    let mut last = 0;
                    ends.take(n).all(|end| {
                        let ok = end >= last && end as usize <= data.len();
                        last = end;
                        ok
                    })
                }
            }
        }
    }

    /// The same values with no bytes of other positions: what goes on the wire.
    fn compacted(&self) -> Column {
        let (start, count) = (self.start as usize, self.count as usize);
        let items = match &self.items {
            Items::Range { first, step } => Items::Range {
                first: first.wrapping_add(step.wrapping_mul(start as i64)),
                step: *step,
            },
            Items::Ints { base, width, data } => {
                let width_ = usize::from(*width);
                let data = data.slice(start * width_..(start + count) * width_);
                Items::Ints { base: *base, width: *width, data }
            }
            Items::Floats { data } => {
                Items::Floats { data: data.slice(start * 8..(start + count) * 8) }
            }
            Items::Packed { .. } => {
                let mut ends = Vec::with_capacity(count);
                let mut data = Vec::new();
                for i in 0..self.count {
                    data.extend_from_slice(self.encoded(i).expect("packed"));
                    ends.push(data.len() as u32);
                }
                return Column::packed(&ends, data);
            }
            Items::Same { value } => Items::Same { value: value.clone() },
        };
        Column { items, start: 0, count: self.count }
    }
}

impl Serialize for Column {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let column = self.compacted();
        (&column.items, column.count).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Column, D::Error> {
        let (items, count) = <(Items, u32)>::deserialize(deserializer)?;
        let column = Column::new(items, count);
        if column.is_sound() {
            Ok(column)
        } else {
            Err(serde::de::Error::custom("column with offsets outside its bytes"))
        }
    }
}
