use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::convert::Infallible;

use logchan::channel::Channel;
use logchan::endpoint::EndpointVerdict;
use logchan::handshake::Proof;
use logchan::time::{Duration, Time};

use super::{Transport, Wire};
use crate::driver::host::{Clock, LinkPort};
use crate::limits::{FRAMES_PER_RECEIVE, RECEIVE_PAUSE_MAX, RECEIVES_PER_DRIVE};
use crate::mutant::Mutants;

const START: Time = Time::from_nanos(1 << 40);

/// The most frames that wait in the test's port: what one drive takes, as in a port with a ring.
const WAITING_MAX: usize = FRAMES_PER_RECEIVE * RECEIVES_PER_DRIVE;

/// A port in which `left` frames wait.
struct Port {
    left: u64,
    taken: u64,
}

impl LinkPort for Port {
    type Error = Infallible;
    type Mark = u64;
    type Spin = ();

    fn arrived(&mut self, frames_max: usize) -> Result<Option<u64>, Infallible> {
        let count = self.left.min(frames_max as u64);
        Ok((count > 0).then_some(self.taken + count))
    }

    fn receive_until(
        &mut self,
        mark: u64,
        handle: impl FnOnce(&mut [u8]) -> Proof,
    ) -> Result<bool, Infallible> {
        if self.taken >= mark {
            return Ok(false);
        }
        self.taken += 1;
        self.left -= 1;
        handle(&mut [0; 60]);
        Ok(true)
    }

    fn is_cut_off(&self) -> bool {
        false
    }

    fn has_frame(&self) -> bool {
        self.left > 0
    }

    fn frames_waiting_max(&self) -> usize {
        WAITING_MAX
    }

    fn send(&mut self, _frame: &mut [u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn unsent_bytes(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn wait(&mut self, _timeout: Option<Duration>) -> Result<(), Infallible> {
        Ok(())
    }

    fn looked(&self) -> Option<Duration> {
        None
    }

    fn begin_spin(&self, _span: Duration) {}

    fn spin(&mut self, _spin: &mut ()) -> bool {
        false
    }
}

/// A transport with a timeout that is always due. It notes after how many frames the timeouts were handled.
#[derive(Default)]
struct Due {
    frames: usize,
    handled_after: Vec<usize>,
}

impl Transport for Due {
    fn handle_frame(&mut self, _now: Time, _frame: &mut [u8]) -> Option<EndpointVerdict> {
        self.frames += 1;
        None
    }

    fn heard_by(&mut self, _now: Time) {}

    fn handle_timeout(&mut self, _now: Time) {
        self.handled_after.push(self.frames);
    }

    fn poll_timeout(&self) -> Option<Time> {
        Some(START)
    }

    fn poll_transmit(&mut self, _now: Time, _out: &mut [u8]) -> Option<usize> {
        None
    }

    fn poll_transmit_log(&mut self, _now: Time, _out: &mut [u8]) -> Option<usize> {
        None
    }

    fn channel(&self) -> Option<&Channel> {
        None
    }
}

struct TestClock(Cell<Time>);

impl Clock for TestClock {
    fn now(&self) -> Time {
        self.0.get()
    }
}

struct Setup {
    wire: Box<Wire<Port>>,
    due: Due,
    clock: TestClock,
}

impl Setup {
    /// A wire at whose port `left` frames wait.
    fn new(left: u64) -> Setup {
        let wire = Box::new(Wire::new(Port { left, taken: 0 }, Mutants::default()));
        Setup { wire, due: Due::default(), clock: TestClock(Cell::new(START)) }
    }

    fn receive(&mut self) -> bool {
        let Ok(more) = self.wire.receive(&self.clock, &mut self.due);
        more
    }
}

#[test]
fn timeouts_are_handled_once_per_drive_although_frames_keep_coming() {
    let mut setup = Setup::new(u64::MAX);
    for _ in 0..10 * RECEIVES_PER_DRIVE {
        assert!(setup.receive());
        setup.clock.0.set(setup.clock.now() + Duration::from_micros(300));
    }
    let drives = (1..=10).map(|drive| drive * WAITING_MAX).collect::<Vec<_>>();
    assert_eq!(setup.due.handled_after, drives);
}

#[test]
fn timeouts_come_after_all_frames_that_waited() {
    for left in [1, FRAMES_PER_RECEIVE, FRAMES_PER_RECEIVE + 1, WAITING_MAX] {
        let mut setup = Setup::new(left as u64);
        while setup.receive() {}
        assert_eq!(setup.due.handled_after, [left]);
    }
}

#[test]
fn timeouts_wait_for_the_frames_that_arrived_in_a_pause() {
    let mut setup = Setup::new(u64::MAX);
    for _ in 1..RECEIVES_PER_DRIVE {
        setup.receive();
    }
    assert_eq!(setup.due.handled_after, []);
    // The process was stopped, and its ring is full of other frames, those of the peer among them.
    setup.clock.0.set(START + RECEIVE_PAUSE_MAX * 200);
    let before = setup.due.frames;
    for _ in 0..RECEIVES_PER_DRIVE {
        assert_eq!(setup.due.handled_after, []);
        setup.receive();
    }
    assert_eq!(setup.due.handled_after, [before + WAITING_MAX]);
}
