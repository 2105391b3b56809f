//! [`PairHost`]: what a real host provides to the driver.

use super::observer::PairObserver;
use crate::link::{BootClock, EthernetLink};
use crate::replay::error::HostError;
use crate::replay::world::World;
use crate::supervisor::Supervisor;
use crate::witness::WitnessThreads;
use logchan::time::Duration as Span;
use netpath::{FramePort, wait_any};
use replication::driver::{Driver, Host};
use std::marker::PhantomData;
use std::time::Duration;

/// A host of a pair whose VM has a network port of type `P`.
pub struct PairHost<P>(PhantomData<P>);

/// The nondeterminism boundary of a primary and of a backup. To be created on the vCPU thread.
pub type PairDriver<P> = Driver<PairHost<P>>;

impl<P: FramePort> Host for PairHost<P> {
    type Error = HostError;
    type Clock = BootClock;
    type Link = EthernetLink;
    type World = World<P>;
    type Witness = WitnessThreads;
    type Supervisor = Supervisor;
    type Observer = PairObserver;

    fn wait_any(
        world: &mut World<P>,
        link: &mut EthernetLink,
        timeout: Span,
    ) -> Result<(), HostError> {
        let (wait, timeout) = (link.wait_policy(), Duration::from_nanos(timeout.as_nanos()));
        wait_any(&mut [world.port_mut(), link.port_mut()], &wait, Some(timeout))?;
        Ok(())
    }
}
