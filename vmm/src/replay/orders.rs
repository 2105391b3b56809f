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
    /// An order was given, and it has not failed.
    under_way: AtomicBool,
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

impl Orders {
    /// The calling thread runs the machine: it is kicked at each order.
    pub fn attend(&self) {
        let _ = self.kicker.set(Kicker::of_this_thread());
    }

    /// Gives an order.
    pub fn give(&self, order: Order) {
        self.under_way.store(true, Ordering::Relaxed);
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
        self.under_way.store(false, Ordering::Relaxed);
    }

    /// Returns whether an order was given that has not failed.
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strongest_order_is_taken_once() {
        let orders = Orders::default();
        assert!(!orders.any() && !orders.is_under_way() && orders.take().is_none());
        orders.give(Order::Stop);
        orders.give(Order::HandOver);
        assert!(orders.any());
        assert_eq!(orders.take(), Some(Order::Stop));
        assert!(orders.take().is_none() && orders.is_under_way());
        orders.failed();
        assert!(!orders.is_under_way());
        orders.give(Order::Leave);
        assert_eq!(orders.take(), Some(Order::Leave));
    }
}
