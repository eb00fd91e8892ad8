package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// rewrapChunk is how many keys are rewrapped in one transaction.
const rewrapChunk = 1000

// keyHolder is a pair of columns that hold what a key-encryption key wrapped.
// Every such pair of the database has to be here: a key is free only when none
// of them names it.
type keyHolder struct {
	// table's rows are told apart by id; prefix and id are what Wrap was given
	// as the stream.
	table, id, prefix string
	// kek is the column with the key-encryption key's id, key the one with
	// what it wrapped.
	kek, key string
}

// holders are all of them: the subjects' data keys, and the secrets of webhooks,
// the present and the former one.
var holders = []keyHolder{
	{table: "streams", id: "stream", kek: "kek", key: "data_key"},
	{table: "webhooks", id: "id", prefix: WebhookPrefix, kek: "secret_kek", key: "secret"},
	{table: "webhooks", id: "id", prefix: WebhookPrefix, kek: "previous_kek", key: "previous"},
}

// WebhookPrefix and a webhook's id are what its secrets are wrapped for.
const WebhookPrefix = SystemPrefix + "webhook-"

// RewrapKeys wraps with the primary everything that another key-encryption key
// wrapped, data keys and webhooks' secrets, while appends go on. It can be
// interrupted at any moment and goes on where it stopped when called again. It
// returns how many it rewrapped, and calls progress, when not nil, after each
// chunk.
//
// It returns once a whole pass over all holders has found nothing to do, so
// that what instances wrapped with the former primary, before they noticed the
// new one, is rewrapped too.
func (s *Store) RewrapKeys(ctx context.Context, progress func(done int64)) (done int64, err error) {
	primary := s.cfg.Keys.Primary()
	for pass := int64(-1); pass != 0; {
		pass = 0
		for _, h := range holders {
			for last := ""; ; {
				var n int
				if last, n, err = s.rewrapSome(ctx, h, primary, last); err != nil {
					return done, fmt.Errorf("eventstore: rewrapping keys in %s: %w", h.table, err)
				}
				if n == 0 {
					break
				}
				pass += int64(n)
				done += int64(n)
				if progress != nil {
					progress(done)
				}
			}
		}
	}
	return done, nil
}

// rewrapSome rewraps a holder's next keys behind the row last. It locks the
// rows in order, as a flush locks the heads of streams.
func (s *Store) rewrapSome(ctx context.Context, h keyHolder, primary, last string) (next string, n int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			SELECT %[2]s, %[3]s, %[4]s FROM %[1]s
			WHERE %[2]s > $1 AND %[3]s <> $2
			ORDER BY %[2]s LIMIT $3 FOR UPDATE`, h.table, h.id, h.kek, h.key), last, primary, rewrapChunk)
		if err != nil {
			return err
		}
		var (
			id, kek      string
			wrapped      []byte
			ids, newKeks []string
			newKeys      [][]byte
		)
		_, err = pgx.ForEachRow(rows, []any{&id, &kek, &wrapped}, func() error {
			key, err := s.cfg.Keys.Unwrap(h.prefix+id, kek, wrapped)
			if err != nil {
				return err
			}
			newKek, newKey := s.cfg.Keys.Wrap(h.prefix+id, key)
			ids, newKeks, newKeys = append(ids, id), append(newKeks, newKek), append(newKeys, newKey)
			return nil
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		next, n = ids[len(ids)-1], len(ids)
		_, err = tx.Exec(ctx, fmt.Sprintf(`
			UPDATE %[1]s t SET %[3]s = v.kek, %[4]s = v.key
			FROM unnest($1::text[], $2::text[], $3::bytea[]) AS v (id, kek, key)
			WHERE t.%[2]s = v.id`, h.table, h.id, h.kek, h.key), ids, newKeks, newKeys)
		return err
	})
	return next, n, err
}

// KeyUse counts what each key-encryption key wraps: data keys, and webhooks'
// secrets. A key that wraps nothing can be taken out of the key file.
func (s *Store) KeyUse(ctx context.Context) (map[string]int64, error) {
	use := make(map[string]int64)
	for _, id := range s.cfg.Keys.IDs() {
		use[id] = 0
	}
	for _, h := range holders {
		rows, err := s.pool.Query(ctx, fmt.Sprintf(`SELECT %[2]s, count(*) FROM %[1]s WHERE %[2]s IS NOT NULL GROUP BY %[2]s`, h.table, h.kek))
		if err != nil {
			return nil, fmt.Errorf("eventstore: counting keys in %s: %w", h.table, err)
		}
		var (
			kek string
			n   int64
		)
		if _, err = pgx.ForEachRow(rows, []any{&kek, &n}, func() error { use[kek] += n; return nil }); err != nil {
			return nil, fmt.Errorf("eventstore: counting keys in %s: %w", h.table, err)
		}
	}
	return use, nil
}
