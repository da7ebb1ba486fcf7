//! The endpoints of `/api/v1`. Each is here once; see [`endpoint`](crate::endpoint).

use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId};
use http::Method;

use crate::account::{
    Administrator, ApiToken, ChangeAdministrator, Login, NewAdministrator, NewApiToken, NewPassword, OpenSession,
    Session, TotpCode, TotpSecret,
};
use crate::client::{Client, ClientError};
use crate::endpoint::{Content, Endpoint, endpoints, fill, query_of, schema_of};
use crate::event::ListenEvents;
use crate::exchange::{Key, NewKey, Replica, SetReplica, SetSource, Source};
use crate::listed::{
    ChangeOptions, ExportOptions, ImportOptions, ListAdministrators, ListApiTokens, ListAudit, ListCertificates,
    ListClaims, ListDevices, ListKeys, ListMembers, ListMoves, ListNetids, ListReplicas, ListSources, ListTokens,
    ListWebhooks, LookUp, RootCrlOptions,
};
use crate::message::*;
use crate::operator::{Bundle, DeviceChanges, Directory, Myself, NetIdAnchors, Renew};
use crate::ownership::{
    AcceptMove, CancelMove, Claim, DecideClaims, DeviceEvent, Limits, Move, Moved, NewMove, Policy, PolicyChange,
    ReleaseDevices, Settled, WithdrawClaims,
};
use crate::standby::{Follow, Heard, StandbyCertificate, StandbyLogin, Standing, TakenOver};
use crate::statistics::Statistics;
use crate::webhook::{SetWebhook, Webhook, WebhookTest};

endpoints! {
    /// A certificate for the bearer of a one-time token.
    enroll() body(Enroll) -> Issued = 201 POST "/api/v1/enroll", None;
    /// The federation's CA.
    ca_show() -> Ca = 200 GET "/api/v1/ca", Some("ca show");
    /// A new certificate for the holder of the one of this connection.
    renew() body(Renew) -> Issued = 201 POST "/api/v1/renew", None;
    /// Who the caller is here.
    myself() -> Myself = 200 GET "/api/v1/self", None;
    /// The federation as its members see it: brokers, NetIDs, names.
    directory() -> Directory = 200 GET "/api/v1/directory", None;
    /// What the servers of members are trusted by.
    bundle() -> Bundle = 200 GET "/api/v1/bundle", None;

    /// An administrator logs in; the session's cookie comes with the answer.
    session_open() body(Login) -> Session = 201 POST "/api/v1/session", None;
    /// Who is calling, by session, token or certificate.
    session_show() -> Session = 200 GET "/api/v1/session", None;
    /// Logs out.
    session_close() -> () = 204 DELETE "/api/v1/session", None;
    /// Changes one's own password; other sessions end.
    session_password() body(NewPassword) -> Session = 200 PUT "/api/v1/session/password", None;
    /// A secret for a second factor, which is used once a code of it was given.
    session_totp_begin() -> TotpSecret = 200 POST "/api/v1/session/totp", None;
    /// Takes the second factor into use.
    session_totp_confirm() body(TotpCode) -> Session = 200 PUT "/api/v1/session/totp", None;
    /// One's own sessions, the last one used first.
    session_list() -> Page<OpenSession> = 200 GET "/api/v1/sessions", None;
    /// Ends one of one's own sessions.
    session_end(id: str) -> () = 204 DELETE "/api/v1/sessions/{id}", None;
    /// Administrators and auditors.
    administrator_list() query(ListAdministrators) -> Page<Administrator> = 200 GET "/api/v1/administrators", Some("admin list");
    /// Adds an administrator or auditor.
    administrator_add() body(NewAdministrator) -> Administrator = 201 POST "/api/v1/administrators", Some("admin add");
    /// Changes role, password, second factor, or whether they may log in.
    administrator_change(name: str) body(ChangeAdministrator) -> Administrator = 200 PATCH "/api/v1/administrators/{name}", Some("admin change");
    /// Removes an administrator, with their API tokens.
    administrator_remove(name: str) -> () = 204 DELETE "/api/v1/administrators/{name}", Some("admin remove");
    /// API tokens; never their secrets. A member sees its own.
    api_token_list() query(ListApiTokens) -> Page<ApiToken> = 200 GET "/api/v1/api-tokens", Some("api-token list");
    /// Makes an API token; its secret is in the answer and nowhere else.
    api_token_create() body(NewApiToken) -> ApiToken = 201 POST "/api/v1/api-tokens", Some("api-token create");
    /// Makes an API token worthless.
    api_token_revoke(id: str) -> () = 204 DELETE "/api/v1/api-tokens/{id}", Some("api-token revoke");

    /// Claims: devices that one member wants and another holds. A member sees those by it and against it.
    claim_list() query(ListClaims) -> Page<Claim> = 200 GET "/api/v1/claims", Some("device claim list");
    /// An administrator decides claims.
    claim_decide() body(DecideClaims) -> Settled = 200 POST "/api/v1/claims/decide", Some("device claim decide");
    /// A claimant gives its claims up.
    claim_withdraw() body(WithdrawClaims) -> Settled = 200 POST "/api/v1/claims/withdraw", Some("device claim withdraw");
    /// A holder lets devices go, to one who claims them or to nobody.
    device_release() body(ReleaseDevices) -> Settled = 200 POST "/api/v1/devices/release", Some("device release");
    /// Moves that wait for somebody or for their time; a member sees its own.
    move_list() query(ListMoves) -> Page<Move> = 200 GET "/api/v1/moves", Some("device transfer list");
    /// Devices go from one operator to another: an administrator orders it, a holder offers it.
    move_create() body(NewMove) -> Moved = 201 POST "/api/v1/moves", Some("device transfer start");
    /// The receiver accepts.
    move_accept(id: u64) body(AcceptMove) -> Moved = 200 POST "/api/v1/moves/{id}/accept", Some("device transfer accept");
    /// Takes a move back, declines it, or stops it before its time.
    move_cancel(id: u64) body(CancelMove) -> () = 204 POST "/api/v1/moves/{id}/cancel", Some("device transfer cancel");
    /// What happened to a device, oldest first.
    device_history(deveui: DevEui) -> Page<DeviceEvent> = 200 GET "/api/v1/devices/{deveui}/history", Some("device history");
    /// Devices that come and go, in one step and under one serial.
    device_change(id: MemberId, netid: NetId) query(ChangeOptions) body(DeviceChanges) -> ImportReport = 200 PATCH "/api/v1/members/{id}/netids/{netid}/devices", None;
    /// What devices a member may register.
    limits_show(id: MemberId) -> Limits = 200 GET "/api/v1/members/{id}/limits", Some("member limits");
    /// Says what devices a member may register.
    limits_set(id: MemberId) body(Limits) -> Limits = 200 PUT "/api/v1/members/{id}/limits", Some("member limits");
    /// Who may resolve whose devices. A member sees what it has set, and its agreements.
    policy_show() -> Policy = 200 GET "/api/v1/policy", Some("policy show");
    /// Puts another policy in the place of the one there is.
    policy_set() body(Policy) -> Policy = 200 PUT "/api/v1/policy", Some("policy set");
    /// Changes one rule, and leaves the others.
    policy_change() body(PolicyChange) -> Policy = 200 POST "/api/v1/policy/changes", Some("policy change");

    /// What the running daemon does.
    status() -> Status = 200 GET "/api/v1/status", Some("status");
    /// Members of the federation.
    member_list() query(ListMembers) -> Page<Member> = 200 GET "/api/v1/members", Some("member list");
    /// Adds a member.
    member_add() body(NewMember) -> Member = 201 POST "/api/v1/members", Some("member add");
    /// One member.
    member_show(id: MemberId) -> Member = 200 GET "/api/v1/members/{id}", Some("member show");
    /// Changes a member's name for people.
    member_change(id: MemberId) body(ChangeMember) -> Member = 200 PATCH "/api/v1/members/{id}", Some("member rename");
    /// Takes a member out that holds nothing any more; its certificates are revoked.
    member_remove(id: MemberId) -> () = 204 DELETE "/api/v1/members/{id}", Some("member remove");
    /// Refuses a member everything, at once, until it is resumed.
    member_suspend(id: MemberId) body(Reason) -> Member = 200 POST "/api/v1/members/{id}/suspend", Some("member suspend");
    /// Ends a suspension.
    member_resume(id: MemberId) -> Member = 200 POST "/api/v1/members/{id}/resume", Some("member resume");
    /// Lets a member renew a certificate that has expired, for some time.
    member_grace(id: MemberId) body(Grace) -> Member = 200 PUT "/api/v1/members/{id}/grace", Some("member grace");
    /// Approves a name outside the federation for the certificates of a member's servers.
    member_approve(id: MemberId, name: DomainName) -> Member = 200 PUT "/api/v1/members/{id}/names/{name}", Some("member approve");
    /// Takes such an approval back.
    member_withdraw(id: MemberId, name: DomainName) -> Member = 200 DELETE "/api/v1/members/{id}/names/{name}", Some("member approve");

    /// NetIDs and where their network servers are.
    netid_list() query(ListNetids) -> Page<Network> = 200 GET "/api/v1/netids", Some("netid list");
    /// One NetID.
    netid_show(netid: NetId) -> Network = 200 GET "/api/v1/netids/{netid}", Some("netid show");
    /// Gives a NetID to a member, or changes where its network server is.
    netid_set(netid: NetId) body(SetNetwork) -> Network = 200 PUT "/api/v1/netids/{netid}", Some("netid set");
    /// Takes a NetID without devices out of the federation.
    netid_remove(netid: NetId) -> () = 204 DELETE "/api/v1/netids/{netid}", Some("netid remove");
    /// Publishes what the servers of a NetID are trusted by, or with an empty body takes it back.
    netid_anchors(netid: NetId) body(SetAnchors) -> Option<NetIdAnchors> = 200 PUT "/api/v1/netids/{netid}/anchors", Some("netid anchors");

    /// One-time tokens; never their secrets.
    token_list() query(ListTokens) -> Page<Token> = 200 GET "/api/v1/tokens", Some("token list");
    /// Makes a one-time token; its secret is in the answer and nowhere else.
    token_create() body(NewToken) -> Token = 201 POST "/api/v1/tokens", Some("token create");

    /// Certificates; a member sees its own.
    certificate_list() query(ListCertificates) -> Page<Certificate> = 200 GET "/api/v1/certificates", Some("cert list");
    /// Issues a certificate: an administrator for everybody, a member for its servers and gateways.
    certificate_issue() body(IssueCertificate) -> Issued = 201 POST "/api/v1/certificates", Some("cert issue");
    /// One certificate.
    certificate_show(serial: str) -> Certificate = 200 GET "/api/v1/certificates/{serial}", Some("cert show");
    /// Revokes a certificate.
    certificate_revoke(serial: str) body(Reason) -> Certificate = 200 POST "/api/v1/certificates/{serial}/revoke", Some("cert revoke");
    /// Issues a certificate in the place of another, whenever an administrator likes.
    certificate_renew(serial: str) body(RenewCertificate) -> Issued = 201 POST "/api/v1/certificates/{serial}/renew", Some("cert renew");
    /// Revokes all certificates of a key, a lineage, a member or a replica.
    certificate_revoke_several() body(RevokeCertificates) -> Page<Certificate> = 200 POST "/api/v1/certificates/revoke", Some("cert revoke");
    /// A request for the certificate of an issuing CA, to be signed where the root's key is.
    ca_request() body(RequestIssuing) -> IssuingRequest = 200 POST "/api/v1/ca/request", Some("ca request");
    /// Takes the certificate that the root has signed.
    ca_install() body(InstallCa) -> Ca = 200 PUT "/api/v1/ca/issuing", Some("ca install");
    /// Takes the issuing CA for network servers alone out of use: the issuing CA signs their certificates again.
    ca_retire() -> Ca = 200 DELETE "/api/v1/ca/lns", Some("ca retire");
    /// The last list of revoked certificates of each issuing CA.
    crl_list() -> Page<Crl> = 200 GET "/api/v1/crls", Some("ca crl");

    /// Devices by DevEUI; a member sees its own.
    device_list() query(ListDevices) -> Page<Device> = 200 GET "/api/v1/devices", Some("device list");
    /// Who has a device.
    device_show(deveui: DevEui) -> Device = 200 GET "/api/v1/devices/{deveui}", Some("device show");
    /// Resolves a device and explains each step and rule.
    device_lookup(deveui: DevEui) query(LookUp) -> Lookup = 200 GET "/api/v1/devices/{deveui}/lookup", Some("device lookup");

    /// TSIG keys; never their secrets.
    key_list() query(ListKeys) -> Page<Key> = 200 GET "/api/v1/keys", Some("key list");
    /// Makes a TSIG key; its secret is in the answer and nowhere else.
    key_create() body(NewKey) -> Key = 201 POST "/api/v1/keys", Some("key create");
    /// Makes a TSIG key worthless.
    key_revoke(name: DomainName) -> () = 204 DELETE "/api/v1/keys/{name}", Some("key revoke");
    /// Servers that may hold copies of the zones.
    replica_list() query(ListReplicas) -> Page<Replica> = 200 GET "/api/v1/replicas", Some("replica list");
    /// One replica.
    replica_show(id: MemberId) -> Replica = 200 GET "/api/v1/replicas/{id}", Some("replica show");
    /// Lets a server hold a copy of the zones, or changes what it may.
    replica_set(id: MemberId) body(SetReplica) -> Replica = 200 PUT "/api/v1/replicas/{id}", Some("replica add");
    /// Takes a replica out.
    replica_remove(id: MemberId) -> () = 204 DELETE "/api/v1/replicas/{id}", Some("replica remove");
    /// Primaries that fill NetIDs.
    source_list() query(ListSources) -> Page<Source> = 200 GET "/api/v1/sources", Some("source list");
    /// One source and what it does.
    source_show(netid: NetId) -> Source = 200 GET "/api/v1/sources/{netid}", Some("source show");
    /// Fills a NetID from a member's primary.
    source_set(netid: NetId) body(SetSource) -> Source = 200 PUT "/api/v1/sources/{netid}", Some("source add");
    /// Fills a NetID no more from a primary; its devices stay.
    source_remove(netid: NetId) -> () = 204 DELETE "/api/v1/sources/{netid}", Some("source remove");
    /// Asks the primary now.
    source_refresh(netid: NetId) -> Source = 200 POST "/api/v1/sources/{netid}/refresh", Some("source refresh");
    /// Takes a transfer that was held back.
    source_accept(netid: NetId) -> Source = 200 POST "/api/v1/sources/{netid}/accept", Some("source accept");

    /// Where events are posted to, and how that goes; a member sees its own.
    webhook_list() query(ListWebhooks) -> Page<Webhook> = 200 GET "/api/v1/webhooks", Some("webhook list");
    /// Has events posted to a URL; the secret of their signatures is in the answer and nowhere else.
    webhook_add() body(SetWebhook) -> Webhook = 201 POST "/api/v1/webhooks", Some("webhook add");
    /// One webhook.
    webhook_show(id: u64) -> Webhook = 200 GET "/api/v1/webhooks/{id}", Some("webhook list");
    /// Changes a webhook; one that was disabled works again.
    webhook_set(id: u64) body(SetWebhook) -> Webhook = 200 PUT "/api/v1/webhooks/{id}", Some("webhook set");
    /// Posts nothing there any more.
    webhook_remove(id: u64) -> () = 204 DELETE "/api/v1/webhooks/{id}", Some("webhook remove");
    /// Posts one message to it, once.
    webhook_test(id: u64) -> WebhookTest = 200 POST "/api/v1/webhooks/{id}/test", Some("webhook test");
    /// What this broker is in its federation: the primary, a standby, or one that was replaced.
    standby() -> Standing = 200 GET "/api/v1/standby", Some("standby status");
    /// A standby takes the place of the primary.
    standby_promote() -> Standing = 200 POST "/api/v1/standby/promote", Some("standby promote");
    /// A certificate for the server of the standby that asks.
    replication_certificate() body(StandbyCertificate) -> Issued = 201 POST "/api/v1/replication/certificate", None;
    /// A standby says what it has, and that it is there.
    replication_heard() body(Heard) -> () = 204 POST "/api/v1/replication/heard", None;
    /// An administrator logs in at a standby: the login is in the primary's audit, and the one-time code is used up.
    replication_login() body(StandbyLogin) -> () = 204 POST "/api/v1/replication/login", None;
    /// A standby has become the primary: this broker steps down.
    replication_fence() body(TakenOver) -> () = 204 POST "/api/v1/replication/fence", None;
    /// What the broker does and has, in figures; a member sees its own share.
    statistics() -> Statistics = 200 GET "/api/v1/statistics", Some("statistics");
    /// The zones with serials and sizes.
    zone_list() -> Page<ZoneInfo> = 200 GET "/api/v1/zones", Some("zone list");
    /// Looks for mistakes in the zones as they are served.
    zone_check() -> ZoneCheck = 200 GET "/api/v1/zones/check", Some("zone check");
    /// Changes by number: oldest first, or newest first.
    audit_list() query(ListAudit) -> Page<AuditRow> = 200 GET "/api/v1/audit", Some("audit list");
    /// Checks that no row of the audit was changed, dropped or put in between.
    audit_verify() -> AuditCheck = 200 GET "/api/v1/audit/verify", Some("audit verify");
}

/// Forms of a list of devices.
pub const LISTS: &[&str] =
    &["application/octet-stream", "text/plain", "text/csv", "application/json", "application/x-ndjson", "text/dns"];

/// Endpoints that take or give octets: lists, exports, backups. Their methods are [`Client::upload`] and
/// [`Client::download`].
pub const STREAMS: &[Endpoint] = &[
    Endpoint {
        name: "device_import",
        method: "POST",
        path: "/api/v1/members/{id}/netids/{netid}/devices",
        about: "Registers, replaces or removes a list of devices.",
        verb: Some("device import"),
        parameters: &[("id", schema_of::<MemberId>), ("netid", schema_of::<NetId>)],
        query: Some(schema_of::<ImportOptions>),
        takes: Content::Octets(LISTS),
        gives: Content::Json(schema_of::<ImportReport>),
        status: 200,
    },
    Endpoint {
        name: "device_replace",
        method: "PUT",
        path: "/api/v1/members/{id}/netids/{netid}/devices",
        about: "The whole list of a NetID: what it does not name is removed.",
        verb: Some("device import"),
        parameters: &[("id", schema_of::<MemberId>), ("netid", schema_of::<NetId>)],
        query: Some(schema_of::<ImportOptions>),
        takes: Content::Octets(LISTS),
        gives: Content::Json(schema_of::<ImportReport>),
        status: 200,
    },
    Endpoint {
        name: "zone_export",
        method: "GET",
        path: "/api/v1/zones/{zone}/export",
        about: "A zone as RFC 1035 text.",
        verb: Some("zone export"),
        parameters: &[("zone", schema_of::<str>)],
        query: Some(schema_of::<ExportOptions>),
        takes: Content::Nothing,
        gives: Content::Octets(&["text/dns"]),
        status: 200,
    },
    Endpoint {
        name: "root_crl_install",
        method: "PUT",
        path: "/api/v1/ca/root-crl",
        about: "Takes the root's list of revoked issuing CAs (DER), and ends what those have signed.",
        verb: Some("ca install"),
        parameters: &[],
        query: Some(schema_of::<RootCrlOptions>),
        takes: Content::Octets(&["application/pkix-crl", "application/octet-stream"]),
        gives: Content::Json(schema_of::<RootCrl>),
        status: 200,
    },
    Endpoint {
        name: "backup",
        method: "GET",
        path: "/api/v1/backup",
        about: "Everything but the root's key and the passphrase, in one file.",
        verb: Some("backup"),
        parameters: &[],
        query: None,
        takes: Content::Nothing,
        gives: Content::Octets(&["application/octet-stream"]),
        status: 200,
    },
    Endpoint {
        name: "replication",
        method: "GET",
        path: "/api/v1/replication",
        about: "Everything that is committed, for a standby: frames without an end, after a copy where that is needed.",
        verb: None,
        parameters: &[],
        query: Some(schema_of::<Follow>),
        takes: Content::Nothing,
        gives: Content::Octets(&["application/octet-stream"]),
        status: 200,
    },
    Endpoint {
        name: "events",
        method: "GET",
        path: "/api/v1/events",
        about: "What happens, as it happens (server-sent events); `Last-Event-ID` or `after` resumes. A member hears of its own.",
        verb: Some("events"),
        parameters: &[],
        query: Some(schema_of::<ListenEvents>),
        takes: Content::Nothing,
        gives: Content::Octets(&["text/event-stream"]),
        status: 200,
    },
];

/// All endpoints.
pub fn all() -> impl Iterator<Item = &'static Endpoint> {
    JSON.iter().chain(STREAMS)
}

/// The one with this name.
pub fn named(name: &str) -> Option<&'static Endpoint> {
    all().find(|endpoint| endpoint.name == name)
}
