//! The cases for users and their credentials.

use super::*;

/// Returns the cases for users.
pub(super) fn users() -> Vec<KubeconfigCase> {
    let from_file = "https as from-file in default";
    let impersonating = "https as secret,user=jane in default";
    vec![
        user("token with a newline", "\n    token: |\n      secret", REFUSED).but_leaderrun(BY_TOKEN, WHITESPACE),
        user("token with spaces around it", "{token: ' secret '}", "https as  secret in default")
            .but_leaderrun(BY_TOKEN, WHITESPACE),
        user("token that is a number", "{token: 123}", REFUSED).but_leaderrun("https as 123 in default", INFERRED_TYPE),
        user("token file", "{tokenFile: $DIR/token}", from_file),
        user("token file beside the kubeconfig", "{tokenFile: token}", from_file),
        user("token with a file", "{token: secret, tokenFile: token}", from_file),
        user("token with a missing file", "{token: secret, tokenFile: none}", BY_TOKEN),
        user("token with an empty file", "{token: secret, tokenFile: empty}", BY_TOKEN),
        user("missing token file", "{tokenFile: none}", REFUSED),
        user("empty token file", "{tokenFile: empty}", REFUSED),
        user("empty token with a file", "{token: '', tokenFile: token}", from_file),
        user("null token with a file", "{token: null, tokenFile: token}", from_file),
        user("token with an empty file name", "{token: secret, tokenFile: ''}", BY_TOKEN),
        user(
            "token with the other fields empty",
            "{token: secret, username: '', password: '', client-key-data: ''}",
            BY_TOKEN,
        ),
        user(
            "token with an empty certificate",
            "{token: secret, client-certificate-data: '', client-key: ''}",
            BY_TOKEN,
        ),
        user(
            "token with the other fields null",
            "{token: secret, auth-provider: null, exec: null, as-groups: null}",
            BY_TOKEN,
        ),
        user("basic", "{username: me, password: pw}", "https as basic me:pw in default"),
        user("basic without a password", "{username: me}", "https as basic me: in default"),
        user("basic with a colon", "{username: me, password: 'p:w'}", "https as basic me:p:w in default"),
        user("basic and a token", "{username: me, password: pw, token: secret}", REFUSED),
        user("basic and a token file", "{username: me, password: pw, tokenFile: token}", REFUSED),
        user("impersonation", "{token: secret, as: jane}", impersonating),
        user(
            "impersonation with groups",
            "{token: secret, as: jane, as-groups: [a]}",
            "https as secret,group=a,user=jane in default",
        ),
        user(
            "impersonation with a uid",
            "{token: secret, as: jane, as-uid: '7'}",
            "https as secret,uid=7,user=jane in default",
        ),
        user(
            "impersonation with an extra field",
            "{token: secret, as: jane, as-user-extra: {Reason/b: [c]}}",
            "https as secret,extra-reason%2fb=c,user=jane in default",
        ),
        // The recording server keeps only the last of several headers with the same name.
        user(
            "impersonation with a null list and a list of two",
            "{token: secret, as: jane, as-user-extra: {a: null, example.com/b: [c, d]}}",
            "https as secret,extra-example.com%2fb=d,user=jane in default",
        ),
        user(
            "impersonation with a null group",
            "{token: secret, as: jane, as-groups: [null]}",
            "https as secret,group=,user=jane in default",
        ),
        user(
            "impersonation with nulls",
            "{token: secret, as: jane, as-groups: null, as-user-extra: null}",
            impersonating,
        ),
        user("empty name of the impersonated user", "{token: secret, as: ''}", BY_TOKEN),
        user("groups without a user", "{token: secret, as-groups: [a]}", REFUSED),
        user("uid without a user", "{token: secret, as-uid: '7'}", REFUSED),
        user("a user without fields", "{}", REFUSED).but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
        user("a null user", "null", REFUSED).but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
        user("unknown field of a user", "{token: secret, color: red}", BY_TOKEN),
        user("a user's extensions", "{token: secret, extensions: []}", BY_TOKEN),
        user(
            "OpenID Connect token",
            &oidc("eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln"),
            "https as eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln in default",
        ),
        user("expired OpenID Connect token", &oidc("eyJhbGciOiJub25lIn0.eyJleHAiOjF9.c2ln"), REFUSED),
        user("OpenID Connect token that is not a JWT", &oidc("secret"), REFUSED),
        user("removed provider", "{auth-provider: {name: gcp}}", REFUSED),
        user("unknown provider", "{auth-provider: {name: none}}", REFUSED),
    ]
}

/// Returns the fields of a user with a token from an OpenID Connect provider.
fn oidc(id_token: &str) -> String {
    let config = format!("{{id-token: {id_token}, idp-issuer-url: 'https://127.0.0.1:1', client-id: c}}");
    format!("{{auth-provider: {{name: oidc, config: {config}}}}}")
}

/// Returns the cases for client certificates.
pub(super) fn certificates() -> Vec<KubeconfigCase> {
    let data = |rest: &str| format!("{{client-certificate-data: $CERT, client-key-data: $KEY{rest}}}");
    vec![
        user("certificate as data", &data(""), BY_CERTIFICATE),
        user("certificate in files", "{client-certificate: me.crt, client-key: me.key}", BY_CERTIFICATE),
        user(
            "certificate in a file, key as data",
            "{client-certificate: me.crt, client-key-data: $KEY}",
            BY_CERTIFICATE,
        ),
        user(
            "certificate and key in the same PEM text",
            "{client-certificate-data: $KEY_AND_CERT, client-key-data: $KEY_AND_CERT}",
            BY_CERTIFICATE,
        ),
        user("certificate and a token", &data(", token: secret"), "https as certified,secret in default"),
        user("certificate data with empty files", &data(", client-certificate: '', client-key: ''"), BY_CERTIFICATE),
        user("certificate data with missing files", &data(", client-certificate: none, client-key: none"), REFUSED)
            .but_leaderrun(BY_CERTIFICATE, DATA_TAKES_PRECEDENCE),
        user("certificate without a key", "{client-certificate: me.crt}", REFUSED),
        user("key without a certificate", "{client-key: me.key}", REFUSED).but_leaderrun(ANONYMOUS, KUBECTL_ASKS),
        user(
            "certificate that does not match the key",
            "{client-certificate-data: $CERT, client-key-data: $OTHER_KEY}",
            REFUSED,
        ),
        user(
            "no certificate in the data",
            "{client-certificate-data: $NOT_A_CERTIFICATE, client-key-data: $KEY}",
            REFUSED,
        ),
        user("no key in the data", "{client-certificate-data: $CERT, client-key-data: $NOT_A_CERTIFICATE}", REFUSED),
        user("certificate file is missing", "{client-certificate: none, client-key: me.key}", REFUSED),
        user("key file is missing", "{client-certificate: me.crt, client-key: none}", REFUSED),
    ]
}

/// Returns the cases for credential plugins.
pub(super) fn plugins() -> Vec<KubeconfigCase> {
    const V1BETA1: &str = "apiVersion: client.authentication.k8s.io/v1beta1";
    let plugin = |rest: &str| format!("{{exec: {{command: ./plugin, {rest}}}}}");
    let beta = |rest: &str| plugin(&format!("{V1BETA1}{rest}"));
    vec![
        user("plugin", &beta(""), BY_PLUGIN),
        user(
            "plugin path with .. after a missing directory",
            &beta("").replace("./plugin", "none/../plugin"),
            BY_PLUGIN,
        ),
        user("plugin with an absolute path", &beta("").replace("./plugin", "$DIR/plugin"), BY_PLUGIN),
        user(
            "plugin with nulls",
            &beta(", args: null, env: null, installHint: null, interactiveMode: null"),
            BY_PLUGIN,
        ),
        user("plugin that is never interactive", &beta(", interactiveMode: Never"), BY_PLUGIN),
        user("plugin that gets the cluster", &beta(", provideClusterInfo: true, installHint: x"), BY_PLUGIN),
        user("plugin with an unknown mode", &beta(", interactiveMode: Sometimes"), REFUSED),
        user("plugin with a null argument", &beta(", args: [null]"), BY_PLUGIN),
        user("plugin with variables", &beta(", args: [a], env: [{name: A, value: b}]"), BY_PLUGIN),
        user("plugin with a variable without a name", &beta(", env: [{value: x}]"), REFUSED),
        user("plugin without a version", &plugin("args: [a]"), REFUSED),
        user("plugin with an unknown version", &plugin("apiVersion: client.authentication.k8s.io/v9"), REFUSED),
        user("plugin v1 without a mode", &plugin("apiVersion: client.authentication.k8s.io/v1"), REFUSED),
        user("plugin without a command", &format!("{{exec: {{{V1BETA1}}}}}"), REFUSED),
        user("plugin that is missing", &beta("").replace("./plugin", "none-such"), REFUSED),
        user("plugin and a provider", &beta("").replace("{exec", "{auth-provider: {name: oidc}, exec"), REFUSED),
        user(
            "plugin and a certificate",
            &beta("").replace("{exec", "{client-certificate: me.crt, client-key: me.key, exec"),
            BY_CERTIFICATE,
        ),
        user("plugin and a token", &beta("").replace("{exec", "{token: secret, exec"), BY_TOKEN),
    ]
}
