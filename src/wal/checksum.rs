//! The WAL's checksum: a running pair of sums, each frame continuing from the one before it.

use super::FRAME_HEADER_SIZE;

/// The running sums after some frame, or after the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameChecksum(pub u32, pub u32);

impl FrameChecksum {
    /// Continues over `bytes`, a multiple of 8 of them, as everything in a WAL is; a remainder would be left out. The
    /// byte order is that of the WAL's magic number.
    #[must_use]
    pub fn update(self, big_endian: bool, bytes: &[u8]) -> Self {
        // Two loops, so that neither asks for the byte order at each step: this runs over every captured page.
        if big_endian { self.sum(bytes, u32::from_be_bytes) } else { self.sum(bytes, u32::from_le_bytes) }
    }

    /// Continues over one frame: the first 8 bytes of its header, then its page.
    #[must_use]
    pub fn update_frame(self, big_endian: bool, header: &[u8; FRAME_HEADER_SIZE as usize], page: &[u8]) -> Self {
        let (covered, _) = header.split_at(8);
        self.update(big_endian, covered).update(big_endian, page)
    }

    fn sum(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let Self(mut s1, mut s2) = self;
        for &[a, b, c, d, e, f, g, h] in bytes.as_chunks::<8>().0 {
            s1 = s1.wrapping_add(word([a, b, c, d])).wrapping_add(s2);
            s2 = s2.wrapping_add(word([e, f, g, h])).wrapping_add(s1);
        }
        Self(s1, s2)
    }
}
