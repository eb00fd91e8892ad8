package projections

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/migrations"
)

// A database in which each version had one checkpoint goes on from there, in
// ranges: nothing is applied twice or passed over, and nothing is rebuilt.
func TestOneCheckpointBecomesOneForEachRange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users, organisations)
	stop := run(t, w.Engine)
	w.do(t, domain.OrganisationStream("org1"), "org1", domain.OrganisationAdded{Name: "One"})
	for i := range 20 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users", "organisations")
	stop()
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// As it was before: what 00007_projection_ranges.sql and what came later do,
	// backwards.
	if _, err := conn.Exec(t.Context(), `
		ALTER TABLE projections ADD COLUMN epoch integer NOT NULL DEFAULT 1, ADD COLUMN position bigint NOT NULL DEFAULT 0;
		UPDATE projections p SET epoch = r.epoch, position = r.position FROM projection_ranges r WHERE r.name = p.name AND r.version = p.version;
		DROP TABLE projection_ranges, projection_members;
		DROP INDEX import_jobs_latest;
		DELETE FROM goose_db_version WHERE version_id >= 7`); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		w.do(t, userID(i), "org1", domain.PasskeyAdded{CredentialID: []byte{1}})
	}
	w.do(t, domain.OrganisationStream("org1"), "org1", domain.OrganisationRenamed{Name: "Two"})
	if err := migrations.Up(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	run(t, w.engine(t, users, organisations))
	w.settle(t, "users", "organisations")
	for m, ranges := range map[Model]int{users: 8, organisations: 1} {
		r := w.sound(t, m.Name())
		var n, first, last int
		if err := w.pool.QueryRow(t.Context(), `SELECT count(*), min(first_slice), max(last_slice) FROM projection_ranges WHERE name = $1`, m.Name()).
			Scan(&n, &first, &last); err != nil || n != ranges || n != m.ranges() || first != 0 || last != 1023 || r.Version != 1 {
			t.Errorf("%s: version %d in %d ranges, slices %d to %d, %v", m.Name(), r.Version, n, first, last, err)
		}
	}
}
