//! [`Orders`]: what an operator orders a machine to do, from any thread.

use crate::kvm::kick::Kicker;
use replication::driver::Order;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// No order waits.
const NONE: u8 = 0;

/// Orders to the machine of one vCPU thread.
#[derive(Debug, Default)]
pub struct Orders {
    /// The strongest order that was not taken: [`number`], or [`NONE`].
    waiting: AtomicU8,
    /// An order that ends the process was given, and it has not failed.
    is_ending: AtomicBool,
    kicker: OnceLock<Kicker>,
}

/// Returns an order's number: a higher one includes a lower one.
const fn number(order: Order) -> u8 {
    match order {
        Order::HandOver => 1,
        Order::Leave => 2,
        Order::Stop => 3,
    }
}

/// Returns whether the process ends when `order` is carried out. A host that handed the VM over goes on, and may
/// be ordered to leave at any later time.
const fn ends_process(order: Order) -> bool {
    match order {
        Order::HandOver => false,
        Order::Leave | Order::Stop => true,
    }
}

impl Orders {
    /// The calling thread runs the machine: it is kicked at each order.
    pub fn attend(&self) {
        let _ = self.kicker.set(Kicker::of_this_thread());
    }

    /// Gives an order.
    pub fn give(&self, order: Order) {
        if ends_process(order) {
            self.is_ending.store(true, Ordering::Relaxed);
        }
        self.waiting.fetch_max(number(order), Ordering::Relaxed);
        if let Some(kicker) = self.kicker.get() {
            kicker.kick();
        }
    }

    /// Returns whether an order waits.
    pub fn any(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != NONE
    }

    /// Removes the order that waits and returns it.
    pub fn take(&self) -> Option<Order> {
        if !self.any() {
            return None;
        }
        let taken = self.waiting.swap(NONE, Ordering::Relaxed);
        [Order::HandOver, Order::Leave, Order::Stop].into_iter().find(|&o| number(o) == taken)
    }

    /// The order that was taken can't be carried out.
    pub fn failed(&self) {
        self.is_ending.store(false, Ordering::Relaxed);
    }

    /// Returns whether an order was given that ends the process, and that has not failed.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strongest_order_is_taken_once() {
        let orders = Orders::default();
        assert!(!orders.any() && !orders.is_ending() && orders.take().is_none());
        orders.give(Order::Stop);
        orders.give(Order::HandOver);
        assert!(orders.any());
        assert_eq!(orders.take(), Some(Order::Stop));
        assert!(orders.take().is_none() && orders.is_ending());
        orders.failed();
        assert!(!orders.is_ending());
        orders.give(Order::Leave);
        assert_eq!(orders.take(), Some(Order::Leave));
    }

    #[test]
    fn process_that_handed_the_vm_over_is_not_ending() {
        let orders = Orders::default();
        orders.give(Order::HandOver);
        assert_eq!(orders.take(), Some(Order::HandOver));
        assert!(!orders.is_ending(), "a later SIGTERM would be taken for the second one");
        orders.give(Order::Leave);
        assert!(orders.is_ending());
    }
}
