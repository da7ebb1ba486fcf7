//! `status`: what the running daemon does.

use dnsbroker_api::message::{Expiry, Status};
use dnsbroker_api::statistics::SourceTrouble;

use super::Context;

pub(super) async fn status(context: &Context) -> anyhow::Result<()> {
    let status: Status = context.client.status().await?;
    context.output.print(&status, text);
    Ok(())
}

fn text(status: &Status) -> String {
    let join = |addresses: &[std::net::SocketAddr]| {
        let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if text.is_empty() { "off".to_owned() } else { text.join(", ") }
    };
    let Status { version, federation, broker, started, store, serial, devices, netids, members, listeners, .. } =
        status;
    let state = match &status.trouble {
        None => "ready".to_owned(),
        Some(trouble) => format!("IN TROUBLE: {trouble}"),
    };
    let mut text = format!(
        "dnsbroker {version}: {state}\n\
         federation  {federation} (broker {broker})\n\
         started     {started}\n\
         store       {store}\n\
         zones       serial {serial}: {devices} devices, {netids} NetIDs, {members} members\n\
         DoH         {} {}\n\
         plain DNS   {}\n\
         XoT         {}\n\
         API         {} {}\n\
         metrics     {}\n\
         PKI         {} {}\n\
         audit       head {}:{}\n",
        join(&listeners.doh),
        listeners.doh_url,
        join(&listeners.dns),
        join(&listeners.xot),
        join(&listeners.api),
        listeners.api_url,
        join(&listeners.metrics),
        join(&listeners.pki),
        listeners.pki_url,
        status.audit.number,
        status.audit.hash,
    );
    for Expiry { name, not_after } in &status.certificates {
        text.push_str(&format!("certificate {name}: until {not_after}\n"));
    }
    for Expiry { name, not_after } in &status.overdue {
        text.push_str(&format!("NOT RENEWED: the certificate of {name}, until {not_after}\n"));
    }
    for notice in &status.notices {
        text.push_str(&format!("notice: {notice}\n"));
    }
    for SourceTrouble { netid, member, state, reason } in &status.sources {
        text.push_str(&format!("SOURCE {netid} of {member} is {state}: {reason}\n"));
    }
    if status.claims > 0 {
        text.push_str(&format!("claims      {} wait for a decision: `dnsbroker device claim list`\n", status.claims));
    }
    text
}
