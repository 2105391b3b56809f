//! The store of all frames sent in a run. A frame in transit is represented by its number in the store.
//! The store is also what an attacker has recorded.

/// A frame's number in its [`FrameStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// Frames, each with the simulator's information `M` about it. Frames are never removed, because a run is
/// short.
#[derive(Debug)]
pub struct FrameStore<M> {
    bytes: Vec<u8>,
    frames: Vec<(usize, M)>,
}

impl<M> Default for FrameStore<M> {
    fn default() -> Self {
        Self { bytes: Vec::new(), frames: Vec::new() }
    }
}

impl<M> FrameStore<M> {
    /// Stores a frame.
    pub fn push(&mut self, bytes: &[u8], info: M) -> FrameId {
        let id = FrameId(u32::try_from(self.frames.len()).expect("a run is short"));
        self.bytes.extend_from_slice(bytes);
        self.frames.push((self.bytes.len(), info));
        id
    }

    /// Number of frames so far. Their ids are 0 up to this number.
    pub fn count(&self) -> u32 {
        self.frames.len() as u32
    }

    /// The bytes of a frame as it was sent.
    pub fn bytes(&self, id: FrameId) -> &[u8] {
        let index = id.0 as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.frames[before].0);
        &self.bytes[start..self.frames[index].0]
    }

    /// The simulator's information about a frame.
    pub fn info(&self, id: FrameId) -> &M {
        &self.frames[id.0 as usize].1
    }

    /// The simulator's information about a frame, mutable.
    pub fn info_mut(&mut self, id: FrameId) -> &mut M {
        &mut self.frames[id.0 as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_frames_are_returned_by_id() {
        let mut store = FrameStore::default();
        let ids = [b"one".as_slice(), b"", b"three"].map(|bytes| store.push(bytes, bytes.len()));
        assert_eq!(ids.map(|id| store.bytes(id)), [b"one".as_slice(), b"", b"three"]);
        assert_eq!((*store.info(ids[2]), store.count()), (5, 3));
    }
}
