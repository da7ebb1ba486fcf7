//! `webhook`: where events are posted to.

use clap::Subcommand;
use dnsbroker_api::event::KINDS;
use dnsbroker_api::listed::{ListWebhooks, SortWebhooks};
use dnsbroker_api::webhook::{SetWebhook, Webhook};

use super::output::table;
use super::sorted::Sorted;
use super::{Context, all};

#[derive(Subcommand)]
pub(super) enum WebhookCommand {
    /// Have events posted to a URL; the secret of their signatures is shown once
    Add {
        /// Where to: https://...
        url: String,
        /// Which kinds (`webhook kinds`), by how they begin, with commas between them: claim.,source.,certificate.
        #[arg(long, value_delimiter = ',', required = true)]
        events: Vec<String>,
    },
    /// Change where to or which kinds; one that was disabled works again
    Set {
        /// Its number
        id: u64,
        /// Where to: https://...
        url: String,
        /// Which kinds, by how they begin, with commas between them
        #[arg(long, value_delimiter = ',', required = true)]
        events: Vec<String>,
    },
    /// List webhooks, and how they do; never their secrets
    List(Sorted<SortWebhooks>),
    /// List the kinds of events there are
    Kinds,
    /// Post a message of the kind webhook.test, once, and tell what became of it
    Test {
        /// Its number
        id: u64,
    },
    /// Post nothing there any more
    Remove {
        /// Its number
        id: u64,
    },
}

impl WebhookCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add { url, events } => {
                let added = client.webhook_add(&SetWebhook { url, events: events.into_iter().collect() }).await?;
                output.print(&added, |added| {
                    format!(
                        "webhook {} is added\nsecret  {}\nReceivers verify messages with it; it is not shown again.\n",
                        added.id,
                        added.secret.as_deref().unwrap_or_default()
                    )
                });
            }
            Self::Set { id, url, events } => {
                let set = client.webhook_set(&id, &SetWebhook { url, events: events.into_iter().collect() }).await?;
                output.print(&set, |set| webhooks(std::slice::from_ref(set)));
            }
            Self::List(sorted) => {
                let query = sorted.of(ListWebhooks::default());
                let page = all(async |query| client.webhook_list(query).await, query).await?;
                output.print(&page, |page| webhooks(&page.items));
            }
            Self::Kinds => output.print(&KINDS, |kinds| kinds.join("\n") + "\n"),
            Self::Test { id } => {
                let test = client.webhook_test(&id).await?;
                output.print(&test, |test| match &test.error {
                    None => format!("taken, after {} ms\n", test.milliseconds),
                    Some(error) => format!("NOT taken, after {} ms: {error}\n", test.milliseconds),
                });
                anyhow::ensure!(test.ok, "the webhook did not take the message");
            }
            Self::Remove { id } => {
                client.webhook_remove(&id).await?;
                output.print(&serde_json::json!({ "removed": id }), |_| format!("webhook {id} is removed\n"));
            }
        }
        Ok(())
    }
}

fn webhooks(webhooks: &[Webhook]) -> String {
    let row = |webhook: &Webhook| {
        let kinds: Vec<&str> = webhook.events.iter().map(String::as_str).collect();
        let state = match (&webhook.disabled, &webhook.error) {
            (Some(reason), _) => format!("DISABLED: {reason}"),
            (None, Some(error)) => format!("failing ({} times): {error}", webhook.failures),
            (None, None) => "good".to_owned(),
        };
        vec![
            webhook.id.to_string(),
            webhook.member.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            kinds.join(","),
            webhook.delivered.clone().unwrap_or_else(|| "-".to_owned()),
            webhook.url.clone(),
            state,
        ]
    };
    table(&["WEBHOOK", "MEMBER", "KINDS", "UP TO", "URL", "STATE"], &webhooks.iter().map(row).collect::<Vec<_>>())
}
