-- Tables of ChirpStack v4 on PostgreSQL, as far as a device depends on them: the columns and types of its migrations up to
-- version 4.15, and the table of keys, which the agent must never need.
create table tenant (
    id uuid primary key, created_at timestamptz not null, updated_at timestamptz not null, name varchar(100) not null,
    description text not null, can_have_gateways boolean not null, max_device_count integer not null,
    max_gateway_count integer not null, private_gateways_up boolean not null, private_gateways_down boolean not null,
    tags jsonb not null
);
create table application (
    id uuid primary key, tenant_id uuid not null references tenant on delete cascade, created_at timestamptz not null,
    updated_at timestamptz not null, name varchar(100) not null, description text not null, mqtt_tls_cert bytea,
    tags jsonb not null
);
create table device_profile (
    id uuid primary key, tenant_id uuid references tenant on delete cascade, created_at timestamptz not null,
    updated_at timestamptz not null, name varchar(100) not null, region varchar(10) not null,
    mac_version varchar(10) not null, reg_params_revision varchar(20) not null, adr_algorithm_id varchar(100) not null,
    payload_codec_runtime varchar(20) not null, uplink_interval integer not null,
    device_status_req_interval integer not null, supports_otaa boolean not null, supports_class_b boolean not null,
    supports_class_c boolean not null, tags jsonb not null, payload_codec_script text not null,
    flush_queue_on_activate boolean not null, description text not null, measurements jsonb not null,
    auto_detect_measurements boolean not null, region_config_id varchar(100), allow_roaming boolean not null,
    rx1_delay smallint not null, abp_params jsonb, class_b_params jsonb, class_c_params jsonb, relay_params jsonb
);
create table device (
    dev_eui bytea primary key, application_id uuid not null references application on delete cascade,
    device_profile_id uuid not null references device_profile on delete cascade, created_at timestamptz not null,
    updated_at timestamptz not null, last_seen_at timestamptz, scheduler_run_after timestamptz,
    name varchar(100) not null, description text not null, external_power_source boolean not null,
    battery_level numeric(5, 2), margin int, dr smallint, latitude double precision, longitude double precision,
    altitude real, dev_addr bytea, enabled_class char(1) not null, skip_fcnt_check boolean not null,
    is_disabled boolean not null, tags jsonb not null, variables jsonb not null, join_eui bytea not null,
    secondary_dev_addr bytea, device_session bytea, app_layer_params jsonb not null, f_cnt_up bigint not null
);
create table device_keys (
    dev_eui bytea primary key references device on delete cascade, created_at timestamptz not null,
    updated_at timestamptz not null, nwk_key bytea not null, app_key bytea not null, dev_nonces jsonb not null,
    join_nonce int not null, gen_app_key bytea not null
);

insert into tenant values
    ('00000000-0000-0000-0000-0000000000a1', now(), now(), 'ours', '', true, 0, 0, false, false, '{}'),
    ('00000000-0000-0000-0000-0000000000a2', now(), now(), 'theirs', '', true, 0, 0, false, false, '{}');
insert into application values
    ('00000000-0000-0000-0000-0000000000b1', '00000000-0000-0000-0000-0000000000a1', now(), now(), 'meters', '', null, '{}'),
    ('00000000-0000-0000-0000-0000000000b2', '00000000-0000-0000-0000-0000000000a2', now(), now(), 'guests', '', null, '{}');
-- Profiles c1: joins and may roam; c2: may not roam; c3: does not join.
insert into device_profile
select ('00000000-0000-0000-0000-0000000000c' || number)::uuid, '00000000-0000-0000-0000-0000000000a1', now(), now(),
       'profile ' || number, 'EU868', '1.0.3', 'A', 'default', 'NONE', 3600, 1, number <> 3, false, false, '{}', '', true, '',
       '{}', true, null, number <> 2, 0, null, null, null, null
from generate_series(1, 3) as number;
