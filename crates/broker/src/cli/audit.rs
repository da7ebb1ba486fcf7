//! `audit`: what was done, by whom, and whether the record is whole.

use anyhow::bail;
use clap::Subcommand;
use dnsbroker_api::listed::ListAudit;
use dnsbroker_api::message::{AuditCheck, AuditRow, Page};

use super::Context;
use super::sorted::order;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List all changes, oldest first
    List {
        /// Only rows after this number; with --desc, before it
        #[arg(long)]
        after: Option<u64>,
        /// Rows at most
        #[arg(long)]
        limit: Option<usize>,
        /// Only by this actor, as the list shows it
        #[arg(long)]
        actor: Option<String>,
        /// Only acts whose name begins so, as in `member.`
        #[arg(long)]
        act: Option<String>,
        /// Only to this object
        #[arg(long)]
        object: Option<String>,
        /// One JSON object a line, as they come: for archives and programs
        #[arg(long)]
        json_lines: bool,
        /// Newest first
        #[arg(long)]
        desc: bool,
    },
    /// Check that no row was changed, dropped or put in between
    Verify,
}

/// Rows of one request.
const PAGE: usize = 1_000;

impl AuditCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List { after, limit, actor, act, object, json_lines, desc } => {
                let filter = ListAudit { actor, act, object, order: Some(order(desc)), ..ListAudit::default() };
                list(context, after, limit, filter, json_lines).await
            }
            Self::Verify => {
                let check: AuditCheck = context.client.audit_verify().await?;
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
    mut after: Option<u64>,
    limit: Option<usize>,
    filter: ListAudit,
    json_lines: bool,
) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    while left > 0 {
        let limit = Some(left.min(PAGE));
        let query = ListAudit { after: after.map(|number| number.to_string()), limit, ..filter.clone() };
        let page: Page<AuditRow> = client.audit_list(&query).await?;
        left = left.saturating_sub(page.items.len());
        if let Some(last) = page.items.last() {
            after = Some(last.number);
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
