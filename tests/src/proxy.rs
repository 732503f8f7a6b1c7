//! A TCP proxy inside a namespace whose connections can go silent: they stay open, and nothing passes them any more.

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
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to), state) = (from.try_clone(), to.try_clone(), shared.clone()) else { continue };
                    pipes.push(std::thread::spawn(move || drop(pipe(from, to, number, &state))));
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

fn pipe(mut from: TcpStream, mut to: TcpStream, number: usize, state: &State) -> std::io::Result<()> {
    from.set_nonblocking(false)?;
    from.set_read_timeout(Some(TURN))?;
    let mut buffer = vec![0; 64 << 10];
    while !state.end.load(Ordering::SeqCst) {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        // What comes is taken and lost, as in a network that has forgotten the connection.
        if number > state.silent.load(Ordering::SeqCst) {
            to.write_all(&buffer[..n])?;
        }
    }
    // The other side is told of an end only where it still hears anything.
    if number > state.silent.load(Ordering::SeqCst) {
        to.shutdown(std::net::Shutdown::Write)?;
    }
    Ok(())
}
