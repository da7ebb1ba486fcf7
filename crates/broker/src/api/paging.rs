//! Pages of a list: by cursor, so that what comes and goes meanwhile moves nothing.

use dnsbroker_api::listed::{Order, Paging};
use dnsbroker_api::message::Page;

use super::ApiError;

/// Items of a page, unless asked for otherwise, and at most.
pub const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

/// How many items are wanted.
pub fn limit(paging: &Paging) -> Result<usize, ApiError> {
    match paging.limit {
        None => Ok(PAGE),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::parameter("limit", &limit.to_string(), format!("is to be from 1 to {MAX_PAGE}"))),
    }
}

/// The page of items that each have a key, by which they are in order and which is the cursor.
pub fn page<K: Ord + ToString + Clone, T>(mut items: Vec<(K, T)>, paging: &Paging) -> Result<Page<T>, ApiError> {
    let limit = limit(paging)?;
    items.sort_by(|a, b| a.0.cmp(&b.0));
    if paging.order == Order::Desc {
        items.reverse();
    }
    if let Some(after) = &paging.after {
        // By text: a cursor is what we gave, and what it named may be gone.
        let place = items.iter().position(|(key, _)| key.to_string() == *after);
        let start = match place {
            Some(place) => place + 1,
            None => items.partition_point(|(key, _)| match paging.order {
                Order::Asc => key.to_string() <= *after,
                Order::Desc => key.to_string() >= *after,
            }),
        };
        items.drain(..start);
    }
    let next = (items.len() > limit).then(|| items[limit - 1].0.to_string());
    items.truncate(limit);
    Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(order: Order, limit: usize) -> Vec<u32> {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let items: Vec<_> = [3, 1, 2, 5, 4].into_iter().map(|n: u32| (format!("{n:03}"), n)).collect();
            let page = page(items, &Paging { after, limit: Some(limit), order }).expect("a page");
            assert!(page.items.len() <= limit);
            seen.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return seen,
            }
        }
    }

    #[test]
    fn pages_put_together_are_the_list_in_order() {
        for limit in 1..=6 {
            assert_eq!(walk(Order::Asc, limit), [1, 2, 3, 4, 5]);
            assert_eq!(walk(Order::Desc, limit), [5, 4, 3, 2, 1]);
        }
    }

    #[test]
    fn a_cursor_whose_item_is_gone_goes_on_where_it_was() {
        let items = vec![("a".to_owned(), 1), ("c".to_owned(), 3)];
        let paging = Paging { after: Some("b".to_owned()), ..Paging::default() };
        assert_eq!(page(items, &paging).expect("a page").items, [3]);
    }

    #[test]
    fn absurd_limits_are_refused() {
        for limit in [0, MAX_PAGE + 1] {
            assert!(page::<String, ()>(vec![], &Paging { limit: Some(limit), ..Paging::default() }).is_err());
        }
    }
}
