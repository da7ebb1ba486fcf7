-- Tables of ChirpStack v3's network server (database chirpstack_ns), as far as a device depends on them.
create table device_profile (
    created_at timestamptz not null, updated_at timestamptz not null, device_profile_id uuid primary key,
    supports_class_b boolean not null, supports_class_c boolean not null, mac_version varchar(10) not null,
    reg_params_revision varchar(20) not null, supports_join boolean not null, rf_region varchar(20) not null,
    supports_32bit_fcnt boolean not null
);
create table service_profile (
    created_at timestamptz not null, updated_at timestamptz not null, service_profile_id uuid primary key,
    ul_rate integer not null, dl_rate integer not null, add_gw_metadata boolean not null, channel_mask bytea,
    pr_allowed boolean not null, hr_allowed boolean not null, ra_allowed boolean not null, nwk_geo_loc boolean not null
);
create table device (
    dev_eui bytea primary key, created_at timestamptz not null, updated_at timestamptz not null,
    device_profile_id uuid not null references device_profile on delete cascade,
    service_profile_id uuid not null references service_profile on delete cascade, routing_profile_id uuid not null,
    skip_fcnt_check boolean not null, reference_altitude double precision not null, mode char(1) not null,
    is_disabled boolean not null
);
create table device_activation (
    id bigserial primary key, created_at timestamptz not null, dev_eui bytea not null references device on delete cascade,
    join_eui bytea not null, dev_addr bytea not null, f_nwk_s_int_key bytea not null, dev_nonce integer not null
);

insert into device_profile
select now(), now(), ('00000000-0000-0000-0000-0000000000c' || number)::uuid, false, false, '1.0.3', 'A', number <> 3, 'EU868', true
from generate_series(1, 3) as number;
insert into service_profile
select now(), now(), ('00000000-0000-0000-0000-0000000000d' || number)::uuid, 0, 0, true, null, number = 1, false, false, false
from generate_series(1, 2) as number;
