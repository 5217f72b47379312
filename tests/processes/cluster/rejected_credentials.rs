//! Tests of credentials that expire or are rejected while nothing better can be obtained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use testkit::credentials;
use testkit::users::ADMIN;
use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually, kubeconfig, scratch};

use super::credential_rotation::{TIMING, replace};

/// Returns a user whose plugin is a shell script. It runs in `folder` and counts its runs there. It can use `$run`, the number
/// of the run, and the function `issue TOKEN [EXPIRY]`, which prints a credential.
fn exec_user(folder: &Path, script: &str) -> Value {
    let version = "client.authentication.k8s.io/v1";
    let script = format!(
        r#"cd {}; echo run >> runs; run=$(wc -l < runs)
        issue() {{
            expiry=; [ -z "$2" ] || expiry=",\"expirationTimestamp\":\"$2\""
            echo "{{\"kind\":\"ExecCredential\",\"apiVersion\":\"{version}\",\"status\":{{\"token\":\"$1\"$expiry}}}}"
        }}
        {script}"#,
        folder.display()
    );
    json!({ "exec": {
        "apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never",
    } })
}

/// A leader behind a proxy.
struct Leader {
    cluster: Cluster,
    proxy: Proxy,
    folder: PathBuf,
    witnesses: Witnesses,
    lock: TestLock,
    running: Running,
}

impl Leader {
    /// Starts a leader whose user is the one that `user` returns for a new folder. Only a server in this process knows
    /// the tokens that the tests issue.
    fn start(user: impl Fn(&Path) -> Value) -> Self {
        let cluster = Cluster::start_in_process();
        let (proxy, folder) = (Proxy::start(&cluster), scratch::folder("rejected"));
        kubeconfig::write_with(&folder.join("kubeconfig"), proxy.address(), ADMIN.name, &user(&folder));
        let name = format!("{}/job", cluster.new_namespace());
        let (witnesses, lock) = (Witnesses::new(), TestLock { name, kubeconfig: Some(folder.join("kubeconfig")) });
        let running = Candidate::with_timing("a", &lock, TIMING).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        Self { cluster, proxy, folder, witnesses, lock, running }
    }

    fn plugin_runs(&self) -> usize {
        fs::read_to_string(self.folder.join("runs")).map_or(0, |runs| runs.lines().count())
    }

    fn wait_for_renewals(&self, count: usize) {
        let admin = self.cluster.admin();
        let renewed = || admin.get(&self.lock.lease_path()).expect("the lease")["spec"]["renewTime"].clone();
        for _ in 0..count {
            let before = renewed();
            eventually("a renewal", || renewed() != before);
        }
    }

    /// Checks that the lock was never lost.
    fn stop(mut self) -> String {
        let log = self.running.log();
        assert_eq!(self.witnesses.lifetimes_of("a")[0].signaled_at, 0, "it got no stop signal: {log}");
        self.running.stop();
        log
    }
}

#[testkit::test]
fn expired_credentials_are_used_while_the_plugin_fails_or_hangs() {
    for after_first_run in ["echo no network >&2; exit 1", "sleep 1000"] {
        let leader = Leader::start(|folder| {
            let issue = format!("issue {} $(date -u -d '+3 seconds' +%FT%TZ)", ADMIN.token);
            exec_user(folder, &format!("[ $run = 1 ] || {{ {after_first_run}; }}; {issue}"))
        });
        eventually("another run of the plugin", || leader.plugin_runs() >= 2);
        // A renewal a second: the credentials have expired by the last one.
        leader.wait_for_renewals(6);
        leader.stop();
    }
}

#[testkit::test]
fn a_rejected_token_costs_no_connection() {
    let leader = Leader::start(|folder| {
        replace(&folder.join("token"), &credentials::issue_token(ADMIN));
        json!({ "tokenFile": folder.join("token") })
    });
    leader.wait_for_renewals(1);
    replace(&leader.folder.join("token"), &credentials::issue_token(ADMIN));
    leader.proxy.answer(Match::put().next(1), 401, None);
    leader.wait_for_renewals(2);
    let requests = leader.proxy.requests().into_iter().filter(|seen| seen.method == "PUT");
    let connections: BTreeSet<usize> = requests.map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 1, "{connections:?}: {}", leader.running.log());
    leader.stop();
}
