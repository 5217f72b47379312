//! The table of kubeconfigs for the tests in [`kubeconfigs`](super::kubeconfigs).

use super::kubeconfigs::{KubeconfigCase, NOT_WRITTEN};

mod users;

use self::users::{certificates, plugins, users};

/// The outcome of most cases: a request over TLS with the token `secret` in the namespace `default`. An outcome names
/// the scheme, the path of the server's URL and the TLS server name if there are any, the credentials, and the
/// namespace.
const BY_TOKEN: &str = "https as secret in default";
// Other outcomes.
const BY_TOKEN_TO_LOCALHOST: &str = "https with server name localhost as secret in default";
const BY_TOKEN_WITHOUT_TLS: &str = "http as secret in default";
const BY_CERTIFICATE: &str = "https as certified in default";
const BY_PLUGIN: &str = "https as from-plugin in default";
const ANONYMOUS: &str = "https as nobody in default";
const ANONYMOUS_WITHOUT_TLS: &str = "http as nobody in default";
const REFUSED: &str = "refused";

// The reasons why leaderrun differs from kubectl.
const KUBECTL_ASKS: &str = "kubectl asks for a user name; other programs that use client-go do not";
const WHITESPACE: &str = "spaces and line breaks around the value are clearly unintended, so leaderrun ignores them";
const CREDENTIALS_WITHOUT_TLS: &str = "a server without TLS may require credentials, too";
const INFERRED_TYPE: &str = "YAML infers a type that is not intended";
const QUOTED_BOOLEAN: &str = "the quotes are unintended, and the value is clearly a boolean";
const MERGE_KEY: &str =
    "kubectl and the YAML standard disagree about which server counts; a lock on another server is a different lock";
const UNUSED_FIELD: &str = "leaderrun does not read the field";
const MIXED_FILES: &str = "the file may contain parts of two files";
const LIMITS: &str = "no real kubeconfig is that large or that deeply nested";
const DATA_TAKES_PRECEDENCE: &str = "data in the kubeconfig takes precedence over a file";

// The fields of a valid cluster, user and context.
const CLUSTER: &str = "{server: '$HTTPS', certificate-authority-data: $CA}";
const USER: &str = "{token: secret}";
const CONTEXT: &str = "{cluster: c, user: u}";

/// A field with the YAML anchor `b`, whose value is a cluster with an unreachable server.
const ANCHOR_B: &str = "x-b: &b {server: 'https://127.0.0.1:1', certificate-authority-data: $CA}\n";

/// Returns all cases of the table.
pub fn kubeconfig_cases() -> Vec<KubeconfigCase> {
    [files(), authorities(), clusters(), users(), certificates(), plugins(), contexts(), merged()].concat()
}

/// Returns a case with one file.
fn single(name: &'static str, text: impl Into<String>, outcome: &'static str) -> KubeconfigCase {
    KubeconfigCase { name, files: vec![("config", text.into())], context: None, outcome, leaderrun_outcome: None }
}

impl KubeconfigCase {
    /// Chooses a context, as with `--context`.
    fn with_context(self, context: &'static str) -> Self {
        Self { context: Some(context), ..self }
    }

    /// Sets leaderrun's outcome, which differs from kubectl's on purpose, and the reason.
    fn but_leaderrun(self, outcome: &'static str, why: &'static str) -> Self {
        Self { leaderrun_outcome: Some((outcome, why)), ..self }
    }
}

/// Returns a kubeconfig whose cluster, user and context have these fields.
fn config(cluster: &str, user: &str, context: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {cluster}\nusers:\n- name: u\n  user: {user}\n\
         contexts:\n- name: x\n  context: {context}\ncurrent-context: x\n"
    )
}

/// Returns a kubeconfig in the usual form.
fn plain() -> String {
    config(CLUSTER, USER, CONTEXT)
}

/// Returns a case whose cluster has these fields.
fn cluster(name: &'static str, text: &str, outcome: &'static str) -> KubeconfigCase {
    single(name, config(text, USER, CONTEXT), outcome)
}

/// Returns a case whose user has these fields.
fn user(name: &'static str, text: &str, outcome: &'static str) -> KubeconfigCase {
    single(name, config(CLUSTER, text, CONTEXT), outcome)
}

/// Returns a case whose context has these fields.
fn context(name: &'static str, text: &str, outcome: &'static str) -> KubeconfigCase {
    single(name, config(CLUSTER, USER, text), outcome)
}

/// Returns a case whose files are merged.
fn several_files<const N: usize>(
    name: &'static str,
    files: [(&'static str, String); N],
    outcome: &'static str,
) -> KubeconfigCase {
    KubeconfigCase { files: files.to_vec(), ..single(name, "", outcome) }
}

/// Returns the cases for the file as a whole.
fn files() -> Vec<KubeconfigCase> {
    let json = concat!(
        r#"{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":"#,
        r#"{"server":"$HTTPS","certificate-authority-data":"$CA"}}],"users":[{"name":"u","user":{"token":"secret"}}],"#,
        r#""contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"current-context":"x"}"#
    );
    let with_cluster = |text: &str| plain().replace(&format!("cluster: {CLUSTER}"), text);
    vec![
        single("plain", plain(), BY_TOKEN),
        single("CRLF", plain().replace('\n', "\r\n"), BY_TOKEN),
        single("byte order mark", format!("\u{feff}{}", plain()), BY_TOKEN),
        single("document markers", format!("---\n{}...\n", plain()), BY_TOKEN),
        single("comments", format!("# comment\n\n{}# end", plain()), BY_TOKEN),
        single("a YAML directive", format!("%YAML 1.1\n---\n{}", plain()), BY_TOKEN),
        single("a second document", format!("{}---\nkind: Other\n", plain()), BY_TOKEN),
        single("text after the end of the document", format!("{}...\n{{{{ text", plain()), BY_TOKEN),
        single("null in the lists", plain().replace("users:", "- null\nusers:\n- null"), BY_TOKEN),
        single("an empty document first", format!("---\n---\n{}", plain()), REFUSED),
        single("JSON", json, BY_TOKEN),
        single("JSON with tabs", json.replace('{', "{\n\t\t").replace(',', ",\n\t"), BY_TOKEN),
        single("JSON with CRLF", json.replace(',', ",\r\n"), BY_TOKEN),
        single("no kind or version", plain().replace("apiVersion: v1\nkind: Config\n", ""), BY_TOKEN),
        single("empty kind and version", plain().replace(": v1", ": ''").replace(": Config", ": ''"), BY_TOKEN),
        single("null kind and version", plain().replace(": v1", ": null").replace(": Config", ":"), BY_TOKEN),
        single("another kind", plain().replace("kind: Config", "kind: Pod"), REFUSED),
        single("another version", plain().replace("apiVersion: v1", "apiVersion: v2"), REFUSED),
        single("preferences", format!("{}preferences: {{colors: true}}\n", plain()), BY_TOKEN),
        single(
            "null preferences and extensions",
            format!("{}preferences: null\nextensions: null\n", plain()),
            BY_TOKEN,
        ),
        single("an extension", format!("{}extensions: [{{name: e, extension: {{a: 1}}}}]\n", plain()), BY_TOKEN),
        single("unknown fields", format!("{}x-unknown: {{a: [1, 2]}}\n", plain()), BY_TOKEN),
        single("a duplicate key", format!("current-context: other\n{}", plain()), BY_TOKEN),
        single("an anchor", with_cluster(&format!("cluster: &a {CLUSTER}")), BY_TOKEN),
        single("an alias", format!("x-a: &a {CLUSTER}\n{}", with_cluster("cluster: *a")), BY_TOKEN),
        single(
            "a merge key",
            format!("x-a: &a {CLUSTER}\n{}", with_cluster("cluster: {<<: *a, color: red}")),
            BY_TOKEN,
        ),
        single(
            "a merge key before the explicit server",
            format!("{ANCHOR_B}{}", with_cluster("cluster: {<<: *b, server: '$HTTPS'}")),
            BY_TOKEN,
        ),
        single(
            "a merge key that replaces the server",
            format!("{ANCHOR_B}{}", with_cluster("cluster: {server: '$HTTPS', <<: *b}")),
            REFUSED,
        ),
        single(
            "a merge key that replaces a wrong server",
            format!("x-a: &a {CLUSTER}\n{}", with_cluster("cluster: {server: 'https://127.0.0.1:1', <<: *a}")),
            BY_TOKEN,
        )
        .but_leaderrun(REFUSED, MERGE_KEY),
        single(
            "a merge key after another key",
            format!("x-a: &a {CLUSTER}\n{}", with_cluster("cluster: {color: red, <<: *a}")),
            BY_TOKEN,
        ),
        single("hundreds of aliases", one_user_with_hundreds_of_names(), BY_TOKEN),
        single("a number that is too large", format!("x-n: 1e400\n{}", plain()), BY_TOKEN),
        single("an infinite number", format!("x-n: .inf\n{}", plain()), REFUSED).but_leaderrun(BY_TOKEN, UNUSED_FIELD),
        single(
            "a line break that only YAML 1.1 recognizes (NEL)",
            plain().replace("\ncurrent-", "\n\u{85}current-"),
            BY_TOKEN,
        ),
        single("text after JSON", format!("{json}}}"), BY_TOKEN).but_leaderrun(REFUSED, MIXED_FILES),
        single("a file that is too large", format!("{}# {}\n", plain(), "x".repeat(16 << 20)), BY_TOKEN)
            .but_leaderrun(REFUSED, LIMITS),
        single("nested lists", format!("x-l: {}{}\n{}", "[".repeat(60), "]".repeat(60), plain()), BY_TOKEN),
        single("too deeply nested lists", format!("x-l: {}{}\n{}", "[".repeat(80), "]".repeat(80), plain()), BY_TOKEN)
            .but_leaderrun(REFUSED, LIMITS),
        single("an unknown alias", with_cluster("cluster: *nobody"), REFUSED),
        single("broken YAML", "apiVersion: v1\nclusters: [\n", REFUSED),
        single("a list", "- a\n", REFUSED),
        single("a word", "word\n", REFUSED),
        single("a tab as indentation", plain().replace("  cluster: {", "\tcluster: {"), REFUSED),
        single("binary", "\u{0}\u{1}\u{2}", REFUSED),
        single("a map of clusters", plain().replace("- name: c\n", "  name: c\n"), REFUSED),
        single(
            "a duplicate cluster",
            plain().replace("users:", &format!("- name: c\n  cluster: {CLUSTER}\nusers:")),
            REFUSED,
        ),
        single(
            "a duplicate user",
            plain().replace("contexts:", "- name: u\n  user: {token: other}\ncontexts:"),
            REFUSED,
        ),
        single(
            "a duplicate context",
            plain().replace("current-", "- name: x\n  context: {user: u}\ncurrent-"),
            REFUSED,
        ),
        single("quoted keys", plain().replace("name: c", "\"name\": \"c\""), BY_TOKEN),
        single("a capitalized key", plain().replace("server:", "Server:"), REFUSED),
        single("a block scalar", plain().replace("-context: x", "-context: |-\n  x"), BY_TOKEN),
        single("a folded scalar", plain().replace("-context: x", "-context: >-\n  x"), BY_TOKEN),
        single("a newline in a name", plain().replace("-context: x", "-context: |\n  x"), REFUSED),
    ]
}

/// Returns a kubeconfig in which hundreds of names refer to the same user through a YAML alias.
fn one_user_with_hundreds_of_names() -> String {
    let users = (0..300).map(|number| format!("- name: u{number}\n  user: *u\n")).collect::<String>();
    plain().replace("  user: {token", "  user: &u {token").replace("contexts:", &format!("{users}contexts:"))
}

/// Returns the cases for the cluster's certificate authority.
fn authorities() -> Vec<KubeconfigCase> {
    let data = |data: &str| format!("\n    server: $HTTPS\n    certificate-authority-data: {data}");
    let file = |rest: &str| format!("{{server: '$HTTPS', certificate-authority: {rest}}}");
    vec![
        cluster("CA wrapped over several lines", &data("|\n$WRAPPED_CA"), BY_TOKEN),
        cluster("CA folded", &data(">\n$WRAPPED_CA"), REFUSED).but_leaderrun(BY_TOKEN, WHITESPACE),
        cluster("CA quoted with newlines", &data("\"$ESCAPED_CA\""), BY_TOKEN),
        cluster("CA with spaces around it", &data("' $CA '"), REFUSED).but_leaderrun(BY_TOKEN, WHITESPACE),
        cluster("text between two CAs", &data("$TWO_CAS"), BY_TOKEN),
        cluster("a bad CA before a good one", &data("$BAD_THEN_GOOD_CA"), BY_TOKEN),
        cluster("no certificate in the CA", &data("$NOT_A_CERTIFICATE"), REFUSED),
        cluster("CA is not base64", &data("'%%%'"), REFUSED),
        cluster("CA in a file", &file("$DIR/ca.crt"), BY_TOKEN),
        cluster("CA in a file beside the kubeconfig", &file("ca.crt"), BY_TOKEN),
        cluster("CA in a path with ./", &file("./ca.crt"), BY_TOKEN),
        cluster("CA in a path with ..", &file("sub/../ca.crt"), BY_TOKEN),
        cluster("CA in a path with .. after a missing directory", &file("none/../ca.crt"), BY_TOKEN),
        cluster("CA file with empty data", &file("ca.crt, certificate-authority-data: ''"), BY_TOKEN),
        cluster("CA file with null data", &file("ca.crt, certificate-authority-data: null"), BY_TOKEN),
        cluster("empty CA file with data", &file("'', certificate-authority-data: $CA"), BY_TOKEN),
        cluster("missing CA file with data", &file("none, certificate-authority-data: $CA"), REFUSED)
            .but_leaderrun(BY_TOKEN, DATA_TAKES_PRECEDENCE),
        cluster("CA file is missing", &file("none"), REFUSED),
        cluster("CA file is empty", &file("empty"), REFUSED),
        cluster("CA file is a directory", &file("$DIR"), REFUSED),
        cluster("no CA", "{server: '$HTTPS'}", REFUSED),
        cluster("empty CA", &file("'', certificate-authority-data: ''"), REFUSED),
        cluster("insecure", "{server: '$HTTPS', insecure-skip-tls-verify: true}", BY_TOKEN),
        cluster("insecure: yes", "{server: '$HTTPS', insecure-skip-tls-verify: yes}", BY_TOKEN),
        cluster("insecure: on", "{server: '$HTTPS', insecure-skip-tls-verify: on}", BY_TOKEN),
        cluster("insecure: True", "{server: '$HTTPS', insecure-skip-tls-verify: True}", BY_TOKEN),
        cluster("insecure in quotes", "{server: '$HTTPS', insecure-skip-tls-verify: 'true'}", REFUSED)
            .but_leaderrun(BY_TOKEN, QUOTED_BOOLEAN),
        cluster("insecure: null", &file("ca.crt, insecure-skip-tls-verify: null"), BY_TOKEN),
        cluster("insecure: false", &file("ca.crt, insecure-skip-tls-verify: false"), BY_TOKEN),
        cluster(
            "insecure with a CA, without TLS",
            "{server: '$HTTP', certificate-authority: ca.crt, insecure-skip-tls-verify: true}",
            ANONYMOUS_WITHOUT_TLS,
        )
        .but_leaderrun(BY_TOKEN_WITHOUT_TLS, CREDENTIALS_WITHOUT_TLS),
        cluster("insecure with a CA", &file("ca.crt, insecure-skip-tls-verify: true"), REFUSED),
        cluster("tls-server-name", &file("ca.crt, tls-server-name: localhost"), BY_TOKEN_TO_LOCALHOST),
        cluster("tls-server-name is wrong", &file("ca.crt, tls-server-name: other"), REFUSED),
        cluster("tls-server-name is an address in brackets", &file("ca.crt, tls-server-name: '[127.0.0.1]'"), BY_TOKEN),
        cluster("tls-server-name is empty", &file("ca.crt, tls-server-name: ''"), BY_TOKEN),
        cluster(
            "insecure with tls-server-name",
            "{server: '$HTTPS', insecure-skip-tls-verify: true, tls-server-name: a.b}",
            "https with server name a.b as secret in default",
        ),
    ]
}

/// Returns the cases for the cluster's other fields.
fn clusters() -> Vec<KubeconfigCase> {
    let server = |server: &str| format!("{{server: {server}, certificate-authority-data: $CA}}");
    let with = |extra: &str| format!("{{server: '$HTTPS', certificate-authority-data: $CA, {extra}}}");
    vec![
        cluster("server by name", &server("'https://localhost:$TLS_PORT'"), BY_TOKEN_TO_LOCALHOST),
        cluster("server by name, in capitals", &server("'https://LOCALHOST:$TLS_PORT'"), BY_TOKEN_TO_LOCALHOST),
        cluster("server with a slash", &server("'$HTTPS/'"), BY_TOKEN),
        cluster(
            "server with a path",
            &server("'$HTTPS/k8s/clusters/c-1'"),
            "https/k8s/clusters/c-1 as secret in default",
        ),
        cluster("server with a path and a slash", &server("'$HTTPS/k8s/'"), "https/k8s as secret in default"),
        cluster(
            "server with dots and slashes",
            &server("'$HTTPS//k8s/../a/./b//c'"),
            "https/a/b/c as secret in default",
        ),
        cluster("server with escapes", &server("'$HTTPS/a%2Fb(%2B)'"), "https/a/b%28+%29 as secret in default"),
        cluster("server with a broken escape", &server("'$HTTPS/a%zz'"), REFUSED),
        cluster("server with an IPv6 address without brackets", &server("'https://::1:1'"), REFUSED),
        cluster("server with a query", &server("'$HTTPS/k8s?a=b#c'"), "https/k8s as secret in default"),
        cluster("server with spaces around it", &server("' $HTTPS '"), REFUSED).but_leaderrun(BY_TOKEN, WHITESPACE),
        cluster("server with a space at the end", &server("'$HTTPS '"), REFUSED).but_leaderrun(BY_TOKEN, WHITESPACE),
        cluster(
            "server with a space in its path",
            &server("'$HTTPS/my prefix'"),
            "https/my%20prefix as secret in default",
        ),
        cluster("server as an IPv4-mapped IPv6 address", &server("'https://[::ffff:127.0.0.1]:$TLS_PORT'"), BY_TOKEN),
        cluster("server with a sign before its port", &server("'https://127.0.0.1:+$TLS_PORT'"), REFUSED),
        cluster(
            "server with a user name and a password",
            &server("'https://me:p%40ss@$TLS_ADDRESS'"),
            "https as basic me:p@ss in default",
        ),
        cluster("server with a scheme in capitals", &server("'HTTPS://$TLS_ADDRESS'"), BY_TOKEN),
        cluster("server without a scheme", "{server: '$ADDRESS'}", ANONYMOUS_WITHOUT_TLS),
        cluster("server without a scheme, with a CA", &server("'$ADDRESS'"), ANONYMOUS_WITHOUT_TLS),
        cluster("server without a scheme, with a path", "{server: '$ADDRESS/k8s'}", REFUSED),
        cluster("server with one slash", "{server: 'https:/$TLS_ADDRESS'}", REFUSED),
        cluster("server with three slashes", "{server: 'https:///$TLS_ADDRESS'}", REFUSED),
        cluster("server without TLS", "{server: '$HTTP'}", ANONYMOUS_WITHOUT_TLS)
            .but_leaderrun(BY_TOKEN_WITHOUT_TLS, CREDENTIALS_WITHOUT_TLS),
        cluster("server without TLS, with a CA", &server("'$HTTP'"), ANONYMOUS_WITHOUT_TLS)
            .but_leaderrun(BY_TOKEN_WITHOUT_TLS, CREDENTIALS_WITHOUT_TLS),
        cluster("server with another scheme", &server("'ftp://$ADDRESS'"), REFUSED),
        cluster("server is empty", &server("''"), REFUSED),
        cluster("server is null", &server("null"), REFUSED),
        cluster("no server", "{certificate-authority-data: $CA}", REFUSED),
        cluster("an empty cluster", "{}", REFUSED),
        cluster("a null cluster", "null", REFUSED),
        cluster("server is a number", &server("1"), REFUSED),
        cluster("disable-compression", &with("disable-compression: true"), BY_TOKEN),
        cluster("a cluster's extensions", &with("extensions: [{name: e, extension: {a: b}}]"), BY_TOKEN),
        cluster("null extensions", &with("extensions: null"), BY_TOKEN),
        cluster("unknown field of a cluster", &with("api-version: v1"), BY_TOKEN),
        cluster("proxy-url is empty", &with("proxy-url: ''"), BY_TOKEN),
        cluster("proxy-url with an unknown scheme", &with("proxy-url: 'ftp://proxy'"), REFUSED),
        cluster("proxy-url of an unreachable proxy", &with("proxy-url: 'http://127.0.0.1:1'"), REFUSED),
    ]
}

/// Returns the cases for contexts and for names.
fn contexts() -> Vec<KubeconfigCase> {
    let other = "- name: second\n  context: {cluster: c, user: u, namespace: other}\ncurrent-context: x";
    let two = plain().replace("current-context: x", other);
    let with_user_named = |name: &str| {
        plain().replace("name: u", &format!("name: {name}")).replace("user: u}", &format!("user: {name}}}"))
    };
    let in_other = "https as secret in other";
    vec![
        context("namespace", "{cluster: c, user: u, namespace: ns}", "https as secret in ns"),
        context("empty namespace", "{cluster: c, user: u, namespace: ''}", BY_TOKEN),
        context("null namespace", "{cluster: c, user: u, namespace: null}", BY_TOKEN),
        context("namespace that is a number", "{cluster: c, user: u, namespace: 1}", REFUSED)
            .but_leaderrun("https as secret in 1", INFERRED_TYPE),
        context("no user", "{cluster: c}", REFUSED).but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
        context("empty user", "{cluster: c, user: ''}", REFUSED).but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
        context("unknown user", "{cluster: c, user: nobody}", REFUSED),
        context("unknown cluster", "{cluster: none, user: u}", REFUSED),
        context("no cluster", "{user: u}", REFUSED),
        context("unknown field of a context", "{cluster: c, user: u, color: red}", BY_TOKEN),
        single("no current context", plain().replace("current-context: x\n", ""), REFUSED),
        single("empty current context", plain().replace("current-context: x", "current-context: ''"), REFUSED),
        single("unknown current context", plain().replace("current-context: x", "current-context: z"), REFUSED),
        single("chosen context", two.clone(), in_other).with_context("second"),
        single(
            "chosen context although the current one is unknown",
            two.replace("-context: x", "-context: z"),
            in_other,
        )
        .with_context("second"),
        single("chosen context is unknown", two.clone(), REFUSED).with_context("z"),
        single("empty chosen context", two, BY_TOKEN).with_context(""),
        single("a number as the name of the user", with_user_named("123"), REFUSED)
            .but_leaderrun(BY_TOKEN, INFERRED_TYPE),
        single("name of the user with a space", with_user_named("a user"), BY_TOKEN),
        single("name of the user with spaces around it", with_user_named("' u '"), BY_TOKEN),
        context("a space only in the reference to the cluster", "{cluster: 'c ', user: u}", REFUSED),
        context("a space only in the reference to the user", "{cluster: c, user: ' u'}", REFUSED),
        single("empty name of the user", with_user_named("''"), BY_TOKEN),
        single("an empty context name", plain().replace(": x\n", ": ''\n"), BY_TOKEN),
        single("no context name", plain().replace("name: x\n ", "").replace("current-context: x\n", ""), BY_TOKEN),
        single("name of the user with @ and /", with_user_named("'a@b/c'"), BY_TOKEN),
    ]
}

/// Returns the cases with several files, which are merged.
fn merged() -> Vec<KubeconfigCase> {
    let users = |user: &str| format!("users: [{{name: u, user: {user}}}]\n");
    let current = || "current-context: x\n".to_owned();
    let with_current = |name: &str| plain().replace("current-context: x", &format!("current-context: {name}"));
    let not_written = || NOT_WRITTEN.to_owned();
    vec![
        several_files("an empty file first", [("first", String::new()), ("config", plain())], BY_TOKEN),
        several_files(
            "empty entries in KUBECONFIG",
            [("", not_written()), ("config", plain()), ("", not_written())],
            BY_TOKEN,
        ),
        several_files("a missing file first", [("none", not_written()), ("config", plain())], BY_TOKEN),
        several_files("a missing file last", [("config", plain()), ("none", not_written())], BY_TOKEN),
        several_files("only missing files", [("none", not_written()), ("none2", not_written())], REFUSED),
        several_files("the same file twice", [("config", plain()), ("config", plain())], BY_TOKEN),
        several_files("a directory in the list", [(".", not_written()), ("config", plain())], REFUSED),
        several_files("a broken file last", [("config", plain()), ("broken", "a: [".to_owned())], REFUSED),
        several_files(
            "the first user takes precedence",
            [("first", users("{token: other}")), ("config", plain())],
            "https as other in default",
        ),
        several_files("the last user is ignored", [("config", plain()), ("last", users("{token: other}"))], BY_TOKEN),
        several_files(
            "entries are not mixed",
            [("first", users("{username: me}")), ("config", plain())],
            "https as basic me: in default",
        ),
        several_files(
            "current context from the second file",
            [("first", with_current("''")), ("second", current())],
            BY_TOKEN,
        ),
        several_files(
            "the first current context takes precedence",
            [("first", current()), ("second", with_current("z"))],
            BY_TOKEN,
        ),
        several_files(
            "three parts",
            [
                ("first", users(USER)),
                ("second", format!("clusters: [{{name: c, cluster: {CLUSTER}}}]\n")),
                ("third", format!("contexts: [{{name: x, context: {CONTEXT}}}]\n{}", current())),
            ],
            BY_TOKEN,
        ),
        several_files(
            "a path relative to its own file",
            [("sub/first", users("{tokenFile: ../token}")), ("config", plain())],
            "https as from-file in default",
        ),
        several_files("a null user first", [("first", users("null")), ("config", plain())], REFUSED)
            .but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
    ]
}
