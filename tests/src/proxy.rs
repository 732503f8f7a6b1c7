//! A TCP proxy inside a namespace whose connections can go silent: they stay open, and nothing passes them any more. It can also
//! hold answers back after so many bytes of them, until the server is gone.

use crate::netns::within;
use anyhow::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const TURN: Duration = Duration::from_millis(20);

pub struct Proxy {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    end: AtomicBool,
    /// Connections up to this one are silent.
    silent: AtomicUsize,
    made: AtomicUsize,
    /// How many bytes of answers pass on one connection; zero: all.
    most: AtomicUsize,
    /// Connections that are held back now.
    held: AtomicUsize,
}

impl Proxy {
    pub fn start(netns: &str, listen: SocketAddr, to: SocketAddr) -> Result<Proxy> {
        let listener = within(netns, move || TcpListener::bind(listen))?.with_context(|| format!("listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let (shared, netns) = (state.clone(), netns.to_owned());
        let thread = std::thread::spawn(move || {
            let mut pipes = vec![];
            while !shared.end.load(Ordering::SeqCst) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(TURN);
                    continue;
                };
                let Ok(Ok(server)) = within(&netns, move || TcpStream::connect(to)) else { continue };
                let number = shared.made.fetch_add(1, Ordering::SeqCst) + 1;
                for (from, to, answers) in [(&client, &server, false), (&server, &client, true)] {
                    let (Ok(from), Ok(to), state) = (from.try_clone(), to.try_clone(), shared.clone()) else { continue };
                    let pipe = Pipe { number, answers };
                    pipes.push(std::thread::spawn(move || drop(pipe.run(from, to, &state))));
                }
            }
            pipes.into_iter().for_each(|pipe| drop(pipe.join()));
        });
        Ok(Proxy { state, thread: Some(thread) })
    }

    /// All connections that there are say nothing from now on, and hear nothing. New ones are as good as any.
    pub fn silence(&self) {
        self.state.silent.store(self.connections(), Ordering::SeqCst);
    }

    /// From now on no more than so many bytes of the answers on one connection pass; zero: all pass.
    pub fn hold_after(&self, bytes: usize) {
        self.state.most.store(bytes, Ordering::SeqCst);
    }

    /// How many connections are held back.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// How many there were so far.
    pub fn connections(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One direction of a connection.
struct Pipe {
    number: usize,
    answers: bool,
}

impl Pipe {
    fn run(&self, mut from: TcpStream, mut to: TcpStream, state: &State) -> std::io::Result<()> {
        from.set_nonblocking(false)?;
        from.set_read_timeout(Some(TURN))?;
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while !state.end.load(Ordering::SeqCst) {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => {
                    // The other side sees it end in the middle, as it would without a proxy.
                    let _ = to.shutdown(std::net::Shutdown::Both);
                    return Err(error);
                }
            };
            passed += n;
            self.hold(passed, state);
            // What comes is taken and lost, as in a network that has forgotten the connection.
            if self.number > state.silent.load(Ordering::SeqCst) {
                to.write_all(&buffer[..n])?;
            }
        }
        // The other side is told of an end only where it still hears anything.
        if self.number > state.silent.load(Ordering::SeqCst) {
            to.shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    }

    /// Keeps what has come from going on while too much has passed.
    fn hold(&self, passed: usize, state: &State) {
        let over = || {
            let most = state.most.load(Ordering::SeqCst);
            self.answers && most > 0 && passed > most && !state.end.load(Ordering::SeqCst)
        };
        if over() {
            state.held.fetch_add(1, Ordering::SeqCst);
            while over() {
                std::thread::sleep(TURN);
            }
            state.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
