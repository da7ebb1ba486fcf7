//! `audit`: what was done, by whom, and whether the record is whole.

use anyhow::bail;
use clap::Subcommand;
use dnsbroker_api::message::{AuditCheck, AuditRow, Page};

use super::Context;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List all changes, oldest first
    List {
        /// Only rows after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Rows at most
        #[arg(long)]
        limit: Option<usize>,
        /// One JSON object a line, as they come: for archives and programs
        #[arg(long)]
        json_lines: bool,
    },
    /// Check that no row was changed, dropped or put in between
    Verify,
}

/// Rows of one request.
const PAGE: usize = 1_000;

impl AuditCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List { after, limit, json_lines } => list(context, after, limit, json_lines).await,
            Self::Verify => {
                let check: AuditCheck = context.client.get("/api/v1/audit/verify").await?;
                context.output.print(&check, |check| match &check.broken {
                    None => format!("{} rows, the chain is whole; head {}:{}\n", check.rows, check.rows, check.head),
                    Some(broken) => format!("THE CHAIN IS BROKEN: {broken}\n"),
                });
                if check.ok { Ok(()) } else { bail!("the audit was tampered with or damaged") }
            }
        }
    }
}

async fn list(
    Context { client, output }: &Context,
    mut after: u64,
    limit: Option<usize>,
    json_lines: bool,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    while left > 0 {
        let page: Page<AuditRow> = client.get(&format!("/api/v1/audit?after={after}&limit={}", left.min(PAGE))).await?;
        left = left.saturating_sub(page.items.len());
        if let Some(last) = page.items.last() {
            after = last.number;
        }
        if json_lines {
            for row in &page.items {
                output.line(&serde_json::to_string(row)?);
            }
        } else if output.is_json() {
            rows.extend(page.items);
        } else {
            output.text(&page.items.iter().map(line).collect::<String>());
        }
        if page.next.is_none() {
            break;
        }
    }
    if output.is_json() && !json_lines {
        output.print(&Page { items: rows, next: None }, |_| String::new());
    }
    Ok(())
}

fn line(row: &AuditRow) -> String {
    format!("{:>6}  {}  {}  {}  {}  {}\n", row.number, row.at, row.actor, row.act, row.object, row.detail)
}
