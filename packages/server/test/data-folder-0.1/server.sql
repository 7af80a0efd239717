-- server.db of TOMAAT 0.1.0 after a kill: a job in every state, a key, a session, an upload in part and a whole one. What expires does so in 2100.
BEGIN TRANSACTION;
CREATE TABLE api_key (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        made_by TEXT NOT NULL CHECK (made_by IN ('operator', 'program')),
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        revoked_ms INTEGER
      , max_jobs INTEGER, per_day INTEGER) STRICT;
INSERT INTO "api_key" VALUES('abcdefghij',X'F451890BEB4B1EDBF50CF204BDF7FF6AF1DAA4B3BBC899068A29602CFF6DB9C7','Dr. Rossi','predict','operator',1795699776903,NULL,NULL,9,100);
CREATE TABLE created_on (
        owner TEXT NOT NULL,
        day INTEGER NOT NULL,
        jobs INTEGER NOT NULL,
        PRIMARY KEY (owner, day)
      ) STRICT;
INSERT INTO "created_on" VALUES('key:abcdefghij',20783,5);
CREATE TABLE duration (id INTEGER PRIMARY KEY, service TEXT NOT NULL, seconds REAL NOT NULL, voxels INTEGER) STRICT;
INSERT INTO "duration" VALUES(1,'good',0.0500665280000012,12);
CREATE TABLE job (
        id TEXT PRIMARY KEY, service TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
        attempt INTEGER NOT NULL, owner TEXT NOT NULL, request TEXT NOT NULL,
        idempotency_key TEXT, fingerprint TEXT, created_ms INTEGER NOT NULL, started_ms INTEGER,
        settled_ms INTEGER, expires_ms INTEGER, error TEXT, urgency INTEGER NOT NULL DEFAULT 3, lost INTEGER NOT NULL DEFAULT 0, worker TEXT, receipt TEXT) STRICT;
INSERT INTO "job" VALUES('dsbD0OXvAvWaBMovbpLo3w','good','succeeded',1,'key:abcdefghij','{"parameters":{},"stem":"volume","voxels":12}','"k-good-1"','acaf317690601e79565e2efd716f14799e02082ef993900f4a7652897e967837',1795699778436,1795699778479,1795699781015,4102444800000,NULL,3,0,NULL,'{"kind":"tomaat-receipt/1","notice":"For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision.","job":"dsbD0OXvAvWaBMovbpLo3w","state":"succeeded","server":{"software":"tomaat","version":"0.1.0"},"service":{"id":"good","version":"1.0.0","manifest":"sha256:80cd5897b04f52c78514c27454c5d92701b1da02e25065ace8e78616cb750f41","models":[{"runtime":"module"}]},"acceptedTime":"2026-11-26T13:29:38.436Z","startedTime":"2026-11-26T13:29:38.479Z","settledTime":"2026-11-26T13:29:41.015Z","inputs":[{"name":"volume","sizeBytes":179,"received":"sha256:9daf74c85986d9a39de7d847dca95b8ca05fba7d778d7e5e184ad5510e6f90dc","stored":"sha256:9daf74c85986d9a39de7d847dca95b8ca05fba7d778d7e5e184ad5510e6f90dc"}],"parameters":{},"outputs":[{"name":"segmentation","type":"LabelVolume","format":"mha","primary":true,"sizeBytes":324,"digest":"sha256:c94bbb9fcb2f8b349ed6e134bfec06d64d1519f08b9836940304e20b17c4cbc3"}],"retention":{"inputs":"deleted when the prediction was settled","results":"deleted with this receipt at the time below, or before at the caller’s wish","resultsDeletedTime":"2026-11-26T14:29:41.015Z"},"audit":{"sequence":2,"sha256":"d51876d5db885e90dfb0ceebdf9c05abf4b795dbce3cd9fa33b15f0c78b7aa75"}}');
INSERT INTO "job" VALUES('qTJOGGJoY5Qu97mFkka8YQ','bad','failed',1,'key:abcdefghij','{"parameters":{},"stem":"volume","voxels":12}','"k-bad-2"','9bee425185605c4fd5c73db83d97d491318f055b3a327b68ec95e840192a7231',1795699781111,1795699781115,1795699784066,4102444800000,'{"code":"APP_FAILED","message":"The app failed in its infer stage: it does not work"}',3,0,NULL,'{"kind":"tomaat-receipt/1","notice":"For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision.","job":"qTJOGGJoY5Qu97mFkka8YQ","state":"failed","error":"APP_FAILED","server":{"software":"tomaat","version":"0.1.0"},"service":{"id":"bad","version":"1.0.0","manifest":"sha256:9d3af0104b3a75a5f01b66a6eb07013a8d3c594b14ae8e045657cc39682c0dd4","models":[{"runtime":"module"}]},"acceptedTime":"2026-11-26T13:29:41.111Z","startedTime":"2026-11-26T13:29:41.115Z","settledTime":"2026-11-26T13:29:44.066Z","inputs":[{"name":"volume","sizeBytes":179,"received":"sha256:1005d007352974a2a4afe04de726fc9b24de7539334d4361206341891527a142","stored":"sha256:1005d007352974a2a4afe04de726fc9b24de7539334d4361206341891527a142"}],"parameters":{},"outputs":[],"retention":{"inputs":"deleted when the prediction was settled","results":"deleted with this receipt at the time below, or before at the caller’s wish","resultsDeletedTime":"2026-11-26T14:29:44.066Z"},"audit":{"sequence":4,"sha256":"ef60119bcf3124eb8a93844b69a40a290dd8c57f014d728ac33e79461f57f541"}}');
INSERT INTO "job" VALUES('wwtSk82IVMQVTbZjw6hBdA','slow','canceled',1,'key:abcdefghij','{"parameters":{},"stem":"volume","voxels":12}','"k-slow-3"','4a9de79420b6afca9dbd8476e42f29e7dc953e87f632a8b1f77876f481788978',1795699784170,1795699784184,1795699787261,4102444800000,'{"code":"CANCELED","message":"The job was cancelled."}',3,0,NULL,'{"kind":"tomaat-receipt/1","notice":"For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision.","job":"wwtSk82IVMQVTbZjw6hBdA","state":"canceled","error":"CANCELED","server":{"software":"tomaat","version":"0.1.0"},"service":{"id":"slow","version":"1.0.0","manifest":"sha256:a4eddbe2c5e8ea699a9560039b02a8c7c9be0e53c55c7143f46610c793573e61","models":[{"runtime":"module"}]},"acceptedTime":"2026-11-26T13:29:44.170Z","startedTime":"2026-11-26T13:29:44.184Z","settledTime":"2026-11-26T13:29:47.261Z","inputs":[{"name":"volume","sizeBytes":179,"received":"sha256:dfeb8aaf2b0b79b0f2c1852d60e7a1c25a3ff0496128f486ab233f25cc825cd9","stored":"sha256:dfeb8aaf2b0b79b0f2c1852d60e7a1c25a3ff0496128f486ab233f25cc825cd9"}],"parameters":{},"outputs":[],"retention":{"inputs":"deleted when the prediction was settled","results":"deleted with this receipt at the time below, or before at the caller’s wish","resultsDeletedTime":"2026-11-26T14:29:47.261Z"},"audit":{"sequence":6,"sha256":"66399944afc35b7b77e1694893b13ab1695faa164bae5aa444351d706093608a"}}');
INSERT INTO "job" VALUES('wNzgdDOiIPS0f8oG_gZwiA','slow','running',1,'key:abcdefghij','{"parameters":{},"stem":"volume","voxels":12}','"k-slow-4"','0d3d6ec4454a7d8087034d6ec2a5db840404bdbc7ac2100eb7cfd1ee5ce6834e',1795699787323,1795699787366,NULL,NULL,NULL,3,0,NULL,NULL);
INSERT INTO "job" VALUES('scUeWcjKKs-1-8TqiX0TBg','good','queued',0,'key:abcdefghij','{"parameters":{},"stem":"volume","voxels":12}','"k-good-5"','589d6c46e00df13dddd5c9c18092a475536359147d9ffd5b5ea901124793c2a4',1795699790468,NULL,NULL,NULL,NULL,3,0,NULL,NULL);
CREATE TABLE job_input (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, position INTEGER NOT NULL, name TEXT NOT NULL,
        file_name TEXT NOT NULL, digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, received TEXT, PRIMARY KEY (job, position)) STRICT;
INSERT INTO "job_input" VALUES('wNzgdDOiIPS0f8oG_gZwiA',0,'volume','volume','sha256:f6853bb92b0f24bbcf1d1800608bc38e128114a272fb6443942bc9beaf10facd',179,NULL);
INSERT INTO "job_input" VALUES('scUeWcjKKs-1-8TqiX0TBg',0,'volume','volume','sha256:4a3941fe3e2d6df59e3e8f98d491e68e1142bdfcb583da99e54bbcbfe0f48fb4',179,NULL);
CREATE TABLE job_output (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, attempt INTEGER NOT NULL, position INTEGER NOT NULL,
        name TEXT NOT NULL, type TEXT NOT NULL, label TEXT NOT NULL, is_primary INTEGER NOT NULL, format TEXT NOT NULL,
        digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, PRIMARY KEY (job, name)) STRICT;
INSERT INTO "job_output" VALUES('dsbD0OXvAvWaBMovbpLo3w',1,0,'segmentation','LabelVolume','segmentation',1,'mha','sha256:c94bbb9fcb2f8b349ed6e134bfec06d64d1519f08b9836940304e20b17c4cbc3',324);
CREATE TABLE session (
        hash BLOB PRIMARY KEY,
        owner TEXT NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        key_id TEXT,
        basis TEXT,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        CHECK ((key_id IS NULL) <> (basis IS NULL))
      ) STRICT;
INSERT INTO "session" VALUES(X'D7E83E28A04B537E64424546B14CAF9B67BAD2F28DABCE68116E0D372319FA00','oidc:https://login.hospital.example|anna','Anna Bianchi','predict',NULL,'b',1795699776913,4102444800000,4102444800000);
CREATE TABLE tomaat_migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, applied_at TEXT NOT NULL) STRICT;
INSERT INTO "tomaat_migration" VALUES(1,'jobs','2026-11-26T13:29:36.779Z');
INSERT INTO "tomaat_migration" VALUES(2,'job queue','2026-11-26T13:29:36.800Z');
INSERT INTO "tomaat_migration" VALUES(3,'uploads','2026-11-26T13:29:36.812Z');
INSERT INTO "tomaat_migration" VALUES(4,'keys','2026-11-26T13:29:36.822Z');
INSERT INTO "tomaat_migration" VALUES(5,'key limits','2026-11-26T13:29:36.832Z');
INSERT INTO "tomaat_migration" VALUES(6,'jobs a day','2026-11-26T13:29:36.854Z');
INSERT INTO "tomaat_migration" VALUES(7,'sessions','2026-11-26T13:29:36.880Z');
INSERT INTO "tomaat_migration" VALUES(8,'receipts','2026-11-26T13:29:36.895Z');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, size_bytes INTEGER NOT NULL, offset_bytes INTEGER NOT NULL,
        expected TEXT, digest TEXT, file_name TEXT, metadata TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT;
INSERT INTO "upload" VALUES('S9OwKUcv3-iFUAqeAtXEPA','key:abcdefghij',179,12,NULL,NULL,'scan.mha','filename c2Nhbi5taGE=',4102444800000);
INSERT INTO "upload" VALUES('dVgu3TC0HVaXSS5a9lyjsw','key:abcdefghij',179,179,'sha256:c5364aa2f33b123cf52144e992b17980478de40f7bc7ff57a1bb3293f8c049ef','sha256:c5364aa2f33b123cf52144e992b17980478de40f7bc7ff57a1bb3293f8c049ef','scan.mha','filename c2Nhbi5taGE=',4102444800000);
CREATE UNIQUE INDEX job_idempotency ON job (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_queue ON job (created_ms) WHERE state = 'queued';
CREATE INDEX job_expiry ON job (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX job_input_digest ON job_input (digest);
CREATE INDEX job_output_digest ON job_output (digest);
CREATE INDEX duration_service ON duration (service, id);
CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL;
CREATE INDEX upload_expiry ON upload (expires_ms);
CREATE INDEX session_owner ON session (owner, used_ms);
COMMIT;
