//! [`SandboxUser`]: whom a VM's process becomes.

use nix::unistd::{Gid, Group, Uid, User};
use std::fmt;
use std::str::FromStr;

/// The first of the users that a process becomes by itself. Distributions assign no numbers beyond those of containers,
/// which end at 1879048191 (systemd, "Users, Groups, UIDs and GIDs").
const OWN_FIRST: u32 = 1_900_000_000;

/// `nobody`, where there are only the first 65536 users.
const NOBODY: u32 = 65534;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxUser {
    /// The user.
    pub uid: Uid,
    /// Its only group.
    pub gid: Gid,
}

/// Why a text names no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// It is the name of nobody.
    #[error("there is no {0}")]
    Unknown(String),
    /// Root.
    #[error("root may not be the user: give another one, or --no-sandbox")]
    Root,
    /// A number without a group.
    #[error("user {0} has no name and so no group: give UID:GID")]
    NoGroup(Uid),
}

impl SandboxUser {
    /// Returns whom this process becomes if nobody is named, and it is root's: a user that no other process has, because
    /// its number is that of this process and 1900000000; or `nobody`, in a user namespace that has only the
    /// first users.
    pub fn of_this_process() -> Option<SandboxUser> {
        let id = if has_all_users() { OWN_FIRST + std::process::id() } else { NOBODY };
        let user = SandboxUser { uid: Uid::from_raw(id), gid: Gid::from_raw(id) };
        nix::unistd::geteuid().is_root().then_some(user)
    }
}

impl fmt::Display for SandboxUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for SandboxUser {
    type Err = UserError;

    /// Reads `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. A user without a group has the group of the system's list.
    fn from_str(text: &str) -> Result<SandboxUser, UserError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let known = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let known = known.ok().flatten();
        let uid = known.as_ref().map(|user| user.uid);
        let uid = uid.or_else(|| user.parse().ok().map(Uid::from_raw));
        let uid = uid.ok_or_else(|| UserError::Unknown(format!("user {user}")))?;
        let gid = match (group, known) {
            (Some(group), _) => group_id(group)?,
            (None, Some(user)) => user.gid,
            (None, None) => return Err(UserError::NoGroup(uid)),
        };
        if uid.is_root() || gid.as_raw() == 0 {
            return Err(UserError::Root);
        }
        Ok(SandboxUser { uid, gid })
    }
}

/// Returns whether the user namespace of this process has all users and groups: its one range begins with 0 and has all
/// numbers (user_namespaces(7)).
fn has_all_users() -> bool {
    let is_whole = |file| {
        let map = std::fs::read_to_string(file).unwrap_or_default();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    };
    is_whole("/proc/self/uid_map") && is_whole("/proc/self/gid_map")
}

fn group_id(group: &str) -> Result<Gid, UserError> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    let known = Group::from_name(group).ok().flatten();
    known.map(|group| group.gid).ok_or_else(|| UserError::Unknown(format!("group {group}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_a_name_or_numbers_and_never_root() {
        let user = |uid, gid| SandboxUser { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) };
        assert_eq!("2000000001:7".parse(), Ok(user(2_000_000_001, 7)));
        let nobody: SandboxUser = "nobody".parse().unwrap();
        assert_eq!(nobody.uid.as_raw(), 65534);
        assert_eq!("65534".parse(), Ok(nobody));
        assert_eq!("nobody:5".parse(), Ok(user(65534, 5)));
        for root in ["root", "0", "0:5", "5:0", "5:root"] {
            assert_eq!(root.parse::<SandboxUser>(), Err(UserError::Root), "{root}");
        }
        let no_group = UserError::NoGroup(Uid::from_raw(2_000_000_001));
        assert_eq!("2000000001".parse::<SandboxUser>(), Err(no_group));
        for unknown in ["", ":", "no such user", "nobody:no such group", "4294967296:1"] {
            let found = unknown.parse::<SandboxUser>();
            assert!(matches!(found, Err(UserError::Unknown(_))), "{unknown}: {found:?}");
        }
    }

    #[test]
    fn root_becomes_a_user_beyond_all_that_are_assigned_and_nobody_else_does() {
        match SandboxUser::of_this_process() {
            Some(user) if has_all_users() => {
                assert!(user.uid.as_raw() >= OWN_FIRST && i32::try_from(user.uid.as_raw()).is_ok());
            }
            Some(user) => assert_eq!(user.to_string(), "65534:65534"),
            None => assert!(!nix::unistd::geteuid().is_root()),
        }
    }
}
