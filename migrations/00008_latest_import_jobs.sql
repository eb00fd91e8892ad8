-- The operator's console lists the latest jobs of all organisations, once a
-- second while somebody looks. No Down section: the product's tables only go
-- forward.

-- +goose Up

CREATE INDEX import_jobs_latest ON import_jobs (started_at DESC, id);
