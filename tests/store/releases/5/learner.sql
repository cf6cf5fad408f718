
PRAGMA page_size=4096;

BEGIN TRANSACTION;

DROP TABLE IF EXISTS consumed;
CREATE TABLE consumed (
    event_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL, run_id TEXT NOT NULL, iteration INTEGER NOT NULL);
INSERT INTO consumed VALUES('e1',1,'r',1);
INSERT INTO consumed VALUES('e2',2,'r',1);
CREATE INDEX consumed_by_run ON consumed (run_id, cursor);

DROP TABLE IF EXISTS requests;
CREATE TABLE requests (request_id TEXT PRIMARY KEY, content TEXT NOT NULL);

DROP TABLE IF EXISTS "rows";
CREATE TABLE rows (
    run_id TEXT NOT NULL, iteration INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run_id, iteration));
INSERT INTO "rows" VALUES('r',1,'{"run_id": "r", "iteration": 1, "policy_version": 1, "promoted": true, "proved": true, "train_reward": 0.5, "heldout_reward": 0.6, "kl": 0.1, "swap_ms": 1.0, "load_ms": 1.0, "tokens_per_second": 100.0, "seconds": 10.0, "metrics": {"tokens": 3.0}, "decision": null}');

DROP TABLE IF EXISTS runs;
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, config TEXT NOT NULL, examples TEXT NOT NULL, heldout TEXT NOT NULL,
    state TEXT NOT NULL, status TEXT NOT NULL DEFAULT '', progress TEXT NOT NULL DEFAULT '{}', checkpoint TEXT);
INSERT INTO runs VALUES('r','{"algorithm": "grpo", "iterations": 3}','[{"prompt": {"prompt_id": "p0", "messages": [{"role": "user", "content": "q"}], "reference_answer": ""}, "answers": [], "p_first_wins": null, "difficulty": null, "values": {}}]','[{"prompt": {"prompt_id": "p0", "messages": [{"role": "user", "content": "q"}], "reference_answer": ""}, "answers": [], "p_first_wins": null, "difficulty": null, "values": {}}]','STOPPED','','{"iteration": 1, "drawn": 0, "cursor": 0, "version": 1, "heldout_before": NaN, "heldout_serving": NaN, "seen": {}}','000001');

DROP TABLE IF EXISTS seen;
CREATE TABLE seen (run_id TEXT PRIMARY KEY, body TEXT NOT NULL);

COMMIT TRANSACTION;
PRAGMA application_id = 0;
PRAGMA user_version = 0;
