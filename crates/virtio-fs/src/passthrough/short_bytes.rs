//! Names, without an allocation for each.

use std::ops::Deref;

/// Bytes that mostly are few: then they take no allocation of their own.
#[derive(Debug)]
pub(super) enum ShortBytes {
    Here { len: u8, bytes: [u8; Self::MOST] },
    Boxed(Box<[u8]>),
}

impl ShortBytes {
    /// As many as make the whole no larger than four words.
    const MOST: usize = 30;

    #[inline]
    pub(super) fn new(from: &[u8]) -> Self {
        let mut bytes = [0; Self::MOST];
        match (bytes.get_mut(..from.len()), u8::try_from(from.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(from);
                Self::Here { len, bytes }
            }
            _ => Self::Boxed(from.into()),
        }
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Here { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Boxed(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_the_same_however_many_they_are() {
        for len in [0, 1, ShortBytes::MOST, ShortBytes::MOST + 1, 255, 256, 4095] {
            let bytes: Vec<u8> = (0..len).map(|index| index.to_le_bytes()[0]).collect();
            assert_eq!(*ShortBytes::new(&bytes), *bytes);
        }
        assert_eq!(size_of::<ShortBytes>(), 32);
    }
}
