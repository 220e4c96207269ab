//! Writes that either happen or do not.
//!
//! A file goes to a temporary name in the same folder, is flushed to the disk, and is renamed over the old one;
//! the folder is flushed too, so that the rename itself survives a power cut. A folder (a checkpoint, an adapter)
//! is built as `NAME.tmp-RANDOM` beside its final place and swapped in: the old one moves to `NAME.old-XXXXXX`,
//! the new one takes its name, the old one is deleted. A crash between the two renames leaves only the `.old-`
//! folder, which [`recover`] puts back; every other leftover is garbage that [`recover`] removes.
//!
//! A link stays a link: what it points to is replaced. What is no regular file (a device, a pipe) is written to as it
//! is, never replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::{Builder, TempDir};

use super::explain;

/// Marks a folder or file that is being built.
const BUILDING: &str = ".tmp-";
/// Marks the previous folder while it is being swapped out.
const RETIRED: &str = ".old-";

/// Writes `bytes` to `path`, replacing what was there, atomically.
///
/// # Errors
/// No space, no permission, a missing parent folder: the error says which and what to do; `path` is then untouched.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_with(path, |file| file.write_all(bytes))
}

/// Like [`write_file`], for content that is streamed by `fill` instead of held in memory.
pub(crate) fn write_file_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let target = behind_links(path)?;
    let path = target.as_path();
    if is_special(path) {
        let written = OpenOptions::new().write(true).open(path);
        return written
            .and_then(|mut stream| fill(&mut stream))
            .map_err(|e| explain(e, "write", path));
    }
    let (folder, name) = split(path)?;
    let mut builder = Builder::new();
    let prefix = format!("{name}{BUILDING}");
    builder.prefix(&prefix);
    #[cfg(unix)]
    {
        // The crate's default is owner-only, right for secrets; these are results others may read.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder
        .tempfile_in(&folder)
        .map_err(|e| explain(e, "write into", &folder))?;
    fill(temporary.as_file_mut())
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(|e| explain(e, "write", path))?;
    temporary
        .persist(path)
        .map_err(|e| explain(e.error, "replace", path))?;
    sync_folder(&folder);
    Ok(())
}

/// What is to be written where `path` is asked for: the end of its links, or `path` itself.
fn behind_links(path: &Path) -> Result<PathBuf> {
    let link = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink());
    if !link {
        return Ok(path.to_path_buf());
    }
    fs::canonicalize(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "{} is a link to something that does not exist: remove the link, or make what it points to",
            path.display()
        ),
        _ => explain(error, "follow the link", path),
    })
}

/// Whether `path` is there and is neither a regular file nor a folder.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}

/// Replaces the folder `target` by one that `fill` builds, atomically.
///
/// `fill` gets an empty folder beside `target`; when it fails, that folder is removed and `target` is untouched.
///
/// # Errors
/// Those of `fill`, and I/O errors with their remedy. A `target` that is a file is refused.
pub(crate) fn replace_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let behind = behind_links(target)?;
    let target = behind.as_path();
    let (parent, name) = split(target)?;
    if target.exists() && !target.is_dir() {
        bail!(
            "{} is a file, but a folder of that name is to be written: move it away",
            target.display()
        );
    }
    let building = sibling(&parent, &format!("{name}{BUILDING}"))?;
    fill(building.path())?;
    sync_tree(building.path()).map_err(|e| explain(e, "flush", building.path()))?;

    let retired = if target.exists() {
        let place = sibling(&parent, &format!("{name}{RETIRED}"))?;
        // Renaming a folder over an empty one is atomic on unix; elsewhere the place must be free first.
        #[cfg(not(unix))]
        fs::remove_dir(place.path()).map_err(|e| explain(e, "free", place.path()))?;
        fs::rename(target, place.path()).map_err(|e| explain(e, "move aside", target))?;
        Some(place)
    } else {
        None
    };
    let built = building.keep();
    if let Err(error) = fs::rename(&built, target) {
        if let Some(place) = retired {
            let place = place.keep();
            fs::rename(&place, target).map_err(|e| explain(e, "put back", target))?;
        }
        let _ = fs::remove_dir_all(&built);
        return Err(explain(error, "move into place", target));
    }
    sync_folder(&parent);
    if let Some(place) = retired {
        place
            .close()
            .map_err(|e| explain(e, "remove the previous version of", target))?;
    }
    Ok(())
}

/// Cleans up `folder` after a crash: puts back a folder whose replacement did not arrive, removes the rest.
///
/// Call it once, before anything writes there and while no other process does (a run folder is locked).
/// Returns what was done, one line each, for the log.
pub(crate) fn recover(folder: &Path) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(done);
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        if let Some(original) = original_name(name, RETIRED) {
            let target = folder.join(original);
            if target.exists() {
                remove(&path)?;
                done.push(format!("removed {name}, an older version left by a crash"));
            } else {
                fs::rename(&path, &target).map_err(|e| explain(e, "put back", &target))?;
                done.push(format!("put back {original} from {name}"));
            }
        } else if original_name(name, BUILDING).is_some() {
            remove(&path)?;
            done.push(format!("removed {name}, left half-written by a crash"));
        }
    }
    Ok(done)
}

/// Half-built folders of `target` that a killed command left beside it. They are only named: another command may be
/// building one of them now.
pub(crate) fn leftovers(target: &Path) -> Vec<PathBuf> {
    let Ok((parent, name)) = split(target) else {
        return Vec::new();
    };
    let ours = |path: &PathBuf| {
        let found = path.file_name().and_then(|n| n.to_str());
        found.and_then(|n| original_name(n, BUILDING)) == Some(name.as_str())
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(ours).collect();
    found.sort();
    found
}

/// `checkpoint-7.tmp-Ab12cD` -> `checkpoint-7`; none for names this module did not make.
fn original_name<'a>(name: &'a str, mark: &str) -> Option<&'a str> {
    let (original, suffix) = name.rsplit_once(mark)?;
    let ours = suffix.len() == 6 && suffix.chars().all(|c| c.is_ascii_alphanumeric());
    (ours && !original.is_empty()).then_some(original)
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
    .map_err(|e| explain(e, "remove", path))
}

fn split(path: &Path) -> Result<(PathBuf, String)> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .with_context(|| format!("{} has no usable last part to write to", path.display()))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((parent, name.to_owned()))
}

fn sibling(parent: &Path, prefix: &str) -> Result<TempDir> {
    let mut builder = Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder
        .tempdir_in(parent)
        .map_err(|e| explain(e, "create a folder in", parent))
}

fn sync_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    sync_folder(folder);
    Ok(())
}

/// Flushes a folder's entries. Not every file system can; the content is safe either way, so failure is ignored.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(handle) = File::open(folder) {
        let _ = handle.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_points_to_is_replaced() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        symlink(&real, &link).unwrap();
        write_file(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");

        let (folder, alias) = (dir.path().join("folder"), dir.path().join("alias"));
        fs::create_dir(&folder).unwrap();
        symlink(&folder, &alias).unwrap();
        replace_folder(&alias, |new| write_file(&new.join("x"), b"1")).unwrap();
        assert!(fs::symlink_metadata(&alias).unwrap().is_symlink());
        assert!(folder.join("x").is_file());

        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("none"), &dangling).unwrap();
        let text = format!("{:#}", write_file(&dangling, b"x").unwrap_err());
        assert!(text.contains("does not exist"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("socket");
        let _open = std::os::unix::net::UnixListener::bind(&place).unwrap();
        assert!(is_special(&place) && !is_special(dir.path()));
        // A socket cannot be opened; it must still be there afterwards.
        assert!(write_file(&place, b"x").is_err());
        assert!(replace_folder(&place, |_| Ok(())).is_err());
        assert!(is_special(&place));
    }

    #[test]
    fn leftovers_of_a_folder_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["out.tmp-abc123", "other.tmp-abc123", "out.tmp-notes"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = leftovers(&dir.path().join("out"));
        assert_eq!(found, [dir.path().join("out.tmp-abc123")]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.json");
        write_file(&path, b"old and longer").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["metrics.json"]);
    }

    #[test]
    fn a_write_that_fails_midway_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_file(&path, b"old").unwrap();
        let error = write_file_with(&path, |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(format!("{error:#}").contains("no space is left"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_folder_is_replaced_and_files_of_the_old_one_do_not_linger() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("adapter");
        for (file, body) in [("a", "1"), ("b", "2")] {
            replace_folder(&target, |new| Ok(fs::write(new.join(file), body)?)).unwrap();
        }
        assert_eq!(names(&target), ["b"]);
        assert_eq!(names(dir.path()), ["adapter"]);
    }

    #[test]
    fn a_folder_whose_filling_fails_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("adapter");
        replace_folder(&target, |new| Ok(fs::write(new.join("a"), "1")?)).unwrap();
        let error = replace_folder(&target, |_| bail!("no")).unwrap_err();
        assert_eq!(error.to_string(), "no");
        assert_eq!(names(&target), ["a"]);
        assert_eq!(names(dir.path()), ["adapter"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_not_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("adapter");
        fs::write(&target, "precious").unwrap();
        assert!(replace_folder(&target, |_| Ok(())).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn recover_handles_each_place_a_crash_can_leave() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("f"), name).unwrap();
        };
        make("a.tmp-Ab12cD"); // killed while building
        make("b.old-Ab12cD"); // killed between the two renames
        make("b.tmp-Ef34gH");
        make("c"); // killed before the old one was deleted
        make("c.old-Ab12cD");
        make("notes.tmp-my"); // not ours: six letters are expected
        let done = recover(dir.path()).unwrap();
        assert_eq!(done.len(), 4, "{done:?}");
        assert_eq!(names(dir.path()), ["b", "c", "notes.tmp-my"]);
        assert_eq!(
            fs::read_to_string(dir.path().join("b/f")).unwrap(),
            "b.old-Ab12cD"
        );
        assert_eq!(fs::read_to_string(dir.path().join("c/f")).unwrap(), "c");
    }

    #[test]
    fn a_missing_parent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_file(&dir.path().join("no/such/file"), b"").unwrap_err();
        assert!(format!("{error:#}").contains("does not exist"), "{error:#}");
    }
}
