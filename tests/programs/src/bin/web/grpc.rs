//! As much of HTTP/2 and gRPC as it takes to answer `grpc.health.v1.Health/Check`: every request is taken for one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// No client may send more in one frame unless it is told so.
const MOST: usize = 16 << 10;

/// Answers one connection until its end.
pub fn answer(stream: &TcpStream, serving: impl Fn(&str) -> bool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut from, mut to) = (stream, stream);
    from.read_exact(&mut [0; PREFACE])?;
    to.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let mut request = Vec::new();
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        if len > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; len];
        from.read_exact(&mut payload)?;
        match (head[3], head[4]) {
            (SETTINGS, 0) => to.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            (PING, 0) => to.write_all(&frame(PING, ACK, 0, &payload))?,
            (DATA, flags) if request.len() <= MOST => {
                request.extend(payload);
                if flags & END_STREAM != 0 {
                    to.write_all(&reply(id, serving(&service(&request))))?;
                    request.clear();
                }
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(payload);
    out
}

/// The name in a message: five bytes before it, then field 1 with its length.
fn service(message: &[u8]) -> String {
    message.get(7..).map_or(String::new(), |name| String::from_utf8_lossy(name).into_owned())
}

/// Names and values as they are, without any compression.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |t: &str| [&[t.len() as u8], t.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn reply(id: u32, serving: bool) -> Vec<u8> {
    let status = if serving { 1 } else { 2 };
    let head = [field(":status", "200"), field("content-type", "application/grpc")].concat();
    [
        frame(HEADERS, END_HEADERS, id, &head),
        frame(DATA, 0, id, &[0, 0, 0, 0, 2, 8, status]),
        frame(HEADERS, END_HEADERS | END_STREAM, id, &field("grpc-status", "0")),
    ]
    .concat()
}
