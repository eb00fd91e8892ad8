package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Finding is something wrong with the log.
type Finding struct {
	// Kind is one of "hole", "overlap", "count", "unbound", "sequence",
	// "order", "head", "seal", "claim-missing", "claim-orphan".
	Kind string
	// Position is where, when the finding has a place in the log.
	Position Position
	// Stream is whose, when the finding is about one.
	Stream string
	// Text says what, without any payload.
	Text string
}

// String gives the finding in one line.
func (f Finding) String() string {
	s := f.Kind
	if f.Position > 0 {
		s += fmt.Sprintf(" at position %d", f.Position)
	}
	if f.Stream != "" {
		s += fmt.Sprintf(" in stream %q", f.Stream)
	}
	return s + ": " + f.Text
}

// VerifyOptions says what Verify looks at.
type VerifyOptions struct {
	// Claims, when set, returns the claims that a stream must own, from all of
	// its events, opened. Without it claims are not compared.
	Claims func(stream string, events []Event) ([]Claim, error)
	// Progress, when set, is called now and then with the number of events
	// that have been checked.
	Progress func(events int64)
}

// VerifySummary counts what Verify looked at.
type VerifySummary struct {
	Head     Checkpoint
	Events   int64
	Streams  int64
	Claims   int64
	Erased   int64 // streams whose subject is erased
	Findings int64
}

// Verify walks the whole log, in one snapshot, and reports everything that is
// wrong with it:
//
//   - batches that leave a hole in the positions, or overlap, or do not hold as
//     many events as they say; events without a batch;
//   - streams whose sequences are not 1 to n in order of position, or whose head
//     says otherwise;
//   - sealed payloads that do not open although the subject is not erased;
//   - claims that a stream should own and does not, and claims that no stream
//     should own.
//
// It needs a primary; on a standby it fails, since it keeps the claims that it
// expects in a temporary table.
func (s *Store) Verify(ctx context.Context, o VerifyOptions, report func(Finding)) (VerifySummary, error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	for try := 0; try < 10 && pgconn.SafeToRetry(err); try++ { // idle connections may have been cut
		tx, err = s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	}
	if err != nil {
		return VerifySummary{}, fmt.Errorf("eventstore: verifying: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // there is nothing to keep
	v := verifier{store: s, options: o, report: report, tx: tx}
	if err := v.run(ctx); err != nil {
		return v.summary, fmt.Errorf("eventstore: verifying: %w", err)
	}
	return v.summary, nil
}

type verifier struct {
	store   *Store
	options VerifyOptions
	report  func(Finding)
	tx      pgx.Tx
	summary VerifySummary
}

func (v *verifier) found(f Finding) {
	v.summary.Findings++
	v.report(f)
}

func (v *verifier) run(ctx context.Context) error {
	var head int64
	if err := v.tx.QueryRow(ctx, sqlHead).Scan(&head); err != nil {
		return err
	}
	v.summary.Head = Checkpoint{Epoch: v.store.Epoch(), Position: Position(head)}
	if err := v.batches(ctx); err != nil {
		return err
	}
	if v.options.Claims != nil {
		if _, err := v.tx.Exec(ctx, `CREATE TEMPORARY TABLE expected_claims (hash bytea, stream text COLLATE "C") ON COMMIT DROP`); err != nil {
			return err
		}
	}
	for first := int16(0); first < Slices; first += verifySlices {
		if err := v.slices(ctx, first, first+verifySlices-1); err != nil {
			return err
		}
	}
	if v.options.Claims != nil {
		return v.claims(ctx)
	}
	return nil
}

// verifySlices is how many slices are checked at a time: with a million users
// some 8,000 streams.
const verifySlices = 8

// batches checks positions: that each batch begins where the one before ends,
// and holds the events that it says.
func (v *verifier) batches(ctx context.Context) error {
	rows, err := v.tx.Query(ctx, `
		SELECT base, should FROM (
			SELECT base, coalesce(lag(base + n) OVER (ORDER BY base), 1) AS should FROM batches
		) b WHERE base <> should ORDER BY base`)
	if err != nil {
		return err
	}
	var base, should int64
	_, err = pgx.ForEachRow(rows, []any{&base, &should}, func() error {
		kind := "hole"
		if base < should {
			kind = "overlap"
		}
		v.found(Finding{Kind: kind, Position: Position(min(base, should)), Text: fmt.Sprintf("the batch at %d should begin at %d", base, should)})
		return nil
	})
	if err != nil {
		return err
	}

	rows, err = v.tx.Query(ctx, `
		SELECT b.base, b.n, coalesce(e.n, 0)
		FROM batches b
		LEFT JOIN (SELECT batch, count(*) AS n, min(idx) AS low, max(idx) AS high FROM events GROUP BY batch) e ON e.batch = b.id
		WHERE e.n IS DISTINCT FROM b.n OR e.low <> 0 OR e.high <> b.n - 1
		ORDER BY b.base`)
	if err != nil {
		return err
	}
	var n, have int64
	_, err = pgx.ForEachRow(rows, []any{&base, &n, &have}, func() error {
		v.found(Finding{Kind: "count", Position: Position(base), Text: fmt.Sprintf("the batch says %d events and has %d, or their places are not 0 to n-1", n, have)})
		return nil
	})
	if err != nil {
		return err
	}

	rows, err = v.tx.Query(ctx, `
		SELECT stream, sequence FROM events e
		WHERE NOT EXISTS (SELECT FROM batches b WHERE b.id = e.batch)
		ORDER BY stream, sequence`)
	if err != nil {
		return err
	}
	var (
		stream   string
		sequence int64
	)
	_, err = pgx.ForEachRow(rows, []any{&stream, &sequence}, func() error {
		v.found(Finding{Kind: "unbound", Stream: stream, Text: fmt.Sprintf("sequence %d belongs to no batch: it has no position", sequence)})
		return nil
	})
	return err
}

type verifiedHead struct {
	sequence int64
	seen     bool
}

// slices checks the streams of some slices.
func (v *verifier) slices(ctx context.Context, first, last int16) error {
	rows, err := v.tx.Query(ctx, `SELECT stream, sequence, data_key IS NULL FROM streams WHERE slice BETWEEN $1 AND $2`, first, last)
	if err != nil {
		return err
	}
	heads := make(map[string]*verifiedHead)
	var (
		stream   string
		sequence int64
		erased   bool
	)
	_, err = pgx.ForEachRow(rows, []any{&stream, &sequence, &erased}, func() error {
		heads[stream] = &verifiedHead{sequence: sequence}
		v.summary.Streams++
		if erased {
			v.summary.Erased++
		}
		return nil
	})
	if err != nil {
		return err
	}

	rows, err = v.tx.Query(ctx, sqlReadSlices, first, last, int64(v.summary.Head.Position), nil)
	if err != nil {
		return err
	}
	// What is to be copied into the temporary table has to wait until the
	// connection is free.
	var expected [][]any
	_, err = v.store.collect(rows, func(events []Event) error {
		expected = append(expected, v.check(ctx, heads, events)...)
		return nil
	}, runSize)
	if err != nil {
		return err
	}
	for stream, h := range heads {
		if !h.seen {
			v.found(Finding{Kind: "head", Stream: stream, Text: fmt.Sprintf("the head says %d events and there is none", h.sequence)})
		}
	}
	if len(expected) > 0 {
		_, err = v.tx.CopyFrom(ctx, pgx.Identifier{"expected_claims"}, []string{"hash", "stream"}, pgx.CopyFromRows(expected))
	}
	return err
}

// check looks at a run of whole streams and returns the claims they should own.
func (v *verifier) check(ctx context.Context, heads map[string]*verifiedHead, events []Event) [][]any {
	v.openAll(ctx, events)
	var expected [][]any
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Stream == events[0].Stream {
			n++
		}
		own := events[:n]
		events = events[n:]
		v.stream(heads[own[0].Stream], own)
		if h := heads[own[0].Stream]; h != nil {
			h.seen = true
		}
		if v.options.Claims == nil {
			continue
		}
		claims, err := v.options.Claims(own[0].Stream, own)
		if err != nil {
			v.found(Finding{Kind: "seal", Position: own[0].Position, Stream: own[0].Stream, Text: "its events do not decode: " + err.Error()})
			continue
		}
		for _, c := range claims {
			hash := v.store.cfg.Keys.ClaimHash(c)
			expected = append(expected, []any{hash[:], own[0].Stream})
		}
	}
	if v.options.Progress != nil {
		v.options.Progress(v.summary.Events)
	}
	return expected
}

// openAll opens what it can and reports the rest.
func (v *verifier) openAll(ctx context.Context, events []Event) {
	if v.store.Open(ctx, events) == nil {
		return
	}
	for i := range events {
		if err := v.store.Open(ctx, events[i:i+1]); err != nil {
			v.found(Finding{Kind: "seal", Position: events[i].Position, Stream: events[i].Stream, Text: err.Error()})
		}
	}
}

func (v *verifier) stream(h *verifiedHead, events []Event) {
	v.summary.Events += int64(len(events))
	var before Position
	for i := range events {
		e := &events[i]
		if e.Sequence != int64(i)+1 {
			v.found(Finding{Kind: "sequence", Position: e.Position, Stream: e.Stream, Text: fmt.Sprintf("has sequence %d where %d is due", e.Sequence, i+1)})
			break
		}
		if e.Position <= before {
			v.found(Finding{Kind: "order", Position: e.Position, Stream: e.Stream, Text: fmt.Sprintf("sequence %d comes before its predecessor at %d", e.Sequence, before)})
		}
		if e.Slice != SliceOf(e.Stream) {
			v.found(Finding{Kind: "order", Position: e.Position, Stream: e.Stream, Text: fmt.Sprintf("stored under slice %d instead of %d", e.Slice, SliceOf(e.Stream))})
		}
		before = e.Position
	}
	switch last := events[len(events)-1]; {
	case h == nil:
		v.found(Finding{Kind: "head", Position: last.Position, Stream: last.Stream, Text: "the stream has no head"})
	case h.sequence != last.Sequence:
		v.found(Finding{Kind: "head", Position: last.Position, Stream: last.Stream, Text: fmt.Sprintf("the head says %d, the last event %d", h.sequence, last.Sequence)})
	}
}

// claims compares the claims that are with those that should be.
func (v *verifier) claims(ctx context.Context) error {
	if _, err := v.tx.Exec(ctx, `ANALYZE expected_claims`); err != nil {
		return err
	}
	if err := v.tx.QueryRow(ctx, `SELECT count(*) FROM claims`).Scan(&v.summary.Claims); err != nil {
		return err
	}
	rows, err := v.tx.Query(ctx, `
		SELECT coalesce(e.stream, c.stream), c.stream IS NULL, coalesce(c.stream, '')
		FROM expected_claims e
		FULL JOIN claims c ON c.hash = e.hash
		WHERE e.stream IS DISTINCT FROM c.stream`)
	if err != nil {
		return err
	}
	var (
		stream, owner string
		missing       bool
	)
	_, err = pgx.ForEachRow(rows, []any{&stream, &missing, &owner}, func() error {
		switch {
		case missing:
			v.found(Finding{Kind: "claim-missing", Stream: stream, Text: "a claim that the stream should own is not there"})
		case owner != stream:
			v.found(Finding{Kind: "claim-missing", Stream: stream, Text: fmt.Sprintf("a claim that the stream should own belongs to %q", owner)})
		default:
			v.found(Finding{Kind: "claim-orphan", Stream: stream, Text: "owns a claim that it should not"})
		}
		return nil
	})
	return err
}
