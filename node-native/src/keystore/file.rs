//! Reading and creating files that only their owner may see.

use super::{KeyError, Kind};
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Longest key file, in bytes; ours have about 600.
const MAX_BYTES: u64 = 16 << 10;

/// Reads a guarded file. The mode is that of the opened file, so that it cannot be swapped after the check.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Zeroizing<String>, KeyError> {
    let failed = |action| {
        move |source| KeyError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    let malformed = |problem: &str| KeyError::Malformed {
        path: path.into(),
        problem: problem.into(),
    };
    let irregular = || malformed("it is not a regular file");
    // To open a pipe is to wait for its other end.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(irregular());
    }
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => KeyError::Missing {
            path: path.into(),
            kind,
        },
        _ => KeyError::Io {
            action: "open",
            path: path.into(),
            source,
        },
    })?;
    let metadata = file.metadata().map_err(failed("inspect"))?;
    if !metadata.is_file() {
        return Err(irregular());
    }
    refuse_exposed(path, &metadata)?;
    if metadata.len() > MAX_BYTES {
        return Err(malformed("it is far longer than any key"));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| match source.kind() {
            ErrorKind::InvalidData => malformed("it is not text"),
            _ => KeyError::Io {
                action: "read",
                path: path.into(),
                source,
            },
        })?;
    Ok(text)
}

/// Creates a guarded file, whole or not at all; an existing one stays as it is.
pub(super) fn create(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |action: &'static str| {
        move |source| KeyError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    if path.symlink_metadata().is_ok() {
        return Err(KeyError::Exists(path.into()));
    }
    let temporary = Temporary(beside(path));
    let mut file = create_private(&temporary.0).map_err(failed("create"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write"))?;
    // A hard link fails when the name is taken, which a rename would not.
    std::fs::hard_link(&temporary.0, path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
        _ => KeyError::Io {
            action: "create",
            path: path.into(),
            source,
        },
    })?;
    drop(temporary);
    sync_directory(path).map_err(failed("sync the directory of"))
}

/// A file that is gone when this is dropped, whatever went wrong in between.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been created, and nothing better can be done about one that stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

#[cfg(unix)]
fn create_private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    // systemd lets a service's user in to a credential by an access list, whose mask looks like rights of the group. The
    // directory around it keeps everybody else out.
    let is_credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| path.parent() == Some(Path::new(&directory)));
    let others = if is_credential { 0o037 } else { 0o077 };
    if mode & others != 0 {
        return Err(KeyError::Exposed {
            path: path.into(),
            mode,
        });
    }
    Ok(())
}

/// Elsewhere than on Unix, access lists guard the profile directory and there is no mode to check.
#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}
