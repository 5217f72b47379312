//! The log events of the connection to the API server.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when a slow credential plugin writes a line to stderr, which may say what the plugin is waiting for.
    info plugin_message(plugin: &str; message: &str) "the credential plugin {plugin} says: {message}";

    /// Logged when new credentials cannot be obtained and the previous ones are still used.
    warn credentials_not_renewed(; reason: &str) "still using the previous credentials: {reason}";

    /// Logged when new credentials replace the previous ones.
    debug credentials_renewed(; origin: &str) "using new credentials: {origin}";

    /// Logged when the kubeconfig now names another server. A lock is held on one server for as long as leaderrun runs.
    warn server_changed(server: &str, changed_to: &str)
        "the kubeconfig now names the server {changed_to}; still using {server}; restart leaderrun to change to it";
}
