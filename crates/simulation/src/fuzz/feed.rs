//! Bytes as a list of decisions. When they are used up every decision is the first choice.

pub struct Feed<'a> {
    bytes: &'a [u8],
}

impl<'a> Feed<'a> {
    pub fn new(bytes: &'a [u8]) -> Feed<'a> {
        Feed { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// Below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        match n {
            0..=256 => u64::from(self.byte()) % n.max(1),
            _ => (u64::from(self.byte()) << 8 | u64::from(self.byte())) % n,
        }
    }

    pub fn chance(&mut self, of_256: u8) -> bool {
        self.byte() > 255 - of_256
    }

    /// A small number, and now and then one at the end of its range.
    pub fn number(&mut self) -> u32 {
        match self.byte() {
            250 => u32::MAX,
            251 => u32::MAX - 1,
            252 => 1 << 31,
            253 => 1 << 20,
            254 => 1 << 16,
            other => u32::from(other) % 8,
        }
    }

    pub fn list<T>(&mut self, most: u64, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| item(self)).collect()
    }
}
