//! Runs the `trainer` binary as a user would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The workspace root.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The binary under test: `QLOOM_TRAINER`, or the release build of this workspace, brought up to date once
/// per test process (cargo's lock is free while tests run).
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("QLOOM_TRAINER") {
            return PathBuf::from(given);
        }
        // The test runs from TARGET/PROFILE/deps/NAME.
        let own = std::env::current_exe().expect("a test knows its own path");
        let target = own.ancestors().nth(3).expect("TARGET/PROFILE/deps/NAME");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "-p", "qloom-trainer"])
            .current_dir(workspace())
            .env("CARGO_TARGET_DIR", target)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the trainer does not build");
        target
            .join("release/trainer")
            .with_extension(std::env::consts::EXE_EXTENSION)
    })
}

/// How one run ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What was typed, for messages.
    pub line: String,
}

impl Ended {
    /// Asserts success.
    pub fn ok(self) -> Self {
        assert_eq!(
            self.code, 0,
            "`{}` failed\nstdout: {}\nstderr: {}",
            self.line, self.stdout, self.stderr
        );
        self
    }

    /// Asserts wrong usage: exit status 2, and a message as [`Ended::refused`] wants it.
    pub fn refused_as_usage(self, words: &[&str]) -> Self {
        assert_eq!(
            self.code, 2,
            "`{}`: exit status\n{}",
            self.line, self.stderr
        );
        self.refused(words)
    }

    /// Asserts exit status 1 or 2, a message on stderr that holds every one of `words` (in any case), and no panic.
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(
            self.code == 1 || self.code == 2,
            "`{}`: exit status {}\nstdout: {}\nstderr: {}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        let said = self.stderr.to_lowercase();
        assert!(
            !said.contains("panicked"),
            "`{}` panicked: {}",
            self.line,
            self.stderr
        );
        for word in words {
            assert!(
                said.contains(&word.to_lowercase()),
                "`{}` should name \"{word}\", and said: {}",
                self.line,
                self.stderr
            );
        }
        self
    }
}

fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(line: String, output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        line,
    }
}

fn typed<S: AsRef<OsStr>>(args: &[S]) -> String {
    args.iter().fold(String::from("trainer"), |line, a| {
        format!("{line} {}", a.as_ref().to_string_lossy())
    })
}

/// Runs the trainer to its end.
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> Ended {
    let output = command(args).output().expect("the trainer starts");
    ended(typed(args), output)
}

/// Runs the trainer in `folder`, for commands that write beside where they stand.
pub fn run_in<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> Ended {
    let output = command(args)
        .current_dir(folder)
        .output()
        .expect("the trainer starts");
    ended(typed(args), output)
}

/// Starts the trainer without waiting; its output goes nowhere.
pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Child {
    command(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the trainer starts")
}
