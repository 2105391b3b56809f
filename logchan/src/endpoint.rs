//! One host's end of the logging channel: sealed frames in, sealed frames out.
//!
//! An [`Endpoint`] is a [`SecureLink`] and, once there is a session with a peer, a [`Channel`] on top of
//! it. It keeps the two consistent:
//!
//! ```text
//!   Asking ---- a session with a compatible peer ----> Bound to that peer, with a channel
//!     ^                                                 |
//!     |                                                 | the channel ends: silence, death notice, Bye
//!     +--------------------- renew() -------------------+   (no way back into it)
//! ```
//!
//! - A channel begins with the session that it uses, at both ends. Its term is the primary's, its frames
//!   are as long as the smaller of the two MTUs allows, and the times were compared.
//! - While there is a channel, ended or not, a peer with another incarnation is not answered. So neither
//!   end begins a channel that the other one does not want yet, and the last data from a dead primary
//!   stay readable until the owner is done with them.
//! - Nothing survives [`renew`](Endpoint::renew): the endpoint becomes a new incarnation, and nobody has
//!   the keys that earlier frames were sealed with.
//!
//! The order of calls is that of a [`Channel`].

mod report;
mod settings;

pub use report::{EndpointEvent, EndpointVerdict};
pub use settings::Settings;

use alloc::boxed::Box;
use core::fmt;

use crate::channel::{Channel, ConfigError};
use crate::handshake::{Entropy, LinkEvent, LinkStats, Peer, Received, SecureLink, Security};
use crate::ids::Term;
use crate::seal::{DeathNotice, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SEAL_TAG_BYTES};
use crate::time::Time;

/// One end of the logging channel; see the [module](self). Pure: the caller passes frames, the time and
/// randomness in. One thread owns it. Nothing is allocated for a frame of a channel.
pub struct Endpoint {
    settings: Settings,
    link: SecureLink,
    channel: Option<Channel>,
    /// The peer of the channel, until that was reported.
    unreported_peer: Option<Peer>,
}

impl Endpoint {
    /// Creates an endpoint that starts a handshake at `now` and answers handshakes of a peer.
    ///
    /// # Errors
    ///
    /// Settings that are out of their limits or incompatible.
    pub fn new(
        settings: Settings,
        security: Security,
        entropy: Box<dyn Entropy + Send>,
        now: Time,
    ) -> Result<Endpoint, ConfigError> {
        settings.check()?;
        let mut link = SecureLink::new(security, settings.identity(), entropy);
        link.plant(settings.mutants);
        link.start(now);
        Ok(Endpoint { settings, link, channel: None, unreported_peer: None })
    }

    /// Replaces the keys after `frames` frames were sealed, instead of
    /// [`REKEY_AFTER_FRAMES`](crate::seal::REKEY_AFTER_FRAMES).
    #[must_use]
    pub fn with_rekey_after(mut self, frames: u64) -> Endpoint {
        self.link = self.link.with_rekey_after(frames);
        self
    }

    /// Gives up the channel, if there is one, and starts a new handshake, as another incarnation and
    /// with settings that may differ.
    ///
    /// # Errors
    ///
    /// Settings that are out of their limits or incompatible. Nothing has changed then.
    pub fn renew(&mut self, now: Time, settings: Settings) -> Result<(), ConfigError> {
        settings.check()?;
        (self.channel, self.unreported_peer) = (None, None);
        self.link.plant(settings.mutants);
        self.link.renew(now, settings.identity());
        self.settings = settings;
        Ok(())
    }

    /// Handles a frame from the wire without its Ethernet header, and opens it in place. Whatever the
    /// bytes are, this does not panic and does work bounded by the window.
    pub fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> EndpointVerdict {
        match self.link.handle_frame(now, frame) {
            Received::Data(bytes) => {
                // This frame may be the one that establishes the session.
                self.open_channel(now);
                let channel = self.channel.as_mut().expect("a session has a channel");
                EndpointVerdict::Channel(channel.handle_frame(now, bytes))
            }
            Received::Handshake(proof) => {
                self.open_channel(now);
                EndpointVerdict::Handshake(proof)
            }
            Received::PeerGone => {
                let channel = self.channel.as_mut().expect("a session has a channel");
                channel.handle_peer_gone(now);
                EndpointVerdict::PeerGone
            }
            Received::Dropped(error) => EndpointVerdict::Dropped(error),
        }
    }

    /// See [`Channel::heard_by`].
    pub fn heard_by(&mut self, now: Time) {
        if let Some(channel) = &mut self.channel {
            channel.heard_by(now);
        }
    }

    /// Creates the channel if there is a session and no channel yet.
    fn open_channel(&mut self, now: Time) {
        if self.channel.is_some() {
            return;
        }
        let Some(peer) = self.link.peer() else { return };
        self.link.bind();
        let config = self.settings.config(&peer);
        let channel = Channel::new(config, self.settings.role, now);
        self.channel =
            Some(channel.expect("the settings were checked, and the peer is compatible"));
        self.unreported_peer = Some(peer);
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.link.handle_timeout(now);
        if let Some(channel) = &mut self.channel {
            channel.handle_timeout(now);
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        while let Some(event) = self.link.poll_event() {
            match event {
                // Reported below, once. Later sessions with the same peer only replace the keys.
                LinkEvent::Established(_) => {}
                LinkEvent::Refused { mismatch, proven } => {
                    return Some(EndpointEvent::Refused { mismatch, proven });
                }
            }
        }
        if let Some(peer) = self.unreported_peer.take() {
            let term = self.settings.identity().session_term(&peer.identity);
            return Some(EndpointEvent::Met { peer, term });
        }
        self.channel.as_mut()?.poll_event().map(EndpointEvent::Channel)
    }

    /// Writes the next frame, sealed, to the front of `out` and returns its length. Returns `None` if
    /// there is nothing to send.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Settings::frame_bytes_max`].
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit_by(Channel::poll_transmit, now, out)
    }

    /// Like [`poll_transmit`](Self::poll_transmit), but sends no bulk; see
    /// [`Channel::poll_transmit_log`].
    ///
    /// # Panics
    ///
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit_by(Channel::poll_transmit_log, now, out)
    }

    fn poll_transmit_by(
        &mut self,
        poll: fn(&mut Channel, Time, &mut [u8]) -> Option<usize>,
        now: Time,
        out: &mut [u8],
    ) -> Option<usize> {
        if let Some(length) = self.link.poll_transmit(out) {
            return Some(length);
        }
        let channel = self.channel.as_mut()?;
        let inside = SEAL_HEADER_BYTES..out.len() - SEAL_TAG_BYTES;
        let length = poll(channel, now, &mut out[inside])?;
        let length = length + SEAL_OVERHEAD_BYTES;
        self.link.seal(&mut out[..length]).expect("a channel has a session");
        Some(length)
    }

    /// Returns the notice that this process is gone: see [`SecureLink::poll_death_notice`].
    pub fn poll_death_notice(&mut self) -> Option<DeathNotice> {
        self.link.poll_death_notice()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        let channel = self.channel.as_ref().and_then(Channel::poll_timeout);
        self.link.poll_timeout().into_iter().chain(channel).min()
    }

    /// Returns the channel to the current peer, which may have ended.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// Returns the channel, to append to it and to read from it. Frames, time and events go through the
    /// endpoint.
    pub fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.channel.as_mut()
    }

    /// Returns the peer of the current session.
    pub fn peer(&self) -> Option<Peer> {
        self.link.peer()
    }

    /// Returns the term of the channel.
    pub fn term(&self) -> Option<Term> {
        self.channel.as_ref().map(|channel| channel.config().term)
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the counters of the link since the endpoint was created.
    pub fn link_stats(&self) -> LinkStats {
        self.link.stats()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { settings, link, channel, unreported_peer: _ } = self;
        let mut debug = f.debug_struct("Endpoint");
        debug.field("role", &settings.role).field("link", link).field("channel", channel);
        debug.finish_non_exhaustive()
    }
}
