//! The options that select the API server and the user.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::CLUSTER;

/// The options that select the API server and the user.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = CLUSTER)]
pub struct ClusterArguments {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "LEADERRUN_KUBECONFIG", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use [default: its current context]
    #[arg(long, env = "LEADERRUN_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// The user to impersonate
    #[arg(long = "as", env = "LEADERRUN_AS", value_name = "USER")]
    pub impersonate: Option<String>,
}
