//! What the testbed creates is removed when a test panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use testbed::Standalone;
use testbed::pair::{Host, Hosts, Part, Scene};
use tests::alone;
use tests::patience::{pace, patience};
use tests::program::understudy;
use tests::recording::start_vm;

/// Returns whether the namespace exists.
fn exists(namespace: &str) -> bool {
    std::fs::exists(format!("/run/netns/{namespace}")).unwrap()
}

/// Returns whether the process exists.
fn runs(pid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn processes_namespaces_and_files_are_removed_after_a_panic() {
    let _alone = alone();
    let (mut pids, mut namespaces, mut key) = (Vec::new(), Vec::new(), None);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let Standalone { vm, namespace, .. } = &start_vm(&["run"]).unwrap();
        let scene = Scene::new(&understudy()).unwrap();
        let network = &scene.network;
        let hosts = Host::ALL.map(|host| network.host(host));
        let all = [&hosts[..], &[network.client(), network.switch(), namespace]].concat();
        namespaces.extend(all.into_iter().map(|namespace| namespace.name().to_string()));
        key = Some(scene.key());
        let setup = scene.setup(pace().silence_ms());
        let mut pair = Hosts::new(setup, patience(), &Arc::default());
        pids.push(vm.pid());
        pids.push(pair.start(Part::Primary, Host::A).unwrap());
        pids.push(pair.start(Part::Backup, Host::B).unwrap());
        pair.wait("a protected VM", |pair| pair.protected()).unwrap();
        assert!(namespaces.iter().all(|name| exists(name)) && pids.iter().all(|&pid| runs(pid)));
        panic!("with everything running");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"with everything running"));
    assert_eq!((namespaces.len(), pids.len()), (5, 3));
    assert!(!namespaces.iter().any(|name| exists(name)), "{namespaces:?}");
    assert!(!pids.iter().any(|&pid| runs(pid)), "{pids:?}");
    assert!(!key.unwrap().exists());
}
