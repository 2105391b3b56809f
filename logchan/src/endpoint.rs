//! One host's end of the logging channel, whole: sealed frames in, sealed frames out.
//!
//! An [`Endpoint`] is a [`SecureLink`] and, once a peer was met, a [`Channel`] on top of it. It holds
//! what must fit between the two:
//!
//! ```text
//!   Asking ---- a session with a peer that fits ----> Bound to that peer, with a channel
//!     ^                                                 |
//!     |                                                 | the channel ends: silence, Bye
//!     +--------------------- renew() -------------------+   (no way back into it)
//! ```
//!
//! - A channel begins with the session that it runs on, at both ends: the term is the primary's, a
//!   frame is as long as the smaller of the two MTUs allows, the times were compared.
//! - While there is a channel, over or not, a peer with another incarnation is not answered. So
//!   neither end begins a channel that the other one does not want yet, and what a dead primary
//!   sent last stays readable until the owner is done with it.
//! - Nothing survives [`renew`](Endpoint::renew): the endpoint is a new incarnation, and frames of
//!   before are sealed with keys that nobody has any more.
//!
//! The order of use is that of a [`Channel`].

mod report;
mod settings;

pub use report::{EndpointEvent, EndpointVerdict};
pub use settings::Settings;

use alloc::boxed::Box;
use core::fmt;

use crate::channel::{Channel, ConfigError};
use crate::handshake::{Entropy, LinkEvent, LinkStats, Peer, Received, SecureLink, Security};
use crate::ids::Term;
use crate::seal::{SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SEAL_TAG_BYTES};
use crate::time::Time;

/// See the [module](self). Pure: whoever drives it brings frames, the time and randomness. One thread
/// owns it. Nothing is allocated for a frame of a channel.
pub struct Endpoint {
    settings: Settings,
    link: SecureLink,
    channel: Option<Channel>,
    /// The peer of the channel, until that was told.
    met: Option<Peer>,
}

impl Endpoint {
    /// An endpoint that asks for a peer from `now` on, and answers one that asks.
    ///
    /// # Errors
    ///
    /// Settings that do not go together.
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
        Ok(Endpoint { settings, link, channel: None, met: None })
    }

    /// Replaces the keys after `frames` sealed, instead of
    /// [`REKEY_AFTER_FRAMES`](crate::seal::REKEY_AFTER_FRAMES).
    #[must_use]
    pub fn with_rekey_after(mut self, frames: u64) -> Endpoint {
        self.link = self.link.with_rekey_after(frames);
        self
    }

    /// Gives up the channel, if there is one, and asks for a peer anew: as another incarnation, with
    /// settings that may be others.
    ///
    /// # Errors
    ///
    /// Settings that do not go together; nothing has changed then.
    pub fn renew(&mut self, now: Time, settings: Settings) -> Result<(), ConfigError> {
        settings.check()?;
        (self.channel, self.met) = (None, None);
        self.link.plant(settings.mutants);
        self.link.renew(now, settings.identity());
        self.settings = settings;
        Ok(())
    }

    /// Takes in a frame from the wire, its Ethernet header removed; it is opened in place. Whatever the
    /// bytes are, this does not panic, and does work bounded by the window.
    pub fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> EndpointVerdict {
        match self.link.handle_frame(now, frame) {
            Received::Data(bytes) => {
                // The frame itself may be what proves the session.
                self.meet(now);
                let channel = self.channel.as_mut().expect("a session that was met has a channel");
                EndpointVerdict::Channel(channel.handle_frame(now, bytes))
            }
            Received::Handshake => {
                self.meet(now);
                EndpointVerdict::Handshake
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

    /// Begins a channel if there is a session for one.
    fn meet(&mut self, now: Time) {
        if self.channel.is_some() {
            return;
        }
        let Some(peer) = self.link.peer() else { return };
        self.link.bind();
        let config = self.settings.config(&peer);
        let channel = Channel::new(config, self.settings.role, now);
        self.channel = Some(channel.expect("sound settings and a peer that fits"));
        self.met = Some(peer);
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.link.handle_timeout(now);
        if let Some(channel) = &mut self.channel {
            channel.handle_timeout(now);
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        while let Some(event) = self.link.poll_event() {
            match event {
                // Told below, once; later sessions with the same peer only replace the keys.
                LinkEvent::Established(_) => {}
                LinkEvent::Refused { mismatch, proven } => {
                    return Some(EndpointEvent::Refused { mismatch, proven });
                }
            }
        }
        if let Some(peer) = self.met.take() {
            let term = self.settings.identity().session_term(&peer.identity);
            return Some(EndpointEvent::Met { peer, term });
        }
        self.channel.as_mut()?.poll_event().map(EndpointEvent::Channel)
    }

    /// Writes the next frame, sealed, to the front of `out` and returns its length; `None` when there
    /// is nothing to send now.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Settings::frame_bytes_max`].
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit_by(Channel::poll_transmit, now, out)
    }

    /// The same without bulk: [`Channel::poll_transmit_log`].
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

    /// When [`handle_timeout`](Self::handle_timeout) must be called, if nothing else is called before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let channel = self.channel.as_ref().and_then(Channel::poll_timeout);
        self.link.poll_timeout().into_iter().chain(channel).min()
    }

    /// The channel to the peer that was met; it may be over.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// The channel, to append to and to read from. Frames, time and events go through the endpoint.
    pub fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.channel.as_mut()
    }

    /// The peer of the current session.
    pub fn peer(&self) -> Option<Peer> {
        self.link.peer()
    }

    /// The term of the channel.
    pub fn term(&self) -> Option<Term> {
        self.channel.as_ref().map(|channel| channel.config().term)
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the link counted since the endpoint was made.
    pub fn link_stats(&self) -> LinkStats {
        self.link.stats()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { settings, link, channel, met: _ } = self;
        let mut debug = f.debug_struct("Endpoint");
        debug.field("role", &settings.role).field("link", link).field("channel", channel);
        debug.finish_non_exhaustive()
    }
}
