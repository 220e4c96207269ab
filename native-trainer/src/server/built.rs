//! The project's page: where it was built, or how it gets built.
//!
//! The binary does not carry the page. Beside its sources `web/build` makes it, which needs a WebAssembly toolchain that the
//! script fetches itself; elsewhere someone has to name a folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::files::explain;

/// The folder that `web/build` makes, in a checkout.
const WWW: &str = "www";
const HOME: &str = "index.html";
const SCRIPT: &str = "web/build";

/// Where the page is, or could be made.
#[derive(Debug, PartialEq, Eq)]
enum Page {
    Built(PathBuf),
    /// A checkout that can build it.
    Sources(PathBuf),
    Nowhere,
}

/// The folder of the built page. Where there is none, it is built first: that is said, and takes its time.
///
/// # Errors
/// Neither a page nor its sources, or a build that failed.
pub(crate) fn page() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current folder cannot be read")?;
    // Where this binary was built from, as long as that is still there.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    match find(&here, sources) {
        Page::Built(folder) => Ok(folder),
        Page::Sources(root) => build(&root),
        Page::Nowhere => bail!(
            "there is no page to serve: {} holds no {WWW}/{HOME}, and the sources it is built from are not here. Run {SCRIPT} in a \
             checkout of the project and name its {WWW} folder, or name a run's folder to see its report",
            here.display()
        ),
    }
}

/// The nearest built page of `here` and the folders above it, then of `sources`; else the nearest checkout.
fn find(here: &Path, sources: Option<&Path>) -> Page {
    let places = || here.ancestors().chain(sources);
    let built = places()
        .map(|place| place.join(WWW))
        .find(|www| is_page(www));
    let script = |root: &&Path| root.join(SCRIPT).is_file() && root.join("Cargo.toml").is_file();
    match (built, places().find(script)) {
        (Some(www), _) => Page::Built(www),
        (None, Some(root)) => Page::Sources(root.to_path_buf()),
        (None, None) => Page::Nowhere,
    }
}

/// A folder with the page itself in it, not only adapters that someone published there.
fn is_page(www: &Path) -> bool {
    www.join(HOME).is_file()
}

fn build(root: &Path) -> Result<PathBuf> {
    let script = root.join(SCRIPT);
    eprintln!(
        "the page is not built yet: running {} (the first time about half an hour on two cores; Ctrl-C stops it)",
        script.display()
    );
    let status = Command::new(&script)
        .current_dir(root)
        // Its last line is for scripts, and our output belongs to us.
        .stdout(Stdio::null())
        .status()
        .with_context(|| {
            format!(
                "cannot run {}: it needs bash; run it by hand",
                script.display()
            )
        })?;
    let www = root.join(WWW);
    if !is_page(&www) {
        bail!(
            "{} did not make {}: {status}; its messages stand above. Run it by hand, or name a folder to serve",
            script.display(),
            www.display()
        );
    }
    if !status.success() {
        eprintln!(
            "warning: {} ended with {status}; the page it made is served all the same",
            script.display()
        );
    }
    Ok(www)
}

/// Copies a site, so that more can be published into the copy.
///
/// # Errors
/// A file that cannot be read or written.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| explain(e, "create the folder", to))?;
    let entries = std::fs::read_dir(from).map_err(|e| explain(e, "read the folder", from))?;
    for entry in entries {
        let entry = entry.map_err(|e| explain(e, "read the folder", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).map_err(|e| explain(e, "write", &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use std::fs;

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_nearest_page_is_found_then_the_nearest_sources() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = dir.path().join("checkout");
        let deep = checkout.join("runs/deep");
        fs::create_dir_all(&deep).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        assert_eq!(find(&deep, None), Page::Nowhere);
        assert_eq!(find(&deep, Some(&elsewhere)), Page::Nowhere);

        file(&checkout.join("web/build"), "");
        assert_eq!(
            find(&deep, None),
            Page::Nowhere,
            "a script alone is no checkout"
        );
        file(&checkout.join("Cargo.toml"), "");
        assert_eq!(find(&deep, None), Page::Sources(checkout.clone()));
        assert_eq!(
            find(dir.path(), Some(&checkout)),
            Page::Sources(checkout.clone())
        );

        file(&checkout.join("www/adapters/index.json"), "{}");
        assert_eq!(
            find(&deep, None),
            Page::Sources(checkout.clone()),
            "adapters alone are no page"
        );
        file(&checkout.join("www/index.html"), "<p>");
        assert_eq!(find(&deep, None), Page::Built(checkout.join("www")));
        assert_eq!(
            find(dir.path(), Some(&checkout)),
            Page::Built(checkout.join("www"))
        );
        file(&deep.join("www/index.html"), "<p>");
        assert_eq!(find(&deep, None), Page::Built(deep.join("www")));
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_page_is_built_by_its_script() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join(SCRIPT);
        let run = |text: &str| {
            let _ = fs::remove_dir_all(dir.path().join(WWW));
            file(&script, &format!("#!/bin/sh\n{text}\n"));
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            build(dir.path()).map_err(|error| format!("{error:#}"))
        };
        let make = "mkdir -p www && echo '<p>' >www/index.html";
        assert_eq!(run(make).unwrap(), dir.path().join(WWW));
        assert_eq!(
            run(&format!("{make}; exit 1")).unwrap(),
            dir.path().join(WWW),
            "over the budget, but there"
        );
        let error = run("exit 3").unwrap_err();
        assert!(
            error.contains("exit status: 3") && error.contains("by hand"),
            "{error}"
        );
    }

    #[test]
    fn copies_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        file(&from.join("index.html"), "<p>");
        file(&from.join("a/b/c.txt"), "c");
        let to = dir.path().join("to");
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/c.txt")).unwrap(), "c");
        let error = copy(&dir.path().join("none"), &to).unwrap_err();
        assert!(format!("{error:#}").contains("none"), "{error:#}");
    }
}
