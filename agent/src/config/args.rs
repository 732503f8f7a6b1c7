//! The command line, in kubelet's names.
//!
//! Pure. Underscores in flag names count as dashes, and values may follow a space or `=`, as kubelet accepts both.

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::path::PathBuf;

const COMMANDS: &str = "Commands, in front of their own options:
  ferrolet trace    Say what the service rules do to a packet
  ferrolet cleanup  Remove the service rules from this host
Each has its own --help.";

/// Ferrolet makes this host a Kubernetes node: kubelet and kube-proxy in one process.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "ferrolet", version, disable_help_subcommand = true, after_help = COMMANDS)]
pub struct Args {
    /// KubeletConfiguration (kubelet.config.k8s.io/v1beta1), YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub proxy_config: Option<PathBuf>,
    /// How to reach the API server and who to be; without it the node runs its static pods alone
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: Option<PathBuf>,
    /// Run without an API server; says what leaving out --kubeconfig means too
    #[arg(long)]
    pub standalone: bool,
    /// The node's name, instead of the host's
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// The node's address, or two of different families separated by a comma
    #[arg(long, value_name = "IP[,IP]")]
    pub node_ip: Option<String>,
    /// Where pods' folders and volumes live
    #[arg(long, value_name = "DIR")]
    pub root_dir: Option<PathBuf>,
    /// Where the serving certificate is kept when none is configured
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// The CRI socket, such as unix:///run/containerd/containerd.sock
    #[arg(long, value_name = "ENDPOINT")]
    pub container_runtime_endpoint: Option<String>,
    /// Labels for the node when it registers
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub node_labels: Option<String>,
    /// Kernel settings beyond the safe ones that pods may ask for, or patterns of them; may be given more than once
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Containers that name no seccomp profile get the runtime's default instead of none
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub seccomp_default: Option<bool>,
    /// A folder with the manifests of static pods, or one such file
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub pod_manifest_path: Option<PathBuf>,
    /// Where to get further static pods from
    #[arg(long, value_name = "URL")]
    pub manifest_url: Option<String>,
    /// Headers for --manifest-url; may be given more than once
    #[arg(long, value_name = "NAME:VALUE,...")]
    pub manifest_url_header: Vec<String>,
    /// How often the folder is listed though nothing was heard of it
    #[arg(long, value_name = "DURATION")]
    pub file_check_frequency: Option<String>,
    /// How often --manifest-url is asked
    #[arg(long, value_name = "DURATION")]
    pub http_check_frequency: Option<String>,
    /// CredentialProviderConfig (kubelet.config.k8s.io/v1), YAML or JSON: a file, or a folder of such files
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Where the programs of those credential providers are
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Log verbosity: 0 and 1 info, 2 to 4 debug, more trace; RUST_LOG wins
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub v: u8,
}

impl Args {
    /// Reads a command line, the program's name first.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
        Args::try_parse_from(args.into_iter().map(normalise))
    }
}

/// `--node_ip=x_y` becomes `--node-ip=x_y`.
pub fn normalise(arg: OsString) -> OsString {
    let Some(text) = arg.to_str().filter(|text| text.starts_with("--") && text.contains('_')) else {
        return arg;
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let name = name.replace('_', "-");
    match value {
        Some(value) => format!("{name}={value}").into(),
        None => name.into(),
    }
}
