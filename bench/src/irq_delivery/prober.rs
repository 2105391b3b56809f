//! Sends frames at random moments, and finds out when each was delivered.

use crate::error::BenchError;
use crate::series::Series;
use crate::stage_trace::StageTrace;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;
use vmm::demo::clients::ECHO_PORT;
use vmm::demo::standalone::GUEST_ADDRESS;
use vmm::link::now;

/// From when a guest was told to compute until it does: frames that come later find it at work.
const BEGINS_NS: u64 = 500_000;

/// A frame that was sent, by the clock of `vmm::link::now`.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// From then on no other frame should have come.
    alone_from: u64,
    sent: u64,
}

/// Frames that were sent, and when.
pub(super) struct Sent(Vec<Frame>);

/// What became of frames.
pub(super) struct Delivered {
    /// From a frame's sending to the guest's acknowledgement of the first interrupt that was injected after
    /// it.
    pub(super) times: Series,
    /// Frames that had none before the next was sent.
    pub(super) missing: u64,
    /// Frames that came to a computation which had had its one interrupt, for a frame that nobody here sent
    /// (the client's kernel says something on a connection, now and then).
    pub(super) shadowed: u64,
}

/// Sends `count` datagrams to the guest's echo service, each so many microseconds (at random) after
/// `before` returned, which says whether it has the guest compute; then `after` is called. Answers are not waited for: a guest that computes gives
/// none before it is done. Called where the client is.
pub(super) fn send(
    count: u64,
    gap_us: RangeInclusive<u64>,
    seed: u64,
    mut before: impl FnMut() -> Result<bool, BenchError>,
    mut after: impl FnMut() -> Result<(), BenchError>,
) -> Result<Sent, BenchError> {
    let failed = || BenchError::os("sending a datagram to the guest");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed())?;
    socket.connect((GUEST_ADDRESS, ECHO_PORT)).map_err(failed())?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = Vec::with_capacity(count as usize);
    for number in 0..count {
        let computes = before()?;
        let begun = now().as_nanos();
        std::thread::sleep(Duration::from_micros(random.u64(gap_us.clone())));
        let sent_at = now().as_nanos();
        let alone_from = if computes { begun + BEGINS_NS } else { sent_at };
        sent.push(Frame { alone_from, sent: sent_at });
        socket.send(&number.to_le_bytes()).map_err(failed())?;
        after()?;
    }
    Ok(Sent(sent))
}

impl Delivered {
    /// Of none.
    pub(super) fn new() -> Delivered {
        Delivered { times: Series::new(), missing: 0, shadowed: 0 }
    }
}

impl Sent {
    /// What became of each, by what the VM followed.
    pub(super) fn delivered(&self, trace: &StageTrace) -> Delivered {
        let mut delivered = Delivered::new();
        let mut deliveries = trace.deliveries.iter().peekable();
        for (index, &Frame { alone_from, sent }) in self.0.iter().enumerate() {
            let next = self.0.get(index + 1).map_or(u64::MAX, |next| next.sent);
            let mut is_shadowed = false;
            while let Some(before) = deliveries.next_if(|delivery| delivery.injected < sent) {
                is_shadowed |= before.taken >= alone_from;
            }
            match deliveries.peek() {
                _ if is_shadowed => delivered.shadowed += 1,
                Some(delivery) if delivery.injected < next => {
                    delivered.times.record(delivery.served - sent);
                }
                Some(_) | None => delivered.missing += 1,
            }
        }
        delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::telemetry::Passage;

    #[test]
    fn frame_is_delivered_by_the_first_interrupt_after_it() {
        let delivery = |taken, injected| Passage {
            taken,
            injected,
            served: injected + 5,
            ..Passage::default()
        };
        let trace = StageTrace {
            // The second was of a frame that the guest had taken without an interrupt.
            deliveries: vec![
                delivery(90, 95),
                delivery(80, 120),
                delivery(210, 230),
                delivery(400, 450),
            ],
            answers: Vec::new(),
        };
        let frames = |alone_from: u64| {
            [100, 200, 300, 350].map(|sent| Frame { alone_from: sent - alone_from, sent }).to_vec()
        };
        let Delivered { times, missing, shadowed } = Sent(frames(0)).delivered(&trace);
        assert_eq!((times.len(), missing, shadowed), (3, 1, 0));
        assert_eq!([0.0, 0.5, 1.0].map(|quantile| times.quantile_ns(quantile)), [25, 35, 105]);
        // The first one came in the time before the first frame in which that should have been alone.
        let Delivered { times, missing, shadowed } = Sent(frames(10)).delivered(&trace);
        assert_eq!((times.len(), missing, shadowed), (2, 1, 1));
    }
}
