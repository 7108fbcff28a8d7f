//! Programs that run beside a test and end with it, however it ends.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::wait;

/// What is asked to end has so long before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Bytes of a log that a failing test prints.
const SHOWN: usize = 12_000;

/// The repository's root.
///
/// Asked at run time, not when it was compiled: several checkouts may share compiled programs.
pub fn repository() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let tests = std::env::var_os("CARGO_MANIFEST_DIR")
            .expect("cargo runs the tests and says where they are");
        Path::new(&tests).parent().unwrap().to_owned()
    });
    &FOLDER
}

/// The `ringwire` program under test.
pub fn ringwire() -> PathBuf {
    if let Some(path) = std::env::var_os("RINGWIRE_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "RINGWIRE_BIN names {}, which does not exist",
            path.display()
        );
        return path;
    }
    let target = repository().join("target");
    let built = ["x86_64-unknown-linux-gnu/image/ringwire", "debug/ringwire"]
        .map(|place| target.join(place));
    built.iter().find(|path| path.is_file()).cloned().unwrap_or_else(|| {
        panic!("there is no ringwire program: build it with `cargo build -p ringwire`, or name one in RINGWIRE_BIN")
    })
}

/// The folder of the programs that `hack/setup.sh` builds.
pub fn tools() -> PathBuf {
    let state = std::env::var_os("RINGWIRE_STATE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ringwire"),
        PathBuf::from,
    );
    state.join("tools")
}

/// A command that dies with the thread that starts it, even if that is killed, in a process group of its own.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// How long a process has had a processor so far: that of its threads that still run.
pub fn cpu_of(process: u32) -> Duration {
    cpu_of_threads(process, |_| true)
}

/// The same of those of its threads whose names are wanted.
pub fn cpu_of_threads(process: u32, wanted: impl Fn(&str) -> bool) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let wanted = tasks.flatten().filter(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        wanted(name.trim_end())
    });
    let nanos = wanted.map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        first.parse().unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

/// A program that runs.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a [`command`]; what it prints goes to `NAME.log` in `folder`, behind what an earlier run left there.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long it has had a processor so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    /// Memory of its own, in bytes.
    pub fn memory(&self) -> u64 {
        let file = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kilobytes.unwrap() * 1024
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal, such as `TERM`, to it and its children.
    pub fn signal(&self, signal: &str) {
        // The child is not reaped yet, so its number is nobody else's.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill")
            .args(["-s", signal, "--", &group])
            .stderr(Stdio::null())
            .status();
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(limit, &what, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal("TERM");
            let end = Instant::now() + GRACE;
            while self.ended().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if self.ended().is_none() {
            self.signal("KILL");
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = (log.len().saturating_sub(SHOWN)..log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("---- {} said:\n{}----", self.name, &log[start..]);
        }
    }
}
