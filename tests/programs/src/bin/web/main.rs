//! The lab's test program, one static binary for every container of the tests.
//!
//! `web serve [--port P] [--udp P] [--lines P] [--sctp P] [--grpc P]` answers HTTP with its pod's name and can be told to fail its
//! health check, to stop being ready or to exit; datagrams, lines of a TCP connection that stays open, and SCTP
//! associations are answered with its name and the peer's address; gRPC asks for its health. `web help` lists the other commands. On SIGTERM the
//! server stops being ready at once and goes on answering for `WEB_DRAIN_MS` (default 1500), as a well-behaved server
//! does, then exits with 0.

mod grpc;
mod sctp;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

unsafe extern "C" {
    fn signal(signum: i32, handler: usize) -> usize;
    fn mkfifo(path: *const std::ffi::c_char, mode: u32) -> i32;
    fn renameat2(from: i32, old: *const std::ffi::c_char, to: i32, new: *const std::ffi::c_char, flags: u32) -> i32;
}
const AT_FDCWD: i32 = -100;
const RENAME_EXCHANGE: u32 = 2;
const SIGTERM: i32 = 15;
static TERMINATING: AtomicBool = AtomicBool::new(false);

extern "C" fn on_term(_: i32) {
    TERMINATING.store(true, Ordering::SeqCst);
}

const HELP: &str = "web serve [--port P] [--udp P] [--lines P] [--sctp P] [--grpc P] | env | echo TEXT.. | cat FILE.. | ls DIR | stat FILE.. | hostile DIR | swap NAME NAME | write FILE TEXT | lines N |
sleep SECONDS | exit CODE | end CODE FILE TEXT (writes, then exits) | stdin (copies stdin to stdout) | ignore-term SECONDS | life FILE NAME SECONDS|- SECONDS CODE |
steps FILE CODE.. (ends with the first code, at the next run with the second, then stays) | get HOST:PORT PATH | forks (without end) | line BYTES (one line, then stays) | sctp HOST:PORT FROM-PORT | crash";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("help", &[][..]), |(c, r)| (c.as_str(), r));
    let code = match run(command, rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("web {command}: {error}");
            1
        }
    };
    std::process::exit(code);
}

type Outcome = Result<i32, Box<dyn std::error::Error>>;

fn run(command: &str, args: &[String]) -> Outcome {
    let first = || args.first().map(String::as_str).ok_or("an argument is missing");
    match command {
        "serve" => return serve(args),
        "env" => print!("{}", environment()),
        "echo" => println!("{}", args.join(" ")),
        "cat" => {
            for path in args {
                std::io::stdout().write_all(&std::fs::read(path)?)?;
            }
        }
        "ls" => {
            let mut names: Vec<_> = std::fs::read_dir(first()?)?.flatten().map(|e| e.file_name()).collect();
            names.sort();
            names.iter().for_each(|name| println!("{}", name.to_string_lossy()));
        }
        "stat" => {
            for path in args {
                let file = std::fs::metadata(path)?;
                println!("{} {} {:o} {path}", file.uid(), file.gid(), file.mode() & 0o7777);
            }
        }
        "hostile" => hostile(std::path::Path::new(first()?))?,
        "swap" => return swap(args),
        "write" => std::fs::write(first()?, args[1..].join(" "))?,
        "lines" => (0..first()?.parse::<u64>()?).for_each(|i| println!("line {i}")),
        "sleep" => sleep(first()?.parse()?, true),
        "ignore-term" => sleep(first()?.parse()?, false),
        "exit" => return Ok(first()?.parse()?),
        "end" => {
            std::fs::write(args.get(1).ok_or("an argument is missing")?, args[2..].join(" "))?;
            return Ok(first()?.parse()?);
        }
        "life" => return life(args),
        "steps" => return steps(first()?, &args[1..]),
        "stdin" => {
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
        }
        "get" => print!("{}", get(first()?, args.get(1).map_or("/", |p| p))?),
        "sctp" => {
            let from = args.get(1).map_or(Ok(0), |p| p.parse())?;
            println!("{}", sctp::ask(first()?.parse()?, from, Duration::from_millis(500))?);
        }
        "forks" => forks(),
        "line" => {
            line(first()?.parse()?)?;
            sleep(1e6, true);
        }
        "crash" => std::process::abort(),
        _ => println!("{HELP}"),
    }
    Ok(0)
}

/// Fills a folder with what might lead or lock a careless reader out of it.
fn hostile(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::symlink;
    std::fs::create_dir_all(dir)?;
    symlink("/etc", dir.join("absolute"))?;
    symlink("../".repeat(40) + "etc", dir.join("up"))?;
    symlink("/proc/self/root/etc", dir.join("magic"))?;
    symlink("loop", dir.join("loop"))?;
    let pipe = std::ffi::CString::new(dir.join("pipe").as_os_str().as_encoded_bytes())?;
    // SAFETY: the path is a C string that lives through the call.
    unsafe { mkfifo(pipe.as_ptr(), 0o666) };
    let name = "n".repeat(255);
    std::fs::write(dir.join(&name), "long")?;
    // Deeper than any path can say.
    let back = std::env::current_dir()?;
    std::env::set_current_dir(dir)?;
    for _ in 0..300 {
        std::fs::create_dir("d".repeat(200))?;
        std::env::set_current_dir("d".repeat(200))?;
    }
    std::env::set_current_dir(back)
}

/// Gives two names each other's place, over and over, until SIGTERM.
fn swap(args: &[String]) -> Outcome {
    let [one, other] = args else { return Err("NAME NAME are wanted".into()) };
    let path = |text: &String| std::ffi::CString::new(text.as_str());
    let (one, other) = (path(one)?, path(other)?);
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, on_term as *const () as usize) };
    while !TERMINATING.load(Ordering::SeqCst) {
        // SAFETY: both paths are C strings that live through the call.
        if unsafe { renameat2(AT_FDCWD, one.as_ptr(), AT_FDCWD, other.as_ptr(), RENAME_EXCHANGE) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(0)
}

/// Waits; with `obey` a SIGTERM ends the wait (PID 1 has no default action for it), otherwise it is ignored.
fn sleep(seconds: f64, obey: bool) {
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, on_term as *const () as usize) };
    let end = std::time::Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e6));
    while std::time::Instant::now() < end && !(obey && TERMINATING.load(Ordering::SeqCst)) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As many of itself as there may be, and always one more; the first that may not be is told.
fn forks() {
    let mut told = false;
    loop {
        let child = std::process::Command::new("/web").args(["sleep", "1000000"]).spawn();
        if let Err(error) = child {
            if !told {
                println!("cannot fork: {error}");
            }
            told = true;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn line(bytes: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let block = [b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(block.len());
        out.write_all(&block[..n])?;
        left -= n;
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// Runs for so long, or for ever; a SIGTERM ends that, and it takes so long to end. Each step is a line at the end of the file.
fn life(args: &[String]) -> Outcome {
    let [file, name, run, end, code] = args else { return Err("FILE NAME SECONDS|- SECONDS CODE are wanted".into()) };
    let run = if run == "-" { 1e6 } else { run.parse()? };
    let note = |what: &str| -> std::io::Result<()> {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file)?;
        file.write_all(format!("{at} {name} {what}\n").as_bytes())
    };
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, on_term as *const () as usize) };
    note("started")?;
    sleep(run, true);
    if TERMINATING.load(Ordering::SeqCst) {
        note("signalled")?;
        std::thread::sleep(Duration::from_secs_f64(end.parse()?));
    }
    note("ended")?;
    Ok(code.parse()?)
}

/// How often it has run is the length of the file.
fn steps(file: &str, codes: &[String]) -> Outcome {
    std::fs::OpenOptions::new().append(true).create(true).open(file)?.write_all(b".")?;
    let runs = usize::try_from(std::fs::metadata(file)?.len())?;
    if let Some(code) = codes.get(runs - 1) {
        return Ok(code.parse()?);
    }
    sleep(1e6, true);
    Ok(0)
}

fn environment() -> String {
    let mut all: Vec<_> =
        std::env::vars_os().map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy())).collect();
    all.sort();
    all.concat()
}

fn get(address: &str, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

#[derive(Default)]
struct State {
    unhealthy: AtomicBool,
    unready: AtomicBool,
    exit: AtomicI32,
    requests: AtomicU64,
}

fn serve(args: &[String]) -> Outcome {
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let port: u16 = option("--port").map_or(Ok(8080), |p| p.parse())?;
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, on_term as *const () as usize) };
    let state = Arc::new(State { exit: AtomicI32::new(-1), ..State::default() });
    if let Some(port) = option("--udp") {
        let socket =
            UdpSocket::bind(("::", port.parse()?)).or_else(|_| UdpSocket::bind(("0.0.0.0", port.parse().unwrap_or(0))))?;
        std::thread::spawn(move || answer_datagrams(&socket));
    }
    if let Some(port) = option("--sctp") {
        sctp::serve(port.parse()?, signature)?;
    }
    if let Some(port) = option("--grpc") {
        let (listener, state) = (listen(port.parse()?)?, state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                let serving = move |service: &str| service != "down" && !state.unhealthy.load(Ordering::SeqCst);
                std::thread::spawn(move || drop(grpc::answer(&stream, serving)));
            }
        });
    }
    if let Some(port) = option("--lines") {
        let listener = listen(port.parse()?)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || drop(answer_lines(&stream)));
            }
        });
    }
    let listener = listen(port)?;
    println!("{} listening on {port}", name());
    let accepting = state.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = accepting.clone();
            std::thread::spawn(move || drop(answer(stream, &state)));
        }
    });
    let drain = std::env::var("WEB_DRAIN_MS").ok().and_then(|v| v.parse().ok()).unwrap_or(1500);
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let code = state.exit.load(Ordering::SeqCst);
        if code >= 0 {
            println!("{} told to exit with {code}", name());
            return Ok(code);
        }
        if TERMINATING.load(Ordering::SeqCst) {
            println!("{} draining for {drain} ms", name());
            std::thread::sleep(Duration::from_millis(drain));
            println!("{} done", name());
            return Ok(0);
        }
    }
}

fn name() -> String {
    std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "web".into())
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

/// Who answers, and whom.
fn signature(peer: IpAddr) -> String {
    format!("{} {}", name(), peer.to_canonical())
}

/// `peer` is answered with the name and the peer's address, anything else with the name.
fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0u8; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let text = if &buffer[..n] == b"peer" { signature(from.ip()) } else { name() };
        let _ = socket.send_to(text.as_bytes(), from);
    }
}

/// One line for each line, for as long as the client keeps the connection.
fn answer_lines(stream: &TcpStream) -> std::io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while (&mut reader).take(1 << 10).read_line(&mut line)? > 0 {
        let mut to = stream;
        writeln!(to, "{} {}", signature(peer), line.trim())?;
        line.clear();
    }
    Ok(())
}

fn answer(stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    // A request line and headers of more than 16 KiB are cut off.
    (&mut reader).take(16 << 10).read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if (&mut reader).take(16 << 10).read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let target = request.split_whitespace().nth(1).unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path == "/redirect" {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {query}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return (&stream).write_all(head.as_bytes());
    }
    let (status, body) = route(path, query, state, &peer.ip().to_canonical().to_string());
    let reason = if status == 200 { "OK" } else { "Failed" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    (&stream).write_all((head + &body).as_bytes())
}

fn route(path: &str, query: &str, state: &State, peer: &str) -> (u16, String) {
    let set = |flag: &AtomicBool, value| {
        flag.store(value, Ordering::SeqCst);
        (200, format!("{} {}\n", name(), path))
    };
    let terminating = TERMINATING.load(Ordering::SeqCst);
    match path {
        "/" => {
            state.requests.fetch_add(1, Ordering::Relaxed);
            (200, format!("{}\n", name()))
        }
        "/env" => (200, environment()),
        "/peer" => (200, format!("{peer}\n")),
        "/requests" => (200, format!("{}\n", state.requests.load(Ordering::Relaxed))),
        "/file" => std::fs::read_to_string(query).map_or_else(|e| (500, format!("{query}: {e}\n")), |text| (200, text)),
        "/healthz" if state.unhealthy.load(Ordering::SeqCst) => (500, "told to be unhealthy\n".into()),
        "/readyz" if terminating || state.unready.load(Ordering::SeqCst) || state.unhealthy.load(Ordering::SeqCst) => {
            (503, "not ready\n".into())
        }
        "/healthz" | "/readyz" => (200, "ok\n".into()),
        "/fail-health" => set(&state.unhealthy, true),
        "/fail-ready" => set(&state.unready, true),
        "/recover" => {
            set(&state.unhealthy, false);
            set(&state.unready, false)
        }
        "/exit" => {
            state.exit.store(query.parse().unwrap_or(0), Ordering::SeqCst);
            (200, format!("{} exits\n", name()))
        }
        _ => (404, format!("{path}: not found\n")),
    }
}
