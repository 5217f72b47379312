//! The log events of the connection to the API server.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged for each line that a slow credential plugin writes to stderr, because the line may say what the
    /// plugin is waiting for.
    info plugin_message(plugin: &str; message: &str) "the credential plugin {plugin} says: {message}";

    /// Logged when leaderrun still uses the previous credentials, because it cannot obtain new ones or the new ones do
    /// not work.
    warn credentials_not_renewed(; reason: &str) "still using the previous credentials: {reason}";

    /// Logged when new credentials replace the previous ones.
    debug credentials_renewed(; origin: &str) "using new credentials from {origin}";

    /// Logged when the kubeconfig now names another server. leaderrun uses the previous server until it is
    /// restarted.
    warn server_changed(server: &str, changed_to: &str)
        "the kubeconfig now names the server {changed_to}; leaderrun uses {server} until it is restarted";
}
