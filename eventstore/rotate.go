package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// rewrapChunk is how many data keys are rewrapped in one transaction.
const rewrapChunk = 1000

// RewrapKeys wraps every data key that another key-encryption key than the
// primary wrapped with the primary, while appends go on. It can be interrupted
// at any moment and goes on where it stopped when called again. It returns how
// many it rewrapped, and calls progress, when not nil, after each chunk.
//
// It returns once a whole pass over the streams has found nothing to do, so
// that what instances wrapped with the former primary, before they noticed the
// new one, is rewrapped too.
func (s *Store) RewrapKeys(ctx context.Context, progress func(done int64)) (done int64, err error) {
	primary := s.cfg.Keys.Primary()
	for pass := int64(-1); pass != 0; {
		pass = 0
		for last := ""; ; {
			var n int
			if last, n, err = s.rewrapSome(ctx, primary, last); err != nil {
				return done, fmt.Errorf("eventstore: rewrapping data keys: %w", err)
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
	return done, nil
}

// rewrapSome rewraps the next keys behind stream last. It locks their heads in
// order, as a flush does.
func (s *Store) rewrapSome(ctx context.Context, primary, last string) (next string, n int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT stream, kek, data_key FROM streams
			WHERE stream > $1 AND kek <> $2
			ORDER BY stream LIMIT $3 FOR UPDATE`, last, primary, rewrapChunk)
		if err != nil {
			return err
		}
		var (
			stream, kek      string
			wrapped          []byte
			streams, newKeks []string
			newKeys          [][]byte
		)
		_, err = pgx.ForEachRow(rows, []any{&stream, &kek, &wrapped}, func() error {
			key, err := s.cfg.Keys.Unwrap(stream, kek, wrapped)
			if err != nil {
				return err
			}
			newKek, newKey := s.cfg.Keys.Wrap(stream, key)
			streams, newKeks, newKeys = append(streams, stream), append(newKeks, newKek), append(newKeys, newKey)
			return nil
		})
		if err != nil || len(streams) == 0 {
			return err
		}
		next, n = streams[len(streams)-1], len(streams)
		_, err = tx.Exec(ctx, `
			UPDATE streams s SET kek = v.kek, data_key = v.data_key
			FROM unnest($1::text[], $2::text[], $3::bytea[]) AS v (stream, kek, data_key)
			WHERE s.stream = v.stream`, streams, newKeks, newKeys)
		return err
	})
	return next, n, err
}

// KeyUse counts the data keys that each key-encryption key wraps. A key that
// wraps none can be taken out of the key file.
func (s *Store) KeyUse(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT kek, count(*) FROM streams WHERE kek IS NOT NULL GROUP BY kek`)
	if err != nil {
		return nil, fmt.Errorf("eventstore: counting keys: %w", err)
	}
	use := make(map[string]int64)
	for _, id := range s.cfg.Keys.IDs() {
		use[id] = 0
	}
	var (
		kek string
		n   int64
	)
	_, err = pgx.ForEachRow(rows, []any{&kek, &n}, func() error { use[kek] = n; return nil })
	if err != nil {
		return nil, fmt.Errorf("eventstore: counting keys: %w", err)
	}
	return use, nil
}
