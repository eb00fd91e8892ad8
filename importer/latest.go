package importer

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/latest_jobs.sql
var sqlLatestJobs string

// Latest returns the latest jobs of all organisations, at most limit, the
// latest first. It is for who may look at the whole installation.
func (j *Jobs) Latest(ctx context.Context, limit int) ([]Job, error) {
	rows, err := j.Importer.Store.Pool().Query(ctx, sqlLatestJobs, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Job, error) { return scanJob(row) })
}
