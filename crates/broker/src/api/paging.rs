//! Pages of a list: by cursor, so that what comes and goes meanwhile moves nothing.
//!
//! A cursor says where a page ended: by what the list was sorted and how, the value of the last row, and what tells that
//! row from others with the same value. So it needs no row to be there still. A row whose value changes between two pages
//! may be met twice or not at all; the key that each list is sorted by unless asked otherwise never changes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dnsbroker_api::Timestamp;
use dnsbroker_api::listed::{Order, Paging, SortKey};
use dnsbroker_api::message::Page;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use serde::{Deserialize, Serialize};

use super::ApiError;

/// Items of a page, unless asked for otherwise, and at most.
pub const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

/// What rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A row does not have it.
    Absent,
    /// A count, a time.
    Number(i64),
    /// A name.
    Text(String),
}

/// Where a row stands: its value, then what tells it from all other rows.
pub type Place = (Value, Value);

#[derive(Serialize, Deserialize)]
struct Cursor<'c>(&'c str, Order, Value, Value);

/// How many items are wanted.
pub fn limit<S>(paging: &Paging<S>) -> Result<usize, ApiError> {
    match paging.limit {
        None => Ok(PAGE),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::parameter("limit", &limit.to_string(), format!("is to be from 1 to {MAX_PAGE}"))),
    }
}

/// The place after which the page begins.
pub fn after<S: SortKey>(paging: &Paging<S>) -> Result<Option<Place>, ApiError> {
    let Some(text) = &paging.after else { return Ok(None) };
    let wrong = |why: String| ApiError::parameter("after", text, why);
    let octets = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let Ok(Cursor(sort, order, value, id)) = serde_json::from_slice(&octets) else {
        return Err(wrong("is not the `next` of a page of this list".to_owned()));
    };
    if sort != paging.sort.name() || order != paging.order {
        let was = format!("sort={sort}&order={}", name(order));
        return Err(wrong(format!("is the `next` of a page with {was}: ask with these, or begin without `after`")));
    }
    Ok(Some((value, id)))
}

fn name(order: Order) -> &'static str {
    match order {
        Order::Asc => "asc",
        Order::Desc => "desc",
    }
}

fn cursor<S: SortKey>(paging: &Paging<S>, (value, id): &Place) -> String {
    let cursor = Cursor(paging.sort.name(), paging.order, value.clone(), id.clone());
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

/// The page of rows that stand at places of their own. No more rows are held than the page has.
pub fn page<S: SortKey, R, T>(
    rows: impl IntoIterator<Item = R>,
    paging: &Paging<S>,
    place: impl Fn(&R) -> Place,
    show: impl FnMut(R) -> T,
) -> Result<Page<T>, ApiError> {
    let (limit, after) = (limit(paging)?, after(paging)?);
    let mut kept: BTreeMap<Place, R> = BTreeMap::new();
    for row in rows {
        let place = place(&row);
        let before = after.as_ref().is_some_and(|after| match paging.order {
            Order::Asc => place <= *after,
            Order::Desc => place >= *after,
        });
        if before {
            continue;
        }
        kept.insert(place, row);
        if kept.len() > limit + 1 {
            match paging.order {
                Order::Asc => kept.pop_last(),
                Order::Desc => kept.pop_first(),
            };
        }
    }
    let more = kept.len() > limit;
    let mut rows: Vec<(Place, R)> = kept.into_iter().collect();
    if paging.order == Order::Desc {
        rows.reverse();
    }
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|(place, _)| cursor(paging, place));
    Ok(Page { items: rows.into_iter().map(|(_, row)| row).map(show).collect(), next })
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Number(time.0)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&MemberId> for Value {
    fn from(id: &MemberId) -> Self {
        Self::Text(id.to_string())
    }
}

impl From<NetId> for Value {
    fn from(netid: NetId) -> Self {
        Self::Text(netid.to_string())
    }
}

impl From<DevEui> for Value {
    fn from(deveui: DevEui) -> Self {
        Self::Text(deveui.to_string())
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use dnsbroker_api::listed::SortMembers;
    use proptest::prelude::*;

    use super::*;

    type Row = (u64, Option<i64>);

    fn asked(sort: SortMembers, order: Order, limit: usize) -> Paging<SortMembers> {
        Paging { after: None, limit: Some(limit), sort, order }
    }

    fn place_of(sort: SortMembers, (id, since): &Row) -> Place {
        match sort {
            SortMembers::Since => ((*since).into(), (*id).into()),
            _ => ((*id).into(), Value::Absent),
        }
    }

    fn one(rows: &[Row], paging: &Paging<SortMembers>) -> Page<Row> {
        page(rows.iter().copied(), paging, |row| place_of(paging.sort, row), |row| row).expect("a page")
    }

    proptest! {
        /// Rows come and go between the pages; what was there all the time is met once, in order.
        #[test]
        fn pages_meet_each_row_that_stays_once_and_in_order(
            first in proptest::collection::btree_map(0_u64..200, proptest::option::of(-3_i64..3), 0..60),
            changes in proptest::collection::vec((0_u64..200, proptest::option::of(-3_i64..3), any::<bool>()), 0..80),
            limit in 1_usize..9,
            by_time in any::<bool>(),
            down in any::<bool>(),
        ) {
            let sort = if by_time { SortMembers::Since } else { SortMembers::Id };
            let order = if down { Order::Desc } else { Order::Asc };
            let mut paging = asked(sort, order, limit);
            let (mut there, mut changes) = (first.clone(), changes.into_iter());
            let mut touched = std::collections::BTreeSet::new();
            let mut met: Vec<Row> = Vec::new();
            loop {
                let rows: Vec<Row> = there.iter().map(|(id, since)| (*id, *since)).collect();
                let page = one(&rows, &paging);
                prop_assert!(page.items.len() <= limit);
                met.extend(page.items);
                for (id, since, come) in changes.by_ref().take(3) {
                    touched.insert(id);
                    if come {
                        there.insert(id, since);
                    } else {
                        there.remove(&id);
                    }
                }
                match page.next {
                    Some(next) => paging.after = Some(next),
                    None => break,
                }
            }
            let places: Vec<Place> = met.iter().map(|row| place_of(sort, row)).collect();
            let in_order = places.windows(2).all(|two| if down { two[0] > two[1] } else { two[0] < two[1] });
            prop_assert!(in_order);
            for row in first.iter().map(|(id, since)| (*id, *since)).filter(|(id, _)| !touched.contains(id)) {
                prop_assert_eq!(met.iter().filter(|seen| **seen == row).count(), 1, "{:?}", row);
            }
        }
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_though_its_row_is_gone_and_numbers_are_no_text() {
        let rows: Vec<Row> = (8..=12).map(|id| (id, None)).collect();
        let mut paging = asked(SortMembers::Id, Order::Asc, 2);
        let page = one(&rows, &paging);
        assert_eq!(page.items, rows[..2]);
        paging.after = page.next;
        let left = [&rows[..1], &rows[2..]].concat();
        assert_eq!(one(&left, &paging).items, rows[2..4], "9 is gone; 10 comes after it");
    }

    #[test]
    fn a_cursor_of_another_order_is_refused_and_says_of_which() {
        let rows: Vec<Row> = (1..=3).map(|id| (id, Some(0))).collect();
        let next = one(&rows, &asked(SortMembers::Since, Order::Desc, 1)).next;
        for (sort, order) in [(SortMembers::Since, Order::Asc), (SortMembers::Id, Order::Desc)] {
            let paging = Paging { after: next.clone(), ..asked(sort, order, 1) };
            let refused = after(&paging).expect_err("refused").to_string();
            assert!(refused.contains("sort=since&order=desc"), "{refused}");
        }
        for wrong in ["", "x", "acme", "bnVsbA", "W10"] {
            let paging = Paging { after: Some(wrong.to_owned()), ..asked(SortMembers::Id, Order::Asc, 1) };
            let refused = after(&paging).expect_err("refused").to_string();
            assert!(refused.contains("not the `next`"), "{refused}");
        }
    }

    #[test]
    fn absurd_limits_are_refused() {
        for wrong in [0, MAX_PAGE + 1] {
            assert!(limit(&asked(SortMembers::Id, Order::Asc, wrong)).is_err());
        }
    }
}
