//! Portability: devices go from one operator to another without being touched, at once or at a time agreed on.
//!
//! ```text
//! administrator: MoveDevices ──────────────────────────────▶ done, or planned ──▶ RunMove ──▶ done
//! holder: OfferMove ──▶ offered ──▶ receiver: AcceptMove ──▶ done, or planned ──▶ RunMove ──▶ done
//!                          └── CancelMove: either side or an administrator, until it is done
//! ```
//!
//! A planned move begins before its time: caches are told to keep the devices' records for a few seconds only
//! (`dnsbroker_zone::zones::MOVING_TTL`), so that hardly anybody asks the old operator after the move. Secondaries hear
//! of the move itself by NOTIFY; the shorter TTL is not worth a transfer to them. Devices that the giver no longer holds
//! when the time has come stay where they are. What is done or cancelled is in the audit and in the devices' history.

use std::sync::Arc;

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::claim::checked;
use super::devices::CLAIMS_SHOWN;
use super::{Act, check_text};
use crate::engine::Table;
use crate::record::{Move, Seconds};
use crate::refusal::{OwnershipRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// Moves that are offered or planned at once.
pub const MAX_MOVES: usize = 1_000;
/// Moves that one member offers at once: nobody fills the list for all.
pub const MAX_OFFERS: usize = 100;
/// Devices of one move that is offered or planned.
pub const MAX_MOVE_DEVICES: usize = 100_000;
/// How far ahead a move can be planned, in days.
pub const MAX_MOVE_DAYS: i64 = 400;
/// Seconds before a planned move from when on caches are prepared, where nothing else is said: the TTL twice.
const BEFORE_TTLS: Seconds = 2;

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its number, if it waits for somebody or for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
    /// Devices that went.
    pub moved: u64,
    /// Devices that stayed: not registered, not the giver's any more, there already, or brought by a source.
    pub stayed: u64,
    /// The first of those that stayed because a source of the receiver fills the NetID that they are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<DevEui>,
    /// The serial of the private zones afterwards.
    pub serial: Serial,
}

/// An administrator moves devices to a NetID, whoever holds them.
pub struct MoveDevices {
    /// The devices.
    pub devices: Vec<DevEui>,
    /// Where they go; its holder gets them.
    pub to: NetId,
    /// When; now where it is none.
    pub at: Option<Seconds>,
    /// Seconds before, from when on caches are prepared; twice the TTL where it is none.
    pub before: Option<Seconds>,
    /// Why.
    pub reason: String,
}

impl Act for MoveDevices {
    type Done = Moved;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Moved, Option<Note>), Refusal> {
        check_text("the reason", &self.reason)?;
        let receiver = transaction.view.zones.network(self.to).ok_or(Refusal::NoNetwork(self.to))?.member.clone();
        transaction.active_member(&receiver)?;
        transaction.check_not_filled(self.to)?;
        let devices = checked(self.devices)?;
        let Some(at) = self.at.filter(|at| *at > transaction.now()) else {
            let detail = json!({ "devices": devices.len(), "to": receiver, "reason": self.reason });
            let note = Note::new("devices.move", self.to, detail);
            let moved = transaction.move_now(&devices, None, &receiver, self.to)?;
            if moved.moved == 0 {
                let filled = moved.filled.first().and_then(|device| transaction.view.zones.devices().get(*device));
                filled.map_or(Ok(()), |netid| transaction.check_not_filled(netid))?;
                return Err(OwnershipRefusal::NothingMoves(self.to).into());
            }
            return Ok((moved, Some(note)));
        };
        // Those that are nobody's yet can be registered until then, and sources can go.
        let there = transaction.view.zones.devices();
        if !devices.is_empty() && devices.iter().all(|device| there.get(*device) == Some(self.to)) {
            return Err(OwnershipRefusal::NothingMoves(self.to).into());
        }
        let planned = Move {
            id: transaction.next_number(),
            devices,
            from: None,
            to: receiver,
            netid: Some(self.to),
            at: Some(at),
            before: transaction.before(self.before),
            reason: self.reason,
            created: transaction.now(),
            accepted: Some(transaction.now()),
            lowered: false,
        };
        transaction.plan(planned, "move.plan")
    }
}

/// A holder offers devices of its own to another member.
pub struct OfferMove {
    /// Who holds them.
    pub holder: MemberId,
    /// The devices.
    pub devices: Vec<DevEui>,
    /// Who is to get them.
    pub to: MemberId,
    /// When; as soon as the receiver accepts where it is none.
    pub at: Option<Seconds>,
    /// Seconds before, from when on caches are prepared; twice the TTL where it is none.
    pub before: Option<Seconds>,
    /// Why.
    pub reason: String,
}

impl Act for OfferMove {
    type Done = Moved;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Moved, Option<Note>), Refusal> {
        check_text("the reason", &self.reason)?;
        transaction.active_member(&self.holder)?;
        transaction.active_member(&self.to)?;
        let devices = checked(self.devices)?;
        if let Some(device) = devices.iter().find(|device| transaction.view.holder(**device) != Some(&self.holder)) {
            return Err(OwnershipRefusal::NotHeld { device: *device, member: self.holder }.into());
        }
        let offered = Move {
            id: transaction.next_number(),
            devices,
            from: Some(self.holder),
            to: self.to,
            netid: None,
            at: self.at,
            before: transaction.before(self.before),
            reason: self.reason,
            created: transaction.now(),
            accepted: None,
            lowered: false,
        };
        if offered.from.as_ref() == Some(&offered.to) {
            let problem = "is to the member that holds the devices: its own list puts them under another NetID";
            return Err(OwnershipRefusal::MoveState { id: offered.id, problem }.into());
        }
        transaction.plan(offered, "move.offer")
    }
}

/// The receiver accepts an offer. Without a time, or after it, the devices go at once.
pub struct AcceptMove {
    /// Which move.
    pub id: u64,
    /// The receiver.
    pub receiver: MemberId,
    /// Its NetID that the devices go to.
    pub netid: NetId,
}

impl Act for AcceptMove {
    type Done = Moved;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Moved, Option<Note>), Refusal> {
        transaction.active_member(&self.receiver)?;
        let offered = transaction.planned(self.id)?;
        if offered.to != self.receiver {
            return Err(OwnershipRefusal::NoMove(self.id).into());
        }
        if offered.accepted.is_some() {
            return Err(OwnershipRefusal::MoveState { id: self.id, problem: "is accepted already" }.into());
        }
        transaction.own_network(self.netid, &self.receiver)?;
        transaction.check_not_filled(self.netid)?;
        let now = transaction.now();
        if offered.at.is_some_and(|at| at > now) {
            let accepted = Move { netid: Some(self.netid), accepted: Some(now), ..Move::clone(&offered) };
            let note = Note::new("move.accept", self.id, json!({ "netid": self.netid, "at": accepted.at }));
            transaction.write_move(accepted)?;
            let serial = transaction.view.zones.serial();
            return Ok((Moved { waits: Some(self.id), moved: 0, stayed: 0, filled: vec![], serial }, Some(note)));
        }
        let moved = transaction.move_now(&offered.devices, offered.from.as_ref(), &self.receiver, self.netid)?;
        transaction.forget_move(self.id);
        let detail = json!({
            "netid": self.netid, "from": offered.from, "moved": moved.moved, "stayed": moved.stayed,
        });
        Ok((moved, Some(Note::new("move.accept", self.id, detail))))
    }
}

/// Takes a move back, declines it, or stops it before its time.
pub struct CancelMove {
    /// Which.
    pub id: u64,
    /// The member on either side of it. None is an administrator.
    pub member: Option<MemberId>,
    /// Why.
    pub reason: Option<String>,
}

impl Act for CancelMove {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        if let Some(reason) = &self.reason {
            check_text("the reason", reason)?;
        }
        let planned = transaction.planned(self.id)?;
        if let Some(member) = &self.member {
            transaction.active_member(member)?;
            if planned.from.as_ref() != Some(member) && planned.to != *member {
                return Err(OwnershipRefusal::NoMove(self.id).into());
            }
            if planned.from.is_none() {
                let problem = "was ordered by an administrator, and only an administrator can cancel it";
                return Err(OwnershipRefusal::MoveState { id: self.id, problem }.into());
            }
        }
        transaction.forget_move(self.id);
        let detail = json!({ "by": self.member, "reason": self.reason, "devices": planned.devices.len() });
        Ok(((), Some(Note::new("move.cancel", self.id, detail))))
    }
}

/// What the clock has brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing is due.
    Nothing,
    /// Caches are being prepared for this move.
    Prepared(u64),
    /// This move is done.
    Done(u64, Moved),
    /// This move could not be done, and is cancelled with the reason.
    Failed(u64, String),
}

/// Does the next thing that is due, one move each time: call it until nothing is.
pub struct RunMove;

impl Act for RunMove {
    type Done = Due;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Due, Option<Note>), Refusal> {
        let now = transaction.now();
        let moves = transaction.view.ownership.moves.values();
        let due = moves
            .filter_map(|planned| Some((planned.next().filter(|next| *next <= now)?, planned)))
            .min_by_key(|(next, planned)| (*next, planned.id));
        let Some(planned) = due.map(|(_, planned)| Arc::clone(planned)) else { return Ok((Due::Nothing, None)) };
        let id = planned.id;
        let (Some(at), Some(netid)) = (planned.at, planned.netid) else { return Ok((Due::Nothing, None)) };
        if at > now {
            transaction.write_move(Move { lowered: true, ..Move::clone(&planned) })?;
            return Ok((Due::Prepared(id), Some(Note::new("move.prepare", id, json!({ "at": at })))));
        }
        let done = transaction
            .active_member(&planned.to)
            .and_then(|_| transaction.check_not_filled(netid))
            .and_then(|()| transaction.move_now(&planned.devices, planned.from.as_ref(), &planned.to, netid));
        transaction.forget_move(id);
        match done {
            Ok(moved) => {
                let detail = json!({
                    "netid": netid, "from": planned.from, "moved": moved.moved, "stayed": moved.stayed,
                });
                Ok((Due::Done(id, moved), Some(Note::new("move.done", id, detail))))
            }
            Err(refusal @ (Refusal::Engine(_) | Refusal::Row(_))) => Err(refusal),
            Err(refusal) => {
                let reason = refusal.to_string();
                let note = Note::new("move.fail", id, json!({ "reason": reason, "code": refusal.code() }));
                Ok((Due::Failed(id, reason), Some(note)))
            }
        }
    }
}

impl Transaction<'_> {
    /// A number that is never used again: that of the audit row to come.
    pub(super) fn next_number(&self) -> u64 {
        self.view.audit.number + 1
    }

    fn before(&self, asked: Option<Seconds>) -> Seconds {
        let usual = BEFORE_TTLS * Seconds::from(self.view.zones.timing().ttl);
        asked.map_or(usual, |asked| asked.clamp(0, 7 * 86_400))
    }

    fn planned(&self, id: u64) -> Result<Arc<Move>, Refusal> {
        let planned = self.view.ownership.moves.get(&id).cloned();
        planned.ok_or_else(|| OwnershipRefusal::NoMove(id).into())
    }

    /// Records a move that waits for somebody or for its time.
    fn plan(&mut self, planned: Move, act: &'static str) -> Result<(Moved, Option<Note>), Refusal> {
        let too_many = |what, count, limit| Err(OwnershipRefusal::TooMany { what, count, limit }.into());
        let (count, moves) = (planned.devices.len(), &self.view.ownership.moves);
        let giver = planned.from.as_ref();
        let own = moves.values().filter(|other| giver.is_some() && other.from.as_ref() == giver).count();
        let open = moves.len();
        match () {
            () if count == 0 => return too_many("moves of no device", 1, 0),
            () if count > MAX_MOVE_DEVICES => return too_many("devices of a planned move", count, MAX_MOVE_DEVICES),
            () if open >= MAX_MOVES => return too_many("moves", open + 1, MAX_MOVES),
            () if own >= MAX_OFFERS => return too_many("offers of one member", own + 1, MAX_OFFERS),
            () if planned.at.is_some_and(|at| at > self.now() + MAX_MOVE_DAYS * 86_400) => {
                let problem = "is planned for more than 400 days ahead";
                return Err(OwnershipRefusal::MoveState { id: planned.id, problem }.into());
            }
            () => {}
        }
        let id = planned.id;
        let detail = json!({
            "devices": count, "from": planned.from, "to": planned.to, "netid": planned.netid, "at": planned.at,
            "reason": planned.reason,
        });
        self.write_move(planned)?;
        let moved = Moved { waits: Some(id), moved: 0, stayed: 0, filled: vec![], serial: self.view.zones.serial() };
        Ok((moved, Some(Note::new(act, id, detail))))
    }

    fn write_move(&mut self, planned: Move) -> Result<(), Refusal> {
        self.put(Table::Moves, planned.id.to_be_bytes(), &planned)?;
        let lowered = planned.lowered;
        self.view.ownership.moves.insert(planned.id, Arc::new(planned));
        if lowered {
            self.view.zones = self.view.zones.with_moving(self.view.ownership.moving());
        }
        Ok(())
    }

    fn forget_move(&mut self, id: u64) {
        self.batch.delete(Table::Moves, id.to_be_bytes());
        if self.view.ownership.moves.remove(&id).is_some_and(|planned| planned.lowered) {
            self.view.zones = self.view.zones.with_moving(self.view.ownership.moving());
        }
    }

    /// Moves of a member that leaves are off.
    pub(super) fn forget_moves_of(&mut self, member: &MemberId) {
        let moves = self.view.ownership.moves.values();
        let of = moves.filter(|planned| planned.to == *member || planned.from.as_ref() == Some(member));
        let ids: Vec<u64> = of.map(|planned| planned.id).collect();
        ids.into_iter().for_each(|id| self.forget_move(id));
    }

    /// Moves what is still the giver's, in one serial. What a source of the receiver's own brings stays: the next transfer
    /// would undo it.
    fn move_now(
        &mut self,
        devices: &[DevEui],
        from: Option<&MemberId>,
        to: &MemberId,
        netid: NetId,
    ) -> Result<Moved, Refusal> {
        let goes = |device: &DevEui| {
            let holder = self.view.holder(*device);
            holder.is_some() && from.is_none_or(|from| holder == Some(from))
        };
        let filled = |device: &DevEui| {
            let held = self.view.zones.devices().get(*device).filter(|held| *held != netid);
            held.is_some_and(|held| self.view.sources.get(&held).is_some_and(|source| source.member == *to))
        };
        let (filled, free): (Vec<_>, Vec<_>) = devices.iter().copied().filter(goes).partition(filled);
        let targets: Vec<_> = free.into_iter().map(|device| (device, netid)).collect();
        let settled = self.hand_over(&targets, to)?;
        let stayed = devices.len() as u64 - settled.moved;
        let filled = filled.into_iter().take(CLAIMS_SHOWN).collect();
        Ok(Moved { waits: None, moved: settled.moved, stayed, filled, serial: settled.serial })
    }
}
