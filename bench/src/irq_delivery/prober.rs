//! Sends frames at random moments and determines when each was delivered.

use crate::error::BenchError;
use crate::series::Series;
use crate::stage_trace::StageTrace;
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;
use testbed::GUEST_ADDRESS;
use testbed::clients::ECHO_PORT;
use vmm::link::now;

/// Time that a guest needs to start computing after the request, nanoseconds. Frames sent later arrive
/// during the computation.
const BEGINS_NS: u64 = 500_000;

/// A frame that was sent. Times are of the clock of `vmm::link::now`, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Start of the interval in which no other frame should arrive before this one.
    alone_from: u64,
    sent: u64,
}

/// The frames that were sent.
pub(super) struct Sent(Vec<Frame>);

/// Deliveries of frames.
pub(super) struct Delivered {
    /// Time from sending a frame until the guest acknowledged the first interrupt injected after it.
    pub(super) times: Series,
    /// Frames without such an interrupt before the next frame was sent.
    pub(super) missing: u64,
    /// Frames that arrived during a computation whose one interrupt another frame had taken. Such a
    /// frame comes from the client's kernel, which now and then sends a packet on a connection.
    pub(super) shadowed: u64,
}

/// Sends `count` datagrams to the guest's echo service. For each, calls `before`, waits for a random
/// time in `gap_us` (microseconds), sends the datagram and calls `after`. `before` returns whether it
/// made the guest compute. Answers are not awaited, because a guest that computes answers only when it
/// is done. Must be called in the client's namespace.
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
    /// Creates an empty set.
    pub(super) fn new() -> Delivered {
        Delivered { times: Series::new(), missing: 0, shadowed: 0 }
    }
}

impl Sent {
    /// Finds the delivery of each frame in the VM's trace.
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
    fn frame_delivery_is_the_first_interrupt_after_it() {
        let delivery = |taken, injected| Passage {
            taken,
            injected,
            served: injected + 5,
            ..Passage::default()
        };
        let trace = StageTrace {
            // The second belongs to a frame that the guest had received without an interrupt.
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
        // With this interval the first delivery shadows the first frame.
        let Delivered { times, missing, shadowed } = Sent(frames(10)).delivered(&trace);
        assert_eq!((times.len(), missing, shadowed), (2, 1, 1));
    }
}
