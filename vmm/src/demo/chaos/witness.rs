//! Faults of the witness. Each host has a mount of its own, which is a symbolic link to the folder.

use super::run::Chaos;
use nix::sys::stat::Mode;
use std::fs;
use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, Scene};

/// How long a fault of the witness lasts, in milliseconds. A host asks the witness once a second.
const HOLD_MS: RangeInclusive<u64> = 1200..=2500;

/// What precedes the term in the name of a claim.
const CLAIM: &str = "vm-0.term-";

/// Name of the file with the identity of a witness, and the identity of the wrong one.
const IDENTITY: (&str, &str) = ("understudy-witness", "0123456789abcdef\n");

/// Makes the witness's mount on `host`, and returns its path.
///
/// # Errors
///
/// If the link can't be made.
pub(super) fn mount(scene: &Scene, host: Host) -> Result<String, TestbedError> {
    let path = mount_point(scene, host);
    std::os::unix::fs::symlink(scene.witness(), &path).map_err(changing())?;
    Ok(path.to_string_lossy().into_owned())
}

fn mount_point(scene: &Scene, host: Host) -> PathBuf {
    scene.path(&format!("witness-on-{host}"))
}

fn changing() -> impl FnOnce(io::Error) -> TestbedError {
    TestbedError::client("changing the witness")
}

/// The witness is not mounted on one or both hosts: the mount point is empty, or missing.
pub(super) fn unmount(chaos: &mut Chaos<'_, '_, '_>, _primary: Host) -> Result<(), TestbedError> {
    let is_empty = chaos.random.bool();
    without_mounts(chaos, |path| if is_empty { fs::create_dir(path) } else { Ok(()) })
}

/// Another folder is mounted on one or both hosts.
pub(super) fn replace(chaos: &mut Chaos<'_, '_, '_>, _primary: Host) -> Result<(), TestbedError> {
    without_mounts(chaos, |path| {
        fs::create_dir(path)?;
        let (name, identity) = IDENTITY;
        fs::write(path.join(name), identity)
    })
}

/// Replaces the mounts of one or both hosts by what `make` makes in their places, for a while.
fn without_mounts(
    chaos: &mut Chaos<'_, '_, '_>,
    make: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), TestbedError> {
    let scene = chaos.hosts().setup_mut().scene.clone();
    let hosts: &[Host] = match chaos.random.u32(..3) {
        0 => &[Host::A],
        1 => &[Host::B],
        _both => &Host::ALL,
    };
    for &host in hosts {
        let path = mount_point(&scene, host);
        fs::remove_file(&path).and_then(|()| make(&path)).map_err(changing())?;
    }
    hold(chaos)?;
    for &host in hosts {
        remove(&mount_point(&scene, host)).map_err(changing())?;
        mount(&scene, host)?;
    }
    Ok(())
}

/// Removes whatever is at `path`, if anything is.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_other) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// All claims are removed, or the newest one: an older state of the folder was restored. Waits until the newest
/// is made again.
pub(super) fn lose_claims(
    chaos: &mut Chaos<'_, '_, '_>,
    _primary: Host,
) -> Result<(), TestbedError> {
    let folder = chaos.hosts().setup_mut().scene.witness();
    let newest = newest_term(&folder)?;
    let first = if chaos.random.bool() { 1 } else { newest };
    for term in first..=newest {
        remove(&claim(&folder, term)).map_err(changing())?;
    }
    let path = claim(&folder, newest);
    chaos.hosts().wait("the newest claim to be made again", |_| path.exists().then_some(()))
}

/// Something else is in the place of the next claim.
pub(super) fn forge_claim(
    chaos: &mut Chaos<'_, '_, '_>,
    _primary: Host,
) -> Result<(), TestbedError> {
    let folder = chaos.hosts().setup_mut().scene.witness();
    let path = claim(&folder, newest_term(&folder)? + 1);
    let made = match chaos.random.u32(..5) {
        0 => nix::unistd::mkfifo(&path, Mode::S_IRWXU).map_err(io::Error::from),
        1 => fs::create_dir(&path),
        2 => std::os::unix::fs::symlink("/etc/passwd", &path),
        3 => fs::write(&path, [0xff; 100]),
        _forged => fs::write(&path, "understudy-claim 2 000000000000000a - host\n"),
    };
    made.map_err(changing())?;
    hold(chaos)?;
    remove(&path).map_err(changing())
}

fn hold(chaos: &mut Chaos<'_, '_, '_>) -> Result<(), TestbedError> {
    let time = Duration::from_millis(chaos.random.u64(HOLD_MS));
    chaos.hosts().pause(time)
}

/// Returns the path of the claim of `term`.
fn claim(folder: &Path, term: u64) -> PathBuf {
    folder.join(format!("{CLAIM}{term}"))
}

/// Returns the newest term that was claimed.
fn newest_term(folder: &Path) -> Result<u64, TestbedError> {
    let read = || -> io::Result<Option<u64>> {
        let mut newest = None;
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let term = name.to_str().and_then(|name| name.strip_prefix(CLAIM)?.parse().ok());
            newest = newest.max(term);
        }
        Ok(newest)
    };
    let newest = read().map_err(TestbedError::client("reading the witness's folder"))?;
    newest.ok_or_else(|| TestbedError::Wrong("no term was claimed".into()))
}
