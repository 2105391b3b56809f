//! The man pages, as a reader's formatter sees them.

use std::fs;
use std::process::Command;
use tests::program::understudy;

#[test]
fn man_pages_are_formatted_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(understudy().with_file_name("manual")).arg(folder.path()).output();
    let made = made.expect("cargo build --workspace --bins builds it");
    assert!(made.status.success(), "{made:?}");
    let pages: Vec<_> = fs::read_dir(folder.path().join("man")).unwrap().flatten().collect();
    assert!(pages.len() > 15, "{pages:?}");
    for page in pages {
        let mut groff = Command::new("groff");
        let checked = groff.args(["-man", "-ww", "-z", "-Tutf8"]).arg(page.path()).output();
        let checked = checked.expect("groff-base is installed by scripts/install.sh --tests");
        let warnings = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && warnings.is_empty(), "{page:?}: {warnings}");
    }
}
