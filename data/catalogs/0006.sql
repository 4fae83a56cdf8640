BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006');
CREATE TABLE embeddings (
	encoder_id INTEGER NOT NULL, 
	photo_id INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	crc BIGINT NOT NULL, 
	PRIMARY KEY (encoder_id, photo_id), 
	FOREIGN KEY(encoder_id) REFERENCES encoders (id), 
	FOREIGN KEY(photo_id) REFERENCES photos (id)
);
INSERT INTO "embeddings" VALUES(1,1,X'003C000000B80034',162966189);
CREATE TABLE encoders (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	dim INTEGER NOT NULL, 
	context_length INTEGER NOT NULL, 
	logit_scale FLOAT NOT NULL, 
	logit_bias FLOAT, crc BIGINT, 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint)
);
INSERT INTO "encoders" VALUES(1,'dir:/models/tiny','abababababababababababababababababababababababababababababababab',4,77,100.0,NULL,4100034268);
CREATE TABLE heads (
	encoder_id INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	weights BLOB NOT NULL, 
	bias FLOAT NOT NULL, 
	threshold FLOAT, 
	precision FLOAT, 
	examples INTEGER NOT NULL, 
	details TEXT, 
	trained_at DATETIME NOT NULL, 
	crc BIGINT, 
	PRIMARY KEY (encoder_id, label), 
	FOREIGN KEY(encoder_id) REFERENCES encoders (id)
);
CREATE TABLE in_flight (
	root_id INTEGER NOT NULL, 
	path BLOB NOT NULL, 
	job_id INTEGER NOT NULL, 
	alone BOOLEAN NOT NULL, 
	deaths INTEGER NOT NULL, 
	crc BIGINT, 
	PRIMARY KEY (root_id, path), 
	FOREIGN KEY(root_id) REFERENCES roots (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(16) NOT NULL, 
	pid INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	boot_id TEXT NOT NULL, 
	command TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	outcome VARCHAR(16), 
	done INTEGER NOT NULL, 
	total INTEGER, 
	crc BIGINT
);
CREATE TABLE labels (
	photo_id INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	source VARCHAR(16) NOT NULL, 
	encoder_id INTEGER, 
	probability FLOAT, 
	score FLOAT, 
	created_at DATETIME NOT NULL, crc BIGINT, run_id INTEGER REFERENCES runs (id), rejected BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (photo_id, label, source), 
	FOREIGN KEY(photo_id) REFERENCES photos (id), 
	FOREIGN KEY(encoder_id) REFERENCES encoders (id)
);
INSERT INTO "labels" VALUES(1,'cat','zero-shot',1,0.75,0.25,'2023-12-01 10:00:00.000000',1634799900,NULL,0);
INSERT INTO "labels" VALUES(1,'animal','file',NULL,NULL,NULL,'2026-11-21 15:23:42.161383',296386202,NULL,0);
INSERT INTO "labels" VALUES(1,'animal/cat','file',NULL,NULL,NULL,'2026-11-21 15:23:42.161397',144852992,NULL,0);
INSERT INTO "labels" VALUES(1,'a cat','zero-shot',1,0.75,0.25,'2026-11-21 15:23:42.200771',2703013572,NULL,0);
CREATE TABLE photos (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	root_id INTEGER NOT NULL, 
	path BLOB NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	content_hash BLOB NOT NULL, 
	format VARCHAR(16) NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	orientation INTEGER NOT NULL, 
	taken_at DATETIME, 
	taken_offset_s INTEGER, 
	taken_at_source VARCHAR(8), 
	camera TEXT, 
	lens TEXT, 
	latitude FLOAT, 
	longitude FLOAT, 
	gone_at DATETIME, 
	seq BIGINT NOT NULL, ctime_ns BIGINT, checked_at DATETIME, crc BIGINT, rating INTEGER, reader INTEGER, 
	CONSTRAINT photo_place UNIQUE (root_id, path), 
	FOREIGN KEY(root_id) REFERENCES roots (id)
);
INSERT INTO "photos" VALUES(1,1,X'747269702F6361742E6A7067',1234,1700000000000000000,X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F','jpeg',640,480,1,'2023-11-14 22:13:20.000000',3600,'exif','Canon EOS 5D',NULL,48.1,11.5,NULL,2,NULL,NULL,2057415875,4,1);
CREATE TABLE pictures (
	photo_id INTEGER NOT NULL, 
	method INTEGER NOT NULL, 
	hash BLOB NOT NULL, 
	sharpness FLOAT NOT NULL, 
	quality INTEGER, 
	crc BIGINT, 
	PRIMARY KEY (photo_id), 
	FOREIGN KEY(photo_id) REFERENCES photos (id)
);
INSERT INTO "pictures" VALUES(1,1,X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F',0.5,90,2055719653);
CREATE TABLE roots (
	id INTEGER NOT NULL, 
	path BLOB NOT NULL, file_system TEXT, crc BIGINT, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "roots" VALUES(1,X'2F70686F746F73',NULL,1555870894);
CREATE TABLE runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(16) NOT NULL, 
	started_at DATETIME NOT NULL, 
	encoder_id INTEGER, 
	label_set TEXT, 
	templates TEXT, 
	details TEXT, 
	undone_at DATETIME, 
	crc BIGINT, 
	FOREIGN KEY(encoder_id) REFERENCES encoders (id)
);
CREATE TABLE sidecars (
	photo_id INTEGER NOT NULL, 
	name BLOB NOT NULL, 
	"before" BLOB, 
	after_hash BLOB NOT NULL, 
	tags TEXT NOT NULL, 
	crc BIGINT, 
	PRIMARY KEY (photo_id, name), 
	FOREIGN KEY(photo_id) REFERENCES photos (id)
);
CREATE TABLE skips (
	root_id INTEGER NOT NULL, 
	path BLOB NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	decoder TEXT NOT NULL, 
	reason VARCHAR(32) NOT NULL, 
	detail TEXT NOT NULL, ctime_ns BIGINT, crc BIGINT, 
	PRIMARY KEY (root_id, path), 
	FOREIGN KEY(root_id) REFERENCES roots (id)
);
INSERT INTO "skips" VALUES(1,X'747269702F6261642E6A7067',10,1600000000000000000,'pillow 12.3','decode_error','cut off',NULL,3291900214);
CREATE TABLE state (
	id INTEGER NOT NULL, 
	uuid VARCHAR(36) NOT NULL, 
	seq BIGINT NOT NULL, 
	purge_seq BIGINT NOT NULL, 
	encoder_id INTEGER, format INTEGER DEFAULT '3' NOT NULL, min_reader INTEGER DEFAULT '3' NOT NULL, generation INTEGER, generation_seq BIGINT, generation_hash VARCHAR(64), schema_crc BIGINT, crc BIGINT, 
	PRIMARY KEY (id), 
	CONSTRAINT one_row CHECK (id = 1)
);
INSERT INTO "state" VALUES(1,'6a1c2f5e-0000-4000-8000-000000000002',6,0,1,3,3,NULL,NULL,NULL,3622666412,3420406618);
CREATE TABLE verdicts (
	photo_id INTEGER NOT NULL, 
	label TEXT NOT NULL, 
	run_id INTEGER NOT NULL, 
	accepted BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	crc BIGINT, 
	PRIMARY KEY (photo_id, label, run_id), 
	FOREIGN KEY(photo_id) REFERENCES photos (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);
CREATE INDEX photo_content ON photos (content_hash);
CREATE INDEX photo_size ON photos (size_bytes);
CREATE INDEX photo_taken_at ON photos (taken_at);
CREATE INDEX state_unsealed ON state (id) WHERE crc IS NULL;
CREATE INDEX roots_unsealed ON roots (id) WHERE crc IS NULL;
CREATE INDEX photos_unsealed ON photos (id) WHERE crc IS NULL;
CREATE INDEX encoders_unsealed ON encoders (id) WHERE crc IS NULL;
CREATE INDEX skips_unsealed ON skips (root_id) WHERE crc IS NULL;
CREATE INDEX labels_unsealed ON labels (photo_id) WHERE crc IS NULL;
CREATE INDEX jobs_unsealed ON jobs (id) WHERE crc IS NULL;
CREATE INDEX in_flight_unsealed ON in_flight (root_id) WHERE crc IS NULL;
CREATE INDEX photo_gone ON photos (gone_at) WHERE gone_at IS NOT NULL;
CREATE INDEX photo_camera ON photos (camera, taken_at) WHERE camera IS NOT NULL;
CREATE INDEX photo_position ON photos (latitude, longitude) WHERE latitude IS NOT NULL;
CREATE INDEX photo_seq ON photos (seq);
CREATE INDEX pictures_unsealed ON pictures (photo_id) WHERE crc IS NULL;
CREATE INDEX verdict_run ON verdicts (run_id);
CREATE INDEX verdict_label ON verdicts (label);
CREATE INDEX label_name ON labels (label, photo_id) WHERE NOT rejected;
CREATE INDEX label_rejected ON labels (photo_id) WHERE rejected;
CREATE INDEX runs_unsealed ON runs (id) WHERE crc IS NULL;
CREATE INDEX verdicts_unsealed ON verdicts (photo_id) WHERE crc IS NULL;
CREATE INDEX sidecars_unsealed ON sidecars (photo_id) WHERE crc IS NULL;
CREATE INDEX heads_unsealed ON heads (encoder_id) WHERE crc IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('photos',1);
COMMIT;
