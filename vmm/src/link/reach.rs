//! [`Reach`]: whether a frame is sent to the peer's address, to all stations, or to both.
//!
//! A switch sends the frames for an address to the port that the last frame *from* this address came from. So whoever
//! sends frames with a host's source address gets the frames for that host, until that host sends one itself. Frames
//! to all stations reach it nevertheless. They cost every station on the segment an interrupt, so they are not the rule:
//!
//! | state | frames go to |
//! |---|---|
//! | no session | both, the peer's address first |
//! | the peer was heard recently, at this host's address | the peer's address |
//! | one of its last frames came as one to all stations: it does not hear this host well | both, the peer's address first |
//! | the peer was not heard for a while | one of the two in turn, so that the peer gets frames that it knows only from the one to all stations |
//!
//! Of two copies, the second one to arrive is a duplicate and shows nothing.

use replication::driver::Heard;

/// New frames at this host's address after which the peer hears this host well again. Some frames get through although
/// the address is stolen.
const GOOD_FRAMES_MIN: u32 = 256;

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The peer's address.
    Peer,
    /// All stations.
    All,
    /// The peer's address, then all stations.
    Both,
}

/// The state. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    heard: Heard,
    /// Frames at this host's address that must come before the peer hears this host well.
    good_frames_left: u32,
    /// The next frame to a peer that was not heard for a while goes to its address.
    is_peers_turn: bool,
}

impl Reach {
    pub(super) fn new() -> Reach {
        Reach { heard: Heard::Recently, good_frames_left: 0, is_peers_turn: false }
    }

    pub(super) fn set_heard(&mut self, heard: Heard) {
        if self.heard != heard {
            (self.heard, self.is_peers_turn) = (heard, false);
        }
    }

    /// A new frame of the peer has come, to all stations or to this host's address.
    pub(super) fn received(&mut self, is_to_all: bool) {
        self.good_frames_left = match is_to_all {
            true => GOOD_FRAMES_MIN,
            false => self.good_frames_left.saturating_sub(1),
        };
    }

    /// Returns where the next frame goes.
    #[inline]
    pub(super) fn next(&mut self) -> Target {
        match self.heard {
            Heard::Never => Target::Both,
            Heard::NotRecently => {
                self.is_peers_turn = !self.is_peers_turn;
                if self.is_peers_turn { Target::All } else { Target::Peer }
            }
            Heard::Recently if self.good_frames_left > 0 => Target::Both,
            Heard::Recently => Target::Peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_to_all_stations_only_if_need_be() {
        let mut reach = Reach::new();
        assert_eq!(reach.next(), Target::Peer);
        reach.set_heard(Heard::Never);
        assert_eq!([reach.next(), reach.next()], [Target::Both; 2]);
        reach.set_heard(Heard::Recently);
        assert_eq!(reach.next(), Target::Peer);
        reach.set_heard(Heard::NotRecently);
        assert_eq!(
            [(); 4].map(|()| reach.next()),
            [Target::All, Target::Peer, Target::All, Target::Peer]
        );
    }

    #[test]
    fn peer_that_sends_to_all_gets_both_until_enough_frames_came_to_this_host() {
        let mut reach = Reach::new();
        reach.received(true);
        for _ in 1..GOOD_FRAMES_MIN {
            reach.received(false);
            assert_eq!(reach.next(), Target::Both);
        }
        reach.received(true);
        for _ in 0..GOOD_FRAMES_MIN {
            assert_eq!(reach.next(), Target::Both);
            reach.received(false);
        }
        assert_eq!(reach.next(), Target::Peer);
    }
}
