//! The program that libFuzzer drives: the target is the environment variable `FUZZ_TARGET`. `scripts/fuzz.sh`
//! builds it, with the instrumentation that libFuzzer needs, and runs it.

#![no_main]

use fuzz::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let target = Target::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name}: no target"));
        TARGET.get_or_init(|| target);
    },
    |bytes: &[u8]| {
        TARGET.get().expect("libFuzzer calls the initializer first").run(bytes);
    }
);
