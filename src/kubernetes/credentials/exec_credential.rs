//! The messages between leaderrun and a credential plugin. Their format is `ExecCredential` of
//! `client.authentication.k8s.io`.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::connection::{ConnectionConfig, ExecPlugin};
use super::super::kubeconfig::first_document;
use super::super::proxy::ProxyOrigin;

const KIND: &str = "ExecCredential";

/// The credentials from a plugin: a token, a client certificate, or both.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedCredentials {
    pub token: Option<String>,
    pub certificate: Option<IssuedCertificate>,
    pub expires: Option<Timestamp>,
}

/// A client certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    pub certificate: String,
    pub key: String,
}

/// Formats the credentials without secrets.
impl fmt::Debug for IssuedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCredentials").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Returns the value of the variable `KUBERNETES_EXEC_INFO` for the plugin. `authority` is the certificate authority of
/// the cluster, as PEM; `interactive` states whether the plugin may use the terminal.
pub fn exec_info(
    plugin: &ExecPlugin,
    config: &ConnectionConfig,
    authority: Option<&[u8]>,
    interactive: bool,
) -> String {
    let mut spec = json!({ "interactive": interactive });
    if plugin.provide_cluster_info {
        let server = config.server.to_string();
        let mut cluster = json!({ "server": server.trim_end_matches('/') });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                cluster[name] = value;
            }
        };
        set("tls-server-name", config.tls.server_name.clone().map(Value::from));
        set("insecure-skip-tls-verify", config.tls.insecure.then_some(Value::Bool(true)));
        set("certificate-authority-data", authority.map(|pem| BASE64_STANDARD.encode(pem).into()));
        // As in client-go, a proxy from the environment is omitted, because the plugin has the same environment.
        let proxy = config.proxy.as_ref().filter(|proxy| proxy.origin == ProxyOrigin::Kubeconfig);
        set("proxy-url", proxy.map(|proxy| proxy.url().into()));
        set("config", plugin.cluster_config.clone());
        spec["cluster"] = cluster;
    }
    json!({ "kind": KIND, "apiVersion": plugin.version.api_version(), "spec": spec }).to_string()
}

/// Parses the output of a plugin.
///
/// # Errors
/// Fails if the output contains no credentials, or is not in the format that the kubeconfig requires. The error is a
/// predicate whose subject is the plugin, such as `printed nothing`.
pub fn parse(plugin: &ExecPlugin, output: &[u8]) -> Result<IssuedCredentials, String> {
    if output.trim_ascii().is_empty() {
        return Err("printed nothing".to_owned());
    }
    // JSON is YAML, but the parser for JSON has better error messages.
    let printed: Result<ExecCredential, String> = match output.trim_ascii_start().first() {
        // A Value is parsed first because it accepts duplicate keys. The last of them counts, as in Go.
        Some(b'{') => serde_json::from_slice::<Value>(output)
            .and_then(serde_json::from_value)
            .map_err(|failure| failure.to_string()),
        _ => serde_saphyr::from_str(first_document(&String::from_utf8_lossy(output)))
            .map_err(|_| "the output is not JSON".to_owned()),
    };
    let ExecCredential { api_version, kind, status } =
        printed.map_err(|reason| format!("did not print an {KIND}: {reason}"))?;
    if !["", KIND].contains(&kind.as_str()) {
        return Err(format!("did not print an {KIND}: the output has kind {kind:?}"));
    }
    let configured_version = plugin.version.api_version();
    if api_version != configured_version {
        let printed_version = if api_version.is_empty() { "no apiVersion" } else { &api_version };
        return Err(format!(
            "printed an {KIND} with {printed_version}, but the kubeconfig requires {configured_version}"
        ));
    }
    let Some(status) = status else { return Err(format!("printed an {KIND} without a status")) };
    let unless_blank = |field: Option<String>| field.filter(|text| !text.trim().is_empty());
    let certificate = match (unless_blank(status.client_certificate_data), unless_blank(status.client_key_data)) {
        (Some(certificate), Some(key)) => Some(IssuedCertificate { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err("printed clientCertificateData without clientKeyData".to_owned()),
        (None, Some(_)) => return Err("printed clientKeyData without clientCertificateData".to_owned()),
    };
    let token = unless_blank(status.token).map(|token| token.trim().to_owned());
    if token.is_none() && certificate.is_none() {
        return Err(format!("printed an {KIND} with neither a token nor a client certificate"));
    }
    let expires = unless_blank(status.expiration_timestamp);
    let expires = expires.map(|time| match time.trim() {
        // An expiry in the last days of the year 9999 means "never". jiff cannot represent all of those days.
        time if time.starts_with("9999-12-3") => Ok(Timestamp::MAX),
        time => time.parse().map_err(|_| format!("printed an expirationTimestamp that is not a time: {time:?}")),
    });
    Ok(IssuedCredentials { token, certificate, expires: expires.transpose()? })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::super::connection::{InteractiveMode, PluginVersion};
    use super::*;

    const VERSION: PluginVersion = PluginVersion::V1Beta1;

    fn plugin() -> ExecPlugin {
        ExecPlugin {
            command: "plugin".into(),
            args: Vec::new(),
            env: Vec::new(),
            version: VERSION,
            interactive_mode: InteractiveMode::Never,
            install_hint: None,
            provide_cluster_info: false,
            cluster_config: None,
        }
    }

    fn parsed(status: &str) -> Result<IssuedCredentials, String> {
        let printed =
            format!(r#"{{"apiVersion":"{}","kind":"ExecCredential","status":{status}}}"#, VERSION.api_version());
        parse(&plugin(), printed.as_bytes())
    }

    #[test]
    fn a_token_and_a_client_certificate_are_parsed() {
        let token = parsed(r#"{"token":" abc\n","expirationTimestamp":"2026-01-02T03:04:05Z"}"#).unwrap();
        assert_eq!(token.token.as_deref(), Some("abc"));
        assert_eq!(token.expires, Some("2026-01-02T03:04:05Z".parse().unwrap()));
        let certificate = parsed(r#"{"clientCertificateData":"c","clientKeyData":"k"}"#).unwrap();
        assert_eq!((certificate.token, certificate.expires), (None, None));
        let issued = certificate.certificate.unwrap();
        assert_eq!((issued.certificate.as_str(), issued.key.as_str()), ("c", "k"));
    }

    #[test]
    fn an_expiry_in_the_last_days_of_the_year_9999_means_never() {
        let forever = parsed(r#"{"token":"abc","expirationTimestamp":"9999-12-31T23:59:59Z"}"#).unwrap();
        assert_eq!(forever.expires, Some(Timestamp::MAX));
    }

    #[test]
    fn credentials_are_parsed_from_yaml_too() {
        let version = VERSION.api_version();
        let printed = format!("apiVersion: {version}\nkind: ExecCredential\nstatus:\n  token: abc\n---\nmore\n");
        assert_eq!(parse(&plugin(), printed.as_bytes()).unwrap().token.as_deref(), Some("abc"));
    }

    #[test]
    fn invalid_credentials_are_refused_with_the_reason() {
        for (status, reason) in [
            ("null", "printed an ExecCredential without a status"),
            ("{}", "printed an ExecCredential with neither a token nor a client certificate"),
            (r#"{"token":""}"#, "printed an ExecCredential with neither a token nor a client certificate"),
            (r#"{"clientCertificateData":"c"}"#, "printed clientCertificateData without clientKeyData"),
            (r#"{"token":"a","clientKeyData":"k"}"#, "printed clientKeyData without clientCertificateData"),
            (
                r#"{"token":"a","expirationTimestamp":"soon"}"#,
                "printed an expirationTimestamp that is not a time: \"soon\"",
            ),
        ] {
            assert_eq!(parsed(status).unwrap_err(), reason, "{status}");
        }
        let other = format!(r#"{{"apiVersion":"{}","kind":"ExecCredential"}}"#, PluginVersion::V1.api_version());
        let refusal = parse(&plugin(), other.as_bytes()).unwrap_err();
        assert!(refusal.starts_with("printed an ExecCredential with client.authentication.k8s.io/v1,"), "{refusal}");
        assert_eq!(parse(&plugin(), b" \n").unwrap_err(), "printed nothing");
    }
}
