PRAGMA user_version = 18;
PRAGMA application_id = 1717658469;
BEGIN TRANSACTION;
CREATE TABLE batches (
	batch_id TEXT NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (batch_id)
);
CREATE TABLE console_accounts (
	account TEXT NOT NULL, 
	role TEXT NOT NULL, 
	password_hash TEXT NOT NULL, 
	created_s DOUBLE NOT NULL, 
	cameras TEXT DEFAULT '' NOT NULL, 
	disabled INTEGER DEFAULT 0 NOT NULL, 
	provider TEXT DEFAULT '' NOT NULL, 
	subject TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (account)
);
CREATE TABLE console_alerts (
	rule_id TEXT NOT NULL, 
	sighting_id TEXT NOT NULL, 
	receiver TEXT NOT NULL, 
	event TEXT NOT NULL, 
	state TEXT NOT NULL, 
	problem TEXT NOT NULL, 
	tries INTEGER NOT NULL, 
	made_s DOUBLE NOT NULL, 
	due_s DOUBLE NOT NULL, 
	PRIMARY KEY (rule_id, sighting_id, receiver), 
	FOREIGN KEY(rule_id) REFERENCES console_rules (rule_id) ON DELETE CASCADE
);
CREATE TABLE console_attempts (
	subject TEXT NOT NULL, 
	failures INTEGER NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (subject)
);
CREATE TABLE console_links (
	digest TEXT NOT NULL, 
	account TEXT NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (digest), 
	FOREIGN KEY(account) REFERENCES console_accounts (account) ON DELETE CASCADE
);
CREATE TABLE console_replies (
	request TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	status INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (request)
);
CREATE TABLE console_rules (
	rule_id TEXT NOT NULL, 
	document TEXT NOT NULL, 
	made_s DOUBLE NOT NULL, 
	PRIMARY KEY (rule_id)
);
CREATE TABLE console_sessions (
	digest TEXT NOT NULL, 
	account TEXT NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	begun_s DOUBLE DEFAULT 0 NOT NULL, 
	address TEXT DEFAULT '' NOT NULL, 
	agent TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (digest), 
	FOREIGN KEY(account) REFERENCES console_accounts (account) ON DELETE CASCADE
);
CREATE TABLE console_tokens (
	token_id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	account TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	created_s DOUBLE NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	cameras TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (token_id), 
	FOREIGN KEY(account) REFERENCES console_accounts (account) ON DELETE CASCADE
);
CREATE TABLE denials (
	sighting_id TEXT NOT NULL, 
	ordinal INTEGER NOT NULL, 
	identity_id TEXT NOT NULL, 
	identity_name TEXT NOT NULL, 
	given_id TEXT NOT NULL, 
	unknown_id TEXT NOT NULL, 
	denied_s DOUBLE NOT NULL, 
	PRIMARY KEY (sighting_id, ordinal)
)
 WITHOUT ROWID

;
CREATE TABLE erasures (
	erasure_id TEXT NOT NULL, 
	made_at TEXT NOT NULL, 
	digests TEXT NOT NULL, 
	PRIMARY KEY (erasure_id)
);
CREATE TABLE newest (
	revision BIGINT NOT NULL, 
	denials INTEGER DEFAULT 0 NOT NULL
);
INSERT INTO "newest" VALUES(3,0);
CREATE TABLE regroupings (
	step TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	from_id TEXT NOT NULL, 
	to_id TEXT NOT NULL, 
	sighting_ids TEXT NOT NULL, 
	whole INTEGER NOT NULL, 
	undone INTEGER NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	samples TEXT DEFAULT '' NOT NULL, 
	changed_s DOUBLE DEFAULT 0 NOT NULL, 
	undo TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (step)
);
CREATE TABLE retention (
	kind TEXT NOT NULL, 
	days DOUBLE NOT NULL, 
	PRIMARY KEY (kind)
);
CREATE TABLE sightings (
	sighting_id TEXT NOT NULL, 
	camera_id TEXT NOT NULL, 
	started_s DOUBLE NOT NULL, 
	ended_s DOUBLE NOT NULL, 
	identity_id TEXT NOT NULL, 
	identity_name TEXT NOT NULL, 
	unknown_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	preprocessing TEXT NOT NULL, 
	template BLOB, 
	evidence INTEGER NOT NULL, 
	quality DOUBLE, 
	event TEXT NOT NULL, 
	account TEXT NOT NULL, 
	corrections INTEGER DEFAULT 0 NOT NULL, 
	recorded_s DOUBLE NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (sighting_id)
);
INSERT INTO "sightings" VALUES('door_1','door',1767268860.0,1767268870.0,'','','','m','digest',X'0000803F000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',3,0.75,'{"schema": "facestream.sighting.v1", "event_id": "f9217835d1b2f7c315098326c3981f7e", "type": "updated", "camera_id": "door", "track_id": "7", "sighting_id": "door_2026-03-01T08:30:00.123Z_7", "identity_id": "p-1", "identity_name": "Zo\u00eb \u00c5ngstr\u00f6m", "similarity": "0.71", "threshold": "0.35", "margin": "0.4", "quality": "0.8", "box": "1,2.5,33.25,44", "frame_size": "1920,1080", "captured_at": "2026-03-01T08:30:01.500Z", "started_at": "2026-03-01T08:30:00.123Z", "ended_at": "", "pts_s": "0", "model_id": "vggface2-resnet50", "gallery_version": "3", "worker_id": "worker-a", "epoch": "0", "unknown_id": "", "embedded_faces": "0", "zones": "", "groups": ""}','{"faces": 5, "largest_px": 0.0, "least_px": 0.0, "rejected": {"blurred": 2}, "embedded": 3, "continued_by": [], "nearest": "", "similarity": null, "runner_up": "", "runner_up_similarity": null, "threshold": null, "threshold_group": "", "reason": "below_threshold"}',0,1.79588078117860507967e+09,4.94948078117860507975e+09);
INSERT INTO "sightings" VALUES('door_2','yard',1767268920.0,1767268930.0,'4f1c','Zoë O''Hara','','m','digest',NULL,3,NULL,'{"schema": "facestream.sighting.v1", "event_id": "f9217835d1b2f7c315098326c3981f7e", "type": "updated", "camera_id": "door", "track_id": "7", "sighting_id": "door_2026-03-01T08:30:00.123Z_7", "identity_id": "p-1", "identity_name": "Zo\u00eb \u00c5ngstr\u00f6m", "similarity": "0.71", "threshold": "0.35", "margin": "0.4", "quality": "0.8", "box": "1,2.5,33.25,44", "frame_size": "1920,1080", "captured_at": "2026-03-01T08:30:01.500Z", "started_at": "2026-03-01T08:30:00.123Z", "ended_at": "", "pts_s": "0", "model_id": "vggface2-resnet50", "gallery_version": "3", "worker_id": "worker-a", "epoch": "0", "unknown_id": "", "embedded_faces": "0", "zones": "", "groups": ""}','{"faces": 5, "largest_px": 0.0, "least_px": 0.0, "rejected": {"blurred": 2}, "embedded": 3, "continued_by": [], "nearest": "", "similarity": null, "runner_up": "", "runner_up_similarity": null, "threshold": null, "threshold_group": "", "reason": "below_threshold"}',1,1.79588078117860507967e+09,4.94948078117860507975e+09);
INSERT INTO "sightings" VALUES('door_3','door',1767268980.0,1767268990.0,'','','u-1','m','digest',X'00000000000000000000803F00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',3,0.75,'{"schema": "facestream.sighting.v1", "event_id": "f9217835d1b2f7c315098326c3981f7e", "type": "updated", "camera_id": "door", "track_id": "7", "sighting_id": "door_2026-03-01T08:30:00.123Z_7", "identity_id": "p-1", "identity_name": "Zo\u00eb \u00c5ngstr\u00f6m", "similarity": "0.71", "threshold": "0.35", "margin": "0.4", "quality": "0.8", "box": "1,2.5,33.25,44", "frame_size": "1920,1080", "captured_at": "2026-03-01T08:30:01.500Z", "started_at": "2026-03-01T08:30:00.123Z", "ended_at": "", "pts_s": "0", "model_id": "vggface2-resnet50", "gallery_version": "3", "worker_id": "worker-a", "epoch": "0", "unknown_id": "", "embedded_faces": "0", "zones": "", "groups": ""}','{"faces": 5, "largest_px": 0.0, "least_px": 0.0, "rejected": {"blurred": 2}, "embedded": 3, "continued_by": [], "nearest": "", "similarity": null, "runner_up": "", "runner_up_similarity": null, "threshold": null, "threshold_group": "", "reason": "below_threshold"}',0,1.79588078117860507967e+09,4.94948078117860507975e+09);
INSERT INTO "sightings" VALUES('door_4','door',1767269040.0,1767269050.0,'4f1c','Zoë O''Hara','','m','digest',X'0000803F000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',3,0.75,'{"schema": "facestream.sighting.v1", "event_id": "f9217835d1b2f7c315098326c3981f7e", "type": "updated", "camera_id": "door", "track_id": "7", "sighting_id": "door_2026-03-01T08:30:00.123Z_7", "identity_id": "p-1", "identity_name": "Zo\u00eb \u00c5ngstr\u00f6m", "similarity": "0.71", "threshold": "0.35", "margin": "0.4", "quality": "0.8", "box": "1,2.5,33.25,44", "frame_size": "1920,1080", "captured_at": "2026-03-01T08:30:01.500Z", "started_at": "2026-03-01T08:30:00.123Z", "ended_at": "", "pts_s": "0", "model_id": "vggface2-resnet50", "gallery_version": "3", "worker_id": "worker-a", "epoch": "0", "unknown_id": "", "embedded_faces": "0", "zones": "", "groups": ""}','{"faces": 5, "largest_px": 0.0, "least_px": 0.0, "rejected": {"blurred": 2}, "embedded": 3, "continued_by": [], "nearest": "", "similarity": null, "runner_up": "", "runner_up_similarity": null, "threshold": null, "threshold_group": "", "reason": "below_threshold"}',0,1.79588078117860507967e+09,4.94948078117860507975e+09);
CREATE TABLE spent_keys (
	tag TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	PRIMARY KEY (tag)
);
CREATE TABLE tallies (
	camera_id TEXT NOT NULL, 
	hour INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	tracks INTEGER NOT NULL, 
	faces INTEGER NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	PRIMARY KEY (camera_id, hour, reason)
)
 WITHOUT ROWID

;
INSERT INTO "tallies" VALUES('door',490908,'too_small',2,31,4.94948078117860507975e+09);
CREATE TABLE unknowns (
	unknown_id TEXT NOT NULL, 
	model_id TEXT NOT NULL, 
	preprocessing TEXT NOT NULL, 
	template BLOB, 
	evidence DOUBLE NOT NULL, 
	first_seen_s DOUBLE NOT NULL, 
	last_seen_s DOUBLE NOT NULL, 
	revision BIGINT NOT NULL, 
	recorded_s DOUBLE NOT NULL, 
	expires_s DOUBLE NOT NULL, 
	ignored INTEGER DEFAULT 0 NOT NULL, 
	PRIMARY KEY (unknown_id)
);
INSERT INTO "unknowns" VALUES('u-1','m','digest',X'00000000000000000000803F00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',2.0,1767268800.0,1767268980.0,1,1.79588078117860507967e+09,4.94948078117860507975e+09,0);
INSERT INTO "unknowns" VALUES('u-2','m','digest',NULL,2.0,1767268800.0,1767268800.0,3,1.79588078117860507967e+09,4.94948078117860507975e+09,0);
CREATE INDEX sightings_by_person ON sightings (identity_id, started_s);
CREATE INDEX sightings_by_unknown ON sightings (unknown_id, started_s);
CREATE INDEX sightings_by_time ON sightings (started_s);
CREATE INDEX unknowns_by_revision ON unknowns (revision);
CREATE UNIQUE INDEX console_accounts_by_subject ON console_accounts (provider, subject) WHERE provider != '';
CREATE UNIQUE INDEX console_tokens_by_digest ON console_tokens (digest);
CREATE INDEX console_alerts_by_due ON console_alerts (state, due_s);
COMMIT;
