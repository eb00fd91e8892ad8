package importer

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

//go:embed sql/seen.sql
var sqlSeen string

// rehearsal prepares a dry run: what earlier calls of the same job found out is
// dropped, and a table is made for what the lines would take. The table is the
// connection's own and on disk, so that a dry run of any size takes no memory.
func (r *Run) rehearsal(ctx context.Context) error {
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `CREATE TEMPORARY TABLE import_seen (hash bytea PRIMARY KEY)`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM import_chunks WHERE job = $1`, r.id); err != nil {
			return err
		}
		r.job.Lines, r.job.Created, r.job.Updated, r.job.Skipped, r.job.Failed, r.job.Seconds, r.job.Position = 0, 0, 0, 0, 0, 0, 0
		r.job.State, r.job.Forecast = "running", forecastOf{}
		_, err := tx.Exec(ctx, sqlRecordJob, r.id, r.job.State, 0, 0, 0, 0, 0, 0, 0.0, []byte("{}"), r.jobs.Importer.Now(), nil)
		return err
	})
}

// rehearse judges a chunk's lines as if those before had been appended, and
// appends nothing. The chunks before are settled.
//
// Of a user whom the same file would have made, and another of its lines would
// update, it only says "updated": whether anything differs would take keeping
// the whole file.
func (r *Run) rehearse(ctx context.Context, c *chunk) error {
	rows := append(undecidedOf(c.rows, false), undecidedOf(c.rows, true)...)
	if len(rows) == 0 {
		return nil
	}
	rows = rows[:0]
	for i := range c.rows {
		if c.rows[i].verdict == undecided {
			rows = append(rows, &c.rows[i])
		}
	}
	if err := r.lookUp(ctx, rows); err != nil {
		return err
	}
	keys := r.jobs.Importer.Store.Keys()
	var all [][]byte
	wants := make([][][32]byte, len(rows))
	for i, w := range rows {
		for _, claim := range w.wants {
			hash := keys.ClaimHash(eventstore.Claim{Kind: "import_seen", Scope: claim.Kind + "\x00" + claim.Scope, Value: claim.Value})
			wants[i] = append(wants[i], hash)
			all = append(all, wants[i][len(wants[i])-1][:])
		}
	}
	r.connMu.Lock()
	defer r.connMu.Unlock()
	found, err := r.conn.Query(ctx, sqlSeen, all)
	if err != nil {
		return err
	}
	taken := map[[32]byte]bool{}
	hashes, err := pgx.CollectRows(found, pgx.RowTo[[]byte])
	if err != nil {
		return err
	}
	for _, h := range hashes {
		taken[[32]byte(h)] = true
	}
	var fresh [][]byte
	for i, w := range rows {
		if w.verdict != undecided {
			continue
		}
		lost := -1
		for k := range wants[i] {
			if lost < 0 && taken[wants[i][k]] {
				lost = k
			}
		}
		// As the store judges: the stream first, then the claims in order.
		if n := len(wants[i]) - 1; w.human.UserID != "" && taken[wants[i][n]] {
			lost = n
		}
		switch {
		case w.reserved != nil && w.found == "" && (lost < 0 || r.opts.OnConflict != ConflictSkip):
			w.fail(w.reserved)
		case lost >= 0 && r.opts.OnConflict == ConflictFail:
			w.fail(conflictOf(w.wants[lost]))
		case lost >= 0 && r.opts.OnConflict == ConflictSkip:
			w.verdict = skipped
		case lost >= 0:
			w.verdict = updated
		case w.found != "":
			a, err := r.decideUpdate(ctx, w)
			if err != nil && !ours(err) {
				return err
			}
			switch {
			case err != nil:
				w.fail(err)
				continue
			case a == nil:
				continue
			}
			owners, err := r.jobs.Importer.Store.Owners(ctx, a.Take)
			if err != nil {
				return err
			}
			w.verdict, w.user = updated, w.found
			for k, owner := range owners {
				if owner.Stream != "" && owner.Stream != w.found && w.verdict == updated {
					w.fail(conflictOf(domain.Claim(a.Take[k])))
					w.user = ""
				}
			}
		default:
			w.verdict, w.user = created, w.human.UserID
			for k := range wants[i] {
				taken[wants[i][k]] = true
				fresh = append(fresh, wants[i][k][:])
			}
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err = r.conn.Exec(ctx, `INSERT INTO import_seen SELECT unnest($1::bytea[]) ON CONFLICT DO NOTHING`, fresh)
	return err
}

func conflictOf(c domain.Claim) error {
	if c.Kind == "stream" {
		return errUserIDTaken
	}
	return c.ConflictError()
}
