//! Every frame that was ever sent. A frame on its way is its number here, and what an attacker has
//! recorded is all of it.

/// A frame's number in its [`FrameStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameId(pub u32);

/// Frames, each with what the simulation knows of it. Nothing is ever forgotten: a run is short.
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
    /// Keeps a frame.
    pub fn push(&mut self, bytes: &[u8], known: M) -> FrameId {
        let id = FrameId(u32::try_from(self.frames.len()).expect("a run is short"));
        self.bytes.extend_from_slice(bytes);
        self.frames.push((self.bytes.len(), known));
        id
    }

    /// Frames so far: their numbers are those below.
    pub fn count(&self) -> u32 {
        self.frames.len() as u32
    }

    /// The frame as it was sent.
    pub fn bytes(&self, id: FrameId) -> &[u8] {
        let index = id.0 as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.frames[before].0);
        &self.bytes[start..self.frames[index].0]
    }

    /// What is known of it.
    pub fn known(&self, id: FrameId) -> &M {
        &self.frames[id.0 as usize].1
    }

    /// The same, to be changed.
    pub fn known_mut(&mut self, id: FrameId) -> &mut M {
        &mut self.frames[id.0 as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_again() {
        let mut store = FrameStore::default();
        let ids = [b"one".as_slice(), b"", b"three"].map(|bytes| store.push(bytes, bytes.len()));
        assert_eq!(ids.map(|id| store.bytes(id)), [b"one".as_slice(), b"", b"three"]);
        assert_eq!((*store.known(ids[2]), store.count()), (5, 3));
    }
}
