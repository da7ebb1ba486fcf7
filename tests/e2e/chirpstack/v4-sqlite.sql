-- Tables of ChirpStack v4 on SQLite, as far as a device depends on them: ids are text, DevEUIs are blobs.
create table tenant (id text not null primary key, name varchar(100) not null, tags text not null default '{}');
create table application (
    id text not null primary key, tenant_id text not null references tenant on delete cascade, created_at datetime not null,
    updated_at datetime not null, name varchar(100) not null, description text not null, mqtt_tls_cert blob,
    tags text not null default '{}'
);
create table device_profile (
    id text not null primary key, tenant_id text references tenant on delete cascade, created_at datetime not null,
    updated_at datetime not null, name varchar(100) not null, region varchar(10) not null,
    supports_otaa boolean not null, supports_class_b boolean not null, supports_class_c boolean not null,
    tags text not null, allow_roaming boolean not null default TRUE, rx1_delay smallint not null default 0
);
create table device (
    dev_eui blob not null primary key, application_id text not null references application on delete cascade,
    device_profile_id text not null references device_profile on delete cascade, created_at datetime not null,
    updated_at datetime not null, last_seen_at datetime, scheduler_run_after datetime, name varchar(100) not null,
    description text not null, external_power_source boolean not null, battery_level numeric(5, 2), margin int,
    dr smallint, latitude double precision, longitude double precision, altitude real, dev_addr blob,
    enabled_class char(1) not null, skip_fcnt_check boolean not null, is_disabled boolean not null, tags text not null,
    variables text not null, join_eui blob not null default x'00000000', secondary_dev_addr blob, device_session blob
);
create table device_keys (
    dev_eui blob not null primary key references device on delete cascade, created_at datetime not null,
    updated_at datetime not null, nwk_key blob not null, app_key blob not null, dev_nonces text not null,
    join_nonce int not null
);
pragma journal_mode = wal;
insert into tenant (id, name) values ('a1', 'ours'), ('a2', 'theirs');
insert into application values
    ('b1', 'a1', 0, 0, 'meters', '', null, '{}'), ('b2', 'a2', 0, 0, 'guests', '', null, '{}');
insert into device_profile values
    ('c1', 'a1', 0, 0, 'roams', 'EU868', true, false, false, '{}', true, 0),
    ('c2', 'a1', 0, 0, 'stays', 'EU868', true, false, false, '{}', false, 0),
    ('c3', 'a1', 0, 0, 'abp', 'EU868', false, false, false, '{}', true, 0);
