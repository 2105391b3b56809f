//! The state machine of a [`SecureLink`].

use alloc::boxed::Box;
use core::fmt;

use super::identity::{Identity, Met, Mismatch};
use super::noise::{EPHEMERAL_BYTES, Entropy, Noise, Security};
use super::pending::{AnswerBudget, Pending, PendingList, Session, Standing};
use super::report::{LinkEvent, LinkStats, NotEstablished, Peer, Received};
use super::{HANDSHAKE_FRAME_BYTES, MESSAGE_BYTES, PENDING_MAX_TIME, RETRY_FIRST, RETRY_MAX};
use crate::channel::{Mutant, Mutants};
use crate::ids::{Role, SessionId, Term};
use crate::seal::{
    OpenError, REKEY_AFTER_FRAMES, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SealHeader, SealKind,
};
use crate::time::{Duration, Time};

/// Our own handshake, from its start to the response.
struct Attempt {
    noise: Noise,
    frame: [u8; HANDSHAKE_FRAME_BYTES],
    name: u32,
    due: bool,
    next: Time,
    interval: Duration,
}

/// One endpoint of a sealed link: its handshakes and its sessions. Sans I/O: frames in, frames out,
/// the time as an argument. See the [module](super) for the protocol and the order of calls.
///
/// Nothing is allocated for a frame of a session, sealed or opened, right or wrong.
pub struct SecureLink {
    security: Security,
    identity: Identity,
    incarnation: u64,
    entropy: Box<dyn Entropy + Send>,
    attempt: Option<Attempt>,
    pending: PendingList,
    current: Option<Session>,
    /// The sessions before with the same incarnation, the newest first: frames may still be under way
    /// in them. Two, because of two handshakes that crossed each end may take another one for the later
    /// one: then it still seals with what is the older one for us when there is a third.
    previous: [Option<Session>; 2],
    /// An answer for a peer that does not fit, so that it learns of it, too.
    refusal: Option<[u8; HANDSHAKE_FRAME_BYTES]>,
    confirm_due: bool,
    budget: AnswerBudget,
    /// The only incarnation that is answered.
    bound: Option<u64>,
    established: bool,
    refused: Option<(Mismatch, bool)>,
    rekey_after_frames: u64,
    mutants: Mutants,
    stats: LinkStats,
}

impl SecureLink {
    /// An endpoint without a session. It answers, and does not begin anything before
    /// [`start`](Self::start).
    pub fn new(
        security: Security,
        identity: Identity,
        mut entropy: Box<dyn Entropy + Send>,
    ) -> SecureLink {
        let incarnation = draw(&mut *entropy);
        SecureLink {
            security,
            identity,
            incarnation,
            entropy,
            attempt: None,
            pending: PendingList::default(),
            current: None,
            previous: [None, None],
            refusal: None,
            confirm_due: false,
            budget: AnswerBudget::new(),
            bound: None,
            established: false,
            refused: None,
            rekey_after_frames: REKEY_AFTER_FRAMES,
            mutants: Mutants::default(),
            stats: LinkStats::default(),
        }
    }

    /// Begins a handshake, which goes on until there is a session. Does nothing while one is under
    /// way. A live session stays in use until the new one is there.
    pub fn start(&mut self, now: Time) {
        if self.attempt.is_none() {
            self.attempt = Some(self.new_attempt(now));
        }
    }

    /// Gives up the handshake under way, if any.
    pub fn stop(&mut self) {
        self.attempt = None;
    }

    /// Something is built upon the current session: from now on nobody but its peer, in this
    /// incarnation, is answered. Later handshakes with it only replace the keys.
    ///
    /// # Panics
    ///
    /// When there is no session.
    pub fn bind(&mut self) {
        let session = self.current.as_ref().expect("nothing is built upon no session");
        self.bound = Some(session.peer.incarnation);
    }

    /// Begins anew, under an identity that may be another one (a backup that went live is a primary):
    /// forgets all sessions, is no longer bound, and asks for a new session at once.
    pub fn renew(&mut self, now: Time, identity: Identity) {
        self.identity = identity;
        self.incarnation = draw(&mut *self.entropy);
        self.pending = PendingList::default();
        (self.current, self.previous, self.bound) = (None, [None, None], None);
        (self.refusal, self.refused) = (None, None);
        (self.confirm_due, self.established) = (false, false);
        self.attempt = Some(self.new_attempt(now));
    }

    /// The peer of the current session.
    pub fn peer(&self) -> Option<Peer> {
        self.current.as_ref().map(|session| session.peer)
    }

    /// Replaces each session's keys after `frames` sealed, instead of [`REKEY_AFTER_FRAMES`].
    #[must_use]
    pub fn with_rekey_after(mut self, frames: u64) -> SecureLink {
        self.rekey_after_frames = frames;
        self
    }

    /// Bugs planted on purpose; none in what ships.
    pub(crate) fn plant(&mut self, mutants: Mutants) {
        self.mutants = mutants;
    }

    fn rekey_due(&self) -> bool {
        let frames = self.current.as_ref().map(|session| session.sealer.frames());
        frames.is_some_and(|frames| frames >= self.rekey_after_frames)
    }

    /// What was counted so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Seals a frame of the channel in place, as [`Sealer::seal`](crate::seal::Sealer::seal) does.
    ///
    /// # Errors
    ///
    /// When there is no session; `frame` is then unchanged.
    pub fn seal(&mut self, frame: &mut [u8]) -> Result<u64, NotEstablished> {
        let session = self.current.as_mut().ok_or(NotEstablished)?;
        Ok(session.sealer.seal(frame))
    }

    /// Takes in whatever came from the wire, and opens it in place.
    pub fn handle_frame<'f>(&mut self, now: Time, frame: &'f mut [u8]) -> Received<'f> {
        let header = match SealHeader::decode(frame) {
            Ok(header) if header.protection == self.security.protection() => header,
            Ok(_) => return self.dropped(OpenError::OtherProtection),
            Err(error) => return self.dropped(OpenError::Malformed(error)),
        };
        let whole = &frame[..header.frame_bytes()];
        match header.kind {
            SealKind::Initiation => self.handle_initiation(now, header.key_id, whole),
            SealKind::Response => self.handle_response(now, header.key_id, whole),
            SealKind::Confirm | SealKind::Data => {
                if self.rekey_due() {
                    self.start(now);
                }
                return self.open(header.key_id, frame);
            }
        }
        Received::Handshake
    }

    fn dropped<'f>(&mut self, error: OpenError) -> Received<'f> {
        self.stats.open.record::<()>(&Err(error));
        Received::Dropped(error)
    }

    fn open<'f>(&mut self, key_id: u32, frame: &'f mut [u8]) -> Received<'f> {
        let is = |session: &&mut Session| session.key_id == key_id;
        if self.mutants.has(Mutant::TakeRepeated)
            && let Some(session) = self.current.as_mut()
        {
            session.opener.forget_seen();
        }
        let known = self.current.iter_mut().chain(self.previous.iter_mut().flatten());
        let result = if let Some(session) = known.into_iter().find(is) {
            session.opener.open(frame)
        } else if let Some(position) = self.pending.position(key_id) {
            let result = self.pending.session_mut(position).opener.open(frame);
            if result.is_ok() {
                self.take_up(position);
            }
            result
        } else {
            Err(OpenError::StaleSession { key_id })
        };
        self.stats.open.record(&result);
        match result {
            Ok((SealKind::Data, payload)) => Received::Data(payload),
            Ok((SealKind::Confirm | SealKind::Initiation | SealKind::Response, _)) => {
                Received::Handshake
            }
            Err(error) => Received::Dropped(error),
        }
    }

    fn handle_initiation(&mut self, now: Time, name: u32, frame: &[u8]) {
        if let Some(pending) = self.pending.find(frame) {
            pending.due = true;
            return;
        }
        let message = &frame[SEAL_HEADER_BYTES..];
        if message_name(message) != Some(name) {
            self.stats.forged_handshakes += 1;
            return;
        }
        let mut noise = Noise::responder(&self.security, &mut *self.entropy);
        let Some(met) = self.read(&mut noise, message) else { return };
        if self.is_stranger(&met) {
            return;
        }
        if !self.budget.take(now) && !self.mutants.has(Mutant::AnswerAll) {
            self.stats.over_budget += 1;
            return;
        }
        if let (Met::Fit { incarnation, .. }, Some(attempt)) = (&met, &mut self.attempt)
            && self.incarnation > *incarnation
        {
            self.stats.crossed += 1;
            attempt.due = true;
            return;
        }
        let response = self.message(&mut noise, SealKind::Response, Some(name));
        match met {
            Met::Fit { peer, incarnation } => {
                let initiation = frame.try_into().expect("an identity of our version has its size");
                let expires = now + PENDING_MAX_TIME;
                let session = self.session(noise, peer, incarnation);
                let (due, key_id) = (true, session.key_id);
                let standing = Standing::Fresh;
                let pending = Pending { session, initiation, response, due, standing, expires };
                self.pending.push(pending);
                if self.mutants.has(Mutant::TrustRecordings) {
                    self.refusal = self.pending.take_due().copied();
                    self.take_up(self.pending.position(key_id).expect("just added"));
                }
            }
            Met::Unfit(mismatch) => {
                self.refusal = Some(response);
                self.refuse(mismatch, false);
            }
            Met::Ourselves => unreachable!("`read` sorts out our own words"),
        }
    }

    fn handle_response(&mut self, now: Time, name: u32, frame: &[u8]) {
        let Some(mut attempt) = self.attempt.take_if(|attempt| attempt.name == name) else {
            self.stats.stale_responses += 1;
            return;
        };
        let message = &frame[SEAL_HEADER_BYTES..];
        let Some(met) = self.read(&mut attempt.noise, message) else {
            // Not the peer: go on waiting for it.
            self.attempt = Some(attempt);
            return;
        };
        match met {
            met if self.is_stranger(&met) => self.ask_again_later(now),
            Met::Fit { peer, incarnation } => {
                let session = self.session(attempt.noise, peer, incarnation);
                self.pending.end_attempt(self.incarnation > incarnation);
                self.establish(session);
                self.confirm_due = true;
            }
            Met::Unfit(mismatch) => {
                self.refuse(mismatch, true);
                // It may come back with another configuration.
                self.ask_again_later(now);
            }
            Met::Ourselves => unreachable!("`read` sorts out our own words"),
        }
    }

    fn ask_again_later(&mut self, now: Time) {
        let mut attempt = self.new_attempt(now);
        attempt.due = false;
        attempt.interval = RETRY_MAX;
        attempt.next = now + RETRY_MAX;
        self.attempt = Some(attempt);
    }

    /// Reads a handshake's message; `None` if it is not from a peer with our key.
    fn read(&mut self, noise: &mut Noise, message: &[u8]) -> Option<Met> {
        // Another build's identity may be longer; more than this it is not.
        let mut payload = [0; 256];
        let met = match noise.read(message, &mut payload) {
            Ok(length) => self.ours().meet(self.incarnation, &payload[..length]).ok(),
            Err(_) => None,
        };
        match met {
            Some(Met::Ourselves) => {
                self.stats.reflected += 1;
                None
            }
            Some(met @ (Met::Fit { .. } | Met::Unfit(_))) => Some(met),
            None => {
                self.stats.forged_handshakes += 1;
                None
            }
        }
    }

    /// What the peer's identity is compared with: our own.
    fn ours(&self) -> Identity {
        if !self.mutants.has(Mutant::FollowOldTerm) {
            return self.identity;
        }
        match self.identity.role {
            Role::Primary => Identity { term: Term(u64::MAX), ..self.identity },
            Role::Backup => Identity { term: Term(0), ..self.identity },
        }
    }

    /// Whether somebody else than the one that we are bound to says this.
    fn is_stranger(&mut self, met: &Met) -> bool {
        let is_stranger = match (self.bound, met) {
            _ if self.mutants.has(Mutant::AnswerStrangers) => false,
            (Some(bound), Met::Fit { incarnation, .. }) => *incarnation != bound,
            (Some(_), Met::Unfit(_) | Met::Ourselves) => true,
            (None, _) => false,
        };
        self.stats.strangers += u64::from(is_stranger);
        is_stranger
    }

    fn session(&self, noise: Noise, identity: Identity, incarnation: u64) -> Session {
        let keys = noise.keys();
        // Either one is fresh, so this is; and the order does not matter.
        let session = SessionId(self.incarnation ^ incarnation);
        let peer = Peer { identity, incarnation, session };
        Session::new(self.security.protection(), &keys, peer)
    }

    /// The peer has the keys of a pending session. Whoever held a frame back must not bring back keys
    /// that the peer may have forgotten since.
    fn take_up(&mut self, position: usize) {
        if self.mutants.has(Mutant::ReviveSessions) {
            self.pending.revive();
        }
        if let Some(session) = self.pending.take_up(position) {
            self.establish(session);
        }
    }

    fn establish(&mut self, session: Session) {
        let incarnation = session.peer.incarnation;
        // Whoever is somebody else now has forgotten all sessions of before. Those that are pending
        // could only be proven by frames that were long under way, or were held back.
        if !self.mutants.has(Mutant::ReviveSessions) {
            self.pending.keep_of(incarnation);
        }
        let drop_old_keys = self.mutants.has(Mutant::DropOldKeys);
        let is_kept = |before: &Session| before.peer.incarnation == incarnation && !drop_old_keys;
        let [newer, _] = core::mem::take(&mut self.previous);
        self.previous = [self.current.replace(session), newer].map(|before| before.filter(is_kept));
        self.attempt = None;
        self.confirm_due = false;
        self.established = true;
        self.stats.sessions += 1;
    }

    fn refuse(&mut self, mismatch: Mismatch, proven: bool) {
        self.stats.refused += 1;
        if !proven && self.current.is_some() {
            // Whoever plays a recording to a live session achieves nothing.
            return;
        }
        // What is proven is not hidden by what is not.
        if proven || !matches!(self.refused, Some((_, true))) {
            self.refused = Some((mismatch, proven));
        }
    }

    fn new_attempt(&mut self, now: Time) -> Attempt {
        self.pending.begin_attempt();
        let mut noise = Noise::initiator(&self.security, &mut *self.entropy);
        let frame = self.message(&mut noise, SealKind::Initiation, None);
        let name = message_name(&frame[SEAL_HEADER_BYTES..]).expect("a message begins with a key");
        let next = now + RETRY_FIRST;
        Attempt { noise, frame, name, due: true, next, interval: RETRY_FIRST }
    }

    /// Our message of a handshake, as a frame. An initiation names itself.
    fn message(
        &self,
        noise: &mut Noise,
        kind: SealKind,
        name: Option<u32>,
    ) -> [u8; HANDSHAKE_FRAME_BYTES] {
        let mut frame = [0; HANDSHAKE_FRAME_BYTES];
        let (head, message) = frame.split_at_mut(SEAL_HEADER_BYTES);
        let length = noise.write(&self.identity.encode(self.incarnation), message);
        assert_eq!(length, MESSAGE_BYTES);
        let name = name.or(message_name(message)).expect("a message begins with a key");
        let protection = self.security.protection();
        let length = length as u16;
        let header = SealHeader { kind, protection, length, key_id: name, sequence: 0 };
        head.copy_from_slice(&header.encode());
        frame
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Time) {
        self.pending.expire(now);
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| now >= attempt.next) {
            attempt.due = !self.mutants.has(Mutant::AskOnce);
            attempt.interval = (attempt.interval * 2).min(RETRY_MAX);
            attempt.next = now + attempt.interval;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next needed.
    pub fn poll_timeout(&self) -> Option<Time> {
        let attempt = self.attempt.as_ref().map(|attempt| attempt.next);
        attempt.into_iter().chain(self.pending.next_expiry()).min()
    }

    /// The next thing that happened. A newer one of the same kind replaces one that was not fetched.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        if core::mem::take(&mut self.established)
            && let Some(session) = &self.current
        {
            return Some(LinkEvent::Established(session.peer));
        }
        let (mismatch, proven) = self.refused.take()?;
        Some(LinkEvent::Refused { mismatch, proven })
    }

    fn wants_to_send(&self) -> bool {
        let asks = self.attempt.as_ref().is_some_and(|attempt| attempt.due);
        asks || self.confirm_due || self.refusal.is_some() || self.pending.is_due()
    }

    /// Writes the next frame of the link's own to the front of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`HANDSHAKE_FRAME_BYTES`].
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        assert!(out.len() >= HANDSHAKE_FRAME_BYTES, "no room for a frame of a handshake");
        // Asked for every frame of the channel, and moving handshakes about takes time.
        if !self.wants_to_send() {
            return None;
        }
        if core::mem::take(&mut self.confirm_due)
            && let Some(session) = &mut self.current
        {
            let frame = &mut out[..SEAL_OVERHEAD_BYTES];
            session.sealer.seal_kind(SealKind::Confirm, frame);
            return Some(frame.len());
        }
        let response = self.pending.take_due().copied().or_else(|| self.refusal.take());
        let frame = response.or_else(|| {
            let attempt = self.attempt.as_mut().filter(|attempt| attempt.due)?;
            attempt.due = false;
            self.stats.initiations += 1;
            Some(attempt.frame)
        })?;
        out[..frame.len()].copy_from_slice(&frame);
        Some(frame.len())
    }
}

fn draw(entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The name of an attempt: the first bytes of its ephemeral key.
fn message_name(message: &[u8]) -> Option<u32> {
    let ephemeral = message.get(..EPHEMERAL_BYTES)?;
    ephemeral.first_chunk().map(|name| u32::from_le_bytes(*name))
}

impl fmt::Debug for SecureLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SecureLink");
        debug.field("peer", &self.peer()).field("stats", &self.stats).finish_non_exhaustive()
    }
}
