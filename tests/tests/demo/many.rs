//! Several VMs on two hosts that share one log link and one witness: a host is lost with all its processes.
//!
//! `MANY_VMS=8 MANY_KILLS=4` makes the test longer.

use tests::demo::Figures;
use tests::program::run;

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or(default.into())
}

#[test]
fn vms_on_one_log_link_outlast_the_loss_of_a_host() {
    let (vms, kills) = (setting("MANY_VMS", "2"), setting("MANY_KILLS", "1"));
    let figures = Figures::of(&["--vms", &vms, "--kills", &kills]);
    assert_eq!(figures.number("/completed_kills"), kills.parse::<f64>().expect("a number"));
    // Half of the VMs ran on the host that was lost.
    assert!(figures.number("/failovers") > 0.0 && figures.number("/continued") > 0.0);
    for vm in 0..vms.parse::<u8>().expect("a number") {
        let of_vm = |name: &str| figures.number(&format!("/per_vm/{vm}/{name}"));
        assert_eq!(of_vm("vm"), f64::from(vm));
        let never =
            ["tcp/lost", "tcp/repeated", "tcp/resets", "udp/wrong", "double_live", "divergences"];
        for name in never {
            assert_eq!(of_vm(name), 0.0, "VM {vm}: {name}");
        }
        assert!(of_vm("tcp/requests") > 0.0 && of_vm("udp/sent") > 0.0);
    }
    for figure in ["/outage_ms/p50", "/outage_ms/p99", "/detect_ms/p50", "/protected_again_ms/p50"]
    {
        assert!(figures.number(figure) > 0.0, "{figure}");
    }
}

#[test]
fn options_that_do_not_fit_several_vms_are_usage_errors() {
    for args in
        [&["--vms", "1"][..], &["--vms", "2", "--handovers", "1"], &["--vms", "2", "--disk"]]
    {
        let output = run(&[&["demo"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
