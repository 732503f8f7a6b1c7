//! A container registry inside a node's namespace, on its loopback, where containerd asks without TLS: what a pull needs, no
//! more. It can want credentials, lie, keep those who ask waiting, stop halfway through a layer, and tells who asked for what.

use crate::images::{Blobs, MANIFEST, digest};
use crate::netns::within;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Any other blob is smaller.
const LAYER_MIN: usize = 64 << 10;
const TURN: Duration = Duration::from_millis(10);
/// Nobody is kept waiting for longer, whatever a test forgets.
const HELD_MAX: Duration = Duration::from_secs(60);

pub struct Registry {
    pub address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    end: AtomicBool,
    /// Before a manifest.
    hold: Gate,
    /// Halfway through a layer.
    stall: Gate,
    content: Mutex<Content>,
}

/// Keeps who comes by waiting while it is closed.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    held: AtomicUsize,
    most_held: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        if !self.closed.load(Ordering::SeqCst) {
            return;
        }
        let now = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_held.fetch_max(now, Ordering::SeqCst);
        let begun = std::time::Instant::now();
        while self.closed.load(Ordering::SeqCst) && begun.elapsed() < HELD_MAX {
            std::thread::sleep(TURN);
        }
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Content {
    /// By repository; every tag is the same image.
    images: BTreeMap<String, Blobs>,
    /// Which repositories want a `user:password`.
    passwords: BTreeMap<String, String>,
    /// What of a repository is not what its digest says.
    lies: BTreeMap<String, Lie>,
    /// Method and path of each request.
    asked: Vec<String>,
}

/// What a registry gives out under a digest that is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    Manifest,
    Layer,
}

impl Registry {
    pub fn start(netns: &str, port: u16) -> Result<Registry> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = within(netns, move || TcpListener::bind(address))?.with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            while !shared.end.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let state = shared.clone();
                        std::thread::spawn(move || drop(answer(&stream, &state)));
                    }
                    Err(_) => std::thread::sleep(TURN),
                }
            }
        });
        Ok(Registry { address, state, thread: Some(thread) })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.state.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers an image; how it is called, with a tag.
    pub fn offer(&self, repository: &str, image: Blobs) -> String {
        self.content().images.insert(repository.to_owned(), image);
        self.name(repository)
    }

    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.address)
    }

    /// From now on the repository wants `user:password`.
    pub fn protect(&self, repository: &str, password: &str) {
        self.content().passwords.insert(repository.to_owned(), password.to_owned());
    }

    /// From now on the repository gives out something else under the digest of what it has; `None`: what it has.
    pub fn lie(&self, repository: &str, lie: Option<Lie>) {
        match lie {
            Some(lie) => self.content().lies.insert(repository.to_owned(), lie),
            None => self.content().lies.remove(repository),
        };
    }

    /// Keeps whoever asks for a manifest waiting, or lets all of them go on.
    pub fn hold(&self, hold: bool) {
        self.state.hold.closed.store(hold, Ordering::SeqCst);
    }

    /// Sends whoever asks for a layer half of it and then nothing, or lets all of them have the rest.
    pub fn stall(&self, stall: bool) {
        self.state.stall.closed.store(stall, Ordering::SeqCst);
    }

    /// How many have half a layer.
    pub fn stalled(&self) -> usize {
        self.state.stall.held.load(Ordering::SeqCst)
    }

    pub fn held(&self) -> usize {
        self.state.hold.held.load(Ordering::SeqCst)
    }

    /// The most that were held at once so far.
    pub fn most_held(&self) -> usize {
        self.state.hold.most_held.load(Ordering::SeqCst)
    }

    /// How often the tag of a repository was asked for: once a pull.
    pub fn pulls(&self, repository: &str) -> usize {
        let wanted = format!("HEAD /v2/{repository}/manifests/1");
        self.content().asked.iter().filter(|a| **a == wanted).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.hold(false);
        self.stall(false);
        self.state.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: &TcpStream, state: &State) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HELD_MAX))?;
    if refuse_tls(stream)? {
        return Ok(());
    }
    let mut lines = BufReader::new(stream).take(64 << 10).lines();
    let request = lines.next().context("no request")??;
    let mut password = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            password = value.trim().strip_prefix("Basic ").map(str::to_owned);
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    if path.contains("/manifests/") {
        state.hold.pass();
    }
    let (status, kind, mut body) = find(state, method, path, password.as_deref());
    let digest = digest(&body);
    if status.starts_with("200") {
        distort(state, path, &mut body);
    }
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n",
        body.len()
    );
    if status.starts_with("401") {
        head.push_str("WWW-Authenticate: Basic realm=\"lab\"\r\n");
    }
    let mut to = stream;
    to.write_all(format!("{head}\r\n").as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    let (first, second) = body.split_at(body.len() / 2);
    to.write_all(first)?;
    if path.contains("/blobs/") && body.len() > LAYER_MIN {
        state.stall.pass();
    }
    Ok(to.write_all(second)?)
}

/// A newer containerd tries TLS first, on loopback too, and goes on without it when the answer is plainly HTTP.
fn refuse_tls(mut stream: &TcpStream) -> Result<bool> {
    const HANDSHAKE: u8 = 22;
    let mut bytes = [0; 16 << 10];
    let tls = stream.peek(&mut bytes[..1])? == 1 && bytes[0] == HANDSHAKE;
    if tls {
        // What is left unread would break the connection before the answer is seen.
        let _ = stream.read(&mut bytes)?;
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
    }
    Ok(tls)
}

/// What is JSON stays it.
fn distort(state: &State, path: &str, body: &mut Vec<u8>) {
    let lies = &state.content.lock().unwrap_or_else(PoisonError::into_inner).lies;
    let Some((_, lie)) = lies.iter().find(|(repository, _)| path.starts_with(&format!("/v2/{repository}/"))) else { return };
    match lie {
        Lie::Manifest if path.contains("/manifests/") => body.push(b' '),
        Lie::Layer if path.contains("/blobs/") && body.len() > LAYER_MIN => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        _ => {}
    }
}

fn find(state: &State, method: &str, path: &str, given: Option<&str>) -> (&'static str, &'static str, Vec<u8>) {
    let text = "application/json";
    let mut content = state.content.lock().unwrap_or_else(PoisonError::into_inner);
    content.asked.push(format!("{method} {path}"));
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    let parts = rest.rsplit_once("/manifests/").or_else(|| rest.rsplit_once("/blobs/"));
    let Some((repository, reference)) = parts else { return ("200 OK", text, b"{}".to_vec()) };
    if content.passwords.get(repository).is_some_and(|wanted| given != Some(STANDARD.encode(wanted).as_str())) {
        return ("401 Unauthorized", text, b"{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}".to_vec());
    }
    let missing = ("404 Not Found", text, b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}".to_vec());
    let Some(image) = content.images.get(repository) else { return missing };
    if path.contains("/manifests/") {
        let known = !reference.contains(':') || reference == digest(&image.manifest);
        return if known { ("200 OK", MANIFEST, image.manifest.clone()) } else { missing };
    }
    let blob = [&image.config, &image.layer, &image.manifest].into_iter().find(|b| digest(b) == reference);
    blob.map_or(missing, |b| ("200 OK", "application/octet-stream", b.clone()))
}
