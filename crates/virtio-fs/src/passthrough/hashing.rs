//! Hashing of inode numbers and of names.
//!
//! The standard library's hash withstands whoever sees hashes, at several hundred instructions each, of which a request that
//! makes or ends a node needs two. Here nobody sees them: a multiplication with a secret for each eight bytes does. A guest
//! that found names with one hash regardless would slow down its own share.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with one secret.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    start: u64,
    factor: u64,
}

impl Secret {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0),
            // Odd, so that no bit of what is multiplied is lost.
            factor: random.hash_one(1) | 1,
        }
    }
}

impl BuildHasher for Secret {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding {
            state: self.start,
            factor: self.factor,
        }
    }
}

/// Multiplies to twice the width and folds both halves into one.
pub(super) struct Folding {
    state: u64,
    factor: u64,
}

impl Folding {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        let (low, high) = (product & u128::from(u64::MAX), product >> 64);
        self.state = u64::try_from(low ^ high).unwrap_or(0);
        // A product with zero would forget all that came before.
        self.state = self.state.wrapping_add(self.factor.rotate_left(32));
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// For keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AsItIs(u64);

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbouring_numbers_and_names_have_hashes_of_their_own_in_their_low_and_high_bits() {
        let secret = Secret {
            start: 0x243f_6a88_85a3_08d3,
            factor: 0x1319_8a2e_0370_7345,
        };
        let mut hashes: Vec<u64> = (0..4096u64)
            .map(|ino| secret.hash_one((8u32, 1u32, 30u64, ino)))
            .collect();
        hashes.extend((0..4096).map(|number| secret.hash_one((7u32, format!("file-{number}").as_bytes()))));
        hashes.extend((0..64).map(|len| secret.hash_one((7u32, vec![0; len].as_slice()))));
        let distinct: HashSet<u64> = hashes.iter().copied().collect();
        assert_eq!(distinct.len(), hashes.len());
        // As even as chance has it: of 8,256 in 65,536 places some 500 share one.
        for place in [|hash: u64| hash & 0xffff, |hash: u64| hash >> 48] {
            let places: HashSet<u64> = hashes.iter().map(|hash| place(*hash)).collect();
            assert!(places.len() > 7500, "{}", places.len());
        }
    }

    #[test]
    fn two_tables_have_two_secrets() {
        assert_ne!(Secret::new().hash_one(1u64), Secret::new().hash_one(1u64));
    }

    #[test]
    fn hash_that_is_a_key_stays_as_it_is() {
        assert_eq!(
            AsItIs::default().hash_one(0x0123_4567_89ab_cdef_u64),
            0x0123_4567_89ab_cdef
        );
    }
}
