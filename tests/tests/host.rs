//! Says, in a run without the feature `host-tests`, what the run leaves out.

#[cfg(not(feature = "host-tests"))]
#[test]
#[ignore = "needs root, /dev/kvm and /dev/net/tun: run scripts/test.sh"]
fn virtual_machines_pairs_networks_and_benchmarks() {
    panic!("these tests are built with the feature host-tests only: run scripts/test.sh");
}
