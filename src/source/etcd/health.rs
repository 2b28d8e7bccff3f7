//! The health of etcd, for operators; the watch does not depend on it.

use super::client::Account;
use super::machine::Fault;
use crate::store::{ErrorKind, SourceReport};

const IDLE_CREDENTIALS: &str = "etcd's authentication is off: the user and the password are not used, and anybody who \
                                reaches etcd may change the configuration. `etcdctl auth enable` switches it on";

/// The latest known health, possibly from an earlier connection. Each change is logged.
#[derive(Debug, Default)]
pub(super) struct Health {
    version: Option<String>,
    errors: Vec<String>,
    idle_credentials: bool,
    /// Why the configuration has no webhooks, if it has none.
    without_webhooks: Option<String>,
}

impl Health {
    /// Takes a member's account. Returns whether there is something new to show.
    pub(super) fn take_account(&mut self, account: Result<Account, Fault>) -> bool {
        let (version, errors) = match account {
            Ok(Account { version, errors }) => (Some(version), errors),
            // Nothing is known. Newer versions of etcd let only root ask.
            Err(Fault { kind: ErrorKind::PermissionDenied | ErrorKind::Unauthenticated, .. }) => (None, Vec::new()),
            // The proof detects errors of the connection.
            Err(_) => return false,
        };
        for error in errors.iter().filter(|error| !self.errors.contains(error)) {
            tracing::warn!(error, "etcd reports a fault");
        }
        for error in self.errors.iter().filter(|error| !errors.contains(error)) {
            tracing::info!(error, "etcd does not report this fault any more");
        }
        let news = self.version != version || self.errors != errors;
        (self.version, self.errors) = (version, errors);
        news
    }

    /// Records whether there are credentials that etcd does not ask for. Returns whether this has changed.
    pub(super) fn credentials_are_idle(&mut self, idle: bool) -> bool {
        if std::mem::replace(&mut self.idle_credentials, idle) == idle {
            return false;
        }
        match idle {
            true => tracing::warn!("{IDLE_CREDENTIALS}"),
            false => tracing::info!("etcd's authentication is on: the user and the password are used"),
        }
        true
    }

    /// Records the number of webhooks, valid or not, and the number of ignored keys below the prefix. Returns whether
    /// there is something new to show.
    pub(super) fn holds(&mut self, prefix: &str, webhooks: usize, ignored: u64) -> bool {
        if (webhooks == 0) == self.without_webhooks.is_some() {
            return false;
        }
        self.without_webhooks = (webhooks == 0).then(|| {
            let others = if ignored > 0 { format!("; {ignored} other keys are ignored") } else { String::new() };
            format!("there is no webhook below the prefix {prefix}: no key has the form {prefix}{{namespace}}/webhooks/{{id}}{others}")
        });
        match &self.without_webhooks {
            Some(nothing) => tracing::warn!("{nothing}"),
            None => tracing::info!(prefix, "there are webhooks below the prefix now"),
        }
        true
    }

    pub(super) fn show(&self, report: &mut SourceReport) {
        report.server_version.clone_from(&self.version);
        report.server_errors.clone_from(&self.errors);
        let idle = self.idle_credentials.then(|| IDLE_CREDENTIALS.to_owned());
        report.warnings = idle.into_iter().chain(self.without_webhooks.clone()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(errors: &[&str]) -> Result<Account, Fault> {
        Ok(Account { version: "3.5.1".to_owned(), errors: errors.iter().map(|&error| error.to_owned()).collect() })
    }

    fn fault(kind: ErrorKind) -> Result<Account, Fault> {
        Err(Fault { kind, reason: String::new() })
    }

    #[test]
    fn an_alarm_is_shown_until_etcd_does_not_name_it_or_may_not_be_asked() {
        let mut health = Health::default();
        let shown = |health: &Health| {
            let mut report = SourceReport::default();
            health.show(&mut report);
            report.server_errors
        };
        assert!(health.take_account(account(&[])));
        assert!(!health.take_account(account(&[])));
        assert!(health.take_account(account(&["memberID:1 alarm:NOSPACE"])));
        assert_eq!(shown(&health), ["memberID:1 alarm:NOSPACE"]);
        assert!(!health.take_account(account(&["memberID:1 alarm:NOSPACE"])));
        // Without an answer, nothing is known to have changed.
        assert!(!health.take_account(fault(ErrorKind::Timeout)));
        assert_eq!(shown(&health), ["memberID:1 alarm:NOSPACE"]);
        assert!(health.take_account(account(&["memberID:2 alarm:CORRUPT"])));
        assert_eq!(shown(&health), ["memberID:2 alarm:CORRUPT"]);
        assert!(health.take_account(fault(ErrorKind::PermissionDenied)));
        assert_eq!(shown(&health), [""; 0]);
        assert!(!health.take_account(fault(ErrorKind::PermissionDenied)));
    }

    #[test]
    fn unused_credentials_are_shown_while_they_are_unused() {
        let (mut health, mut report) = (Health::default(), SourceReport::default());
        assert!(!health.credentials_are_idle(false));
        assert!(health.credentials_are_idle(true) && !health.credentials_are_idle(true));
        health.show(&mut report);
        assert!(report.warnings[0].contains("authentication is off"));
        assert!(health.credentials_are_idle(false));
        health.show(&mut report);
        assert_eq!(report.warnings, [""; 0]);
    }

    #[test]
    fn a_prefix_without_a_webhook_is_shown_while_there_is_none() {
        let (mut health, mut report) = (Health::default(), SourceReport::default());
        assert!(!health.holds("/cwm/", 1, 0));
        assert!(health.holds("/cwm/", 0, 3) && !health.holds("/cwm/", 0, 4));
        health.show(&mut report);
        assert!(report.warnings[0].contains("no webhook below the prefix /cwm/"), "{report:?}");
        assert!(health.holds("/cwm/", 2, 0));
        health.show(&mut report);
        assert_eq!(report.warnings, [""; 0]);
    }
}
