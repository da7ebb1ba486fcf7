//! What the suite found, round by round, and the medians of it.

use serde::Serialize;

use crate::load::Shape;
use crate::{handshakes, load};

/// Everything.
#[derive(Debug, Serialize)]
pub struct SuiteFigures {
    /// Version of the broker.
    pub version: String,
    /// Engine of its store.
    pub store: String,
    /// Processors that client and server share.
    pub processors: usize,
    /// Devices registered.
    pub devices: usize,
    /// How often each measurement was made.
    pub rounds: usize,
    /// Seconds of each.
    pub seconds: f64,
    /// Start and memory.
    pub start: StartFigures,
    /// Look-ups.
    pub loads: Vec<LoadFigures>,
    /// Handshakes, full and resumed.
    pub handshakes: [HandshakeFigures; 2],
}

/// Start and memory. Memory is resident, in octets.
#[derive(Debug, Serialize)]
pub struct StartFigures {
    /// Memory without devices.
    pub rss_empty: u64,
    /// Seconds of `device import`.
    pub import_seconds: f64,
    /// Seconds from starting the process to the first right answer over DoH.
    pub start_seconds: f64,
    /// Memory at that moment.
    pub rss: u64,
    /// What of it the devices take, each.
    pub rss_octets_per_device: f64,
    /// Octets of the store's files.
    pub store_octets: u64,
    /// And of each device.
    pub store_octets_per_device: f64,
    /// Memory after all look-ups and handshakes.
    pub rss_after_load: u64,
}

/// One kind of look-up: the same at the broker and at the floor, a report for each round.
#[derive(Debug, Serialize)]
pub struct LoadFigures {
    /// How many ask at once.
    #[serde(flatten)]
    pub shape: Shape,
    /// Whether the names are registered.
    pub registered: bool,
    /// Whether they are asked for with POST.
    pub post: bool,
    /// The broker's.
    pub broker: Vec<load::Report>,
    /// The floor's.
    pub floor: Vec<load::Report>,
}

impl LoadFigures {
    /// For each shape: GET and POST of registered names, GET of others.
    pub fn of_shapes(shapes: &[Shape]) -> Vec<Self> {
        let kinds = [(true, false), (true, true), (false, false)];
        let all = shapes.iter().flat_map(|shape| kinds.map(|kind| (*shape, kind)));
        let new = |(shape, (registered, post))| Self { shape, registered, post, broker: Vec::new(), floor: Vec::new() };
        all.map(new).collect()
    }

    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match (self.registered, self.post) {
            (true, false) => "hit GET",
            (true, true) => "hit POST",
            (false, false) => "NXDOMAIN GET",
            (false, true) => "NXDOMAIN POST",
        }
    }
}

/// Handshakes at the broker and at the floor, a report for each round.
#[derive(Debug, Serialize)]
pub struct HandshakeFigures {
    /// `full` or `resumed`.
    pub kind: &'static str,
    /// The broker's.
    pub broker: Vec<handshakes::Report>,
    /// The floor's.
    pub floor: Vec<handshakes::Report>,
}

impl HandshakeFigures {
    /// Of a kind, without rounds yet.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, broker: Vec::new(), floor: Vec::new() }
    }
}

/// The median of one figure over reports; of an even number, the mean of the two in the middle.
pub fn median<R>(reports: &[R], figure: impl Fn(&R) -> f64) -> f64 {
    middle(reports.iter().map(figure).collect())
}

/// The median over the rounds of the broker's figure divided by the floor's.
pub fn ratio<R>(broker: &[R], floor: &[R], figure: impl Fn(&R) -> f64) -> f64 {
    middle(broker.iter().zip(floor).map(|(broker, floor)| figure(broker) / figure(floor)).collect())
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    match figures.as_slice() {
        [] => f64::NAN,
        all if all.len() % 2 == 1 => all[half],
        all => f64::midpoint(all[half - 1], all[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_does_not_mind_one_bad_round() {
        assert_eq!(median(&[3.0, 1.0, 900.0], |figure| *figure), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 900.0], |figure| *figure), 3.0);
        assert!(median(&[] as &[f64], |figure| *figure).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was three times slower in the last two rounds; the ratio was 2 all the time but once.
        assert_eq!(ratio(&[2.0, 6.0, 9.0], &[1.0, 3.0, 3.0], |figure| *figure), 2.0);
    }

    #[test]
    fn each_shape_is_asked_three_ways() {
        let shapes = [Shape { connections: 1, streams: 2 }, Shape { connections: 3, streams: 4 }];
        let kinds: Vec<_> = LoadFigures::of_shapes(&shapes).iter().map(LoadFigures::kind).collect();
        assert_eq!(kinds, ["hit GET", "hit POST", "NXDOMAIN GET", "hit GET", "hit POST", "NXDOMAIN GET"]);
    }
}
