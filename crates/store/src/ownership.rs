//! Who has, wants and may have which devices, beside the table itself: claims, moves and limits, as readers see them.
//!
//! A claim has no holder of its own: whoever holds the device now is the one it is against. Claims are kept by claimant,
//! at most [`MAX_CLAIMS`] each; what a member claims beyond that is counted and not kept, so that a list of nonsense
//! costs bounded memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use imbl::OrdMap;

use crate::engine::{Engine, Table};
use crate::record::{Beyond, Claim, Limits, Move, OpenClaim, Seconds};
use crate::store::{OpenError, rows};
use crate::view::View;

/// Claims of one member that are kept one by one.
pub const MAX_CLAIMS: usize = 100_000;

/// What the store knows of devices beside where they are.
#[derive(Debug, Clone, Default)]
pub struct Ownership {
    /// Claims, by claimant.
    pub(crate) claims: OrdMap<MemberId, Claims>,
    /// Moves that are not done, by number.
    pub moves: OrdMap<u64, Arc<Move>>,
    /// Ranges and quotas.
    pub limits: OrdMap<MemberId, Arc<Limits>>,
    /// The serial of the last change of each NetID's devices.
    pub(crate) lists: OrdMap<NetId, Serial>,
}

/// The claims of one member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    pub kept: OrdMap<DevEui, Claim>,
    pub beyond: Vec<Beyond>,
}

/// The key of a claim's row; the row of what is beyond the bound has no device.
pub(crate) fn claim_key(device: Option<DevEui>, claimant: &MemberId) -> Vec<u8> {
    let device = device.map_or(0, DevEui::as_u64).to_be_bytes();
    [&device, claimant.as_str().as_bytes()].concat()
}

impl Ownership {
    pub(crate) fn read(engine: &dyn Engine) -> Result<Self, OpenError> {
        let keyed = |moves: Vec<Move>| moves.into_iter().map(|m| (m.id, Arc::new(m))).collect();
        let limits: Vec<Limits> = rows(engine, Table::Limits)?;
        Ok(Self {
            claims: read_claims(engine)?,
            moves: keyed(rows(engine, Table::Moves)?),
            limits: limits.into_iter().map(|limits| (limits.member.clone(), Arc::new(limits))).collect(),
            lists: read_lists(engine)?,
        })
    }

    /// Devices for whose move caches are prepared.
    pub(crate) fn moving(&self) -> Vec<DevEui> {
        let lowered = self.moves.values().filter(|planned| planned.lowered);
        lowered.flat_map(|planned| planned.devices.iter().copied()).collect()
    }
}

fn read_claims(engine: &dyn Engine) -> Result<OrdMap<MemberId, Claims>, OpenError> {
    let mut claims: OrdMap<MemberId, Claims> = OrdMap::new();
    let mut failure = None;
    engine.scan(Table::Claims, &[], &mut |key, value| {
        let mut read = || {
            let (device, claimant) =
                key.split_first_chunk().map(|(device, rest)| (u64::from_be_bytes(*device), rest))?;
            let claimant: MemberId = std::str::from_utf8(claimant).ok()?.parse().ok()?;
            let of = claims.entry(claimant).or_default();
            match DevEui::from_u64(device) {
                Ok(device) => serde_json::from_slice(value).map(|claim| drop(of.kept.insert(device, claim))),
                Err(_) => serde_json::from_slice(value).map(|beyond| of.beyond = beyond),
            }
            .err()
        };
        failure = read().map(OpenError::row("claims"));
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failure.map_or(Ok(claims), Err)
}

fn read_lists(engine: &dyn Engine) -> Result<OrdMap<NetId, Serial>, OpenError> {
    let mut lists = OrdMap::new();
    engine.scan(Table::Lists, &[], &mut |key, value| {
        let number = |octets: &[u8]| octets.try_into().ok().map(u32::from_be_bytes);
        if let (Some(netid), Some(serial)) = (number(key).and_then(|n| NetId::from_u32(n).ok()), number(value)) {
            lists.insert(netid, Serial::new(serial));
        }
        ControlFlow::Continue(())
    })?;
    Ok(lists)
}

/// Which claims to show.
#[derive(Debug, Clone, Default)]
pub struct ClaimFilter {
    /// Of this claimant.
    pub claimant: Option<MemberId>,
    /// Against this holder.
    pub holder: Option<MemberId>,
    /// To this device.
    pub deveui: Option<DevEui>,
}

impl View {
    /// Claims by claimant and device, from the one after `after` on.
    pub fn claims<'v>(
        &'v self,
        filter: &'v ClaimFilter,
        after: Option<&'v (MemberId, DevEui)>,
    ) -> impl Iterator<Item = OpenClaim> + 'v {
        let claimants = self.ownership.claims.iter().filter(move |(claimant, _)| {
            filter.claimant.as_ref().is_none_or(|wanted| wanted == *claimant)
                && after.is_none_or(|(last, _)| *claimant >= last)
        });
        let claims = claimants.flat_map(move |(claimant, claims)| {
            let last = after.filter(|(last, _)| last == claimant).map(|(_, device)| *device);
            let from = last.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
            let (first, end) = match filter.deveui {
                Some(device) if last.is_none_or(|last| last < device) => {
                    (std::ops::Bound::Included(device), std::ops::Bound::Included(device))
                }
                _ => (from, std::ops::Bound::Unbounded),
            };
            claims.kept.range((first, end)).map(move |(device, claim)| self.open_claim(*device, claimant, claim))
        });
        claims.filter(move |claim| {
            filter.holder.as_ref().is_none_or(|holder| claim.holder.as_ref() == Some(holder))
                && filter.deveui.is_none_or(|device| claim.deveui == device)
        })
    }

    /// How many claims of a member are kept, and how many more its last lists had.
    pub fn claim_counts(&self, claimant: &MemberId) -> (usize, u64) {
        self.ownership
            .claims
            .get(claimant)
            .map_or((0, 0), |claims| (claims.kept.len(), claims.beyond.iter().map(|beyond| beyond.count).sum()))
    }

    pub(crate) fn open_claim(&self, deveui: DevEui, claimant: &MemberId, claim: &Claim) -> OpenClaim {
        let held = self.zones.devices().get(deveui);
        let holder = held.and_then(|netid| self.zones.network(netid)).map(|network| network.member.clone());
        let (netid, since, seen, rejected) = (claim.netid, claim.since, claim.seen, claim.rejected.clone());
        OpenClaim { deveui, claimant: claimant.clone(), netid, holder, held, since, seen, rejected }
    }

    /// The member that holds a device.
    pub fn holder(&self, device: DevEui) -> Option<&MemberId> {
        let netid = self.zones.devices().get(device)?;
        self.zones.network(netid).map(|network| &network.member)
    }

    /// How many devices a member holds.
    pub fn devices_of(&self, member: &MemberId) -> u64 {
        let own = self.zones.networks().filter(|network| network.member == *member);
        own.map(|network| self.zones.devices().count(network.netid)).sum()
    }

    /// When the next move is due, or has to be prepared for.
    pub fn next_move(&self) -> Option<Seconds> {
        self.ownership.moves.values().filter_map(|planned| planned.next()).min()
    }
}
