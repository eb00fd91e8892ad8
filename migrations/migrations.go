// Package migrations holds the numbered SQL that makes Muster's database, and
// runs it.
//
// There is no way down: a log that only grows has no use for one, and a
// downward step that drops a table drops facts. What a migration got wrong, a
// later one mends.
package migrations

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// FS holds the SQL files.
//
//go:embed *.sql
var FS embed.FS

// ServiceRole is the database role that the running service acts under. It
// cannot change or delete events, nor alter a table.
const ServiceRole = "muster_service"

// Up brings the database at url up to date. Any number of processes may call
// it at once: they queue on a session lock, and the first one does the work.
// The role in url must own the tables and be allowed to create ServiceRole,
// or an administrator must have created that role and granted it.
func Up(ctx context.Context, url string) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("migrations: the database URL is not usable: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, FS,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return nil
}
