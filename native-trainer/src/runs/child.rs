//! This binary again, as a child.
//!
//! A run of its own process has a peak memory of its own, and takes nothing down with it when it fails. Parent and
//! child agree on two environment variables: one names the folder of base scores that sibling runs share, the other
//! says that standard input is a pipe from the parent. The pipe closes with the parent, however it ends, and the child
//! ends with it: a killed sweep leaves nothing running that would hold a run's folder.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::files::explain;

const PARENT: &str = "QLOOM_PARENT_PIPE";
const BASE_SCORES: &str = "QLOOM_BASE_SCORES";
/// Lines of a failed child's stderr that are kept for the message.
const TAIL: usize = 20;

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether with exit status 0.
    pub(crate) success: bool,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its last error message, or its last lines.
    pub(crate) error: String,
}

impl Ended {
    /// The standard output of a child that succeeded.
    ///
    /// # Errors
    /// The child's own message, under `what`.
    pub(crate) fn output(self, what: &str) -> Result<String> {
        match self.success {
            true => Ok(self.stdout),
            false => Err(anyhow!("{what}: {}", self.error)),
        }
    }
}

/// Runs `trainer ARGUMENTS`; what it says on stderr is shown and kept in `log`.
pub(crate) fn run<S: AsRef<OsStr>>(
    arguments: &[S],
    base_scores: Option<&Path>,
    log: &Path,
) -> Result<Ended> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(own);
    command.args(arguments).env(PARENT, "1");
    if let Some(folder) = base_scores {
        command.env(BASE_SCORES, folder);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a child process")?;
    // Held until the child has ended.
    let pipe = child.stdin.take();
    let mut out = child.stdout.take().context("the child has no stdout")?;
    let errors = child.stderr.take().context("the child has no stderr")?;
    let stdout = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let lines = follow(errors, log)?;
    let status = child.wait().context("cannot wait for a child process")?;
    drop(pipe);
    let stdout = stdout.join().unwrap_or_default();
    Ok(Ended {
        success: status.success(),
        error: message(&lines, &status.to_string()),
        stdout,
    })
}

/// Shows lines as they come, keeps them in the file, and returns the last of them.
fn follow(errors: impl Read, log: &Path) -> Result<VecDeque<String>> {
    let mut file = File::create(log).map_err(|e| explain(e, "write", log))?;
    let mut last = VecDeque::with_capacity(TAIL + 1);
    for line in BufReader::new(errors).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line).into_owned();
        eprintln!("  {line}");
        writeln!(file, "{line}").map_err(|e| explain(e, "write", log))?;
        last.push_back(line);
        if last.len() > TAIL {
            last.pop_front();
        }
    }
    Ok(last)
}

fn message(lines: &VecDeque<String>, status: &str) -> String {
    let said = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("error: "));
    match (said, lines.back()) {
        (Some(said), _) => said.to_owned(),
        (None, Some(last)) => format!("{status}: {last}"),
        (None, None) => status.to_owned(),
    }
}

/// Where this process, if it is a child, shares the scores of its base.
pub(crate) fn base_scores() -> Option<PathBuf> {
    std::env::var_os(BASE_SCORES).map(PathBuf::from)
}

/// In a child: ends this process when the parent is gone.
pub(crate) fn end_with_parent() {
    if std::env::var_os(PARENT).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_childs_own_message_is_passed_on() {
        let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect();
        let said = lines(&["loading", "error: data file x does not exist", "  at once"]);
        assert_eq!(message(&said, "1"), "data file x does not exist");
        assert_eq!(
            message(&lines(&["loading"]), "signal: 9"),
            "signal: 9: loading"
        );
        assert_eq!(message(&VecDeque::new(), "signal: 9"), "signal: 9");
    }
}
