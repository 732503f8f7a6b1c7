//! Arguments, logging, exit code.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ferrolet_stub::app::{self, Options};
use ferrolet_stub::pki::Pki;
use ferrolet_stub::ranges::Ranges;
use ferrolet_stub::store::Keep;
use tokio_util::sync::CancellationToken;

/// A minimal Kubernetes control plane in one process.
#[derive(Parser)]
#[command(name = "ferrolet-stub", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: Option<Serve>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Write the kubeconfig of a node and print its path
    Kubeconfig {
        #[arg(long)]
        data_dir: PathBuf,
        /// The node's name
        #[arg(long)]
        node: String,
    },
}

#[derive(Args)]
struct Serve {
    /// Where keys, kubeconfigs and objects are kept
    #[arg(long)]
    data_dir: PathBuf,
    /// ADDR:PORT to serve HTTPS on
    #[arg(long)]
    listen: SocketAddr,
    /// The address nodes and pods use, if it is not the listening one
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Where ClusterIPs come from: A[,B], of two families for a dual-stack cluster, the primary one first
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: Ranges,
    /// Give each node pod ranges out of these: A[,B] (/24 of IPv4, /64 of IPv6)
    #[arg(long, alias = "pod-cidr")]
    cluster_cidr: Option<Ranges>,
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    node_port_range: std::ops::RangeInclusive<u16>,
    /// One more name or address for the serving certificate (repeatable)
    #[arg(long)]
    tls_san: Vec<String>,
    /// Write a kubeconfig for this node (repeatable); without it, for this host's name
    #[arg(long)]
    node_name: Vec<String>,
}

fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((low, high)) if low > 0 && low <= high => Ok(low..=high),
        _ => Err(format!("{text:?} is not LOW-HIGH")),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_ascii_lowercase(),
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match (cli.command, cli.serve) {
        (Some(Command::Kubeconfig { data_dir, node }), _) => kubeconfig(&data_dir, &node),
        (None, Some(serve)) => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(8)
            .enable_all()
            .build()
            .context("runtime")?
            .block_on(run(serve)),
        (None, None) => anyhow::bail!("--data-dir and --listen are needed; see --help"),
    }
}

/// The server's address comes from the admin's kubeconfig, which the server wrote.
fn kubeconfig(data: &std::path::Path, node: &str) -> anyhow::Result<()> {
    let admin = data.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&admin)
        .with_context(|| format!("{}: start ferrolet-stub with this data folder first", admin.display()))?;
    let config: serde_json::Value = serde_yaml_ng::from_str(&text).with_context(|| admin.display().to_string())?;
    let server = config.pointer("/clusters/0/cluster/server").and_then(|s| s.as_str());
    let server = server.with_context(|| format!("{} names no server", admin.display()))?;
    let path = Pki::open(data)?.write_node_kubeconfig(data, server, node)?;
    println!("{}", path.display());
    Ok(())
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    let nodes = if serve.node_name.is_empty() { vec![host_name()] } else { serve.node_name };
    let options = Options {
        data_dir: serve.data_dir,
        listen: serve.listen,
        advertise: serve.advertise_address,
        service_cidr: serve.service_cidr,
        cluster_cidr: serve.cluster_cidr,
        node_ports: serve.node_port_range,
        tls_sans: serve.tls_san,
        nodes,
        keep: Keep::default(),
    };
    let cancel = CancellationToken::new();
    let running = app::start(&options, &cancel).await?;
    println!("ready on {}, KUBECONFIG={}", running.server, options.data_dir.join("admin.kubeconfig").display());
    let signals = cancel.clone();
    tokio::spawn(async move {
        let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(term) => term,
            Err(error) => return tracing::error!(%error, "no signal handler"),
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        signals.cancel();
    });
    running.wait(cancel).await?;
    Ok(())
}
