//! What a command line does. Pure: the environment and the files are given.

use std::time::Duration;

/// A make-believe process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// After how long it ends by itself; `None`: never.
    pub ends_after: Option<Duration>,
    pub exit_code: i32,
    pub on_term: OnTerm,
    /// Files it writes at once, by their paths in the container; what is not on a mount is lost with the container.
    pub writes: Vec<(String, Vec<u8>)>,
}

/// What the stop signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerm {
    Ignore,
    Exit { after: Duration, code: i32 },
}

impl Program {
    /// Prints this and ends at once.
    pub fn ends(exit_code: i32, stdout: &str, stderr: &str) -> Self {
        Self {
            stdout: stdout.into(),
            stderr: stderr.into(),
            ends_after: Some(Duration::ZERO),
            exit_code,
            on_term: OnTerm::Exit { after: Duration::ZERO, code: 143 },
            writes: Vec::new(),
        }
    }

    fn writing(self, path: &str, text: &str) -> Self {
        Self { writes: vec![(path.to_owned(), text.into())], ..self }
    }

    /// Runs until it is stopped, which it obeys.
    pub fn runs() -> Self {
        Self { ends_after: None, on_term: OnTerm::Exit { after: Duration::ZERO, code: 0 }, ..Self::ends(0, "", "") }
    }

    /// Ends by itself after a while.
    pub fn sleeps(duration: Duration, exit_code: i32) -> Self {
        Self { ends_after: Some(duration), exit_code, ..Self::runs() }
    }

    pub fn ignoring_term(self) -> Self {
        Self { on_term: OnTerm::Ignore, ..self }
    }
}

/// `None`: there is no such program in the image. `read` answers a file's content as the container sees it.
pub(super) fn interpret(argv: &[String], env: &[(String, String)], read: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Program> {
    let (name, rest) = argv.split_first()?;
    match name.trim_start_matches('/') {
        "pause" => Some(Program::runs()),
        "web" => Some(web(rest, env, read)),
        _ => None,
    }
}

fn web(args: &[String], env: &[(String, String)], read: impl Fn(&str) -> Option<Vec<u8>>) -> Program {
    let command = args.first().map_or("help", String::as_str);
    let rest = args.get(1..).unwrap_or_default();
    let wrong = |text: String| Program::ends(1, "", &format!("web {command}: {text}\n"));
    let seconds = || {
        let text = rest.first().ok_or("an argument is missing".to_owned())?;
        text.parse::<f64>().map_err(|e| e.to_string()).map(|s| Duration::from_secs_f64(s.clamp(0.0, 1e6)))
    };
    match command {
        "serve" => {
            let drain =
                env.iter().find(|(name, _)| name == "WEB_DRAIN_MS").and_then(|(_, value)| value.parse().ok()).unwrap_or(1500);
            let on_term = OnTerm::Exit { after: Duration::from_millis(drain), code: 0 };
            Program { stdout: b"web listening on 8080\n".to_vec(), on_term, ..Program::runs() }
        }
        "env" => {
            let mut lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            lines.sort();
            Program::ends(0, &lines.concat(), "")
        }
        "echo" => Program::ends(0, &format!("{}\n", rest.join(" ")), ""),
        "cat" => {
            let mut stdout = Vec::new();
            for path in rest {
                match read(path) {
                    Some(content) => stdout.extend(content),
                    None => return Program { stdout, ..wrong("No such file or directory (os error 2)".into()) },
                }
            }
            Program { stdout, ..Program::ends(0, "", "") }
        }
        "lines" => match rest.first().and_then(|n| n.parse::<u64>().ok()) {
            Some(n) => Program::ends(0, &(0..n).map(|i| format!("line {i}\n")).collect::<String>(), ""),
            None => wrong("an argument is missing".into()),
        },
        "sleep" => seconds().map_or_else(wrong, |duration| Program::sleeps(duration, 0)),
        "ignore-term" => seconds().map_or_else(wrong, |duration| Program::sleeps(duration, 0).ignoring_term()),
        "exit" => match rest.first().map(|code| code.parse::<i32>()) {
            // The kernel keeps the lowest eight bits.
            Some(Ok(code)) => Program::ends(code & 0xff, "", ""),
            Some(Err(error)) => wrong(error.to_string()),
            None => wrong("an argument is missing".into()),
        },
        "write" => match rest.split_first() {
            Some((path, text)) => Program::ends(0, "", "").writing(path, &text.join(" ")),
            None => wrong("an argument is missing".into()),
        },
        "end" => match (rest.first().map(|code| code.parse::<i32>()), rest.get(1)) {
            (Some(Ok(code)), Some(path)) => Program::ends(code & 0xff, "", "").writing(path, &rest[2..].join(" ")),
            _ => wrong("an argument is missing".into()),
        },
        "once" => match (rest.first(), rest.get(1).map(|code| code.parse::<i32>())) {
            (Some(path), Some(Ok(code))) => match read(path) {
                Some(_) => Program::ends(0, "", ""),
                None => Program::ends(code & 0xff, "", "").writing(path, ""),
            },
            _ => wrong("an argument is missing".into()),
        },
        "crash" => Program::ends(134, "", ""),
        _ => Program::ends(0, "web serve [--port P] | env | echo | cat | ..\n", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Option<Program> {
        let argv: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let env = [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())];
        interpret(&argv, &env, |path| (path == "/there").then(|| b"content".to_vec()))
    }

    #[test]
    fn the_programs_do_what_those_of_the_lab_do() {
        assert_eq!(run(&["/web", "exit", "3"]).unwrap().exit_code, 3);
        assert_eq!(run(&["/web", "exit", "257"]).unwrap().exit_code, 1);
        assert_eq!(run(&["/web", "env"]).unwrap().stdout, b"A=1\nB=2\n");
        assert_eq!(run(&["/web", "echo", "a", "b"]).unwrap().stdout, b"a b\n");
        assert_eq!(run(&["/web", "cat", "/there"]).unwrap().stdout, b"content");
        assert_eq!(run(&["/web", "cat", "/absent"]).unwrap().exit_code, 1);
        assert_eq!(run(&["/web", "sleep", "x"]).unwrap().exit_code, 1);
        assert_eq!(run(&["/web", "sleep", "0.5"]).unwrap().ends_after, Some(Duration::from_millis(500)));
        assert_eq!(run(&["/web", "ignore-term", "5"]).unwrap().on_term, OnTerm::Ignore);
        assert_eq!(run(&["/web", "serve"]).unwrap().ends_after, None);
        assert_eq!(run(&["/web", "write", "/a", "b", "c"]).unwrap().writes, [("/a".to_owned(), b"b c".to_vec())]);
        let end = run(&["/web", "end", "3", "/a", "b"]).unwrap();
        assert_eq!((end.exit_code, end.writes), (3, vec![("/a".to_owned(), b"b".to_vec())]));
        assert_eq!(run(&["/web", "once", "/there", "3"]).unwrap(), Program::ends(0, "", ""));
        let once = run(&["/web", "once", "/absent", "3"]).unwrap();
        assert_eq!((once.exit_code, once.writes), (3, vec![("/absent".to_owned(), vec![])]));
        assert_eq!(run(&["/bin/sh"]), None);
        assert_eq!(run(&[]), None);
    }
}
