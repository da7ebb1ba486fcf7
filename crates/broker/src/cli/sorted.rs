//! `--sort` and `--desc` of the commands that list something.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dnsbroker_api::listed::{Order, Paged, SortKey};

#[derive(Args)]
pub(super) struct Sorted<S: SortKey> {
    /// By which field; what lacks it comes first
    #[arg(long, value_name = "FIELD", value_parser = fields::<S>())]
    sort: Option<S>,
    /// Descending
    #[arg(long)]
    desc: bool,
}

fn fields<S: SortKey>() -> impl TypedValueParser<Value = S> {
    let names = S::ALL.iter().map(|key| key.name());
    PossibleValuesParser::new(names).map(|name| S::named(&name).unwrap_or_default())
}

impl<S: SortKey> Sorted<S> {
    /// A query with this order.
    pub(super) fn of<Q: Paged<Sort = S>>(&self, mut query: Q) -> Q {
        query.sort(self.sort, order(self.desc));
        query
    }
}

/// Ascending or descending.
pub(super) fn order(desc: bool) -> Order {
    if desc { Order::Desc } else { Order::Asc }
}
