//! Tests with many kubeconfigs, which leaderrun must understand in the same way as kubectl, apart from deliberate
//! exceptions.
//!
//! The table is in [`kubeconfig_cases`](super::kubeconfig_cases). The outcome of a case describes the requests that
//! arrive at a server. If kubectl is installed, its outcomes are also compared with the table.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use testkit::recording_server::{RecordedRequest, RecordingServer};
use testkit::{Candidate, scratch, tls};

use super::kubeconfig_cases::kubeconfig_cases;

/// The number of cases that are tried at the same time.
const THREADS: usize = 4;

/// The text of a file that a case lists but does not write, for example because the file should be missing.
pub const NOT_WRITTEN: &str = "NOT WRITTEN";

/// A way to write a kubeconfig, and its expected outcome.
#[derive(Clone)]
pub struct KubeconfigCase {
    pub name: &'static str,
    /// The names and texts of the kubeconfigs, which are merged. Placeholders such as `$HTTPS` are replaced with the
    /// values of a [`Setup`]. A file whose text is [`NOT_WRITTEN`] is not written.
    pub files: Vec<(&'static str, String)>,
    /// The value of `--context`.
    pub context: Option<&'static str>,
    /// The outcome of kubectl: `refused`, or the request as `SCHEME[/PATH] [with server name SNI] as USER in
    /// NAMESPACE`. PATH is the path of the kubeconfig's `server` URL, SNI is the server name that the client sent in
    /// the TLS handshake, and USER stands for the credentials.
    pub outcome: &'static str,
    /// The outcome of leaderrun and the reason, if it differs from kubectl's.
    pub leaderrun_outcome: Option<(&'static str, &'static str)>,
}

#[testkit::test]
fn leaderrun_matches_the_kubeconfig_table() {
    assert_outcomes(
        |case| case.leaderrun_outcome.map_or(case.outcome, |(outcome, _)| outcome),
        Setup::outcome_of_leaderrun,
    );
}

#[testkit::test(requires = testkit::check_installed("kubectl"))]
fn kubectl_matches_the_kubeconfig_table() {
    assert_outcomes(|case| case.outcome, Setup::outcome_of_kubectl);
}

/// Checks that every case has its expected outcome. `run` returns the actual outcome and the program's output.
fn assert_outcomes(
    expected: fn(&KubeconfigCase) -> &'static str,
    run: fn(&Setup, &KubeconfigCase) -> (String, String),
) {
    let cases = kubeconfig_cases();
    assert!(cases.len() >= 100, "the table has lost cases: only {} are left", cases.len());
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let setup = Setup::new();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (outcome, output) = run(&setup, case);
                    if outcome != expected(case) {
                        let expected = expected(case);
                        let line = format!("{}: {outcome}, not {expected}\n      {output}", case.name);
                        wrong.lock().expect("no thread panics while it holds this lock").push(line);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no thread panics while it holds this lock");
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Two servers, and a directory with the files that kubeconfigs refer to.
struct Setup {
    https: RecordingServer,
    http: RecordingServer,
    /// The client certificate in `me.crt`.
    client: tls::ClientIdentity,
    directory: PathBuf,
    placeholders: BTreeMap<&'static str, String>,
}

impl Setup {
    fn new() -> Self {
        let (https, http) = (RecordingServer::start(Some(tls::server_config())), RecordingServer::start(None));
        let directory = scratch::directory("kubeconfigs");
        let client = tls::client_identity("certified");
        let other = tls::client_identity("other");
        for (name, contents) in [
            ("ca.crt", tls::authority()),
            ("me.crt", client.certificate.clone()),
            ("me.key", client.key.clone()),
            ("token", "from-file\n".to_owned()),
            ("empty", String::new()),
        ] {
            fs::write(directory.join(name), contents).expect("the file can be written");
        }
        let plugin = concat!(
            "#!/bin/sh\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1beta1\",",
            "\"status\":{\"token\":\"from-plugin\"}}'\n"
        );
        fs::write(directory.join("plugin"), plugin).expect("the plugin can be written");
        fs::set_permissions(directory.join("plugin"), Permissions::from_mode(0o755))
            .expect("the file mode can be changed");
        fs::create_dir(directory.join("sub")).expect("the directory can be created");
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let wrapped = |text: &str| {
            let encoded = encoded(text);
            let lines = encoded.as_bytes().chunks(76).map(|line| format!("      {}", String::from_utf8_lossy(line)));
            lines.collect::<Vec<_>>().join("\n")
        };
        let placeholders = BTreeMap::from([
            ("$HTTPS", format!("https://{}", https.address())),
            ("$HTTP", format!("http://{}", http.address())),
            ("$ADDRESS", http.address().to_string()),
            ("$TLS_ADDRESS", https.address().to_string()),
            ("$TLS_PORT", https.address().port().to_string()),
            ("$DIR", directory.display().to_string()),
            ("$CA", encoded(&tls::authority())),
            ("$WRAPPED_CA", wrapped(&tls::authority())),
            ("$ESCAPED_CA", encoded(&tls::authority()).replace("Q", "Q\\n")),
            ("$TWO_CAS", encoded(&format!("# first\n{0}\nrubbish\n{0}", tls::authority()))),
            (
                "$BAD_THEN_GOOD_CA",
                encoded(&format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}", tls::authority())),
            ),
            ("$NOT_A_CERTIFICATE", encoded("rubbish")),
            ("$CERT", encoded(&client.certificate)),
            ("$KEY", encoded(&client.key)),
            ("$OTHER_KEY", encoded(&other.key)),
            ("$KEY_AND_CERT", encoded(&format!("{}{}", client.key, client.certificate))),
        ]);
        Self { https, http, client, directory, placeholders }
    }

    fn fill_in_placeholders(&self, text: &str) -> String {
        // Longer names are replaced first, because one name can be a prefix of another.
        let mut names: Vec<_> = self.placeholders.iter().collect();
        names.sort_by_key(|(name, _)| Reverse(name.len()));
        names.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Writes the kubeconfigs, and returns the value for `KUBECONFIG`.
    fn write_files(&self, case: &KubeconfigCase) -> String {
        let paths = case.files.iter().map(|(name, text)| {
            let path = self.directory.join(name);
            if text != NOT_WRITTEN {
                fs::write(&path, self.fill_in_placeholders(text)).expect("the kubeconfig can be written");
            }
            if name.is_empty() { String::new() } else { path.display().to_string() }
        });
        paths.collect::<Vec<_>>().join(":")
    }

    /// Removes the kubeconfigs.
    fn remove(&self, case: &KubeconfigCase) {
        for (name, _) in &case.files {
            let _ = fs::remove_file(self.directory.join(name));
        }
    }

    /// Writes the kubeconfigs, and returns the variables that make a program read them.
    fn install(&self, case: &KubeconfigCase) -> [(&'static str, String); 2] {
        [("HOME", self.directory.display().to_string()), ("KUBECONFIG", self.write_files(case))]
    }

    fn outcome_of_leaderrun(&self, case: &KubeconfigCase) -> (String, String) {
        let mut status = Candidate::without_default_options("status").args(["status", "--lock", "probe"]);
        if let Some(context) = case.context {
            status = status.args(["--context", context]);
        }
        for (name, value) in self.install(case) {
            status = status.env(name, &value);
        }
        let mut status = status.start();
        status.wait();
        self.remove(case);
        let parse = |target: &str| {
            let (prefix, rest) = target.split_once("/apis/coordination.k8s.io/v1/namespaces/")?;
            Some((prefix.to_owned(), rest.split('/').next().unwrap_or_default().to_owned()))
        };
        (self.outcome(parse), status.log() + &status.output())
    }

    fn outcome_of_kubectl(&self, case: &KubeconfigCase) -> (String, String) {
        let variables = self.install(case);
        let kubectl = |arguments: &[&str]| {
            let mut kubectl = Command::new("kubectl");
            kubectl.args(arguments).envs(variables.clone()).stdin(Stdio::null());
            kubectl.args(case.context.iter().flat_map(|context| ["--context", context]));
            let output = kubectl.output().expect("kubectl can be started");
            (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (_, output) = kubectl(&["version", "--request-timeout", "5s"]);
        let (view, _) = kubectl(&["config", "view", "--minify", "-o", "jsonpath={.contexts[0].context.namespace}"]);
        self.remove(case);
        let namespace = if view.is_empty() { "default".to_owned() } else { view };
        let parse = |target: &str| Some((target.split_once("/version")?.0.to_owned(), namespace.clone()));
        (self.outcome(parse), output)
    }

    /// Returns the outcome of a case from the recorded requests. `parse` splits the target of a request into the path
    /// of the kubeconfig's `server` URL, and the namespace. It returns `None` if the request should be ignored.
    fn outcome(&self, parse: impl Fn(&str) -> Option<(String, String)>) -> String {
        let https = self.https.take_requests().into_iter().map(|request| ("https", request));
        let http = self.http.take_requests().into_iter().map(|request| ("http", request));
        let requests = https.chain(http).filter_map(|(scheme, request)| {
            let (prefix, namespace) = parse(&request.target)?;
            let name = request.server_name.as_ref().map(|name| format!(" with server name {name}")).unwrap_or_default();
            Some(format!("{scheme}{prefix}{name} as {} in {namespace}", self.user(&request)))
        });
        let requests: Vec<String> = requests.collect();
        match &requests[..] {
            [] => "refused".to_owned(),
            [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
            several => several.join(" and "),
        }
    }

    /// Returns the user of a request: its credentials, and the user that it impersonates.
    fn user(&self, request: &RecordedRequest) -> String {
        let mut parts = Vec::new();
        if request.client_certificate.as_ref() == Some(&self.client.der) {
            parts.push("certified".to_owned());
        }
        parts.extend(request.headers.get("authorization").map(|authorization| {
            let basic = authorization.strip_prefix("Basic ").and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
            let basic = basic.map(|decoded| format!("basic {}", String::from_utf8_lossy(&decoded)));
            basic.unwrap_or_else(|| authorization.trim_start_matches("Bearer ").to_owned())
        }));
        let impersonation =
            request.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("impersonate-")?, value)));
        parts.extend(impersonation.map(|(name, value)| format!("{name}={value}")));
        if parts.is_empty() { "nobody".to_owned() } else { parts.join(",") }
    }
}
