//! Tests of expired credentials that cannot be replaced, and of rejected credentials that can be replaced.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use testkit::credentials;
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually, kubeconfig, scratch};

use super::credential_rotation::{TIMING, replace};

/// Returns the fields of a user whose plugin is a shell script. The script runs in `directory`, and each run adds a
/// line to the file `runs`. The script can use `$run`, the number of the run, and the function `issue TOKEN [EXPIRY]`,
/// which prints a credential.
fn exec_user(directory: &Path, script: &str) -> Value {
    let version = "client.authentication.k8s.io/v1";
    let script = format!(
        r#"cd {}; echo run >> runs; run=$(wc -l < runs)
        issue() {{
            expiry=; [ -z "$2" ] || expiry=",\"expirationTimestamp\":\"$2\""
            echo "{{\"kind\":\"ExecCredential\",\"apiVersion\":\"{version}\",\"status\":{{\"token\":\"$1\"$expiry}}}}"
        }}
        {script}"#,
        directory.display()
    );
    json!({ "exec": {
        "apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never",
    } })
}

/// A leader behind a proxy.
struct Leader {
    cluster: Cluster,
    proxy: Proxy,
    directory: PathBuf,
    witnesses: Witnesses,
    lock: TestLock,
    running: Running,
}

impl Leader {
    /// Starts a leader. `user` gets a new directory and returns the user entry of the kubeconfig. The API server is
    /// always in-process, because a real one would not accept the tokens that the tests issue.
    fn start(user: impl Fn(&Path) -> Value) -> Self {
        let cluster = Cluster::start_in_process();
        let (proxy, directory) = (Proxy::start(&cluster), scratch::directory("rejected"));
        kubeconfig::write_with(&directory.join("kubeconfig"), proxy.address(), ADMIN.name, &user(&directory));
        let name = format!("{}/job", cluster.new_namespace());
        let (witnesses, lock) = (Witnesses::new(), TestLock { name, kubeconfig: Some(directory.join("kubeconfig")) });
        let running = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        Self { cluster, proxy, directory, witnesses, lock, running }
    }

    /// Returns how many times the plugin has run.
    fn plugin_runs(&self) -> usize {
        fs::read_to_string(self.directory.join("runs")).map_or(0, |runs| runs.lines().count())
    }

    fn wait_for_renewals(&self, count: usize) {
        self.cluster.wait_for_renewals(&self.lock, count);
    }

    /// Checks that the command got no stop signal, and stops the leader.
    fn assert_lock_was_kept(mut self) {
        let log = self.running.log();
        assert_eq!(self.witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {log}");
        self.running.stop();
    }
}

#[testkit::test]
fn expired_credentials_are_used_while_the_plugin_fails_or_hangs() {
    for after_first_run in ["echo no network >&2; exit 1", "sleep 1000"] {
        let leader = Leader::start(|directory| {
            let issue = format!("issue {} $(date -u -d '+3 seconds' +%FT%TZ)", ADMIN.token);
            exec_user(directory, &format!("[ $run = 1 ] || {{ {after_first_run}; }}; {issue}"))
        });
        eventually("the plugin runs again", || leader.plugin_runs() >= 2);
        // There is a renewal every second, so the credentials, which last for three seconds, expire before the sixth.
        leader.wait_for_renewals(6);
        leader.assert_lock_was_kept();
    }
}

#[testkit::test]
fn a_rejected_token_is_replaced_on_the_same_connection() {
    let leader = Leader::start(|directory| {
        replace(&directory.join("token"), &credentials::issue_token(ADMIN));
        json!({ "tokenFile": directory.join("token") })
    });
    leader.wait_for_renewals(1);
    replace(&leader.directory.join("token"), &credentials::issue_token(ADMIN));
    leader.proxy.respond(Match::put().next(1), 401, None);
    leader.wait_for_renewals(2);
    let requests = leader.proxy.requests().into_iter().filter(|request| request.method == "PUT");
    let connections: BTreeSet<usize> = requests.map(|request| request.connection).collect();
    assert_eq!(connections.len(), 1, "{connections:?}: {}", leader.running.log());
    leader.assert_lock_was_kept();
}
