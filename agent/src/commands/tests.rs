use super::*;

fn read(words: &[&str]) -> Result<Command, clap::Error> {
    Command::read(std::iter::once("ferrolet").chain(words.iter().copied()).map(OsString::from))
}

#[test]
fn a_word_in_front_selects_a_command() {
    assert!(matches!(read(&["--node_ip=10.0.0.1", "--v", "4"]), Ok(Command::Daemon(args)) if args.v == 4));
    assert!(matches!(read(&[]), Ok(Command::Daemon(_))));
    let Ok(Command::Trace(args)) = read(&["trace", "--from", "10.0.0.1", "--to=10.96.0.1:80/tcp", "--root_dir=/r"]) else {
        panic!("not a trace")
    };
    assert_eq!((args.from.as_str(), args.to.as_str()), ("10.0.0.1", "10.96.0.1:80/tcp"));
    assert_eq!(args.root_dir.to_str(), Some("/r"));
    assert!(matches!(read(&["cleanup", "--kube-proxy", "--force"]), Ok(Command::Cleanup(args)) if args.kube_proxy && args.force));
    let Ok(Command::Pod(args)) = read(&["pod", "shop/web_1", "-o", "json"]) else { panic!("not about a pod") };
    assert_eq!((args.pod.as_deref(), args.output.as_deref()), (Some("shop/web_1"), Some("json")));
    assert!(matches!(read(&["pod"]), Ok(Command::Pod(args)) if args.pod.is_none()));
    assert!(read(&["pod", "web", "-o", "yaml"]).unwrap_err().to_string().contains("json"));
    assert!(read(&["trace", "--from", "10.0.0.1"]).unwrap_err().to_string().contains("--to"));
    assert!(read(&["--hostname-override", "trace"]).is_ok(), "only the first word");
    assert!(read(&["clean"]).unwrap_err().to_string().contains("clean"));
}
