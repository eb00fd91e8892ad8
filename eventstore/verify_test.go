package eventstore_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// TestVerifyFindsDamage damages a log as its owner could, one way at a time,
// and looks that Verify names the damage and its place.
func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct {
		sql      string
		position eventstore.Position
	}{
		"hole":          {`DELETE FROM batches WHERE base = 4`, 4},
		"overlap":       {`UPDATE batches SET n = n + 1 WHERE base = 4`, 7},
		"count":         {`UPDATE batches SET n = n + 1 WHERE base = 7`, 7},
		"unbound":       {`INSERT INTO events SELECT 999999, 0, slice, stream, 9, id, type, schema, org, actor, at, data, sealed FROM events WHERE sequence = 1 LIMIT 1`, 0},
		"sequence":      {`UPDATE events SET sequence = 7 WHERE stream = (SELECT stream FROM streams ORDER BY stream LIMIT 1) AND sequence = 3`, 3},
		"head":          {`UPDATE streams SET sequence = 5 WHERE stream = (SELECT stream FROM streams ORDER BY stream LIMIT 1)`, 3},
		"seal":          {`UPDATE events SET sealed = sealed || '\x00' WHERE stream = (SELECT stream FROM streams ORDER BY stream LIMIT 1) AND sequence = 1`, 1},
		"claim-missing": {`DELETE FROM claims WHERE stream = (SELECT stream FROM streams ORDER BY stream LIMIT 1)`, 0},
		"claim-orphan":  {`INSERT INTO claims VALUES (decode(repeat('ab', 32), 'hex'), 'nobody')`, 0},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := pgtest.New(t)
			s := open(t, url, keyring(t), nil)
			expected := map[string][]eventstore.Claim{}
			for range 3 { // each in a batch of its own
				a := user()
				a.Stream = fmt.Sprintf("user-%03d", serial.Add(1)) // in order of position
				expected[a.Stream] = a.Take
				must(t, s, a)
			}
			claims := func(stream string, _ []eventstore.Event) ([]eventstore.Claim, error) { return expected[stream], nil }
			if sum := sound(t, s, claims); sum.Events != 9 || sum.Streams != 3 || sum.Claims != 3 {
				t.Fatalf("%+v", sum)
			}
			admin := owner(t, url)
			if _, err := admin.Exec(t.Context(), `ALTER TABLE events DISABLE TRIGGER USER; ALTER TABLE batches DISABLE TRIGGER USER; `+c.sql); err != nil {
				t.Fatal(err)
			}
			var found []eventstore.Finding
			sum, err := s.Verify(t.Context(), eventstore.VerifyOptions{Claims: claims}, func(f eventstore.Finding) { found = append(found, f) })
			if err != nil {
				t.Fatal(err)
			}
			if int(sum.Findings) != len(found) || !slices.ContainsFunc(found, func(f eventstore.Finding) bool {
				return f.Kind == kind && f.Position == c.position && f.String() != ""
			}) {
				t.Errorf("want %s at %d, found %v", kind, c.position, found)
			}
		})
	}
}
