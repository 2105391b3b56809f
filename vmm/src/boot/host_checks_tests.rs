use super::*;
use std::fs;

/// A host laid out in a temporary directory.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates a host that passes every check.
    fn good() -> Self {
        Self::new()
            .file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some(R) CPU @ 2GHz\n")
            .file("proc/sys/kernel/osrelease", "6.18.44-cloud\n")
            .file("proc/self/status", "Name:\tx\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
            .file("sys/module/kvm_intel/refcnt", "0")
            .file("dev/kvm", "")
            .file("dev/net/tun", "")
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.0.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    fn host(&self) -> Host {
        Host::new(self.0.path())
    }
}

#[test]
fn good_host_passes_every_check() {
    let tree = Tree::good();
    let checks = tree.host().check_all();
    for check in &checks {
        assert_eq!((check.status, &check.mend), (Status::Ok, &None), "{check:?}");
    }
    let found: Vec<_> = checks.iter().map(|check| &check.found[..]).collect();
    assert_eq!(found[..3], ["Some(R) CPU @ 2GHz", "6.18.44-cloud", "kvm_intel (VMX)"]);
    assert_eq!(found[5..], ["root", "held", "held"]);
}

#[test]
fn vmx_host_without_ept_fails_with_the_reason() {
    let ept = |text| Tree::good().file("sys/module/kvm_intel/parameters/ept", text);
    for text in ["N\n", "0\n"] {
        let tree = ept(text);
        assert!(tree.host().shadows_page_tables());
        let check = tree.host().kvm_module();
        assert_eq!((check.status, &check.found[..]), (Status::Fail, SHADOW_PAGING));
        assert_eq!(check.mend.as_deref(), Some(MEND_SHADOW_PAGING));
    }
    for tree in [ept("Y\n"), Tree::good()] {
        assert!(!tree.host().shadows_page_tables());
        assert_eq!(tree.host().kvm_module().status, Status::Ok);
    }
}

#[test]
fn empty_host_fails_without_panic_and_says_how_to_fix_it() {
    let tree = Tree::new();
    for check in tree.host().check_all() {
        assert_ne!(check.status, Status::Ok, "{check:?}");
        assert!(check.mend.is_some(), "{check:?}");
        assert!(!check.found.contains('\n'), "{check:?}");
    }
    assert_eq!(tree.host().kvm_module().status, Status::Fail);
    assert_eq!(tree.host().kvm_device().found, "does not exist");
}

#[test]
fn kvm_module_is_named() {
    let bare = || Tree::good().without("sys/module/kvm_intel");
    let status = |tree: Tree| tree.host().kvm_module().status;
    assert_eq!(status(bare().file("sys/module/kvm_amd/refcnt", "0")), Status::Ok);
    let pvm = bare().file("sys/module/kvm_pvm/refcnt", "0").host().kvm_module();
    assert_eq!(pvm.status, Status::Warn);
    assert!(pvm.found.starts_with("kvm_pvm: "));
    assert_eq!(status(bare()), Status::Warn);
    assert_eq!(status(bare().without("dev/kvm")), Status::Fail);
    let two = Tree::good().file("sys/module/kvm_pvm/refcnt", "0");
    assert_eq!(two.host().kvm_module().found, "several: kvm_intel, kvm_pvm");
}

#[test]
fn missing_capability_names_the_command() {
    let status = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000002000\n";
    let host = Tree::new().file("proc/self/status", status);
    let check = host.host().net_admin();
    assert_eq!(check.status, Status::Fail);
    assert_eq!(check.mend.unwrap(), "run as root, or give the binary cap_net_admin+ep by setcap");
    assert_eq!(host.host().net_raw().status, Status::Ok);
    assert_eq!(host.host().user().found, "user id 1000");
}

#[test]
fn check_is_serialized_as_json() {
    let check = Check::fail("x", "y", "z");
    let json = serde_json::to_string(&check).unwrap();
    assert_eq!(json, r#"{"name":"x","status":"fail","found":"y","mend":"z"}"#);
}
