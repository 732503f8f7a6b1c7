use super::super::units::Units;
use super::*;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread::JoinHandle;

const SOON: Duration = Duration::from_secs(10);

/// A peer that answers a greeting and then does as the test says.
fn peer(act: impl FnOnce(UnixStream) + Send + 'static) -> (tempfile::TempDir, Units, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("private");
    let listener = UnixListener::bind(&private).unwrap();
    let task = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\nBEGIN\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        assert!(said.starts_with(b"\0AUTH EXTERNAL "), "{said:?}");
        act(stream);
    });
    (dir, Units { private, shared: "/nonexistent".into(), patience: SOON }, task)
}

fn receive(stream: &mut UnixStream) -> Option<Message> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).ok()?;
    let (fields, body) = wire::lengths(&head).unwrap();
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).unwrap();
    Some(wire::message(&head, &rest).unwrap())
}

fn begin(stream: &mut UnixStream) {
    stream.write_all(b"OK 0123\r\n").unwrap();
}

/// An answer to the first call.
fn answer(kind: u8, signature: &str, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    // Laid out as a call whose fields are turned into those of an answer.
    let mut w = Writer::default();
    content(&mut w);
    let body = w.into_bytes();
    let mut out = vec![b'l', kind, 1, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(1u32.to_le_bytes());
    let mut fields = vec![5, 1, b'u', 0, 1, 0, 0, 0];
    if kind == 3 {
        fields.extend([4, 1, b's', 0, 3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0]);
    }
    fields.extend([8, 1, b'g', 0, signature.len() as u8]);
    fields.extend(signature.bytes());
    fields.push(0);
    out.extend((fields.len() as u32).to_le_bytes());
    fields.resize(fields.len().next_multiple_of(8), 0);
    out.extend(fields);
    out.extend(body);
    out
}

fn removed(job: &str, result: &str) -> Vec<u8> {
    let call = Call { destination: None, path: MANAGER_PATH, interface: MANAGER, member: "JobRemoved", signature: "uoss" };
    let mut bytes = wire::call(99, &call, |w| {
        w.u32(4);
        w.text(job);
        w.text("x.slice");
        w.text(result);
    });
    bytes[1] = 4;
    bytes
}

#[test]
fn a_job_is_waited_for_whenever_its_end_is_told() {
    for early in [true, false] {
        let (_dir, units, task) = peer(move |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            let (mine, answer) = (removed("/job/4", "done"), answer(2, "o", |w| w.text("/job/4")));
            s.write_all(&removed("/job/3", "failed")).unwrap();
            let parts = if early { [mine, answer] } else { [answer, mine] };
            // In pieces, as a socket may give them.
            parts.concat().chunks(7).for_each(|piece| s.write_all(piece).unwrap());
        });
        units.slice("a-b.slice", "test", &[]).unwrap();
        task.join().unwrap();
    }
}

#[test]
fn a_job_that_fails_and_a_call_that_fails_are_told() {
    let (_dir, units, task) = peer(|mut s| {
        begin(&mut s);
        receive(&mut s).unwrap();
        s.write_all(&answer(2, "o", |w| w.text("/job/4"))).unwrap();
        s.write_all(&removed("/job/4", "timeout")).unwrap();
    });
    let error = units.slice("a-b.slice", "test", &[]).unwrap_err();
    assert_eq!(error.to_string(), "the job of a-b.slice ended with \"timeout\"");
    task.join().unwrap();
    let (_dir, units, task) = peer(|mut s| {
        begin(&mut s);
        receive(&mut s).unwrap();
        s.write_all(&answer(3, "s", |w| w.text("no"))).unwrap();
    });
    assert_eq!(units.release().unwrap_err().to_string(), "Get: a.b: no");
    task.join().unwrap();
}

#[test]
fn a_release_is_a_number_whatever_follows_it() {
    for (text, wanted) in [("252.38-1~deb12u1", 252), ("v257~rc1", 257), ("main", u32::MAX)] {
        let (_dir, units, task) = peer(move |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            s.write_all(&answer(2, "v", |w| w.variant_text(text))).unwrap();
        });
        assert_eq!(units.release().unwrap(), wanted);
        task.join().unwrap();
    }
}

#[test]
fn a_hostile_peer_gets_neither_memory_nor_time() {
    type Act = fn(UnixStream);
    let acts: [(&str, Act); 7] = [
        ("rejected", |mut s| s.write_all(b"REJECTED EXTERNAL\r\n").unwrap()),
        ("a line without an end", |mut s| while s.write_all(&[b'x'; 512]).is_ok() {}),
        ("a message of four gigabytes", |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            let head = [b"l\x02\x00\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff".as_slice(), &[0; 64]].concat();
            s.write_all(&head).unwrap();
        }),
        ("nonsense", |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            s.write_all(&[0x5a; 64]).unwrap();
        }),
        ("gone", |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
        }),
        ("another type", |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            s.write_all(&answer(2, "u", |w| w.u32(1))).unwrap();
        }),
        ("half a message", |mut s| {
            begin(&mut s);
            receive(&mut s).unwrap();
            s.write_all(&answer(2, "o", |w| w.text("/job/4"))[..20]).unwrap();
        }),
    ];
    for (name, act) in acts {
        let (_dir, units, task) = peer(act);
        let asked = Instant::now();
        let error = units.slice("a-b.slice", "test", &[]).unwrap_err();
        assert!(asked.elapsed() < SOON, "{name}: {error}");
        let _ = task.join();
    }
}

#[test]
fn a_silent_peer_and_one_that_never_stops_talking_are_left_at_the_deadline() {
    let short = Duration::from_millis(300);
    let (hold, held) = mpsc::channel::<()>();
    let (_dir, units, task) = peer(move |s| {
        let _ = held.recv();
        drop(s);
    });
    let units = Units { patience: short, ..units };
    assert!(matches!(units.stop("a.slice"), Err(Error::Late(_))));
    drop(hold);
    task.join().unwrap();
    let (_dir, units, task) = peer(|mut s| {
        begin(&mut s);
        receive(&mut s).unwrap();
        let mut other = removed("/job/1", "done");
        // Another signal, so that nothing has to be kept of it.
        let at = other.windows(10).position(|w| w == b"JobRemoved").unwrap();
        other[at] = b'X';
        while s.write_all(&other).is_ok() {}
    });
    let units = Units { patience: short, ..units };
    assert!(matches!(units.stop("a.slice"), Err(Error::Late(_))));
    task.join().unwrap();
}

#[test]
fn who_cannot_be_reached_is_named_with_both_places() {
    let units = Units { private: "/nonexistent/private".into(), shared: "/nonexistent/bus".into(), patience: SOON };
    let said = units.release().unwrap_err().to_string();
    assert!(said.contains("/nonexistent/private: No such file") && said.contains("/nonexistent/bus: "), "{said}");
}

/// The reference implementation checks every message that passes through it, and drops who sends a wrong one.
#[test]
fn the_reference_bus_takes_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let config = dir.path().join("config");
    let text = format!(
        "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context='default'>\
         <allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/><allow user='*'/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new("dbus-daemon");
    command.arg("--nofork").arg("--nopidfile").arg(format!("--config-file={}", config.display()));
    let Ok(mut daemon) = command.spawn() else {
        eprintln!("skipped: dbus-daemon is not installed");
        return;
    };
    let until = Instant::now() + SOON;
    while open(&socket).is_err() {
        assert!(Instant::now() < until, "dbus-daemon does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let result = std::panic::catch_unwind(|| through(&socket));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    result.unwrap();
}

fn through(socket: &Path) {
    // Nobody is systemd there: that is what Subscribe is told, after Hello and AddMatch were taken.
    let error = Bus::connect(Path::new("/nonexistent"), socket, Instant::now() + SOON).err().unwrap();
    assert!(matches!(&error, Error::Failed { what: "Subscribe", name, .. } if name.ends_with(".ServiceUnknown")), "{error}");
    let stream = open(socket).unwrap();
    let mut bus =
        Bus { stream, path: socket.to_owned(), until: Instant::now() + SOON, serial: 0, through: false, jobs: Vec::new() };
    bus.greet().unwrap();
    bus.through = true;
    let hello = Call {
        destination: Some("org.freedesktop.DBus"),
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        signature: "",
    };
    bus.ask("Hello", &hello, |_| {}).unwrap();
    let properties = [
        ("A", wire::Value::U64(1)),
        ("B", wire::Value::Texts(vec!["x".into(), String::new()])),
        ("C", wire::Value::Bytes(vec![1, 2, 3])),
        ("D", wire::Value::Bool(false)),
        ("E", wire::Value::Text("ü".into())),
        ("F", wire::Value::Texts(Vec::new())),
    ];
    for many in 0..=properties.len() {
        let error = bus
            .manager("StartTransientUnit", "ssa(sv)a(sa(sv))", |w| {
                w.text("a.slice");
                w.text("replace");
                w.properties(&properties[..many]);
                w.list(8, |_| {});
            })
            .unwrap_err();
        assert!(error.is("org.freedesktop.DBus.Error.ServiceUnknown"), "{many}: {error}");
    }
    // What is wrong ends the connection: the check above is one.
    let wrong = bus.manager("StopUnit", "sst", |w| w.text("a")).unwrap_err();
    assert!(matches!(wrong, Error::Io(_)), "{wrong}");
}
