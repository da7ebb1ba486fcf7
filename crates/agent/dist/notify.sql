-- Tells the agent of changes of devices, so that they reach the federation within a second and not at the next look.
-- For ChirpStack v4 and v3 on PostgreSQL; once, as the owner of the tables or as its superuser:
--
--     sudo -u postgres psql -d chirpstack < notify.sql
--
-- One notification a statement, without content: the agent reads the list itself. What ChirpStack writes at each uplink is
-- in other columns, and tells nobody.

create or replace function dnsbroker_devices_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('dnsbroker_devices', '');
    return null;
end
$$;

drop trigger if exists dnsbroker_devices on device;
create trigger dnsbroker_devices
    after insert or delete or update of dev_eui, device_profile_id, is_disabled on device
    for each statement execute function dnsbroker_devices_changed();

drop trigger if exists dnsbroker_devices on device_profile;
create trigger dnsbroker_devices
    after update on device_profile
    for each statement execute function dnsbroker_devices_changed();

-- A role that may read what the agent reads, and nothing else; keys are in other tables. With the name of the agent's user it needs
-- no password on the database's own machine (peer authentication over the socket, Debian's default); else give it one
-- (alter role "dnsbroker-agent" password '...') and the agent a `password_file`. For v4:
--
--     create role "dnsbroker-agent" login;
--     grant select (dev_eui, device_profile_id, application_id, is_disabled) on device to "dnsbroker-agent";
--     grant select (id, allow_roaming, supports_otaa) on device_profile to "dnsbroker-agent";
--     grant select (id, tenant_id) on application to "dnsbroker-agent";
--
-- For v3 (database chirpstack_ns):
--
--     create role "dnsbroker-agent" login;
--     grant select (dev_eui, device_profile_id, service_profile_id, is_disabled) on device to "dnsbroker-agent";
--     grant select (device_profile_id, supports_join) on device_profile to "dnsbroker-agent";
--     grant select (service_profile_id, pr_allowed) on service_profile to "dnsbroker-agent";
