use super::*;

const TIMER: Line = Line::new(0);
const SERIAL: Line = Line::new(4);
const NET: Line = Line::new(5);
const RTC: Line = Line::new(8);
const RNG: Line = Line::new(11);

const MASTER: PicRegister = PicRegister::Master { odd: false };
const MASTER_ODD: PicRegister = PicRegister::Master { odd: true };
const SLAVE: PicRegister = PicRegister::Slave { odd: false };
const SLAVE_ODD: PicRegister = PicRegister::Slave { odd: true };
const EOI: u8 = 0x20;
const AUTO_EOI: u8 = 2;
const SPECIAL_NESTED: u8 = 0x10;
const READ_IRR: u8 = 0x0A;
const READ_ISR: u8 = 0x0B;

/// Returns a pair whose inputs `NET` and `RNG` are level triggered.
fn powered_on() -> Pic {
    let mut pic = Pic::new();
    pic.set_level_triggered(NET);
    pic.set_level_triggered(RNG);
    pic
}

/// Returns a pair with both chips initialized and unmasked, vectors 0x20 and 0x28. `icw4` is ORed into
/// both ICW4.
fn pic(icw4: u8) -> Pic {
    let mut pic = powered_on();
    init(&mut pic, icw4);
    pic
}

fn init(pic: &mut Pic, icw4: u8) {
    for (even, odd, base, wiring) in [(MASTER, MASTER_ODD, 0x20, 4), (SLAVE, SLAVE_ODD, 0x28, 2)] {
        pic.write(even, 0x11);
        pic.write(odd, base);
        pic.write(odd, wiring);
        pic.write(odd, 1 | icw4);
        pic.write(odd, 0);
    }
}

fn read_command(pic: &mut Pic, chip: PicRegister, command: u8) -> u8 {
    pic.write(chip, command);
    pic.read(chip)
}

#[test]
fn power_on_masks_everything() {
    let mut pic = powered_on();
    for line in [TIMER, SERIAL, NET, RNG] {
        pic.set_line(line, true);
    }
    assert!(!pic.interrupt_pending());
    assert_eq!(pic.acknowledge(), None);
}

#[test]
fn edge_is_delivered_once() {
    let mut pic = pic(0);
    pic.set_line(TIMER, true);
    assert_eq!(pic.acknowledge(), Some(0x20));
    assert_eq!(pic.acknowledge(), None);
    pic.write(MASTER, EOI);
    pic.set_line(TIMER, true);
    assert!(!pic.interrupt_pending(), "the line is still high, but there was no new edge");
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x20));
}

#[test]
fn pulse_stays_latched_until_unmasked() {
    let mut pic = pic(0);
    pic.write(MASTER_ODD, 1);
    pic.set_line(TIMER, true);
    pic.set_line(TIMER, false);
    assert!(!pic.interrupt_pending());
    assert_eq!(read_command(&mut pic, MASTER, READ_IRR), 1);
    assert_eq!(pic.read(MASTER_ODD), 1);
    pic.write(MASTER_ODD, 0);
    assert_eq!(pic.acknowledge(), Some(0x20));
}

#[test]
fn higher_priority_preempts_and_lower_waits_for_eoi() {
    let mut pic = pic(0);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x24));
    pic.set_line(NET, true);
    assert!(!pic.interrupt_pending());
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x20));
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 0x11);
    // A non-specific EOI ends the interrupt with the highest priority first.
    pic.write(MASTER, EOI);
    assert_eq!(pic.read(MASTER), 0x10);
    assert!(!pic.interrupt_pending());
    pic.write(MASTER, EOI);
    assert_eq!(pic.acknowledge(), Some(0x25));
}

#[test]
fn level_request_repeats_until_the_line_drops() {
    let mut pic = pic(0);
    pic.set_line(NET, true);
    for _ in 0..3 {
        assert_eq!(pic.acknowledge(), Some(0x25));
        assert!(!pic.interrupt_pending());
        pic.write(MASTER, EOI);
        assert!(pic.interrupt_pending());
    }
    pic.set_line(NET, false);
    assert!(!pic.interrupt_pending());
    assert_eq!(read_command(&mut pic, MASTER, READ_IRR), 0);
}

#[test]
fn slave_interrupt_is_in_service_on_both_chips() {
    let mut pic = pic(0);
    pic.set_line(RNG, true);
    assert_eq!(pic.acknowledge(), Some(0x2B));
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1 << 2);
    assert_eq!(read_command(&mut pic, SLAVE, READ_ISR), 1 << 3);
    // IR2 outranks IR4 and IR5 while it is served.
    pic.pulse(SERIAL);
    assert!(!pic.interrupt_pending());
    pic.set_line(RNG, false);
    pic.write(SLAVE, EOI);
    pic.write(MASTER, EOI);
    assert_eq!(pic.acknowledge(), Some(0x24));
}

#[test]
fn slave_level_that_stays_high_asserts_the_cascade_again() {
    let mut pic = pic(0);
    pic.set_line(RNG, true);
    for _ in 0..3 {
        assert_eq!(pic.acknowledge(), Some(0x2B));
        pic.write(MASTER, EOI);
        assert!(!pic.interrupt_pending(), "the slave has it in service");
        pic.write(SLAVE, EOI);
        assert!(pic.interrupt_pending());
    }
}

#[test]
fn auto_eoi_slave_with_a_held_level_requests_again() {
    let mut pic = pic(AUTO_EOI);
    pic.set_line(RNG, true);
    assert_eq!(pic.acknowledge(), Some(0x2B));
    assert_eq!(pic.acknowledge(), Some(0x2B));
    assert!(pic.interrupt_pending());
    pic.set_line(RNG, false);
    assert_eq!(pic.acknowledge(), None, "no spurious IRQ 15 after each interrupt");
}

#[test]
fn request_that_the_slave_withdraws_is_none_for_the_master() {
    let mut pic = pic(0);
    pic.set_line(RNG, true);
    pic.write(SLAVE_ODD, 0xFF);
    assert_eq!(pic.acknowledge(), None);
    assert_eq!(read_command(&mut pic, MASTER, READ_IRR), 0);
    pic.write(SLAVE_ODD, 0);
    assert_eq!(pic.acknowledge(), Some(0x2B));
    assert_eq!(pic.acknowledge(), None);
}

#[test]
fn request_of_the_slave_stays_while_another_of_its_inputs_has_one() {
    for other in [RTC, Line::new(12)] {
        let mut pic = pic(AUTO_EOI);
        pic.set_line(RNG, true);
        pic.pulse(other);
        pic.set_line(RNG, false);
        assert_eq!(pic.acknowledge(), Some(0x20 + other.number()));
        assert_eq!(pic.acknowledge(), None);
    }
}

#[test]
fn slave_without_a_request_answers_with_irq_15() {
    // No pair reaches this state by itself, but a checkpoint may have it.
    let mut state = pic(0).save();
    state.master.latched = 1 << 2;
    let mut pic = Pic::restore(state).unwrap();
    assert_eq!(pic.acknowledge(), Some(0x2F));
    assert_eq!(read_command(&mut pic, SLAVE, READ_ISR), 0, "IRQ 15 is not in service");
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1 << 2, "the cascade input is in service");
}

#[test]
fn auto_eoi_leaves_nothing_in_service() {
    let mut pic = pic(AUTO_EOI);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x24));
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 0);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x24));
}

#[test]
fn specific_eoi_ends_the_named_input() {
    let mut pic = pic(0);
    pic.pulse(SERIAL);
    pic.acknowledge();
    pic.pulse(TIMER);
    pic.acknowledge();
    pic.write(MASTER, 0x60 | 4);
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1);
}

#[test]
fn rotation_puts_the_ended_input_last() {
    let mut pic = pic(0);
    pic.pulse(TIMER);
    pic.acknowledge();
    // Rotate on non-specific EOI: IR0 is lowest now, IR1 highest.
    pic.write(MASTER, 0xA0);
    pic.pulse(TIMER);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x24));
    assert!(!pic.interrupt_pending());
    // Rotate on specific EOI of IR4: IR5 is highest, IR0 above IR4.
    pic.write(MASTER, 0xE4);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x20));
    pic.write(MASTER, EOI);
    // Set priority: IR3 lowest, IR4 highest.
    pic.write(MASTER, 0xC3);
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x24));
}

#[test]
fn rotation_in_auto_eoi_mode_follows_its_command() {
    let mut pic = pic(AUTO_EOI);
    pic.write(MASTER, 0x80);
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x20));
    pic.pulse(TIMER);
    pic.pulse(SERIAL);
    assert_eq!(pic.acknowledge(), Some(0x24));
    pic.write(MASTER, 0);
    assert_eq!(pic.acknowledge(), Some(0x20));
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x20));
}

#[test]
fn special_mask_mode_lets_lower_priorities_through() {
    let mut pic = pic(0);
    pic.pulse(TIMER);
    pic.acknowledge();
    pic.pulse(SERIAL);
    pic.write(MASTER_ODD, 1);
    assert!(!pic.interrupt_pending());
    pic.write(MASTER, 0x68);
    assert_eq!(pic.acknowledge(), Some(0x24));
    // A masked in-service bit survives a non-specific EOI.
    pic.write(MASTER, EOI);
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1);
    pic.write(MASTER, 0x48);
    pic.pulse(SERIAL);
    assert!(!pic.interrupt_pending());
}

#[test]
fn special_fully_nested_master_accepts_the_slave_while_serving_it() {
    for (icw4, nested) in [(0, false), (SPECIAL_NESTED, true)] {
        let mut pic = pic(icw4);
        pic.set_line(RNG, true);
        pic.acknowledge();
        pic.set_line(RNG, false);
        pic.write(SLAVE, EOI);
        pic.set_line(RNG, true);
        assert_eq!(pic.interrupt_pending(), nested);
    }
}

#[test]
fn poll_acknowledges_like_inta() {
    let mut pic = pic(0);
    pic.pulse(SERIAL);
    assert_eq!(read_command(&mut pic, MASTER, 0x0C), 0x84);
    assert_eq!(read_command(&mut pic, MASTER, 0x0C), 0);
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1 << 4);
    pic.set_line(RNG, true);
    pic.write(MASTER, EOI);
    assert_eq!(read_command(&mut pic, MASTER, 0x0C), 0x82);
    assert_eq!(read_command(&mut pic, SLAVE, 0x0C), 0x83);
    pic.write(MASTER, EOI);
    assert!(!pic.interrupt_pending());
    pic.write(SLAVE, EOI);
    assert!(pic.interrupt_pending(), "the slave's INT fell at its poll and rises again");
}

#[test]
fn poll_of_an_auto_eoi_slave_with_a_held_level_requests_again() {
    let mut pic = pic(AUTO_EOI);
    pic.set_line(RNG, true);
    for _ in 0..2 {
        assert_eq!(read_command(&mut pic, MASTER, 0x0C), 0x82);
        assert!(!pic.interrupt_pending());
        assert_eq!(read_command(&mut pic, SLAVE, 0x0C), 0x83);
        assert!(pic.interrupt_pending());
    }
}

#[test]
fn icw1_resets_edges_mask_service_and_modes() {
    let mut pic = pic(AUTO_EOI);
    pic.set_line(TIMER, true);
    pic.write(MASTER_ODD, 0xFF);
    pic.write(MASTER, 0x68);
    pic.write(MASTER, READ_ISR);
    pic.write(MASTER, 0x80);
    init(&mut pic, 0);
    assert!(!pic.interrupt_pending(), "the old edge is gone, and a high line is no edge");
    assert_eq!(pic.read(MASTER_ODD), 0);
    pic.set_line(NET, true);
    assert_eq!(pic.read(MASTER), 1 << 5, "reads IRR again");
    assert_eq!(pic.acknowledge(), Some(0x25));
    assert_eq!(read_command(&mut pic, MASTER, READ_ISR), 1 << 5, "automatic EOI is off");
}

#[test]
fn short_initializations_end_after_the_words_that_icw1_announces() {
    let mut pic = powered_on();
    // No ICW4: the third write is ICW3, the fourth is OCW1.
    pic.write(MASTER, 0x10);
    pic.write(MASTER_ODD, 0x47);
    pic.write(MASTER_ODD, 4);
    pic.write(MASTER_ODD, 0xAA);
    assert_eq!(pic.read(MASTER_ODD), 0xAA);
    // Single with ICW4: no ICW3.
    pic.write(MASTER, 0x13);
    pic.write(MASTER_ODD, 0x47);
    pic.write(MASTER_ODD, 1 | AUTO_EOI);
    pic.write(MASTER_ODD, 0xFE);
    assert_eq!(pic.read(MASTER_ODD), 0xFE);
    pic.pulse(TIMER);
    assert_eq!(pic.acknowledge(), Some(0x40), "the guest cannot set the low bits of ICW2");
    // Single without ICW4.
    pic.write(MASTER, 0x12);
    pic.write(MASTER_ODD, 0x50);
    pic.write(MASTER_ODD, 0x0F);
    assert_eq!(pic.read(MASTER_ODD), 0x0F);
}

#[test]
fn trigger_mode_of_the_fixed_lines_cannot_be_changed() {
    let mut pic = powered_on();
    assert_eq!(pic.read(PicRegister::MasterElcr), 1 << 5);
    assert_eq!(pic.read(PicRegister::SlaveElcr), 1 << 3);
    pic.write(PicRegister::MasterElcr, 0xFF);
    pic.write(PicRegister::SlaveElcr, 0xFF);
    assert_eq!(pic.read(PicRegister::MasterElcr), 0xF8);
    assert_eq!(pic.read(PicRegister::SlaveElcr), 0xDE);
}

#[test]
fn restored_pair_continues_from_the_saved_state() {
    let mut pic = pic(0);
    pic.pulse(SERIAL);
    pic.acknowledge();
    pic.set_line(NET, true);
    pic.set_line(RNG, true);
    pic.write(MASTER, 0x11);
    pic.write(MASTER_ODD, 0x60);
    let saved = pic.save();
    let mut restored = Pic::restore(saved.clone()).unwrap();
    assert_eq!(restored.save(), saved);
    for pic in [&mut pic, &mut restored] {
        pic.write(MASTER_ODD, 4);
        pic.write(MASTER_ODD, 1);
    }
    for _ in 0..3 {
        assert_eq!(restored.acknowledge(), pic.acknowledge());
    }
    assert_eq!(restored.save(), pic.save());
}

#[test]
fn impossible_state_is_refused() {
    let good = powered_on().save();
    let mut bad = good.clone();
    bad.slave.lowest = 8;
    assert!(Pic::restore(bad).is_err());
    let mut bad = good;
    bad.master.base = 0x21;
    assert!(Pic::restore(bad).is_err());
}

#[test]
fn capacity_has_the_timers_interrupts_that_are_in_service_and_masked() {
    const CLOCK: Line = Line::new(8);
    let mut pic = pic(0);
    let ram = crate::mem::guest::allocate(16 << 20).unwrap();
    let timers = |pic: &Pic| {
        let mut capacity = DeviceCapacity::default();
        pic.add_capacity(&mut capacity, &ram);
        (capacity.timers.in_service, capacity.timers.masked)
    };
    assert_eq!(timers(&pic), (0, 0));
    pic.pulse(TIMER);
    pic.pulse(SERIAL);
    assert_eq!(timers(&pic), (0, 0), "it waits");
    assert_eq!(pic.acknowledge(), Some(0x20));
    assert_eq!(timers(&pic), (1, 0));
    pic.write(MASTER_ODD, 0x11);
    pic.write(MASTER, EOI);
    assert_eq!(timers(&pic), (0, 1), "other lines do not count");
    pic.pulse(CLOCK);
    assert_eq!(pic.acknowledge(), Some(0x28));
    pic.write(SLAVE_ODD, 1);
    assert_eq!(timers(&pic), (2, 3));
}
