//! Running programs, waiting for conditions, and background processes with a log file.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The variable by which the lab knows its own processes again after it was killed.
pub const MARK: &str = "FERROLET_LAB";

/// Runs a program to its end and returns its standard output; its standard error is part of the error.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        bail!("{shown}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`run`] for a program and its arguments.
pub fn sh(program: &str, args: &[&str]) -> Result<String> {
    run(Command::new(program).args(args))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Asks again until there is an answer, at most until the deadline; the last reason is part of the error.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("gave up after {} s waiting for {what}", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A background process with its own process group and its output in a file. Not ended on drop: see [`Proc::end`].
pub struct Proc {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Proc {
    /// Starts a program; with a namespace inside it (by `nsenter --net=`, which keeps /sys and the cgroups in sight).
    pub fn spawn(
        name: &str,
        lab: &str,
        netns: Option<&str>,
        log: &Path,
        argv: &[String],
        envs: &[(&str, String)],
    ) -> Result<Proc> {
        let mut command = match netns {
            Some(ns) => {
                let mut c = Command::new("nsenter");
                c.arg(format!("--net=/run/netns/{ns}")).args(argv);
                c
            }
            None => {
                let mut c = Command::new(&argv[0]);
                c.args(&argv[1..]);
                c
            }
        };
        let file =
            File::options().create(true).append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
        command.env(MARK, lab).envs(envs.iter().map(|(k, v)| (*k, v.as_str()))).process_group(0);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {}", argv.join(" ")))?;
        Ok(Proc { name: name.into(), log: log.into(), child })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// An error with the end of the log if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, tail(&self.log, 15)),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGTERM, then SIGKILL after the limit. Returns whether it ended by itself.
    pub fn end(&mut self, limit: Duration) -> Result<bool> {
        let _ = self.signal(Signal::SIGTERM);
        let waited = wait_for(&format!("{} to end", self.name), limit, || match self.child.try_wait()? {
            Some(_) => Ok(()),
            None => bail!("still running"),
        });
        if waited.is_err() {
            self.kill()?;
        }
        Ok(waited.is_ok())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident memory in KiB, from /proc/PID/status.
    pub fn rss_kib(&self) -> Result<u64> {
        rss_kib(self.pid())
    }
}

pub fn rss_kib(pid: i32) -> Result<u64> {
    memory_kib(pid, "VmRSS:")
}

/// What of it belongs to the process alone, without pages of its program: proc(5) `RssAnon`.
pub fn anonymous_kib(pid: i32) -> Result<u64> {
    memory_kib(pid, "RssAnon:")
}

fn memory_kib(pid: i32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with(name)).with_context(|| format!("no {name}"))?;
    line.split_whitespace().nth(1).context("no number")?.parse().with_context(|| name.to_owned())
}

/// The last lines of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| format!("({}: {e})", path.display()));
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Processes that carry the mark of this lab in their environment.
pub fn marked(lab: &str) -> Vec<i32> {
    let mark = format!("{MARK}={lab}");
    let own = std::process::id() as i32;
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|v| v == mark.as_bytes())
        })
        .collect()
}

/// Ends processes by SIGKILL and waits until they are gone.
pub fn kill_all(pids: &[i32]) -> Result<()> {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    wait_for("processes to end", Duration::from_secs(10), || {
        let left: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { bail!("still there: {left:?}") }
    })
}

/// False for zombies too: nobody but their parent can remove those.
pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}
